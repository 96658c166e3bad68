"""How a model is fine-tuned: the same settings for one's own table and for a benchmark's task."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mutbert.settings import Settings

METHODS: Final = ("full", "lora", "probe")
"""Every weight; low-rank adapters; a linear model on frozen embeddings."""

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]


class Lora(Settings):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), updates scaled by ``alpha / rank``; published defaults."""

    rank: _Count = 8
    alpha: _Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class FinetuneSettings(Settings):
    """How a model is fine-tuned.

    Parameters
    ----------
    method : {"full", "lora", "probe"}
        Every weight; low-rank adapters; or a linear model on frozen embeddings, which uses no optimiser setting.
    learning_rate, weight_decay, warmup_steps, max_grad_norm
        Of AdamW; the learning rate rises linearly over the warm-up and falls linearly to 0.
    epochs : float
        Passes over the training data.
    max_steps : int, optional
        Steps; overrides `epochs`.
    batch_size : int
        Sequences per step, over all processes.
    micro_batch_size : int, optional
        Sequences in memory at once; lower it if memory is short. The result is the same.
    eval_steps : int, optional
        Evaluate on the validation data every so many steps; once per epoch by default.
    patience : int, optional
        Stop after this many evaluations without improvement.
    metric : str, optional
        What the best step is chosen by; the task's own metric by default.
    class_weights : {"none", "balanced"}
        ``balanced`` weights a class by its rarity, ``n / (classes * count)``.
    reverse_complement : bool
        Read each training sequence on the other strand half of the time.
    strands : {"forward", "both"}
        With ``both``, predictions are averaged over the two strands.
    max_tokens : int, optional
        Truncate sequences at their end, special tokens counted.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}``; by default as much as the longest sequence needs.
    precision : {"fp32", "bf16"}
        Of training and of predictions.
    lora : Lora
        For ``method: lora``.
    training : mapping
        Other fields of `transformers.TrainingArguments`.
    """

    method: Literal["full", "lora", "probe"] = "full"
    learning_rate: _Positive = 3e-5
    weight_decay: _NotNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    max_grad_norm: _NotNegative = 1.0
    epochs: _Positive = 3.0
    max_steps: _Count | None = None
    batch_size: _Count = 32
    micro_batch_size: _Count | None = None
    eval_steps: _Count | None = None
    patience: _Count | None = None
    metric: str | None = None
    class_weights: Literal["none", "balanced"] = "none"
    reverse_complement: bool = False
    strands: Literal["forward", "both"] = "forward"
    max_tokens: Annotated[int, Field(ge=3)] | None = None
    rope_scaling: dict[str, Any] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: Lora = Lora()
    training: dict[str, Any] = {}
