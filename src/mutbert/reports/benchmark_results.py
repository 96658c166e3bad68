"""What the report of a benchmark says, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Score:
    """What a model reaches on a task.

    Parameters
    ----------
    suite, task, model : str
        What was run on what.
    method : str
        How the model was fitted: ``"full"``, ``"lora"``, ``"probe"``, or ``""`` where there is one way alone.
    protocol : str
        ``"published"`` or ``"corrected"``.
    metric : str
        ``"mcc"`` say.
    value, low, high : float
        Mean over seeds and the ends of its 95 % interval; not a number where there is none.
    per_seed : tuple of float
        The value of each seed.
    published : float, optional
        The paper's number, in the same scale.
    """

    suite: str
    task: str
    model: str
    method: str
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    published: float | None = None


@dataclass(frozen=True)
class Average:
    """The mean of a model over a suite's tasks.

    Parameters
    ----------
    suite, model, method, protocol, metric, value, low, high
        As those of `Score`.
    tasks, of_tasks : int
        Tasks that the mean is over, and tasks that the suite has.
    parameters : int, optional
        Numbers in the model.
    published : float, optional
        The paper's own number for this model and suite, over all of its tasks.
    """

    suite: str
    model: str
    method: str
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    tasks: int
    of_tasks: int
    parameters: int | None
    published: float | None = None


@dataclass(frozen=True)
class PaperRow:
    """An average of the paper, of a model that need not have been run here; parameters as those of `Average`."""

    suite: str
    model: str
    metric: str
    value: float
    parameters: int | None


@dataclass(frozen=True)
class Comparison:
    """A paired difference.

    Parameters
    ----------
    suite, task, protocol, metric : str
        What was compared on; `task` is empty for a whole suite.
    first, second : str
        What was compared, ``"small (full)"`` say.
    difference, low, high : float
        The first minus the second, and the ends of its 95 % interval.
    p_value, adjusted_p : float
        Probability of a difference as great if there were none; the latter for all comparisons together.
    method : str
        How it was computed.
    """

    suite: str
    task: str
    protocol: str
    first: str
    second: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted_p: float
    method: str


@dataclass(frozen=True)
class Failure:
    """A run that gave no score; `reason` says why in one line."""

    suite: str
    task: str
    model: str
    method: str
    protocol: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Cost:
    """What a model took on a suite.

    Parameters
    ----------
    suite, model, method, protocol : str
        As those of `Score`.
    cells : int
        Runs, one a task and seed.
    seconds : float
        All of them together.
    tokens_per_second : float, optional
        In training.
    peak_memory : int, optional
        Bytes.
    """

    suite: str
    model: str
    method: str
    protocol: str
    cells: int
    seconds: float
    tokens_per_second: float | None
    peak_memory: int | None


@dataclass(frozen=True)
class SplitFact:
    """A part of a task's data.

    Parameters
    ----------
    suite, task, split : str
        Which one.
    examples : int
        Sequences in it.
    duplicates : int
        Those that are in it before.
    in_train : int
        Those that are in the training split too.
    dropped : int
        Those that were not used.
    sha256 : str
        Of its file.
    """

    suite: str
    task: str
    split: str
    examples: int
    duplicates: int
    in_train: int
    dropped: int
    sha256: str


@dataclass(frozen=True)
class BenchmarkReport:
    """What the report of a benchmark says.

    Parameters
    ----------
    name : str
        The benchmark's name.
    scores : sequence of Score
        A task, model, method, protocol and metric each. Their order sets that of tasks.
    averages : sequence of Average
        A suite, model, method, protocol and metric each. Their order sets that of suites, models and protocols; the
        first metric of a suite and protocol is the one that models are ranked and drawn by.
    paper : sequence of PaperRow
        What the paper has.
    comparisons : sequence of Comparison
        Paired differences.
    failures : sequence of Failure
        What gave no score.
    costs : sequence of Cost
        What it took.
    splits : sequence of SplitFact
        The data.
    facts : mapping of str to str
        What the benchmark was made of, by name.
    notes : sequence of str
        What the reader must know before all else.
    interval_method : str
        How the intervals of scores and averages were computed.
    """

    name: str
    scores: Sequence[Score]
    averages: Sequence[Average]
    paper: Sequence[PaperRow]
    comparisons: Sequence[Comparison]
    failures: Sequence[Failure]
    costs: Sequence[Cost]
    splits: Sequence[SplitFact]
    facts: Mapping[str, str]
    notes: Sequence[str] = ()
    interval_method: str = field(kw_only=True)
