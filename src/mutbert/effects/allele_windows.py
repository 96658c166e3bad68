"""Windows in which alleles are scored: those of SNVs, and those with an MNV or indel, comparable base by base.

The pseudo-log-likelihood of a sequence is the sum, over its bases, of the log-probability of each with that base alone
masked (Salazar et al. 2020, arXiv 1910.14659; for proteins with indels Brandes et al. 2023,
doi 10.1038/s41588-023-01465-0). Here it runs over the changed bases and `flank` more on either side, and each counts
``ln P + ln 4``, its excess over the chance of one in four: otherwise the longer of two haplotypes would lose by its
length alone. For equal lengths ``ln 4`` cancels.

Shape suffixes: A alleles, P distinct positions, W distinct windows, N passes, H haplotypes (each allele's reference,
then each allele's own), L length in bases, T bases that are read, R readings of them, S stretches, M positions with a
distribution, C contigs, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.encoders.inputs import MASKED, PaddedWindows, concatenate_windows, place_windows, read_windows
from mutbert.genome.store import fixed_to_float
from mutbert.inference.run import base_log_probabilities

if TYPE_CHECKING:
    from mutbert.arrays import Float32, Float64, Int64
    from mutbert.effects.alleles import Alleles
    from mutbert.genome.store import ProbabilisticGenome

# Largest share of a window's bases that is masked at once, as in training.
_MASKED_SHARE: Final = 0.15


class SnvWindows:
    """The P distinct positions of SNVs, and the W distinct windows that hold them; columns are 0-based offsets."""

    def __init__(self, alleles: Alleles, length_C: Int64, context: int, placement: str) -> None:
        (contig_P, position_P), self.position_A = unique_columns(np.stack([alleles.contig_A, alleles.start_A]))
        placed = place_windows(position_P, length_C[contig_P], context, placement)
        self.column_P = position_P - placed.start_P
        (self.contig_W, self.start_W, self.length_W), self.window_P = unique_columns(
            np.stack([contig_P, placed.start_P, placed.length_P])
        )

    def masked(self, plain: PaddedWindows, *, together: bool) -> tuple[PaddedWindows, Int64]:
        """Return passes over the windows with positions masked, and the pass of each position, shape (P,).

        `together` masks as many positions of a window at once as training does, of more with neighbours apart.
        """
        count_W = np.bincount(self.window_P, minlength=len(self.contig_W))
        at_once_W = np.maximum((self.length_W * _MASKED_SHARE).astype(np.int64), 1) if together else 1
        passes_W = -(-count_W // at_once_W)
        # Positions are sorted, but at a contig's end those of a window need not be consecutive.
        by_window = np.argsort(self.window_P, kind="stable")
        rank_P = np.empty_like(self.window_P)
        rank_P[by_window] = np.arange(len(by_window)) - (np.cumsum(count_W) - count_W)[self.window_P[by_window]]
        first_W = np.cumsum(passes_W) - passes_W
        pass_P = first_W[self.window_P] + rank_P % passes_W[self.window_P]
        repeated = plain.take(np.repeat(np.arange(len(self.contig_W)), passes_W))
        return repeated.with_codes(pass_P, self.column_P, MASKED), pass_P

    def sides(
        self, plain: PaddedWindows, alleles: Alleles, bases: int | None
    ) -> tuple[PaddedWindows, Int64, Int64, Int64]:
        """Return distinct windows with REF and with ALT, and stretches as in `Haplotypes`, the SNV's own alone."""
        window_A, column_A = self.window_P[self.position_A], self.column_P[self.position_A]
        varies = np.zeros(plain.code_NL.shape, dtype=np.bool_)
        varies[plain.row_M, plain.column_M] = True
        # Alleles share one pass where the window has REF already.
        unedited_A = (plain.code_NL[window_A, column_A] == alleles.reference_A) & ~varies[window_A, column_A]
        reference = [window_A, np.where(unedited_A, -1, column_A), np.where(unedited_A, 0, alleles.reference_A)]
        alternate = [window_A, column_A, alleles.alternate_A.astype(np.int64)]
        (window_N, column_N, code_N), row = unique_columns(np.concatenate([reference, alternate], axis=1))
        edited = np.flatnonzero(column_N >= 0)
        passes = plain.take(window_N).with_codes(edited, column_N[edited], code_N[edited].astype(np.uint8))
        row_S = np.repeat(row.reshape(2, -1), 2, axis=0).reshape(-1)
        wide = around(column_A, column_A + 1, plain.length_N[window_A], bases)
        begin, end = (np.tile(np.concatenate(pair), 2) for pair in zip((column_A, column_A + 1), wide, strict=True))
        return passes, row_S, begin, end


class Haplotypes(NamedTuple):
    """The distinct windows of both haplotypes of some alleles, and what is read of them."""

    windows: PaddedWindows
    row_T: Int64  # Of the bases whose pseudo-likelihood counts: window and 0-based offset.
    column_T: Int64
    read_R: Int64  # Which of these bases counts for which allele: 1 in its own, −1 in the reference's haplotype.
    sign_R: Int64
    allele_R: Int64
    row_S: Int64  # Four an allele: what changes and one more base on either side, its surroundings; then with ALT.
    begin_S: Int64
    end_S: Int64
    alleles: int

    def masked(self) -> PaddedWindows:
        """Return a pass for each base that is read, with that base alone masked."""
        return self.windows.take(self.row_T).with_codes(np.arange(len(self.row_T)), self.column_T, MASKED)

    def ratio(self, logit_T4: Float32) -> Float64:
        """Return the pseudo-log-likelihood ratio of each allele in nats, over distributions the mean, shape (A,)."""
        windows, width = self.windows, self.windows.code_NL.shape[1]
        share_T4 = alphabet.DISTRIBUTIONS[windows.code_NL[self.row_T, self.column_T]].astype(np.float64)
        _, of_M, of_T = np.intersect1d(
            windows.row_M * width + windows.column_M, self.row_T * width + self.column_T, True, return_indices=True
        )
        share_T4[of_T] = fixed_to_float(windows.frequency_M4[of_M])
        excess_T = (share_T4 * base_log_probabilities(logit_T4)).sum(axis=1) + np.log(len(alphabet.BASES))
        return np.bincount(self.allele_R, self.sign_R * excess_T[self.read_R], self.alleles).astype(np.float64)


def haplotype_passes(
    surroundings: ProbabilisticGenome, alleles: Alleles, length_C: Int64, context: int, flank: int,
    distance_bases: int | None,
) -> Haplotypes:  # fmt: skip
    """Return the windows of MNVs and indels; `context` has room for each and both flanks.

    The allele is in the middle of its window, between real bases on both haplotypes: past an insertion the window holds
    fewer of the reference's, past a deletion more.
    """
    contig_A, start_A, end_A = alleles.contig_A, alleles.start_A, alleles.end_A
    inserted_A = np.array([len(text) for text in alleles.inserted], dtype=np.int64)
    # Alleles that change the same bases share one reference; REF decides where the genome has an IUPAC code.
    texts, text_A = np.unique(alleles.removed.astype(np.str_), return_inverse=True)
    (contig_W, start_W, end_W, text_W), own_A = unique_columns(np.stack([contig_A, start_A, end_A, text_A.reshape(-1)]))
    placed = place_windows((start_W + end_W) // 2, length_C[contig_W], context)
    reference = read_windows(surroundings, contig_W, placed.start_P, placed.length_P)
    # The bases that change are REF's, whatever a population has there.
    row, column = list_ranges(start_W - placed.start_P, end_W - placed.start_P)
    reference = reference.with_codes(row, column, alphabet.encode("".join(texts[text_W])))
    length_A = length_C[contig_A] - (end_A - start_A) + inserted_A
    placed_own = place_windows(start_A + inserted_A // 2, length_A, context)
    changed = _with_alleles(surroundings, alleles, inserted_A, placed_own.start_P, placed_own.length_P)
    windows = concatenate_windows([reference, changed])

    row_H = np.concatenate([own_A, len(reference) + np.arange(len(alleles))])
    begin_H = np.concatenate([start_A - placed.start_P[own_A], start_A - placed_own.start_P])
    end_H = begin_H + np.concatenate([end_A - start_A, inserted_A])
    length_H = windows.length_N[row_H]
    every_H, column_R = list_ranges(np.maximum(begin_H - flank, 0), np.minimum(end_H + flank, length_H))
    known_R = windows.code_NL[row_H[every_H], column_R] != alphabet.UNKNOWN
    every_H, column_R = every_H[known_R], column_R[known_R]
    (row_T, column_T), read_R = unique_columns(np.stack([row_H[every_H], column_R]))

    near = np.maximum(begin_H - 1, 0), np.minimum(end_H + 1, length_H)
    wide = around(*near, length_H, distance_bases)
    row_S, begin_S, end_S = (
        np.stack([one.reshape(2, -1), other.reshape(2, -1)], axis=1).reshape(-1)
        for one, other in zip((row_H, *near), (row_H, *wide), strict=True)
    )
    sign_R = np.where(every_H < len(alleles), -1, 1)
    allele_R = every_H % len(alleles)
    return Haplotypes(windows, row_T, column_T, read_R, sign_R, allele_R, row_S, begin_S, end_S, len(alleles))


def _with_alleles(
    surroundings: ProbabilisticGenome, alleles: Alleles, inserted_A: Int64, start_A: Int64, length_A: Int64
) -> PaddedWindows:
    """Return windows of the haplotypes that have the alleles; starts and lengths are the haplotype's."""
    removed_A = alleles.end_A - alleles.start_A
    source = read_windows(surroundings, alleles.contig_A, start_A, length_A - inserted_A + removed_A)
    before_A = alleles.start_A - start_A
    column_L = np.arange(int(length_A.max(initial=0)))
    past_AL = column_L >= (before_A + inserted_A)[:, None]
    from_AL = column_L - np.where(past_AL, (inserted_A - removed_A)[:, None], 0)
    code_AL = np.take_along_axis(source.code_NL, np.minimum(from_AL, source.code_NL.shape[1] - 1), axis=1)
    row, column = list_ranges(before_A, before_A + inserted_A)
    code_AL[row, column] = alphabet.encode("".join(alleles.inserted))
    # Distributions within the removed bases go with them; those past it shift.
    kept_M = (source.column_M < before_A[source.row_M]) | (source.column_M >= (before_A + removed_A)[source.row_M])
    row_M, column_M = source.row_M[kept_M], source.column_M[kept_M]
    shift_M = np.where(column_M >= before_A[row_M], (inserted_A - removed_A)[row_M], 0)
    return PaddedWindows(code_AL, length_A, row_M, column_M + shift_M, source.frequency_M4[kept_M])


def around(begin_A: Int64, end_A: Int64, length_A: Int64, bases: int | None) -> tuple[Int64, Int64]:
    """Return stretches widened to `bases` around their middle, within their windows; whole windows for ``None``."""
    if bases is None:
        return np.zeros_like(length_A), length_A
    wide_A = np.maximum(bases, end_A - begin_A)
    first_A = np.clip((begin_A + end_A) // 2 - wide_A // 2, 0, np.maximum(length_A - wide_A, 0))
    return first_A, np.minimum(first_A + wide_A, length_A)


def unique_columns(columns: Int64) -> tuple[Int64, Int64]:
    """Return the distinct columns in ascending order, and the index of each column among them."""
    distinct, inverse = np.unique(columns, axis=1, return_inverse=True)
    return distinct, inverse.reshape(-1)
