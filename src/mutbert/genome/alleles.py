"""The single-nucleotide changes that the alternate alleles of records make, and why the others make none.

Shape suffixes: N records of a chunk, M alternate alleles of a chunk, C places where an allele changes a base: one of a
single-nucleotide allele, several of one of several nucleotides, and one that stands for any other allele.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from mutbert import alphabet
from mutbert.genome.columns import Column, split_list

if TYPE_CHECKING:
    from mutbert.arrays import Bool, Int64, UInt8, UInt32
    from mutbert.genome.columns import Chunk, Spans


_AMBIGUOUS: Final = 254
_LONGER: Final = 255
_CODE_OF_ALLELE: Final = {
    letter: code if code < 4 else _AMBIGUOUS
    for code, upper in enumerate(alphabet.IUPAC)
    for letter in (upper, upper.lower())
}
# Of letters, the bit that makes small ones of capitals.
_UPPER: Final = np.uint8(0xDF)
_CODE_OF_BYTE: Final = np.array([_CODE_OF_ALLELE.get(chr(byte), _LONGER) for byte in range(256)], dtype=np.uint8)


class WordedReason(IntEnum):
    """A reason as a number that arrays hold, with the words for it."""

    text: str

    def __new__(cls, value: int, text: str) -> Self:
        """Make a member of a number and the words for it."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member


class Reason(WordedReason):
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


def find_changes(chunk: Chunk, passing_N: Bool) -> tuple[Int64, Changes]:
    """Tell what each alternate allele is, and take those of several nucleotides apart.

    Parameters
    ----------
    chunk : Chunk
        The records.
    passing_N : ndarray of bool, shape (N,)
        Records that are not filtered; longer alleles of the others are not looked at.

    Returns
    -------
    tuple of (ndarray of int64, Changes)
        The record of each alternate allele, shape (M,), and their changes in the order of the alleles.
    """
    references, alternates = chunk.spans(Column.REF), chunk.spans(Column.ALT)
    rows = np.flatnonzero(~chunk.equal(alternates, b"."))
    part_M, spans_M = split_list(chunk, alternates.take(rows))
    record_M = rows[part_M]
    reference_M = _codes(chunk, references)[record_M]
    alternate_M = _codes(chunk, spans_M)

    stage_M = np.full(len(record_M), Reason.USED, dtype=np.uint8)
    stage_M[alternate_M == _AMBIGUOUS] = Reason.AMBIGUOUS_ALTERNATE
    stage_M[reference_M == _AMBIGUOUS] = Reason.UNKNOWN_REFERENCE
    letter_M, other_M = chunk.byte_B[spans_M.begin_S] & _UPPER, chunk.byte_B[references.begin_S[record_M]] & _UPPER
    stage_M[letter_M == other_M] = Reason.NOT_A_CHANGE
    one_M = (reference_M != _LONGER) & (alternate_M != _LONGER)
    longer = np.flatnonzero(~one_M & passing_N[record_M])
    before = chunk.texts(references.take(record_M[longer]))
    after = chunk.texts(spans_M.take(longer))
    taken_apart = [
        (m, *change)
        for m, reference, alternate in zip(longer.tolist(), before, after, strict=True)
        for change in _changes_of_longer(reference, alternate)
    ]
    single = np.flatnonzero(one_M)
    zeros = np.zeros(len(single), dtype=np.int64)
    singles_C = np.stack([single, stage_M[single], zeros, reference_M[single], alternate_M[single], zeros])
    every_C = np.concatenate([singles_C, np.array(taken_apart, dtype=np.int64).reshape(-1, len(singles_C)).T], axis=1)
    if taken_apart:
        every_C = every_C[:, np.argsort(every_C[0], kind="stable")]
    allele_C, stage_C, offset_C, reference_C, alternate_C, whole_C = every_C
    return record_M, Changes(
        allele_C,
        stage_C.astype(np.uint8),
        offset_C,
        reference_C.astype(np.uint8),
        alternate_C.astype(np.uint8),
        whole_C.astype(np.uint32),
    )


def _codes(chunk: Chunk, spans: Spans) -> UInt8:
    """Give the base code of each span of one letter, `_LONGER` for any other, shape (S,)."""
    return np.where(
        spans.end_S - spans.begin_S == 1,
        _CODE_OF_BYTE[chunk.byte_B[np.minimum(spans.begin_S, len(chunk.byte_B) - 1)]],
        np.uint8(_LONGER),
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
        key = 0 if len(places) == 1 else zlib.crc32(b"%d %s" % (place - places[0], whole)) or 1
        changes.append((int(reason), place, old, new, key))
    return changes
