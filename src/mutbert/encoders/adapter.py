"""One adapter for every model: its inputs, its classifier, its hidden states.

A model is named by a name of `mutbert.encoders.known`, a folder, or a repository of the Hub; ``random:`` before it
means the same model with fresh weights. Shape suffixes: B batch, L length, C channels, N outputs.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from mutbert import alphabet
from mutbert.encoders.inputs import BaseInputs, Inputs, PaddedWindows
from mutbert.encoders.known import RANDOM, resolve_model
from mutbert.errors import InputError, one_line, reading
from mutbert.examples.table import Examples
from mutbert.files import sha256_of
from mutbert.model import MutBertConfig, MutBertTokenizer
from mutbert.model import modeling_mutbert as models
from mutbert.model.checkpoints import check_attention, check_folder, local_folder, read_checkpoint, weight_files

Kind = Literal["body", "masked", "classifier", "token"]
Classes = Sequence[str] | None
Values = Mapping[str, Any]
Scaling = Values | None  # of rotary positions

CNN: Final = "cnn"
_CHANNELS: Final = 64
_CONVOLUTIONS: Final = ((len(alphabet.BASES), 15), (_CHANNELS, 7), (_CHANNELS, 7))  # channels read, and width


class Encoder:
    """A model to compare or to fine-tune; here what models share that read single bases or distributions over them."""

    family: str  # as in `mutbert.encoders.known.KnownModel`
    lora_targets: tuple[str, ...] = ()  # layers for low-rank adapters; empty where there can be none
    fresh_modules: tuple[str, ...] = ()  # modules of its classifier that start from fresh weights
    one_token_a_base = True  # whether labels of single bases can be learnt

    def __init__(self, name: str, path: str, settings: Values, values: Values, *, fresh: bool) -> None:
        self.name = name  # in tables
        self._path, self._settings, self._values, self._fresh = path, settings, values, fresh

    def inputs(self, examples: Examples | PaddedWindows, **settings: Any) -> Inputs:
        """Return sequences as the model reads them; `settings` as for `BaseInputs`."""
        return BaseInputs(examples, **settings)

    def classifier(
        self, outputs: int, longest: int, *, classes: Classes = None, each_token: bool = False,
        rope_scaling: Scaling = None,
    ) -> Any:  # fmt: skip
        """Return the model with its classifier of sequences or of every token, which is fresh if of other classes."""
        if each_token and not self.one_token_a_base:
            raise InputError(f"{self.name}: its tokens are not single bases, so it cannot learn a label for each base")
        return self._load("token" if each_token else "classifier", longest, rope_scaling, outputs, classes)

    def trained_classifier(self) -> tuple[Any, bool]:
        """Return a fine-tuned model in evaluation mode, and whether it has an output for every token."""
        return self._load("classifier", 0, None), False

    def body(self, longest: int, *, rope_scaling: Scaling = None) -> Any:
        """Return the model without a head."""
        return self._load("body", longest, rope_scaling)

    def _load(self, kind: Kind, longest: int, rope_scaling: Scaling, outputs: int = 0, classes: Classes = None) -> Any:
        """Return a model, whose classifier may be fresh where it is to have so many `outputs`."""
        raise NotImplementedError

    def hidden_states(self, body: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the last hidden states, (B, L, D)."""
        # Remote code often returns a plain tuple.
        return body(**batch)[0]  # type: ignore[no-any-return]

    def save_tokenizer(self, folder: Path, longest: int | None) -> None:
        """Write the tokenizer, if any, which cuts to `longest` tokens if asked to, to a model's folder."""

    def identity(self) -> str:
        """Return a line that differs where the weights do, or of fresh ones the configuration."""
        folder, fresh = Path(self._path), RANDOM if self._fresh else ""
        if not folder.is_dir():
            return f"{fresh}{self._path}@{self._settings.get('revision') or 'main'}"
        files = [folder / "config.json", *([] if self._fresh else weight_files(folder))]
        digests = {file.name: _digest(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files}
        return fresh + hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def open_encoder(
    model: str | Path, *, name: str = "", revision: str | None = None, trust_remote_code: bool = False
) -> Encoder:
    """Return the adapter of a model, or of ``cnn``; nothing but the configuration is read yet."""
    from mutbert.encoders.peers import find_peer
    from mutbert.encoders.token_encoders import AutoEncoder

    text = str(model)
    if text == CNN:
        return CnnEncoder(name or CNN, CNN, {}, {}, fresh=True)
    fresh, path = text.startswith(RANDOM), resolve_model(text.removeprefix(RANDOM))
    if not fresh:
        check_folder(path)
    settings = {"revision": revision} if revision else {}
    own = False
    with reading(path, "get its config.json anew"):
        folder = local_folder(path, revision, weights=False)
        values, _ = transformers.PreTrainedConfig.get_config_dict(folder)
        if not values:
            raise ValueError("there is no config.json, which random weights need too")
        # It has no other type of model.
        with suppress(ValueError):
            MutBertConfig.get_config_dict(folder)
            own = "model_type" in values
        check_attention(path, values)
        kind = MutBertEncoder if own else find_peer(values, path)
    if kind:
        return kind(name or text, path, settings, values, fresh=fresh)
    code, scripts = values.get("auto_map"), sorted(one.name for one in Path(path).glob("*.py"))
    if code and not trust_remote_code:
        # The library would make a stock model of the same type instead, of whatever weights happen to fit.
        raise InputError(f"{path}: needs code that comes with the checkpoint; use --trust-remote-code to run it")
    if trust_remote_code and (code or scripts):
        what = f"{', '.join(scripts)} {one_line(code, 300)}"
        print(f"{path}: runs code that comes with the checkpoint, {what}", file=sys.stderr)  # noqa: T201
    # Explicit, since the library would ask at the terminal otherwise.
    return AutoEncoder(name or text, path, {**settings, "trust_remote_code": trust_remote_code}, values, fresh=fresh)


class MutBertEncoder(Encoder):
    """MutBERT, published or one's own."""

    family = "mutbert"
    lora_targets = ("query", "key", "value", "dense")
    fresh_modules = ("classifier",)

    def trained_classifier(self) -> tuple[Any, bool]:
        """Return a fine-tuned model, of sequences or of bases, with the RoPE scaling that it was trained with."""
        each_token = "ForTokenClassification" in str(self._values.get("architectures"))
        return self._load("token" if each_token else "classifier", 0, None), each_token

    def save_tokenizer(self, folder: Path, longest: int | None) -> None:
        """Write the tokenizer."""
        MutBertTokenizer(model_max_length=longest or 512).save_pretrained(folder)

    def _load(self, kind: Kind, longest: int, rope_scaling: Scaling, outputs: int = 0, classes: Classes = None) -> Any:
        values = {**self._settings, **({"pooler_type": "mean"} if kind == "body" else {})}
        values |= {"num_labels": outputs} if outputs else {}
        heads = {"token": models.MutBertForTokenClassification, "classifier": models.MutBertForSequenceClassification}
        model_class: Any = heads.get(kind, models.MutBertModel)
        with reading(self._path, "get its config.json anew"):
            config = MutBertConfig.from_pretrained(self._path, **values)
        if rope_scaling:
            try:
                config.rope_scaling = dict(rope_scaling)
            except ValueError as error:
                raise InputError(f"{self.name}: {error}") from None
        if longest > config.most_tokens:
            if rope_scaling:
                more = f"{longest} tokens are more than the {config.most_tokens} that rope_scaling allows"
                raise InputError(f"{self.name}: {more}; raise its factor")
            config.rope_scaling = {"type": "dynamic", "factor": longest / config.max_position_embeddings}
        if self._fresh:
            return model_class(config).eval()
        values["rope_scaling"] = config.rope_scaling
        return read_checkpoint(self._path, model_class, fresh_head=outputs > 0, classes=classes, **values)


class CnnClassifier(nn.Module):
    """Three normalised convolutions, the maximum and mean over the sequence or each token, and a linear layer."""

    def __init__(self, outputs: int, *, each_token: bool = False) -> None:
        super().__init__()
        convolutions = (nn.Conv1d(read, _CHANNELS, width, padding=width // 2) for read, width in _CONVOLUTIONS)
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(nn.LayerNorm(_CHANNELS) for _ in _CONVOLUTIONS)
        self.dropout = nn.Dropout(0.1)
        self.each_token = each_token
        self.classifier = nn.Linear(_CHANNELS if each_token else 2 * _CHANNELS, outputs)

    def forward(
        self, input_ids: Tensor | None = None, input_probs: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return ``logits``, (B, N) or (B, L, N), of token ids, (B, L), or distributions over tokens, (B, L, 9)."""
        if input_probs is None:
            assert input_ids is not None
            input_probs = nn.functional.one_hot(input_ids, alphabet.VOCABULARY_SIZE).to(self.classifier.weight.dtype)
        # Tokens other than bases, padding included, are zeros.
        x_BCL = input_probs[..., alphabet.BASE_IDS].transpose(1, 2)
        keep_BL = torch.ones_like(x_BCL[:, 0]) if attention_mask is None else attention_mask.to(x_BCL.dtype)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Normalised at each position, so that padding does not count.
            step_BCL = norm(convolution(x_BCL).transpose(1, 2)).transpose(1, 2)
            step_BCL = nn.functional.gelu(step_BCL) * keep_BL[:, None]
            x_BCL = x_BCL + step_BCL if x_BCL.shape == step_BCL.shape else step_BCL
        if self.each_token:
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(x_BCL.transpose(1, 2))))
        mean_BC = x_BCL.sum(dim=2) / keep_BL.sum(dim=1, keepdim=True)
        most_BC = x_BCL.masked_fill(keep_BL[:, None] == 0, -torch.inf).amax(dim=2)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(torch.cat([mean_BC, most_BC], dim=1))))


class CnnEncoder(Encoder):
    """A plain convolutional network, which shows what is not due to pre-training."""

    family = "cnn"

    def identity(self) -> str:
        """Return the network's version."""
        return f"{CNN} 1"

    def _load(self, kind: Kind, longest: int, rope_scaling: Scaling, outputs: int = 0, classes: Classes = None) -> Any:  # noqa: ARG002
        if kind == "body":
            raise InputError(f"{self.name}: has no weights before it is trained, so nothing can be embedded by it")
        if not outputs:
            raise InputError(f"{self.name}: is a baseline, which is not kept once it is trained")
        return CnnClassifier(outputs, each_token=kind == "token")


def takes_mask(model: Any) -> bool:
    """Return whether a model can be told what is padding; if not, sequences of a batch are of one length."""
    parameters = inspect.signature(getattr(model, "body", model).forward).parameters.values()
    return any(one.name == "attention_mask" or one.kind is one.VAR_KEYWORD for one in parameters)


@cache
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    """Return a file's digest, computed again where it has been written anew."""
    return sha256_of(path)
