"""Recipes of pre-training: the whole experiment in one YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mutbert.settings import Settings, Words, read_settings
from mutbert.windows.masking import LONGEST_WINDOW, Masking, Tempering, Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Evaluation(Settings):
    """The fixed held-out evaluation: the same windows and targets at every evaluation and for every recipe.

    Every target is hidden: a predictor that sees a part of the answers could not be compared with one that sees none.
    Frequencies are never tempered here.
    """

    windows: Annotated[int, Field(ge=1)] = 512
    seed: Seed = 1
    share: Annotated[float, Field(gt=0, le=1)] = 0.15  # of positions that are targets, variant positions first

    @property
    def masking(self) -> Masking:
        """Masking that hides every target and takes variant positions first."""
        return Masking(policy="variants_first", share=self.share, replace=1.0, random=0.0, keep=0.0)


class Dropout(Settings):
    """When dropout is on in training; its rate is the model's own setting.

    With ``epoch_start``, for the first `on_steps` of each `epoch_steps` alone: the published code left the model in
    evaluation mode from an epoch's first evaluation on, for 97% of the steps, as the defaults do.
    """

    schedule: Literal["throughout", "epoch_start"] = "throughout"
    on_steps: Annotated[int, Field(ge=0)] = 500
    epoch_steps: Annotated[int, Field(ge=1)] = 16_700

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on_steps > self.epoch_steps:
            raise ValueError(f"on_steps is {self.on_steps}, more than epoch_steps, {self.epoch_steps}")
        return self

    def is_on(self, step: int) -> bool:
        """Return whether dropout is on in a step, counted from 0."""
        return self.schedule == "throughout" or step % self.epoch_steps < self.on_steps


class PretrainRecipe(Settings):
    """A pre-training run."""

    genome: Annotated[Words, Field(min_length=1)]  # the genome store, or several
    output: str  # the run's folder
    # Contigs, regions (chr22:101-200) or BED files that are held out for the evaluation; likewise what is trained on,
    # by default everything else.
    held_out: Annotated[Words, Field(min_length=1)]
    train: Words = ()
    seed: Seed = 66  # of windows, masks, initial weights and dropout
    window_length: Annotated[int, Field(ge=1, le=LONGEST_WINDOW)] = 510  # bases, without [CLS] and [SEP]
    # Windows per step over all processes, from which gradient accumulation follows, so that the recipe trains the same
    # model with any number of processes; by default the product of per_device_train_batch_size,
    # gradient_accumulation_steps and processes.
    windows_a_step: Annotated[int, Field(ge=1)] | None = None
    reverse_complement: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of training windows on the reverse strand
    # Whether the model is trained on allele frequencies or on the reference base; the evaluation is of frequencies.
    frequencies: Literal["population", "reference"] = "population"
    masking: Masking = Masking()
    tempering: Tempering = Tempering()
    weighting: Weighting = Weighting()
    dropout: Dropout = Dropout()
    evaluation: Evaluation = Evaluation()
    initial_model: str | None = None  # folder or repository of a model to start from instead of random weights
    model: dict[str, Any] = {}  # fields of MutBertConfig; with initial_model, those that differ
    training: dict[str, Any] = {}  # fields of transformers.TrainingArguments, with max_steps

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.masking.policy == "spans" and self.masking.span_length > self.window_length:
            raise ValueError(
                f"masking.span_length is {self.masking.span_length}, longer than a window of {self.window_length}"
            )
        for name, masking in (("masking", self.masking), ("evaluation", self.evaluation.masking)):
            if masking.targets(self.window_length) < 1:
                raise ValueError(f"{name}.share of {self.window_length} positions is none; raise the share")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Return the recipe of a YAML file or of a name that comes with this package (``small``), ``key=value`` on top."""
    return read_settings(PretrainRecipe, path, overrides, shipped="recipes")
