"""The MutBERT encoder and its heads.

A BERT encoder (Devlin et al. 2019, arXiv 1810.04805; layer norm after each block) with rotary positions and an
embedding that takes a *distribution* over the tokens at every position: ``probabilities @ embedding``
(Long et al. 2025, bioRxiv 2025.01.23.634452).

Parameters bear the names of the published checkpoints, so that a key means the same in both layouts.

This file and ``configuration_mutbert.py`` import nothing of their package but each other, so that they can travel
with a checkpoint as the Hub's custom code.

Shape suffixes: B batch, L length in tokens, V vocabulary, C columns of probabilities (V, or the 4 bases), D hidden
size, H heads, K size of a head, N labels, T targets. ``1`` stands where a dimension is broadcast.
"""

from __future__ import annotations

import math
import pickle  # its error alone
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple

from .configuration_mutbert import MutBertConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from torch import Tensor

BASES: Final = 4
"""A, C, G, T are the last tokens of the vocabulary, in this order."""
IGNORED_LABEL: Final = -100
"""Positions with this integer label are no targets."""

# The keys of each head. A model that does not have the head leaves them aside when a checkpoint is loaded.
_MASKED_HEAD: Final = r"^cls\.predictions\.(bias|decoder\.(weight|bias)|transform\.(dense|LayerNorm)\.(weight|bias))$"
_CLASSIFIER: Final = r"^classifier\.(weight|bias)$"
_POOLER: Final = r"^bert\.pooler\.dense\.(weight|bias)$"

# Where the Auto classes find the code that travels with a checkpoint.
_AUTO_MAP: Final = {
    "AutoConfig": "configuration_mutbert.MutBertConfig",
    "AutoModel": "modeling_mutbert.MutBertModel",
    "AutoModelForMaskedLM": "modeling_mutbert.MutBertForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_mutbert.MutBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_mutbert.MutBertForTokenClassification",
}


def rotary_tables(config: MutBertConfig, position_BL: Tensor, length_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cosines and sines that turn queries and keys by their positions.

    Feature pair i of K/2 turns by ``position · base^(−2i/K)`` (Su et al. 2021, RoFormer, arXiv 2104.09864,
    eq. 15), base being `rope_theta`. With a scaling factor f, *linear* divides the positions by f (Chen et al. 2023,
    arXiv 2306.15595), and *dynamic* takes, for an input of length L over the trained length M, the base
    ``base · (f·L/M − (f − 1))^(K/(K−2))`` ("dynamic NTK"); up to L = M it changes nothing.

    They are computed once a forward pass and serve every layer. No state is kept: an output depends on its own input
    alone, whatever was run before and beside it.

    Parameters
    ----------
    config : MutBertConfig
        Gives base, scaling, trained length and size of a head.
    position_BL : Tensor, shape (B, L) or (1, L)
        0-based positions in tokens.
    length_BL : Tensor, shape (B, L), (B, 1) or (1, 1)
        Length in tokens, without padding, of the sequence that each position is part of.

    Returns
    -------
    tuple of Tensor, float32, shape (B or 1, L, 1, K/2)
        Cosines and sines of each feature pair, with a dimension for the heads.
    """
    size = config.head_size
    scaling = config.rope_scaling or {"type": "none", "factor": 1.0}
    factor = scaling["factor"]
    position_BL = position_BL.float()
    base_BL = torch.full_like(length_BL, config.rope_theta, dtype=torch.float32)
    if scaling["type"] == "linear":
        position_BL = position_BL / factor
    elif scaling["type"] == "dynamic":
        stretch_BL = factor * length_BL.float() / config.max_position_embeddings - (factor - 1)
        base_BL = base_BL * stretch_BL.clamp(min=1) ** (size / (size - 2))
    exponent_K = torch.arange(0, size, 2, device=base_BL.device, dtype=torch.float32) / size
    angle_BLK = position_BL[..., None] / base_BL[..., None] ** exponent_K
    return angle_BLK.cos()[:, :, None], angle_BLK.sin()[:, :, None]


def rotate(x_BLHK: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys by their positions, in float32; features i and i + K/2 are a pair ("rotate half")."""
    cosine, sine = rotary
    first, second = x_BLHK.chunk(2, dim=-1)
    turned_BLHK = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned_BLHK.to(x_BLHK.dtype)


def _draws_itself(x: Tensor, probability: float) -> bool:
    """Say whether `_kept` is the quicker way here."""
    return _is_plain(x) and round(probability * 2**16) < 2**16


def _is_plain(x: Tensor) -> bool:
    """Say whether a tensor's values can be asked for: they lie in a CPU's memory, and nothing traces them."""
    # Under torch.func every tensor stands for many, of which none can be looked at.
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not wrapped(x)


def _kept(x: Tensor, probability: float) -> tuple[Tensor, float]:
    """Draw what stays: 1 or 0 for each element of `x`, and the scale that makes up for what goes.

    On a CPU torch draws one random number after another, one for each element. Here each draw of 64 bits, from the
    same generator, decides on four elements; a probability becomes a multiple of 2^−16.
    """
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    dropped = round(probability * 2**16)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
    return keep.to(x.dtype), 1 / (1 - dropped / 2**16)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend by plain matrix products, which is the one way that gives the attention weights (before dropout).

    Query, key and value have shape (B, H, L, K); what it gives has (B, L, H, K) and (B, H, L, L). A mask is boolean,
    true at what is attended to, or is added to the scores.
    """
    score_BHLL = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            score_BHLL = score_BHLL.masked_fill(~attention_mask, torch.finfo(score_BHLL.dtype).min)
        else:
            # A row that sees nothing is to have weights all the same, as the fused kernels give it.
            lowest = torch.finfo(score_BHLL.dtype).min
            score_BHLL = score_BHLL + attention_mask.to(score_BHLL.dtype).clamp(min=lowest)
    weight_BHLL = score_BHLL.softmax(dim=-1).to(value.dtype)
    dropped_BHLL = weight_BHLL
    if module.training and dropout > 0:
        if _draws_itself(weight_BHLL, dropout):
            keep_BHLL, scale = _kept(weight_BHLL, dropout)
            # The scale goes to the values, of which there are fewer.
            dropped_BHLL, value = weight_BHLL * keep_BHLL, value * scale
        else:
            dropped_BHLL = functional.dropout(weight_BHLL, dropout)
    return (dropped_BHLL @ value).transpose(1, 2), weight_BHLL


class MutBertDropout(nn.Dropout):
    """Dropout as torch does it; on a CPU in a fraction of its time."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if not _draws_itself(x, self.p):
            return functional.dropout(x, self.p)
        keep, scale = _kept(x, self.p)
        return x * scale * keep


class MutBertEmbeddings(nn.Module):
    """Word and token-type embeddings; ids are looked up, distributions are averaged over."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = MutBertDropout(config.hidden_dropout_prob)
        self.config = config

    def forward(
        self,
        input_ids: Tensor | None,
        input_probs: Tensor | None,
        inputs_embeds: Tensor | None,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        word_BLD = self._words(input_ids, input_probs, inputs_embeds, attention_mask)
        if attention_mask is not None and attention_mask.shape != word_BLD.shape[:2]:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)} where the input is {tuple(word_BLD.shape[:2])}"
            )
        if token_type_ids is None:
            type_BLD = self.token_type_embeddings(torch.zeros(1, dtype=torch.long, device=word_BLD.device))
        else:
            rows, length = word_BLD.shape[:2]
            if (
                token_type_ids.dim() != 2
                or token_type_ids.shape[0] not in (1, rows)
                or token_type_ids.shape[1] != length
            ):
                raise ValueError(
                    f"token_type_ids have shape {tuple(token_type_ids.shape)} where the input is {(rows, length)}"
                )
            if _checks_values(self.config, token_type_ids):
                check_ids("token_type_ids", token_type_ids, self.config.type_vocab_size)
            type_BLD = self.token_type_embeddings(token_type_ids)
        hidden_BLD: Tensor = self.dropout(self.LayerNorm(word_BLD + type_BLD))
        return hidden_BLD

    def _words(
        self,
        input_ids: Tensor | None,
        input_probs: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
    ) -> Tensor:
        if sum(value is not None for value in (input_ids, input_probs, inputs_embeds)) != 1:
            raise ValueError("give exactly one of input_ids, input_probs and inputs_embeds")
        if inputs_embeds is not None:
            if inputs_embeds.dim() != 3 or inputs_embeds.shape[-1] != self.config.hidden_size:
                raise ValueError(
                    f"inputs_embeds have shape (batch, length, {self.config.hidden_size}); "
                    f"these have {tuple(inputs_embeds.shape)}"
                )
            return inputs_embeds
        if input_ids is not None and input_ids.is_floating_point():
            # Published code passes distributions under this name.
            input_ids, input_probs = None, input_ids
        if input_ids is not None:
            if input_ids.dim() != 2:
                raise ValueError(f"integer input_ids have shape (batch, length); these have {tuple(input_ids.shape)}")
            if _checks_values(self.config, input_ids):
                check_ids("input_ids", input_ids, self.config.vocab_size)
            word_BLD: Tensor = self.word_embeddings(input_ids)
            return word_BLD
        assert input_probs is not None, "one of the three is given"
        columns = _checked_columns("input_probs", input_probs, self.config.vocab_size)
        if _checks_values(self.config, input_probs):
            fits = attention_mask is not None and attention_mask.shape == input_probs.shape[:2]
            check_probabilities("input_probs", input_probs, attention_mask if fits else None)
        # Not in half precision under autocast, so that ids and their one-hot rows give the same numbers there too.
        # By the module and not its weight, so that what is wrapped around it (an adapter, say) has its part.
        table_VD = self.word_embeddings(torch.arange(self.config.vocab_size, device=input_probs.device))
        device = input_probs.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            averaged_BLD: Tensor = input_probs.to(table_VD.dtype) @ table_VD[-columns:]
            return averaged_BLD


class MutBertSelfAttention(nn.Module):
    """Attention of every position to every position, with rotary positions."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.config = config
        self.is_causal = False
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_BLD: Tensor, attention_mask: Any, rotary: tuple[Tensor, Tensor], **kernel: Any
    ) -> tuple[Tensor, Tensor | None]:
        heads = (*hidden_BLD.shape[:-1], self.config.num_attention_heads, self.config.head_size)
        query_BHLK = rotate(self.query(hidden_BLD).view(heads), rotary).transpose(1, 2)
        key_BHLK = rotate(self.key(hidden_BLD).view(heads), rotary).transpose(1, 2)
        value_BHLK = self.value(hidden_BLD).view(heads).transpose(1, 2)
        probability = self.config.attention_probs_dropout_prob if self.training else 0.0
        implementation = self.config._attn_implementation
        if implementation == "sdpa" and probability > 0 and _draws_itself(query_BHLK, probability):
            # On a CPU the fused kernel knows no dropout, and what torch does in its place takes three times longer.
            implementation = "eager"
        attend = eager_attention_forward if implementation == "eager" else ALL_ATTENTION_FUNCTIONS[implementation]
        mixed_BLHK, weight_BHLL = attend(
            self,
            query_BHLK,
            key_BHLK,
            value_BHLK,
            attention_mask,
            scaling=self.config.head_size**-0.5,
            dropout=probability,
            **kernel,
        )
        return mixed_BLHK.reshape(hidden_BLD.shape), weight_BHLL


class MutBertResidual(nn.Module):
    """The end of a block: a dense layer, dropout, the residual, a layer norm."""

    def __init__(self, config: MutBertConfig, input_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = MutBertDropout(config.hidden_dropout_prob)

    def forward(self, block: Tensor, residual_BLD: Tensor) -> Tensor:
        hidden_BLD: Tensor = self.LayerNorm(self.dropout(self.dense(block)) + residual_BLD)
        return hidden_BLD


class MutBertAttention(nn.Module):
    """Self-attention and the end of its block."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.self = MutBertSelfAttention(config)
        self.output = MutBertResidual(config, config.hidden_size)

    def forward(
        self, hidden_BLD: Tensor, attention_mask: Any, rotary: tuple[Tensor, Tensor], **kernel: Any
    ) -> tuple[Tensor, Tensor | None]:
        mixed_BLD, weight_BHLL = self.self(hidden_BLD, attention_mask, rotary, **kernel)
        return self.output(mixed_BLD, hidden_BLD), weight_BHLL


class MutBertIntermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = _activation(config)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        wide: Tensor = self.activation(self.dense(hidden_BLD))
        return wide


class MutBertLayer(GradientCheckpointingLayer):
    """Attention, then a feed-forward block."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.attention = MutBertAttention(config)
        self.intermediate = MutBertIntermediate(config)
        self.output = MutBertResidual(config, config.intermediate_size)

    def forward(
        self, hidden_BLD: Tensor, attention_mask: Any, rotary: tuple[Tensor, Tensor], **kernel: Any
    ) -> tuple[Tensor, Tensor | None]:
        hidden_BLD, weight_BHLL = self.attention(hidden_BLD, attention_mask, rotary, **kernel)
        return self.output(self.intermediate(hidden_BLD), hidden_BLD), weight_BHLL


class MutBertEncoder(nn.Module):
    """All layers, one after another; keeps what each gave, where asked."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([MutBertLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_BLD: Tensor,
        attention_mask: Any,
        rotary: tuple[Tensor, Tensor],
        *,
        keep_hidden: bool,
        keep_attention: bool,
        **kernel: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        every_hidden = [hidden_BLD]
        every_weight = []
        for layer in self.layer:
            hidden_BLD, weight_BHLL = layer(hidden_BLD, attention_mask, rotary, **kernel)
            if keep_hidden:
                every_hidden.append(hidden_BLD)
            if keep_attention:
                every_weight.append(weight_BHLL)
        return (
            hidden_BLD,
            tuple(every_hidden) if keep_hidden else None,
            tuple(every_weight) if keep_attention else None,
        )


class MutBertPooler(nn.Module):
    """One vector a sequence: the mean over what is not padding, or the first token, dense, tanh.

    The mean counts ``[CLS]`` and ``[SEP]`` too, as published.
    """

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        first_token = config.pooler_type == "first_token_transform"
        self.dense = nn.Linear(config.hidden_size, config.hidden_size) if first_token else None

    def forward(self, hidden_BLD: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.dense is not None:
            pooled_BD: Tensor = self.dense(hidden_BLD[:, 0]).tanh()
            return pooled_BD
        if attention_mask is None:
            return hidden_BLD.mean(dim=1)
        weight_BL1 = attention_mask.bool()[:, :, None].float()
        total_BD = (hidden_BLD * weight_BL1).sum(dim=1)
        return (total_BD / weight_BL1.sum(dim=1).clamp(min=1)).to(hidden_BLD.dtype)


class MutBertTransform(nn.Module):
    """The first half of the masked model's head."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = _activation(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        transformed_BLD: Tensor = self.LayerNorm(self.activation(self.dense(hidden_BLD)))
        return transformed_BLD


class MutBertPredictions(nn.Module):
    """From features to a logit a token; the decoder is by default the embedding itself."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.transform = MutBertTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        logits_BLV: Tensor = self.decoder(self.transform(hidden_BLD)) + self.bias
        return logits_BLV


class MutBertHead(nn.Module):
    """Holds the predictions under their published name."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.predictions = MutBertPredictions(config)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        logits_BLV: Tensor = self.predictions(hidden_BLD)
        return logits_BLV


class MutBertPreTrainedModel(PreTrainedModel):
    """What all MutBERT models share: how they start, and how they are loaded."""

    config_class = MutBertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["MutBertLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # A loss is a mean over its own batch; a Trainer is not to rescale it by a count it makes of the labels.
    accepts_loss_kwargs = False
    # Heads that this model does not have; any other key that has no place is refused.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD, _CLASSIFIER]
    # Weights that may be missing from a checkpoint, since they are what fine-tuning is about to learn.
    _fresh_weights: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: MutBertConfig, *args: Any, **kwargs: Any) -> None:
        config.check()
        super().__init__(config, *args, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # The library guesses from words in this file, and looks for other words in other releases.
        return True

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *_: Any, **__: Any
    ) -> nn.Embedding:
        """Refuse another number of tokens: A, C, G and T are the last ones, so none can come after them.

        Parameters
        ----------
        new_num_tokens, pad_to_multiple_of : int, optional
            As `transformers` takes them; what else it takes says how to fill new rows.

        Returns
        -------
        Embedding
            The word embedding as it is, where that is what is asked for.

        Raises
        ------
        ValueError
            When the number of tokens would change.
        """
        embedding: nn.Embedding = self.get_input_embeddings()
        tokens = len(embedding.weight)
        wanted = tokens if new_num_tokens is None else new_num_tokens
        if wanted != tokens or (pad_to_multiple_of is not None and tokens % pad_to_multiple_of):
            raise ValueError(f"the vocabulary has {tokens} tokens, of which A, C, G and T are the last; it stays so")
        return embedding

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint, ours or a published one, and refuse one that does not fit.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            A folder, or a repository of the Hub.
        *args
            As `transformers` takes them.
        output_loading_info : bool
            Give a pair: the model, and a dict of what was missing and left over.
        ignore_mismatched_sizes : bool
            Start weights of another shape afresh, such as a classifier for another number of classes.
        weights_only : bool
            A ``.bin`` file is a pickle, of which nothing but tensors is read; ``False`` would let it run any code and
            is refused.
        **kwargs
            As `transformers` takes them; any value of `MutBertConfig` (``rope_scaling=...``) overrides the
            checkpoint's.

        Returns
        -------
        model
            In evaluation mode. A classifier that the checkpoint does not have is new, as for fine-tuning.

        Raises
        ------
        ValueError
            When weights are missing, left over or of another shape, or the checkpoint is of another model.
        OSError
            When there is no checkpoint, or no weights in it.
        """
        place = str(pretrained_model_name_or_path or "state_dict")
        if not weights_only:
            raise ValueError(f"{place}: weights_only=False would let a pickle run any code; leave it out")
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                weights_only=True,
                **kwargs,
            )
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{place}: its .bin file holds other things than tensors, or is no whole file; such a pickle can run "
                f"any code and is not read: {str(error).splitlines()[0]}"
            ) from None
        missing = set(info["missing_keys"]) - cls._fresh(model, set(info["missing_keys"]))
        left_over = set(info["unexpected_keys"])
        if kwargs.get("pooler_type") == "mean":
            # Asked for by name, so the checkpoint's own pooling is left aside on purpose.
            left_over = {name for name in left_over if "pooler.dense." not in name}
        mismatched = {} if ignore_mismatched_sizes else {name: shapes for name, *shapes in info["mismatched_keys"]}
        if missing:
            remedy = 'give pooler_type="mean"' if any("pooler.dense." in name for name in missing) else "get it anew"
            raise ValueError(
                f"{place}: has no {_some(missing)}, which {cls.__name__} needs; it is incomplete or of another model: "
                f"{remedy}"
            )
        if left_over:
            raise ValueError(
                f"{place}: has {_some(left_over)}, which {cls.__name__} has no place for; it is of another model, "
                "or its config is of another checkpoint"
            )
        if mismatched:
            name, (found, expected) = sorted(mismatched.items())[0]
            raise ValueError(
                f"{place}: {name} has shape {tuple(found)} where {cls.__name__} has {tuple(expected)}; make its "
                "config agree, or give ignore_mismatched_sizes=True to start such weights afresh"
            )
        decoder, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if decoder is not None and decoder.weight is not embedding.weight:
            if model.config.tie_word_embeddings and torch.equal(decoder.weight, embedding.weight):
                # The checkpoint repeats the embedding; before 5.4 the library takes any decoder there for another.
                model.tie_weights()
            model._settle_decoder()
        return (model, info) if output_loading_info else model

    @classmethod
    def _fresh(cls, model: Any, missing: set[str]) -> set[str]:
        """Choose what may be missing, since fine-tuning is about to learn it: whole parts, of which nothing is there.

        A part comes with those before it in `_fresh_weights`: a classifier is not there without its pooler.
        """
        fresh: set[str] = set()
        for part in cls._fresh_weights:
            names = {name for name, _ in model.named_parameters() if name.startswith(part)}
            if not names <= missing:
                break
            fresh |= names
        return fresh

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        custom_code: bool = False,
        save_original_format: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Save a checkpoint; other arguments as for `transformers.PreTrainedModel.save_pretrained`.

        Parameters
        ----------
        save_directory : str or path
            The folder to write into.
        *args, **kwargs
            As `transformers` takes them.
        custom_code : bool
            Put the model's own code beside the weights, so that the Auto classes load the folder with
            ``trust_remote_code=True`` where this package is not installed. Where it is, it comes first, and neither
            the code nor trust is needed.
        save_original_format : bool
            Let `transformers` undo what it renamed when it loaded. There is nothing to undo, since the published
            names are the model's own; its early releases of version 5 would write old names of layer norms.
        """
        self._settle_decoder()
        auto_map = getattr(self.config, "auto_map", None)
        if custom_code:
            # Before the rest, which the library may upload as soon as it is written.
            add_code(self.config, Path(save_directory))
        try:
            return super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)
        finally:
            if auto_map is not None:
                self.config.auto_map = auto_map
            elif custom_code:
                del self.config.auto_map

    def _settle_decoder(self) -> None:
        """Have a decoder saved where it is one of its own, and the configuration say so, whatever made it so."""
        decoder = self.get_output_embeddings()
        if decoder is None:
            return
        tied = decoder.weight is self.get_input_embeddings().weight
        self.config.tie_word_embeddings = tied
        self._keys_to_ignore_on_save = set(self._tied_weights_keys or ()) if tied else set()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MutBertPredictions):
            init.zeros_(module.bias)


def add_code(config: MutBertConfig, folder: Path) -> None:
    """Put this code into a model folder, and name its classes in the configuration that is to be saved there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted({value.partition(".")[0] for value in _AUTO_MAP.values()}):
        shutil.copyfile(Path(__file__).with_name(f"{name}.py"), folder / f"{name}.py")
    config.auto_map = dict(_AUTO_MAP)


class MutBertModel(MutBertPreTrainedModel):
    """The bare encoder: from tokens, or distributions over them, to features.

    Parameters
    ----------
    config : MutBertConfig
        What to build.
    add_pooling_layer : bool
        Whether one vector a sequence is wanted too.
    """

    def __init__(self, config: MutBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = MutBertEmbeddings(config)
        self.encoder = MutBertEncoder(config)
        self.pooler = MutBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Give the word embedding, shape (V, D)."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another word embedding in its place."""
        self.embeddings.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_probs: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode sequences; exactly one of the three kinds of input is given.

        Parameters
        ----------
        input_ids : Tensor of integers, shape (B, L), optional
            Token ids. Floating-point ones of shape (B, L, C) are read as `input_probs`.
        attention_mask : Tensor, shape (B, L), optional
            1 at tokens and 0 at padding. Leave it out where nothing is padded, which is faster. One of shape
            (B, 1, L, L), boolean or added to the scores, is taken as it is by eager and sdpa attention; what is padding
            it does not say, so that pooling and dynamic RoPE scaling take the whole row.
        token_type_ids : Tensor of integers, shape (B, L), optional
            0 in the first and 1 in the second sequence of a pair; 0 where left out.
        position_ids : Tensor of integers, shape (B, L) or (1, L), optional
            Positions in tokens; 0, 1, 2... where left out. Where they do not ascend, a new sequence starts, and
            sequences packed into a row do not see each other; each has the results that it has alone.
        inputs_embeds : Tensor of float, shape (B, L, D), optional
            Word embeddings, ready made.
        input_probs : Tensor of float, shape (B, L, V) or (B, L, 4), optional
            A distribution over the tokens at each position, or over A, C, G, T alone. An id is the same as a
            one-hot row.
        output_attentions : bool, optional
            Give every layer's attention weights too; needs ``attn_implementation="eager"``.
        output_hidden_states : bool, optional
            Give the embedding's and every layer's features too.

        Returns
        -------
        BaseModelOutputWithPooling
            ``last_hidden_state`` (B, L, D); ``pooler_output`` (B, D) where there is a pooler; ``hidden_states`` and
            ``attentions`` where asked for. What stands at padding means nothing.

        Raises
        ------
        ValueError
            When not exactly one input is given, or a shape is wrong.
        """
        keep_attention = self.config.output_attentions if output_attentions is None else output_attentions
        keep_hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if keep_attention and self.config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions: {self.config._attn_implementation!r} attention gives no weights; "
                'load the model with attn_implementation="eager"'
            )
        padding_mask = None if attention_mask is None or attention_mask.dim() == 4 else attention_mask
        hidden_BLD = self.embeddings(input_ids, input_probs, inputs_embeds, token_type_ids, padding_mask)
        mask, position_BL, length_BL, kernel = self._attention_inputs(hidden_BLD, attention_mask, position_ids)
        hidden_BLD, every_hidden, every_weight = self.encoder(
            hidden_BLD,
            mask,
            rotary_tables(self.config, position_BL, length_BL),
            keep_hidden=keep_hidden,
            keep_attention=keep_attention,
            **kernel,
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_BLD,
            pooler_output=None if self.pooler is None else self.pooler(hidden_BLD, padding_mask),
            hidden_states=every_hidden,
            attentions=every_weight,
        )

    def _attention_inputs(
        self, hidden_BLD: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """Work out who attends to whom.

        Returns
        -------
        mask
            In the form of the attention in use; ``None`` lets it take its quickest way.
        position_BL : Tensor, shape (B, L) or (1, L)
            Positions in tokens.
        length_BL : Tensor, shape (B, L), (B, 1) or (1, 1)
            Length of the sequence that each position is part of.
        kernel : dict
            What a flash kernel is told beside.
        """
        batch, length = hidden_BLD.shape[:2]
        implementation = self.config._attn_implementation
        flash = "flash" in implementation
        plain = implementation in {"eager", "sdpa"}
        whole_11 = torch.full((1, 1), length, device=hidden_BLD.device)
        if attention_mask is not None and attention_mask.dim() == 4:
            if position_ids is None:
                position_ids = torch.arange(length, device=hidden_BLD.device)[None]
            return self._prepared_mask(hidden_BLD, attention_mask), position_ids, whole_11, {}
        keep_BL = None if attention_mask is None else attention_mask.bool()
        if position_ids is None:
            position_BL = torch.arange(length, device=hidden_BLD.device)[None]
            length_BL = whole_11 if keep_BL is None else keep_BL.sum(dim=1, keepdim=True)
            if keep_BL is None:
                return None, position_BL, length_BL, {}
            # As the library would, but without reading the mask back to see whether anything is padded at all,
            # for which the host would have to wait for the device.
            mask = keep_BL[:, None, None, :] if plain else create_bidirectional_mask(self.config, hidden_BLD, keep_BL)
            return mask, position_BL, length_BL, {}

        if position_ids.dim() != 2 or position_ids.shape[0] not in (1, batch) or position_ids.shape[1] != length:
            raise ValueError(
                f"position_ids have shape {tuple(position_ids.shape)} where the input is {(batch, length)}"
            )
        position_BL = position_ids.expand(batch, length)
        segment_BL = _segments(position_BL)
        length_BL = _segment_lengths(segment_BL, keep_BL)
        if flash:
            return None, position_BL, length_BL, _flash_boundaries(segment_BL, keep_BL)

        def same_segment(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return segment_BL[batch, query] == segment_BL[batch, key]

        if plain:
            mask = segment_BL[:, None, :, None] == segment_BL[:, None, None, :]
            if keep_BL is not None:
                # Padding sees its own kind, as a row that sees nothing has no weights.
                mask = mask & (keep_BL[:, None, None, :] | ~keep_BL[:, None, :, None])
        else:
            mask = create_bidirectional_mask(self.config, hidden_BLD, keep_BL, and_mask_function=same_segment)
        return mask, position_BL, length_BL, {}

    def _prepared_mask(self, hidden_BLD: Tensor, attention_mask: Tensor) -> Tensor:
        """Take a mask of shape (B or 1, H or 1, L or 1, L), boolean or added to the scores, as it is."""
        batch, length = hidden_BLD.shape[:2]
        # Sizes are compared and not looked up, as a compiled model knows no numbers for them.
        fits = (
            attention_mask.shape[0] in (1, batch)
            and attention_mask.shape[1] in (1, self.config.num_attention_heads)
            and attention_mask.shape[2] in (1, length)
            and attention_mask.shape[3] == length
            and (attention_mask.dtype == torch.bool or attention_mask.is_floating_point())
        )
        if not fits or self.config._attn_implementation not in {"eager", "sdpa"}:
            raise ValueError(
                f"attention_mask is {attention_mask.dtype} of shape {tuple(attention_mask.shape)}; one of four "
                "dimensions is boolean, or numbers that are added to the scores, of shape (batch, 1, length, length), "
                'for attn_implementation="sdpa" or "eager"'
            )
        return attention_mask if attention_mask.dtype == torch.bool else attention_mask.to(hidden_BLD.dtype)


def _segments(position_BL: Tensor) -> Tensor:
    """Tell the sequences packed into each row apart by numbers; one starts where positions do not ascend."""
    starts_BL = functional.pad(position_BL[:, 1:] <= position_BL[:, :-1], (1, 0))
    return starts_BL.cumsum(dim=1)


def _segment_lengths(segment_BL: Tensor, keep_BL: Tensor | None) -> Tensor:
    """Count, for each position, the tokens of its sequence that are not padding."""
    token_BL = torch.ones_like(segment_BL) if keep_BL is None else keep_BL.to(segment_BL.dtype)
    return torch.zeros_like(segment_BL).scatter_add(1, segment_BL, token_BL).gather(1, segment_BL)


def _flash_boundaries(segment_BL: Tensor, keep_BL: Tensor | None) -> dict[str, Any]:
    """Say where sequences start in the batch laid end to end, as flash kernels take it; padding is one of its own."""
    starts_BL = functional.pad(segment_BL[:, 1:] != segment_BL[:, :-1], (1, 0), value=True)
    if keep_BL is not None:
        starts_BL[:, 1:] |= keep_BL[:, 1:] != keep_BL[:, :-1]
    start_N = functional.pad(starts_BL.flatten().nonzero()[:, 0], (0, 1), value=starts_BL.numel()).int()
    longest = int(start_N.diff().max())
    return {"cu_seq_lens_q": start_N, "cu_seq_lens_k": start_N, "max_length_q": longest, "max_length_k": longest}


class MutBertForMaskedLM(MutBertPreTrainedModel):
    """The encoder with the head that it is pre-trained with.

    Parameters
    ----------
    config : MutBertConfig
        What to build.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"
    }
    # In the published code the decoder's bias is a second name of `cls.predictions.bias`.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        _CLASSIFIER,
        _POOLER,
        r"^cls\.predictions\.decoder\.bias$",
    ]

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.bert = MutBertModel(config, add_pooling_layer=False)
        self.cls = MutBertHead(config)
        self.post_init()
        # A tied decoder is not saved, and whoever resumes from such a checkpoint misses nothing.
        self._keys_to_ignore_on_save = set(self._tied_weights_keys) if config.tie_word_embeddings else set()

    def get_output_embeddings(self) -> nn.Linear:
        """Give the decoder, whose weight has shape (V, D)."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Put another decoder in its place."""
        self.cls.predictions.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_probs: Tensor | None = None,
        labels: Tensor | None = None,
        target_mask: Tensor | None = None,
        target_weights: Tensor | None = None,
        max_targets: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> MaskedLMOutput:
        """Predict the token at each position; inputs as for `MutBertModel.forward`.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, input_probs : Tensor, optional
            As for `MutBertModel.forward`.
        labels : Tensor, optional
            Either integer token ids, shape (B, L), with -100 at positions that are no targets; or distributions,
            float of shape (B, L, V) or (B, L, 4), together with `target_mask`.
        target_mask : Tensor of bool, shape (B, L), optional
            The target positions. With integer labels it narrows them further.
        target_weights : Tensor of float, shape (B, L), optional
            What the cross-entropy at each target is multiplied with; read at the targets alone.
        max_targets : int, optional
            At least as many as there are targets in the batch. In training it lets an accelerator, or a compiled
            model, run the head at targets alone, since how many there are cannot be known there without waiting.
        output_attentions, output_hidden_states : bool, optional
            As for `MutBertModel.forward`.

        Returns
        -------
        MaskedLMOutput
            ``logits`` (B, L, V); with labels, ``loss``: the mean over the targets of the cross-entropy
            ``−Σ_v label_v · log softmax(logits)_v``, in nats, times the target's weight. In training with labels the
            head runs at the targets alone, on a CPU or with `max_targets`; logits of other positions are then NaN.

        Raises
        ------
        ValueError
            When inputs or labels have a wrong form, or there are more targets than `max_targets`; where finding
            that out would mean waiting, the loss is NaN instead.
        """
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            input_probs=input_probs,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        loss = None
        if labels is None:
            logits_BLV = self.cls(outputs.last_hidden_state)
        else:
            labels, target_BL = _targets(
                labels, target_mask, outputs.last_hidden_state.shape[:2], self.config.vocab_size
            )
            if _checks_values(self.config, labels):
                check_labels(labels, target_BL, self.config.vocab_size)
            logits_BLV, loss = self._predict(outputs.last_hidden_state, labels, target_BL, target_weights, max_targets)
        return MaskedLMOutput(
            loss=loss,
            logits=logits_BLV,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _predict(
        self,
        hidden_BLD: Tensor,
        labels: Tensor,
        target_BL: Tensor,
        weight_BL: Tensor | None,
        max_targets: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the head, and compute the loss; in training at the targets alone, where they can be found."""
        _check_weights(weight_BL, target_BL)
        index_T = self._target_index(target_BL, max_targets) if self.training else None
        if index_T is None:
            logits_BLV: Tensor = self.cls(hidden_BLD)
            return logits_BLV, _mean_cross_entropy(logits_BLV, labels, target_BL, weight_BL)
        logits_TV: Tensor = self.cls(hidden_BLD.flatten(0, 1)[index_T])
        target_T = target_BL.flatten()[index_T]
        weight_T = None if weight_BL is None else weight_BL.flatten()[index_T]
        loss = _mean_cross_entropy(logits_TV, labels.flatten(0, 1)[index_T], target_T, weight_T)
        if max_targets is not None:
            # A bound that is too low would leave targets out in silence.
            loss = loss.masked_fill(target_BL.sum() > max_targets, torch.nan)
        everywhere_BLV = logits_TV.new_full((*target_BL.shape, logits_TV.shape[-1]), torch.nan)
        length = target_BL.shape[1]
        # Not a view of another tensor, which sharded training could not watch.
        return everywhere_BLV.index_put((index_T // length, index_T % length), logits_TV), loss

    def _target_index(self, target_BL: Tensor, max_targets: int | None) -> Tensor | None:
        """Give the places of the targets in the flattened batch; ``None`` where only waiting could tell them."""
        if _is_plain(target_BL):
            index_T = target_BL.flatten().nonzero()[:, 0]
            if max_targets is not None and len(index_T) > max_targets:
                raise ValueError(f"there are {len(index_T)} targets where max_targets is {max_targets}")
            return index_T
        if max_targets is None:
            return None
        order = target_BL.flatten().byte().argsort(descending=True, stable=True)
        return order[:max_targets]


class MutBertForSequenceClassification(MutBertPreTrainedModel):
    """The encoder, its pooler, dropout, and a linear classifier or regression.

    Parameters
    ----------
    config : MutBertConfig
        What to build; ``num_labels`` outputs.
    """

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD]
    _fresh_weights: ClassVar[tuple[str, ...]] = ("classifier.", "bert.pooler.")

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = MutBertModel(config)
        self.dropout = MutBertDropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_probs: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Classify sequences; inputs as for `MutBertModel.forward`.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, input_probs : Tensor, optional
            As for `MutBertModel.forward`.
        labels : Tensor, optional
            Classes, integer of shape (B,); or for ``problem_type="multi_label_classification"`` 0 and 1, float of
            shape (B, N); or for ``"regression"`` numbers, of shape (B,) or (B, N). Where the configuration names
            no problem, one output is a regression, and the labels' type tells the other two apart.
        output_attentions, output_hidden_states : bool, optional
            As for `MutBertModel.forward`.

        Returns
        -------
        SequenceClassifierOutput
            ``logits`` (B, N); with labels, ``loss``.
        """
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            input_probs=input_probs,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits_BN = self.classifier(self.dropout(outputs.pooler_output))
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits_BN, labels),
            logits=logits_BN,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(self, logits_BN: Tensor, labels: Tensor) -> Tensor:
        problem = self.config.problem_type
        if problem is None:
            if self.num_labels == 1:
                problem = "regression"
            elif labels.is_floating_point():
                problem = "multi_label_classification"
            else:
                problem = "single_label_classification"
        logits_BN = logits_BN.float()
        if problem == "single_label_classification":
            return functional.cross_entropy(logits_BN, labels.reshape(-1).long())
        if labels.shape != logits_BN.shape and not (logits_BN.shape[1] == 1 and labels.shape == logits_BN.shape[:1]):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} where there are {tuple(logits_BN.shape)} outputs"
            )
        labels = labels.reshape(logits_BN.shape).float()
        if problem == "regression":
            return functional.mse_loss(logits_BN, labels)
        return functional.binary_cross_entropy_with_logits(logits_BN, labels)


class MutBertForTokenClassification(MutBertPreTrainedModel):
    """The encoder, dropout, and a linear classifier at every position.

    Parameters
    ----------
    config : MutBertConfig
        What to build; ``num_labels`` classes.
    """

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD, _POOLER]
    _fresh_weights: ClassVar[tuple[str, ...]] = ("classifier.",)

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = MutBertModel(config, add_pooling_layer=False)
        self.dropout = MutBertDropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_probs: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> TokenClassifierOutput:
        """Classify positions; inputs as for `MutBertModel.forward`.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, input_probs : Tensor, optional
            As for `MutBertModel.forward`.
        labels : Tensor of integers, shape (B, L), optional
            Classes, with -100 at positions that do not count.
        output_attentions, output_hidden_states : bool, optional
            As for `MutBertModel.forward`.

        Returns
        -------
        TokenClassifierOutput
            ``logits`` (B, L, N); with labels, ``loss``.
        """
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            input_probs=input_probs,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits_BLN = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(
                logits_BLN.float().flatten(0, 1), labels.flatten().long(), ignore_index=IGNORED_LABEL
            )
        return TokenClassifierOutput(
            loss=loss, logits=logits_BLN, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def masked_loss(
    logits_BLV: Tensor, labels: Tensor, target_mask: Tensor | None = None, target_weights: Tensor | None = None
) -> Tensor:
    """Compute the mean cross-entropy over the target positions, in nats.

    Parameters
    ----------
    logits_BLV : Tensor of float, shape (B, L, V)
        Predictions.
    labels : Tensor
        Integer token ids (B, L), -100 where there is no target; or distributions (B, L, V) or (B, L, 4).
    target_mask : Tensor of bool, shape (B, L), optional
        The target positions; needed with distributions.
    target_weights : Tensor of float, shape (B, L), optional
        What the cross-entropy at each target is multiplied with; the mean is over the number of targets all the same.

    Returns
    -------
    Tensor, float32 (or float64, as the predictions are), shape ()
        0 where there is no target.

    Raises
    ------
    ValueError
        When labels, mask or weights have a wrong form.
    """
    labels, target_BL = _targets(labels, target_mask, logits_BLV.shape[:2], logits_BLV.shape[-1])
    _check_weights(target_weights, target_BL)
    return _mean_cross_entropy(logits_BLV, labels, target_BL, target_weights)


def _targets(
    labels: Tensor, target_mask: Tensor | None, place_BL: torch.Size, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """Check the form of labels and mask, and give labels that can be read everywhere and a bool mask of the targets."""
    if target_mask is not None and target_mask.shape != place_BL:
        raise ValueError(f"target_mask has shape {tuple(target_mask.shape)} where the input is {tuple(place_BL)}")
    if labels.is_floating_point():
        _checked_columns("labels", labels, vocabulary)
        if labels.shape[:2] != place_BL:
            raise ValueError(f"labels have shape {tuple(labels.shape)} where the input is {tuple(place_BL)}")
        if target_mask is None:
            raise ValueError("labels that are distributions need target_mask, which says what positions are targets")
        target_BL = target_mask.bool()
        # What stands elsewhere, NaN for example, must not come back as a gradient.
        return labels.masked_fill(~target_BL[..., None], 0), target_BL
    if labels.shape != place_BL:
        raise ValueError(f"integer labels have shape {tuple(labels.shape)} where the input is {tuple(place_BL)}")
    target_BL = labels != IGNORED_LABEL
    if target_mask is not None:
        target_BL = target_BL & target_mask.bool()
    return labels.masked_fill(~target_BL, 0).long(), target_BL


def _check_weights(weight_BL: Tensor | None, target_BL: Tensor) -> None:
    if weight_BL is not None and weight_BL.shape != target_BL.shape:
        raise ValueError(
            f"target_weights have shape {tuple(weight_BL.shape)} where the input is {tuple(target_BL.shape)}"
        )


def _mean_cross_entropy(logits: Tensor, labels: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Average over the targets; logits (..., V), labels (..., ids) or (..., C distributions), target, weight (...)."""
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    if labels.is_floating_point():
        loss = -(labels.to(log_probs.dtype) * log_probs[..., -labels.shape[-1] :]).sum(dim=-1)
    else:
        loss = -log_probs.gather(-1, labels[..., None])[..., 0]
    if weight is not None:
        # What stands elsewhere must not come back as a gradient.
        loss = loss * weight.masked_fill(~target, 0)
    return loss.masked_fill(~target, 0).sum() / target.sum().clamp(min=1)


def check_ids(name: str, ids: Tensor, vocabulary: int) -> None:
    """Refuse ids that there are not.

    Parameters
    ----------
    name : str
        What the message calls them.
    ids : Tensor of integers, shape (B, L)
        Of tokens, or of token types.
    vocabulary : int
        How many there are.

    Raises
    ------
    ValueError
        Names the first such id and its place.
    """
    wrong = (ids < 0) | (ids >= vocabulary)
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"{name} has {int(ids[place])} at {_place(place)}; the ids are 0 to {vocabulary - 1}")


def check_probabilities(name: str, probs_BLC: Tensor, mask_BL: Tensor | None = None) -> None:
    """Refuse rows that are no distributions.

    The models do so by themselves with what lies in a CPU's memory. With what lies on an accelerator they do not,
    since the host would have to wait for it.

    Parameters
    ----------
    name : str
        What the message calls them.
    probs_BLC : Tensor of float, shape (B, L, C)
        Distributions over the tokens, or over the bases.
    mask_BL : Tensor, shape (B, L), optional
        0 at padding, where a row only has to be finite.

    Raises
    ------
    ValueError
        Names the first such row, and what is wrong with it.
    """
    # Sums of numbers that were rounded to half precision, or of frequencies printed with few digits.
    tolerance = max(1e-3, 4 * torch.finfo(probs_BLC.dtype).eps)
    sum_BL = probs_BLC.sum(dim=-1, dtype=torch.float32)
    lowest_BL = probs_BLC.amin(dim=-1)
    # Written so that NaN is wrong.
    right_BL = ((sum_BL - 1).abs() <= tolerance) & (lowest_BL >= -tolerance)
    if mask_BL is not None:
        right_BL = right_BL | (~mask_BL.bool() & sum_BL.isfinite())
    if right_BL.all():
        return
    row, position = (~right_BL).nonzero()[0].tolist()
    total, lowest = float(sum_BL[row, position]), float(lowest_BL[row, position])
    if not math.isfinite(total):
        what = "has a value that is no finite number"
    elif lowest < -tolerance:
        what = f"has the probability {lowest:.4g}"
    else:
        what = f"sums to {total:.4g}"
    raise ValueError(
        f"{name}: {_place((row, position))} {what}; a distribution has none below 0 and sums to 1 "
        "(config.check_inputs = False lets anything pass)"
    )


def check_labels(labels: Tensor, target_BL: Tensor, vocabulary: int) -> None:
    """Refuse labels that are no token ids, or no distributions, at the targets; see `check_probabilities`."""
    if labels.is_floating_point():
        check_probabilities("labels", labels, target_BL)
    else:
        check_ids("labels", labels, vocabulary)


def _checks_values(config: MutBertConfig, values: Tensor) -> bool:
    """Say whether values are looked at: where they can be without making the host wait, or a graph break."""
    return bool(config.check_inputs) and _is_plain(values)


def _place(place: tuple[int, ...]) -> str:
    return f"row {place[0]}, position {place[1]}" if len(place) == 2 else str(place)


def _checked_columns(name: str, probs_BLC: Tensor, vocabulary: int) -> int:
    """Give the columns of distributions: those of the whole vocabulary, or the last four alone."""
    columns = probs_BLC.shape[-1]
    if probs_BLC.dim() != 3 or not probs_BLC.is_floating_point() or columns not in {vocabulary, BASES}:
        raise ValueError(
            f"{name} are floating-point of shape (batch, length, {vocabulary}) or (batch, length, {BASES}); "
            f"these are {probs_BLC.dtype} of shape {tuple(probs_BLC.shape)}"
        )
    return columns


def _activation(config: MutBertConfig) -> nn.Module:
    if config.hidden_act not in ACT2FN:
        raise ValueError(f"hidden_act is {config.hidden_act!r}; it must be one of {', '.join(sorted(ACT2FN))}")
    activation: nn.Module = ACT2FN[config.hidden_act]
    return activation


def _classifier_dropout(config: MutBertConfig) -> float:
    return float(config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout)


def _some(names: Iterable[str], most: int = 3) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more


__all__ = [
    "MutBertForMaskedLM",
    "MutBertForSequenceClassification",
    "MutBertForTokenClassification",
    "MutBertModel",
    "MutBertPreTrainedModel",
]
