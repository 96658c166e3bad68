"""From the records of VCF files to the positions of a genome that vary; every record is counted by what became of it.

Positions are counted through the whole genome, each contig from the next multiple of four, as ``sequence.npy`` has
them, so that many contigs are one. Shape suffixes: N records, M their alternate alleles, B bases of these, A bases that
an allele changes, V positions that vary, C contigs, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Self

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.genome.format import BASES_PER_BYTE, float_to_fixed
from mutbert.genome.vcf import Frequencies, read_records
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Float64, Int64, UInt8, UInt16
    from mutbert.genome.format import Contig

ANY_FILTER: Final = "any"
"""Stands for every FILTER."""

MOST_MISMATCHES: Final = 0.01
"""Share of a file's compared records whose REF may differ from the FASTA before it is taken for a wrong assembly."""

_SUM_TOLERANCE: Final = 1e-3  # by rounding, the alternates of a position may sum to so much above 1
# A decimal that equals the minimum is not above it in float32, and neither is a sum of three; the next of 7 digits is.
_ROUNDING: Final = 2.0**-23
_MERGED_AT_ONCE: Final = 1 << 17  # merging takes some two hundred bytes an allele
_UPPER: Final = np.uint8(0xDF)
_CODE: Final = np.full(256, 255, dtype=np.uint8)
_CODE[np.frombuffer(alphabet.BASES.encode(), np.uint8)] = np.arange(4)
_IS_LETTER: Final = np.isin(np.arange(256), np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8))


class Reason(IntEnum):
    """What became of a record, in the order of how far its furthest allele came."""

    text: str

    def __new__(cls, value: int, text: str) -> Self:
        """Return a member with its words."""
        member = int.__new__(cls, value)
        member._value_, member.text = value, text
        return member

    CONTIG_NOT_IN_FASTA = 0, "contig not in the FASTA"
    CONTIG_NOT_SELECTED = 1, "contig not selected"
    FILTERED = 2, "filtered"
    NO_ALTERNATE = 3, "no alternate allele"
    SYMBOLIC = 4, "symbolic or structural"
    OVERLAPPING_DELETION = 5, "overlapping deletion (*)"
    INDEL = 6, "insertion or deletion"
    NOT_A_CHANGE = 7, "alternate is the reference"
    AMBIGUOUS_ALTERNATE = 8, "alternate base not A, C, G or T"
    NO_FREQUENCY = 9, "frequency missing"
    UNKNOWN_REFERENCE = 10, "reference base unknown"
    OUTSIDE = 11, "outside the contig"
    MISMATCH = 12, "reference base differs from the FASTA"
    DUPLICATE = 13, "duplicate record"
    CONFLICT = 14, "conflicts with an earlier record"
    NOT_ABOVE_MINIMUM = 15, "frequency not above the minimum"
    USED = 16, "used"


@dataclass
class Tally:
    """What became of records: their number by reason and by the file's contigs, and how their REF compares."""

    reasons: list[int] = field(default_factory=lambda: [0] * len(Reason))
    by_contig: dict[str, int] = field(default_factory=dict)
    compared: int = 0
    mismatched: int = 0
    first_mismatch: str = ""

    def count(self, stage_N: UInt8) -> None:
        """Add records by how far they came."""
        added = np.bincount(stage_N, minlength=len(Reason)).tolist()
        self.reasons = [old + new for old, new in zip(self.reasons, added, strict=True)]

    def add(self, other: Tally) -> None:
        """Add another tally of the same file."""
        self.reasons = [old + new for old, new in zip(self.reasons, other.reasons, strict=True)]
        for name, number in other.by_contig.items():
            self.by_contig[name] = self.by_contig.get(name, 0) + number
        self.compared += other.compared
        self.mismatched += other.mismatched
        self.first_mismatch = self.first_mismatch or other.first_mismatch


class Calls(NamedTuple):
    """A VCF file and how it is read; `prefix` comes before the names of its contigs in the genome."""

    path: Path
    prefix: str
    frequencies: Frequencies
    filters: tuple[str, ...]

    def refuse_record(self, place: str, fault: str) -> NoReturn:
        """Raise for a record that no genome can be built from."""
        remedy = "" if self.frequencies.samples is not None else ", or choose another field with --frequency-field"
        raise InputError(f"{self.path}: {place}: {fault}; mend or remove the record{remedy}")

    def refuse_assembly(self, tally: Tally) -> NoReturn:
        """Raise for a file whose REF differs too often."""
        raise InputError(
            f"{self.path}: REF differs from the FASTA in {tally.mismatched:,} of {tally.compared:,} records "
            f"({tally.mismatched / tally.compared:.1%}){tally.first_mismatch}; it was called on another assembly: use "
            "the FASTA of that one"
        )

    def check(self, tally: Tally, most_mismatches: float) -> None:
        """Raise where all that became of a file's records shows that it does not fit."""
        outside, no_frequency = tally.reasons[Reason.OUTSIDE], tally.reasons[Reason.NO_FREQUENCY]
        if outside and not tally.compared:
            raise InputError(
                f"{self.path}: all {outside:,} records that could be used lie outside the FASTA's contigs; it was "
                "called on another assembly or another part of it: use the FASTA of that one"
            )
        if no_frequency and not tally.compared:
            have, remedy = f"a frequency ({self.frequencies})", "choose another field with --frequency-field"
            if self.frequencies.samples is not None:
                have, remedy = "a genotype of the samples", "choose other samples"
            raise InputError(
                f"{self.path}: none of the {no_frequency:,} records that could be used has {have}; {remedy}"
            )
        # One record may be wrong by itself, so one alone is never taken for another assembly.
        if tally.mismatched > max(1, most_mismatches * tally.compared):
            self.refuse_assembly(tally)


class Alleles(NamedTuple):
    """Bases that alternate alleles change, in the order of the records.

    `whole_A` is 0, or for a base of an allele of several what tells this base of this allele from others.
    """

    position_A: Int64
    reference_A: UInt8
    alternate_A: UInt8
    frequency_A: Float32
    record_A: Int64
    whole_A: Int64

    def take(self, rows: Any) -> Alleles:
        """Return some of them."""
        return Alleles(*(column[rows] for column in self))

    @staticmethod
    def concatenate(parts: Sequence[Alleles]) -> Alleles:
        """Join parts."""
        return Alleles(*(np.concatenate(columns) for columns in zip(_NO_ALLELES, *parts, strict=True)))


class Reference:
    """The sequences of a genome, to look single bases up; `not_selected` are contigs of the FASTA that it left out."""

    def __init__(
        self,
        contigs: Mapping[str, Contig],
        sequence: UInt8,
        ambiguity: npt.NDArray[Any],
        not_selected: Collection[str] = (),
    ) -> None:
        self.names = ContigNames(contigs)
        self.not_selected = ContigNames(not_selected)
        self.number = {name: number for number, name in enumerate(contigs)}
        self.start_C: Int64 = np.array([one.offset for one in contigs.values()], dtype=np.int64) * BASES_PER_BYTE
        self.length_C: Int64 = np.array([one.length for one in contigs.values()], dtype=np.int64)
        self._sequence = np.asarray(sequence)
        contig, row = list_ranges(*np.array([one.ambiguity for one in contigs.values()], np.int64).reshape(-1, 2).T)
        runs = ambiguity[row]
        self._run_start = runs["start"] + self.start_C[contig]
        self._run_end, self._run_code = self._run_start + runs["length"], runs["code"]

    def find(self, calls: Calls, name: str) -> int:
        """Return the number of a file's contig; -2 where it was not selected, -1 where there is none."""
        full = f"{calls.prefix}.{name}" if calls.prefix else name
        found = self.names.find(full)
        return self.number[found] if found is not None else -1 - (self.not_selected.find(full) is not None)

    def place(self, position: int) -> tuple[str, int]:
        """Return the contig of a position of the genome, and the position in it."""
        contig = int(np.searchsorted(self.start_C, position, side="right")) - 1
        return list(self.names)[contig], position - int(self.start_C[contig])

    def codes_at(self, position_A: Int64) -> UInt8:
        """Return the base codes at positions of the genome."""
        shift_A = (position_A % BASES_PER_BYTE * 2).astype(np.uint8)
        code_A: UInt8 = (self._sequence[position_A // BASES_PER_BYTE] >> shift_A) & np.uint8(3)
        if len(self._run_start):
            run_A = np.searchsorted(self._run_start, position_A, side="right") - 1
            inside_A = (run_A >= 0) & (position_A < self._run_end[run_A])
            code_A[inside_A] = self._run_code[run_A[inside_A]]
        return code_A


_NO_ALLELES: Final = Alleles(*(np.zeros(0, kind) for kind in ("i8", "u1", "u1", "f4", "i8", "i8")))


def read_alleles(
    calls: Calls,
    reference: Reference,
    tally: Tally,
    regions: Sequence[tuple[str, int, int | None]] = (),
    first_record: int = 0,
) -> Iterator[tuple[int, int, Alleles]]:
    """Yield contig number, records and alleles that agree with the reference, for each contig of each piece of a file.

    The records without such an allele are counted in `tally`, the others by `merge_alleles`. A contig number below 0
    says why its records are not read.
    """
    frequencies = calls.frequencies
    fields = [f"INFO/{name}" for name in frequencies.fields]
    last: tuple[str, int] = "", -1
    numbers: dict[str, int] = {}
    read = first_record
    for records in read_records(calls.path, fields, region=regions, samples=frequencies.samples):
        for length, name in records["contig"].rle().struct.unnest().iter_rows():
            part, records = records.head(length), records.slice(length)
            if name != last[0]:
                _check_new(calls, reference, name, numbers)
            contig = numbers[name]
            tally.by_contig[name] = tally.by_contig.get(name, 0) + length
            if contig < 0:
                tally.reasons[-1 - contig] += length
                last = name, -1
                yield contig, length, _NO_ALLELES
                continue
            position_N = part["position"].to_numpy()
            _check_order(calls, name, last[1] if name == last[0] else -1, position_N)
            last = name, int(position_N[-1])
            alleles = _find_alleles(calls, name, part, reference, contig, tally)
            yield contig, length, alleles._replace(record_A=alleles.record_A + read)
            read += length


def _check_new(calls: Calls, reference: Reference, name: str, numbers: dict[str, int]) -> None:
    if name in numbers:
        raise InputError(
            f"{calls.path}: records of contig {name} come again after others; sort the file with 'bcftools sort' and "
            "index it anew"
        )
    numbers[name] = contig = reference.find(calls, name)
    other = next((one for one, number in numbers.items() if number == contig >= 0 and one != name), None)
    if other is not None:
        raise InputError(f"{calls.path}: contigs {other} and {name} are one of the FASTA; rename or remove one")


def _check_order(calls: Calls, name: str, last: int, position_N: Int64) -> None:
    back = np.flatnonzero(np.diff(position_N, prepend=last) < 0)
    if len(back):
        before = position_N[back[0] - 1] if back[0] else last
        raise InputError(
            f"{calls.path}: {name}:{position_N[back[0]] + 1} comes after {name}:{before + 1}, so the file is not "
            "sorted; sort it with 'bcftools sort' and index it anew"
        )


def _find_alleles(
    calls: Calls, name: str, records: pl.DataFrame, reference: Reference, contig: int, tally: Tally
) -> Alleles:
    """Return the alleles of consecutive records of a contig that agree with the reference, and tally the others."""
    passing_N = _pass_filters(records["filter"], calls.filters)
    rows = _split_alternates(records.with_row_index("record").filter(passing_N), calls.frequencies)
    record_M, stage_M = rows["record"].to_numpy().astype(np.int64), rows["stage"].to_numpy().copy()
    allele_A, offset_A, before_A, after_A, whole_A = _find_changes(rows, stage_M)
    stage_A = np.full(len(allele_A), Reason.USED, dtype=np.uint8)
    stage_A[after_A == 255] = Reason.AMBIGUOUS_ALTERNATE
    stage_A[before_A == 255] = Reason.UNKNOWN_REFERENCE
    record_A = record_M[allele_A]
    is_wanted_N = np.zeros(len(records), dtype=bool)
    is_wanted_N[record_A[stage_A == Reason.USED]] = True
    frequency_M = rows["frequency"].to_numpy()
    _check_frequencies(calls, name, records, record_M, frequency_M, is_wanted_N)
    frequency_A = frequency_M[allele_A].astype(np.float32)
    stage_A[(stage_A == Reason.USED) & np.isnan(frequency_A)] = Reason.NO_FREQUENCY

    position_A = records["position"].to_numpy()[record_A] + offset_A
    whole_position_A = position_A + reference.start_C[contig]
    _compare(reference, contig, name, position_A, before_A, record_A, stage_A, tally)
    stage_N = np.zeros(len(records), dtype=np.uint8)
    is_none_M = stage_M != Reason.USED
    np.maximum.at(stage_N, record_M[is_none_M], stage_M[is_none_M])
    np.maximum.at(stage_N, record_A, stage_A)
    stage_N[~passing_N] = Reason.FILTERED
    tally.count(stage_N[stage_N != Reason.USED])
    alleles = Alleles(whole_position_A, before_A, after_A, frequency_A, record_A, whole_A)
    return alleles.take(stage_A == Reason.USED)


def _pass_filters(filter_N: pl.Series, filters: Collection[str]) -> Bool:
    names = filter_N.unique().to_list()
    passing = [one for one in names if not {ANY_FILTER, *one.split(";")}.isdisjoint(filters)]
    is_passing_N: Bool = filter_N.is_in(passing).to_numpy()
    return is_passing_N


def _split_alternates(records: pl.DataFrame, frequencies: Frequencies) -> pl.DataFrame:
    """Return a row for each alternate allele: `record`, `ref`, `alt`, `stage`, and `frequency`, NaN where missing.

    A frequency below 0 stands for what is not one number for each alternate.
    """
    if frequencies.samples is not None:
        records = _count_genotypes(records)
        above, below = "calls", pl.col("called")
    else:
        above = f"INFO/{frequencies.fields[0]}"
        below = pl.col(f"INFO/{frequencies.fields[-1]}").cast(pl.Float64, strict=False)
    ref, alt, value = pl.col("ref"), pl.col("alt"), pl.col("value")
    rows = records.select("record", "ref", "alt", value=above, below=below)
    is_many = rows["alt"].str.contains(",", literal=True)
    if is_many.any():
        alts, values, number = alt.str.split(","), value.str.split(","), alt.str.count_matches(",", literal=True) + 1
        alike = pl.when(value == ".").then(value).otherwise(pl.lit("none")).repeat_by(number)
        many = rows.filter(is_many).with_columns(
            alt=alts, value=pl.when(values.list.len() == number).then(values).otherwise(alike)
        )
        rows = pl.concat([rows.filter(~is_many), many.explode("alt", "value")]).sort("record", maintain_order=True)
    frequency = value.cast(pl.Float64, strict=False)
    frequency = pl.when(frequency.is_null() & (value != ".")).then(-1.0).otherwise(frequency)
    if len(frequencies.fields) != 1:
        frequency = frequency / pl.when(pl.col("below") > 0).then("below")
    stage = (
        pl.when(alt == "*")
        .then(Reason.OVERLAPPING_DELETION)
        .when(alt == ".")
        .then(Reason.NO_ALTERNATE)
        .when(~alt.str.contains("^[A-Za-z]+$"))
        .then(Reason.SYMBOLIC)
        .when(ref.str.len_bytes() != alt.str.len_bytes())
        .then(Reason.INDEL)
        .otherwise(Reason.USED)
    )
    return rows.select("record", "ref", "alt", frequency=frequency.fill_null(float("nan")), stage=stage.cast(pl.UInt8))


def _count_genotypes(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with `calls` of each alternate, as an INFO field has them, and `called` alleles in all."""
    genotypes, parts = pl.col("genotypes"), []
    number = records["alt"].str.count_matches(",", literal=True) + 1
    for (alternates,), every in records.with_columns(number=number).group_by("number"):
        # Nearly always each allele is a separator and a digit, and the length says how many there are.
        is_plain = every["genotypes"].str.contains(rf"^([ |/][0-{min(alternates, 9)}.])*$") & (alternates < 10)
        for is_simple, part in ((True, every.filter(is_plain)), (False, every.filter(~is_plain))):
            words = [str(one) if is_simple else rf"\b{one}\b" for one in range(alternates + 1)]
            counts = [genotypes.str.count_matches(word, literal=is_simple) for word in words[is_simple:]]
            calls, called = pl.concat_str(counts[not is_simple :], separator=","), pl.sum_horizontal(counts)
            if is_simple:
                called = genotypes.str.len_bytes() // 2 - genotypes.str.count_matches(".", literal=True)
            else:
                calls = (
                    pl.when(called == genotypes.str.count_matches(r"[^ |/.]+")).then(calls).otherwise(pl.lit("none"))
                )
            parts.append(part.select("record", "ref", "alt", calls=calls, called=called.cast(pl.Float64)))
    return pl.concat(parts).sort("record") if parts else records.with_columns(calls=pl.lit(""), called=pl.lit(0.0))


def _find_changes(rows: pl.DataFrame, stage_M: UInt8) -> tuple[Int64, Int64, UInt8, UInt8, Int64]:
    """Return the allele, place in REF, base codes before and after, and whole of each base that alleles change.

    A code of 255 is another letter; an allele that changes nothing is marked in `stage_M`.
    """
    still = np.flatnonzero(stage_M == Reason.USED)
    texts = rows.select("ref", "alt", length=pl.col("ref").str.len_bytes())[still]
    before_B, after_B = (
        np.frombuffer("".join(texts[name].str.join("")).encode(), np.uint8) & _UPPER for name in ("ref", "alt")
    )
    length_M = texts["length"].to_numpy().astype(np.int64)
    allele_B, offset_B = list_ranges(np.zeros_like(length_M), length_M)
    differs_A = np.flatnonzero(before_B != after_B)
    allele_A = allele_B[differs_A]
    number_M = np.bincount(allele_A, minlength=len(still))
    stage_M[still[number_M == 0]] = Reason.NOT_A_CHANGE

    whole_A = np.zeros(len(differs_A), dtype=np.int64)
    if np.any(number_M > 1):
        # A hash of the letters from the first that changes to the last, and the place of the base among them.
        is_many_A = number_M[allele_A] > 1
        many, part_A, number = np.unique(allele_A[is_many_A], return_inverse=True, return_counts=True)
        at_A = differs_A[is_many_A]
        last = np.cumsum(number) - 1
        first = at_A[last - number + 1]
        row_B, at_B = list_ranges(first, at_A[last] + 1)
        power = np.cumprod(np.full(int((at_A[last] - first).max()) + 2, 6364136223846793005, dtype=np.int64))
        letters_B = before_B[at_B].astype(np.int64) * 256 + after_B[at_B]
        hashed = np.add.reduceat(letters_B * power[at_B - first[row_B]], np.searchsorted(row_B, np.arange(len(many))))
        whole_A[is_many_A] = (hashed[part_A] + power[at_A - first[part_A]]) | 1
    return still[allele_A], offset_B[differs_A], _CODE[before_B[differs_A]], _CODE[after_B[differs_A]], whole_A


def _check_frequencies(
    calls: Calls, name: str, records: pl.DataFrame, record_M: Int64, frequency_M: Float64, is_wanted_N: Bool
) -> None:
    """Raise for the first record with a frequency that cannot be, of those that would be used."""
    sum_N = np.bincount(record_M, np.nan_to_num(frequency_M), len(is_wanted_N))
    is_wrong_M = (frequency_M < 0) | (frequency_M > 1) | (sum_N[record_M] > 1 + _SUM_TOLERANCE)
    wrong = record_M[is_wrong_M & is_wanted_N[record_M]]
    if len(wrong):
        record = records.row(int(wrong[0]), named=True)
        fault = "a genotype is not made of the record's alleles"
        if calls.frequencies.samples is None:
            values = ", ".join(f"{field}={record[f'INFO/{field}']}" for field in calls.frequencies.fields)
            fault = f"{values} is not a frequency from 0 to 1 for each alternate allele, with a sum of at most 1"
        calls.refuse_record(f"{name}:{record['position'] + 1}", fault)


def _compare(
    reference: Reference,
    contig: int,
    name: str,
    position_A: Int64,
    before_A: UInt8,
    record_A: Int64,
    stage_A: UInt8,
    tally: Tally,
) -> None:
    """Compare REF with the reference where `stage_A` is still `USED`, and put there what comes of it."""
    stage_A[(stage_A == Reason.USED) & ((position_A < 0) | (position_A >= reference.length_C[contig]))] = Reason.OUTSIDE
    inside = np.flatnonzero(stage_A == Reason.USED)
    base = reference.codes_at(position_A[inside] + reference.start_C[contig])
    stage_A[inside[base == alphabet.UNKNOWN]] = Reason.UNKNOWN_REFERENCE
    inside, base = inside[base != alphabet.UNKNOWN], base[base != alphabet.UNKNOWN]
    mismatch = inside[alphabet.DISTRIBUTIONS[base, before_A[inside]] == 0]
    stage_A[mismatch] = Reason.MISMATCH
    tally.compared += _count_distinct(record_A[inside])
    tally.mismatched += _count_distinct(record_A[mismatch])
    if len(mismatch) and not tally.first_mismatch:
        first = mismatch[0]
        found = alphabet.IUPAC[base[np.searchsorted(inside, first)]]
        tally.first_mismatch = (
            f", first at {name}:{position_A[first] + 1} where REF is {alphabet.BASES[before_A[first]]} and the FASTA "
            f"has {found}"
        )


def _count_distinct(ascending: Int64) -> int:
    return int(np.count_nonzero(np.diff(ascending, prepend=-1)))


def merge_alleles(alleles: Alleles, min_frequency: float, where: Any) -> tuple[Int64, UInt16, UInt8]:
    """Return positions (V,) and fixed-point frequencies (V, 4) that are kept, and how far each allele came (A,).

    Of equal alleles the first counts, and the first at a position says which base is its reference. `where` raises
    for a position whose alternates sum to more than 1, which it is called with.
    """
    order_A = np.argsort(alleles.position_A, kind="stable")
    sorted_ = alleles.take(order_A)
    stage_A = np.empty(len(order_A), dtype=np.uint8)
    positions, rows, begin = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.uint16)], 0
    while begin < len(order_A):
        # A piece ends after the last allele of a position.
        last = min(begin + _MERGED_AT_ONCE, len(order_A)) - 1
        end = int(np.searchsorted(sorted_.position_A, sorted_.position_A[last], side="right"))
        position_V, frequency_V4, stage_A[order_A[begin:end]] = _merge_piece(
            sorted_.take(slice(begin, end)), min_frequency, where
        )
        positions.append(position_V)
        rows.append(float_to_fixed(frequency_V4))
        begin = end
    return np.concatenate(positions), np.concatenate(rows), stage_A


def _merge_piece(alleles: Alleles, min_frequency: float, where: Any) -> tuple[Int64, Float64, UInt8]:
    """Return what `merge_alleles` does of alleles whose positions ascend, before rounding."""
    position_A, reference_A, alternate_A, frequency_A, _, whole_A = alleles
    is_new_position_A = np.diff(position_A, prepend=-1) != 0
    first_P = np.flatnonzero(is_new_position_A)
    site_A = np.cumsum(is_new_position_A) - 1
    reference_P = reference_A[first_P]
    # Stable, so that the first of equal alleles stays so.
    order_A = np.lexsort((whole_A, reference_A, alternate_A, position_A))
    is_new_A = np.ones(len(order_A), dtype=bool)
    is_new_A[1:] = np.any(
        [column[order_A][1:] != column[order_A][:-1] for column in (position_A, alternate_A, reference_A, whole_A)],
        axis=0,
    )
    first_A = np.empty_like(order_A)
    first_A[order_A] = order_A[np.flatnonzero(is_new_A)[np.cumsum(is_new_A) - 1]]
    is_first_A = first_A == np.arange(len(order_A))
    agrees_A = (reference_A == reference_P[site_A]) & (is_first_A | (frequency_A == frequency_A[first_A]))
    accepted_A = agrees_A & is_first_A

    sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
    if np.any(sum_P > 1 + _SUM_TOLERANCE):
        too_much = int(np.argmax(sum_P > 1 + _SUM_TOLERANCE))
        where(int(position_A[first_P[too_much]]), float(sum_P[too_much]))
    kept_P = sum_P > min_frequency * (1 + _ROUNDING)
    used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
    stage_A = np.full(len(order_A), Reason.NOT_ABOVE_MINIMUM, dtype=np.uint8)
    stage_A[used_A] = Reason.USED
    stage_A[~is_first_A] = Reason.DUPLICATE
    stage_A[~agrees_A] = Reason.CONFLICT

    row_P = np.cumsum(kept_P) - 1
    frequency_V4: Float64 = np.zeros((int(kept_P.sum()), 4))
    # An allele of several nucleotides and one of a single may bring the same base.
    np.add.at(frequency_V4, (row_P[site_A[used_A]], alternate_A[used_A]), frequency_A[used_A])
    frequency_V4[np.arange(len(frequency_V4)), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
    return position_A[first_P[kept_P]], frequency_V4, stage_A


def tally_merged(alleles: Alleles, stage_A: UInt8) -> tuple[list[int], int]:
    """Return a file's records by how far their alleles came in the end, and the used ones that were taken apart."""
    if not len(stage_A):
        return [0] * len(Reason), 0
    first = np.flatnonzero(np.diff(alleles.record_A, prepend=-1))
    stage_N = np.maximum.reduceat(stage_A, first)
    is_apart_N = np.logical_or.reduceat((stage_A == Reason.USED) & (alleles.whole_A != 0), first)
    return np.bincount(stage_N, minlength=len(Reason)).tolist(), int(is_apart_N.sum())
