"""How well predictors predict labels, in all variants and in parts of them, with intervals and comparisons.

Within a part all predictors are measured on the same variants: those with a value of each. Shape suffix: C variants of
a part that are compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert.effects.alleles import Kind
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.resampling import bootstrap_interval, compare, holm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Float64
    from mutbert.evaluation.vep_baselines import Predictor
    from mutbert.progress import Advance

ALL: Final = "all variants"
KIND_NAMES: Final = {"SNV": Kind.SNV, "MNV": Kind.MNV, "indel": Kind.INDEL}
"""The column ``kind``."""
DIRECTIONS: Final = ("damaging", "tolerated", "either")

_MOST_GROUPS: Final = 20
_FEWEST: Final = {"binary": 2, "regression": 3}


def metrics_of(problem: str) -> tuple[str, str]:
    """Return what is measured; the first decides and is compared."""
    return ("spearman", "pearson") if problem == "regression" else ("auroc", "auprc")


def split_parts(variants: pl.DataFrame) -> tuple[list[tuple[str, pl.DataFrame]], list[str]]:
    """Return all variants, those of each kind where there are several, and the largest groups first, by name.

    With a note where there are more groups than are measured.
    """
    parts, kinds = [(ALL, variants)], variants.partition_by("kind", as_dict=True)
    if len(kinds) > 1:
        parts += [(name, kinds[name,]) for name in KIND_NAMES if (name,) in kinds]
    if "group" not in variants:
        return parts, []
    grouped = variants.filter(pl.col("group") != "")
    sizes = grouped.group_by("group").len().sort("len", "group", descending=[True, False])
    groups = grouped.partition_by("group", as_dict=True)
    parts += [(name, groups[name,]) for name in sizes["group"].head(_MOST_GROUPS)]
    left = len(sizes) - _MOST_GROUPS
    return parts, [f"There are {left:,} more groups, with fewer variants; they are not shown."] if left > 0 else []


def targets_of(problem: str, classes: Sequence[str]) -> Iterator[tuple[str, str, pl.Expr]]:
    """Yield the name, problem and values of each target; of several classes, each against all others."""
    if problem != "multiclass":
        yield classes[-1], problem, pl.col("target")
        return
    for index, name in enumerate(classes):
        yield name, "binary", (pl.col("target") == index).cast(pl.Float64)


def measure_parts(
    variants: pl.DataFrame, predictors: Mapping[str, Predictor], problem: str, classes: Sequence[str], advance: Advance,
    *, direction: str, resamples: int, seed: int,
) -> tuple[list[dict[str, Any]], str, list[str]]:  # fmt: skip
    """Return every part as ``vep.json`` has it, the method of comparison, and the notes of `split_parts`.

    `variants` has the columns ``kind``, ``target``, perhaps ``group``, and one for each predictor. `advance` is called
    with the fraction of all that is done.
    """
    split, notes = split_parts(variants)
    targets = list(targets_of(problem, classes))
    draws = {"resamples": resamples, "seed": seed}
    parts, methods = [], []
    for name, inside in split:
        for target, own, values in targets:
            part = {"name": name, "target": target}
            measured, method = _measure(
                inside.with_columns(values.alias("target")), predictors, target, own, direction, draws,
                lambda share: advance(share / len(split) / len(targets)),
            )  # fmt: skip
            parts.append(part | measured)
            methods.append(method)
    return parts, next(filter(None, methods), ""), notes


def choose(inside: pl.DataFrame, predictors: Mapping[str, Predictor]) -> tuple[list[str], list[str], pl.DataFrame]:
    """Return the predictors of a part that are compared, those that would apply but vary in nothing, and the variants.

    A baseline that is the same everywhere in the part, as the order of substitutions is among indels, is not compared,
    nor is a model's score without values.
    """
    kinds = {int(KIND_NAMES[name]) for name in inside["kind"].unique()}
    chosen: list[str] = []
    empty: list[str] = []
    for name, predictor in predictors.items():
        if predictor.applies(kinds):
            (chosen if inside[name].drop_nulls().n_unique() > (not predictor.model) else empty).append(name)
    return chosen, empty, inside.drop_nulls(chosen) if chosen else inside


def _measure(
    inside: pl.DataFrame, predictors: Mapping[str, Predictor], target: str, problem: str, direction: str,
    draws: Mapping[str, int], advance: Advance,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return the counts and rows of a part, and the method of comparison."""
    chosen, empty, common = choose(inside, predictors)
    target_C = common["target"].to_numpy()
    positives = None if problem == "regression" else int(inside["target"].sum())
    part: dict[str, Any] = {
        "variants": len(inside),
        "compared": len(common),
        "positives": positives,
        "compared_positives": None if positives is None else int(target_C.sum()),
        "empty": empty,
        "why": _unusable(target_C, problem, target),
        "rows": [],
    }
    if part["why"]:
        advance(1)
        return part, ""
    labels, metrics = _labels(target_C, problem), metrics_of(problem)
    scores: dict[str, list[Float64]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in chosen:
        raw_C = common[name].to_numpy()
        turn = _turn(labels, raw_C, problem, direction, predictors[name].extreme)
        scores[name] = [turn * raw_C]
        row: dict[str, Any] = {"predictor": name, "model": predictors[name].model, "end": "low" if turn < 0 else "high"}
        row["missing"] = inside[name].null_count()
        for metric in metrics:
            value, *ends = bootstrap_interval(problem, metric, labels, scores[name], **draws)
            if problem == "regression":
                # A correlation is that of the values as they are, with its sign.
                value, ends = turn * value, sorted(turn * end for end in ends)
            row |= {metric: value, f"{metric}_low": ends[0], f"{metric}_high": ends[1]}
        own = inside.drop_nulls(name)
        own_labels = _labels(own["target"].to_numpy(), problem)
        sign = 1 if problem == "regression" else turn
        row["alone"] = evaluate(problem, own_labels, sign * own[name].to_numpy(), metrics[:1])[metrics[0]]
        rows[name] = row
        advance(0.5 / len(chosen))
    method = _compare(rows, scores, labels, problem, draws, advance)
    part["rows"] = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in rows.values()
    ]
    return part, method


def _compare(
    rows: Mapping[str, dict[str, Any]], scores: Mapping[str, list[Float64]], labels: npt.NDArray[Any], problem: str,
    draws: Mapping[str, int], advance: Advance,
) -> str:  # fmt: skip
    """Add the difference of each model's predictor from the best baseline to its row; return how it was computed."""
    metric, method, compared = metrics_of(problem)[0], "", []
    strength = {name: abs(row[metric]) if problem == "regression" else row[metric] for name, row in rows.items()}
    baselines = [name for name, row in rows.items() if not row["model"] and not math.isnan(strength[name])]
    best = max(baselines, key=strength.__getitem__, default=None)
    for name, row in rows.items():
        row |= dict.fromkeys(("baseline", "difference", "difference_low", "difference_high", "p", "p_holm"))
        if best is not None and row["model"]:
            *values, method = compare(
                problem, metric, labels, scores[name], scores[best], permutations=draws["resamples"], **draws
            )
            row |= dict(zip(("difference", "difference_low", "difference_high", "p"), values, strict=True))
            row["baseline"] = best
            compared.append(row)
        advance(0.5 / len(rows))
    for row, adjusted in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = adjusted
    return method


def _labels(target_C: Float64, problem: str) -> npt.NDArray[Any]:
    return target_C.astype(np.int64) if problem == "binary" else target_C


def _turn(labels: npt.NDArray[Any], raw_C: Float64, problem: str, direction: str, extreme: int) -> int:
    """Return the factor, 1 or −1, that makes high values suggest positive labels."""
    if direction != "either":
        return extreme if direction == "damaging" else -extreme
    metric = metrics_of(problem)[0]
    value = evaluate(problem, labels, raw_C, [metric])[metric]
    return -1 if value < (0.5 if problem == "binary" else 0.0) else 1


def _unusable(target_C: Float64, problem: str, name: str) -> str:
    """Return why nothing can be measured; empty where it can."""
    if len(target_C) < _FEWEST[problem]:
        return f"{len(target_C)} variants have a value of every predictor, which is too few"
    if len(np.unique(target_C)) == 1:
        value = "of one value" if problem == "regression" else f"{'all' if target_C[0] else 'none are'} {name}"
        return f"the labels of the {len(target_C):,} variants that are compared are {value}"
    return ""
