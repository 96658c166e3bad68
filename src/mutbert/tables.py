"""Tables from files as polars frames of text, on the disk or on the Hub. Shape suffixes: B bytes, R rows."""

import difflib
import gzip
import html
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import polars as pl
import pysam

from mutbert.errors import InputError, one_line, printable, require
from mutbert.files import check_input, sha256_of
from mutbert.regions import names_text

Wanted = Callable[[list[str]], list[str]]  # the columns to read, of those in a header


LINE: Final = "\0line"
"""The column that holds a row's line in its file (UInt32); of Parquet the row, of FASTA the record, all from 1."""

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_FASTX: Final = (".fa", ".fasta", ".fna", ".fas", ".fq", ".fastq")
_FRAME: Final = "table"  # a frame's name in messages
_FORMATS: Final = (*_SEPARATORS, *_FASTX, ".parquet")
_HUB_FILE: Final = re.compile(
    r"hf://datasets/(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?/(?P<file>.+)"
)
# Words, in any case, for a value that is missing, the first ones among other words too; and a number as text.
NOT_A_WORD: Final = ("nan", "na", "n/a")
MISSING: Final = (*NOT_A_WORD, ".", "null", "none")
NUMBER: Final = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_DECIMAL_COMMA: Final = r"^\s*[+-]?[0-9]*(?:,[0-9]+)?(?:[eE][+-]?[0-9]+)?\s*$"
_TRUTHS: Final = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class SourceFile:
    """A file as it was read."""

    place: str  # its path, or its address on the Hub
    bytes: int  # compressed if it is
    sha256: str
    revision: str | None  # the commit, of a file from the Hub


class NoSuchFileError(InputError):
    """Error for a file that does not exist, where everything else is as it should be."""


def find_file(place: str | Path) -> tuple[Path, SourceFile]:
    """Return the path of a file, local or at ``hf://datasets/OWNER/NAME[@REVISION]/FILE``, and what identifies it."""
    name, revision = str(place), None
    if name.startswith("hf://"):
        path, revision = _download(name)
    elif not (path := Path(place)).exists():
        raise NoSuchFileError(f"{name}: no such file; check the path")
    check_input(path, "data")
    return path, SourceFile(name, path.stat().st_size, sha256_of(path), revision)


def _download(place: str) -> tuple[Path, str]:
    parts = _HUB_FILE.fullmatch(place)
    if parts is None:
        raise InputError(f"{place}: is no file of a data set; write hf://datasets/OWNER/NAME[@REVISION]/FILE")
    require("huggingface_hub")
    from huggingface_hub import errors, hf_hub_download

    revision = parts["revision"] and unquote(parts["revision"])
    try:
        path = Path(hf_hub_download(parts["repository"], parts["file"], repo_type="dataset", revision=revision))
    # What the client raises is not the same in all its versions.
    except Exception as error:
        offline = isinstance(error, errors.LocalEntryNotFoundError)
        if isinstance(error, errors.EntryNotFoundError) and not offline:
            raise NoSuchFileError(f"{place}: the data set has no file {parts['file']}; check its files") from None
        reason = f"cannot be downloaded ({one_line(error, 100)})"
        reason = "is not in the cache and the Hub cannot be reached" if offline else reason
        remedy = "check the address, the network, and whether the data set asks for a login"
        raise InputError(f"{place}: {reason}; {remedy}") from None
    # The cache keeps the files of a commit in a directory of its name.
    return path, path.parents[len(PurePosixPath(parts["file"]).parts) - 1].name


def read_table(
    place: str | Path | pl.DataFrame, columns: Sequence[str] | Wanted, where: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, SourceFile]:
    """Return columns of a file, or of a frame, in its order as text, with `LINE`, and what identifies the file.

    Text is stripped, and null where it is empty; lists of whole numbers (Parquet) stay lists. A FASTA or FASTQ has the
    columns ``sequence``, ``name`` and ``label``; where the label is wanted, it is what follows the last ``|`` of the
    header, and the name is the first word of what precedes it. `columns` may be a function of the header. `where` keeps
    the rows that have these values.
    """
    path: Any = place
    read: Any = _read_frame
    source = SourceFile(_FRAME, 0, "", None)
    if not isinstance(place, pl.DataFrame):
        path, source = find_file(place)
        if (suffix := _suffix(source.place)) not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise InputError(f"{place}: its name does not tell the format; end it in {known} (text also .gz)")
        read = _read_parquet if suffix == ".parquet" else _read_fastx if suffix in _FASTX else _read_separated
    place = source.place
    texts, where = pl.col(pl.String).str.strip_chars(), where or {}

    def wanted(header: list[str]) -> list[str]:
        chosen = list(dict.fromkeys([*(columns(header) if callable(columns) else columns), *where]))
        for name in chosen:
            if (count := header.count(name)) != 1:
                names = {other.strip().lower(): other for other in header}
                near = [f"; did you mean {names[one]!r}?" for one in difflib.get_close_matches(name.lower(), names, 1)]
                missing = f"no column {name!r}; there are {listed_names(header)}{''.join(near)}"
                raise InputError(f"{place}: {f'column {name!r} comes {count} times; rename' if count else missing}")
        return chosen

    frame = read(path, place, wanted).with_columns(pl.when(texts != "").then(texts))
    if frame.is_empty():
        raise InputError(f"{place}: holds no rows; choose a file with data in it")
    for name, value in where.items():
        found, frame = texts_of(frame, source.place, name), frame.filter(pl.col(name) == value)
        if frame.is_empty():
            there = listed_names(found.drop_nulls().unique().sort())
            raise InputError(f"{place}: no row has {name!r} = {value!r}; there are {there}")
    return frame, source


def is_fasta(place: str) -> bool:
    """Return whether a file's name is that of a FASTA or FASTQ."""
    return _suffix(place) in _FASTX


def _suffix(place: str) -> str:
    return PurePosixPath(place.lower().removesuffix(".gz")).suffix


def listed_names(names: Iterable[str]) -> str:
    """Return names for a message of one line, whatever they contain."""
    return names_text((" ".join(name.split()) for name in names), 20)


def _read_text(path: Path, place: str) -> bytes:
    """Return a text, decompressed, with a line feed at the end of each line."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        data = b"%b\n" % data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n")
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{place}: is damaged or cut short ({one_line(error)}); copy it again") from None
    if not data.strip():
        raise InputError(f"{place}: is empty; choose a file with data in it")
    return data


def _read_separated(path: Path, place: str, wanted: Wanted) -> pl.DataFrame:
    data, separator = _read_text(path, place), _SEPARATORS[_suffix(place)]
    header = data.lstrip(b"\n").partition(b"\n")[0]
    if separator == "," and b"," not in header and b";" in header:
        separator = ";"
    # Lines and columns are counted here, as polars fills up short rows and does not tell the lines of long ones.
    byte_B = np.frombuffer(data, dtype=np.uint8)
    newline_B, quoted_B = byte_B == ord("\n"), np.cumsum(byte_B == ord('"'), dtype=np.uint8) % 2 == 1
    end_R = np.append(np.flatnonzero(newline_B & ~quoted_B), np.flatnonzero(quoted_B[-1:]) + len(data))
    start_R = np.append(0, end_R[:-1] + 1)
    blank_R = end_R == start_R
    line_R = (np.searchsorted(np.flatnonzero(newline_B), start_R) + 1)[~blank_R]
    column_R = np.searchsorted(np.flatnonzero((byte_B == ord(separator)) & ~quoted_B), end_R)
    columns_R = (np.diff(column_R, prepend=0) + 1)[~blank_R]
    wrong = np.flatnonzero(columns_R != columns_R[0])
    if len(wrong) or quoted_B[-1]:
        row, by = int([*wrong, -1][0]), {",": "commas", ";": "semicolons"}.get(separator, "tabs")
        ragged = f"has {columns_R[row]} columns where the header has {columns_R[0]}"
        what = ragged if len(wrong) else "a quotation mark is not closed"
        raise InputError(f"{place}, line {line_R[row]}: {what}; separate columns by {by}, and quote values with {by}")
    data = np.delete(byte_B, end_R[blank_R]).tobytes()
    options: dict[str, Any] = {"separator": separator, "infer_schema": False}
    try:
        names = wanted([name or "" for name in pl.read_csv(data, has_header=False, n_rows=1, **options).row(0)])
        frame = pl.read_csv(data, columns=names, **options).select(names)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{place}: cannot be read as a table ({one_line(error, 300)}); check the file") from None
    if separator == ";":
        known = pl.all().filter(~pl.all().str.to_lowercase().is_in(MISSING)).str
        found = frame.select(known.contains(",").any() & known.contains(_DECIMAL_COMMA).all())
        decimals = [name for name in names if found[name].item()]
        frame = frame.with_columns(pl.col(decimals).str.replace(",", ".", literal=True))
        commas = f"; decimal commas in {listed_names(decimals)}" if decimals else ""
        print(f"{place}: columns are separated by semicolons{printable(commas)}", file=sys.stderr)  # noqa: T201
    return frame.insert_column(0, pl.Series(LINE, line_R[1:], dtype=pl.UInt32))


def _read_parquet(path: Path, place: str, wanted: Wanted) -> pl.DataFrame:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=wanted(file.schema_arrow.names))
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place}: is not Parquet or damaged ({one_line(error, 300)}); copy it again") from None
    return _read_frame(pl.DataFrame(pl.from_arrow(table)), place, lambda header: header)


def _read_frame(frame: pl.DataFrame, place: str, wanted: Wanted) -> pl.DataFrame:
    frame = frame.select(wanted(frame.columns))
    for name, kind in frame.schema.items():
        to = pl.List(pl.Int64) if getattr(getattr(kind, "inner", None), "is_integer", bool)() else pl.String
        try:
            if to == pl.String and kind.is_nested():
                raise pl.exceptions.InvalidOperationError
            frame = frame.with_columns(pl.col(name).cast(pl.UInt8 if kind == pl.Boolean else kind).cast(to))
        except pl.exceptions.PolarsError:
            raise InputError(f"{place}: column {name} holds {kind}; expected text or numbers") from None
    return frame.with_row_index(LINE, 1)


def _read_fastx(path: Path, place: str, wanted: Wanted) -> pl.DataFrame:
    names = wanted(["sequence", "name", "label"])
    # htslib skips what precedes the first header.
    if (start := _read_text(path, place).strip()[:10].decode("utf-8", "replace"))[0] not in ">@":
        raise InputError(f"{place}: is not FASTA or FASTQ, it starts with {start!r}; choose another file")
    try:
        with pysam.FastxFile(str(path)) as file:
            rows = [(one.sequence, f"{one.name or ''} {one.comment or ''}".strip()) for one in file]
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: is damaged or cut short ({one_line(error, 300)}); copy it again") from None
    frame = pl.DataFrame(rows, schema={"sequence": pl.String, "name": pl.String}, orient="row").with_row_index(LINE, 1)
    if "label" in names:
        header = pl.col("name").str
        frame = frame.with_columns(header.extract(r"\|([^|]*)$").alias("label"), header.replace(r"\|[^|]*$", ""))
    return frame.with_columns(pl.col("name").str.extract(r"^(\S+)")).select(LINE, *names)


def reject(frame: pl.DataFrame, place: str, column: str, bad: pl.Expr | pl.Series, what: str) -> None:
    """Raise InputError for the first row that is bad, with its line and value."""
    for row in frame.select(bad.alias("bad"))["bad"].fill_null(value=False).arg_true()[:1]:
        value = frame[column][row]
        shown = "missing" if value is None else repr(value if len(value) < 100 else f"{value[:97]}...")
        raise row_error(frame, place, row, f"{column} is {shown}; {what}")


def row_error(frame: pl.DataFrame, place: str, row: int, what: str) -> InputError:
    """Return the error for a row of a frame, with its line in the file; a `LINE` of text is used as it is."""
    line = frame[LINE][row]
    kind = "row" if place == _FRAME or _suffix(place) == ".parquet" else "record" if is_fasta(place) else "line"
    return InputError(f"{place}, {line if isinstance(line, str) else f'{kind} {line}'}: {what}")


def texts_of(frame: pl.DataFrame, place: str, column: str, *, missing: Sequence[str] = ()) -> pl.Series:
    """Return a column that has to hold text, null where it is a word for `missing`."""
    if frame.schema[column] != pl.String:
        raise InputError(f"{place}: column {column} holds lists; expected text or numbers")
    return frame.select(pl.when(~pl.col(column).str.to_lowercase().is_in(missing)).then(pl.col(column)))[column]


def numbers(frame: pl.DataFrame, place: str, column: str, *, low: float = -np.inf, high: float = np.inf) -> pl.Series:
    """Return a column of finite numbers (Float64), null where there is none."""
    texts = texts_of(frame, place, column, missing=MISSING)
    values = texts.str.strip_prefix("+").cast(pl.Float64, strict=False)
    well = texts.str.contains(NUMBER) & values.is_finite() & values.is_between(low, high)
    between = "" if (low, high) == (-np.inf, np.inf) else f" from {low:g} to {high:g}"
    reject(frame, place, column, texts.is_not_null() & ~well.fill_null(value=False), f"expected a number{between}")
    return values


def positions(frame: pl.DataFrame, place: str, column: str) -> pl.Series:
    """Return a column of positions as the file has them, 1-based (Int64); none may be missing."""
    values = texts_of(frame, place, column).str.extract(r"^0*([1-9][0-9]{0,9})(?:\.0*)?$").cast(pl.Int64)
    reject(frame, place, column, values.is_null(), "positions are whole numbers from 1 on")
    return values


def truths(frame: pl.DataFrame, place: str, column: str) -> pl.Series:
    """Return a column of truth values, 0 or 1 or false or true (Boolean), null where there is none."""
    texts = texts_of(frame, place, column, missing=MISSING).str.to_lowercase()
    values = texts.replace_strict(_TRUTHS, default=None, return_dtype=pl.Boolean)
    reject(frame, place, column, texts.is_not_null() & values.is_null(), "expected 0 or 1")
    return values


def notebook_html(text: str, rows: Iterable[Mapping[str, Any]] | pl.DataFrame) -> str:
    """Return what a notebook shows of a result: a line of text, and a table."""
    return f"<p>{html.escape(text)}</p>{pl.DataFrame(rows)._repr_html_()}"
