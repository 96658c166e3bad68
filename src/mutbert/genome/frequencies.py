"""From the records of a VCF file to the single-nucleotide alleles that may enter a genome, with their frequencies.

Nothing here knows the reference, so that many processes can read many places at once; `population` compares and counts.
Shape suffixes: N records of a chunk, M alternate alleles of a chunk, C places where an allele changes a base, A alleles
of the records whose frequencies are wanted, R reasons.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import numpy as np

from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.genome.alleles import Reason, find_changes
from mutbert.genome.columns import (
    Column,
    NotARecordError,
    find_field,
    read_numbers,
    split_columns,
    split_contigs,
    split_list,
)
from mutbert.genome.format import LONGEST_CONTIG
from mutbert.genome.genotypes import columns_of, count_alleles
from mutbert.genome.sites import NO_ALLELES, SUM_TOLERANCE, Alleles, differs_from_last
from mutbert.genome.vcf_text import Place, read_lines, unparsable
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from mutbert.arrays import Bool, Float64, Int64
    from mutbert.genome.columns import Chunk, Spans
    from mutbert.genome.fields import FrequencyFields


ANY_FILTER: Final = "any"
"""Stands for every FILTER."""

# No contig is so long, so that what lies there is outside.
_LAST_POSITION: Final = LONGEST_CONTIG


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


def list_contigs(calls: Calls) -> list[str]:
    """List the contigs that a file has records of, by reading it."""
    names = {}
    for chunk in _chunks(calls, None, genotypes=False):
        names.update(dict.fromkeys(name for name, _ in split_contigs(chunk[0])))
    return list(names)


def _read_place(calls: Calls, place: Place | None, wanted: ContigNames | None) -> Iterator[Piece]:
    seen: dict[str, None] = {}
    contig, last = "", 0
    with closing(_chunks(calls, place, genotypes=calls.fields.are_genotypes)) as chunks:
        for every, read in chunks:
            for name, chunk in split_contigs(every):
                if name != contig:
                    _check_new(calls, name, seen)
                    contig, last = name, 0
                if wanted is not None and wanted.find(name) is None:
                    yield Piece(name, len(chunk), NO_ALLELES, np.zeros(len(Reason), dtype=np.int64), read)
                else:
                    _check_order(calls, name, np.append(last, chunk.position_N))
                    last = int(chunk.position_N[-1])
                    yield Piece(name, len(chunk), *_Reader(calls, name, chunk).alleles(), read)
                read = 0.0


def _chunks(calls: Calls, place: Place | None, *, genotypes: bool) -> Generator[tuple[Chunk, float], None, None]:
    """Give the records of a place in chunks, with the bytes that were read for each."""
    after = ""
    with closing(read_lines(calls.path, calls.fields.samples, place, genotypes=genotypes)) as every:
        for lines in every:
            try:
                chunk = split_columns(lines)
            except NotARecordError as error:
                rows = lines.text.split(b"\n")
                if error.row:
                    after = b":".join(rows[error.row - 1].split(b"\t", 2)[:2]).decode("utf-8", "replace")
                raise unparsable(calls.path, after) from None
            yield chunk, lines.read
            after = ":".join(chunk.texts(chunk.rows(len(chunk) - 1, len(chunk)).spans(Column.CHROM)))
            after += f":{chunk.position_N[-1]}"


def _check_new(calls: Calls, contig: str, seen: dict[str, None]) -> None:
    if contig in seen:
        raise InputError(
            f"{calls.path}: records of contig {contig} come again after others; sort the file with 'bcftools sort' and "
            "index it anew"
        )
    seen[contig] = None


def _check_order(calls: Calls, contig: str, position_N: Int64) -> None:
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

    def alleles(self) -> tuple[Alleles, Int64]:
        """Give the alleles that may enter the store, and a tally of the records without any."""
        chunk = self._chunk
        passing_N = self._passing()
        record_M, changes = find_changes(chunk, passing_N)
        record_C = record_M[changes.allele_C]
        stage_C = changes.stage_C
        candidate_C = (stage_C == Reason.USED) & passing_N[record_C]

        candidates = record_C[candidate_C]
        wanted = candidates[differs_from_last(candidates)]
        frequency_C = self._frequencies(record_M, wanted)[changes.allele_C]
        missing_C = candidate_C & np.isnan(frequency_C)
        stage_C[missing_C] = Reason.NO_FREQUENCY
        candidate_C &= ~missing_C

        stage_N = np.full(len(chunk), Reason.NO_ALTERNATE, dtype=np.uint8)
        np.maximum.at(stage_N, record_C, stage_C)
        stage_N[~passing_N] = Reason.FILTERED
        # What still stands is tallied when the whole contig is known.
        tally_R = np.bincount(stage_N[stage_N != Reason.USED], minlength=len(Reason))
        position_C = np.minimum(chunk.position_N[record_C] + changes.offset_C, _LAST_POSITION)
        alleles = Alleles(
            position_C[candidate_C].astype(np.uint32),
            changes.reference_C[candidate_C],
            changes.alternate_C[candidate_C],
            frequency_C[candidate_C].astype(np.float32),
            record_C[candidate_C].astype(np.uint32),
            changes.whole_C[candidate_C],
        )
        return alleles, tally_R

    def _passing(self) -> Bool:
        """Tell which records are not filtered, shape (N,)."""
        chunk, filters = self._chunk, self._calls.filters
        if ANY_FILTER in filters:
            return np.ones(len(chunk), dtype=bool)
        spans = chunk.spans(Column.FILTER)
        passing_N = np.zeros(len(chunk), dtype=bool)
        known_N = chunk.equal(spans, b".")
        passing_N[known_N] = "." in filters
        for name in filters:
            equal_N = chunk.equal(spans, name.encode())
            passing_N |= equal_N
            known_N |= equal_N
        # Several names in one record are rare.
        wanted = set(filters)
        others = np.flatnonzero(~known_N)
        texts = chunk.texts(spans.take(others))
        passing_N[others] = [not wanted.isdisjoint(text.split(";")) for text in texts]
        return passing_N

    def _frequencies(self, record_M: Int64, wanted: Int64) -> Float64:
        """Give the frequency of each alternate allele of the wanted records, ascending; NaN where it is missing."""
        frequency_M = np.full(len(record_M), np.nan)
        if not len(wanted):
            return frequency_M
        first_M, last_M = np.searchsorted(record_M, wanted), np.searchsorted(record_M, wanted + 1)
        # The wanted records' alleles, and for each the place of its record among the wanted.
        row_A, allele_A = list_ranges(first_M, last_M)
        if self._calls.fields.are_genotypes:
            frequency_M[allele_A] = self._counted(wanted, last_M - first_M)
        else:
            value_A, name_of = self._values(wanted, last_M - first_M), self._calls.fields.names
            if len(name_of) > 1:
                # No number, and a number of 0, are both a frequency that is not there.
                number = self._numbers(find_field(self._chunk, name_of[1]).take(wanted), wanted)
                number[number <= 0] = np.nan
                value_A = value_A / number[row_A]
            frequency_M[allele_A] = value_A
        self._check(frequency_M[allele_A], row_A, wanted)
        return frequency_M

    def _values(self, wanted: Int64, count: Int64) -> Float64:
        """Read the values of the field for all alleles of the wanted records."""
        field = find_field(self._chunk, self._calls.fields.names[0]).take(wanted)
        # The fields that are there ascend; of those that are not, each allele has an empty value.
        is_there = field.end_S > field.begin_S
        row_A, parts = split_list(self._chunk, field.take(is_there))
        given = np.bincount(np.flatnonzero(is_there)[row_A], minlength=len(wanted))
        is_dot = self._chunk.equal(field, b".")
        wrong = np.flatnonzero(is_there & ~is_dot & (given != count))
        if len(wrong):
            self._refuse(int(wanted[wrong[0]]), "is not one value for each alternate allele")
        values = np.full(int(count.sum()), np.nan)
        # One dot stands for as many as there should be.
        is_read = is_there & ~is_dot
        values[np.repeat(is_read, count)] = self._numbers(
            parts.take(is_read[np.flatnonzero(is_there)[row_A]]), np.repeat(wanted[is_read], count[is_read])
        )
        return values

    def _numbers(self, spans: Spans, record_S: Int64) -> Float64:
        try:
            return read_numbers(self._chunk, spans)
        except NotARecordError as error:
            self._refuse(int(record_S[error.row]), "is not a number")

    def _counted(self, wanted: Int64, count: Int64) -> Float64:
        """Count the alleles of the wanted records in their genotypes."""
        fields = self._calls.fields
        chosen_S = columns_of(fields.columns)
        frequencies: list[float] = []
        for record, alternates in zip(wanted.tolist(), count.tolist(), strict=True):
            keys, columns = self._chunk.genotypes[record]
            try:
                calls, called = count_alleles(columns, keys, alternates, fields.samples, chosen_S)
            except ValueError as error:
                raise InputError(
                    f"{self._calls.path}: {self._contig}:{self._chunk.position_N[record]}: {error}; mend or remove "
                    "the record"
                ) from None
            frequencies += [number / called if called else np.nan for number in calls]
        return np.array(frequencies)

    def _check(self, frequency_A: Float64, row_A: Int64, wanted: Int64) -> None:
        sum_ = np.bincount(row_A, weights=np.nan_to_num(frequency_A), minlength=len(wanted))
        for wrong_A, fault in (
            ((frequency_A < 0) | (frequency_A > 1), "is not between 0 and 1"),
            (sum_[row_A] > 1 + SUM_TOLERANCE, "sums to more than 1"),
        ):
            if np.any(wrong_A):
                self._refuse(int(wanted[row_A[np.argmax(wrong_A)]]), fault)

    def _refuse(self, record: int, fault: str) -> NoReturn:
        chunk = self._chunk.rows(record, record + 1)
        text = ", ".join(f"{name}={chunk.texts(find_field(chunk, name))[0]}" for name in self._calls.fields.names)
        raise InputError(
            f"{self._calls.path}: {self._contig}:{chunk.position_N[0]}: {text} {fault}; mend or remove the record, or "
            "choose another field with --frequency-field"
        )
