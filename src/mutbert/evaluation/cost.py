"""What a piece of work cost: seconds, and the most memory that was held meanwhile."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
# What Linux takes for "begin to look for the peak anew".
_RESET_PEAK: Final = "5"


@dataclass
class Cost:
    """What was measured.

    Parameters
    ----------
    seconds : float
        Of wall-clock time.
    peak_memory : int
        Bytes that the process held at most, or of an accelerator's memory where one was used.
    """

    seconds: float = 0.0
    peak_memory: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what is done within.

    Yields
    ------
    Cost
        Filled in at the end, also after an error. Where the system cannot look for the peak anew, memory is the peak
        since the process began.
    """
    cost = Cost()
    start = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        # Containers may forbid it.
        with suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        cost.peak_memory = torch.cuda.max_memory_allocated() if on_gpu else _peak()


def _peak() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # In bytes on macOS, in kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
