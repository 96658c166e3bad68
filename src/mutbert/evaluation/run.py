"""Tasks x models x seeds: a grid of cells, of which those are made that are missing."""

from __future__ import annotations

import errno
import resource
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import torch

from mutbert.encoders.adapter import Encoder, open_encoder
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.evaluation.cells import BASELINES, EqtlCells, SequenceCells, cells_of
from mutbert.evaluation.results import REASON, SUITES, write_cell, write_failure
from mutbert.evaluation.suites import PROTOCOLS, Suite, load_suite
from mutbert.evaluation.task_files import check_files
from mutbert.files import atomic_file, locked
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.scoring.metrics import evaluate
from mutbert.training.finetune_settings import METHODS
from mutbert.training.folder import provenance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mutbert.evaluation.cells import Made
    from mutbert.evaluation.results import Cell

_FULL_DISK: Final = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class GridRequest:
    """What to run."""

    suites: tuple[str, ...] = ()  # names of shipped suites (tfbs, nt, eqtl), or YAML files
    data: Mapping[str, str] = field(default_factory=dict)  # each suite's folder or hf://datasets/OWNER/NAME[@REV]
    models: tuple[str, ...] = ()  # known names, folders or repositories; random:PATH for fresh weights
    methods: tuple[str, ...] = ("full",)  # `full`, `lora` or `probe`
    protocols: tuple[str, ...] = PROTOCOLS  # `published` or `corrected`; by default both
    tasks: tuple[str, ...] = ()  # TASK or SUITE/TASK; all where empty
    seeds: int | None = None  # how many seeds, in place of the protocols' own number
    first_seed: int | None = None  # the first seed, in place of the protocols'
    settings: tuple[str, ...] = ()  # changes of protocols, such as corrected.finetune.learning_rate=1e-4
    baselines: bool = True  # run k-mers and a CNN too
    drop_leaks: bool = False  # drop training sequences that validation or test data have, on either strand
    genome: str | None = None  # a store: allele frequencies for MutBERT; for eQTL the reference too
    fasta: str | None = None  # for eQTL, the reference
    trust_remote_code: bool = False


class GridSummary(NamedTuple):
    """Cells of a call of `run_benchmark`."""

    done: int
    failed: int
    before: int  # done before
    elsewhere: int  # being made by other processes
    failures: dict[str, int]  # by reason


def run_benchmark(
    folder: str | Path,
    request: GridRequest,
    *,
    progress: bool = False,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> GridSummary:
    """Make the cells of a grid of tasks, models and seeds that are missing.

    Several processes may do so at once. A failed cell leaves its reason, and is tried again by the next call.

    Parameters
    ----------
    folder : str or Path
        The results, new or not, as in `mutbert.evaluation.results`.
    request : GridRequest
        The grid.
    progress : bool
        Show progress on standard error.
    report : callable, optional
        Called with the record of each cell that is made or fails.

    Returns
    -------
    GridSummary

    Raises
    ------
    InputError
        For a request that cannot be run, missing files, and a protocol that was run with other settings.
    """
    folder = Path(folder)
    suites, models = _suites(request), _named(request.models)
    tasks = {suite.name: _tasks_of(suite, suites, request.tasks) for suite in suites}
    cells = [cell for suite in suites for cell in cells_of(suite, tasks[suite.name], list(models), request)]
    if not cells:
        raise InputError("nothing to run; give --model, or a --protocol that the suites have")
    missing = [cell for cell in cells if not cell.path(folder).exists()]
    counts = {"done": 0, "failed": 0, "before": len(cells) - len(missing), "elsewhere": 0}
    failures: dict[str, int] = {}
    if not missing:
        return GridSummary(**counts, failures=failures)
    concerned = [suite for suite in suites if any(cell.suite == suite.name for cell in missing)]
    make = _makers(request, concerned, tasks, models)
    for suite in concerned:
        _write_suite(folder, suite, request.protocols)
    # Of the code as it was loaded, whatever becomes of its files while the grid runs.
    provenance = provenance_of([])
    with progress_bar("benchmark", len(missing), unit="cells", show=progress) as advance:
        for cell in missing:
            # A single cell is an engine's, which starts each once.
            record = _made_once(folder, cell, make[cell.suite], provenance, lock=len(cells) > 1)
            counts[record["status"]] += 1
            if REASON in record:
                failures[record[REASON]] = failures.get(record[REASON], 0) + 1
            if report is not None and record["status"] in {"done", "failed"}:
                report(record)
            advance(1, _note(cell, record))
    return GridSummary(**counts, failures=failures)


def _made_once(
    folder: Path, cell: Cell, make: Callable[[Cell], Made], provenance: dict[str, Any], *, lock: bool
) -> dict[str, Any]:
    """Make a cell that no other process makes or has made meanwhile; return its record with what became of it."""
    path = cell.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            if lock:
                stack.enter_context(locked(path.parent))
        except InputError:
            return {"status": "elsewhere"}
        if path.exists():
            return {"status": "before"}
        try:
            with _measured() as cost:
                record, labels, scores = make(cell)
            scores = np.asarray(scores, dtype=np.float32)
            record["metrics"] = evaluate(record["problem"], labels, scores)
        except MissingExtraError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FULL_DISK:
                raise
            reason = one_line(error, 300) or type(error).__name__
            reason = reason if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"
            write_failure(folder, cell, reason)
            return {**cell._asdict(), "status": "failed", REASON: reason}
        tokens = record.pop("tokens", None)
        record["cost"] = {**cost, "tokens_per_second": tokens / cost["seconds"] if tokens else None}
        record |= provenance
        write_cell(folder, cell, record, labels, scores)
        return {**cell._asdict(), **record, "status": "done"}


@contextmanager
def _measured() -> Iterator[dict[str, float]]:
    """Yield a dict that has ``seconds`` and ``peak_memory`` afterwards: bytes of the accelerator or of the process."""
    cost: dict[str, float] = {}
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        # Makes Linux look for the peak anew; without it, the peak is since the process began.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start = time.perf_counter()
    yield cost
    cost["seconds"] = time.perf_counter() - start
    # In bytes on macOS, in kilobytes elsewhere.
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cost["peak_memory"] = torch.cuda.max_memory_allocated() if on_gpu else of_process


def _note(cell: Cell, record: dict[str, Any]) -> str:
    if "metrics" not in record:
        return f"{cell}: {record.get(REASON, record['status'])[:80]}"
    value = record["metrics"][record["metric"]]
    return f"{cell}: {record['metric']} {'not defined' if value is None else f'{value:.3f}'}"


def _suites(request: GridRequest) -> list[Suite]:
    """Return the suites of a request, with its settings."""
    for what, chosen, known in (("method", request.methods, METHODS), ("protocol", request.protocols, PROTOCOLS)):
        for name in chosen:
            if name not in known:
                raise InputError(f"{what} {name}: choose one of {', '.join(known)}")
    if request.seeds is not None and request.seeds < 1:
        raise InputError(f"seeds {request.seeds}: at least 1 is needed")
    suites = [_changed(load_suite(name), request.settings) for name in request.suites]
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise InputError(f"suite {max(names, key=names.count)} comes twice; name each once")
    for name in request.data:
        if name not in names:
            raise InputError(f"--data {name}=...: there is no such suite in this run; there are {', '.join(names)}")
    return suites


def _changed(suite: Suite, settings: Sequence[str]) -> Suite:
    protocols = dict(suite.grid.protocols)
    for setting in settings:
        first, _, rest = setting.partition(".")
        for name, protocol in protocols.items():
            if first == name or first not in PROTOCOLS:
                protocols[name] = protocol.with_overrides([rest if first == name else setting])
    return suite.with_protocols(protocols)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Return models by name, of PATH and NAME=PATH; the baselines are models too."""
    found: dict[str, str] = {}
    for model in models:
        name, equals, path = model.partition("=")
        if not (path if equals else name) or (equals and name in BASELINES):
            raise InputError(f"model {model}: expected NAME=PATH, with another name than {' and '.join(BASELINES)}")
        if name in found:
            raise InputError(f"model {name} comes twice; name each differently, NAME=PATH")
        found[name] = path if equals else name
    return found


def _tasks_of(suite: Suite, suites: Sequence[Suite], names: Sequence[str]) -> list[str]:
    """Return the names of a suite's tasks that are asked for, as TASK or SUITE/TASK."""
    every = {name for other in suites for task in other.task_names for name in (task, f"{other.name}/{task}")}
    for name in names:
        if name not in every:
            raise InputError(f"task {name}: there is none of this name; there are {', '.join(sorted(every))}")
    own = [name.removeprefix(f"{suite.name}/") for name in names]
    return [name for name in own if name in suite.task_names] if names else suite.task_names


def _makers(
    request: GridRequest, suites: Sequence[Suite], tasks: Mapping[str, list[str]], models: Mapping[str, str]
) -> dict[str, Callable[[Cell], Made]]:
    """Return what makes a cell, by suite; files that are missing are an error before anything is run."""

    @cache
    def opened(name: str) -> Encoder | InputError:
        try:
            return open_encoder(models.get(name, name), name=name, trust_remote_code=request.trust_remote_code)
        except InputError as error:
            # Kept, as to ask the Hub in vain takes its time.
            return error

    def encoder(name: str) -> Encoder:
        found = opened(name)
        if isinstance(found, InputError):
            raise found
        return found

    found: dict[str, Callable[[Cell], Made]] = {}
    genome = None if request.genome is None else ProbabilisticGenome.open(request.genome)
    for suite in suites:
        if suite.name not in request.data:
            raise InputError(f"{suite.name}: where are its files? Add --data {suite.name}=FOLDER")
        root = request.data[suite.name]
        check_files(suite, root, tasks[suite.name])
        if suite.eqtl is None:
            found[suite.name] = SequenceCells(suite, root, encoder, genome, drop_leaks=request.drop_leaks).make
        else:
            found[suite.name] = EqtlCells(suite, root, encoder, request.fasta or request.genome).make
    return found


def _write_suite(folder: Path, suite: Suite, protocols: Sequence[str]) -> None:
    """Write a suite as it is run; all cells of a protocol are made with the same settings."""
    path = folder / SUITES / f"{suite.name}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder of results") from None
    kept = dict(suite.grid.protocols)
    for name, before in load_suite(path).grid.protocols.items() if path.exists() else ():
        if name not in protocols or name not in kept:
            kept[name] = before
            continue
        # How many seeds there are is none of the settings.
        changed = kept[name].replace(seeds=1, first_seed=0) != before.replace(seeds=1, first_seed=0)
        if changed and any(folder.glob(f"{quote(suite.name, safe=' ,+=@')}/*/*/{name}-*[0-9].json")):
            raise InputError(f"{path}: cells of {name} were made with other settings; use another folder of results")
    with atomic_file(path, force=True) as file:
        file.write_text(suite.with_protocols(kept).as_yaml(), encoding="utf-8")
