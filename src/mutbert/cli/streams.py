"""Standard input and output by way of temporary files, for what is read more than once and written as a whole."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mutbert.errors import InputError

_INPUTS = ("bed", "fasta", "input", "sequence", "sequences", "vcf")
_STARTS = {b">": ".fa", b"@": ".fq", b"PAR1": ".parquet", b"##fileformat": ".vcf", b"BCF": ".bcf"}


@contextmanager
def streamed(arguments: Mapping[str, Any], suffix: str | None) -> Iterator[dict[str, Any]]:
    """Yield arguments with files for ``-``; what is written to one, which has this suffix, is printed at the end."""
    inputs = [name for name in _INPUTS if arguments.get(name) in ("-", ("-",))]
    prints = suffix is not None and arguments.get("output") == "-"
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
