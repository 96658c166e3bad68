"""A plain convolutional network on single bases, trained from scratch.

Shape suffixes: B batch, L length, C channels, N outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from mutbert import alphabet

if TYPE_CHECKING:
    from torch import Tensor

_CHANNELS: Final = 64
_WIDTHS: Final = (15, 7, 7)


class CnnClassifier(nn.Module):
    """Three normalised convolutions, the maximum and mean over the sequence or each token, and a linear layer."""

    def __init__(self, outputs: int, *, each_token: bool = False) -> None:
        super().__init__()
        channels = [len(alphabet.BASES), *[_CHANNELS] * len(_WIDTHS)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, width, padding=width // 2)
            for before, after, width in zip(channels, channels[1:], _WIDTHS, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(_CHANNELS) for _ in _WIDTHS)
        self.dropout = nn.Dropout(0.1)
        self.each_token = each_token
        self.classifier = nn.Linear(_CHANNELS if each_token else 2 * _CHANNELS, outputs)

    def forward(
        self, input_ids: Tensor | None = None, input_probs: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return ``logits``, (B, N) or (B, L, N), of token ids, (B, L), or distributions over tokens, (B, L, 9)."""
        if input_probs is None:
            assert input_ids is not None
            input_probs = nn.functional.one_hot(input_ids, alphabet.VOCABULARY_SIZE).to(self.classifier.weight.dtype)
        # Tokens other than bases, padding included, are zeros.
        x_BCL = input_probs[..., alphabet.BASE_IDS].transpose(1, 2)
        keep_BL = torch.ones_like(x_BCL[:, 0]) if attention_mask is None else attention_mask.to(x_BCL.dtype)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Normalised at each position, so that padding does not count.
            step_BCL = norm(convolution(x_BCL).transpose(1, 2)).transpose(1, 2)
            step_BCL = nn.functional.gelu(step_BCL) * keep_BL[:, None]
            x_BCL = x_BCL + step_BCL if x_BCL.shape == step_BCL.shape else step_BCL
        if self.each_token:
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(x_BCL.transpose(1, 2))))
        mean_BC = x_BCL.sum(dim=2) / keep_BL.sum(dim=1, keepdim=True)
        most_BC = x_BCL.masked_fill(keep_BL[:, None] == 0, -torch.inf).amax(dim=2)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(torch.cat([mean_BC, most_BC], dim=1))))
