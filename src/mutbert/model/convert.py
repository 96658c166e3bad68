"""A checkpoint in the published layout becomes one of ours, key by key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from mutbert import alphabet
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_directory, check_output
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

    Every weight keeps its key and its precision; ``config.json`` is translated, and a tokenizer is put beside it. A
    decoder that only repeats the embedding is tied to it.

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
    output = Path(output)
    folder = local_folder(source)
    check_output(output, force=force, directory=True, inputs=[folder])
    with atomic_directory(output, force=force) as partial:
        written = write_model(folder, partial)
        return Conversion(
            output,
            type(written.model).__name__,
            sum(parameter.numel() for parameter in written.model.parameters()),
            written.weights,
            written.repeated,
        )


class Written(NamedTuple):
    """What `write_model` wrote.

    Parameters
    ----------
    model : MutBertPreTrainedModel
        The model that has all of the weights.
    weights : int
        Tensors written.
    repeated : tuple of str
        Keys of the source that only repeated another and were left out.
    """

    model: MutBertPreTrainedModel
    weights: int
    repeated: tuple[str, ...]


def write_model(source: Path, folder: Path, *, custom_code: bool = False) -> Written:
    """Write weights, configuration and tokenizer of a checkpoint into a folder that is there.

    Parameters
    ----------
    source : Path
        The checkpoint, published or ours.
    folder : Path
        Where to write.
    custom_code : bool
        Put the model's own code beside them; see `MutBertPreTrainedModel.save_pretrained`.

    Returns
    -------
    Written
        What was written.

    Raises
    ------
    InputError
        As `convert_checkpoint`.
    """
    check_folder(source)
    weights = read_weights(source)
    # Each class takes its own part and refuses what none has a place for; the last one has most of them.
    model = [read_checkpoint(source, model_class) for model_class in _classes(source, weights)][-1]
    _check_vocabulary(source)
    config = model.config
    if config.vocab_size != alphabet.VOCABULARY_SIZE:
        raise InputError(
            f"{source}: has {config.vocab_size} tokens where MutBERT has {alphabet.VOCABULARY_SIZE}; it is of "
            "another model"
        )
    repeated = _repeated(source, weights, tied=config.tie_word_embeddings)
    kept = _apart({name: weight for name, weight in weights.items() if name not in repeated})
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    if custom_code:
        add_code(config, folder)
    config.save_pretrained(folder)
    _tokenizer(source, config.max_position_embeddings).save_pretrained(folder)
    return Written(model, len(kept), tuple(repeated))


def _apart(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each weight memory of its own, as the file format wants it; a pickle may have two names for one."""
    seen: set[int] = set()
    apart = {}
    for name, weight in weights.items():
        place = weight.untyped_storage().data_ptr()
        apart[name] = weight.clone() if place in seen else weight.contiguous()
        seen.add(place)
    return apart


def _tokenizer(source: Path, length: int) -> MutBertTokenizer:
    """Give the checkpoint's own tokenizer where it is one of ours, whose settings stay; else one for the length."""
    path = source / "tokenizer_config.json"
    if path.is_file() and b'"MutBertTokenizer"' in path.read_bytes():
        try:
            tokenizer: MutBertTokenizer = MutBertTokenizer.from_pretrained(source)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read: {one_line(error, 300)}") from None
        return tokenizer
    return MutBertTokenizer(model_max_length=length)


def _check_vocabulary(folder: Path) -> None:
    """Refuse a checkpoint whose own tokenizer gives the tokens other ids."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"{path}: cannot be read: {error}; remove it to go without") from None
    ours = {token: number for number, token in enumerate(alphabet.TOKENS)}
    if vocabulary != ours:
        token = next(iter(sorted(vocabulary.items() ^ ours.items(), key=lambda item: item[1])))[0]
        raise InputError(
            f"{path}: {token!r} has the id {vocabulary.get(token)} where MutBERT has {ours.get(token)}; the checkpoint "
            "is of another model"
        )


def _classes(folder: Path, weights: dict[str, Tensor]) -> list[type[MutBertPreTrainedModel]]:
    """Say which models the checkpoint has weights of; the last one has most of them."""
    masked = any(name.startswith("cls.") for name in weights)
    classified = any(name.startswith("classifier.") for name in weights)
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
        token = any(name.endswith("ForTokenClassification") for name in _architectures(folder / "config.json"))
        classes.append(MutBertForTokenClassification if token else MutBertForSequenceClassification)
    return classes


def _architectures(path: Path) -> list[str]:
    """Read the classes that a configuration names, which a published one loses when it is read as one of ours."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); get it anew") from None
    named = values.get("architectures") if isinstance(values, dict) else None
    return [str(name) for name in named] if isinstance(named, list) else []


def _repeated(folder: Path, weights: dict[str, Tensor], *, tied: bool) -> list[str]:
    """List the keys that repeat another; a bias under two names has to be the same."""
    repeated = []
    if _DECODER_BIAS in weights:
        if _BIAS not in weights or not torch.equal(weights[_DECODER_BIAS], weights[_BIAS]):
            raise InputError(f"{folder}: {_DECODER_BIAS} and {_BIAS} differ, where one is another name of the other")
        repeated.append(_DECODER_BIAS)
    if tied and _DECODER in weights:
        repeated.append(_DECODER)
    return repeated
