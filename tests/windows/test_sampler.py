import gzip
from bisect import bisect
from itertools import accumulate, combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.regions import Region, merge_regions
from mutbert.windows.randomness import START, STRAND, random_bits
from mutbert.windows.sampler import Part, Places, RegionSet, WindowSampler, genome_name, select_regions, split_genomes

GENOMES = st.lists(st.lists(st.text("ACGTRN", min_size=1, max_size=40), min_size=1, max_size=3), min_size=1, max_size=3)


def whole(genome):
    return Part(genome, select_regions(genome, list(genome.contigs)))


def valid_places(genomes, parts, length):
    """Every start, found one base at a time, in the order of the genomes and their contigs."""
    return [
        (number, list(genome).index(region.contig), start)
        for number, (genome, part) in enumerate(zip(genomes, parts, strict=True))
        for region in part.regions
        for start in range(region.start, region.end - length + 1)
        if "N" not in genome[region.contig][start : start + length]
    ]


def listed(places):
    return list(zip(*(array.tolist() for array in places), strict=True))


@given(GENOMES, st.integers(1, 8), st.integers(0, 100), st.floats(0, 1))
def test_windows_come_from_exactly_the_valid_starts(make_genome, sequences, length, seed, reverse):
    genomes = [{f"c{number}": sequence for number, sequence in enumerate(one)} for one in sequences]
    parts = [whole(make_genome(contigs)) for contigs in genomes]
    expected = valid_places(genomes, parts, length)
    if not expected:
        with pytest.raises(InputError, match=f"no stretch of {length} known bases in .*; choose shorter windows"):
            WindowSampler(parts, length, seed=seed, reverse=reverse)
        return
    sampler = WindowSampler(parts, length, seed=seed, reverse=reverse)
    assert sampler.valid_starts == len(expected)
    index = np.arange(60 * len(expected))
    places = sampler.places(index)
    assert {kind.dtype for kind in places[:3]} == {np.dtype(np.int64)}
    assert places.reverse_B.dtype == bool
    drawn = [place[:3] for place in listed(places)]
    assert set(drawn) == set(expected)
    # Each is the one that its random number falls on.
    unit = (random_bits(seed, START, index, 1)[:, 0] >> np.uint64(11)) / 2**53
    assert drawn == [expected[int(one * len(expected))] for one in unit.tolist()]
    strand = (random_bits(seed, STRAND, index, 1)[:, 0] >> np.uint64(11)) / 2**53
    assert places.reverse_B.tolist() == (strand < reverse).tolist()
    # What is read there is what the sequences say, N never being among it.
    some = Places(*(array[:20] for array in places))._replace(reverse_B=np.zeros(len(index[:20]), bool))
    assert [alphabet.decode(codes) for codes in sampler.read(some).base_BL] == [
        list(genomes[genome].values())[contig][start : start + length] for genome, contig, start in drawn[:20]
    ]
    assert sampler.contig_names(some) == [f"c{contig}" for _, contig, _ in drawn[:20]]


@given(st.lists(st.text("ACGTRN", min_size=20, max_size=40), min_size=1, max_size=3), st.integers(1, 6), st.data())
def test_each_set_of_a_mixture_has_its_share_of_windows_centred_in_it(make_genome, sequences, length, data):
    contigs = {f"c{number}": sequence for number, sequence in enumerate(sequences)}
    genome = make_genome(contigs)
    every = [Region(name, *ends) for name, one in contigs.items() for ends in combinations(range(len(one) + 1), 2)]
    regions, short = st.sampled_from(every), st.sampled_from([region for region in every if len(region) < 4])
    sets = data.draw(st.lists(st.tuples(regions, st.floats(0.1, 9)), min_size=1, max_size=3))
    holes = data.draw(st.lists(short, min_size=1, max_size=2))
    expected = [
        [
            (0, number, start)
            for number, (name, sequence) in enumerate(contigs.items())
            for start in range(len(sequence) - length + 1)
            if "N" not in sequence[start : start + length] and (name, start + length // 2) in bases([region])
            and not bases([Region(name, start, start + length)]) & bases(holes)
        ]
        for region, _ in sets
    ]  # fmt: skip
    assume(any(expected))
    train = [RegionSet(bed=str(region), weight=weight) for region, weight in sets]
    parts, _ = split_genomes([genome], train, [*map(str, holes)])
    if lacking := [one.bed for one, found in zip(train, expected, strict=True) if not found]:
        with pytest.raises(
            InputError, match=rf"\A{lacking[0]}: no window of {length} bases[^\n]* centred in it; choose"
        ):
            WindowSampler(parts, length, seed=3)
        parts, train, expected = zip(*(row for row in zip(parts, train, expected, strict=True) if row[2]), strict=True)
    sampler, index = WindowSampler(parts, length, seed=3), np.arange(200)
    edges = [0, *accumulate(one.weight for one in train)]
    for bit, place in zip(random_bits(3, START, index, 1)[:, 0].tolist(), listed(sampler.places(index)), strict=True):
        unit = (bit >> 11) / 2**53 * edges[-1]
        number = bisect(edges, unit) - 1
        share = (unit - edges[number]) / train[number].weight
        assert place[:3] == expected[number][int(share * len(expected[number]))]


# ---- which parts are trained on and held out

LENGTHS = {"chr1": 100, "chr2": 40}


@pytest.fixture(scope="module")
def human(make_genome):
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


@given(st.lists(entries(), max_size=4), st.lists(entries(), max_size=4))
def test_both_sides_have_their_bases_and_share_none(human, train, held_out):
    wanted, holes = (set().union(*(meant for _, meant in side)) for side in (train, held_out))
    texts = [[text for text, _ in side] for side in (train, held_out)]
    if wanted & holes:
        with pytest.raises(InputError, match="train and held_out share bases in chr"):
            split_genomes([human], *texts)
        return
    parts_of_both = split_genomes([human], *texts)
    if not train:
        wanted = bases([Region(name, 0, length) for name, length in LENGTHS.items()]) - holes
    for parts, meant in zip(parts_of_both, (wanted, holes), strict=True):
        assert len(parts) == bool(meant)
        for part in parts:
            assert part.genome is human
            assert part.regions == merge_regions(part.regions, LENGTHS)
            assert bases(part.regions) == meant


def test_entries_that_do_not_fit_are_refused(human, mouse):
    with pytest.raises(InputError, match="share bases in chr7:1-20; take them out of one of the two, or leave train"):
        split_genomes([human, mouse], ["human:chr1", "chr7"], ["mouse:chr1", "mouse:chr7:20"])
    with pytest.raises(InputError, match="two genomes are called human; rename one store"):
        split_genomes([human, human], [], ["human:chr1"])
    for entry in ("chr7", "chr7:1-10", "human:chr7", "mouse:chr1"):
        with pytest.raises(InputError, match="no such contig"):
            split_genomes([human], [], [entry])
    with pytest.raises(InputError, match="not within chr1:1-100"):
        split_genomes([human], ["human:chr1:90-101"], [])


def test_entries_go_to_the_genome_that_they_name_or_that_alone_has_them(human, mouse, tmp_path):
    regions = tmp_path / "some.bed"
    regions.write_text("chr1\t0\t10\n")
    more = tmp_path / "more.bed.gz"
    more.write_bytes(gzip.compress(b"chr7\t5\t10\n"))
    train, held_out = split_genomes(
        [human, mouse],
        ["chr2:1-10", "human:1:21-30", f"mouse:{regions}", "mouse:human"],
        ["chr7:1", f"mouse:{more}", "human:chr1:31-40"],
    )
    assert train == [
        Part(human, [Region("chr1", 20, 30), Region("chr2", 0, 10)]),
        Part(mouse, [Region("chr1", 0, 10), Region("human", 0, 4)]),
    ]
    assert held_out == [
        Part(human, [Region("chr1", 30, 40)]),
        Part(mouse, [Region("chr7", 0, 1), Region("chr7", 5, 10)]),
    ]
    # Without any for training, the rest; a genome that nothing is left of has no part.
    train, _ = split_genomes([mouse, human], [], ["human:chr1", "chr2", "mouse:chr1:11-20", "chr7"])
    assert train == [Part(mouse, [Region("chr1", 0, 10), Region("chr1", 20, 60), Region("human", 0, 4)])]


def test_a_mixture_of_several_genomes_is_without_what_is_held_out(human, mouse, tmp_path):
    exons = tmp_path / "exons.bed"
    exons.write_text("chr1\t20\t24\nchr1\t28\t34\nchr2\t0\t6\n")
    train = [RegionSet(bed=f"human:{exons}"), RegionSet(bed="mouse:chr1", weight=3), RegionSet(bed="chr2")]
    parts, held_out = split_genomes([human, mouse], train, ["human:chr1:31-40", "chr7"])
    assert held_out == [Part(human, [Region("chr1", 30, 40)]), Part(mouse, [Region("chr7", 0, 20)])]
    sampler = WindowSampler(parts, 10, seed=0)
    places = sampler.places(np.arange(500))
    found = {*zip(places.genome_B.tolist(), sampler.contig_names(places), places.start_B.tolist(), strict=True)}
    # Windows of ten bases, around exons that are shorter, not over the end of a contig or into what is held out.
    assert {start for genome, name, start in found if (genome, name) == (0, "chr1")} == {15, 16, 17, 18}
    assert {name for genome, name, _ in found if genome == 1} == {"chr1"}
    assert sampler.facts() == {
        f"trained on human:{exons}": "20.0% of windows, 12 bases, with no window around 7 of them; 4 more are held out",
        "trained on mouse:chr1": "60.0% of windows, 60 bases, with no window around 9 of them; 0 more are held out",
        "trained on chr2": "20.0% of windows, 40 bases, with no window around 9 of them; 0 more are held out",
    }


def test_an_entry_that_is_not_clear_is_refused(human, mouse):
    more, none = (f"{what} of the genomes has it" for what in ("more than one", "none"))
    # Chromosome 2 is too short for the last but one.
    entries = {"chr1": more, "some.bed": more, "yeast:chr1": none, "chr2:30-41": none, "human:": none}
    for entry, said in entries.items():
        with pytest.raises(InputError) as caught:
            split_genomes([human, mouse], [], [entry])
        remedy = f"put the name of one before it, for example human:{entry} (there are human, mouse)"
        assert str(caught.value) == f"{entry}: {said}; {remedy}"


@pytest.mark.parametrize("name", ["chr22.genome", "22.genome"])
@pytest.mark.parametrize("contig", ["chr22", "22"])
def test_a_genome_that_is_called_as_its_contig(make_genome, tmp_path, name, contig):
    genome = make_genome({contig: "ACGT" * 10}, name=name)
    bed = tmp_path / "some.bed"
    bed.write_text("chr22\t30\t40\n")
    train, held_out = split_genomes([genome], ["chr22:1-10", "22:21"], [f"{genome_name(genome)}:{bed}"])
    assert train == [Part(genome, [Region(contig, 0, 10), Region(contig, 20, 21)])]
    assert held_out == [Part(genome, [Region(contig, 30, 40)])]
