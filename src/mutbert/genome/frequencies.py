"""Allele frequencies from VCF files, with a count and a reason for every record that is not used.

Records are read one by one through htslib; everything else is done on columns of a chunk of records, and then on the
columns of a contig. Shape suffixes: N records of a chunk, M alternate alleles of a chunk, A single-nucleotide alleles
of a contig, V positions that are kept, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, compress, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.alleles import Chunk, Reason, classify, read_chunk
from mutbert.genome.merging import SUM_TOLERANCE, Alleles, differs_from_last, merge_alleles
from mutbert.genome.vcf import FrequencyFields, list_contigs, read_records
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    Bool = npt.NDArray[np.bool_]
    UInt8 = npt.NDArray[np.uint8]
    UInt16 = npt.NDArray[np.uint16]
    UInt32 = npt.NDArray[np.uint32]
    Int64 = npt.NDArray[np.int64]
    Float32 = npt.NDArray[np.float32]
    Float64 = npt.NDArray[np.float64]

MOST_MISMATCHES: Final = 0.01
"""Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly."""


@dataclass(frozen=True)
class RecordCounts:
    """What became of a file's records.

    Parameters
    ----------
    file : str
        The file's name, without its folder.
    frequency_from : str
        The INFO field the frequencies were read from; ``AC/AN`` for a quotient.
    read : int
        Records in the file: `used` and all of `not_used` together.
    used : int
        Records with at least one allele in the store.
    not_used : dict of str to int
        The others, by reason.
    """

    file: str
    frequency_from: str
    read: int
    used: int
    not_used: Mapping[str, int]


class ContigVariants(NamedTuple):
    """The variants of a contig.

    Parameters
    ----------
    contig : str
        The FASTA's name.
    position_V : ndarray of uint32, shape (V,)
        0-based, strictly ascending.
    frequency_V4 : ndarray of uint16, shape (V, 4)
        Distribution over A, C, G, T in units of 1/65535; rows sum to 65535.
    """

    contig: str
    position_V: UInt32
    frequency_V4: UInt16


class Reference(Protocol):
    """The sequences that records are compared with."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases."""

    def codes_at(self, name: str, position_V: Int64, /) -> UInt8:
        """Read the base codes of a contig at some 0-based positions."""


class Population:
    """Reads VCF files into the variants of each contig, and counts what becomes of every record.

    A contig's records follow each other in a file, as in every file that can be indexed, but the contigs may come
    in any order, and several files may have records of one contig. Memory is the alleles of one contig, or of those
    that a later file has more of.

    Parameters
    ----------
    files : sequence of (Path, FrequencyFields)
        The VCF files, and where each has its frequencies.
    reference : Reference
        The sequences; either naming of contigs matches.
    min_frequency : float
        A position is kept where its alternate alleles' frequencies sum to more than this.
    not_selected : collection of str
        Contigs of the FASTA that are not wanted.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, FrequencyFields]],
        reference: Reference,
        *,
        min_frequency: float,
        not_selected: Collection[str] = (),
    ) -> None:
        self._files = [_File(path, fields) for path, fields in files]
        self._reference = reference
        self._min_frequency = min_frequency
        self._not_selected = dict.fromkeys(not_selected)
        self._lengths = dict(reference.lengths)
        self._pending: dict[str, list[_Run]] = {}
        self._complete: set[str] = set()
        self.contig_names: dict[str, str] = {}
        """The VCF's name of each contig that was found, by the FASTA's."""
        self.unmatched: dict[str, None] = {}
        """Contigs with records that the FASTA does not have."""

    @property
    def counts(self) -> list[RecordCounts]:
        """What became of each file's records; complete once `contigs` has ended."""
        return [file.counts() for file in self._files]

    def contigs(self, advance: Callable[[float], None] | None = None) -> Iterator[ContigVariants]:
        """Read the files and give the variants of each contig as soon as no more of it can come.

        Parameters
        ----------
        advance : callable, optional
            Told of the compressed bytes read since its last call.

        Yields
        ------
        ContigVariants
            In the order of the files.

        Raises
        ------
        InputError
            When a file cannot be read or is not sorted by contig; when a frequency is missing, no number, or
            not possible; when the files' REF bases or contig names show that they are of another assembly.
        """
        files_to_come = self._count_files_of_contigs()
        for file in self._files:
            with closing(self._runs(file, advance)) as runs_of_file:
                for run in runs_of_file:
                    self._pending.setdefault(run.contig, []).append(run)
                    files_to_come[run.contig] = files_to_come.get(run.contig, 1) - 1
                    if not files_to_come[run.contig]:
                        self._complete.add(run.contig)
                        yield _finish(self._pending.pop(run.contig), self._min_frequency)
            file.check_assembly()
        for runs in self._pending.values():
            yield _finish(runs, self._min_frequency)
        if self.unmatched and not self.contig_names:
            paths = names_text(str(file.path) for file in self._files)
            raise InputError(
                f"{paths}: no contig is in the FASTA: the VCF has {names_text(self.unmatched)}, "
                f"the FASTA {names_text(chain(self._lengths, self._not_selected))}; give files of one assembly, "
                "or rename contigs with 'bcftools annotate --rename-chrs'"
            )

    def _count_files_of_contigs(self) -> dict[str, int]:
        if len(self._files) == 1:
            return {}
        names = [match_contig(name, self._lengths) for file in self._files for name in list_contigs(file.path)]
        return dict(Counter(name for name in names if name is not None))

    def _runs(self, file: _File, advance: Callable[[float], None] | None) -> Generator[_Run, None, None]:
        """Give the alleles of each contig of a file."""
        with closing(read_records(file.path, advance)) as every:
            for name, records in groupby(every, key=attrgetter("contig")):
                contig = match_contig(name, self._lengths)
                if contig is None:
                    reason = self._why_not(name)
                    if reason is Reason.CONTIG_NOT_IN_FASTA:
                        self.unmatched[name] = None
                    file.tally[reason] += sum(1 for _ in records)
                    continue
                if contig in self._complete:
                    raise InputError(
                        f"{file.path}: records of contig {name} come again after others; sort the file with "
                        "'bcftools sort' and index it anew"
                    )
                self.contig_names[contig] = name
                run = _Run(file, contig, name)
                while len(chunk := read_chunk(records, file.fields)):
                    run.add(chunk, self._lengths[contig], self._reference)
                yield run

    def _why_not(self, name: str) -> Reason:
        selected = match_contig(name, self._not_selected) is None
        return Reason.CONTIG_NOT_IN_FASTA if selected else Reason.CONTIG_NOT_SELECTED


class _File:
    """A file's tallies."""

    def __init__(self, path: Path, fields: FrequencyFields) -> None:
        self.path = path
        self.fields = fields
        self.tally = np.zeros(len(Reason), dtype=np.int64)
        self.compared = 0
        self.mismatched = 0
        self.first_mismatch = ""

    def counts(self) -> RecordCounts:
        not_used = {reason.text: int(self.tally[reason]) for reason in Reason if reason is not Reason.USED}
        return RecordCounts(
            self.path.name,
            str(self.fields),
            int(self.tally.sum()),
            int(self.tally[Reason.USED]),
            {text: count for text, count in not_used.items() if count},
        )

    def check_assembly(self) -> None:
        outside = self.tally[Reason.OUTSIDE]
        if outside and not self.compared:
            raise InputError(
                f"{self.path}: all {outside:,} records that could be used lie outside the FASTA's contigs; it was "
                "called on another assembly or another part of it: give the FASTA of that one"
            )
        # One record may be wrong by itself, so one alone is never taken for another assembly.
        if self.mismatched > max(1, MOST_MISMATCHES * self.compared):
            raise InputError(
                f"{self.path}: REF differs from the FASTA in {self.mismatched:,} of {self.compared:,} records "
                f"({self.mismatched / self.compared:.1%}), first at {self.first_mismatch}; it was called on another "
                "assembly: give the FASTA of that one"
            )


class _Run:
    """The alleles of one contig in one file."""

    def __init__(self, file: _File, contig: str, name: str) -> None:
        self.file = file
        self.contig = contig
        self.name = name
        self._parts: list[Alleles] = []
        self._records = 0

    def take(self) -> Alleles:
        """Join what was added, and let go of it."""
        parts, self._parts = self._parts, []
        return Alleles(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def add(self, chunk: Chunk, length: int, reference: Reference) -> None:
        """Add a chunk's single-nucleotide alleles that agree with the FASTA; tally the records without any."""
        count_N = np.fromiter(map(len, chunk.alleles), np.int64, len(chunk)) - 1
        passing_N = np.array([not names or names == ["PASS"] for names in chunk.filters], dtype=bool)
        record_M = np.repeat(np.arange(len(chunk)), count_N)
        stage_M, offset_M, reference_M, alternate_M = classify(chunk, count_N, record_M, passing_N)

        candidate_M = (stage_M == Reason.USED) & passing_N[record_M]
        frequency_M = self._frequencies(chunk, count_N, record_M, candidate_M)
        position_M = np.array(chunk.position, dtype=np.int64)[record_M] - 1 + offset_M

        _exclude(stage_M, candidate_M, (position_M < 0) | (position_M >= length), Reason.OUTSIDE)
        base_M = np.full(len(record_M), alphabet.UNKNOWN, dtype=np.uint8)
        base_M[candidate_M] = reference.codes_at(self.contig, position_M[candidate_M])
        _exclude(stage_M, candidate_M, base_M == alphabet.UNKNOWN, Reason.UNKNOWN_REFERENCE)
        compared_M = candidate_M.copy()
        agrees_M = alphabet.DISTRIBUTIONS[base_M, np.minimum(reference_M, 3)] > 0
        _exclude(stage_M, candidate_M, ~agrees_M, Reason.MISMATCH)

        mismatch = np.flatnonzero(compared_M & ~candidate_M)
        self.file.compared += len(np.unique(record_M[compared_M]))
        self.file.mismatched += len(np.unique(record_M[mismatch]))
        if len(mismatch) and not self.file.first_mismatch:
            first = mismatch[0]
            self.file.first_mismatch = (
                f"{self.name}:{position_M[first] + 1} where REF is {alphabet.BASES[reference_M[first]]} "
                f"and the FASTA has {alphabet.IUPAC[base_M[first]]}"
            )

        stage_N = np.full(len(chunk), Reason.NO_ALTERNATE, dtype=np.uint8)
        np.maximum.at(stage_N, record_M, stage_M)
        stage_N[~passing_N] = Reason.FILTERED
        # What still stands is tallied when the whole contig is known.
        self.file.tally += np.bincount(stage_N[stage_N != Reason.USED], minlength=len(Reason))
        self._parts.append(
            Alleles(
                position_M[candidate_M].astype(np.uint32),
                reference_M[candidate_M],
                alternate_M[candidate_M],
                frequency_M[candidate_M],
                (record_M[candidate_M] + self._records).astype(np.uint32),
            )
        )
        self._records += len(chunk)

    def _frequencies(self, chunk: Chunk, count_N: Int64, record_M: Int64, candidate_M: Bool) -> Float32:
        """Give the frequency of each alternate allele; what is not a candidate's is not looked at."""
        wanted_N = np.zeros(len(chunk), dtype=bool)
        wanted_N[record_M[candidate_M]] = True
        values = [value if type(value) is tuple else (value,) for value in compress(chunk.values, wanted_N)]
        given = np.fromiter(map(len, values), np.int64, len(values))
        wrong = np.flatnonzero(given != count_N[wanted_N])
        if len(wrong):
            self._refuse(chunk, np.flatnonzero(wanted_N)[wrong[0]], "is not one value for each alternate allele")
        frequency_M = np.zeros(len(record_M))
        wanted_M = wanted_N[record_M]
        frequency_M[wanted_M] = np.array(list(chain.from_iterable(values)), dtype=np.float64)
        if chunk.numbers:
            # No number, and a number of 0, are both a frequency that is not there.
            number_N = np.array(chunk.numbers, dtype=np.float64)
            number_N[number_N <= 0] = np.nan
            frequency_M /= number_N[record_M]
        self._check(chunk, record_M, candidate_M, frequency_M)
        return frequency_M.astype(np.float32)

    def _check(self, chunk: Chunk, record_M: Int64, candidate_M: Bool, frequency_M: Float64) -> None:
        record = record_M[candidate_M]
        frequency = frequency_M[candidate_M]
        sum_N = np.bincount(record_M, weights=np.nan_to_num(frequency_M), minlength=len(chunk))
        for wrong, fault in (
            (np.isnan(frequency), "is missing or not a number"),
            ((frequency < 0) | (frequency > 1), "is not between 0 and 1"),
            (sum_N[record] > 1 + SUM_TOLERANCE, "sums to more than 1"),
        ):
            if np.any(wrong):
                self._refuse(chunk, record[np.argmax(wrong)], fault)

    def _refuse(self, chunk: Chunk, row: int, fault: str) -> None:
        names = self.file.fields.names
        columns = (chunk.values, chunk.numbers)
        text = ", ".join(f"{name}={_text(column[row])}" for name, column in zip(names, columns, strict=False))
        raise InputError(
            f"{self.file.path}: {self.name}:{chunk.position[row]}: {text} {fault}; mend or remove the record, "
            "or choose another field with --frequency-field"
        )


def _text(value: object) -> str:
    """Write the value of an INFO field as the file has it."""
    if value is None or value == ():
        return "."
    if isinstance(value, tuple):
        return ",".join(_text(one) for one in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _exclude(stage_M: UInt8, candidate_M: Bool, fault_M: Bool, reason: Reason) -> None:
    """Take the candidates with a fault out, in place."""
    out_M = candidate_M & fault_M
    stage_M[out_M] = reason
    candidate_M &= ~fault_M


def _finish(runs: Sequence[_Run], min_frequency: float) -> ContigVariants:
    """Merge a contig's alleles, and count each record once, as far as its furthest allele came."""
    parts = [run.take() for run in runs]
    where = f"{names_text(str(run.file.path) for run in runs)}: {runs[0].name}"
    position_V, frequency_V4, stage_A = merge_alleles(parts, min_frequency, where)
    begin = 0
    for run, part in zip(runs, parts, strict=True):
        stage = stage_A[begin : begin + len(part.record_A)]
        begin += len(part.record_A)
        if len(stage):
            stage_N = np.maximum.reduceat(stage, np.flatnonzero(differs_from_last(part.record_A)))
            run.file.tally += np.bincount(stage_N, minlength=len(Reason))
    return ContigVariants(runs[0].contig, position_V, frequency_V4)
