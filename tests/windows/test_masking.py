import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert.windows.masking import Masking, choose_targets, corrupt
from mutbert.windows.randomness import random_bits


@st.composite
def variants(draw):
    rows, length = draw(st.integers(1, 6)), draw(st.integers(1, 80))
    density = draw(st.floats(0, 1))
    seed = draw(st.integers(0, 1000))
    return np.random.default_rng(seed).random((rows, length)) < density


@given(variants(), st.integers(0, 1000), st.floats(0.01, 1), st.sampled_from(["variants_first", "uniform"]))
def test_every_window_has_exactly_its_targets(variant, seed, share, policy):
    rows, length = variant.shape
    targets = choose_targets(variant, random_bits(seed, 2, np.arange(rows), length), Masking(policy, share))
    assert np.all(targets.sum(axis=1) == int(length * share))


@given(variants(), st.integers(0, 1000), st.floats(0.01, 1))
def test_variants_come_first(variant, seed, share):
    rows, length = variant.shape
    targets = choose_targets(variant, random_bits(seed, 2, np.arange(rows), length), Masking("variants_first", share))
    np.testing.assert_array_equal((targets & variant).sum(1), np.minimum(variant.sum(1), targets.sum(1)))


def test_published_windows_have_76_targets():
    variant = np.zeros((3, 510), dtype=bool)
    assert choose_targets(variant, random_bits(0, 2, np.arange(3), 510), Masking()).sum(1).tolist() == [76] * 3


@pytest.mark.parametrize("policy", ["variants_first", "uniform"])
def test_every_position_is_as_likely_as_its_equals(policy):
    variant = np.zeros((20_000, 40), dtype=bool)
    variant[:, 10:14] = True
    targets = choose_targets(variant, random_bits(0, 2, np.arange(20_000), 40), Masking(policy, 0.25))
    rate = targets.mean(axis=0)
    expected = np.full(40, 0.25)
    if policy == "variants_first":
        expected[:] = 6 / 36
        expected[10:14] = 1
    # Five standard deviations of a share over 20,000 windows.
    np.testing.assert_allclose(rate, expected, atol=5 * 0.5 / np.sqrt(20_000))


@given(variants(), st.integers(0, 1000))
def test_only_targets_are_corrupted_and_in_one_way(variant, seed):
    bits = random_bits(seed, 3, np.arange(len(variant)), variant.shape[1])
    corruption = corrupt(variant, bits, Masking(replace=0.4, random=0.3, keep=0.3))
    assert not (corruption.masked_BL & ~variant).any()
    assert not (corruption.random_BL & ~variant).any()
    assert not (corruption.masked_BL & corruption.random_BL).any()
    assert corruption.base_BL.max() <= 3


def test_shares_of_corruption():
    targets = np.ones((1000, 200), dtype=bool)
    corruption = corrupt(targets, random_bits(1, 3, np.arange(1000), 200), Masking(replace=0.8, random=0.1, keep=0.1))
    assert corruption.masked_BL.mean() == pytest.approx(0.8, abs=0.005)
    assert corruption.random_BL.mean() == pytest.approx(0.1, abs=0.005)
    bases = np.bincount(corruption.base_BL[corruption.random_BL], minlength=4) / corruption.random_BL.sum()
    np.testing.assert_allclose(bases, 0.25, atol=0.015)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "variants"}, "choose variants_first or uniform"),
        ({"share": 0}, "above 0"),
        ({"share": 1.5}, "at most 1"),
        ({"replace": 0.8, "random": 0.1, "keep": 0.2}, "sum to 1"),
        ({"replace": 1.2, "random": 0, "keep": -0.2}, "sum to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Masking(**settings)
