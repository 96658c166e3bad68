"""Which sequences two sets share, how one is split in two, and the three parts of a task.

Shape suffixes: N sequences, M those of another set, C classes or contigs, G groups.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mutbert.arrays import Bool, Int64
from mutbert.errors import InputError
from mutbert.examples.table import Examples, Keys
from mutbert.regions import Region
from mutbert.tables import SourceFile
from mutbert.windows.randomness import random_bits

# Streams of random numbers; others are in `mutbert.windows.randomness`.
_ROWS, _GROUPS, _CONTIGS = 102, 103, 104
_WHOLE: Final = 1e-9


def sequence_keys(examples: Examples) -> Keys:
    """Return the key of each sequence, void of 16 bytes (N,), the same for its reverse complement."""
    # Both of a pair take the key of the same strand, whichever it is.
    lane_2N = np.ascontiguousarray(keys_2N := examples.strand_keys).view(np.uint64)[:, ::2]
    return np.where(lane_2N[0] <= lane_2N[1], keys_2N[0], keys_2N[1])  # type: ignore[no-any-return]


def overlap(train: Examples, other: Examples) -> tuple[int, int]:
    """Return how many sequences of `other` came before in it, and how many are in `train` on either strand."""
    return len(other) - len(np.unique(other.strand_keys[0])), int(leaks(other, train).sum())


def conflicts(examples: Examples) -> int:
    """Return how many sequences have different classes in different rows."""
    _, group_N = np.unique(examples.strand_keys[0], return_inverse=True)
    pair = np.unique(np.stack([group_N, examples.known_labels], axis=1), axis=0)
    return int((np.bincount(pair[:, 0]) > 1).sum())


def leaks(train: Examples, other: Examples) -> Bool:
    """Return which training sequences are in `other`, on either strand; bool (N,)."""
    return np.isin(sequence_keys(train), sequence_keys(other))


def random_split(count: int, share: float, seed: int) -> Bool:
    """Return which of so many rows are held out at random, a part of a row as one; never all of them."""
    held = min(max(math.ceil(share * count - _WHOLE), 1), count - 1)
    order = np.argsort(random_bits(seed, _ROWS, np.arange(count), 1)[:, 0], kind="stable")
    return np.isin(np.arange(count), order[:held])


def grouped_split(labels: npt.NDArray[np.integer[Any]] | None, keys: Keys, share: float, seed: int) -> Bool:
    """Return which rows are held out: a share of each class, and rows of equal keys all or none.

    Which they are follows from their keys and the seed. A group counts for the most frequent of its classes. They are
    as near to the share, of all and of each class, as whole groups allow without exceeding it by more than a row a
    class: of one with hardly any rows, or a large group alone, none may be held out.
    """
    label_N = np.zeros(len(keys), dtype=np.int64) if labels is None else labels
    key_G, group_N, size_G = np.unique(keys, return_inverse=True, return_counts=True)
    order_G = random_bits(seed, _GROUPS, (key_G.view(np.uint64)[::2] >> np.uint64(1)).astype(np.int64), 1)[:, 0]
    # Of the most frequent labels of a group, the lowest.
    frame = pl.DataFrame({"group": group_N, "label": label_N}).group_by("group").agg(pl.col("label").mode().min())
    classes, rank_G = np.unique(frame.sort("group")["label"].to_numpy(), return_inverse=True)
    size_C = np.bincount(rank_G, weights=size_G, minlength=len(classes)).astype(np.int64)
    held_G = np.zeros(len(key_G), dtype=bool)
    for rank, target in enumerate(_apportion(share, size_C).tolist()):
        member = np.flatnonzero(rank_G == rank)
        member = member[np.argsort(order_G[member], kind="stable")]
        held_G[member] = _fill(size_G[member], target)
    return held_G[group_N]


def region_split(regions: Sequence[Region | None], share: float, seed: int) -> Bool | None:
    """Return which rows are held out, by whole contigs; ``None`` where a region is unknown or all are on one contig.

    Of contigs in random order, each is held out that brings the rows nearer to the share; else the smallest one.
    """
    names = [region.contig for region in regions if region is not None]
    contigs, contig_N, count_C = np.unique(np.array(names, dtype=str), return_inverse=True, return_counts=True)
    if len(names) < len(regions) or len(contigs) < 2:
        return None
    name_bits = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) for name in contigs.tolist()]
    order = np.argsort(random_bits(seed, _CONTIGS, np.array(name_bits, dtype=np.int64), 1)[:, 0], kind="stable")
    held_C, target = np.zeros(len(contigs), dtype=bool), share * len(names)
    for contig in order.tolist():
        off = count_C[held_C].sum() - target
        if abs(off + count_C[contig]) < abs(off) and held_C.sum() < len(contigs) - 1:
            held_C[contig] = True
    if not held_C.any():
        held_C[order[np.argmin(count_C[order])]] = True
    return held_C[contig_N]


def _apportion(share: float, size_C: Int64) -> Int64:
    """Return the rows to hold out of each class, by the largest remainders: at least one, and never the last."""
    exact_C = share * size_C
    whole_C: Int64 = np.maximum(np.floor(exact_C + _WHOLE), size_C > 1).astype(np.int64)
    left = max(round(share * int(size_C.sum())), 1) - int(whole_C.sum())
    order = np.argsort(whole_C - exact_C, kind="stable")
    order = order[whole_C[order] + 1 < size_C[order]]
    whole_C[order[: max(left, 0)]] += 1
    return whole_C


def _fill(size_G: Int64, target: int) -> Bool:
    """Return which groups, the first that fit, come to the target together or as near below it as they can."""
    held_G = np.zeros(len(size_G), dtype=bool)
    while len(fits := np.flatnonzero(~held_G & (size_G <= target))):
        # The first of them fits, so that every round brings the target down.
        chosen = fits[np.cumsum(size_G[fits]) <= target]
        held_G[chosen] = True
        target -= int(size_G[chosen].sum())
    return held_G


def part_task(
    parts: Mapping[str, Examples], sources: Mapping[str, SourceFile], *, how: Literal["file", "random", "grouped"],
    share: float, seed: int, drop_leaks: bool,
) -> tuple[dict[str, Examples], list[dict[str, Any]]]:  # fmt: skip
    """Return the parts of a task (train, validation, test) that are used, and counts of what each has.

    Without validation data, a `share` of the training data is held out, at `how` "random" or "grouped", by `seed`.
    `drop_leaks` drops training sequences that other parts hold, on either strand. Counts are of the sequences used, of
    those that came before in the same part or were in the training data before any were dropped, and of the dropped.
    """
    train, place = parts["train"], sources["train"].place
    others = {name: part for name, part in parts.items() if name != "train"}
    if "validation" not in others:
        if how == "file":
            raise InputError(f"{place}: there is no file of validation data for it, which this protocol needs")
        if how == "random":
            held_N = random_split(len(train), share, seed)
        else:
            labels = train.known_labels if train.problem in {"binary", "multiclass"} else None
            held_N = grouped_split(labels, sequence_keys(train), share, seed)
        if held_N.all() or not held_N.any():
            raise InputError(f"{place}: {len(train)} sequences are too few to hold some out; add validation data")
        train, others = train.select(~held_N), {"validation": train.select(held_N), **others}
    shared = {name: overlap(train, part) for name, part in others.items()}
    before = len(train)
    if drop_leaks:
        train = train.select(~np.any([leaks(train, part) for part in others.values()], axis=0))
        if not len(train):
            raise InputError(f"{place}: all of its sequences are in the validation or test data, so that none are left")
    rows = [("train", len(train), overlap(train, train)[0], 0, before - len(train), sources["train"].sha256)]
    sha256 = {name: sources.get(name, sources["train"]).sha256 for name in others}
    rows += [(name, len(part), *shared[name], 0, sha256[name]) for name, part in others.items()]
    counts = ("split", "examples", "duplicates", "in_train", "dropped", "sha256")
    return {"train": train, **others}, [dict(zip(counts, row, strict=True)) for row in rows]
