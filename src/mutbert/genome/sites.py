"""The alleles of a contig become rows: equal ones once, those of a position together, rare positions left out.

Shape suffixes: A alleles, P positions, V positions that are kept, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError
from mutbert.genome.alleles import Reason
from mutbert.genome.format import float_to_fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Bool, Float32, Float64, Int64, UInt8, UInt16, UInt32


SUM_TOLERANCE: Final = 1e-3
"""What the alternates of a position may sum to above 1 by rounding; they are then normalised."""

# Merging takes some two hundred bytes an allele, so it is done in pieces.
_ALLELES_OF_A_PIECE: Final = 1 << 17

# Frequencies come from htslib as float32. A decimal that equals the minimum is not above it, whichever way it was
# rounded, and neither is a sum of three such; the next number with seven digits is.
_ROUNDING: Final = 2.0**-23


class Alleles(NamedTuple):
    """Single-nucleotide alleles that may enter the store, in the order of a file.

    Parameters
    ----------
    position_A : ndarray of uint32, shape (A,)
        0-based in the contig.
    reference_A, alternate_A : ndarray of uint8, shape (A,)
        Base codes A, C, G, T.
    frequency_A : ndarray of float32, shape (A,)
        From 0 to 1.
    record_A : ndarray of uint32, shape (A,)
        Number of the record in its file's run, ascending.
    whole_A : ndarray of uint32, shape (A,)
        0, or of a part of an allele of several nucleotides, what tells such an allele from others.
    """

    position_A: UInt32
    reference_A: UInt8
    alternate_A: UInt8
    frequency_A: Float32
    record_A: UInt32
    whole_A: UInt32


NO_ALLELES: Final = Alleles(
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.uint8),
    np.zeros(0, np.float32),
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint32),
)


def merge_alleles(parts: Sequence[Alleles], min_frequency: float, where: str) -> tuple[UInt32, UInt16, UInt8]:
    """Bring the alleles of a contig together by position, and keep the positions that vary enough.

    Parameters
    ----------
    parts : sequence of Alleles
        In the order of the files; of equal alleles the earliest counts.
    min_frequency : float
        A position is kept where its alleles' frequencies sum to more than this.
    where : str
        Files and contig, for a message.

    Returns
    -------
    tuple of ndarray
        Of the positions that are kept: 0-based, ascending (V,), and distributions over A, C, G, T in units of 1/65535
        (V, 4). Of every allele, in the order given: how far it came, as `Reason` (A,).

    Raises
    ------
    InputError
        When the alleles of a position sum to more than 1.
    """
    columns = [np.concatenate(column) for column in zip(*((*part[:4], part.whole_A) for part in parts), strict=True)]
    position_A = columns[0]
    order_A: Int64 | None = None
    if np.any(position_A[1:] < position_A[:-1]):
        # Stable, so that what comes first in the files comes first at its position.
        order_A = np.argsort(position_A, kind="stable")
        columns = [column[order_A] for column in columns]
        position_A = columns[0]

    stage_A = np.empty(len(position_A), dtype=np.uint8)
    positions, rows = [np.zeros(0, dtype=np.uint32)], [np.zeros((0, 4), dtype=np.uint16)]
    begin = 0
    while begin < len(position_A):
        # A piece ends behind the last allele of a position.
        last = min(begin + _ALLELES_OF_A_PIECE, len(position_A)) - 1
        end = int(np.searchsorted(position_A, position_A[last], side="right"))
        piece = slice(begin, end)
        position_V, frequency_V4, stage_A[piece] = _merge_piece(
            *(column[piece] for column in columns), min_frequency=min_frequency, where=where
        )
        positions.append(position_V)
        rows.append(float_to_fixed(frequency_V4))
        begin = end
    if order_A is not None:
        stage_A[order_A] = stage_A.copy()
    return np.concatenate(positions), np.concatenate(rows), stage_A


def _merge_piece(
    position_A: UInt32,
    reference_A: UInt8,
    alternate_A: UInt8,
    frequency_A: Float32,
    whole_A: UInt32,
    *,
    min_frequency: float,
    where: str,
) -> tuple[UInt32, Float64, UInt8]:
    """Merge the alleles of some whole positions, which ascend.

    Returns
    -------
    tuple of ndarray
        Positions (V,) and distributions (V, 4) that are kept; and how far each allele came (A,), in the order given.
    """
    # Stable, so that the earliest of equal alleles comes first.
    if np.any(whole_A):
        order_A = np.lexsort((whole_A, reference_A, alternate_A, position_A))
    else:
        order_A = np.argsort(position_A.astype(np.int64) * 16 + alternate_A * 4 + reference_A, kind="stable")
    reference_A, alternate_A, frequency_A = reference_A[order_A], alternate_A[order_A], frequency_A[order_A]
    new_position_A = differs_from_last(position_A)
    new_allele_A = new_position_A | differs_from_last(alternate_A) | differs_from_last(whole_A[order_A])
    new_allele_A |= differs_from_last(reference_A)
    first_P = np.flatnonzero(new_position_A)
    site_A = np.cumsum(new_position_A) - 1

    # The earliest record of a position says what its reference is (a FASTA base may be ambiguous).
    reference_P = reference_A[np.flatnonzero(order_A == np.minimum.reduceat(order_A, first_P)[site_A])]
    earliest_A = np.flatnonzero(new_allele_A)[np.cumsum(new_allele_A) - 1]
    repeated_A = ~new_allele_A & (frequency_A == frequency_A[earliest_A])
    agrees_A = (reference_A == reference_P[site_A]) & (new_allele_A | repeated_A)
    accepted_A = agrees_A & new_allele_A

    sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
    too_much = np.flatnonzero(sum_P > 1 + SUM_TOLERANCE)
    if len(too_much):
        place = too_much[0]
        raise InputError(
            f"{where}:{position_A[first_P[place]] + 1}: the alternate alleles of its records sum to "
            f"{sum_P[place]:.6g}, more than 1; mend or remove a record"
        )
    kept_P = sum_P > min_frequency * (1 + _ROUNDING)
    used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
    stage_A = np.full(len(order_A), Reason.NOT_ABOVE_MINIMUM, dtype=np.uint8)
    stage_A[used_A] = Reason.USED
    stage_A[~new_allele_A] = Reason.DUPLICATE
    stage_A[~agrees_A] = Reason.CONFLICT
    stage_A[order_A] = stage_A.copy()

    row_P = np.cumsum(kept_P) - 1
    kept = int(kept_P.sum())
    # An allele of several nucleotides and one of a single may bring the same base.
    frequency_V4: Float64 = np.zeros((kept, 4))
    np.add.at(frequency_V4, (row_P[site_A[used_A]], alternate_A[used_A]), frequency_A[used_A])
    frequency_V4[np.arange(kept), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
    return position_A[first_P[kept_P]], frequency_V4, stage_A


def differs_from_last(values: npt.NDArray[Any]) -> Bool:
    """Tell which values of an array are not the one before them; the first is not."""
    differs = np.ones(len(values), dtype=bool)
    differs[1:] = values[1:] != values[:-1]
    return differs
