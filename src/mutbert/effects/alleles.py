"""What each alternate allele of a variant changes, or why it cannot be scored.

Shape suffixes: N records, A alternate alleles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.genome.alleles import WordedReason
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Int64, UInt8
    from mutbert.genome.store import ProbabilisticGenome


LONGEST: Final = 50
"""Bases of REF or ALT, common ones at both ends left out, that are scored unless another number is asked for."""


class Kind(IntEnum):
    """What an alternate allele is; common bases at both ends of REF and ALT are left out before."""

    NONE = 0
    SNV = 1
    MNV = 2
    INDEL = 3


class Reason(WordedReason):
    """Why an allele has no score; `SCORED` where it has."""

    SCORED = 0, "."
    NO_ALTERNATE = 1, "no_alternate"
    SYMBOLIC = 2, "symbolic"
    OVERLAPPING_DELETION = 3, "overlapping_deletion"
    CONTIG_NOT_IN_GENOME = 4, "contig_not_in_genome"
    OUTSIDE_CONTIG = 5, "outside_contig"
    AMBIGUOUS_REFERENCE = 6, "ambiguous_reference"
    AMBIGUOUS_ALTERNATE = 7, "ambiguous_alternate"
    UNKNOWN_REFERENCE = 8, "unknown_reference"
    REFERENCE_MISMATCH = 9, "reference_mismatch"
    NOT_A_CHANGE = 10, "not_a_change"
    TOO_LONG = 11, "too_long"
    NOT_A_NUMBER = 12, "not_a_number"
    NO_SCORE_OF_ITS_KIND = 13, "no_score_of_its_kind"


REASONS: Final[dict[Reason, str]] = {
    Reason.NO_ALTERNATE: "the record has no alternate allele",
    Reason.SYMBOLIC: "the allele is symbolic, a breakend or missing",
    Reason.OVERLAPPING_DELETION: "the allele is *, which a deletion upstream takes away",
    Reason.CONTIG_NOT_IN_GENOME: "the genome has no such contig",
    Reason.OUTSIDE_CONTIG: "the record reaches outside the contig",
    Reason.AMBIGUOUS_REFERENCE: "REF has letters other than A, C, G, T",
    Reason.AMBIGUOUS_ALTERNATE: "ALT has letters other than A, C, G, T",
    Reason.UNKNOWN_REFERENCE: "the genome has N where the allele changes it, or beside an insertion",
    Reason.REFERENCE_MISMATCH: "REF is not what the genome has there",
    Reason.NOT_A_CHANGE: "ALT is REF",
    Reason.TOO_LONG: "more bases change than --longest allows",
    Reason.NOT_A_NUMBER: "the model gives no number",
    Reason.NO_SCORE_OF_ITS_KIND: "none of the scores asked for is meant for an allele of its kind",
}
"""What each reason means."""


@dataclass(frozen=True)
class Alleles:
    """Alternate alleles of consecutive records, in their order; a record without one has a row of its own.

    Parameters
    ----------
    record_A : ndarray of int64, shape (A,)
        The record of each, counted from 0; ascending.
    reason_A : ndarray of uint8, shape (A,)
        `Reason`. What follows is only meant for those that are scored.
    kind_A : ndarray of uint8, shape (A,)
        `Kind`.
    contig_A : ndarray of int64, shape (A,)
        Number of the contig, in the genome's order; −1 where it has none such.
    start_A, end_A : ndarray of int64, shape (A,)
        The reference bases that change, 0-based and half-open; empty for a pure insertion.
    reference_A, alternate_A : ndarray of uint8, shape (A,)
        Of an SNV, the base codes before and after; otherwise N.
    removed, inserted : list of str
        Of an MNV or indel, REF's bases at ``start .. end`` and what stands in their place, in upper case; otherwise
        empty.
    """

    record_A: Int64
    reason_A: UInt8
    kind_A: UInt8
    contig_A: Int64
    start_A: Int64
    end_A: Int64
    reference_A: UInt8
    alternate_A: UInt8
    removed: list[str]
    inserted: list[str]

    def __len__(self) -> int:
        """Count the alleles."""
        return len(self.record_A)

    def take(self, rows: Int64) -> Alleles:
        """Give some of the alleles."""
        return Alleles(
            self.record_A[rows],
            self.reason_A[rows],
            self.kind_A[rows],
            self.contig_A[rows],
            self.start_A[rows],
            self.end_A[rows],
            self.reference_A[rows],
            self.alternate_A[rows],
            [self.removed[row] for row in rows.tolist()],
            [self.inserted[row] for row in rows.tolist()],
        )


def find_alleles(
    genome: ProbabilisticGenome,
    contigs: Sequence[str],
    positions: Sequence[int],
    references: Sequence[str],
    alternates: Sequence[str],
    *,
    longest: int = LONGEST,
) -> Alleles:
    """Tell what each alternate allele of some records changes.

    Parameters
    ----------
    genome : ProbabilisticGenome
        Its sequence is what REF is compared with. Where it has an IUPAC code, each of its bases is a match.
    contigs : sequence of str, length N
        CHROM of each record, under either naming.
    positions : sequence of int, length N
        POS of each record as the file has it: 1-based.
    references, alternates : sequence of str, length N
        REF and ALT of each record, in either case; several alternates are separated by commas, none is ``.``.
    longest : int
        More changed bases than this are not scored.

    Returns
    -------
    Alleles
        In the order of the records and of their alternates.
    """
    names = ContigNames(genome.lengths)
    number = {name: index for index, name in enumerate(genome.lengths)}
    lengths = list(genome.lengths.values())
    contig_of = {name: number.get(names.find(name) or "", -1) for name in set(contigs)}
    rows: list[tuple[int, int, int, int, int, int, int, int]] = []
    removed: list[str] = []
    inserted: list[str] = []
    compared: list[tuple[int, int, int, str]] = []
    for record, (name, position, reference, several) in enumerate(
        zip(contigs, positions, references, alternates, strict=True)
    ):
        contig = contig_of[name]
        reference = reference.upper()
        start, end = position - 1, position - 1 + len(reference)
        fault = (
            Reason.CONTIG_NOT_IN_GENOME
            if contig < 0
            else Reason.OUTSIDE_CONTIG
            if start < 0 or end > lengths[contig]
            else Reason.AMBIGUOUS_REFERENCE
            if not _is_dna(reference)
            else Reason.SCORED
        )
        if not fault:
            compared.append((len(rows), contig, start, reference))
        for alternate in several.split(","):
            change = _change(reference, alternate.upper(), longest)
            reason = change.reason if fault and change.reason in _OF_ALTERNATE else fault or change.reason
            rows.append((record, reason, change.kind, contig, start + change.begin, start + change.end, *change.codes))
            removed.append(change.removed)
            inserted.append(change.inserted)
    columns = np.array(rows, dtype=np.int64).reshape(-1, 8).T
    alleles = Alleles(
        columns[0],
        columns[1].astype(np.uint8),
        columns[2].astype(np.uint8),
        columns[3],
        columns[4],
        columns[5],
        columns[6].astype(np.uint8),
        columns[7].astype(np.uint8),
        removed,
        inserted,
    )
    _compare(genome, alleles, compared)
    return alleles


# What an alternate is, is said before what is wrong with its record.
_OF_ALTERNATE: Final = (Reason.NO_ALTERNATE, Reason.SYMBOLIC, Reason.OVERLAPPING_DELETION)


class _Change(NamedTuple):
    """What an allele changes: bases of REF, half-open, and what comes in their place."""

    reason: Reason
    kind: Kind = Kind.NONE
    begin: int = 0
    end: int = 0
    codes: tuple[int, int] = (alphabet.UNKNOWN, alphabet.UNKNOWN)
    removed: str = ""
    inserted: str = ""


def _is_dna(text: str) -> bool:
    return not text.strip(alphabet.BASES) and bool(text)


def _change(reference: str, alternate: str, longest: int) -> _Change:
    """Take an allele apart; both are in upper case."""
    if alternate in {".", ""}:
        return _Change(Reason.NO_ALTERNATE)
    if alternate == "*":
        return _Change(Reason.OVERLAPPING_DELETION)
    if not (alternate.isascii() and alternate.isalpha()):
        return _Change(Reason.SYMBOLIC)
    if not _is_dna(alternate):
        return _Change(Reason.AMBIGUOUS_ALTERNATE)
    if alternate == reference:
        return _Change(Reason.NOT_A_CHANGE)
    # From behind first, as programs that normalise records do: so an allele of several is what it is in a record of its
    # own.
    shorter = min(len(reference), len(alternate))
    behind = 0
    while behind < shorter and reference[-1 - behind] == alternate[-1 - behind]:
        behind += 1
    before = 0
    while before < shorter - behind and reference[before] == alternate[before]:
        before += 1
    end = len(reference) - behind
    inserted = alternate[before : len(alternate) - behind]
    if max(end - before, len(inserted)) > longest:
        return _Change(Reason.TOO_LONG)
    if end - before == len(inserted) == 1:
        codes = (alphabet.BASES.find(reference[before]), alphabet.BASES.index(inserted))
        return _Change(Reason.SCORED, Kind.SNV, before, end, codes)
    kind = Kind.MNV if end - before == len(inserted) else Kind.INDEL
    return _Change(Reason.SCORED, kind, before, end, removed=reference[before:end], inserted=inserted)


def _compare(genome: ProbabilisticGenome, alleles: Alleles, compared: list[tuple[int, int, int, str]]) -> None:
    """Compare REF with the genome, and put down where it differs or the genome has N."""
    if not compared:
        return
    first_R = np.array([row for row, *_ in compared])
    contig_R = np.array([contig for _, contig, _, _ in compared])
    start_R = np.array([start for _, _, start, _ in compared])
    length_R = np.array([len(reference) for *_, reference in compared])
    code_B = alphabet.encode("".join(reference for *_, reference in compared))
    begin_R = np.cumsum(length_R) - length_R
    differs_R = np.zeros(len(compared), dtype=np.bool_)
    for length in np.unique(length_R).tolist():
        rows = np.flatnonzero(length_R == length)
        found_RL = genome.windows(contig_R[rows], start_R[rows], length).base_BL
        own_RL = code_B[begin_R[rows, None] + np.arange(length)]
        differs_R[rows] = ~(alphabet.DISTRIBUTIONS[found_RL, own_RL] > 0).all(axis=1)
    record_R = alleles.record_A[first_R]
    differs_N = np.zeros(int(alleles.record_A[-1]) + 1, dtype=np.bool_)
    differs_N[record_R] = differs_R
    open_A = ~np.isin(alleles.reason_A, [int(reason) for reason in _OF_ALTERNATE])
    alleles.reason_A[open_A & (alleles.reason_A != Reason.CONTIG_NOT_IN_GENOME) & differs_N[alleles.record_A]] = (
        Reason.REFERENCE_MISMATCH
    )
    # Of an insertion, the bases on either side are what it stands between.
    scored = np.flatnonzero(alleles.reason_A == Reason.SCORED)
    contig_length = np.array(list(genome.lengths.values()), dtype=np.int64)
    between = (alleles.start_A == alleles.end_A)[scored].astype(np.int64)
    begin_S = np.maximum(alleles.start_A[scored] - between, 0)
    length_S = np.minimum(alleles.end_A[scored] + between, contig_length[alleles.contig_A[scored]]) - begin_S
    for length in np.unique(length_S).tolist():
        rows = np.flatnonzero(length_S == length)
        found_RL = genome.windows(alleles.contig_A[scored[rows]], begin_S[rows], length).base_BL
        alleles.reason_A[scored[rows[(found_RL == alphabet.UNKNOWN).any(axis=1)]]] = Reason.UNKNOWN_REFERENCE
