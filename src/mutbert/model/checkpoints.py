"""Checkpoints, published or ours, read completely or not at all.

A published checkpoint and one of ours hold the same weights under the same keys, so that nothing can be mistaken
on the way:

==========================================================  ===============================================
key                                                         weight
==========================================================  ===============================================
``bert.embeddings.word_embeddings.weight``                  token embedding (V, D)
``bert.embeddings.token_type_embeddings.weight``            token-type embedding (2, D)
``bert.embeddings.LayerNorm.*``                             embedding layer norm
``bert.encoder.layer.N.attention.self.{query,key,value}.*`` attention of layer N
``bert.encoder.layer.N.attention.output.{dense,LayerNorm}.*`` end of the attention block
``bert.encoder.layer.N.intermediate.dense.*``               feed-forward, widening
``bert.encoder.layer.N.output.{dense,LayerNorm}.*``         feed-forward, end of the block
``bert.pooler.dense.*``                                     pooler, only of ``"first_token_transform"``
``cls.predictions.transform.{dense,LayerNorm}.*``           head of the masked model
``cls.predictions.bias``                                    its bias (V)
``cls.predictions.decoder.weight``                          its decoder (V, D), only where it is not tied
``classifier.*``                                            classifier
==========================================================  ===============================================

What differs is ``config.json``. The published one says ``model_type: "bert"`` with an ``auto_map`` of its own
classes, so that a loader which does not run its code makes a stock BERT of it, with random position embeddings and no
more than a warning. `MutBertConfig` recognises it by those classes; saved again, it says ``model_type: "mutbert"``.

Weights are safetensors, or ``.bin`` files, which are pickles: of these nothing but tensors is read.
"""

from __future__ import annotations

import hashlib
import json
import pickle  # its error alone
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from mutbert.errors import InputError, one_line
from mutbert.files import sha256_of
from mutbert.model.modeling_mutbert import MutBertPreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

Model = TypeVar("Model", bound=MutBertPreTrainedModel)

# What the libraries raise for files that are damaged, or hold values of a wrong kind.
BAD_FILES: Final = (
    OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError, ImportError, SafetensorError,
    StrictDataclassError, pickle.UnpicklingError,
)  # fmt: skip


def read_checkpoint(path: str | Path, model_class: type[Model], *, fresh_head: bool = False, **overrides: Any) -> Model:
    """Return a trained model of `model_class` in evaluation mode; raise InputError for a checkpoint that is not whole.

    `path` is a folder or a repository of the Hub, ours or published. Every weight must come from it and have a place
    in the model, but for heads that the model does not have; `fresh_head` lets a classifier that is missing start
    with fresh weights, for fine-tuning. `overrides` are values of `MutBertConfig`, ``dtype`` and the like.
    """
    check_folder(path)
    try:
        # The library reports at length what is missing or left over; here it is refused in one line.
        with library_bars_off(), only_errors():
            model, info = model_class.from_pretrained(
                path, **overrides, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except BAD_FILES as error:
        text = one_line(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: cannot be loaded: {text}") from None
    if problem := _misfit(model, info, fresh_head=fresh_head, ignore_pooler=overrides.get("pooler_type") == "mean"):
        raise InputError(f"{path}: {problem}")
    decoder = model.get_output_embeddings()
    # A decoder that repeats the embedding is tied to it, which transformers before 5.4 leaves open.
    if (
        decoder is not None
        and model.config.tie_word_embeddings
        and torch.equal(decoder.weight, model.get_input_embeddings().weight)
    ):
        model.tie_weights()
    model.record_decoder()
    trained: Model = model
    return trained


def _misfit(model: Any, info: dict[str, Any], *, fresh_head: bool, ignore_pooler: bool) -> str:
    """Return what is wrong with a model whose loading gave `info`, or an empty text."""
    name = type(model).__name__
    missing, left_over = set(info["missing_keys"]), set(info["unexpected_keys"])
    for part in ("classifier.", "bert.pooler.") if fresh_head else ():
        weights = {weight for weight, _ in model.named_parameters() if weight.startswith(part)}
        if not weights <= missing:
            # Torn; and a pooler is not new where its classifier is not.
            break
        missing -= weights
    if missing:
        remedy = "get it anew, or give a model that was fine-tuned for it"
        if any("pooler.dense." in weight for weight in missing):
            remedy = 'give pooler_type="mean"'
        return f"has no {_some(missing)}, which {name} needs; {remedy}"
    if ignore_pooler:
        left_over = {weight for weight in left_over if "pooler.dense." not in weight}
    if left_over:
        return f"has {_some(left_over)}, which {name} has no place for; it is of another model"
    if mismatched := sorted(info["mismatched_keys"]):
        weight, found, expected = mismatched[0]
        return f"{weight} has shape {tuple(found)} where {name} has {tuple(expected)}; make its config agree"
    return ""


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_folder(path: str | Path) -> None:
    """Say what is wrong with a local model folder more plainly than the library does.

    Raises
    ------
    InputError
        When the folder is not there, or holds no model. What looks like a repository of the Hub passes.
    """
    folder = Path(path)
    if not folder.exists():
        if isinstance(path, Path) or folder.is_absolute() or path.count("/") != 1:
            raise InputError(f"{path}: no such model folder; give one that save_pretrained has written")
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{path}: not a model folder (it has no config.json); give one that save_pretrained has written"
        )
    if not weight_files(folder):
        raise InputError(f"{path}: holds no weights (model*.safetensors or pytorch_model*.bin); get them too")


def local_folder(source: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return a model's folder, fetched from the Hub where it is not on this machine, with its weights if asked for.

    Raises
    ------
    InputError
        When the Hub has no repository of that name, or is out of reach.
    """
    folder = Path(source)
    if folder.exists() or isinstance(source, Path) or source.count("/") != 1 or folder.is_absolute():
        return folder
    try:
        patterns = ["*.json", "*.yaml", "vocab.txt", *(["model*.safetensors"] if weights else [])]
        found = snapshot_download(source, revision=revision, allow_patterns=patterns)
        # Asked of the files and not of `weight_files`, as the index of a .bin in parts is there already.
        if weights and not any(Path(found).glob("model*.safetensors")):
            found = snapshot_download(source, revision=revision, allow_patterns=["*.json", "pytorch_model*.bin"])
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{source}: no such folder, and the Hub gives no repository of that name: {one_line(error, 300)}"
        ) from None
    return Path(found)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by name; of ``.bin`` files, which are pickles, nothing but tensors is read.

    Raises
    ------
    InputError
        When a file is damaged, or holds anything else.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            part: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        except Exception as error:  # of several libraries, which raise many kinds
            raise InputError(
                f"{path}: cannot be read, or holds other things than tensors: {one_line(error, 300)}"
            ) from None
        if not isinstance(part, dict) or not all(isinstance(value, torch.Tensor) for value in part.values()):
            raise InputError(f"{path}: is no state dict of tensors by name; give the file that save_pretrained wrote")
        weights |= part
    return weights


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold a model's weights, the same that the library reads.

    A whole file comes before the parts that an index names, and safetensors before what torch has pickled.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{index}: is no index of weights ({error}); get it anew") from None
            if lost := sorted(part for part in parts if not (folder / part).is_file()):
                raise InputError(f"{folder / lost[0]}: is missing, though {index.name} names it; get it too")
            return [folder / part for part in sorted(parts)]
    return []


@contextmanager
def only_errors() -> Iterator[None]:
    """Keep `transformers` from warning of what is about to be refused."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


@contextmanager
def library_bars_off() -> Iterator[None]:
    """Keep `transformers` from drawing bars of its own for loading and saving, which take a moment."""
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def checkpoint_identity(place: str, revision: str | None = None, *, config_alone: bool = False) -> str:
    """Return a line that differs where a checkpoint's configuration or weights do, or the configuration alone."""
    folder = Path(place)
    if not folder.is_dir():
        return f"{place}@{revision or 'main'}"
    files = [folder / "config.json", *([] if config_alone else weight_files(folder))]
    digests = {path.name: _digest(path, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


@cache
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    """Return a file's digest, computed again where it has been written anew."""
    return sha256_of(path)
