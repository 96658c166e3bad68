"""The layers of the encoder, on those of transformers' BERT: rotary positions, attention, dropout, feed-forward.

Like ``modeling_mutbert.py``, this file imports of its package only what travels with a checkpoint. Shape suffixes: B
batch, L length in tokens, D hidden size, I intermediate size, H heads, K size of a head, 1 broadcast.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert import modeling_bert

from .configuration_mutbert import MutBertConfig


def rotary_tables(config: MutBertConfig, length: int, tokens_B1: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles by which queries and keys turn, float32 (B or 1, L, H, K), as in `rotate`.

    At position m, feature pair i of K/2 turns by ``m · base^(−2i/K)`` (Su et al. 2021, RoFormer, arXiv 2104.09864,
    eq. 15), base being `rope_theta`. With a scaling factor f, *linear* divides positions by f (Chen et al. 2023,
    arXiv 2306.15595), and *dynamic* takes, for a sequence of `tokens_B1` = L tokens over the trained length M, the base
    ``base · (f·L/M − (f − 1))^(K/(K−2))`` ("dynamic NTK"); up to L = M it changes nothing. No state is kept.
    """
    size = config.head_size
    scaling = config.rope_scaling or {"type": "none", "factor": 1.0}
    position_1L = torch.arange(length, device=tokens_B1.device)[None].float()
    base_B1 = torch.full_like(tokens_B1, config.rope_theta, dtype=torch.float32)
    if scaling["type"] == "linear":
        position_1L = position_1L / scaling["factor"]
    elif scaling["type"] == "dynamic":
        stretch_B1 = scaling["factor"] * tokens_B1.float() / config.max_position_embeddings - (scaling["factor"] - 1)
        base_B1 = base_B1 * stretch_B1.clamp(min=1) ** (size / (size - 2))
    exponent_K = torch.arange(0, size, 2, device=base_B1.device, dtype=torch.float32) / size
    angle_BLK = position_1L[..., None] / base_B1[..., None] ** exponent_K
    cosine_BLK, sine_BLK = angle_BLK.cos(), angle_BLK.sin()
    tables = torch.cat((cosine_BLK, cosine_BLK), -1), torch.cat((-sine_BLK, sine_BLK), -1)
    # Of all heads, so that they are multiplied in one run over memory.
    first, second = (x[:, :, None].expand(-1, -1, config.num_attention_heads, -1).contiguous() for x in tables)
    return first, second


def rotate(x_BLHK: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Return queries or keys turned by their positions, in float32; features i and i + K/2 are a pair."""
    cosine, sine = rotary
    swapped_BLHK = torch.cat(x_BLHK.chunk(2, dim=-1)[::-1], dim=-1)
    return (x_BLHK * cosine + swapped_BLHK * sine).to(x_BLHK.dtype)


class MutBertDropout(nn.Dropout):
    """torch's dropout; on a CPU, one draw of 64 bits decides on four elements, in a fraction of the time."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, in training with elements dropped."""
        if not self.training or self.p in {0, 1} or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        draws = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keep = draws[: x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * (keep.to(x.dtype) / (1 - self.p))


def attend_with_dropout(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Return what eager attention does, with the module's dropout; `mask` is boolean."""
    score_BHLL = (query * scaling) @ key.transpose(2, 3)
    if mask is not None:
        score_BHLL = score_BHLL.masked_fill(~mask, torch.finfo(score_BHLL.dtype).min)
    weight_BHLL = score_BHLL.softmax(dim=-1).to(value.dtype)
    return (module.dropout(weight_BHLL) @ value).transpose(1, 2), weight_BHLL


class MutBertRMSNorm(nn.RMSNorm):
    """torch's RMSNorm, as precise under autocast as without it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with a root mean square of 1 over the last dimension, times the weights."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _norm(config: MutBertConfig, size: int) -> nn.Module:
    """Return the norm of pre-norm layers, which others do without."""
    return MutBertRMSNorm(size, eps=config.layer_norm_eps) if config.pre_norm else nn.Identity()


class MutBertSelfAttention(nn.Module):
    """The layers of a BertSelfAttention, attending with rotary positions."""

    def __init__(self, bert: modeling_bert.BertSelfAttention) -> None:
        super().__init__()
        self.config = bert.config
        self.is_causal = False
        self.query, self.key, self.value = bert.query, bert.key, bert.value
        self.norm = _norm(bert.config, bert.config.hidden_size)
        self.query_norm, self.key_norm = (_norm(bert.config, bert.config.head_size) for _ in range(2))
        self.dropout = MutBertDropout(bert.config.attention_probs_dropout_prob)

    def forward(
        self, hidden_BLD: Tensor, attention_mask: Tensor | None, rotary: tuple[Tensor, Tensor], **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return mixed values (B, L, D), and attention weights where they are computed."""
        hidden_BLD = self.norm(hidden_BLD)
        heads = (*hidden_BLD.shape[:-1], self.config.num_attention_heads, self.config.head_size)
        query_BHLK = rotate(self.query_norm(self.query(hidden_BLD).view(heads)), rotary).transpose(1, 2)
        key_BHLK = rotate(self.key_norm(self.key(hidden_BLD).view(heads)), rotary).transpose(1, 2)
        value_BHLK = self.value(hidden_BLD).view(heads).transpose(1, 2)
        kind = self.config._attn_implementation
        attend = modeling_bert.eager_attention_forward if kind == "eager" else ALL_ATTENTION_FUNCTIONS[kind]
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        if kind == "sdpa" and dropout and hidden_BLD.device.type == "cpu" and not torch.compiler.is_compiling():
            attend = attend_with_dropout
        mixed_BLHK, weight_BHLL = attend(
            self, query_BHLK, key_BHLK, value_BHLK, attention_mask, scaling=self.config.head_size**-0.5, dropout=dropout
        )
        return mixed_BLHK.reshape(hidden_BLD.shape), weight_BHLL


class MutBertIntermediate(nn.Module):
    """The layer of a BertIntermediate, after a norm, and times a gate (GLU; Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, bert: modeling_bert.BertIntermediate, config: MutBertConfig) -> None:
        super().__init__()
        self.dense, self.activation = bert.dense, bert.intermediate_act_fn
        self.norm = _norm(config, config.hidden_size)
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size) if config.gated_feed_forward else None

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """Return features (B, L, I)."""
        hidden_BLD = self.norm(hidden_BLD)
        dense_BLI = self.dense(hidden_BLD)
        activated_BLI: Tensor = self.activation(dense_BLI if self.gate is None else self.gate(hidden_BLD))
        return activated_BLI if self.gate is None else activated_BLI * dense_BLI


def adapt_layers(layers: Any, config: MutBertConfig) -> None:
    """Give layers of BERT rotary positions and fast dropout, and what the configuration has beyond the published one.

    With `pre_norm`, attention and feed-forward normalise what they read instead of the sum that they are added to
    (Xiong et al. 2020, arXiv 2002.04745), but for that of the last layer, and attention its queries and keys (Henry et
    al. 2020, arXiv 2010.04245); all norms are RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).
    """
    for layer in layers:
        layer.attention.self = MutBertSelfAttention(layer.attention.self)
        layer.attention.output.dropout = layer.output.dropout = MutBertDropout(config.hidden_dropout_prob)
        layer.intermediate = MutBertIntermediate(layer.intermediate, config)
        if config.pre_norm:
            layer.attention.output.LayerNorm = layer.output.LayerNorm = nn.Identity()
    if config.pre_norm:
        layers[-1].output.LayerNorm = _norm(config, config.hidden_size)
