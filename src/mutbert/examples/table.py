"""Labelled sequences: from files to arrays, the bases of all sequences concatenated.

Shape suffixes: N sequences, K columns of labels, L bases of one sequence, T bases of all sequences together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BeforeValidator

from mutbert import alphabet, tables
from mutbert.arrays import Int64, UInt8, list_ranges
from mutbert.errors import InputError
from mutbert.regions import Region
from mutbert.settings import Settings, Words, listed
from mutbert.tables import SourceFile
from mutbert.windows.randomness import random_bits

Keys = npt.NDArray[np.void]
Labels: TypeAlias = tuple[npt.NDArray[Any] | None, str, tuple[str, ...]]  # values, problem and classes


NOT_COUNTED: Final = -100
"""The label of a base that does not count, where each base has one; torch's cross-entropy leaves it out."""

_KEYS: Final = 101  # a stream of random numbers; others are in `mutbert.windows.randomness`
_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_LARGEST: Final = 3.4028235677973362e38  # that rounds to the largest of float32
_NOT_A_BASE: Final = f"[^{alphabet.IUPAC}U{alphabet.IUPAC.lower()}u]"
_REGION: Final = r"(?s)^(?P<contig>.+?):(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})(?:\|.*)?$"


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences of any lengths, and what is known of each."""

    base_codes: UInt8  # (T,), indices into `mutbert.alphabet.IUPAC`
    offsets: Int64  # (N + 1,): sequence i is base_codes[offsets[i]:offsets[i + 1]]
    # int64 (N,) class numbers (binary, multiclass); uint8 (N, K) 0 or 1, or float32 with NaN for none (multilabel);
    # float32 (N,) or (N, K) (regression); int64 (T,) along base_codes (token)
    labels: npt.NDArray[Any] | None
    names: tuple[str, ...]  # empty where a sequence has none
    regions: tuple[Region | None, ...]
    problem: str  # binary, multiclass, multilabel, regression or token; empty without labels
    classes: tuple[str, ...]  # in the order of their numbers; the columns of multilabel and regression

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64:
        """Bases of each sequence, int64 (N,)."""
        return np.diff(self.offsets)

    @property
    def known_labels(self) -> npt.NDArray[Any]:
        """Labels of sequences that have some."""
        assert self.labels is not None, "read with labels"
        return self.labels

    def sequence(self, index: int) -> str:
        """Return a sequence as an upper-case string of IUPAC codes; an index below 0 counts from the end."""
        index = range(len(self))[index]
        return alphabet.decode(self.base_codes[self.offsets[index] : self.offsets[index + 1]])

    def select(self, rows: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> Examples:
        """Return the sequences of these indices, in their order and any number of times, or of a mask."""
        row_M = np.arange(len(self))[rows]
        index_T = list_ranges(self.offsets[row_M], self.offsets[row_M + 1])[1]
        offsets = np.append(0, np.cumsum(self.lengths[row_M]))
        labels = None if self.labels is None else self.labels[index_T if self.problem == "token" else row_M]
        names, regions = (tuple(every[row] for row in row_M.tolist()) for every in (self.names, self.regions))
        chosen = Examples(self.base_codes[index_T], offsets, labels, names, regions, self.problem, self.classes)
        if "strand_keys" in self.__dict__:
            chosen.__dict__["strand_keys"] = self.strand_keys[:, row_M]
        return chosen

    @cached_property
    def strand_keys(self) -> Keys:
        """Keys of 128 bits of the sequences and of their reverse complements, void of 16 bytes (2, N).

        A key depends on its own sequence alone: each lane is ``sum(a[i] * (code[i] + 1))`` modulo 2**64 with random
        ``a`` (multilinear hashing, Carter and Wegman 1979, "Universal classes of hash functions", J. Comput. Syst. Sci.
        18), so that of a million different sequences, two share a key with a probability below 10**-24.
        """
        longest = int(self.lengths.max(initial=0))
        factor_2L = np.ascontiguousarray(random_bits(0, _KEYS, np.arange(longest), 2).T)
        keys = np.empty((2, len(self), 2), dtype=np.uint64)
        for row, (start, end) in enumerate(pairwise(self.offsets.tolist())):
            code_L = self.base_codes[start:end]
            for strand, strand_L in enumerate((code_L, alphabet.COMPLEMENT_OF_CODE[code_L[::-1]])):
                keys[strand, row] = factor_2L[:, : end - start] @ (strand_L + np.uint64(1))
        return keys.view(np.dtype("V16"))[:, :, 0]


class Columns(Settings):
    """Columns of a table of sequences; a FASTA has ``sequence``, ``label`` and ``name``."""

    sequence: str = "sequence"
    # Several where a sequence has several labels; none where there are none.
    label: Annotated[Words, BeforeValidator(lambda value: () if value is None else value)] = ("label",)
    name: str | None = None  # column of names, by default name, where there is one
    region: str | None = None  # column of regions as chr3:10-110, and anything after a "|": 0-based and half-open
    where: dict[str, str] = {}  # read the rows alone that have this text in this column


def read_examples(
    place: str | Path | pl.DataFrame, columns: Columns, *, problem: str | None = None,
    classes: Sequence[str] | None = None, left_out: dict[str, int] | None = None,
) -> tuple[Examples, SourceFile]:  # fmt: skip
    """Return the labelled sequences of a file in its order, and the file; see `mutbert.tables` for formats.

    Sequences are IUPAC codes in either case; U is read as T. Without a `problem`, whole numbers or words make it
    ``binary`` or ``multiclass``, other numbers ``regression``; several columns ``multilabel`` where they hold 0 and 1
    alone (NaN where one is missing), else ``regression``. For ``token`` a label is a digit, or a whole number, a base.

    Labels that are all 0 to K - 1, or 0 or 1 alone, keep their numbers; others have their places in `classes`, those of
    the training set, or are numbered in sorted order. Otherwise `classes` are other names for the columns. A row
    without a sequence or label is an error; with `left_out`, it is left out, and counted there by what it lacks.
    """
    named = [columns.name or "name", *([] if columns.region is None else [columns.region])]

    def wanted(header: list[str]) -> list[str]:
        return [columns.sequence, *columns.label, *named[columns.name is None and header.count("name") != 1 :]]

    frame, source = tables.read_table(place, wanted, columns.where)
    if left_out is not None:
        bare = _sequences(frame, source.place, columns.sequence).is_null()
        unlabelled = _without_label(frame, columns.label, classes or ())
        left_out |= {"a sequence": int(bare.sum()), "a label": int((unlabelled & ~bare).sum())}
        frame = frame.filter(~(bare | unlabelled))
        if frame.is_empty():
            raise InputError(f"{source.place}: no row has a sequence and a label; fill them in")
    base_codes, offsets = encode_sequences(frame, source.place, columns.sequence)
    labels, problem, titles = _read_labels(frame, source.place, columns.label, offsets, problem, classes)
    regions = _regions(frame, source.place, columns.region, np.diff(offsets))
    there = named[0] in frame.columns
    names = tables.texts_of(frame, source.place, named[0]).fill_null("") if there else [""] * len(frame)
    return Examples(base_codes, offsets, labels, tuple(names), regions, problem, titles), source


def table_of(sequences: Any) -> Path | pl.DataFrame:
    """Return the path that text is where not of letters alone, or a table of one sequence, several, or by names."""
    if isinstance(sequences, Path) or (isinstance(sequences, str) and not sequences.isalpha()):
        return Path(sequences)
    if isinstance(sequences, Mapping):
        return pl.DataFrame({"name": [*sequences], "sequence": [*sequences.values()]}, strict=False)
    return pl.DataFrame(sequences if hasattr(sequences, "columns") else {"sequence": listed(sequences)}, strict=False)


def encode_sequences(frame: pl.DataFrame, place: str, column: str) -> tuple[UInt8, Int64]:
    """Return the base codes of a column of sequences (T,), and where each begins (N + 1,)."""
    texts = _sequences(frame, place, column)
    tables.reject(frame, place, column, texts.is_null(), "remove the row, or add the bases")
    first_N = texts.str.find(_NOT_A_BASE)
    for row in first_N.is_not_null().arg_true()[:1]:
        what = f"{column} has {texts[row][first_N[row]]!r} at position {first_N[row]} (the first is 0)"
        raise tables.row_error(frame, place, row, f"{what}, which is not an IUPAC code; expected DNA or RNA")
    code_T = alphabet.CODE_OF_BYTE[np.frombuffer("".join(texts).encode(), dtype=np.uint8)]
    return code_T, np.append(0, texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy())


def _sequences(frame: pl.DataFrame, place: str, column: str) -> pl.Series:
    """Return a column of sequences, null where there is none; in a FASTA, NA is two bases."""
    return tables.texts_of(frame, place, column, missing=() if tables.is_fasta(place) else tables.MISSING)


def _without_label(frame: pl.DataFrame, names: Sequence[str], classes: Sequence[str]) -> pl.Series:
    """Return which rows have no label in any of these columns; what says so may be the name of a class."""
    none = pl.repeat(bool(names), len(frame), eager=True)
    for name in names:
        texts, absent = frame[name], frame[name].is_null()
        if texts.dtype == pl.String:
            lower = texts.str.to_lowercase()
            numbers = (texts.str.contains(tables.NUMBER) | lower.is_in(tables.MISSING)).all()
            words = tables.MISSING if numbers else tables.NOT_A_WORD
            absent |= lower.is_in(words) & ~texts.is_in(list(classes))
        none &= absent
    return none


def _regions(frame: pl.DataFrame, place: str, column: str | None, length_N: Int64) -> tuple[Region | None, ...]:
    """Return the region of each sequence, None where it is not written as such or of another length."""
    if column is None:
        return (None,) * len(frame)
    parts = tables.texts_of(frame, place, column).str.extract_groups(_REGION).struct.unnest()
    parts = parts.cast({"start": pl.Int64, "end": pl.Int64})
    agrees = parts["end"] - parts["start"] == pl.Series(length_N)
    return tuple(Region(*row) if known else None for known, row in zip(agrees, parts.iter_rows(), strict=True))


def _read_labels(
    frame: pl.DataFrame, place: str, names: Sequence[str], offsets: Int64, problem: str | None,
    classes: Sequence[str] | None,
) -> Labels:  # fmt: skip
    """Return the labels in these columns; `problem` and `classes` as for `read_examples`."""
    if not names:
        return None, "", ()
    if problem in ("binary", "multiclass", "token") and len(names) > 1:
        raise InputError(f"{place}: a {problem} label is one column, not {len(names)}; name one")
    if problem == "token":
        return _token_labels(frame, place, names[0], offsets, classes)
    remedy = "write it after a '|' at the end of the header, as in >name|1" if tables.is_fasta(place) else "fill it in"
    missing = _without_label(frame, names, classes or ())
    tables.reject(frame, place, names[0], missing, f"{remedy}, or remove the row")
    if len(names) == 1 and problem in (None, "binary", "multiclass"):
        texts = tables.texts_of(frame, place, names[0])
        whole, number = (texts.str.contains(kind).all() for kind in (_INTEGER, tables.NUMBER))
        if problem or whole or not number or texts.str.contains(r"^\+?[01](?:\.0*)?$").all():
            return _class_labels(frame, place, texts, problem, classes)
    value_NK = np.stack([tables.numbers(frame, place, name, low=-_LARGEST, high=_LARGEST) for name in names], axis=1)
    other_NK = ~np.isin(value_NK, (0, 1)) & ~np.isnan(value_NK)
    if problem is None:
        problem = "multilabel" if len(names) > 1 and not other_NK.any() else "regression"
    titles = tuple(classes or names)
    if len(titles) != len(names):
        raise InputError(f"{place}: {len(titles)} classes for {len(names)} columns of labels; name one for each")
    if problem == "regression":
        return (value_NK[:, 0] if len(names) == 1 else value_NK).astype(np.float32), problem, titles
    for name, other_N in zip(names, other_NK.T, strict=True):
        tables.reject(frame, place, name, pl.Series(other_N), "where a sequence has several labels, each is 0 or 1")
    return value_NK.astype(np.float32 if np.isnan(value_NK).any() else np.uint8), problem, titles


def _class_labels(
    frame: pl.DataFrame, place: str, texts: pl.Series, problem: str | None, classes: Sequence[str] | None
) -> Labels:
    name = texts.name
    named = classes and texts.is_in(list(classes)).all()
    if whole := texts.str.contains(r"^[+-]?[0-9]{1,18}(?:\.0*)?$").all() and not named:
        texts = texts.str.extract(r"^\+?(-?[0-9]+)").cast(pl.Int64).cast(pl.String)
    if problem is None and classes is None and (count := texts.n_unique()) > max(10, len(texts) / 2):
        what = f"column {name} has {count:,} different labels in {len(texts):,} rows"
        numbers = "problem=regression if they are numbers, " if whole else ""
        raise InputError(f"{place}: {what}; set {numbers}problem=multiclass if they are classes, or choose a column")
    # Whole numbers by their size; 0 or 1 alone is one of both.
    found = {*(texts.cast(pl.Int64) if whole else texts)}
    titles = tuple(classes or map(str, sorted(found | {0, 1} if whole and found <= {0, 1} else found)))
    if len(set(titles)) < max(len(titles), 2):
        given = f"the classes {tables.listed_names(titles)} are not two or more different ones"
        what = given if classes else f"every label in column {name} is {titles[0]!r}; choose classes, or other rows"
        raise InputError(f"{place}: {what}")
    numbered = not any(re.match(_INTEGER, title) for title in titles) and texts.str.contains(_INTEGER).all()
    words = [*map(str, range(len(titles)))] if numbered else titles
    values = texts.cast(pl.Enum(words), strict=False)
    for row in values.is_null().arg_true()[:1]:
        what = f"{frame[name][row]!r} is not one of the classes {tables.listed_names(words)}"
        raise tables.row_error(frame, place, row, f"{name} {what}; correct it, or choose other classes")
    if problem == "binary" and len(titles) != 2:
        what = f"column {name} has {len(titles)} classes ({tables.listed_names(titles)}) where a binary label has 2"
        raise InputError(f"{place}: {what}; call it multiclass, or choose rows")
    numbers_N = values.to_physical().cast(pl.Int64).to_numpy()
    return numbers_N, problem or ("binary" if len(titles) == 2 else "multiclass"), titles


def _token_labels(frame: pl.DataFrame, place: str, name: str, offsets: Int64, classes: Sequence[str] | None) -> Labels:
    """Return a label for each base; see `read_examples` for how they are written."""
    column, length_N = frame[name], np.diff(offsets)
    if column.dtype == pl.String:
        texts = column.str.strip_chars("[] \t")
        digits = texts.str.contains("^[0-9]+$") & (texts.str.len_chars() == pl.Series(length_N))
        well = digits | texts.str.contains(r"^-?[0-9]{1,9}(\s*[\s,]\s*-?[0-9]{1,9})*$")
        tables.reject(frame, place, name, ~well.fill_null(False), "expected digits, or numbers with spaces or commas")
        whole, single = (texts.str.extract_all(one) for one in ("-?[0-9]+", "[0-9]"))
        column = whole.zip_with(~digits, single).cast(pl.List(pl.Int64))
    count_N = column.list.len().fill_null(0).to_numpy()
    for row in np.flatnonzero(count_N != length_N)[:1].tolist():
        what = f"column {name} has {count_N[row]} labels for {length_N[row]} bases; expected one for each"
        raise tables.row_error(frame, place, row, what)
    # A missing number is a label below all that there are, and rejected as such.
    value_T = column.explode().fill_null(NOT_COUNTED - 1).to_numpy()
    titles = tuple(classes or map(str, range(max(int(value_T.max()) + 1, 2))))
    outside = (value_T != NOT_COUNTED) & ((value_T < 0) | (value_T >= len(titles)))
    for first in np.flatnonzero(outside)[:1].tolist():
        row = int(np.searchsorted(offsets, first, side="right")) - 1
        what = f"the label of base {first - offsets[row]} (the first is 0) is {value_T[first]}"
        known = f"expected 0 to {len(titles) - 1}, or {NOT_COUNTED} where the base does not count"
        raise tables.row_error(frame, place, row, f"{what}; {known}")
    return value_T, "token", titles
