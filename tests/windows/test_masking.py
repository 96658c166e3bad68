import itertools
import math
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


def flags(places, length):
    """Whether each position of each window is a target."""
    found = np.zeros((len(places), length), dtype=bool)
    found[np.arange(len(places))[:, None], places] = True
    return found


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


@given(variants(), st.integers(0, 1000), MASKINGS, st.data())
def test_a_window_does_not_depend_on_those_beside_it(variant, seed, masking, data):
    bits = random_bits(seed, 2, np.arange(len(variant)), masking.draws(variant.shape[1]))
    together = choose_targets(variant, bits, masking)
    row = data.draw(st.integers(0, len(variant) - 1))
    np.testing.assert_array_equal(choose_targets(variant[[row]], bits[[row]], masking), together[[row]])


@given(variants(), st.integers(0, 1000), st.floats(0.01, 1))
def test_variants_come_first(variant, seed, share):
    targets = flags(choose(variant, seed, Masking("variants_first", share)), variant.shape[1])
    np.testing.assert_array_equal((targets & variant).sum(1), np.minimum(variant.sum(1), targets.sum(1)))


@given(variants(), st.integers(0, 1000), st.floats(0.01, 1))
def test_policies_that_come_to_the_same(variant, seed, share):
    uniform = choose(variant, seed, Masking("uniform", share))
    np.testing.assert_array_equal(choose(variant, seed, Masking("weighted", share, variant_weight=1)), uniform)
    np.testing.assert_array_equal(choose(variant, seed, Masking("spans", share, span_length=1)), uniform)
    for same in (np.zeros_like(variant), np.ones_like(variant)):
        for policy in ("weighted", "variants_first"):
            np.testing.assert_array_equal(choose(same, seed, Masking(policy, share)), uniform)


@given(variants(), st.integers(0, 1000), st.floats(0.01, 1), st.integers(2, 12))
def test_targets_of_spans_are_whole_spans_but_at_the_edges_and_for_the_last(variant, seed, share, span):
    length = variant.shape[1]
    for window in choose(variant, seed, Masking("spans", share, span_length=span)).tolist():
        # Places less their rank are the same in a run of neighbours.
        runs = [
            [place for _, place in group]
            for _, group in itertools.groupby(enumerate(window), lambda pair: pair[1] - pair[0])
        ]
        inner = [run for run in runs if run[0] > 0 and run[-1] < length - 1]
        assert sum(len(run) < span for run in inner) <= 1


def test_published_windows_have_76_targets():
    for policy in POLICIES:
        assert choose(np.zeros((3, 510), dtype=bool), 0, Masking(policy)).shape == (3, 76)


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


@pytest.mark.parametrize("policy", ["variants_first", "uniform"])
def test_every_position_is_as_likely_as_its_equals(policy):
    variant = np.zeros((20_000, 40), dtype=bool)
    variant[:, 10:14] = True
    rate = flags(choose(variant, 0, Masking(policy, 0.25)), 40).mean(axis=0)
    expected = np.full(40, 0.25)
    if policy == "variants_first":
        expected[:] = 6 / 36
        expected[10:14] = 1
    # Five standard deviations of a share over 20,000 windows.
    np.testing.assert_allclose(rate, expected, atol=5 * 0.5 / np.sqrt(20_000))


@pytest.mark.parametrize("weight", [0.2, 3, 10])
def test_weighted_targets_are_drawn_one_after_another(weight):
    windows, length, count = 20_000, 40, 10
    variant = np.zeros((windows, length), dtype=bool)
    variant[:, [0, 17, 18, 30, 39]] = True
    rate = flags(choose(variant, 1, Masking("weighted", 0.25, variant_weight=weight)), length).mean(axis=0)

    rng = np.random.default_rng(0)
    left = np.where(variant, float(weight), 1.0)
    for _ in range(count):
        ends = left.cumsum(axis=1)
        place = (ends > rng.random((windows, 1)) * ends[:, -1:]).argmax(axis=1)
        left[np.arange(windows), place] = 0
    drawn = (left == 0).mean(axis=0)
    # Five standard deviations of a difference of two shares.
    np.testing.assert_allclose(rate, drawn, atol=5 * 0.5 * np.sqrt(2 / windows))
    # The variants' share is the mean of five, and of one kind.
    assert rate[variant[0]].mean() == pytest.approx(drawn[variant[0]].mean(), abs=0.01)


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


def test_spans_cover_every_position_about_as_often():
    windows, length = 8_000, 510
    rate = flags(choose(np.zeros((windows, length), bool), 3, Masking("spans")), length).mean(axis=0)
    assert rate.mean() == pytest.approx(76 / 510)
    # Five standard deviations; the first position is taken 1.5 % more often, as the last span is cut at its end.
    np.testing.assert_allclose(rate, 76 / 510, atol=5 * np.sqrt(0.15 * 0.85 / windows) + 0.003)
    for some in (slice(0, 6), slice(250, 256), slice(-6, None)):
        assert rate[some].mean() == pytest.approx(76 / 510, rel=0.06)
    # Neighbours go together: a target's neighbour is one nearly always.
    targets = flags(choose(np.zeros((500, length), bool), 3, Masking("spans")), length)
    together = (targets[:, 1:] & targets[:, :-1]).sum() / targets[:, :-1].sum()
    assert together > 0.8


def test_spans_of_six_have_about_six_bases():
    length = 510
    targets = choose(np.zeros((500, length), bool), 3, Masking("spans", 0.02))
    # Ten targets, so that spans seldom touch: one of six bases, and one that is cut to four.
    runs = Counter(
        len(list(group))
        for window in targets.tolist()
        if window[0] > 0 and window[-1] < length - 1
        for _, group in itertools.groupby(enumerate(window), lambda pair: pair[1] - pair[0])
    )
    assert runs[6] > 450
    assert runs[4] > 450
    assert sum(runs.values()) - runs[6] - runs[4] < 40


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


def test_shares_of_corruption():
    count = 200_000
    seen = corrupt(random_bits(1, 3, np.arange(1000), 200), Masking(replace=0.8, random=0.1, keep=0.1)).ravel()
    shares = np.bincount(seen, minlength=256) / count
    for token, expected in [(alphabet.MASK_ID, 0.8), (KEPT, 0.1), *((base, 0.025) for base in range(5, 9))]:
        assert shares[token] == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / count))
    assert set(seen.tolist()) == {alphabet.MASK_ID, KEPT, 5, 6, 7, 8}
    # Which base it is has nothing to do with where it is.
    table = np.array([np.bincount(part[(part > 4) & (part < 9)] - 5, minlength=4) for part in np.split(seen, 4)])
    expected = table.sum() / 16
    assert ((table - expected) ** 2 / expected).sum() < 45  # 99.99 % quantile with 15 degrees of freedom: 44.3


@pytest.mark.parametrize(
    ("shares", "seen"), [((1, 0, 0), {alphabet.MASK_ID}), ((0, 1, 0), {5, 6, 7, 8}), ((0, 0, 1), {KEPT})]
)
def test_a_whole_share_is_all(shares, seen):
    found = corrupt(random_bits(1, 3, np.arange(100), 100), Masking(**dict(zip(CORRUPTIONS, shares, strict=True))))
    assert set(found.ravel().tolist()) == seen


CORRUPTIONS = ("replace", "random", "keep")
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "variants"}, "masking.policy is 'variants'; choose variants_first, uniform, weighted, spans"),
        *(({"share": share}, f"masking.share is {share}; it must be above 0 and at most 1") for share in (0, -1, 1.5)),
        ({"share": NAN}, "masking.share is nan; it must be above 0 and at most 1"),
        *(
            (
                dict(zip(CORRUPTIONS, shares, strict=True)),
                f"masking.replace, random and keep are {shares}; they must sum to 1, none below 0",
            )
            for shares in [
                (0.8, 0.1, 0.2),
                (0.8, 0.1, 0.09999),
                (1.2, 0, -0.2),
                (-0.2, 0.2, 1),
                (0.5, -0.5, 1),
                (NAN, 0.5, 0.5),
                (0.5, NAN, 0.5),
                (0.5, 0.5, NAN),
                (INFINITY, 0, 0),
            ]
        ),
        *(
            ({"variant_weight": weight}, f"masking.variant_weight is {weight}; it must be above 0 and finite")
            for weight in (0, -1, INFINITY, NAN)
        ),
        *(({"span_length": span}, f"masking.span_length is {span}; it must be at least 1") for span in (0, -6, NAN)),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        Masking(**settings)
    assert str(caught.value) == message


def test_settings_at_the_edge_of_what_can_be():
    for policy in POLICIES:
        assert Masking(policy).policy == policy
    assert Masking(share=1).targets(7) == 7
    assert Masking(replace=0.1, random=0.2, keep=0.7).keep == 0.7
    assert Masking(variant_weight=1e-9, span_length=1).draws(10) == 10
    assert Masking("spans", span_length=4).draws(10) == 13
    assert Masking("uniform", span_length=4).draws(10) == 10
