"""Trivial predictors of a variant's effect, and how well predictors predict labels, in all variants and in parts.

Within a part all predictors are measured on the same variants, those with a value of each. Shape suffixes: A alleles,
all scored; K classes of changes; B alleles read at once, L window; C variants of a part that are compared.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression, Ridge

from mutbert import alphabet
from mutbert.arrays import Float64, Int64
from mutbert.effects.alleles import Alleles, Kind
from mutbert.effects.scores import Scorer
from mutbert.encoders.inputs import place_windows, read_windows
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import Advance, scaled
from mutbert.scoring.metrics import BY_CHROM, evaluate
from mutbert.scoring.resampling import TaskScores, difference, holm, interval

Row = dict[str, Any]  # as in ``vep.json``

KIND_NAMES: Final = {"SNV": Kind.SNV, "MNV": Kind.MNV, "indel": Kind.INDEL}  # the column ``kind``

# What is measured; the first decides and is compared.
METRICS: Final = dict.fromkeys(("binary", "multiclass"), ("auroc", "auprc")) | {"regression": ("spearman", "pearson")}
_MOST_GROUPS: Final = 20
FOLDS: Final = 5
CHANGES: Final = (
    "C>T at CpG", "C>A at CpG", "C>G at CpG", "C>T", "C>A", "C>G", "T>C", "T>A", "T>G", "MNV", "insertion", "deletion",
)  # fmt: skip
"""Classes of changes; substitutions are those of the strand on which the reference has a pyrimidine."""

# From what mutates most to what mutates least.
_RANK_K: Final = np.array([0, 2, 2, 1, 2, 2, 1, 2, 2, 3, 4, 4], dtype=np.float64)
_C, _G = (alphabet.BASES.index(base) for base in "CG")
# The class of each REF and ALT in the order A, C, G, T; at CpG it is 3 less.
_SUBSTITUTIONS: Final = np.array([[-1, 8, 6, 7], [4, -1, 5, 3], [3, 5, -1, 4], [7, 6, 8, -1]])
_MNV, _INSERTION, _DELETION = (CHANGES.index(name) for name in ("MNV", "insertion", "deletion"))
_WINDOWS_AT_ONCE: Final = 4096


class Predictor(NamedTuple):
    """Values of alleles, NaN where one has none."""

    model: str  # empty for a trivial baseline
    description: str
    extreme: int  # -1 where low values suggest an effect, 1 where high ones do; 0 of one that learnt what is positive
    values: Float64
    applies: Callable[[set[int]], bool] = bool  # whether it is compared among variants of these kinds


def _only_snvs(kinds: set[int]) -> bool:
    return kinds == {Kind.SNV}


_APPLIES: Final = dict.fromkeys(("LLR", "ENT", "ULLR"), _only_snvs) | {"PLLR": lambda kinds: Kind.SNV not in kinds}


def of_model(name: str, scorer: Scorer, alleles: Alleles, value_AF: Float64) -> dict[str, Predictor]:
    """Return each of a model's scores, and what is derived from them, as a predictor."""
    there, found = set(alleles.kind_A.tolist()), dict[str, Predictor]()
    columns = {
        field: Predictor(name, words, extreme or -1, value_A, _APPLIES.get(field, bool))
        for (field, (words, extreme)), value_A in zip(scorer.fields.items(), value_AF.T, strict=True)
    }
    if "PLLR" in columns:
        both_A = np.where(alleles.kind_A == Kind.SNV, columns["LLR"].values, columns["PLLR"].values)
        words = "LLR of SNVs and PLLR of MNVs and indels, which are not on one scale"
        columns = {"LLR or PLLR": Predictor(name, words, -1, both_A, lambda kinds: {Kind.SNV} < kinds), **columns}
    for field, one in columns.items():
        # Not PLLR where all are SNVs.
        if any(one.applies(kinds) for kinds in (there, *({kind} for kind in there))):
            found[f"{name} {field}"] = one
            if field.endswith("LLR"):
                words = f"absolute value of {field}"
                found[f"{name} |{field}|"] = one._replace(description=words, extreme=1, values=np.abs(one.values))
    return found


def trivial(
    genome: ProbabilisticGenome, alleles: Alleles, variants: pl.DataFrame, problem: str, context: int
) -> tuple[dict[str, Predictor], list[str]]:
    """Return what needs no model by its name, and notes on what is missing."""
    found, notes = dict[str, Predictor](), list[str]()
    if "frequency" in variants:
        words = "allele frequency, from the table"
        found["allele frequency"] = Predictor("", words, -1, variants["frequency"].to_numpy())
    elif len(genome.arrays["variant_position.npy"]):
        words = "frequency of the alternate base in the genome store, SNVs"
        found["allele frequency"] = Predictor("", words, -1, store_frequencies(genome, alleles), _only_snvs)
    else:
        notes.append("Allele frequency is not a baseline: the genome store has no variants, and no column was named.")
    change_A, (fold_A, by) = changes(genome, alleles), make_folds(alleles)
    words = "transition at CpG, other transition, transversion, MNV, indel"
    found["substitution order"] = Predictor("", words, 1, _RANK_K[change_A])
    if problem != "multiclass":
        learnt_A = cross_validated(change_A, variants["target"].to_numpy(), fold_A, problem)
        if learnt_A is None:
            notes.append("Substitution class is not a baseline: too few variants of both classes to learn it from.")
        else:
            model = f"{'logistic' if problem == 'binary' else 'ridge'} regression on {len(CHANGES)} classes of changes"
            words = f"{model}, each of {int(fold_A.max()) + 1} parts ({by}) from the others"
            found["substitution class"] = Predictor("", words, 0, learnt_A)
    words = f"share of G and C in {context:,} bases around"
    found["GC content"] = Predictor("", words, 1, gc(genome, alleles, context))
    if "splice" in variants:
        words, values = "bases to the nearest splice site, from the table", variants["splice"].to_numpy()
        found["splice distance"] = Predictor("", words, -1, values)
    if (alleles.kind_A == Kind.INDEL).any():
        words, values = "bases that an indel inserts or deletes, 0 of others", np.abs(_gained(alleles)) + 0.0
        found["indel length"] = Predictor("", words, 1, values, lambda kinds: Kind.INDEL in kinds)
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
    contig_B, reference_B = alleles.contig_A[rows], alleles.reference_A[rows]
    next_B = alleles.start_A[rows] + np.where(reference_B == _G, -1, 1)
    inside_B = np.clip(next_B, 0, np.array(list(genome.lengths.values()), dtype=np.int64)[contig_B] - 1)
    pairs_B = genome.windows(contig_B, inside_B, 1).base_BL[:, 0] == alphabet.COMPLEMENT_OF_CODE[reference_B]
    is_cpg_B = np.isin(reference_B, (_C, _G)) & pairs_B & (inside_B == next_B)
    change_A[rows] = _SUBSTITUTIONS[reference_B, alleles.alternate_A[rows]] - 3 * is_cpg_B
    return change_A


def _gained(alleles: Alleles) -> Int64:
    """Return by how many bases the alternate is longer than the reference."""
    lengths = np.array([len(text) for text in alleles.inserted], dtype=np.int64)
    return np.asarray(lengths - (alleles.end_A - alleles.start_A), dtype=np.int64)


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
    place_A = alleles.contig_A << 40 | alleles.start_A
    before_A = np.searchsorted(np.sort(place_A), place_A)
    return np.unique(before_A * FOLDS // max(len(alleles), 1), return_inverse=True)[1], "stretches"


def cross_validated(change_A: Int64, target_A: Float64, fold_A: Int64, problem: str) -> Float64 | None:
    """Return log-odds or numbers of each fold by the classes of changes, learnt on the others; None where none can be.

    Without the intercept: the more positives a fold has, the fewer others have, which would predict the opposite.
    """
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


def split_parts(variants: pl.DataFrame) -> tuple[list[tuple[str, pl.DataFrame]], list[str]]:
    """Return all variants, those of each kind where there are several, and the largest groups first; and notes."""
    parts, kinds = [("all variants", variants)], variants.partition_by("kind", as_dict=True)
    if len(kinds) > 1:
        parts += [(name, kinds[name,]) for name in KIND_NAMES if (name,) in kinds]
    groups: dict[Any, pl.DataFrame] = {}
    if "group" in variants:
        groups = variants.filter(pl.col("group") != "").partition_by("group", as_dict=True)
    order = sorted(groups, key=lambda key: (-len(groups[key]), key))
    parts += [(str(key[0]), groups[key]) for key in order[:_MOST_GROUPS]]
    left = len(order) - _MOST_GROUPS
    return parts, [f"There are {left:,} more groups, with fewer variants; they are not shown."] if left > 0 else []


def measure(
    variants: pl.DataFrame, predictors: Mapping[str, Predictor], problem: str, classes: tuple[str, ...], direction: str,
    metrics: Sequence[str], draws: Mapping[str, int], advance: Advance,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Return every part as ``vep.json`` has it, and notes; of several classes, each is compared with all others.

    The first of `metrics` decides and is compared; a column ``contig`` has the blocks of those by chromosome.
    """
    targets = {classes[-1]: pl.col("target")}
    if problem == "multiclass":
        problem = "binary"
        targets = {name: (pl.col("target") == index).cast(pl.Float64) for index, name in enumerate(classes)}
    split, notes = split_parts(variants)
    how = problem, direction, metrics, draws, scaled(advance, 1 / len(split) / len(targets))
    parts = [
        {"name": name, "target": target} | _measure(inside.with_columns(target=values), predictors, target, *how)
        for (name, inside), (target, values) in product(split, targets.items())
    ]
    return parts, notes


def _measure(
    inside: pl.DataFrame, predictors: Mapping[str, Predictor], target: str, problem: str, direction: str,
    metrics: Sequence[str], draws: Mapping[str, int], advance: Advance,
) -> Row:  # fmt: skip
    """Return the counts and rows of a part."""
    kinds = {int(KIND_NAMES[name]) for name in inside["kind"].unique()}
    distinct = {name: inside[name].drop_nulls().n_unique() for name, one in predictors.items() if one.applies(kinds)}
    # A baseline that is the same everywhere, as the order of substitutions is among indels, is not compared.
    chosen = [name for name, count in distinct.items() if count > (not predictors[name].model)]
    binary, first, usual = problem == "binary", metrics[0], METRICS[problem][0]
    inside = inside.with_columns(pl.col("target").cast(pl.Int64 if binary else pl.Float64))
    common = inside.drop_nulls(chosen) if chosen else inside
    labels = common["target"].to_numpy()
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
    for name in chosen:
        own = inside.drop_nulls(name)
        turn = predictors[name].extreme * (-1 if direction == "tolerated" else 1) or 1
        if direction == "either":
            found = evaluate(problem, labels, common[name].to_numpy(), [usual])[usual]
            turn = -1 if found < (0.5 if binary else 0) else 1
        row: Row = {"predictor": name, "model": predictors[name].model, "end": "low" if turn < 0 else "high"}
        for metric in metrics:
            one = _task_scores(common, name, turn, problem, metric)
            scores.setdefault(name, one)
            value, low, high = interval([one], **draws).values()
            if not binary and turn < 0:
                # A correlation is that of the values as they are, with its sign.
                value, low, high = -value, -high, -low
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        row["alone"] = _task_scores(own, name, turn if binary else 1, problem, first).value
        part["rows"].append(row | {"missing": len(inside) - len(own)})
        advance(0.5 / len(chosen))
    part["comparison"] = _compare(part["rows"], scores, first, draws, advance)
    for row in part["rows"]:
        row |= {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    return part


def _task_scores(variants: pl.DataFrame, name: str, turn: int, problem: str, metric: str) -> TaskScores:
    """Return a metric of a predictor, turned, prepared for intervals."""
    blocks = variants["contig"].to_numpy() if metric.endswith(BY_CHROM) else None
    labels, scores = variants["target"].to_numpy(), [turn * variants[name].to_numpy()]
    return TaskScores(problem, metric.removesuffix(BY_CHROM), labels, scores, blocks)


def _compare(
    rows: list[Row], scores: Mapping[str, TaskScores], metric: str, draws: Mapping[str, int], advance: Advance
) -> str:
    """Add the difference of each model's predictor from the best baseline to its row; return how it was computed."""
    baselines = {row["predictor"]: abs(row[metric]) for row in rows if not (row["model"] or math.isnan(row[metric]))}
    best, method = max(baselines, key=lambda name: baselines[name], default=None), ""
    keys = ("difference", "difference_low", "difference_high", "p")
    for row in rows:
        row |= {"baseline": None, **dict.fromkeys(keys, math.nan)}
        if best is not None and row["model"]:
            found = difference([scores[row["predictor"]]], [scores[best]], permutations=draws["resamples"], **draws)
            *numbers, method = found.values()
            row |= {"baseline": best, **dict(zip(keys, numbers, strict=True))}
        advance(0.5 / len(rows))
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return method


def _unusable(labels: Float64 | Int64, problem: str, name: str) -> str:
    """Return why nothing can be measured; empty where it can."""
    if len(labels) < {"binary": 2, "regression": 3}[problem]:
        return f"{len(labels)} variants have a value of every predictor, which is too few"
    if len(np.unique(labels)) == 1:
        value = "of one value" if problem == "regression" else f"{'all' if labels[0] else 'none are'} {name}"
        return f"the labels of the {len(labels):,} variants that are compared are {value}"
    return ""
