"""How much each target counts in the loss.

Shape suffixes: B windows, T targets of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from mutbert.arrays import Bool


@dataclass(frozen=True)
class Weighting:
    """Weights of targets in the loss, which is the sum of weight times cross-entropy over the *number* of targets.

    It is not divided by the sum of weights: a window that lies in repeats is to count less as a whole, and the loss of
    a batch is to be the mean of its parts' losses, however it is divided among processes.

    Parameters
    ----------
    variant : float
        Weight of a target that varies.
    soft_masked : float
        Weight of a target that is lower case in the FASTA, as repeats are; multiplied with `variant` where both hold.
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


def weigh_targets(variant_BT: Bool, soft_masked_BT: Bool, weighting: Weighting) -> npt.NDArray[np.float32]:
    """Give each target its weight.

    Parameters
    ----------
    variant_BT, soft_masked_BT : ndarray of bool, shape (B, T)
        What the targets are.
    weighting : Weighting
        What that is worth.

    Returns
    -------
    ndarray of float32, shape (B, T)
    """
    by_variant = np.array([1, weighting.variant], dtype=np.float32)
    by_soft_mask = np.array([1, weighting.soft_masked], dtype=np.float32)
    weight_BT: npt.NDArray[np.float32] = by_variant[variant_BT.astype(np.intp)]
    weight_BT *= by_soft_mask[soft_masked_BT.astype(np.intp)]
    return weight_BT
