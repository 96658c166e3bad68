"""Which sequences two sets share, and how one set is split in two.

Shape suffixes: N sequences, M those of another set, C classes or contigs, G groups.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert.windows.randomness import random_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Bool, Int64, UInt64
    from mutbert.examples.table import Examples, Keys
    from mutbert.regions import Region

# Streams of random numbers; others are in `mutbert.windows.randomness`.
_ROWS: Final = 102
_GROUPS: Final = 103
_CONTIGS: Final = 104
_WHOLE: Final = 1e-9


class SplitRows(NamedTuple):
    """A split of rows in two: indices from 0, ascending; each row is on one side."""

    train: Int64
    validation: Int64


def sequence_keys(examples: Examples) -> Keys:
    """Return the key of each sequence, void of 16 bytes (N,), the same for its reverse complement."""
    forward_N, reverse_N = examples.strand_keys
    # Both of a pair take the key of the same strand, whichever it is.
    keys_N: Keys = np.where(_lanes(forward_N)[:, 0] <= _lanes(reverse_N)[:, 0], forward_N, reverse_N)
    return keys_N


def overlap(train: Examples, other: Examples) -> tuple[int, int]:
    """Return how many sequences of `other` came before in it, and how many are in `train` on either strand."""
    return len(other) - len(np.unique(other.strand_keys[0])), int(leaks(other, train).sum())


def leaks(train: Examples, other: Examples) -> Bool:
    """Return which training sequences are in `other`, on either strand; bool (N,)."""
    return np.isin(sequence_keys(train), sequence_keys(other))


def random_split(count: int, share: float, seed: int) -> SplitRows:
    """Return a random split of at least 2 rows; a part of a row to hold out counts as one."""
    _check_share(share)
    if count < 2:
        raise ValueError(f"{count} rows cannot be split; at least 2 are needed")
    held = min(max(math.ceil(share * count - _WHOLE), 1), count - 1)
    order = np.argsort(random_bits(seed, _ROWS, np.arange(count), 1)[:, 0], kind="stable")
    held_N = np.zeros(count, dtype=bool)
    held_N[order[:held]] = True
    return _split(held_N)


def grouped_split(labels: npt.NDArray[np.integer[Any]] | None, keys: Keys, share: float, seed: int) -> SplitRows:
    """Return a split that holds out a share of each class, with rows of equal keys on the same side.

    Which rows are held out follows from their keys and the seed, whatever their order. A group whose rows are of
    several classes counts for the most frequent of them. The rows held out are as near to the share, of all and of
    each class, as whole groups allow without exceeding it by more than one row a class. Of a class with hardly any
    rows, or with a large group alone, none may be held out.
    """
    _check_share(share)
    label_N = np.zeros(len(keys), dtype=np.int64) if labels is None else np.asarray(labels)
    if label_N.shape != keys.shape or not np.issubdtype(label_N.dtype, np.integer):
        raise ValueError("labels are not one class number a key; pass None to split without classes")
    key_G, group_N, size_G = np.unique(keys, return_inverse=True, return_counts=True)
    order_G = random_bits(seed, _GROUPS, (_lanes(key_G)[:, 0] >> np.uint64(1)).astype(np.int64), 1)[:, 0]
    classes, rank_G = np.unique(_most_frequent(group_N, label_N), return_inverse=True)
    size_C = np.bincount(rank_G, weights=size_G, minlength=len(classes)).astype(np.int64)
    held_G = np.zeros(len(key_G), dtype=bool)
    for rank, target in enumerate(_apportion(share, size_C).tolist()):
        member = np.flatnonzero(rank_G == rank)
        member = member[np.argsort(order_G[member], kind="stable")]
        held_G[member] = _fill(size_G[member], target)
    return _split(held_G[group_N])


def region_split(regions: Sequence[Region | None], share: float, seed: int) -> SplitRows | None:
    """Return a split that holds out whole contigs; ``None`` where a region is unknown or all are on one contig.

    The contigs come in random order, and each is held out that brings the rows held out nearer to the share; the
    smallest one where none does.
    """
    _check_share(share)
    names = [region.contig for region in regions if region is not None]
    contigs, contig_N, count_C = np.unique(np.array(names, dtype=str), return_inverse=True, return_counts=True)
    if len(names) < len(regions) or len(contigs) < 2:
        return None
    name_bits = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) for name in contigs.tolist()]
    order = np.argsort(random_bits(seed, _CONTIGS, np.array(name_bits, dtype=np.int64), 1)[:, 0], kind="stable")
    held_C, held, target = np.zeros(len(contigs), dtype=bool), 0, share * len(names)
    for contig in order.tolist():
        size = int(count_C[contig])
        if abs(held + size - target) < abs(held - target) and held_C.sum() < len(contigs) - 1:
            held_C[contig] = True
            held += size
    if not held:
        held_C[order[np.argmin(count_C[order])]] = True
    return _split(held_C[contig_N])


def _lanes(keys: Keys) -> UInt64:
    """Return keys as pairs of integers, (N, 2)."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)


def _most_frequent(group_N: Int64, label_N: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Return the most frequent label of each group; of several, the lowest."""
    pair, count = np.unique(np.stack([group_N, label_N], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pair[:, 1], -count, pair[:, 0]))
    _, first = np.unique(pair[order, 0], return_index=True)
    labels: npt.NDArray[np.integer[Any]] = pair[order, 1][first]
    return labels


def _apportion(share: float, size_C: Int64) -> Int64:
    """Return the rows to hold out of each class, by the largest remainders; no class loses its last row to it."""
    exact_C = share * size_C
    whole_C: Int64 = np.floor(exact_C + _WHOLE).astype(np.int64)
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


def _split(held_N: Bool) -> SplitRows:
    return SplitRows(np.flatnonzero(~held_N), np.flatnonzero(held_N))


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share {share} is not between 0 and 1")
