"""A grid's results on the disk: one JSON line a finished cell, and its predictions beside it.

A results folder holds ``shards/I-of-N/cells.jsonl``, to which one process at a time appends, and
``predictions/*.npz``. A line is written when its predictions are on the disk, so that what is there is whole; a last
line that was cut short is no line.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

VERSION: Final = 1
DONE: Final = "done"
FAILED: Final = "failed"
_CELLS: Final = "cells.jsonl"
_PREDICTIONS: Final = "predictions"


class Cell(NamedTuple):
    """One square of the grid.

    Parameters
    ----------
    suite, task : str
        What is learnt.
    model, method : str
        By what, and how.
    protocol : str
        ``published`` or ``corrected``.
    seed : int
        What chance depends on.
    """

    suite: str
    task: str
    model: str
    method: str
    protocol: str
    seed: int

    def __str__(self) -> str:
        """Write it for people."""
        how = f" ({self.method})" if self.method else ""
        return f"{self.suite}/{self.task}, {self.model}{how}, {self.protocol}, seed {self.seed}"

    @property
    def file_name(self) -> str:
        """What its predictions are called; of any two cells another."""
        every = "-".join(map(str, self))
        plain = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "_" for letter in every
        )
        return f"{plain[:100]}-{hashlib.sha256(json.dumps(self).encode()).hexdigest()[:12]}.npz"


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    Parameters
    ----------
    cell : Cell
        Which.
    status : {"done", "failed"}
        Whether it gave numbers.
    made_of : mapping of str to str
        What it depends on, data, model and settings, each in a word that differs where they do.
    values : mapping
        All else, as JSON holds it: ``metrics``, ``problem``, ``cost`` and so on; or ``reason``.
    """

    cell: Cell
    status: str
    made_of: Mapping[str, str]
    values: Mapping[str, Any]

    def as_json(self) -> str:
        """Write it in one line."""
        return json.dumps(
            {
                "version": VERSION,
                **self.cell._asdict(),
                "status": self.status,
                "made_of": dict(self.made_of),
                **self.values,
            },
            allow_nan=False,
        )


class Predictions(NamedTuple):
    """What a model said of the test data, and what is so; as metrics take them."""

    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float32]


def read_results(folder: Path) -> dict[Cell, CellResult]:
    """Read all finished cells of a results folder, whichever process wrote them; of one that was run again the last.

    Raises
    ------
    InputError
        When a line cannot be read, but for a last one that was cut short; or is of a newer version.
    """
    found: dict[Cell, CellResult] = {}
    for path in sorted(folder.glob(f"shards/*/{_CELLS}")):
        data = path.read_bytes()
        # Bytes, since what a disk has damaged need not be text.
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            result = _parsed(line, f"{path}, line {number}")
            if result.status == DONE or result.cell not in found or found[result.cell].status == FAILED:
                found[result.cell] = result
    return found


def read_predictions(folder: Path, cell: Cell) -> Predictions:
    """Read the predictions of a finished cell.

    Raises
    ------
    InputError
        When they are missing or damaged.
    """
    path = folder / _PREDICTIONS / cell.file_name
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Predictions(arrays["labels"], arrays["scores"])
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error, 160)}); remove the line of {cell} from its {_CELLS} and run "
            "the grid again"
        ) from None


@contextmanager
def results_writer(folder: Path, shard: tuple[int, int]) -> Iterator[Callable[[CellResult, Predictions | None], None]]:
    """Hold a shard's part of a results folder, and give what appends to it.

    Parameters
    ----------
    folder : Path
        The results folder; it is made where it is not there.
    shard : tuple of int
        Which part of how many this process does, from 1.

    Yields
    ------
    callable
        ``write(result, predictions)``; both are on the disk when it comes back.

    Raises
    ------
    InputError
        When another process does the same part just now, or the folder cannot be made.
    """
    own = folder / "shards" / f"{shard[0]}-of-{shard[1]}"
    try:
        own.mkdir(parents=True, exist_ok=True)
        (folder / _PREDICTIONS).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{own}: cannot be made ({one_line(error)}); choose another folder of results") from None
    path = own / _CELLS
    with locked(own):
        if path.exists():
            _cut_torn_line(path)

        def write(result: CellResult, predictions: Predictions | None) -> None:
            if predictions is not None:
                with atomic_file(folder / _PREDICTIONS / result.cell.file_name, force=True) as file:
                    np.savez_compressed(file, labels=predictions.labels, scores=predictions.scores)
            with path.open("a", encoding="utf-8") as lines:
                lines.write(result.as_json() + "\n")
                lines.flush()
                os.fsync(lines.fileno())

        yield write


def refuse_others(done: Mapping[Cell, CellResult], cell: Cell, made_of: Mapping[str, str], folder: Path) -> None:
    """Refuse a cell that was done with other data, another model or other settings.

    What was not written down then is not compared.

    Raises
    ------
    InputError
        With what differs.
    """
    before = done[cell].made_of
    others = [name for name, word in made_of.items() if before.get(name, word) != word]
    if others:
        raise InputError(
            f"{folder}: {cell} was done with another {' and another '.join(others)}; choose another folder of results, "
            "or give the model another name"
        )


def fingerprint(parts: Sequence[object]) -> str:
    """Give a word of what JSON can hold, which differs where that does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _parsed(line: bytes, place: str) -> CellResult:
    try:
        values = json.loads(line)
        version = values.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_result(place, error) from None
    # Before all else, as another version may hold other things.
    if version != VERSION:
        raise InputError(
            f"{place}: is of version {version}, and this version of mutbert reads {VERSION}; update mutbert"
        )
    try:
        cell = Cell(**{name: values.pop(name) for name in Cell._fields})
        result = CellResult(cell, values.pop("status"), values.pop("made_of"), values)
        if result.status not in {DONE, FAILED}:
            raise ValueError(f"status {result.status!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_result(place, error) from None
    return result


def _no_result(place: str, error: Exception) -> InputError:
    return InputError(f"{place}: is no result ({one_line(error, 160)}); remove the line")


def _cut_torn_line(path: Path) -> None:
    """Remove what a killed process left behind the last whole line, to which nothing could be appended."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
