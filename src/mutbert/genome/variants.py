"""From the records of VCF files to the alleles that may enter a genome; every other record is counted by its reason.

Positions are counted through the whole genome, each contig from the next multiple of four, as ``sequence.npy`` has
them, so that many contigs are one. Shape suffixes: N records, M their alternate alleles, B bases of these, A bases that
an allele changes, V positions that vary, R runs of one contig, C contigs, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from mutbert import alphabet
from mutbert.arrays import Bool, Float64, Int64, UInt8, list_ranges
from mutbert.errors import InputError
from mutbert.genome.format import BASES_PER_BYTE, Contig
from mutbert.genome.vcf import Frequencies, Region, read_records
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

ANY_FILTER: Final = "any"
"""Stands for every FILTER."""

Alleles: TypeAlias = npt.NDArray[Any]  # of `ALLELE`

REASONS: Final = (
    "contig not in the FASTA", "contig not selected", "filtered", "no alternate allele", "symbolic or structural",
    "overlapping deletion (*)", "insertion or deletion", "alternate is the reference",
    "alternate base not A, C, G or T", "frequency missing", "reference base unknown", "outside the contig",
    "reference base differs from the FASTA", "duplicate record", "conflicts with an earlier record",
    "frequency not above the minimum", "used",
)  # fmt: skip
"""What became of a record, in the order of how far its furthest allele came; the last is no reason against it."""
NO_CONTIG, NOT_SELECTED, FILTERED, NO_ALTERNATE, SYMBOLIC, OVERLAPPING, INDEL, SAME, ODD_ALTERNATE = range(9)
NO_FREQUENCY, UNKNOWN_REFERENCE, OUTSIDE, MISMATCH, DUPLICATE, CONFLICT, TOO_RARE, USED = range(9, 17)

SUM_TOLERANCE: Final = 1e-3  # by rounding, the alternates of a position may sum to so much above 1
_MULTIPLIER: Final = 6364136223846793005  # of a polynomial hash of 64 bits
_UPPER: Final = np.uint8(0xDF)
_OTHER: Final = 255
_CODE: Final = np.full(256, _OTHER, dtype=np.uint8)
_CODE[np.frombuffer(alphabet.BASES.encode(), np.uint8)] = np.arange(4)
# How far an alternate allele comes by its bytes: letters, or * or . alone.
_STAGE: Final = np.full(256, SYMBOLIC, dtype=np.uint8)
_STAGE[ord("A") : ord("Z") + 1] = _STAGE[ord("a") : ord("z") + 1] = USED
_STAGE[ord("*")], _STAGE[ord(".")] = OVERLAPPING, NO_ALTERNATE


# A base that an alternate allele changes. `whole`: 0, or for an allele that changes several bases a hash of this allele
# and this base; `before`, `after`: base codes; `is_first`: of its record.
ALLELE: Final = np.dtype(
    [("position", "i8"), ("whole", "i8"), ("frequency", "f4"), ("before", "u1"), ("after", "u1"), ("is_first", "?")]
)


class Tally(NamedTuple):
    """What became of a file's records."""

    reasons: Counter[str]  # also of those "compared", "mismatched" and "decomposed"
    contigs: Counter[str]
    mismatches: Counter[str]  # descriptions of records whose REF differs

    @classmethod
    def of(cls, *counts: Mapping[str, int]) -> Tally:
        """Return a new tally, empty or of what JSON holds of one."""
        return cls(*map(Counter, counts or ({}, {}, {})))

    def add(self, other: Tally) -> None:
        """Add another tally of the same file."""
        for counts, more in zip(self, other, strict=True):
            counts.update(more)

    def count_stages(self, stage_N: UInt8) -> None:
        """Count records by how far they came."""
        self.reasons.update(dict(zip(REASONS, np.bincount(stage_N, minlength=len(REASONS)).tolist(), strict=True)))


class Calls(NamedTuple):
    """A VCF file and how it is read."""

    path: Path
    prefix: str  # of its contigs' names in the genome
    frequencies: Frequencies
    filters: Collection[str]

    def check_assembly(self, tally: Tally, share: float) -> None:
        """Raise where REF differs in more than a share of the records; one may be wrong by itself."""
        mismatched, compared = tally.reasons["mismatched"], tally.reasons["compared"]
        if mismatched > max(1, share * compared):
            raise InputError(
                f"{self.path}: REF differs from the FASTA in {mismatched:,} of {compared:,} records "
                f"({mismatched / compared:.1%}), first at {next(iter(tally.mismatches))}; it was called on another "
                "assembly: use the FASTA of that one"
            )


class Reference:
    """The sequences of a genome, to look single bases up; `not_selected` are contigs of the FASTA that it left out."""

    def __init__(
        self, contigs: Mapping[str, Contig], arrays: Mapping[str, Any], not_selected: Collection[str] = ()
    ) -> None:
        self.names, self._sequence, ambiguity = list(contigs), arrays["sequence.npy"], arrays["ambiguity.npy"]
        self._selected, self.not_selected = ContigNames(contigs), ContigNames(not_selected)
        self._number = {name: number for number, name in enumerate(contigs)}
        self.start_C: Int64 = np.array([one.offset for one in contigs.values()], dtype=np.int64) * BASES_PER_BYTE
        self.length_C: Int64 = np.array([one.length for one in contigs.values()], dtype=np.int64)
        contig, row = list_ranges(*np.array([one.ambiguity for one in contigs.values()], np.int64).reshape(-1, 2).T)
        runs = ambiguity[row]
        self._run_start = runs["start"] + self.start_C[contig]
        self._run_end, self._run_code = self._run_start + runs["length"], runs["code"]

    def find(self, calls: Calls, name: str) -> int:
        """Return the number of a file's contig; -2 where it was not selected, -1 where there is none."""
        full = f"{calls.prefix}.{name}" if calls.prefix else name
        found = self._selected.find(full)
        return self._number[found] if found is not None else -1 - (self.not_selected.find(full) is not None)

    def contig_of(self, position_A: Int64) -> Int64:
        """Return the numbers of the contigs of positions of the genome."""
        return np.searchsorted(self.start_C, position_A, side="right") - 1

    def codes_at(self, position_A: Int64) -> UInt8:
        """Return the base codes at positions of the genome."""
        shift_A = (position_A % BASES_PER_BYTE * 2).astype(np.uint8)
        code_A: UInt8 = (self._sequence[position_A // BASES_PER_BYTE] >> shift_A) & np.uint8(3)
        if len(self._run_start):
            run_A = np.searchsorted(self._run_start, position_A, side="right") - 1
            inside_A = (run_A >= 0) & (position_A < self._run_end[run_A])
            code_A[inside_A] = self._run_code[run_A[inside_A]]
        return code_A


def read_alleles(
    calls: Calls, reference: Reference, tally: Tally, regions: list[Region] | None
) -> Iterator[tuple[int, Alleles]]:
    """Yield the number of records and the alleles that agree with the reference, piece by piece of a file.

    The records without such an allele are counted in `tally`.
    """
    fields = [f"INFO/{name}" for name in calls.frequencies.fields]
    numbers: dict[str, int] = {}
    last, last_position = "", -1
    for records in read_records(calls.path, fields, region=regions, samples=calls.frequencies.samples):
        runs = records["contig"].rle()
        names, count_R = runs.struct.field("value").to_list(), runs.struct.field("len").to_numpy()
        is_same = names[0] == last
        unsorted = []
        for name in names[is_same:]:
            contig = reference.find(calls, name)
            unsorted += [f"contig {name} comes again after others"] * (name in numbers)
            others = [other for other, number in numbers.items() if number == contig >= 0 and other != name]
            if others:
                raise InputError(
                    f"{calls.path}: contigs {others[0]} and {name} are both {reference.names[contig]} of the FASTA; "
                    "rename or remove one"
                )
            numbers[name] = contig
        position_N = records["position"].to_numpy()
        step_N = np.diff(position_N, prepend=last_position)
        step_N[(np.cumsum(count_R) - count_R)[is_same:]] = 0
        if step_N.min() < 0:
            wrong = int(np.argmax(step_N < 0))
            unsorted.append(f"{records['contig'][wrong]}:{position_N[wrong] + 1} comes after a later position")
        if unsorted:
            raise InputError(f"{calls.path}: {unsorted[0]}; sort the file with 'bcftools sort' and index it anew")
        last, last_position = names[-1], position_N[-1]
        tally.contigs.update(dict(zip(names, count_R.tolist(), strict=True)))
        contig_N = np.repeat([numbers[name] for name in names], count_R)
        yield len(records), _find_alleles(calls, records, contig_N, reference, tally)


def _find_alleles(calls: Calls, records: pl.DataFrame, contig_N: Int64, reference: Reference, tally: Tally) -> Alleles:
    """Return the alleles of records that agree with the reference, and tally the records without one."""
    filters = records["filter"].unique().to_list()
    passing = [one for one in filters if not {ANY_FILTER, *one.split(";")}.isdisjoint(calls.filters)]
    is_passing_N = (contig_N >= 0) & (len(passing) == len(filters) or records["filter"].is_in(passing).to_numpy())
    record_M, refs, alts, frequency_M = _split_alternates(records, is_passing_N, calls.frequencies)
    stage_M, allele_A, offset_A, before_A, after_A, whole_A = _find_changes(refs, alts)
    record_A, frequency_A = record_M[allele_A], frequency_M[allele_A].astype(np.float32)
    stage_A = np.full(len(allele_A), USED, dtype=np.uint8)
    stage_A[after_A == _OTHER] = ODD_ALTERNATE
    stage_A[before_A == _OTHER] = UNKNOWN_REFERENCE
    _check_frequencies(calls, records, record_M, frequency_M, record_A[stage_A == USED])
    stage_A[(stage_A == USED) & np.isnan(frequency_A)] = NO_FREQUENCY

    contig_A, position_A = contig_N[record_A], records["position"].to_numpy()[record_A] + offset_A
    stage_A[(stage_A == USED) & ((position_A < 0) | (position_A >= reference.length_C[contig_A]))] = OUTSIDE
    position_A += reference.start_C[contig_A]
    inside = np.flatnonzero(stage_A == USED)
    base = reference.codes_at(position_A[inside])
    is_known = base != alphabet.UNKNOWN
    stage_A[inside[~is_known]] = UNKNOWN_REFERENCE
    inside, base = inside[is_known], base[is_known]
    differs = alphabet.DISTRIBUTIONS[base, before_A[inside]] == 0
    stage_A[inside[differs]] = MISMATCH
    for name, some in (("compared", inside), ("mismatched", inside[differs])):
        tally.reasons[name] += int(np.count_nonzero(np.diff(record_A[some], prepend=-1)))
    if np.any(differs) and not tally.mismatches:
        at = inside[np.argmax(differs)]
        contig, place = records["contig"][int(record_A[at])], position_A[at] - reference.start_C[contig_A[at]] + 1
        letters = alphabet.BASES[before_A[at]], alphabet.IUPAC[base[np.argmax(differs)]]
        tally.mismatches[f"{contig}:{place} where REF is {letters[0]} and the FASTA has {letters[1]}"] = 1
    stage_N = np.where(contig_N < 0, -1 - contig_N, FILTERED).astype(np.uint8)
    stage_N[is_passing_N] = 0
    np.maximum.at(stage_N, record_M, stage_M)
    np.maximum.at(stage_N, record_A, stage_A)
    tally.count_stages(stage_N[stage_N != USED])
    used = np.flatnonzero(stage_A == USED)
    columns = [column[used] for column in (position_A, whole_A, frequency_A, before_A, after_A, record_A)]
    return np.rec.fromarrays([*columns[:-1], np.diff(columns[-1], prepend=-1) != 0], dtype=ALLELE).view(np.ndarray)


def _split_alternates(
    records: pl.DataFrame, is_passing_N: Bool, frequencies: Frequencies
) -> tuple[Int64, pl.Series, pl.Series, Float64]:
    """Return the record, REF, ALT and frequency of each alternate allele.

    The frequency is NaN where it is missing, and below 0 for what is not one number for each alternate.
    """
    above, below = (f"INFO/{frequencies.fields[at]}" for at in (0, -1))
    alt, value = pl.col("alt"), pl.col("value")
    rows = records.select("ref", "alt", value=above, below=below).with_row_index("record")
    if not is_passing_N.all():
        rows = rows.filter(is_passing_N)
    is_many = rows["alt"].str.contains(",", literal=True)
    if is_many.any():
        values, number = value.str.split(","), alt.str.count_matches(",", literal=True) + 1
        alike = pl.when(value == ".").then(value).otherwise(pl.lit("none")).repeat_by(number)
        values = pl.when(values.list.len() == number).then(values).otherwise(alike)
        many = rows.filter(is_many).with_columns(alt=alt.str.split(","), value=values).explode("alt", "value")
        rows = pl.concat([rows.filter(~is_many), many]).sort("record", maintain_order=True)
    frequency = value.cast(pl.Float64, strict=False)
    frequency = pl.when(frequency.is_null() & (value != ".")).then(-1.0).otherwise(frequency)
    if len(frequencies.fields) > 1:
        number = pl.col("below").cast(pl.Float64, strict=False)
        frequency = frequency / pl.when(number > 0).then(number)
    rows = rows.select(pl.col("record").cast(pl.Int64), "ref", "alt", frequency=frequency.fill_null(float("nan")))
    return rows["record"].to_numpy(), rows["ref"], rows["alt"], rows["frequency"].to_numpy()


def _find_changes(refs: pl.Series, alts: pl.Series) -> tuple[UInt8, Int64, Int64, UInt8, UInt8, Int64]:
    """Return what stops each allele that changes no base, 0 for the others, and the bases that these change.

    Of a base: its allele, its place in REF, its codes before and after, and `Alleles.whole_A`.
    """
    (before_B, length_M), (after_B, alt_length_M) = (
        (np.frombuffer((texts.str.join("").item() or "").encode(), np.uint8), texts.str.len_bytes().to_numpy())
        for texts in (refs, alts)
    )
    stage_M = np.minimum.reduceat(_STAGE[after_B], np.cumsum(alt_length_M, dtype=np.int64) - alt_length_M)
    stage_M[(stage_M != USED) & (alt_length_M > 1)] = SYMBOLIC
    stage_M[(stage_M == USED) & (length_M != alt_length_M)] = INDEL
    is_open_M = stage_M == USED
    before_B, after_B = (
        before_B[np.repeat(is_open_M, length_M)] & _UPPER,
        after_B[np.repeat(is_open_M, alt_length_M)] & _UPPER,
    )
    allele_B, offset_B = list_ranges(np.zeros(len(stage_M), np.int64), length_M * is_open_M)
    differs_A = np.flatnonzero(before_B != after_B)
    allele_A, whole_A = allele_B[differs_A], np.zeros(len(differs_A), dtype=np.int64)
    number_M = np.bincount(allele_A, minlength=len(stage_M))
    stage_M[is_open_M] = np.where(number_M[is_open_M], 0, SAME)
    is_many_A = number_M[allele_A] > 1
    if np.any(is_many_A):
        # A hash of the letters from the first that changes to the last, and the place of the base among them.
        _, part_A, number = np.unique(allele_A[is_many_A], return_inverse=True, return_counts=True)
        at_A, last = differs_A[is_many_A], np.cumsum(number) - 1
        first = at_A[last - number + 1]
        row_B, at_B = list_ranges(first, at_A[last] + 1)
        power = np.cumprod(np.full(int((at_A[last] - first).max()) + 1, _MULTIPLIER, dtype=np.int64))
        letters_B = (before_B[at_B].astype(np.int64) * 256 + after_B[at_B]) * power[at_B - first[row_B]]
        hashed = np.add.reduceat(letters_B, np.searchsorted(row_B, np.arange(len(number))))
        whole_A[is_many_A] = (hashed[part_A] + power[at_A - first[part_A]]) | 1
    return stage_M, allele_A, offset_B[differs_A], _CODE[before_B[differs_A]], _CODE[after_B[differs_A]], whole_A


def _check_frequencies(
    calls: Calls, records: pl.DataFrame, record_M: Int64, frequency_M: Float64, wanted: Int64
) -> None:
    """Raise for the first record with a frequency that cannot be, of those that would be used."""
    sum_N = np.bincount(record_M, np.where(frequency_M > 0, frequency_M, 0), len(records))
    is_wrong_M = (frequency_M < 0) | (sum_N[record_M] > 1 + SUM_TOLERANCE) | (frequency_M > 1)
    if is_wrong_M.any() and len(wrong := np.intersect1d(record_M[is_wrong_M], wanted)):
        record = records.row(int(wrong[0]), named=True)
        values = ", ".join(f"{field}={record[f'INFO/{field}']}" for field in calls.frequencies.fields)
        raise InputError(
            f"{calls.path}: {record['contig']}:{record['position'] + 1}: {values} is not a frequency from 0 to 1 for "
            "each alternate allele, with a sum of at most 1; mend or remove the record, or choose another field with "
            "--frequency-field"
        )
