"""Tables of variants, and the windows of a genome around them.

Every row stays in its table, and one that is not used has a reason. Shape suffixes: N rows, U distinct windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.evaluation.suites import EqtlColumns
from mutbert.examples.splits import region_split
from mutbert.genome.fasta import read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.regions import ContigNames, Region
from mutbert.tables import numbers, positions, read_table, reject, texts_of, truths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Bool, Int64
    from mutbert.tables import SourceFile

REASONS: Final = (
    "no distance is given",
    "the split is neither train nor test",
    "other than a change of one base",
    "the contig is not in the genome",
    "the window goes beyond the contig's end",
    "the reference base is not the genome's",
    "the variant's token was not found",
)
"""Why rows are not used; of several reasons a row has the first."""
_DISTANCE, _SPLIT, _ALLELES, _CONTIG, _WINDOW, _REFERENCE, TOKEN = REASONS
_BASES: Final = {base: code for code, base in enumerate(alphabet.BASES)}


class Variants(NamedTuple):
    """A table of variants, the file that it was read from, and how its rows were split."""

    # In the file's order: contig and tissue; position, 0-based; reference and alternate, base codes, or null; label, 1
    # where causal; distance, in bases on either side, or null; is_test; reason, of `REASONS`, or null where used.
    table: pl.DataFrame
    source: SourceFile
    split_by: str  # column; or contigs, where the file has none


def read_variants(place: str | Path, columns: EqtlColumns | None = None) -> Variants:
    """Return a table of variants, positions 1-based in the file; without a split, whole contigs are test rows."""
    columns = columns or EqtlColumns()
    names = [name for key, name in columns if key != "split"]
    file, source = read_table(place, lambda header: [*names, *{columns.split}.intersection(header)])
    place = source.place
    labels, distances = truths(file, place, columns.label), numbers(file, place, columns.distance)
    reject(file, place, columns.label, labels.is_null(), "expected 0 or 1")
    texts = {}
    for key in ("contig", "tissue"):
        texts[key] = texts_of(file, place, getattr(columns, key))
        reject(file, place, getattr(columns, key), texts[key].is_null(), "fill it in, or remove the row")
    alleles = [
        texts_of(file, place, name).str.to_uppercase().replace_strict(_BASES, default=None, return_dtype=pl.UInt8)
        for name in (columns.reference, columns.alternate)
    ]
    if by_column := columns.split in file.columns:
        splits = texts_of(file, place, columns.split).str.to_lowercase()
    else:
        splits = _by_contigs(place, columns.split, texts["contig"])
    for split in ("train", "test"):
        if not (splits == split).any():
            raise InputError(f"{place}: no row has {split!r} in column {columns.split}; rows are train or test")
    masks = {
        _DISTANCE: distances.is_null(),
        _SPLIT: ~splits.is_in(["train", "test"]).fill_null(False),
        _ALLELES: (alleles[0] == alleles[1]).fill_null(True),
    }
    values = {
        **texts,
        "position": positions(file, place, columns.position) - 1,
        "reference": alleles[0],
        "alternate": alleles[1],
        "label": labels.cast(pl.Int64),
        "distance": distances.abs(),
        "is_test": (splits == "test").fill_null(False),
        "reason": _first_reason(masks),
    }
    return Variants(pl.DataFrame(values), source, "column" if by_column else "contigs")


def _by_contigs(place: str, column: str, contigs: pl.Series) -> pl.Series:
    """Return the split of each row."""
    held_N = region_split([Region(contig, 0, 1) for contig in contigs], 0.2, 0)
    if held_N is None:
        only = f"no column {column!r}, and all variants are on contig {contigs[0]}"
        raise InputError(f"{place}: {only}; add a column with train or test")
    return pl.Series(np.where(held_N, "test", "train"))


def _first_reason(masks: Mapping[str, pl.Series | Bool], before: pl.Series | None = None) -> pl.Series:
    """Return the first reason that holds for each row, after those of `before`; null where none does."""
    found = [pl.when(pl.Series(mask)).then(pl.lit(reason)) for reason, mask in masks.items()]
    return pl.select(reason=pl.coalesce(*([] if before is None else [before]), *found)).to_series()


def count_reasons(reasons: pl.Series) -> dict[str, int]:
    """Return how many rows are not used by reason, in the order of `REASONS`."""
    counts = dict(reasons.drop_nulls().value_counts().iter_rows())
    return {reason: counts[reason] for reason in REASONS if reason in counts}


def open_genome(place: str | Path, table: pl.DataFrame) -> ProbabilisticGenome:
    """Return a genome store; or a FASTA (plain, gzip or bgzip), of which the table's contigs alone are kept."""
    path = Path(place)
    if path.is_dir():
        return ProbabilisticGenome.open(path)
    wanted = ContigNames(table["contig"].unique())
    return ProbabilisticGenome.from_sequences((one for one in read_fasta(path) if wanted.find(one[0])), path)


def find_windows(
    variants: Variants, genome: ProbabilisticGenome, length: int
) -> tuple[pl.DataFrame, tuple[Int64, Int64, Int64]]:
    """Return a table with its windows' numbers, -1 where a row is not used, and contig, start and allele of each."""
    if length < 1:
        raise ValueError(f"length is {length}; it must be above 0")
    table, place = variants.table, variants.source.place
    names, number_of = ContigNames(genome.lengths), {name: number for number, name in enumerate(genome.lengths)}
    contigs = {name: number_of.get(names.find(name) or "", -1) for name in table["contig"].unique()}
    contig_N = table["contig"].replace_strict(contigs, return_dtype=pl.Int64).to_numpy()
    position_N = table["position"].to_numpy()
    start_N = position_N - length // 2
    inside_N = (start_N >= 0) & (start_N + length <= np.array([*genome.lengths.values(), -1])[contig_N])
    compared = np.flatnonzero(inside_N & table["reason"].is_null().to_numpy())
    base_B = genome.windows(contig_N[compared], position_N[compared], 1).base_BL[:, 0]
    unlike_N = np.zeros(len(table), dtype=np.bool_)
    unlike_N[compared] = base_B != table["reference"].to_numpy()[compared]
    # Two different genomes agree in every third or fourth base.
    if unlike_N.sum() > len(compared) / 2:
        wrong = f"the reference base is not the genome's in {unlike_N.sum()} of {len(compared)} variants"
        raise InputError(f"{place}: {wrong}; use the genome of the table's assembly")
    reasons = _first_reason({_CONTIG: contig_N < 0, _WINDOW: ~inside_N, _REFERENCE: unlike_N}, table["reason"])
    used = np.flatnonzero(reasons.is_null())
    if not len(used):
        counts = ", ".join(f"{reason} ({count})" for reason, count in count_reasons(reasons).items())
        raise InputError(f"{place}: no row can be used: {counts}; use the table's own genome, or another table")
    window_2N = np.full((2, len(table)), -1, dtype=np.int64)
    allele_2B = table[used].select("reference", "alternate").to_numpy().T.astype(np.int64)
    # One integer for contig, start and allele; a contig is shorter than 2**40 and bases are four.
    key_U, window_2B = np.unique(((contig_N[used] << 40) + start_N[used]) * 4 + allele_2B, return_inverse=True)
    window_2N[:, used] = window_2B.reshape(2, -1)
    numbers = {"reference_window": pl.Series(window_2N[0]), "alternate_window": pl.Series(window_2N[1])}
    return table.with_columns(reasons, **numbers), (key_U >> 42, (key_U >> 2) & ((1 << 40) - 1), key_U & 3)
