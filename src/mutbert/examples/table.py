"""Labelled sequences as arrays: the bases of all sequences concatenated, and where each sequence begins.

Shape suffixes: N sequences, K columns of labels, L places in a sequence, T bases of all sequences together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.windows.randomness import random_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Int64, UInt8
    from mutbert.regions import Region

    Keys = npt.NDArray[np.void]

PROBLEMS: Final = ("binary", "multiclass", "multilabel", "regression", "token")
"""What labels are: one of two classes, one of several, any of several, numbers, a class for each base."""
NOT_COUNTED: Final = -100
"""The label of a base that does not count, where each base has one; torch's cross-entropy leaves it out."""

_KEYS: Final = 101  # a stream of random numbers; others are in `mutbert.windows.randomness`
# What is computed of this many bases stays in the processor's cache.
_BASES_AT_ONCE: Final = 1 << 18


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences of any lengths, and what is known of each."""

    base_codes: UInt8  # (T,), indices into `mutbert.alphabet.IUPAC`
    offsets: Int64  # (N + 1,): sequence i is base_codes[offsets[i]:offsets[i + 1]]
    # int64 (N,) class numbers (binary, multiclass); uint8 (N, K) 0 or 1 (multilabel); float32 (N,) or (N, K)
    # (regression); int64 (T,) along base_codes (token)
    labels: npt.NDArray[Any] | None
    names: tuple[str, ...]  # empty where a sequence has none
    regions: tuple[Region | None, ...]
    problem: str  # one of PROBLEMS; empty without labels
    classes: tuple[str, ...]  # in the order of their numbers; the columns of multilabel and regression
    unplaced: Mapping[str, int] = field(default_factory=dict)  # of those read: sequences without a region by reason

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
        length_M = self.lengths[row_M]
        offsets = np.concatenate([[0], np.cumsum(length_M)])
        index_T = np.arange(offsets[-1]) + np.repeat(self.offsets[row_M] - offsets[:-1], length_M)
        labels = self.labels
        if labels is not None:
            labels = labels[index_T if self.problem == "token" else row_M]
        names, regions = (tuple(every[row] for row in row_M.tolist()) for every in (self.names, self.regions))
        chosen = Examples(self.base_codes[index_T], offsets, labels, names, regions, self.problem, self.classes)
        if "strand_keys" in self.__dict__:
            chosen.__dict__["strand_keys"] = self.strand_keys[:, row_M]
        return chosen

    @cached_property
    def strand_keys(self) -> Keys:
        """Keys of 128 bits of the sequences and of their reverse complements, void of 16 bytes (2, N).

        Equal sequences have equal keys, and a key depends on its own sequence alone. A lane of the key is
        ``sum(a[i] * (code[i] + 1))`` modulo 2**64 with random ``a`` (multilinear hashing, Carter and Wegman 1979,
        "Universal classes of hash functions", J. Comput. Syst. Sci. 18). Of a million different sequences, two share a
        key with a probability below 10**-24.
        """
        offsets, longest = self.offsets, int(self.lengths.max(initial=0))
        factor_2L = np.ascontiguousarray(random_bits(0, _KEYS, np.arange(longest), 2).T)
        keys = np.zeros((2, len(self), 2), dtype=np.uint64)
        first = 0
        while first < len(self):
            # At least one sequence, whatever its length.
            last = max(int(np.searchsorted(offsets, offsets[first] + _BASES_AT_ONCE, side="right")) - 1, first + 1)
            length_M, bounds = self.lengths[first:last], offsets[first : last + 1] - offsets[first]
            index_T = np.arange(bounds[-1]) - np.repeat(bounds[:-1], length_M)
            code_T = self.base_codes[offsets[first] : offsets[last]]
            strands = (
                (code_T, index_T),
                (alphabet.COMPLEMENT_OF_CODE[code_T], np.repeat(length_M, length_M) - 1 - index_T),
            )
            for strand, (strand_T, place_T) in enumerate(strands):
                value_T = strand_T.astype(np.uint64) + np.uint64(1)
                for lane in range(2):
                    # Sums wrap around at 2**64, so that differences of running ones are right.
                    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(factor_2L[lane][place_T] * value_T)])
                    keys[strand, first:last, lane] = np.diff(running[bounds])
            first = last
        return keys.view(np.dtype("V16"))[:, :, 0]
