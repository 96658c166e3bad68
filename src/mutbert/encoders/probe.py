"""A linear probe kept with the model that it reads, so that the two predict together.

The folder is the model's own checkpoint and ``probe.safetensors``, with ``weight`` (K, D) and
``bias`` (K,). Shape suffixes: B batch, L tokens, D features, K outputs.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mutbert.errors import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    HiddenStates = Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor]

PROBE: Final = "probe.safetensors"


class ProbedClassifier(nn.Module):
    """A frozen model of transformers with a linear layer on the mean of its hidden states over all tokens."""

    def __init__(self, body: Any, hidden_states: HiddenStates, weight_KD: torch.Tensor, bias_K: torch.Tensor) -> None:
        super().__init__()
        self.body = body
        self.weight, self.bias = nn.Buffer(weight_KD), nn.Buffer(bias_K)
        self._hidden_states = hidden_states

    @property
    def config(self) -> Any:
        """The body's configuration, which says what the outputs mean."""
        return self.body.config

    def forward(self, **batch: torch.Tensor) -> SimpleNamespace:
        """Return ``logits``, (B, K)."""
        mean_BD = mean_over_tokens(self._hidden_states(self.body, batch), batch)
        return SimpleNamespace(logits=nn.functional.linear(mean_BD, self.weight, self.bias))

    def save_pretrained(self, folder: Path) -> None:
        """Write the body and the probe."""
        self.body.save_pretrained(folder)
        save_file({"weight": self.weight.cpu().contiguous(), "bias": self.bias.cpu()}, folder / PROBE)

    @classmethod
    def read(cls, folder: Path, body: Any, hidden_states: HiddenStates) -> ProbedClassifier:
        """Return the probe of a folder whose body is loaded."""
        try:
            parts = load_file(folder / PROBE)
            return cls(body, hidden_states, parts["weight"], parts["bias"]).eval()
        except (OSError, KeyError, SafetensorError) as error:
            message = f"{folder / PROBE}: cannot be read ({one_line(error)}); fine-tune the model again"
            raise InputError(message) from None


def mean_over_tokens(states_BLD: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean over all tokens but padding, special ones included, as published: float32 (B, D)."""
    states_BLD = states_BLD.float()
    mask_BL = batch.get("attention_mask")
    if mask_BL is None:
        return states_BLD.mean(dim=1)
    return (states_BLD * mask_BL[..., None]).sum(dim=1) / mask_BL.sum(dim=1, keepdim=True)
