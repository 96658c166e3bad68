"""How well predictors tell labels, in all variants and in parts of them, with intervals and comparisons.

Within a part all predictors are measured on the same variants: those for which each has a value. Shape suffixes: A
alleles that are scored and labelled, P predictors, C those of a part that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.evaluation.vep_baselines import KIND_NAMES, names_of
from mutbert.reports.vep_results import Measure, VepDifference, VepPart, VepRow
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.resampling import bootstrap_interval, compare, holm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float64, UInt8
    from mutbert.evaluation.vep_baselines import Predictor
    from mutbert.progress import Advance


ALL: Final = "all variants"
DIRECTIONS: Final = ("damaging", "tolerated", "either")
METRICS: Final = {"binary": ("auroc", "auprc"), "regression": ("spearman", "pearson")}
"""What is measured; the first decides and is compared."""
MOST_GROUPS: Final = 20

_FEWEST: Final = {"binary": 2, "regression": 3}


@dataclass(frozen=True, eq=False)
class Measured:
    """Labelled variants with the values of all predictors.

    Parameters
    ----------
    predictors : tuple of Predictor
        Models' and trivial ones.
    value_AP : ndarray of float64, shape (A, P)
        Not a number where a variant has none.
    kind_A : ndarray of uint8, shape (A,)
        `Kind`.
    target_A : ndarray of float64, shape (A,)
        Labels: 0 or 1, the number of a class, or a number.
    problem : {"binary", "multiclass", "regression"}
        What they are.
    classes : tuple of str
        What classes are called.
    groups : list of str or None
        What results are also split by; empty where a variant has none.
    """

    predictors: tuple[Predictor, ...]
    value_AP: Float64
    kind_A: UInt8
    target_A: Float64
    problem: str
    classes: tuple[str, ...]
    groups: list[str] | None


@dataclass(frozen=True)
class Measuring:
    """How.

    Parameters
    ----------
    direction : str
        Of `DIRECTIONS`: which variants are positive; ``"either"`` turns each predictor to where it is better.
    resamples : int
        Of intervals and p-values.
    seed : int
        Of the random draws.
    """

    direction: str
    resamples: int
    seed: int


class Split(NamedTuple):
    """Some of the variants, under a name."""

    name: str
    inside_A: Bool


def split_parts(measured: Measured) -> tuple[list[Split], str]:
    """Give all variants, those of each kind where there are several, and those of each group, the largest first.

    Returns
    -------
    tuple of (list of Split, str)
        The parts, and a note where there are more groups than are looked at.
    """
    count = len(measured.kind_A)
    parts = [Split(ALL, np.ones(count, dtype=np.bool_))]
    kinds = [kind for kind in KIND_NAMES if (measured.kind_A == kind).any()]
    if len(kinds) > 1:
        parts += [Split(KIND_NAMES[kind], measured.kind_A == kind) for kind in kinds]
    if measured.groups is None:
        return parts, ""
    group_A = np.array(measured.groups, dtype=str)
    names, count_G = np.unique(group_A, return_counts=True)
    order = [place for place in np.argsort(-count_G, kind="stable").tolist() if names[place]]
    parts += [Split(str(names[place]), group_A == names[place]) for place in order[:MOST_GROUPS]]
    left = len(order) - MOST_GROUPS
    return parts, f"There are {left:,} more groups, which have fewer variants and are not shown." if left > 0 else ""


def targets_of(measured: Measured) -> list[tuple[str, str, Float64]]:
    """Give the questions that labels pose: name, problem, labels. Of several classes, each against all else."""
    if measured.problem == "multiclass":
        return [
            (name, "binary", (measured.target_A == number).astype(np.float64))
            for number, name in enumerate(measured.classes)
        ]
    name = measured.classes[-1] if measured.problem == "binary" else measured.classes[0]
    return [(name, measured.problem, measured.target_A)]


def count_steps(measured: Measured) -> int:
    """Count what `measure_parts` tells its progress of, at most."""
    return len(split_parts(measured)[0]) * len(targets_of(measured)) * len(measured.predictors)


def measure_parts(measured: Measured, how: Measuring, advance: Advance) -> tuple[list[VepPart], str]:
    """Measure every part.

    Returns
    -------
    tuple of (list of VepPart, str)
        The parts, with p-values adjusted within each; and the note of `split_parts`.
    """
    parts, note = split_parts(measured)
    found = [_measure(measured, how, part, target, advance) for part in parts for target in targets_of(measured)]
    return found, note


def compared_columns(measured: Measured, part: Split) -> tuple[list[int], list[str], Bool]:
    """Choose the predictors of a part that are compared.

    A baseline that is the same everywhere in the part, as the order of substitutions is among indels, tells nothing and
    takes no part.

    Returns
    -------
    tuple of (list of int, list of str, ndarray of bool (A,))
        Numbers of the predictors; the names of those that would apply, but have no values in the part, or of a baseline
        one alone; and the variants of the part that all have.
    """
    kinds = {int(kind) for kind in np.unique(measured.kind_A[part.inside_A])}
    names = names_of(measured.predictors)
    chosen: list[int] = []
    empty: list[int] = []
    for number, predictor in enumerate(measured.predictors):
        if predictor.applies(kinds):
            value_C = measured.value_AP[part.inside_A, number]
            different = len(np.unique(value_C[np.isfinite(value_C)]))
            (chosen if different > (not predictor.model) else empty).append(number)
    common_A = part.inside_A & np.isfinite(measured.value_AP[:, chosen]).all(axis=1)
    return chosen, [names[number] for number in empty], common_A


def turned(raw_C: Float64, target_C: Float64, problem: str, direction: str, extreme: int) -> int:
    """Say by what raw values are multiplied so that high ones speak for positive labels: 1 or −1."""
    if direction != "either":
        return extreme if direction == "damaging" else -extreme
    metric = METRICS[problem][0]
    value = evaluate(problem, _labels(target_C, problem), raw_C, [metric])[metric]
    return -1 if value < (0.5 if problem == "binary" else 0.0) else 1


def _labels(target_C: Float64, problem: str) -> npt.NDArray[np.int64] | Float64:
    return target_C.astype(np.int64) if problem == "binary" else target_C


def _measure(
    measured: Measured, how: Measuring, part: Split, target: tuple[str, str, Float64], advance: Advance
) -> VepPart:
    name, problem, target_A = target
    chosen, empty, common_A = compared_columns(measured, part)
    target_C = target_A[common_A]
    positives = int(target_A[part.inside_A].sum()) if problem == "binary" else None
    made = VepPart(
        part.name,
        name,
        int(part.inside_A.sum()),
        int(common_A.sum()),
        positives,
        None if positives is None else int(target_C.sum()),
        (),
        tuple(empty),
        "",
    )
    why = _unusable(target_C, problem, name)
    if why:
        advance(len(measured.predictors))
        return replace(made, why=why)
    labels = _labels(target_C, problem)
    metrics = METRICS[problem]
    names = names_of(measured.predictors)
    score_of: dict[int, Float64] = {}
    rows: dict[int, VepRow] = {}
    for number in chosen:
        predictor = measured.predictors[number]
        raw_C = measured.value_AP[common_A, number]
        turn = turned(raw_C, target_C, problem, how.direction, predictor.extreme)
        score_of[number] = turn * raw_C
        measures = {}
        for metric in metrics:
            value = bootstrap_interval(
                problem, metric, labels, [score_of[number]], resamples=how.resamples, seed=how.seed
            )
            # A correlation is that of the number as it is, with its sign.
            ends = sorted((turn * value.low, turn * value.high))
            measures[metric] = Measure(turn * value.value, *ends) if problem == "regression" else Measure(*value)
        own_A = part.inside_A & np.isfinite(measured.value_AP[:, number])
        alone = evaluate(
            problem,
            _labels(target_A[own_A], problem),
            (1 if problem == "regression" else turn) * measured.value_AP[own_A, number],
            metrics[:1],
        )[metrics[0]]
        rows[number] = VepRow(
            names[number],
            predictor.model,
            predictor.description,
            "low" if turn < 0 else "high",
            measures,
            int(part.inside_A.sum() - own_A.sum()),
            alone,
            None,
        )
        advance(0.4)
    differences: dict[int, VepDifference] = {}
    best = _best([number for number in chosen if not measured.predictors[number].model], rows, metrics[0], problem)
    for number in chosen:
        if best is not None and measured.predictors[number].model:
            found = compare(
                problem,
                metrics[0],
                labels,
                [score_of[number]],
                [score_of[best]],
                resamples=how.resamples,
                permutations=how.resamples,
                seed=how.seed,
            )
            difference = VepDifference(
                names[best], found.difference, found.low, found.high, found.p_value, found.p_value, found.method
            )
            differences[number] = difference
        advance(0.6)
    advance(len(measured.predictors) - len(chosen))
    p_values = holm([difference.p_value for difference in differences.values()])
    for (number, difference), p_value in zip(differences.items(), p_values, strict=True):
        rows[number] = replace(rows[number], difference=difference._replace(adjusted=p_value))
    return replace(made, rows=tuple(rows.values()))


def _best(numbers: Sequence[int], rows: dict[int, VepRow], metric: str, problem: str) -> int | None:
    """Choose the best of some predictors; the first of equals."""
    values = {number: rows[number].measures[metric].value for number in numbers}
    strengths = {number: abs(value) if problem == "regression" else value for number, value in values.items()}
    return max(
        (number for number in numbers if not np.isnan(strengths[number])), key=strengths.__getitem__, default=None
    )


def _unusable(target_C: Float64, problem: str, name: str) -> str:
    """Say why labels cannot be told apart; nothing where they can."""
    if len(target_C) < _FEWEST[problem]:
        return f"{len(target_C)} variants have a value of every predictor, which is too few"
    if len(np.unique(target_C)) == 1:
        value = "of one value" if problem == "regression" else f"{'all' if target_C[0] else 'none are'} {name}"
        return f"the labels of the {len(target_C):,} variants that are compared are {value}"
    return ""
