"""Genomes on disk and in memory against plain strings and lists, however they are asked for."""

import json
import multiprocessing
import pickle
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, alphabet
from mutbert.errors import InputError
from mutbert.genome.format import ARRAYS, FORMAT_VERSION, FREQUENCY_ONE, MANIFEST, SOFT_MASK, find_runs, float_to_fixed

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower()
# N, ambiguous codes and cases next to each other are what goes wrong first; long runs cross bytes and windows.
STRETCHES = st.one_of(
    st.text("ACGT", min_size=1, max_size=40),
    st.text(LETTERS, min_size=1, max_size=9),
    st.tuples(st.sampled_from(LETTERS), st.integers(1, 90)).map(lambda run: run[0] * run[1]),
)
SEQUENCES = st.lists(STRETCHES, min_size=1, max_size=5).map("".join)


@st.composite
def genomes(draw):
    """Letters by contig, and frequencies of A, C, G, T by contig and position; the last base often varies."""
    contigs = {f"chr{number}": draw(SEQUENCES) for number in range(draw(st.integers(1, 4)))}
    weights = st.lists(st.integers(1, 9), min_size=4, max_size=4).map(lambda some: [one / sum(some) for one in some])
    variants = {
        name: draw(st.dictionaries(st.integers(0, len(letters) - 1) | st.just(len(letters) - 1), weights, max_size=6))
        # Rows of contigs may come in any order, as builds with several workers wrote them.
        for name, letters in draw(st.permutations([*contigs.items()]))
    }
    return contigs, variants


def in_memory(contigs, variants):
    """The same as `write_genome`, without files."""
    masks = (find_runs(np.array([*map(str.islower, letters)], np.uint8), SOFT_MASK) for letters in contigs.values())
    rows = ((name, alphabet.encode(contigs[name]), mask) for name, mask in zip(contigs, masks, strict=True))
    fixed = {
        name: (np.array(sorted(some)), float_to_fixed(np.array([some[one] for one in sorted(some)]).reshape(-1, 4)))
        for name, some in variants.items()
    }
    return ProbabilisticGenome.from_sequences(rows, "x.fa").with_variants(fixed)


def check_everything(genome, contigs, variants, draw, length):
    """Compare all that reads with the letters, one by one; every window of every contig, in any order."""
    dense = {name: alphabet.DISTRIBUTIONS[alphabet.encode(letters)] for name, letters in contigs.items()}
    for name, some in variants.items():
        for position, frequency in some.items():
            dense[name][position] = frequency
    assert genome.lengths == {name: len(letters) for name, letters in contigs.items()}
    assert genome.has_soft_mask == any(map(str.islower, "".join(contigs.values())))
    lower = {name: [letter.islower() for letter in letters] for name, letters in contigs.items()}
    for name, letters in contigs.items():
        start = draw(st.integers(0, len(letters)))
        end = draw(st.integers(start, len(letters)))
        assert genome.sequence(name, start, end) == letters[start:end].upper()
        assert alphabet.encode(letters[start:end]).tolist() == genome.bases(name, start, end).tolist()
        np.testing.assert_allclose(genome.frequencies(name, start, end), dense[name][start:end], atol=1 / FREQUENCY_ONE)
        whole = genome[name]
        assert np.array_equal(genome[name, start:end], whole[start:end])
        assert np.array_equal(genome[name, start - len(letters) : end], whole[start - len(letters) : end])
        assert np.array_equal(genome[f"{name}:{start + 1}-{end}"] if start < end else whole[:0], whole[start:end])
        assert genome.soft_masked(name, start, end).tolist() == lower[name][start:end]
        read = genome.variants(name, start, end)
        assert read.position.tolist() == [one for one in sorted(variants.get(name, {})) if start <= one < end]
        assert alphabet.decode(read.reference) == "".join(letters[one].upper() for one in read.position)
        np.testing.assert_allclose(read.frequency, dense[name][read.position], atol=1 / FREQUENCY_ONE)
        known = {one for a, b in genome.known_runs(name, start, end) for one in range(a, b)}
        assert known == {one for one in range(start, end) if letters[one] not in "Nn"}

    names = list(contigs)
    wanted = [(number, start) for number, name in enumerate(names) for start in range(len(contigs[name]) - length + 1)]
    wanted = [wanted[one] for one in np.random.default_rng(length).permutation(len(wanted))]
    contig_B, start_B = np.array(wanted, dtype=np.int64).reshape(-1, 2).T
    windows = genome.windows(contig_B, start_B, length)
    masked_BL = genome.soft_masked_windows(contig_B, start_B, length)
    assert windows.base_BL.shape == masked_BL.shape == (len(wanted), length)
    rows = []
    for row, (number, start) in enumerate(wanted):
        name = names[number]
        assert alphabet.decode(windows.base_BL[row]) == contigs[name][start : start + length].upper()
        assert masked_BL[row].tolist() == lower[name][start : start + length]
        rows += [(row, one - start) for one in sorted(variants.get(name, {})) if start <= one < start + length]
    assert list(zip(windows.row_N.tolist(), windows.column_N.tolist(), strict=True)) == rows
    assert (windows.frequency_N4.sum(axis=1, dtype=int) == FREQUENCY_ONE).all()
    if wanted:
        expected = np.stack([dense[names[number]][start : start + length] for number, start in wanted])
        np.testing.assert_allclose(windows.distributions(), expected, atol=1 / FREQUENCY_ONE)


@given(genomes(), st.integers(0, 70), st.data())
def test_every_read_returns_what_was_written(tmp_path_factory, write_genome, genome, length, data):
    contigs, variants = genome
    folder = write_genome(tmp_path_factory.mktemp("store"), contigs, variants)
    stored = ProbabilisticGenome.open(folder, check=True)
    some = {
        name: (read.position, float_to_fixed(read.frequency)) for name in contigs for read in [stored.variants(name)]
    }
    # The reference of a store with its own variants is the same again.
    for one in (stored, in_memory(contigs, variants), stored.reference().with_variants(some)):
        check_everything(one, contigs, variants, data.draw, length)
    check_everything(stored.reference(), contigs, {}, data.draw, length)
    shutil.rmtree(folder)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda row: sum(row) > 1e-6), max_size=20))
def test_fixed_point_rows_sum_exactly_and_stay_within_one_unit(rows):
    frequency = np.array(rows, dtype=float).reshape(-1, 4)
    frequency /= frequency.sum(axis=1, keepdims=True)
    fixed = float_to_fixed(frequency)
    assert np.all(fixed.sum(axis=1, dtype=int) == FREQUENCY_ONE)
    assert np.all(np.abs(fixed / FREQUENCY_ONE - frequency) < 1 / FREQUENCY_ONE)


@pytest.fixture
def store(tmp_path, write_genome):
    variants = {"chr1": {1: [0.5, 0.5, 0, 0]}}
    return write_genome(tmp_path / "x.genome", {"chr1": "ACGTN" * 20, "chrM": "ACgt"}, variants)


def test_contigs_are_found_under_either_naming(store):
    genome = ProbabilisticGenome.open(store)
    assert (genome.contig("1").name, genome.contig("MT").name) == ("chr1", "chrM")
    assert [genome.sequence("1", 0, 5), genome.sequence("MT"), genome.sequence("chrM", 2)] == ["ACGTN", "ACGT", "GT"]
    assert repr(genome).endswith("x.genome': contigs 2, bases 104, variants 1>")
    assert re.findall("<td>(.*?)</td>", genome._repr_html_())[3:6] == ["&quot;chr1&quot;", "100", "1"]
    assert genome["M:2-3"].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    for wrong in (1, slice(0, 9, 3)):
        with pytest.raises(InputError, match=r"genome\['chr1', 100:200\]"):
            genome["chr1", wrong]
    changed = genome.with_variants({"1": (np.array([2]), float_to_fixed(np.array([[0.5, 0, 0.5, 0]])))})
    assert changed.variants("chr1").position.tolist() == [2]


def test_regions_outside_a_contig_are_refused(store):
    genome = ProbabilisticGenome.open(store)
    for read in (genome.sequence, genome.frequencies, genome.variants, genome.soft_masked, genome.known_runs):
        for start, end in [(-1, 5), (0, 101), (6, 5)]:
            with pytest.raises(InputError, match=r"x\.genome: chr1, .* is not within its 0 to 100"):
                read("chr1", start, end)
        with pytest.raises(InputError, match="no contig 'chr9'; there are chr1, chrM"):
            read("chr9", 0, 1)


# ---- stores that cannot be read


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_array_is_refused(store, name):
    content = (store / name).read_bytes()
    for fault, changed in {
        "cut": content[:-1],
        "longer": content + b"12345678",
        "another type": content.replace(b"u4", b"i4").replace(b"|u1'", b"|i1'").replace(b"<u2'", b"<i2'"),
        "a bit": content[:-1] + bytes([content[-1] ^ 1]),
        "gone": b"",
    }.items():
        (store / name).unlink()
        if changed:
            (store / name).write_bytes(changed)
        with pytest.raises(InputError, match=rf"{name}.*; copy or build the store again") as refusal:
            ProbabilisticGenome.open(store, check=fault == "a bit")
        assert "\n" not in str(refusal.value)


CONTIG = {"name": "x", "length": 4, "offset": 0, "ambiguity": [0, 0], "soft_mask": [0, 0], "variants": [0, 0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": FORMAT_VERSION + 1}, "install a newer mutbert"),
        ({"format": "something else"}, "does not describe a genome store"),
        ({"contigs": [{"name": "chr1"}]}, "cannot be read"),
        ({"contigs": []}, "has no contigs, or two of one name"),
        ({"contigs": [CONTIG, CONTIG]}, "has no contigs, or two of one name"),
        ({"contigs": [{**CONTIG, "name": 5}]}, "not fit"),
        ({"contigs": [{**CONTIG, "offset": -4}]}, "not fit"),
        ({"contigs": [{**CONTIG, "length": 0}]}, "not fit"),
        ({"contigs": [{**CONTIG, "length": 9999}]}, "not fit"),
        ({"contigs": [{**CONTIG, "variants": [0, 0.5]}]}, "not fit"),
        ({"contigs": [{**CONTIG, "variants": [1, 0]}]}, "not fit"),
        ({"arrays": {}}, "copy or build the store again"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(store, change, message):
    manifest = json.loads((store / MANIFEST).read_text())
    (store / MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(InputError, match=message):
        ProbabilisticGenome.open(store)


def test_what_is_no_store_is_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="no such genome store"):
            ProbabilisticGenome.open(path)
    for content in ("{", "[]", "{}", "\xff", '{"a":' * 100_000):
        (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=r"manifest\.json: cannot be read"):
            ProbabilisticGenome.open(tmp_path)


@pytest.mark.parametrize("name", ["variant_position.npy", "soft_mask.npy"])
def test_positions_past_the_end_are_refused(store, name):
    rows = np.load(store / name)
    (rows["start"] if rows.dtype.names else rows)[-1] = 10**6
    np.save(store / name, rows)
    genome = ProbabilisticGenome.open(store)
    with pytest.raises(InputError, match=rf"x\.genome/{name}: has positions past"):
        genome.variants("chr1"), genome.soft_masked("chrM", 0, 4)


# ---- a genome in another process


def read_all(genome):
    """Everything that reads, of every contig, as plain lists."""
    found = []
    for number, (name, length) in enumerate(genome.lengths.items()):
        windows = genome.windows(np.array([number]), np.array([0]), length)
        found += [genome.soft_masked(name, 0, length).tolist(), *(part.tolist() for part in windows)]
    return found


@pytest.fixture
def large(tmp_path, write_genome):
    """A genome whose arrays are larger than what says where they are."""
    variants = {"chr1": {12 * place + 4: [0.75, 0.25, 0, 0] for place in range(2000)}}
    contigs = {f"chr{number}": "acgtACGTNNnn" * 2000 for number in range(1, 4)}
    return ProbabilisticGenome.open(write_genome(tmp_path / "x.genome", contigs, variants))


def test_a_pickled_genome_is_opened_again(large, tmp_path, monkeypatch):
    expected = read_all(large)  # nothing that reading makes is pickled either
    content = pickle.dumps(large)
    assert len(content) < 2000 < sum(array.nbytes for array in large.arrays.values()) / 20
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_all, (large,)) == expected
    # A relative path is found from elsewhere.
    monkeypatch.chdir(large.path.parent)
    content = pickle.dumps(ProbabilisticGenome.open(large.path.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_all(pickle.loads(content)) == expected


def test_genomes_in_memory_are_pickled(large):
    changed = {"chr2": (np.array([3, 5]), float_to_fixed(np.full((2, 4), 0.25)))}
    sequences = ProbabilisticGenome.from_sequences([("chr2", alphabet.encode("ACGTAC"), np.empty(0, SOFT_MASK))])
    for genome in (large.reference(), large.with_variants(changed), sequences, sequences.with_variants(changed)):
        assert read_all(pickle.loads(pickle.dumps(genome))) == read_all(genome)
    assert len(pickle.dumps(large.with_variants(changed))) < 3000


def test_a_genome_that_was_replaced_is_not_taken_for_the_same(large, write_genome):
    content = pickle.dumps(large)
    write_genome(large.path, {"chr1": "ACGT"})
    with pytest.raises(InputError, match=r"x\.genome: was replaced by another genome .*; start again"):
        pickle.loads(content)
