"""A checkpoint in the published layout becomes one of ours, key by key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from mutbert import alphabet
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_directory, refuse_inside
from mutbert.model.checkpoints import check_folder, local_folder, read_checkpoint, read_weights
from mutbert.model.modeling_mutbert import (
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertPreTrainedModel,
    add_code,
)
from mutbert.model.tokenization_mutbert import MutBertTokenizer

if TYPE_CHECKING:
    from torch import Tensor

_DECODER: Final = "cls.predictions.decoder.weight"
_BIAS: Final = "cls.predictions.bias"
# In the published code a second name of the above.
_DECODER_BIAS: Final = "cls.predictions.decoder.bias"


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` wrote.

    Parameters
    ----------
    output : Path
        The model folder.
    model_class : str
        The class that has all of its weights, by which ``config.json`` names it.
    parameters : int
        Numbers in that model; a tied decoder does not count twice.
    weights : int
        Tensors written.
    repeated : tuple of str
        Keys of the source that only repeated another and were left out.
    """

    output: Path
    model_class: str
    parameters: int
    weights: int
    repeated: tuple[str, ...]


def convert_checkpoint(source: str | Path, output: str | Path, *, force: bool = False) -> Conversion:
    """Write a published checkpoint, or one of ours, as a model folder of this package.

    Every weight keeps its key and its precision; ``config.json`` is translated, and a tokenizer is added. A decoder
    that only repeats the embedding is tied to it.

    Parameters
    ----------
    source : str or Path
        A folder, or a repository of the Hub; weights as safetensors, or as ``.bin``, of which tensors alone are read.
    output : str or Path
        The folder to write.
    force : bool
        Replace a model folder there.

    Returns
    -------
    Conversion
        What was written.

    Raises
    ------
    InputError
        When there is no checkpoint, any of its keys is missing or left over, weights contradict each other, or it is
        of another model.
    """
    output, folder = Path(output), local_folder(source)
    refuse_inside(folder, output)
    with atomic_directory(output, force=force, mark="config.json") as partial:
        model, weights, repeated = write_model(folder, partial)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Conversion(output, type(model).__name__, parameters, weights, tuple(repeated))


def write_model(
    source: Path, folder: Path, *, custom_code: bool = False
) -> tuple[MutBertPreTrainedModel, int, list[str]]:
    """Write a checkpoint into a folder; return the model, the number of tensors, and the keys that repeat another."""
    check_folder(source)
    weights = read_weights(source)
    # Each class takes its own part and refuses what none has a place for; the last one has most of them.
    model = [read_checkpoint(source, model_class) for model_class in _classes(source, weights)][-1]
    config = model.config
    _check_vocabulary(source, config.vocab_size)
    repeated = _repeated(source, weights, tied=config.tie_word_embeddings)
    # Each in memory of its own, as the format wants it; a pickle may have two names for one.
    kept = {name: weight.clone() for name, weight in weights.items() if name not in repeated}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    if custom_code:
        add_code(config, folder)
    config.save_pretrained(folder)
    _tokenizer(source, config.max_position_embeddings).save_pretrained(folder)
    return model, len(kept), repeated


def _tokenizer(source: Path, length: int) -> MutBertTokenizer:
    """Return the checkpoint's own tokenizer where it is one of ours, whose settings stay; else one for the length."""
    path = source / "tokenizer_config.json"
    if path.is_file() and b'"MutBertTokenizer"' in path.read_bytes():
        try:
            tokenizer: MutBertTokenizer = MutBertTokenizer.from_pretrained(source)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read: {one_line(error, 300)}") from None
        return tokenizer
    return MutBertTokenizer(model_max_length=length)


def _check_vocabulary(folder: Path, size: int) -> None:
    """Raise InputError for a checkpoint with another number of tokens, or whose tokenizer has other ids."""
    if size != alphabet.VOCABULARY_SIZE:
        raise InputError(
            f"{folder}: has {size} tokens where MutBERT has {alphabet.VOCABULARY_SIZE}; it is of another model"
        )
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"{path}: cannot be read: {error}; remove it to go without") from None
    ours = {token: number for number, token in enumerate(alphabet.TOKENS)}
    if other := vocabulary.items() ^ ours.items():
        token = min(other, key=lambda item: item[1])[0]
        raise InputError(
            f"{path}: {token!r} has the id {vocabulary.get(token)} where MutBERT has {ours.get(token)}; the checkpoint "
            "is of another model"
        )


def _classes(folder: Path, weights: dict[str, Tensor]) -> list[type[MutBertPreTrainedModel]]:
    """Return the models that the checkpoint has weights of; the last one has most of them."""
    masked, classified = (any(name.startswith(head) for name in weights) for head in ("cls.", "classifier."))
    if masked and classified:
        raise InputError(
            f"{folder}: has a masked model's head and a classifier, which no one model has; convert a folder for each"
        )
    classes: list[type[MutBertPreTrainedModel]] = []
    if not (masked or classified) or any("pooler.dense." in name for name in weights):
        classes.append(MutBertModel)
    if masked:
        classes.append(MutBertForMaskedLM)
    if classified:
        try:
            # Of the file, as a published configuration loses its classes when it is read as one of ours.
            named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
        except (ValueError, LookupError, TypeError):
            named = ()  # Whoever reads it next raises what is wrong.
        token = "ForTokenClassification" in str(named)
        classes.append(MutBertForTokenClassification if token else MutBertForSequenceClassification)
    return classes


def _repeated(folder: Path, weights: dict[str, Tensor], *, tied: bool) -> list[str]:
    """Return the keys that repeat another; raise InputError where a bias under two names differs."""
    repeated = []
    if _DECODER_BIAS in weights:
        if _BIAS not in weights or not torch.equal(weights[_DECODER_BIAS], weights[_BIAS]):
            raise InputError(f"{folder}: {_DECODER_BIAS} and {_BIAS} differ, where one is another name of the other")
        repeated.append(_DECODER_BIAS)
    if tied and _DECODER in weights:
        repeated.append(_DECODER)
    return repeated
