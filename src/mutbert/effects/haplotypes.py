"""Windows with an MNV or indel, base by base comparable with those of the reference.

The pseudo-log-likelihood of a sequence is the sum, over its bases, of the log-probability of each with that base alone
masked (Salazar et al. 2020, arXiv 1910.14659; for proteins with indels Brandes et al. 2023,
doi 10.1038/s41588-023-01465-0). Here it runs over the changed bases and `flank` more on either side, and each counts
``ln P + ln 4``, its excess over the chance of one in four: otherwise the longer of two haplotypes would lose by its
length alone. For equal lengths ``ln 4`` cancels.

Shape suffixes: A alleles, H haplotypes (each allele's reference, then each allele's own), L length in bases, T bases
that are read, R readings of them, S stretches, W distinct windows, M positions with a distribution, 4 bases in the
order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.effects.snv_windows import around, unique_columns
from mutbert.genome.store import fixed_to_float
from mutbert.inference.run import MASKED, PaddedWindows, base_log_probabilities, concatenate_windows
from mutbert.inference.surroundings import place_windows, read_windows

if TYPE_CHECKING:
    from mutbert.arrays import Float32, Float64, Int64
    from mutbert.effects.alleles import Alleles
    from mutbert.genome.store import ProbabilisticGenome

FLANK: Final = 8
"""Bases on either side that count unless another number is asked for."""


class Haplotypes(NamedTuple):
    """The distinct windows of both haplotypes of some alleles, and what is read of them.

    ``row_T`` and ``column_T`` are the bases whose pseudo-likelihood counts: window and 0-based offset. Each of the R
    readings adds (sign 1, the allele's own) or subtracts (−1, the reference's) base ``read_R`` for ``allele_R``.
    Stretches, four an allele: the changed bases and one more on either side in the reference, its surroundings there,
    then both with the allele.
    """

    windows: PaddedWindows
    row_T: Int64
    column_T: Int64
    read_R: Int64
    sign_R: Int64
    allele_R: Int64
    row_S: Int64
    begin_S: Int64
    end_S: Int64
    alleles: int

    def masked(self) -> PaddedWindows:
        """Return a pass for each base that is read, with that base alone masked."""
        return self.windows.take(self.row_T).with_codes(np.arange(len(self.row_T)), self.column_T, MASKED)

    def ratio(self, logit_T4: Float32) -> Float64:
        """Return the pseudo-log-likelihood ratio of each allele in nats, shape (A,).

        Where the surroundings have a distribution, the log-probability is the mean over it.
        """
        windows, width = self.windows, self.windows.code_NL.shape[1]
        share_T4 = alphabet.DISTRIBUTIONS[windows.code_NL[self.row_T, self.column_T]].astype(np.float64)
        _, of_M, of_T = np.intersect1d(
            windows.row_M * width + windows.column_M, self.row_T * width + self.column_T, True, return_indices=True
        )
        share_T4[of_T] = fixed_to_float(windows.frequency_M4[of_M])
        excess_T = (share_T4 * base_log_probabilities(logit_T4)).sum(axis=1) + np.log(len(alphabet.BASES))
        return np.bincount(self.allele_R, self.sign_R * excess_T[self.read_R], self.alleles).astype(np.float64)


def haplotype_passes(
    surroundings: ProbabilisticGenome,
    alleles: Alleles,
    length_C: Int64,
    context: int,
    flank: int,
    distance_bases: int | None = None,
) -> Haplotypes:
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
