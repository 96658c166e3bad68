"""The three parts of a task: read, kept apart, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.examples.splits import grouped_split, leaks, overlap, random_split, sequence_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.examples.places import SourceFile
    from mutbert.examples.splits import SplitRows
    from mutbert.examples.table import Examples

Validation = Literal["file", "random", "grouped"]
SPLITS: Final = ("train", "validation", "test")


class SplitCount(NamedTuple):
    """What a part of a task holds.

    Parameters
    ----------
    split : str
        ``train``, ``validation`` or ``test``.
    examples : int
        Sequences that are used.
    duplicates : int
        Of these, sequences that came before in the same part.
    in_train : int
        Sequences that the training data hold too, on either strand; before any were dropped.
    dropped : int
        Sequences that were dropped, since a part that is tested on holds them.
    sha256 : str
        Of the file that they were read from.
    """

    split: str
    examples: int
    duplicates: int
    in_train: int
    dropped: int
    sha256: str


@dataclass(frozen=True)
class TaskData:
    """The parts of a task.

    Parameters
    ----------
    train, validation : Examples
        What is learnt from, and what settings and steps are chosen on.
    test : Examples or None
        What is reported; ``None`` where there is none.
    counts : tuple of SplitCount
        One for each part.
    """

    train: Examples
    validation: Examples
    test: Examples | None
    counts: tuple[SplitCount, ...]

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts by name."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in every.items() if part is not None}


def part_task(
    train: Examples,
    validation: Examples | None,
    test: Examples | None,
    sources: Mapping[str, SourceFile],
    *,
    how: Validation,
    share: float,
    seed: int,
    drop_leaks: bool,
) -> TaskData:
    """Keep the parts of a task apart, and count what they share.

    Parameters
    ----------
    train, validation, test : Examples or None
        As they were read.
    sources : mapping of str to SourceFile
        Where each was read from.
    how : {"file", "random", "grouped"}
        How validation data are taken from the training data where `validation` is ``None``; with ``file`` they have to
        be given.
    share : float
        The share that is taken.
    seed : int
        What that depends on.
    drop_leaks : bool
        Drop sequences of the training data that validation or test data hold, on either strand.

    Returns
    -------
    TaskData
        The test data are always as they were read.

    Raises
    ------
    InputError
        When a part is missing, or nothing is left of it.
    """
    place = sources["train"].place
    if validation is None:
        if how == "file":
            raise InputError(f"{place}: there is no file of validation data beside it, which this protocol needs")
        rows = _validation_rows(train, how, share, seed)
        if not len(rows.validation) or not len(rows.train):
            raise InputError(f"{place}: {len(train)} sequences are too few to hold some out; give validation data")
        train, validation = train.select(rows.train), train.select(rows.validation)
    others = {"validation": validation, "test": test}
    shared = {name: overlap(train, part) for name, part in others.items() if part is not None}
    dropped = np.zeros(len(train), dtype=np.bool_)
    if drop_leaks:
        for part in others.values():
            if part is not None:
                dropped |= leaks(train, part)
        if dropped.all():
            raise InputError(f"{place}: all of its sequences are in the validation or test data, so that none are left")
        train = train.select(~dropped)
    counts = [
        SplitCount(
            "train", len(train), overlap(train, train).duplicates, 0, int(dropped.sum()), sources["train"].sha256
        )
    ]
    for name, found in shared.items():
        part = others[name]
        assert part is not None
        source = sources.get(name, sources["train"])
        counts.append(
            SplitCount(name, len(part), found.duplicates, found.in_train + found.in_train_reversed, 0, source.sha256)
        )
    return TaskData(train, validation, test, tuple(counts))


def _validation_rows(train: Examples, how: Validation, share: float, seed: int) -> SplitRows:
    if len(train) < 2:
        nothing = np.zeros(0, dtype=np.int64)
        return random_split(2, share, seed)._replace(train=nothing)
    if how == "random":
        return random_split(len(train), share, seed)
    by_class = train.problem in {"binary", "multiclass"}
    return grouped_split(train.known_labels if by_class else None, sequence_keys(train), share, seed)
