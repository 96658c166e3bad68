"""Read VCF files into the variants of a genome, many parts at once, each finished part once.

What is finished is a file that is there: ``units/N/tally.json`` where a part of a VCF is read, ``parts/N.npz`` where a
group of contigs is merged. Shape suffixes: A alleles, P positions, V positions that are kept, C contigs, 4 bases in the
order A, C, G, T.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count, groupby, pairwise, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.files import atomic_file, write_json
from mutbert.genome import variants as fates
from mutbert.genome.format import float_to_fixed
from mutbert.genome.sources import check_samples
from mutbert.genome.variants import ALLELE, REASONS, Alleles, Calls, Reference, Tally, read_alleles
from mutbert.genome.vcf import GENOTYPES, Region, count_by_index, find_frequencies, read_header
from mutbert.progress import Advance, progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mutbert.arrays import Int64, UInt8, UInt16
    from mutbert.genome.store import ProbabilisticGenome

# Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly; and of
# how many records how many, before it is read to its end.
_MISMATCHES: Final = 0.01
_EARLY: Final = 10_000, 0.1
# Of the records of a unit by index: several workers are busy to the end, and starting to read takes little of the time.
_FEWEST_RECORDS, _MOST_RECORDS, _UNITS_A_WORKER = 20_000, 1_000_000, 8
# Of a group of consecutive contigs, if it has more than one: short contigs are merged together.
_GROUP_BASES, _GROUP_CONTIGS = 8_000_000, 500
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
    """A piece of work: a whole file, by its number, or regions of it by its index, with the group of their contigs."""

    file: int
    group: int = 0
    regions: list[Region] | None = None


class Population:
    """VCF files and the reference that they are compared with; `folder` holds what is finished."""

    def __init__(self, folder: Path, calls: Sequence[Calls], reference: Reference, workers: int = 1) -> None:
        self._folder, self.calls, self._reference, self._workers = folder, calls, reference, workers
        self.tallies = [Tally.of() for _ in calls]
        self.names: dict[str, str] = {}  # the VCF's name of each contig that was found, by the genome's
        self.unmatched: dict[str, None] = {}  # contigs with records that the reference does not have
        self._index = [count_by_index(one.path) for one in calls]
        limits = np.cumsum(reference.length_C) // _GROUP_BASES + np.arange(len(reference.names)) // _GROUP_CONTIGS
        self._group_C = np.unique(limits, return_inverse=True)[1]
        self._parts = [folder / "parts" / f"{group}.npz" for group in range(int(self._group_C[-1]) + 1)]
        self._units, self._is_stopped = self._plan_units(), threading.Event()

    def read(self, min_frequency: float, *, progress: bool = False) -> None:
        """Read all records, and merge groups of contigs as they become complete."""
        total = None if None in self._index else sum(sum(index.values()) for index in self._index if index)
        with (
            progress_bar("Reading the variants", total, unit="records", show=progress and bool(self.calls)) as advance,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            try:
                tallies = pool.map(self._read_unit, count(), self._units, repeat(advance))
                for group in range(len(self._parts)):
                    for unit in self._units:
                        if unit.group == group:
                            self.tallies[unit.file].add(next(tallies))
                    self._merge(group, min_frequency)
            finally:
                self._is_stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
        for calls, index, tally in zip(self.calls, self._index, self.tallies, strict=True):
            for name in {**(index or {}), **tally.contigs}:
                contig = self._reference.find(calls, name)
                if contig >= 0:
                    self.names[self._reference.names[contig]] = name
                elif index is not None and name not in tally.contigs:  # not read
                    tally.reasons[REASONS[-1 - contig]] += index[name]
                if contig == -1:
                    self.unmatched[name] = None

    def variants(self) -> Iterator[tuple[str, Int64, UInt16]]:
        """Yield each contig's positions and frequencies."""
        reference = self._reference
        for path in self._parts:
            with np.load(path) as part:
                position_V, row_V4 = part["position"], part["frequency"]
            for contig in np.unique(reference.contig_of(position_V)).tolist():
                start = reference.start_C[contig]
                here = slice(*np.searchsorted(position_V, [start, start + reference.length_C[contig]]))
                yield reference.names[contig], position_V[here] - start, row_V4[here]

    def check(self) -> None:
        """Raise where all that became of the records shows that the files do not fit the reference."""
        known = [*self._reference.names, *self._reference.not_selected]
        left_out = any(tally.reasons["contig not selected"] for tally in self.tallies)
        try:
            for calls, tally in zip(self.calls, self.tallies, strict=True):
                _check_file(calls, tally)
            if self.unmatched and not self.names and not left_out:
                raise InputError(
                    f"{names_text(str(calls.path) for calls in self.calls)}: no contig is in the FASTA: the VCF has "
                    f"{names_text(self.unmatched)}, the FASTA {names_text(known)}; use files of one assembly, or "
                    "rename contigs with 'bcftools annotate --rename-chrs'"
                )
        except InputError:
            shutil.rmtree(self._folder / "parts")  # no other run can take them over
            raise

    def _plan_units(self) -> list[Unit]:
        """Return whole files first, then regions in the order of the genome; as planned before, where that fits."""
        path = self._folder / "units.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if before.get("index") == self._index:
            return [Unit(*unit) for unit in before["units"]]
        for name in ("units", "parts"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            (self._folder / name).mkdir()
        units = [unit for file in range(len(self.calls)) for unit in self._plan_file(file)]
        units.sort(key=lambda unit: (unit.group, unit.regions is not None))
        write_json(path, {"index": self._index, "units": units}, force=True)
        return units

    def _plan_file(self, file: int) -> list[Unit]:
        index = self._index[file] or {}
        contigs = sorted((self._reference.find(self.calls[file], name), name) for name in index)
        wanted = [one for one in contigs if one[0] >= 0]
        groups = groupby(wanted, key=lambda one: int(self._group_C[one[0]]))
        names = {group: [name for _, name in members] for group, members in groups}
        # Without regions, a file with genotypes is read in half the time.
        if self._index[file] is None or (self._workers == 1 and len(names) == 1 and wanted == contigs):
            return [Unit(file)]
        share = sum(sum(one.values()) for one in self._index if one) // (_UNITS_A_WORKER * self._workers)
        most = min(max(share, _FEWEST_RECORDS), _MOST_RECORDS)
        units = []
        for group, some in names.items():
            cuts = -(-index[some[0]] // most) if len(some) == 1 else 1
            length = int(self._reference.length_C[self._group_C == group].max())
            bounds = [length * cut // cuts for cut in range(1, cuts)]
            for start, end in pairwise([0, *bounds, None]):
                units.append(Unit(file, group, [(name, start or 0, end) for name in some]))
        return units

    def _read_unit(self, number: int, unit: Unit, advance: Advance) -> Tally:
        """Write the alleles of a unit, files for each group of contigs, and return what became of its records."""
        folder, calls, tally = self._folder / "units" / str(number), self.calls[unit.file], Tally.of()
        if (done := folder / "tally.json").exists():
            return Tally.of(*json.loads(done.read_text(encoding="utf-8")))
        folder.mkdir(exist_ok=True)
        for piece, (records, alleles) in enumerate(read_alleles(calls, self._reference, tally, unit.regions)):
            if self._is_stopped.is_set():
                return tally
            if tally.reasons["compared"] > _EARLY[0]:
                calls.check_assembly(tally, _EARLY[1])
            advance(records)
            group_A = self._group_C[self._reference.contig_of(alleles["position"])]
            for group in np.flatnonzero(np.bincount(group_A)):
                np.save(folder / f"{group}.{piece:09}.npy", alleles[group_A == group])
        write_json(done, tally)
        return tally

    def _merge(self, group: int, min_frequency: float) -> None:
        """Merge the alleles of a group of contigs, unless that is done, and count their records."""
        part = self._parts[group]
        if not part.exists():
            self._check_index(group)
            by_file: list[list[Path]] = [[] for _ in self.calls]
            for number, unit in enumerate(self._units):
                if unit.regions is None or unit.group == group:
                    by_file[unit.file] += sorted((self._folder / "units" / str(number)).glob(f"{group}.*.npy"))
            position_V, row_V4, tallies = self._merge_files(by_file, min_frequency)
            with atomic_file(part) as file:
                np.savez(file, position=position_V, frequency=row_V4, tallies=json.dumps(tallies))
            for path in chain(*by_file):
                path.unlink()
        with np.load(part) as written:
            for tally, added in zip(self.tallies, json.loads(str(written["tallies"])), strict=True):
                tally.add(Tally.of(*added))

    def _check_index(self, group: int) -> None:
        """Raise where an index counts other records of a group's contigs than were found."""
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

    def _merge_files(
        self, by_file: Sequence[Sequence[Path]], min_frequency: float
    ) -> tuple[Int64, UInt16, list[Tally]]:
        """Return positions and frequencies that are kept, and what became of each file's records."""
        files = [[np.zeros(0, ALLELE), *map(np.load, paths)] for paths in by_file]
        end_F = np.cumsum([sum(map(len, pieces)) for pieces in files])
        alleles = np.concatenate([np.zeros(0, ALLELE), *chain(*files)])
        del files
        is_first_A, is_part_A, position_A = alleles["is_first"].copy(), alleles["whole"] != 0, alleles["position"]
        order_A = np.argsort(position_A, kind="stable")
        alleles, stage_A = alleles[order_A], np.empty(len(order_A), dtype=np.uint8)
        # A piece begins with the first allele of a position.
        begins = np.searchsorted(alleles["position"], alleles["position"][::_MERGED_AT_ONCE])
        positions, rows = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.uint16)]
        for begin, end in pairwise(np.unique([*begins, len(order_A)])):
            position_V, row_V4, stage_A[order_A[begin:end]] = self._merge_piece(alleles[begin:end], min_frequency)
            positions.append(position_V)
            rows.append(row_V4)
        tallies = []
        for start, end in pairwise([0, *end_F]):
            tally, stage, first = Tally.of(), stage_A[start:end], np.flatnonzero(is_first_A[start:end])
            if len(first):
                tally.count_stages(np.maximum.reduceat(stage, first))
                is_decomposed_N = np.logical_or.reduceat((stage == fates.USED) & is_part_A[start:end], first)
                tally.reasons["decomposed"] = int(is_decomposed_N.sum())
            tallies.append(tally)
        return np.concatenate(positions), np.concatenate(rows), tallies

    def _merge_piece(self, alleles: Alleles, min_frequency: float) -> tuple[Int64, UInt16, UInt8]:
        """Return positions and frequencies of alleles whose positions ascend, and how far each of them came.

        Of equal alleles the first counts, and the first at a position is the one whose reference base holds.
        """
        names = ("position", "whole", "frequency", "before", "after")
        position_A, whole_A, frequency_A, reference_A, alternate_A = (alleles[name].copy() for name in names)
        is_new_position_A = np.diff(position_A, prepend=-1) != 0
        first_P, site_A = np.flatnonzero(is_new_position_A), np.cumsum(is_new_position_A) - 1
        reference_P, equal_A = reference_A[first_P], np.arange(len(site_A))
        # Only alleles that share their position can be equal.
        shared = np.flatnonzero((np.diff(first_P, append=len(site_A)) > 1)[site_A])
        key_A = (position_A[shared] * 16 + reference_A[shared] * 4 + alternate_A[shared]) * _MIX + whole_A[shared]
        _, first, which = np.unique(key_A, return_index=True, return_inverse=True)
        equal_A[shared] = shared[first[which]]
        is_first_A = equal_A == np.arange(len(site_A))
        agrees_A = (reference_A == reference_P[site_A]) & (frequency_A == frequency_A[equal_A])
        accepted_A = agrees_A & is_first_A

        sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
        if np.any(sum_P > 1 + fates.SUM_TOLERANCE):
            wrong = int(np.argmax(sum_P > 1 + fates.SUM_TOLERANCE))
            contig = int(self._reference.contig_of(position_A[first_P[wrong]]))
            place = int(position_A[first_P[wrong]] - self._reference.start_C[contig]) + 1
            raise InputError(
                f"{names_text(str(calls.path) for calls in self.calls)}: {self._reference.names[contig]}:{place}: the "
                f"alternate alleles of its records sum to {sum_P[wrong]:.6g}, more than 1; mend or remove a record"
            )
        kept_P = sum_P > min_frequency * (1 + _ROUNDING)
        used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
        stage_A = np.full(len(site_A), fates.TOO_RARE, dtype=np.uint8)
        stage_A[used_A], stage_A[~is_first_A], stage_A[~agrees_A] = fates.USED, fates.DUPLICATE, fates.CONFLICT

        # An allele of several nucleotides and one of a single may bring the same base.
        base_A = (np.cumsum(kept_P) - 1)[site_A[used_A]] * 4 + alternate_A[used_A]
        # Without any, `bincount` would return integers.
        frequency_V4 = (
            np.bincount(base_A, frequency_A[used_A], 4 * np.count_nonzero(kept_P)).astype(float).reshape(-1, 4)
        )
        frequency_V4[np.arange(len(frequency_V4)), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
        frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
        return position_A[first_P[kept_P]], float_to_fixed(frequency_V4), stage_A


def _check_file(calls: Calls, tally: Tally) -> None:
    outside, no_frequency = (tally.reasons[name] for name in ("outside the contig", "frequency missing"))
    if outside and not tally.reasons["compared"]:
        raise InputError(
            f"{calls.path}: all {outside:,} records that could be used lie outside the FASTA's contigs; it was "
            "called on another assembly or another part of it: use the FASTA of that one"
        )
    if no_frequency and not tally.reasons["compared"]:
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
    reference = Reference(wanted, genome.arrays, genome.contigs.keys() - wanted.keys())
    with TemporaryDirectory(prefix="mutbert-person-") as folder:
        found = Population(Path(folder), [calls], reference)
        found.read(0.0, progress=progress)
        variants = dict.fromkeys(wanted, (np.zeros(0, np.int64), np.zeros((0, 4), np.uint16)))
        variants |= {name: (position_V, row_V4) for name, position_V, row_V4 in found.variants()}
    tally = found.tallies[0]
    if tally.reasons["compared"] >= _COMPARED:
        calls.check_assembly(tally, _SHARE)
    if found.unmatched and not found.names and not tally.reasons["contig not selected"]:
        raise InputError(
            f"{vcf}: its contigs ({names_text(found.unmatched)}) are none of {genome.path.name} "
            f"({names_text(genome.lengths)}); use the genotypes that are of its assembly"
        )
    return variants, {_OF_A_PERSON.get(text, text): tally.reasons[text] for text in REASONS[:-1] if tally.reasons[text]}
