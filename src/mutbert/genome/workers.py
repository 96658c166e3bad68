"""Many processes that read places of VCF files; what they find comes back in the order of the tasks.

A worker is a fresh Python process that is told its tasks on standard input and answers on standard output, so that
nothing is inherited. It ends with its parent, however that ends, because its standard input does. Of N workers the
first is the parent itself, which would otherwise wait.

This file imports nothing heavy: the processes start while their parent still imports what it needs.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import BinaryIO

    from mutbert.genome.frequencies import Piece
    from mutbert.genome.messages import Task

# How many tasks a worker may be ahead of what has been taken: more would only be held in memory.
_TASKS_AHEAD: Final = 2

_ENVIRONMENT: Final = {
    # No linear algebra is done there, and its threads take time to start.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Blocks of text come and go: glibc is to keep their memory rather than hand it back each time.
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
}


class Workers:
    """Processes that read. A context manager; they start at its beginning, so that they are ready when they are needed.

    Parameters
    ----------
    number : int
        Processes, this one included; 1 reads each task when its pieces are asked for.

    Raises
    ------
    InputError
        When there are less than one.
    """

    def __init__(self, number: int) -> None:
        if number < 1:
            raise InputError(f"{number} workers: give at least one")
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
        from mutbert.genome.messages import do_task

        result = self._results[number]
        while True:
            if self._take(number, wait=False) == number:
                # Nobody has begun it, so that its pieces can be given as they are asked for.
                yield from do_task(self._tasks[number])
                break
            if result.empty() and (other := self._take(len(self._tasks), wait=False)) is not None:
                self._do(other, do_task(self._tasks[other]))
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
        command = [sys.executable, "-c", "from mutbert.genome.messages import serve; serve()"]
        environment = {**_ENVIRONMENT, **os.environ}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._send: Any = self._process.stdin
        self._receive: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def read(self, task: Task) -> Iterator[Piece]:
        from mutbert.genome.messages import receive_piece, task_line

        try:
            self._send.write(task_line(task))
            self._send.flush()
            while (piece := receive_piece(self._receive)) is not None:
                yield piece
        except (BrokenPipeError, EOFError):
            raise RuntimeError(
                f"a worker process ended with status {self._process.wait()}; what it said is above"
            ) from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._send, self._receive):
            with suppress(OSError):
                pipe.close()
