"""Random numbers that are a pure function of (seed, stream, index, place).

So it does not matter in which order or process a sample is drawn. The function is SplitMix64 (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators", OOPSLA), started for each index from a hash of the other three.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mutbert.arrays import Float64, Int64, UInt64

# One stream for each question asked of a window, so that the answers are independent of each other.
START, TARGETS, CORRUPTION, STRAND = range(1, 5)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_bits(seed: int, stream: int, index_B: Int64, places: int | npt.NDArray[np.integer[Any]]) -> UInt64:
    """Return 64 random bits for each index at its places (B, T), or the first so many places, uint64 (B, T)."""
    place_BT = np.arange(places)[None] if isinstance(places, int) else places
    state_B = _mix(index_B.astype(np.uint64) * _GOLDEN + _stream_key(seed, stream))
    steps_BT = (place_BT.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return _mix(state_B[:, None] + steps_BT)


@cache
def _stream_key(seed: int, stream: int) -> UInt64:
    return _mix(_mix(np.array([seed], dtype=np.uint64) + _GOLDEN) ^ np.uint64(stream))


def unit_interval(bits: UInt64) -> Float64:
    """Return random bits as numbers uniform in [0, 1), with 53 bits of precision."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: UInt64) -> UInt64:
    """Return mixed bits, in place, as new memory would take longer than the arithmetic."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value
