"""A trained model as inference uses it: on its device, and with RoPE scaling for as long as a call lasts."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from mutbert.encoders.known import resolve_model
from mutbert.errors import InputError
from mutbert.inference.predict import PRECISIONS, STRANDS
from mutbert.model import MutBertPreTrainedModel
from mutbert.model.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Model = TypeVar("Model", bound=MutBertPreTrainedModel)

SPECIAL_TOKENS: Final = 2
"""``[CLS]`` and ``[SEP]``, which stand around every sequence."""


def open_model(model: str | Path | MutBertPreTrainedModel, model_class: type[Model], **overrides: Any) -> Model:
    """Read a trained model to where it is to run; one that is loaded already stays where it is.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint or a known name, read to a GPU where there is one: of several processes, each to its own.
    model_class : type
        One of the model classes of `mutbert.model`.
    **overrides
        As for `mutbert.model.checkpoints.read_checkpoint`.

    Raises
    ------
    InputError
        When there is no such checkpoint, or the loaded model is of another class.
    """
    if isinstance(model, MutBertPreTrainedModel):
        if not isinstance(model, model_class):
            raise InputError(f"the model is a {type(model).__name__}; give a {model_class.__name__}")
        return model
    opened = read_checkpoint(resolve_model(model) if isinstance(model, str) else model, model_class, **overrides)
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        opened.to(f"cuda:{local % torch.cuda.device_count()}")
    return opened


def model_name(model: str | Path | MutBertPreTrainedModel) -> str:
    """Say which model it is: where it was read from, or its class where that is not known."""
    if isinstance(model, MutBertPreTrainedModel):
        return model.config.name_or_path or type(model).__name__
    return str(model)


@contextmanager
def rope_scaled(config: Any, rope_scaling: Mapping[str, Any] | None) -> Iterator[None]:
    """Put a RoPE scaling in place of a configuration's own, for as long as the block lasts.

    Raises
    ------
    InputError
        When the scaling is none, or does not fit the model.
    """
    before = config.rope_scaling
    try:
        if rope_scaling is not None:
            try:
                config.rope_scaling = dict(rope_scaling)
                config.check()
            except ValueError as error:
                raise InputError(str(error)) from None
        yield
    finally:
        config.rope_scaling = before


def longest_input(config: Any) -> int:
    """Give the bases that a model takes between ``[CLS]`` and ``[SEP]``, with the RoPE scaling that it has now."""
    factor = config.rope_scaling["factor"] if config.rope_scaling else 1.0
    return int(config.max_position_embeddings * factor) - SPECIAL_TOKENS


def too_long(config: Any, bases: int) -> str:
    """Say why so many bases are too many, and what helps."""
    trained = config.max_position_embeddings
    scaled = f" and rope_scaling takes it to {longest_input(config) + SPECIAL_TOKENS}" if config.rope_scaling else ""
    kind = config.rope_scaling["type"] if config.rope_scaling else "dynamic"
    return (
        f"{bases} bases are {bases + SPECIAL_TOKENS} tokens with [CLS] and [SEP], and the model is trained for "
        f"{trained}{scaled}; give fewer, or --rope-scaling {kind}:{-(-(bases + SPECIAL_TOKENS) // trained)}"
    )


def resolve_context(config: Any, context: int | None, rope_scaling: Mapping[str, Any] | None) -> int:
    """Say how many bases a window has.

    Parameters
    ----------
    config : MutBertConfig
        The model's configuration; left as it is.
    context : int, optional
        Bases of a window; where left out, what the model is trained for.
    rope_scaling : mapping, optional
        As for `rope_scaled`.

    Returns
    -------
    int
        Bases, without ``[CLS]`` and ``[SEP]``.

    Raises
    ------
    InputError
        When the model does not take so many, or the scaling does not fit it.
    """
    if context is not None and context < 1:
        raise InputError(f"context is {context}; it must be at least 1")
    with rope_scaled(config, rope_scaling):
        bases = int(config.max_position_embeddings) - SPECIAL_TOKENS if context is None else context
        if bases > longest_input(config):
            raise InputError(f"context: {too_long(config, bases)}")
    return bases


def check_run(strands: str, precision: str, batch_size: int) -> None:
    """Refuse what cannot be meant by how a model is run, which is known before it is read.

    Raises
    ------
    InputError
        When a word is none of `STRANDS` or `PRECISIONS`, or a batch has no room.
    """
    for name, value, choices in (("strands", strands, STRANDS), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
