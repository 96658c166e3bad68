"""Records of a VCF file as columns, and the single-nucleotide changes that their alternate alleles make.

Shape suffixes: N records of a chunk, M alternate alleles of a chunk, C places where an allele changes a base: one of a
single-nucleotide allele, several of one of several nucleotides, and one that stands for any other allele.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.genome.genotypes import columns_of, count_alleles

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pysam

    from mutbert.genome.fields import FrequencyFields

    Bool = npt.NDArray[np.bool_]
    UInt8 = npt.NDArray[np.uint8]
    UInt32 = npt.NDArray[np.uint32]
    Int64 = npt.NDArray[np.int64]

_RECORDS_OF_A_CHUNK: Final = 1 << 15

_AMBIGUOUS: Final = 254
_LONGER: Final = 255
_CODE_OF_ALLELE: Final = {
    letter: code if code < 4 else _AMBIGUOUS
    for code, upper in enumerate(alphabet.IUPAC)
    for letter in (upper, upper.lower())
}


class Reason(IntEnum):
    """Why a record is not used, in the order of how far it came; `USED` is the end of the way.

    A record of several alternate alleles goes as far as the one that gets furthest.
    """

    CONTIG_NOT_IN_FASTA = 0, "contig not in the FASTA"
    CONTIG_NOT_SELECTED = 1, "contig not selected"
    FILTERED = 2, "filtered"
    NO_ALTERNATE = 3, "no alternate allele"
    SYMBOLIC = 4, "symbolic or structural"
    OVERLAPPING_DELETION = 5, "overlapping deletion (*)"
    INDEL = 6, "insertion or deletion"
    NOT_A_CHANGE = 7, "alternate is the reference"
    AMBIGUOUS_ALTERNATE = 8, "alternate base not A, C, G or T"
    NO_FREQUENCY = 9, "frequency missing"
    UNKNOWN_REFERENCE = 10, "reference base unknown"
    OUTSIDE = 11, "outside the contig"
    MISMATCH = 12, "reference base differs from the FASTA"
    DUPLICATE = 13, "duplicate record"
    CONFLICT = 14, "conflicts with an earlier record"
    NOT_ABOVE_MINIMUM = 15, "frequency not above the minimum"
    USED = 16, "used"

    text: str

    def __new__(cls, value: int, text: str) -> Reason:
        """Make a member of a number and the words for it."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member


class Chunk(NamedTuple):
    """Consecutive records of a contig, column by column.

    Parameters
    ----------
    position : list of int
        1-based, as in the file.
    alleles : list of sequence of str
        REF and then every ALT.
    filters : list of sequence of str
        Names in the FILTER column; none for ``.``.
    values : list
        The frequency field, or the numerator: htslib's tuple, number, or ``None``.
    numbers : list of int or None
        The denominator where frequencies are a quotient; empty otherwise.
    """

    position: list[int]
    alleles: list[Any]
    filters: list[Any]
    values: list[Any]
    numbers: list[int | None]

    def __len__(self) -> int:
        return len(self.position)


class Changes(NamedTuple):
    """The places where alternate alleles change a base; of an allele that is no such change, one place with the reason.

    Parameters
    ----------
    allele_C : ndarray of int64, shape (C,)
        The alternate allele, counted through the chunk; ascending.
    stage_C : ndarray of uint8, shape (C,)
        `Reason`; `Reason.USED` for a change from one base to another.
    offset_C : ndarray of int64, shape (C,)
        Place of the base in REF.
    reference_C, alternate_C : ndarray of uint8, shape (C,)
        Base codes.
    whole_C : ndarray of uint32, shape (C,)
        0 for a single-nucleotide allele; otherwise a checksum of the whole allele and of the base's place in it, by
        which equal ones are known.
    """

    allele_C: Int64
    stage_C: UInt8
    offset_C: Int64
    reference_C: UInt8
    alternate_C: UInt8
    whole_C: UInt32


def read_chunk(records: Iterator[pysam.VariantRecord], fields: FrequencyFields) -> Chunk:
    """Take the next records from an iterator; an empty chunk means that there are no more."""
    chunk = Chunk([], [], [], [], [])
    position, alleles, filters, values, numbers = chunk
    values_field, *numbers_field = fields.names
    # This loop runs once a record, so it does nothing but fetch.
    for record in islice(records, _RECORDS_OF_A_CHUNK):
        position.append(record.pos)
        alleles.append(record.alleles)
        filters.append(record.filter.keys())
        info = record.info
        values.append(info.get(values_field))
        if numbers_field:
            numbers.append(info.get(numbers_field[0]))
    return chunk


def read_genotype_chunk(lines: Iterator[list[bytes]], fields: FrequencyFields) -> Chunk:
    """Take the next records from an iterator of lines in ten columns, and count the alleles that are called.

    Raises
    ------
    ValueError
        When a line is no record; ``error.args`` holds its position.
    """
    chunk = Chunk([], [], [], [], [])
    position, alleles, filters, values, numbers = chunk
    chosen_S = columns_of(fields.columns)
    for line in islice(lines, _RECORDS_OF_A_CHUNK):
        try:
            _, place, _, reference, alternate, _, names, _, keys, columns = line
            record = [reference.decode("ascii"), *alternate.decode("ascii").split(",")]
            if alternate == b".":
                del record[1:]
            size = len(record[0])
            # Only alleles as long as REF can be used, and counting is most of the work.
            if any(len(allele) == size for allele in record[1:]):
                calls, called = count_alleles(columns, keys, len(record) - 1, fields.samples, chosen_S)
            else:
                calls, called = [0] * (len(record) - 1), 0
            if not place.isdigit():
                raise ValueError(place)
            position.append(int(place))
        except ValueError:
            raise ValueError(line[1].decode("ascii", "replace") if len(line) > 1 else "?") from None
        alleles.append(record)
        filters.append(() if names == b"." else names.decode("ascii", "replace").split(";"))
        values.append(tuple(calls))
        numbers.append(called)
    return chunk


def find_changes(chunk: Chunk, count_N: Int64, record_M: Int64, passing_N: Bool) -> Changes:
    """Tell what each alternate allele is, and take those of several nucleotides apart.

    Parameters
    ----------
    chunk : Chunk
        The records.
    count_N : ndarray of int64, shape (N,)
        Alternate alleles of each record.
    record_M : ndarray of int64, shape (M,)
        The record of each alternate allele.
    passing_N : ndarray of bool, shape (N,)
        Records that are not filtered; longer alleles of the others are not looked at.

    Returns
    -------
    Changes
        In the order of the alleles.
    """
    every = list(chain.from_iterable(chunk.alleles))
    code = np.fromiter(map(_CODE_OF_ALLELE.get, every, repeat(_LONGER)), np.uint8, len(every))
    is_reference = np.zeros(len(every), dtype=bool)
    is_reference[np.cumsum(count_N + 1) - count_N - 1] = True
    reference_M = code[is_reference][record_M]
    alternate_M = code[~is_reference]

    stage_M = np.full(len(record_M), Reason.USED, dtype=np.uint8)
    stage_M[reference_M == alternate_M] = Reason.NOT_A_CHANGE
    stage_M[alternate_M == _AMBIGUOUS] = Reason.AMBIGUOUS_ALTERNATE
    stage_M[reference_M == _AMBIGUOUS] = Reason.UNKNOWN_REFERENCE
    longer = np.flatnonzero(((reference_M == _LONGER) | (alternate_M == _LONGER)) & passing_N[record_M])
    one_M = np.ones(len(record_M), dtype=bool)
    one_M[longer] = False
    alternates = np.flatnonzero(~is_reference)
    taken_apart = [
        (m, *change)
        for m in longer.tolist()
        for change in _changes_of_longer(chunk.alleles[record_M[m]][0], every[alternates[m]])
    ]
    single = np.flatnonzero(one_M)
    zeros = np.zeros(len(single), dtype=np.int64)
    singles_C = np.stack([single, stage_M[single], zeros, reference_M[single], alternate_M[single], zeros])
    every_C = np.concatenate([singles_C, np.array(taken_apart, dtype=np.int64).reshape(-1, len(singles_C)).T], axis=1)
    if taken_apart:
        every_C = every_C[:, np.argsort(every_C[0], kind="stable")]
    allele_C, stage_C, offset_C, reference_C, alternate_C, whole_C = every_C
    return Changes(
        allele_C,
        stage_C.astype(np.uint8),
        offset_C,
        reference_C.astype(np.uint8),
        alternate_C.astype(np.uint8),
        whole_C.astype(np.uint32),
    )


def _changes_of_longer(reference: str, alternate: str) -> list[tuple[int, int, int, int, int]]:
    """List the changes of an allele of which REF or ALT is not one letter: stage, offset, both codes, and whole.

    A record of a single-nucleotide and a longer allele writes both with the longer REF, so that the former is found as
    the one place where two equally long strings differ (``REF=CAG ALT=C,CAT``).
    """
    if alternate == "*":
        return [(Reason.OVERLAPPING_DELETION, 0, 0, 0, 0)]
    if alternate == ".":
        return [(Reason.NO_ALTERNATE, 0, 0, 0, 0)]
    if not alternate.isalpha():
        return [(Reason.SYMBOLIC, 0, 0, 0, 0)]
    if len(reference) != len(alternate):
        return [(Reason.INDEL, 0, 0, 0, 0)]
    before, after = reference.upper(), alternate.upper()
    places = [place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    if not places:
        return [(Reason.NOT_A_CHANGE, 0, 0, 0, 0)]
    changed = slice(places[0], places[-1] + 1)
    whole = f"{before[changed]}>{after[changed]}".encode()
    changes = []
    for place in places:
        old = _CODE_OF_ALLELE.get(before[place], _AMBIGUOUS)
        new = _CODE_OF_ALLELE.get(after[place], _AMBIGUOUS)
        reason = (
            Reason.UNKNOWN_REFERENCE
            if old == _AMBIGUOUS
            else Reason.AMBIGUOUS_ALTERNATE
            if new == _AMBIGUOUS
            else Reason.USED
        )
        # The same whole allele at the same place of it: 0 is kept for single ones.
        key = 0 if len(places) == 1 else zlib.crc32(whole, place - places[0] + 1) or 1
        changes.append((int(reason), place, old, new, key))
    return changes
