from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome, StoreWriter
from mutbert.regions import Region
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import select_regions, split_genome


def make_genome(directory, contigs):
    with StoreWriter(directory) as writer:
        for name, sequence in contigs.items():
            codes = alphabet.encode(sequence)
            writer.add_contig(name, codes, np.zeros(0, np.uint32), np.zeros((0, 4), np.uint16))
        writer.finish()
    return ProbabilisticGenome.open(directory)


def valid_places(contigs, regions, length):
    """Every start, found one base at a time."""
    order = list(contigs)
    return {
        (order.index(region.contig), start)
        for region in regions
        for start in range(region.start, region.end - length + 1)
        if "N" not in contigs[region.contig][start : start + length]
    }


@given(
    st.lists(st.text("ACGTRN", min_size=1, max_size=40), min_size=1, max_size=3),
    st.integers(1, 8),
    st.integers(0, 100),
)
def test_windows_come_from_exactly_the_valid_starts(tmp_path_factory, sequences, length, seed):
    contigs = {f"c{number}": sequence for number, sequence in enumerate(sequences)}
    genome = make_genome(tmp_path_factory.mktemp("genome"), contigs)
    regions = select_regions(genome, list(contigs))
    expected = valid_places(contigs, regions, length)
    if not expected:
        with pytest.raises(InputError, match="no stretch"):
            WindowSampler(genome, length, regions, seed=seed)
        return
    sampler = WindowSampler(genome, length, regions, seed=seed)
    assert sampler.valid_starts == len(expected)
    places = sampler.places(np.arange(60 * len(expected)))
    assert set(zip(*(part.tolist() for part in places), strict=True)) == expected


def test_the_last_base_and_a_stretch_of_exactly_one_window_are_drawn(tmp_path):
    genome = make_genome(tmp_path, {"a": "N" + "ACGTA" + "N", "b": "ACGTAC"})
    sampler = WindowSampler(genome, 5, select_regions(genome, ["a", "b"]), seed=0)
    drawn = Counter(zip(*(part.tolist() for part in sampler.places(np.arange(3000))), strict=True))
    assert set(drawn) == {(0, 1), (1, 0), (1, 1)}
    # Each is drawn a third of the time, within five standard deviations.
    assert all(abs(count - 1000) < 5 * np.sqrt(3000 * 2 / 9) for count in drawn.values())


def test_a_window_is_a_function_of_seed_and_index(tmp_path):
    genome = make_genome(tmp_path, {"a": "ACGTTGCA" * 40})
    sampler = WindowSampler(genome, 10, [Region("a", 0, 320)], seed=5)
    order = np.array([9, 2, 7, 2])
    batch = sampler.read(order)
    for row, index in enumerate(order):
        np.testing.assert_array_equal(batch.base_BL[row], sampler.read(np.array([index])).base_BL[0])
    again = WindowSampler(genome, 10, [Region("a", 0, 320)], seed=5)
    np.testing.assert_array_equal(again.places(order), sampler.places(order))
    other = WindowSampler(genome, 10, [Region("a", 0, 320)], seed=6)
    assert (other.places(np.arange(50)).start_B != sampler.places(np.arange(50)).start_B).any()


@pytest.fixture
def genome(tmp_path_factory):
    return make_genome(tmp_path_factory.mktemp("genome"), {"chr1": "ACGT" * 25, "chr2": "ACGT" * 10})


def test_regions_are_merged_in_the_genomes_order(genome, tmp_path):
    bed = tmp_path / "some.bed"
    bed.write_text("2\t0\t10\nchr1\t50\t60\nchr1\t10\t20\nchr1\t15\t30\n")
    assert select_regions(genome, [str(bed), "1:31-40"]) == [
        Region("chr1", 10, 40),
        Region("chr1", 50, 60),
        Region("chr2", 0, 10),
    ]


def test_what_is_not_held_out_is_trained_on(genome):
    split = split_genome(genome, [], ["chr1:41-60", "chr1:91-100"])
    assert split.train == [Region("chr1", 0, 40), Region("chr1", 60, 90), Region("chr2", 0, 40)]
    assert split.held_out == [Region("chr1", 40, 60), Region("chr1", 90, 100)]


def test_a_base_on_both_sides_is_refused(genome):
    with pytest.raises(InputError, match="share bases in chr1:1-50"):
        split_genome(genome, ["chr1:1-50"], ["chr1:50-60"])
    split = split_genome(genome, ["chr1:1-50"], ["chr1:51-60", "chr2"])
    assert split.train == [Region("chr1", 0, 50)]


def test_an_unknown_contig_is_refused(genome):
    with pytest.raises(InputError, match="no such contig"):
        split_genome(genome, [], ["chr7"])
