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
from mutbert.scoring.resampling import TaskScores, difference, holm, interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.arrays import Float64, Int64
    from mutbert.evaluation.vep_baselines import Predictor
    from mutbert.progress import Advance

    Row = dict[str, Any]

ALL: Final = "all variants"
KIND_NAMES: Final = {"SNV": Kind.SNV, "MNV": Kind.MNV, "indel": Kind.INDEL}
"""The column ``kind``."""

_MOST_GROUPS: Final = 20
_FEWEST: Final = {"binary": 2, "regression": 3}


def metrics_of(problem: str) -> tuple[str, str]:
    """Return what is measured; the first decides and is compared."""
    return ("spearman", "pearson") if problem == "regression" else ("auroc", "auprc")


def split_parts(variants: pl.DataFrame) -> tuple[list[tuple[str, pl.DataFrame]], list[str]]:
    """Return all variants, those of each kind where there are several, and the largest groups first; and notes."""
    parts, kinds = [(ALL, variants)], variants.partition_by("kind", as_dict=True)
    if len(kinds) > 1:
        parts += [(name, kinds[name,]) for name in KIND_NAMES if (name,) in kinds]
    if "group" not in variants:
        return parts, []
    groups = variants.filter(pl.col("group") != "").partition_by("group", as_dict=True)
    order = sorted(groups, key=lambda key: (-len(groups[key]), key))
    parts += [(str(key[0]), groups[key]) for key in order[:_MOST_GROUPS]]
    left = len(order) - _MOST_GROUPS
    return parts, [f"There are {left:,} more groups, with fewer variants; they are not shown."] if left > 0 else []


def measure_parts(
    variants: pl.DataFrame, predictors: Mapping[str, Predictor], problem: str, classes: Sequence[str], advance: Advance,
    *, direction: str, resamples: int, seed: int,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Return every part as ``vep.json`` has it, and notes; of several classes, each is compared with all others.

    `variants` has the columns ``kind``, ``target``, perhaps ``group``, and one for each predictor. `advance` is called
    with the fraction of all that is done.
    """
    targets = {classes[-1]: pl.col("target")}
    if problem == "multiclass":
        problem = "binary"
        targets = {name: (pl.col("target") == index).cast(pl.Float64) for index, name in enumerate(classes)}
    split, notes = split_parts(variants)
    parts, draws = [], {"resamples": resamples, "seed": seed}
    for name, inside in split:
        for target, values in targets.items():
            measured = _measure(
                inside.with_columns(target=values), predictors, target, problem, direction, draws,
                lambda share: advance(share / len(split) / len(targets)),
            )  # fmt: skip
            parts.append({"name": name, "target": target} | measured)
    return parts, notes


def _measure(
    inside: pl.DataFrame, predictors: Mapping[str, Predictor], target: str, problem: str, direction: str,
    draws: Mapping[str, int], advance: Advance,
) -> Row:  # fmt: skip
    """Return the counts and rows of a part."""
    kinds = {int(KIND_NAMES[name]) for name in inside["kind"].unique()}
    distinct = {name: inside[name].drop_nulls().n_unique() for name, one in predictors.items() if one.applies(kinds)}
    # A baseline that is the same everywhere, as the order of substitutions is among indels, is not compared.
    chosen = [name for name, count in distinct.items() if count > (not predictors[name].model)]
    common = inside.drop_nulls(chosen) if chosen else inside
    labels, binary = _labels(common, problem), problem == "binary"
    part: Row = {
        "variants": len(inside), "compared": len(common),
        "positives": int(inside["target"].sum()) if binary else None,
        "compared_positives": int(labels.sum()) if binary else None,
        "empty": [name for name in distinct if name not in chosen],
        "why": _unusable(labels, problem, target), "comparison": "", "rows": [],
    }  # fmt: skip
    if part["why"]:
        advance(1)
        return part
    scores: dict[str, TaskScores] = {}
    metrics = metrics_of(problem)
    for name in chosen:
        raw_C, own = common[name].to_numpy(), inside.drop_nulls(name)
        turn = _turn(labels, raw_C, problem, direction, predictors[name].extreme)
        scores[name] = TaskScores(problem, metrics[0], labels, [turn * raw_C])
        row: Row = {"predictor": name, "model": predictors[name].model, "end": "low" if turn < 0 else "high"}
        first, second = (
            interval([scores[name]], **draws),
            interval([TaskScores(problem, metrics[1], labels, [turn * raw_C])], **draws),
        )
        for metric, (value, *ends) in zip(metrics, (first, second), strict=True):
            # A correlation is that of the values as they are, with its sign.
            value, low, high = (value, *ends) if binary else (turn * value, *sorted(turn * end for end in ends))
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        values = own[name].to_numpy() * (turn if binary else 1)
        row["alone"] = evaluate(problem, _labels(own, problem), values, metrics[:1])[metrics[0]]
        part["rows"].append(row | {"missing": len(inside) - len(own)})
        advance(0.5 / len(chosen))
    part["comparison"] = _compare(part["rows"], scores, metrics[0], draws, advance)
    part["rows"] = [{key: _defined(value) for key, value in row.items()} for row in part["rows"]]
    return part


def _compare(
    rows: list[Row], scores: Mapping[str, TaskScores], metric: str, draws: Mapping[str, int], advance: Advance
) -> str:
    """Add the difference of each model's predictor from the best baseline to its row; return how it was computed."""
    strength = {row["predictor"]: abs(row[metric]) if metric == "spearman" else row[metric] for row in rows}
    baselines = [row["predictor"] for row in rows if not row["model"] and not math.isnan(strength[row["predictor"]])]
    best, method = max(baselines, key=strength.__getitem__, default=None), ""
    for row in rows:
        row |= dict.fromkeys(("baseline", "difference", "difference_low", "difference_high", "p", "p_holm"))
        if best is not None and row["model"]:
            found = difference([scores[row["predictor"]]], [scores[best]], permutations=draws["resamples"], **draws)
            row |= {"baseline": best, "difference": found.difference, "difference_low": found.low}
            row |= {"difference_high": found.high, "p": found.p_value}
            method = found.method
        advance(0.5 / len(rows))
    compared = [row for row in rows if row["baseline"] is not None]
    for row, adjusted in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = adjusted
    return method


def _labels(variants: pl.DataFrame, problem: str) -> Float64 | Int64:
    target_C: Float64 = variants["target"].to_numpy()
    return target_C.astype(np.int64) if problem == "binary" else target_C


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _turn(labels: Float64 | Int64, raw_C: Float64, problem: str, direction: str, extreme: int) -> int:
    """Return the factor, 1 or −1, that makes high values suggest positive labels."""
    if direction != "either":
        return extreme if direction == "damaging" else -extreme
    metric = metrics_of(problem)[0]
    return -1 if evaluate(problem, labels, raw_C, [metric])[metric] < (0.5 if problem == "binary" else 0) else 1


def _unusable(labels: Float64 | Int64, problem: str, name: str) -> str:
    """Return why nothing can be measured; empty where it can."""
    if len(labels) < _FEWEST[problem]:
        return f"{len(labels)} variants have a value of every predictor, which is too few"
    if len(np.unique(labels)) == 1:
        value = "of one value" if problem == "regression" else f"{'all' if labels[0] else 'none are'} {name}"
        return f"the labels of the {len(labels):,} variants that are compared are {value}"
    return ""
