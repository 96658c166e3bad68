"""A torch Dataset of masked windows; a whole batch is read, tempered and masked at once.

Shape suffixes: B windows, L positions with ``[CLS]`` and ``[SEP]``, V tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mutbert import alphabet
from mutbert.errors import MissingExtraError
from mutbert.genome.store import fixed_to_float
from mutbert.windows.masking import choose_targets, corrupt
from mutbert.windows.randomness import CORRUPTION, TARGETS, random_bits
from mutbert.windows.tempering import temper

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise MissingExtraError("torch", "train") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.windows.masking import Masking
    from mutbert.windows.sampler import WindowSampler
    from mutbert.windows.tempering import Tempering

    Batch = dict[str, torch.Tensor]


class WindowDataset(Dataset[Any]):
    """Masked windows for pre-training; item i is a pure function of (the sampler's seed, i).

    A batch holds

    - ``input_probs`` float32 (B, L, V): ``[CLS]``, the window's distributions, ``[SEP]``, corrupted at the targets;
    - ``labels`` float32 (B, L, V): the same without corruption;
    - ``target_mask`` bool (B, L): the targets;
    - ``variant_mask`` bool (B, L): the positions that vary.

    Parameters
    ----------
    sampler : WindowSampler
        Where windows come from.
    masking : Masking
        How targets are chosen and corrupted.
    tempering : Tempering
        How allele frequencies are tempered, in inputs and labels alike.
    size : int
        Windows, with the indices 0 to size - 1.
    """

    def __init__(self, sampler: WindowSampler, masking: Masking, tempering: Tempering, size: int) -> None:
        self.sampler = sampler
        self.masking = masking
        self.tempering = tempering
        self.size = size

    def __len__(self) -> int:
        """Count the windows."""
        return self.size

    def __getitem__(self, index: int) -> Batch:
        """Give one window, as a batch of one without its first dimension."""
        return {name: tensor[0] for name, tensor in self.batch([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Give a batch; torch's loader calls this instead of asking for windows one by one."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read, temper and mask the windows with these indices."""
        index_B = np.asarray(indices, dtype=np.int64)
        windows = self.sampler.read(index_B)
        count, length = windows.base_BL.shape
        bases = slice(1, length + 1)

        labels_BLV = np.zeros((count, length + 2, alphabet.VOCABULARY_SIZE), dtype=np.float32)
        labels_BLV[:, 0, alphabet.CLS_ID] = 1
        labels_BLV[:, -1, alphabet.SEP_ID] = 1
        labels_BLV[:, bases] = alphabet.TOKEN_PROBABILITIES[windows.base_BL]
        frequency_N4 = temper(fixed_to_float(windows.frequency_N4), self.tempering)
        labels_BLV[windows.row_N, windows.column_N + 1, alphabet.BASE_IDS] = frequency_N4

        variant_BL = np.zeros((count, length + 2), dtype=np.bool_)
        variant_BL[windows.row_N, windows.column_N + 1] = True
        target_BL = np.zeros_like(variant_BL)
        seed = self.sampler.seed
        target_BL[:, bases] = choose_targets(
            variant_BL[:, bases], random_bits(seed, TARGETS, index_B, length), self.masking
        )
        corruption = corrupt(target_BL[:, bases], random_bits(seed, CORRUPTION, index_B, length), self.masking)

        input_BLV = labels_BLV.copy()
        window_BLV = input_BLV[:, bases]
        mask_token = np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)[alphabet.MASK_ID]
        window_BLV[corruption.masked_BL] = mask_token
        window_BLV[corruption.random_BL] = alphabet.TOKEN_PROBABILITIES[corruption.base_BL[corruption.random_BL]]
        return {
            "input_probs": torch.from_numpy(input_BLV),
            "labels": torch.from_numpy(labels_BLV),
            "target_mask": torch.from_numpy(target_BL),
            "variant_mask": torch.from_numpy(variant_BL),
        }


def whole_batch(batch: Batch) -> Batch:
    """Collate nothing: the dataset has given a whole batch already."""
    return batch
