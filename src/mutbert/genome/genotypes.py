"""Counting alleles in the genotype columns of a VCF line, without a look at each sample in Python.

The columns are a stretch of bytes: a genotype begins behind each tab and ends before the next colon or tab, and what
counts of it are its numbers. Shape suffixes: S samples.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mutbert.arrays import list_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import UInt8


_TAB: Final = ord("\t")
_COLON: Final = ord(":")
_SEPARATORS: Final = b"\t|/"
_NUMBER: Final = re.compile(rb"[0-9]+")
_FEWEST_WITH_TWO_DIGITS: Final = 10


def count_alleles(
    columns: bytes, keys: bytes, alternates: int, samples: int, chosen_S: npt.NDArray[Any] | None = None
) -> tuple[list[int], int]:
    """Count the alleles that the genotypes of a record call.

    Parameters
    ----------
    columns : bytes
        The record's text behind FORMAT: a column for each sample, with tabs between.
    keys : bytes
        FORMAT. Without GT nothing is called.
    alternates : int
        Alternate alleles of the record.
    samples : int
        Columns that there have to be.
    chosen_S : ndarray of int, shape (S,), optional
        Columns that count, ascending; all where left out.

    Returns
    -------
    tuple of (list of int, int)
        Calls of each alternate allele, and calls of any allele. Any ploidy, phased or not; missing calls are none.

    Raises
    ------
    ValueError
        When there are other than `samples` columns, GT is not the first key, or a genotype is not made of the record's
        alleles.
    """
    if not keys:
        raise ValueError("no columns for the samples")
    if keys[:3].rstrip(b":") != b"GT":
        if b"GT" in keys.split(b":"):
            raise ValueError("GT is not the first key of FORMAT, where the VCF specification wants it")
        return [0] * alternates, 0
    text_S = np.frombuffer(columns, dtype=np.uint8)
    if np.count_nonzero(text_S == _TAB) != samples - 1:
        raise ValueError("not one column for each sample")
    if chosen_S is not None or keys != b"GT":
        columns = _genotypes(text_S, samples, chosen_S)
    if alternates < _FEWEST_WITH_TWO_DIGITS:
        return _count_digits(columns, alternates)
    return _count_numbers(columns, alternates)


def _genotypes(text_S: UInt8, samples: int, chosen_S: npt.NDArray[Any] | None) -> bytes:
    """Cut the genotypes of the chosen columns out of a line, with something that is no digit behind each."""
    width = (len(text_S) + 1) // samples
    ended = np.append(text_S, np.uint8(_TAB))
    if width * samples == len(ended) and not np.any(text_S == _COLON):
        table = ended.reshape(samples, width)
        if np.all(table[:, -1] == _TAB):
            # All columns are equally wide, as they are in a panel of diploids.
            return (table if chosen_S is None else table[chosen_S]).tobytes()
    tabs_S = np.flatnonzero(ended == _TAB)
    starts_S = np.concatenate(([0], tabs_S[:-1] + 1))
    if chosen_S is not None:
        starts_S, tabs_S = starts_S[chosen_S], tabs_S[chosen_S]
    # The first colon at or behind the start, if it is the column's own.
    colons = np.append(np.flatnonzero(ended == _COLON), len(ended))
    ends_S = np.minimum(colons[np.searchsorted(colons, starts_S)], tabs_S)
    _, place = list_ranges(starts_S, ends_S + 1)
    return ended[place].tobytes().replace(b":", b"\t")


def _count_digits(text: bytes, alternates: int) -> tuple[list[int], int]:
    calls = text.translate(None, _SEPARATORS)
    counts = [calls.count(b"%d" % allele) for allele in range(alternates + 1)]
    called = sum(counts)
    digit = np.frombuffer(text, dtype=np.uint8) - np.uint8(ord("0")) < 10
    if called + calls.count(b".") != len(calls) or np.any(digit[1:] & digit[:-1]):
        raise ValueError("a genotype is not made of the record's alleles")
    return counts[1:], called


def _count_numbers(text: bytes, alternates: int) -> tuple[list[int], int]:
    # Ten alternates and more are rare, so one pass of a regular expression is good enough.
    if text.translate(None, _SEPARATORS + b".0123456789"):
        raise ValueError("a genotype is not made of the record's alleles")
    calls = Counter(map(int, _NUMBER.findall(text)))
    if max(calls, default=0) > alternates:
        raise ValueError("a genotype is not made of the record's alleles")
    return [calls[allele] for allele in range(1, alternates + 1)], calls.total()


def columns_of(chosen: Sequence[int] | None) -> npt.NDArray[Any] | None:
    """Make the columns that count an array, as `count_alleles` takes them."""
    return None if chosen is None else np.array(chosen, dtype=np.int64)
