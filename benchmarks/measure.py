"""Shared by the benchmarks: resources of a command in a fresh process, the machine, one-line errors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil

from mutbert import __version__
from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECONDS_BETWEEN_LOOKS: Final = 0.05


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; a user's mistake is one line and exit status 2."""
    try:
        main()
    except (InputError, MissingExtraError, CommandError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


class CommandError(RuntimeError):
    """Error for a measured command that failed, with the end of its output."""


class Measurement(NamedTuple):
    """Resources that a command took.

    Parameters
    ----------
    seconds : float
        Wall time.
    cpu_seconds : float
        Processor time, user and system, of it and all its children.
    peak_memory : int
        Most resident bytes of it and its children together. Pages that several of them share count once for each.
    peak_disk, final_disk : int
        Most bytes in its folder at any time, and at the end.
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int
    peak_disk: int
    final_disk: int


def measure_command(command: Sequence[str | Path], folder: Path, *, watched: bool = True) -> Measurement:
    """Run a command as a fresh process, with its standard output thrown away.

    Parameters
    ----------
    command : sequence of str or Path
        Program and arguments; no shell.
    folder : Path
        The only folder that the command writes to.
    watched : bool
        Look at its memory and disk while it runs, which takes some time of a core that it may want itself.

    Returns
    -------
    Measurement
        Peaks are the highest of 20 samples per second, and 0 if it was not watched.

    Raises
    ------
    CommandError
        When it ends with another status than 0.
    """
    with tempfile.TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=messages)
        watch = _Watch(process.pid, folder) if watched else None
        # Waited for here and not by Popen, as only this call tells what the process used. Its peak memory is of no
        # use: it begins with that of the process it was forked from, and knows of no sum.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if watch is not None:
            watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            messages.seek(0)
            text = messages.read().decode(errors="replace").strip()[-1000:]
            raise CommandError(f"{' '.join(map(str, command))} ended with status {process.returncode}: {text}")
    final_disk = bytes_in(folder)
    peak_memory, peak_disk = (watch.peak_memory, max(watch.peak_disk, final_disk)) if watch is not None else (0, 0)
    return Measurement(seconds, usage.ru_utime + usage.ru_stime, peak_memory, peak_disk, final_disk)


class _Watch:
    """A thread that watches a process and its folder until it is stopped."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.peak_memory = self.peak_disk = 0
        self._process = psutil.Process(pid)
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak_memory = max(self.peak_memory, _resident_bytes(self._process))
            self.peak_disk = max(self.peak_disk, bytes_in(self._folder))
            if self._ended.wait(_SECONDS_BETWEEN_LOOKS):
                return


def _resident_bytes(process: psutil.Process) -> int:
    try:
        # A child that has not begun its own program yet is counted with its parent, whose memory it shares.
        others = (one for one in process.children(recursive=True) if one.cmdline() != process.cmdline())
        return sum(one.memory_info().rss for one in [process, *others])
    except psutil.Error:
        # One ended between being listed and being asked: the next look is near.
        return 0


def bytes_in(folder: Path) -> int:
    """Return the size of a folder's files, some of which may vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue
    return total


def describe_machine(libraries: Sequence[str] = ("numpy", "pysam")) -> dict[str, Any]:
    """Return what figures depend on: processor, memory, system, versions of libraries."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cpus,
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "mutbert": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in libraries},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine_text(machine: dict[str, Any]) -> str:
    """Return the machine in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    memory = f"{machine['memory'] / 2**30:.0f} GiB"
    return f"{machine['processor']}, {machine['cores']} cores, {memory}; {machine['system']}; {versions}"
