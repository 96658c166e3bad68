"""Suites of tasks as data: a task is a row, and one's own suite is a YAML file of the same form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from mutbert.encoders.known import Family
from mutbert.examples.columns import TableColumns
from mutbert.scoring.metrics import LOWER_IS_BETTER, metric_names
from mutbert.settings import Settings, Words, read_settings, shipped_names
from mutbert.training.finetune_settings import FinetuneSettings

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS: Final = ("published", "corrected")
"""As published, known flaws included, so that numbers can be compared; and with these flaws fixed."""
VERSION: Final = 1
FAMILIES: Final = (*get_args(Family), "cnn")
"""Of models, and of the baseline that is trained; settings may differ by them."""

_Families: TypeAlias = Literal[FAMILIES]  # type: ignore[valid-type]
_Protocols: TypeAlias = Literal[PROTOCOLS]  # type: ignore[valid-type]
_Count = Annotated[int, Field(ge=1)]


class Task(Settings):
    """One task of a suite.

    Parameters
    ----------
    name : str
        What it is called, in paths too.
    length : int
        Bases of its sequences, for lists; sequences of other lengths are taken as they are.
    problem : {"binary", "multiclass", "multilabel", "regression", "token"}
        What its labels are.
    classes : tuple of str
        Names of the classes in the order of their numbers, for problems with classes.
    published_tokens : mapping of str to int
        What the published protocol cuts to, special tokens counted, by family of models; overrides the protocol's own.
    published_rope_factor : float, optional
        Dynamic RoPE scaling of the published protocol.
    metric : str, optional
        In place of the suite's.
    """

    name: str
    length: int
    problem: Literal["binary", "multiclass", "multilabel", "regression", "token"] = "binary"
    classes: Words = ("0", "1")
    published_tokens: dict[_Families, int] = {}
    published_rope_factor: float | None = None
    metric: str | None = None


class Protocol(Settings):
    """How models are fine-tuned and compared.

    Parameters
    ----------
    finetune : FinetuneSettings
        How a model is fine-tuned; the method is the user's choice.
    by_family : mapping of str to mapping
        What differs for a family of models, such as the learning rate of a network without pre-training.
    max_tokens : mapping of str to int
        What longer sequences are cut to, by family of models.
    validation : {"file", "random", "grouped"}
        A file of its own; a random share of the training data; or a share of each class in which equal sequences, of
        either strand, stay on one side.
    validation_share : float
        That share.
    max_train_rows : int, optional
        At most this many training sequences, the same for every seed and model.
    first_seed, seeds : int
        The seeds, one after the other.
    """

    finetune: FinetuneSettings = FinetuneSettings()
    by_family: dict[_Families, dict[str, Any]] = {}
    max_tokens: dict[_Families, int] = {}
    validation: Literal["file", "random", "grouped"] = "grouped"
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    max_train_rows: Annotated[int, Field(ge=2)] | None = None
    first_seed: Annotated[int, Field(ge=0)] = 1
    seeds: _Count = 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        for family in self.by_family:
            self.settings_for(family)
        return self

    def settings_for(self, family: str) -> FinetuneSettings:
        """Return the settings of a family of models."""
        return self.finetune.replace(**self.by_family.get(family, {}))


class EqtlColumns(Settings):
    """Which columns of a table of variants mean what; positions are 1-based, distances in bases."""

    contig: str = "CHROM"
    position: str = "POS"
    reference: str = "REF"
    alternate: str = "ALT"
    tissue: str = "tissue"
    label: str = "label"  # 1 where the variant is causal
    distance: str = "distance_to_nearest_tss"
    split: str = "split"  # train or test


class EqtlTask(Settings):
    """Variants at some distance from the nearest transcription start site, in bases on either side."""

    name: str
    from_distance: int
    to_distance: int | None = None


class EqtlProtocol(Settings):
    """How variants are told apart by embeddings of the window around them.

    Parameters
    ----------
    c : tuple
        Inverse penalties of the head that are tried.
    choose_c_on : {"validation", "test"}
        On contigs held out of the training data; or on the test data, as was published.
    scores : {"decision", "labels"}
        What the AUROC is computed of: decision values; or hard labels, as was published.
    tissue : {"one-hot", "number"}
        How the tissue is encoded: a feature for each; or a number, as if tissues had an order.
    special_tokens : bool
        Put ``[CLS]`` and ``[SEP]`` around a window, as in training.
    edges : {"lower", "both"}
        Whether a variant exactly at the border of two tasks is in the farther one alone, or in both.
    max_train_rows : int
        At most this many training variants, drawn by seed.
    rope_factor : float, optional
        Dynamic RoPE scaling; by default as much as the window needs.
    pooled_tokens : int
        The window's embedding is the mean over this many tokens around the variant.
    first_seed, seeds : int
        The seeds, one after the other.
    """

    c: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    choose_c_on: Literal["validation", "test"]
    scores: Literal["decision", "labels"]
    tissue: Literal["one-hot", "number"]
    special_tokens: bool
    edges: Literal["lower", "both"]
    max_train_rows: Annotated[int, Field(ge=2)] = 5000
    rope_factor: float | None = None
    pooled_tokens: _Count = 1536
    first_seed: Annotated[int, Field(ge=0)] = 1
    seeds: _Count = 5


class EqtlSuite(Settings):
    """A table of variants, told apart by embeddings of windows of `length` bases."""

    tasks: Annotated[tuple[EqtlTask, ...], Field(min_length=1)]
    protocols: Annotated[dict[_Protocols, EqtlProtocol], Field(min_length=1)]
    columns: EqtlColumns = EqtlColumns()
    length: int = 2048


class PaperAverage(Settings):
    """What the paper reports for a model, `name` here: the suite's metric, averaged over its tasks."""

    model: str
    name: str
    value: float
    parameters: int


class Suite(Settings):
    """A suite of tasks.

    Parameters
    ----------
    version : int
        Of the form of this file.
    name, title, source : str
        What it is called, in words too, and where it comes from.
    metric : str
        What models are compared by.
    files : tuple of str
        Where a task's files are below the folder or the data set on the Hub that the user names, ``{task}`` and
        ``{split}`` filled in; the first that exists is taken.
    splits : mapping of str to str
        What train, validation and test are called in these names.
    columns : TableColumns
        What their columns mean.
    task_column : str, optional
        Where all tasks are in one file, the column that tells them apart.
    tasks : tuple of Task
        The tasks.
    protocols : mapping of str to Protocol
        See `PROTOCOLS`.
    eqtl : EqtlSuite, optional
        In place of tasks and protocols.
    paper : tuple of PaperAverage
        What the paper reports.
    """

    version: Literal[1]
    name: Annotated[str, Field(pattern="^[^/]+$")]
    title: str
    metric: str
    files: tuple[str, ...]
    source: str = ""
    splits: dict[Literal["train", "validation", "test"], str] = {"train": "train", "test": "test"}
    columns: TableColumns = TableColumns()
    task_column: str | None = None
    tasks: tuple[Task, ...] = ()
    protocols: dict[_Protocols, Protocol] = {}
    eqtl: EqtlSuite | None = None
    paper: tuple[PaperAverage, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = self.eqtl or self
        names = [task.name for task in parts.tasks]
        if not names or not parts.protocols:
            raise ValueError("has no tasks or no protocols; add at least one of each")
        if len(set(names)) < len(names):
            raise ValueError(f"task {max(names, key=names.count)} comes twice")
        if self.eqtl is not None:
            _check_metric(self.metric, "binary", "")
            return self
        for pattern in self.files:
            _check_pattern(pattern)
        if not {"train", "test"} <= self.splits.keys() or len(set(self.splits.values())) < len(self.splits):
            raise ValueError("splits: name train and test, each differently")
        for task in self.tasks:
            _check_metric(task.metric or self.metric, task.problem, f"task {task.name}: ")
        return self

    def metric_of(self, task: Task) -> str:
        """Return what a task's models are compared by."""
        return task.metric or self.metric

    def max_tokens(self, task: Task, protocol: str, family: str) -> int | None:
        """Return what a family's sequences are cut to in a protocol; None where they are not."""
        most = self.protocols[protocol].max_tokens.get(family)
        return task.published_tokens.get(family, most) if protocol == "published" else most

    def rope_scaling(self, task: Task, protocol: str, family: str) -> dict[str, Any] | None:
        """Return the RoPE scaling of a protocol; None for as much as is needed."""
        factor = task.published_rope_factor
        if protocol != "published" or family != "mutbert" or factor is None:
            return None
        return {"type": "dynamic", "factor": factor}


def _check_pattern(pattern: str) -> None:
    try:
        paths = [pattern.format(task="", split=split) for split in ("a", "b")]
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ValueError(f"files: {pattern!r} contains other braces than {{task}} and {{split}}") from None
    if paths[0] == paths[1]:
        raise ValueError(f"files: {pattern!r} has no {{split}}, so training and test data would be the same file")


def _check_metric(metric: str, problem: str, prefix: str) -> None:
    names = metric_names("multiclass" if problem == "token" else problem)
    if metric not in names:
        raise ValueError(f"{prefix}metric is {metric!r}; metrics of {problem} problems are {', '.join(names)}")
    if metric in LOWER_IS_BETTER:
        raise ValueError(f"{prefix}metric is {metric!r}, where lower is better; choose one where higher is better")


def shipped_suites() -> list[str]:
    """Return the names of the suites that come with this package."""
    return shipped_names("suites")


def load_suite(name: str | Path) -> Suite:
    """Return the suite of a YAML file, or of a name that comes with this package."""
    return read_settings(Suite, name, shipped="suites")
