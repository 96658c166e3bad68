"""From the records of a VCF file to the single-nucleotide alleles that may enter a genome, with their frequencies.

Nothing here knows the reference, so that many processes can read many places at once; `population` compares and counts.
Records are fetched one by one through htslib; everything else is done on columns of a chunk of records. Shape
suffixes: N records of a chunk, M alternate alleles of a chunk, C places where an allele changes a base, A alleles.
"""

from __future__ import annotations

from contextlib import closing
from itertools import chain, compress, groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError
from mutbert.genome.alleles import Chunk, Reason, find_changes, read_chunk, read_genotype_chunk
from mutbert.genome.sites import NO_ALLELES, SUM_TOLERANCE, Alleles
from mutbert.genome.vcf import Place, read_lines, read_records
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from mutbert.genome.fields import FrequencyFields

    Bool = npt.NDArray[np.bool_]
    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]
    Float32 = npt.NDArray[np.float32]
    Float64 = npt.NDArray[np.float64]

ANY_FILTER = "any"
"""Stands for every FILTER."""


class Calls(NamedTuple):
    """A VCF file, and how it is to be read.

    Parameters
    ----------
    path : Path
        The file.
    fields : FrequencyFields
        Where its frequencies are.
    filters : tuple of str
        A record passes with one of these names in FILTER; ``.`` stands for an empty FILTER, ``any`` for every one.
    """

    path: Path
    fields: FrequencyFields
    filters: tuple[str, ...]


class Piece(NamedTuple):
    """What consecutive records of a contig give.

    Parameters
    ----------
    contig : str
        The file's name of it.
    records : int
        Number of records.
    alleles : Alleles
        Those that may enter the store. Positions are 1-based here, so that POS 0 has one; records are counted from 0.
    tally_R : ndarray of int64, one for each `Reason`
        Records none of whose alleles may.
    read : float
        Compressed bytes read since the last piece.
    """

    contig: str
    records: int
    alleles: Alleles
    tally_R: Int64
    read: float


def read_alleles(calls: Calls, places: tuple[Place, ...] = (), contigs: tuple[str, ...] = ()) -> Iterator[Piece]:
    """Read the alleles of a file.

    Parameters
    ----------
    calls : Calls
        The file.
    places : tuple of Place
        The parts to read, by its index; the whole file where there are none.
    contigs : tuple of str
        Of the whole file, the contigs that are wanted, under either naming. The records of others are only counted.

    Yields
    ------
    Piece
        In the order of the records. Contigs without a record have no piece.

    Raises
    ------
    InputError
        When the file cannot be read or is not sorted; when a frequency is not possible.
    """
    for place in places:
        yield from _read_place(calls, place, None)
    if not places:
        yield from _read_place(calls, None, ContigNames(contigs))


def _read_place(calls: Calls, place: Place | None, wanted: ContigNames | None) -> Iterator[Piece]:
    read = 0.0

    def advance(amount: float) -> None:
        nonlocal read
        read += amount

    fields = calls.fields
    seen: set[str] = set()
    with closing(_rows(calls, place, advance)) as every:
        for contig, rows in groupby(every, key=itemgetter(0) if fields.are_genotypes else attrgetter("contig")):
            name = contig.decode("utf-8", "replace") if fields.are_genotypes else contig
            if name in seen:
                raise InputError(
                    f"{calls.path}: records of contig {name} come again after others; sort the file with "
                    "'bcftools sort' and index it anew"
                )
            seen.add(name)
            if wanted is not None and wanted.find(name) is None:
                yield Piece(name, sum(1 for _ in rows), NO_ALLELES, np.zeros(len(Reason), dtype=np.int64), read)
                read = 0.0
                continue
            last = -1
            while len(chunk := _read_chunk(calls, name, rows)):
                _check_order(calls, name, [last, *chunk.position])
                last = chunk.position[-1]
                alleles, tally_R = _Reader(calls, name, chunk).alleles()
                yield Piece(name, len(chunk), alleles, tally_R, read)
                read = 0.0


def _rows(calls: Calls, place: Place | None, advance: Callable[[float], None]) -> Generator[Any, None, None]:
    """Give the records: lines in ten columns where genotypes are counted, htslib's otherwise."""
    if calls.fields.are_genotypes:
        with closing(read_lines(calls.path, place, advance)) as lines:
            yield from (line.split(b"\t", 9) for line in lines)
    else:
        with closing(read_records(calls.path, place, advance)) as records:
            yield from records


def _read_chunk(calls: Calls, contig: str, rows: Iterator[Any]) -> Chunk:
    if not calls.fields.are_genotypes:
        return read_chunk(rows, calls.fields)
    try:
        return read_genotype_chunk(rows, calls.fields)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{calls.path}: record {contig}:{error} cannot be parsed: its columns are not those of the header, or a "
            "genotype is not made of its alleles; mend or remove the line"
        ) from None


def _check_order(calls: Calls, contig: str, positions: list[int]) -> None:
    position_N = np.array(positions, dtype=np.int64)
    back = np.flatnonzero(position_N[1:] < position_N[:-1])
    if len(back):
        before, after = position_N[back[0] : back[0] + 2]
        raise InputError(
            f"{calls.path}: {contig}:{after} comes after {contig}:{before}, so the file is not sorted; sort it with "
            "'bcftools sort' and index it anew"
        )


class _Reader:
    """Takes a chunk of records apart."""

    def __init__(self, calls: Calls, contig: str, chunk: Chunk) -> None:
        self._calls = calls
        self._contig = contig
        self._chunk = chunk
        self._count_N = np.fromiter(map(len, chunk.alleles), np.int64, len(chunk)) - 1

    def alleles(self) -> tuple[Alleles, Int64]:
        """Give the alleles that may enter the store, and a tally of the records without any."""
        chunk, count_N = self._chunk, self._count_N
        record_M = np.repeat(np.arange(len(chunk)), count_N)
        passing_N = self._passing()
        changes = find_changes(chunk, count_N, record_M, passing_N)
        record_C = record_M[changes.allele_C]
        stage_C = changes.stage_C
        candidate_C = (stage_C == Reason.USED) & passing_N[record_C]

        frequency_C = self._frequencies(record_M, record_C, candidate_C)[changes.allele_C]
        missing_C = candidate_C & np.isnan(frequency_C)
        stage_C[missing_C] = Reason.NO_FREQUENCY
        candidate_C &= ~missing_C

        stage_N = np.full(len(chunk), Reason.NO_ALTERNATE, dtype=np.uint8)
        np.maximum.at(stage_N, record_C, stage_C)
        stage_N[~passing_N] = Reason.FILTERED
        # What still stands is tallied when the whole contig is known.
        tally_R = np.bincount(stage_N[stage_N != Reason.USED], minlength=len(Reason))
        position_N = np.array(chunk.position, dtype=np.int64)
        alleles = Alleles(
            (position_N[record_C] + changes.offset_C)[candidate_C].astype(np.uint32),
            changes.reference_C[candidate_C],
            changes.alternate_C[candidate_C],
            frequency_C[candidate_C].astype(np.float32),
            record_C[candidate_C].astype(np.uint32),
            changes.whole_C[candidate_C],
        )
        return alleles, tally_R

    def _passing(self) -> Bool:
        filters = self._calls.filters
        if ANY_FILTER in filters:
            return np.ones(len(self._chunk), dtype=bool)
        empty_passes = "." in filters
        wanted = set(filters)
        return np.array(
            [not wanted.isdisjoint(names) if names else empty_passes for names in self._chunk.filters], dtype=bool
        )

    def _frequencies(self, record_M: Int64, record_C: Int64, candidate_C: Bool) -> Float64:
        """Give the frequency of each alternate allele; NaN where it is missing, and where it is no candidate's."""
        chunk, count_N = self._chunk, self._count_N
        wanted_N = np.zeros(len(chunk), dtype=bool)
        wanted_N[record_C[candidate_C]] = True
        frequency_M = np.full(len(record_M), np.nan)
        values = [value if type(value) is tuple else (value,) for value in compress(chunk.values, wanted_N)]
        given = np.fromiter(map(len, values), np.int64, len(values))
        short = np.flatnonzero(given != count_N[wanted_N])
        for row in short:
            # One missing value stands for as many as there should be.
            if values[row] not in ((None,), ()):
                self._refuse(int(np.flatnonzero(wanted_N)[row]), "is not one value for each alternate allele")
            values[row] = (None,) * int(count_N[wanted_N][row])
        try:
            frequency_M[wanted_N[record_M]] = np.array(list(chain.from_iterable(values)), dtype=np.float64)
        except (ValueError, TypeError):
            row = next(n for n, value in zip(np.flatnonzero(wanted_N), values, strict=True) if not _are_numbers(value))
            self._refuse(int(row), "is not a number")
        if chunk.numbers:
            # No number, and a number of 0, are both a frequency that is not there.
            number_N = np.array(
                [number if isinstance(number, int) else np.nan for number in chunk.numbers], dtype=np.float64
            )
            number_N[number_N <= 0] = np.nan
            frequency_M /= number_N[record_M]
        self._check(record_M, frequency_M)
        return frequency_M

    def _check(self, record_M: Int64, frequency_M: Float64) -> None:
        sum_N = np.bincount(record_M, weights=np.nan_to_num(frequency_M), minlength=len(self._chunk))
        for wrong_M, fault in (
            ((frequency_M < 0) | (frequency_M > 1), "is not between 0 and 1"),
            (sum_N[record_M] > 1 + SUM_TOLERANCE, "sums to more than 1"),
        ):
            if np.any(wrong_M):
                self._refuse(int(record_M[np.argmax(wrong_M)]), fault)

    def _refuse(self, row: int, fault: str) -> None:
        fields = self._calls.fields
        columns = (self._chunk.values, self._chunk.numbers)
        names = ("calls", "called") if fields.are_genotypes else fields.names
        text = ", ".join(f"{name}={_text(column[row])}" for name, column in zip(names, columns, strict=False))
        raise InputError(
            f"{self._calls.path}: {self._contig}:{self._chunk.position[row]}: {text} {fault}; mend or remove the "
            "record, or choose another field with --frequency-field"
        )


def _are_numbers(values: tuple[object, ...]) -> bool:
    return all(value is None or isinstance(value, (int, float)) for value in values)


def _text(value: object) -> str:
    """Write the value of an INFO field as the file has it."""
    if value is None or value == ():
        return "."
    if isinstance(value, tuple):
        return ",".join(_text(one) for one in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
