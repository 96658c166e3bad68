"""Cost of a piece of work: seconds and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def measured() -> Iterator[dict[str, float]]:
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
