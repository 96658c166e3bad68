"""The simulated population: the two files agree, repeat themselves, and have something to learn in them."""

import sys
from collections import Counter

import numpy as np
import pysam
import pytest

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.simulate import simulate_population, simulate_reference
from mutbert.genome.sources import read_fasta

pytest.importorskip("msprime")


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    return simulate_population(tmp_path_factory.mktemp("simulated") / "p", length=100_000, samples=40, seed=7)


def test_counts_and_reference_agree_with_the_genotypes(population):
    ((name, code_L, _),) = read_fasta(population["fasta"])
    assert (name, len(code_L)) == ("chr1", 100_000)
    sequence = alphabet.decode(code_L)
    positions = []
    with pysam.VariantFile(population["vcf"]) as file:
        assert len(file.header.samples) == 40
        for record in file:
            positions.append(record.pos)
            assert record.ref == sequence[record.pos - 1]
            assert record.ref not in record.alts
            assert len(set(record.alts)) == len(record.alts)
            genotypes = [call["GT"] for call in record.samples.values()]
            assert all(call.phased for call in record.samples.values())
            counts = np.bincount(np.array(genotypes).ravel(), minlength=len(record.alleles))
            assert record.info["AC"] == tuple(counts[1:])
            assert min(record.info["AC"]) > 0
            assert record.info["AN"] == 80
            np.testing.assert_allclose(record.info["AF"], counts[1:] / 80, rtol=1e-5)
        # Both files are indexed.
        part = [record.pos for record in file.fetch("chr1", 20_000, 50_000)]
    assert part == [pos for pos in positions if 20_000 < pos <= 50_000]
    assert pysam.FastaFile(str(population["fasta"])).get_reference_length("chr1") == 100_000
    assert positions == sorted(set(positions))
    assert len(positions) == population["records"]


def test_the_same_arguments_give_the_same_bytes(population, tmp_path):
    again = simulate_population(tmp_path / "again", length=100_000, samples=40, seed=7)
    other = simulate_population(tmp_path / "other", length=100_000, samples=40, seed=8)
    for name in ("ref.fa", "ref.fa.fai", "population.vcf.gz", "population.vcf.gz.tbi"):
        assert (again["path"] / name).read_bytes() == (population["path"] / name).read_bytes()
    assert (other["path"] / "ref.fa").read_bytes() != (population["path"] / "ref.fa").read_bytes()


def test_alleles_may_be_several_and_transitions_prevail(tmp_path):
    report = simulate_population(tmp_path / "p", length=1_000_000, samples=500)
    with pysam.VariantFile(report["vcf"]) as file:
        alleles = [record.alleles for record in file]
    assert any(len(one) > 2 for one in alleles)
    changes = [{ref, alt} for ref, *alts in alleles for alt in alts]
    transitions = sum(change in ({"A", "G"}, {"C", "T"}) for change in changes)
    assert 1.7 < transitions / (len(changes) - transitions) < 2.3


def test_the_reference_has_structure():
    base_L = simulate_reference(300_000, np.random.default_rng(1))
    share = np.bincount(base_L, minlength=4) / len(base_L)
    assert abs(share - [0.295, 0.205, 0.205, 0.295]).max() < 0.08
    pairs = np.bincount(base_L[:-1] * 4 + base_L[1:], minlength=16) / (len(base_L) - 1)
    assert pairs[1 * 4 + 2] < 0.5 * share[1] * share[2], "CpG is rare"
    # Of a chance sequence, hardly any 16-mer comes twice in 300 kb.
    text = alphabet.decode(base_L)
    count = Counter(text[at : at + 16] for at in range(len(text) - 15))
    assert sum(number for number in count.values() if number > 1) / len(text) > 0.05, "repeats are planted"


def test_impossible_arguments_and_a_missing_library_are_named(tmp_path, monkeypatch):
    wrong = {"length": 10, "samples": 0, "seed": -1, "mutation_rate": float("nan"), "contig": "a b"}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"{name.replace('_', ' ')} {value!r}"):
            simulate_population(tmp_path / "p", **{name: value})
    monkeypatch.setitem(sys.modules, "msprime", None)
    with pytest.raises(MissingExtraError, match=r"msprime is not installed; remedy: pip install 'mutbert\[all\]'"):
        simulate_population(tmp_path / "p")
    assert not list(tmp_path.iterdir())
