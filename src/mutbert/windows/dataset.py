"""A torch Dataset of masked windows; a whole batch is read, tempered and masked at once, and stays compact.

Shape suffixes: B windows, L positions without ``[CLS]`` and ``[SEP]``, T targets of a window, N variant positions of
the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.store import fixed_to_float
from mutbert.windows.masking import choose_targets, corrupt
from mutbert.windows.randomness import CORRUPTION, TARGETS, random_bits, random_bits_at
from mutbert.windows.tempering import temper
from mutbert.windows.weighting import Weighting, weigh_targets

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

Frequencies = Literal["population", "reference"]


class WindowDataset(Dataset[Any]):
    """Masked windows for pre-training; item i is a pure function of (the sampler's seed, i).

    A batch is compact, some 800 bytes for a window of 510 bases in place of 22,000, so that a process with its workers
    can feed several accelerators; `mutbert.windows.batches.expand_batch` makes of it what the model takes. It holds

    - ``base_codes`` uint8 (B, L): the reference, as base codes;
    - ``variant_places`` int32 (N,): the positions that vary, ``row * L + column``;
    - ``variant_frequencies`` float32 (N, 4): their tempered frequencies, or (0, 4) where the reference is all that the
      model sees;
    - ``target_places`` int16 (B, T): the targets' columns, ascending;
    - ``target_inputs`` uint8 (B, T): the token that stands there, or `mutbert.windows.masking.KEPT`;
    - ``target_weights`` float32 (B, T): what the targets count in the loss, where that is not the same for all.

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
    frequencies : {"population", "reference"}
        Whether positions that vary are the population's distribution, or the reference base alone.
    weighting : Weighting
        What targets count in the loss.

    Raises
    ------
    InputError
        When soft-masked positions are to be weighted and the genome has none.
    """

    def __init__(
        self,
        sampler: WindowSampler,
        masking: Masking,
        tempering: Tempering,
        size: int,
        *,
        frequencies: Frequencies = "population",
        weighting: Weighting | None = None,
    ) -> None:
        self.sampler = sampler
        self.masking = masking
        self.tempering = tempering
        self.size = size
        self.frequencies = frequencies
        self.weighting = weighting or Weighting()
        if self.weighting.soft_masked != 1 and not sampler.has_soft_mask:
            raise InputError(
                "weighting.soft_masked is set, but the genome has no soft-masked bases; build it from a FASTA with "
                "repeats in lower case, or leave weighting.soft_masked at 1"
            )

    def __len__(self) -> int:
        """Count the windows."""
        return self.size

    def __getitem__(self, index: int) -> Batch:
        """Give one window, as a batch of one."""
        return self.batch([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Give a batch; torch's loader calls this instead of asking for windows one by one."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read, temper and mask the windows with these indices."""
        index_B = np.asarray(indices, dtype=np.int64)
        seed = self.sampler.seed
        places = self.sampler.places(index_B)
        windows = self.sampler.read(places)
        length = self.sampler.length
        variant_N = windows.row_N * length + windows.column_N

        variant_BL = np.zeros(windows.base_BL.shape, dtype=np.bool_)
        variant_BL.ravel()[variant_N] = True
        bits_BD = random_bits(seed, TARGETS, index_B, self.masking.draws(length))
        target_BT = choose_targets(variant_BL, bits_BD, self.masking)
        input_BT = corrupt(random_bits_at(seed, CORRUPTION, index_B, target_BT), self.masking)

        frequency_N4 = np.empty((0, 4), dtype=np.float32)
        if self.frequencies == "population":
            frequency_N4 = temper(fixed_to_float(windows.frequency_N4), self.tempering)
        batch = {
            "base_codes": windows.base_BL,
            "variant_places": variant_N.astype(np.int32),
            "variant_frequencies": frequency_N4,
            "target_places": target_BT.astype(np.int16) if length <= 1 << 15 else target_BT.astype(np.int32),
            "target_inputs": input_BT,
        }
        if not self.weighting.is_even:
            column_BT = target_BT.astype(np.int64)
            soft_masked_BL = np.zeros_like(variant_BL)
            if self.weighting.soft_masked != 1:
                soft_masked_BL = self.sampler.soft_masked(places)
            batch["target_weights"] = weigh_targets(
                np.take_along_axis(variant_BL, column_BT, axis=1),
                np.take_along_axis(soft_masked_BL, column_BT, axis=1),
                self.weighting,
            )
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def whole_batch(batch: Batch) -> Batch:
    """Collate nothing: the dataset has given a whole batch already."""
    return batch
