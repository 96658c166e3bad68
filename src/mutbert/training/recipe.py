"""A recipe is the whole experiment: YAML in, resolved YAML out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping  # noqa: TC003 - the types of settings are looked at when they are read
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mutbert.settings import read_settings, settings_text
from mutbert.windows.masking import LONGEST_WINDOW, Masking, Tempering, Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST_SEED = 2**32 - 1
# The published windows; shared by every kind of run that does not say otherwise.
_PUBLISHED_WINDOW = 510


@dataclass(frozen=True)
class Evaluation:
    """The fixed held-out evaluation.

    The same windows and the same targets are used at every evaluation and for every recipe, and every target is
    hidden: a predictor that sees a part of the answers could not be compared with one that sees none. Frequencies
    are never tempered here.

    Parameters
    ----------
    windows : int
        Held-out windows.
    seed : int
        What the windows and targets depend on.
    share : float
        Share of positions that are targets; variant positions first, so that there are enough of them.
    """

    windows: int = 512
    seed: int = 1
    share: float = 0.15

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise ValueError(f"evaluation.windows is {self.windows}; there must be at least 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"evaluation.share is {self.share}; it must be above 0 and at most 1")
        _check_seed("evaluation.seed", self.seed)

    @property
    def masking(self) -> Masking:
        """Every target is hidden, variant positions are taken first."""
        return Masking(policy="variants_first", share=self.share, replace=1.0, random=0.0, keep=0.0)


@dataclass(frozen=True)
class Dropout:
    """When dropout is on in training; how much of it is the model's own setting.

    Parameters
    ----------
    schedule : {"throughout", "epoch_start"}
        ``epoch_start`` has it on for the first steps of each epoch alone. The published code did so, as it left the
        model in evaluation mode from the first evaluation of an epoch to the next epoch; it is there to reproduce it.
    on_steps, epoch_steps : int
        For ``epoch_start``: steps with dropout, and steps of an epoch. The defaults make it off for the 97 % of the
        steps for which it was in the published run, which was evaluated every 500 steps.
    """

    schedule: Literal["throughout", "epoch_start"] = "throughout"
    on_steps: int = 500
    epoch_steps: int = 16_700

    def __post_init__(self) -> None:
        if self.schedule not in {"throughout", "epoch_start"}:
            raise ValueError(f"dropout.schedule is {self.schedule!r}; choose throughout or epoch_start")
        if not 0 <= self.on_steps <= self.epoch_steps or self.epoch_steps < 1:
            raise ValueError(
                f"dropout.on_steps and epoch_steps are {self.on_steps} and {self.epoch_steps}; the first must be from "
                "0 to the second"
            )

    def is_on(self, step: int) -> bool:
        """Say whether dropout is on in a step, counted from 0."""
        return self.schedule == "throughout" or step % self.epoch_steps < self.on_steps


@dataclass(frozen=True)
class PretrainRecipe:
    """A pre-training run.

    Parameters
    ----------
    genome : tuple of str
        The genome store, or several; one alone may be given without a list.
    output : str
        The run's folder.
    held_out : tuple of str
        Contigs, regions (``chr22:101-200``) or BED files that are never trained on, for the evaluation.
    train : tuple of str
        Likewise, what is trained on; everything that is not held out where empty.
    seed : int
        What windows, masks, initial weights and dropout depend on.
    window_length : int
        Bases of a window; the model sees two tokens more, ``[CLS]`` and ``[SEP]``.
    windows_a_step : int, optional
        Windows of an optimisation step, over all processes. The accumulation of gradients follows from it, so that
        the recipe trains the same model with any number of processes. Where it is left out, it is the product of
        ``per_device_train_batch_size``, ``gradient_accumulation_steps`` and the processes.
    reverse_complement : float
        Share of training windows that are read from the reverse strand.
    frequencies : {"population", "reference"}
        Whether the model is shown and taught allele frequencies, or the reference base alone. The evaluation is about
        frequencies either way.
    masking : Masking
        How targets are chosen and corrupted.
    tempering : Tempering
        How allele frequencies are tempered.
    weighting : Weighting
        What targets count in the loss.
    dropout : Dropout
        When dropout is on.
    evaluation : Evaluation
        The held-out evaluation.
    initial_model : str, optional
        A model to go on from, a folder or a name on the Hub, in place of random weights.
    model : mapping
        Fields of `mutbert.model.MutBertConfig`; with `initial_model`, what differs from its own.
    training : mapping
        Fields of `transformers.TrainingArguments`; `max_steps` must be among them.
    """

    genome: tuple[str, ...]
    output: str
    held_out: tuple[str, ...]
    train: tuple[str, ...] = ()
    seed: int = 66
    window_length: int = _PUBLISHED_WINDOW
    windows_a_step: int | None = None
    reverse_complement: float = 0.0
    frequencies: Literal["population", "reference"] = "population"
    masking: Masking = field(default_factory=Masking)
    tempering: Tempering = field(default_factory=Tempering)
    weighting: Weighting = field(default_factory=Weighting)
    dropout: Dropout = field(default_factory=Dropout)
    evaluation: Evaluation = field(default_factory=Evaluation)
    initial_model: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.held_out:
            raise ValueError("held_out is empty; name a contig, region or BED file to evaluate on")
        if not self.genome:
            raise ValueError("genome is empty; name a genome store")
        if not 1 <= self.window_length <= LONGEST_WINDOW:
            raise ValueError(f"window_length is {self.window_length}; it must be from 1 to {LONGEST_WINDOW}")
        if self.masking.policy == "spans" and self.masking.span_length > self.window_length:
            raise ValueError(
                f"masking.span_length is {self.masking.span_length}, longer than a window of {self.window_length}"
            )
        if self.windows_a_step is not None and self.windows_a_step < 1:
            raise ValueError(f"windows_a_step is {self.windows_a_step}; it must be at least 1")
        if not 0 <= self.reverse_complement <= 1:
            raise ValueError(f"reverse_complement is {self.reverse_complement}; it is a share, from 0 to 1")
        if self.frequencies not in {"population", "reference"}:
            raise ValueError(f"frequencies is {self.frequencies!r}; choose population or reference")
        for name, masking in (("masking", self.masking), ("evaluation", self.evaluation.masking)):
            if masking.targets(self.window_length) < 1:
                raise ValueError(f"{name}.share of {self.window_length} positions is none; raise the share")
        _check_seed("seed", self.seed)

    def as_yaml(self) -> str:
        """Write every setting, the defaults included."""
        return settings_text(self)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read a pre-training recipe.

    Parameters
    ----------
    path : str or Path
        A YAML file, or the name of a recipe that comes with this package (``small``).
    overrides : sequence of str
        ``key=value`` with dots for nesting, for example ``training.max_steps=100``; values are YAML.

    Returns
    -------
    PretrainRecipe
        Checked, but for the two mappings handed to other libraries, which the run checks.

    Raises
    ------
    InputError
        When the file cannot be read, or holds an unknown key or a value that cannot be.
    """
    shipped = {Path(entry.name).stem: entry for entry in files("mutbert").joinpath("recipes").iterdir()}
    source = shipped.get(str(path), Path(path))
    return read_settings(
        PretrainRecipe, source, overrides, remedy=f"give a recipe in YAML, or one of {', '.join(sorted(shipped))}"
    )


def resolved(recipe: PretrainRecipe, windows_a_step: int) -> PretrainRecipe:
    """Say in a recipe how many windows a step takes, so that it says the same for any number of processes."""
    training = {name: value for name, value in recipe.training.items() if name != "gradient_accumulation_steps"}
    return dataclasses.replace(recipe, windows_a_step=windows_a_step, training=training)


def _check_seed(name: str, seed: int) -> None:
    if not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"{name} is {seed}; it must be from 0 to {_LARGEST_SEED}")
