"""The alleles of contigs become positions that vary: equal ones once, those of a position together, rare ones left out.

Shape suffixes: A alleles, P positions, V positions that are kept, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from mutbert.genome.format import float_to_fixed
from mutbert.genome.variants import CONFLICT, DUPLICATE, SUM_TOLERANCE, TOO_RARE, USED, Alleles, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mutbert.arrays import Float64, Int64, UInt8, UInt16

# A decimal that equals the minimum is not above it in float32, and neither is a sum of three; the next of 6 digits is.
_ROUNDING: Final = 2.0**-23
_MERGED_AT_ONCE: Final = 1 << 17  # merging takes some two hundred bytes an allele


def merge_alleles(
    by_file: Sequence[Alleles], min_frequency: float, refuse: Callable[[int, float], NoReturn]
) -> tuple[Int64, UInt16, list[Tally]]:
    """Return positions (V,) and fixed-point frequencies (V, 4) that are kept, and what became of each file's records.

    Of equal alleles the first counts, and the first at a position says which base is its reference. `refuse` is called
    with a position whose alternates sum to more than 1, and the sum.
    """
    alleles = Alleles.concatenate(by_file)
    order_A = np.argsort(alleles.position_A, kind="stable")
    alleles, stage_A = alleles.take(order_A), np.empty(len(order_A), dtype=np.uint8)
    positions, rows, begin = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.uint16)], 0
    while begin < len(order_A):
        # A piece ends after the last allele of a position.
        last = alleles.position_A[min(begin + _MERGED_AT_ONCE, len(order_A)) - 1]
        piece = slice(begin, int(np.searchsorted(alleles.position_A, last, side="right")))
        position_V, frequency_V4, stage_A[order_A[piece]] = _merge_piece(alleles.take(piece), min_frequency, refuse)
        positions.append(position_V)
        rows.append(float_to_fixed(frequency_V4))
        begin = piece.stop
    tallies = []
    for one in by_file:
        stage, stage_A = stage_A[: len(one.record_A)], stage_A[len(one.record_A) :]
        tallies.append(Tally.of())
        if len(stage):
            first = np.flatnonzero(np.diff(one.record_A, prepend=-1))
            tallies[-1].count_stages(np.maximum.reduceat(stage, first))
            is_apart_N = np.logical_or.reduceat((stage == USED) & (one.whole_A != 0), first)
            tallies[-1].reasons["decomposed"] = int(is_apart_N.sum())
    return np.concatenate(positions), np.concatenate(rows), tallies


def _merge_piece(
    alleles: Alleles, min_frequency: float, refuse: Callable[[int, float], NoReturn]
) -> tuple[Int64, Float64, UInt8]:
    """Return positions and frequencies of alleles whose positions ascend, and how far each of them came."""
    position_A, reference_A, alternate_A, frequency_A, _, whole_A = alleles
    is_new_position_A = np.diff(position_A, prepend=-1) != 0
    first_P, site_A = np.flatnonzero(is_new_position_A), np.cumsum(is_new_position_A) - 1
    reference_P = reference_A[first_P]
    # Stable, so that the first of equal alleles stays so.
    order_A = np.lexsort((whole_A, reference_A, alternate_A, position_A))
    is_new_A = np.zeros(len(order_A), dtype=bool)
    for column in (position_A, alternate_A, reference_A, whole_A):
        is_new_A[1:] |= column[order_A][1:] != column[order_A][:-1]
    is_new_A[0] = True
    first_A = np.empty_like(order_A)
    first_A[order_A] = order_A[np.flatnonzero(is_new_A)[np.cumsum(is_new_A) - 1]]
    is_first_A = first_A == np.arange(len(order_A))
    agrees_A = (reference_A == reference_P[site_A]) & (is_first_A | (frequency_A == frequency_A[first_A]))
    accepted_A = agrees_A & is_first_A

    sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
    if np.any(sum_P > 1 + SUM_TOLERANCE):
        too_much = int(np.argmax(sum_P > 1 + SUM_TOLERANCE))
        refuse(int(position_A[first_P[too_much]]), float(sum_P[too_much]))
    kept_P = sum_P > min_frequency * (1 + _ROUNDING)
    used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
    stage_A = np.full(len(order_A), TOO_RARE, dtype=np.uint8)
    stage_A[used_A] = USED
    stage_A[~is_first_A] = DUPLICATE
    stage_A[~agrees_A] = CONFLICT

    frequency_V4: Float64 = np.zeros((int(kept_P.sum()), 4))
    # An allele of several nucleotides and one of a single may bring the same base.
    np.add.at(frequency_V4, ((np.cumsum(kept_P) - 1)[site_A[used_A]], alternate_A[used_A]), frequency_A[used_A])
    frequency_V4[np.arange(len(frequency_V4)), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
    return position_A[first_P[kept_P]], frequency_V4, stage_A
