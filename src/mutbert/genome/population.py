"""Read VCF files into the variants of a genome, many parts at once, so that what is finished can be taken over.

What is finished is a file that is there: ``units/N/tally.json`` where a part of a VCF is read, ``parts/N.npz`` where a
group of contigs is merged.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import numpy as np

from mutbert.errors import InputError
from mutbert.files import atomic_file, write_json
from mutbert.genome.positions import merge_alleles
from mutbert.genome.variants import (
    REASONS,
    Alleles,
    Calls,
    Reference,
    Tally,
    read_alleles,
)  # fmt: skip
from mutbert.genome.vcf import Region, count_by_index
from mutbert.progress import progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.arrays import Int64, UInt16
    from mutbert.progress import Advance

# Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly; and of
# how many records how many, before it is read to its end.
_MISMATCHES: Final = 0.01
_EARLY: Final = 10_000, 0.1
# Of the records of a unit by index: it takes some seconds, and several workers are busy to the end.
_FEWEST_RECORDS, _MOST_RECORDS, _UNITS_A_WORKER = 200_000, 1_000_000, 8
_MOST_REGIONS: Final = 500
_GROUP_BASES: Final = 8_000_000  # short contigs are merged together


class Unit(NamedTuple):
    """A piece of work: a whole file, by its number, or regions of it by its index, and the groups these are of."""

    file: int
    regions: list[Region]
    groups: list[int]


class Population:
    """VCF files and the reference that they are compared with; `folder` holds what is finished."""

    def __init__(self, folder: Path, calls: Sequence[Calls], reference: Reference, workers: int) -> None:
        self._folder, self.calls, self._reference, self._workers = folder, calls, reference, workers
        self.tallies = [Tally.of() for _ in calls]
        self.names: dict[str, str] = {}
        """The VCF's name of each contig that was found, by the genome's."""
        self.unmatched: dict[str, None] = {}
        """Contigs with records that the FASTA does not have."""
        self._index = [count_by_index(one.path) for one in calls]
        # Consecutive contigs, of no more bases in all but where there is one alone.
        self._group_C = np.unique(np.cumsum(reference.length_C) // _GROUP_BASES, return_inverse=True)[1]
        self._units = self._plan_units()

    def read(self, min_frequency: float, *, progress: bool = False) -> None:
        """Read all records, and merge groups of contigs as they become complete."""
        total = None if None in self._index else sum(sum(index.values()) for index in self._index if index)
        last = {group: number for number, unit in enumerate(self._units) for group in unit.groups}
        stop = threading.Event()
        with (
            progress_bar("Reading the variants", total, unit="records", show=progress and bool(self.calls)) as advance,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            try:
                futures = [pool.submit(self._read_unit, number, stop, advance) for number in range(len(self._units))]
                for number, future in enumerate(futures):
                    self.tallies[self._units[number].file].add(future.result())
                    for group in (group for group, end in last.items() if end == number):
                        self._merge(group, min_frequency)
                for group in range(len(self._parts())):
                    if group not in last:
                        self._merge(group, min_frequency)
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        self._match_names()
        self._check()

    def variants(self) -> Iterator[tuple[str, Int64, UInt16]]:
        """Yield each contig's positions and frequencies."""
        for path in self._parts():
            with np.load(path) as part:
                yield from self._reference.split(part["position"], part["frequency"])

    def _parts(self) -> list[Path]:
        return [self._folder / "parts" / f"{group}.npz" for group in range(int(self._group_C[-1]) + 1)]

    def _plan_units(self) -> list[Unit]:
        """Return whole files first, then regions in the order of the genome; as planned before, where that fits."""
        path = self._folder / "units.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if before.get("index") == self._index:
            return [Unit(*unit) for unit in before["units"]]
        for name in ("units", "parts"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            (self._folder / name).mkdir(parents=True)
        units = [Unit(file, [], []) for file, index in enumerate(self._index) if index is None]
        wanted = sorted(
            (contig, file, name, records)
            for file, index in enumerate(self._index)
            for name, records in (index or {}).items()
            if (contig := self._reference.find(self.calls[file], name)) >= 0
        )
        share = sum(records for *_, records in wanted) // (_UNITS_A_WORKER * self._workers)
        most = _MOST_RECORDS if self._workers == 1 else min(max(share, _FEWEST_RECORDS), _MOST_RECORDS)
        # Of each file, the unit that may have room for the next contig, and for how many records.
        latest: dict[int, tuple[Unit, int]] = {}
        for contig, file, name, records in wanted:
            cuts = max(-(-records // most), 1)
            step = -(-int(self._reference.length_C[contig]) // cuts)
            for cut in range(cuts):
                unit, room = latest.get(file, (None, 0))
                if unit is None or cuts > 1 or room < records or len(unit.regions) >= _MOST_REGIONS:
                    unit, room = Unit(file, [], []), most
                    units.append(unit)
                unit.regions.append((name, step * cut, None if cut == cuts - 1 else step * (cut + 1)))
                unit.groups.append(int(self._group_C[contig]))
                latest[file] = unit, room - records
        write_json(path, {"index": self._index, "units": units}, force=True)
        return units

    def _read_unit(self, number: int, stop: threading.Event, advance: Advance) -> Tally:
        """Write the alleles of a unit, files for each group of contigs, and return what became of its records."""
        unit, folder = self._units[number], self._folder / "units" / str(number)
        calls, done, tally = self.calls[unit.file], folder / "tally.json", Tally.of()
        if done.exists():
            return Tally.of(*json.loads(done.read_text(encoding="utf-8")))
        folder.mkdir(exist_ok=True)
        for place, (records, alleles) in enumerate(
            read_alleles(calls, self._reference, tally, unit.regions, number << 40)
        ):
            if stop.is_set():
                return tally
            compared, mismatched = tally.reasons["compared"], tally.reasons["mismatched"]
            if compared > _EARLY[0] and mismatched > _EARLY[1] * compared:
                calls.refuse_assembly(tally)
            advance(records)
            group_A = self._group_C[self._reference.contig_of(alleles.position_A)]
            ends = [*np.flatnonzero(np.diff(group_A)) + 1, len(group_A)]
            for begin, end in zip([0, *ends], ends, strict=False):
                if end > begin:
                    np.savez(folder / f"{group_A[begin]}.{place}.{begin}.npz", *alleles.take(slice(begin, end)))
        write_json(done, tally)
        return tally

    def _merge(self, group: int, min_frequency: float) -> None:
        """Merge the alleles of a group of contigs, unless that is done, and count their records."""
        part = self._parts()[group]
        if not part.exists():
            self._check_index(group)
            by_file: list[list[Alleles]] = [[] for _ in self.calls]
            paths = []
            for number, unit in enumerate(self._units):
                if not unit.regions or group in unit.groups:
                    found = (self._folder / "units" / str(number)).glob(f"{group}.*.npz")
                    for path in sorted(found, key=lambda path: [*map(int, path.name.split(".")[1:3])]):
                        paths.append(path)
                        with np.load(path) as columns:
                            by_file[unit.file].append(Alleles(*columns.values()))
            alleles = [Alleles.concatenate(some) for some in by_file]
            position_V, frequency_V4, tallies = merge_alleles(alleles, min_frequency, self._refuse_sum)
            with atomic_file(part) as file:
                np.savez(file, position=position_V, frequency=frequency_V4, tallies=json.dumps(tallies))
            for path in paths:
                path.unlink()
        with np.load(part) as written:
            for tally, added in zip(self.tallies, json.loads(str(written["tallies"])), strict=True):
                tally.add(Tally.of(*added))

    def _check_index(self, group: int) -> None:
        """Raise where an index counts other records of a group's contigs than were found by it."""
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name, expected in (index or {}).items():
                contig, found = self._reference.find(calls, name), tally.contigs[name]
                if contig >= 0 and self._group_C[contig] == group and found != expected:
                    # What was found by it is not to be taken over.
                    (self._folder / "units.json").unlink()
                    raise InputError(
                        f"{calls.path}: its index counts {expected:,} records of contig {name}, but {found:,} were "
                        "found, so it belongs to another state of the file; index the file anew, or remove the index"
                    )

    def _match_names(self) -> None:
        """Match the contigs that the files have, and count the records that by an index were not read."""
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name in {**(index or {}), **tally.contigs}:
                contig = self._reference.find(calls, name)
                if contig >= 0:
                    self.names[self._reference.names[contig]] = name
                elif index is not None:
                    tally.reasons[REASONS[-1 - contig]] += index[name]
                if contig == -1:
                    self.unmatched[name] = None

    def _check(self) -> None:
        """Raise where all that became of the records shows that the files do not fit the reference."""
        try:
            for calls, tally in zip(self.calls, self.tallies, strict=True):
                self._check_file(calls, tally)
            left_out = any(tally.reasons["contig not selected"] for tally in self.tallies)
            if self.unmatched and not self.names and not left_out:
                raise InputError(
                    f"{names_text(str(calls.path) for calls in self.calls)}: no contig is in the FASTA: the VCF has "
                    f"{names_text(self.unmatched)}, the FASTA "
                    f"{names_text([*self._reference.names, *self._reference.not_selected])}; use files of one "
                    "assembly, or rename contigs with 'bcftools annotate --rename-chrs'"
                )
        except InputError:
            # No other run can take over what does not fit.
            shutil.rmtree(self._folder / "parts")
            raise

    def _check_file(self, calls: Calls, tally: Tally) -> None:
        compared, mismatched = tally.reasons["compared"], tally.reasons["mismatched"]
        outside, no_frequency = tally.reasons["outside the contig"], tally.reasons["frequency missing"]
        if outside and not compared:
            raise InputError(
                f"{calls.path}: all {outside:,} records that could be used lie outside the FASTA's contigs; it was "
                "called on another assembly or another part of it: use the FASTA of that one"
            )
        if no_frequency and not compared:
            have, remedy = f"a frequency ({calls.frequencies})", "choose another field with --frequency-field"
            if calls.frequencies.samples is not None:
                have, remedy = "a genotype of the samples", "choose other samples"
            raise InputError(
                f"{calls.path}: none of the {no_frequency:,} records that could be used has {have}; {remedy}"
            )
        # One record may be wrong by itself, so one alone is never taken for another assembly.
        if mismatched > max(1, _MISMATCHES * compared):
            calls.refuse_assembly(tally)

    def _refuse_sum(self, position: int, total: float) -> NoReturn:
        contig = int(self._reference.contig_of(np.array([position]))[0])
        place = f"{self._reference.names[contig]}:{position - self._reference.start_C[contig] + 1}"
        raise InputError(
            f"{names_text(str(calls.path) for calls in self.calls)}: {place}: the alternate alleles of its records sum "
            f"to {total:.6g}, more than 1; mend or remove a record"
        )
