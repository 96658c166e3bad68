"""Many processes that read places of VCF files; what they find comes back in the order of the tasks.

A worker is a fresh Python process that is told its tasks on standard input and answers on standard output: a line of
JSON and then the bytes of arrays, so that no object is ever unpickled and nothing is inherited. It ends with its
parent, however that ends, because its standard input does. Of N workers the first is the parent itself, which would
otherwise wait.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.fields import FrequencyFields
from mutbert.genome.frequencies import Calls, Piece, read_alleles
from mutbert.genome.sites import Alleles
from mutbert.genome.vcf import Place

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import BinaryIO

# How many tasks a worker may be ahead of what has been taken: more would only be held in memory.
_TASKS_AHEAD: Final = 2

_TYPES: Final = tuple(np.dtype(kind) for kind in ("<u4", "u1", "u1", "<f4", "<u4", "<u4"))
"""Of the columns of `Alleles`."""


class Task(NamedTuple):
    """What a worker is to read; the arguments of `mutbert.genome.frequencies.read_alleles`."""

    calls: Calls
    places: tuple[Place, ...] = ()
    contigs: tuple[str, ...] = ()


class Workers:
    """Processes that read. A context manager; they start at its beginning, so that they are ready when they are needed.

    Parameters
    ----------
    number : int
        Processes, this one included; 1 reads each task when its pieces are asked for.
    """

    def __init__(self, number: int) -> None:
        self._processes = [_Process() for _ in range(number - 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()

    @property
    def number(self) -> int:
        """Processes, this one included."""
        return 1 + len(self._processes)

    def read(self, tasks: Sequence[Task]) -> Generator[Iterator[Piece], None, None]:
        """Do tasks.

        Parameters
        ----------
        tasks : sequence of Task
            What to read.

        Yields
        ------
        iterator of Piece
            The pieces of each task, in the order of the tasks; each is to be used up before the next is asked for.

        Raises
        ------
        InputError
            What a task raised, when its turn comes.
        """
        with closing(_Team(tasks, self._processes)) as team:
            for number in range(len(tasks)):
                yield team.pieces(number)


class _Team:
    """Takes the tasks in turn: a thread for each process, and this one while it would otherwise wait."""

    def __init__(self, tasks: Sequence[Task], processes: Sequence[_Process]) -> None:
        self._tasks = tasks
        self._results: list[queue.SimpleQueue[Piece | BaseException | None]] = [queue.SimpleQueue() for _ in tasks]
        self._begun = 0
        self._ended = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._processes = processes
        self._threads = [threading.Thread(target=self._work, args=(one,), daemon=True) for one in processes]
        for thread in self._threads:
            thread.start()

    def pieces(self, number: int) -> Iterator[Piece]:
        """Give the pieces of a task."""
        result = self._results[number]
        while True:
            if self._take(number, wait=False) == number:
                # Nobody has begun it, so that its pieces can be given as they are asked for.
                yield from read_alleles(*self._tasks[number])
                break
            if result.empty() and (other := self._take(len(self._tasks), wait=False)) is not None:
                self._do(other, read_alleles(*self._tasks[other]))
                continue
            piece = result.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                break
            yield piece
        with self._changed:
            self._ended = number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all threads and processes, whatever they are at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _take(self, most: int, *, wait: bool) -> int | None:
        """Begin the next task, if it is not behind `most` and not too far ahead of what has been taken."""
        with self._changed:
            while not self._stopped and self._begun < len(self._tasks) and self._begun <= most:
                if self._begun - self._ended < _TASKS_AHEAD * (1 + len(self._processes)):
                    self._begun += 1
                    return self._begun - 1
                if not wait:
                    break
                self._changed.wait()
        return None

    def _do(self, number: int, pieces: Iterator[Piece]) -> None:
        result = self._results[number]
        try:
            for piece in pieces:
                result.put(piece)
            result.put(None)
        except BaseException as error:
            # The one who takes the pieces raises it in their place.
            result.put(error)

    def _work(self, process: _Process) -> None:
        while (number := self._take(len(self._tasks), wait=True)) is not None:
            self._do(number, process.read(self._tasks[number]))


class _Process:
    """A worker process, seen from its parent."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        # No linear algebra is done there, and its threads take time to start.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._send: Any = self._process.stdin
        self._receive: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def read(self, task: Task) -> Iterator[Piece]:
        try:
            self._send.write(_task_line(task))
            self._send.flush()
        except BrokenPipeError:
            raise RuntimeError(self._end()) from None
        while True:
            line = self._receive.readline()
            if not line:
                raise RuntimeError(self._end())
            message = json.loads(line)
            if "error" in message:
                raise InputError(message["error"])
            if "contig" not in message:
                return
            yield _receive(message, self._receive)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._send, self._receive):
            with suppress(OSError):
                pipe.close()

    def _end(self) -> str:
        return f"a worker process ended with status {self._process.wait()}; what it said is above"


def serve() -> None:
    """Do the tasks that come on standard input; the main program of a worker process."""
    # Ctrl-C goes to the whole group, and the parent sees to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send = sys.stdout.buffer
    # Nothing but answers may get there.
    sys.stdout = sys.stderr
    with suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            try:
                for piece in read_alleles(*_read_task(line)):
                    _send_piece(piece, send)
                    send.flush()
                answer: dict[str, str] = {}
            except InputError as error:
                answer = {"error": str(error)}
            send.write(json.dumps(answer).encode() + b"\n")
            send.flush()


def _task_line(task: Task) -> bytes:
    (path, fields, filters), places, contigs = task
    return json.dumps([str(path), fields, filters, places, contigs]).encode() + b"\n"


def _read_task(line: bytes) -> Task:
    path, (names, columns, samples), filters, places, contigs = json.loads(line)
    fields = FrequencyFields(tuple(names), None if columns is None else tuple(columns), samples)
    calls = Calls(Path(path), fields, tuple(filters))
    return Task(calls, tuple(Place(*place) for place in places), tuple(contigs))


def _send_piece(piece: Piece, send: BinaryIO) -> None:
    message = {
        "contig": piece.contig,
        "records": piece.records,
        "alleles": len(piece.alleles.position_A),
        "tally": piece.tally_R.tolist(),
        "read": piece.read,
    }
    send.write(json.dumps(message).encode() + b"\n")
    for column, kind in zip(piece.alleles, _TYPES, strict=True):
        send.write(np.ascontiguousarray(column, dtype=kind).data)


def _receive(message: dict[str, Any], receive: BinaryIO) -> Piece:
    rows = message["alleles"]
    columns = [np.frombuffer(receive.read(rows * kind.itemsize), dtype=kind) for kind in _TYPES]
    tally_R = np.array(message["tally"], dtype=np.int64)
    return Piece(message["contig"], message["records"], Alleles(*columns), tally_R, message["read"])
