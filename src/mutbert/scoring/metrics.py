"""Metrics of rows that weigh one each, or as often as they were drawn; and files of labels and scores.

Shape suffixes: N rows, K classes or columns, M numbers that are summed, R weightings, G groups of equal scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from mutbert.arrays import Bool, Float64, Int64
from mutbert.errors import InputError, reading
from mutbert.files import atomic_file

WeightedMetric = Callable[[Float64], Float64]  # of weights (R, N), whole numbers from 0 on, to (R,)


COUNTED: Final = ("mcc", "accuracy", "f1", "precision", "recall")  # of hard predictions
RANKED: Final = ("auroc", "auprc", "spearman")  # of the order of the scores alone
BY_CHROM: Final = "_by_chrom"  # after a binary metric: its mean over chromosomes, as of `by_block`
LOWER_IS_BETTER: Final = frozenset({"mse"})

_ENTRIES_AT_ONCE: Final = 2**20
# A variance below this part of the mean square is rounding, as double precision leaves about 1e-16 of it.
_CONSTANT: Final = 1e-13


@dataclass(frozen=True)
class SumMetric:
    """A metric that weights enter through sums alone, so that many are computed in one product of matrices."""

    kind_NM: Bool | Float64  # what is summed of each row
    value: Callable[[Float64], Float64]  # of the weighted sums (R, M), the metric (R,)

    def __call__(self, weight_RN: Float64) -> Float64:
        """Return the metric under each weighting."""
        return self.value(weighted_sums(weight_RN, self.kind_NM))


def weighted_sums(weight_RN: Float64, kind_NM: npt.NDArray[Any]) -> Float64:
    """Return sums over the rows under many weightings, (R, M)."""
    # Some columns at a time, as truth values take eight times the memory as numbers.
    at_once = max(1, _ENTRIES_AT_ONCE // len(kind_NM))
    parts = (kind_NM[:, first : first + at_once] for first in range(0, kind_NM.shape[1], at_once))
    return np.concatenate([weight_RN @ part.astype(np.float64, copy=False) for part in parts], axis=1)


def metric_names(problem: str) -> tuple[str, ...]:
    """Return the metrics of a problem: binary, multiclass, multilabel or regression."""
    return ("pearson", "spearman", "r2", "mse") if problem == "regression" else (*COUNTED, "auroc", "auprc")


def predicted(problem: str, scores: npt.ArrayLike) -> Int64:
    """Return 1 where a decision value is above 0, else 0; for ``multiclass`` the first class with the highest one."""
    values = np.asarray(scores, dtype=np.float64)
    return values.argmax(axis=1).astype(np.int64) if problem == "multiclass" else (values > 0).astype(np.int64)


def evaluate(
    problem: str, labels: npt.ArrayLike, scores: npt.ArrayLike, metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """Return metrics of scores by name, in the order asked for; by default all of `metric_names`.

    `labels` are integers: 0 or 1 (N,) for ``binary``, 0 to K - 1 (N,) for ``multiclass``, 0 or 1 (N, K) for
    ``multilabel``; or numbers (N,) or (N, K) for ``regression``. `scores` are decision values (N,) for ``binary`` and
    (N, K) for several classes or labels, and predictions for ``regression``.

    - ``mcc``: Matthews' correlation; for several classes Gorodkin's (2004). 0 where a side is constant.
    - ``accuracy``; ``precision``, ``recall``, ``f1``, which are 0 where they would be 0 / 0. For ``multiclass`` the
      last three are means over all K classes, also over those that do not occur.
    - ``auroc``: area under the ROC curve, ties counted half; ``auprc``: average precision, the sum of precision times
      gain of recall over the distinct scores. For ``multiclass`` they are one-vs-rest means. A class or column without
      positive or without negative rows is left out of the mean; where none is left, the result is not a number.
    - ``pearson``, ``spearman`` (with mid-ranks), not a number where labels or scores are constant; ``mse``; ``r2``, 1
      less its ratio to the variance of the labels, not a number where these are constant.

    For ``multilabel`` and for regression on several columns, each metric is the mean over the columns, each of the rows
    that have a label there: the others are NaN.
    """
    names = metric_names(problem) if metrics is None else metrics
    weight_1N = np.ones((1, len(np.atleast_1d(np.asarray(labels)))))
    return {name: float(weighted_metric(problem, name, labels, scores)(weight_1N)[0]) for name in names}


def constant_guess(problem: str, labels: Any, scores: Any) -> dict[str, float]:
    """Return what the best constant guess reaches, by metric; of scores, only the shape counts.

    Each metric has its own best guess, chosen on these labels: the mean for regression, the most frequent class, and
    for two classes and in each column of several labels the better of 0 and 1.
    """
    if problem == "regression":
        return evaluate(problem, labels, np.broadcast_to(np.nanmean(labels, axis=0, dtype=np.float64), scores.shape))
    if problem == "multiclass":
        # Precision, recall and F1 of a class grow with its share, so that no other class is a better guess.
        chosen_K = np.eye(scores.shape[1])[np.bincount(labels).argmax()]
        return evaluate(problem, labels, np.broadcast_to(chosen_K, scores.shape))
    known = [one[~np.isnan(one)].astype(np.int64) for one in labels.reshape(len(labels), -1).T]
    # Of each column and guess (K, 2, M); a metric is not a number for both guesses or for neither.
    value_K2M = [
        [[*evaluate("binary", label_N, np.full(len(label_N), score)).values()] for score in (1.0, -1.0)]
        for label_N in known if len(label_N)
    ]  # fmt: skip
    return dict(zip(metric_names(problem), _mean_of_defined(np.max(value_K2M, axis=1)).tolist(), strict=True))


def weighted_metric(problem: str, metric: str, labels: npt.ArrayLike, scores: npt.ArrayLike) -> WeightedMetric:
    """Return a metric of many weightings of the same rows: that of `evaluate` with each row as often as its weight."""
    names = metric_names(problem)
    if metric not in names:
        raise ValueError(f"{problem} has no metric {metric!r}; it must be one of {', '.join(names)}")
    if np.ndim(labels) == 2 and (problem == "regression" or np.isnan(labels).any()):
        return _by_column(problem, metric, np.asarray(labels), np.asarray(scores))
    label_values, score_values = _checked(problem, labels, scores)
    if metric in COUNTED:
        return _counted(problem, metric, label_values, score_values)
    if problem == "regression":
        make: Any = {"pearson": _pearson, "spearman": _spearman, "r2": _r2, "mse": _mse}[metric]
        return make(label_values, score_values)  # type: ignore[no-any-return]
    if problem == "multiclass":
        label_values = label_values[:, None] == np.arange(score_values.shape[1])
    columns = (one.reshape(len(one), -1).T for one in (label_values.astype(bool), score_values))
    areas = [_area(metric, label_N, score_N) for label_N, score_N in zip(*columns, strict=True)]
    return lambda weight_RN: _mean_of_defined(np.stack([area(weight_RN) for area in areas]))


def _by_column(problem: str, metric: str, label_NK: Any, score_NK: Any) -> WeightedMetric:
    """Return the mean of a metric over the columns, each of the rows that have a label there."""
    kind, dtype = ("binary", np.int64) if problem == "multilabel" else (problem, np.float64)
    columns = [
        (slice(None) if known.all() else known, weighted_metric(kind, metric, label[known].astype(dtype), score[known]))
        for label, score, known in zip(label_NK.T, score_NK.T, ~np.isnan(label_NK.T), strict=True) if known.any()
    ]  # fmt: skip

    def mean(weight_RN: Float64) -> Float64:
        # A resample may have no row of a column.
        with np.errstate(divide="ignore", invalid="ignore"):
            value_KR = np.stack([metric_of(weight_RN[:, known]) for known, metric_of in columns])
        return value_KR.mean(axis=0) if problem == "regression" else _mean_of_defined(value_KR)

    return mean


def _mean_of_defined(value_KR: Float64) -> Float64:
    """Return the mean of the values of columns that are numbers, (R,)."""
    defined_KR = np.isfinite(value_KR)
    total_R = np.where(defined_KR, value_KR, 0).sum(axis=0)
    return _ratio(total_R, defined_KR.sum(axis=0).astype(np.float64), otherwise=np.nan)


def _checked(problem: str, labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[Any], Float64]:
    """Return labels and scores as arrays that fit each other and the problem."""
    label_values: npt.NDArray[Any] = np.asarray(labels)
    values = np.asarray(scores, dtype=np.float64)
    shape = values.shape
    fits = values.size and len(shape) == (1 if problem in {"binary", "regression"} else 2)
    if not fits or label_values.shape != (shape[:1] if problem == "multiclass" else shape):
        raise ValueError(f"labels of shape {label_values.shape} and scores of shape {shape} do not fit {problem}")
    if count := int(np.isnan(values).sum()):
        raise ValueError(f"scores are not a number in {count} places")
    if problem == "regression":
        if not (np.isfinite(label_values).all() and np.isfinite(values).all()):
            raise ValueError("labels and scores for regression must be finite")
        return label_values.astype(np.float64), values
    if problem == "multilabel" and np.isin(label_values, (0, 1)).all():
        label_values = label_values.astype(np.uint8)  # also of a part without gaps of a table that has some
    highest = shape[1] - 1 if problem == "multiclass" else 1
    if label_values.dtype.kind not in "biu" or label_values.min() < 0 or label_values.max() > highest:
        found = f"{label_values.dtype} from {label_values.min()} to {label_values.max()}"
        raise ValueError(f"labels for {problem} must be integers from 0 to {highest}, not {found}")
    return label_values, values


def _counted(problem: str, metric: str, labels: npt.NDArray[Any], scores: Float64) -> SumMetric:
    """Return a metric of hard predictions, from weighted counts of hits, of labels and of predictions."""
    several, both = problem == "multiclass", (labels, predicted(problem, scores))
    if several:
        both = both[0][:, None] == np.arange(scores.shape[1]), both[1][:, None] == np.arange(scores.shape[1])
    actual_NK, guess_NK = (one.reshape(len(one), -1).astype(bool) for one in both)
    kind_NM = np.concatenate([actual_NK & guess_NK, actual_NK, guess_NK, np.ones((len(labels), 1), bool)], axis=1)

    def folded(value_RK: Float64) -> Float64:
        return value_RK.sum(axis=1, keepdims=True) if several else value_RK

    def value(sum_RM: Float64) -> Float64:
        hit_RK, actual_RK, guess_RK = np.split(sum_RM[:, :-1], 3, axis=1)
        total_R1 = sum_RM[:, -1:]
        if metric == "accuracy":
            right_RK = folded(hit_RK) if several else total_R1 - actual_RK - guess_RK + 2 * hit_RK
            value_RK = right_RK / total_R1
        elif metric == "mcc":
            # Counts are whole numbers far below 2**53, so that a variance of zero is exactly zero.
            covariance = folded(hit_RK * total_R1 - actual_RK * guess_RK)
            variances = (folded(one_RK * (total_R1 - one_RK)) for one_RK in (actual_RK, guess_RK))
            value_RK = _ratio(covariance, np.sqrt(np.multiply(*variances)), otherwise=0.0)
        else:
            under_RK = {"precision": guess_RK, "recall": actual_RK, "f1": (actual_RK + guess_RK) / 2}[metric]
            value_RK = _ratio(hit_RK, under_RK, otherwise=0.0)
        return value_RK.mean(axis=1)  # type: ignore[no-any-return]

    return SumMetric(kind_NM, value)


def by_block(metric: str, labels: npt.ArrayLike, scores: npt.ArrayLike, block_N: Int64) -> SumMetric:
    """Return the mean of a binary metric over blocks, each weighted by its positives; the rows of one weigh the same.

    A block of one class, in which the metric is not defined, does not count.
    """
    label_N, score_N = _checked("binary", labels, scores)
    value_N, hit_N = np.zeros_like(score_N), np.zeros_like(score_N)
    for block in np.unique(block_N):
        own_N = block_N == block
        if label_N[own_N].min() < label_N[own_N].max():
            value_N[own_N] = evaluate("binary", label_N[own_N], score_N[own_N], [metric])[metric]
            hit_N[own_N] = label_N[own_N]
    sums_N2 = np.stack([hit_N * value_N, hit_N], axis=1)
    return SumMetric(sums_N2, lambda sum_R2: _ratio(sum_R2[:, 0], sum_R2[:, 1], otherwise=np.nan))


def _area(metric: str, actual_N: Bool, score_N: Float64) -> WeightedMetric:
    """Return the area under a column's ROC or precision-recall curve."""
    # From the highest score down, as a threshold goes.
    order_N, start_G, _ = _groups(-score_N)
    actual_N = actual_N[order_N]

    def area(weight_RN: Float64) -> Float64:
        sorted_RN = weight_RN[:, order_N]
        all_RG, hit_RG = _group_sums(sorted_RN, start_G), _group_sums(sorted_RN * actual_N, start_G)
        hits_RG = hit_RG.cumsum(axis=1)
        hits_R, total_R = hits_RG[:, -1].copy(), all_RG.sum(axis=1)
        misses_R = total_R - hits_R
        if metric == "auroc":
            hits_RG -= hit_RG / 2
            all_RG -= hit_RG
            return _ratio(np.einsum("rg,rg->r", all_RG, hits_RG), hits_R * misses_R, otherwise=np.nan)
        found_RG = all_RG.cumsum(axis=1)
        # Nothing was found above the first row with a weight, and no hit either.
        np.divide(hits_RG, found_RG, out=hits_RG, where=found_RG > 0)
        sum_R = np.einsum("rg,rg->r", hit_RG, hits_RG)
        return _ratio(sum_R, np.where(misses_R > 0, hits_R, 0), otherwise=np.nan)

    return area


def _pearson(label_N: Float64, score_N: Float64) -> SumMetric:
    """Return Pearson's correlation from weighted moments."""
    # Moments of what is already about centred and scaled lose no digits.
    x_N, y_N = _standardised(label_N), _standardised(score_N)
    moments_N6 = np.stack([x_N, y_N, x_N * x_N, y_N * y_N, x_N * y_N, np.ones_like(x_N)], axis=1)

    def correlation(sum_R6: Float64) -> Float64:
        x_R, y_R, xx_R, yy_R, xy_R = (sum_R6[:, :5] / sum_R6[:, 5:]).T
        x_variance_R, y_variance_R = xx_R - x_R * x_R, yy_R - y_R * y_R
        varies_R = (x_variance_R > _CONSTANT * xx_R) & (y_variance_R > _CONSTANT * yy_R)
        under_R = np.sqrt(np.where(varies_R, x_variance_R, 0)) * np.sqrt(np.where(varies_R, y_variance_R, 0))
        return _ratio(xy_R - x_R * y_R, under_R, otherwise=np.nan).clip(-1, 1)

    return SumMetric(moments_N6, correlation)


def _spearman(label_N: Float64, score_N: Float64) -> WeightedMetric:
    """Return Spearman's correlation: Pearson's of the mid-ranks that the rows have under a weighting."""
    groups = (_groups(label_N), _groups(score_N))

    def correlation(weight_RN: Float64) -> Float64:
        total_R1 = weight_RN.sum(axis=1, keepdims=True)
        product_RN = weight_RN
        under_R = np.ones(len(weight_RN))
        for order_N, start_G, place_N in groups:
            all_RG = _group_sums(weight_RN[:, order_N], start_G)
            # The mid-rank less its mean; halves of whole numbers, so that no variance is exactly zero.
            rank_RG = all_RG.cumsum(axis=1) - all_RG / 2 - total_R1 / 2
            product_RN = product_RN * rank_RG[:, place_N]
            under_R *= np.sqrt(np.einsum("rg,rg,rg->r", all_RG, rank_RG, rank_RG))
        return _ratio(product_RN.sum(axis=1), under_R, otherwise=np.nan).clip(-1, 1)

    return correlation


def _mse(label_N: Float64, score_N: Float64) -> SumMetric:
    """Return the mean squared error."""
    square_N2 = np.stack([(label_N - score_N) ** 2, np.ones_like(label_N)], axis=1)
    return SumMetric(square_N2, lambda sum_R2: sum_R2[:, 0] / sum_R2[:, 1])


def _r2(label_N: Float64, score_N: Float64) -> SumMetric:
    """Return the share of the labels' variance that is explained, 1 less the ratio of squared errors."""
    # Both on the labels' scale, where these are about centred, so that no digits are lost.
    scale = float(np.abs(label_N - label_N.mean()).max()) or 1.0
    x_N, error_N = (label_N - label_N.mean()) / scale, (label_N - score_N) / scale
    sums_N4 = np.stack([error_N**2, x_N, x_N**2, np.ones_like(x_N)], axis=1)

    def value(sum_R4: Float64) -> Float64:
        error_R, x_R, xx_R, count_R = sum_R4.T
        variance_R = xx_R - x_R * x_R / count_R
        varies_R = variance_R > _CONSTANT * xx_R
        return 1 - _ratio(error_R, np.where(varies_R, variance_R, 0), otherwise=np.nan)

    return SumMetric(sums_N4, value)


def _groups(value_N: Float64) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the ascending order of values, where in it each group of equal ones starts, and each row's group."""
    _, place_N, count_G = np.unique(value_N, return_inverse=True, return_counts=True)
    return np.argsort(place_N, kind="stable"), count_G.cumsum() - count_G, place_N


def _group_sums(sorted_RN: Float64, start_G: npt.NDArray[np.intp]) -> Float64:
    return sorted_RN if len(start_G) == sorted_RN.shape[1] else np.add.reduceat(sorted_RN, start_G, axis=1)


def _standardised(value_N: Float64) -> Float64:
    # The mean of equal numbers may differ from them by rounding.
    if value_N.min() == value_N.max():
        return np.zeros_like(value_N)
    # Scaled first, as a mean or a square of very large numbers may overflow.
    centred_N: Float64 = value_N / np.abs(value_N).max()
    centred_N -= centred_N.mean()
    return centred_N / (float(np.abs(centred_N).max()) or 1)


def _ratio(over: Float64, under: Float64, *, otherwise: float) -> Float64:
    """Return a quotient, and something else where there is nothing to divide by."""
    result: Float64 = np.divide(over, under, out=np.full(over.shape, otherwise), where=under > 0)
    return result


def write_predictions(
    path: Path, labels: npt.ArrayLike, scores: npt.ArrayLike, *, classes: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Write labels and scores as `evaluate` takes them, in place of an earlier file.

    Columns: ``name``, where there are names; ``label`` and ``score`` where they have one dimension, and otherwise
    ``label_CLASS`` and ``score_CLASS`` for each column, with its number where there are no classes.
    """
    columns: dict[str, Any] = {} if names is None else {"name": np.asarray(names, dtype=str)}
    for kind, values in (("label", np.asarray(labels)), ("score", np.asarray(scores))):
        several = [f"{kind}_{name}" for name in classes or range(values.shape[-1])]
        columns |= zip([kind] if values.ndim == 1 else several, np.atleast_2d(values.T), strict=True)
    with atomic_file(path, force=True) as file:
        pl.DataFrame(columns).write_parquet(file)


def read_predictions(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the labels and the scores that `write_predictions` wrote."""
    with reading(path, "remake it with the run that wrote it"):
        frame = pl.read_parquet(path)
    arrays = []
    for kind in ("label", "score"):
        several = frame.select(f"^{kind}(_.*)?$")
        if not several.width:
            raise InputError(f"{path}: has no column {kind} or {kind}_CLASS; choose predictions that mutbert wrote")
        arrays.append(frame[kind].to_numpy() if kind in frame.columns else several.to_numpy(order="c"))
    return arrays[0], arrays[1]
