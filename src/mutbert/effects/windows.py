"""The windows in which alleles are looked at.

Shape suffixes: A alleles, P different positions, W different windows, N passes, L length in bases, S stretches, C
contigs.
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


# Of a window's bases, at most so many are masked at once: as many as in training.
_MASKED_SHARE: Final = 0.15


class SnvWindows:
    """The different positions of SNVs, the different windows that they are looked at in, and passes over these.

    Parameters
    ----------
    alleles : Alleles
        SNVs that can be scored.
    length_C : ndarray of int64
        Lengths of the contigs.
    context : int
        Bases of a window.
    placement : {"centred", "shared"}
        As for `mutbert.inference.surroundings.place_windows`.

    Attributes
    ----------
    position_A : ndarray of int64
        The position of each allele, among the P.
    window_P, column_P : ndarray of int64, shape (P,)
        The window of each position, among the W, and the 0-based place in it.
    contig_W, start_W, length_W : ndarray of int64, shape (W,)
        The windows.
    """

    def __init__(self, alleles: Alleles, length_C: Int64, context: int, placement: str) -> None:
        places = np.stack([alleles.contig_A, alleles.start_A])
        (contig_P, position_P), self.position_A = unique_columns(places)
        placed = place_windows(position_P, length_C[contig_P], context, placement)
        self.column_P = position_P - placed.start_P
        (self.contig_W, self.start_W, self.length_W), self.window_P = unique_columns(
            np.stack([contig_P, placed.start_P, placed.length_P])
        )

    def masked(self, plain: PaddedWindows, *, together: bool) -> tuple[PaddedWindows, Int64]:
        """Mask the positions of each window.

        Parameters
        ----------
        plain : PaddedWindows
            The windows as they are.
        together : bool
            As many of a window in one pass as in training; of more, neighbours go to different passes. Otherwise each
            in a pass of its own.

        Returns
        -------
        (PaddedWindows, ndarray of int64, shape (P,))
            The passes, and the one of each position.
        """
        count_W = np.bincount(self.window_P, minlength=len(self.contig_W))
        at_once_W = np.maximum((self.length_W * _MASKED_SHARE).astype(np.int64), 1) if together else 1
        passes_W = -(-count_W // at_once_W)
        # Positions are in order, and so are those of a window, though at a contig's end not all behind one another.
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
        """Give windows with REF and with ALT, each once, and the stretches that are compared.

        These are, of each allele: the variant and its surroundings with REF, then both with ALT.
        """
        window_A, column_A = self.window_P[self.position_A], self.column_P[self.position_A]
        varies = np.zeros(plain.code_NL.shape, dtype=np.bool_)
        varies[plain.row_M, plain.column_M] = True
        # Where the window has REF already, alleles of it share the one pass.
        as_it_is_A = (plain.code_NL[window_A, column_A] == alleles.reference_A) & ~varies[window_A, column_A]
        reference_A = np.where(as_it_is_A, -1, column_A)
        keys = np.concatenate(
            [
                np.stack([window_A, reference_A, np.where(as_it_is_A, 0, alleles.reference_A)]),
                np.stack([window_A, column_A, alleles.alternate_A.astype(np.int64)]),
            ],
            axis=1,
        )
        (window_N, column_N, code_N), row = unique_columns(keys)
        edited = np.flatnonzero(column_N >= 0)
        passes = plain.take(window_N).with_codes(edited, column_N[edited], code_N[edited].astype(np.uint8))
        row_2A = row.reshape(2, -1)
        length_A = plain.length_N[window_A]
        wide_begin_A, wide_end_A = around(column_A, column_A + 1, length_A, bases)
        begin = np.concatenate([column_A, wide_begin_A])
        end = np.concatenate([column_A + 1, wide_end_A])
        return passes, np.concatenate([row_2A[0], row_2A[0], row_2A[1], row_2A[1]]), np.tile(begin, 2), np.tile(end, 2)


def around(begin_A: Int64, end_A: Int64, length_A: Int64, bases: int | None) -> tuple[Int64, Int64]:
    """Widen stretches to so many bases around their middle, within their windows; to the whole where left out."""
    if bases is None:
        return np.zeros_like(length_A), length_A
    wide_A = np.maximum(bases, end_A - begin_A)
    first_A = np.clip((begin_A + end_A) // 2 - wide_A // 2, 0, np.maximum(length_A - wide_A, 0))
    return first_A, np.minimum(first_A + wide_A, length_A)


def unique_columns(columns: Int64) -> tuple[Int64, Int64]:
    """Give the different columns in ascending order, and which of them each is."""
    different, inverse = np.unique(columns, axis=1, return_inverse=True)
    return different, inverse.reshape(-1)
