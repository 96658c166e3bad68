"""Held-out sums and trivial predictors against plain loops over targets and bases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.regions import Region
from mutbert.training import pretrain as held_out
from mutbert.training.pretrain import CALIBRATED, GROUPS, held_out_sums, summarise_sums
from mutbert.windows.dataset import Targets
from mutbert.windows.sampler import Part


def draw_targets(seed, windows, count):
    """Invariant targets, and variant ones with frequencies from rare to fixed."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, (windows, count))
    variant = rng.random((windows, count)) < 0.5
    alternate = np.where(variant, rng.choice([0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9, 1.0], variant.shape), 0)
    frequency = np.zeros((windows, count, 4))
    np.put_along_axis(frequency, reference[..., None], 1 - alternate[..., None], axis=2)
    np.put_along_axis(frequency, (reference[..., None] + 1) % 4, alternate[..., None], axis=2)
    predicted = rng.dirichlet(np.ones(9), (windows, count))[..., 5:]
    frequency, alternate, predicted = (torch.tensor(one).float() for one in (frequency, alternate, predicted))
    nowhere = torch.zeros(windows, count, dtype=torch.long)
    return Targets(nowhere, frequency, torch.tensor(variant), alternate), predicted


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12))
def test_cross_entropy_and_calibration_are_those_of_plain_loops(seed, windows, count):
    targets, predicted = draw_targets(seed, windows, count)
    found = summarise_sums(held_out_sums(predicted.log(), targets).numpy())

    losses = {group: [] for group in GROUPS}
    pairs = {name: [[] for _ in range(10)] for name in CALIBRATED}
    for window in range(windows):
        for place in range(count):
            target, guess = targets.frequency_BT4[window, place].tolist(), predicted[window, place].tolist()
            loss = -sum(t * math.log(g) for t, g in zip(target, guess, strict=True))
            varies = bool(targets.variant_BT[window, place])
            names = ["all", "variant" if varies else "other"]
            if varies:
                above = sum(
                    float(targets.alternate_BT[window, place]) >= np.float32(edge) for edge in (0.05, 0.1, 0.2, 0.5)
                )
                names.append(GROUPS[3 + above])
            for name in names:
                losses[name].append(loss)
            for t, g in zip(target, guess, strict=True):
                for name in CALIBRATED if varies else CALIBRATED[:1]:
                    pairs[name][min(int(np.float32(g) * np.float32(10)), 9)].append((g, t))
    assert found["targets"] == {group: len(losses[group]) for group in GROUPS}
    means = [np.mean(losses[group]) if losses[group] else math.nan for group in GROUPS]
    assert list(found["cross_entropy"].values()) == pytest.approx(means, abs=1e-5, nan_ok=True)
    for name in CALIBRATED:
        expected = [(*np.mean(inside, axis=0), len(inside)) for inside in pairs[name] if inside]
        assert len(found["calibration"][name]) == len(expected)
        for entry, wanted in zip(found["calibration"][name], expected, strict=True):
            assert tuple(entry.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_certain_predictor_is_penalised_where_it_is_wrong_alone():
    targets, _ = draw_targets(3, 4, 10)
    perfect = held_out_sums(targets.frequency_BT4.log(), targets).numpy()
    found = summarise_sums(perfect)
    assert found["cross_entropy"]["other"] == 0
    assert np.isfinite(found["cross_entropy"]["variant"])
    wrong = targets.frequency_BT4.roll(2, dims=-1)
    assert summarise_sums(held_out_sums(wrong.log(), targets).numpy())["cross_entropy"]["other"] == math.inf


REGIONS = [Region("chr1", 0, 700), Region("chr1", 900, 1203)]


def count_one_by_one(genome):
    composition, markov = np.zeros(4), np.ones((4**5, 4))
    for region in REGIONS:
        for position in range(region.start, region.end):
            frequency = genome.frequencies("chr1", position, position + 1)[0]
            composition += frequency
            if position >= 5:
                before = alphabet.decode(genome.bases("chr1", position - 5, position))
                markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)] += frequency
    return composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [1 << 22, 97])
def test_fitted_counts_are_those_of_a_plain_loop(genome, chunk):
    # Of several genomes, counts add up.
    fitted = held_out.fit_baselines([Part(genome, [region]) for region in REGIONS], chunk=chunk)
    for found, wanted in zip(fitted, count_one_by_one(genome), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
