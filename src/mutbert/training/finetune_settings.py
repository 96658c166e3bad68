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
    """How a model is fine-tuned."""

    method: Literal["full", "lora", "probe"] = "full"  # a probe uses no optimiser setting
    learning_rate: _Positive = 3e-5  # of AdamW; rises linearly over the warm-up and falls linearly to 0
    weight_decay: _NotNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    max_grad_norm: _NotNegative = 1.0
    epochs: _Positive = 3.0
    max_steps: _Count | None = None  # overrides epochs
    batch_size: _Count = 32  # sequences per step, over all processes
    micro_batch_size: _Count | None = None  # sequences in memory at once; the result is the same
    eval_steps: _Count | None = None  # once per epoch by default
    patience: _Count | None = None  # stop after this many evaluations without improvement
    metric: str | None = None  # what the best step is chosen on; the task's own metric by default
    class_weights: Literal["none", "balanced"] = "none"  # balanced: n / (classes * count)
    reverse_complement: bool = False  # read each training sequence on the other strand half of the time
    strands: Literal["forward", "both"] = "forward"  # both: predictions are averaged over the two strands
    max_tokens: Annotated[int, Field(ge=3)] | None = None  # truncate sequences, special tokens counted
    # {"type": "linear" | "dynamic", "factor": f}; by default as much as the longest sequence needs
    rope_scaling: dict[str, Any] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # of training and predictions
    lora: Lora = Lora()
    training: dict[str, Any] = {}  # other fields of transformers.TrainingArguments
