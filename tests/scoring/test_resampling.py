"""Intervals and tests against simulated data where the truth is known, and against brute force."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from mutbert.errors import InputError
from mutbert.scoring.metrics import evaluate, metric_names
from mutbert.scoring.resampling import TaskScores, difference, holm, interval

PROBLEMS = ("binary", "multiclass", "multilabel", "regression")
CASES = [(problem, metric) for problem in PROBLEMS for metric in metric_names(problem)]


def draw(problem, seed, rows, models=1, noise=1.0):
    """Labels, and scores of each of some models that know as much about them."""
    rng = np.random.default_rng(seed)
    if problem == "multiclass":
        labels = rng.integers(0, 3, rows)
        signal = 1.0 * (labels[:, None] == np.arange(3))
    elif problem == "regression":
        labels = signal = rng.normal(size=rows)
    else:
        labels = rng.integers(0, 2, rows if problem == "binary" else (rows, 3))
        signal = labels - 0.5
    return labels, [signal + rng.normal(0, noise, signal.shape) for _ in range(models)]


def interval_of(problem, metric, labels, scores, **options):
    return interval([TaskScores(problem, metric, labels, scores)], **options)


def compare(problem, metric, labels, a, b, **options):
    return difference(*([TaskScores(problem, metric, labels, scores)] for scores in (a, b)), **options)


# With 300 samples, the standard error of a coverage of 0.95 is 0.013.
@pytest.mark.parametrize(
    ("problem", "metric", "truth"),
    [("binary", "accuracy", 0.75), ("binary", "auroc", scipy.stats.norm.cdf(math.sqrt(0.5))),
     ("regression", "pearson", math.sqrt(0.5))],
)  # fmt: skip
def test_an_interval_covers_the_truth_as_often_as_it_says(problem, metric, truth):
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 150) if problem == "binary" else rng.normal(size=150)
        scores = labels + rng.normal(size=150)
        if metric == "accuracy":
            scores = np.where(rng.random(150) < truth, labels, 1 - labels) - 0.5
        found = interval_of(problem, metric, labels, [scores], resamples=300, seed=seed)
        assert found["low"] <= found["value"] <= found["high"]
        hits += found["low"] <= truth <= found["high"]
    assert hits / 300 == pytest.approx(0.95, abs=0.04)


def test_an_interval_over_seeds_is_as_wide_as_two_stages_of_drawing_say():
    # Squared errors of normal numbers, where variances add up: of a seed's level, and of the rows' mean.
    rng = np.random.default_rng(0)
    levels = rng.normal(0, 0.3, 20)
    errors = 1 + rng.random(400)
    labels = np.zeros(400)
    scores = [np.sqrt(errors + level) for level in levels]
    found = interval_of("regression", "mse", labels, scores, resamples=4000)
    spread = math.sqrt(levels.var() / 20 + errors.var() / 400)
    assert found["value"] == pytest.approx(errors.mean() + levels.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * spread, rel=0.08)
    assert spread > 2 * math.sqrt(errors.var() / 400)


def test_resamples_without_a_value_are_left_aside():
    labels, scores = np.array([0, 0, 0, 1]), np.array([1.0, 2, 3, 2.5])
    # About a third of the resamples have no row of class 1.
    found = interval_of("binary", "auroc", labels, [scores], resamples=500)
    assert found["value"] == pytest.approx(2 / 3)
    assert 0 <= found["low"] < found["high"] <= 1
    nothing = interval_of("binary", "auroc", np.zeros(4, int), [scores], resamples=50)
    assert all(math.isnan(number) for number in nothing.values())
    perfect = interval_of("binary", "mcc", np.array([0, 1] * 20), [np.tile([-1.0, 1], 20)], resamples=50)
    assert list(perfect.values()) == [1, 1, 1]
    # A seed whose predictions are constant has no correlation: what is left are the resamples without it.
    found = interval_of("regression", "spearman", np.arange(30), [np.arange(30), np.ones(30)], resamples=200)
    assert (found["low"], found["high"]) == (pytest.approx(1), pytest.approx(1))


def test_memory_does_not_grow_with_rows_times_resamples():
    labels, (scores,) = draw("regression", 0, 30_000)
    tracemalloc.start()
    interval_of("regression", "spearman", labels, [scores], resamples=100)
    compare("regression", "spearman", labels, [scores], [scores], resamples=1, permutations=60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize(("problem", "metric"), CASES)
def test_the_other_way_round_the_difference_has_the_other_sign(problem, metric):
    labels, scores = draw(problem, 8, 40, models=5)
    a, b = scores[:2], scores[2:]
    forth = compare(problem, metric, labels, a, b, resamples=200, permutations=100)
    back = compare(problem, metric, labels, b, a, resamples=250, permutations=100)
    assert forth["difference"] == -back["difference"]
    means = [np.mean([evaluate(problem, labels, each, [metric])[metric] for each in model]) for model in (a, b)]
    assert forth["difference"] == pytest.approx(means[0] - means[1])
    assert forth["p_value"] == back["p_value"]
    assert forth["low"] < forth["difference"] < forth["high"]
    assert forth == compare(problem, metric, labels, a, b, resamples=200, permutations=100)
    # The interval has the spread of each model's own seeds.
    same = compare(problem, metric, labels, a, a, resamples=50, permutations=50)
    assert (same["difference"], same["p_value"]) == (0, 1)
    alone = compare(problem, metric, labels, a[:1], a[:1], resamples=50, permutations=50)
    assert list(alone.values())[:4] == [0, 0, 0, 1]


def ranks(scores):
    return (scipy.stats.rankdata(scores, axis=0) - 0.5) / len(scores)


@pytest.mark.parametrize(("problem", "metric"), CASES)
def test_p_values_are_those_of_all_permutations(problem, metric):
    """Every way to swap seven rows, one after the other, with the metrics of the swapped scores."""
    labels, scores = draw(problem, 11, 7, models=3)
    # Of one scale and another.
    models = [scores[:2], [3 + 10 * scores[2]] if metric in ("auroc", "auprc", "spearman") else scores[2:]]
    if metric in ("auroc", "auprc", "spearman"):
        models = [[ranks(each) for each in model] for model in models]

    def mean_difference(swap):
        differences = []
        for a, b in zip(models[0], models[1] * 2, strict=True):
            mask = np.array(swap).reshape(-1, *[1] * (a.ndim - 1))
            pair = np.where(mask, b, a), np.where(mask, a, b)
            differences.append(np.subtract(*(evaluate(problem, labels, each, [metric])[metric] for each in pair)))
        return np.mean(differences)

    differences = np.abs([mean_difference(swap) for swap in itertools.product([False, True], repeat=7)])
    expected = (differences >= differences[0] - 1e-9).mean()
    if metric in ("auroc", "auprc", "spearman"):
        models = [scores[:2], [3 + 10 * scores[2]]]
    found = compare(problem, metric, labels, *models, resamples=5, permutations=10_000)
    # 10,000 permutations have a standard error of at most 0.005.
    assert found["p_value"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_whole_blocks_are_drawn_and_swapped(metric):
    """Against all draws and all swaps of four blocks, of which the last, without positives, does not count."""
    rng, block_N = np.random.default_rng(3), np.repeat(np.arange(4), (30, 20, 40, 10))
    label_N = (rng.random(100) < 0.4) & (block_N < 3)
    scores = [label_N + rng.normal(0, noise, 100) for noise in (0.6, 1.2)]
    own = [block_N == block for block in range(3)]
    area_2C = np.array([[evaluate("binary", label_N[b], one[b], [metric])[metric] for b in own] for one in scores])
    positives_C = np.array([label_N[b].sum() for b in own])
    a, b = (TaskScores("binary", metric, label_N, [one], 7 * block_N + 1) for one in scores)
    draws = np.array(list(itertools.product(range(4), repeat=4)))
    weight_RC = np.stack([(draws == block).sum(axis=1) for block in range(3)], axis=1) * positives_C
    weight_RC = weight_RC[weight_RC.any(axis=1)]
    ends = np.quantile((weight_RC @ (area_2C[0] - area_2C[1])) / weight_RC.sum(axis=1), [0.025, 0.975])
    found = difference([a], [b], resamples=4000, permutations=4000)
    assert [found["low"], found["high"]] == pytest.approx(ends, abs=0.01)
    swaps = np.array(list(itertools.product((1, -1), repeat=3)))
    by_swap = swaps * (area_2C[0] - area_2C[1]) @ positives_C / positives_C.sum()
    assert found["difference"] == pytest.approx(by_swap[0], abs=1e-12)
    assert found["p_value"] == pytest.approx((np.abs(by_swap) >= abs(by_swap[0]) - 1e-9).mean(), abs=0.03)


def test_holm_by_hand():
    # Ascending 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, then 0.04, raised to 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert (holm([0.6, 0.5]), holm([])) == ([1, 1], [])
    assert holm([0.01, math.nan, 0.02]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)


def test_no_resamples_are_an_error():
    task = [TaskScores("binary", "mcc", [0, 1], [[0.1, 0.2]])]
    for options in ({"resamples": 0}, {"permutations": 0}):
        with pytest.raises(InputError, match="resamples is 0; use at least 1"):
            difference(task, task, **options)
