"""Nucleotide Transformers (Dalla-Torre et al. 2023, doi 10.1101/2023.01.11.523679) over transformers' ESM.

The first version is ESM as it is. The second has gated feed-forward blocks without biases and rotary positions; all
else is ESM's, and modules have the names of the published checkpoints.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import EsmConfig, EsmForMaskedLM, EsmForSequenceClassification, EsmModel
from transformers.models.esm.modeling_esm import EsmEmbeddings, EsmPreTrainedModel


class NtV2Config(EsmConfig):
    """Configuration of the second version; `add_bias_fnn` is false in every published one."""

    model_type = "nt_v2"


class _Nt(EsmPreTrainedModel):
    """Replaces what Nucleotide Transformers have otherwise than ESM."""

    def __init__(self, config: EsmConfig, **settings: Any) -> None:
        super().__init__(config, **settings)
        model: EsmModel = self.base_model
        model.embeddings = NtEmbeddings(config)
        for layer in model.encoder.layer if isinstance(config, NtV2Config) else ():
            layer.intermediate = GatedIntermediate(config)
            layer.output.dense = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.post_init()


class NtModel(_Nt, EsmModel):
    """The encoder, without a pooler, which no Nucleotide Transformer has."""

    def __init__(self, config: EsmConfig) -> None:
        super().__init__(config, add_pooling_layer=False)


class NtForMaskedLM(_Nt, EsmForMaskedLM):
    """The masked language model."""

    def logits(self, states: Tensor) -> Tensor:
        """Return logits of any hidden states, (..., V)."""
        logits: Tensor = self.lm_head(states)
        return logits


class NtForSequenceClassification(_Nt, EsmForSequenceClassification):
    """The classifier: dense, tanh and a linear layer on the first token."""


class NtEmbeddings(EsmEmbeddings):
    """ESM's embeddings, whose scale in a row with ``<mask>`` depends on its length, which padding is no part of."""

    def forward(self, input_ids: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return (B, L, D), zeros at padding."""
        # Which early versions of transformers 5 do not pass on.
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.padding_idx).long()
        embedded: Tensor = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        return embedded


class GatedIntermediate(nn.Module):
    """SiLU of one half of a dense layer times its other half (SwiGLU, Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: NtV2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return (B, L, intermediate size)."""
        gate, up = self.dense(hidden_states).chunk(2, dim=-1)
        gated: Tensor = F.silu(gate) * up
        return gated
