"""From the records of VCF files to alleles, and from these to variants; every other record is counted by its reason.

Positions are slots of the whole genome. Shape suffixes: N records, M their alternate alleles, B bases of these, A bases
that an allele changes, P positions of these, V positions that vary, R runs of one contig, C contigs, 4 bases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.arrays import Bool, Float64, Int64, UInt8, UInt16, list_ranges
from mutbert.errors import InputError
from mutbert.genome.format import float_to_fixed
from mutbert.genome.sources import ANY_FILTER, Calls
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import Region, read_records

if TYPE_CHECKING:
    import polars as pl


Alleles: TypeAlias = npt.NDArray[Any]  # of `ALLELE`
# What became of a file's records, by kind and name: of a reason, of those "compared", "mismatched" and "decomposed",
# of a contig, and of the first of each block where REF differs ("mismatch") or the frequency cannot be ("impossible").
Tally: TypeAlias = Counter[tuple[str, str]]

REASONS: Final = (
    "contig not in the FASTA", "contig not selected", "filtered", "no alternate allele", "symbolic or structural",
    "overlapping deletion (*)", "insertion or deletion", "alternate is the reference",
    "alternate base not A, C, G or T", "frequency missing", "impossible frequency", "reference base unknown",
    "outside the contig", "reference base differs from the FASTA", "duplicate record",
    "conflicts with an earlier record", "frequency not above the minimum", "used",
)  # fmt: skip
"""What became of a record, in the order of how far its furthest allele came; the last is no reason against it."""
NO_CONTIG, NOT_SELECTED, FILTERED, NO_ALTERNATE, SYMBOLIC, OVERLAPPING, INDEL, SAME, ODD_ALTERNATE = range(9)
NO_FREQUENCY, IMPOSSIBLE, UNKNOWN_REFERENCE, OUTSIDE, MISMATCH, DUPLICATE, CONFLICT, TOO_RARE, USED = range(9, 18)

SUM_TOLERANCE: Final = 1e-3  # by rounding, the alternates of a position may sum to so much above 1
# Share of a file's records whose frequency may be impossible: one slip of another program does not cost a genome.
MOST_IMPOSSIBLE: Final = 0.01
_MERGED_AT_ONCE: Final = 1 << 17  # merging takes some two hundred bytes an allele
# A decimal that equals the minimum is not above it in float32, and neither is a sum of three; the next of 6 digits is.
_ROUNDING: Final = 2.0**-23
_MIX: Final = -7046029254386353131  # odd, so that different alleles of one base have different products
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


def _count_reasons(stage_N: UInt8) -> dict[tuple[str, str], int]:
    counts = np.bincount(stage_N, minlength=len(REASONS)).tolist()
    return {("reason", text): number for text, number in zip(REASONS, counts, strict=True) if number}


def read_alleles(
    calls: Calls, genome: ProbabilisticGenome, find: Callable[[str], int], tally: Tally, regions: list[Region] | None
) -> Iterator[tuple[int, Alleles]]:
    """Yield the number of records and the alleles that agree with the reference, block by block, and tally the rest."""
    last_contig, last_position = -1, -1
    fields = [f"INFO/{name}" for name in calls.fields]
    for records in read_records(calls.source.path, fields, region=regions, samples=calls.samples):
        runs = records["contig"].rle().struct.unnest()
        names, count_R = runs["value"].to_list(), runs["len"].to_numpy()
        for name, number in zip(names, count_R.tolist(), strict=True):
            tally["contig", name] += number
        contig_N, position_N = np.repeat([find(name) for name in names], count_R), records["position"].to_numpy()
        is_same_N = (np.diff(contig_N, prepend=last_contig) == 0) & (contig_N >= 0)
        back = np.flatnonzero(is_same_N & (np.diff(position_N, prepend=last_position) < 0))
        if len(back):
            text = f"{records['contig'][int(back[0])]}:{position_N[back[0]] + 1} comes after a later position"
            raise InputError(f"{calls.source.path}: {text}; sort the file with 'bcftools sort' and index it anew")
        last_contig, last_position = contig_N[-1], position_N[-1]
        yield len(records), _find_alleles(calls, records, contig_N, genome, tally)


def _find_alleles(
    calls: Calls, records: pl.DataFrame, contig_N: Int64, genome: ProbabilisticGenome, tally: Tally
) -> Alleles:
    """Return the alleles of records that agree with the reference, and tally the records without one."""
    filters = records["filter"].unique().to_list()
    passing = [one for one in filters if not {ANY_FILTER, *one.split(";")}.isdisjoint(calls.filters)]
    is_passing_N = (contig_N >= 0) & (len(passing) == len(filters) or records["filter"].is_in(passing).to_numpy())
    record_M, refs, alts, frequency_M = _split_alternates(records, is_passing_N, calls.fields)
    stage_M, allele_A, offset_A, before_A, after_A, whole_A, is_kept_A = _find_changes(refs, alts)
    record_A, frequency_A = record_M[allele_A], frequency_M[allele_A].astype(np.float32)
    stage_A = np.full(len(allele_A), USED, dtype=np.uint8)
    stage_A[after_A == _OTHER] = ODD_ALTERNATE
    stage_A[before_A == _OTHER] = UNKNOWN_REFERENCE
    stage_A[(stage_A == USED) & np.isnan(frequency_A)] = NO_FREQUENCY
    share_M = np.where(frequency_M > 0, frequency_M, 0)
    share_M[(frequency_M < 0) | (frequency_M > 1)] = np.inf
    is_wrong_N = np.bincount(record_M, share_M, len(records)) > 1 + SUM_TOLERANCE
    wrong = np.flatnonzero((stage_A >= NO_FREQUENCY) & is_wrong_N[record_A])
    stage_A[wrong] = IMPOSSIBLE
    if len(wrong):
        record = records.row(int(record_A[wrong[0]]), named=True)
        values = ", ".join(f"{field}={record[f'INFO/{field}']}" for field in calls.fields)
        tally["impossible", f"{record['contig']}:{record['position'] + 1}: {values}"] += 1

    contig_A, position_A = contig_N[record_A], records["position"].to_numpy()[record_A] + offset_A
    first_C, length_C = genome.slots.T
    stage_A[(stage_A == USED) & ((position_A < 0) | (position_A >= length_C[contig_A]))] = OUTSIDE
    inside = np.flatnonzero(stage_A == USED)
    base = genome.bases_at(contig_A[inside], position_A[inside])
    is_known = base != alphabet.UNKNOWN
    stage_A[inside[~is_known & ~is_kept_A[inside]]] = UNKNOWN_REFERENCE
    inside, base = inside[is_known], base[is_known]
    differing = inside[alphabet.DISTRIBUTIONS[base, before_A[inside]] == 0]
    stage_A[differing] = MISMATCH
    # All of REF has to agree.
    worst_M, wrong = np.full(len(record_M), USED), np.flatnonzero((stage_A == OUTSIDE) | (stage_A == MISMATCH))
    worst_M[allele_A[wrong]] = stage_A[wrong]
    stage_A = np.minimum(stage_A, worst_M[allele_A])
    for name, some in (("compared", inside), ("mismatched", differing)):
        tally["reason", name] += int(np.count_nonzero(np.diff(record_A[some], prepend=-1)))
    if len(differing):
        contig, position = records["contig"][int(record_A[differing[0]])], position_A[differing[0]] + 1
        tally["mismatch", f"{contig}:{position}"] += 1
    stage_N = np.where(contig_N < 0, -1 - contig_N, FILTERED).astype(np.uint8)
    stage_N[is_passing_N] = 0
    np.maximum.at(stage_N, record_M, stage_M)
    np.maximum.at(stage_N, record_A[~is_kept_A], stage_A[~is_kept_A])
    tally.update(_count_reasons(stage_N[stage_N != USED]))
    used = np.flatnonzero((stage_A == USED) & ~is_kept_A)
    position_A += first_C[contig_A]
    columns = [column[used] for column in (position_A, whole_A, frequency_A, before_A, after_A)]
    is_first_A = np.diff(record_A[used], prepend=-1) != 0
    return np.rec.fromarrays([*columns, is_first_A], dtype=ALLELE).view(np.ndarray)


def _split_alternates(
    records: pl.DataFrame, is_passing_N: Bool, fields: Sequence[str]
) -> tuple[Int64, pl.Series, pl.Series, Float64]:
    """Return record, REF, ALT and frequency of each alternate: NaN where missing, -1 for what is no number for each."""
    import polars as pl

    alt, value = pl.col("alt"), pl.col("value")
    rows = records.select("ref", "alt", value=f"INFO/{fields[0]}", below=f"INFO/{fields[-1]}").with_row_index("record")
    if not is_passing_N.all():
        rows = rows.filter(is_passing_N)
    is_many = rows["alt"].str.contains(",", literal=True)
    if is_many.any():
        values, number = value.str.split(","), alt.str.count_matches(",", literal=True) + 1
        alike = pl.when(value == ".").then(value).otherwise(pl.lit("none")).repeat_by(number)
        values = pl.when(values.list.len() == number).then(values).otherwise(alike)
        many = rows.filter(is_many).with_columns(alt=alt.str.split(","), value=values).explode("alt", "value")
        rows = pl.concat([rows.filter(~is_many), many]).sort("record", maintain_order=True)
    record_M = rows["record"].to_numpy().astype(np.int64)
    number = value.cast(pl.Float64, strict=False).fill_null(-1)
    frequency_M = rows.select(pl.when(value != ".").then(number)).to_series().to_numpy()
    if len(fields) > 1:
        number_M = rows["below"].cast(pl.Float64, strict=False).to_numpy()
        frequency_M = frequency_M / np.where(number_M > 0, number_M, np.nan)
    return record_M, rows["ref"], rows["alt"], frequency_M


def _find_changes(refs: pl.Series, alts: pl.Series) -> tuple[UInt8, Int64, Int64, UInt8, UInt8, Int64, Bool]:
    """Return what stops an allele, 0 for none, and of these bases: allele, offset, before, after, `whole`, is_kept."""
    import polars as pl

    (before_B, length_M), (after_B, alt_length_M) = (
        (np.frombuffer((texts.str.join("").item() or "").encode(), np.uint8), texts.str.len_bytes().to_numpy())
        for texts in (refs, alts)
    )
    stage_M = np.minimum.reduceat(_STAGE[after_B], np.cumsum(alt_length_M, dtype=np.int64) - alt_length_M)
    stage_M[(stage_M != USED) & (alt_length_M > 1)] = SYMBOLIC
    stage_M[(stage_M == USED) & (length_M != alt_length_M)] = INDEL
    is_open_M = stage_M == USED
    before_B = before_B[np.repeat(is_open_M, length_M)] & 0xDF  # in upper case
    after_B = after_B[np.repeat(is_open_M, alt_length_M)] & 0xDF
    allele_B, offset_B = list_ranges(np.zeros(len(stage_M), np.int64), length_M * is_open_M)
    is_kept_B = before_B == after_B
    number_M = np.bincount(allele_B[~is_kept_B], minlength=len(stage_M))
    stage_M[is_open_M] = np.where(number_M[is_open_M], 0, SAME)
    row_A = np.flatnonzero(~is_kept_B | ((number_M[allele_B] > 0) & (_CODE[before_B] != _OTHER)))
    allele_A, offset_A, is_kept_A = allele_B[row_A], offset_B[row_A], is_kept_B[row_A]
    whole_A = np.zeros(len(row_A), np.int64)
    is_many_A = (number_M[allele_A] > 1) & ~is_kept_A
    if np.any(is_many_A):
        # A hash of the letters from the first that changes to the last, and the place of the base among them.
        many, begin, which_A = np.unique(allele_A[is_many_A], return_index=True, return_inverse=True)
        place_A = offset_A[is_many_A]
        first, last = place_A[begin], np.append(place_A[begin[1:] - 1], place_A[-1])
        texts = pl.DataFrame({"ref": refs[many], "alt": alts[many], "first": first, "length": last - first + 1})
        cut = (pl.col(name).str.to_uppercase().str.slice("first", "length") for name in ("ref", "alt"))
        hashes = texts.select(pl.concat_str(cut, separator=">").hash()).to_series().to_numpy().view(np.int64)
        whole_A[is_many_A] = (hashes[which_A] + 2 * (place_A - first[which_A])) | 1
    return stage_M, allele_A, offset_A, _CODE[before_B[row_A]], _CODE[after_B[row_A]], whole_A, is_kept_A


def merge_alleles(
    files: Sequence[Sequence[Path]], genome: ProbabilisticGenome, min_frequency: float
) -> tuple[Int64, UInt16, list[Tally]]:
    """Return slots and frequencies that are kept of the alleles of each file, and what became of its records."""
    arrays = [[np.zeros(0, ALLELE), *map(np.load, paths)] for paths in files]
    end_F = np.cumsum([sum(map(len, pieces)) for pieces in arrays])
    alleles = np.concatenate([np.zeros(0, ALLELE), *chain(*arrays)])
    del arrays
    is_first_A, is_part_A = alleles["is_first"].copy(), alleles["whole"] != 0
    order_A = np.argsort(alleles["position"], kind="stable")
    alleles, stage_A = alleles[order_A], np.empty(len(order_A), dtype=np.uint8)
    # A piece begins with the first allele of a position.
    begins = np.searchsorted(alleles["position"], alleles["position"][::_MERGED_AT_ONCE])
    edges = pairwise([0, *begins, len(order_A)])
    pieces = [_merge_piece(alleles[begin:end], min_frequency) for begin, end in edges]
    slot_V, row_V4, stage_A[order_A] = map(np.concatenate, zip(*pieces, strict=True))
    tallies: list[Tally] = [Counter() for _ in files]
    for tally, (start, end) in zip(tallies, pairwise([0, *end_F]), strict=True):
        stage, first = stage_A[start:end], np.flatnonzero(is_first_A[start:end])
        if (stage == IMPOSSIBLE).any():
            slot = alleles["position"][order_A == start + int(np.argmax(stage == IMPOSSIBLE))]
            contig = int(genome.contig_at(slot)[0])
            place = f"{list(genome.contigs)[contig]}:{slot[0] - genome.slots[contig, 0] + 1}"
            tally["impossible", f"{place}: the alternate alleles of its records sum to more than 1"] += 1
        if len(first):
            tally.update(_count_reasons(np.maximum.reduceat(stage, first)))
            is_decomposed_N = np.logical_or.reduceat((stage == USED) & is_part_A[start:end], first)
            tally["reason", "decomposed"] = int(is_decomposed_N.sum())
    return slot_V, row_V4, tallies


def _merge_piece(alleles: Alleles, min_frequency: float) -> tuple[Int64, UInt16, UInt8]:
    """Return slots and frequencies of alleles whose positions ascend, and how far each of them came."""
    position_A, whole_A, frequency_A, before_A, after_A, _ = (alleles[name].copy() for name in ALLELE.names or ())
    is_new_A = np.diff(position_A, prepend=-1) != 0
    # Of equal alleles the first counts, and the first at a position is the one whose reference base holds.
    first_P, site_A = np.flatnonzero(is_new_A), np.cumsum(is_new_A) - 1
    reference_P, equal_A = before_A[first_P], np.arange(len(site_A))
    # Only alleles that share their position can be equal.
    shared = np.flatnonzero((np.diff(first_P, append=len(site_A)) > 1)[site_A])
    key_A = (position_A[shared] * 16 + before_A[shared] * 4 + after_A[shared]) * _MIX + whole_A[shared]
    _, first, which = np.unique(key_A, return_index=True, return_inverse=True)
    equal_A[shared] = shared[first[which]]
    is_first_A = equal_A == np.arange(len(site_A))
    agrees_A = (before_A == reference_P[site_A]) & (frequency_A == frequency_A[equal_A])
    accepted_A = agrees_A & is_first_A

    sum_P = np.bincount(site_A, weights=np.where(accepted_A, frequency_A, 0))
    is_wrong_P = sum_P > 1 + SUM_TOLERANCE
    kept_P = ~is_wrong_P & (sum_P > min_frequency * (1 + _ROUNDING))
    used_A = accepted_A & kept_P[site_A] & (frequency_A > 0)
    stage_A = np.full(len(site_A), TOO_RARE, dtype=np.uint8)
    stage_A[used_A], stage_A[~is_first_A], stage_A[~agrees_A] = USED, DUPLICATE, CONFLICT
    stage_A[accepted_A & is_wrong_P[site_A]] = IMPOSSIBLE

    # An allele of several nucleotides and one of a single may bring the same base.
    base_A = (np.cumsum(kept_P) - 1)[site_A[used_A]] * 4 + after_A[used_A]
    # Without any, `bincount` would return integers.
    sum_B = np.bincount(base_A, frequency_A[used_A], 4 * np.count_nonzero(kept_P)).astype(float)
    frequency_V4 = sum_B.reshape(-1, 4)
    frequency_V4[np.arange(len(frequency_V4)), reference_P[kept_P]] = np.maximum(1 - sum_P[kept_P], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
    return position_A[first_P[kept_P]], float_to_fixed(frequency_V4), stage_A
