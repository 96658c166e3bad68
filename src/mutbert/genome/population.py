"""The population's variants: VCF files against the reference, contig by contig, every record counted.

Shape suffixes: A alleles of a contig, V positions that are kept, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.alleles import Reason
from mutbert.genome.frequencies import list_contigs
from mutbert.genome.messages import Task
from mutbert.genome.sites import Alleles, differs_from_last, merge_alleles
from mutbert.genome.vcf_text import Place, count_by_index
from mutbert.genome.workers import Workers
from mutbert.regions import ContigNames, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

    from mutbert.arrays import Int64, UInt8, UInt16, UInt32
    from mutbert.genome.frequencies import Calls, Piece
    from mutbert.genome.sources import Source


MOST_MISMATCHES: Final = 0.01
"""Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly."""

# A file of which so many records were compared and so many differ is not read to its end.
_COMPARED_FOR_EARLY: Final = 10_000
_MISMATCHES_FOR_EARLY: Final = 0.1

# What one task of several workers reads, in bases: short enough to keep all of them busy to the end, long enough that
# finding the place costs nothing.
_SHORTEST_REGION: Final = 250_000
_LONGEST_REGION: Final = 8_000_000
_REGIONS_A_WORKER: Final = 8


@dataclass(frozen=True)
class RecordCounts:
    """What became of a file's records.

    Parameters
    ----------
    file : str
        The file's name, without its folder.
    frequency_from : str
        The INFO field the frequencies were read from; ``AC/AN`` for a quotient; ``genotypes``.
    read : int
        Records in the file: `used` and all of `not_used` together.
    used : int
        Records with at least one allele in the store.
    decomposed : int
        Those of `used` with an allele of several nucleotides, which was taken apart into its single ones.
    not_used : dict of str to int
        The others, by reason.
    """

    file: str
    frequency_from: str
    read: int
    used: int
    decomposed: int
    not_used: Mapping[str, int]


@dataclass
class Tally:
    """What became of records, in numbers.

    Parameters
    ----------
    reasons_R : ndarray of int64, one for each `Reason`
        Records by how far they came.
    decomposed : int
        Records that are used, with an allele of several nucleotides.
    compared, mismatched : int
        Records whose REF was compared with the FASTA, and those in which it differs.
    """

    reasons_R: Int64 = field(default_factory=lambda: np.zeros(len(Reason), dtype=np.int64))
    decomposed: int = 0
    compared: int = 0
    mismatched: int = 0

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.reasons_R += other.reasons_R
        self.decomposed += other.decomposed
        self.compared += other.compared
        self.mismatched += other.mismatched

    def to_list(self) -> list[int]:
        """Write it as numbers, for `from_list`."""
        return [*self.reasons_R.tolist(), self.decomposed, self.compared, self.mismatched]

    @classmethod
    def from_list(cls, numbers: Sequence[int]) -> Tally:
        """Make one of what `to_list` wrote."""
        *reasons, decomposed, compared, mismatched = numbers
        return cls(np.array(reasons, dtype=np.int64), decomposed, compared, mismatched)


class ContigVariants(NamedTuple):
    """The variants of a contig.

    Parameters
    ----------
    contig : str
        The genome's name.
    position_V : ndarray of uint32, shape (V,)
        0-based, strictly ascending.
    frequency_V4 : ndarray of uint16, shape (V, 4)
        Distribution over A, C, G, T in units of 1/65535; rows sum to 65535.
    tallies : dict of int to Tally
        What became of the contig's records, by the number of the file.
    vcf_name : str
        The contig's name in the last of the files.
    """

    contig: str
    position_V: UInt32
    frequency_V4: UInt16
    tallies: Mapping[int, Tally]
    vcf_name: str


class Reference(Protocol):
    """The sequences that records are compared with."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases."""

    def codes_at(self, name: str, position_V: Int64, /) -> UInt8:
        """Read the base codes of a contig at some 0-based positions."""


class Population:
    """Reads VCF files into the variants of each contig, and counts what becomes of every record.

    Files with an index are read contig by contig in the reference's order; others are read through before, and give
    their contigs as they come. Memory is the alleles of one contig for each worker, and of those contigs that a later
    file has more of.

    Parameters
    ----------
    files : sequence of (Source, Calls)
        The VCF files, and how each is read.
    reference : Reference
        The sequences; either naming of contigs matches, those of a file with a prefix within the prefix.
    min_frequency : float
        A position is kept where its alternate alleles' frequencies sum to more than this.
    not_selected : collection of str
        Contigs of the FASTA that are not wanted.
    finished : mapping of str to (str, mapping of int to Tally)
        Contigs that are not to be read again, with what `ContigVariants` said of them: name in the VCF, and tallies.
    workers : Workers, optional
        The processes that read; this one alone where left out.
    """

    def __init__(
        self,
        files: Sequence[tuple[Source, Calls]],
        reference: Reference,
        *,
        min_frequency: float,
        not_selected: Collection[str] = (),
        finished: Mapping[str, tuple[str, Mapping[int, Tally]]] | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._finished = dict(finished or {})
        self._reference = reference
        self._min_frequency = min_frequency
        self._workers = workers or Workers(1)
        self._lengths = dict(reference.lengths)
        self._names = ContigNames(self._lengths)
        self._not_selected = ContigNames(not_selected)
        self._files = [_File(number, source, calls) for number, (source, calls) in enumerate(files)]
        self.contig_names: dict[str, str] = {}
        """The VCF's name of each contig that was found, by the genome's."""
        self.unmatched: dict[str, None] = {}
        """Contigs with records that the FASTA does not have."""
        for file in self._files:
            self._match_index(file)
        for contig, (name, tallies) in self._finished.items():
            self.contig_names[contig] = name
            for number, tally in tallies.items():
                self._files[number].tally.add(tally)

    @property
    def counts(self) -> list[RecordCounts]:
        """What became of each file's records; complete once `contigs` has ended."""
        return [file.counts() for file in self._files]

    @property
    def bytes_to_read(self) -> float:
        """Compressed bytes that `contigs` will read, for progress; indexed contigs that are not wanted are left out."""
        return sum(file.path.stat().st_size * file.share_to_read(self._finished) for file in self._files)

    def contigs(self, advance: Callable[[float], None] | None = None) -> Generator[ContigVariants, None, None]:
        """Read the files and give the variants of each contig as soon as no more of it can come.

        Parameters
        ----------
        advance : callable, optional
            Told of the compressed bytes read since its last call.

        Yields
        ------
        ContigVariants
            Those of files without an index in the files' order, then in the reference's, whatever the workers.

        Raises
        ------
        InputError
            When a file cannot be read or is not sorted; when a frequency is not possible; when the files' REF bases
            or contig names show that they are of another assembly.
        """
        plan = list(self._plan())
        to_come = self._runs_to_come()
        pending: dict[str, dict[int, _Run]] = {}

        def end(contig: str) -> Iterator[ContigVariants]:
            to_come[contig] -= 1
            if not to_come[contig]:
                runs = pending.pop(contig)
                found = _finish([runs[number] for number in sorted(runs)], self._min_frequency)
                self.contig_names[contig] = found.vcf_name
                yield found

        with closing(self._workers.read([step.task for step in plan])) as results:
            for (_, file, ends), pieces in zip(plan, results, strict=True):
                for name, group in groupby(pieces, key=attrgetter("contig")):
                    contig = self._take(file, name, group, pending, advance)
                    if ends is None and contig is not None:
                        yield from end(contig)
                for contig in ends or ():
                    file.check_index(contig, pending.get(contig, {}).get(file.number))
                    yield from end(contig)
        for file in self._files:
            file.check_assembly()
        left_out = any(file.tally.reasons_R[Reason.CONTIG_NOT_SELECTED] for file in self._files)
        if self.unmatched and not self.contig_names and not left_out:
            paths = names_text(str(file.path) for file in self._files)
            raise InputError(
                f"{paths}: no contig is in the FASTA: the VCF has {names_text(self.unmatched)}, "
                f"the FASTA {names_text(chain(self._lengths, self._not_selected))}; give files of one assembly, "
                "or rename contigs with 'bcftools annotate --rename-chrs'"
            )

    def _find(self, file: _File, name: str) -> tuple[str | None, Reason]:
        """Find the genome's contig; where there is none, the reason is why."""
        full = file.source.name(name)
        contig = self._names.find(full)
        if contig is not None:
            return contig, Reason.USED
        if self._not_selected.find(full) is not None:
            return None, Reason.CONTIG_NOT_SELECTED
        self.unmatched[name] = None
        return None, Reason.CONTIG_NOT_IN_FASTA

    def _match_index(self, file: _File) -> None:
        """Match the contigs that an index lists, and count the records of those that are not to be read."""
        for name, records in (file.by_index or {}).items():
            contig, reason = self._find(file, name)
            if contig is None:
                file.tally.reasons_R[reason] += records
            else:
                file.add_name(contig, name)
                if contig in self._finished:
                    self._check_finished(file, contig)

    def _check_finished(self, file: _File, contig: str) -> None:
        """Refuse a file that has gained records of a contig that is finished without them."""
        if file.number not in self._finished[contig][1]:
            raise InputError(
                f"{file.path}: has records of contig {contig}, which was finished without them; build anew without "
                "--resume"
            )

    def _runs_to_come(self) -> dict[str, int]:
        """Count the files that have records of each contig."""
        names = [contig for file in self._files if file.by_index for contig in file.names]
        for file in self._files:
            if not file.by_index:
                # A single file says by itself where a contig ends.
                listed = list_contigs(file.calls) if len(self._files) > 1 else ()
                names += [contig for name in listed if (contig := self._find(file, name)[0]) is not None]
        return defaultdict(lambda: 1, Counter(name for name in names if name not in self._finished))

    def _plan(self) -> Iterator[_Step]:
        indexed = [file for file in self._files if file.by_index]
        for file in self._files:
            if not file.by_index:
                unfinished = (name for name in self._lengths if name not in self._finished)
                yield _Step(Task(file.calls, (), tuple(file.source.own_names(unfinished))), file, None)
        to_read = {
            contig: length
            for contig, length in self._lengths.items()
            if contig not in self._finished and any(contig in file.names for file in indexed)
        }
        region = sum(to_read.values()) // (_REGIONS_A_WORKER * self._workers.number)
        region = min(max(region, _SHORTEST_REGION), _LONGEST_REGION)
        for group in _groups(to_read, region):
            contig, *others = group
            starts = range(0, to_read[contig], region) if self._workers.number > 1 and not others else [0]
            for start in starts:
                is_last = start == starts[-1]
                for file in indexed:
                    there = [name for name in group if name in file.names]
                    places = [Place(file.names[name], start, None if is_last else start + region) for name in there]
                    if places:
                        yield _Step(Task(file.calls, tuple(places)), file, there if is_last else [])

    def _take(
        self,
        file: _File,
        name: str,
        pieces: Iterator[Piece],
        pending: dict[str, dict[int, _Run]],
        advance: Callable[[float], None] | None,
    ) -> str | None:
        """Add consecutive records of a contig to what is pending; give its name if it is one that is wanted."""
        contig, reason = self._find(file, name)
        wanted = contig is not None and contig not in self._finished
        run = None
        if wanted:
            assert contig is not None
            file.add_name(contig, name)
            run = pending.setdefault(contig, {}).setdefault(file.number, _Run(file, contig, name))
        elif contig is not None:
            self._check_finished(file, contig)
        for piece in pieces:
            if advance is not None:
                advance(piece.read)
            if run is not None:
                run.add(piece, self._reference, self._lengths[run.contig])
            elif contig is None:
                file.tally.reasons_R[reason] += piece.records
        return contig if wanted else None


class _Step(NamedTuple):
    """A task of a file, and the contigs of which it has the last records; ``None`` where it is the whole file."""

    task: Task
    file: _File
    ends: Sequence[str] | None


def _groups(lengths: Mapping[str, int], region: int) -> Iterator[list[str]]:
    """Put consecutive contigs together, as long as they are no longer than a region in all."""
    group: list[str] = []
    total = 0
    for contig, length in lengths.items():
        if group and total + length > region:
            yield group
            group, total = [], 0
        group.append(contig)
        total += length
    if group:
        yield group


class _File:
    """A file and its tally."""

    def __init__(self, number: int, source: Source, calls: Calls) -> None:
        self.number = number
        self.source = source
        self.calls = calls
        self.path = calls.path
        self.by_index = count_by_index(calls.path)
        self.names: dict[str, str] = {}
        """Its names of the contigs that are in the genome."""
        self.tally = Tally()
        self.first_mismatch = ""

    def add_name(self, contig: str, name: str) -> None:
        known = self.names.setdefault(contig, name)
        if known != name:
            raise InputError(
                f"{self.path}: contigs {known} and {name} are both {contig} of the FASTA; rename or remove one"
            )

    def share_to_read(self, finished: Collection[str]) -> float:
        if not self.by_index:
            return 1.0
        wanted = sum(self.by_index[name] for contig, name in self.names.items() if contig not in finished)
        return wanted / max(sum(self.by_index.values()), 1)

    def counts(self) -> RecordCounts:
        reasons_R = self.tally.reasons_R
        not_used = {reason.text: int(reasons_R[reason]) for reason in Reason if reason is not Reason.USED}
        return RecordCounts(
            self.path.name,
            str(self.calls.fields),
            int(reasons_R.sum()),
            int(reasons_R[Reason.USED]),
            self.tally.decomposed,
            {text: count for text, count in not_used.items() if count},
        )

    def check_index(self, contig: str, run: _Run | None) -> None:
        name = self.names[contig]
        expected, found = (self.by_index or {})[name], 0 if run is None else run.records
        if found != expected:
            raise InputError(
                f"{self.path}: its index counts {expected:,} records of contig {name}, but {found:,} were "
                "found, so it belongs to another state of the file; index the file anew, or remove the index"
            )

    def check_assembly(self) -> None:
        reasons_R, compared = self.tally.reasons_R, self.tally.compared
        if reasons_R[Reason.OUTSIDE] and not compared:
            raise InputError(
                f"{self.path}: all {reasons_R[Reason.OUTSIDE]:,} records that could be used lie outside the FASTA's "
                "contigs; it was called on another assembly or another part of it: give the FASTA of that one"
            )
        if reasons_R[Reason.NO_FREQUENCY] and not compared:
            fields = self.calls.fields
            have, remedy = (
                ("a genotype of the samples", "choose other samples")
                if fields.are_genotypes
                else (f"a frequency ({fields})", "choose another field with --frequency-field")
            )
            raise InputError(
                f"{self.path}: none of the {reasons_R[Reason.NO_FREQUENCY]:,} records that could be used has {have}; "
                f"{remedy}"
            )
        # One record may be wrong by itself, so one alone is never taken for another assembly.
        if self.tally.mismatched > max(1, MOST_MISMATCHES * compared):
            self.refuse_assembly(self.tally)

    def refuse_assembly(self, tally: Tally) -> None:
        raise InputError(
            f"{self.path}: REF differs from the FASTA in {tally.mismatched:,} of {tally.compared:,} records "
            f"({tally.mismatched / tally.compared:.1%}){self.first_mismatch}; it was called on another assembly: give "
            "the FASTA of that one"
        )


class _Run:
    """The alleles of one contig in one file."""

    def __init__(self, file: _File, contig: str, name: str) -> None:
        self.file = file
        self.contig = contig
        self.name = name
        self.records = 0
        self.tally = Tally()
        self._parts: list[Alleles] = []

    def take(self) -> Alleles:
        """Join what was added, and let go of it."""
        parts, self._parts = self._parts, []
        return Alleles(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def add(self, piece: Piece, reference: Reference, length: int) -> None:
        """Add the alleles of a piece that agree with the FASTA."""
        alleles = piece.alleles
        stage_A = np.full(len(alleles.position_A), Reason.USED, dtype=np.uint8)
        position_A = alleles.position_A.astype(np.int64) - 1
        stage_A[(position_A < 0) | (position_A >= length)] = Reason.OUTSIDE
        inside_A = stage_A == Reason.USED
        base_A = np.zeros(len(position_A), dtype=np.uint8)
        base_A[inside_A] = reference.codes_at(self.contig, position_A[inside_A])
        stage_A[inside_A & (base_A == alphabet.UNKNOWN)] = Reason.UNKNOWN_REFERENCE
        compared_A = stage_A == Reason.USED
        stage_A[compared_A & (alphabet.DISTRIBUTIONS[base_A, alleles.reference_A] == 0)] = Reason.MISMATCH

        self.tally.reasons_R += piece.tally_R
        self.tally.compared += _count_records(alleles.record_A[compared_A])
        mismatch = np.flatnonzero(stage_A == Reason.MISMATCH)
        self.tally.mismatched += _count_records(alleles.record_A[mismatch])
        if len(mismatch) and not self.file.first_mismatch:
            first = mismatch[0]
            before = alphabet.BASES[alleles.reference_A[first]]
            self.file.first_mismatch = (
                f", first at {self.name}:{position_A[first] + 1} where REF is {before} and the FASTA has "
                f"{alphabet.IUPAC[base_A[first]]}"
            )
        if (
            self.tally.compared > _COMPARED_FOR_EARLY
            and self.tally.mismatched > _MISMATCHES_FOR_EARLY * self.tally.compared
        ):
            self.file.refuse_assembly(self.tally)

        agrees_A = stage_A == Reason.USED
        self._tally_records(alleles.record_A, stage_A, agrees_A)
        self._parts.append(
            Alleles(
                position_A[agrees_A].astype(np.uint32),
                alleles.reference_A[agrees_A],
                alleles.alternate_A[agrees_A],
                alleles.frequency_A[agrees_A],
                alleles.record_A[agrees_A] + np.uint32(self.records),
                alleles.whole_A[agrees_A],
            )
        )
        self.records += piece.records

    def _tally_records(self, record_A: UInt32, stage_A: UInt8, agrees_A: npt.NDArray[np.bool_]) -> None:
        """Tally the records none of whose alleles is left; the others when the whole contig is known."""
        if np.all(agrees_A):
            return
        stage_N = np.maximum.reduceat(stage_A, np.flatnonzero(differs_from_last(record_A)))
        self.tally.reasons_R += np.bincount(stage_N[stage_N != Reason.USED], minlength=len(Reason))


def _count_records(record_A: UInt32) -> int:
    """Count the different ones of ascending numbers."""
    return int(differs_from_last(record_A).sum()) if len(record_A) else 0


def _finish(runs: Sequence[_Run], min_frequency: float) -> ContigVariants:
    """Merge a contig's alleles, and count each record once, as far as its furthest allele came."""
    # Of equal alleles the earliest counts, in the order in which the files were given.
    parts = [run.take() for run in runs]
    where = f"{names_text(str(run.file.path) for run in runs)}: {runs[0].name}"
    position_V, frequency_V4, stage_A = merge_alleles(parts, min_frequency, where)
    begin = 0
    for run, part in zip(runs, parts, strict=True):
        stage = stage_A[begin : begin + len(part.record_A)]
        begin += len(part.record_A)
        if len(stage):
            starts = np.flatnonzero(differs_from_last(part.record_A))
            stage_N = np.maximum.reduceat(stage, starts)
            run.tally.reasons_R += np.bincount(stage_N, minlength=len(Reason))
            run.tally.decomposed += int(
                np.logical_or.reduceat((stage == Reason.USED) & (part.whole_A > 0), starts).sum()
            )
        run.file.tally.add(run.tally)
    tallies = {run.file.number: run.tally for run in runs}
    return ContigVariants(runs[0].contig, position_V, frequency_V4, tallies, runs[-1].name)
