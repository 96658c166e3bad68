"""The three parts of a task: read, kept apart, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.examples.splits import grouped_split, leaks, overlap, random_split, sequence_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.examples.table import Examples
    from mutbert.tables import SourceFile

Validation = Literal["file", "random", "grouped"]
SPLITS: Final = ("train", "validation", "test")


class SplitCount(NamedTuple):
    """What a part of a task holds."""

    split: str
    examples: int  # that are used
    duplicates: int  # of these, sequences that came before in the same part
    in_train: int  # that are in the training data too, on either strand, before any were dropped
    dropped: int  # since a part that is tested on holds them
    sha256: str  # of the file


@dataclass(frozen=True)
class TaskData:
    """The parts of a task, and what each holds."""

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
    train: Examples, validation: Examples | None, test: Examples | None, sources: Mapping[str, SourceFile], *,
    how: Validation, share: float, seed: int, drop_leaks: bool,
) -> TaskData:  # fmt: skip
    """Return the parts of a task, with counts of what they share; the test data are always as they were read.

    Where there are no validation data, a `share` of the training data is held out, at `how` "random" or "grouped", by
    `seed`. `drop_leaks` drops training sequences that the other parts hold, on either strand. InputError where a part
    is missing, or nothing is left of it.
    """
    place = sources["train"].place
    if validation is None:
        if how == "file":
            raise InputError(f"{place}: there is no file of validation data for it, which this protocol needs")
        rows_train, rows_held = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if len(train) > 1 and how == "random":
            rows_train, rows_held = random_split(len(train), share, seed)
        elif len(train) > 1:
            by_class = train.problem in {"binary", "multiclass"}
            labels = train.known_labels if by_class else None
            rows_train, rows_held = grouped_split(labels, sequence_keys(train), share, seed)
        if not len(rows_held) or not len(rows_train):
            raise InputError(f"{place}: {len(train)} sequences are too few to hold some out; add validation data")
        train, validation = train.select(rows_train), train.select(rows_held)
    others = {"validation": validation} | ({} if test is None else {"test": test})
    shared = {name: overlap(train, part) for name, part in others.items()}
    dropped = np.zeros(len(train), dtype=np.bool_)
    if drop_leaks:
        for part in others.values():
            dropped |= leaks(train, part)
        if dropped.all():
            raise InputError(f"{place}: all of its sequences are in the validation or test data, so that none are left")
        train = train.select(~dropped)
    duplicates, _ = overlap(train, train)
    counts = [SplitCount("train", len(train), duplicates, 0, int(dropped.sum()), sources["train"].sha256)]
    for name, part in others.items():
        counts.append(SplitCount(name, len(part), *shared[name], 0, sources.get(name, sources["train"]).sha256))
    return TaskData(train, validation, test, tuple(counts))
