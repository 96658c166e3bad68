"""Held-out sums and trivial predictors against plain loops over targets and bases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.regions import Region
from mutbert.training import held_out
from mutbert.training.held_out import CALIBRATED, GROUPS, held_out_sums, summarise_sums
from mutbert.windows.dataset import Targets, WindowDataset
from mutbert.windows.masking import Masking, Tempering
from mutbert.windows.sampler import Part, WindowSampler


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
    assert found.targets == {group: len(losses[group]) for group in GROUPS}
    means = [np.mean(losses[group]) if losses[group] else math.nan for group in GROUPS]
    assert list(found.cross_entropy.values()) == pytest.approx(means, abs=1e-5, nan_ok=True)
    for name in CALIBRATED:
        expected = [(*np.mean(inside, axis=0), len(inside)) for inside in pairs[name] if inside]
        assert len(found.calibration[name]) == len(expected)
        for entry, wanted in zip(found.calibration[name], expected, strict=True):
            assert tuple(entry.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_certain_predictor_is_penalised_where_it_is_wrong_alone():
    targets, _ = draw_targets(3, 4, 10)
    perfect = held_out_sums(targets.frequency_BT4.log(), targets).numpy()
    found = summarise_sums(perfect)
    assert found.cross_entropy["other"] == 0
    assert np.isfinite(found.cross_entropy["variant"])
    wrong = targets.frequency_BT4.roll(2, dims=-1)
    assert summarise_sums(held_out_sums(wrong.log(), targets).numpy()).cross_entropy["other"] == math.inf


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


def test_cross_entropies_are_those_of_a_plain_loop(genome):
    composition, markov = held_out.fit_baselines([Part(genome, REGIONS)])
    sampler = WindowSampler([Part(genome, [Region("chr2", 0, 1500)])], 25, seed=2)
    dataset = WindowDataset(sampler, Masking(share=0.3, replace=1, random=0, keep=0), Tempering(), size=300)
    result = held_out.evaluate_baselines(composition, markov, dataset)

    losses = {"uniform": [], "base composition": [], "order-5 Markov chain": [], "entropy floor": []}
    varies = []
    for index in range(300):
        start = int(sampler.places(np.array([index])).start_B[0])
        for place in dataset[index]["target_places"][0].tolist():
            position = start + place
            target = genome.frequencies("chr2", position, position + 1)[0].astype(float)
            chain = composition
            if position >= 5:
                before = alphabet.decode(genome.bases("chr2", position - 5, position))
                chain = markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)]
            held = target > 0
            for name, predicted in (
                ("uniform", np.full(4, 0.25)), ("base composition", composition),
                ("order-5 Markov chain", chain), ("entropy floor", target),
            ):  # fmt: skip
                losses[name].append(-(target[held] * np.log(predicted[held])).sum())
            varies.append(len(genome.variants("chr2", position, position + 1).position) == 1)
    for name, values in losses.items():
        values, mask = np.array(values), np.array(varies)
        expected = (values.mean(), values[mask].mean(), values[~mask].mean())
        found = [result[name].cross_entropy[group] for group in ("all", "variant", "other")]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    assert result["uniform"].cross_entropy["all"] == pytest.approx(np.log(4))
    assert result["entropy floor"].cross_entropy["other"] == 0
