import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.regions import Region
from mutbert.windows.sampler import Part, genome_name, select_regions, split_genomes

LENGTHS = {"chr1": 100, "chr2": 40}


@pytest.fixture(scope="module")
def genome(make_genome):
    return make_genome({name: "ACGT" * (length // 4) for name, length in LENGTHS.items()}, name="human.genome")


@pytest.fixture(scope="module")
def mouse(make_genome):
    return make_genome({"chr1": "ACGT" * 15, "chr7": "ACGT" * 5, "human": "ACGT"}, name="mouse.genome")


def bases(regions):
    return {(region.contig, place) for region in regions for place in range(region.start, region.end)}


def entries():
    """An entry, and the bases that it means."""
    return st.sampled_from(list(LENGTHS)).flatmap(
        lambda contig: st.tuples(
            st.just(contig), st.integers(1, LENGTHS[contig]), st.integers(1, LENGTHS[contig]), st.integers(0, 4)
        ).map(lambda some: as_entry(*some))
    )


def as_entry(contig, one, other, kind):
    first, last = sorted((one, other))
    name = contig if kind % 2 else contig.removeprefix("chr")
    if kind == 4:
        return name, bases([Region(contig, 0, LENGTHS[contig])])
    return f"{name}:{first}-{last}", bases([Region(contig, first - 1, last)])


def check_form(regions):
    """In the genome's order, none empty, none touching the next."""
    keys = [(list(LENGTHS).index(region.contig), region.start, region.end) for region in regions]
    assert keys == sorted(keys)
    assert all(region.start < region.end for region in regions)
    assert all(a[0] < b[0] or a[2] < b[1] for a, b in itertools.pairwise(keys))


@given(st.lists(entries(), max_size=5))
def test_regions_are_the_bases_of_the_entries(genome, some):
    regions = select_regions(genome, [text for text, _ in some])
    check_form(regions)
    assert bases(regions) == set().union(*(meant for _, meant in some))


@given(st.lists(entries(), max_size=4), st.lists(entries(), max_size=4))
def test_both_sides_have_their_bases_and_share_none(genome, train, held_out):
    wanted, holes = (set().union(*(meant for _, meant in side)) for side in (train, held_out))
    texts = [[text for text, _ in side] for side in (train, held_out)]
    if wanted & holes:
        with pytest.raises(InputError, match="train and held_out share bases in chr"):
            split_genomes([genome], *texts)
        return
    split = split_genomes([genome], *texts)
    if not train:
        wanted = bases([Region(name, 0, length) for name, length in LENGTHS.items()]) - holes
    for parts, meant in ((split.train, wanted), (split.held_out, holes)):
        assert len(parts) == bool(meant)
        for part in parts:
            assert part.genome is genome
            check_form(part.regions)
            assert bases(part.regions) == meant


def test_a_base_on_both_sides_is_refused(genome, mouse):
    with pytest.raises(InputError) as caught:
        split_genomes([genome], ["chr1:1-50", "chr2"], ["chr1:50-60"])
    assert str(caught.value) == (
        "train and held_out share bases in chr1:1-50; take them out of one of the two, or leave train empty to train "
        "on all that is not held out"
    )
    split = split_genomes([genome], ["chr1:1-50"], ["chr1:51-60", "chr2"])
    assert split.train == [Part(genome, [Region("chr1", 0, 50)])]
    with pytest.raises(InputError, match="share bases in chr7:1-20"):
        split_genomes([genome, mouse], ["human:chr1", "chr7"], ["mouse:chr1", "mouse:chr7:20"])
    # The same place of another genome is another place.
    split = split_genomes([genome, mouse], ["human:chr1"], ["mouse:chr1"])
    assert split == ([Part(genome, [Region("chr1", 0, 100)])], [Part(mouse, [Region("chr1", 0, 60)])])


def test_an_unknown_contig_is_refused(genome):
    for entry in ("chr7", "chr7:1-10", "human:chr7", "mouse:chr1"):
        with pytest.raises(InputError, match="no such contig"):
            split_genomes([genome], [], [entry])
        with pytest.raises(InputError, match="no such contig"):
            split_genomes([genome], [entry], [])
    with pytest.raises(InputError, match="not within chr1:1-100"):
        split_genomes([genome], ["human:chr1:90-101"], [])


def test_entries_go_to_the_genome_that_they_name_or_that_alone_has_them(genome, mouse, tmp_path):
    regions = tmp_path / "some.bed"
    regions.write_text("chr1\t0\t10\n")
    more = tmp_path / "more.bed.gz"
    more.write_bytes(gzip.compress(b"chr7\t5\t10\n"))
    split = split_genomes(
        [genome, mouse],
        ["chr2:1-10", "human:1:21-30", f"mouse:{regions}", "mouse:human"],
        ["chr7:1", f"mouse:{more}", "human:chr1:31-40"],
    )
    assert split.train == [
        Part(genome, [Region("chr1", 20, 30), Region("chr2", 0, 10)]),
        Part(mouse, [Region("chr1", 0, 10), Region("human", 0, 4)]),
    ]
    assert split.held_out == [
        Part(genome, [Region("chr1", 30, 40)]),
        Part(mouse, [Region("chr7", 0, 1), Region("chr7", 5, 10)]),
    ]


def test_of_several_genomes_all_that_is_not_held_out_is_trained_on(genome, mouse):
    split = split_genomes([mouse, genome], [], ["human:chr1", "chr2", "mouse:chr1:11-20"])
    # A genome that nothing is left of has no part.
    assert split.train == [
        Part(mouse, [Region("chr1", 0, 10), Region("chr1", 20, 60), Region("chr7", 0, 20), Region("human", 0, 4)])
    ]
    assert split.held_out == [
        Part(mouse, [Region("chr1", 10, 20)]),
        Part(genome, [Region("chr1", 0, 100), Region("chr2", 0, 40)]),
    ]
    assert split_genomes([mouse, genome], ["chr7"], []) == ([Part(mouse, [Region("chr7", 0, 20)])], [])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("chr1", "more than one of the genomes has it"),
        ("1:1-10", "more than one of the genomes has it"),
        ("some.bed", "more than one of the genomes has it"),
        ("chr9", "none of the genomes has it"),
        ("yeast:chr1", "none of the genomes has it"),
        # Too long for the mouse, but human.
        ("chr2:30-41", "none of the genomes has it"),
        ("human:", "none of the genomes has it"),
    ],
)
def test_an_entry_that_is_not_clear_is_refused(genome, mouse, entry, said):
    for train, held_out in (([entry], []), ([], [entry])):
        with pytest.raises(InputError) as caught:
            split_genomes([genome, mouse], train, held_out)
        assert str(caught.value) == (
            f"{entry}: {said}; put the name of one before it, for example human:{entry} (there are human, mouse)"
        )


@pytest.mark.parametrize("name", ["chr22.genome", "22.genome"])
@pytest.mark.parametrize("contig", ["chr22", "22"])
def test_a_genome_that_is_called_as_its_contig(make_genome, tmp_path, name, contig):
    genome = make_genome({contig: "ACGT" * 10}, name=name)
    bed = tmp_path / "some.bed"
    bed.write_text("chr22\t30\t40\n")
    split = split_genomes([genome], ["chr22:1-10", "22:21"], [f"{genome_name(genome)}:{bed}"])
    assert split.train == [Part(genome, [Region(contig, 0, 10), Region(contig, 20, 21)])]
    assert split.held_out == [Part(genome, [Region(contig, 30, 40)])]


def test_two_genomes_of_one_name_are_refused(genome, make_genome):
    other = make_genome({"chr5": "ACGT"}, name="human")
    with pytest.raises(InputError) as caught:
        split_genomes([genome, other], [], ["chr5"])
    assert str(caught.value) == "two genomes are called human; rename one store"
    with pytest.raises(InputError, match="two genomes are called human"):
        split_genomes([genome, genome], [], ["human:chr1"])
