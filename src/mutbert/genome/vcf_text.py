"""VCF and BCF files as stretches of text, whole or a region of them; what is wrong with a file is one line naming it.

htslib decompresses, reads headers and indexes, and turns BCF into text. Genotypes are cut off and handed over apart.
"""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.errors import InputError
from mutbert.files import Compression, check_input, read_blocks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

# Enough at once that NumPy's calls cost nothing, and little enough that reading past the end of a region does not.
_BYTES_AT_ONCE: Final = 1 << 19
_FIRST_BYTES: Final = 1 << 15
# Lines with genotypes are long, and most of them is cut off.
_WIDE_BYTES_AT_ONCE: Final = 1 << 23
# Where FORMAT begins in nearly every line.
_HEAD_BYTES: Final = 1 << 9
# Of BCF, which comes record by record.
_LINES_OF_A_BLOCK: Final = 1 << 8


class Lines(NamedTuple):
    """Consecutive records.

    Parameters
    ----------
    text : bytes
        Their lines up to INFO at least, each with its end.
    genotypes : list of (bytes, bytes)
        FORMAT and the columns behind it, for each line, where they were asked for.
    read : float
        Compressed bytes read since the last ones.
    """

    text: bytes
    genotypes: list[tuple[bytes, bytes]]
    read: float


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
    with open_vcf(path) as file:
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

    if not _indices(path) or older_index(path) is not None:
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


def older_index(path: Path) -> Path | None:
    """Give the index that is older than its file, and so may be of another state of it, where there is one."""
    time = path.stat().st_mtime_ns
    return next((one for one in _indices(path) if one.stat().st_mtime_ns < time), None)


def _indices(path: Path) -> list[Path]:
    return [one for suffix in (".tbi", ".csi") if (one := path.with_name(path.name + suffix)).is_file()]


def read_lines(
    path: Path, samples: int = 0, place: Place | None = None, *, genotypes: bool = False
) -> Generator[Lines, None, None]:
    """Read a file's records as text.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip, told by its content.
    samples : int
        Columns with genotypes that its header declares.
    place : Place, optional
        Only these records, found by the file's index.
    genotypes : bool
        Give the genotypes too.

    Yields
    ------
    Lines
        In the file's order. That each is a record is for the caller to check.

    Raises
    ------
    InputError
        When the file is missing, empty, cut short or damaged.
    """
    compression = check_input(path, "VCF")
    meter = _Meter()
    as_bcf = is_bcf(path)
    if as_bcf:
        blocks = _blocks_of_bcf(path, place, meter)
    elif compression is Compression.BGZF:
        blocks = _blocks_of_bgzf(path, place, meter)
    else:
        blocks = _blocks_of_stream(path, meter)
    if as_bcf or samples:
        yield from _narrowed(blocks, meter, genotypes=genotypes)
    else:
        for block in blocks:
            if block:
                yield Lines(block, [], meter.take())


def read_whole_lines(path: Path) -> Generator[Lines, None, None]:
    """Read a file's records as text with everything that they have, genotypes too.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip, told by its content.

    Yields
    ------
    Lines
        In the file's order. That each is a record is for the caller to check; a last line without an end gets one.

    Raises
    ------
    InputError
        When the file is missing, empty or damaged, or compressed and cut short.
    """
    compression = check_input(path, "VCF")
    meter = _Meter()
    if is_bcf(path):
        blocks = _blocks_of_bcf(path, None, meter)
    elif compression is Compression.BGZF:
        blocks = _blocks_of_bgzf(path, None, meter)
    else:
        blocks = _whole_lines(read_blocks(path, "VCF", meter.add), b"", in_header=True)
    for block in blocks:
        if block:
            yield Lines(block, [], meter.take())


class _Meter:
    """Adds up the compressed bytes that were read."""

    def __init__(self) -> None:
        self._read = 0.0
        self._last = 0

    def add(self, amount: float) -> None:
        self._read += amount

    def begin(self, file: pysam.BGZFile | pysam.VariantFile) -> None:
        """Begin to count where a file is now."""
        # A BGZF position is the block's place in the file, and 16 bits for the place in the block.
        self._last = file.tell() >> 16

    def look(self, file: pysam.BGZFile | pysam.VariantFile) -> None:
        """Add what was read of a file since the last look."""
        now = file.tell() >> 16
        self._read += max(now - self._last, 0)
        self._last = now

    def take(self) -> float:
        read, self._read = self._read, 0.0
        return read


def _narrowed(blocks: Iterable[bytes], meter: _Meter, *, genotypes: bool) -> Iterator[Lines]:
    """Cut FORMAT and the columns behind it off lines."""
    heads: list[bytes] = []
    columns: list[tuple[bytes, bytes]] = []
    size = 0
    for block in blocks:
        begin = 0
        # This loop runs once a record, of which most is cut off: it looks at the rest only where it has to.
        while (end := block.find(b"\n", begin)) >= 0:
            head = block[begin : min(begin + _HEAD_BYTES, end)]
            parts = head.split(b"\t", 8)
            if len(parts) < 9 and len(head) == _HEAD_BYTES:
                head = block[begin:end]
                parts = head.split(b"\t", 8)
            if len(parts) == 9:
                head = head[: -1 - len(parts[8])]
            heads.append(head)
            if genotypes:
                keys, _, text = block[begin + len(head) + 1 : end].partition(b"\t")
                columns.append((keys, text))
            begin = end + 1
        size += len(block)
        if size > _WIDE_BYTES_AT_ONCE and heads:
            yield Lines(b"\n".join(heads) + b"\n", columns, meter.take())
            heads, columns, size = [], [], 0
    if heads:
        yield Lines(b"\n".join(heads) + b"\n", columns, meter.take())


def _blocks_of_bcf(path: Path, place: Place | None, meter: _Meter) -> Iterator[bytes]:
    with open_vcf(path, drop_samples=False) as file:
        lines: list[bytes] = []
        record = None
        has_blocks = file.compression == "BGZF"
        look = meter.look if place is None else meter.begin
        try:
            for record in file if place is None else _records_from(file, place):
                if place is not None and (
                    record.contig != place.contig or (place.end is not None and record.pos > place.end)
                ):
                    break
                if not lines and has_blocks:
                    look(file)
                    look = meter.look
                lines.append(str(record).encode())
                if len(lines) == _LINES_OF_A_BLOCK:
                    yield b"".join(lines)
                    lines = []
        except (OSError, ValueError):
            raise _damaged(path, str(record).encode() if record is not None else b"") from None
        if has_blocks:
            look(file)
        yield b"".join(lines)
    if not has_blocks:
        meter.add(path.stat().st_size)


def _blocks_of_bgzf(path: Path, place: Place | None, meter: _Meter) -> Iterator[bytes]:
    with _open_bgzf(path) as file:
        rest = b""
        if place is not None:
            first = _go_to(path, file, place)
            if first is None:
                return
            rest = first + b"\n"
        meter.begin(file)
        block = b""
        try:
            for block in _whole_lines(_reads(file), rest, in_header=place is None):
                meter.look(file)
                part = block if place is None else _until(block, place)
                yield part
                if len(part) < len(block):
                    break
        except OSError:
            raise _damaged(path, block[block.rfind(b"\n", 0, -1) + 1 :]) from None


def _reads(file: pysam.BGZFile) -> Iterator[bytes]:
    # Many a contig is short, so that the first reading is.
    size = _FIRST_BYTES
    while block := file.read(min(size, _BYTES_AT_ONCE)):
        yield block
        size *= 2


def _blocks_of_stream(path: Path, meter: _Meter) -> Iterator[bytes]:
    if check_input(path, "VCF") is Compression.PLAIN:
        _check_last_line(path)
    yield from _whole_lines(read_blocks(path, "VCF", meter.add), b"", in_header=True)


def _whole_lines(blocks: Iterable[bytes], rest: bytes, *, in_header: bool) -> Iterator[bytes]:
    """Cut blocks where lines end, and leave out the header before them."""
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            continue
        if len(rest) > _HEAD_BYTES and not in_header:
            # Of long lines, the one that was cut comes by itself, which is quicker than putting all together.
            first = block.find(b"\n") + 1
            yield (rest + block[:first]).replace(b"\r\n", b"\n")
            text, rest = block[first:cut], block[cut:]
        else:
            text, rest = rest + block[:cut], block[cut:]
        if in_header:
            begin = 0
            while text.startswith(b"#", begin):
                begin = text.find(b"\n", begin) + 1
            text = text[begin:]
            in_header = not text
        yield text.replace(b"\r\n", b"\n") if b"\r" in text else text
    if rest and not (in_header and rest.startswith(b"#")):
        yield rest.rstrip(b"\r") + b"\n"


def _go_to(path: Path, file: pysam.BGZFile, place: Place) -> bytes | None:
    """Find the first record of a place, and go behind it; ``None`` where there is none."""
    state = path.stat()
    try:
        records = _indexed(path, state.st_size, state.st_mtime_ns, threading.get_ident())
        first = next(_records_from(records, place), None)
    except (OSError, ValueError):
        raise _damaged(path, f"{place.contig}\t{place.start}".encode()) from None
    if first is None:
        return None
    file.seek(records.tell())
    return str(first).encode().rstrip(b"\n")


@lru_cache(maxsize=4)
def _indexed(path: Path, _size: int, _time: int, _thread: int) -> pysam.VariantFile:
    """Open a file to look places up; it stays open, as reading the index of a whole genome takes a while.

    The file has one place where it reads, so that no two threads may share it.
    """
    return pysam.VariantFile(os.fspath(path))


def _records_from(file: pysam.VariantFile, place: Place) -> Iterator[pysam.VariantRecord]:
    """Read the records from a place on: the index leads to the first, and reading on is quicker than by the index."""
    found = file.fetch(place.contig, place.start) if place.start else file.fetch(place.contig)
    first = next(found, None)
    if first is None:
        return
    for record in chain([first], file):
        # The first ones may only reach into the place.
        if record.contig != place.contig or record.pos > place.start or not place.start:
            yield record


def _begins_in(line: bytes, place: Place) -> bool:
    begin = place.contig.encode() + b"\t"
    if not line.startswith(begin):
        return False
    try:
        return place.end is None or int(line[len(begin) : line.find(b"\t", len(begin))]) <= place.end
    except ValueError:
        # Whoever takes it apart says what is wrong with it.
        return True


def _until(block: bytes, place: Place) -> bytes:
    """Cut off the lines behind a place."""
    if _begins_in(block[block.rfind(b"\n", 0, -1) + 1 :], place):
        return block
    # The last line of the contig, and then of these the ones that are not behind the place.
    begin = place.contig.encode() + b"\t"
    last = block.rfind(b"\n" + begin) + 1
    if not block.startswith(begin):
        return b""
    block = block[: block.find(b"\n", last) + 1]
    if place.end is None:
        return block
    lines = takewhile(lambda line: _begins_in(line, place), block.split(b"\n"))
    return b"".join(line + b"\n" for line in lines)


def _damaged(path: Path, line: bytes) -> InputError:
    return unparsable(path, b":".join(line.split(b"\t", 2)[:2]).decode("utf-8", "replace"))


def unparsable(path: Path, after: str) -> InputError:
    """Say that what comes after a record is none; ``after`` is its place, empty where it is the header."""
    return InputError(
        f"{path}: what comes after {after or 'the header'} cannot be parsed; the file is damaged or cut short, or the "
        "line is no VCF: copy or mend it"
    )


@contextmanager
def _open_bgzf(path: Path) -> Iterator[pysam.BGZFile]:
    # What htslib would print is raised instead.
    verbosity = pysam.set_verbosity(0)
    try:
        file = pysam.BGZFile(os.fspath(path), "rb")
        try:
            yield file
        finally:
            # A damaged file says so again when it is closed.
            with suppress(OSError):
                file.close()
    finally:
        pysam.set_verbosity(verbosity)


@contextmanager
def open_vcf(path: Path, *, drop_samples: bool = True) -> Iterator[pysam.VariantFile]:
    """Open a file by htslib, which says nothing on standard error meanwhile.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip, told by its content.
    drop_samples : bool
        Whether records are to come without genotypes.

    Raises
    ------
    InputError
        When it cannot be read, is no VCF, is cut short or damaged.
    """
    compression = check_input(path, "VCF")
    if compression is Compression.PLAIN:
        _check_last_line(path)
    # What htslib would print is raised here instead, or (undeclared contigs, a missing index) is no fault.
    verbosity = pysam.set_verbosity(0)
    try:
        if compression is Compression.GZIP:
            with _decompressing(path) as pipe, _header_read(path, pipe, drop_samples) as file:
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
def _decompressing(path: Path) -> Iterator[BinaryIO]:
    """Give a pipe with a gzip file's content, as pysam itself opens BGZF only."""
    read_end, write_end = os.pipe()
    failures: list[InputError] = []

    def feed() -> None:
        try:
            with os.fdopen(write_end, "wb") as sink:
                for block in read_blocks(path, "VCF"):
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


def is_bcf(path: Path) -> bool:
    """Tell by a file's content whether it is BCF, in whatever wrapping."""
    with suppress(OSError, EOFError, zlib.error), path.open("rb") as raw:
        is_compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        return (gzip.GzipFile(fileobj=raw) if is_compressed else raw).read(3) == b"BCF"
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
