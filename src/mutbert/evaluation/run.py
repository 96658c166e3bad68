"""Tasks x models x seeds: a grid of cells, of which those are made that are missing.

A cell has two files, and is done once its JSON is there.
``SUITE/TASK/MODEL-METHOD/PROTOCOL-SEED.json`` has the cell, its ``metrics`` and ``cost``, how the test data were split
off, and ``identity``: words that differ where data, task, model or settings do. The Parquet file of the same name is
that of `mutbert.scoring.metrics`. ``PROTOCOL-SEED.failed.json`` has the ``reason`` why a cell failed.
``suites/SUITE.yaml`` is the suite as it was run.
"""

import errno
import json
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from mutbert.encoders.adapter import Encoder, open_encoder
from mutbert.errors import InputError, MissingExtraError, one_line, reading
from mutbert.evaluation.cells import BASELINES, HUB, Cell, EqtlCells, Made, SequenceCells, cell_of, cells_of, task_file
from mutbert.evaluation.suites import PROTOCOLS, Suite, load_suite
from mutbert.files import atomic_file, locked, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.scoring import metrics
from mutbert.settings import list_fields
from mutbert.training.folder import plain, provenance_of
from mutbert.training.recipe import METHODS

SUITES: Final = "suites"
REASON: Final = "reason"  # key of a failed cell's record that a finished one lacks
_VERSION, _FAILED = 2, ".failed.json"


@dataclass(frozen=True)
class GridRequest:
    """What to run."""

    suites: tuple[str, ...] = ()  # names of shipped suites (tfbs, nt, eqtl), or YAML files
    data: tuple[str, ...] = ()  # each suite's folder or hf://datasets/OWNER/NAME[@REV]
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

    def __post_init__(self) -> None:
        list_fields(self)


def run_benchmark(output: str | Path, request: GridRequest, *, progress: bool = False) -> dict[str, Any]:
    """Make the cells of a grid of tasks, models and seeds that are missing.

    Several processes may do so at once. A failed cell leaves its reason, and is tried again by the next call.

    Parameters
    ----------
    output, request, progress
        The results, new or not; the grid; show progress on standard error.

    Returns
    -------
    dict
        How many cells are ``done``, ``failed``, were done ``before``, and are made ``elsewhere``, by other processes;
        and ``failures``, their number by reason.

    Raises
    ------
    InputError
        For a request that cannot be run, missing files, and a protocol that was run with other settings.

    Examples
    --------
    >>> grid = mutbert.GridRequest("mine.yaml", "mine=.", models="model", methods="probe", seeds=1)
    >>> mutbert.run_benchmark("results", grid)["done"]
    3
    """
    folder = Path(output)
    suites, models = _suites(request), _paths(request.models, "--model")
    names = [suite.name for suite in suites]
    data = _paths(request.data, "--data", names[0] if len(names) == 1 else "")
    for name in sorted({*data} - {*names}):
        raise InputError(f"--data {name}: expected SUITE=PATH, with a suite of this run: {', '.join(names)}")
    cells = [cell for suite in suites for cell in cells_of(suite, models, request)]
    if not cells:
        raise InputError("nothing to run; add --model, or a --protocol that the suites have")
    missing = [cell for cell in cells if not cell.path(folder).exists()]
    suites = [suite for suite in suites if any(cell.suite == suite.name for cell in missing)]
    # In a log, where bars cannot be redrawn, the cells alone are counted.
    show = progress and sys.stderr.isatty()
    make = _makers(request, suites, data, missing, models, show=show) if missing else {}
    for suite in suites:
        _write_suite(folder, suite, request.protocols)
    # Of the code as it was loaded, whatever becomes of its files while the grid runs.
    provenance = provenance_of() if missing else {}
    counts = Counter(done=0, failed=0, before=len(cells) - len(missing), elsewhere=0)
    failures: dict[str, int] = {}
    with progress_bar("benchmark", len(missing), unit="cells", show=progress) as advance:
        for cell in missing:
            advance(0, str(cell))
            # A single cell is an engine's, which starts each once.
            status, note = _made_once(folder, cell, make[cell.suite], provenance, lock=len(cells) > 1)
            counts[status] += 1
            if status == "failed":
                failures[note] = failures.get(note, 0) + 1
            advance(1, f"{cell}: {note[:80]}")
    return {**counts, "failures": failures}


def _made_once(
    folder: Path, cell: Cell, make: Callable[[Cell], Made], provenance: dict[str, Any], *, lock: bool
) -> tuple[str, str]:
    """Make a cell that no other process makes or has made meanwhile; return what became of it, and its value."""
    path = cell.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            if lock:
                stack.enter_context(locked(path.parent))
        except InputError:
            return "elsewhere", "made by another process"
        if path.exists():
            return "before", "done"
        try:
            (record, labels, scores), cost = _measured(make, cell)
            scores = np.asarray(scores, dtype=np.float32)
            record["metrics"] = metrics.evaluate(record["problem"], labels, scores)
        except Exception as error:
            full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
            if full or isinstance(error, MissingExtraError):
                raise
            reason = one_line(error, 300) or type(error).__name__
            reason = reason if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"
            write_cell(folder, cell, {REASON: reason})
            return "failed", reason
        tokens, metric = record.pop("tokens", None), record["metric"]
        cost["tokens_per_second"] = tokens / cost["seconds"] if tokens else None
        write_cell(folder, cell, {**record, "cost": cost, **provenance}, labels, scores)
        return "done", f"{metric} {record['metrics'][metric]:.3f}"


def _measured(make: Callable[[Cell], Made], cell: Cell) -> tuple[Made, dict[str, float | None]]:
    """Return a cell, ``seconds`` that it took and ``peak_memory``, in bytes, of the accelerator or of the process."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        # Makes Linux look for the peak anew; without it, the peak is since the process began.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start = time.perf_counter()
    made, seconds = make(cell), time.perf_counter() - start
    # In bytes on macOS, in kilobytes elsewhere.
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return made, {"seconds": seconds, "peak_memory": torch.cuda.max_memory_allocated() if on_gpu else of_process}


def _suites(request: GridRequest) -> list[Suite]:
    """Return the suites of a request, with its settings."""
    if not request.suites:
        raise InputError("no suite was given; add --suite tfbs, nt, eqtl or a YAML file")
    for what, chosen, known in (("method", request.methods, METHODS), ("protocol", request.protocols, PROTOCOLS)):
        for name in chosen:
            if name not in known:
                raise InputError(f"{what} {name}: choose one of {', '.join(known)}")
    if request.seeds is not None and request.seeds < 1:
        raise InputError(f"seeds {request.seeds}: at least 1 is needed")
    suites = []
    for suite in map(load_suite, request.suites):
        if suite.vep:
            raise InputError(f"suite {suite.name}: is a table of variants; use mutbert bench vep --suite {suite.name}")
        protocols = {}
        for name, protocol in suite.grid.protocols.items():
            own = (one for one in request.settings if one.partition(".")[0] not in {*PROTOCOLS} - {name})
            protocols[name] = protocol.with_overrides([one.removeprefix(f"{name}.") for one in own])
        suites.append(suite.with_protocols(protocols))
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise InputError(f"suite {max(names, key=names.count)} comes twice; name each once")
    tasks = {word for suite in suites for task in suite.by_name for word in (task, f"{suite.name}/{task}")}
    for word in sorted({*request.tasks} - tasks):
        raise InputError(f"task {word}: there is none of this name; there are {', '.join(sorted(tasks))}")
    return suites


def _paths(words: Sequence[str], option: str, alone: str = "") -> dict[str, str]:
    """Return paths by name, of NAME=PATH; a path alone has the name `alone`, or its own."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=") if "=" in word else (alone or word, "", word)
        if not name or not path or name in found or (equals and name in BASELINES):
            raise InputError(f"{option} {word}: expected NAME=PATH, each name once, none of {', '.join(BASELINES)}")
        found[name] = path
    return found


def _makers(
    request: GridRequest, suites: Sequence[Suite], data: Mapping[str, str], missing: Sequence[Cell],
    models: Mapping[str, str], *, show: bool,
) -> dict[str, Callable[[Cell], Made]]:  # fmt: skip
    """Return what makes a cell, by suite; files that are missing are an error before anything is run."""
    opened: dict[str, Encoder | InputError] = {}

    def encoder(name: str) -> Encoder:
        if name not in opened:
            try:
                path = models.get(name, name)
                opened[name] = open_encoder(path, name=name, trust_remote_code=request.trust_remote_code)
            except InputError as error:
                # Kept, as to ask the Hub in vain takes its time.
                opened[name] = error
        if isinstance(found := opened[name], InputError):
            raise found
        return found

    makers: dict[str, Callable[[Cell], Made]] = {}
    genome = None if request.genome is None else ProbabilisticGenome.open(request.genome)
    for suite in suites:
        if suite.name not in data:
            raise InputError(f"{suite.name}: where are its files? Add --data {suite.name}=FOLDER")
        root = data[suite.name]
        # Of files on the Hub nothing is known before they are read.
        if not root.startswith(HUB):
            tasks = {cell.task: None for cell in missing if cell.suite == suite.name}
            for task, split in product([""] if suite.eqtl else tasks, suite.splits):
                task_file(suite, root, task, split)
        if suite.eqtl is None:
            cells: Any = SequenceCells(suite, root, encoder, genome, drop_leaks=request.drop_leaks, show=show)
        else:
            cells = EqtlCells(suite, root, encoder, request.fasta or request.genome, show=show)
        makers[suite.name] = cells.make
    return makers


def _write_suite(folder: Path, suite: Suite, protocols: Sequence[str]) -> None:
    """Write a suite as it is run; all cells of a protocol are made with the same settings."""
    path = folder / SUITES / f"{suite.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_cell(folder: Path, cell: Cell, record: Mapping[str, Any], *predictions: NDArray[Any]) -> None:
    """Write a finished cell, of labels and scores, the JSON last; or the `REASON` of one that failed."""
    path, head = cell.path(folder), {"kind": "cell", "version": _VERSION, **cell._asdict()}
    if REASON in record:
        write_json(path.with_suffix(_FAILED), {**head, **record}, force=True)
        return
    metrics.write_predictions(path.with_suffix(".parquet"), *predictions)
    # What is not defined is null.
    numbers = plain({**record["metrics"], "validation": record.get("validation", math.nan)})
    write_json(path, {**head, **record, "validation": numbers.pop("validation"), "metrics": numbers}, force=True)
    path.with_suffix(_FAILED).unlink(missing_ok=True)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all cells, finished and failed, sorted by cell."""
    records = []
    # What a killed process leaves half-written begins with a dot.
    for path in folder.glob("*/*/*/[!.]*.json"):
        with reading(path, "it is no result of a cell, so remove it and run the grid again"):
            record = json.loads(path.read_bytes())
            if record["version"] != _VERSION:
                raise ValueError(f"version {record['version']}, of which mutbert reads {_VERSION}; update mutbert")
            cell, _ = cell_of(record), REASON in record or record["metrics"][record["metric"]]
        if not (REASON in record and cell.path(folder).exists()):
            records.append(record)
    return sorted(records, key=cell_of)


def read_predictions(folder: Path, cell: Cell) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels and scores of a finished cell's test rows."""
    return metrics.read_predictions(cell.path(folder).with_suffix(".parquet"))
