"""Labelled sequences from files: CSV, TSV, Parquet and FASTA, from a folder or from the Hugging Face Hub.

Shape suffixes: N sequences, K columns of labels, T bases of all sequences together, U different labels.
"""

from __future__ import annotations

import difflib
import gzip
import re
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.examples.table import NOT_COUNTED, PROBLEMS, Examples
from mutbert.publishing import sha256_of
from mutbert.regions import Region, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_FASTA: Final = (".fa", ".fasta", ".fna", ".fas")
_FORMATS: Final = (*_SEPARATORS, *_FASTA, ".parquet")
_FASTA_COLUMNS: Final = ("sequence", "name", "label")

_HUB: Final = "hf://"
_HUB_PLACE: Final = re.compile(
    r"hf://datasets/(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?/(?P<file>.+)"
)
_HUB_FORM: Final = "hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE"

# The empty block that ends every complete BGZF file (SAM specification, section 4.1.2).
_BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

_LARGEST_BLOCK: Final = 1 << 30
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# What programs write where a number is missing.
_NO_NUMBER: Final = frozenset({"nan", "na", "n/a", "null", "none"})
_REGION: Final = r"(?s)^(?P<contig>.+?):(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})(?:\|.*)?$"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what; a FASTA has the columns ``sequence``, ``name`` and ``label``.

    Parameters
    ----------
    sequence : str
        The sequences.
    label : str, tuple of str or None
        The labels; several columns where a sequence has several labels; ``None`` where there are none.
    name : str, optional
        A name for each sequence. A FASTA's are read without it.
    region : str, optional
        Where a sequence lies, as ``chr3:32091651-32092651`` and anything behind a ``|``: 0-based and half-open, as
        the Nucleotide Transformer's sets have it.
    where : mapping of str to str
        Keep the rows alone that have this text in this column.
    """

    sequence: str = "sequence"
    label: str | tuple[str, ...] | None = "label"
    name: str | None = None
    region: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of labels, any number of them."""
        return (self.label,) if isinstance(self.label, str) else self.label or ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        others = [column for column in (self.name, self.region) if column is not None]
        return tuple(dict.fromkeys([self.sequence, *self.labels, *others, *self.where]))


@dataclass(frozen=True)
class SourceFile:
    """A file as it was read, so that it can be found and compared again.

    Parameters
    ----------
    place : str
        Its path, or its address on the Hub.
    bytes : int
        Its size, compressed if it is.
    sha256 : str
        Its SHA-256, in hexadecimal digits.
    revision : str or None
        The commit that a file from the Hub is of.
    """

    place: str
    bytes: int
    sha256: str
    revision: str | None


class NoSuchFileError(InputError):
    """There is no file of this name, where everything else is as it should be."""


class FoundFile(NamedTuple):
    """A file on the disk, and where it is from."""

    path: Path
    source: SourceFile


class ReadExamples(NamedTuple):
    """What a file holds, and which file it was."""

    examples: Examples
    source: SourceFile


class _Labels(NamedTuple):
    values: npt.NDArray[Any] | None
    problem: str
    classes: tuple[str, ...]


class _Distinct(NamedTuple):
    """A column as its different texts, in the order of their first rows, and which of them each row has."""

    texts: list[str]
    index_N: Int64


@dataclass(frozen=True)
class _Table:
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


def find_file(place: str | Path) -> FoundFile:
    """Find a file on the disk, or fetch it from the Hugging Face Hub.

    Parameters
    ----------
    place : str or Path
        A path, or ``hf://datasets/OWNER/NAME/FILE``, with ``@REVISION`` behind the name where it is not to be the
        newest. A file is fetched once and then taken from the Hub's cache; a data set's script is never run.

    Returns
    -------
    FoundFile

    Raises
    ------
    InputError
        When there is no such file, or it cannot be fetched or read.
    MissingExtraError
        When the file is on the Hub and huggingface_hub is not installed.
    """
    name = str(place)
    revision = None
    if name.startswith(_HUB):
        path, revision = _fetch(name)
    else:
        path = Path(place)
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give the file itself")
        if not path.is_file():
            raise NoSuchFileError(f"{name}: no such file; check the path")
    try:
        return FoundFile(path, SourceFile(name, path.stat().st_size, sha256_of(path), revision))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions") from None


def _fetch(place: str) -> tuple[Path, str]:
    parts = _HUB_PLACE.fullmatch(place)
    if parts is None:
        raise InputError(f"{place}: is no file of a data set on the Hub; write {_HUB_FORM}")
    if parts["file"].endswith(".py"):
        raise InputError(f"{place}: is a script, and none is ever run; give the file of data that it reads")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "bench") from None
    revision = unquote(parts["revision"]) if parts["revision"] else None
    try:
        path = Path(hf_hub_download(parts["repository"], parts["file"], repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError:
        raise InputError(
            f"{place}: is not in the cache and the Hub cannot be reached; check the network, or give a file on the disk"
        ) from None
    except EntryNotFoundError:
        raise NoSuchFileError(
            f"{place}: the data set has no file {parts['file']}; look at its files on the Hub"
        ) from None
    # The client lets through what its HTTP library raises, which is not the same in all its versions.
    except Exception as error:
        raise InputError(
            f"{place}: cannot be fetched ({one_line(error, 300)}); check the address, the network and whether the data "
            "set asks for a login"
        ) from None
    # The cache keeps the files of a commit in a folder of its name.
    return path, path.parents[len(PurePosixPath(parts["file"]).parts) - 1].name


def read_examples(
    place: str | Path,
    columns: Columns | None = None,
    *,
    problem: str | None = None,
    classes: Sequence[str] | None = None,
) -> ReadExamples:
    """Read labelled sequences.

    The suffix tells the format: ``.csv``, ``.tsv`` or ``.txt`` (tabs), ``.fa``, ``.fasta``, ``.fna`` or ``.fas``, each
    also with ``.gz`` (gzip or bgzip), and ``.parquet``. A FASTA's label stands behind the last ``|`` of the header.

    Sequences are IUPAC codes in either case; U is read as T. Class labels that are all 0 to K - 1 keep their numbers,
    and so do a file's in which 0 or 1 stands alone; other labels have the places that they have in `classes`, or are
    numbered in sorted order (numbers by their size). Files of one task that may not all hold every class need
    `classes`, the ones of the training set. Labels of a column of floating-point numbers are rounded to float32.

    Parameters
    ----------
    place : str or Path
        As for `find_file`.
    columns : Columns, optional
        Which columns mean what.
    problem : str, optional
        One of `mutbert.examples.table.PROBLEMS`. Where left out, whole numbers or words make it ``binary`` when there
        are two of them and ``multiclass`` otherwise; other numbers ``regression``; several columns ``multilabel`` when
        they hold 0 and 1 alone, and else ``regression``. For ``token`` a label is as many digits as the sequence has
        bases, or as many whole numbers with spaces or commas between them, -100 where a base does not count.
    classes : sequence of str, optional
        The names of the classes in the order of their numbers, at least two. Labels are these names, or their numbers.
        For ``multilabel`` and ``regression`` other names for the columns.

    Returns
    -------
    ReadExamples
        In the order of the file.

    Raises
    ------
    InputError
        When the file cannot be found or read, is cut short or damaged, lacks a column, holds no rows, or a row's
        sequence or label is missing or not what it should be; the message names file and line (of Parquet the row,
        from 1).
    ValueError
        When `problem` is none of those, or there are no labels for it.
    MissingExtraError
        When pyarrow or huggingface_hub is needed and not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "bench") from None
    columns = columns or Columns()
    if problem not in (None, *PROBLEMS) or (problem and not columns.labels):
        raise ValueError(f"problem {problem!r}: is one of {PROBLEMS}, and needs a column of labels")
    path, source = find_file(place)
    table = _select_rows(_read_table(path, source.place, columns), columns.where)
    base_codes, offsets = _encode(table, columns.sequence)
    labels = _read_labels(table, columns, offsets, problem, classes)
    regions, unplaced = _read_regions(table, columns.region, np.diff(offsets))
    name = columns.name or ("name" if "name" in table.columns and _suffix(source.place) in _FASTA else None)
    examples = Examples(
        base_codes,
        offsets,
        labels.values,
        tuple(table.columns[name].fill_null("").to_pylist()) if name else ("",) * (len(offsets) - 1),
        regions,
        labels.problem,
        labels.classes,
        unplaced,
    )
    return ReadExamples(examples, source)


def _suffix(place: str) -> str:
    path = PurePosixPath(place.lower())
    if path.suffix == ".gz" and not path.stem.endswith(".parquet"):
        path = path.with_suffix("")
    return path.suffix


def _read_table(path: Path, place: str, columns: Columns) -> _Table:
    suffix = _suffix(place)
    if suffix not in _FORMATS:
        raise InputError(
            f"{place}: its name does not tell the format; it should end in {', '.join(_FORMATS)} (each but the last "
            "also with .gz)"
        )
    if suffix == ".parquet":
        return _read_parquet(path, place, columns.wanted)
    data = _read_text(path, place)
    if suffix in _FASTA:
        return _read_fasta(data, place, columns)
    return _read_separated(data, place, _SEPARATORS[suffix], columns.wanted)


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


def _read_separated(data: bytes, place: str, separator: str, wanted: Sequence[str]) -> _Table:
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
    return _Table(place, arrays, frozenset(), np.arange(len(table)), line_of)


def _read_parquet(path: Path, place: str, wanted: Sequence[str]) -> _Table:
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
    return _Table(place, arrays, floating, np.arange(len(table)), lambda row: f"row {row + 1}")


def _read_fasta(data: bytes, place: str, columns: Columns) -> _Table:
    import pyarrow as pa

    _check_columns(place, _FASTA_COLUMNS, columns.wanted)
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
    table = _Table(place, arrays, frozenset(), np.arange(len(header_N)), lambda row: f"line {header_N[row] + 1}")
    if "label" in columns.wanted:
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
            raise InputError(f"{place}: no column {name!r}; there are {_listed(names)}{hint}")
        if names.count(name) > 1:
            raise InputError(f"{place}: column {name!r} comes {names.count(name)} times; rename all but one")


def _listed(names: Iterable[str]) -> str:
    """List names for a message of one line, whatever is in them."""
    return names_text((" ".join(name.split()) for name in names), 20)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _select_rows(table: _Table, where: Mapping[str, str]) -> _Table:
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
            raise InputError(f"{table.place}: no row has {name!r} = {wanted!r}; there are {_listed(values)}")
        kept = {other: array.filter(keep) for other, array in table.columns.items()}
        table = replace(table, columns=kept, row_N=table.row_N[np.asarray(keep)])
    return table


def _bytes_of(strings: pa.Array) -> tuple[UInt8, Int64]:
    """Give the bytes of all strings one after the other, and the offsets at which they begin."""
    _, bounds, data = strings.buffers()
    offsets = np.frombuffer(bounds, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    return text[offsets[0] : offsets[-1]], offsets - offsets[0]


def _encode(table: _Table, name: str) -> tuple[UInt8, Int64]:
    sequences = table.columns[name]
    if sequences.type != "large_string":
        raise InputError(f"{table.place}: column {name} holds lists; the sequences should be text")
    text_T, offsets = _bytes_of(sequences.fill_null(""))
    code_T = alphabet.CODE_OF_BYTE[text_T]
    # As the file is read: of an empty sequence and a wrong character the one that comes first.
    empty = np.flatnonzero(np.diff(offsets) == 0)
    wrong = np.flatnonzero(code_T == alphabet.NOT_A_BASE)
    wrong_row = int(np.searchsorted(offsets, wrong[0], side="right")) - 1 if len(wrong) else len(table.row_N)
    if len(empty) and empty[0] < wrong_row:
        raise table.wrong(int(empty[0]), "the sequence is empty; remove the row, or add the bases")
    if len(wrong):
        at = int(wrong[0] - offsets[wrong_row])
        character = sequences[wrong_row].as_py()[at]
        raise table.wrong(
            wrong_row,
            f"{character!r} at position {at} of the sequence (the first is 0) is not an IUPAC nucleotide code; give "
            "DNA or RNA",
        )
    return code_T, offsets


def _read_regions(table: _Table, name: str | None, length_N: Int64) -> tuple[tuple[Region | None, ...], dict[str, int]]:
    import pyarrow.compute as pc

    if name is None:
        return (None,) * len(length_N), {}
    text = table.columns[name].fill_null("")
    parts = pc.extract_regex(text, _REGION)
    contigs = parts.field("contig")
    start_N, end_N = (
        np.asarray(pc.cast(pc.if_else(parts.is_valid(), parts.field(part), "0"), "int64")) for part in ("start", "end")
    )
    missing_N = np.asarray(pc.equal(text, ""))
    written_N = np.asarray(parts.is_valid())
    agrees_N = end_N - start_N == length_N
    reasons = {
        "no region is given": missing_N,
        "the region is not written as CONTIG:START-END": ~missing_N & ~written_N,
        "the region's length is not the sequence's": written_N & ~agrees_N,
    }
    rows = zip((written_N & agrees_N).tolist(), contigs.to_pylist(), start_N.tolist(), end_N.tolist(), strict=True)
    regions = tuple(Region(contig, start, end) if known else None for known, contig, start, end in rows)
    return regions, {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}


def _read_labels(
    table: _Table, columns: Columns, offsets: Int64, problem: str | None, classes: Sequence[str] | None
) -> _Labels:
    names = columns.labels
    if not names:
        return _Labels(None, "", ())
    if problem == "token":
        if len(names) > 1:
            raise InputError(f"{table.place}: a label for each base is one column, not {len(names)}; name one")
        return _token_labels(table, names[0], offsets, classes)
    distinct = [_distinct(table, name, classes or ()) for name in names]
    if isinstance(columns.label, str) and problem in (None, "binary", "multiclass"):
        texts = distinct[0].texts
        numbers = names[0] in table.floating or not all(map(_INTEGER.fullmatch, texts))
        if problem or not (numbers and all(map(_NUMBER.fullmatch, texts))):
            return _class_labels(table, names[0], distinct[0], problem, classes)
    if problem in ("binary", "multiclass"):
        raise InputError(f"{table.place}: a {problem} label is one column, not {len(names)}; name one")

    value_NK = np.stack([_numbers(table, *pair) for pair in zip(names, distinct, strict=True)], axis=1)
    other = (value_NK != 0) & (value_NK != 1)
    if problem is None:
        problem = "multilabel" if not isinstance(columns.label, str) and not other.any() else "regression"
    titles = tuple(classes or names)
    if len(titles) != len(names):
        raise InputError(f"{table.place}: {len(titles)} classes for {len(names)} columns of labels; give one for each")
    if problem == "regression":
        return _Labels(value_NK[:, 0] if isinstance(columns.label, str) else value_NK, problem, titles)
    if other.any():
        row, column = np.argwhere(other)[0].tolist()
        text = distinct[column].texts[distinct[column].index_N[row]]
        raise table.wrong(row, f"{names[column]} is {text!r}; where a sequence has several labels each is 0 or 1")
    return _Labels(value_NK.astype(np.uint8), problem, titles)


def _distinct(table: _Table, name: str, classes: Sequence[str]) -> _Distinct:
    """Tell the different labels of a column apart, and refuse missing ones."""
    import pyarrow.compute as pc

    if table.columns[name].type != "large_string":
        raise InputError(f"{table.place}: column {name} holds lists; only the problem 'token' has them as labels")
    coded = pc.dictionary_encode(pc.utf8_trim_whitespace(table.columns[name].fill_null("")))
    found = _Distinct(coded.dictionary.to_pylist(), np.asarray(coded.indices).astype(np.int64))
    lacking = [not text or (text.lower() in _NO_NUMBER and text not in classes) for text in found.texts]
    # Among words, such a word may be a class.
    if not all(lacks or _NUMBER.fullmatch(text) for lacks, text in zip(lacking, found.texts, strict=True)):
        lacking = [not text for text in found.texts]
    if any(lacking):
        row = _first_row(found, lacking)
        raise table.wrong(row, f"the label in column {name} is missing; fill it in, or remove the row")
    return found


def _first_row(distinct: _Distinct, marked: Sequence[bool]) -> int:
    """Give the first row whose text is marked."""
    return int(np.argmax(np.array(marked, dtype=bool)[distinct.index_N]))


def _numbers(table: _Table, name: str, distinct: _Distinct) -> npt.NDArray[np.float32]:
    """Read a column of labels as numbers, float32 (N,)."""
    wrong = [not _NUMBER.fullmatch(text) for text in distinct.texts]
    if not any(wrong):
        with np.errstate(over="ignore"):
            value_U = np.array(distinct.texts, dtype=str).astype(np.float64).astype(np.float32)
        wrong = (~np.isfinite(value_U)).tolist()
    if any(wrong):
        row = _first_row(distinct, wrong)
        text = distinct.texts[distinct.index_N[row]]
        raise table.wrong(row, f"the label {text!r} in column {name} is not a number of float32; correct it")
    values: npt.NDArray[np.float32] = value_U[distinct.index_N]
    return values


def _class_labels(
    table: _Table, name: str, distinct: _Distinct, problem: str | None, classes: Sequence[str] | None
) -> _Labels:
    texts = distinct.texts
    if all(map(_INTEGER.fullmatch, texts)):
        texts = [str(int(text)) for text in texts]
    titles = tuple(classes) if classes is not None else _titles(texts)
    if len(set(titles)) < max(len(titles), 2):
        if classes is None:
            raise InputError(
                f"{table.place}: every label in column {name} is {titles[0]!r}; give the classes that there are, or "
                "rows of another one"
            )
        raise InputError(f"{table.place}: the classes {_listed(titles)} are not two or more different ones")
    number_of = {title: number for number, title in enumerate(titles)}
    if not any(map(_INTEGER.fullmatch, titles)) and all(map(_INTEGER.fullmatch, texts)):
        number_of = {str(number): number for number in range(len(titles))}
    unknown = [text not in number_of for text in texts]
    if any(unknown):
        row = _first_row(distinct, unknown)
        raise table.wrong(
            row,
            f"the label {distinct.texts[distinct.index_N[row]]!r} is not one of the classes "
            f"{_listed(number_of)}; correct it, or give the classes that there are",
        )
    if problem == "binary" and len(titles) != 2:
        raise InputError(
            f"{table.place}: column {name} has {len(titles)} classes ({_listed(titles)}) where a binary label has "
            "2; call it multiclass, or choose rows"
        )
    number_U = np.array([number_of[text] for text in texts], dtype=np.int64)
    return _Labels(number_U[distinct.index_N], problem or ("binary" if len(titles) == 2 else "multiclass"), titles)


def _titles(texts: Sequence[str]) -> tuple[str, ...]:
    """Give the classes of the labels that there are, in the order of their numbers."""
    if not all(map(_INTEGER.fullmatch, texts)):
        return tuple(sorted(set(texts)))
    numbers = {int(text) for text in texts}
    return tuple(map(str, sorted(numbers | {0, 1} if numbers <= {0, 1} else numbers)))


def _token_labels(table: _Table, name: str, offsets: Int64, classes: Sequence[str] | None) -> _Labels:
    """Read a label for each base; see `read_examples` for how it may be written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column, length_N = table.columns[name], np.diff(offsets)
    if column.type == "large_string":
        text = pc.utf8_trim(column.fill_null(""), characters="[] \t")
        digits_N = np.asarray(pc.match_substring_regex(text, "^[0-9]+$")) & (
            np.asarray(pc.utf8_length(text)) == length_N
        )
        listed = pc.split_pattern_regex(pc.if_else(pa.array(digits_N), "", text), r"\s*[\s,]\s*")
        well = pc.match_substring_regex(text, r"^-?[0-9]{1,9}(\s*[\s,]\s*-?[0-9]{1,9})*$")
        bad = ~(digits_N | np.asarray(well))
        if bad.any():
            raise table.wrong(
                int(np.argmax(bad)),
                f"the labels in column {name} are neither digits nor whole numbers with spaces or commas between them",
            )
        count_N = np.where(digits_N, length_N, np.asarray(pc.list_value_length(listed)))
        given = pc.cast(pc.list_flatten(listed.filter(pa.array(~digits_N))), "int64")
        value_T = np.empty(count_N.sum(), dtype=np.int64)
        is_digit_T = np.repeat(digits_N, count_N)
        value_T[is_digit_T] = _bytes_of(text.filter(pa.array(digits_N)))[0] - np.uint8(ord("0"))
        value_T[~is_digit_T] = np.asarray(given)
    else:
        count_N = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        # A missing number is a label below all that there are, and refused as such.
        value_T = np.asarray(pc.fill_null(pc.list_flatten(column), NOT_COUNTED - 1))
    differs = count_N != length_N
    if differs.any():
        row = int(np.argmax(differs))
        raise table.wrong(row, f"column {name} has {count_N[row]} labels for {length_N[row]} bases; give one for each")
    titles = tuple(classes or map(str, range(max(int(value_T.max()) + 1, 2))))
    outside = (value_T != NOT_COUNTED) & ((value_T < 0) | (value_T >= len(titles)))
    if outside.any():
        place = int(np.argmax(outside))
        row = int(np.searchsorted(offsets, place, side="right")) - 1
        raise table.wrong(
            row,
            f"the label of base {place - offsets[row]} (the first is 0) is {value_T[place]}; it should be 0 to "
            f"{len(titles) - 1}, or {NOT_COUNTED} where the base does not count",
        )
    return _Labels(value_T, "token", titles)
