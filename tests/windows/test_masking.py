import itertools
import math
import re
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.windows.masking import KEPT, LONGEST_WINDOW, Masking, Policy, choose_targets, corrupt
from mutbert.windows.randomness import random_bits

POLICIES = get_args(Policy)
MASKINGS = st.builds(
    Masking,
    policy=st.sampled_from(POLICIES),
    share=st.floats(0.01, 1),
    variant_weight=st.floats(0.1, 100),
    span_length=st.integers(1, 12),
)


@st.composite
def variants(draw):
    rows, length = draw(st.integers(1, 6)), draw(st.integers(1, 80))
    density = draw(st.sampled_from([0, 0.03, 0.2, 0.8, 1]))
    return np.random.default_rng(draw(st.integers(0, 1000))).random((rows, length)) < density


def choose(variant, seed, masking):
    bits = random_bits(seed, 2, np.arange(len(variant)), masking.draws(variant.shape[1]))
    return choose_targets(variant, bits, masking)


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
def test_every_window_has_exactly_its_targets_each_once_and_ascending(variant, seed, masking):
    rows, length = variant.shape
    targets = choose(variant, seed, masking)
    assert targets.dtype == np.uint16
    assert targets.shape == (rows, int(length * masking.share)) == (rows, masking.targets(length))
    for window in targets.tolist():
        assert window == sorted(set(window))
        assert set(window) <= set(range(length))


def check_turns(variant, seed, masking):
    length = variant.shape[1]
    count = masking.targets(length)
    bits = random_bits(seed, 2, np.arange(len(variant)), masking.draws(length))
    assert bits.shape[1] == length + (masking.span_length - 1) * (masking.policy == "spans")
    found = choose_targets(variant, bits, masking)
    for window, flag, bit in zip(found.tolist(), variant.tolist(), bits.tolist(), strict=True):
        times = [(one >> 17) / 2**47 for one in bit]
        assert window == sorted(turns(flag, times, masking)[:count])


@given(variants(), st.integers(0, 1000), MASKINGS)
def test_the_targets_are_those_whose_turn_comes_first(variant, seed, masking):
    check_turns(variant, seed, masking)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_targets_of_long_windows_are_those_whose_turn_comes_first(policy):
    # NumPy sorts short arrays where it only has to find the lowest.
    variant = np.random.default_rng(0).random((4, 3000)) < 0.1
    check_turns(variant, 5, Masking(policy, 0.15))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_longest_window_and_a_share_of_none_and_all(policy):
    variant = np.arange(LONGEST_WINDOW)[None] % 50 == 0
    every = choose(variant, 0, Masking(policy, 1.0))
    np.testing.assert_array_equal(every, np.arange(LONGEST_WINDOW)[None])
    half = choose(variant, 0, Masking(policy, 0.5))
    assert len(np.unique(half)) == LONGEST_WINDOW // 2
    assert half.max() > LONGEST_WINDOW - 100
    assert choose(variant[:, :5], 0, Masking(policy, 0.15)).shape == (1, 0)
    with pytest.raises(AssertionError, match="16 bits"):
        choose_targets(np.zeros((1, LONGEST_WINDOW + 1), bool), np.zeros((1, LONGEST_WINDOW + 6), np.uint64), Masking())


def sets_and_their_probabilities(variant, count, masking):
    """Draw in every way there is, by hand."""
    if masking.policy == "weighted":

        def go_on(taken, probability):
            if len(taken) == count:
                chance[frozenset(taken)] += probability
                return
            weight = {
                place: masking.variant_weight if variant[place] else 1
                for place in range(len(variant))
                if place not in taken
            }
            for place, one in weight.items():
                go_on((*taken, place), probability * one / sum(weight.values()))

        chance = Counter()
        go_on((), 1.0)
        return chance
    draws = masking.draws(len(variant))
    chance = Counter()
    for times in itertools.permutations(range(draws)):
        chance[frozenset(turns(variant, times, masking)[:count])] += 1 / math.factorial(draws)
    return chance


@pytest.mark.parametrize(
    "masking",
    [
        Masking("uniform", 0.5),
        Masking("variants_first", 0.5),
        Masking("weighted", 0.5, variant_weight=3),
        Masking("weighted", 0.34, variant_weight=0.4),
        Masking("spans", 0.5, span_length=2),
        Masking("spans", 0.67, span_length=3),
    ],
)
def test_every_set_of_targets_is_as_likely_as_drawn_by_hand(masking):
    windows = 40_000
    variant = np.array([False, True, False, False, True, False])
    chance = sets_and_their_probabilities(variant, masking.targets(6), masking)
    assert sum(chance.values()) == pytest.approx(1)
    found = Counter(map(frozenset, choose(np.tile(variant, (windows, 1)), 4, masking).tolist()))
    assert set(found) == set(chance)
    squared = sum((found[key] - windows * one) ** 2 / (windows * one) for key, one in chance.items())
    # Chi-squared; its 99.99 % quantile is below this for as many as 19 degrees of freedom.
    freedom = len(chance) - 1
    assert freedom <= 19
    assert squared < freedom + 3.8 * math.sqrt(2 * freedom) + 10


@pytest.mark.parametrize("weight", [0.05, 0.5, 2, 10, 1000])
@pytest.mark.parametrize("varying", [1, 7])
def test_a_single_weighted_target_has_the_closed_form(weight, varying):
    windows, length = 40_000, 50
    variant = np.zeros((windows, length), dtype=bool)
    variant[:, 5 : 5 + varying] = True
    (target,) = choose(variant, 2, Masking("weighted", 1 / length, variant_weight=weight)).T
    expected = weight * varying / (weight * varying + length - varying)
    deviation = np.sqrt(expected * (1 - expected) / windows)
    assert variant[0][target].mean() == pytest.approx(expected, abs=5 * deviation)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "variants"}, "masking.policy is 'variants'; choose variants_first, uniform, weighted, spans"),
        ({"share": 0}, "masking.share is 0; it must be above 0 and at most 1"),
        ({"share": 1.5}, "masking.share is 1.5; it must be above 0 and at most 1"),
        ({"share": math.nan}, "masking.share is nan; it must be above 0 and at most 1"),
        ({"keep": 0.3}, "masking.replace, random and keep are (0.8, 0.0, 0.3); they must sum to 1, none below 0"),
        ({"random": -0.2, "keep": 0.4}, "masking.replace, random and keep are (0.8, -0.2, 0.4); they must sum to 1, "),
        ({"keep": math.nan}, "masking.replace, random and keep are (0.8, 0.0, nan); they must sum to 1, none below 0"),
        ({"variant_weight": 0}, "masking.variant_weight is 0; it must be above 0 and finite"),
        ({"variant_weight": math.inf}, "masking.variant_weight is inf; it must be above 0 and finite"),
        ({"span_length": 0}, "masking.span_length is 0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Masking(**settings)
