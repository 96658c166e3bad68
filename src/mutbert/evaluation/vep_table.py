"""Labelled variants from a table or a VCF: where they lie, what they change, and what is known of each.

Every row stays; one that has no label, or one to leave out, bears the reason. Shape suffix: N rows, one an alternate
allele.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mutbert.errors import InputError, MissingExtraError
from mutbert.examples.columns import listed_names, read_table
from mutbert.examples.places import SourceFile, find_file
from mutbert.genome.vcf import read_header, read_records
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from mutbert.arrays import Float64

    Texts = npt.NDArray[np.object_]

NO_LABEL: Final = "no_label"
LEFT_OUT: Final = "left_out"

PLACES: Final = {
    "chromosome": ("chromosome", "chrom", "#chrom", "chr", "contig", "seqname"),
    "position": ("position", "pos", "start_1based"),
    "ref": ("ref", "reference", "reference_allele", "ref_allele"),
    "alt": ("alt", "alternate", "alternate_allele", "alt_allele"),
}
"""What the columns that place a variant are called, in any case, where nothing else is said."""

_VCF: Final = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
_MISSING: Final = ("", ".", "nan", "na", "n/a", "null", "none")
_TRUTH: Final = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_POSITION: Final = r"^(?P<number>[0-9]{1,10})(?:\.0*)?$"
_NUMBER: Final = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_MOST_CLASSES: Final = 30


@dataclass(frozen=True)
class VepColumns:
    """Which columns of a table, or INFO fields of a VCF, mean what.

    Parameters
    ----------
    label : str, optional
        Classes; either this or `effect`.
    effect : str, optional
        Numbers.
    positive : tuple of str
        The values of the label that are positive.
    negative : tuple of str
        Those that are negative; where left out, all others are. With it, all others are left out.
    exclude : tuple of str
        Values of the label to leave out.
    frequency, splice_distance, group : str, optional
        Allele frequency from 0 to 1; bases to the nearest splice site, on either side; what results are also split by.
    chromosome, position, ref, alt : str, optional
        Of a table, where its columns have none of the usual names (`PLACES`).
    """

    label: str | None = None
    effect: str | None = None
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    frequency: str | None = None
    splice_distance: str | None = None
    group: str | None = None
    chromosome: str | None = None
    position: str | None = None
    ref: str | None = None
    alt: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """Every value of the label that is named."""
        return (*self.positive, *self.negative, *self.exclude)

    def check(self) -> None:
        """Refuse what does not go together.

        Raises
        ------
        InputError
            When there is not one of label and effect, or values are named that no label has.
        """
        if (self.label is None) == (self.effect is None):
            raise InputError("give either --label, a column of classes, or --effect, a column of numbers")
        if self.effect is not None and (self.positive or self.negative or self.exclude):
            raise InputError("--positive, --negative and --exclude name values of --label; --effect has numbers")
        if self.negative and not self.positive:
            raise InputError("--negative is given without --positive; say which values are positive")
        for name, one, other in (
            ("--positive and --negative", self.positive, self.negative),
            ("--positive and --exclude", self.positive, self.exclude),
            ("--negative and --exclude", self.negative, self.exclude),
        ):
            if set(one) & set(other):
                raise InputError(f"{name} both name {names_text(sorted(set(one) & set(other)))}; name it once")

    @property
    def extras(self) -> tuple[str, ...]:
        """The columns beside those that place a variant, each once."""
        named = (self.label, self.effect, self.frequency, self.splice_distance, self.group)
        return tuple(dict.fromkeys(name for name in named if name is not None))


class Labels(NamedTuple):
    """What is so, by row.

    Parameters
    ----------
    problem : {"binary", "multiclass", "regression"}
        Positive or not; one of several classes; a number.
    classes : tuple of str
        ``binary``: what the negative and what the positive ones are called. ``multiclass``: the classes, sorted.
    label_N : ndarray of float64, shape (N,)
        0 or 1; the number of the class; the number itself. Not a number where there is none.
    reason_N : ndarray of object, shape (N,)
        `NO_LABEL` or `LEFT_OUT`; empty where there is a label.
    notes : tuple of str
        What the reader should know.
    """

    problem: str
    classes: tuple[str, ...]
    label_N: Float64
    reason_N: Texts
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelledVariants:
    """Variants with labels, one alternate allele a row.

    Parameters
    ----------
    source : SourceFile
        The file.
    contigs, positions, references, alternates : list
        As the file has them; positions are 1-based.
    texts : list of str
        The label as the file has it.
    labels : Labels
        What it means.
    frequency_N, splice_N : ndarray of float64, shape (N,), or None
        Allele frequency, and bases to the nearest splice site; not a number where a row has none, ``None`` where no
        column was named.
    groups : list of str or None
        What results are split by; empty where a row has none.
    """

    source: SourceFile
    contigs: list[str]
    positions: list[int]
    references: list[str]
    alternates: list[str]
    texts: list[str]
    labels: Labels
    frequency_N: Float64 | None
    splice_N: Float64 | None
    groups: list[str] | None

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.positions)


def read_labelled(place: str | Path, columns: VepColumns) -> LabelledVariants:
    """Read labelled variants.

    Parameters
    ----------
    place : str or Path
        CSV, TSV (each also with gzip), Parquet; or VCF (plain, gzip, bgzip) or BCF, told by the name's end. As for
        `mutbert.examples.places.find_file`. A VCF's columns are INFO fields: with ``Number=A`` or ``R`` each alternate
        allele has its own value, otherwise all alternates of a record have the whole text; a flag is 1 or 0.
    columns : VepColumns
        Which columns mean what.

    Returns
    -------
    LabelledVariants
        In the order of the file.

    Raises
    ------
    InputError
        When the file cannot be found or read, lacks a column or field, holds no rows, or a position, number or label
        is none. The message names file and line.
    MissingExtraError
        When a library is needed and not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "bench") from None
    columns.check()
    path, source = find_file(place)
    of_vcf = source.place.lower().endswith(_VCF)
    rows = _from_vcf(path, source.place, columns) if of_vcf else _from_table(path, source.place, columns)
    if not rows.positions:
        raise InputError(f"{source.place}: holds no rows; give a table with variants in it")
    if columns.effect is not None:
        labels = _effects(rows, columns.effect)
    else:
        assert columns.label is not None, "columns were checked"
        labels = _classes(rows, columns.label, columns)
    frequency_N = _numbers(rows, columns.frequency, "allele frequencies are numbers from 0 to 1", (0.0, 1.0))
    splice_N = _numbers(rows, columns.splice_distance, "distances are numbers of bases")
    return LabelledVariants(
        source,
        rows.contigs,
        rows.positions,
        rows.references,
        rows.alternates,
        rows.text[columns.extras[0]].to_pylist(),
        labels,
        frequency_N,
        None if splice_N is None else np.abs(splice_N),
        None if columns.group is None else _known(rows.text[columns.group]),
    )


class _Rows(NamedTuple):
    """Rows before their columns are understood; `line_of` gives the place of a row, for messages."""

    place: str
    contigs: list[str]
    positions: list[int]
    references: list[str]
    alternates: list[str]
    text: Mapping[str, pa.Array]
    line_of: Callable[[int], str]

    def wrong(self, row: int, what: str) -> InputError:
        return InputError(f"{self.place}, {self.line_of(row)}: {what}")


def _from_table(path: Path, place: str, columns: VepColumns) -> _Rows:
    import pyarrow.compute as pc

    found = _place_columns(_header(path, place), place, columns)
    file = read_table(path, place, list(dict.fromkeys([*found.values(), *columns.extras])))
    text = {}
    for name, array in file.columns.items():
        if array.type != "large_string":
            raise InputError(f"{place}: column {name} holds lists; it should hold text or numbers")
        text[name] = pc.utf8_trim_whitespace(array.fill_null(""))

    def line_of(row: int) -> str:
        return file.line_of(int(file.row_N[row]))

    parts = pc.extract_regex(text[found["position"]], _POSITION)
    positions = pc.cast(pc.if_else(parts.is_valid(), parts.field("number"), "0"), "int64")
    rows = _Rows(
        place,
        text[found["chromosome"]].to_pylist(),
        positions.to_pylist(),
        text[found["ref"]].to_pylist(),
        text[found["alt"]].to_pylist(),
        {name: text[name] for name in columns.extras},
        line_of,
    )
    for name, well, remedy in (
        ("chromosome", pc.not_equal(text[found["chromosome"]], ""), "the contig is missing: fill it in"),
        ("position", pc.greater(positions, 0), "positions are whole numbers from 1 on: correct it"),
        ("ref", pc.not_equal(text[found["ref"]], ""), "the reference allele is missing: fill it in"),
        ("alt", pc.invert(pc.match_substring(text[found["alt"]], ",")), "write a row for each alternate allele"),
    ):
        wrong = np.flatnonzero(~np.asarray(well))
        if len(wrong):
            said = text[found[name]][int(wrong[0])].as_py()
            raise rows.wrong(int(wrong[0]), f"{found[name]} is {said!r}; {remedy}")
    return rows


def _header(path: Path, place: str) -> list[str]:
    """Read a table's names of columns; none where it cannot be read, which `read_table` then says better."""
    import pyarrow as pa
    import pyarrow.parquet

    name = place.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return list(pa.parquet.read_schema(path).names)
        with path.open("rb") as raw:
            data = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            with io.TextIOWrapper(data, encoding="utf-8-sig", errors="replace") as lines:
                line = next((line for line in lines if line.strip()), "")
    except (OSError, EOFError, pa.ArrowException):
        return []
    return next(csv.reader([line.rstrip("\n")], delimiter="," if name.endswith(".csv") else "\t"), [])


def _place_columns(header: Sequence[str], place: str, columns: VepColumns) -> dict[str, str]:
    """Find the columns that place a variant; what is said counts, then the usual names in their order."""
    lower = {name.strip().lower(): name for name in reversed(header)}
    found = {}
    for what, usual in PLACES.items():
        said = getattr(columns, what)
        found[what] = said or next((lower[name] for name in usual if name in lower), usual[0])
        if header and found[what] not in header:
            hint = f"none of {', '.join(usual)}" if said is None else f"{said!r}"
            raise InputError(
                f"{place}: no column of the {what} ({hint}); there are {listed_names(header)}; say which it is with "
                f"--columns {what}=NAME"
            )
    return found


def _from_vcf(path: Path, place: str, columns: VepColumns) -> _Rows:
    import pyarrow as pa

    said = [what for what in PLACES if getattr(columns, what) is not None]
    if said:
        raise InputError(f"{place}: a VCF has columns of its own; leave out --columns {said[0]}=...")
    declared = read_header(path).info
    for name in columns.extras:
        if name not in declared:
            raise InputError(f"{place}: no INFO field {name!r} is declared; there are {listed_names(declared)}")
    fields = [f"INFO/{name}" for name in columns.extras]
    texts = dict.fromkeys(["ref", "alt", "filter", *fields], pl.String())
    empty = pl.DataFrame(schema={"contig": pl.String(), "position": pl.Int64(), **texts})
    records = pl.concat([empty, *read_records(path, fields)]).with_columns(pl.col("position") + 1)
    alternates = records["alt"].str.split(",")
    count_N = alternates.list.len().to_numpy()
    record_A = np.repeat(np.arange(len(records)), count_N)
    contigs, positions, references = (
        records[name].gather(record_A).to_list() for name in ("contig", "position", "ref")
    )
    places = [f"{contig}:{position}" for contig, position in zip(contigs, positions, strict=True)]
    values = {}
    for name, field in zip(columns.extras, fields, strict=True):
        (number, kind), text_N = declared[name], records[field]
        text_A = text_N.to_numpy()[record_A]
        if kind == "Flag":
            text_A = np.where(text_A == ".", "0", text_A)
        elif number in {"A", "R"}:
            known_N, own = text_N != ".", int(number == "R")
            lists = text_N.str.split(",")
            wrong = np.flatnonzero((known_N & (lists.list.len() != count_N + own)).to_numpy())
            if len(wrong):
                row = int(wrong[0])
                raise InputError(
                    f"{place}, {records['contig'][row]}:{records['position'][row]}: INFO field {name} has "
                    f"{len(lists[row])} values for {'REF and ' * own}{count_N[row]} alternate alleles; correct it"
                )
            text_A[known_N.to_numpy()[record_A]] = lists.filter(known_N).list.slice(own).explode().to_numpy()
        values[name] = pa.array(text_A, pa.large_string())
    return _Rows(place, contigs, positions, references, alternates.explode().to_list(), values, places.__getitem__)


def _known(texts: pa.Array) -> list[str]:
    """Give texts, empty where they say that there is none."""
    import pyarrow.compute as pc

    filled: list[str] = pc.if_else(_missing(texts), "", texts).to_pylist()
    return filled


def _missing(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(pc.utf8_lower(texts), value_set=pa.array(_MISSING, pa.large_string()))


def _numbers(
    rows: _Rows, name: str | None, what: str, between: tuple[float, float] = (-np.inf, np.inf)
) -> Float64 | None:
    import pyarrow.compute as pc

    if name is None:
        return None
    texts = rows.text[name]
    missing = _missing(texts)
    written = pc.match_substring_regex(texts, _NUMBER)
    # The plus is no part of what the cast reads.
    number = pc.utf8_ltrim(pc.if_else(pc.and_not(written, missing), texts, "nan"), characters="+")
    number_N: Float64 = np.asarray(pc.cast(number, "float64"))
    well_N = np.asarray(missing) | (
        np.asarray(written) & np.isfinite(number_N) & (number_N >= between[0]) & (number_N <= between[1])
    )
    wrong = np.flatnonzero(~well_N)
    if len(wrong):
        row = int(wrong[0])
        raise rows.wrong(row, f"{name} is {texts[row].as_py()!r}; {what}: correct it, or leave it empty")
    return number_N


def _effects(rows: _Rows, name: str) -> Labels:
    number_N = _numbers(rows, name, "effects are numbers")
    assert number_N is not None, "a column is named"
    reason_N = np.where(np.isnan(number_N), NO_LABEL, "").astype(object)
    return Labels("regression", (name,), number_N, reason_N, ())


def _classes(rows: _Rows, name: str, columns: VepColumns) -> Labels:
    value_N = np.array(_known(rows.text[name]), dtype=object)
    different, index_N = np.unique(value_N.astype(str), return_inverse=True)
    values = different.tolist()
    excluded = set(columns.exclude)
    if columns.negative:
        excluded |= set(values) - set(columns.positive) - set(columns.negative)
    excluded.discard("")
    there = [value for value in values if value and value not in excluded]
    unnamed = [value for value in values if value and value not in columns.named]
    notes = tuple(
        f"No variant has the value {value} that --{option} names{_meant(value, unnamed)}."
        for option in ("positive", "negative", "exclude")
        for value in getattr(columns, option)
        if value not in values
    )
    if columns.positive:
        if not set(columns.positive) & set(there):
            raise InputError(
                f"{rows.place}: {name} is nowhere {' or '.join(columns.positive)}"
                f"{_meant(columns.positive[0], unnamed)}; there are {listed_names(filter(None, values))}"
            )
        problem, number = "binary", {value: float(value in columns.positive) for value in there}
        others = [value for value in there if value not in columns.positive]
        classes: tuple[str, ...] = (_joined(others), _joined(columns.positive))
    elif all(value.lower() in _TRUTH for value in there):
        problem, number = "binary", {value: float(_TRUTH[value.lower()]) for value in there}
        classes = ("0", "1")
    elif len(there) == 2:
        raise InputError(
            f"{rows.place}: {name} is {there[0]} or {there[1]}; say which is positive, such as --positive {there[1]}"
        )
    else:
        problem, number = "multiclass", {value: float(place) for place, value in enumerate(there)}
        classes = tuple(there)
        if len(there) > _MOST_CLASSES:
            raise InputError(
                f"{rows.place}: {name} has {len(there):,} different values; name the positive ones with --positive, or "
                f"give --effect {name} if they are numbers"
            )
    number_U = np.array([number.get(value, np.nan) for value in values])
    reason_U = np.array([LEFT_OUT if value in excluded else "" if value else NO_LABEL for value in values], object)
    return Labels(problem, classes, number_U[index_N], reason_U[index_N], notes)


def _meant(value: str, there: Sequence[str]) -> str:
    """Ask for what is most like a value; nothing where nothing is like it."""
    by_lower = {other.lower(): other for other in there}
    near = difflib.get_close_matches(value.lower(), by_lower, n=1, cutoff=0.8)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def _joined(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else names_text(values, 3).replace(", ", " / ") if values else "none"


def columns_of(text: str | None, columns: VepColumns) -> VepColumns:
    """Put what ``chromosome=CHR,position=POS`` says into columns.

    Raises
    ------
    InputError
        When it names something else than `PLACES`.
    """
    said: dict[str, Any] = {field.name: getattr(columns, field.name) for field in fields(columns)}
    for entry in (text or "").split(","):
        what, equals, name = entry.partition("=")
        if text and (what.strip() not in PLACES or not equals or not name.strip()):
            raise InputError(f"--columns {text}: give {','.join(f'{what}=NAME' for what in PLACES)}, or some of them")
        if text:
            said[what.strip()] = name.strip()
    return VepColumns(**said)
