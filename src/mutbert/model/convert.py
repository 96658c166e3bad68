"""A checkpoint in the published layout becomes one of ours, key by key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from mutbert import alphabet
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_directory, check_output
from mutbert.model import modeling_mutbert as models
from mutbert.model.checkpoints import check_folder, local_folder, read_checkpoint, read_weights
from mutbert.model.tokenization_mutbert import MutBertTokenizer

_DECODER: Final = "cls.predictions.decoder.weight"
# Two names of one weight in published code.
_BIAS, _DECODER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` wrote."""

    output: Path
    model_class: str
    parameters: int  # a tied decoder does not count twice
    weights: int
    repeated: tuple[str, ...]  # keys that only repeated another and were left out


def convert_checkpoint(source: str | Path, output: str | Path, *, force: bool = False) -> Conversion:
    """Write a published checkpoint, or one of ours, as a model folder of this package.

    Every weight keeps its key and its precision; ``config.json`` is translated, and a tokenizer is added. A decoder
    that only repeats the embedding is tied to it.

    Parameters
    ----------
    source, output : str or Path
        A folder, or a repository of the Hub; and the folder to write.
    force : bool
        Replace a model folder there.
    """
    output, folder = Path(output), local_folder(source)
    check_output(output, force=force, directory=True, inputs=[folder])
    with atomic_directory(output, force=force) as partial:
        model, weights, repeated = write_model(folder, partial)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Conversion(output, type(model).__name__, parameters, weights, tuple(repeated))


def write_model(source: Path, folder: Path, *, custom_code: bool = False) -> tuple[Any, int, list[str]]:
    """Return the model that was written, the number of its tensors, and the keys that repeated another."""
    check_folder(source)
    weights = read_weights(source)
    # Each class reads its own part, and raises for what does not fit.
    model = [read_checkpoint(source, model_class) for model_class in _classes(source, weights)][-1]
    config = model.config
    tokenizer = _tokenizer(source, config)
    bias = weights.get(_BIAS, torch.empty(0))
    if not torch.equal(weights.get(_DECODER_BIAS, bias), bias):
        raise InputError(f"{source}: {_DECODER_BIAS} and {_BIAS} differ, where one is another name of the other")
    repeated = [name for name in (_DECODER_BIAS, *[_DECODER] * config.tie_word_embeddings) if name in weights]
    # Each in memory of its own, as the format wants it; a pickle may have two names for one.
    kept = {name: weight.clone() for name, weight in weights.items() if name not in repeated}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    if custom_code:
        models.add_code(config, folder)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, len(kept), repeated


def _tokenizer(source: Path, config: Any) -> MutBertTokenizer:
    """Return the checkpoint's own tokenizer where it is one of ours; raise InputError where its ids are others."""
    if config.vocab_size != (size := alphabet.VOCABULARY_SIZE):
        raise InputError(f"{source}: has {config.vocab_size} tokens where MutBERT has {size}; it is of another model")
    tokenizer = MutBertTokenizer(model_max_length=config.max_position_embeddings)
    own, backend, settings = tokenizer.get_vocab(), source / "tokenizer.json", source / "tokenizer_config.json"
    try:
        vocabulary = Tokenizer.from_file(str(backend)).get_vocab() if backend.is_file() else own
        if settings.is_file() and b'"MutBertTokenizer"' in settings.read_bytes():
            tokenizer = MutBertTokenizer.from_pretrained(source)
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"{source}: its tokenizer cannot be read ({one_line(error)}); remove its files") from None
    if vocabulary != own:
        raise InputError(f"{backend}: its tokens are not {', '.join(alphabet.TOKENS)}; it is of another model")
    return tokenizer


def _classes(folder: Path, weights: dict[str, Any]) -> list[type[models.MutBertPreTrainedModel]]:
    """Return the models that the checkpoint has weights of; the last one has most of them."""
    try:
        # Of the file, as a published configuration loses its classes when it is read as one of ours.
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    except (ValueError, LookupError, TypeError):
        named = ()  # Whoever reads it next raises what is wrong.
    by_token = "ForTokenClassification" in str(named)
    classifier = models.MutBertForTokenClassification if by_token else models.MutBertForSequenceClassification
    heads = {"cls.": models.MutBertForMaskedLM, "classifier.": classifier}
    classes = [kind for head, kind in heads.items() if any(name.startswith(head) for name in weights)]
    if len(classes) > 1:
        raise InputError(f"{folder}: has a masked model's head and a classifier, which no one model has; convert a "
                         "folder for each")  # fmt: skip
    if not classes or any("pooler.dense." in name for name in weights):
        classes.insert(0, models.MutBertModel)
    return classes
