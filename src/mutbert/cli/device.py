"""The device that a command runs its model on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mutbert.errors import InputError


@contextmanager
def running_on(device: str | None, threads: int | None) -> Iterator[None]:
    """Run models on a device, with so many threads of the CPU; print which it is when the first model runs."""
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: must be at least 1")
        # Before the libraries are imported that read them.
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), str(threads))
    kind, _, number = (device or "").partition(":")
    if kind not in {"", "cpu", "cuda"} or (number and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"--device {device}: must be cpu, cuda, or one GPU of several, such as cuda:1")
    if kind == "cpu" or number:
        # The first of the GPUs that libraries see is then the one that is chosen.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(int(number or 0) + 1)))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[int(number) :][:1]) if number else ""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from tqdm import tqdm

    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch {torch.__version__} finds no such GPU; leave it out for the CPU")
    if threads is not None:
        torch.set_num_threads(threads)

    def print_device(module: Any, _: Any) -> None:
        if (weight := next(module.parameters(), None)) is not None:
            hook.remove()
            on_gpu = weight.device.type == "cuda"
            name = torch.cuda.get_device_name(weight.device) if on_gpu else f"threads: {torch.get_num_threads()}"
            if os.environ.get("RANK", "0") == "0":
                # Above a progress bar, if there is one.
                tqdm.write(f"mutbert: runs on {weight.device} ({name})", file=sys.stderr)

    hook = register_module_forward_pre_hook(print_device)
    try:
        yield
    finally:
        hook.remove()
