"""VCF and BCF files as frames: htslib reads them in a child process, and polars parses its text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mutbert.errors import InputError
from mutbert.files import check_input
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence
    from pathlib import Path

GENOTYPES: Final = "GT"
"""The frequency field that stands for counting genotypes."""

_COLUMNS: Final = {"contig": "CHROM", "position": "POS", "ref": "REF", "alt": "ALT", "filter": "FILTER"}
_BLOCK_BYTES: Final = 1 << 22
# bcftools holds the interpreter while it runs, and prints to the process's own standard output.
_CHILD: Final = """
import sys, pysam, pysam.bcftools
pysam.set_verbosity(1)
try:
    getattr(pysam.bcftools, sys.argv[1])("-o", "/dev/stdout", *sys.argv[2:], catch_stdout=False)
except pysam.SamtoolsError as error:
    sys.exit(str(error))
"""
_DECLARED: Final = re.compile(r"^##(INFO|FORMAT|FILTER|contig)=<(.*)>$", re.MULTILINE)
_ATTRIBUTE: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^,]*)')


class VcfHeader(NamedTuple):
    """What a file declares: Number and Type of INFO fields, FORMAT fields, filters, contigs with lengths, samples."""

    info: Mapping[str, tuple[str, str]]
    formats: Collection[str]
    filters: Collection[str]
    contigs: Mapping[str, int | None]
    samples: Sequence[str]


class Frequencies(NamedTuple):
    """Where a file keeps allele frequencies: an INFO field, a quotient of two, or the genotypes of some samples."""

    fields: tuple[str, ...]
    samples: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """Return ``AF``, ``AC/AN`` or ``genotypes``."""
        return "/".join(self.fields) if self.samples is None else "genotypes"


def read_header(path: Path) -> VcfHeader:
    """Return what a VCF or BCF file declares, whatever its compression; raise InputError where it cannot be read."""
    check_input(path, "VCF")
    _check_last_line(path)
    text = b"".join(_bcftools(path, "view", "-h", "--no-version")).decode("utf-8", "replace")
    declared: dict[str, dict[str, dict[str, str]]] = {"INFO": {}, "FORMAT": {}, "FILTER": {}, "contig": {}}
    for kind, body in _DECLARED.findall(text):
        values = dict(_ATTRIBUTE.findall(body))
        declared[kind][values.get("ID", "")] = values
    lengths = {name: values.get("length", "") for name, values in declared["contig"].items()}
    return VcfHeader(
        {name: (values.get("Number", "."), values.get("Type", "String")) for name, values in declared["INFO"].items()},
        list(declared["FORMAT"]),
        list(declared["FILTER"]),
        {name: int(length) if length.isdecimal() else None for name, length in lengths.items()},
        text.rstrip("\n").rpartition("\n")[2].split("\t")[9:],
    )


def read_records(
    path: Path,
    fields: Sequence[str] = (),
    *,
    region: tuple[str, int, int | None] | None = None,
    samples: Collection[str] | None = None,
) -> Generator[pl.DataFrame, None, None]:
    """Yield a file's records in its order, some megabytes of text at a time.

    Columns are `contig`, `position` (0-based, -1 for POS 0), `ref`, `alt`, `filter`, a String for each of `fields`
    (``ID``, ``INFO/AF``...; ``.`` where it is missing), and with `samples` `genotypes`: each one's, after a blank.
    `region` is a contig with 0-based start and end (None: its last record); the file's index finds the records whose
    POS lies in it. Errors of htslib, such as a line that is no record, become one InputError.
    """
    columns = [*_COLUMNS, *fields] + ([] if samples is None else ["genotypes"])
    words = [f"%{name}" for name in (*_COLUMNS.values(), *fields)] + ([] if samples is None else ["[ %GT]"])
    query = ["query", "-f", "\\t".join(words) + "\\n"]
    query += _of_region(region)
    if samples is not None:
        query += ["-S", "/dev/stdin"]
    schema = {name: pl.Int64 if name == "position" else pl.String for name in columns}
    for lines in _bcftools(path, *query, listed=samples or ()):
        yield pl.read_csv(
            lines,
            has_header=False,
            schema=schema,
            separator="\t",
            quote_char=None,
            encoding="utf8-lossy",
        ).with_columns(pl.col("position") - 1)


def read_lines(
    path: Path, *, header: bool = False, region: tuple[str, int, int | None] | None = None
) -> Generator[bytes, None, None]:
    """Yield whole lines of a file's header or of its records, many at a time, as ``bcftools view`` writes them."""
    yield from _bcftools(path, "view", "-h" if header else "-H", "--no-version", *_of_region(region))


def _of_region(region: tuple[str, int, int | None] | None) -> list[str]:
    if region is None:
        return []
    contig, start, end = region
    return ["-r", f"{{{contig}}}:{start + 1}-{'' if end is None else end}", "--regions-overlap", "pos"]


def find_frequencies(path: Path, header: VcfHeader, wanted: str, samples: Collection[str] | None = None) -> Frequencies:
    """Return where a file keeps its frequencies, as far as its header says.

    `wanted` is an INFO field, two with a slash between for their quotient, or ``GT``. Where ``AF`` is wanted and not
    declared, ``AC/AN`` serves, and where these are not declared, the genotypes. With `samples`, theirs are counted.
    """
    kinds = {name: kind for name, (_, kind) in header.info.items()}
    if samples is not None or wanted == GENOTYPES:
        return _genotypes(path, header, samples)
    parts = tuple(wanted.split("/"))
    types = ("Integer",) * 2 if len(parts) == 2 else ("Float",)
    if len(parts) == len(types) and all(name in kinds for name in parts):
        for name, kind in zip(parts, types, strict=True):
            if kinds[name] != kind:
                raise InputError(
                    f"{path}: INFO field {name} is declared as {kinds[name]} and not as {kind}; choose another with "
                    "--frequency-field"
                )
        return Frequencies(parts)
    if wanted == "AF" and kinds.get("AC") == kinds.get("AN") == "Integer":
        return Frequencies(("AC", "AN"))
    if wanted == "AF" and header.samples and GENOTYPES in header.formats:
        return _genotypes(path, header, None)
    floats = [name for name, kind in kinds.items() if kind == "Float"]
    remedy = "choose one with --frequency-field" if floats else "it has to carry allele frequencies"
    if header.samples and GENOTYPES in header.formats:
        remedy += ", or --frequency-field GT to count its genotypes"
    raise InputError(
        f"{path}: its header declares no INFO field {wanted}{' (nor AC and AN)' if wanted == 'AF' else ''}; its number "
        f"fields are: {names_text(floats, 30)}; {remedy}"
    )


def count_by_index(path: Path) -> dict[str, int] | None:
    """Return how many records a file's index counts on each contig; None without an index that can be used."""
    import pysam
    from pysam import bcftools

    if not _indices(path) or older_index(path) is not None:
        return None
    verbosity = pysam.set_verbosity(0)
    # An index without counts, of another kind, or damaged: the file is read as if it had none.
    with suppress(pysam.SamtoolsError, OSError):
        rows = [line.split("\t") for line in bcftools.index("--stats", os.fspath(path)).splitlines()]
        pysam.set_verbosity(verbosity)
        return {name: int(number) for name, _, number in rows} or None
    pysam.set_verbosity(verbosity)
    return None


def older_index(path: Path) -> Path | None:
    """Return the index that is older than its file, and so may belong to another state of it."""
    time = path.stat().st_mtime_ns
    return next((one for one in _indices(path) if one.stat().st_mtime_ns < time), None)


def _indices(path: Path) -> list[Path]:
    return [one for suffix in (".tbi", ".csi") if (one := path.with_name(path.name + suffix)).is_file()]


def _genotypes(path: Path, header: VcfHeader, samples: Collection[str] | None) -> Frequencies:
    if not header.samples:
        raise InputError(f"{path}: has no samples whose genotypes could be counted; give a VCF with genotypes")
    if GENOTYPES not in header.formats:
        raise InputError(f"{path}: its header declares no FORMAT field GT; give a VCF with genotypes")
    chosen = None if samples is None else set(samples)
    return Frequencies((), tuple(name for name in header.samples if chosen is None or name in chosen))


def _bcftools(path: Path, *words: str, listed: Collection[str] = ()) -> Generator[bytes, None, None]:
    """Yield whole lines, many at a time, of what a command of bcftools prints of a file; `listed` is its input."""
    # -P: nothing is imported from the working directory.
    command = [sys.executable, "-P", "-c", _CHILD, *words, str(path.absolute())]
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as errors:
        names.write("".join(f"{name}\n" for name in listed).encode())
        names.seek(0)
        with subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE, stderr=errors) as child:
            assert child.stdout is not None
            last, rest = b"", b""
            try:
                while block := child.stdout.read(_BLOCK_BYTES):
                    lines, end, rest = (rest + block).rpartition(b"\n")
                    if end:
                        last = lines[lines.rfind(b"\n") + 1 :]
                        yield lines + end
                failed = child.wait()
            finally:
                child.kill()
        if failed:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").splitlines() or [f"it ended with status {failed}"]
            why = next((line for line in said if line.startswith("[E::")), said[-1])
            why = re.sub(r"^\[E::\w+\] |^.*stderr=|\\n'?$", "", why)
            after = b":".join(last.split(b"\t")[:2]).decode("utf-8", "replace")
            raise InputError(
                f"{path}: cannot be read as VCF{f' after {after}' if after else ''} ({why}); check that it is one, and "
                "complete"
            )


def _check_last_line(path: Path) -> None:
    """Raise InputError for plain text that was cut in a line, which htslib reads as far as it goes."""
    with path.open("rb") as file:
        start = file.read(3)
        file.seek(-1, os.SEEK_END)
        if start[:2] != b"\x1f\x8b" and start != b"BCF" and file.read(1) != b"\n":
            raise InputError(
                f"{path}: ends in the middle of a line, so it may be cut short; copy it again, or end its last line"
            )
