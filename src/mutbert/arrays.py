"""Names of array types, and the one operation on ranges that every room needs."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bool: TypeAlias = npt.NDArray[np.bool_]
UInt8: TypeAlias = npt.NDArray[np.uint8]
UInt16: TypeAlias = npt.NDArray[np.uint16]
UInt32: TypeAlias = npt.NDArray[np.uint32]
UInt64: TypeAlias = npt.NDArray[np.uint64]
Int64: TypeAlias = npt.NDArray[np.int64]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]


def list_ranges(first_B: Int64, last_B: Int64) -> tuple[Int64, Int64]:
    """Return the range that each member of half-open ranges belongs to, and the member itself, shape (N,) each."""
    count_B = last_B - first_B
    row_N = np.repeat(np.arange(len(count_B)), count_B)
    before_B = np.cumsum(count_B) - count_B
    return row_N, np.arange(len(row_N)) - before_B[row_N] + first_B[row_N]
