"""What a fine-tuning run sees, and when: sample s of a run is a function of (seed, s) alone.

Shape suffixes: N sequences, S samples of the run, B batch, T bases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

from mutbert.windows.randomness import STRAND, random_bits, unit_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.arrays import Int64
    from mutbert.encoders.inputs import Inputs


# So many steps are sorted by length together: enough to leave little padding, and little order.
_STEPS_SORTED: Final = 64
IGNORED: Final = -100


class Targets:
    """The labels of sequences, as a loss takes them.

    Parameters
    ----------
    label : ndarray
        As in `mutbert.examples.table.Examples`: one or several a sequence, or one a base.
    offset_N : ndarray of int64, optional
        Where each sequence's bases begin, for labels of bases.
    """

    def __init__(self, label: npt.NDArray[Any], offset_N: Int64 | None = None) -> None:
        self.label = label
        self.offset_N = offset_N

    def batch(self, rows: Int64, reverse: npt.NDArray[np.bool_], width: int) -> torch.Tensor:
        """Give the labels of a batch: (B,), (B, K), or (B, width) with `IGNORED` at what is no base."""
        if self.offset_N is None:
            return torch.from_numpy(self.label[rows])
        start_B, end_B = self.offset_N[rows], self.offset_N[rows + 1]
        place_BL = np.arange(width - 2)[None]
        source_BL = np.where(reverse[:, None], end_B[:, None] - 1 - place_BL, start_B[:, None] + place_BL)
        inside_BL = place_BL < (end_B - start_B)[:, None]
        label_BL = np.full((len(rows), width), IGNORED, dtype=np.int64)
        label_BL[:, 1:-1] = np.where(inside_BL, self.label[np.where(inside_BL, source_BL, 0)], IGNORED)
        return torch.from_numpy(label_BL)


class TrainingSamples(Dataset[Any]):
    """The samples of a whole run, in the order in which they are trained on.

    Parameters
    ----------
    inputs : Inputs
        The sequences.
    targets : Targets
        Their labels.
    steps, batch_size : int
        Steps of the run, and sequences of each. Where sequences differ in length, those of a step are similar.
    seed : int
        What order and strands depend on.
    reverse_complement : bool
        Read half of the samples on the other strand.
    """

    def __init__(
        self, inputs: Inputs, targets: Targets, *, steps: int, batch_size: int, seed: int, reverse_complement: bool
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self.row_S = sample_order(inputs.length_N, steps, batch_size, seed)
        self.reverse_S = np.zeros(len(self.row_S), dtype=np.bool_)
        if reverse_complement:
            bits = random_bits(seed, STRAND, np.arange(len(self.row_S)), 1)[:, 0]
            self.reverse_S = unit_interval(bits) < 0.5

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.row_S)

    def __getitem__(self, sample: int) -> dict[str, torch.Tensor]:
        """Give one sample, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        """Give a batch; torch's loader calls this instead of asking for samples one by one."""
        index = np.asarray(samples, dtype=np.int64)
        rows, reverse = self.row_S[index], self.reverse_S[index]
        batch = self._inputs.batch(rows, reverse)
        width = next(iter(batch.values())).shape[1]
        return {**batch, "labels": self._targets.batch(rows, reverse, width)}

    def tokens(self) -> int:
        """Count the tokens of the run, padding not counted."""
        return int(self._inputs.length_N[self.row_S].sum())


def sample_order(length_N: Int64, steps: int, batch_size: int, seed: int) -> Int64:
    """Say which sequence each sample of a run is.

    Parameters
    ----------
    length_N : ndarray of int64, shape (N,)
        Tokens of each sequence.
    steps, batch_size : int
        Steps of the run, and sequences of each.
    seed : int
        What the order depends on.

    Returns
    -------
    ndarray of int64, shape (steps * batch_size,)
        One shuffled pass over all sequences after the other.
    """
    count, total = len(length_N), steps * batch_size
    row_S = np.concatenate(
        [np.random.default_rng([seed, epoch]).permutation(count) for epoch in range(-(-total // count))]
    )[:total]
    if (length_N != length_N[0]).any():
        for number, first in enumerate(range(0, total, batch_size * _STEPS_SORTED)):
            part = row_S[first : first + batch_size * _STEPS_SORTED]
            by_length = part[np.argsort(length_N[part], kind="stable")].reshape(-1, batch_size)
            # Steps of short and of long sequences in turn, as chance has it.
            shuffled = np.random.default_rng([seed, number, 1]).permutation(len(by_length))
            row_S[first : first + len(part)] = by_length[shuffled].ravel()
    return row_S.astype(np.int64)
