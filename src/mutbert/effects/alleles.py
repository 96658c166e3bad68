"""What each alternate allele of a variant changes, or why it cannot be scored.

Shape suffixes: N records, A alternate alleles, R stretches that are compared, L bases.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from mutbert import alphabet
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Bool, Int64, UInt8
    from mutbert.genome.store import ProbabilisticGenome

    Texts = npt.NDArray[np.object_]

LONGEST: Final = 50


class Kind(IntEnum):
    """What an alternate allele is, once bases that both ends of REF and ALT share are trimmed."""

    NONE = 0
    SNV = 1
    MNV = 2
    INDEL = 3


class Reason(IntEnum):
    """Why an allele has no score, and what that means; `SCORED` where it has."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        """Return a member that carries its meaning."""
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


_OF_ALTERNATE: Final = (Reason.NO_ALTERNATE, Reason.SYMBOLIC, Reason.OVERLAPPING_DELETION)


@dataclass(frozen=True)
class Alleles:
    """Alternate alleles of consecutive records, in order; a record without one has one row.

    Of alleles that are scored, ``start_A`` to ``end_A`` are the reference bases that change, 0-based and half-open:
    empty for a pure insertion. SNVs have base codes; MNVs and indels have upper-case text.
    """

    record_A: Int64
    reason_A: UInt8
    kind_A: UInt8
    contig_A: Int64
    start_A: Int64
    end_A: Int64
    reference_A: UInt8
    alternate_A: UInt8
    removed: Texts
    inserted: Texts

    def __len__(self) -> int:
        return len(self.record_A)

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
    names = ContigNames(genome.lengths)
    number = {name: index for index, name in enumerate(genome.lengths)}
    contig_of = {name: number.get(names.find(name) or "", -1) for name in set(contigs)}
    references = [text.upper() for text in references]
    rows: list[tuple[Any, ...]] = []
    records = zip(contigs, positions, references, alternates, strict=True)
    for record, (contig, position, reference, several) in enumerate(records):
        for alternate in several.upper().split(","):
            reason, kind, begin, end, inserted = _change(reference, alternate, longest)
            stretch = position - 1 + begin, position - 1 + end, reference[begin:end], inserted
            rows.append((record, reason, kind, contig_of[contig], *stretch))
    columns = list(zip(*rows, strict=True)) or [()] * 8
    record_A, reason_A, kind_A, contig_A, start_A, end_A = (np.array(column, dtype=np.int64) for column in columns[:6])
    removed, inserted_texts = (np.array(column, dtype=object) for column in columns[6:])
    codes = np.full((2, len(rows)), alphabet.UNKNOWN, dtype=np.uint8)
    for code_A, texts in zip(codes, (removed, inserted_texts), strict=True):
        known_A = (kind_A == Kind.SNV) & np.isin(texts, list(alphabet.BASES))
        code_A[known_A] = alphabet.encode("".join(texts[known_A]))
        texts[kind_A <= Kind.SNV] = ""
    small = reason_A.astype(np.uint8), kind_A.astype(np.uint8)
    alleles = Alleles(record_A, *small, contig_A, start_A, end_A, codes[0], codes[1], removed, inserted_texts)
    _compare(genome, alleles, np.array(positions, dtype=np.int64) - 1, references)
    return alleles


def _is_dna(text: str) -> bool:
    return bool(text) and not text.strip(alphabet.BASES)


def _change(reference: str, alternate: str, longest: int) -> tuple[Reason, Kind, int, int, str]:
    """Return a reason, a kind, the bases of REF that change (half-open), and what replaces them."""
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
        (Reason.AMBIGUOUS_ALTERNATE, not _is_dna(alternate)),
        (Reason.NOT_A_CHANGE, alternate == reference),
        (Reason.TOO_LONG, max(end - begin, len(inserted)) > longest),
    )
    if reason := next((one for one, is_so in faults if is_so), Reason.SCORED):
        return reason, Kind.NONE, 0, 0, ""
    kind = Kind.INDEL if end - begin != len(inserted) else Kind.SNV if len(inserted) == 1 else Kind.MNV
    return Reason.SCORED, kind, begin, end, inserted


def _compare(genome: ProbabilisticGenome, alleles: Alleles, start_N: Int64, references: Sequence[str]) -> None:
    """Set the reasons that have to do with REF and the genome."""
    record_A, reason_A = alleles.record_A, alleles.reason_A
    length_C = np.array([*genome.lengths.values(), 0], dtype=np.int64)
    contig_N = alleles.contig_A[np.unique(record_A, return_index=True)[1]]
    end_N = start_N + np.array([len(text) for text in references], dtype=np.int64)
    fault_N = np.where([_is_dna(text) for text in references], Reason.SCORED, Reason.AMBIGUOUS_REFERENCE)
    fault_N[(start_N < 0) | (end_N > length_C[contig_N])] = Reason.OUTSIDE_CONTIG
    fault_N[contig_N < 0] = Reason.CONTIG_NOT_IN_GENOME
    own = np.flatnonzero(fault_N == Reason.SCORED)
    code_B = alphabet.encode("".join([references[row] for row in own.tolist()]))
    first_R = np.cumsum(end_N[own] - start_N[own]) - (end_N[own] - start_N[own])
    for rows, found_RL in _read(genome, contig_N[own], start_N[own], end_N[own]):
        own_RL = code_B[first_R[rows, None] + np.arange(found_RL.shape[1])]
        matches_R = (alphabet.DISTRIBUTIONS[found_RL, own_RL] > 0).all(axis=1)
        fault_N[own[rows[~matches_R]]] = Reason.REFERENCE_MISMATCH
    # What an alternate is counts before what is wrong with its record.
    faulty_A = (fault_N[record_A] != Reason.SCORED) & ~np.isin(reason_A, _OF_ALTERNATE)
    reason_A[faulty_A] = fault_N[record_A[faulty_A]]
    # Of an insertion, the bases on either side count.
    scored = np.flatnonzero(reason_A == Reason.SCORED)
    contig_R, start_R, end_R = alleles.contig_A[scored], alleles.start_A[scored], alleles.end_A[scored]
    more_R = (start_R == end_R).astype(np.int64)
    stretch = np.maximum(start_R - more_R, 0), np.minimum(end_R + more_R, length_C[contig_R])
    for rows, found_RL in _read(genome, contig_R, *stretch):
        reason_A[scored[rows[(found_RL == alphabet.UNKNOWN).any(axis=1)]]] = Reason.UNKNOWN_REFERENCE


def _read(genome: ProbabilisticGenome, contig_R: Int64, start_R: Int64, end_R: Int64) -> Iterator[tuple[Int64, UInt8]]:
    """Yield the rows of stretches of each length with the genome's base codes."""
    for length in np.unique(end_R - start_R).tolist():
        rows = np.flatnonzero(end_R - start_R == length)
        yield rows, genome.windows(contig_R[rows], start_R[rows], length).base_BL
