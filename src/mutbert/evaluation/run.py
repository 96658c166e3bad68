"""Tasks x models x seeds: a grid that can be stopped anywhere and goes on, and be spread over machines."""

from __future__ import annotations

import errno
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.evaluation.cost import measured
from mutbert.evaluation.eqtl_grid import EqtlWork, eqtl_cells
from mutbert.evaluation.results import (
    DONE,
    FAILED,
    Cell,
    CellResult,
    Predictions,
    read_results,
    refuse_others,
    results_writer,
)
from mutbert.evaluation.sequence_grid import BASELINES, SequenceWork, sequence_cells
from mutbert.evaluation.suites import PROTOCOLS, Suite, load_suite
from mutbert.evaluation.task_files import chosen_tasks, refuse_missing
from mutbert.files import atomic_file
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.training.finetune_settings import METHODS
from mutbert.training.provenance import provenance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mutbert.encoders.adapter import Encoder

SUITES: Final = "suites"
"""In a results folder: the suites as they were, in YAML."""
_FULL_DISK: Final = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class GridRequest:
    """What is to be run.

    Parameters
    ----------
    suites : tuple of str
        Names of suites that come with this package, or YAML files.
    data : mapping of str to str
        Where each suite's files are, by its name; see `mutbert.evaluation.task_files.load_task`.
    models : tuple of str
        Each a place, or ``NAME=PLACE``; see `mutbert.encoders.adapter.open_encoder`.
    methods : tuple of str
        Of `mutbert.training.finetune_settings.METHODS`.
    protocols : tuple of str
        Of `mutbert.evaluation.suites.PROTOCOLS`.
    tasks : tuple of str
        Those of these names alone.
    seeds : int, optional
        So many, in place of the protocols' own number.
    settings : tuple of str
        ``PROTOCOL.KEY=VALUE`` changes what a protocol is, ``KEY=VALUE`` both: fields of
        `mutbert.evaluation.suites.Protocol`, ``corrected.finetune.learning_rate=1e-4`` for example.
    baselines : bool
        Run `BASELINES` too.
    drop_leaks : bool
        Drop training sequences that validation or test data hold.
    genome : str, optional
        A genome store, whose allele frequencies MutBERT is given where examples have coordinates; for eQTL the
        reference too.
    fasta : str, optional
        For eQTL: the reference.
    shard : tuple of int
        Which part of how many to do, from 1.
    trust_remote_code : bool
        Run code that comes with checkpoints.
    """

    suites: tuple[str, ...]
    data: Mapping[str, str]
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("full",)
    protocols: tuple[str, ...] = PROTOCOLS
    tasks: tuple[str, ...] = ()
    seeds: int | None = None
    settings: tuple[str, ...] = ()
    baselines: bool = True
    drop_leaks: bool = False
    genome: str | None = None
    fasta: str | None = None
    shard: tuple[int, int] = (1, 1)
    trust_remote_code: bool = False


@dataclass(frozen=True)
class GridSummary:
    """What a call of `run_benchmark` did.

    Parameters
    ----------
    done, failed : int
        Cells that gave numbers, and that did not.
    before : int
        Cells that were done already.
    elsewhere : int
        Cells of other shards.
    failures : mapping of str to int
        How many failed, by reason.
    """

    done: int = 0
    failed: int = 0
    before: int = 0
    elsewhere: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


def run_benchmark(
    folder: str | Path,
    request: GridRequest,
    *,
    progress: bool = False,
    report: Callable[[CellResult], None] | None = None,
) -> GridSummary:
    """Run what is not done yet of a grid of tasks, models and seeds.

    Parameters
    ----------
    folder : str or Path
        The results folder, new or not; see `mutbert.evaluation.results`.
    request : GridRequest
        The grid.
    progress : bool
        Show progress on standard error.
    report : callable, optional
        Told of each cell as it is finished.

    Returns
    -------
    GridSummary
        A cell that failed is written down with the reason, and tried again by the next call.

    Raises
    ------
    InputError
        When the request, a task's files or the folder cannot be used; when a cell was done with other data, another
        model or other settings under the same name.
    """
    folder = Path(folder)
    grid = _Grid(folder, request)
    # Of the code that was loaded, whatever becomes of its files while the grid runs.
    made_with = provenance_of([])
    done = read_results(folder)
    own, elsewhere = grid.own_cells()
    counts = {"done": 0, "failed": 0, "before": 0}
    failures: dict[str, int] = {}
    with results_writer(folder, request.shard) as write, ExitStack() as stack:
        (folder / SUITES).mkdir(exist_ok=True)
        for suite in grid.suites:
            # Under a name of its own first, as the other shards write the same.
            own_file = folder / SUITES / f".{suite.name}.{request.shard[0]}-of-{request.shard[1]}"
            with atomic_file(own_file, force=True) as file:
                file.write_text(suite.as_yaml(), encoding="utf-8")
            own_file.replace(folder / SUITES / f"{suite.name}.yaml")
        advance = stack.enter_context(progress_bar("benchmark", len(own), unit="cells", show=progress))
        for job in grid.jobs(own):
            finished = done.get(job.cell)
            if finished is not None and finished.status == DONE:
                made_of = _made_of_again(job)
                if made_of is not None:
                    refuse_others(done, job.cell, made_of, folder)
                counts["before"] += 1
                advance(1)
                continue
            result, predictions = _tried(job, made_with)
            write(result, predictions)
            if report is not None:
                report(result)
            if result.status == FAILED:
                failures[result.values["reason"]] = failures.get(result.values["reason"], 0) + 1
            counts["done" if result.status == DONE else "failed"] += 1
            advance(1, _note(result))
    return GridSummary(**counts, elsewhere=elsewhere, failures=failures)


class Job:
    """A cell with what it takes to do it.

    Parameters
    ----------
    cell : Cell
        Which.
    made_of : callable
        Says what it depends on; it may raise what opening the data or the model raises.
    work : callable
        Does it: gives values for the result, and predictions.
    """

    def __init__(
        self,
        cell: Cell,
        made_of: Callable[[], dict[str, str]],
        work: Callable[[], tuple[dict[str, Any], Predictions]],
    ) -> None:
        self.cell = cell
        self.made_of = made_of
        self.work = work


def _made_of_again(job: Job) -> dict[str, str] | None:
    """Say what a finished cell depends on; ``None`` where its model or data are gone, which takes nothing from it."""
    try:
        return job.made_of()
    except InputError:
        return None


def _tried(job: Job, made_with: Mapping[str, Any]) -> tuple[CellResult, Predictions | None]:
    """Do a cell; what goes wrong with it is its result, and the others go on."""
    made_of: dict[str, str] = {}
    try:
        made_of = job.made_of()
        with measured() as cost:
            values, predictions = job.work()
    except MissingExtraError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            raise
        reason = one_line(error, 300) or type(error).__name__
        if not isinstance(error, InputError):
            reason = f"{type(error).__name__}: {reason}"
        return CellResult(job.cell, FAILED, made_of, {"reason": reason}), None
    seconds = cost.seconds
    tokens = values.pop("tokens", None)
    values["cost"] = {
        "seconds": round(seconds, 3),
        "peak_memory": cost.peak_memory,
        "tokens_per_second": None if not tokens else round(tokens / seconds, 1),
    }
    values["metrics"] = {name: None if math.isnan(value) else value for name, value in values["metrics"].items()}
    values["versions"] = made_with
    return CellResult(job.cell, DONE, made_of, values), predictions


def _note(result: CellResult) -> str:
    if result.status == FAILED:
        return f"{result.cell}: {result.values['reason'][:80]}"
    metric = result.values["metric"]
    value = result.values["metrics"][metric]
    return f"{result.cell}: {metric} {'not defined' if value is None else f'{value:.3f}'}"


class _Grid:
    """The cells of a request, and how to do them."""

    def __init__(self, folder: Path, request: GridRequest) -> None:
        self.folder = folder
        self.request = request
        self.suites = [_changed(load_suite(name), request) for name in request.suites]
        names = [suite.name for suite in self.suites]
        if len(set(names)) < len(names):
            raise InputError(f"suite {max(names, key=names.count)} is given twice; give each once")
        for name in request.data:
            if name not in names:
                raise InputError(f"--data {name}=...: there is no such suite in this run; there are {', '.join(names)}")
        for name in request.methods:
            if name not in METHODS:
                raise InputError(f"method {name}: choose of {', '.join(METHODS)}")
        part, parts = request.shard
        if not 1 <= part <= parts:
            raise InputError(f"shard {part}/{parts}: give the part from 1 to the number of parts, such as 1/4")
        if request.seeds is not None and request.seeds < 1:
            raise InputError(f"seeds {request.seeds}: give at least 1")
        self.models = _named(request.models)
        self.tasks = {suite.name: _tasks_of(suite, self.suites, request.tasks) for suite in self.suites}
        for suite in self.suites:
            if self.tasks[suite.name] and suite.name not in request.data:
                raise InputError(f"{suite.name}: where are its files? Give --data {suite.name}=FOLDER")
            if suite.eqtl is None:
                for task in self.tasks[suite.name]:
                    refuse_missing(suite, task, request.data[suite.name])
        self._encoders: dict[str, Encoder | InputError] = {}
        # One that cannot be opened is refused before anything is run.
        genome = None if request.genome is None else ProbabilisticGenome.open(request.genome)
        self._works: dict[str, EqtlWork | SequenceWork] = {}
        for suite in self.suites:
            if self.tasks[suite.name]:
                root = request.data[suite.name]
                self._works[suite.name] = (
                    SequenceWork(suite, root, genome, self.encoder, drop_leaks=request.drop_leaks)
                    if suite.eqtl is None
                    else EqtlWork(suite, root, request.fasta or request.genome, self.encoder)
                )

    def own_cells(self) -> tuple[list[Cell], int]:
        """Give the cells of this shard, and how many are others'."""
        # Whatever was asked for twice is done once.
        every = list(dict.fromkeys(cell for suite in self.suites for cell in self._cells(suite)))
        if not every:
            raise InputError("there is nothing to run: give --model, or a protocol that the suites have by --protocol")
        part, parts = self.request.shard
        own = every[part - 1 :: parts]
        return own, len(every) - len(own)

    def jobs(self, own: Iterable[Cell]) -> Iterator[Job]:
        """Give the work of cells, in an order in which what is prepared serves as many as can be."""
        for cell in own:
            work = self._works[cell.suite]
            yield Job(cell, partial(work.made_of, cell), partial(work.work, cell))

    def _cells(self, suite: Suite) -> list[Cell]:
        if suite.eqtl is not None:
            tasks = self.tasks[suite.name]
            return eqtl_cells(suite, tasks, list(self.models), self.request.protocols, self.request.seeds)
        request = self.request
        return sequence_cells(
            suite,
            self.tasks[suite.name],
            list(self.models),
            request.protocols,
            request.seeds,
            methods=request.methods,
            baselines=request.baselines,
        )

    def encoder(self, name: str) -> Encoder:
        """Open a model, once; also where it cannot be, as asking the Hub in vain takes its time."""
        if name not in self._encoders:
            place = self.models.get(name, name)
            trust = self.request.trust_remote_code
            try:
                self._encoders[name] = open_encoder(place, name=name, trust_remote_code=trust)
            except InputError as error:
                self._encoders[name] = error
        found = self._encoders[name]
        if isinstance(found, InputError):
            raise found
        return found


def _changed(suite: Suite, request: GridRequest) -> Suite:
    """Apply the user's settings to a suite's protocols."""
    parts: Any = suite.eqtl or suite
    protocols = dict(parts.protocols)
    for setting in request.settings:
        first, _, rest = setting.partition(".")
        chosen = [first] if first in PROTOCOLS else list(protocols)
        for name in chosen:
            if name in protocols:
                protocols[name] = protocols[name].with_overrides([rest if first in PROTOCOLS else setting])
    for name in request.protocols:
        if name not in PROTOCOLS:
            raise InputError(f"protocol {name}: choose of {', '.join(PROTOCOLS)}")
    changed = parts.replace(protocols=protocols)
    return changed if suite.eqtl is None else suite.replace(eqtl=changed)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Take ``NAME=PLACE`` apart; a place is its own name."""
    found: dict[str, str] = {}
    for model in models:
        name, equals, place = model.partition("=")
        place = place if equals else name
        if name in BASELINES or not place:
            raise InputError(f"model {model}: give NAME=PLACE, with another name than {' and '.join(BASELINES)}")
        if name in found:
            raise InputError(f"model {name} is given twice; give each another name, NAME=PLACE")
        found[name] = place
    return found


def _tasks_of(suite: Suite, suites: Sequence[Suite], names: Sequence[str]) -> list[Any]:
    """Give a suite's tasks among those asked for; a name may be ``SUITE/TASK`` or that of a task of any suite."""
    known = {task.name for task in (suite.eqtl or suite).tasks}
    every = {task.name for other in suites for task in (other.eqtl or other).tasks}
    every |= {f"{other.name}/{task.name}" for other in suites for task in (other.eqtl or other).tasks}
    for name in names:
        if name not in every:
            raise InputError(f"task {name}: there is none of this name; there are {', '.join(sorted(every))}")
    own = [name.removeprefix(f"{suite.name}/") for name in names]
    chosen = [name for name in own if name in known]
    return chosen_tasks(suite, chosen) if chosen or not names else []
