"""Lines of a VCF file taken apart by NumPy: where each column begins and ends, and what numbers stand there.

Shape suffixes: B bytes of the text, N records, S spans of text, W the longest of them.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.arrays import list_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutbert.arrays import Bool, Float64, Int64, UInt8
    from mutbert.genome.vcf_text import Lines


_TAB: Final = ord("\t")
_LINE_END: Final = ord("\n")
_COMMA: Final = ord(",")
_SEMICOLON: Final = ord(";")
_ZERO: Final = ord("0")

_MOST_DIGITS: Final = 10
"""Of a position: contigs are shorter than 2^32."""

_LONGEST_NUMBER: Final = 40


class Column(IntEnum):
    """Places of the columns that every record has."""

    CHROM = 0
    POS = 1
    ID = 2
    REF = 3
    ALT = 4
    QUAL = 5
    FILTER = 6
    INFO = 7


class NotARecordError(ValueError):
    """A line that is no record.

    Parameters
    ----------
    row : int
        Number of the line.
    """

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class Spans(NamedTuple):
    """Stretches of a text.

    Parameters
    ----------
    begin_S, end_S : ndarray of int64, shape (S,)
        First byte of each, and the one behind its last.
    """

    begin_S: Int64
    end_S: Int64

    def __len__(self) -> int:
        return len(self.begin_S)

    def take(self, rows: Int64 | Bool) -> Spans:
        """Give some of them."""
        return Spans(self.begin_S[rows], self.end_S[rows])


class Chunk(NamedTuple):
    """Consecutive records of one contig.

    Parameters
    ----------
    text : bytes
        Lines; those of other contigs may stand around them.
    byte_B : ndarray of uint8, shape (B,)
        The same.
    tab_N9 : ndarray of int64, shape (N, 9)
        Place of the byte before each of the first eight columns, and of the one behind the last.
    position_N : ndarray of int64, shape (N,)
        POS, 1-based.
    genotypes : list of (bytes, bytes)
        FORMAT and the columns behind it, where they were asked for.
    """

    text: bytes
    byte_B: UInt8
    tab_N9: Int64
    position_N: Int64
    genotypes: list[tuple[bytes, bytes]]

    def __len__(self) -> int:
        return len(self.position_N)

    def spans(self, column: Column) -> Spans:
        """Give where a column stands, for each record."""
        return Spans(self.tab_N9[:, column] + 1, self.tab_N9[:, column + 1])

    def rows(self, first: int, last: int) -> Chunk:
        """Give some of the records."""
        return Chunk(
            self.text,
            self.byte_B,
            self.tab_N9[first:last],
            self.position_N[first:last],
            self.genotypes[first:last],
        )

    def texts(self, spans: Spans) -> list[str]:
        """Give the text of some spans."""
        every = zip(spans.begin_S.tolist(), spans.end_S.tolist(), strict=True)
        return [self.text[begin:end].decode("latin-1") for begin, end in every]

    def equal(self, spans: Spans, word: bytes) -> Bool:
        """Tell which spans are a word, shape (S,)."""
        equal_S: Bool = spans.end_S - spans.begin_S == len(word)
        for place, letter in enumerate(word):
            # A span at the very end of the text may be shorter than the word.
            equal_S &= self.byte_B[np.minimum(spans.begin_S + place, len(self.byte_B) - 1)] == letter
        return equal_S


def split_columns(lines: Lines) -> Chunk:
    """Find the columns of lines.

    Parameters
    ----------
    lines : Lines
        Any number of contigs; at least one line.

    Returns
    -------
    Chunk
        Of all of them together.

    Raises
    ------
    NotARecordError
        When a line has less than eight columns, or its position is no number.
    """
    byte_B = np.frombuffer(lines.text, dtype=np.uint8)
    end_N = np.flatnonzero(byte_B == _LINE_END)
    start_N = np.concatenate(([0], end_N[:-1] + 1))
    # With a sentinel, so that a line of eight columns is as any other.
    tabs = np.append(np.flatnonzero(byte_B == _TAB), len(byte_B))
    first_N = np.searchsorted(tabs, start_N)
    seventh_N = tabs[np.minimum(first_N + 6, len(tabs) - 1)]
    if np.any(short_N := seventh_N >= end_N):
        raise NotARecordError(int(np.argmax(short_N)))
    tab_N9 = np.empty((len(end_N), 9), dtype=np.int64)
    tab_N9[:, 0] = start_N - 1
    tab_N9[:, 1:8] = tabs[first_N[:, None] + np.arange(7)]
    tab_N9[:, 8] = np.minimum(tabs[first_N + 7], end_N)
    position_N = _positions(byte_B, Spans(tab_N9[:, Column.POS] + 1, tab_N9[:, Column.POS + 1]))
    return Chunk(lines.text, byte_B, tab_N9, position_N, lines.genotypes)


def split_contigs(chunk: Chunk) -> Iterator[tuple[str, Chunk]]:
    """Give the records of each contig, as they follow each other."""
    names = chunk.spans(Column.CHROM)
    length_N = names.end_S - names.begin_S
    same_N = length_N[1:] == length_N[:-1]
    for place in range(int(length_N.max())):
        letter_N = chunk.byte_B[names.begin_S + np.minimum(place, length_N)]
        same_N &= (letter_N[1:] == letter_N[:-1]) | (place >= length_N[1:])
    bounds = [0, *(np.flatnonzero(~same_N) + 1).tolist(), len(chunk)]
    for begin, end in pairwise(bounds):
        (name,) = chunk.texts(names.take(np.array([begin])))
        yield name, chunk.rows(begin, end)


def split_list(chunk: Chunk, spans: Spans) -> tuple[Int64, Spans]:
    """Take spans apart at their commas.

    Returns
    -------
    tuple of (ndarray of int64, Spans)
        The span that each part is of, ascending, and the parts.
    """
    low, high = (int(spans.begin_S[0]), int(spans.end_S[-1])) if len(spans) else (0, 0)
    commas = np.flatnonzero(chunk.byte_B[low:high] == _COMMA) + low
    if not len(commas):
        return np.arange(len(spans)), spans
    first_S, last_S = np.searchsorted(commas, spans.begin_S), np.searchsorted(commas, spans.end_S)
    _, inside = list_ranges(first_S, last_S)
    if not len(inside):
        return np.arange(len(spans)), spans
    row_S = np.repeat(np.arange(len(spans)), last_S - first_S + 1)
    # Spans ascend, so that all begins and all ends do, and they pair.
    begin = np.sort(np.concatenate([spans.begin_S, commas[inside] + 1]))
    end = np.sort(np.concatenate([spans.end_S, commas[inside]]))
    return row_S, Spans(begin, end)


def find_field(chunk: Chunk, name: str) -> Spans:
    """Find the value of an INFO field, for each record; an empty span where the record has none.

    Of a field that a record has twice, the first counts.
    """
    key = f"{name}=".encode()
    info = chunk.spans(Column.INFO)
    begin_N, end_N = np.zeros(len(chunk), dtype=np.int64), np.zeros(len(chunk), dtype=np.int64)
    low, high = int(info.begin_S[0]) - 1, int(info.end_S[-1])
    byte_B = chunk.byte_B[low:high]
    size = len(byte_B) - len(key)
    if size <= 0:
        return Spans(begin_N, end_N)
    found_B = (byte_B[:size] == _SEMICOLON) | (byte_B[:size] == _TAB)
    for place, letter in enumerate(key, start=1):
        found_B &= byte_B[place : size + place] == letter
    value = np.flatnonzero(found_B) + low + 1 + len(key)
    row = np.searchsorted(info.end_S, value)
    # What looks like it in another column is none.
    value, row = value[value > info.begin_S[row]], row[value > info.begin_S[row]]
    row, first = np.unique(row, return_index=True)
    value = value[first]
    separators = np.append(np.flatnonzero(byte_B == _SEMICOLON) + low, high)
    begin_N[row] = value
    end_N[row] = np.minimum(separators[np.searchsorted(separators, value)], info.end_S[row])
    return Spans(begin_N, end_N)


def read_numbers(chunk: Chunk, spans: Spans) -> Float64:
    """Read the number in each span; NaN where it is empty or a dot.

    Raises
    ------
    NotARecordError
        When a span holds something else; its number.
    """
    length_S = spans.end_S - spans.begin_S
    number_S = np.full(len(spans), np.nan)
    given = np.flatnonzero((length_S > 1) | ((length_S == 1) & ~chunk.equal(spans, b".")))
    if not len(given):
        return number_S
    width = int(length_S[given].max())
    if width > _LONGEST_NUMBER:
        raise NotARecordError(int(np.argmax(length_S)))
    begin, end = spans.begin_S[given], spans.end_S[given]
    place_SW = begin[:, None] + np.arange(width)
    text_SW = chunk.byte_B[np.minimum(place_SW, len(chunk.byte_B) - 1)]
    text_SW[place_SW >= end[:, None]] = 0
    try:
        number_S[given] = text_SW.view(f"S{width}").ravel().astype(np.float64)
    except ValueError:
        raise NotARecordError(next(row for row in given.tolist() if not _is_number(chunk, spans, row))) from None
    return number_S


def _is_number(chunk: Chunk, spans: Spans, row: int) -> bool:
    try:
        float(chunk.text[spans.begin_S[row] : spans.end_S[row]])
    except ValueError:
        return False
    return True


def _positions(byte_B: UInt8, spans: Spans) -> Int64:
    """Read positions, whose digits are all that may be there."""
    length_N = spans.end_S - spans.begin_S
    wrong_N = (length_N < 1) | (length_N > _MOST_DIGITS)
    if np.any(wrong_N):
        raise NotARecordError(int(np.argmax(wrong_N)))
    # From the last digit to the first, as many as the longest has.
    place_NW = spans.end_S[:, None] - 1 - np.arange(int(length_N.max()))
    digit_NW = byte_B[np.maximum(place_NW, 0)] - np.uint8(_ZERO)
    digit_NW[place_NW < spans.begin_S[:, None]] = 0
    if np.any(digit_NW > 9):
        raise NotARecordError(int(np.argmax(np.any(digit_NW > 9, axis=1))))
    position_N: Int64 = digit_NW.astype(np.int64) @ 10 ** np.arange(digit_NW.shape[1])
    return position_N
