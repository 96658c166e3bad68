"""The columns of a file as arrays of text, whatever its format: CSV, TSV, Parquet or FASTA.

Shape suffixes: N rows, L lines, R rows with something on them, B bytes.
"""

from __future__ import annotations

import difflib
import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError, one_line
from mutbert.examples.files import Columns
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    from mutbert.arrays import Int64, UInt8


_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_FASTA: Final = (".fa", ".fasta", ".fna", ".fas")
_FORMATS: Final = (*_SEPARATORS, *_FASTA, ".parquet")
_FASTA_COLUMNS: Final = ("sequence", "name", "label")
# The empty block that ends every complete BGZF file (SAM specification, section 4.1.2).
_BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_LARGEST_BLOCK: Final = 1 << 30


TableColumns = Columns


class MissingColumnError(InputError):
    """A file has no column of a name that is wanted."""


@dataclass(frozen=True)
class FileTable:
    """The columns of a file that are wanted.

    Parameters
    ----------
    place : str
        The file, for messages.
    columns : mapping of str to Array
        As pyarrow's ``large_string``, or a list of integers; all of one length.
    floating : frozenset of str
        Columns that the file itself holds as floating-point numbers.
    row_N : ndarray of int64, shape (N,)
        Which row of the file each is, from 0.
    line_of : callable
        Row of the file, from 0, to the place in it as a message says it.
    """

    place: str
    columns: Mapping[str, pa.Array]
    floating: frozenset[str]
    row_N: Int64
    line_of: Callable[[int], str]

    def wrong(self, row: int, what: str) -> InputError:
        """Make the error of a row, by its place in this table."""
        return InputError(f"{self.place}, {self.line_of(int(self.row_N[row]))}: {what}")


def read_table(path: Path, place: str, wanted: Sequence[str]) -> FileTable:
    """Read columns of a file; the suffix of its name tells the format.

    Parameters
    ----------
    path : Path
        Where it lies on the disk.
    place : str
        What it is called.
    wanted : sequence of str
        The columns; of a FASTA there are ``sequence``, ``name`` and ``label``.

    Returns
    -------
    FileTable
        In the order of the file.

    Raises
    ------
    MissingColumnError
        When it lacks a column.
    InputError
        When it cannot be read.
    """
    suffix = _suffix(place)
    if suffix not in _FORMATS:
        raise InputError(
            f"{place}: its name does not tell the format; it should end in {', '.join(_FORMATS)} (each but the last "
            "also with .gz)"
        )
    if suffix == ".parquet":
        return _read_parquet(path, place, wanted)
    data = _read_text(path, place)
    if suffix in _FASTA:
        return _read_fasta(data, place, wanted)
    return _read_separated(data, place, _SEPARATORS[suffix], wanted)


def select_rows(table: FileTable, where: Mapping[str, str]) -> FileTable:
    """Keep the rows that have these texts in these columns.

    Raises
    ------
    InputError
        When there are none, or a column holds no text.
    """
    import pyarrow.compute as pc

    if not len(table.row_N):
        raise InputError(f"{table.place}: holds no rows; give a file with sequences in it")
    for name, wanted in where.items():
        there = table.columns[name]
        if there.type != "large_string":
            raise InputError(f"{table.place}: column {name} holds lists; choose rows by a column of text or numbers")
        keep = pc.fill_null(pc.equal(there, wanted), False)
        if not pc.any(keep).as_py():
            values = sorted(pc.unique(there.drop_null()).to_pylist())
            raise InputError(f"{table.place}: no row has {name!r} = {wanted!r}; there are {listed_names(values)}")
        kept = {other: array.filter(keep) for other, array in table.columns.items()}
        table = replace(table, columns=kept, row_N=table.row_N[np.asarray(keep)])
    return table


def is_fasta(place: str) -> bool:
    """Say whether a file's name says that it is FASTA."""
    return _suffix(place) in _FASTA


def _suffix(place: str) -> str:
    path = PurePosixPath(place.lower())
    if path.suffix == ".gz" and not path.stem.endswith(".parquet"):
        path = path.with_suffix("")
    return path.suffix


def _read_text(path: Path, place: str) -> bytes:
    """Read a text, decompressed, with line ends as everywhere and one at the end."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        # A BGZF block is a gzip member whose extra field begins with the subfield BC.
        if data[3] & 4 and data[12:14] == b"BC" and not data.endswith(_BGZF_END):
            raise InputError(
                f"{place}: its bgzip end marker is missing, so it was cut short; copy or download it again"
            )
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{place}: its compressed data are damaged or cut short ({one_line(error)}); copy or download it again"
            ) from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise InputError(f"{place}: is empty; give a file with sequences in it")
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(f"{place}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    return data if data.endswith(b"\n") else data + b"\n"


def _read_separated(data: bytes, place: str, separator: str, wanted: Sequence[str]) -> FileTable:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    # Lines with something on them, as the parser leaves out empty ones.
    end_L = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    line_R = np.flatnonzero(np.diff(end_L, prepend=-1) > 1)

    def line_of(row: int) -> str:
        return f"line {line_R[row + 1] + 1}"

    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    def parse(text: bytes, columns: Sequence[str] = ()) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(text),
            # In one piece, as a row must not be longer than one.
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=min(len(text) + 1, _LARGEST_BLOCK)),
            parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.large_string()),
                strings_can_be_null=False,
            ),
        )

    try:
        header = parse(data[: end_L[line_R[0]] + 1]).column_names
        _check_columns(place, header, wanted)
        table = parse(data, wanted)
        # Nothing says where a value ends that is not closed: it may hold the rest of the file.
        spans = len(table) + len(ragged) != len(line_R) - 1
        first = len(line_R) - 2
        if spans:
            every = parse(data, list(dict.fromkeys(header)))
            rows = [pc.index(pc.match_substring(column, "\n"), True).as_py() for column in every.columns]
            first = min((row for row in rows if row >= 0), default=first)
        # Up to the first of either, rows are lines.
        if ragged and ragged[0].number - 2 <= first:
            row = ragged[0]
            raise InputError(
                f"{place}, {line_of(row.number - 2)}: has {row.actual_columns} columns where the header has "
                f"{row.expected_columns}; separate columns by {'tabs' if separator == chr(9) else 'commas'} and put a "
                "value that holds one in quotation marks"
            )
        if spans:
            raise InputError(
                f"{place}, {line_of(first)}: a value in quotation marks goes on over the end of the line; close the "
                "quotation, or write the value on one line"
            )
    except pa.ArrowException as error:
        raise InputError(f"{place}: cannot be read as a table ({one_line(error, 300)}); check the file") from None
    arrays = {name: _flat(table.column(name)) for name in wanted}
    return FileTable(place, arrays, frozenset(), np.arange(len(table)), line_of)


def _read_parquet(path: Path, place: str, wanted: Sequence[str]) -> FileTable:
    import pyarrow as pa
    import pyarrow.parquet

    if not path.stat().st_size:
        raise InputError(f"{place}: is empty; give a file with sequences in it")
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(place, file.schema_arrow.names, wanted)
            table = file.read(columns=list(wanted))
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{place}: is no Parquet or is damaged ({one_line(error, 300)}); copy or download it again"
        ) from None
    arrays = {}
    for name in wanted:
        column, kind = table.column(name), table.schema.field(name).type
        try:
            if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
                column = column.cast(pa.large_list(pa.int64()))
            else:
                # A truth value is a number here, as it is in other files.
                column = column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column
                column = column.cast(pa.large_string())
        except pa.ArrowException:
            raise InputError(f"{place}: column {name} holds {kind}; it should hold text or numbers") from None
        arrays[name] = _flat(column)
    floating = frozenset(name for name in wanted if pa.types.is_floating(table.schema.field(name).type))
    return FileTable(place, arrays, floating, np.arange(len(table)), lambda row: f"row {row + 1}")


def _read_fasta(data: bytes, place: str, wanted: Sequence[str]) -> FileTable:
    import pyarrow as pa

    _check_columns(place, _FASTA_COLUMNS, wanted)
    byte_B = np.frombuffer(data, dtype=np.uint8)
    end_L = np.flatnonzero(byte_B == ord("\n"))
    start_L = np.concatenate([[0], end_L[:-1] + 1])
    header_N = np.flatnonzero(byte_B[start_L] == ord(">"))
    first = start_L[np.flatnonzero(end_L > start_L)[0]]
    if byte_B[first] != ord(">"):
        start = data[first : first + 10].decode("utf-8", "replace")
        raise InputError(
            f"{place}: is not FASTA, it starts with {start!r} and not with '>'; give a FASTA file, or one whose name "
            "tells its format"
        )
    # From the '>' up to the line end, and not beyond.
    change_B = np.zeros(len(byte_B), dtype=np.int8)
    change_B[start_L[header_N]] = 1
    change_B[end_L[header_N]] = -1
    in_header_B = np.cumsum(change_B, dtype=np.int8).astype(bool)
    bounds_N = np.append(start_L[header_N], len(byte_B))

    def texts(mask_B: npt.NDArray[np.bool_]) -> pa.Array:
        offsets = np.searchsorted(np.flatnonzero(mask_B), bounds_N)
        buffers = (pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(byte_B[mask_B]))
        return pa.LargeStringArray.from_buffers(len(header_N), *buffers)

    sequence = texts(~in_header_B & (byte_B != ord("\n")))
    in_header_B[start_L[header_N]] = False
    header = texts(in_header_B)
    arrays = {"sequence": sequence, "name": header}
    table = FileTable(place, arrays, frozenset(), np.arange(len(header_N)), lambda row: f"line {header_N[row] + 1}")
    if "label" in wanted:
        import pyarrow.compute as pc

        parts = pc.extract_regex(header, r"(?s)^(?P<name>.*)\|(?P<label>[^|]*)$")
        if parts.null_count:
            raise table.wrong(
                int(np.argmax(parts.is_null())),
                "the header has no label; write it behind a '|' at the end, as in >name|1, or ask for no labels",
            )
        arrays |= {"name": parts.field("name"), "label": parts.field("label")}
    return table


def _check_columns(place: str, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name.lower(), [other.strip().lower() for other in names], n=1)
            meant = next((other for other in names if [other.strip().lower()] == near), None)
            hint = f"; did you mean {meant!r}?" if meant is not None else "; say which column holds what"
            raise MissingColumnError(f"{place}: no column {name!r}; there are {listed_names(names)}{hint}")
        if names.count(name) > 1:
            raise InputError(f"{place}: column {name!r} comes {names.count(name)} times; rename all but one")


def listed_names(names: Iterable[str]) -> str:
    """List names for a message of one line, whatever is in them."""
    return names_text((" ".join(name.split()) for name in names), 20)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def bytes_of(strings: pa.Array) -> tuple[UInt8, Int64]:
    """Give the bytes of all strings one after the other, and the offsets at which they begin."""
    _, bounds, data = strings.buffers()
    offsets = np.frombuffer(bounds, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    return text[offsets[0] : offsets[-1]], offsets - offsets[0]
