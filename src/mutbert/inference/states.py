"""Hidden states of layers, and which of them count, of MutBERT and of models that read tokens; and their pooling.

Shape suffixes: B batch, X vectors (one a record, or one a token), K layers, L tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference import run
from mutbert.model import MutBertModel, MutBertPreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutbert.encoders.adapter import Scaling
    from mutbert.encoders.inputs import Batch

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


def open_states(
    model: str | Path | MutBertPreTrainedModel, pooling: str, strands: str, rope_scaling: Mapping[str, Any] | None, *,
    trust_remote_code: bool,
) -> BaseStates | TokenStates:  # fmt: skip
    """Return MutBERT or another model."""
    if pooling not in {"mean", "max", "cls", "none"}:
        raise InputError(f"pooling is {pooling!r}; it must be mean, max, cls or none")
    if isinstance(model, MutBertPreTrainedModel):
        return BaseStates(model.base_model)
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    if encoder.family == CNN:
        raise InputError(f"{model}: has no weights before it is trained, so nothing can be embedded by it")
    if isinstance(encoder, AutoEncoder):
        return TokenStates(encoder, pooling, strands, rope_scaling)
    # Its pooler is not used, so it need not have one.
    return BaseStates(run.open_model(model, MutBertModel, pooler_type="mean"))


def resolve_layers(layers: int | str | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the numbers, from 0, of the layers that are asked for, of a model that has so many."""
    asked: Any = range(count + 1) if layers == "all" else (layers,) if isinstance(layers, int) else layers
    found = [] if isinstance(asked, str) else [one % (count + 1) for one in asked if -count - 1 <= one <= count]
    if not found or len(set(found)) < len(asked):
        raise InputError(f"layers is {layers!r}; the model has {count} layers: give numbers from 0 (the embedding "
                         f"layer) to {count}, or from -1 (the last) to {-count - 1}, each once; or all")  # fmt: skip
    return tuple(found)


def pool(states: Sequence[torch.Tensor], counts_BL: torch.Tensor, pooling: str, *, reverse: bool) -> list[torch.Tensor]:
    """Return the vectors of states, (X, K, D), and how many each sequence has, (B,)."""
    count_B, out_BL1 = counts_BL.sum(dim=1), ~counts_BL[..., None]
    if pooling == "none":
        # Of the other strand the last base comes first.
        order = [1] if reverse else []
        return [torch.stack([one.flip(order)[counts_BL.flip(order)] for one in states], dim=1), count_B]
    if pooling == "cls":
        found = [state_BLD[:, 0] for state_BLD in states]
    elif pooling == "max":
        found = [state_BLD.float().masked_fill(out_BL1, -torch.inf).amax(dim=1) for state_BLD in states]
    else:
        found = [state_BLD.float().masked_fill(out_BL1, 0).sum(dim=1) / count_B[:, None] for state_BLD in states]
    return [torch.stack(found, dim=1), torch.ones_like(count_B)]


def _mask_of(batch: Batch) -> torch.Tensor:
    """Return which tokens are no padding, (B, L)."""
    tokens = next(iter(batch.values()))
    return batch["attention_mask"].bool() if "attention_mask" in batch else tokens.new_ones(tokens.shape[:2]).bool()
