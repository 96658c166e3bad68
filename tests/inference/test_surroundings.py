"""Where windows lie, and what is in them."""

from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, alphabet, build_genome
from mutbert.errors import InputError
from mutbert.genome.simulate import simulate_population
from mutbert.inference.surroundings import (
    Person,
    Reference,
    count_differing,
    open_surroundings,
    place_windows,
    read_windows,
)


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
        ("person", {"sample": "person1"}, "--person-vcf FILE"),
        ("reference", {"sample": "person1"}, "sample person1 is given, but .*; choose person"),
        ("population", {"vcf": Path("calls.vcf")}, "person_vcf calls.vcf is given, but .* population; choose person"),
    ],
)
def test_what_cannot_be_is_refused(genome, kind, more, part):
    with pytest.raises(InputError, match=part):
        open_surroundings(genome, kind, **more)


def test_a_sample_that_is_not_there_is_refused(population, genome):
    with pytest.raises(InputError, match="person77"):
        open_surroundings(genome, "person", vcf=population.vcf, sample="person77")


HEADER = """##fileformat=VCFv4.2
##contig=<ID=one,length=16>
##contig=<ID=two,length=8>
##contig=<ID=other,length=8>
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tshe\the
"""
RECORDS = """one 1 A C PASS GT 0|1 1|1
one 2 C A PASS GT 0/0 1|1
one 3 G A PASS GT 0 1
one 4 T A . GT ./. 1|1
one 5 A C PASS DP 7 7
one 6 C CA PASS GT 1|1 0|0
one 7 G A low GT 1|1 0|0
one 8 T <DEL> PASS GT 1|1 0|0
one 9 A G PASS GT 1|1 0|0
one 10 A G PASS GT 1|1 0|0
two 1 G A PASS GT 1|1 0|0
two 2 A T PASS GT 0/0 0|0
other 1 G A PASS GT 1|1 0|0
"""


def calls(records):
    rows = [line.split(" ") for line in records.splitlines()]
    return HEADER + "".join(
        "\t".join([contig, position, ".", ref, alt, ".", kept, ".", *rest]) + "\n"
        for contig, position, ref, alt, kept, *rest in rows
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "ref.fa").write_text(">one\nACGTACGTACGTACGT\n>two\nGATTACAN\n")
    build_genome(folder / "ref.fa", folder / "a.genome")
    return ProbabilisticGenome.open(folder / "a.genome")


@pytest.fixture
def write(tmp_path):
    """Write calls, with an index or without."""

    def write(records, *, indexed):
        path = tmp_path / "calls.vcf"
        path.write_text(calls(records))
        return Path(pysam.tabix_index(str(path), preset="vcf", force=True)) if indexed else path

    return write


def test_what_a_person_s_records_do_not_change_is_said_in_a_person_s_words(small, write):
    # Of few records, one that differs is not yet another assembly.
    person = Person(small, write(RECORDS, indexed=False), "she")
    assert person.not_used == {
        "as the reference": 3,
        "no genotype called": 2,
        "insertion or deletion": 1,
        "filtered": 1,
        "symbolic or structural": 1,
        "reference base differs from the genome": 1,
        "contig not in the genome": 1,
    }
    assert len(person) == 3
    assert sum(person.not_used.values()) + len(person) == RECORDS.count("\n")


@pytest.mark.parametrize("indexed", [True, False])
def test_a_person_is_read_of_the_contigs_that_are_asked_for(small, write, indexed):
    wrong = RECORDS.replace("two 2 A T PASS GT 0/0", "two 2 A T PASS GT 0/7")
    vcf = write(wrong, indexed=indexed)
    person = open_surroundings(small, "person", vcf=vcf, sample="she", contigs=["one"])
    whole = Person(small, write(RECORDS, indexed=indexed), "she")
    assert person.not_used["contig not asked for"] == 2
    for start in range(16 - 4):
        place = np.array([0]), np.array([start]), 4
        assert np.array_equal(person.windows(*place).distributions(), whole.windows(*place).distributions())
    with pytest.raises(ValueError, match="were not read"):
        person.windows(np.array([0, 1]), np.array([0, 0]), 4)
    with pytest.raises(InputError, match="two:2"):
        Person(small, write(wrong, indexed=indexed), "she")


def test_positions_at_which_a_person_differs_are_counted(small, write):
    person = Person(small, write(RECORDS, indexed=True), "she")
    # They are one:1, one:9 and two:1, counted from 1.
    for stretches, number in (
        ([(0, 0, 16), (1, 0, 8)], 3),
        ([(0, 0, 1)], 1),
        ([(0, 1, 8)], 0),
        ([(0, 8, 9), (0, 8, 16), (1, 1, 8)], 2),
        ([], 0),
    ):
        assert count_differing(person, stretches) == number
    assert count_differing(Reference(small), [(0, 0, 16)]) is None


def test_reading_a_person_shows_progress_where_it_is_wanted(small, write, capsys):
    vcf = write(RECORDS, indexed=True)
    open_surroundings(small, "person", vcf=vcf, sample="he")
    assert capsys.readouterr() == ("", "")
    open_surroundings(small, "person", vcf=vcf, sample="he", progress=True)
    assert "genotypes of he: " in capsys.readouterr().err
