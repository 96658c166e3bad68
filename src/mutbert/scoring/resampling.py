"""Intervals of metrics and comparisons of two models on the same test rows, by resampling.

Both are one thing underneath: a metric of many weightings of the rows. A bootstrap weighs a row as often as it was
drawn; a permutation stacks the rows of two models and weighs a row by 1 or 0. Shape suffixes: N rows, R resamples or
permutations, S seeds of a model.

References
----------
Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 (percentile intervals) and 15 (permutation
tests). Phipson and Smyth (2010), Statistical Applications in Genetics and Molecular Biology 9, 39 (p-values above 0).
Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.scoring.metrics import COUNTED, RANKED, SumMetric, weighted_metric, weighted_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from mutbert.scoring.metrics import WeightedMetric

    Floats = npt.NDArray[np.float64]
    Part = tuple[str, str, npt.ArrayLike, Sequence[npt.ArrayLike]]
    PairedPart = tuple[str, str, npt.ArrayLike, Sequence[npt.ArrayLike], Sequence[npt.ArrayLike]]

INTERVAL_METHOD: Final = (
    "percentile bootstrap (Efron & Tibshirani 1993): test rows drawn with replacement, the same for all seeds of a "
    "model; seeds drawn with replacement too where there are several; rows drawn independently in each task of an "
    "average; resamples in which the metric is not defined are left aside"
)
"""How the intervals come about, in words for a report."""

# A metric holds about ten arrays of as many entries as its weights have, at 8 bytes each.
_ENTRIES_AT_ONCE: Final = 2**20
# More columns than these at once are no faster, and take more memory.
_COLUMNS_AT_ONCE: Final = 64
# Differences that are equal but for rounding count as equal.
_ROUNDING: Final = 1e-10


class Interval(NamedTuple):
    """A metric and how sure it is.

    Parameters
    ----------
    value : float
        The metric, mean over seeds, and over tasks for an average.
    low, high : float
        The ends of the interval; not a number where the metric is defined in no resample.
    """

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """By how much one model is ahead of another on the same test rows.

    Parameters
    ----------
    difference : float
        The first model's metric less the second's, each the mean over its seeds, and over tasks for an average.
    low, high : float
        The ends of the difference's interval; not a number where the metric is defined in no resample.
    p_value : float
        Two-sided; not a number where the difference is none.
    method : str
        How interval and p-value came about, in words for a report.
    """

    difference: float
    low: float
    high: float
    p_value: float
    method: str


def bootstrap_interval(
    problem: str,
    metric: str,
    labels: npt.ArrayLike,
    scores_by_seed: Sequence[npt.ArrayLike],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Give a metric's mean over a model's seeds, and its interval by the bootstrap.

    The interval is the percentile interval of Efron and Tibshirani (1993, chapter 13); `INTERVAL_METHOD` says so in
    words. Each resample draws as many test rows as there are with replacement, the same for all seeds, and as many
    seeds as there are with replacement. Resamples in which the metric is not defined, such as an AUROC with rows of
    one class alone, are left aside. With few seeds their part of the spread is underestimated: by (S - 1) / S in
    variance for S seeds, and wholly for one.

    Parameters
    ----------
    problem, metric, labels
        As for `mutbert.scoring.metrics.evaluate`; N rows.
    scores_by_seed : sequence of array
        Scores as for `evaluate`, from each of the model's seeds.
    resamples : int
        How many times to draw.
    confidence : float
        Between 0 and 1.
    seed : int
        Of the random draws; the same one gives the same interval.

    Returns
    -------
    Interval
        What the metric is, and between what.

    Raises
    ------
    ValueError
        As `evaluate`; where there are no scores; for `resamples` below 1 and `confidence` not between 0 and 1.
    """
    part = (problem, metric, labels, scores_by_seed)
    return average_interval([part], resamples=resamples, confidence=confidence, seed=seed)


def average_interval(
    parts: Sequence[Part], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Give the mean of several tasks' metrics, as for a suite, and its interval by the bootstrap.

    Rows and seeds are drawn in each task as `bootstrap_interval` does, independently of the other tasks. The mean is
    defined where all tasks' metrics are.

    Parameters
    ----------
    parts : sequence of tuple
        Of each task: problem, metric, labels, and scores by seed.
    resamples, confidence, seed
        As for `bootstrap_interval`.

    Returns
    -------
    Interval
        What the mean is, and between what.

    Raises
    ------
    ValueError
        As `bootstrap_interval`; where there are no tasks.
    """
    _check(parts, confidence=confidence, resamples=resamples)
    values, draws = [], []
    for (problem, metric, labels, scores_by_seed), rng in zip(parts, _generators(seed, len(parts)), strict=True):
        model = _prepare(problem, metric, labels, scores_by_seed)
        rows = len(np.asarray(labels))
        values.append(_plain(model, rows))
        draws.append(_bootstrap(rng, [model], rows, resamples)[0])
    return Interval(float(np.mean(values)), *_percentiles(np.mean(draws, axis=0), confidence))


def compare(
    problem: str,
    metric: str,
    labels: npt.ArrayLike,
    scores_a_by_seed: Sequence[npt.ArrayLike],
    scores_b_by_seed: Sequence[npt.ArrayLike],
    *,
    resamples: int = 2000,
    permutations: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models on the same test rows.

    The interval is that of `bootstrap_interval` for the difference: a resample has the same rows for both models, and
    seeds are drawn from each model's own.

    The p-value is of a two-sided paired permutation test: were the models alike, then what one says of a row could as
    well have come from the other. Each permutation draws rows, half of them on average, and swaps there what the
    models say. Seeds of the first model are paired with those of the second in their order, the shorter list from its
    start again; a permutation swaps the same rows in all pairs. With D the mean difference over pairs,
    ``p = (1 + #{|D permuted| >= |D|}) / (1 + permutations)`` (Phipson and Smyth 2010); it is never below
    ``1 / (1 + permutations)``.

    Two models' decision values may be of different scales, so what is swapped depends on the metric:

    - hard predictions for ``mcc``, ``accuracy``, ``f1``, ``precision`` and ``recall``;
    - for ``auroc``, ``auprc`` and ``spearman`` ranks: each score is first replaced by its mid-rank among all rows of
      its model, seed and column, scaled to between 0 and 1. That leaves the metric as it was;
    - the predicted values for ``pearson`` and ``mse``.

    Parameters
    ----------
    problem, metric, labels
        As for `mutbert.scoring.metrics.evaluate`; N rows.
    scores_a_by_seed, scores_b_by_seed : sequence of array
        Scores as for `evaluate`, from each seed of the first and of the second model; the numbers of seeds may differ.
    resamples : int
        How many times to draw for the interval.
    permutations : int
        How many times to swap for the p-value.
    confidence : float
        Of the interval, between 0 and 1.
    seed : int
        Of the random draws; the same one gives the same result.

    Returns
    -------
    PairedDifference
        First model less second.

    Raises
    ------
    ValueError
        As `bootstrap_interval`, and for `permutations` below 1.
    """
    part = (problem, metric, labels, scores_a_by_seed, scores_b_by_seed)
    return compare_average([part], resamples=resamples, permutations=permutations, confidence=confidence, seed=seed)


def compare_average(
    parts: Sequence[PairedPart],
    *,
    resamples: int = 2000,
    permutations: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare the means of two models over several tasks, as for a suite.

    Rows are drawn and swapped in each task as `compare` does, independently of the other tasks; a permutation swaps in
    all tasks at once, and its difference is the mean over them.

    Parameters
    ----------
    parts : sequence of tuple
        Of each task: problem, metric, labels, and scores by seed of the first and of the second model.
    resamples, permutations, confidence, seed
        As for `compare`.

    Returns
    -------
    PairedDifference
        First model less second.

    Raises
    ------
    ValueError
        As `compare`; where there are no tasks.
    """
    _check(parts, confidence=confidence, resamples=resamples, permutations=permutations)
    differences, draws, observed, permuted, rounding = [], [], [], [], 0.0
    for (problem, metric, labels, a_by_seed, b_by_seed), rng in zip(parts, _generators(seed, len(parts)), strict=True):
        a, b = _prepare(problem, metric, labels, a_by_seed), _prepare(problem, metric, labels, b_by_seed)
        rows = len(np.asarray(labels))
        a_value, b_value = _plain(a, rows), _plain(b, rows)
        differences.append(a_value - b_value)
        a_draw_R, b_draw_R = _bootstrap(rng, [a, b], rows, resamples)
        draws.append(a_draw_R - b_draw_R)
        swapping = _swapping(_stacked_pairs(problem, metric, labels, a_by_seed, b_by_seed), rows)
        observed.append(swapping(np.zeros((1, rows)))[0])
        # From a stream of its own, so that the p-value does not hang on what was drawn for the interval.
        permuted.append(_permute(rng.spawn(1)[0], swapping, rows, permutations))
        # All metrics but the squared error are at most 1 in size.
        rounding += _ROUNDING * (a_value + b_value if metric == "mse" else 1) / len(parts)
    difference = float(np.mean(differences))
    return PairedDifference(
        difference,
        *_percentiles(np.mean(draws, axis=0), confidence),
        _p_value(float(np.mean(observed)), np.mean(permuted, axis=0), rounding),
        _method([metric for _, metric, *_ in parts], several_tasks=len(parts) > 1),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several comparisons so that the chance of any false finding is kept (Holm 1979).

    Parameters
    ----------
    p_values : sequence of float
        One a comparison. What is not a number stands for no comparison: it stays, and does not count.

    Returns
    -------
    list of float
        Adjusted, in the same order, at most 1.

    Raises
    ------
    ValueError
        When a p-value is not between 0 and 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    compared = np.flatnonzero(~np.isnan(values))
    if ((values[compared] < 0) | (values[compared] > 1)).any():
        raise ValueError("p-values must be between 0 and 1")
    order = compared[np.argsort(values[compared], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return [float(value) for value in adjusted]


def _check(parts: Sequence[object], *, confidence: float, **counts: int) -> None:
    if not parts:
        raise ValueError("there are no tasks to average over")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


def _generators(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


def _prepare(
    problem: str, metric: str, labels: npt.ArrayLike, scores_by_seed: Sequence[npt.ArrayLike]
) -> list[WeightedMetric]:
    if not len(scores_by_seed):
        raise ValueError("there are no scores: at least one seed is needed")
    return [weighted_metric(problem, metric, labels, scores) for scores in scores_by_seed]


def _plain(model: Sequence[WeightedMetric], rows: int) -> float:
    weight_1N = np.ones((1, rows))
    return float(np.mean([scorer(weight_1N)[0] for scorer in model]))


def _chunks(rows: int, resamples: int) -> Iterator[int]:
    """Split resamples into numbers of them that fit into memory at once."""
    at_once = max(1, _ENTRIES_AT_ONCE // rows)
    for first in range(0, resamples, at_once):
        yield min(at_once, resamples - first)


def _bootstrap(
    rng: np.random.Generator, models: Sequence[Sequence[WeightedMetric]], rows: int, resamples: int
) -> list[Floats]:
    """Give each model's mean over drawn seeds under each draw of rows, which is the same for all models."""
    scorers = [_side_by_side(model) for model in models]
    chunks: list[list[Floats]] = [[] for _ in models]
    for count in _chunks(rows, resamples):
        # Places in the flat weights, so that one count gives all resamples.
        drawn_RN = rng.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        weight_RN = np.bincount(drawn_RN.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
        for scorer, values in zip(scorers, chunks, strict=True):
            values.append(scorer(weight_RN))
    means = []
    for model, values in zip(models, chunks, strict=True):
        seeds = len(model)
        times_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
        # A seed that was not drawn has no say, not even by not being a number.
        drawn_RS = np.where(times_RS > 0, times_RS * np.concatenate(values), 0)
        means.append(drawn_RS.sum(axis=1) / seeds)
    return means


def _side_by_side(model: Sequence[WeightedMetric]) -> Callable[[Floats], Floats]:
    """Prepare a model's seeds for weights of the same rows: from shape (R, N) to (R, S)."""
    sums = [scorer for scorer in model if isinstance(scorer, SumMetric)]
    if len(sums) < len(model):
        return lambda weight_RN: np.stack([scorer(weight_RN) for scorer in model], axis=1)
    groups = [(_kinds(group), group) for group in _some_at_a_time(sums)]

    def score(weight_RN: Floats) -> Floats:
        return np.stack(
            [value_R for kind_NM, group in groups for value_R in _values(group, weighted_sums(weight_RN, kind_NM))],
            axis=1,
        )

    return score


def _some_at_a_time(sums: Sequence[SumMetric]) -> list[Sequence[SumMetric]]:
    at_once = max(1, _COLUMNS_AT_ONCE // max(scorer.kind_NM.shape[1] for scorer in sums))
    return [sums[first : first + at_once] for first in range(0, len(sums), at_once)]


def _kinds(group: Sequence[SumMetric]) -> npt.NDArray[Any]:
    return np.concatenate([scorer.kind_NM for scorer in group], axis=1)


def _values(group: Sequence[SumMetric], sum_RM: Floats) -> list[Floats]:
    ends = np.cumsum([scorer.kind_NM.shape[1] for scorer in group])
    return [scorer.value(part_RM) for scorer, part_RM in zip(group, np.split(sum_RM, ends[:-1], axis=1), strict=True)]


def _stacked_pairs(
    problem: str,
    metric: str,
    labels: npt.ArrayLike,
    a_by_seed: Sequence[npt.ArrayLike],
    b_by_seed: Sequence[npt.ArrayLike],
) -> list[WeightedMetric]:
    """Prepare the metric on the first model's rows followed by the second's, for each pair of seeds."""
    label_values = np.concatenate([np.asarray(labels)] * 2)

    def swappable(scores: npt.ArrayLike) -> Floats:
        values = np.asarray(scores, dtype=np.float64)
        return _ranks(values) if metric in RANKED else values

    a, b = [swappable(scores) for scores in a_by_seed], [swappable(scores) for scores in b_by_seed]
    return [
        weighted_metric(problem, metric, label_values, np.concatenate([a[pair % len(a)], b[pair % len(b)]]))
        for pair in range(max(len(a), len(b)))
    ]


def _ranks(score_NK: Floats) -> Floats:
    """Replace scores by their mid-ranks in each column, scaled to between 0 and 1; of shape (N,) or (N, K)."""
    columns = []
    for score_N in score_NK.reshape(len(score_NK), -1).T:
        _, place_N, count_G = np.unique(score_N, return_inverse=True, return_counts=True)
        columns.append(((count_G.cumsum() - count_G / 2) / len(score_N))[place_N])
    return np.stack(columns, axis=1).reshape(score_NK.shape)


def _swapping(pairs: Sequence[WeightedMetric], rows: int) -> Callable[[Floats], Floats]:
    """Prepare the mean difference over pairs of seeds when the rows marked by 1 are swapped: from (R, N) to (R,)."""
    sums = [scorer for scorer in pairs if isinstance(scorer, SumMetric)]
    if len(sums) < len(pairs):

        def weigh(swap_RN: Floats) -> Floats:
            # A row that is swapped counts for the first model with what the second said, and the other way round.
            a_R2N = np.concatenate([1 - swap_RN, swap_RN], axis=1)
            b_R2N = 1 - a_R2N
            mean_R: Floats = np.mean([scorer(a_R2N) - scorer(b_R2N) for scorer in pairs], axis=0)
            return mean_R

        return weigh
    groups = []
    for group in _some_at_a_time(sums):
        kind_2NM = _kinds(group)
        if kind_2NM.dtype == bool:
            # Which have no differences; as numbers of one byte, since they may be many.
            kind_2NM = kind_2NM.astype(np.int8)
        a_NM, b_NM = kind_2NM[:rows], kind_2NM[rows:]
        groups.append((group, a_NM.sum(axis=0, dtype=np.float64), b_NM.sum(axis=0, dtype=np.float64), b_NM - a_NM))

    def move(swap_RN: Floats) -> Floats:
        differences: list[Floats] = []
        for group, a_M, b_M, more_NM in groups:
            # What swapped rows bring to the first model's sums, they take from the second's.
            moved_RM = weighted_sums(swap_RN, more_NM)
            a_values, b_values = _values(group, a_M + moved_RM), _values(group, b_M - moved_RM)
            differences += [a_R - b_R for a_R, b_R in zip(a_values, b_values, strict=True)]
        mean_R: Floats = np.mean(differences, axis=0)
        return mean_R

    return move


def _permute(rng: np.random.Generator, difference: Callable[[Floats], Floats], rows: int, permutations: int) -> Floats:
    return np.concatenate(
        [
            difference(rng.integers(0, 2, (count, rows), dtype=np.uint8).astype(np.float64))
            for count in _chunks(2 * rows, permutations)
        ]
    )


def _percentiles(value_R: Floats, confidence: float) -> tuple[float, float]:
    defined_R = value_R[~np.isnan(value_R)]
    if not len(defined_R):
        return np.nan, np.nan
    low, high = np.quantile(defined_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _p_value(observed: float, permuted_R: Floats, rounding: float) -> float:
    if np.isnan(observed):
        return np.nan
    # A permutation with no difference to compare counts as one that is as large, so that p is never too small.
    smaller_R = np.abs(permuted_R) < abs(observed) - rounding
    return float((1 + (~smaller_R).sum()) / (1 + len(permuted_R)))


def _method(metrics: Sequence[str], *, several_tasks: bool) -> str:
    whats = dict.fromkeys(
        "hard predictions" if metric in COUNTED else "ranks" if metric in RANKED else "predicted values"
        for metric in metrics
    )
    where = " in all tasks at once" if several_tasks else ""
    return (
        f"interval: paired {INTERVAL_METHOD}; p-value: two-sided paired permutation test, {' or '.join(whats)} of the "
        f"two models swapped row by row{where}, the same rows in all seeds"
    )
