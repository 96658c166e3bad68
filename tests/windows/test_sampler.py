import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.regions import Region
from mutbert.windows.randomness import START, random_bits
from mutbert.windows.sampler import Part, Places, WindowSampler, select_regions

GENOMES = st.lists(st.lists(st.text("ACGTRN", min_size=1, max_size=40), min_size=1, max_size=3), min_size=1, max_size=3)
PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}
MEMBERS = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip
MEMBERS |= {base: base for base in PAIRS}


def complement(letter):
    """The code of the set of bases that pair with a code's own."""
    wanted = {PAIRS[base] for base in MEMBERS[letter]}
    return next(other for other, bases in MEMBERS.items() if set(bases) == wanted)


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


@given(GENOMES, st.integers(1, 8), st.integers(0, 100), st.booleans(), st.floats(0, 1))
def test_windows_come_from_exactly_the_valid_starts(make_genome, sequences, length, seed, cut, reverse):
    genomes = [{f"c{number}": sequence for number, sequence in enumerate(one)} for one in sequences]
    parts = [whole(make_genome(contigs)) for contigs in genomes]
    if cut:
        # Neighbours that share no base: a window lies in one of them.
        halves = [[(r.contig, r.start, len(r) // 2), (r.contig, len(r) // 2, r.end)] for p in parts for r in p.regions]
        number_of = [number for number, part in enumerate(parts) for _ in part.regions]
        for number, part in enumerate(parts):
            some = [half for n, pair in zip(number_of, halves, strict=True) if n == number for half in pair]
            parts[number] = part._replace(regions=[Region(*half) for half in some if half[1] < half[2]])
    expected = valid_places(genomes, parts, length)
    if not expected:
        with pytest.raises(InputError, match=f"no stretch of {length} known bases"):
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
    # What is read there is what the sequences say, N never being among it.
    some = Places(*(array[:20] for array in places))._replace(reverse_B=np.zeros(len(index[:20]), bool))
    assert [alphabet.decode(codes) for codes in sampler.read(some).base_BL] == [
        list(genomes[genome].values())[contig][start : start + length] for genome, contig, start in drawn[:20]
    ]
    assert sampler.contig_names(some) == [f"c{contig}" for _, contig, _ in drawn[:20]]


def test_stretches_that_are_too_short_are_named(make_genome):
    genomes = [make_genome({"a": "ACGTN" * 4}, name="one.genome"), make_genome({"b": "ACGTN" * 4}, name="two.genome")]
    with pytest.raises(InputError) as caught:
        WindowSampler([whole(genome) for genome in genomes], 5, seed=0)
    assert str(caught.value) == (
        f"{genomes[0].path}, {genomes[1].path}: no stretch of 5 known bases in a:1-20, b:1-20; choose shorter windows "
        "or other regions"
    )
    assert WindowSampler([whole(genome) for genome in genomes], 4, seed=0).valid_starts == 8


@pytest.fixture(scope="module")
def genomes(random_genome, make_genome):
    """The second has neither variants nor a soft mask."""
    return [random_genome(1, [90, 70]), make_genome({"x": "ACGTRYKM" * 9}), random_genome(2, [120])]


def sample(genomes, seed=5, length=12, reverse=0.0):
    return WindowSampler([whole(genome) for genome in genomes], length, seed=seed, reverse=reverse)


@given(st.integers(1, 3), st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_window_is_a_function_of_seed_and_index(genomes, count, seed, indices):
    order = np.array(indices)
    sampler = sample(genomes[:count], seed, reverse=0.5)
    together = sampler.places(order)
    batch, masked = sampler.read(together), sampler.soft_masked(together)
    for row, index in enumerate(indices):
        alone = sampler.places(np.array([index]))
        assert listed(alone) == listed(together)[row : row + 1]
        window = sampler.read(alone)
        np.testing.assert_array_equal(window.base_BL[0], batch.base_BL[row])
        np.testing.assert_array_equal(window.column_N, batch.column_N[batch.row_N == row])
        np.testing.assert_array_equal(window.frequency_N4, batch.frequency_N4[batch.row_N == row])
        np.testing.assert_array_equal(sampler.soft_masked(alone)[0], masked[row])
    again = pickle.loads(pickle.dumps(sampler))
    assert listed(again.places(order)) == listed(together)


@given(st.integers(1, 3), st.integers(0, 1000), st.integers(1, 40), st.sampled_from([0, 0.5, 1]))
def test_a_window_is_what_its_genome_says_on_its_strand(genomes, count, seed, length, reverse):
    sampler = sample(genomes[:count], seed, length, reverse)
    places = sampler.places(np.arange(25))
    windows, masked_BL = sampler.read(places), sampler.soft_masked(places)
    names = sampler.contig_names(places)
    kinds = (windows.base_BL.dtype, windows.frequency_N4.dtype, masked_BL.dtype)
    assert kinds == (np.uint8, np.uint16, np.bool_)
    assert (windows.base_BL.shape, masked_BL.shape) == ((25, length), (25, length))
    found = list(zip(windows.row_N.tolist(), windows.column_N.tolist(), strict=True))
    assert found == sorted(set(found))
    dense_BL4 = windows.distributions()
    expected = []
    for row, (genome, _, start, backwards) in enumerate(listed(places)):
        place = (names[row], start, start + length)
        letters = alphabet.decode(genomes[genome].bases(*place))
        columns = (genomes[genome].variants(*place).position - start).tolist()
        frequency_L4 = genomes[genome].frequencies(*place)
        masked_L = genomes[genome].soft_masked(*place)
        if backwards:
            letters = "".join(complement(letter) for letter in reversed(letters))
            columns = [length - 1 - column for column in columns]
            # Base for base, so that no one has to know which order makes complements of a row read backwards.
            order = ["ACGT".index(PAIRS[base]) for base in "ACGT"]
            frequency_L4 = np.array([[row[base] for base in order] for row in reversed(frequency_L4.tolist())])
            masked_L = masked_L[::-1]
        assert alphabet.decode(windows.base_BL[row]) == letters
        np.testing.assert_array_equal(dense_BL4[row], frequency_L4)
        np.testing.assert_array_equal(masked_BL[row], masked_L)
        expected += [(row, column) for column in columns]
    assert set(found) == set(expected)


@pytest.mark.parametrize("reverse", [0, 0.3, 0.5, 1])
def test_the_share_of_reverse_windows(genomes, reverse):
    windows = 20_000
    places = sample(genomes, reverse=reverse).places(np.arange(windows))
    deviation = np.sqrt(reverse * (1 - reverse) / windows)
    assert places.reverse_B.mean() == pytest.approx(reverse, abs=5 * deviation)
    if 0 < reverse < 1:
        # Which strand it is has nothing to do with where the window lies.
        order = np.lexsort(places[2::-1])
        for quarter in np.split(places.reverse_B[order], 4):
            assert quarter.mean() == pytest.approx(reverse, abs=5 * 2 * deviation)


def test_no_window_at_all(genomes):
    nothing = np.zeros(0, dtype=np.int64)
    for some in (genomes, genomes[:1]):
        sampler = sample(some, reverse=0.5)
        places = sampler.places(nothing)
        windows = sampler.read(places)
        assert (windows.base_BL.shape, windows.frequency_N4.shape) == ((0, 12), (0, 4))
        assert sampler.soft_masked(places).shape == (0, 12)
