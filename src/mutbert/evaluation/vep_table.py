"""Labelled variants from a table or a VCF as a frame: a row for each row, or for each alternate allele of the VCF.

Its columns are `chrom`, `pos` (1-based), `ref`, `alt` and `label` as in the file; `frequency`, `splice` and
`group` where columns are named for them; `target`, the label as 0 or 1, the index of a class, or a number; and
`reason`, why a row has no target.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mutbert.effects.alleles import COMPARED, Alleles, Reason
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import read_header, read_records
from mutbert.regions import names_text
from mutbert.settings import list_fields
from mutbert.tables import (
    LINE,
    MISSING,
    SourceFile,
    find_file,
    listed_names,
    numbers,
    positions,
    read_table,
    reject,
    texts_of,
)

NO_LABEL: Final = "no_label"
LEFT_OUT: Final = "left_out"
VARIANT_COLUMNS: Final = {
    "chrom": ("chromosome", "chrom", "#chrom", "chr", "contig", "seqname"),
    "pos": ("position", "pos", "start_1based"),
    "ref": ("ref", "reference", "reference_allele", "ref_allele"),
    "alt": ("alt", "alternate", "alternate_allele", "alt_allele"),
}
"""The usual names, in any case, of the columns that define a variant."""

_TRUTHS: Final = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}


@dataclass(frozen=True)
class VepColumns:
    """The meaning of a table's columns, or of a VCF's INFO fields."""

    label: str | None = None  # column, or INFO field, of classes
    effect: str | None = None  # instead of --label: one of numbers
    positive: tuple[str, ...] = ()  # values of the label that are positive; others are negative
    negative: tuple[str, ...] = ()  # values that are negative; with it, others are left out
    exclude: tuple[str, ...] = ()  # values to leave out
    frequency: str | None = None  # column of allele frequencies, from 0 to 1; by default the genome store's
    splice_distance: str | None = None  # column of bases to the nearest splice site, on either side
    group: str | None = None  # column by which results are also split
    chrom: str | None = None  # columns of a table without the usual names
    pos: str | None = None
    ref: str | None = None
    alt: str | None = None

    def __post_init__(self) -> None:
        list_fields(self)
        if self.effect is not None and (self.positive or self.negative or self.exclude):
            raise InputError("--positive, --negative and --exclude name values of --label; --effect has numbers")
        if self.negative and not self.positive:
            raise InputError("--negative needs --positive; name the values that are positive")
        for one, other in (("positive", "negative"), ("positive", "exclude"), ("negative", "exclude")):
            if both := set(getattr(self, one)) & set(getattr(self, other)):
                raise InputError(f"--{one} and --{other} both name {names_text(sorted(both))}; name it once")

    @property
    def extras(self) -> tuple[str, ...]:
        """The columns other than `VARIANT_COLUMNS`, each once."""
        named = (self.label, self.effect, self.frequency, self.splice_distance, self.group)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def columns_of(text: str | None, columns: VepColumns) -> VepColumns:
    """Return columns with what ``chrom=CHR,pos=POS`` sets of `VARIANT_COLUMNS`."""
    entries = [entry.partition("=") for entry in text.split(",")] if text else []
    named: dict[str, Any] = {what.strip(): name.strip() for what, _, name in entries}
    if not (named.keys() <= VARIANT_COLUMNS.keys() and all(named.values())):
        options = ",".join(f"{what}=NAME" for what in VARIANT_COLUMNS)
        raise InputError(f"--columns {text}: use {options}, or some of them")
    return replace(columns, **named)


def read_labelled(place: str | Path, columns: VepColumns) -> tuple[pl.DataFrame, SourceFile, str, tuple[str, ...]]:
    """Return the frame of labelled variants in the order of the file, the file, the problem, and names of classes.

    Names are of the negative and the positive class, of several, or of the number. Of a VCF, columns are INFO fields:
    with ``Number=A`` or ``R`` each alternate allele has its own value; a flag is 1 or 0.
    """
    if (columns.label is None) == (columns.effect is None):
        raise InputError("use either --label, a column of classes, or --effect, a column of numbers")
    is_vcf = str(place).lower().endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"))
    read = _from_vcf if is_vcf else _from_table
    frame, texts, source = read(place, columns)
    name, label, missing = source.place, columns.extras[0], ("", *MISSING)
    known = texts_of(texts, name, label, missing=missing)
    found = {"label": texts_of(texts, name, label).fill_null("")}
    if columns.frequency is not None:
        found["frequency"] = numbers(texts, name, columns.frequency, low=0, high=1)
    if columns.splice_distance is not None:
        found["splice"] = numbers(texts, name, columns.splice_distance).abs()
    if columns.group is not None:
        found["group"] = texts_of(texts, name, columns.group, missing=missing).fill_null("")
    if columns.effect is None:
        problem, classes, target_of = _classes(known.drop_nulls().unique().sort().to_list(), name, columns)
        target = known.replace_strict(target_of, default=None, return_dtype=pl.Float64)
    else:
        problem, classes, target = "regression", (label,), numbers(texts, name, label)
    reason = pl.when(known.is_null()).then(pl.lit(NO_LABEL)).when(target.is_null()).then(pl.lit(LEFT_OUT))
    return frame.with_columns(**found, target=target, reason=reason), source, problem, classes


def _from_table(place: str | Path, columns: VepColumns) -> tuple[pl.DataFrame, pl.DataFrame, SourceFile]:
    """Return a table's variants, all its columns as text, and its source."""
    found: dict[str, str] = {}

    def wanted(header: list[str]) -> list[str]:
        lower = {name.strip().lower(): name for name in reversed(header)}
        for what, usual in VARIANT_COLUMNS.items():
            found[what] = getattr(columns, what) or next((lower[name] for name in usual if name in lower), "")
            if not found[what]:
                there, remedy = listed_names(header), f"name that of {what} with --columns {what}=NAME"
                raise InputError(f"{place}: none of the columns {', '.join(usual)}; there are {there}; {remedy}")
        return [*found.values(), *columns.extras]

    texts, source = read_table(place, wanted)
    name = source.place
    variants = texts.select(texts_of(texts, name, column).alias(what) for what, column in found.items())
    for what in ("chrom", "ref"):
        reject(texts, name, found[what], pl.col(found[what]).is_null(), "fill it in")
    reject(texts, name, found["alt"], pl.col(found["alt"]).str.contains(","), "write a row for each alternate allele")
    pos = positions(texts, name, found["pos"])
    return variants.with_columns(pl.col("alt").fill_null(""), pos=pos), texts, source


def _from_vcf(place: str | Path, columns: VepColumns) -> tuple[pl.DataFrame, pl.DataFrame, SourceFile]:
    """Return a VCF's alternate alleles, their INFO fields as text, and its source."""
    path, source = find_file(place)
    if named := [what for what in VARIANT_COLUMNS if getattr(columns, what) is not None]:
        raise InputError(f"{place}: a VCF has columns of its own; leave out --columns {named[0]}=...")
    declared = read_header(path).info
    for name in columns.extras:
        if name not in declared:
            raise InputError(f"{place}: no INFO field {name!r} is declared; there are {listed_names(declared)}")
    blocks = list(read_records(path, [f"INFO/{name}" for name in columns.extras]))
    if not any(map(len, blocks)):
        raise InputError(f"{place}: holds no records; choose a file with variants in it")
    records = pl.concat(blocks).with_columns(pl.col("position") + 1, pl.col("alt").str.split(","))
    records = records.with_columns(pl.concat_str("contig", pl.lit(":"), "position").alias(LINE))
    alternates, lists = pl.col("alt").list.len(), ["alt"]
    for name in columns.extras:
        (number, kind), field = declared[name], pl.col(f"INFO/{name}")
        if kind == "Flag":
            records = records.with_columns(field.replace(".", "0"))
        elif number in {"A", "R"}:
            values, own = field.str.split(","), int(number == "R")
            wrong = records.filter((field != ".") & (values.list.len() != alternates + own))
            for line, has, of in wrong.select(LINE, values.list.len(), alternates).head(1).iter_rows():
                what = f"INFO field {name} has {has} values for {'REF and ' * own}{of} alternate alleles"
                raise InputError(f"{place}, {line}: {what}; correct it")
            missing = pl.lit(".").repeat_by(alternates)
            values = pl.when(field == ".").then(missing).otherwise(values.list.slice(own))
            records = records.with_columns(values.alias(f"INFO/{name}"))
            lists.append(f"INFO/{name}")
    rows = records.explode(lists)
    texts = rows.select(LINE, *(pl.col(f"INFO/{name}").alias(name) for name in columns.extras))
    return rows.select("ref", "alt", chrom="contig", pos="position"), texts, source


def _classes(values: list[str], place: str, columns: VepColumns) -> tuple[str, tuple[str, ...], dict[str, float]]:
    """Return the problem, the names of its classes, and the target of each value that is not left out."""
    label, excluded = columns.label, set(columns.exclude)
    if columns.negative:
        excluded |= set(values) - set(columns.positive) - set(columns.negative)
    there = [value for value in values if value not in excluded]
    if columns.positive:
        if not set(columns.positive) & set(there):
            what = f"{label} is nowhere {' or '.join(columns.positive)}"
            raise InputError(f"{place}: {what}; there are {listed_names(values)}")
        others = [value for value in there if value not in columns.positive]
        names = _joined(others), _joined(list(columns.positive))
        return "binary", names, {value: float(value in columns.positive) for value in there}
    if all(value.lower() in _TRUTHS for value in there):
        return "binary", ("0", "1"), {value: _TRUTHS[value.lower()] for value in there}
    if len(there) == 2:
        raise InputError(f"{place}: {label} is {there[0]} or {there[1]}; name one, such as --positive {there[1]}")
    if len(there) > 30:
        remedy = f"name the positive ones with --positive, or use --effect {label} if they are numbers"
        raise InputError(f"{place}: {label} has {len(there):,} different values; {remedy}")
    return "multiclass", tuple(there), {value: float(index) for index, value in enumerate(there)}


def _joined(values: list[str]) -> str:
    return names_text(values, 3).replace(", ", " / ") if len(values) != 1 else values[0]


def check_genome(place: str, contigs: pl.Series, alleles: Alleles, genome: ProbabilisticGenome) -> None:
    """Raise InputError where a genome has none of the contigs, or over a tenth of the reference alleles differ."""
    if (alleles.reason_A == Reason.CONTIG_NOT_IN_GENOME).all():
        given, known = names_text(contigs.unique(maintain_order=True)), names_text(genome.contigs)
        remedy = "use the genome of the table's species and assembly"
        raise InputError(f"{place}: none of its contigs ({given}) is in {genome.path} ({known}); {remedy}")
    wrong = int((alleles.reason_A == Reason.REFERENCE_MISMATCH).sum())
    compared = int(np.isin(alleles.reason_A, COMPARED).sum())
    if wrong > 0.1 * compared:
        what = f"the reference allele is not what {genome.path} has in {wrong:,} of {compared:,} variants"
        remedy = "use the genome of the table's assembly, and 1-based positions"
        raise InputError(f"{place}: {what}, more than 10 %; {remedy}")


def count_values(texts: pl.Series) -> dict[str, int]:
    """Return how often each text occurs, in order."""
    return dict(texts.drop_nulls().value_counts().sort(texts.name).iter_rows())
