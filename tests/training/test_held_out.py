"""Held-out sums and trivial predictors against plain loops over targets and bases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.regions import Region
from mutbert.training.held_out import (
    CALIBRATED,
    GROUPS,
    SUMS,
    evaluate_baselines,
    fit_baselines,
    held_out_sums,
    held_out_windows,
    summarise_sums,
)
from mutbert.windows.dataset import Targets, WindowDataset
from mutbert.windows.masking import Masking, Tempering
from mutbert.windows.sampler import Part, WindowSampler, select_regions, split_genomes


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
    return Targets(
        torch.zeros(windows, count, dtype=torch.long),
        torch.tensor(frequency, dtype=torch.float32),
        torch.tensor(variant),
        torch.tensor(alternate, dtype=torch.float32),
    ), torch.tensor(predicted, dtype=torch.float32)


def group_of(alternate):
    edges = (0.05, 0.1, 0.2, 0.5)
    names = GROUPS[3:]
    return names[sum(alternate >= np.float32(edge) for edge in edges)]


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
                names.append(group_of(float(targets.alternate_BT[window, place])))
            for name in names:
                losses[name].append(loss)
            for t, g in zip(target, guess, strict=True):
                for name in CALIBRATED if varies else CALIBRATED[:1]:
                    pairs[name][min(int(np.float32(g) * np.float32(10)), 9)].append((g, t))
    for group in GROUPS:
        assert found.targets[group] == len(losses[group])
        if losses[group]:
            assert found.cross_entropy[group] == pytest.approx(np.mean(losses[group]), abs=1e-5)
        else:
            assert math.isnan(found.cross_entropy[group])
    for name in CALIBRATED:
        expected = [(*np.mean(inside, axis=0), len(inside)) for inside in pairs[name] if inside]
        assert len(found.calibration[name]) == len(expected)
        for entry, wanted in zip(found.calibration[name], expected, strict=True):
            assert tuple(entry.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_certain_predictor_is_penalised_where_it_is_wrong_alone():
    targets, _ = draw_targets(3, 4, 10)
    perfect = held_out_sums(targets.frequency_BT4.log(), targets).numpy()
    assert perfect.shape == (4, SUMS)
    found = summarise_sums(perfect)
    assert found.cross_entropy["other"] == 0
    assert np.isfinite(found.cross_entropy["variant"])
    wrong = targets.frequency_BT4.roll(2, dims=-1)
    assert summarise_sums(held_out_sums(wrong.log(), targets).numpy()).cross_entropy["other"] == math.inf


def test_sums_of_parts_are_sums_of_the_whole():
    targets, predicted = draw_targets(5, 6, 8)
    whole = held_out_sums(predicted.log(), targets)
    parts = [held_out_sums(predicted[rows].log(), Targets(*(part[rows] for part in targets)))
             for rows in (slice(0, 2), slice(2, 6))]  # fmt: skip
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_windows_of_an_evaluation_are_listed_with_their_targets(genome):
    split = split_genomes([genome], [], ["chr2"])
    sampler = WindowSampler(split.held_out, 30, seed=1)
    dataset = WindowDataset(sampler, Masking(replace=1, random=0, keep=0), Tempering(), size=1500)
    header, *lines = held_out_windows(dataset).splitlines()
    assert header.split("\t") == ["genome", "contig", "start", "end", "targets"]
    assert len(lines) == 1500
    (region,) = select_regions(genome, ["chr2"])
    for index in (0, 700, 1499):
        name, contig, start, end, targets = lines[index].split("\t")
        assert (name, contig, int(end) - int(start)) == ("small", "chr2", 30)
        assert region.start <= int(start)
        assert int(end) <= region.end
        assert int(start) == sampler.places(np.array([index])).start_B[0]
        assert [int(place) for place in targets.split(",")] == dataset[index]["target_places"][0].tolist()


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
    fitted = fit_baselines([Part(genome, REGIONS)], chunk=chunk)
    composition, markov = count_one_by_one(genome)
    np.testing.assert_allclose(fitted.composition, composition, rtol=1e-6)
    np.testing.assert_allclose(fitted.markov, markov, rtol=1e-6)


def test_cross_entropies_are_those_of_a_plain_loop(genome):
    fitted = fit_baselines([Part(genome, REGIONS)])
    sampler = WindowSampler([Part(genome, [Region("chr2", 0, 1500)])], 25, seed=2)
    dataset = WindowDataset(sampler, Masking(share=0.3, replace=1, random=0, keep=0), Tempering(), size=300)
    result = evaluate_baselines(fitted, dataset)

    losses = {"uniform": [], "base composition": [], "order-5 Markov chain": [], "entropy floor": []}
    varies = []
    for index in range(300):
        start = int(sampler.places(np.array([index])).start_B[0])
        for place in dataset[index]["target_places"][0].tolist():
            position = start + place
            target = genome.frequencies("chr2", position, position + 1)[0].astype(float)
            chain = fitted.composition
            if position >= 5:
                before = alphabet.decode(genome.bases("chr2", position - 5, position))
                chain = fitted.markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)]
            held = target > 0
            for name, predicted in (
                ("uniform", np.full(4, 0.25)), ("base composition", fitted.composition),
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


def test_counts_of_several_genomes_add_up(genome):
    first, second = ([region] for region in REGIONS)
    apart = fit_baselines([Part(genome, first), Part(genome, second)])
    together = fit_baselines([Part(genome, REGIONS)])
    np.testing.assert_allclose(apart.composition, together.composition)
    np.testing.assert_allclose(apart.markov, together.markov)
