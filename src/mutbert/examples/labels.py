"""What the labels of a table say: classes, several labels, numbers, or a class for each base.

Shape suffixes: N sequences, K columns of labels, T bases of all sequences together, U different labels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError
from mutbert.examples.columns import bytes_of, listed_names
from mutbert.examples.table import NOT_COUNTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Int64
    from mutbert.examples.columns import Columns, FileTable


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# What programs write where a number is missing.
_NO_NUMBER: Final = frozenset({"nan", "na", "n/a", "null", "none"})


class Labels(NamedTuple):
    """What labels say; see `mutbert.examples.table.Examples`."""

    values: npt.NDArray[Any] | None
    problem: str
    classes: tuple[str, ...]


class _Distinct(NamedTuple):
    """A column as its different texts, in the order of their first rows, and which of them each row has."""

    texts: list[str]
    index_N: Int64


def read_labels(
    table: FileTable, columns: Columns, offsets: Int64, problem: str | None, classes: Sequence[str] | None
) -> Labels:
    """Read the labels of a table's rows; parameters and errors as for `mutbert.examples.files.read_examples`.

    Parameters
    ----------
    table : FileTable
        With the columns of labels.
    columns : Columns
        Which those are.
    offsets : ndarray of int64
        Where each row's sequence begins, for labels of bases.
    problem : str, optional
        What they say; found out where left out.
    classes : sequence of str, optional
        The classes in the order of their numbers.

    Returns
    -------
    Labels
    """
    names = columns.labels
    if not names:
        return Labels(None, "", ())
    if problem == "token":
        if len(names) > 1:
            raise InputError(f"{table.place}: a label for each base is one column, not {len(names)}; name one")
        return _token_labels(table, names[0], offsets, classes)
    distinct = [_distinct(table, name, classes or ()) for name in names]
    if isinstance(columns.label, str) and problem in (None, "binary", "multiclass"):
        texts = distinct[0].texts
        numbers = names[0] in table.floating or not all(map(_INTEGER.fullmatch, texts))
        if problem or not (numbers and all(map(_NUMBER.fullmatch, texts))):
            return _class_labels(table, names[0], distinct[0], problem, classes)
    if problem in ("binary", "multiclass"):
        raise InputError(f"{table.place}: a {problem} label is one column, not {len(names)}; name one")

    value_NK = np.stack([_numbers(table, *pair) for pair in zip(names, distinct, strict=True)], axis=1)
    other = (value_NK != 0) & (value_NK != 1)
    if problem is None:
        problem = "multilabel" if not isinstance(columns.label, str) and not other.any() else "regression"
    titles = tuple(classes or names)
    if len(titles) != len(names):
        raise InputError(f"{table.place}: {len(titles)} classes for {len(names)} columns of labels; give one for each")
    if problem == "regression":
        return Labels(value_NK[:, 0] if isinstance(columns.label, str) else value_NK, problem, titles)
    if other.any():
        row, column = np.argwhere(other)[0].tolist()
        text = distinct[column].texts[distinct[column].index_N[row]]
        raise table.wrong(row, f"{names[column]} is {text!r}; where a sequence has several labels each is 0 or 1")
    return Labels(value_NK.astype(np.uint8), problem, titles)


def _distinct(table: FileTable, name: str, classes: Sequence[str]) -> _Distinct:
    """Tell the different labels of a column apart, and refuse missing ones."""
    import pyarrow.compute as pc

    if table.columns[name].type != "large_string":
        raise InputError(f"{table.place}: column {name} holds lists; only the problem 'token' has them as labels")
    coded = pc.dictionary_encode(pc.utf8_trim_whitespace(table.columns[name].fill_null("")))
    found = _Distinct(coded.dictionary.to_pylist(), np.asarray(coded.indices).astype(np.int64))
    lacking = [not text or (text.lower() in _NO_NUMBER and text not in classes) for text in found.texts]
    # Among words, such a word may be a class.
    if not all(lacks or _NUMBER.fullmatch(text) for lacks, text in zip(lacking, found.texts, strict=True)):
        lacking = [not text for text in found.texts]
    if any(lacking):
        row = _first_row(found, lacking)
        raise table.wrong(row, f"the label in column {name} is missing; fill it in, or remove the row")
    return found


def _first_row(distinct: _Distinct, marked: Sequence[bool]) -> int:
    """Give the first row whose text is marked."""
    return int(np.argmax(np.array(marked, dtype=bool)[distinct.index_N]))


def _numbers(table: FileTable, name: str, distinct: _Distinct) -> npt.NDArray[np.float32]:
    """Read a column of labels as numbers, float32 (N,)."""
    wrong = [not _NUMBER.fullmatch(text) for text in distinct.texts]
    if not any(wrong):
        with np.errstate(over="ignore"):
            value_U = np.array(distinct.texts, dtype=str).astype(np.float64).astype(np.float32)
        wrong = (~np.isfinite(value_U)).tolist()
    if any(wrong):
        row = _first_row(distinct, wrong)
        text = distinct.texts[distinct.index_N[row]]
        raise table.wrong(row, f"the label {text!r} in column {name} is not a number of float32; correct it")
    values: npt.NDArray[np.float32] = value_U[distinct.index_N]
    return values


def _class_labels(
    table: FileTable, name: str, distinct: _Distinct, problem: str | None, classes: Sequence[str] | None
) -> Labels:
    texts = distinct.texts
    if all(map(_INTEGER.fullmatch, texts)):
        texts = [str(int(text)) for text in texts]
    titles = tuple(classes) if classes is not None else _titles(texts)
    if len(set(titles)) < max(len(titles), 2):
        if classes is None:
            raise InputError(
                f"{table.place}: every label in column {name} is {titles[0]!r}; give the classes that there are, or "
                "rows of another one"
            )
        raise InputError(f"{table.place}: the classes {listed_names(titles)} are not two or more different ones")
    number_of = {title: number for number, title in enumerate(titles)}
    if not any(map(_INTEGER.fullmatch, titles)) and all(map(_INTEGER.fullmatch, texts)):
        number_of = {str(number): number for number in range(len(titles))}
    unknown = [text not in number_of for text in texts]
    if any(unknown):
        row = _first_row(distinct, unknown)
        raise table.wrong(
            row,
            f"the label {distinct.texts[distinct.index_N[row]]!r} is not one of the classes "
            f"{listed_names(number_of)}; correct it, or give the classes that there are",
        )
    if problem == "binary" and len(titles) != 2:
        raise InputError(
            f"{table.place}: column {name} has {len(titles)} classes ({listed_names(titles)}) where a binary label has "
            "2; call it multiclass, or choose rows"
        )
    number_U = np.array([number_of[text] for text in texts], dtype=np.int64)
    return Labels(number_U[distinct.index_N], problem or ("binary" if len(titles) == 2 else "multiclass"), titles)


def _titles(texts: Sequence[str]) -> tuple[str, ...]:
    """Give the classes of the labels that there are, in the order of their numbers."""
    if not all(map(_INTEGER.fullmatch, texts)):
        return tuple(sorted(set(texts)))
    numbers = {int(text) for text in texts}
    return tuple(map(str, sorted(numbers | {0, 1} if numbers <= {0, 1} else numbers)))


def _token_labels(table: FileTable, name: str, offsets: Int64, classes: Sequence[str] | None) -> Labels:
    """Read a label for each base; see `read_examples` for how it may be written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column, length_N = table.columns[name], np.diff(offsets)
    if column.type == "large_string":
        text = pc.utf8_trim(column.fill_null(""), characters="[] \t")
        digits_N = np.asarray(pc.match_substring_regex(text, "^[0-9]+$")) & (
            np.asarray(pc.utf8_length(text)) == length_N
        )
        listed = pc.split_pattern_regex(pc.if_else(pa.array(digits_N), "", text), r"\s*[\s,]\s*")
        well = pc.match_substring_regex(text, r"^-?[0-9]{1,9}(\s*[\s,]\s*-?[0-9]{1,9})*$")
        bad = ~(digits_N | np.asarray(well))
        if bad.any():
            raise table.wrong(
                int(np.argmax(bad)),
                f"the labels in column {name} are neither digits nor whole numbers with spaces or commas between them",
            )
        count_N = np.where(digits_N, length_N, np.asarray(pc.list_value_length(listed)))
        given = pc.cast(pc.list_flatten(listed.filter(pa.array(~digits_N))), "int64")
        value_T = np.empty(count_N.sum(), dtype=np.int64)
        is_digit_T = np.repeat(digits_N, count_N)
        value_T[is_digit_T] = bytes_of(text.filter(pa.array(digits_N)))[0] - np.uint8(ord("0"))
        value_T[~is_digit_T] = np.asarray(given)
    else:
        count_N = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        # A missing number is a label below all that there are, and refused as such.
        value_T = np.asarray(pc.fill_null(pc.list_flatten(column), NOT_COUNTED - 1))
    differs = count_N != length_N
    if differs.any():
        row = int(np.argmax(differs))
        raise table.wrong(row, f"column {name} has {count_N[row]} labels for {length_N[row]} bases; give one for each")
    titles = tuple(classes or map(str, range(max(int(value_T.max()) + 1, 2))))
    outside = (value_T != NOT_COUNTED) & ((value_T < 0) | (value_T >= len(titles)))
    if outside.any():
        place = int(np.argmax(outside))
        row = int(np.searchsorted(offsets, place, side="right")) - 1
        raise table.wrong(
            row,
            f"the label of base {place - offsets[row]} (the first is 0) is {value_T[place]}; it should be 0 to "
            f"{len(titles) - 1}, or {NOT_COUNTED} where the base does not count",
        )
    return Labels(value_T, "token", titles)
