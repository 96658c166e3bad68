"""Choose the positions to predict, and what the model sees there: pure functions of random numbers.

Shape suffixes: B windows, L positions, 4 bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from mutbert.windows.randomness import unit_interval

if TYPE_CHECKING:
    import numpy.typing as npt

    Bool = npt.NDArray[np.bool_]
    UInt64 = npt.NDArray[np.uint64]

_PLACE_BITS = 24
_TARGET_BITS = 63


@dataclass(frozen=True)
class Masking:
    """How positions are chosen and corrupted.

    Parameters
    ----------
    policy : {"variants_first", "uniform"}
        ``variants_first`` takes the positions that vary, in random order, before any other (as published);
        ``uniform`` takes every position with the same probability.
    share : float
        Share of a window's positions that become targets: ``int(length * share)`` of them.
    replace, random, keep : float
        Shares of targets that become ``[MASK]``, become a random base, or stay as they are; they sum to 1. Each
        target is drawn for itself. Published: 0.8, 0 and 0.2.
    """

    policy: Literal["variants_first", "uniform"] = "variants_first"
    share: float = 0.15
    replace: float = 0.8
    random: float = 0.0
    keep: float = 0.2

    def __post_init__(self) -> None:
        if self.policy not in {"variants_first", "uniform"}:
            raise ValueError(f"masking.policy is {self.policy!r}; choose variants_first or uniform")
        if not 0 < self.share <= 1:
            raise ValueError(f"masking.share is {self.share}; it must be above 0 and at most 1")
        shares = (self.replace, self.random, self.keep)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"masking.replace, random and keep are {shares}; they must sum to 1, none below 0")

    def targets(self, length: int) -> int:
        """Count the targets of a window of so many positions."""
        return int(length * self.share)


class Corruption(NamedTuple):
    """What the model sees at the targets.

    Parameters
    ----------
    masked_BL : ndarray of bool, shape (B, L)
        Targets that become ``[MASK]``.
    random_BL : ndarray of bool, shape (B, L)
        Targets that become a random base.
    base_BL : ndarray of uint8, shape (B, L)
        A random base code, 0 to 3, at every position; it is used where `random_BL` is set.
    """

    masked_BL: Bool
    random_BL: Bool
    base_BL: npt.NDArray[np.uint8]


def choose_targets(variant_BL: Bool, bits_BL: UInt64, masking: Masking) -> Bool:
    """Choose the positions to predict.

    Parameters
    ----------
    variant_BL : ndarray of bool, shape (B, L)
        Positions that vary.
    bits_BL : ndarray of uint64, shape (B, L)
        64 random bits a position.
    masking : Masking
        Policy and share.

    Returns
    -------
    ndarray of bool, shape (B, L)
        Exactly ``int(L * share)`` in every row.
    """
    length = variant_BL.shape[1]
    count = masking.targets(length)
    if count == 0:
        return np.zeros_like(variant_BL)
    # Each position gets a rank, the lowest are taken. The place itself fills the lowest bits, so that no two ranks
    # of a window are equal and the count is exact.
    rank_BL = (bits_BL >> np.uint64(1)) & ~np.uint64((1 << _PLACE_BITS) - 1) | np.arange(length, dtype=np.uint64)
    if masking.policy == "variants_first":
        rank_BL |= (~variant_BL).astype(np.uint64) << np.uint64(_TARGET_BITS)
    highest_B1 = np.partition(rank_BL, count - 1, axis=1)[:, count - 1 : count]
    targets: Bool = rank_BL <= highest_B1
    return targets


def corrupt(target_BL: Bool, bits_BL: UInt64, masking: Masking) -> Corruption:
    """Decide what the model sees at each target.

    Parameters
    ----------
    target_BL : ndarray of bool, shape (B, L)
        The positions to predict.
    bits_BL : ndarray of uint64, shape (B, L)
        64 random bits a position, independent of those that chose the targets.
    masking : Masking
        Shares.

    Returns
    -------
    Corruption
        Nothing outside the targets is touched.
    """
    unit_BL = unit_interval(bits_BL)
    masked_BL = target_BL & (unit_BL < masking.replace)
    random_BL = target_BL & ~masked_BL & (unit_BL < masking.replace + masking.random)
    # The two lowest bits take no part in `unit_interval`.
    return Corruption(masked_BL, random_BL, (bits_BL & np.uint64(3)).astype(np.uint8))
