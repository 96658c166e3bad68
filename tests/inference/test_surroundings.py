"""Where windows lie, and what is in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, alphabet, build_genome
from mutbert.errors import InputError
from mutbert.genome.simulate import simulate_population
from mutbert.inference.surroundings import Person, Reference, open_surroundings, place_windows, read_windows


@given(
    length=st.integers(1, 300),
    context=st.integers(1, 80),
    placement=st.sampled_from(["centred", "shared"]),
)
def test_windows_hold_their_position_and_lie_in_the_contig(length, context, placement):
    position = np.arange(length)
    start, bases = place_windows(position, np.full(length, length), context, placement)
    assert (start >= 0).all()
    assert (start + bases <= length).all()
    assert (bases == min(context, length)).all()
    assert ((start <= position) & (position < start + bases)).all()
    inner = (start > 0) & (start + bases < length)
    if placement == "centred":
        assert (position - start)[inner].tolist() == [context // 2] * int(inner.sum())
    elif context >= 4:
        assert ((position - start)[inner] >= context // 4).all()
        assert ((start + bases - 1 - position)[inner] >= context // 4).all()
        # Neighbours share: half as many windows as half contexts, and those at the ends.
        assert len(np.unique(start)) <= -(-length // (context // 2))


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    return simulate_population(tmp_path_factory.mktemp("population") / "made", length=100_000, samples=8, seed=3)


@pytest.fixture(scope="module")
def genome(population):
    path = population.fasta.parent / "all.genome"
    build_genome(population.fasta, path, population.vcf)
    return ProbabilisticGenome.open(path)


def spread(genome, count=500, length=200):
    start = np.linspace(0, next(iter(genome.lengths.values())) - length, count).astype(np.int64)
    return np.zeros(count, dtype=np.int64), start, length


def test_the_reference_has_no_distributions(genome):
    found = Reference(genome).windows(*spread(genome))
    assert len(found.row_N) == 0
    assert np.array_equal(found.base_BL, genome.windows(*spread(genome)).base_BL)


def test_a_person_is_what_a_genome_of_that_sample_alone_has(population, genome, tmp_path):
    """Built by the builder from the one sample's genotypes."""
    for sample in ("person1", "person5"):
        alone = tmp_path / f"{sample}.genome"
        build_genome(population.fasta, alone, population.vcf, sample=sample, min_frequency=0)
        expected = ProbabilisticGenome.open(alone).windows(*spread(genome)).distributions()
        person = Person(genome, population.vcf, sample)
        assert len(person) > 20
        found = person.windows(*spread(genome)).distributions()
        assert np.array_equal(found, expected)
        assert set(np.unique(found)) == {0, np.float32(32767 / 65535), np.float32(32768 / 65535), 1}


def test_windows_of_several_lengths_come_in_the_order_asked_for(genome):
    length = np.array([30, 200, 30, 7])
    start = np.array([5, 100, 50, 99_000])
    passes = read_windows(genome, np.zeros(4, dtype=np.int64), start, length)
    name = next(iter(genome.lengths))
    for row in range(4):
        expected = genome.frequencies(name, start[row], start[row] + length[row])
        found = alphabet.DISTRIBUTIONS[passes.code_NL[row, : length[row]]].copy()
        own = passes.row_M == row
        found[passes.column_M[own]] = passes.frequency_M4[own] / np.float32(65535)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "more", "part"),
    [
        ("family", {}, "reference, population, person"),
        ("person", {}, "--sample NAME"),
        ("reference", {"sample": "person1"}, "choose person"),
    ],
)
def test_what_cannot_be_is_refused(genome, kind, more, part):
    with pytest.raises(InputError, match=part):
        open_surroundings(genome, kind, **more)


def test_a_sample_that_is_not_there_is_refused(population, genome):
    with pytest.raises(InputError, match="person77"):
        open_surroundings(genome, "person", vcf=population.vcf, sample="person77")
