"""Peers with attention: DNABERT-2 and the Nucleotide Transformers. Modules have the names of the published checkpoints.

DNABERT-2 (Zhou et al. 2023, arXiv 2306.15006) is a BERT with ALiBi (Press et al. 2021, arXiv 2108.12409) in place of
position embeddings and with gated feed-forward blocks. Nucleotide Transformers (Dalla-Torre et al. 2023, doi
10.1101/2023.01.11.523679) are transformers' ESM; the second version has gated feed-forward blocks without biases and
rotary positions. Shape suffixes: B batch, L tokens, D hidden size, H heads, K size of a head, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import BertConfig, EsmConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.models.bert import modeling_bert as bert
from transformers.models.esm import modeling_esm as esm


class DnaBert2Config(BertConfig):
    """Configuration of DNABERT-2."""

    model_type = "dnabert2"


class DnaBert2Layer(GradientCheckpointingLayer):
    """One post-norm block: attention, then the gated feed-forward."""

    attention: Any
    mlp: Any

    def __init__(self, config: DnaBert2Config) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        if width % self.heads:
            raise ValueError(f"hidden_size {width} is no multiple of num_attention_heads {self.heads}")
        self.attention_dropout = config.attention_probs_dropout_prob
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        own = nn.ModuleDict({"Wqkv": nn.Linear(width, 3 * width)})
        self.attention = nn.ModuleDict({"self": own, "output": bert.BertSelfOutput(config)})
        gated, wo = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width)
        norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = nn.ModuleDict({"gated_layers": gated, "wo": wo, "layernorm": norm})

    def forward(self, x_BLD: Tensor, bias_BHLL: Tensor) -> Tensor:
        """Return the block's output, (B, L, D)."""
        qkv_BL3HK = self.attention["self"]["Wqkv"](x_BLD).unflatten(-1, (3, self.heads, -1))
        q_BHLK, k_BHLK, v_BHLK = qkv_BL3HK.permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        mask = bias_BHLL.to(q_BHLK.dtype)
        attended_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=mask, dropout_p=dropout)
        x_BLD = self.attention["output"](attended_BHLK.transpose(1, 2).flatten(2), x_BLD)
        gate, up = self.mlp["gated_layers"](x_BLD).chunk(2, dim=-1)
        out_BLD: Tensor = self.mlp["layernorm"](self.mlp["wo"](self.dropout(F.gelu(gate) * up)) + x_BLD)
        return out_BLD


class DnaBert2PreTrainedModel(bert.BertPreTrainedModel):
    """What transformers knows of all DNABERT-2 models."""

    config: DnaBert2Config
    _input_embed_layer = "word_embeddings"


class DnaBert2Model(DnaBert2PreTrainedModel):
    """The encoder, without a pooler, which the published checkpoint has not."""

    embeddings: Any
    encoder: Any

    def __init__(self, config: DnaBert2Config) -> None:
        super().__init__(config)
        words = nn.Embedding(config.vocab_size, config.hidden_size)
        types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.embeddings = nn.ModuleDict({"word_embeddings": words, "token_type_embeddings": types, "LayerNorm": norm})
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        layers = nn.ModuleList(DnaBert2Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False, **_: Any
    ) -> BaseModelOutput:
        """Return hidden states, (B, L, D); as in the reference, those of padding are zeros after the last layer."""
        types_1D = self.embeddings["token_type_embeddings"].weight[:1]
        x_BLD = self.dropout(self.embeddings["LayerNorm"](self.embeddings["word_embeddings"](input_ids) + types_1D))
        bias_BHLL = _alibi(self.config.num_attention_heads, input_ids.shape[1], x_BLD.device)
        if attention_mask is not None:
            bias_BHLL = bias_BHLL.masked_fill(attention_mask[:, None, None, :] == 0, -torch.inf)
        states = [x_BLD]
        for layer in self.encoder["layer"]:
            states.append(layer(states[-1], bias_BHLL))
        if attention_mask is not None:
            states[-1] = states[-1] * attention_mask[..., None].to(x_BLD.dtype)
        return BaseModelOutput(states[-1], tuple(states) if output_hidden_states else None)


class DnaBert2ForMaskedLM(DnaBert2PreTrainedModel):
    """The masked language model, whose decoder is the token embedding with a bias of its own."""

    def __init__(self, config: DnaBert2Config) -> None:
        super().__init__(config)
        self.bert = DnaBert2Model(config)
        transform = bert.BertPredictionHeadTransform(config)
        decoder = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(config.vocab_size))})
        self.cls = nn.ModuleDict({"predictions": nn.ModuleDict({"transform": transform, "decoder": decoder})})
        self.post_init()

    def logits(self, states: Tensor) -> Tensor:
        """Return logits of any hidden states, (..., V)."""
        head: Any = self.cls["predictions"]
        return F.linear(head["transform"](states), self.bert.get_input_embeddings().weight, head["decoder"]["bias"])


class DnaBert2ForSequenceClassification(DnaBert2PreTrainedModel):
    """The paper's classifier: the first token through a fresh pooler (dense, tanh), dropout, and a linear layer."""

    def __init__(self, config: DnaBert2Config) -> None:
        super().__init__(config)
        dropout = config.classifier_dropout
        self.num_labels = config.num_labels
        self.bert = DnaBert2Model(config)
        self.bert.pooler = bert.BertPooler(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Return logits, (B, number of labels)."""
        states_BLD = self.bert(input_ids, attention_mask, **kwargs).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(self.bert.pooler(states_BLD))))


def _alibi(heads: int, length: int, device: torch.device) -> Tensor:
    """Return what is added to attention scores, -slope * distance, (1, H, L, L).

    Slopes are a geometric sequence, filled up from one of twice as many heads where these are no power of two.
    """
    known = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (head + 1) / known) for head in range(known)]
    slopes = first + [2 ** (-8 * (2 * head + 1) / (2 * known)) for head in range(heads - known)]
    position_L = torch.arange(length, device=device)
    distance_LL = (position_L[None] - position_L[:, None]).abs()
    return -torch.tensor(slopes, device=device)[None, :, None, None] * distance_LL


class NtV2Config(EsmConfig):
    """Configuration of the second version; `add_bias_fnn` is false in every published one."""

    model_type = "nt_v2"


class _Nt(esm.EsmPreTrainedModel):
    """Replaces what Nucleotide Transformers have otherwise than ESM."""

    def __init__(self, config: EsmConfig, **settings: Any) -> None:
        super().__init__(config, **settings)
        model: esm.EsmModel = self.base_model
        model.embeddings = NtEmbeddings(config)
        for layer in model.encoder.layer if isinstance(config, NtV2Config) else ():
            layer.intermediate = GatedIntermediate(config)
            layer.output.dense = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.post_init()


class NtModel(_Nt, esm.EsmModel):
    """The encoder, without a pooler, which no Nucleotide Transformer has."""

    def __init__(self, config: EsmConfig) -> None:
        super().__init__(config, add_pooling_layer=False)


class NtForMaskedLM(_Nt, esm.EsmForMaskedLM):
    """The masked language model."""

    def logits(self, states: Tensor) -> Tensor:
        """Return logits of any hidden states, (..., V)."""
        return self.lm_head(states)  # type: ignore[no-any-return]


class NtForSequenceClassification(_Nt, esm.EsmForSequenceClassification):
    """The classifier: dense, tanh and a linear layer on the first token."""


class NtEmbeddings(esm.EsmEmbeddings):
    """ESM's embeddings, whose scale in a row with ``<mask>`` depends on its length, which padding is no part of."""

    def forward(self, input_ids: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return (B, L, D), zeros at padding."""
        # Which early versions of transformers 5 do not pass on.
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.padding_idx).long()
        return super().forward(input_ids, attention_mask, **kwargs)  # type: ignore[no-any-return]


class GatedIntermediate(nn.Module):
    """SiLU of one half of a dense layer times its other half (SwiGLU, Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: NtV2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return (B, L, intermediate size)."""
        gate, up = self.dense(hidden_states).chunk(2, dim=-1)
        return F.silu(gate) * up  # type: ignore[no-any-return]
