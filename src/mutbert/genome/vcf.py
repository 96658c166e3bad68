"""VCF and BCF through htslib, genotypes unread; whatever is wrong with a file is one line naming it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.errors import InputError
from mutbert.genome.compression import Compression, check_input, read_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from typing import BinaryIO

# How often progress is told.
_RECORDS_BETWEEN_CALLS: Final = 1 << 14


class FrequencyFields(NamedTuple):
    """Where a file keeps its allele frequencies.

    Parameters
    ----------
    names : tuple of str
        One INFO field that holds them, or ``("AC", "AN")``, whose quotient they are.
    """

    names: tuple[str, ...]

    def __str__(self) -> str:
        """Write them as people do: ``AF`` or ``AC/AN``."""
        return "/".join(self.names)


def find_frequency_fields(path: Path, wanted: str) -> FrequencyFields:
    """Find out from a file's header where its allele frequencies are.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip.
    wanted : str
        The INFO field to read. Where ``AF`` is wanted and not declared, ``AC`` and ``AN`` serve instead.

    Returns
    -------
    FrequencyFields
        The fields to read.

    Raises
    ------
    InputError
        When the file cannot be read or is no VCF, or its header declares no such field, or not as a number.
    """
    with _open(path, None) as file:
        declared = {name: field.type for name, field in file.header.info.items()}
        samples = len(file.header.samples)
    if wanted in declared:
        if declared[wanted] != "Float":
            raise InputError(
                f"{path}: INFO field {wanted} is declared as {declared[wanted]} and not as Float; "
                "choose another with --frequency-field"
            )
        return FrequencyFields((wanted,))
    if wanted == "AF" and declared.get("AC") == declared.get("AN") == "Integer":
        return FrequencyFields(("AC", "AN"))
    floats = ", ".join(name for name, kind in declared.items() if kind == "Float") or "none"
    remedy = "choose one with --frequency-field" if floats != "none" else "it has to carry allele frequencies"
    if samples:
        remedy += ", or add AF from the genotypes with 'bcftools +fill-tags'"
    raise InputError(
        f"{path}: its header declares no INFO field {wanted}{' (nor AC and AN)' if wanted == 'AF' else ''}; "
        f"its number fields are: {floats}; {remedy}"
    )


def list_contigs(path: Path) -> list[str]:
    """List the contigs that a file has records of: from its index where it has one, by reading it otherwise."""
    with _open(path, None) as file:
        if file.index is not None:
            return list(file.index)
    return list(dict.fromkeys(record.contig for record in read_records(path)))


def read_records(
    path: Path, advance: Callable[[float], None] | None = None
) -> Generator[pysam.VariantRecord, None, None]:
    """Read a file's records, without their genotypes.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip, told by its content.
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
        tell = _teller(path, file, advance)
        number, record = 0, None
        try:
            for number, record in enumerate(file, start=1):
                yield record
                if not number % _RECORDS_BETWEEN_CALLS:
                    tell(False)
        except (OSError, ValueError):
            place = f"{record.contig}:{record.pos}" if record is not None else "the header"
            raise InputError(
                f"{path}: record {number + 1}, after {place}, cannot be parsed; the file is damaged or cut short, or "
                "the line is no VCF: copy or mend it"
            ) from None
        tell(True)


def _teller(path: Path, file: pysam.VariantFile, advance: Callable[[float], None] | None) -> Callable[[bool], None]:
    """Make a function that tells `advance` how many bytes were read since its last call."""
    if advance is None or file.is_stream:
        # Of a pipe, the thread that feeds it tells.
        return lambda _at_end: None
    # A BGZF position is the block's place in the file, and 16 bits for the place in the block.
    shift = 16 if file.compression == "BGZF" else 0
    told = 0

    def tell(at_end: bool) -> None:
        nonlocal told
        place = path.stat().st_size if at_end else file.tell() >> shift
        advance(place - told)
        told = place

    return tell


@contextmanager
def _open(path: Path, advance: Callable[[float], None] | None) -> Iterator[pysam.VariantFile]:
    compression = check_input(path, "VCF")
    if compression is Compression.PLAIN:
        _check_last_line(path)
    # What htslib would print is raised here instead, or (undeclared contigs, a missing index) is no fault.
    verbosity = pysam.set_verbosity(0)
    try:
        if compression is Compression.GZIP:
            with _decompressing(path, advance) as pipe, _header_read(path, pipe) as file:
                yield file
        else:
            with _header_read(path, os.fspath(path)) as file:
                yield file
    finally:
        pysam.set_verbosity(verbosity)


@contextmanager
def _header_read(path: Path, source: str | BinaryIO) -> Iterator[pysam.VariantFile]:
    try:
        file = pysam.VariantFile(source, drop_samples=True)
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


def _check_last_line(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(3)
        file.seek(-1, os.SEEK_END)
        # Uncompressed BCF has no lines.
        if start != b"BCF" and file.read(1) != b"\n":
            raise InputError(
                f"{path}: ends in the middle of a line, so it may be cut short; copy it again, or end its last line"
            )
