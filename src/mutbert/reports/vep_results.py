"""What a comparison of variant effect scores with labels says, as data.

Shape suffix: C variants that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Float64


class Measure(NamedTuple):
    """A metric and its 95 % interval; not a number where it is not defined.

    Parameters
    ----------
    value, low, high : float
        The metric and the ends of its interval.
    """

    value: float
    low: float
    high: float


class VepDifference(NamedTuple):
    """By how much a model's predictor is ahead of the best trivial baseline, on the first metric.

    Parameters
    ----------
    baseline : str
        Its name.
    difference, low, high : float
        Predictor less baseline, both turned so that high values speak for positive labels, and the interval.
    p_value, adjusted : float
        Two-sided; the latter adjusted for all comparisons of the part (Holm).
    method : str
        How they came about.
    """

    baseline: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    method: str


@dataclass(frozen=True)
class VepRow:
    """A predictor in a part.

    Parameters
    ----------
    predictor, model, description : str
        What it is; the model is empty for a trivial baseline.
    end : {"low", "high"}
        Which of its values speak for positive labels, or for high numbers.
    measures : mapping of str to Measure
        By metric; the first one is compared.
    missing : int
        Variants of the part without a value.
    alone : float
        The first metric on all variants of the part that have a value of this predictor.
    difference : VepDifference or None
        To the best baseline; of models' predictors.
    """

    predictor: str
    model: str
    description: str
    end: str
    measures: Mapping[str, Measure]
    missing: int
    alone: float
    difference: VepDifference | None


@dataclass(frozen=True)
class VepPart:
    """Some of the variants, and what predictors reach there.

    Parameters
    ----------
    name : str
        Which variants.
    target : str
        The class that is positive, or the number that is predicted.
    variants, compared : int
        Labelled variants with a score; those of them that have a value of every predictor in `rows`.
    positives, compared_positives : int or None
        How many of these are positive; ``None`` where labels are numbers.
    rows : tuple of VepRow
        Models' predictors, then baselines.
    empty : tuple of str
        Predictors that no variant of the part has a value of, and baselines that have one value alone.
    why : str
        Why there are no rows; empty where there are.
    """

    name: str
    target: str
    variants: int
    compared: int
    positives: int | None
    compared_positives: int | None
    rows: tuple[VepRow, ...]
    empty: tuple[str, ...]
    why: str


@dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn of the first part.

    Parameters
    ----------
    target_C : ndarray of float64, shape (C,)
        Labels of the variants that are compared: 0 or 1, the number of a class, or a number.
    score_C : mapping of str to ndarray of float64, shape (C,)
        By the predictor's name, as it is.
    histograms : mapping of str to (ndarray, ndarray)
        Ratios of models, by name: values, and the labels of these variants.
    """

    target_C: Float64
    score_C: Mapping[str, Float64]
    histograms: Mapping[str, tuple[Float64, Float64]]


@dataclass(frozen=True)
class VepReport:
    """What a comparison of scores with labels says.

    Parameters
    ----------
    name : str
        What was compared, in a few words.
    problem : {"binary", "multiclass", "regression"}
        What labels are.
    classes : tuple of str
        ``binary``: what negative and positive ones are called; ``multiclass``: the classes; else the number's name.
    rows : int
        Rows of the table, or alternate alleles of the VCF.
    used : mapping of str to int
        Variants that are used, by kind.
    not_used : mapping of str to int
        Rows that are not, by reason.
    reasons : mapping of str to str
        What each reason means.
    left_out : mapping of str to int
        Of those, the rows that were to be left out, by the label's value.
    parts : tuple of VepPart
        All variants first.
    facts : mapping of str to str
        What the comparison was made of.
    notes : tuple of str
        What the reader must know before all else.
    interval_method : str
        How intervals came about.
    direction : str
        Which variants are positive: ``damaging``, ``tolerated`` or ``either``.
    """

    name: str
    problem: str
    classes: tuple[str, ...]
    rows: int
    used: Mapping[str, int]
    not_used: Mapping[str, int]
    reasons: Mapping[str, str]
    left_out: Mapping[str, int]
    parts: tuple[VepPart, ...]
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()
    interval_method: str = ""
    direction: str = "damaging"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured; the first is compared."""
        return ("spearman", "pearson") if self.problem == "regression" else ("auroc", "auprc")
