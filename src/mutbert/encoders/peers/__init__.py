"""The models that MutBERT is compared with, in plain PyTorch on transformers: no code of a checkpoint runs.

A checkpoint is recognised by its ``config.json`` and read name by name, or refused with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import EsmConfig, EsmTokenizer, PreTrainedTokenizerFast

from mutbert.encoders.peers import caduceus, dnabert2, nt
from mutbert.errors import InputError, one_line
from mutbert.model.checkpoints import load_quietly, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mutbert.encoders.known import Family

_FREQUENCIES: Final = ".rotary_embeddings.inv_freq"
_COMPLEMENTS: Final = "complement_map"
_DECODER: Final = "lm_head.decoder.weight"
_WORDS: Final = "esm.embeddings.word_embeddings.weight"
# As transformers still writes them.
_LEGACY: Final = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}


@dataclass(frozen=True)
class Peer:
    """A family: its classes, and what its papers and files have that others have not."""

    family: Family
    config: Any
    body: Any
    masked: Any
    classifier: Any
    tokenizer: Callable[[Path], Any]  # of a model's folder
    context: int  # bases of the windows in which variants are scored, by default
    required: Mapping[str, Any]  # the only implemented values of config.json, several in a tuple; each may be absent
    heads: tuple[str, ...]  # how names of weights begin that only some of the models have
    optional: tuple[str, ...] = ()  # how names begin that a file may lack,
    unused: tuple[str, ...] = ()  # and that it may have for nothing
    # Regular expressions of names in files, and what they become. Two names that become one are of one weight.
    renamed: Mapping[str, str] = field(default_factory=dict)
    lora_targets: tuple[str, ...] = ("query", "key", "value", "dense")
    fresh: tuple[str, ...] = ("classifier",)  # modules of a classifier that start from fresh weights
    special_tokens: bool = True  # whether the papers have special tokens around a sequence
    likelihood: bool = True  # whether a token with one base exchanged is a token, so that a ratio can be read off
    fold: Callable[[torch.Tensor, Any], torch.Tensor] = lambda states, _config: states  # to one vector per token


def _caduceus_tokenizer(_folder: Path) -> PreTrainedTokenizerFast:
    """Return Caduceus' tokenizer, which its repositories have as code: a token a letter, of either case."""
    special = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"]
    vocabulary = {token: number for number, token in enumerate([*special, *"ACGTN"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(base.lower(), base) for base in "ACGTN"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "bos", "mask", "pad", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", model_max_length=131_072, **names)  # noqa: S106


_DNABERT2: Final = Peer(
    "dnabert2", dnabert2.DnaBert2Config, dnabert2.DnaBert2Model, dnabert2.DnaBert2ForMaskedLM,
    dnabert2.DnaBert2ForSequenceClassification, PreTrainedTokenizerFast.from_pretrained, context=1000,
    required={"hidden_act": "gelu", "is_decoder": False, "position_embedding_type": "absolute"},
    heads=("cls.", "bert.pooler.", "classifier."), unused=("bert.embeddings.position_ids",),
    renamed={r"^cls\.predictions\.decoder\.weight$": "bert.embeddings.word_embeddings.weight"},
    lora_targets=("Wqkv", "dense", "gated_layers", "wo"), fresh=("classifier", "pooler"), likelihood=False,
)  # fmt: skip
_NT: Final = Peer(
    "nt", EsmConfig, nt.NtModel, nt.NtForMaskedLM, nt.NtForSequenceClassification, EsmTokenizer.from_pretrained,
    context=5994,
    required={
        "is_decoder": False, "add_cross_attention": False, "is_folding_model": False,
        "position_embedding_type": ("absolute", "rotary"),
    },
    heads=("lm_head.", "classifier."), optional=("esm.contact_head.",),
    unused=("esm.embeddings.position_", "esm.pooler."),
)  # fmt: skip
_NTV2: Final = replace(
    _NT, family="ntv2", config=nt.NtV2Config, context=12_282,
    required={**_NT.required, "add_bias_fnn": False, "position_embedding_type": "rotary"},
)  # fmt: skip
_CADUCEUS: Final = Peer(
    "caduceus", caduceus.CaduceusConfig, caduceus.CaduceusModel, caduceus.CaduceusForMaskedLM,
    caduceus.CaduceusForSequenceClassification, _caduceus_tokenizer, context=1024,
    required={
        "bidirectional": True, "bidirectional_strategy": "add", "bidirectional_weight_tie": True, "rms_norm": True,
        "fused_add_norm": True, "residual_in_fp32": False,
    },
    heads=("lm_head.", "score."),
    renamed={
        r"\.mixer\.submodule\.": ".mixer.",
        r"\.mamba_rev\.(in|out)_proj\.": r".mamba_fwd.\1_proj.",
        r"\.word_embeddings\.embedding\.": ".word_embeddings.",
        r"^(lm_head|caduceus\.backbone\.embeddings\.word_embeddings)\.complement_map$": _COMPLEMENTS,
        r"^lm_head\.(lm_head\.)?weight$": "caduceus.backbone.embeddings.word_embeddings.weight",
    },
    lora_targets=("in_proj", "x_proj", "out_proj"), fresh=("score",), special_tokens=False, fold=caduceus.fold_strands,
)  # fmt: skip


def find_peer(values: Mapping[str, Any], path: str) -> Peer | None:
    """Return the family that a ``config.json`` is of, or None; raise InputError where it is nearly one of them."""
    named = values.get("auto_map")
    # After "--" where a repository's code was named from elsewhere.
    code = {str(name).rpartition("--")[2] for name in named.values()} if isinstance(named, dict) else set()
    model_type = values.get("model_type")
    peer: Peer | None = None
    if model_type == dnabert2.DnaBert2Config.model_type or "bert_layers.BertForMaskedLM" in code:
        peer = _DNABERT2
    elif model_type == nt.NtV2Config.model_type or "esm_config.EsmConfig" in code or "add_bias_fnn" in values:
        if "add_bias_fnn" not in values:
            why = "names the code of Nucleotide Transformer v2 and lacks add_bias_fnn, so its blocks are unknown"
            raise InputError(f"{path}: its config.json {why}; get the published config.json")
        peer = _NTV2
    elif model_type == caduceus.CaduceusConfig.model_type:
        peer = _CADUCEUS
    elif model_type == EsmConfig.model_type and not code:
        peer = _NT
    for name, value in (peer.required if peer else {}).items():
        known = value if isinstance(value, tuple) else (value,)
        if name in values and values[name] not in known:
            only = f"of this family only {' or '.join(map(repr, known))} is implemented"
            raise InputError(f"{path}: its config.json has {name} {values[name]!r}, and {only}; use another checkpoint")
    return peer


def read_config(peer: Peer, values: Mapping[str, Any], path: str, **overrides: Any) -> Any:
    """Return the configuration of a checkpoint."""
    # Neither its origin nor what it was asked to return matters.
    left_out = {
        "auto_map", "_name_or_path", "architectures", "model_type", "transformers_version", "return_dict",
        "output_hidden_states", "output_attentions", *(("id2label", "label2id") if "num_labels" in overrides else ()),
    }  # fmt: skip
    kept = {name: value for name, value in values.items() if name not in left_out}
    return make_model(peer.config, path, **{**kept, **overrides})


def make_model(kind: Any, path: str, *arguments: Any, **values: Any) -> Any:
    """Return a configuration, or a model of one with fresh weights, which torch's generator decides."""
    try:
        return kind(*arguments, **values)
    except Exception as error:
        raise InputError(f"{path}: its config.json cannot be used: {one_line(error)}") from None


def load_model(peer: Peer, kind: Any, config: Any, folder: Path, *, fresh_head: bool) -> Any:
    """Return one of a family's models with the weights of a checkpoint, in float32.

    InputError is raised for a weight that is missing, left over or of another shape, or of several names with different
    values; with `fresh_head`, a missing head starts from fresh weights, which torch's generator decides.
    """
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in make_model(kind, str(folder), config).state_dict().items()}
    prefix = f"{kind.base_model_prefix}."
    is_body = kind is peer.body
    if is_body:
        shapes = {prefix + name: shape for name, shape in shapes.items()}
    weights = read_weights(folder)
    if not any(name.startswith(prefix) for name in weights):
        # A body that was saved alone.
        weights = {prefix + name: weight for name, weight in weights.items()}
    state = _canonical(peer, weights, shapes, config, folder)
    free = (*peer.optional, *(peer.heads if fresh_head else ()))
    if missing := [name for name in shapes if name not in state and not name.startswith(free)]:
        remedy = "is whole" if fresh_head or kind is peer.masked else "was fine-tuned"
        raise InputError(f"{folder}: has no {', '.join(missing[:3])}; choose a model that {remedy}")
    # Heads that this model has not; in its own nothing may be left over.
    others = tuple(head for head in peer.heads if not any(name.startswith(head) for name in shapes))
    if left := [name for name in state if name not in shapes and not name.startswith((*others, *peer.unused))]:
        raise InputError(f"{folder}: has {', '.join(left[:3])}, which no {peer.family} model has; get it anew")
    for name, shape in shapes.items():
        if name in state and state[name].shape != shape:
            head = fresh_head and name.startswith(peer.heads)
            why = "is needed; use the pre-trained model" if head else "follows from config.json; get both anew"
            raise InputError(f"{folder}: {name} has shape {tuple(state[name].shape)}, and {tuple(shape)} {why}")
    own = {name.removeprefix(prefix if is_body else ""): state[name] for name in shapes if name in state}
    try:
        return load_quietly(kind, config, own, dtype=torch.float32)[0]
    except Exception as error:
        raise InputError(f"{folder}: cannot be loaded: {one_line(error)}") from None


def _canonical(
    peer: Peer, weights: dict[str, torch.Tensor], shapes: Mapping[str, Any], config: Any, folder: Path
) -> dict[str, torch.Tensor]:
    """Return weights by the names that a model has; those with several names must agree."""
    state: dict[str, torch.Tensor] = {}
    called: dict[str, str] = {}
    for name, weight in weights.items():
        new = name
        for pattern, replacement in {**_LEGACY, **peer.renamed}.items():
            new = re.sub(pattern, replacement, new)
        if name.endswith(_FREQUENCIES):
            # A layer's in one version of the library, the model's in another.
            new = _FREQUENCIES
        if new in state and not torch.equal(state[new], weight):
            both = f"{called[new]} and {name} are two names of one weight and have different values"
            raise InputError(f"{folder}: {both}; get it anew")
        state[new], called[new] = weight, name
    if (frequencies := state.pop(_FREQUENCIES, None)) is not None:
        # Each in memory of its own, as shared weights are not saved.
        state |= {name: frequencies.clone() for name in shapes if name.endswith(_FREQUENCIES)}
    complements = state.pop(_COMPLEMENTS, None)
    if complements is not None and complements.tolist() != list(config.complement_map.values()):
        raise InputError(f"{folder}: complement_map of the weights and of config.json differ; get both anew")
    if _DECODER in shapes and config.tie_word_embeddings and _WORDS in state:  # noqa: SIM102
        if not torch.equal(state.setdefault(_DECODER, state[_WORDS]), state[_WORDS]):
            raise InputError(f"{folder}: {_DECODER} and {_WORDS} should be tied and have different values; get it anew")
    return state
