"""The store against plain arrays: whatever is written is read back, however it is asked for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.genome.format import ARRAYS
from mutbert.genome.store import (
    FORMAT_VERSION,
    FREQUENCY_ONE,
    MANIFEST,
    GenomeError,
    ProbabilisticGenome,
    StoreWriter,
    float_to_fixed,
)

# N runs and ambiguous codes next to each other are what goes wrong first.
SEQUENCES = st.text("ACGTACGTACGTNNNRY", min_size=1, max_size=90)


def write_store(directory, contigs):
    """Write contigs given as name -> (sequence, {position: distribution})."""
    with StoreWriter(directory) as writer:
        for name, (sequence, variants) in contigs.items():
            frequency = np.array([variants[p] for p in sorted(variants)], dtype=float).reshape(-1, 4)
            position = np.array(sorted(variants), dtype=np.uint32)
            writer.add_contig(name, alphabet.encode(sequence), position, float_to_fixed(frequency))
        writer.finish(settings={}, sources=[])
    return ProbabilisticGenome.open(directory)


def expected_frequencies(sequence, variants):
    dense = alphabet.DISTRIBUTIONS[alphabet.encode(sequence)]
    for position, distribution in variants.items():
        dense[position] = distribution
    return dense


@st.composite
def genomes(draw):
    contigs = {}
    for index in range(draw(st.integers(1, 4))):
        sequence = draw(SEQUENCES)
        known = [i for i, base in enumerate(sequence) if base in alphabet.BASES]
        places = draw(st.lists(st.sampled_from(known), unique=True, max_size=6)) if known else []
        variants = {}
        for place in places:
            weights = draw(st.lists(st.integers(1, 9), min_size=4, max_size=4))
            variants[place] = [weight / sum(weights) for weight in weights]
        contigs[f"chr{index + 1}"] = (sequence, variants)
    return contigs


@given(genomes(), st.data())
def test_every_read_gives_what_was_written(tmp_path_factory, contigs, data):
    genome = write_store(tmp_path_factory.mktemp("store"), contigs)
    for name, (sequence, variants) in contigs.items():
        start = data.draw(st.integers(0, len(sequence)))
        end = data.draw(st.integers(start, len(sequence)))
        assert alphabet.decode(genome.bases(name, start, end)) == sequence[start:end]
        expected = expected_frequencies(sequence, variants)
        np.testing.assert_allclose(genome.frequencies(name, start, end), expected[start:end], atol=1 / FREQUENCY_ONE)
        read = genome.variants(name, start, end)
        assert read.position.tolist() == [p for p in sorted(variants) if start <= p < end]
        assert alphabet.decode(read.reference) == "".join(sequence[p] for p in read.position)
        known = genome.known_runs(name, start, end)
        covered = {i for a, b in known for i in range(a, b)}
        assert covered == {i for i in range(start, end) if sequence[i] != "N"}


@given(genomes(), st.integers(1, 12), st.data())
def test_windows_equal_single_reads(tmp_path_factory, contigs, length, data):
    genome = write_store(tmp_path_factory.mktemp("store"), contigs)
    names = [name for name, (sequence, _) in contigs.items() if len(sequence) >= length]
    if not names:
        return
    wanted = [
        (name, data.draw(st.integers(0, len(contigs[name][0]) - length)))
        for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=8))
    ]
    order = list(genome.contigs)
    windows = genome.windows(
        np.array([order.index(name) for name, _ in wanted]), np.array([start for _, start in wanted]), length
    )
    for row, (name, start) in enumerate(wanted):
        np.testing.assert_array_equal(windows.base_BL[row], genome.bases(name, start, start + length))
        np.testing.assert_array_equal(windows.distributions()[row], genome.frequencies(name, start, start + length))
    assert windows.row_N.tolist() == sorted(windows.row_N.tolist())


@given(st.integers(0, 2**32), st.integers(1, 70))
def test_windows_at_every_start_of_every_contig(tmp_path_factory, seed, length):
    """Each phase, both ends, runs longer and shorter than a window, all in one batch of any order."""
    random = np.random.default_rng(seed)
    contigs = {}
    for index in range(3):
        stretches = [
            "".join(random.choice(list("ACGT"), size=random.integers(0, 60)))
            + "ACRN"[random.integers(4)] * int(random.integers(1, 90))
            for _ in range(random.integers(1, 5))
        ]
        sequence = "".join(stretches) + "C"
        known = [place for place, base in enumerate(sequence) if base in alphabet.BASES]
        # The first contig is without variants, and the last base of the others varies.
        places = {*random.choice(known, size=len(known) // 3), len(sequence) - 1} if index else set()
        contigs[f"chr{index}"] = (sequence, {int(place): random.dirichlet(np.ones(4)).tolist() for place in places})
    genome = write_store(tmp_path_factory.mktemp("store"), contigs)
    wanted = [
        (index, start)
        for index, (sequence, _) in enumerate(contigs.values())
        for start in range(len(sequence) - length + 1)
    ]
    wanted = [wanted[place] for place in random.permutation(len(wanted))]
    contig_B, start_B = np.array(wanted, dtype=np.int64).reshape(-1, 2).T
    windows = genome.windows(contig_B, start_B, length)
    assert windows.base_BL.shape == (len(wanted), length)
    assert windows.frequency_N4.dtype == np.uint16
    rows = []
    for row, (index, start) in enumerate(wanted):
        name = f"chr{index}"
        assert alphabet.decode(windows.base_BL[row]) == contigs[name][0][start : start + length]
        variants = genome.variants(name, start, start + length)
        fixed = (variants.frequency * FREQUENCY_ONE).round().astype(int)
        rows += [
            (row, place - start, *values)
            for place, values in zip(variants.position.tolist(), fixed.tolist(), strict=True)
        ]
    read = np.column_stack([windows.row_N, windows.column_N, windows.frequency_N4])
    assert [tuple(values) for values in read.tolist()] == rows


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda row: sum(row) > 1e-6), max_size=20))
def test_fixed_point_rows_sum_exactly_and_stay_within_one_unit(rows):
    frequency = np.array(rows, dtype=float).reshape(-1, 4)
    frequency /= frequency.sum(axis=1, keepdims=True)
    fixed = float_to_fixed(frequency)
    assert np.all(fixed.sum(axis=1, dtype=int) == FREQUENCY_ONE)
    assert np.all(np.abs(fixed / FREQUENCY_ONE - frequency) < 1 / FREQUENCY_ONE)


@pytest.fixture
def store(tmp_path):
    write_store(tmp_path, {"chr1": ("ACGTN" * 20, {1: [0.5, 0.5, 0, 0]}), "chrM": ("ACGT", {})})
    return tmp_path


def test_contigs_are_found_under_either_naming(store):
    genome = ProbabilisticGenome.open(store)
    assert genome.contig("1").name == "chr1"
    assert genome.contig("MT").name == "chrM"
    assert alphabet.decode(genome.bases("1", 0, 5)) == "ACGTN"


@pytest.mark.parametrize("name", ARRAYS)
def test_a_store_cut_short_is_refused(store, name):
    content = (store / name).read_bytes()
    (store / name).write_bytes(content[:-1])
    with pytest.raises(GenomeError, match="cut short"):
        ProbabilisticGenome.open(store)
    (store / name).unlink()
    with pytest.raises(GenomeError, match=name):
        ProbabilisticGenome.open(store)


def test_a_flipped_bit_is_found_when_asked_for(store):
    content = bytearray((store / "sequence.npy").read_bytes())
    content[-1] ^= 1
    (store / "sequence.npy").write_bytes(content)
    ProbabilisticGenome.open(store)
    with pytest.raises(GenomeError, match="damaged"):
        ProbabilisticGenome.open(store, check=True)


CONTIG = {"name": "x", "length": 4, "offset": 0, "ambiguity": [0, 0], "soft_mask": [0, 0], "variants": [0, 0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": FORMAT_VERSION + 1}, "install a newer mutbert"),
        ({"format": "something else"}, "does not describe a genome store"),
        ({"contigs": [{"name": "chr1"}]}, "damaged"),
        ({"contigs": [{**CONTIG, "length": 9999}]}, "not fit"),
        ({"contigs": [{**CONTIG, "soft_mask": [0, 1]}]}, "not fit"),
        ({"contigs": [{key: value for key, value in CONTIG.items() if key != "soft_mask"}]}, "damaged"),
        ({"arrays": {}}, "cannot be opened"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(store, change, message):
    manifest = json.loads((store / MANIFEST).read_text())
    (store / MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(GenomeError, match=message):
        ProbabilisticGenome.open(store)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(GenomeError, match="no such genome store"):
        ProbabilisticGenome.open(tmp_path / "absent")
    with pytest.raises(GenomeError, match="not a genome store"):
        ProbabilisticGenome.open(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(GenomeError, match="cannot be read"):
        ProbabilisticGenome.open(tmp_path)


def test_regions_outside_a_contig_are_refused(store):
    genome = ProbabilisticGenome.open(store)
    for start, end in [(-1, 5), (0, 101), (6, 5)]:
        with pytest.raises(GenomeError, match="not within"):
            genome.bases("chr1", start, end)
    with pytest.raises(GenomeError, match="no contig 'chr9'"):
        genome.bases("chr9", 0, 1)
