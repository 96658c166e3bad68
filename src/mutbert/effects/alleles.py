"""What each alternate allele of a variant changes, or why it cannot be scored.

Shape suffixes: A alternate alleles, R those that are compared with the genome, B bases of these.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from mutbert import alphabet
from mutbert.arrays import Bool, Int64, UInt8, list_ranges
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.genome.store import ProbabilisticGenome

    Texts = npt.NDArray[np.object_]

LONGEST: Final = 50


class Kind(IntEnum):
    """What an alternate allele is, once bases that both ends of REF and ALT share are trimmed."""

    NONE, SNV, MNV, INDEL = range(4)


class Reason(IntEnum):
    """Why an allele has no score, and what that means; `SCORED` where it has."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:  # noqa: D102
        member = int.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member

    @property
    def text(self) -> str:
        """The reason as files have it."""
        return self.name.lower() if self else "."

    SCORED = 0
    NO_ALTERNATE = 1, "the record has no alternate allele"
    SYMBOLIC = 2, "the allele is symbolic, a breakend or missing"
    OVERLAPPING_DELETION = 3, "the allele is *, removed by an upstream deletion"
    CONTIG_NOT_IN_GENOME = 4, "the genome has no such contig"
    OUTSIDE_CONTIG = 5, "the record reaches outside the contig"
    AMBIGUOUS_REFERENCE = 6, "REF has letters other than A, C, G, T"
    AMBIGUOUS_ALTERNATE = 7, "ALT has letters other than A, C, G, T"
    UNKNOWN_REFERENCE = 8, "the genome has N where the allele changes it, or next to an insertion"
    REFERENCE_MISMATCH = 9, "REF is not what the genome has there"
    NOT_A_CHANGE = 10, "ALT is REF"
    TOO_LONG = 11, "more bases change than --longest allows"
    NOT_A_NUMBER = 12, "the model gives no number"
    NO_SCORE_OF_ITS_KIND = 13, "none of the requested scores applies to an allele of its kind"


_CODES: Final = {base: code for code, base in enumerate(alphabet.BASES)}
_OF_ALTERNATE: Final = (Reason.NO_ALTERNATE, Reason.SYMBOLIC, Reason.OVERLAPPING_DELETION)


@dataclass(frozen=True)
class Alleles:
    """Alternate alleles of consecutive records, in order; a record without alternate has one row.

    Of alleles that are scored, ``start_A`` to ``end_A`` are the reference bases that change, 0-based and half-open:
    empty for a pure insertion. SNVs also have base codes.
    """

    reason_A: UInt8
    kind_A: UInt8
    contig_A: Int64
    start_A: Int64
    end_A: Int64
    reference_A: UInt8
    alternate_A: UInt8
    removed: Texts  # in upper case
    inserted: Texts

    def __len__(self) -> int:
        return len(self.reason_A)

    def take(self, rows: Int64 | Bool) -> Alleles:
        """Return some of the alleles."""
        return Alleles(*(getattr(self, field.name)[rows] for field in fields(self)))


def find_alleles(
    genome: ProbabilisticGenome, contigs: Sequence[str], positions: Sequence[int], references: Sequence[str],
    alternates: Sequence[str], *, longest: int = LONGEST,
) -> Alleles:  # fmt: skip
    """Return what each alternate allele of records changes.

    POS is 1-based and several alternates are separated by commas, as in VCF; contigs have either naming. Where the
    genome has an IUPAC code, each of its bases matches REF. More changed bases than `longest` are not scored.
    """
    names, numbers = ContigNames(genome.lengths), {name: number for number, name in enumerate(genome.lengths)}
    contig_of = {name: numbers.get(names.find(name) or "", -1) for name in set(contigs)}
    rows: list[tuple[Any, ...]] = []
    for contig, position, reference, several in zip(contigs, positions, references, alternates, strict=True):
        locus = contig_of[contig], position - 1, reference.upper()
        rows += [(*locus, *_change(locus[2], one, longest)) for one in several.upper().split(",")]
    columns = list(zip(*rows, strict=True)) or [()] * 9
    contig_A, first_A, begin_A, end_A = (np.array(columns[number], dtype=np.int64) for number in (0, 1, 5, 6))
    reason_A, kind_A = (np.array(column, dtype=np.uint8) for column in columns[3:5])
    whole, removed, inserted = (np.array(columns[number], dtype=object) for number in (2, 7, 8))
    codes = (np.array([_CODES.get(text, alphabet.UNKNOWN) for text in one], np.uint8) for one in (removed, inserted))
    start_A, end_A = first_A + begin_A, first_A + end_A
    alleles = Alleles(reason_A, kind_A, contig_A, start_A, end_A, *codes, removed, inserted)
    _compare(genome, alleles, first_A, whole)
    return alleles


def _change(reference: str, alternate: str, longest: int) -> tuple[Reason, Kind, int, int, str, str]:
    """Return a reason, a kind, and the bases of REF that change: half-open, as text, and what replaces them."""
    # From the right first, as `bcftools norm` does, so that an allele of several is what it is in a record of its own.
    end, length = len(reference), len(alternate)
    while min(end, length) and reference[end - 1] == alternate[length - 1]:
        end, length = end - 1, length - 1
    begin = 0
    while begin < min(end, length) and reference[begin] == alternate[begin]:
        begin += 1
    inserted = alternate[begin:length]
    faults = (
        (Reason.NO_ALTERNATE, alternate in {".", ""}),
        (Reason.OVERLAPPING_DELETION, alternate == "*"),
        (Reason.SYMBOLIC, not (alternate.isascii() and alternate.isalpha())),
        (Reason.AMBIGUOUS_ALTERNATE, alternate.strip(alphabet.BASES) != ""),
        (Reason.NOT_A_CHANGE, alternate == reference),
        (Reason.TOO_LONG, max(end - begin, len(inserted)) > longest),
    )
    if reason := next((one for one, is_so in faults if is_so), Reason.SCORED):
        return reason, Kind.NONE, 0, 0, "", ""
    kind = Kind.INDEL if end - begin != len(inserted) else Kind.SNV if len(inserted) == 1 else Kind.MNV
    return Reason.SCORED, kind, begin, end, reference[begin:end], inserted


def _compare(genome: ProbabilisticGenome, alleles: Alleles, first_A: Int64, references: Texts) -> None:
    """Set the reasons that have to do with REF and the genome."""
    reason_A, contig_A = alleles.reason_A, alleles.contig_A
    length_A = np.array([*genome.lengths.values(), 0], dtype=np.int64)[contig_A]
    last_A = first_A + np.array([len(text) for text in references], dtype=np.int64)
    is_dna_A = [text != "" and not text.strip(alphabet.BASES) for text in references]
    fault_A = np.where(is_dna_A, Reason.SCORED, Reason.AMBIGUOUS_REFERENCE)
    fault_A[(first_A < 0) | (last_A > length_A)] = Reason.OUTSIDE_CONTIG
    fault_A[contig_A < 0] = Reason.CONTIG_NOT_IN_GENOME
    # REF with a base more on either side, which count for an insertion.
    own = np.flatnonzero(fault_A == Reason.SCORED)
    begin_R, end_R = np.maximum(first_A[own] - 1, 0), np.minimum(last_A[own] + 1, length_A[own])
    code_B, offset_R = _read(genome, contig_A[own], begin_R, end_R)
    row_B, at_B = list_ranges(offset_R + first_A[own] - begin_R, offset_R + last_A[own] - begin_R)
    differs_B = alphabet.DISTRIBUTIONS[code_B[at_B], alphabet.encode("".join(references[own]))] == 0
    fault_A[own[row_B[differs_B]]] = Reason.REFERENCE_MISMATCH
    # What an alternate is counts before what is wrong with its record.
    faulty_A = (fault_A != Reason.SCORED) & ~np.isin(reason_A, _OF_ALTERNATE)
    reason_A[faulty_A] = fault_A[faulty_A]
    start_R, stop_R = alleles.start_A[own], alleles.end_A[own]
    more_R = start_R == stop_R
    near_R = (np.maximum(start_R - more_R, begin_R), np.minimum(stop_R + more_R, end_R)) - begin_R + offset_R
    unknown = np.append(0, np.cumsum(code_B == alphabet.UNKNOWN))
    unknown_R = (unknown[near_R[1]] > unknown[near_R[0]]) & (reason_A[own] == Reason.SCORED)
    reason_A[own[unknown_R]] = Reason.UNKNOWN_REFERENCE


def _read(genome: ProbabilisticGenome, contig_R: Int64, start_R: Int64, end_R: Int64) -> tuple[UInt8, Int64]:
    """Return the base codes of stretches, one after the other, and the offset of each."""
    length_R = end_R - start_R
    offset_R = np.cumsum(length_R) - length_R
    code_B = np.zeros(int(length_R.sum()), dtype=np.uint8)
    for length in np.unique(length_R).tolist():
        rows = np.flatnonzero(length_R == length)
        windows = genome.windows(contig_R[rows], start_R[rows], length)
        code_B[offset_R[rows, None] + np.arange(length)] = windows.base_BL
    return code_B, offset_R
