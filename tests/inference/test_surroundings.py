"""A genome as a reference, a population or a person."""

from pathlib import Path

import numpy as np
import pytest

from mutbert import ProbabilisticGenome, Region, alphabet, build_genome
from mutbert.encoders.inputs import read_windows
from mutbert.errors import InputError
from mutbert.genome.simulate import simulate_population
from mutbert.inference.run import open_surroundings


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    return simulate_population(tmp_path_factory.mktemp("population") / "made", length=100_000, samples=8, seed=3)


@pytest.fixture(scope="module")
def genome(population):
    path = population["fasta"].parent / "all.genome"
    build_genome(population["fasta"], path, population["vcf"])
    return ProbabilisticGenome.open(path)


def distributions(windows):
    """The distributions over A, C, G, T of windows, one array each."""
    found = [alphabet.DISTRIBUTIONS[code_L[:n]] for code_L, n in zip(windows.code_NL, windows.length_N, strict=True)]
    for row, column, frequency in zip(windows.row_M, windows.column_M, windows.frequency_M4, strict=True):
        found[row][column] = frequency / np.float32(65535)
    return found


@pytest.mark.parametrize("kind", ["reference", "population", "person"])
def test_windows_of_any_lengths_are_those_of_the_genome(population, genome, tmp_path, kind):
    """A person is what the builder makes of the one sample's genotypes."""
    person = {"vcf": population["vcf"], "sample": "person5"} if kind == "person" else {}
    around = open_surroundings(genome, kind, **person)
    wanted = genome
    if kind != "population":
        sources = (population["vcf"],) if kind == "person" else ()
        more = {"sample": "person5", "min_frequency": 0} if kind == "person" else {}
        build_genome(population["fasta"], tmp_path / "alone.genome", *sources, **more)
        wanted = ProbabilisticGenome.open(tmp_path / "alone.genome")
    (name,) = genome.lengths
    length = np.tile([30, 200, 7, 30], 100)
    start = np.linspace(0, 99_800, 400).astype(np.int64)
    found = distributions(read_windows(around.genome, np.zeros(400, dtype=np.int64), start, length))
    for one, first, last in zip(found, start, start + length, strict=True):
        np.testing.assert_array_equal(one, wanted.frequencies(name, first, last))
    differing = around.count_differing([Region(name, 0, 50_000), Region(name, 50_000, 100_000)])
    assert differing == (len(wanted.variants(name).position) if kind == "person" else None)
    assert differing is None or differing > 20


def test_a_person_needs_a_file_and_a_sample_that_is_in_it(population, genome):
    for kind, more, part in (
        ("family", {}, "reference, population, person"),
        ("person", {"sample": "person1"}, "--person-vcf FILE"),
        ("population", {"vcf": Path("calls.vcf")}, "person_vcf calls.vcf is given, but .* population; choose person"),
        ("person", {"vcf": population["vcf"], "sample": "person77"}, "person77"),
    ):
        with pytest.raises(InputError, match=part):
            open_surroundings(genome, kind, **more)
