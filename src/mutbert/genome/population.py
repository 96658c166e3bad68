"""Read VCF files into the variants of a genome, many parts at once, so that what is finished can be taken over.

What is finished is a file that is there: ``units/N/tally.json`` where a part of a VCF is read, ``parts/N.npz`` where a
group of contigs is merged. Shape suffixes: A alleles, P positions, V positions that are kept, C contigs, 4 bases in the
order A, C, G, T.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.files import atomic_file, write_json
from mutbert.genome import variants as fates
from mutbert.genome.format import float_to_fixed
from mutbert.genome.sources import check_samples
from mutbert.genome.variants import REASONS, SUM_TOLERANCE, Alleles, Calls, Reference, Tally, read_alleles
from mutbert.genome.vcf import GENOTYPES, Region, count_by_index, find_frequencies, read_header
from mutbert.progress import progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mutbert.arrays import Float64, Int64, UInt8, UInt16
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.progress import Advance

# Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly; and of
# how many records how many, before it is read to its end.
_MISMATCHES: Final = 0.01
_EARLY: Final = 10_000, 0.1
# Of the records of a unit by index: several workers are busy to the end, and starting to read takes little of the time.
_FEWEST_RECORDS, _MOST_RECORDS, _UNITS_A_WORKER = 20_000, 1_000_000, 8
_MOST_REGIONS: Final = 500
_GROUP_BASES: Final = 8_000_000  # short contigs are merged together
_MERGED_AT_ONCE: Final = 1 << 17  # merging takes some two hundred bytes an allele
# A decimal that equals the minimum is not above it in float32, and neither is a sum of three; the next of 6 digits is.
_ROUNDING: Final = 2.0**-23
_MIX: Final = -7046029254386353131  # odd, so that different alleles of one base have different products
# As of variants that are scored: another assembly, where of so many compared records so great a share differs.
_COMPARED, _SHARE = 100, 0.5

_OF_A_PERSON: Final = {
    "contig not in the FASTA": "contig not in the genome",
    "contig not selected": "contig not asked for",
    "frequency missing": "no genotype called",
    "reference base differs from the FASTA": "reference base differs from the genome",
    "frequency not above the minimum": "as the reference",
}


class Unit(NamedTuple):
    """A piece of work: a whole file, by its number, or regions of it by its index, and the groups these are of."""

    file: int
    regions: list[Region]
    groups: list[int]


class Population:
    """VCF files and the reference that they are compared with; `folder` holds what is finished."""

    def __init__(self, folder: Path, calls: Sequence[Calls], reference: Reference, workers: int = 1) -> None:
        self._folder, self.calls, self._reference, self._workers = folder, calls, reference, workers
        self.tallies = [Tally.of() for _ in calls]
        self.names: dict[str, str] = {}  # the VCF's name of each contig that was found, by the genome's
        self.unmatched: dict[str, None] = {}  # contigs with records that the reference does not have
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
        # By an index, contigs that are not of the genome were not read.
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name in {**(index or {}), **tally.contigs}:
                contig = self._reference.find(calls, name)
                if contig >= 0:
                    self.names[self._reference.names[contig]] = name
                elif index is not None:
                    tally.reasons[REASONS[-1 - contig]] += index[name]
                if contig == -1:
                    self.unmatched[name] = None

    def variants(self) -> Iterator[tuple[str, Int64, UInt16]]:
        """Yield each contig's positions and frequencies."""
        for path in self._parts():
            with np.load(path) as part:
                yield from self._reference.split(part["position"], part["frequency"])

    def check(self) -> None:
        """Raise where all that became of the records shows that the files do not fit the reference."""
        try:
            for calls, tally in zip(self.calls, self.tallies, strict=True):
                _check_file(calls, tally)
            left_out = any(tally.reasons["contig not selected"] for tally in self.tallies)
            if self.unmatched and not self.names and not left_out:
                known = [*self._reference.names, *self._reference.not_selected]
                raise InputError(
                    f"{names_text(str(calls.path) for calls in self.calls)}: no contig is in the FASTA: the VCF has "
                    f"{names_text(self.unmatched)}, the FASTA {names_text(known)}; use files of one assembly, or "
                    "rename contigs with 'bcftools annotate --rename-chrs'"
                )
        except InputError:
            # No other run can take over what does not fit.
            shutil.rmtree(self._folder / "parts")
            raise

    def _parts(self) -> list[Path]:
        return [self._folder / "parts" / f"{group}.npz" for group in range(int(self._group_C[-1]) + 1)]

    def _plan_units(self) -> list[Unit]:
        """Return whole files first, then regions in the order of the genome; as planned before, where that fits."""
        path = self._folder / "units.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if before.get("index") == self._index:
            return [Unit(file, [(*one,) for one in regions], groups) for file, regions, groups in before["units"]]
        for name in ("units", "parts"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
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
        latest: dict[int, Unit] = {}
        room = dict.fromkeys(range(len(self.calls)), -1)  # for how many more records of a file in its latest unit
        for contig, file, name, records in wanted:
            cuts = max(-(-records // most), 1)
            step = -(-int(self._reference.length_C[contig]) // cuts)
            for cut in range(cuts):
                if cuts > 1 or room[file] < records or len(latest[file].regions) >= _MOST_REGIONS:
                    latest[file], room[file] = Unit(file, [], []), most
                    units.append(latest[file])
                latest[file].regions.append((name, step * cut, None if cut == cuts - 1 else step * (cut + 1)))
                latest[file].groups.append(int(self._group_C[contig]))
                room[file] -= records
        write_json(path, {"index": self._index, "units": units}, force=True)
        return units

    def _read_unit(self, number: int, stop: threading.Event, advance: Advance) -> Tally:
        """Write the alleles of a unit, files for each group of contigs, and return what became of its records."""
        unit, folder = self._units[number], self._folder / "units" / str(number)
        calls, done, tally = self.calls[unit.file], folder / "tally.json", Tally.of()
        if done.exists():
            return Tally.of(*json.loads(done.read_text(encoding="utf-8")))
        folder.mkdir(exist_ok=True)
        pieces = read_alleles(calls, self._reference, tally, unit.regions, number << 40)
        for place, (records, alleles) in enumerate(pieces):
            if stop.is_set():
                return tally
            if tally.reasons["compared"] > _EARLY[0]:
                calls.check_assembly(tally, _EARLY[1])
            advance(records)
            group_A = self._group_C[self._reference.contig_of(alleles.position_A)]
            for group in np.unique(group_A):
                np.savez(folder / f"{group}.{place:09}.npz", *alleles.take(group_A == group))
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
                    for path in sorted((self._folder / "units" / str(number)).glob(f"{group}.*.npz")):
                        paths.append(path)
                        with np.load(path) as columns:
                            by_file[unit.file].append(Alleles(*columns.values()))
            position_V, frequency_V4, tallies = self._merge_files([*map(Alleles.concatenate, by_file)], min_frequency)
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

    def _merge_files(self, by_file: Sequence[Alleles], min_frequency: float) -> tuple[Int64, UInt16, list[Tally]]:
        """Return positions and frequencies that are kept, and what became of each file's records."""
        alleles = Alleles.concatenate(by_file)
        order_A = np.argsort(alleles.position_A, kind="stable")
        alleles, stage_A = alleles.take(order_A), np.empty(len(order_A), dtype=np.uint8)
        # A piece begins with the first allele of a position.
        begins = np.searchsorted(alleles.position_A, alleles.position_A[::_MERGED_AT_ONCE])
        positions, rows = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.uint16)]
        for begin, end in pairwise(np.unique([*begins, len(order_A)])):
            piece = alleles.take(slice(begin, end))
            position_V, frequency_V4, stage_A[order_A[begin:end]] = self._merge_piece(piece, min_frequency)
            positions.append(position_V)
            rows.append(float_to_fixed(frequency_V4))
        tallies = []
        for one in by_file:
            stage, stage_A = stage_A[: len(one.record_A)], stage_A[len(one.record_A) :]
            tallies.append(Tally.of())
            if len(stage):
                first = np.flatnonzero(np.diff(one.record_A, prepend=-1))
                tallies[-1].count_stages(np.maximum.reduceat(stage, first))
                is_apart_N = np.logical_or.reduceat((stage == fates.USED) & (one.whole_A != 0), first)
                tallies[-1].reasons["decomposed"] = int(is_apart_N.sum())
        return np.concatenate(positions), np.concatenate(rows), tallies

    def _merge_piece(self, alleles: Alleles, min_frequency: float) -> tuple[Int64, Float64, UInt8]:
        """Return positions and frequencies of alleles whose positions ascend, and how far each of them came.

        Of equal alleles the first counts, and the first at a position is the one whose reference base holds.
        """
        position_A, reference_A, alternate_A, frequency_A, _, whole_A = alleles
        is_new_position_A = np.diff(position_A, prepend=-1) != 0
        first_P, site_A = np.flatnonzero(is_new_position_A), np.cumsum(is_new_position_A) - 1
        reference_P = reference_A[first_P]
        key_A = (position_A * 16 + reference_A * 4 + alternate_A) * _MIX + whole_A
        _, first, which_A = np.unique(key_A, return_index=True, return_inverse=True)
        is_first_A = first[which_A] == np.arange(len(key_A))
        agrees_A = (reference_A == reference_P[site_A]) & (frequency_A == frequency_A[first[which_A]])
        accepted_A = agrees_A & is_first_A

        sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
        if np.any(sum_P > 1 + SUM_TOLERANCE):
            wrong = int(np.argmax(sum_P > 1 + SUM_TOLERANCE))
            contig = int(self._reference.contig_of(position_A[first_P[wrong]]))
            place = int(position_A[first_P[wrong]] - self._reference.start_C[contig]) + 1
            raise InputError(
                f"{names_text(str(calls.path) for calls in self.calls)}: {self._reference.names[contig]}:{place}: the "
                f"alternate alleles of its records sum to {sum_P[wrong]:.6g}, more than 1; mend or remove a record"
            )
        kept_P = sum_P > min_frequency * (1 + _ROUNDING)
        used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
        stage_A = np.full(len(key_A), fates.TOO_RARE, dtype=np.uint8)
        stage_A[used_A], stage_A[~is_first_A], stage_A[~agrees_A] = fates.USED, fates.DUPLICATE, fates.CONFLICT

        frequency_V4: Float64 = np.zeros((int(kept_P.sum()), 4))
        # An allele of several nucleotides and one of a single may bring the same base.
        np.add.at(frequency_V4, ((np.cumsum(kept_P) - 1)[site_A[used_A]], alternate_A[used_A]), frequency_A[used_A])
        frequency_V4[np.arange(len(frequency_V4)), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
        frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
        return position_A[first_P[kept_P]], frequency_V4, stage_A


def _check_file(calls: Calls, tally: Tally) -> None:
    compared, outside = tally.reasons["compared"], tally.reasons["outside the contig"]
    no_frequency = tally.reasons["frequency missing"]
    if outside and not compared:
        raise InputError(
            f"{calls.path}: all {outside:,} records that could be used lie outside the FASTA's contigs; it was "
            "called on another assembly or another part of it: use the FASTA of that one"
        )
    if no_frequency and not compared:
        have, remedy = f"a frequency ({calls.frequencies})", "choose another field with --frequency-field"
        if calls.frequencies.samples is not None:
            have, remedy = "a genotype of the samples", "choose other samples"
        raise InputError(f"{calls.path}: none of the {no_frequency:,} records that could be used has {have}; {remedy}")
    calls.check_assembly(tally, _MISMATCHES)


def read_person(
    genome: ProbabilisticGenome,
    vcf: Path,
    sample: str,
    *,
    contigs: Collection[str] | None = None,
    progress: bool = False,
) -> tuple[dict[str, tuple[Int64, UInt16]], dict[str, int]]:
    """Return a person's variants by contig, positions (V,) and frequencies (V, 4), and records not used by reason.

    Where the two chromosomes differ, each has half. Of contigs other than `contigs`, an indexed file is not read.
    """
    header = read_header(vcf)
    check_samples([sample], {vcf: header.samples})
    calls = Calls(vcf, "", find_frequencies(vcf, header, GENOTYPES, [sample]), ("PASS", "."))
    wanted = {name: contig for name, contig in genome.contigs.items() if contigs is None or name in contigs}
    sequence, ambiguity = genome.arrays["sequence.npy"], genome.arrays["ambiguity.npy"]
    reference = Reference(wanted, sequence, ambiguity, [name for name in genome.contigs if name not in wanted])
    with TemporaryDirectory(prefix="mutbert-person-") as folder:
        found = Population(Path(folder), [calls], reference)
        found.read(0.0, progress=progress)
        tally = found.tallies[0]
        if tally.reasons["compared"] >= _COMPARED:
            calls.check_assembly(tally, _SHARE)
        if found.unmatched and not found.names and not tally.reasons["contig not selected"]:
            raise InputError(
                f"{vcf}: its contigs ({names_text(found.unmatched)}) are none of {genome.path.name} "
                f"({names_text(genome.lengths)}); use the genotypes that are of its assembly"
            )
        variants = dict.fromkeys(wanted, (np.zeros(0, np.int64), np.zeros((0, 4), np.uint16)))
        variants |= {name: (position_V, row_V4) for name, position_V, row_V4 in found.variants()}
    return variants, {_OF_A_PERSON.get(text, text): tally.reasons[text] for text in REASONS[:-1] if tally.reasons[text]}
