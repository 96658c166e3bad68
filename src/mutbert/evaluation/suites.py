"""Suites of tasks as data: a task is a row, and one's own suite is a YAML file of the same form."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the types of settings are looked at when they are read
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, get_args

from mutbert.encoders.known import Family
from mutbert.errors import InputError
from mutbert.examples.columns import TableColumns
from mutbert.examples.table import PROBLEMS
from mutbert.examples.task_data import SPLITS
from mutbert.scoring.metrics import LOWER_IS_BETTER, metric_names
from mutbert.settings import check_keys, read_settings, with_values
from mutbert.training.finetune_settings import FinetuneSettings

PROTOCOLS: Final = ("published", "corrected")
"""As it was done, mistakes included, so that numbers can be compared; and as it should be."""
VERSION: Final = 1
FAMILIES: Final = (*get_args(Family), "cnn")
"""Of models, and of the baseline that is trained; settings may differ by them."""
_SHIPPED: Final = files("mutbert").joinpath("suites")


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Parameters
    ----------
    name : str
        What it is called, in paths too.
    length : int
        Bases of its sequences, for lists; sequences of other lengths are taken as they are.
    problem : str
        One of `mutbert.examples.table.PROBLEMS`.
    classes : tuple of str
        Names of the classes in the order of their numbers, for problems with classes.
    published_tokens : mapping of str to int
        What the published protocol cuts to, special tokens counted, by family of models; besides the protocol's own.
    published_rope_factor : float, optional
        Dynamic RoPE scaling of the published protocol.
    metric : str, optional
        In place of the suite's.
    """

    name: str
    length: int
    problem: str = "binary"
    classes: tuple[str, ...] = ("0", "1")
    published_tokens: Mapping[str, int] = field(default_factory=dict)
    published_rope_factor: float | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.problem not in PROBLEMS:
            raise ValueError(f"task {self.name}: problem is {self.problem!r}; choose one of {', '.join(PROBLEMS)}")
        if self.metric is not None:
            check_metric(self.metric, self.problem, f"task {self.name}: ")
        check_keys(self.published_tokens, FAMILIES, f"task {self.name}: published_tokens.")


@dataclass(frozen=True)
class Protocol:
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
        At most so many training sequences, the same for every seed and model.
    first_seed, seeds : int
        The seeds, one after the other.
    """

    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    by_family: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    validation: Literal["file", "random", "grouped"] = "grouped"
    validation_share: float = 0.1
    max_train_rows: int | None = None
    first_seed: int = 1
    seeds: int = 5

    def __post_init__(self) -> None:
        if self.max_train_rows is not None and self.max_train_rows < 2:
            raise ValueError(f"max_train_rows is {self.max_train_rows}; it must be at least 2")
        if self.validation not in {"file", "random", "grouped"}:
            raise ValueError(f"validation is {self.validation!r}; choose file, random or grouped")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; it must be above 0 and below 1")
        if self.seeds < 1 or self.first_seed < 0:
            raise ValueError(f"seeds are {self.seeds} from {self.first_seed} on; give at least one, from 0 on")
        check_keys(self.max_tokens, FAMILIES, "max_tokens.")
        check_keys(self.by_family, FAMILIES, "by_family.")
        for family in self.by_family:
            self.settings_for(family)

    def settings_for(self, family: str) -> FinetuneSettings:
        """Give the settings of a family of models."""
        return with_values(self.finetune, self.by_family.get(family, {}), f"by_family.{family}.")


@dataclass(frozen=True)
class EqtlColumns:
    """Which columns of a table of variants mean what.

    Parameters
    ----------
    contig, position, reference, alternate : str
        The variant; positions are 1-based.
    tissue, label, distance, split : str
        The tissue; 1 where the variant is causal; the distance to the nearest transcription start site in bases; and
        whether a row is for ``train`` or ``test``.
    """

    contig: str = "CHROM"
    position: str = "POS"
    reference: str = "REF"
    alternate: str = "ALT"
    tissue: str = "tissue"
    label: str = "label"
    distance: str = "distance_to_nearest_tss"
    split: str = "split"


@dataclass(frozen=True)
class EqtlTask:
    """Variants at some distance from the nearest transcription start site.

    Parameters
    ----------
    name : str
        What it is called.
    from_distance, to_distance : int
        In bases, on either side; without an end where the second is left out.
    """

    name: str
    from_distance: int
    to_distance: int | None = None


@dataclass(frozen=True)
class EqtlProtocol:
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
        How the tissue is told: a feature for each; or a number, as if tissues had an order.
    special_tokens : bool
        Put ``[CLS]`` and ``[SEP]`` around a window, as in training.
    edges : {"lower", "both"}
        Whether a variant exactly at the border of two tasks is in the farther one alone, or in both.
    max_train_rows : int
        At most so many training variants, drawn by seed.
    rope_factor : float, optional
        Dynamic RoPE scaling; as much as the window needs where left out.
    pooled_tokens : int
        The window's embedding is the mean over so many tokens around the variant.
    first_seed, seeds : int
        The seeds, one after the other.
    """

    c: tuple[str, ...]
    choose_c_on: Literal["validation", "test"]
    scores: Literal["decision", "labels"]
    tissue: Literal["one-hot", "number"]
    special_tokens: bool
    edges: Literal["lower", "both"]
    max_train_rows: int = 5000
    rope_factor: float | None = None
    pooled_tokens: int = 1536
    first_seed: int = 1
    seeds: int = 5

    def __post_init__(self) -> None:
        for name, choices in (
            ("choose_c_on", ("validation", "test")),
            ("scores", ("decision", "labels")),
            ("tissue", ("one-hot", "number")),
            ("edges", ("lower", "both")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")
        if self.max_train_rows < 2 or self.pooled_tokens < 1 or self.seeds < 1 or self.first_seed < 0:
            raise ValueError("max_train_rows, pooled_tokens and seeds must be above 0, and first_seed at least 0")
        if not self.penalties or not all(value > 0 for value in self.penalties):
            raise ValueError(f"c is {self.c}; give numbers above 0")

    @property
    def penalties(self) -> tuple[float, ...]:
        """The values of C as numbers."""
        return tuple(float(value) for value in self.c)


@dataclass(frozen=True)
class EqtlSuite:
    """A table of variants, told apart by embeddings.

    Parameters
    ----------
    tasks : tuple of EqtlTask
        Rows of the table by distance.
    protocols : mapping of str to EqtlProtocol
        See `PROTOCOLS`.
    columns : EqtlColumns
        What the table's columns are called.
    length : int
        Bases of a window.
    """

    tasks: tuple[EqtlTask, ...]
    protocols: Mapping[str, EqtlProtocol]
    columns: EqtlColumns = field(default_factory=EqtlColumns)
    length: int = 2048


@dataclass(frozen=True)
class PaperAverage:
    """What the paper gives for a model: the suite's metric, averaged over its tasks.

    Parameters
    ----------
    model : str
        What the paper calls it.
    name : str
        What it is called here.
    value : float
        The average.
    parameters : int
        How many weights it has.
    """

    model: str
    name: str
    value: float
    parameters: int


@dataclass(frozen=True)
class Suite:
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
        ``{split}`` filled in; the first that is there is taken.
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
        What the paper gives.
    """

    version: int
    name: str
    title: str
    metric: str
    files: tuple[str, ...]
    source: str = ""
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    columns: TableColumns = field(default_factory=TableColumns)
    task_column: str | None = None
    tasks: tuple[Task, ...] = ()
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    eqtl: EqtlSuite | None = None
    paper: tuple[PaperAverage, ...] = ()

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"version is {self.version}, and this version of mutbert reads {VERSION}; update mutbert")
        parts = self.eqtl or self
        names = [task.name for task in parts.tasks]
        if not names:
            raise ValueError("tasks is empty; give at least one")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"task {name} is given twice")
        unknown = sorted(parts.protocols.keys() - set(PROTOCOLS))
        if unknown or not parts.protocols:
            raise ValueError(f"protocols are {', '.join(unknown) or 'none'}; give {' or '.join(PROTOCOLS)}, or both")
        if self.eqtl is not None:
            check_metric(self.metric, "binary")
            return
        for task in self.tasks:
            check_metric(task.metric or self.metric, task.problem, f"task {task.name}: ")
        self._check_files()

    def _check_files(self) -> None:
        for pattern in self.files:
            try:
                paths = [pattern.format(task="", split=split) for split in ("a", "b")]
            except (KeyError, IndexError, ValueError, AttributeError):
                raise ValueError(f"files: {pattern!r} holds other braces than {{task}} and {{split}}") from None
            if paths[0] == paths[1]:
                # Training and test data would be the same file.
                raise ValueError(f"files: {pattern!r} has no {{split}}, by which training and test data are told apart")
        check_keys(self.splits, SPLITS, "splits.")
        for split in ("train", "test"):
            if split not in self.splits:
                raise ValueError(f"splits.{split} is missing; say what it is called")
        called = list(self.splits.values())
        if len(set(called)) < len(called):
            raise ValueError(f"splits are {', '.join(called)}; each has to be called something else")

    def metric_of(self, task: Task) -> str:
        """Give what a task's models are compared by."""
        return task.metric or self.metric

    def max_tokens(self, task: Task, protocol: str, family: str) -> int | None:
        """Say what a family's sequences are cut to in a protocol; ``None`` where they are not."""
        most = self.protocols[protocol].max_tokens.get(family)
        return task.published_tokens.get(family, most) if protocol == "published" else most

    def rope_scaling(self, task: Task, protocol: str, family: str) -> dict[str, Any] | None:
        """Give the RoPE scaling of a protocol; ``None`` for as much as is needed."""
        factor = task.published_rope_factor
        if protocol != "published" or family != "mutbert" or factor is None:
            return None
        return {"type": "dynamic", "factor": factor}


def check_metric(metric: str, problem: str, place: str = "") -> None:
    """Refuse a metric that a problem does not have, or by which models cannot be ranked.

    Raises
    ------
    ValueError
        With those that it has.
    """
    names = metric_names("multiclass" if problem == "token" else problem)
    if metric not in names:
        raise ValueError(f"{place}metric is {metric!r}; of {problem} problems there are {', '.join(names)}")
    if metric in LOWER_IS_BETTER:
        raise ValueError(
            f"{place}metric is {metric!r}, which is better where it is lower; choose one that is the reverse"
        )


def shipped_suites() -> list[str]:
    """Name the suites that come with this package."""
    return sorted(Path(entry.name).stem for entry in _SHIPPED.iterdir())


def load_suite(name: str | Path) -> Suite:
    """Read a suite.

    Parameters
    ----------
    name : str or Path
        The name of one that comes with this package, or a YAML file.

    Returns
    -------
    Suite
        Checked.

    Raises
    ------
    InputError
        When there is none of this name, or the file holds what cannot be.
    """
    shipped = shipped_suites()
    source = _SHIPPED.joinpath(f"{name}.yaml") if str(name) in shipped else Path(name)
    suite = read_settings(Suite, source, remedy=f"give a suite in YAML, or one of {', '.join(shipped)}")
    if not suite.name or "/" in suite.name:
        raise InputError(f"{name}: name is {suite.name!r}; give a word")
    return suite
