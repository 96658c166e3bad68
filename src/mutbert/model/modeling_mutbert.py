"""The MutBERT encoder and its heads, on transformers' own BERT.

BERT (Devlin et al. 2019, arXiv 1810.04805) with two changes: rotary positions, and an embedding that takes a
*distribution* over the tokens at every position, ``probabilities @ embedding`` (Long et al. 2025, bioRxiv
2025.01.23.634452). Parameters have the names of the published checkpoints. This file, ``layers_mutbert.py`` and
``configuration_mutbert.py`` import nothing of their package but each other, so that they can travel with a checkpoint
as the Hub's custom code.

Shape suffixes: B batch, L length in tokens, V vocabulary, C columns of probabilities (V, or the 4 bases), D hidden
size, H heads, K size of a head, N labels, T targets, 1 broadcast.
"""

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel, BertPreTrainedModel, modeling_outputs
from transformers.models.bert import modeling_bert
from transformers.utils.generic import can_return_tuple

from .configuration_mutbert import MutBertConfig
from .layers_mutbert import MutBertDropout, MutBertSelfAttention, adapt_layers, rotary_tables

# The keys of each head, which a model that does not have it leaves aside when a checkpoint is loaded.
_MASKED_HEAD: Final = r"^cls\.predictions\.(bias|decoder\.(weight|bias)|transform\.(dense|LayerNorm)\.(weight|bias))$"
_CLASSIFIER, _POOLER = r"^classifier\.(weight|bias)$", r"^bert\.pooler\.dense\.(weight|bias)$"
# In published code a second name of `cls.predictions.bias`.
_DECODER_BIAS: Final = r"^cls\.predictions\.decoder\.bias$"


class MutBertEmbeddings(nn.Module):
    """Word and token-type embeddings, without positions."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = MutBertDropout(config.hidden_dropout_prob)

    def forward(self, inputs_embeds: Tensor, token_type_ids: Tensor | None = None, **_: Any) -> Tensor:
        """Return hidden states of word embeddings (B, L, D)."""
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, dtype=torch.long, device=inputs_embeds.device)
        hidden_BLD: Tensor = self.dropout(self.LayerNorm(inputs_embeds + self.token_type_embeddings(token_type_ids)))
        return hidden_BLD

    def average(self, probs_BLC: Tensor) -> Tensor:
        """Return the mean word embedding of each distribution, as precise under autocast as the look-up of an id."""
        # By the module and not its weight, so that an adapter around it counts.
        table_VD = self.word_embeddings(torch.arange(self.vocab_size, device=probs_BLC.device))
        device = probs_BLC.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            return torch.matmul(probs_BLC.to(table_VD.dtype), table_VD[-probs_BLC.shape[-1] :])


class MutBertPredictions(modeling_bert.BertLMPredictionHead):
    """A logit for each token; the decoder is by default the embedding itself."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        # Not one with a bias of its own, which has no key in published checkpoints.
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """Return logits (B, L, V)."""
        return torch.add(self.decoder(self.transform(hidden_BLD)), self.bias)


class MutBertPreTrainedModel(BertPreTrainedModel):
    """What all MutBERT models share."""

    config: Any
    config_class = MutBertConfig
    _can_record_outputs: ClassVar[Any] = {"hidden_states": modeling_bert.BertLayer, "attentions": MutBertSelfAttention}
    _no_split_modules: ClassVar[list[str]] = ["BertLayer"]
    # A loss is a mean over its own batch; a Trainer is not to rescale it by a count it makes of the labels.
    accepts_loss_kwargs = False
    # Heads that this model does not have; any other key that has no place is refused.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD, _CLASSIFIER]

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # The library guesses from words in this file, others in other releases.

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *_: Any, **__: Any) -> nn.Embedding:
        """Return the word embedding, whose size is fixed, as A, C, G and T are its last rows."""
        embedding: nn.Embedding = self.get_input_embeddings()
        if new_num_tokens not in {None, embedding.num_embeddings}:
            raise ValueError(f"the vocabulary has {embedding.num_embeddings} tokens, A, C, G and T last; it stays so")
        return embedding

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save as `transformers.PreTrainedModel`."""
        self.record_decoder()
        # Releases before 5.4 would write old names of layer norms as the "original format".
        return super().save_pretrained(*args, **{"save_original_format": False, **kwargs})

    def record_decoder(self) -> None:
        """Record in the configuration whether the decoder is the embedding; if so, it is not saved."""
        decoder = self.get_output_embeddings()
        if decoder is not None:
            tied = decoder.weight is self.get_input_embeddings().weight
            self.config.tie_word_embeddings = tied
            self._keys_to_ignore_on_save = set(self._tied_weights_keys or ()) if tied else set()


class MutBertModel(MutBertPreTrainedModel, BertModel):
    """The encoder: from tokens, or distributions over them, to features, pooled too with `add_pooling_layer`."""

    def __init__(self, config: MutBertConfig, add_pooling_layer: bool = True) -> None:
        config.check()
        super(BertModel, self).__init__(config)  # Not BertModel's own, whose embeddings have positions.
        self.gradient_checkpointing = False
        self.embeddings = MutBertEmbeddings(config)
        self.encoder = modeling_bert.BertEncoder(config)
        adapt_layers(self.encoder.layer, config)
        first_token = add_pooling_layer and config.pooler_type == "first_token_transform"
        self.pooler = modeling_bert.BertPooler(config) if first_token else None
        self.pools_mean = add_pooling_layer and not first_token
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, inputs_embeds: Tensor | None = None,
        input_probs: Tensor | None = None, output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> modeling_outputs.BaseModelOutputWithPooling:  # fmt: skip
        """Return features of sequences, given as one of `input_ids`, `inputs_embeds` and `input_probs`.

        `input_probs` (B, L, V) or (B, L, 4) are distributions over the tokens, or over A, C, G, T; floating-point
        `input_ids` are read as such, as in published code. `attention_mask` (B, L) is 1 at tokens and 0 at padding; of
        ids without it, those of padding are masked, but not in a compiled model.
        """
        if input_ids is not None and input_ids.is_floating_point():
            input_ids, input_probs = None, input_ids
        given = [each for each in (input_ids, inputs_embeds, input_probs) if each is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of input_ids, input_probs and inputs_embeds")
        if input_ids is not None and attention_mask is None and not torch.compiler.is_compiling():
            token_BL = input_ids != self.config.pad_token_id
            attention_mask = None if token_BL.all() else token_BL
        shape, kind = tuple(given[0].shape[:2]), self.config._attn_implementation
        if attention_mask is not None and attention_mask.shape != shape:
            raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)} where the input is {shape}")
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        hidden_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if attentions and kind != "eager":
            raise ValueError(f'{kind!r} attention has no weights; output_attentions needs attn_implementation="eager"')
        if input_ids is not None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        elif input_probs is not None:
            check_probabilities("input_probs", input_probs, self.config, attention_mask)
            inputs_embeds = self.embeddings.average(input_probs)
        mask, tokens_B1 = attention_mask, torch.full((1, 1), shape[1], device=given[0].device)
        if attention_mask is not None:
            mask, tokens_B1 = attention_mask.bool(), attention_mask.bool().sum(dim=1, keepdim=True)
            if kind in {"eager", "sdpa"}:
                # The library would wait for the device to see whether anything is padded.
                mask = mask[:, None, None, :]
            if kind == "eager":  # It adds its mask to the scores.
                dtype = self.embeddings.LayerNorm.weight.dtype
                mask = (~mask).to(dtype) * torch.finfo(dtype).min
        outputs = super().forward(
            inputs_embeds=inputs_embeds, attention_mask=mask, token_type_ids=token_type_ids, return_dict=True,
            output_attentions=attentions, output_hidden_states=hidden_states,
            rotary=rotary_tables(self.config, shape[1], tokens_B1),
        )  # fmt: skip
        hidden, pooled = outputs.last_hidden_state, outputs.pooler_output
        pooled = _mean(hidden, attention_mask) if self.pools_mean else pooled
        return modeling_outputs.BaseModelOutputWithPooling(hidden, pooled, outputs.hidden_states, outputs.attentions)


def _mean(hidden_BLD: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean over the tokens, ``[CLS]`` and ``[SEP]`` included, as published."""
    if attention_mask is None:
        return hidden_BLD.mean(dim=1)
    weight_BL1 = attention_mask.bool()[:, :, None].float()
    total_BD = (hidden_BLD * weight_BL1).sum(dim=1)
    return (total_BD / weight_BL1.sum(dim=1).clamp(min=1)).to(hidden_BLD.dtype)


class MutBertForMaskedLM(MutBertPreTrainedModel):
    """The encoder with the head that it is pre-trained with."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"
    }
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_CLASSIFIER, _POOLER, _DECODER_BIAS]

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.bert = MutBertModel(config, add_pooling_layer=False)
        self.cls: Any = nn.Sequential(OrderedDict(predictions=MutBertPredictions(config)))
        self.post_init()
        # So that a Trainer that resumes from a checkpoint misses nothing.
        self._keys_to_ignore_on_save = set(self._tied_weights_keys) if config.tie_word_embeddings else set()

    def get_output_embeddings(self) -> Any:
        """Return the decoder."""
        return self.cls.predictions.decoder

    @can_return_tuple
    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None, input_probs: Tensor | None = None, labels: Tensor | None = None,
        target_places: Tensor | None = None, target_weights: Tensor | None = None, **inputs: Any,
    ) -> modeling_outputs.MaskedLMOutput:  # fmt: skip
        """Return logits (B, L, V), or (B, T, V) at `target_places` (B, T), and with as many labels `target_loss`."""
        inputs |= {"inputs_embeds": inputs_embeds, "input_probs": input_probs, "return_dict": True}
        outputs = self.bert(input_ids, attention_mask, **inputs)
        hidden_BTD = outputs.last_hidden_state
        if target_places is not None:
            row_B1 = torch.arange(len(target_places), device=target_places.device)[:, None]
            hidden_BTD = hidden_BTD[row_B1, target_places]
        logits_BTV = self.cls(hidden_BTD)
        if labels is not None and labels.is_floating_point():
            check_probabilities("labels", labels, self.config)
        loss = None if labels is None else target_loss(logits_BTV, labels, target_weights)
        return modeling_outputs.MaskedLMOutput(loss, logits_BTV, outputs.hidden_states, outputs.attentions)


def target_loss(logits_BTV: Tensor, labels: Tensor, weight_BT: Tensor | None = None) -> Tensor:
    """Return the mean over the targets of −Σ_v label_v · log softmax(logits)_v times the target's weight, in nats.

    `labels` are distributions (B, T, C), or token ids (B, T), of which -100 is no target.
    """
    if labels.shape[:2] != logits_BTV.shape[:2]:
        raise ValueError(f"labels have shape {tuple(labels.shape)} where logits have {tuple(logits_BTV.shape)}")
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    if labels.is_floating_point():
        log_BTC = logits_BTV.log_softmax(dim=-1)[..., -labels.shape[-1] :]
        loss_BT = -(labels.to(log_BTC.dtype) * log_BTC).sum(dim=-1)
        targets = torch.full((), loss_BT.numel(), device=loss_BT.device)
    else:
        loss_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), labels.long(), reduction="none")
        targets = (labels != -100).sum()
    return (loss_BT if weight_BT is None else loss_BT * weight_BT).sum() / targets.clamp(min=1)


class MutBertClassifier(MutBertPreTrainedModel):
    """The encoder, dropout, and a linear layer to ``num_labels`` outputs."""

    _pools = True

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.bert = MutBertModel(config, add_pooling_layer=self._pools)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = MutBertDropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None, input_probs: Tensor | None = None, labels: Tensor | None = None,
        **inputs: Any,
    ) -> modeling_outputs.TokenClassifierOutput:  # fmt: skip
        """Return logits, and with labels the loss; inputs as for `MutBertModel.forward`."""
        inputs |= {"inputs_embeds": inputs_embeds, "input_probs": input_probs, "return_dict": True}
        outputs = self.bert(input_ids, attention_mask, **inputs)
        logits = self.classifier(self.dropout(outputs.pooler_output if self._pools else outputs.last_hidden_state))
        loss = None if labels is None else self._loss(logits.float(), labels)
        return modeling_outputs.TokenClassifierOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class MutBertForSequenceClassification(MutBertClassifier):
    """Logits (B, N) of pooled features; labels as for `transformers.BertForSequenceClassification`."""

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD]

    def _loss(self, logits_BN: Tensor, labels: Tensor) -> Tensor:
        kind = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        problem = self.config.problem_type or ("regression" if self.config.num_labels == 1 else kind)
        if problem == "single_label_classification":
            return functional.cross_entropy(logits_BN, labels.reshape(-1).long())
        loss = functional.mse_loss if problem == "regression" else functional.binary_cross_entropy_with_logits
        return loss(logits_BN, labels.reshape(logits_BN.shape).float())


class MutBertForTokenClassification(MutBertClassifier):
    """Logits (B, L, N) of every position; labels are classes (B, L), of which -100 does not count."""

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_MASKED_HEAD, _POOLER]
    _pools = False

    def _loss(self, logits_BLN: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits_BLN.flatten(0, 1), labels.flatten().long())


def check_probabilities(name: str, probs_BLC: Tensor, config: MutBertConfig, mask_BL: Tensor | None = None) -> None:
    """Raise ValueError for what are no distributions: by shape; in CPU memory by value too, where the mask has no 0."""
    shape, vocabulary = tuple(probs_BLC.shape), config.vocab_size
    if len(shape) != 3 or not probs_BLC.is_floating_point() or shape[-1] not in {vocabulary, 4}:
        right = f"floating-point of shape (batch, length, {vocabulary}) or (batch, length, 4)"
        raise ValueError(f"{name} are {right}; these are {probs_BLC.dtype} of shape {shape}")
    if not config.check_inputs or probs_BLC.device.type != "cpu" or torch.compiler.is_compiling():
        return
    # For numbers rounded to half precision, or frequencies printed with few digits.
    tolerance = max(1e-3, 4 * torch.finfo(probs_BLC.dtype).eps)
    sum_BL = probs_BLC.sum(dim=-1, dtype=torch.float32)
    # Written so that NaN is wrong.
    right_BL = ((sum_BL - 1).abs() <= tolerance) & (probs_BLC.amin(dim=-1) >= -tolerance)
    if mask_BL is not None:
        right_BL = right_BL | (~mask_BL.bool() & sum_BL.isfinite())
    if not right_BL.all():
        row, position = (~right_BL).nonzero()[0].tolist()
        found = [round(value, 4) for value in probs_BLC[row, position].tolist()]
        raise ValueError(f"{name}: row {row}, position {position} is no distribution: {found}")
