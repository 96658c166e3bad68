"""Results of a grid, two files a cell; a cell whose JSON is there is done.

``SUITE/TASK/MODEL-METHOD/PROTOCOL-SEED.json`` has the cell, its ``metrics`` and ``cost``, how the test data were split
off, and ``identity``: words that differ where data, task, model or settings do. The Parquet file of the same name is
that of `mutbert.scoring.metrics.write_predictions`. ``PROTOCOL-SEED.failed.json`` has the ``reason`` why a cell failed.
``suites/SUITE.yaml`` is the suite as it was run.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from mutbert.errors import InputError, one_line
from mutbert.files import write_json
from mutbert.scoring import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

SUITES: Final = "suites"
REASON: Final = "reason"
"""Key of a failed cell's record that a finished one lacks."""
_VERSION, _FAILED = 2, ".failed.json"


class Cell(NamedTuple):
    """A model, trained by a method with a seed on a suite's task as a protocol has it."""

    suite: str
    task: str
    model: str
    method: str  # empty where there is only one
    protocol: str
    seed: int

    def __str__(self) -> str:
        """Return it for messages."""
        return f"{self.suite}/{self.task}, {self.label}, {self.protocol}, seed {self.seed}"

    @property
    def label(self) -> str:
        """Model and method for people."""
        return label_of(self.model, self.method)

    def path(self, folder: Path) -> Path:
        """Path of its JSON file; names are percent-encoded, as a model may be called by its repository."""
        model = f"{self.model}-{self.method}" if self.method else self.model
        parts = [quote(word, safe=" ,+=@") for word in (self.suite, self.task, model)]
        return folder.joinpath(*parts, f"{self.protocol}-{self.seed}.json")


def label_of(model: str, method: str) -> str:
    """Return a model and its method for people."""
    return f"{model} ({method})" if method else model


def write_cell(
    folder: Path, cell: Cell, record: Mapping[str, Any], labels: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> None:
    """Write a finished cell, the JSON last; numbers that are not defined are null in it."""

    def defined(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else value

    path = cell.path(folder)
    values: dict[str, Any] = {"metrics": {name: defined(value) for name, value in record["metrics"].items()}}
    values["validation"] = defined(record.get("validation"))
    metrics.write_predictions(path.with_suffix(".parquet"), labels, scores)
    _write_record(path, cell, {**record, **values})
    path.with_suffix(_FAILED).unlink(missing_ok=True)


def write_failure(folder: Path, cell: Cell, reason: str) -> None:
    """Write why a cell failed."""
    _write_record(cell.path(folder).with_suffix(_FAILED), cell, {REASON: reason})


def _write_record(path: Path, cell: Cell, record: Mapping[str, Any]) -> None:
    write_json(path, {"kind": "cell", "version": _VERSION, **cell._asdict(), **record}, force=True)


def cell_of(record: Mapping[str, Any]) -> Cell:
    """Return the cell that a record is of."""
    return Cell(*(record[name] for name in Cell._fields))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all cells, finished and failed, sorted by cell."""
    if next(folder.glob("shards/*/cells.jsonl"), None) is not None:
        raise InputError(f"{folder}: has results of version 1; run the grid again into another folder")
    records = []
    # What a killed process leaves half-written begins with a dot.
    for path in folder.glob("*/*/*/[!.]*.json"):
        try:
            record = json.loads(path.read_bytes())
            if record["version"] != _VERSION:
                raise ValueError(f"version {record['version']}, of which mutbert reads {_VERSION}; update mutbert")
            cell, _ = cell_of(record), REASON in record or record["metrics"][record["metric"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {one_line(error, 160)}"
            raise InputError(f"{path}: is no result of a cell ({reason}); remove it and run the grid again") from None
        if not (REASON in record and cell.path(folder).exists()):
            records.append(record)
    return sorted(records, key=cell_of)


def read_predictions(folder: Path, cell: Cell) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return labels and scores of a finished cell's test rows."""
    return metrics.read_predictions(cell.path(folder).with_suffix(".parquet"))


def fingerprint(parts: Sequence[object]) -> str:
    """Return a word of what JSON can hold that differs where that does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
