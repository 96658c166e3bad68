"""What each alternate allele of a variant changes, or why it cannot be scored; and the windows in which it is scored.

Shape suffixes: A alternate alleles, P distinct positions, W distinct windows, H haplotypes (each allele's reference,
then each allele's own), L length in bases, B bases, T those that are read, R readings of them, M positions with a
distribution, 4 bases in the order A, C, G, T.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np

from mutbert import alphabet
from mutbert.arrays import Float64, Int64, list_ranges
from mutbert.encoders.inputs import MASKED, PaddedWindows, place_windows, read_windows
from mutbert.genome.store import ProbabilisticGenome, fixed_to_float
from mutbert.inference.run import NO_ROWS, Queries, Results, base_log_probabilities
from mutbert.regions import ContigNames


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
    UNKNOWN_REFERENCE = 7, "the genome has N where the allele changes it, or next to an insertion"
    REFERENCE_MISMATCH = 8, "REF is not what the genome has there"
    AMBIGUOUS_ALTERNATE = 9, "ALT has letters other than A, C, G, T"
    NOT_A_CHANGE = 10, "ALT is REF"
    TOO_LONG = 11, "more bases change than --longest allows"
    NOT_A_NUMBER = 12, "the model gives no number"
    NO_SCORE_OF_ITS_KIND = 13, "none of the requested scores applies to an allele of its kind"


COMPARED: Final = [reason for reason in Reason if not 0 < reason < Reason.REFERENCE_MISMATCH]
"""Of alleles whose REF was compared with the genome's bases."""
MASKED_SHARE: Final = 0.15
"""Of the bases of a shared window at most, at once, as in training."""
_CODES: Final = {base: code for code, base in enumerate(alphabet.BASES)}
ALLELE: Final = np.dtype([
    ("reason_A", "u1"), ("kind_A", "u1"), ("contig_A", "i8"), ("start_A", "i8"), ("end_A", "i8"), ("reference_A", "u1"),
    ("alternate_A", "u1"), ("removed", "O"), ("inserted", "O"), ("first_A", "i8"), ("ref", "O"),
])  # fmt: skip
"""An alternate allele, or that there is none: what changes, 0-based and half-open; where its record begins, and REF."""
Alleles: TypeAlias = Any  # a record array of these


def find_alleles(
    genome: ProbabilisticGenome, contigs: Sequence[str], positions: Sequence[int], references: Sequence[str],
    alternates: Sequence[str], *, longest: int = 50,
) -> Alleles:  # fmt: skip
    """Return what each alternate allele of records changes; POS is 1-based, and alternates are separated by commas."""
    names, numbers = ContigNames(genome.lengths), {name: number for number, name in enumerate(genome.lengths)}
    contig_of = {name: numbers.get(names.find(name) or "", -1) for name in set(contigs)}
    rows: list[tuple[Any, ...]] = []
    for contig, position, reference, several in zip(contigs, positions, references, alternates, strict=True):
        reference, first = reference.upper(), position - 1
        for alternate in several.upper().split(","):
            reason, kind, begin, *texts = _change(reference, alternate, longest)
            where = contig_of[contig], first + begin, first + begin + len(texts[0])
            codes = (_CODES.get(text, alphabet.UNKNOWN) for text in texts)
            rows.append((reason, kind, *where, *codes, *texts, first, reference))
    alleles: Alleles = np.array(rows, dtype=ALLELE).view(np.recarray)
    reason_A, contig_A, first_A = alleles.reason_A, alleles.contig_A, alleles.first_A
    length_A = np.append(genome.slots[:, 1], 0)[contig_A]
    last_A = first_A + np.array([len(text) for text in alleles.ref], dtype=np.int64)
    is_other_A = np.array([not text or text.strip(alphabet.BASES) != "" for text in alleles.ref], dtype=np.bool_)
    faults = [contig_A < 0, (first_A < 0) | (last_A > length_A), is_other_A]
    fault_A = np.select(faults, [Reason.CONTIG_NOT_IN_GENOME, Reason.OUTSIDE_CONTIG, Reason.AMBIGUOUS_REFERENCE])
    # REF with a base more on either side, which count for an insertion.
    own = np.flatnonzero(fault_A == Reason.SCORED)
    row_B, at_B = list_ranges(np.maximum(first_A[own] - 1, 0), np.minimum(last_A[own] + 1, length_A[own]))
    row_B = own[row_B]
    code_B = genome.bases_at(contig_A[row_B], at_B)
    inside_B = (at_B >= first_A[row_B]) & (at_B < last_A[row_B])
    differs_B = alphabet.DISTRIBUTIONS[code_B[inside_B], alphabet.encode("".join(alleles.ref[own]))] == 0
    fault_A[row_B[inside_B][differs_B]] = Reason.REFERENCE_MISMATCH
    # What an alternate is counts before what is wrong with its record.
    faulty_A = (fault_A != Reason.SCORED) & ((reason_A == Reason.SCORED) | (reason_A > fault_A))
    reason_A[faulty_A] = fault_A[faulty_A]
    more_A = alleles.start_A == alleles.end_A
    near_B = (at_B >= (alleles.start_A - more_A)[row_B]) & (at_B < (alleles.end_A + more_A)[row_B])
    unknown = row_B[near_B & (code_B == alphabet.UNKNOWN)]
    reason_A[unknown[reason_A[unknown] == Reason.SCORED]] = Reason.UNKNOWN_REFERENCE
    return alleles


def _change(reference: str, alternate: str, longest: int) -> tuple[Reason, Kind, int, str, str]:
    """Return a reason, a kind, where in REF bases change, which, and what replaces them."""
    # From the right first, as `bcftools norm` does, so that an allele of several is what it is in a record of its own.
    begin, end, length = 0, len(reference), len(alternate)
    while min(end, length) and reference[end - 1] == alternate[length - 1]:
        end, length = end - 1, length - 1
    while begin < min(end, length) and reference[begin] == alternate[begin]:
        begin += 1
    removed, inserted = reference[begin:end], alternate[begin:length]
    faults = (
        (Reason.NO_ALTERNATE, alternate in {".", ""}),
        (Reason.OVERLAPPING_DELETION, alternate == "*"),
        (Reason.SYMBOLIC, not (alternate.isascii() and alternate.isalpha())),
        (Reason.AMBIGUOUS_ALTERNATE, alternate.strip(alphabet.BASES) != ""),
        (Reason.NOT_A_CHANGE, alternate == reference),
        (Reason.TOO_LONG, max(len(removed), len(inserted)) > longest),
    )
    if reason := next((one for one, is_so in faults if is_so), Reason.SCORED):
        return reason, Kind.NONE, 0, "", ""
    kind = Kind.INDEL if len(removed) != len(inserted) else Kind.SNV if len(inserted) == 1 else Kind.MNV
    return Reason.SCORED, kind, begin, removed, inserted


def snv_windows(
    genome: ProbabilisticGenome, alleles: Alleles, context: int, placement: str, *, masked: bool
) -> tuple[PaddedWindows, Queries, Int64]:
    """Return windows to run for SNVs, queries of their P distinct positions, and the position of each allele."""
    (contig_P, position_P), position_A = unique_columns(np.stack([alleles.contig_A, alleles.start_A]))
    start_P, bases_P = place_windows(position_P, genome.slots[contig_P, 1], context, placement)
    windows, window_P = unique_columns(np.stack([contig_P, start_P, bases_P]))
    plain, column_P = read_windows(genome, *windows), position_P - start_P
    if not masked:
        return plain, Queries(window_P, column_P), position_A
    count_W = np.bincount(window_P, minlength=len(plain))
    at_once_W = np.maximum((plain.length_N * MASKED_SHARE).astype(np.int64), 1) if placement == "shared" else 1
    passes_W = -(-count_W // at_once_W)
    # Positions are sorted, but at a contig's end those of a window need not be consecutive.
    rank_P = np.empty_like(window_P)
    rank_P[np.argsort(window_P, kind="stable")] = list_ranges(np.zeros_like(count_W), count_W)[1]
    pass_P = (np.cumsum(passes_W) - passes_W)[window_P] + rank_P % passes_W[window_P]
    repeated = plain.take(np.repeat(np.arange(len(plain)), passes_W))
    return repeated.with_codes(pass_P, column_P, MASKED), Queries(pass_P, column_P), position_A


class Haplotypes(NamedTuple):
    """Windows of both haplotypes of some alleles."""

    windows: PaddedWindows
    row_H: Int64  # The window of a haplotype, and which of its bases, 0-based and half-open, are the allele's.
    begin_H: Int64
    end_H: Int64

    def spans(self, bases: int | None) -> Queries:
        """Return four spans an allele: what changes, `bases` around it (None: the window), then both with ALT."""
        length_H = self.windows.length_N[self.row_H]
        # Of an MNV or indel, the embedding of one base more on either side counts.
        more_H = np.tile(((self.end_H - self.begin_H).reshape(2, -1) != 1).any(axis=0), 2)
        near = np.maximum(self.begin_H - more_H, 0), np.minimum(self.end_H + more_H, length_H)
        size_H = length_H if bases is None else np.maximum(bases, near[1] - near[0])
        first_H = np.clip((near[0] + near[1]) // 2 - size_H // 2, 0, np.maximum(length_H - size_H, 0))
        wide = first_H, np.minimum(first_H + size_H, length_H)
        spans = np.stack([(self.row_H, *near), (self.row_H, *wide)], axis=1).reshape(3, 2, 2, -1)
        return Queries(NO_ROWS, NO_ROWS, *spans.swapaxes(1, 2).reshape(3, -1))

    def pseudo_ratios(self, flank: int, run: Callable[[PaddedWindows, Queries], Results]) -> Float64:
        """Return pseudo-log-likelihood ratios in nats, over distributions the mean, shape (A,).

        The pseudo-log-likelihood of a sequence is the sum, over its bases, of the log-probability of each with that
        base alone masked (Salazar et al. 2020, arXiv 1910.14659; for proteins with indels Brandes et al. 2023,
        doi 10.1038/s41588-023-01465-0). Here it runs over the changed bases and `flank` more on either side, and each
        counts ``ln P + ln 4``, its excess over the chance of one in four: otherwise the longer haplotype would lose.
        """
        windows, alleles = self.windows, len(self.row_H) // 2
        stop_H = np.minimum(self.end_H + flank, windows.length_N[self.row_H])
        haplotype_R, column_R = list_ranges(np.maximum(self.begin_H - flank, 0), stop_H)
        known_R = windows.code_NL[self.row_H[haplotype_R], column_R] != alphabet.UNKNOWN
        haplotype_R, column_R = haplotype_R[known_R], column_R[known_R]
        (row_T, column_T), read_R = unique_columns(np.stack([self.row_H[haplotype_R], column_R]))
        every_T, repeated = np.arange(len(row_T)), windows.take(row_T)
        logit_T4 = run(repeated.with_codes(every_T, column_T, MASKED), Queries(every_T, column_T)).logit_T4
        share_T4 = alphabet.DISTRIBUTIONS[repeated.code_NL[every_T, column_T]].astype(np.float64)
        read_M = repeated.column_M == column_T[repeated.row_M]
        share_T4[repeated.row_M[read_M]] = fixed_to_float(repeated.frequency_M4[read_M])
        excess_T = (share_T4 * base_log_probabilities(logit_T4)).sum(axis=1) + np.log(len(alphabet.BASES))
        sign_R = np.where(haplotype_R < alleles, -1, 1)
        return np.bincount(haplotype_R % alleles, sign_R * excess_T[read_R], alleles).astype(np.float64)


def read_haplotypes(genome: ProbabilisticGenome, alleles: Alleles, context: int, placement: str) -> Haplotypes:
    """Return windows of both haplotypes, the allele in the middle; `context` has room for it and both flanks."""
    contig_H, start_H, end_H = (np.tile(one, 2) for one in (alleles.contig_A, alleles.start_A, alleles.end_A))
    # The bases that change are REF's, whatever the genome or a population has there.
    texts, text_H = np.unique(np.append(alleles.removed, alleles.inserted).astype(np.str_), return_inverse=True)
    size_H = np.char.str_len(texts)[text_H]
    gain_H = size_H - (end_H - start_H)
    length_H = genome.slots[contig_H, 1] + gain_H
    first_H, bases_H = place_windows(start_H + size_H // 2, length_H, context, placement)
    source = read_windows(genome, contig_H, first_H, bases_H - gain_H)
    begin_H = start_H - first_H
    column_L = np.arange(int(bases_H.max(initial=0)))
    from_HL = column_L - np.where(column_L >= (begin_H + size_H)[:, None], gain_H[:, None], 0)
    code_HL = np.take_along_axis(source.code_NL, np.minimum(from_HL, source.code_NL.shape[1] - 1), axis=1)
    row_B, column_B = list_ranges(begin_H, begin_H + size_H)
    code_B = alphabet.encode("".join(texts[text_H]))
    # Distributions within the removed bases go with them; those past it shift.
    row_M, past_M = source.row_M, source.column_M >= (begin_H + size_H - gain_H)[source.row_M]
    kept_M = past_M | (source.column_M < begin_H[row_M])
    column_M = source.column_M + np.where(past_M, gain_H[row_M], 0)
    changed_H = gain_H != 0
    changed_H[np.append(row_B[code_HL[row_B, column_B] != code_B], row_M[~kept_M])] = True
    code_HL[row_B, column_B] = code_B
    windows = PaddedWindows(code_HL, bases_H, row_M[kept_M], column_M[kept_M], source.frequency_M4[kept_M])
    # Haplotypes share a window with the same change in it, or where they are what the genome is.
    changes = np.where(changed_H, [start_H, end_H, text_H], -1)
    _, distinct, row_H = np.unique([contig_H, first_H, *changes], axis=1, return_index=True, return_inverse=True)
    return Haplotypes(windows.take(distinct), row_H.reshape(-1), begin_H, begin_H + size_H)


def unique_columns(columns: Int64) -> tuple[Int64, Int64]:
    """Return the distinct columns in ascending order, and the index of each column among them."""
    distinct, inverse = np.unique(columns, axis=1, return_inverse=True)
    return distinct, inverse.reshape(-1)
