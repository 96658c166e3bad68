"""A recipe is the whole experiment: YAML in, resolved YAML out.

Every key is checked; an unknown one is refused with the nearest that there is.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mutbert.errors import InputError, one_line
from mutbert.windows.masking import LONGEST_WINDOW, Masking
from mutbert.windows.tempering import Tempering
from mutbert.windows.weighting import Weighting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        return yaml.safe_dump(_plain(dataclasses.asdict(self)), sort_keys=False)


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
    try:
        tree = yaml.load(source.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - derives from SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}); give a recipe in YAML, or one of {', '.join(sorted(shipped))}"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not a recipe; expected lines of 'key: value'")
    for override in overrides:
        _override(tree, override)
    try:
        recipe: PretrainRecipe = _build(PretrainRecipe, tree, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def resolved(recipe: PretrainRecipe, windows_a_step: int) -> PretrainRecipe:
    """Say in a recipe how many windows a step takes, so that it says the same for any number of processes."""
    training = {name: value for name, value in recipe.training.items() if name != "gradient_accumulation_steps"}
    return dataclasses.replace(recipe, windows_a_step=windows_a_step, training=training)


def check_keys(given: Iterable[str], known: Iterable[str], place: str) -> None:
    """Refuse a key that is not known, and name the nearest that is.

    Raises
    ------
    InputError
        For the first unknown key.
    """
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            remedy = f"did you mean {place}{near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"unknown key {place}{key}; {remedy}")


def _build(kind: Any, tree: Mapping[str, Any], place: str) -> Any:
    """Make a dataclass of a mapping, with its types checked."""
    types_of = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    check_keys(tree, fields, place)
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise InputError(f"{place}{name} is missing; add it to the recipe or give {place}{name}=...")
    return kind(**{name: _value(types_of[name], value, place + name) for name, value in tree.items()})


def _value(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError(f"{place} is {value!r}; expected nested keys")
        return _build(kind, value, place + ".")
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        # An optional value, of one kind.
        (kind,) = (entry for entry in typing.get_args(kind) if entry is not types.NoneType)
        return None if value is None else _value(kind, value, place)
    if origin is tuple:
        entries = [value] if isinstance(value, (str, int)) else value
        if not isinstance(entries, list):
            raise InputError(f"{place} is {value!r}; expected a list")
        # A contig called 22 is a number to YAML.
        return tuple(str(entry) for entry in entries)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{place} is {value!r}; expected nested keys")
        return dict(value)
    if origin is Literal:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{place} is {value!r}; expected {kind.__name__}")
    return value


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is not of the form key=value, for example training.max_steps=100")
    *parents, name = key.split(".")
    branch = tree
    for parent in parents:
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"{override!r}: {parent} holds no nested keys")
    try:
        branch[name] = yaml.load(text, Loader=_Loader)  # noqa: S506 - derives from SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is not YAML: {one_line(error)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _check_seed(name: str, seed: int) -> None:
    if not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"{name} is {seed}; it must be from 0 to {_LARGEST_SEED}")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 4e-4 is a number, no is a word and not false; and a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)
