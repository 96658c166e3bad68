"""Several processes that share one run, as ``torchrun`` starts them: who does what, and who is still there.

They talk through files in the folder of the run and by locks, so that no process group is needed, and whoever has died
is known by its lock.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SECONDS_BETWEEN_LOOKS: Final = 0.05
# Loading a model from a slow disk may take this long in one process and not in another.
_PATIENCE: Final = 600.0


class World(NamedTuple):
    """The processes of one call.

    Parameters
    ----------
    rank, size : int
        This process, from 0, and how many there are.
    """

    rank: int = 0
    size: int = 1


def this_world() -> World:
    """Read from the environment which process this is; ``torchrun`` and ``accelerate launch`` say so there.

    Raises
    ------
    InputError
        When what is said there makes no sense.
    """
    texts = [os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")]
    try:
        rank, size = map(int, texts)
    except ValueError:
        rank, size = 0, 0
    if not 0 <= rank < size:
        raise InputError(
            f"RANK={texts[0]} and WORLD_SIZE={texts[1]} are no process of several; start them with torchrun, or unset "
            "both variables for one"
        )
    return World(rank, size)


class Roll:
    """Known to the first process: the others of its call.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    world : World
        The processes.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self._folder = folder
        self._others = range(1, world.size)

    def call(self) -> None:
        """Wait until all others are there, and let them begin.

        Raises
        ------
        InputError
            When one does not come.
        """
        for rank in self._others:
            hello = _hello(self._folder, rank)
            word = _waited_for(partial(_text, hello), f"process {rank} of this call has not come")
            go = _go(self._folder, rank)
            aside = go.with_suffix(".partial")
            aside.write_text(word)
            aside.replace(go)

    def wait_for(self, is_done: Callable[[], bool], rank: int) -> None:
        """Wait until something is done that another process does.

        Raises
        ------
        InputError
            When that process has ended and it is not done.
        """
        while not is_done():
            # In this order, as it may have been done and the process ended in between.
            if _is_free(_hello(self._folder, rank)) and not is_done():
                raise InputError(
                    f"{self._folder}: process {rank} of this call has ended before its part was done; see what it "
                    "said, and run again with --resume"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def wait_for_end(self) -> None:
        """Wait until no other process needs the folder any more."""
        for rank in self._others:
            while not _is_free(_hello(self._folder, rank)):
                time.sleep(_SECONDS_BETWEEN_LOOKS)


@contextmanager
def called_by_first(folder: Path, world: World) -> Iterator[Roll]:
    """Be there for the other processes: as long as the block runs, they wait for what it takes.

    Parameters
    ----------
    folder : Path
        The folder of the run, which this process has locked, and in which nothing is left of an earlier call.
    world : World
        The processes.
    """
    with ExitStack() as held:
        if world.size > 1:
            held.enter_context(_present(folder, world.rank, ""))
        yield Roll(folder, world)


@contextmanager
def _present(folder: Path, rank: int, word: str) -> Iterator[None]:
    """Hold a file that says that a process is there; its lock goes with the process, however it ends."""
    descriptor = os.open(_hello(folder, rank), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, word.encode())
        yield
    finally:
        os.close(descriptor)


@contextmanager
def begun_by_first(folder: Path, world: World) -> Iterator[Callable[[], None]]:
    """Report to the first process, and go on when it has made the folder of the run ready.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    world : World
        Says which process this is; not the first.

    Yields
    ------
    callable
        Raises an `InputError` where the first process has ended.

    Raises
    ------
    InputError
        When the first process does not answer.
    """
    # A word of this process alone: what an earlier call has left behind answers nobody.
    word = uuid.uuid4().hex
    hello = _hello(folder, world.rank)
    first = _hello(folder, 0)
    go = _go(folder, world.rank)
    was_there = False

    def answered() -> bool:
        # The first process clears the folder once it has it, also of this.
        if folder.is_dir() and _text(hello) != word:
            with suppress(FileNotFoundError):
                held.enter_context(_present(folder, world.rank, word))
        return _text(go) == word

    def is_there() -> bool:
        nonlocal was_there
        if was_there:
            check()
        else:
            was_there = not _is_free(first)
        return was_there

    def check() -> None:
        if _is_free(first):
            raise InputError(f"{folder}: the first process of this call has ended; see what it said")

    with ExitStack() as held:
        _waited_for(answered, "the first process of this call does not answer", is_there)
        yield check


def _hello(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.hello"


def _go(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.go"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _is_free(path: Path) -> bool:
    """Tell whether no process holds a lock of a file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _waited_for(look: Callable[[], str | bool], otherwise: str, is_busy: Callable[[], bool] = lambda: False) -> str:
    """Give what is looked for once it is there; time in which the other side is busy does not count."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if found := look():
            return str(found)
        if is_busy():
            end = time.monotonic() + _PATIENCE
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise InputError(f"{otherwise}; start all with torchrun, on one file system")
