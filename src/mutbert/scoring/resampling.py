"""Intervals of metrics and comparisons of two models on the same test rows, by resampling.

A bootstrap weighs a row as often as it was drawn; a permutation stacks the rows of two models and weighs a row by 1
or 0 (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 15). Shape suffixes: N rows, R
resamples or permutations, S seeds of a model.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import cycle
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mutbert.arrays import Float64
from mutbert.errors import InputError
from mutbert.scoring.metrics import COUNTED, RANKED, SumMetric, WeightedMetric, by_block, weighted_metric, weighted_sums

INTERVAL_METHOD: Final = (
    "percentile bootstrap (Efron & Tibshirani 1993): test rows drawn with replacement, the same for all seeds of a "
    "model; seeds drawn with replacement too where there are several; rows drawn independently in each task of an "
    "average; resamples in which the metric is not defined are left aside"
)
BLOCK_METHOD: Final = "; for a mean over chromosomes, whole chromosomes are drawn and swapped in place of rows"

# A metric holds about ten arrays of as many entries as its weights have, at 8 bytes each.
_ENTRIES_AT_ONCE: Final = 2**20
# Differences that are equal but for rounding count as equal.
_ROUNDING: Final = 1e-10


class TaskScores:
    """A metric of a model's seeds on a task, prepared once for any number of intervals and comparisons.

    With `blocks`, the number of each row's block, it is the mean over blocks of `by_block`, and whole blocks are drawn.
    """

    def __init__(
        self, problem: str, metric: str, labels: npt.ArrayLike, by_seed: Sequence[npt.ArrayLike],
        blocks: npt.ArrayLike | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.metric, self.labels = problem, metric, np.asarray(labels)
        self.by_seed = [np.asarray(scores, dtype=np.float64) for scores in by_seed]
        self.blocks = None if blocks is None else np.unique(blocks, return_inverse=True)[1]
        self._metrics = [self.weighted(scores) for scores in self.by_seed]
        # By what it depends on: the metric of each draw of rows and each seed (R, S), and the generator's state then.
        self._draws: dict[tuple[int, int, int], tuple[Float64, Any]] = {}

    @property
    def units(self) -> int:
        """How many rows, or blocks of rows, are drawn."""
        return len(self.labels) if self.blocks is None else int(self.blocks.max()) + 1

    def weighted(self, *models: npt.ArrayLike) -> WeightedMetric:
        """Return the metric of a model's scores, or of several models', whose rows follow each other."""
        labels, scores = np.concatenate([self.labels] * len(models)), np.concatenate(models)
        if self.blocks is None:
            return weighted_metric(self.problem, self.metric, labels, scores)
        numbers = [self.blocks + number * self.units for number in range(len(models))]
        return by_block(self.metric, labels, scores, np.concatenate(numbers))

    def of_rows(self, drawn_RU: npt.NDArray[Any]) -> Float64:
        """Return what was drawn for each unit as that of each row."""
        return drawn_RU.astype(np.float64)[:, slice(None) if self.blocks is None else self.blocks]

    @cached_property
    def value(self) -> float:
        """The metric, mean over seeds."""
        return float(np.mean([metric(np.ones((1, len(self.labels)))) for metric in self._metrics]))

    @cached_property
    def swappable(self) -> list[Float64]:
        """Each seed's scores on a scale that another model's can be exchanged for: mid-ranks, from 0 to 1."""
        if self.metric not in RANKED:
            return self.by_seed
        return [(rankdata(scores, axis=0) - 0.5) / len(scores) for scores in self.by_seed]


def interval(tasks: Sequence[TaskScores], *, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Return ``value``, the mean of a model's metrics over seeds and tasks, and ``low`` and ``high`` of its interval.

    That is as `INTERVAL_METHOD` describes it; its ends are not a number where the metric is defined in no resample.
    With few seeds their part of the spread is underestimated: by (S - 1) / S in variance for S seeds.
    """
    draws = [_bootstrap([one], seed, task, resamples)[0] for task, one in enumerate(tasks)]
    return {"value": float(np.mean([one.value for one in tasks])), **_percentiles(np.mean(draws, axis=0))}


def difference(
    a: Sequence[TaskScores], b: Sequence[TaskScores], *, resamples: int = 2000, permutations: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return the difference of two models' metrics, mean over the same tasks, with its interval and p-value.

    Keys: ``difference``, ``low``, ``high``, ``p_value`` (not a number where the difference is none), and ``method``, in
    words for a report. The interval is that of `interval`, with the same rows for both models and seeds of each.

    The p-value is of a two-sided paired permutation test. Each permutation draws rows, half of them on average, and
    swaps the predictions there, in all tasks at once. Seeds of the first model are paired with those of the second in
    their order, the shorter list from its start again; a permutation swaps the same rows in all pairs. With D the mean
    difference over pairs, ``p = (1 + #{|D permuted| >= |D|}) / (1 + permutations)`` (Phipson and Smyth 2010).

    As decision values of two models may be of different scales, hard predictions are swapped for `COUNTED` metrics, and
    for `RANKED` ones mid-ranks among all rows of a model, seed and column, scaled to between 0 and 1.
    """
    draws, observed, permuted, rounding = [], [], [], 0.0
    for task, (one, other) in enumerate(zip(a, b, strict=True)):
        a_draw_R, b_draw_R = _bootstrap([one, other], seed, task, resamples)
        draws.append(a_draw_R - b_draw_R)
        # The first model's rows followed by the second's, for each pair of seeds.
        rows = len(one.labels)
        seeds = zip(range(max(len(one.by_seed), len(other.by_seed))), cycle(one.swappable), cycle(other.swappable))
        pairs = [one.weighted(*both) for _, *both in seeds]
        observed.append(_swapped(pairs, np.zeros((1, rows)))[0])
        # From a stream of its own, so that the p-value does not depend on what was drawn for the interval.
        rng = _generator(seed, task).spawn(1)[0]
        swaps = (rng.integers(0, 2, (count, one.units), dtype=np.uint8) for count in _chunks(2 * rows, permutations))
        permuted.append(np.concatenate([_swapped(pairs, one.of_rows(swap_RU)) for swap_RU in swaps]))
        # All metrics but the squared error are at most 1 in size.
        rounding += _ROUNDING * (one.value + other.value if one.metric == "mse" else 1) / len(a)
    p_value, found = np.nan, float(np.mean(observed))
    if not np.isnan(found):
        # A permutation with no difference to compare counts as one that is as large, so that p is never too small.
        smaller_R = np.abs(np.mean(permuted, axis=0)) < abs(found) - rounding
        p_value = float((1 + (~smaller_R).sum()) / (1 + permutations))
    value = float(np.mean([one.value - other.value for one, other in zip(a, b, strict=True)]))
    kinds = dict.fromkeys(COUNTED, "hard predictions") | dict.fromkeys(RANKED, "ranks")
    swapped = " or ".join(dict.fromkeys(kinds.get(one.metric, "predicted values") for one in a))
    method = (
        f"interval: paired {INTERVAL_METHOD}; p-value: two-sided paired permutation test, {swapped} of the two models "
        f"swapped row by row{' in all tasks at once' * (len(a) > 1)}, the same rows in all seeds"
        f"{BLOCK_METHOD * any(one.blocks is not None for one in a)}"
    )
    return {"difference": value, **_percentiles(np.mean(draws, axis=0)), "p_value": p_value, "method": method}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the chance of any false finding (Holm 1979); what is not a number does not count."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted, order = np.full(values.shape, np.nan), np.argsort(values, kind="stable")
    order = order[: len(order) - int(np.isnan(values).sum())]
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * values[order]), 1)
    return adjusted.tolist()  # type: ignore[no-any-return]


def _generator(seed: int, task: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(task,)))


def _chunks(rows: int, resamples: int) -> Iterator[int]:
    """Yield numbers of resamples that fit into memory at once."""
    if resamples < 1:
        raise InputError(f"resamples is {resamples}; use at least 1")
    at_once = max(1, _ENTRIES_AT_ONCE // rows)
    for first in range(0, resamples, at_once):
        yield min(at_once, resamples - first)


def _bootstrap(models: Sequence[TaskScores], seed: int, task: int, resamples: int) -> list[Float64]:
    """Return each model's mean over drawn seeds (R,) under each draw of rows, which is the same for all models."""
    key, rng, units = (seed, task, resamples), _generator(seed, task), models[0].units
    missing = {model: list[Any]() for model in models if key not in model._draws}
    for count in _chunks(len(models[0].labels), resamples) if missing else ():
        # Places in the flat weights, so that one count is enough for all resamples.
        drawn_RU = rng.integers(0, units, (count, units)) + np.arange(count)[:, None] * units
        weight_RN = models[0].of_rows(np.bincount(drawn_RU.ravel(), minlength=count * units).reshape(count, units))
        for model, parts in missing.items():
            parts.append(np.stack([metric(weight_RN) for metric in model._metrics], axis=1))
    for model, parts in missing.items():
        model._draws[key] = np.concatenate(parts), rng.bit_generator.state
    rng.bit_generator.state = models[0]._draws[key][1]
    means = []
    for model in models:
        seeds, value_RS = len(model.by_seed), model._draws[key][0]
        times_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
        # A seed that was not drawn does not count, not even by not being a number.
        means.append(np.where(times_RS > 0, times_RS * value_RS, 0).sum(axis=1) / seeds)
    return means


def _swapped(pairs: Sequence[WeightedMetric], swap_RN: Float64) -> Float64:
    """Return the mean difference over pairs of seeds when the rows marked by 1 are swapped, (R,)."""
    differences, rows = [], swap_RN.shape[1]
    for metric in pairs:
        if isinstance(metric, SumMetric):
            # Truth values have no differences; as numbers of one byte, since they may be many.
            kind_2NM = metric.kind_NM.astype(np.int8) if metric.kind_NM.dtype == bool else metric.kind_NM
            a_NM, b_NM = kind_2NM[:rows], kind_2NM[rows:]
            a_M, b_M = a_NM.sum(axis=0, dtype=np.float64), b_NM.sum(axis=0, dtype=np.float64)
            # What swapped rows add to the first model's sums, they take from the second's.
            moved_RM = weighted_sums(swap_RN, b_NM - a_NM)
            differences.append(metric.value(a_M + moved_RM) - metric.value(b_M - moved_RM))
        else:
            # A swapped row counts for the first model with what the second predicted, and the other way round.
            a_R2N = np.concatenate([1 - swap_RN, swap_RN], axis=1)
            differences.append(metric(a_R2N) - metric(1 - a_R2N))
    return np.mean(differences, axis=0)  # type: ignore[no-any-return]


def _percentiles(value_R: Float64) -> dict[str, float]:
    defined_R = value_R[~np.isnan(value_R)]
    ends = np.quantile(defined_R, [(1 - 0.95) / 2, (1 + 0.95) / 2]) if len(defined_R) else np.full(2, np.nan)
    return dict(zip(("low", "high"), ends.tolist(), strict=True))
