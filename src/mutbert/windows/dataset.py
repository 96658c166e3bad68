"""A torch Dataset of masked windows in compact batches, which are expanded on the model's device.

Shape suffixes: B windows, L positions without ``[CLS]`` and ``[SEP]``, P = L + 2 with them, T targets of a window,
N positions of the batch that vary, V tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from mutbert import alphabet
from mutbert.arrays import Int64
from mutbert.errors import InputError
from mutbert.genome.store import fixed_to_float
from mutbert.windows.masking import KEPT, Masking, Tempering, Weighting, choose_targets, corrupt, temper
from mutbert.windows.randomness import CORRUPTION, TARGETS, random_bits
from mutbert.windows.sampler import WindowSampler

Batch = dict[str, torch.Tensor]


@dataclass(eq=False)
class WindowDataset(Dataset[Any]):
    """Masked windows for pre-training; item i is a pure function of (the sampler's seed, i).

    A batch is compact, some 800 bytes for a window of 510 bases in place of 22,000; `expand_batch` expands it. It holds

    - ``base_codes`` uint8 (B, L): the reference, as base codes;
    - ``variant_places`` int32 (N,): the positions that vary, ``row * L + column``;
    - ``variant_frequencies`` float32 (N, 4): their tempered frequencies, or (0, 4) where the model sees the reference;
    - ``target_places`` int16 (B, T): the targets' columns, ascending; int32 in windows above 2**15;
    - ``target_inputs`` uint8 (B, T): the token that the model sees there, or `KEPT`;
    - ``target_weights`` float32 (B, T): weights of the targets in the loss, where they differ.
    """

    sampler: WindowSampler
    masking: Masking
    tempering: Tempering
    size: int
    _: KW_ONLY
    steps: int = 1  # of training, that the windows are divided among in order
    frequencies: Literal["population", "reference"] = "population"
    weighting: Weighting = field(default_factory=Weighting)

    def __post_init__(self) -> None:
        if self.weighting.soft_masked != 1 and not any(part.genome.has_soft_mask for part in self.sampler.parts):
            raise InputError("weighting.soft_masked is set, but the genome has no soft-masked bases; leave it at 1")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Batch:
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the windows with these indices, tempered and masked."""
        seed, length, index_B = self.sampler.seed, self.sampler.length, np.asarray(indices, dtype=np.int64)
        windows = self.sampler.read(places := self.sampler.places(index_B))
        variant_N = windows.row_N * length + windows.column_N
        variant_BL = np.zeros(windows.base_BL.shape, dtype=np.bool_)
        variant_BL.ravel()[variant_N] = True
        bits_BD = random_bits(seed, TARGETS, index_B, self.masking.draws(length))
        target_BT = choose_targets(variant_BL, bits_BD, self._masking(index_B))
        input_BT = corrupt(random_bits(seed, CORRUPTION, index_B, target_BT), self.masking)
        shown_N4 = windows.frequency_N4[: None if self.frequencies == "population" else 0]
        batch = {
            "base_codes": windows.base_BL,
            "variant_places": variant_N.astype(np.int32),
            "variant_frequencies": temper(fixed_to_float(shown_N4), self.tempering),
            "target_places": target_BT.astype(np.int16 if length <= 1 << 15 else np.int32),
            "target_inputs": input_BT,
        }
        if self.weighting != Weighting():
            row_B1, soft_masked_BL = np.arange(len(target_BT))[:, None], self.sampler.soft_masked(places)
            one, variant, soft_masked = map(np.float32, (1, self.weighting.variant, self.weighting.soft_masked))
            weight_BT = np.where(variant_BL[row_B1, target_BT], variant, one)
            batch["target_weights"] = weight_BT * np.where(soft_masked_BL[row_B1, target_BT], soft_masked, one)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}

    # Torch's loader calls this in place of asking for windows one by one; its `collate_fn` can be dict.
    __getitems__ = batch

    def _masking(self, index_B: Int64) -> Masking:
        """Return the masking in the windows' step."""
        if self.masking.final_share is None:
            return self.masking
        step_B = index_B * self.steps // self.size
        assert np.all(step_B == step_B[0]), "a batch is of one step, in which all windows have equally many targets"
        return self.masking.at(float(step_B[0]) / max(self.steps - 1, 1))


class Targets(NamedTuple):
    """Targets of a batch, for an evaluation."""

    place_BT: torch.Tensor  # their positions among the P of the model's input
    frequency_BT4: torch.Tensor  # their distributions over A, C, G, T without corruption
    variant_BT: torch.Tensor  # whether they vary
    alternate_BT: torch.Tensor  # the part of the distribution that is not the reference base


def expand_batch(batch: Mapping[str, torch.Tensor]) -> Batch:
    """Return a dense batch of a compact one of `WindowDataset`, on any device; weights stay as they are.

    ``input_probs`` float32 (B, P, V) are corrupted at the targets, ``labels`` float32 (B, T, V) are their distributions
    without corruption, and ``target_places`` int64 (B, T) their positions among P.
    """
    input_BPV = _distributions(batch)
    place_BT = batch["target_places"].long() + 1
    row_B1 = torch.arange(len(place_BT), device=place_BT.device)[:, None]
    labels_BTV = input_BPV[row_B1, place_BT]
    seen_BT = batch["target_inputs"].long()
    kept_BT = seen_BT == KEPT
    # What is kept has no id; any will do where it is not used.
    seen_BTV = torch.eye(alphabet.VOCABULARY_SIZE, device=seen_BT.device)[seen_BT.masked_fill(kept_BT, 0)]
    input_BPV[row_B1, place_BT] = torch.where(kept_BT[..., None], labels_BTV, seen_BTV)
    weights = {"target_weights": batch["target_weights"]} if "target_weights" in batch else {}
    return {"input_probs": input_BPV, "labels": labels_BTV, "target_places": place_BT, **weights}


def targets_of(batch: Mapping[str, torch.Tensor], labels_BTV: torch.Tensor | None = None) -> Targets:
    """Return the targets of a compact batch; `labels_BTV` are those of `expand_batch`, where at hand."""
    codes_BL = batch["base_codes"].long()
    place_BT = batch["target_places"].long() + 1
    row_B1 = torch.arange(len(place_BT), device=place_BT.device)[:, None]
    labels_BTV = _distributions(batch)[row_B1, place_BT] if labels_BTV is None else labels_BTV
    frequency_BT4 = labels_BTV[..., alphabet.BASE_IDS]
    variant_BL = torch.zeros(codes_BL.shape, dtype=torch.bool, device=codes_BL.device)
    variant_BL.view(-1)[batch["variant_places"].long()] = True
    reference_BT4 = torch.tensor(alphabet.DISTRIBUTIONS, device=codes_BL.device)[codes_BL[row_B1, place_BT - 1]]
    alternate_BT = 1 - (reference_BT4 * frequency_BT4).sum(-1)
    return Targets(place_BT, frequency_BT4, variant_BL[row_B1, place_BT - 1], alternate_BT)


def _distributions(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return each position's distribution over the tokens, float32 (B, P, V)."""
    codes_BL = batch["base_codes"].long()
    count, length = codes_BL.shape
    probs_BPV = torch.zeros(count, length + 2, alphabet.VOCABULARY_SIZE, device=codes_BL.device)
    probs_BPV[:, 0, alphabet.CLS_ID] = 1
    probs_BPV[:, -1, alphabet.SEP_ID] = 1
    probs_BPV[:, 1:-1] = torch.tensor(alphabet.TOKEN_PROBABILITIES, device=codes_BL.device)[codes_BL]
    place_N = batch["variant_places"][: len(batch["variant_frequencies"])].long()
    # Each window has two positions more here.
    flat_QV = probs_BPV.view(-1, alphabet.VOCABULARY_SIZE)
    flat_QV[place_N + 2 * (place_N // length) + 1, alphabet.BASE_IDS] = batch["variant_frequencies"]
    return probs_BPV
