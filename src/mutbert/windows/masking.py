"""Which positions are predicted, what the model sees there, and what they count: pure functions of random numbers.

Shape suffixes: B windows, L positions, T targets of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from mutbert import alphabet
from mutbert.windows.randomness import unit_interval

if TYPE_CHECKING:
    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32

    UInt64 = npt.NDArray[np.uint64]
    Places = npt.NDArray[np.uint16]
    TokenIds = npt.NDArray[np.uint8]

KEPT: Final = 255
"""In the place of a token id: the target stays as it is."""

LONGEST_WINDOW: Final = 1 << 16
"""Positions that a place of 16 bits can name."""

Policy = Literal["variants_first", "uniform", "weighted", "spans"]

_PLACE_BITS: Final = 16
_TARGET_BITS: Final = 63


@dataclass(frozen=True)
class Masking:
    """How positions are chosen and corrupted.

    ``variants_first`` takes the positions that vary, in random order, before any other (as published); ``uniform``
    takes every position with the same probability; ``weighted`` draws one after another, a position that varies
    `variant_weight` times as likely as one that does not; ``spans`` takes whole spans of `span_length` neighbours,
    wherever they lie, the last one cut to fit. Of a window's positions ``int(length * share)`` become targets, whatever
    the policy; each becomes ``[MASK]``, becomes a random base or stays as it is with the probabilities `replace`,
    `random` and `keep`.
    """

    policy: Policy = "variants_first"
    share: float = 0.15
    replace: float = 0.8
    random: float = 0.0
    keep: float = 0.2
    variant_weight: float = 10.0
    span_length: int = 6

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"masking.policy is {self.policy!r}; choose {', '.join(get_args(Policy))}")
        if not 0 < self.share <= 1:
            raise ValueError(f"masking.share is {self.share}; it must be above 0 and at most 1")
        shares = (self.replace, self.random, self.keep)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):
            raise ValueError(f"masking.replace, random and keep are {shares}; they must sum to 1, none below 0")
        if not 0 < self.variant_weight < np.inf:
            raise ValueError(f"masking.variant_weight is {self.variant_weight}; it must be above 0 and finite")
        if not self.span_length >= 1:
            raise ValueError(f"masking.span_length is {self.span_length}; it must be at least 1")

    def targets(self, length: int) -> int:
        """Return the number of targets of a window of so many positions."""
        return int(length * self.share)

    def draws(self, length: int) -> int:
        """Return how many random numbers choosing the targets of a window of so many positions takes."""
        return length + (self.span_length - 1 if self.policy == "spans" else 0)


def choose_targets(variant_BL: Bool, bits_BD: UInt64, masking: Masking) -> Places:
    """Return the positions to predict, ascending, uint16 (B, T); T is ``int(L * share)`` for every window.

    `variant_BL` has the positions that vary; `bits_BD` has 64 random bits for each of ``masking.draws(L)``.
    """
    length = variant_BL.shape[1]
    assert length <= LONGEST_WINDOW, "places have 16 bits"
    count = masking.targets(length)
    if count == 0:
        return np.empty((len(variant_BL), 0), dtype=np.uint16)
    # Each position gets a rank, the lowest are taken. The place itself fills the lowest bits, so that no two ranks of
    # a window are equal, the count is exact, and a rank says whose it is.
    rank_BL = (bits_BD >> np.uint64(1)) & ~np.uint64((1 << _PLACE_BITS) - 1)
    if masking.policy == "variants_first":
        rank_BL |= (~variant_BL).astype(np.uint64) << np.uint64(_TARGET_BITS)
    elif masking.policy == "weighted":
        _hurry(rank_BL, variant_BL, masking.variant_weight)
    elif masking.policy == "spans":
        rank_BL = _earliest_span(rank_BL, masking.span_length)
    rank_BL |= np.arange(length, dtype=np.uint64)
    lowest_BT = np.partition(rank_BL, count - 1, axis=1)[:, :count]
    return np.sort(lowest_BT.astype(np.uint16), axis=1)


def _hurry(rank_BL: UInt64, variant_BL: Bool, weight: float) -> None:
    """Lower the ranks of positions that vary, in place.

    Weighted sampling without replacement takes the smallest of exponential waiting times with the weights as their
    rates (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir", Information Processing Letters
    97). Waiting times are brought back to uniform ranks, so that only those of other weight than 1 change:
    u becomes 1 - (1 - u)^(1 / weight).
    """
    unit_N = np.ldexp(rank_BL[variant_BL].astype(np.float64), -_TARGET_BITS)
    # log1p and expm1 keep the precision near 0, where the chosen ones are.
    hurried_N = -np.expm1(np.log1p(-unit_N) / weight)
    rank_N = np.ldexp(hurried_N, _TARGET_BITS).astype(np.uint64)
    rank_BL[variant_BL] = rank_N & ~np.uint64((1 << _PLACE_BITS) - 1)


def _earliest_span(rank_BD: UInt64, span: int) -> UInt64:
    """Return for each position the lowest rank of the spans that cover it.

    A span starts at each position, and at the span - 1 places before the window, of which only the end is seen: so
    every position lies in as many spans as any other.
    """
    length = rank_BD.shape[1] - (span - 1)
    lowest_BL = rank_BD[:, :length].copy()
    for place in range(1, span):
        np.minimum(lowest_BL, rank_BD[:, place : place + length], out=lowest_BL)
    return lowest_BL


def corrupt(bits_BT: UInt64, masking: Masking) -> TokenIds:
    """Return what the model sees at each target, uint8 (B, T): the id of ``[MASK]`` or of a base, or `KEPT`.

    `bits_BT` has 64 random bits a target, independent of those that chose the targets.
    """
    unit_BT = unit_interval(bits_BT)
    # The two lowest bits take no part in `unit_interval`.
    base_BT = (bits_BT & np.uint64(3)).astype(np.uint8) + np.uint8(alphabet.BASE_IDS.start)
    seen_BT = np.where(unit_BT < masking.replace + masking.random, base_BT, np.uint8(KEPT))
    seen_BT[unit_BT < masking.replace] = alphabet.MASK_ID
    return seen_BT


@dataclass(frozen=True)
class Weighting:
    """Weights of targets in the loss, which is the sum of weight times cross-entropy over the *number* of targets.

    It is not divided by the sum of weights: a window that lies in repeats is to count less as a whole, and the loss of
    a batch is to be the mean of its parts' losses, however it is divided among processes. A target counts `variant`
    where it varies, times `soft_masked` where it is lower case in the FASTA, as repeats are.
    """

    variant: float = 1.0
    soft_masked: float = 1.0

    def __post_init__(self) -> None:
        for name in ("variant", "soft_masked"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise ValueError(f"weighting.{name} is {value}; it must be 0 or more, and finite")

    @property
    def is_even(self) -> bool:
        """Whether every target counts the same."""
        return self.variant == self.soft_masked == 1


def weigh_targets(variant_BT: Bool, soft_masked_BT: Bool, weighting: Weighting) -> Float32:
    """Return the weight of each target, float32 (B, T), by what it is."""
    by_variant, by_soft_mask = (
        np.where(is_one_BT, np.float32(weight), np.float32(1))
        for is_one_BT, weight in ((variant_BT, weighting.variant), (soft_masked_BT, weighting.soft_masked))
    )
    return by_variant * by_soft_mask
