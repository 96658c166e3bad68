"""Counts of a genome against counts of its own dense rows."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mutbert.genome.build import build_genome
from mutbert.genome.export import summarise_genome
from mutbert.genome.format import FREQUENCY_ONE, SOFT_MASK
from mutbert.genome.store import ProbabilisticGenome

DOCS = Path(__file__).parent

RECORDS = [
    ("chr1", 1, "A", "G", 0.05),
    ("chr1", 2, "C", "T,A", "0.25,0.051"),
    ("chr1", 4, "T", "A", 1),
    ("chr2", 3, "A", "G", 0.5),
]


@pytest.fixture
def genome(tmp_path, write_fasta, write_vcf):
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "AcgTNNnn", "chr2": "ACR", "chr3": "nn"})
    vcf = write_vcf(tmp_path / "x.vcf", RECORDS)
    return ProbabilisticGenome.open(build_genome(fasta, tmp_path / "x.genome", vcf)["path"])


def test_everything_is_counted(genome):
    summary = summarise_genome(genome)
    assert summary["contigs"].select("name", "length", "known", "variants").rows() == [
        ("chr1", 8, 4, 3),
        ("chr2", 3, 3, 1),
        ("chr3", 2, 0, 0),
    ]
    assert summary["contigs"]["per_kilobase"].to_list() == [750, pytest.approx(1000 / 3), 0]
    assert (summary["length"], summary["known"], summary["variants"]) == (13, 7, 4)
    assert summary["contigs"]["soft_masked"].to_list() == [4, 0, 2]
    assert (summary["soft_masked"], summary["soft_masked_share"]) == (6, 6 / 13)
    assert (summary["alternates"], summary["multi_allelic"]) == (5, 1)
    # A>G and C>T against C>A and T>A; where the reference is R, there is no telling.
    assert (summary["transitions"], summary["transversions"]) == (2, 2)
    assert summary["ti_tv"] == 1
    assert summary["contigs"].select("alternates", "transitions", "transversions").rows() == [
        (4, 1 + 1, 1 + 1),
        (1, 0, 0),
        (0, 0, 0),
    ]
    assert summary["known_share"] == 7 / 13
    assert summary["bytes_on_disk"] == sum(file.stat().st_size for file in genome.path.glob("[!.]*"))
    assert summary["bytes_per_base"] == summary["bytes_on_disk"] / 13


def test_the_spectrum_has_its_upper_edges(genome):
    spectrum = summarise_genome(genome)["spectrum"]
    expected = np.zeros(20, dtype=int)
    expected[0] += 1  # 0.05
    expected[1] += 1  # 0.051
    expected[4] += 1  # 0.25
    expected[9] += 1  # 0.5
    expected[19] += 1  # 1
    assert spectrum == expected.tolist()


def test_every_kept_frequency_has_one_doubling_bin():
    """The bins double, so each holds as many of the numbers as all before it; the first has 1/65535 and 2/65535."""
    kept = np.arange(1, FREQUENCY_ONE + 1)
    code_L = np.zeros(len(kept), np.uint8)
    frequency_V4 = np.stack([FREQUENCY_ONE - kept, kept, 0 * kept, 0 * kept], axis=1).astype(np.uint16)
    genome = ProbabilisticGenome.from_sequences([("1", code_L, np.empty(0, SOFT_MASK))], path=DOCS)
    summary = summarise_genome(genome.with_variants({"1": (np.arange(len(kept)), frequency_V4)}))
    assert summary["doubling_spectrum"] == [2, *(2**power for power in range(1, 15)), 32767]
    below = np.maximum(kept - 1, 0.5) / FREQUENCY_ONE
    assert abs(np.bincount((below * 20).astype(int)) - summary["spectrum"]).max() <= 1


def test_diversity_is_the_chance_that_two_chromosomes_differ(genome):
    summary = summarise_genome(genome)
    total = 0.0
    for name, length in genome.lengths.items():
        positions = set(genome.variants(name).position.tolist())
        of_contig = 0.0
        for place, row in enumerate(genome.frequencies(name, 0, length).tolist()):
            if place in positions:
                of_contig += sum(row[a] * row[b] for a in range(4) for b in range(4) if a != b)
        one = summary["contigs"].row(by_predicate=pl.col("name") == name, named=True)
        expected = 1000 * of_contig / one["known"] if one["known"] else 0
        assert one["diversity_per_kilobase"] == pytest.approx(expected)
        total += of_contig
    assert summary["diversity_per_kilobase"] == pytest.approx(1000 * total / 7)
    frequencies = [0.05, 0.25, 0.051, 1, 0.5]
    assert summary["mean_alternate_frequency"] == pytest.approx(np.mean(frequencies), abs=1 / FREQUENCY_ONE)


def test_a_reference_alone_has_no_ratio(genome):
    summary = summarise_genome(genome.reference())
    assert (summary["ti_tv"], summary["mean_alternate_frequency"], summary["diversity_per_kilobase"]) == (None, None, 0)
    assert (
        not sum(summary["spectrum"]) + sum(summary["doubling_spectrum"]) + summary["alternates"] + summary["variants"]
    )
