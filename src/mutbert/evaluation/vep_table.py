"""Labelled variants from a table or a VCF as a frame: a row for each row, or for each alternate allele of the VCF.

Its columns are `chromosome`, `position` (1-based), `ref`, `alt` and `label` as in the file; `frequency`, `splice` and
`group` where columns are named for them; `target`, the label as 0 or 1, the index of a class, or a number; and
`reason`, why a row has no target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mutbert.errors import InputError
from mutbert.genome.vcf import read_header, read_records
from mutbert.regions import names_text
from mutbert.tables import LINE, MISSING, find_file, listed_names, numbers, positions, read_table, reject, texts_of

if TYPE_CHECKING:
    from pathlib import Path

    from mutbert.tables import SourceFile

NO_LABEL: Final = "no_label"
LEFT_OUT: Final = "left_out"
VARIANT_COLUMNS: Final = {
    "chromosome": ("chromosome", "chrom", "#chrom", "chr", "contig", "seqname"),
    "position": ("position", "pos", "start_1based"),
    "ref": ("ref", "reference", "reference_allele", "ref_allele"),
    "alt": ("alt", "alternate", "alternate_allele", "alt_allele"),
}
"""The usual names, in any case, of the columns that define a variant."""

_VCF: Final = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
_TRUTHS: Final = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
_MOST_CLASSES: Final = 30


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
    chromosome: str | None = None  # columns of a table without the usual names
    position: str | None = None
    ref: str | None = None
    alt: str | None = None

    def __post_init__(self) -> None:
        if (self.label is None) == (self.effect is None):
            raise InputError("use either --label, a column of classes, or --effect, a column of numbers")
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
    """Return columns with what ``chromosome=CHR,position=POS`` sets of `VARIANT_COLUMNS`."""
    entries = [entry.partition("=") for entry in text.split(",")] if text else []
    named: dict[str, Any] = {what.strip(): name.strip() for what, _, name in entries}
    if not (named.keys() <= VARIANT_COLUMNS.keys() and all(named.values())):
        options = ",".join(f"{what}=NAME" for what in VARIANT_COLUMNS)
        raise InputError(f"--columns {text}: use {options}, or some of them")
    return replace(columns, **named)


class Labels(NamedTuple):
    """What the labels of a file are."""

    source: SourceFile
    problem: str  # binary, multiclass or regression
    classes: tuple[str, ...]  # names of the negative and the positive, of the classes, or of the number
    notes: tuple[str, ...] = ()


def read_labelled(place: str | Path, columns: VepColumns) -> tuple[pl.DataFrame, Labels]:
    """Return the frame of labelled variants in the order of the file, and what its labels are.

    Of a VCF, columns are INFO fields: with ``Number=A`` or ``R`` each alternate allele has its own value, otherwise all
    of a record have the whole text; a flag is 1 or 0.
    """
    name = str(place)
    of_vcf = name.lower().endswith(_VCF)
    frame, texts, source = _from_vcf(place, columns) if of_vcf else _from_table(place, columns)
    frame = frame.with_columns(texts[columns.extras[0]].fill_null("").alias("label"))
    if columns.frequency is not None:
        frame = frame.with_columns(frequency=numbers(texts, name, columns.frequency, low=0, high=1))
    if columns.splice_distance is not None:
        frame = frame.with_columns(splice=numbers(texts, name, columns.splice_distance).abs())
    if columns.group is not None:
        frame = frame.with_columns(texts.select(_known(columns.group).fill_null("").alias("group")))
    if columns.effect is None:
        return _with_classes(frame, source, columns)
    target = numbers(texts, name, columns.effect)
    reason = pl.when(target.is_null()).then(pl.lit(NO_LABEL))
    return frame.with_columns(target=target, reason=reason), Labels(source, "regression", (columns.effect,))


def _from_table(place: str | Path, columns: VepColumns) -> tuple[pl.DataFrame, pl.DataFrame, SourceFile]:
    """Return a table's variants, all its columns as text, and its source."""
    found: dict[str, str] = {}

    def wanted(header: list[str]) -> list[str]:
        lower = {name.strip().lower(): name for name in reversed(header)}
        for what, usual in VARIANT_COLUMNS.items():
            named = getattr(columns, what)
            found[what] = named or next((lower[name] for name in usual if name in lower), "")
            if found[what] not in header:
                hint = f"none of {', '.join(usual)}" if named is None else f"{named!r}"
                raise InputError(
                    f"{place}: no column of the {what} ({hint}); there are {listed_names(header)}; name it with "
                    f"--columns {what}=NAME"
                )
        return [*found.values(), *columns.extras]

    texts, source = read_table(place, wanted)
    name = str(place)
    for column in (*found.values(), *columns.extras):
        texts_of(texts, name, column)
    for what in ("chromosome", "ref"):
        reject(texts, name, found[what], pl.col(found[what]).is_null(), "fill it in")
    reject(texts, name, found["alt"], pl.col(found["alt"]).str.contains(","), "write a row for each alternate allele")
    position = positions(texts, name, found["position"])
    variants = texts.select(pl.col(column).alias(what) for what, column in found.items())
    return variants.with_columns(position.alias("position"), pl.col("alt").fill_null("")), texts, source


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
                raise InputError(
                    f"{place}, {line}: INFO field {name} has {has} values for {'REF and ' * own}{of} alternate "
                    "alleles; correct it"
                )
            missing = pl.lit(".").repeat_by(alternates)
            values = pl.when(field == ".").then(missing).otherwise(values.list.slice(own))
            records = records.with_columns(values.alias(f"INFO/{name}"))
            lists.append(f"INFO/{name}")
    rows = records.explode(lists)
    texts = rows.select(LINE, *(pl.col(f"INFO/{name}").alias(name) for name in columns.extras))
    return rows.select("position", "ref", "alt", chromosome="contig"), texts, source


def _known(column: str) -> pl.Expr:
    """Return a column of text, null where it is missing."""
    text = pl.col(column)
    return pl.when(~text.str.to_lowercase().is_in(["", *MISSING])).then(text)


def _with_classes(frame: pl.DataFrame, source: SourceFile, columns: VepColumns) -> tuple[pl.DataFrame, Labels]:
    """Return the frame with targets of classes."""
    label, place = columns.label, source.place
    values: list[str] = frame.select(_known("label").drop_nulls().unique().sort()).to_series().to_list()
    excluded = set(columns.exclude)
    if columns.negative:
        excluded |= set(values) - set(columns.positive) - set(columns.negative)
    there = [value for value in values if value not in excluded]
    notes = tuple(
        f"No variant has the value {value} that --{option} names."
        for option in ("positive", "negative", "exclude")
        for value in getattr(columns, option)
        if value not in values
    )
    if columns.positive:
        if not set(columns.positive) & set(there):
            raise InputError(
                f"{place}: {label} is nowhere {' or '.join(columns.positive)}; there are {listed_names(values)}"
            )
        problem, target_of = "binary", {value: float(value in columns.positive) for value in there}
        others = [value for value in there if value not in columns.positive]
        classes: tuple[str, ...] = (_joined(others), _joined(list(columns.positive)))
    elif all(value.lower() in _TRUTHS for value in there):
        problem, classes = "binary", ("0", "1")
        target_of = {value: _TRUTHS[value.lower()] for value in there}
    elif len(there) == 2:
        raise InputError(f"{place}: {label} is {there[0]} or {there[1]}; name one, such as --positive {there[1]}")
    elif len(there) > _MOST_CLASSES:
        raise InputError(
            f"{place}: {label} has {len(there):,} different values; name the positive ones with --positive, or "
            f"use --effect {label} if they are numbers"
        )
    else:
        problem, classes = "multiclass", tuple(there)
        target_of = {value: float(index) for index, value in enumerate(there)}
    no_label, left_out = _known("label").is_null(), pl.col("label").is_in(list(excluded))
    target = _known("label").replace_strict(list(target_of), list(target_of.values()), default=None)
    frame = frame.with_columns(
        target=target.cast(pl.Float64),
        reason=pl.when(no_label).then(pl.lit(NO_LABEL)).when(left_out).then(pl.lit(LEFT_OUT)),
    )
    return frame, Labels(source, problem, classes, notes)


def _joined(values: list[str]) -> str:
    return names_text(values, 3).replace(", ", " / ") if len(values) != 1 else values[0]
