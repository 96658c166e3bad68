"""A recipe is the whole experiment: YAML in, resolved YAML out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mutbert.settings import Settings, Words, read_settings
from mutbert.windows.masking import LONGEST_WINDOW, Masking, Tempering, Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The published windows; shared by every kind of run that does not say otherwise.
_PUBLISHED_WINDOW = 510

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
    """When dropout is on in training; how much of it is the model's own setting.

    ``epoch_start`` has it on for the first `on_steps` of each epoch's `epoch_steps` alone. The published code did so,
    as it left the model in evaluation mode from the first evaluation of an epoch to the next epoch; the defaults make
    it off for the 97 % of the steps for which it was in the published run, which was evaluated every 500 steps.
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
    """A pre-training run.

    Parameters
    ----------
    genome : str or sequence of str
        The genome store, or several.
    output : str
        The run's folder.
    held_out : str or sequence of str
        Contigs, regions (``chr22:101-200``) or BED files that are never trained on, for the evaluation.
    train : str or sequence of str
        Likewise, what is trained on; everything that is not held out where empty.
    seed : int
        What windows, masks, initial weights and dropout depend on.
    window_length : int
        Bases of a window; the model sees two more tokens, ``[CLS]`` and ``[SEP]``.
    windows_a_step : int, optional
        Windows of an optimisation step, over all processes. The accumulation of gradients follows from it, so that
        the recipe trains the same model with any number of processes. By default, the product of
        ``per_device_train_batch_size``, ``gradient_accumulation_steps`` and the processes.
    reverse_complement : float
        Share of training windows that are read from the reverse strand.
    frequencies : {"population", "reference"}
        Whether the model is shown and taught allele frequencies, or the reference base alone. The evaluation is about
        frequencies either way.
    masking, tempering, weighting, dropout, evaluation
        How targets are chosen and corrupted, frequencies tempered and targets weighted; when dropout is on; and the
        held-out evaluation.
    initial_model : str, optional
        A model to start from, a folder or a name on the Hub, in place of random weights.
    model : mapping
        Fields of `mutbert.model.MutBertConfig`; with `initial_model`, what differs from its own.
    training : mapping
        Fields of `transformers.TrainingArguments`, with ``max_steps``; validated by the run, as `model` is.
    """

    genome: Annotated[Words, Field(min_length=1)]
    output: str
    held_out: Annotated[Words, Field(min_length=1)]
    train: Words = ()
    seed: Seed = 66
    window_length: Annotated[int, Field(ge=1, le=LONGEST_WINDOW)] = _PUBLISHED_WINDOW
    windows_a_step: Annotated[int, Field(ge=1)] | None = None
    reverse_complement: Annotated[float, Field(ge=0, le=1)] = 0.0
    frequencies: Literal["population", "reference"] = "population"
    masking: Masking = Masking()
    tempering: Tempering = Tempering()
    weighting: Weighting = Weighting()
    dropout: Dropout = Dropout()
    evaluation: Evaluation = Evaluation()
    initial_model: str | None = None
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}

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
