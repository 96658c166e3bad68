"""Windows in which alleles are scored: those of SNVs, and both haplotypes of any allele, comparable base by base.

Shape suffixes: A alleles, P distinct positions, W distinct windows, H haplotypes (each allele's reference, then each
allele's own), L length in bases, B bases, T those that are read, R readings of them, M positions with a distribution,
4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.arrays import Float32, Float64, Int64, list_ranges
from mutbert.effects.alleles import Alleles, Kind
from mutbert.genome.store import ProbabilisticGenome, fixed_to_float
from mutbert.inference.run import MASKED, NO_ROWS, PaddedWindows, Queries, base_log_probabilities
from mutbert.inference.surroundings import place_windows, read_windows

if TYPE_CHECKING:
    from collections.abc import Callable

# Largest share of a window's bases that is masked at once, as in training.
_MASKED_SHARE: Final = 0.15


def snv_windows(
    genome: ProbabilisticGenome, alleles: Alleles, context: int, placement: str, *, masked: bool
) -> tuple[PaddedWindows, Queries, Int64]:
    """Return windows to run for SNVs, queries of their P distinct positions, and the position of each allele.

    `masked` repeats each window until every position is masked once: alone, or in shared windows as many together as in
    training, of more with neighbours apart.
    """
    (contig_P, position_P), position_A = unique_columns(np.stack([alleles.contig_A, alleles.start_A]))
    placed = place_windows(position_P, _lengths(genome)[contig_P], context, placement)
    windows, window_P = unique_columns(np.stack([contig_P, placed.start_P, placed.length_P]))
    plain, column_P = read_windows(genome, *windows), position_P - placed.start_P
    if not masked:
        return plain, Queries(window_P, column_P), position_A
    count_W = np.bincount(window_P, minlength=len(plain))
    at_once_W = np.maximum((plain.length_N * _MASKED_SHARE).astype(np.int64), 1) if placement == "shared" else 1
    passes_W = -(-count_W // at_once_W)
    # Positions are sorted, but at a contig's end those of a window need not be consecutive.
    by_window = np.argsort(window_P, kind="stable")
    rank_P = np.empty_like(window_P)
    rank_P[by_window] = np.arange(len(by_window)) - (np.cumsum(count_W) - count_W)[window_P[by_window]]
    pass_P = (np.cumsum(passes_W) - passes_W)[window_P] + rank_P % passes_W[window_P]
    repeated = plain.take(np.repeat(np.arange(len(plain)), passes_W))
    return repeated.with_codes(pass_P, column_P, MASKED), Queries(pass_P, column_P), position_A


class Haplotypes(NamedTuple):
    """Windows of both haplotypes of some alleles."""

    windows: PaddedWindows
    row_H: Int64  # The window of a haplotype, and which of its bases, 0-based and half-open, are the allele's.
    begin_H: Int64
    end_H: Int64
    margin_H: Int64  # More bases on either side whose embeddings count: one of MNVs and indels.

    def spans(self, bases: int | None) -> Queries:
        """Return four spans an allele: what changes, `bases` around it (None: the window), then both with ALT."""
        length_H = self.windows.length_N[self.row_H]
        near = np.maximum(self.begin_H - self.margin_H, 0), np.minimum(self.end_H + self.margin_H, length_H)
        wide = np.zeros_like(length_H), length_H
        if bases is not None:
            size_H = np.maximum(bases, near[1] - near[0])
            first_H = np.clip((near[0] + near[1]) // 2 - size_H // 2, 0, np.maximum(length_H - size_H, 0))
            wide = first_H, np.minimum(first_H + size_H, length_H)
        spans = np.stack([(self.row_H, *near), (self.row_H, *wide)], axis=1).reshape(3, 2, 2, -1)
        return Queries(NO_ROWS, NO_ROWS, *spans.swapaxes(1, 2).reshape(3, -1))

    def pseudo_ratios(self, flank: int, run: Callable[[PaddedWindows, Queries], Float32]) -> Float64:
        """Return pseudo-log-likelihood ratios in nats, over distributions the mean, shape (A,); `run` returns logits.

        The pseudo-log-likelihood of a sequence is the sum, over its bases, of the log-probability of each with that
        base alone masked (Salazar et al. 2020, arXiv 1910.14659; for proteins with indels Brandes et al. 2023,
        doi 10.1038/s41588-023-01465-0). Here it runs over the changed bases and `flank` more on either side, and each
        counts ``ln P + ln 4``, its excess over the chance of one in four: otherwise the longer of two haplotypes would
        lose by its length alone. For equal lengths ``ln 4`` cancels.
        """
        windows, width, alleles = self.windows, self.windows.code_NL.shape[1], len(self.row_H) // 2
        stop_H = np.minimum(self.end_H + flank, windows.length_N[self.row_H])
        haplotype_R, column_R = list_ranges(np.maximum(self.begin_H - flank, 0), stop_H)
        known_R = windows.code_NL[self.row_H[haplotype_R], column_R] != alphabet.UNKNOWN
        haplotype_R, column_R = haplotype_R[known_R], column_R[known_R]
        (row_T, column_T), read_R = unique_columns(np.stack([self.row_H[haplotype_R], column_R]))
        every_T = np.arange(len(row_T))
        logit_T4 = run(windows.take(row_T).with_codes(every_T, column_T, MASKED), Queries(every_T, column_T))
        share_T4 = alphabet.DISTRIBUTIONS[windows.code_NL[row_T, column_T]].astype(np.float64)
        keys = windows.row_M * width + windows.column_M, row_T * width + column_T
        _, of_M, of_T = np.intersect1d(*keys, assume_unique=True, return_indices=True)
        share_T4[of_T] = fixed_to_float(windows.frequency_M4[of_M])
        excess_T = (share_T4 * base_log_probabilities(logit_T4)).sum(axis=1) + np.log(len(alphabet.BASES))
        sign_R = np.where(haplotype_R < alleles, -1, 1)
        return np.bincount(haplotype_R % alleles, sign_R * excess_T[read_R], alleles)


def read_haplotypes(genome: ProbabilisticGenome, alleles: Alleles, context: int, placement: str) -> Haplotypes:
    """Return windows of both haplotypes; `context` has room for each allele and both flanks.

    Centred, the allele is in the middle of its window, between real bases on both haplotypes: past an insertion the
    window holds fewer of the reference's, past a deletion more.
    """
    changes = [np.tile(one, 2) for one in (alleles.contig_A, alleles.start_A, alleles.end_A)]
    # The bases that change are REF's, whatever the genome or a population has there.
    texts, text_H = np.unique(np.append(alleles.removed, alleles.inserted).astype(np.str_), return_inverse=True)
    (contig_W, start_W, end_W, text_W), row_H = unique_columns(np.stack([*changes, text_H.reshape(-1)]))
    size_W = np.char.str_len(texts)[text_W]
    gain_W = size_W - (end_W - start_W)
    placed = place_windows(start_W + size_W // 2, _lengths(genome)[contig_W] + gain_W, context, placement)
    source = read_windows(genome, contig_W, placed.start_P, placed.length_P - gain_W)
    begin_W = start_W - placed.start_P
    column_L = np.arange(int(placed.length_P.max(initial=0)))
    from_WL = column_L - np.where(column_L >= (begin_W + size_W)[:, None], gain_W[:, None], 0)
    code_WL = np.take_along_axis(source.code_NL, np.minimum(from_WL, source.code_NL.shape[1] - 1), axis=1)
    row_B, column_B = list_ranges(begin_W, begin_W + size_W)
    code_B = alphabet.encode("".join(texts[text_W]))
    # Distributions within the removed bases go with them; those past it shift.
    past_M = source.column_M >= (begin_W + size_W - gain_W)[source.row_M]
    kept_M = past_M | (source.column_M < begin_W[source.row_M])
    column_M = source.column_M + np.where(past_M, gain_W[source.row_M], 0)
    changed_W = gain_W != 0
    changed_W[row_B[code_WL[row_B, column_B] != code_B]] = True
    changed_W[source.row_M[~kept_M]] = True
    code_WL[row_B, column_B] = code_B
    windows = PaddedWindows(
        code_WL, placed.length_P, source.row_M[kept_M], column_M[kept_M], source.frequency_M4[kept_M]
    )
    # Windows that begin at one base are the same where they have what the genome has.
    same = np.stack([contig_W, placed.start_P, np.where(changed_W, np.arange(len(changed_W)), -1)])
    _, first, window_W = np.unique(same, axis=1, return_index=True, return_inverse=True)
    margin_H = np.tile(alleles.kind_A != Kind.SNV, 2).astype(np.int64)
    begin_H, row = begin_W[row_H], window_W.reshape(-1)[row_H]
    return Haplotypes(windows.take(first), row, begin_H, begin_H + size_W[row_H], margin_H)


def _lengths(genome: ProbabilisticGenome) -> Int64:
    return np.array(list(genome.lengths.values()), dtype=np.int64)


def unique_columns(columns: Int64) -> tuple[Int64, Int64]:
    """Return the distinct columns in ascending order, and the index of each column among them."""
    distinct, inverse = np.unique(columns, axis=1, return_inverse=True)
    return distinct, inverse.reshape(-1)
