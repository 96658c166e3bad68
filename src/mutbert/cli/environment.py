"""Where a command runs: its device, and files for standard input and output."""

import gzip
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mutbert.errors import InputError

_INPUTS = ("bed", "fasta", "input", "sequences", "vcf")
_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_STARTS = {b">": ".fa", b"@": ".fq", b"PAR1": ".parquet", b"##fileformat": ".vcf", b"BCF": ".bcf"}


@contextmanager
def running_on(device: str | None = None, threads: int | None = None) -> Iterator[None]:
    """Run models on a device, with so many threads of the CPU; print which it is when the first model runs."""
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: must be at least 1")
        # Before the libraries are imported that read them.
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), str(threads))
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", device or "cpu"):
        raise InputError(f"--device {device}: must be cpu, cuda, or one GPU of several, such as cuda:1")
    kind, _, number = (device or "").partition(":")
    if kind == "cpu" or number:
        # The first of the GPUs that libraries see is then the one that is chosen.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(int(number or 0) + 1)))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[int(number) :][:1]) if number else ""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from tqdm import tqdm

    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch {torch.__version__} finds no such GPU; leave it out for the CPU")

    def print_device(module: Any, _: Any) -> None:
        if (weight := next(module.parameters(), None)) is not None:
            hook.remove()
            on_gpu = weight.device.type == "cuda"
            name = torch.cuda.get_device_name(weight.device) if on_gpu else f"threads: {torch.get_num_threads()}"
            if os.environ.get("RANK", "0") == "0":
                # Above a progress bar, if there is one.
                tqdm.write(f"mutbert: runs on {weight.device} ({name})", file=sys.stderr)

    with register_module_forward_pre_hook(print_device) as hook:
        yield


@contextmanager
def streamed(arguments: Mapping[str, Any], suffix: str | None) -> Iterator[dict[str, Any]]:
    """Yield arguments with files for ``-``; what is written to one, which has this suffix, is printed at the end."""
    inputs = [name for name in _INPUTS if arguments.get(name) in ("-", ("-",))]
    prints = suffix is not None and arguments.get("output") in _STDOUT
    if not inputs and not prints:
        yield dict(arguments)
        return
    if len(inputs) > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("standard input and output are one file each, of one process; use files")
    stdout = sys.stdout
    with temporary_folder() as folder, redirect_stdout(sys.stderr if prints else stdout):
        files: dict[str, Any] = {name: _read(folder / "standard input") for name in inputs}
        files = {name: path if arguments[name] == "-" else (path,) for name, path in files.items()}
        output = {"output": folder / f"standard output{suffix}"} if prints else {}
        yield {**arguments, **files, **output}
        if prints:
            with output["output"].open("rb") as file:
                shutil.copyfileobj(file, stdout.buffer)
            stdout.flush()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end; messages have its files' names alone."""
    with TemporaryDirectory(prefix="mutbert-") as folder:
        try:
            yield Path(folder)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None


def _read(path: Path) -> Path:
    """Return the file of standard input, which has the suffix of its format."""
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    start = b""
    # What reads a damaged file explains it.
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) if packed else path.open("rb") as file:
        start = file.readline(1 << 20)
    table = ".tsv" if b"\t" in start else ".csv"
    suffix = next((one for known, one in _STARTS.items() if start.startswith(known)), table)
    return path.rename(f"{path}{suffix}{'.gz' if packed else ''}")
