"""Sharpen or flatten allele frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from mutbert.arrays import Float32


@dataclass(frozen=True)
class Tempering:
    """How allele frequencies are tempered at a temperature T above 0.

    ``none`` leaves them. ``log`` is p^(1/T), normalised: the softmax of log p / T, which T below 1 sharpens.
    ``published`` is the softmax of p / T over the alleles present, as the published code had it; it moves a frequency
    of 0.02 to 0.20 at T = 0.7, and is there to reproduce it.
    """

    kind: Literal["none", "log", "published"] = "none"
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if self.kind not in {"none", "log", "published"}:
            raise ValueError(f"tempering.kind is {self.kind!r}; choose none, log or published")
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"tempering.temperature is {self.temperature}; it must be above 0 and finite")


def temper(frequency_N4: Float32, tempering: Tempering) -> Float32:
    """Return tempered distributions, float32 (N, 4); rows sum to 1, and an allele that is absent stays absent."""
    if tempering.kind == "none":
        return frequency_N4
    present = frequency_N4 > 0
    with np.errstate(divide="ignore"):
        score = np.log(frequency_N4) if tempering.kind == "log" else frequency_N4
    # The largest score is taken off first, so that a low temperature cannot overflow.
    score = np.where(present, score, -np.inf) / np.float32(tempering.temperature)
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    tempered: Float32 = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return tempered
