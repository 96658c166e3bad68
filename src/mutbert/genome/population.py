"""Read VCF files into the variants of a genome, many parts at once, so that what is finished can be taken over.

What is finished is a file that is there: ``units/N/tally.json`` where a part of a VCF is read, ``parts/N.npz`` where a
group of contigs is merged.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import numpy as np

from mutbert.errors import InputError
from mutbert.files import atomic_file, write_json
from mutbert.genome.variants import Alleles, Calls, Reason, Reference, Tally, merge_alleles, read_alleles, tally_merged
from mutbert.genome.vcf import count_by_index
from mutbert.progress import progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.arrays import Int64, UInt16
    from mutbert.progress import Advance

MOST_MISMATCHES: Final = 0.01
"""Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly."""

# A file of which so many records were compared and so many differ is not read to its end.
_EARLY: Final = 10_000, 0.1
# Of the records of a unit by index: it takes some seconds, and several workers are busy to the end.
_FEWEST_RECORDS, _MOST_RECORDS, _UNITS_A_WORKER = 200_000, 1_000_000, 8
_MOST_REGIONS: Final = 500
# Short contigs are merged together.
_GROUP_BASES: Final = 8_000_000


class Unit(NamedTuple):
    """A piece of work: a whole file, by its number, or regions of it by its index, and the groups these are of."""

    file: int
    regions: list[tuple[str, int, int | None]]
    groups: list[int]


class Population:
    """VCF files and the reference that they are compared with; `folder` holds what is finished."""

    def __init__(self, folder: Path, calls: Sequence[Calls], reference: Reference, workers: int) -> None:
        self._folder, self.calls, self._reference, self._workers = folder, calls, reference, workers
        self.tallies = [Tally() for _ in calls]
        self.decomposed = [0 for _ in calls]
        self.names: list[dict[int, str]] = [{} for _ in calls]
        """Each file's names of contigs, by their number in the genome."""
        self.unmatched: dict[str, None] = {}
        """Contigs with records that the FASTA does not have."""
        self._index = [count_by_index(one.path) for one in calls]
        # Consecutive contigs, of no more bases in all but where there is one alone.
        ends_C = np.cumsum(reference.length_C)
        self._group_C = np.unique(ends_C // _GROUP_BASES, return_inverse=True)[1]
        for name in ("units", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._units = self._plan_units()

    def read(self, min_frequency: float, *, progress: bool = False) -> None:
        """Read all records, and merge groups of contigs as they become complete."""
        is_counted = all(index is not None for index in self._index)
        total = sum(sum(index.values()) for index in self._index if index) if is_counted else None
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
                for group in range(int(self._group_C[-1]) + 1):
                    if group not in last:
                        self._merge(group, min_frequency)
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        self._match_names()
        self._check()

    def variants(self) -> Iterator[tuple[str, Int64, UInt16]]:
        """Yield each contig's positions and frequencies."""
        names = list(self._reference.names)
        for group in range(int(self._group_C[-1]) + 1):
            with np.load(self._part(group)) as part:
                position_V, frequency_V4 = part["position"], part["frequency"]
            for contig in np.flatnonzero(self._group_C == group).tolist():
                start = self._reference.start_C[contig]
                here = slice(*np.searchsorted(position_V, [start, start + self._reference.length_C[contig]]))
                yield names[contig], position_V[here] - start, frequency_V4[here]

    def _part(self, group: int) -> Path:
        return self._folder / "parts" / f"{group}.npz"

    def _plan_units(self) -> list[Unit]:
        """Return whole files first, then regions in the order of the genome; those that were planned before, if any."""
        path = self._folder / "units.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if before.get("index") == self._index:
            return [Unit(*unit) for unit in before["units"]]
        for name in ("units", "parts"):
            shutil.rmtree(self._folder / name)
            (self._folder / name).mkdir()
        units = [Unit(file, [], []) for file, index in enumerate(self._index) if index is None]
        wanted = sorted(
            (contig, file, name, records)
            for file, index in enumerate(self._index)
            for name, records in (index or {}).items()
            if (contig := self._reference.find(self.calls[file], name)) >= 0
        )
        share = sum(records for *_, records in wanted) // (_UNITS_A_WORKER * self._workers)
        most = _MOST_RECORDS if self._workers == 1 else min(max(share, _FEWEST_RECORDS), _MOST_RECORDS)
        # Of each file, the unit that has room for the next contig, and for how many records.
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
        """Write the alleles of a unit, a file for each group of contigs, and return what became of its records."""
        unit, folder = self._units[number], self._folder / "units" / str(number)
        calls, done, tally = self.calls[unit.file], folder / "tally.json", Tally()
        if done.exists():
            return Tally(**json.loads(done.read_text(encoding="utf-8")))
        folder.mkdir(exist_ok=True)
        pieces = read_alleles(calls, self._reference, tally, unit.regions, number << 40)
        by_group = groupby(pieces, key=lambda piece: int(self._group_C[piece[0]]) if piece[0] >= 0 else -1)
        for place, (group, found) in enumerate(by_group):
            parts = []
            for _, records, alleles in found:
                if stop.is_set():
                    return tally
                if tally.compared > _EARLY[0] and tally.mismatched > _EARLY[1] * tally.compared:
                    calls.refuse_assembly(tally)
                parts.append(alleles)
                advance(records)
            if group >= 0:
                np.savez(folder / f"{group}.{place}.npz", *Alleles.concatenate(parts))
        write_json(done, asdict(tally))
        return tally

    def _merge(self, group: int, min_frequency: float) -> None:
        """Merge the alleles of a group of contigs, unless that is done, and count their records."""
        if not self._part(group).exists():
            self._check_index(group)
            by_file: list[list[Alleles]] = [[] for _ in self.calls]
            paths = []
            for number, unit in enumerate(self._units):
                if not unit.regions or group in unit.groups:
                    found = (self._folder / "units" / str(number)).glob(f"{group}.*.npz")
                    for path in sorted(found, key=lambda path: int(path.name.split(".")[1])):
                        paths.append(path)
                        with np.load(path) as columns:
                            by_file[unit.file].append(Alleles(*columns.values()))
            alleles = [Alleles.concatenate(some) for some in by_file]
            merged = merge_alleles(Alleles.concatenate(alleles), min_frequency, self._refuse_sum)
            ends = np.cumsum([len(one.record_A) for one in alleles])
            tallies = [tally_merged(*one) for one in zip(alleles, np.split(merged[2], ends[:-1]), strict=bool(alleles))]
            with atomic_file(self._part(group)) as file:
                reasons, decomposed = np.array([one for one, _ in tallies]), np.array([one for _, one in tallies])
                np.savez(file, position=merged[0], frequency=merged[1], reasons=reasons, decomposed=decomposed)
            for path in paths:
                path.unlink()
        with np.load(self._part(group)) as part:
            for number, tally in enumerate(self.tallies):
                tally.add(Tally(part["reasons"][number].tolist()))
                self.decomposed[number] += int(part["decomposed"][number])

    def _check_index(self, group: int) -> None:
        """Raise where an index counts other records of a group's contigs than were found by it."""
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name, expected in (index or {}).items():
                contig, found = self._reference.find(calls, name), tally.by_contig.get(name, 0)
                if contig >= 0 and self._group_C[contig] == group and found != expected:
                    # What was found by it is not to be taken over.
                    (self._folder / "units.json").unlink()
                    raise InputError(
                        f"{calls.path}: its index counts {expected:,} records of contig {name}, but {found:,} were "
                        "found, so it belongs to another state of the file; index the file anew, or remove the index"
                    )

    def _match_names(self) -> None:
        """Match the contigs that the files have, and count the records that by an index were not read."""
        for calls, index, tally, names in zip(self.calls, self._index, self.tallies, self.names, strict=True):
            for name in {**(index or {}), **tally.by_contig}:
                contig = self._reference.find(calls, name)
                if contig < 0 and index is not None:
                    tally.reasons[Reason.CONTIG_NOT_IN_FASTA if contig == -1 else Reason.CONTIG_NOT_SELECTED] += index[
                        name
                    ]
                if contig == -1:
                    self.unmatched[name] = None
                elif contig >= 0 and names.setdefault(contig, name) != name:
                    raise InputError(
                        f"{calls.path}: contigs {names[contig]} and {name} are both "
                        f"{list(self._reference.names)[contig]} of the FASTA; rename or remove one"
                    )

    def _check(self) -> None:
        """Raise where all that became of the records shows that the files do not fit the reference."""
        try:
            for calls, tally in zip(self.calls, self.tallies, strict=True):
                calls.check(tally, MOST_MISMATCHES)
            left_out = any(tally.reasons[Reason.CONTIG_NOT_SELECTED] for tally in self.tallies)
            if self.unmatched and not any(self.names) and not left_out:
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

    def _refuse_sum(self, position: int, total: float) -> NoReturn:
        name, place = self._reference.place(position)
        raise InputError(
            f"{names_text(str(calls.path) for calls in self.calls)}: {name}:{place + 1}: the alternate alleles of its "
            f"records sum to {total:.6g}, more than 1; mend or remove a record"
        )
