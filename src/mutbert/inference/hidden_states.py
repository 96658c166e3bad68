"""Hidden states of any layers of a model, and which of its tokens an embedding is pooled over.

Shape suffixes: B batch, L tokens, D hidden size.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.inputs import Sequences
from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.opening import check_length, open_model
from mutbert.inference.run import batch_of
from mutbert.model import MutBertModel, MutBertPreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.arrays import Int64
    from mutbert.encoders.inputs import TokenInputs
    from mutbert.inference.run import PaddedWindows
    from mutbert.inference.sequences import Record, Source

    LayerStates = tuple[Sequence[torch.Tensor], torch.Tensor]


class BaseStates:
    """Hidden states of MutBERT, which reads distributions; only those at bases count."""

    def __init__(self, body: MutBertModel) -> None:
        self.body = body

    def inputs(self, windows: PaddedWindows) -> PaddedWindows:
        """Return the windows as they are."""
        return windows

    def check(self, record: Record, _: Source) -> None:
        """Raise where a record is longer than the model takes."""
        check_length(self.body.config, record.length, record.name)

    def states(self, inputs: PaddedWindows, rows: Int64, layers: Sequence[int], *, reverse: bool) -> LayerStates:
        """Return the states of layers, each (B, L, D) in the order of the forward strand; and which count, (B, L)."""
        batch = inputs.take(rows)
        probs_BLV, mask_BL = (batch.reverse_complement() if reverse else batch).tokens(self.body.device)
        with _truncated(self.body, max(layers)):
            outputs = self.body(input_probs=probs_BLV, attention_mask=mask_BL, output_hidden_states=len(layers) > 1)
        every = outputs.hidden_states
        found = [outputs.last_hidden_state] if len(layers) == 1 else [every[layer] for layer in layers]
        column_L = torch.arange(probs_BLV.shape[1], device=probs_BLV.device)
        length_B1 = torch.from_numpy(batch.length_N).to(probs_BLV.device)[:, None]
        base_BL = (column_L > 0) & (column_L <= length_B1)
        if reverse:
            place_BL = torch.where(base_BL, length_B1 + 1 - column_L, column_L)
            found = [state_BLD.gather(1, place_BL[..., None].expand_as(state_BLD)) for state_BLD in found]
        return found, base_BL


class TokenStates:
    """Hidden states of a model that reads tokens; as its paper has it, all count but padding, special ones included."""

    def __init__(self, encoder: AutoEncoder, pooling: str, strands: str) -> None:
        if pooling == "none" and strands == "both":
            raise InputError(f"{encoder.name}: tokens of one strand do not cover the bases that those of the other do; "
                             "give --strands forward for an embedding of each token")  # fmt: skip
        if pooling == "cls" and (not encoder.special_tokens or encoder.tokenizer.cls_token_id is None):
            raise InputError(f"{encoder.name}: has no class token before a sequence; give --pooling mean")
        self._encoder = encoder
        # Without pooling, only tokens that stand for bases count.
        names = ("cls", "sep", "eos", "pad") if pooling == "none" else ()
        self._left_out = [getattr(encoder.tokenizer, f"{name}_token_id") for name in names]
        # How long sequences are is known only when they are read, and checked then.
        self.body: Any = encoder.body(0).to("cuda" if torch.cuda.is_available() else "cpu")
        self._most = most_tokens(self.body)

    def inputs(self, windows: PaddedWindows) -> TokenInputs:
        """Return the tokens of windows."""
        codes = windows.code_NL[windows.inside_NL]
        return self._encoder.inputs(Sequences(codes, np.append(0, np.cumsum(windows.length_N))))

    def check(self, record: Record, source: Source) -> None:
        """Raise where a record has more tokens than the model has positions."""
        # No token is less than a base, but for special ones at either end.
        if self._most is None or record.length <= self._most - 2:
            return
        if (found := int(self.inputs(source.windows([record])).length_N[0])) > self._most:
            raise InputError(f"{record.name}: {record.length:,} bases are {found:,} tokens, and {self._encoder.name} "
                             f"has positions for {self._most:,}; give shorter sequences")  # fmt: skip

    def states(self, inputs: TokenInputs, rows: Int64, layers: Sequence[int], *, reverse: bool) -> LayerStates:
        """Return the states of layers, each (B, L, D); and which count, (B, L)."""
        batch = batch_of(inputs, rows, self.body, reverse=reverse)
        counts_BL = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        for number in self._left_out:
            if number is not None:
                counts_BL = counts_BL & (batch["input_ids"] != number)
        return self._encoder.layer_states(self.body, batch, layers), counts_BL


def open_states(
    model: str | Path | MutBertPreTrainedModel, pooling: str, strands: str, *, trust_remote_code: bool
) -> BaseStates | TokenStates:
    """Open MutBERT or another model."""
    if isinstance(model, MutBertPreTrainedModel):
        return BaseStates(model.base_model)
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    if encoder.family == CNN:
        raise InputError(f"{model}: has no weights before it is trained, so nothing can be embedded by it")
    if isinstance(encoder, AutoEncoder):
        return TokenStates(encoder, pooling, strands)
    # Its pooler is not used, so it need not have one.
    return BaseStates(open_model(model, MutBertModel, pooler_type="mean"))


@contextmanager
def _truncated(body: MutBertModel, depth: int) -> Iterator[None]:
    """Leave out the layers after so many, for the length of the block."""
    layers = body.encoder.layer
    try:
        body.encoder.layer = nn.ModuleList(list(layers)[:depth])
        yield
    finally:
        body.encoder.layer = layers
