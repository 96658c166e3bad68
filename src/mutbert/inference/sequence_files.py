"""Sequences without labels from files, one at a time: FASTA, FASTQ, CSV, TSV and Parquet.

Shape suffixes: L bases.
"""

from __future__ import annotations

import csv
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.examples.columns import MissingColumnError, listed_names
from mutbert.files import check_input, read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.arrays import UInt8


_FORMAT_OF_SUFFIX: Final = {
    ".fa": "fasta",
    ".fasta": "fasta",
    ".fna": "fasta",
    ".fas": "fasta",
    ".fq": "fastq",
    ".fastq": "fastq",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".parquet": "parquet",
    ".bed": "bed",
}
_SEPARATORS: Final = {"csv": ",", "tsv": "\t"}
TABLES: Final = (*_SEPARATORS, "parquet")
"""The formats that have columns."""
_ROWS_AT_ONCE: Final = 1024


class NamedSequence(NamedTuple):
    """A sequence of a file.

    Parameters
    ----------
    name : str
        The first word of its header, or what the column of names has.
    base_L : ndarray of uint8, shape (L,)
        Base codes, indices into `mutbert.alphabet.IUPAC`; at least one.
    """

    name: str
    base_L: UInt8


def format_of(path: Path) -> str:
    """Tell a file's format by its suffix: ``fasta``, ``fastq``, ``csv``, ``tsv``, ``parquet`` or ``bed``.

    Raises
    ------
    InputError
        When the suffix names none.
    """
    name = PurePath(path.name.lower())
    inner = PurePath(name.stem) if name.suffix == ".gz" else name
    found = _FORMAT_OF_SUFFIX.get(inner.suffix)
    if found is None or (found == "parquet" and inner is not name):
        raise InputError(
            f"{path}: its name does not tell the format; it should end in {', '.join(_FORMAT_OF_SUFFIX)} (text also "
            "with .gz)"
        )
    return found


def read_sequences(
    path: Path, file_format: str, *, sequence_column: str = "sequence", name_column: str | None = None
) -> Iterator[NamedSequence]:
    """Read a file's sequences in its order, one in memory at a time.

    Parameters
    ----------
    path : Path
        The file. Text may be gzip or bgzip, which its content tells.
    file_format : str
        ``fasta``: lines of any length. ``fastq``: four lines a record; the qualities are checked and not used.
        ``csv``, ``tsv`` (tabs) and ``parquet``: a row a sequence. Sequences are IUPAC codes in either case; U is read
        as T.
    sequence_column : str
        Of a table, the column of the sequences.
    name_column : str, optional
        Of a table, the column of the names. Where left out it is ``name``, if there is one. A row without a name has
        its number, from 0.

    Yields
    ------
    NamedSequence

    Raises
    ------
    InputError
        When the file is missing, empty, cut short, damaged or of another format, lacks a column, or a sequence is
        empty or has a character that is no IUPAC code; names the file and the record, line or row in it.
    MissingExtraError
        When pyarrow is needed and not installed.
    """
    if file_format == "fasta":
        return _read_fasta(path)
    if file_format == "fastq":
        return _read_fastq(path)
    if file_format == "parquet":
        return _read_parquet(path, sequence_column, name_column)
    return _read_separated(path, _SEPARATORS[file_format], sequence_column, name_column)


def _read_fasta(path: Path) -> Iterator[NamedSequence]:
    number, name = 0, ""
    parts: list[bytes] = []
    for line in _lines(path, "FASTA"):
        if line.startswith(b">"):
            if number:
                yield _sequence(name, b"".join(parts), f"{path}, record {number} ({name})")
            number, parts = number + 1, []
            name = _first_word(line, f"{path}, record {number}")
        elif number:
            parts.append(line)
        elif line.strip():
            raise _other_format(path, "FASTA", line, ">")
    if not number:
        raise InputError(f"{path}: holds no sequence; give a FASTA file with something in it")
    yield _sequence(name, b"".join(parts), f"{path}, record {number} ({name})")


def _read_fastq(path: Path) -> Iterator[NamedSequence]:
    lines = _lines(path, "FASTQ")
    number = 0
    for header in lines:
        if not header.strip() and not any(line.strip() for line in lines):
            break
        number += 1
        place = f"{path}, record {number}"
        if not header.startswith(b"@"):
            if number == 1:
                raise _other_format(path, "FASTQ", header, "@")
            start = header[:10].decode("utf-8", "replace")
            raise InputError(
                f"{place}: starts with {start!r} and not with '@'; a record has four lines: check the file, or copy or "
                "download it again"
            )
        name = _first_word(header, place)
        place = f"{place} ({name})"
        bases, middle, qualities = next(lines, b""), next(lines, b""), next(lines, None)
        if qualities is None:
            raise InputError(f"{place}: the file ends within it, so it was cut short; copy or download it again")
        if not middle.startswith(b"+"):
            raise InputError(
                f"{place}: its third line does not start with '+'; a record has four lines: check the file, or copy "
                "or download it again"
            )
        if len(qualities) != len(bases):
            raise InputError(
                f"{place}: has {len(bases)} bases and {len(qualities)} qualities; it is damaged: copy or download it "
                "again"
            )
        yield _sequence(name, bases, place)
    if not number:
        raise InputError(f"{path}: holds no sequence; give a FASTQ file with something in it")


def _read_separated(
    path: Path, separator: str, sequence_column: str, name_column: str | None
) -> Iterator[NamedSequence]:
    rows = csv.reader(_texts(path), delimiter=separator, strict=True)
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            raise InputError(f"{path}: is empty; give a file with sequences in it")
        name_column = _check_columns(path, header, sequence_column, name_column)
        at = header.index(sequence_column)
        name_at = None if name_column is None else header.index(name_column)
        number, before = 0, rows.line_num
        for row in rows:
            # A value in quotation marks may go on over line ends.
            place, before = f"{path}, line {before + 1}", rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{place}: has {len(row)} columns where the header has {len(header)}; separate columns by "
                    f"{'tabs' if separator == chr(9) else 'commas'} and put a value that holds one in quotation marks"
                )
            name = "" if name_at is None else row[name_at]
            yield _sequence(name or str(number), row[at], place)
            number += 1
    except csv.Error as error:
        raise InputError(
            f"{path}, line {rows.line_num}: cannot be read as a table ({one_line(error, 300)}); check its quotation "
            "marks"
        ) from None
    if not number:
        raise InputError(f"{path}: holds no rows; give a file with sequences in it")


def _read_parquet(path: Path, sequence_column: str, name_column: str | None) -> Iterator[NamedSequence]:
    check_input(path, "Parquet")
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "embed") from None
    number = 0
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            name_column = _check_columns(path, file.schema_arrow.names, sequence_column, name_column)
            columns = list({sequence_column, name_column or sequence_column})
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                sequences = _strings(batch.column(sequence_column), path, sequence_column)
                called: Sequence[str | None] = [None] * len(sequences)
                if name_column is not None:
                    called = _strings(batch.column(name_column), path, name_column)
                for sequence, name in zip(sequences, called, strict=True):
                    yield _sequence(name or str(number), sequence or "", f"{path}, row {number + 1}")
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: is no Parquet or is damaged ({one_line(error, 300)}); copy or download it again"
        ) from None
    if not number:
        raise InputError(f"{path}: holds no rows; give a file with sequences in it")


def _strings(column: Any, path: Path, name: str) -> list[str | None]:
    import pyarrow as pa

    try:
        texts: list[str | None] = column.cast(pa.large_string()).to_pylist()
    except pa.ArrowException:
        raise InputError(f"{path}: column {name} holds {column.type}; it should hold text") from None
    return texts


def _check_columns(path: Path, header: Sequence[str], sequence_column: str, name_column: str | None) -> str | None:
    """Refuse a table without the columns, and give that of the names where there is one."""
    if name_column is None and "name" in header:
        name_column = "name"
    for option, column in (("sequence", sequence_column), ("name", name_column)):
        if column is not None and column not in header:
            raise MissingColumnError(
                f"{path}: no column {column!r}; there are {listed_names(header)}: choose one with --{option}-column"
            )
        if column is not None and header.count(column) > 1:
            raise InputError(f"{path}: column {column!r} comes {header.count(column)} times; rename all but one")
    return name_column


def _sequence(name: str, text: bytes | str, place: str) -> NamedSequence:
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    base_L = alphabet.CODE_OF_BYTE[np.frombuffer(data, dtype=np.uint8)]
    if not len(base_L):
        raise InputError(f"{place}: the sequence is empty; remove it, or add the bases")
    if base_L.max() == alphabet.NOT_A_BASE:
        at = int(np.argmax(base_L == alphabet.NOT_A_BASE))
        character = text[at : at + 1] if isinstance(text, str) else chr(text[at])
        raise InputError(f"{place}: base {at + 1} is {character!r}, which is no IUPAC nucleotide code; give DNA or RNA")
    return NamedSequence(name, base_L)


def _first_word(header: bytes, place: str) -> str:
    words = header[1:].decode("utf-8", "replace").split()
    if not words or header[1:2].isspace():
        raise InputError(f"{place}: the header has no name; write it right behind the {header[:1].decode()!r}")
    return words[0]


def _other_format(path: Path, wanted: str, line: bytes, mark: str) -> InputError:
    start = line.strip()[:10].decode("utf-8", "replace")
    return InputError(
        f"{path}: is not {wanted}, it starts with {start!r} and not with {mark!r}; give a {wanted} file, or one whose "
        "name tells its format with --input"
    )


def _lines(path: Path, what: str) -> Iterator[bytes]:
    """Read lines without their ends; an empty one at the end is none."""
    rest: list[bytes] = []
    for block in read_blocks(path, what):
        first, *others = block.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest).rstrip(b"\r")
            rest = [others.pop()]
            for line in others:
                yield line.rstrip(b"\r")
    if last := b"".join(rest).rstrip(b"\r"):
        yield last


def _texts(path: Path) -> Iterator[str]:
    """Read lines of UTF-8, each with a line end."""
    for number, line in enumerate(_lines(path, "table"), start=1):
        try:
            yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode("utf-8") + "\n"
        except UnicodeDecodeError:
            raise InputError(f"{path}, line {number}: is not UTF-8 text; save the file as UTF-8") from None
