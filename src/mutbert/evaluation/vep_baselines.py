"""Trivial predictors of a variant's effect, which need no model: what scores must be better than.

Shape suffixes: A alleles, all of which are scored; P predictors; K classes of changes; B alleles read at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.effects.alleles import Kind
from mutbert.encoders.inputs import place_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Float64, Int64, UInt8
    from mutbert.effects.alleles import Alleles
    from mutbert.genome.store import ProbabilisticGenome


KIND_NAMES: Final = {Kind.SNV: "SNV", Kind.MNV: "MNV", Kind.INDEL: "indel"}
"""Kinds of alleles that can be scored, as reports name them."""
KINDS: Final = tuple(KIND_NAMES)
FOLDS: Final = 5
CHANGES: Final = (
    "C>T at CpG", "C>A at CpG", "C>G at CpG", "C>T", "C>A", "C>G", "T>C", "T>A", "T>G", "MNV", "insertion", "deletion",
)  # fmt: skip
"""Classes of changes; substitutions are those of the strand on which the reference has a pyrimidine."""
ORDER: Final = "transition at CpG, other transition, transversion, MNV, indel"
"""The rule that needs no training: from what mutates most to what mutates least."""

_A, _C, _G, _T = range(4)
_MNV, _INSERTION, _DELETION = (CHANGES.index(name) for name in ("MNV", "insertion", "deletion"))
# The rank of each class in `ORDER`.
_RANK_K: Final = np.array([0, 2, 2, 1, 2, 2, 1, 2, 2, 3, 4, 4], dtype=np.float64)
_WINDOWS_AT_ONCE: Final = 4096
_LARGEST_SHARE: Final = 0.5


class Predictor(NamedTuple):
    """A number that each allele has.

    Parameters
    ----------
    name : str
        As reports have it.
    model : str
        The model's name; empty for a trivial baseline.
    description : str
        What it is, in a line.
    extreme : int
        −1 where low values speak for an effect, 1 where high ones do.
    kinds : tuple of Kind
        Alleles that may have it: where a comparison has others, it takes no part.
    needs : Kind, optional
        It takes part only where there are such alleles.
    mixed : bool
        It takes part only where there are SNVs and others.
    """

    name: str
    model: str
    description: str
    extreme: int
    kinds: tuple[Kind, ...] = KINDS
    needs: Kind | None = None
    mixed: bool = False

    def applies(self, kinds: set[int]) -> bool:
        """Say whether it takes part in a comparison of alleles of these kinds."""
        return (
            kinds <= set(self.kinds)
            and (self.needs is None or self.needs in kinds)
            and (not self.mixed or (Kind.SNV in kinds and len(kinds) > 1))
        )


class Baselines(NamedTuple):
    """Trivial predictors of alleles.

    Parameters
    ----------
    predictors : tuple of Predictor
        What they are.
    value_AP : ndarray of float64, shape (A, P)
        Not a number where an allele has none.
    notes : tuple of str
        Which could not be had, and why.
    """

    predictors: tuple[Predictor, ...]
    value_AP: Float64
    notes: tuple[str, ...]


class Folds(NamedTuple):
    """Alleles in parts that are predicted from the others.

    Parameters
    ----------
    fold_A : ndarray of int64, shape (A,)
        Number of each one's part.
    parts : int
        How many there are.
    by : {"contigs", "stretches"}
        Whether a part is whole contigs, or a stretch of neighbours.
    """

    fold_A: Int64
    parts: int
    by: str


def trivial_baselines(
    genome: ProbabilisticGenome,
    alleles: Alleles,
    context: int,
    target_A: Float64,
    problem: str,
    *,
    frequency_A: Float64 | None = None,
    splice_A: Float64 | None = None,
) -> Baselines:
    """Compute what needs no model.

    Parameters
    ----------
    genome : ProbabilisticGenome
        The store.
    alleles : Alleles
        All with a kind.
    context : int
        Bases of the window whose GC content is taken.
    target_A : ndarray of float64, shape (A,)
        Labels, from which alone the substitution classes are learnt.
    problem : {"binary", "multiclass", "regression"}
        What they are.
    frequency_A, splice_A : ndarray of float64, shape (A,), optional
        Allele frequencies from elsewhere, and distances to splice sites. Without the former, the store's own frequency
        of the alternate base is taken.

    Returns
    -------
    Baselines
        Of several classes, none learns from labels.
    """
    columns: list[tuple[Predictor, Float64]] = []
    notes: list[str] = []
    if frequency_A is not None:
        columns.append((Predictor("allele frequency", "", "allele frequency, as given", -1), frequency_A))
    elif len(genome.arrays["variant_position.npy"]):
        known = Predictor(
            "allele frequency", "", "frequency of the alternate base in the genome store, SNVs", -1, (Kind.SNV,)
        )
        columns.append((known, store_frequencies(genome, alleles)))
    else:
        notes.append(
            "The genome store has no variants and no column of frequencies was named, so that allele frequency is not "
            "among the baselines."
        )
    change_A = changes(genome, alleles)
    columns.append((Predictor("substitution order", "", ORDER, 1), _RANK_K[change_A]))
    if problem != "multiclass":
        folds = make_folds(alleles)
        learnt_A = None if folds is None else cross_validated(change_A, target_A, folds, problem)
        if folds is None or learnt_A is None:
            notes.append(
                "The substitution class is not among the baselines: there are too few variants of both classes to "
                "predict each part from the others."
            )
        else:
            words = (
                f"{'logistic' if problem == 'binary' else 'ridge'} regression on {len(CHANGES)} classes of changes, "
                f"predicted for each of {folds.parts} parts ({folds.by}) from the others"
            )
            columns.append((Predictor("substitution class", "", words, 1), learnt_A))
    columns.append(
        (Predictor("GC content", "", f"share of G and C in {context:,} bases around", 1), gc(genome, alleles, context))
    )
    if splice_A is not None:
        columns.append((Predictor("splice distance", "", "bases to the nearest splice site, as given", -1), splice_A))
    length_A = indel_lengths(alleles)
    if (alleles.kind_A == Kind.INDEL).any():
        words = "bases that an indel adds or takes away, 0 of others"
        columns.append((Predictor("indel length", "", words, 1, needs=Kind.INDEL), length_A))
    return Baselines(
        tuple(predictor for predictor, _ in columns), np.stack([column for _, column in columns], axis=1), tuple(notes)
    )


def store_frequencies(genome: ProbabilisticGenome, alleles: Alleles) -> Float64:
    """Read the frequency of each SNV's alternate base from a store, 0 where it has none; not a number for others."""
    frequency_A = np.full(len(alleles), np.nan)
    rows = np.flatnonzero(alleles.kind_A == Kind.SNV)
    found_B4 = genome.windows(alleles.contig_A[rows], alleles.start_A[rows], 1).distributions()[:, 0]
    frequency_A[rows] = found_B4[np.arange(len(rows)), alleles.alternate_A[rows]]
    return frequency_A


def changes(genome: ProbabilisticGenome, alleles: Alleles) -> Int64:
    """Tell the class of each change, a number of `CHANGES`; CpG by the reference's bases next to it."""
    size_A = np.array([len(text) for text in alleles.inserted], dtype=np.int64) - (alleles.end_A - alleles.start_A)
    change_A = np.where(alleles.kind_A == Kind.MNV, _MNV, np.where(size_A > 0, _INSERTION, _DELETION)).astype(np.int64)
    rows = np.flatnonzero(alleles.kind_A == Kind.SNV)
    reference_B, alternate_B = alleles.reference_A[rows], alleles.alternate_A[rows]
    contig_B, start_B = alleles.contig_A[rows], alleles.start_A[rows]
    # Of a purine, the other strand is looked at, whose next base is the complement of the one before.
    turned_B = (reference_B == _A) | (reference_B == _G)
    next_B = _bases_at(genome, contig_B, np.where(turned_B, start_B - 1, start_B + 1))
    pyrimidine_B, other_B, next_B = (
        np.where(turned_B, alphabet.COMPLEMENT_OF_CODE[code_B], code_B) for code_B in (reference_B, alternate_B, next_B)
    )
    of_c_B = pyrimidine_B == _C
    # The order among the three of a base is transition, then A, then the last.
    third_B = np.where(other_B == np.where(of_c_B, _T, _C), 0, np.where(other_B == _A, 1, 2))
    change_A[rows] = third_B + np.where(of_c_B, np.where(next_B == _G, 0, 3), 6)
    return change_A


def indel_lengths(alleles: Alleles) -> Float64:
    """Count the bases that each indel adds or takes away; 0 of others."""
    size_A = np.array([len(text) for text in alleles.inserted], dtype=np.int64) - (alleles.end_A - alleles.start_A)
    length_A: Float64 = np.where(alleles.kind_A == Kind.INDEL, np.abs(size_A), 0).astype(np.float64)
    return length_A


def gc(genome: ProbabilisticGenome, alleles: Alleles, context: int) -> Float64:
    """Give the share of G and C among the known bases of each allele's centred window."""
    size_A = np.array(list(genome.lengths.values()), dtype=np.int64)[alleles.contig_A]
    placed = place_windows(np.minimum(alleles.start_A, size_A - 1), size_A, context)
    share_A = np.full(len(alleles), np.nan)
    of_code = alphabet.DISTRIBUTIONS[:, _C] + alphabet.DISTRIBUTIONS[:, _G]
    for length in np.unique(placed.length_P).tolist():
        rows = np.flatnonzero(placed.length_P == length)
        for first in range(0, len(rows), _WINDOWS_AT_ONCE):
            some = rows[first : first + _WINDOWS_AT_ONCE]
            base_BL = genome.windows(alleles.contig_A[some], placed.start_P[some], length).base_BL
            known_BL = base_BL != alphabet.UNKNOWN
            known_B = known_BL.sum(axis=1)
            strong_B = (of_code[base_BL] * known_BL).sum(axis=1, dtype=np.float64)
            share_A[some] = np.divide(strong_B, known_B, out=np.full(len(some), np.nan), where=known_B > 0)
    return share_A


def make_folds(alleles: Alleles) -> Folds | None:
    """Cut alleles into parts: whole contigs, or where one has more than half of all, stretches of as many alleles.

    Alleles at one position are never in two parts. ``None`` where there are not two parts.
    """
    contigs, count_C = np.unique(alleles.contig_A, return_counts=True)
    if len(contigs) > 1 and count_C.max() <= _LARGEST_SHARE * len(alleles):
        # The largest first, each to the part that has least.
        parts = min(FOLDS, len(contigs))
        load = np.zeros(parts, dtype=np.int64)
        part_of = {}
        for place in np.argsort(-count_C, kind="stable").tolist():
            part_of[int(contigs[place])] = int(load.argmin())
            load[load.argmin()] += count_C[place]
        number_C = np.array([part_of[int(contig)] for contig in contigs])
        return Folds(number_C[np.searchsorted(contigs, alleles.contig_A)], parts, "contigs")
    _, place_A, count_U = np.unique(alleles.contig_A << 40 | alleles.start_A, return_inverse=True, return_counts=True)
    fold_U = (np.cumsum(count_U) - count_U) * FOLDS // max(len(alleles), 1)
    _, fold_U = np.unique(fold_U, return_inverse=True)
    return Folds(fold_U[place_A], int(fold_U.max()) + 1, "stretches") if len(fold_U) and fold_U.max() > 0 else None


def cross_validated(change_A: Int64, target_A: Float64, folds: Folds, problem: str) -> Float64 | None:
    """Predict each part's labels from the classes of changes, learnt on the other parts.

    The intercept is left out: it is the share of positives among the others, which is the lower the more of them the
    part itself has, so that parts put together would seem to predict the opposite.

    Returns
    -------
    ndarray of float64, shape (A,), or None
        Log-odds, or numbers of the target; ``None`` where the other parts of one are not of both classes.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    hot_AK = (change_A[:, None] == np.arange(len(CHANGES))).astype(np.float64)
    score_A = np.full(len(change_A), np.nan)
    for fold in range(folds.parts):
        own_A = folds.fold_A == fold
        if len(np.unique(target_A[~own_A])) < 2:
            return None
        model = LogisticRegression(C=1.0, max_iter=1000) if problem == "binary" else Ridge(alpha=1.0)
        model.fit(hot_AK[~own_A], target_A[~own_A])
        score_A[own_A] = hot_AK[own_A] @ np.ravel(model.coef_)
    return score_A


def _bases_at(genome: ProbabilisticGenome, contig_B: Int64, place_B: Int64) -> UInt8:
    """Read single bases; N beyond a contig's ends."""
    size_B = np.array(list(genome.lengths.values()), dtype=np.int64)[contig_B]
    code_B = np.full(len(place_B), alphabet.UNKNOWN, dtype=np.uint8)
    inside = np.flatnonzero((place_B >= 0) & (place_B < size_B))
    code_B[inside] = genome.windows(contig_B[inside], place_B[inside], 1).base_BL[:, 0]
    return code_B


def names_of(predictors: Sequence[Predictor]) -> list[str]:
    """Name predictors, each by one name of its own."""
    return [f"{predictor.model} {predictor.name}".strip() for predictor in predictors]
