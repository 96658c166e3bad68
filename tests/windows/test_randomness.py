import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mutbert.windows.randomness import CORRUPTION, START, STRAND, TARGETS, random_bits, random_bits_at, unit_interval

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
SEEDS = st.integers(0, 2**63 - 1)
STREAMS = st.sampled_from([START, TARGETS, CORRUPTION, STRAND])


def mix(value):
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


@given(SEEDS, STREAMS, st.lists(st.integers(0, 2**62), min_size=1, max_size=5))
def test_the_generator_is_splitmix64(seed, stream, indices):
    # Step by step in Python's integers.
    found = random_bits(seed, stream, np.array(indices), 3)
    assert (found.dtype, found.shape) == (np.uint64, (len(indices), 3))
    key = mix(mix((seed + GOLDEN) & MASK) ^ stream)
    for row, index in enumerate(indices):
        state = mix((index * GOLDEN + key) & MASK)
        assert found[row].tolist() == [mix((state + place * GOLDEN) & MASK) for place in (1, 2, 3)]


@given(SEEDS, STREAMS, st.integers(1, 6), st.integers(0, 12), st.integers(0, 1000), st.booleans())
def test_bits_at_places_are_those_of_the_places(seed, stream, rows, count, draw, same):
    rng = np.random.default_rng(draw)
    index = rng.integers(0, 10**9, rows)
    places = rng.integers(0, 40, (1 if same else rows, count))
    every = random_bits(seed, stream, index, 40)
    for kind in (np.uint16, np.int64, np.int16):
        np.testing.assert_array_equal(
            random_bits_at(seed, stream, index, places.astype(kind)),
            np.take_along_axis(every, np.broadcast_to(places, (rows, count)), axis=1),
        )


@given(st.lists(st.integers(0, MASK) | st.sampled_from([0, 1, 2**11 - 1, 2**11, MASK]), min_size=1))
def test_the_unit_interval_has_53_bits_and_ends_below_1(bits):
    unit = unit_interval(np.array(bits, dtype=np.uint64))
    assert unit.tolist() == [(one >> 11) / 2**53 for one in bits]
    assert unit.max() < 1
