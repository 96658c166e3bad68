"""The files that a run of scoring makes: which they are, and how they are put together of parts."""

from __future__ import annotations

import gzip
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.effects.bcf import BcfCheck, completed_header, quiet, write_bcf
from mutbert.effects.calibration import write_calibration
from mutbert.effects.score_tables import NUMBERS, table_schema, write_bgzf
from mutbert.effects.vcf_header import as_text
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mutbert.effects.parts import Whole

_KINDS: Final = {
    ".vcf.gz": "vcf.gz",
    ".vcf": "vcf.gz",
    ".bcf": "vcf.gz",
    ".tsv.gz": "tsv.gz",
    ".tsv": "tsv.gz",
    ".parquet": "parquet",
    ".json": NUMBERS,
}
_TABLES: Final = (".tsv", ".tsv.gz", ".parquet")
# The empty block that ends a BGZF file (SAM specification, section 4.1.2): pysam writes it behind every part.
_BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_ROWS_A_ROW_GROUP: Final = 1 << 17


class Index(NamedTuple):
    """The index of an output, or why it has none.

    Parameters
    ----------
    path : Path or None
        The file.
    why_not : str
        Empty where there is one, and of tables and backgrounds, which have none.
    """

    path: Path | None
    why_not: str = ""


def kind_of(path: Path, *, table: bool = False, calibrate: bool = False) -> str:
    """Tell by its suffix of which parts an output is made.

    Parameters
    ----------
    path : Path
        The output.
    table : bool
        Whether it must be a table.
    calibrate : bool
        Whether it must be the file of a background.

    Raises
    ------
    InputError
        When its suffix is none of those that it may have.
    MissingExtraError
        When pyarrow is needed and not installed.
    """
    found = next((suffix for suffix in _KINDS if path.name.endswith(suffix) and path.name != suffix), "")
    allowed = _TABLES if table else (".json",) if calibrate else tuple(suffix for suffix in _KINDS if suffix != ".json")
    if found not in allowed:
        also = "; .json is for --calibrate" if found == ".json" else ""
        raise InputError(f"{path}: the suffix chooses the format; it must be one of {', '.join(allowed)}{also}")
    if found == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "export") from None
    return _KINDS[found]


def refuse_same(outputs: list[Path], inputs: list[Path]) -> None:
    """Refuse outputs that are an input, or one another.

    Raises
    ------
    InputError
        With the first that is.
    """
    seen = {path.resolve(): "an input" for path in inputs}
    for path in outputs:
        if path.resolve() in seen:
            raise InputError(f"{path}: is {seen[path.resolve()]} too; choose another output")
        seen[path.resolve()] = "another output"


def put_together(output: Path, whole: Whole) -> Index:
    """Make an output of its parts, and its index; what bears its name is replaced.

    Parameters
    ----------
    output : Path
        The file; its suffix chooses the format.
    whole : Whole
        All parts.

    Returns
    -------
    Index
        Of a bgzip or BCF file.

    Raises
    ------
    InputError
        When a part is damaged, or the records cannot be BCF.
    """
    suffix = next(suffix for suffix in _KINDS if output.name.endswith(suffix))
    index_aside = output.with_name(f".{output.name}.index.partial")
    index = Index(None, f"{suffix} files have none" if _KINDS[suffix] == "vcf.gz" else "")
    try:
        with atomic_file(output, force=True) as aside:
            _JOINERS[suffix](aside, whole)
            if suffix in {".vcf.gz", ".bcf"}:
                index = _make_index(aside, suffix, index_aside, in_order=whole.run.in_order)
            # One that is there is of what is replaced.
            for ending in (".tbi", ".csi"):
                output.with_name(output.name + ending).unlink(missing_ok=True)
        if index.path is not None:
            named = output.with_name(output.name + index.path.suffix)
            index_aside.replace(named)
            index = Index(named)
    finally:
        index_aside.unlink(missing_ok=True)
    return index


def refuse_no_bcf(output: Path, whole: Whole) -> None:
    """Refuse parts whose records cannot be BCF, where they have been made for something else.

    Raises
    ------
    InputError
        With the first record of which something would be lost.
    """
    check = BcfCheck(gzip.decompress(whole.header("vcf.gz")))
    for content in whole.contents("vcf.gz"):
        lines = gzip.decompress(content).split(b"\n")[:-1]
        check.refuse(lines, partial(_place, output, lines))


def _place(output: Path, lines: list[bytes], row: int) -> str:
    contig, position, _ = lines[row].split(b"\t", 2)
    return f"{output}: {as_text(contig)}:{as_text(position)}"


def _join_bgzf(path: Path, whole: Whole, kind: str, header: bytes | None = None) -> None:
    # Blocks of BGZF may stand behind one another.
    with path.open("wb") as file:
        file.write((whole.header(kind) if header is None else header).removesuffix(_BGZF_END))
        for content in whole.contents(kind):
            file.write(content.removesuffix(_BGZF_END))
        file.write(_BGZF_END)


def _join_plain(path: Path, whole: Whole, kind: str) -> None:
    with path.open("wb") as file:
        file.write(gzip.decompress(whole.header(kind)))
        for content in whole.contents(kind):
            file.write(gzip.decompress(content))


def _join_bcf(path: Path, whole: Whole) -> None:
    text = path.with_name(f"{path.name}.text")
    try:
        _join_bgzf(text, whole, "vcf.gz")
        with quiet():
            try:
                write_bcf(text, path)
            except pysam.SamtoolsError:
                # BCF numbers what the header declares, and so has no place for what it does not.
                header = completed_header(text)
                write_bgzf(text, header)
                _join_bgzf(text, whole, "vcf.gz", text.read_bytes())
                write_bcf(text, path)
    except (pysam.SamtoolsError, ValueError) as error:
        raise InputError(f"{path}: its records cannot be BCF ({one_line(error, 160)}); write .vcf.gz") from None
    finally:
        text.unlink(missing_ok=True)


def _join_parquet(path: Path, whole: Whole) -> None:
    import io

    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetWriter(path, table_schema(whole.run.columns)) as writer:
        waiting: list[pa.Table] = []
        for content in whole.contents("parquet"):
            waiting.append(parquet.read_table(io.BytesIO(content)))
            if sum(len(table) for table in waiting) >= _ROWS_A_ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


_JOINERS: Final[dict[str, Callable[[Path, Whole], None]]] = {
    ".vcf.gz": lambda path, whole: _join_bgzf(path, whole, "vcf.gz"),
    ".vcf": lambda path, whole: _join_plain(path, whole, "vcf.gz"),
    ".bcf": _join_bcf,
    ".tsv.gz": lambda path, whole: _join_bgzf(path, whole, "tsv.gz"),
    ".tsv": lambda path, whole: _join_plain(path, whole, "tsv.gz"),
    ".parquet": _join_parquet,
    ".json": write_calibration,
}


def _make_index(path: Path, suffix: str, index: Path, *, in_order: bool) -> Index:
    """Make an index under a name of its own; the suffix of `Index.path` is what it is to have."""
    if not in_order:
        return Index(None, "the records are not in order")
    # A .tbi file has no place for what is beyond base 2^29 of a contig.
    choices = [("vcf", ".tbi", False), ("vcf", ".csi", True)] if suffix == ".vcf.gz" else [("bcf", ".csi", True)]
    with quiet():
        for preset, ending, csi in choices:
            with suppress(OSError):
                pysam.tabix_index(os.fspath(path), preset=preset, force=True, index=os.fspath(index), csi=csi)
                return Index(index.with_suffix(ending))
    return Index(None, "htslib makes none of these records")


def write_header(path: Path, content: bytes) -> None:
    """Write what stands before the parts of a text."""
    with atomic_file(path, force=True) as aside:
        write_bgzf(aside, content)
