"""A torch Dataset of masked windows; a whole batch is read, tempered and masked at once, and stays compact.

Shape suffixes: B windows, L positions without ``[CLS]`` and ``[SEP]``, T targets of a window, N variant positions of
the batch.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.store import fixed_to_float
from mutbert.windows.masking import Weighting, choose_targets, corrupt, weigh_targets
from mutbert.windows.randomness import CORRUPTION, TARGETS, random_bits, random_bits_at
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


@dataclass(eq=False)
class WindowDataset(Dataset[Any]):
    """Masked windows for pre-training; item i is a pure function of (the sampler's seed, i).

    A batch is compact, some 800 bytes for a window of 510 bases in place of 22,000, so that a process with its workers
    can feed several accelerators; `mutbert.windows.batches.expand_batch` expands it for the model. It holds

    - ``base_codes`` uint8 (B, L): the reference, as base codes;
    - ``variant_places`` int32 (N,): the positions that vary, ``row * L + column``;
    - ``variant_frequencies`` float32 (N, 4): their tempered frequencies, or (0, 4) where the reference is all that the
      model sees;
    - ``target_places`` int16 (B, T): the targets' columns, ascending;
    - ``target_inputs`` uint8 (B, T): the token that stands there, or `mutbert.windows.masking.KEPT`;
    - ``target_weights`` float32 (B, T): what the targets count in the loss, where that is not the same for all.

    There are `size` windows. Allele frequencies are tempered in inputs and labels alike; with `frequencies` of
    ``reference``, the model sees the reference base alone.
    """

    sampler: WindowSampler
    masking: Masking
    tempering: Tempering
    size: int
    _: KW_ONLY
    frequencies: Literal["population", "reference"] = "population"
    weighting: Weighting = field(default_factory=Weighting)

    def __post_init__(self) -> None:
        if self.weighting.soft_masked != 1 and not self.sampler.has_soft_mask:
            raise InputError(
                "weighting.soft_masked is set, but the genome has no soft-masked bases; build it from a FASTA with "
                "repeats in lower case, or leave weighting.soft_masked at 1"
            )

    def __len__(self) -> int:
        """Return the number of windows."""
        return self.size

    def __getitem__(self, index: int) -> Batch:
        """Return one window, as a batch of one."""
        return self.batch([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch; torch's loader calls this instead of asking for windows one by one."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the windows with these indices, tempered and masked."""
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
            kinds = (variant_BL, self.sampler.soft_masked(places))
            is_BT = [np.take_along_axis(is_BL, target_BT.astype(np.int64), axis=1) for is_BL in kinds]
            batch["target_weights"] = weigh_targets(is_BT[0], is_BT[1], self.weighting)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def whole_batch(batch: Batch) -> Batch:
    """Return the batch as it is: the dataset collates."""
    return batch
