"""Records of a VCF file as columns, and what each alternate allele is.

Shape suffixes: N records of a chunk, M alternate alleles of a chunk.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert import alphabet

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pysam

    from mutbert.genome.vcf import FrequencyFields

    Bool = npt.NDArray[np.bool_]
    UInt8 = npt.NDArray[np.uint8]
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
    MULTI_NUCLEOTIDE = 7, "several nucleotides"
    NOT_A_CHANGE = 8, "alternate is the reference"
    AMBIGUOUS_ALTERNATE = 9, "alternate base not A, C, G or T"
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
    alleles : list of tuple of str
        REF and then every ALT.
    filters : list of list of str
        Names in the FILTER column; none for ``.``.
    values : list
        The frequency field, or AC: htslib's tuple, number, or ``None``.
    numbers : list of int or None
        AN where frequencies are AC/AN; empty otherwise.
    """

    position: list[int]
    alleles: list[tuple[str, ...]]
    filters: list[list[str]]
    values: list[Any]
    numbers: list[int | None]

    def __len__(self) -> int:
        return len(self.position)


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


def classify(chunk: Chunk, count_N: Int64, record_M: Int64, passing_N: Bool) -> tuple[UInt8, Int64, UInt8, UInt8]:
    """Tell what each alternate allele is.

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
    tuple of ndarray, each of shape (M,)
        `Reason` (`Reason.USED` for a single-nucleotide allele); and of such an allele the place of the base in REF,
        and the base codes of reference and alternate.
    """
    every = list(chain.from_iterable(chunk.alleles))
    code = np.fromiter(map(_CODE_OF_ALLELE.get, every, repeat(_LONGER)), np.uint8, len(every))
    is_reference = np.zeros(len(every), dtype=bool)
    is_reference[np.cumsum(count_N + 1) - count_N - 1] = True
    reference_M = code[is_reference][record_M]
    alternate_M = code[~is_reference]
    offset_M = np.zeros(len(record_M), dtype=np.int64)

    stage_M = np.full(len(record_M), Reason.USED, dtype=np.uint8)
    stage_M[reference_M == alternate_M] = Reason.NOT_A_CHANGE
    stage_M[alternate_M == _AMBIGUOUS] = Reason.AMBIGUOUS_ALTERNATE
    stage_M[reference_M == _AMBIGUOUS] = Reason.UNKNOWN_REFERENCE
    longer_M = (reference_M == _LONGER) | (alternate_M == _LONGER)
    alternates = np.flatnonzero(~is_reference)
    for m in np.flatnonzero(longer_M & passing_N[record_M]):
        stage_M[m], offset_M[m], reference_M[m], alternate_M[m] = _classify_longer(
            chunk.alleles[record_M[m]][0], every[alternates[m]]
        )
    return stage_M, offset_M, reference_M, alternate_M


def _classify_longer(reference: str, alternate: str) -> tuple[Reason, int, int, int]:
    """Tell what an allele is of which REF or ALT is not one letter; see `classify`.

    A record of a single-nucleotide and a longer allele writes both with the longer REF, so that the former is found as
    the one place where two equally long strings differ (``REF=CAG ALT=C,CAT``).
    """
    if alternate == "*":
        return Reason.OVERLAPPING_DELETION, 0, 0, 0
    if alternate == ".":
        return Reason.NO_ALTERNATE, 0, 0, 0
    if not alternate.isalpha():
        return Reason.SYMBOLIC, 0, 0, 0
    if len(reference) != len(alternate):
        return Reason.INDEL, 0, 0, 0
    pairs = zip(reference.upper(), alternate.upper(), strict=True)
    places = [place for place, (before, after) in enumerate(pairs) if before != after]
    if len(places) != 1:
        return Reason.MULTI_NUCLEOTIDE if places else Reason.NOT_A_CHANGE, 0, 0, 0
    place = places[0]
    before = _CODE_OF_ALLELE.get(reference[place], _AMBIGUOUS)
    after = _CODE_OF_ALLELE.get(alternate[place], _AMBIGUOUS)
    if before == _AMBIGUOUS:
        return Reason.UNKNOWN_REFERENCE, 0, 0, 0
    if after == _AMBIGUOUS:
        return Reason.AMBIGUOUS_ALTERNATE, 0, 0, 0
    return Reason.USED, place, before, after
