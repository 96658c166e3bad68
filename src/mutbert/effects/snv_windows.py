"""The windows in which SNVs are scored.

Shape suffixes: A alleles, P distinct positions, W distinct windows, N passes, L bases, S stretches, C contigs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert.inference.run import MASKED
from mutbert.inference.surroundings import place_windows

if TYPE_CHECKING:
    from mutbert.arrays import Int64
    from mutbert.effects.alleles import Alleles
    from mutbert.inference.run import PaddedWindows

# Largest share of a window's bases that is masked at once, as in training.
_MASKED_SHARE: Final = 0.15


class SnvWindows:
    """The P distinct positions of SNVs, and the W distinct windows that hold them.

    ``position_A`` is the position of each allele; ``window_P`` and ``column_P`` are a position's window and its 0-based
    offset in it; ``contig_W``, ``start_W`` and ``length_W`` are the windows.
    """

    def __init__(self, alleles: Alleles, length_C: Int64, context: int, placement: str) -> None:
        (contig_P, position_P), self.position_A = unique_columns(np.stack([alleles.contig_A, alleles.start_A]))
        placed = place_windows(position_P, length_C[contig_P], context, placement)
        self.column_P = position_P - placed.start_P
        (self.contig_W, self.start_W, self.length_W), self.window_P = unique_columns(
            np.stack([contig_P, placed.start_P, placed.length_P])
        )

    def masked(self, plain: PaddedWindows, *, together: bool) -> tuple[PaddedWindows, Int64]:
        """Return passes over the windows with positions masked, and the pass of each position, shape (P,).

        `together` masks as many positions of a window at once as training does; of more, neighbours go to different
        passes. Otherwise each has a pass of its own.
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
        """Return distinct windows with REF and with ALT, and the stretches to compare: window, begin and end.

        Four stretches an allele: the variant with REF, its surroundings with REF, then both with ALT.
        """
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
