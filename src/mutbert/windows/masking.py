"""Which positions are predicted, what the model sees there, and what they count: pure functions of random numbers."""

from dataclasses import replace
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import Field, model_serializer, model_validator
from pydantic.dataclasses import dataclass

from mutbert import alphabet
from mutbert.arrays import Bool, Float32, UInt8, UInt16, UInt64
from mutbert.settings import known_keys
from mutbert.windows.randomness import unit_interval

KEPT: Final = 255  # for a token id: the target stays as it is
_PLACE_BITS: Final = 16
LONGEST_WINDOW: Final = 1 << _PLACE_BITS
_TARGET_BITS: Final = 63

Policy = Literal["variants_first", "uniform", "weighted", "spans"]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Masking:
    """How ``int(length * share)`` positions of a window are chosen and corrupted; `at` a step, where the share changes.

    ``variants_first`` takes the positions that vary, in random order, before any other (as published); ``uniform``
    takes all alike; ``weighted`` draws one after another, a position that varies `variant_weight` times as likely as
    one that does not; ``spans`` takes whole spans of `span_length` neighbours, the last one cut to fit. `replace`,
    `random` and `keep` are the shares of them that become ``[MASK]``, become a random base, and stay.
    """

    policy: Policy = "variants_first"
    share: Annotated[float, Field(gt=0, le=1)] = 0.15  # of a window's positions that are targets
    replace: Share = 0.8  # of the targets that become [MASK]
    random: Share = 0.0  # that become a random base
    keep: Share = 0.2  # that stay
    variant_weight: Above0 = 10.0  # with weighted: how much likelier a position that varies is
    span_length: Annotated[int, Field(ge=1)] = 6  # with spans, in bases
    # Share in the last step of training, which changes linearly up to there; by default it is constant.
    final_share: Annotated[float, Field(gt=0, le=1)] | None = None

    _known = model_validator(mode="before")(known_keys)

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: Any) -> dict[str, Any]:
        # A recipe without a final share is written as earlier versions wrote and read it.
        return {name: value for name, value in serialise(self).items() if value is not None}

    def __post_init__(self) -> None:
        if abs((total := self.replace + self.random + self.keep) - 1) > 1e-6:
            raise ValueError(f"the sum of replace, random and keep is {total:g}; it must be 1")

    def at(self, done: float) -> Self:
        """Return the masking after a part of the run, from 0 in the first step to 1 in the last, with one share."""
        share = self.share * (1 - done) + (self.final_share or self.share) * done
        return replace(self, share=share, final_share=None)

    def targets(self, length: int) -> int:
        """Return the number of targets of a window of so many positions."""
        return int(length * self.share)

    def draws(self, length: int) -> int:
        """Return the number of random numbers that `choose_targets` takes for a window."""
        return length + (self.span_length - 1 if self.policy == "spans" else 0)


def choose_targets(variant_BL: Bool, bits_BD: UInt64, masking: Masking) -> UInt16:
    """Return the positions to predict, ascending, uint16 (B, T); `bits_BD` are ``masking.draws(L)`` random numbers."""
    length = variant_BL.shape[1]
    assert length <= LONGEST_WINDOW, "places have 16 bits"
    count = masking.targets(length)
    if count == 0:
        return np.empty((len(variant_BL), 0), dtype=np.uint16)
    # The lowest ranks are taken. The place itself fills a rank's lowest bits, so that no two of a window are equal.
    rank_BL = (bits_BD >> np.uint64(1)) & ~np.uint64((1 << _PLACE_BITS) - 1)
    if masking.policy == "variants_first":
        rank_BL |= np.where(variant_BL, np.uint64(0), np.uint64(1 << _TARGET_BITS))
    elif masking.policy == "weighted":
        _hurry(rank_BL, variant_BL, masking.variant_weight)
    elif masking.policy == "spans":
        # The lowest of the spans that cover a position, which may start before the window.
        span_BD, rank_BL = rank_BL, rank_BL[:, :length].copy()
        for place in range(1, masking.span_length):
            np.minimum(rank_BL, span_BD[:, place : place + length], out=rank_BL)
    rank_BL |= np.arange(length, dtype=np.uint64)
    rank_BL.partition(count - 1, axis=1)
    target_BT = rank_BL[:, :count].astype(np.uint16)
    target_BT.sort(axis=1)
    return target_BT


def _hurry(rank_BL: UInt64, variant_BL: Bool, weight: float) -> None:
    """Lower the ranks of positions that vary, in place: u becomes 1 - (1 - u)^(1 / weight).

    Weighted sampling without replacement takes the smallest of exponential waiting times with the weights as their
    rates (Efraimidis and Spirakis 2006, Information Processing Letters 97); these are such times as uniform ranks.
    """
    unit_N = np.ldexp(rank_BL[variant_BL].astype(np.float64), -_TARGET_BITS)
    # log1p and expm1 keep the precision near 0, where the chosen ones are.
    hurried_N = -np.expm1(np.log1p(-unit_N) / weight)
    rank_N = np.ldexp(hurried_N, _TARGET_BITS).astype(np.uint64)
    rank_BL[variant_BL] = rank_N & ~np.uint64((1 << _PLACE_BITS) - 1)


def corrupt(bits_BT: UInt64, masking: Masking) -> UInt8:
    """Return what the model sees at each target, uint8 (B, T): the id of ``[MASK]`` or of a base, or `KEPT`."""
    unit_BT = unit_interval(bits_BT)
    # The two lowest bits take no part in `unit_interval`.
    base_BT = (bits_BT & np.uint64(3)).astype(np.uint8) + np.uint8(alphabet.BASE_IDS.start)
    seen_BT = np.where(unit_BT < masking.replace + masking.random, base_BT, np.uint8(KEPT))
    seen_BT[unit_BT < masking.replace] = alphabet.MASK_ID
    return seen_BT


@dataclass(frozen=True)
class Weighting:
    """Weights of targets that vary, and of those in lower case, in a loss that is a mean over the targets' *number*."""

    variant: Weight = 1.0
    soft_masked: Weight = 1.0

    _known = model_validator(mode="before")(known_keys)


@dataclass(frozen=True)
class Tempering:
    """How allele frequencies are tempered at a temperature T.

    ``log`` is p^(1/T), normalised: the softmax of log p / T, which T below 1 sharpens. ``published`` is the softmax of
    p / T over the alleles present, as in the published code; it moves a frequency of 0.02 to 0.20 at T = 0.7.
    """

    kind: Literal["none", "log", "published"] = "none"
    temperature: Above0 = 0.7

    _known = model_validator(mode="before")(known_keys)


def temper(frequency_N4: Float32, tempering: Tempering) -> Float32:
    """Return tempered distributions, float32 (N, 4); rows sum to 1, and an allele that is absent stays absent."""
    if tempering.kind == "none":
        return frequency_N4
    with np.errstate(divide="ignore"):
        score = np.log(frequency_N4) if tempering.kind == "log" else frequency_N4
    # The largest score is taken off first, so that a low temperature cannot overflow.
    score = np.where(frequency_N4 > 0, score, -np.inf) / np.float32(tempering.temperature)
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)
