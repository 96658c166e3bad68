"""VCF and BCF through htslib, whole files or a region of them; what is wrong with a file is one line naming it.

Genotypes are not parsed: `read_records` leaves them out, and `read_lines` gives the text.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.errors import InputError
from mutbert.genome.compression import Compression, check_input, read_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

# How often progress is told.
_RECORDS_BETWEEN_CALLS: Final = 1 << 12


class Place(NamedTuple):
    """Part of a file, to be found by its index.

    Parameters
    ----------
    contig : str
        The file's name of it.
    start, end : int or None
        0-based, half-open: the records whose POS is in it. `start` 0 has those at POS 0 as well, and without an `end`
        those behind the contig's end.
    """

    contig: str
    start: int = 0
    end: int | None = None


class VcfHeader(NamedTuple):
    """What a file declares.

    Parameters
    ----------
    info : mapping of str to str
        Type of each INFO field: ``Float``, ``Integer``...
    has_genotypes : bool
        Whether the field GT is declared.
    filters : tuple of str
        Names of filters; ``PASS`` is always one.
    samples : tuple of str
        In the order of the columns.
    """

    info: Mapping[str, str]
    has_genotypes: bool
    filters: tuple[str, ...]
    samples: tuple[str, ...]


def read_header(path: Path) -> VcfHeader:
    """Read what a VCF or BCF file declares.

    Raises
    ------
    InputError
        When the file cannot be read or is no VCF.
    """
    with _open(path, None) as file:
        header = file.header
        return VcfHeader(
            {name: field.type for name, field in header.info.items()},
            "GT" in header.formats,
            tuple(header.filters),
            tuple(header.samples),
        )


def count_by_index(path: Path) -> dict[str, int] | None:
    """Look up in a file's index how many records it has of each contig; ``None`` where there is no index to use."""
    from pysam import bcftools

    if not any(path.with_name(path.name + suffix).is_file() for suffix in (".tbi", ".csi")):
        return None
    verbosity = pysam.set_verbosity(0)
    try:
        text = bcftools.index("--stats", os.fspath(path))
    except (pysam.SamtoolsError, OSError):
        # An index without counts, of another kind, or damaged: the file is read as if it had none.
        return None
    finally:
        pysam.set_verbosity(verbosity)
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: int(number) for name, _, number in rows} or None


def list_contigs(path: Path) -> list[str]:
    """List the contigs that a file has records of, by reading it."""
    return list(dict.fromkeys(record.contig for record in read_records(path)))


def read_records(
    path: Path, place: Place | None = None, advance: Callable[[float], None] | None = None
) -> Generator[pysam.VariantRecord, None, None]:
    """Read a file's records, without their genotypes.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip, told by its content.
    place : Place, optional
        Only these records, found by the file's index.
    advance : callable, optional
        Told of the bytes read from the disk (compressed ones) since its last call.

    Yields
    ------
    pysam.VariantRecord
        In the file's order. Contigs that the header does not declare are fine.

    Raises
    ------
    InputError
        When the file is missing, empty, cut short, damaged, or no VCF, or a record cannot be parsed.
    """
    with _open(path, advance) as file:
        yield from _records(path, file, place, advance)


def read_lines(
    path: Path, place: Place | None = None, advance: Callable[[float], None] | None = None
) -> Generator[bytes, None, None]:
    """Read a file's records as lines of text, with their genotypes; BCF is turned into text.

    Parameters and errors are those of `read_records`, but that the caller parses the lines.

    Yields
    ------
    bytes
        A line without its end.
    """
    compression = check_input(path, "VCF")
    if compression is Compression.BGZF and not _is_bcf(path):
        yield from _lines_of_bgzf(path, place, advance)
    elif _is_bcf(path):
        with _open(path, advance, drop_samples=False) as file:
            for record in _records(path, file, place, advance):
                yield str(record).encode().rstrip(b"\r\n")
    else:
        assert place is None, "only bgzip and BCF files have an index"
        if compression is Compression.PLAIN:
            _check_last_line(path)
        rest = b""
        for block in read_blocks(path, "VCF", advance):
            *lines, rest = (rest + block).split(b"\n")
            yield from (line.rstrip(b"\r") for line in lines if not line.startswith(b"#"))
        if rest:
            raise _unparsable(path, rest.split(b"\t", 2)[:2])


def _lines_of_bgzf(path: Path, place: Place | None, advance: Callable[[float], None] | None) -> Iterator[bytes]:
    with ExitStack() as stack:
        file = stack.enter_context(pysam.BGZFile(os.fspath(path), "rb"))
        lines: Iterable[bytes] = file
        if place is not None:
            # The index leads to the first record, and its end is where the lines begin.
            with _open(path, None, drop_samples=False) as records:
                first = next(_records(path, records, place), None)
                if first is None:
                    return
                file.seek(records.tell())
            lines = chain([str(first).encode().rstrip(b"\r\n")], file)
        tell = _Teller(path, file, advance)
        if place is not None:
            tell.begin()
        line = b""
        try:
            for number, line in enumerate(lines, start=1):
                if line.startswith(b"#"):
                    continue
                if place is not None and not _begins_in(line, place):
                    break
                yield line.rstrip(b"\r")
                if not number % _RECORDS_BETWEEN_CALLS:
                    tell()
        except OSError:
            raise _unparsable(path, line.split(b"\t", 2)[:2]) from None
        tell(at_end=place is None)


def _begins_in(line: bytes, place: Place) -> bool:
    contig, position, _ = line.split(b"\t", 2)
    return contig == place.contig.encode() and (place.end is None or int(position) <= place.end)


def _records(
    path: Path, file: pysam.VariantFile, place: Place | None, advance: Callable[[float], None] | None = None
) -> Iterator[pysam.VariantRecord]:
    # Of a pipe, the thread that feeds it tells.
    tell = _Teller(path, file, None if file.is_stream else advance)
    number, record = 0, None
    try:
        records = iter(file) if place is None else _from(file, place)
        for number, record in enumerate(records, start=1):
            if number == 1 and place is not None:
                tell.begin()
            yield record
            if not number % _RECORDS_BETWEEN_CALLS:
                tell()
    except (OSError, ValueError):
        raise _unparsable(path, (record.contig, record.pos) if record is not None else (), number + 1) from None
    # Without a record there is no place in the file to tell.
    if place is None or number:
        tell(at_end=place is None)


def _from(file: pysam.VariantFile, place: Place) -> Iterator[pysam.VariantRecord]:
    """Read the records of a place: the index leads to the first, and reading on from there is quicker than by it."""
    found = file.fetch(place.contig, place.start, place.end) if place.start or place.end else file.fetch(place.contig)
    first = next(found, None)
    for record in chain([first], file) if first is not None else ():
        if record.contig != place.contig or (place.end is not None and record.pos > place.end):
            return
        # The first ones may only reach into it.
        if record.pos > place.start or not place.start:
            yield record


def _unparsable(path: Path, place: Iterable[object], number: int = 0) -> InputError:
    words = [one.decode("ascii", "replace") if isinstance(one, bytes) else str(one) for one in place]
    record = f"record {number}, after" if number else "what comes after"
    return InputError(
        f"{path}: {record} {':'.join(words) or 'the header'}, cannot be parsed; the file is damaged or cut short, or "
        "the line is no VCF: copy or mend it"
    )


class _Teller:
    """Tells how many compressed bytes were read since the last call."""

    def __init__(
        self, path: Path, file: pysam.VariantFile | pysam.BGZFile, advance: Callable[[float], None] | None
    ) -> None:
        self._path = path
        self._file = file
        self._advance = advance
        # A BGZF position is the block's place in the file, and 16 bits for the place in the block.
        self._shift = 0 if getattr(file, "compression", "BGZF") == "NONE" else 16
        self._told = 0

    def begin(self) -> None:
        """Begin to count here, where the index led to."""
        if self._advance is not None:
            self._told = self._file.tell() >> self._shift

    def __call__(self, *, at_end: bool = False) -> None:
        if self._advance is not None:
            place = self._path.stat().st_size if at_end else self._file.tell() >> self._shift
            self._advance(max(place - self._told, 0))
            self._told = place


@contextmanager
def _open(
    path: Path, advance: Callable[[float], None] | None, *, drop_samples: bool = True
) -> Iterator[pysam.VariantFile]:
    compression = check_input(path, "VCF")
    if compression is Compression.PLAIN:
        _check_last_line(path)
    # What htslib would print is raised here instead, or (undeclared contigs, a missing index) is no fault.
    verbosity = pysam.set_verbosity(0)
    try:
        if compression is Compression.GZIP:
            with _decompressing(path, advance) as pipe, _header_read(path, pipe, drop_samples) as file:
                yield file
        else:
            with _header_read(path, os.fspath(path), drop_samples) as file:
                yield file
    finally:
        pysam.set_verbosity(verbosity)


@contextmanager
def _header_read(path: Path, source: str | BinaryIO, drop_samples: bool) -> Iterator[pysam.VariantFile]:
    try:
        file = pysam.VariantFile(source, drop_samples=drop_samples)
    except (OSError, ValueError):
        raise InputError(
            f"{path}: is not VCF or BCF, or its header is damaged; give a VCF that starts with '##fileformat'"
        ) from None
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    try:
        file.close()
    except OSError:
        raise InputError(f"{path}: is damaged; copy or download it again") from None


@contextmanager
def _decompressing(path: Path, advance: Callable[[float], None] | None) -> Iterator[BinaryIO]:
    """Give a pipe with a gzip file's content, as pysam itself opens BGZF only."""
    read_end, write_end = os.pipe()
    failures: list[InputError] = []

    def feed() -> None:
        try:
            with os.fdopen(write_end, "wb") as sink:
                for block in read_blocks(path, "VCF", advance):
                    sink.write(block)
        except BrokenPipeError:
            # Whoever reads has seen enough.
            pass
        except InputError as error:
            failures.append(error)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        with os.fdopen(read_end, "rb") as pipe:
            yield pipe
    except InputError as error:
        # What stopped the feeder is the cause of what the reader then met.
        feeder.join()
        raise (failures or [error])[0] from None
    finally:
        feeder.join()
    if failures:
        raise failures[0]


def _is_bcf(path: Path) -> bool:
    with suppress(InputError):
        return next(read_blocks(path, "VCF"))[:3] == b"BCF"
    return False


def _check_last_line(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(3)
        file.seek(-1, os.SEEK_END)
        # Uncompressed BCF has no lines.
        if start != b"BCF" and file.read(1) != b"\n":
            raise InputError(
                f"{path}: ends in the middle of a line, so it may be cut short; copy it again, or end its last line"
            )
