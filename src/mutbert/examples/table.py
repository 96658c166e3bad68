"""Labelled sequences as arrays: all bases one after the other, and where each sequence begins.

Shape suffixes: N sequences, K columns of labels, T bases of all sequences together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mutbert import alphabet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.arrays import Int64, UInt8
    from mutbert.regions import Region


PROBLEMS: Final = ("binary", "multiclass", "multilabel", "regression", "token")
"""What labels may say: one of two classes, one of several, any of several, numbers, a class for each base."""

NOT_COUNTED: Final = -100
"""The label of a base that does not count, where each base has one; torch's cross-entropy leaves it out."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences of any lengths, and what is known of each.

    Parameters
    ----------
    base_codes : ndarray of uint8, shape (T,)
        The base codes of all sequences (indices into `mutbert.alphabet.IUPAC`), one sequence after the other.
    offsets : ndarray of int64, shape (N + 1,)
        Sequence i is ``base_codes[offsets[i]:offsets[i + 1]]``.
    labels : ndarray or None
        int64 (N,) for ``binary`` and ``multiclass``: the class's number. uint8 (N, K) for ``multilabel``: 0 or 1.
        float32 (N,) or (N, K) for ``regression``. int64 (T,) along `base_codes` for ``token``, `NOT_COUNTED` where a
        base does not count. ``None`` where there are none.
    names : tuple of str
        A name for each sequence; empty where it has none.
    regions : tuple of Region or None
        Where each sequence lies in a genome, 0-based and half-open, where that is known.
    problem : str
        One of `PROBLEMS`; empty where there are no labels.
    classes : tuple of str
        The names of the classes in the order of their numbers; the names of the columns for ``multilabel`` and
        ``regression``.
    unplaced : mapping of str to int
        Of sequences that were read with a column of regions: how many have none, by reason. What `select` and
        `concatenate` give does not carry it.

    Raises
    ------
    ValueError
        When the parts do not fit each other.
    """

    base_codes: UInt8
    offsets: Int64
    labels: npt.NDArray[Any] | None
    names: tuple[str, ...]
    regions: tuple[Region | None, ...]
    problem: str
    classes: tuple[str, ...]
    unplaced: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.offsets) - 1
        if count < 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.base_codes):
            raise ValueError("offsets do not begin with 0 and end with the number of base codes")
        if len(self.names) != count or len(self.regions) != count:
            raise ValueError(f"{count} sequences, but {len(self.names)} names and {len(self.regions)} regions")
        if (self.labels is None) != (not self.problem) or (self.problem and self.problem not in PROBLEMS):
            raise ValueError(f"problem {self.problem!r} does not go with the labels; it is one of {PROBLEMS}, or empty")
        wanted = len(self.base_codes) if self.problem == "token" else count
        if self.labels is not None and len(self.labels) != wanted:
            raise ValueError(f"{len(self.labels)} labels where {wanted} belong")

    def __len__(self) -> int:
        """Count the sequences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64:
        """The bases of each sequence, int64 (N,)."""
        return np.diff(self.offsets)

    @property
    def known_labels(self) -> npt.NDArray[Any]:
        """The labels, of sequences that have some."""
        assert self.labels is not None, "whoever asks has read them with labels"
        return self.labels

    def sequence(self, index: int) -> str:
        """Write a sequence as an upper-case string of IUPAC codes; an index below 0 counts from the end."""
        index = range(len(self))[index]
        return alphabet.decode(self.base_codes[self.offsets[index] : self.offsets[index + 1]])

    def select(self, rows: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> Examples:
        """Take some of the sequences.

        Parameters
        ----------
        rows : ndarray of integer or of bool, shape (M,) or (N,)
            Their indices from 0, in the order wanted, any of them more than once; or a mask over all.

        Returns
        -------
        selected : Examples
            Of M sequences.

        Raises
        ------
        IndexError
            When a row is not there.
        """
        row_M = np.arange(len(self))[rows]
        length_M = self.lengths[row_M]
        offsets = np.concatenate([[0], np.cumsum(length_M)])
        # The place of each base that is taken: as far behind its sequence's old start as behind the new one.
        place_T = np.arange(offsets[-1]) + np.repeat(self.offsets[row_M] - offsets[:-1], length_M)
        labels = self.labels
        if labels is not None:
            labels = labels[place_T if self.problem == "token" else row_M]
        taken = row_M.tolist()
        return Examples(
            self.base_codes[place_T],
            offsets,
            labels,
            tuple(self.names[row] for row in taken),
            tuple(self.regions[row] for row in taken),
            self.problem,
            self.classes,
        )

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        """Put sets of sequences one after the other.

        Parameters
        ----------
        parts : sequence of Examples
            At least one, all of the same problem and classes.

        Returns
        -------
        together : Examples
            The sequences of all parts in their order.

        Raises
        ------
        ValueError
            When there are no parts, or their labels do not mean the same.
        """
        if not parts:
            raise ValueError("there are no examples to put together")
        first = parts[0]
        for part in parts[1:]:
            if (part.problem, part.classes) != (first.problem, first.classes):
                raise ValueError(
                    f"labels of {part.problem or 'no'} problem with {part.classes} do not go with those of "
                    f"{first.problem or 'no'} problem with {first.classes}"
                )
        labels = [part.labels for part in parts if part.labels is not None]
        return Examples(
            np.concatenate([part.base_codes for part in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]),
            np.concatenate(labels) if labels else None,
            tuple(name for part in parts for name in part.names),
            tuple(region for part in parts for region in part.regions),
            first.problem,
            first.classes,
        )
