"""Trivial predictors of a variant's effect, and how well predictors predict labels, in all variants and in parts.

Within a part all predictors are measured on the same variants, those with a value of each. Shape suffixes: A alleles,
all scored; K classes of changes; B alleles read at once, L window; C variants of a part that are compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.effects.alleles import Kind
from mutbert.encoders.inputs import place_windows, read_windows
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.resampling import TaskScores, difference, holm, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mutbert.arrays import Float64, Int64, UInt8
    from mutbert.effects.alleles import Alleles
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.progress import Advance

    # As in ``vep.json``. A predictor has ``model``, empty for a trivial baseline, ``description`` and ``values``;
    # ``extreme`` is -1 where low values suggest an effect, 1 where high ones do; ``applies`` returns whether it is
    # compared among variants of these kinds.
    Row = dict[str, Any]

KIND_NAMES: Final = {"SNV": Kind.SNV, "MNV": Kind.MNV, "indel": Kind.INDEL}
"""The column ``kind``."""

_MOST_GROUPS: Final = 20
_FEWEST: Final = {"binary": 2, "regression": 3}
FOLDS: Final = 5
CHANGES: Final = (
    "C>T at CpG", "C>A at CpG", "C>G at CpG", "C>T", "C>A", "C>G", "T>C", "T>A", "T>G", "MNV", "insertion", "deletion",
)  # fmt: skip
"""Classes of changes; substitutions are those of the strand on which the reference has a pyrimidine."""

# From what mutates most to what mutates least.
_RANK_K: Final = np.array([0, 2, 2, 1, 2, 2, 1, 2, 2, 3, 4, 4], dtype=np.float64)
_A, _C, _G, _T = range(4)
_MNV, _INSERTION, _DELETION = (CHANGES.index(name) for name in ("MNV", "insertion", "deletion"))
_WINDOWS_AT_ONCE: Final = 4096


def only_snvs(kinds: set[int]) -> bool:
    """Return whether all are SNVs."""
    return kinds == {Kind.SNV}


def trivial_baselines(
    genome: ProbabilisticGenome, alleles: Alleles, variants: pl.DataFrame, problem: str, context: int
) -> tuple[dict[str, Row], list[str]]:
    """Return what needs no model by its name, NaN where a variant has none, and notes on what is missing."""
    found: dict[str, Row] = {}
    notes = []

    def add(name: str, values: Float64, extreme: int, words: str, applies: Callable[[set[int]], bool] = bool) -> None:
        found[name] = {"model": "", "description": words, "extreme": extreme, "values": values, "applies": applies}

    if "frequency" in variants:
        add("allele frequency", variants["frequency"].to_numpy(), -1, "allele frequency, from the table")
    elif len(genome.arrays["variant_position.npy"]):
        words = "frequency of the alternate base in the genome store, SNVs"
        add("allele frequency", store_frequencies(genome, alleles), -1, words, only_snvs)
    else:
        notes.append("Allele frequency is not a baseline: the genome store has no variants, and no column was named.")
    change_A, (fold_A, by) = changes(genome, alleles), make_folds(alleles)
    order = "transition at CpG, other transition, transversion, MNV, indel"
    add("substitution order", _RANK_K[change_A], 1, order)
    if problem != "multiclass":
        learnt_A = cross_validated(change_A, variants["target"].to_numpy(), fold_A, problem)
        if learnt_A is None:
            notes.append("Substitution class is not a baseline: too few variants of both classes to learn it from.")
        else:
            model, folds = "logistic" if problem == "binary" else "ridge", int(fold_A.max()) + 1
            words = (
                f"{model} regression on {len(CHANGES)} classes of changes, each of {folds} parts ({by}) from the others"
            )
            add("substitution class", learnt_A, 1, words)
    add("GC content", gc(genome, alleles, context), 1, f"share of G and C in {context:,} bases around")
    if "splice" in variants:
        add("splice distance", variants["splice"].to_numpy(), -1, "bases to the nearest splice site, from the table")
    if (alleles.kind_A == Kind.INDEL).any():
        length_A = np.where(alleles.kind_A == Kind.INDEL, np.abs(_gained(alleles)), 0.0)
        words = "bases that an indel inserts or deletes, 0 of others"
        add("indel length", length_A, 1, words, lambda kinds: Kind.INDEL in kinds)
    return found, notes


def store_frequencies(genome: ProbabilisticGenome, alleles: Alleles) -> Float64:
    """Return the frequency of each SNV's alternate base in a store, 0 where it has none, and NaN for others."""
    frequency_A = np.full(len(alleles), np.nan)
    rows = np.flatnonzero(alleles.kind_A == Kind.SNV)
    found_B4 = genome.windows(alleles.contig_A[rows], alleles.start_A[rows], 1).distributions()[:, 0]
    frequency_A[rows] = found_B4[np.arange(len(rows)), alleles.alternate_A[rows]]
    return frequency_A


def changes(genome: ProbabilisticGenome, alleles: Alleles) -> Int64:
    """Return the class of each change, an index of `CHANGES`; CpG by the reference's adjacent base."""
    longer_A = _gained(alleles) > 0
    change_A = np.where(alleles.kind_A == Kind.MNV, _MNV, np.where(longer_A, _INSERTION, _DELETION)).astype(np.int64)
    rows = np.flatnonzero(alleles.kind_A == Kind.SNV)
    reference_B, alternate_B = alleles.reference_A[rows], alleles.alternate_A[rows]
    # The base after a purine on its other strand is the complement of the one before.
    turned_B = (reference_B == _A) | (reference_B == _G)
    next_B = _bases_at(genome, alleles.contig_A[rows], alleles.start_A[rows] + np.where(turned_B, -1, 1))
    pyrimidine_B, other_B, next_B = (
        np.where(turned_B, alphabet.COMPLEMENT_OF_CODE[code_B], code_B) for code_B in (reference_B, alternate_B, next_B)
    )
    of_c_B = pyrimidine_B == _C
    # The order among the three of a base is transition, then A, then the last.
    third_B = np.where(other_B == np.where(of_c_B, _T, _C), 0, np.where(other_B == _A, 1, 2))
    change_A[rows] = third_B + np.where(of_c_B, np.where(next_B == _G, 0, 3), 6)
    return change_A


def _bases_at(genome: ProbabilisticGenome, contig_B: Int64, position_B: Int64) -> UInt8:
    """Return single bases; N beyond a contig's ends."""
    last_B = np.array(list(genome.lengths.values()), dtype=np.int64)[contig_B] - 1
    code_B = genome.windows(contig_B, np.clip(position_B, 0, last_B), 1).base_BL[:, 0]
    return np.where((position_B < 0) | (position_B > last_B), np.uint8(alphabet.UNKNOWN), code_B)


def _gained(alleles: Alleles) -> Int64:
    """Return by how many bases the alternate is longer than the reference."""
    return np.array([len(one.inserted) - (one.end_A - one.start_A) for one in alleles], dtype=np.int64)


def gc(genome: ProbabilisticGenome, alleles: Alleles, context: int) -> Float64:
    """Return the share of G and C among the known bases of each allele's centred window."""
    length_A = np.array(list(genome.lengths.values()), dtype=np.int64)[alleles.contig_A]
    start_A, bases_A = place_windows(np.minimum(alleles.start_A, length_A - 1), length_A, context)
    of_code = alphabet.DISTRIBUTIONS[:, _C] + alphabet.DISTRIBUTIONS[:, _G]
    share_A = np.empty(len(alleles))
    for some in np.split(np.arange(len(alleles)), range(_WINDOWS_AT_ONCE, len(alleles), _WINDOWS_AT_ONCE)):
        windows = read_windows(genome, alleles.contig_A[some], start_A[some], bases_A[some])
        known_BL = windows.inside_NL & (windows.code_NL != alphabet.UNKNOWN)
        known_B = known_BL.sum(axis=1)
        strong_B = (of_code[windows.code_NL] * known_BL).sum(axis=1, dtype=np.float64)
        share_A[some] = np.divide(strong_B, known_B, out=np.full(len(some), np.nan), where=known_B > 0)
    return share_A


def make_folds(alleles: Alleles) -> tuple[Int64, str]:
    """Return the fold of each allele, and what folds are: contigs, or stretches where one has over half of all."""
    contigs, count_C = np.unique(alleles.contig_A, return_counts=True)
    if len(contigs) > 1 and count_C.max() <= len(alleles) / 2:
        load = np.zeros(min(FOLDS, len(contigs)), dtype=np.int64)
        fold_C = np.zeros(len(contigs), dtype=np.int64)
        # The largest first, each to the fold that has least.
        for row in np.argsort(-count_C, kind="stable").tolist():
            fold_C[row] = load.argmin()
            load[fold_C[row]] += count_C[row]
        return fold_C[np.searchsorted(contigs, alleles.contig_A)], "contigs"
    _, position_A, count_U = np.unique(
        alleles.contig_A << 40 | alleles.start_A, return_inverse=True, return_counts=True
    )
    _, fold_U = np.unique((np.cumsum(count_U) - count_U) * FOLDS // max(len(alleles), 1), return_inverse=True)
    return fold_U[position_A], "stretches"


def cross_validated(change_A: Int64, target_A: Float64, fold_A: Int64, problem: str) -> Float64 | None:
    """Return log-odds or numbers of each fold by the classes of changes, learnt on the others; None where none can be.

    Without the intercept: the more positives a fold has, the fewer others have, which would predict the opposite.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    hot_AK = (change_A[:, None] == np.arange(len(CHANGES))).astype(np.float64)
    score_A = np.full(len(change_A), np.nan)
    for fold in np.unique(fold_A).tolist():
        own_A = fold_A == fold
        if len(np.unique(target_A[~own_A])) < 2:
            return None
        model = LogisticRegression(C=1.0, max_iter=1000) if problem == "binary" else Ridge(alpha=1.0)
        model.fit(hot_AK[~own_A], target_A[~own_A])
        score_A[own_A] = hot_AK[own_A] @ np.ravel(model.coef_)
    return score_A


def metrics_of(problem: str) -> tuple[str, str]:
    """Return what is measured; the first decides and is compared."""
    return ("spearman", "pearson") if problem == "regression" else ("auroc", "auprc")


def split_parts(variants: pl.DataFrame) -> tuple[list[tuple[str, pl.DataFrame]], list[str]]:
    """Return all variants, those of each kind where there are several, and the largest groups first; and notes."""
    parts, kinds = [("all variants", variants)], variants.partition_by("kind", as_dict=True)
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
    variants: pl.DataFrame, predictors: Mapping[str, Row], problem: str, classes: tuple[str, ...], advance: Advance, *,
    direction: str, resamples: int, seed: int,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Return every part as ``vep.json`` has it, and notes; of several classes, each is compared with all others."""
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
    inside: pl.DataFrame, predictors: Mapping[str, Row], target: str, problem: str, direction: str,
    draws: Mapping[str, int], advance: Advance,
) -> Row:  # fmt: skip
    """Return the counts and rows of a part."""
    kinds = {int(KIND_NAMES[name]) for name in inside["kind"].unique()}
    distinct = {name: inside[name].drop_nulls().n_unique() for name, one in predictors.items() if one["applies"](kinds)}
    # A baseline that is the same everywhere, as the order of substitutions is among indels, is not compared.
    chosen = [name for name, count in distinct.items() if count > (not predictors[name]["model"])]
    common = inside.drop_nulls(chosen) if chosen else inside
    binary = problem == "binary"
    targets = pl.col("target").cast(pl.Int64 if binary else pl.Float64)
    labels = common.select(targets).to_series().to_numpy()
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
        turn = _turn(labels, raw_C, problem, direction, predictors[name]["extreme"])
        measured = [TaskScores(problem, metric, labels, [turn * raw_C]) for metric in metrics]
        scores[name] = measured[0]
        row: Row = {"predictor": name, "model": predictors[name]["model"], "end": "low" if turn < 0 else "high"}
        for metric, one in zip(metrics, measured, strict=True):
            value, low, high = interval([one], **draws)
            if not binary and turn < 0:
                # A correlation is that of the values as they are, with its sign.
                value, low, high = -value, -high, -low
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        values = own[name].to_numpy() * (turn if binary else 1)
        row["alone"] = evaluate(problem, own.select(targets).to_series().to_numpy(), values, metrics[:1])[metrics[0]]
        part["rows"].append(row | {"missing": len(inside) - len(own)})
        advance(0.5 / len(chosen))
    part["comparison"] = _compare(part["rows"], scores, metrics[0], draws, advance)
    for row in part["rows"]:
        row |= {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
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
            row |= {"baseline": best, "difference": found["difference"], "difference_low": found["low"]}
            row |= {"difference_high": found["high"], "p": found["p_value"]}
            method = found["method"]
        advance(0.5 / len(rows))
    compared = [row for row in rows if row["baseline"] is not None]
    for row, adjusted in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = adjusted
    return method


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
