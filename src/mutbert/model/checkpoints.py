"""Checkpoints, published or ours, read completely or not at all, and converted key by key.

Both layouts hold the weights of BERT in `transformers` without positions: ``bert.embeddings.*``,
``bert.encoder.layer.N.*``, ``bert.pooler.dense.*`` (of ``"first_token_transform"`` alone), ``cls.predictions.*``
(``decoder.weight`` only where it is not the word embedding), ``classifier.*``. A published ``config.json`` is known by
``model_type: "bert"`` with an ``auto_map`` of its own classes. Of ``.bin`` files, nothing but tensors is read.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from mutbert import alphabet
from mutbert.errors import InputError, one_line, printable, reading
from mutbert.files import atomic_directory, check_output
from mutbert.model import modeling_mutbert as models
from mutbert.model.configuration_mutbert import MutBertConfig
from mutbert.model.tokenization_mutbert import MutBertTokenizer
from mutbert.run_folder import MODEL

Model = TypeVar("Model", bound=models.MutBertPreTrainedModel)
# Classes of the code that travels with an exported model.
_AUTO_MAP: Final = {"AutoConfig": "configuration_mutbert.MutBertConfig"} | {
    f"AutoModel{head}": f"modeling_mutbert.MutBert{head or 'Model'}"
    for head in ("", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
}
# What wrappers of torch write before the names of what they wrap.
_WRAPPERS: Final = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
# Two names of one weight in published code.
_BIAS, _DECODER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"


def read_checkpoint(
    path: str | Path, model_class: type[Model], *, fresh_head: bool = False, classes: Sequence[str] | None = None,
    **overrides: Any,
) -> Model:  # fmt: skip
    """Return a trained model in evaluation mode, of a folder or a repository of the Hub, ours or published.

    `fresh_head` starts a missing classifier with fresh weights, and with `classes` also one of other classes.
    `overrides` are values of `MutBertConfig`, or `dtype`. A weight that is missing or left over is an error.
    """
    check_folder(path)
    folder = local_folder(path, overrides.pop("revision", None))
    weights = read_weights(folder)
    if overrides.get("pooler_type") == "mean":
        weights = {name: weight for name, weight in weights.items() if "pooler.dense." not in name}
    config, settings = _loaded(path, MutBertConfig.from_pretrained, folder, return_unused_kwargs=True, **overrides)
    check_attention(path, config.get_config_dict(folder)[0])
    if fresh_head and classes is not None:
        weights = without_other_head(path, weights, config.get_config_dict(folder)[0].get("id2label"), classes)
    model, info = _loaded(path, load_quietly, model_class, config, weights, **settings)
    # By which others find the configuration, such as peft when it saves adapters.
    model.name_or_path = model.config.name_or_path = str(path)
    _check_fit(path, folder / "tokenizer.json", model, info, fresh_head=fresh_head)
    decoder = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    # A decoder that repeats the embedding is tied to it, which transformers before 5.4 leaves open.
    if decoder is not None and torch.equal(decoder.weight, model.get_input_embeddings().weight):
        model.tie_weights()
    model.record_decoder()
    return model  # type: ignore[no-any-return]


def _loaded(path: str | Path, load: Callable[..., Any], /, *arguments: Any, **settings: Any) -> Any:
    """Return what a library loads of a path."""
    with reading(path, "get it anew"):
        return load(*arguments, **settings)


def without_other_head(
    path: str | Path, weights: dict[str, torch.Tensor], id2label: Mapping[Any, str] | None, classes: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return weights without a classifier of other classes than those to be learnt, which is printed."""
    own = list((id2label or {0: "LABEL_0", 1: "LABEL_1"}).values())  # as the library has them
    others = {name: weight for name, weight in weights.items() if not name.startswith(("classifier.", "score."))}
    if own == list(classes) or len(others) == len(weights):
        return weights
    known, new = (
        printable(", ".join(names)) if len(names) < 10 else f"{len(names)} classes" for names in (own, classes)
    )
    text = f"{path}: its classifier knows {known}; one of fresh weights is trained for {new}"
    print(printable(text), file=sys.stderr)  # noqa: T201
    return others


def load_quietly(kind: Any, config: Any, weights: dict[str, Any], **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Return a model in evaluation mode, and what is missing, left over or of another shape among its weights."""
    settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with library_bars_off(warnings_too=True):
        model, info = kind.from_pretrained(None, config=config, state_dict=weights, **settings)
    return model.eval(), info


def _check_fit(path: str | Path, tokenizer: Path, model: Any, info: dict[str, Any], *, fresh_head: bool) -> None:
    """Raise InputError for a model whose loading gave `info`, where its checkpoint or its tokens do not fit."""
    if (count := model.config.vocab_size) != len(alphabet.TOKENS):
        raise InputError(f"{path}: has {count} tokens where MutBERT has {len(alphabet.TOKENS)}; it is of another model")
    expected = {token: number for number, token in enumerate(alphabet.TOKENS)}
    if tokenizer.is_file() and _loaded(tokenizer, Tokenizer.from_file, str(tokenizer)).get_vocab() != expected:
        raise InputError(f"{tokenizer}: its tokens are not {', '.join(alphabet.TOKENS)}; it is of another model")
    name, missing = type(model).__name__, set(info["missing_keys"])
    for part in ("classifier.", "bert.pooler.") if fresh_head else ():
        weights = {weight for weight, _ in model.named_parameters() if weight.startswith(part)}
        if not weights <= missing:
            break  # Torn; and a pooler is not new where its classifier is not.
        missing -= weights
    if missing:
        masked = "use a masked language model, as 'mutbert pretrain' makes, and no classifier"
        remedy = 'give pooler_type="mean"' if "pooler.dense." in str(missing) else "give a model fine-tuned for it"
        remedy = masked if any(one.startswith("cls.") for one in missing) else remedy
        raise InputError(f"{path}: has no {', '.join(sorted(missing)[:3])}, which {name} needs; {remedy}")
    if left_over := sorted(info["unexpected_keys"]):
        raise InputError(f"{path}: has {', '.join(left_over[:3])}, which {name} does not; it is of another model")
    for weight, found, expected in info["mismatched_keys"]:
        raise InputError(f"{path}: {weight} has shape {tuple(found)} where {name} has {tuple(expected)}; get it anew")


def check_folder(path: str | Path) -> None:
    """Raise InputError for a local folder that is missing or holds no model; names of Hub repositories pass."""
    if _is_repository(path):
        return
    folder, problem, remedy = local_folder(path), "", "give one that save_pretrained has written"
    small = (file for file in folder.glob("*.*") if file.is_file() and file.stat().st_size < 1024)
    if pointers := [file.name for file in small if file.read_bytes().startswith(b"version https://git-lfs.")]:
        problem, remedy = f"{min(pointers)} is a pointer of Git LFS to the file", "fetch it with 'git lfs pull'"
    elif (folder / MODEL / "config.json").is_file() and not (folder / "config.json").is_file():
        problem, remedy = "the folder of a run", f"use {folder / MODEL}"
    elif (folder / "adapter_config.json").is_file() and not (folder / "model.safetensors").is_file():
        problem, remedy = "holds an adapter and no model", "save what peft's merge_and_unload() returns, and use that"
    elif not (folder / "config.json").is_file():
        problem = "not a model folder (it has no config.json)"
    elif not weight_files(folder):
        problem = "holds no weights (model*.safetensors or pytorch_model*.bin)"
    if problem:
        raise InputError(f"{path}: {problem}; {remedy}")


def check_attention(path: str | Path, values: Mapping[str, Any]) -> None:
    """Raise InputError for a configuration by which the library would fetch code from the Hub, and run it."""
    if found := re.search(r'attn_implementation\w*": (?:"|\{[^}]*")([^"}]*/[^"]*)"', json.dumps(values)):
        raise InputError(f"{path}: config.json asks for code of the Hub, {found[1]}; remove attn_implementation there")


def _is_repository(source: str | Path) -> bool:
    return isinstance(source, str) and source.count("/") == 1 and not Path(source).parent.is_dir() and source[0] != "/"


def local_folder(source: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return a model's folder, fetched from the Hub where it is not on this machine, with its weights if asked for."""
    if not _is_repository(source):
        if not Path(source).exists():
            remedy = "check it, or name a repository of the Hub as OWNER/NAME, where no folder OWNER is"
            raise InputError(f"{source}: no such model folder; {remedy}")
        return Path(source)
    files = ["*.json", "*.yaml", "vocab.txt", *["model*.safetensors"] * weights]
    try:
        found = snapshot_download(str(source), revision=revision, allow_patterns=files)
        # Asked of the files and not of `weight_files`, as the index of a .bin in parts is there already.
        if weights and not any(Path(found).glob("model*.safetensors")):
            found = snapshot_download(str(source), revision=revision, allow_patterns=["*.json", "pytorch_model*.bin"])
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        why = "cannot be reached" if isinstance(error, LocalEntryNotFoundError) else f"has none: {one_line(error, 100)}"
        raise InputError(f"{source}: no such folder, and as a repository OWNER/NAME, the Hub {why}; check it") from None
    return Path(found)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by name, of files that hold nothing else."""
    weights: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        is_safe = path.suffix == ".safetensors"
        part = _loaded(path, load_file, path) if is_safe else _loaded(path, torch.load, path, "cpu", weights_only=True)
        if not isinstance(part, dict) or not all(isinstance(value, torch.Tensor) for value in part.values()):
            raise InputError(f"{path}: is no state dict of tensors by name; give the file that save_pretrained wrote")
        for name, value in part.items():
            # Not a mask, which old files have by such a name too.
            learnt = name.endswith((".weight", ".bias")) and value.dim() < 4
            if learnt and not value.is_floating_point():
                raise InputError(f"{path}: {name} has numbers of type {value.dtype}, and needs floats; get it anew")
            if not value.isfinite().all() if learnt else value.isnan().any():
                raise InputError(f"{path}: {name} has numbers that are not finite; its training failed, so get another")
        weights |= {_WRAPPERS.sub("", name): value for name, value in part.items()}
    return weights


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights: a whole one or else the parts of an index, safetensors before .bin."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = _loaded(index, lambda file: {*json.loads(file.read_bytes())["weight_map"].values()}, index)
            if lost := sorted(part for part in parts if not (folder / part).is_file()):
                raise InputError(f"{folder / lost[0]}: is missing, though {index.name} names it; get it too")
            return [folder / part for part in sorted(parts)]
    return []


@contextmanager
def library_bars_off(*, warnings_too: bool = False) -> Iterator[None]:
    """Yield without the progress bars of `transformers`."""
    enabled, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.ERROR if warnings_too else verbosity)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if enabled:
            transformers_logging.enable_progress_bar()


def convert_checkpoint(source: str | Path, output: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Convert a published checkpoint, or one of ours, to a model folder of this package.

    Every weight keeps its key and its precision, but for a decoder that only repeats the embedding. A missing or
    left-over key is an error.

    Parameters
    ----------
    source, output, force
        A model folder, or a repository of the Hub; the folder to write; replace a model folder there.

    Returns
    -------
    dict
        ``output``, ``model_class``, ``parameters``, ``weights``, and keys that ``repeated`` another and were left out.

    Raises
    ------
    InputError
        A checkpoint that is incomplete, damaged or of another architecture, with the key.

    Examples
    --------
    >>> mutbert.convert_checkpoint("model", "converted")["model_class"]
    'MutBertForMaskedLM'
    """
    output, folder = Path(output), local_folder(source)
    check_output(output, force=force, directory=True, inputs=[folder])
    with atomic_directory(output, force=force) as partial:
        model, weights, repeated = write_model(folder, partial)
    counts = {"parameters": model.num_parameters(), "weights": weights, "repeated": repeated}
    return {"output": output, "model_class": type(model).__name__, **counts}


def write_model(source: Path, folder: Path, *, custom_code: bool = False) -> tuple[Any, int, list[str]]:
    """Return the model that was written, the number of its tensors, and the keys that repeated another."""
    check_folder(source)
    weights = read_weights(source)
    # Each class reads its own part, and raises for what does not fit.
    model = [read_checkpoint(source, model_class) for model_class in _classes(source, weights)][-1]
    tokenizer = MutBertTokenizer(model_max_length=model.config.max_position_embeddings)
    own = source / "tokenizer_config.json"
    if own.is_file() and b'"MutBertTokenizer"' in own.read_bytes():
        tokenizer = _loaded(source, MutBertTokenizer.from_pretrained, source)
    bias = weights.get(_BIAS, torch.empty(0))
    if not torch.equal(weights.get(_DECODER_BIAS, bias), bias):
        raise InputError(f"{source}: {_DECODER_BIAS} and {_BIAS} differ, where one is another name of the other")
    second_names = {_DECODER_BIAS} | set(model._tied_weights_keys or () if model.config.tie_word_embeddings else ())
    repeated = sorted(second_names & weights.keys())
    # Each in memory of its own, as the format wants it; a pickle may have two names for one.
    kept = {name: weight.clone() for name, weight in weights.items() if name not in repeated}
    if custom_code:
        # By which transformers loads the folder where this package is not installed.
        for module in ("configuration_mutbert.py", "layers_mutbert.py", "modeling_mutbert.py"):
            shutil.copyfile(Path(__file__).with_name(module), folder / module)
        model.config.auto_map = _AUTO_MAP
    with library_bars_off():
        model.save_pretrained(folder, state_dict=dict(kept))
    tokenizer.save_pretrained(folder)
    return model, len(kept), repeated


def _classes(folder: Path, weights: dict[str, Any]) -> list[type[models.MutBertPreTrainedModel]]:
    """Return the models that the checkpoint has weights of; the last one has most of them."""
    # Of the file, as a published configuration loses its classes when it is read as one of ours.
    text = (folder / "config.json").read_text(encoding="utf-8", errors="replace")
    by_token = re.search(r'"architectures":\s*\[[^\]]*ForTokenClassification', text)
    classifier = models.MutBertForTokenClassification if by_token else models.MutBertForSequenceClassification
    heads = {"cls.": models.MutBertForMaskedLM, "classifier.": classifier}
    classes = [kind for head, kind in heads.items() if any(name.startswith(head) for name in weights)]
    if len(classes) > 1:
        raise InputError(f"{folder}: has a masked model's head and a classifier; convert a folder for each")
    if not classes or any("pooler.dense." in name for name in weights):
        classes.insert(0, models.MutBertModel)
    return classes
