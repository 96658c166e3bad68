"""Trivial predictors of a variant's effect, which need no model: what scores must be better than.

Shape suffixes: A alleles, all of which are scored; K classes of changes; B alleles read at once, L window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.effects.alleles import Kind
from mutbert.encoders.inputs import place_windows, read_windows

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from mutbert.arrays import Float64, Int64, UInt8
    from mutbert.effects.alleles import Alleles
    from mutbert.genome.store import ProbabilisticGenome

FOLDS: Final = 5
CHANGES: Final = (
    "C>T at CpG", "C>A at CpG", "C>G at CpG", "C>T", "C>A", "C>G", "T>C", "T>A", "T>G", "MNV", "insertion", "deletion",
)  # fmt: skip
"""Classes of changes; substitutions are those of the strand on which the reference has a pyrimidine."""

_ORDER: Final = "transition at CpG, other transition, transversion, MNV, indel"
# From what mutates most to what mutates least.
_RANK_K: Final = np.array([0, 2, 2, 1, 2, 2, 1, 2, 2, 3, 4, 4], dtype=np.float64)
_A, _C, _G, _T = range(4)
_MNV, _INSERTION, _DELETION = (CHANGES.index(name) for name in ("MNV", "insertion", "deletion"))
_WINDOWS_AT_ONCE: Final = 4096


class Predictor(NamedTuple):
    """What a column of values is."""

    model: str  # empty for a trivial baseline
    description: str
    extreme: int  # −1 where low values suggest an effect, 1 where high ones do
    applies: Callable[[set[int]], bool] = bool  # whether it is compared among variants of these kinds


def only_snvs(kinds: set[int]) -> bool:
    """Return whether all are SNVs."""
    return kinds == {Kind.SNV}


def trivial_baselines(
    genome: ProbabilisticGenome, alleles: Alleles, variants: pl.DataFrame, problem: str, context: int
) -> tuple[dict[str, tuple[Predictor, Float64]], list[str]]:
    """Return what needs no model by its name, NaN where a variant has none, and notes on what is missing.

    `variants` has ``target``, from which the substitution classes are learnt, and where the table has them
    ``frequency`` and ``splice``; the genome's frequency is that of an SNV's alternate base. GC content is that of
    `context` bases.
    """
    found: dict[str, tuple[Predictor, Float64]] = {}
    notes = []

    def add(name: str, values: Float64, extreme: int, words: str, applies: Callable[[set[int]], bool] = bool) -> None:
        found[name] = Predictor("", words, extreme, applies), values

    if "frequency" in variants:
        add("allele frequency", variants["frequency"].to_numpy(), -1, "allele frequency, from the table")
    elif len(genome.arrays["variant_position.npy"]):
        words = "frequency of the alternate base in the genome store, SNVs"
        add("allele frequency", store_frequencies(genome, alleles), -1, words, only_snvs)
    else:
        notes.append("Allele frequency is not a baseline: the genome store has no variants, and no column was named.")
    change_A, (fold_A, by) = changes(genome, alleles), make_folds(alleles)
    add("substitution order", _RANK_K[change_A], 1, _ORDER)
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
    length_B = np.array(list(genome.lengths.values()), dtype=np.int64)[contig_B]
    code_B = np.full(len(position_B), alphabet.UNKNOWN, dtype=np.uint8)
    inside = np.flatnonzero((position_B >= 0) & (position_B < length_B))
    code_B[inside] = genome.windows(contig_B[inside], position_B[inside], 1).base_BL[:, 0]
    return code_B


def _gained(alleles: Alleles) -> Int64:
    """Return by how many bases the alternate is longer than the reference."""
    return np.array([len(text) for text in alleles.inserted], dtype=np.int64) - (alleles.end_A - alleles.start_A)


def gc(genome: ProbabilisticGenome, alleles: Alleles, context: int) -> Float64:
    """Return the share of G and C among the known bases of each allele's centred window."""
    length_A = np.array(list(genome.lengths.values()), dtype=np.int64)[alleles.contig_A]
    placed = place_windows(np.minimum(alleles.start_A, length_A - 1), length_A, context)
    of_code = alphabet.DISTRIBUTIONS[:, _C] + alphabet.DISTRIBUTIONS[:, _G]
    share_A = np.empty(len(alleles))
    for some in np.split(np.arange(len(alleles)), range(_WINDOWS_AT_ONCE, len(alleles), _WINDOWS_AT_ONCE)):
        windows = read_windows(genome, alleles.contig_A[some], placed.start_P[some], placed.length_P[some])
        known_BL = windows.inside_NL & (windows.code_NL != alphabet.UNKNOWN)
        known_B = known_BL.sum(axis=1)
        strong_B = (of_code[windows.code_NL] * known_BL).sum(axis=1, dtype=np.float64)
        share_A[some] = np.divide(strong_B, known_B, out=np.full(len(some), np.nan), where=known_B > 0)
    return share_A


def make_folds(alleles: Alleles) -> tuple[Int64, str]:
    """Return the fold of each allele, and what folds are: contigs, or stretches of as many alleles.

    Stretches where one contig has more than half of all; alleles at one position are never in two.
    """
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
    """Return log-odds, or numbers of the target, of each fold by the classes of changes, learnt on the other folds.

    None where the others of a fold are not of both classes. The intercept is left out: it is the share of positives
    among the others, which is the lower the more of them the fold itself has, so that over all folds it would predict
    the opposite.
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
