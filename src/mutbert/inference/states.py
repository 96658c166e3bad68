"""Hidden states of layers, and which of them count, of MutBERT and of models that read tokens.

Shape suffixes: B batch, L tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.encoders.adapter import Scaling
    from mutbert.encoders.inputs import Batch
    from mutbert.model import MutBertModel

    LayerStates = tuple[Sequence[torch.Tensor], torch.Tensor]


class BaseStates:
    """Hidden states of MutBERT, which reads distributions; only those at bases count."""

    def __init__(self, body: MutBertModel) -> None:
        self.body, self.inputs = body, lambda windows: windows

    def states(self, batch: Batch, layers: Sequence[int]) -> LayerStates:
        """Return the states of layers, each (B, L, D), and which of them count, (B, L)."""
        encoder, whole = self.body.encoder, self.body.encoder.layer
        try:
            # Those after the last that is asked for need not run.
            encoder.layer = whole[: max(layers)]
            outputs = self.body(**batch, output_hidden_states=len(layers) > 1)
        finally:
            encoder.layer = whole
        every, last_BLD = outputs.hidden_states, outputs.last_hidden_state
        # Not [CLS], and of the tokens that follow not the last.
        bases_BL = nn.functional.pad(_mask_of(batch)[:, 2:], (1, 1))
        return [last_BLD] if len(layers) == 1 else [every[layer] for layer in layers], bases_BL


class TokenStates:
    """Hidden states of a model that reads tokens; as its paper has it, all count but padding, special ones included."""

    def __init__(self, encoder: AutoEncoder, pooling: str, strands: str, rope_scaling: Scaling) -> None:
        if pooling == "none" and strands == "both":
            raise InputError(f"{encoder.name}: tokens of one strand do not cover the bases that those of the other do; "
                             "give --strands forward for an embedding of each token")  # fmt: skip
        if pooling == "cls" and (not encoder.special_tokens or encoder.tokenizer.cls_token_id is None):
            raise InputError(f"{encoder.name}: has no class token before a sequence; give --pooling mean")
        self.encoder, self.inputs = encoder, encoder.inputs
        # Without pooling, only tokens that stand for bases count.
        names = ("cls", "sep", "eos", "pad") if pooling == "none" else ()
        ids = [getattr(encoder.tokenizer, f"{name}_token_id") for name in names]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._left_out = torch.tensor([one for one in ids if one is not None], dtype=torch.int64, device=device)
        # How long sequences are is known only when they are read, and checked then.
        self.body: Any = encoder.body(0, rope_scaling=rope_scaling).to(device)
        self.most = most_tokens(self.body)

    def states(self, batch: Batch, layers: Sequence[int]) -> LayerStates:
        """Return the states of layers, each (B, L, D), and which of them count, (B, L)."""
        counts_BL = _mask_of(batch) & ~torch.isin(batch["input_ids"], self._left_out)
        return self.encoder.layer_states(self.body, batch, layers), counts_BL


def _mask_of(batch: Batch) -> torch.Tensor:
    """Return which tokens are no padding, (B, L)."""
    tokens = next(iter(batch.values()))
    return batch["attention_mask"].bool() if "attention_mask" in batch else tokens.new_ones(tokens.shape[:2]).bool()
