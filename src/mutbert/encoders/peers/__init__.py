"""The models that MutBERT is compared with: no code of a checkpoint runs, which is read name by name or not at all."""

import re
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import EsmConfig, EsmTokenizer, PreTrainedTokenizerFast

from mutbert.encoders.adapter import Kind
from mutbert.encoders.known import Family
from mutbert.encoders.peers import attention, caduceus
from mutbert.encoders.token_encoders import AutoEncoder
from mutbert.errors import InputError
from mutbert.model.checkpoints import local_folder

_FREQUENCIES: Final = ".rotary_embeddings.inv_freq"
_TIED: Final = {r"^lm_head\.decoder\.weight$": "esm.embeddings.word_embeddings.weight"}


class PeerEncoder(AutoEncoder):
    """A family, which needs none of the code in its repositories: its classes, and what its papers and files have."""

    family: Family
    classes: Mapping[str, Any]  # by kind, and the configuration's
    tokenizer_class: Any
    likelihood = True  # whether a token with one base exchanged is a token, so that a ratio can be read off
    required: Mapping[str, Collection[Any]]  # the only implemented values of config.json; each may be absent
    heads: Set[str]  # parts of the names of weights that only some of the models have,
    unused: Set[str]  # and that a file may have for nothing
    # Regular expressions of names in files, and what they become. Two names that become one are of one weight.
    renamed: Mapping[str, str] = {}

    def masked(self, longest: int) -> Any:
        """Return the masked language model."""
        return self._load("masked", longest, None)

    def masked_logits(self, model: Any, batch: Mapping[str, torch.Tensor], token_B: torch.Tensor) -> torch.Tensor:
        """Return the logits of one token of each row, (B, V); the head runs at those alone."""
        states_BLD = model.base_model(**batch)[0]
        row_B = torch.arange(len(token_B), device=token_B.device)
        return model.logits(states_BLD[row_B, token_B]).float()  # type: ignore[no-any-return]

    def _open_tokenizer(self) -> Any:
        folder = local_folder(self._path, self._settings.get("revision"), weights=not self._fresh)
        tokenizer = self._loaded(self.tokenizer_class.from_pretrained, folder)
        if len(tokenizer) != (known := self._values.get("vocab_size")):
            sizes = f"its tokenizer has {len(tokenizer)} tokens and its weights are of {known}"
            raise InputError(f"{self.name}: {sizes}; get the tokenizer that belongs to them")
        return tokenizer

    def _build(self, kind: Kind, overrides: Mapping[str, Any]) -> Any:
        # Neither its origin nor what it was asked to return matters.
        left_out = {"auto_map", "model_type", "torch_dtype", "return_dict", "output_hidden_states", "output_attentions"}
        left_out |= {"id2label", "label2id"} if overrides else set()
        values = {name: value for name, value in self._values.items() if name not in left_out}
        config = self._loaded(self.classes["config"], **{**values, **overrides, "dtype": "float32"})
        return self._loaded(self.classes[kind], config)

    def _check_tokens(self, model: Any) -> None:
        """Leave it to the tokenizer, which may not be there."""

    def _own_weights(self, model: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        called: dict[str, str] = {}
        tied = _TIED if getattr(model.config, "tie_word_embeddings", False) else {}
        for name, weight in weights.items():
            new = name
            for pattern, replacement in {**self.renamed, **tied}.items():
                new = re.sub(pattern, replacement, new)
            if new in state and not torch.equal(state[new], weight):
                both = f"{called[new]} and {name} are two names of one weight and have different values"
                raise InputError(f"{self.name}: {both}; get it anew")
            state[new], called[new] = weight, name
        if (frequencies := state.pop(_FREQUENCIES, None)) is not None:
            # Each in memory of its own, as shared weights are not saved.
            prefix = f"{model.base_model_prefix}."
            names = (prefix + name.removeprefix(prefix) for name in model.state_dict())
            state |= {name: frequencies.clone() for name in names if name.endswith(_FREQUENCIES)}
        return state

    def _missing(self, model: Any, info: Mapping[str, Any], *, fresh_head: bool) -> list[str]:
        # Heads that this model has not; in its own nothing may be left over.
        extra = self.unused | self.heads - {part for name, _ in model.named_modules() for part in name.split(".")}
        if left := [name for name in info["unexpected_keys"] if not extra & set(name.split("."))]:
            raise InputError(f"{self.name}: has {', '.join(left[:3])}, which no {self.family} model has; get it anew")
        return super()._missing(model, info, fresh_head=fresh_head)


class DnaBert2Encoder(PeerEncoder):
    """DNABERT-2, over byte pairs."""

    family = "dnabert2"
    classes = {
        "config": attention.DnaBert2Config, "body": attention.DnaBert2Model,
        "masked": attention.DnaBert2ForMaskedLM, "classifier": attention.DnaBert2ForSequenceClassification,
    }  # fmt: skip
    tokenizer_class = PreTrainedTokenizerFast
    context, likelihood = 1000, False
    required = {"hidden_act": ["gelu"], "is_decoder": [False], "position_embedding_type": ["absolute"]}
    heads, unused = {"cls", "pooler", "classifier"}, {"position_ids"}
    renamed = {r"^cls\.predictions\.decoder\.weight$": "bert.embeddings.word_embeddings.weight"}
    lora_targets, fresh_modules = ("Wqkv", "dense", "gated_layers", "wo"), ("classifier", "pooler")


class NtEncoder(PeerEncoder):
    """A Nucleotide Transformer, over 6-mers."""

    family: Family = "nt"
    classes = {
        "config": EsmConfig, "body": attention.NtModel, "masked": attention.NtForMaskedLM,
        "classifier": attention.NtForSequenceClassification,
    }  # fmt: skip
    tokenizer_class = EsmTokenizer
    context = 5994
    required: Mapping[str, Collection[Any]] = {
        **dict.fromkeys(("is_decoder", "add_cross_attention", "is_folding_model"), (False,)),
        "position_embedding_type": ["absolute", "rotary"],
    }
    heads, unused = {"lm_head", "classifier"}, {"position_ids", "position_embeddings", "pooler"}
    # A layer's in one version of the library, the model's in another.
    renamed = {rf"^.*{re.escape(_FREQUENCIES)}$": _FREQUENCIES}
    fresh_modules = ("classifier",)


class NtV2Encoder(NtEncoder):
    """A Nucleotide Transformer of the second version."""

    family = "ntv2"
    classes = {**NtEncoder.classes, "config": attention.NtV2Config}
    context = 12_282
    required = {**NtEncoder.required, "add_bias_fnn": [False], "position_embedding_type": ["rotary"]}


class CaduceusEncoder(PeerEncoder):
    """Caduceus, over single bases and without special tokens."""

    family = "caduceus"
    classes = {
        "config": caduceus.CaduceusConfig, "body": caduceus.CaduceusModel, "masked": caduceus.CaduceusModel,
        "classifier": caduceus.CaduceusForSequenceClassification,
    }  # fmt: skip
    special_tokens, context = False, 1024
    required = {
        **dict.fromkeys(("bidirectional", "bidirectional_weight_tie", "rms_norm", "fused_add_norm"), (True,)),
        "bidirectional_strategy": ["add"], "residual_in_fp32": [False],
    }  # fmt: skip
    # What is complementary is in config.json too.
    heads, unused = {"lm_head", "score"}, {"complement_map"}
    renamed = {
        r"\.mixer\.submodule\.": ".mixer.",
        r"\.mamba_rev\.(in|out)_proj\.": r".mamba_fwd.\1_proj.",
        r"\.word_embeddings\.embedding\.": ".word_embeddings.",
        r"^lm_head\.(lm_head\.)?weight$": "caduceus.backbone.embeddings.word_embeddings.weight",
    }
    lora_targets, fresh_modules = ("in_proj", "x_proj", "out_proj"), ("score",)

    def layer_states(self, body: Any, batch: Mapping[str, torch.Tensor], layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the hidden states of several layers, of both strands the mean at each base."""
        return [caduceus.fold_strands(state, body.config) for state in super().layer_states(body, batch, layers)]

    def hidden_states(self, body: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the last hidden states, of both strands the mean at each base."""
        return caduceus.fold_strands(super().hidden_states(body, batch), body.config)

    def _open_tokenizer(self) -> PreTrainedTokenizerFast:
        # Its repositories have it as code: a token a letter, of either case. The embedding has room for more tokens.
        special = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"]
        vocabulary = {token: number for number, token in enumerate([*special, *"ACGTN"])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(base.lower(), base) for base in "ACGTN"])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "bos", "mask", "pad", "unk")}
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", model_max_length=131_072, **names)  # noqa: S106


def find_peer(values: Mapping[str, Any], path: str) -> type[PeerEncoder] | None:
    """Return the family that a ``config.json`` is of, or None; raise InputError where it is nearly one of them."""
    named = values.get("auto_map")
    # After "--" where a repository's code was named from elsewhere.
    code = {str(name).rpartition("--")[2] for name in named.values()} if isinstance(named, dict) else set()
    model_type = values.get("model_type")
    peer: type[PeerEncoder] | None = None
    if model_type == attention.DnaBert2Config.model_type or "bert_layers.BertForMaskedLM" in code:
        peer = DnaBert2Encoder
    elif model_type == attention.NtV2Config.model_type or "esm_config.EsmConfig" in code or "add_bias_fnn" in values:
        if "add_bias_fnn" not in values:
            why = "names the code of Nucleotide Transformer v2 and lacks add_bias_fnn, so its blocks are unknown"
            raise InputError(f"{path}: its config.json {why}; get the published config.json")
        peer = NtV2Encoder
    elif model_type == caduceus.CaduceusConfig.model_type:
        peer = CaduceusEncoder
    elif model_type == EsmConfig.model_type and not code:
        peer = NtEncoder
    for name, value in (peer.required if peer else {}).items():
        if name in values and values[name] not in value:
            only = f"of this family only {' or '.join(map(repr, value))} is implemented"
            raise InputError(f"{path}: its config.json has {name} {values[name]!r}, and {only}; use another checkpoint")
    return peer
