"""How a model is fine-tuned: the same settings for one's own table and for a benchmark's task."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the types of settings are looked at when they are read
from dataclasses import dataclass, field
from typing import Any, Literal

from mutbert.inference.run import PRECISIONS, STRANDS

METHODS = ("full", "lora", "probe")
"""Every weight; low-rank adapters; a linear model on frozen embeddings."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685); the defaults are the published ones.

    Parameters
    ----------
    rank : int
        Rank of the update of each weight matrix.
    alpha : float
        The update is scaled by ``alpha / rank``.
    dropout : float
        Dropout before the adapters.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; it must be at least 1")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha is {self.alpha}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; it must be from 0 to below 1")


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is fine-tuned.

    Parameters
    ----------
    method : {"full", "lora", "probe"}
        See `METHODS`. A probe uses no setting of the optimiser.
    learning_rate, weight_decay, warmup_steps, max_grad_norm
        Of AdamW; the learning rate rises linearly over the warm-up and falls linearly to 0.
    epochs : float
        Passes over the training data; one flows into the next.
    max_steps : int, optional
        Steps, in place of what `epochs` makes.
    batch_size : int
        Sequences of a step, over all processes.
    micro_batch_size : int, optional
        At most so many of them at once, where memory is short; the result is the same.
    eval_steps : int, optional
        Evaluate on the validation data every so many steps; once an epoch where left out.
    patience : int, optional
        Stop after so many evaluations without a better one.
    metric : str, optional
        What the best step is chosen by; the task's own metric where left out.
    class_weights : {"none", "balanced"}
        ``balanced`` weighs a class by how rare it is, ``n / (classes * count)``.
    reverse_complement : bool
        Read each training sequence on the other strand half of the time.
    strands : {"forward", "both"}
        Where both, a prediction is the mean of those for the two strands.
    max_tokens : int, optional
        Cut sequences at their end, special tokens counted. A part of every batch is padding only as far as its own
        longest sequence, whatever this says.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}``; as much as the longest sequence needs where left out.
    precision : {"fp32", "bf16"}
        Of training and of predictions.
    lora : Lora
        For ``method: lora``.
    training : mapping
        Other fields of `transformers.TrainingArguments`.
    """

    method: Literal["full", "lora", "probe"] = "full"
    learning_rate: float = 3e-5
    weight_decay: float = 0.01
    warmup_steps: int = 50
    max_grad_norm: float = 1.0
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    micro_batch_size: int | None = None
    eval_steps: int | None = None
    patience: int | None = None
    metric: str | None = None
    class_weights: Literal["none", "balanced"] = "none"
    reverse_complement: bool = False
    strands: Literal["forward", "both"] = "forward"
    max_tokens: int | None = None
    rope_scaling: Mapping[str, Any] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: Lora = field(default_factory=Lora)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in (
            ("method", METHODS),
            ("class_weights", ("none", "balanced")),
            ("strands", STRANDS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for name in ("batch_size", "micro_batch_size", "max_steps", "eval_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        for name in ("learning_rate", "epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("weight_decay", "warmup_steps", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.max_tokens is not None and self.max_tokens < 3:
            raise ValueError(f"max_tokens is {self.max_tokens}; less than one base is left beside [CLS] and [SEP]")
