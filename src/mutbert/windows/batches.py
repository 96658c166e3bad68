"""From a compact batch to what the model takes, on the device where the model is.

Shape suffixes: B windows, L positions without ``[CLS]`` and ``[SEP]``, P = L + 2 with them, T targets of a window,
V tokens.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from mutbert import alphabet
from mutbert.errors import MissingExtraError
from mutbert.windows.masking import KEPT

try:
    import torch
except ImportError as error:
    raise MissingExtraError("torch", "train") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Targets(NamedTuple):
    """What is at the targets, for an evaluation.

    Their positions among the P of the model's input, their distributions over A, C, G, T without corruption, whether
    they vary, and the part of the distribution that is not the reference base.
    """

    place_BT: Tensor
    frequency_BT4: Tensor
    variant_BT: Tensor
    alternate_BT: Tensor


def expand_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a dense batch of a compact one, as `mutbert.windows.dataset.WindowDataset` has it, on any device.

    ``input_probs`` float32 (B, P, V): ``[CLS]``, the window's distributions, ``[SEP]``, corrupted at the targets;
    ``target_places`` int64 (B, T): the targets' positions among P; ``labels`` float32 (B, T, V): their distributions
    without corruption; where there are weights, ``target_weights`` float32 (B, T).
    """
    input_BPV = _distributions(batch)
    row_B1, place_BT = _target_index(batch)
    labels_BTV = input_BPV[row_B1, place_BT]

    seen_BT = batch["target_inputs"].long()
    kept_BT1 = (seen_BT == KEPT)[..., None]
    # What is kept has an id that is none; any will do where it is not used.
    seen_BTV = torch.eye(alphabet.VOCABULARY_SIZE, device=seen_BT.device)[seen_BT.masked_fill(kept_BT1[..., 0], 0)]
    input_BPV[row_B1, place_BT] = torch.where(kept_BT1, labels_BTV, seen_BTV)
    dense = {"input_probs": input_BPV, "labels": labels_BTV, "target_places": place_BT}
    return dense | {name: batch[name] for name in ("target_weights",) if name in batch}


def targets_of(batch: Mapping[str, Tensor], labels_BTV: Tensor | None = None) -> Targets:
    """Return what is at the targets of a compact batch; `labels_BTV` are those of `expand_batch`, where at hand."""
    codes_BL = batch["base_codes"].long()
    row_B1, place_BT = _target_index(batch)
    labels_BTV = _distributions(batch)[row_B1, place_BT] if labels_BTV is None else labels_BTV
    frequency_BT4 = labels_BTV[..., alphabet.BASE_IDS]
    variant_BL = torch.zeros(codes_BL.shape, dtype=torch.bool, device=codes_BL.device)
    variant_BL.view(-1)[batch["variant_places"].long()] = True
    reference_BT4 = _table(codes_BL.device)[codes_BL[row_B1, place_BT - 1]][..., alphabet.BASE_IDS]
    return Targets(
        place_BT,
        frequency_BT4,
        variant_BL[row_B1, place_BT - 1],
        1 - (reference_BT4 * frequency_BT4).sum(-1),
    )


def _distributions(batch: Mapping[str, Tensor]) -> Tensor:
    """Return each position's distribution over the tokens, float32 (B, P, V)."""
    codes_BL = batch["base_codes"].long()
    count, length = codes_BL.shape
    probs_BPV = torch.zeros(count, length + 2, alphabet.VOCABULARY_SIZE, device=codes_BL.device)
    probs_BPV[:, 0, alphabet.CLS_ID] = 1
    probs_BPV[:, -1, alphabet.SEP_ID] = 1
    probs_BPV[:, 1:-1] = _table(codes_BL.device)[codes_BL]
    frequency_N4 = batch["variant_frequencies"]
    if len(frequency_N4):
        place_N = batch["variant_places"].long()
        row_N = place_N // length
        # Each window has two positions more here.
        flat_QV = probs_BPV.view(-1, alphabet.VOCABULARY_SIZE)
        flat_QV[place_N + 2 * row_N + 1, alphabet.BASE_IDS] = frequency_N4
    return probs_BPV


def _target_index(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    place_BT = batch["target_places"].long() + 1
    return torch.arange(len(place_BT), device=place_BT.device)[:, None], place_BT


@cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(alphabet.TOKEN_PROBABILITIES.copy()).to(device)
