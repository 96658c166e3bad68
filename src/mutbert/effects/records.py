"""Records of a VCF or BCF file as whole lines, in chunks, and the same lines with more in their INFO column.

All else of a line stays byte for byte. What htslib would not read of the columns up to FORMAT is refused here; values
in INFO and genotypes are passed on as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.effects.vcf_header import FIXED, UndeclaredNames, as_text, read_whole_header
from mutbert.errors import InputError
from mutbert.genome.vcf_text import is_bcf, read_whole_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_LARGEST_POSITION: Final = 1 << 32
"""No contig is longer, and no index reaches further."""

# Of lines in a chunk, which those with hundreds of thousands of genotypes soon have.
_MOST_BYTES: Final = 1 << 26
_MOST_DIGITS: Final = len(str(_LARGEST_POSITION))
_INFO: Final = 7
_TAB: Final = ord("\t")


class Records(NamedTuple):
    """Consecutive records.

    Parameters
    ----------
    number : int
        Of the chunk, from 0.
    first : int
        Number of its first record in the file, from 0.
    lines : list of bytes
        Whole records, without line ends.
    contigs : list of str
        CHROM of each, as written.
    positions : list of int
        POS of each, as written: 1-based.
    references, alternates : list of str
        REF and ALT of each, as written.
    read : float
        Compressed bytes read since the last chunk.
    path : Path
        The file.
    header_lines : int or None
        How many lines stand before the first record; ``None`` of a file without lines, thus BCF.
    """

    number: int
    first: int
    lines: list[bytes]
    contigs: list[str]
    positions: list[int]
    references: list[str]
    alternates: list[str]
    read: float
    path: Path
    header_lines: int | None

    def place(self, row: int) -> str:
        """Say where a record of the chunk stands, for messages."""
        place = _place(self.path, self.header_lines, self.first + row)
        return f"{place} ({self.contigs[row]}:{self.positions[row]})"


def _place(path: Path, header_lines: int | None, record: int) -> str:
    if header_lines is None:
        return f"{path}, record {record + 1}"
    return f"{path}, line {header_lines + record + 1}"


class Cuts(NamedTuple):
    """How records are cut into chunks: what `RecordFile.chunks` takes."""

    size: int = 2000
    passes_of: Callable[[str, str], int] | None = None
    passes: float = math.inf
    window_of: Callable[[str, int], int] | None = None


class RecordFile:
    """A VCF or BCF file, plain, gzip or bgzip, told by its content.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InputError
        At once when the file cannot be read, is no VCF, or its header is one that htslib refuses.
    """

    def __init__(self, path: Path) -> None:
        header = read_whole_header(path)
        self.path = path
        self.header: bytes = header.text
        """All header lines, each ended by a newline."""
        self.samples: tuple[str, ...] = header.samples
        self.info: Mapping[str, tuple[str, str]] = header.info
        """Number and Type of each declared INFO field."""
        self.contigs: tuple[str, ...] = header.contigs
        """The declared ones."""
        self.is_bcf: bool = is_bcf(path)
        self.bytes: int = path.stat().st_size
        """Compressed size, of which `Records.read` are parts."""
        self.is_sorted: bool | None = None
        """Whether each contig's records stand together, by ascending POS; ``None`` until all have been read."""
        self._header_lines = None if self.is_bcf else header.text.count(b"\n")
        self._names = UndeclaredNames(header)
        self._contigs: dict[bytes, str] = {}

    def chunks(
        self,
        size: int = 2000,
        passes_of: Callable[[str, str], int] | None = None,
        passes: float = math.inf,
        window_of: Callable[[str, int], int] | None = None,
    ) -> Iterator[Records]:
        """Read the records.

        Parameters
        ----------
        size : int
            Most records of a chunk; it has fewer where their lines are 64 MiB before.
        passes_of : callable, optional
            Says of REF and ALT how many passes of the model a record takes.
        passes : float
            Most passes of a chunk, but for a record that takes more alone.
        window_of : callable, optional
            Says in which window a contig's 0-based position is looked at, by a number that never falls along a contig.
            A chunk is then only ended before a record whose window no record before it has a base of REF in, or before
            another contig, so that it may be larger.

        Yields
        ------
        Records
            In the file's order. Where they are cut depends on the file and these arguments alone.

        Raises
        ------
        InputError
            When a line is none that htslib reads; with windows, when the file is not sorted.
        """
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1")
        number = count = 0
        read = 0.0
        chunk = self._empty(0, 0)
        seen: set[str] = set()
        is_sorted = True
        contig: str | None = None
        position = reach = held = taken = own_passes = 0
        for block, amount in self._blocks():
            read += amount
            for line in block:
                last_contig, last_position = contig, position
                contig, position, reference, alternate = self._parse(line, count)
                follows = contig not in seen if contig != last_contig else position >= last_position
                seen.add(contig)
                if not follows:
                    is_sorted = False
                    if window_of is not None:
                        raise InputError(
                            f"{_place(self.path, self._header_lines, count)}: {contig}:{position} comes after "
                            f"{last_contig}:{last_position}, but shared windows need a sorted file; use "
                            "'bcftools sort' first, or choose --windows centred"
                        )
                if passes_of is not None:
                    own_passes = passes_of(reference, alternate)
                is_full = len(chunk.lines) >= size or held >= _MOST_BYTES or taken + own_passes > passes
                if (is_full and chunk.lines) and (
                    window_of is None or contig != last_contig or window_of(contig, position - 1) > reach
                ):
                    yield chunk._replace(read=read)
                    read = 0.0
                    number += 1
                    chunk = self._empty(number, count)
                    held = taken = 0
                if window_of is not None:
                    own = window_of(contig, position - 2 + len(reference))
                    reach = own if contig != last_contig else max(own, reach)
                held += len(line)
                taken += own_passes
                chunk.lines.append(line)
                chunk.contigs.append(contig)
                chunk.positions.append(position)
                chunk.references.append(reference)
                chunk.alternates.append(alternate)
                count += 1
        self.is_sorted = is_sorted
        if chunk.lines:
            yield chunk._replace(read=read)

    def _empty(self, number: int, first: int) -> Records:
        return Records(number, first, [], [], [], [], [], 0.0, self.path, self._header_lines)

    def _blocks(self) -> Iterator[tuple[list[bytes], float]]:
        """Give lines, without empty ones at the end, and the bytes read for them."""
        count = 0
        empty: int | None = None
        try:
            for text, _, read in read_whole_lines(self.path):
                lines = text[:-1].split(b"\n")
                if b"\0" in text:
                    line = next(number for number, line in enumerate(lines) if b"\0" in line)
                    raise self._refused(count + line, "has a NUL byte; the file is damaged: copy or download it again")
                if empty is None and b"" in lines:
                    empty = lines.index(b"")
                    filled, behind = lines[:empty], lines[empty:]
                    empty += count
                else:
                    filled, behind = (lines, []) if empty is None else ([], lines)
                if any(behind):
                    raise self._refused(empty or 0, "is empty, but records follow; take the line out")
                count += len(lines)
                yield filled, read
        except UnicodeDecodeError:
            raise InputError(
                f"{self.path}: has records that are not UTF-8 text; give it as VCF, by 'bcftools view -Oz'"
            ) from None

    def _parse(self, line: bytes, record: int) -> tuple[str, int, str, str]:
        """Take the first columns from a line, and check that all are there."""
        columns = line.split(b"\t", FIXED + 1)
        if len(columns) < FIXED:
            raise self._refused(record, self._no_record(line, columns))
        name, digits, _, reference, alternate, _, filters, info = columns[:FIXED]
        contig = self._contigs.get(name)
        if contig is None:
            contig = self._contigs[name] = self._check_contig(line, name, record)
        if not (digits.isdigit() and len(digits) <= _MOST_DIGITS and (position := int(digits)) <= _LARGEST_POSITION):
            what = "larger than any contig" if digits.isdigit() else "not a number from 0 on"
            raise self._refused(record, f"its POS {as_text(digits)!r} is {what}; mend the line")
        if not reference or not alternate:
            column = "ALT" if reference else "REF"
            raise self._refused(record, f"its {column} is empty; mend the line (no alternate is written .)")
        if self.samples:
            self._check_samples(line, columns, record)
        self._check_names("FILTER", filters, record)
        self._check_names("INFO", info, record)
        return contig, position, as_text(reference), as_text(alternate)

    def _check_contig(self, line: bytes, name: bytes, record: int) -> str:
        if not name:
            raise self._refused(record, "its CHROM is empty; mend the line")
        if name.startswith(b"#"):
            raise self._refused(record, self._no_record(line, []))
        self._check_names("contig", name, record)
        return as_text(name)

    def _no_record(self, line: bytes, columns: list[bytes]) -> str:
        if line.startswith(b"#"):
            return "begins with # but stands among the records; take it out, or join files by 'bcftools concat'"
        if len(columns) == 1 and len(line.split()) >= FIXED:
            return "has its columns separated by spaces; VCF has tabs: put tabs in their place"
        return f"has fewer columns than the {FIXED} of a record ({len(columns)}); it may be cut short: mend the line"

    def _check_samples(self, line: bytes, columns: list[bytes], record: int) -> None:
        expected = FIXED + 1 + len(self.samples)
        found = 1 + int(np.count_nonzero(np.frombuffer(line, dtype=np.uint8) == _TAB))
        # htslib takes an empty last column for none.
        if found < expected or (found == expected and line.endswith(b"\t")):
            raise self._refused(
                record,
                f"has fewer columns than the {expected} of a record with its header's {len(self.samples)} samples; it "
                "may be cut short: mend the line",
            )
        self._check_names("FORMAT", columns[FIXED], record)

    def _check_names(self, kind: str, text: bytes, record: int) -> None:
        name = self._names.find_unusable(kind, text)
        if name is not None:
            what = "contig" if kind == "contig" else f"field of {kind}"
            raise self._refused(record, f"{as_text(name)!r} cannot be the name of a {what} in VCF; mend the line")

    def _refused(self, record: int, what: str) -> InputError:
        return InputError(f"{_place(self.path, self._header_lines, record)}: {what}")


def annotate(lines: Sequence[bytes], info: Sequence[bytes]) -> bytes:
    """Put fields behind what lines have in INFO.

    Parameters
    ----------
    lines : sequence of bytes
        Whole records, without line ends.
    info : sequence of bytes
        ``KEY=VALUE;KEY=VALUE`` for each of them; empty where nothing is added. That they are new is for `refuse_fields`
        to see.

    Returns
    -------
    bytes
        The lines, each ended by a newline.
    """
    written: list[bytes] = []
    for line, added in zip(lines, info, strict=True):
        if added:
            columns = line.split(b"\t", _INFO + 1)
            there = columns[_INFO]
            between = b"" if there.endswith(b";") else b";"
            columns[_INFO] = added if there in {b"", b"."} else there + between + added
            line = b"\t".join(columns)
        written += (line, b"\n")
    return b"".join(written)


def refuse_fields(records: Records, names: Sequence[str]) -> None:
    """Refuse records that have one of some INFO fields, though no line of the header may declare it.

    Raises
    ------
    InputError
        With the first that has.
    """
    wanted = {name.encode() for name in names}
    for row, line in enumerate(records.lines):
        if any(name in line for name in wanted):
            for field in line.split(b"\t", _INFO + 1)[_INFO].split(b";"):
                name = field.partition(b"=")[0]
                if name in wanted:
                    raise InputError(
                        f"{records.place(row)}: the record has an INFO field {as_text(name)} already; choose other "
                        "names with --prefix"
                    )


def info_numbers(records: Records, name: str) -> list[list[float | None]]:
    """Read a field that has one number for each alternate allele.

    Parameters
    ----------
    records : Records
        The records.
    name : str
        Of an INFO field with Number=A.

    Returns
    -------
    list of list of float or None
        For each record, as many as ALT has parts between commas, also where that is ``.`` alone; ``None`` where the
        number is missing. Of a field that a record has twice, the first counts.

    Raises
    ------
    InputError
        When a record has more or fewer numbers than alternates, or what is no number.
    """
    key = f";{name}=".encode()
    found: list[list[float | None]] = []
    for row, (line, alternate) in enumerate(zip(records.lines, records.alternates, strict=True)):
        count = alternate.count(",") + 1
        info = b";" + line.split(b"\t", _INFO + 1)[_INFO]
        _, _, rest = info.partition(key)
        value = rest.partition(b";")[0]
        # One dot stands for all of them.
        if value in {b"", b"."} or alternate == ".":
            found.append([None] * count)
            continue
        parts = value.split(b",")
        if len(parts) != count:
            raise InputError(
                f"{records.place(row)}: INFO field {name} has {len(parts)} values for {count} alternate alleles; "
                f"mend the line, or take the field out by 'bcftools annotate -x INFO/{name}'"
            )
        try:
            found.append([None if part in {b"", b"."} else float(part) for part in parts])
        except ValueError:
            raise InputError(
                f"{records.place(row)}: INFO field {name} is {as_text(value)!r}, which is no number; mend the line"
            ) from None
    return found
