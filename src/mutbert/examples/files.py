"""Labelled sequences from files. Shape suffixes: N sequences, T bases of all sequences together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import numpy as np
import polars as pl
from pydantic import BeforeValidator

from mutbert import alphabet
from mutbert.examples.labels import read_labels
from mutbert.examples.table import PROBLEMS, Examples
from mutbert.regions import Region
from mutbert.settings import Settings, Words
from mutbert.tables import SourceFile, is_fasta, read_table, reject, row_error, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Int64, UInt8

_REGION: Final = r"(?s)^(?P<contig>.+?):(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})(?:\|.*)?$"


class Columns(Settings):
    """Columns of a table of sequences; a FASTA has ``sequence``, ``label`` and ``name``, which is read anyway."""

    sequence: str = "sequence"
    # Several where a sequence has several labels; none where there are none.
    label: Annotated[Words, BeforeValidator(lambda value: () if value is None else value)] = ("label",)
    name: str | None = None
    region: str | None = None  # as chr3:32091651-32092651 and anything after a "|": 0-based and half-open
    where: dict[str, str] = {}  # read the rows alone that have this text in this column

    def chosen(self, where: Mapping[str, str] | None = None) -> Columns:
        """Return these columns with more conditions on the rows."""
        return self.replace(where={**self.where, **(where or {})})


class ReadExamples(NamedTuple):
    """Sequences, and the file that they were read from."""

    examples: Examples
    source: SourceFile


def read_examples(
    place: str | Path,
    columns: Columns | None = None,
    *,
    problem: str | None = None,
    classes: Sequence[str] | None = None,
) -> ReadExamples:
    """Return the labelled sequences of a file in its order; see `mutbert.tables` for places and formats.

    Sequences are IUPAC codes in either case; U is read as T. Where `problem`, one of `PROBLEMS`, is left out, whole
    numbers or words make it ``binary`` when there are two of them and ``multiclass`` otherwise; other numbers
    ``regression``; several columns ``multilabel`` when they hold 0 and 1 alone, and else ``regression``. For ``token``
    a label is as many digits as the sequence has bases, or as many whole numbers with spaces or commas between them,
    -100 where a base does not count.

    Class labels that are all 0 to K - 1 keep their numbers, and so do a file's in which 0 or 1 stands alone; others
    have the places that they have in `classes`, or are numbered in sorted order (numbers by their size). Files of one
    task that may not all hold every class need `classes`, the ones of the training set: at least two names, which are
    the labels where these are not numbers. For ``multilabel`` and ``regression`` they are other names for the columns.
    """
    columns = columns or Columns()
    if problem not in (None, *PROBLEMS) or (problem and not columns.label):
        raise ValueError(f"problem {problem!r}: is one of {PROBLEMS}, and needs a column of labels")
    name = columns.name or ("name" if is_fasta(str(place)) else None)
    wanted = [columns.sequence, *columns.label, *(one for one in (name, columns.region) if one is not None)]
    frame, source = read_table(place, wanted, columns.where)
    base_codes, offsets = encode_sequences(frame, source.place, columns.sequence)
    labels, problem, titles = read_labels(frame, source.place, columns.label, offsets, problem, classes)
    regions, unplaced = _regions(frame, source.place, columns.region, np.diff(offsets))
    names = texts_of(frame, source.place, name).fill_null("").to_list() if name else [""] * len(frame)
    return ReadExamples(Examples(base_codes, offsets, labels, tuple(names), regions, problem, titles, unplaced), source)


def encode_sequences(frame: pl.DataFrame, place: str, column: str) -> tuple[UInt8, Int64]:
    """Return the base codes of a column of sequences (T,), and where each begins (N + 1,)."""
    texts = texts_of(frame, place, column)
    reject(frame, place, column, texts.is_null(), "remove the row, or add the bases")
    code_T = alphabet.CODE_OF_BYTE[np.frombuffer("".join(texts).encode(), dtype=np.uint8)]
    offsets = np.append(0, texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy())
    if (code_T == alphabet.NOT_A_BASE).any():
        first = int(np.argmax(code_T == alphabet.NOT_A_BASE))
        row = int(np.searchsorted(offsets, first, side="right")) - 1
        at = first - int(offsets[row])
        what = f"{column} has {texts[row][at]!r} at position {at} (the first is 0), which is not an IUPAC code"
        raise row_error(frame, place, row, f"{what}; expected DNA or RNA")
    return code_T, offsets


def _regions(
    frame: pl.DataFrame, place: str, column: str | None, length_N: Int64
) -> tuple[tuple[Region | None, ...], Mapping[str, int]]:
    """Return the region of each sequence where it is known, and how many are not by reason."""
    if column is None:
        return (None,) * len(frame), {}
    text = texts_of(frame, place, column)
    parts = text.str.extract_groups(_REGION).struct.unnest().cast({"start": pl.Int64, "end": pl.Int64})
    written = parts["contig"].is_not_null()
    agrees = (parts["end"] - parts["start"] == pl.Series(length_N)).fill_null(False)
    reasons = {
        "no region is given": text.is_null(),
        "the region is not written as CONTIG:START-END": text.is_not_null() & ~written,
        "the region's length is not the sequence's": written & ~agrees,
    }
    rows = zip(agrees, parts.iter_rows(), strict=True)
    regions = tuple(Region(*row) if known else None for known, row in rows)
    return regions, {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
