"""VCF files read into the variants of a genome, many parts at once.

A group of contigs that is finished is a file that is there, ``parts/GROUP.npz``; alleles wait for the others of their
group in ``alleles/``. Shape suffixes: A alleles, V positions that are kept, C contigs, 4 bases in the order A, C, G, T.
"""

import json
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, count, groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np

from mutbert.arrays import Int64, UInt16
from mutbert.errors import InputError, reading
from mutbert.files import atomic_file
from mutbert.genome.sources import FILTERS, Calls, Source, find_calls
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.variants import MOST_IMPOSSIBLE, REASONS, Tally, merge_alleles, read_alleles
from mutbert.genome.vcf import GENOTYPES, Region, count_by_index
from mutbert.progress import Advance, progress_bar
from mutbert.regions import ContigNames, names_text

# Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly.
_MISMATCHES: Final = 0.01
# Of the records of a unit by index: several workers are busy to the end, and starting to read takes little of the time.
_FEWEST_RECORDS, _UNITS_A_WORKER = 20_000, 8
# Of a group of consecutive contigs, if it has more than one: short contigs are merged together.
_GROUP_BASES, _GROUP_CONTIGS = 8_000_000, 500
_ANEW: Final = "remove it, and --resume reads its records again"

_OF_A_PERSON: Final = {
    "contig not in the FASTA": "contig not in the genome",
    "contig not selected": "contig not asked for",
    "frequency missing": "no genotype called",
    "reference base differs from the FASTA": "reference base differs from the genome",
    "frequency not above the minimum": "as the reference",
}


class Unit(NamedTuple):
    """A piece of work: records of a file, by its number, of one group of contigs; -1 for all groups at once."""

    group: int
    file: int
    regions: list[Region] | None = None  # None for the whole file


class Population:
    """VCF files and the genome with whose reference they are compared; `not_selected` are contigs that it left out."""

    def __init__(
        self, folder: Path, calls: list[Calls], genome: ProbabilisticGenome, not_selected: Iterable[str], workers: int
    ) -> None:
        self._folder, self.calls, self._genome, self._workers = folder, calls, genome, workers
        self._contigs, self._known = list(genome.contigs), ContigNames([*genome.contigs, *not_selected])
        self._number = {name: number for number, name in enumerate(self._contigs)}
        self._index = [count_by_index(one.source.path) for one in calls]
        self._indexed = sum(sum(index.values()) for index in self._index if index)
        limits = np.cumsum(genome.slots[:, 1]) // _GROUP_BASES + np.arange(len(self._contigs)) // _GROUP_CONTIGS
        self._group_C = np.unique(limits, return_inverse=True)[1]
        # Only files with an index are counted by group, so a group is finished for these alone.
        by_index = zlib.crc32(bytes(index is not None for index in self._index))
        self._parts = [folder / "parts" / f"{group}.{by_index}.npz" for group in range(int(self._group_C[-1]) + 1)]
        self._is_stopped, self._paths = threading.Event(), names_text(str(one.source.path) for one in calls)
        self.tallies: list[Tally] = [Counter() for _ in calls]
        self.names: dict[str, str] = {}  # the VCF's name of each contig that was found, by the genome's
        self.unmatched: dict[str, None] = {}  # contigs with records that the reference does not have

    def read(self, min_frequency: float, *, needs_calls: bool = True, progress: bool = False) -> None:
        """Read all records, and merge groups of contigs as they become complete; raise for files that do not fit."""
        shutil.rmtree(self._folder / "alleles", ignore_errors=True)
        for name in ("alleles", "parts"):
            (self._folder / name).mkdir(exist_ok=True)
        plans = (self._plan_file(file, index) for file, index in enumerate(self._index))
        # Files without an index first, then the others in the order of the genome.
        units = sorted(one for one in chain(*plans) if one.group < 0 or not self._parts[one.group].exists())
        total = None if None in self._index else self._indexed
        with (
            progress_bar("Reading the variants", total, unit="records", show=progress and bool(self.calls)) as advance,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            try:
                tallies = pool.map(partial(self._read_unit, advance), count(), units)
                for unit, tally in zip([unit for unit in units if unit.group < 0], tallies, strict=False):
                    self.tallies[unit.file].update(tally)
                for group, part in enumerate(self._parts):
                    if not part.exists():
                        found: list[Tally] = [Counter() for _ in self.calls]
                        for unit in units:
                            if unit.group == group:
                                found[unit.file].update(next(tallies))
                        self._merge(group, found, min_frequency)
                    with reading(part, _ANEW), np.load(part) as merged:
                        for tally, more in zip(self.tallies, json.loads(str(merged["tallies"])), strict=True):
                            tally.update({(kind, name): number for (kind, name), number in more})
            finally:
                self._is_stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name in dict.fromkeys([*(index or ()), *(name for kind, name in tally if kind == "contig")]):
                contig = self._find(calls, name)
                if contig >= 0:
                    self.names[self._contigs[contig]] = name
                elif index is not None and ("contig", name) not in tally:  # not read
                    tally["reason", REASONS[-1 - contig]] += index[name]
                if contig == -1:
                    self.unmatched[name] = None
        try:
            self._check(needs_calls)
        except InputError:
            shutil.rmtree(self._folder / "parts")  # no other run can take them over
            raise

    def variants(self) -> Iterator[tuple[str, Int64, UInt16]]:
        """Yield each contig's positions and frequencies."""
        for path in self._parts:
            with reading(path, _ANEW), np.load(path) as part:
                slot_V, row_V4 = part["slots"], part["frequencies"]
            for contig in np.unique(self._genome.contig_at(slot_V)).tolist():
                start, length = self._genome.slots[contig]
                here = slice(*np.searchsorted(slot_V, [start, start + length]))
                yield self._contigs[contig], slot_V[here] - start, row_V4[here]

    def _check(self, needs_calls: bool) -> None:
        """Raise where all that became of the records shows that the files do not fit the reference."""
        counted = "outside the contig", "mismatched", "compared", "impossible frequency"
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            outside, mismatched, compared, impossible = (tally["reason", one] for one in counted)
            first, read, problem = dict(reversed(tally)), sum(tally["reason", text] for text in REASONS), ""
            expected = {name: number for name, number in (index or {}).items() if self._find(calls, name) >= 0}
            if stale := [name for name, number in expected.items() if tally["contig", name] != number]:
                there, number = expected[stale[0]], tally["contig", stale[0]]
                problem = f"its index counts {there:,} records of contig {stale[0]}, but {number:,} were found"
                remedy = "index the file anew, or remove the index"
            elif outside and not compared:
                problem = f"all {outside:,} records that could be used lie outside the FASTA's contigs"
                remedy = "it was called on another assembly or another part of it: use the FASTA of that one"
            elif impossible > MOST_IMPOSSIBLE * read:
                problem = f"{impossible:,} of {read:,} records have no frequency from 0 to 1 for each alternate allele"
                remedy = f"first {first['impossible']}; correct or remove them, or choose another --frequency-field"
            elif mismatched > max(1, _MISMATCHES * compared):  # one may be wrong by itself
                share = f"{mismatched:,} of {compared:,} records ({mismatched / compared:.1%})"
                problem = f"REF differs from the FASTA in {share}, first at {first['mismatch']}"
                remedy = "it was called on another assembly: use the FASTA of that one"
            if problem:
                raise InputError(f"{calls.source.path}: {problem}; {remedy}")
        missing = sum(tally["reason", "frequency missing"] for tally in self.tallies)
        if needs_calls and missing and not any(tally["reason", "compared"] for tally in self.tallies):
            kinds = names_text(dict.fromkeys(calls.frequencies for calls in self.calls))
            text = f"none of the {missing:,} records that could be used has a frequency ({kinds})"
            raise InputError(f"{self._paths}: {text}; choose another --frequency-field, or other samples")
        left_out = any(tally["reason", "contig not selected"] for tally in self.tallies)
        if self.unmatched and not self.names and not left_out:
            text = f"the VCF has {names_text(self.unmatched)}, the FASTA {names_text(self._known)}"
            remedy = "use files of one assembly, or rename contigs with 'bcftools annotate --rename-chrs'"
            raise InputError(f"{self._paths}: no contig is in the FASTA: {text}; {remedy}")

    def _find(self, calls: Calls, name: str) -> int:
        """Return the number of a file's contig in the genome; -2 where it was not selected, -1 where there is none."""
        found = self._known.find(calls.source.name(name))
        return -1 if found is None else self._number.get(found, -2)

    def _plan_file(self, file: int, index: dict[str, int] | None) -> Iterator[Unit]:
        if index is None:
            yield Unit(-1, file)
            return
        contigs = sorted((self._find(self.calls[file], name), name) for name in index)
        wanted = [one for one in contigs if one[0] >= 0]
        by_group = groupby(wanted, lambda one: int(self._group_C[one[0]]))
        groups = {group: [name for _, name in some] for group, some in by_group}
        # Without regions, a file with genotypes is read in half the time.
        if self._workers == 1 and len(groups) == 1 and wanted == contigs:
            yield Unit(next(iter(groups)), file)
            return
        most = max(self._indexed // (_UNITS_A_WORKER * self._workers), _FEWEST_RECORDS)
        for group, names in groups.items():
            cuts = -(-index[names[0]] // most) if len(names) == 1 else 1
            length = int(self._genome.slots[self._group_C == group, 1].max())
            for start, end in pairwise([*(length * cut // cuts for cut in range(cuts)), None]):
                yield Unit(group, file, [(name, start or 0, end) for name in names])

    def _read_unit(self, advance: Advance, number: int, unit: Unit) -> Tally:
        """Write the alleles of a unit, a file for each group of contigs and block, and return its tally."""
        tally: Tally = Counter()
        calls = self.calls[unit.file]
        blocks = read_alleles(calls, self._genome, partial(self._find, calls), tally, unit.regions)
        for block, (records, alleles) in enumerate(blocks):
            if self._is_stopped.is_set():
                break
            advance(records)
            group_A = self._group_C[self._genome.contig_at(alleles["position"])]
            for group in np.flatnonzero(np.bincount(group_A)):
                path = self._folder / "alleles" / f"{group}.{unit.file}.{number:06}.{block:09}.npy"
                np.save(path, alleles[group_A == group])
        return tally

    def _merge(self, group: int, tallies: Sequence[Tally], min_frequency: float) -> None:
        """Write a group's variants, and what became of its records; `tallies` have those without alleles."""
        alleles = self._folder / "alleles"
        files = [sorted(alleles.glob(f"{group}.{file}.*.npy")) for file in range(len(self.calls))]
        slot_V, row_V4, merged = merge_alleles(files, self._genome, min_frequency)
        for tally, more in zip(tallies, merged, strict=True):
            tally.update(more)
        counts = json.dumps([[*tally.items()] for tally in tallies])
        with atomic_file(self._parts[group]) as file:
            np.savez(file, slots=slot_V, frequencies=row_V4, tallies=counts)
        for path in alleles.glob(f"{group}.*.npy"):
            path.unlink()


def read_person(
    genome: ProbabilisticGenome, vcf: Path, sample: str, *, contigs: Collection[str] | None, progress: bool
) -> tuple[dict[str, tuple[Int64, UInt16]], dict[str, int]]:
    """Return a person's variants by contig, positions (V,) and frequencies (V, 4), and records not used by reason."""
    (calls,) = find_calls([Source(vcf)], GENOTYPES, [sample], FILTERS)
    wanted = {name: contig for name, contig in genome.contigs.items() if contigs is None or name in contigs}
    with TemporaryDirectory(prefix="mutbert-person-") as folder:
        found = Population(Path(folder), [calls], replace(genome, contigs=wanted), genome.contigs.keys() - wanted, 1)
        # A file may have no call, as of chromosome Y.
        found.read(0.0, needs_calls=False, progress=progress)
        variants = {name: (position_V, row_V4) for name, position_V, row_V4 in found.variants()}
    counts = {text: found.tallies[0]["reason", text] for text in REASONS[:-1]}
    return variants, {_OF_A_PERSON.get(text, text): number for text, number in counts.items() if number}
