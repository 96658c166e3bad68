import itertools
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.windows.masking import KEPT, Masking, Policy, Tempering, Weighting, choose_targets, corrupt, temper
from mutbert.windows.randomness import CORRUPTION, START, STRAND, TARGETS, random_bits

LONGEST_WINDOW = 1 << 16
GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
SEEDS = st.integers(0, 2**63 - 1)
STREAMS = st.sampled_from([START, TARGETS, CORRUPTION, STRAND])
POLICIES = get_args(Policy)
MASKINGS = st.builds(
    Masking, policy=st.sampled_from(POLICIES), share=st.floats(0.01, 1), variant_weight=st.floats(0.1, 100),
    span_length=st.integers(1, 12),
)  # fmt: skip


@st.composite
def variants(draw):
    rows, length = draw(st.integers(1, 6)), draw(st.integers(1, 80))
    density = draw(st.sampled_from([0, 0.03, 0.2, 0.8, 1]))
    return np.random.default_rng(draw(st.integers(0, 1000))).random((rows, length)) < density


def draw_bits(variant, seed, masking):
    return random_bits(seed, 2, np.arange(len(variant)), masking.draws(variant.shape[1]))


def turns(variant, times, masking):
    """The positions of one window in the order in which they become targets, as draw d has its turn at times[d]."""
    length = len(variant)
    if masking.policy == "spans":
        # Draw d is the span that ends at position d.
        spans = [range(max(end - masking.span_length + 1, 0), min(end + 1, length)) for end in range(len(times))]
        in_order = itertools.chain(*(spans[end] for end in sorted(range(len(times)), key=times.__getitem__)))
        return list(dict.fromkeys(in_order))
    key = {
        "uniform": lambda place: times[place],
        "variants_first": lambda place: (not variant[place], times[place]),
        # Waiting times of which the rates are the weights.
        "weighted": lambda place: -math.log1p(-times[place]) / (masking.variant_weight if variant[place] else 1),
    }[masking.policy]
    return sorted(range(length), key=key)


@given(variants(), st.integers(0, 1000), MASKINGS)
def test_the_targets_are_those_whose_turn_comes_first(variant, seed, masking):
    count, bits = masking.targets(variant.shape[1]), draw_bits(variant, seed, masking)
    assert bits.shape[1] == variant.shape[1] + (masking.span_length - 1) * (masking.policy == "spans")
    found = choose_targets(variant, bits, masking)
    for window, flag, bit in zip(found.tolist(), variant.tolist(), bits.tolist(), strict=True):
        times = [(one >> 17) / 2**47 for one in bit]
        assert window == sorted(turns(flag, times, masking)[:count])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_longest_window_and_a_share_of_none_and_all(policy):
    variant = np.arange(LONGEST_WINDOW)[None] % 50 == 0
    bits = draw_bits(variant, 0, Masking(policy))
    np.testing.assert_array_equal(choose_targets(variant, bits, Masking(policy, 1.0)), np.arange(LONGEST_WINDOW)[None])
    half = choose_targets(variant, bits, Masking(policy, 0.5))
    assert len(np.unique(half)) == LONGEST_WINDOW // 2
    assert half.max() > LONGEST_WINDOW - 100
    assert choose_targets(variant[:, :5], bits[:, :5], Masking(policy, 0.15)).shape == (1, 0)
    with pytest.raises(AssertionError, match="16 bits"):
        choose_targets(np.zeros((1, LONGEST_WINDOW + 1), bool), np.zeros((1, LONGEST_WINDOW + 6), np.uint64), Masking())


@given(st.integers(0, 1000), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_what_is_seen_at_a_target_follows_its_bits(seed, replace, random, keep):
    total = replace + random + keep or 1
    shares = (replace / total, random / total, keep / total) if replace + random + keep else (0.0, 0.0, 1.0)
    bits = random_bits(seed, 3, np.arange(7), 11)
    seen = corrupt(bits, Masking(replace=shares[0], random=shares[1], keep=shares[2]))
    assert (seen.dtype, seen.shape) == (np.uint8, (7, 11))
    for found, bit in zip(seen.ravel().tolist(), bits.ravel().tolist(), strict=True):
        unit = (bit >> 11) / 2**53
        base = 5 + bit % 4
        expected = alphabet.MASK_ID if unit < shares[0] else base if unit < shares[0] + shares[1] else KEPT
        assert found == expected


ROWS = st.lists(st.lists(st.integers(0, 65535), min_size=4, max_size=4).filter(any), min_size=1, max_size=10).map(
    lambda rows: (np.array(rows, dtype=float) / np.sum(rows, axis=1, keepdims=True)).astype(np.float32)
)


@given(ROWS, st.floats(0.1, 3))
def test_tempering_is_its_formula(frequency, temperature):
    power = frequency.astype(float) ** (1 / temperature)
    softmax = np.where(frequency > 0, np.exp(frequency.astype(float) / temperature), 0)
    for kind, weight in (("none", frequency), ("log", power), ("published", softmax)):
        tempered = temper(frequency, Tempering(kind, temperature))
        assert tempered.dtype == np.float32
        np.testing.assert_allclose(tempered, weight / weight.sum(axis=1, keepdims=True), atol=1e-5)
        assert not (tempered[frequency == 0] > 0).any()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Masking, {"share": 0}, "share"),
        (Masking, {"final_shar": 0.1}, "unknown key final_shar; did you mean final_share"),
        (Masking, {"keep": 0.3}, "the sum of replace, random and keep is 1.1; it must be 1"),
        (Masking, {"random": -0.2, "keep": 0.4}, "random"),
        (Masking, {"variant_weight": math.inf}, "variant_weight"),
        (Tempering, {"temperature": 0}, "temperature"),
        (Weighting, {"soft_masked": math.nan}, "soft_masked"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


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
