"""Which sequences two sets share, and how one set is split in two.

Shape suffixes: N sequences, M those of another set, G groups, T bases of all sequences together.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.windows.randomness import random_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Int64
    from mutbert.examples.table import Examples
    from mutbert.regions import Region

    UInt64 = npt.NDArray[np.uint64]
    Keys = npt.NDArray[np.void]

# Streams of random numbers besides those of `mutbert.windows.randomness`.
_KEYS: Final = 101
_ROWS: Final = 102
_GROUPS: Final = 103
_CONTIGS: Final = 104

_KEY: Final = np.dtype("V16")
# What is computed of so many stays in the processor's cache.
_BASES_AT_ONCE: Final = 1 << 18
_WHOLE: Final = 1e-9


class Overlap(NamedTuple):
    """What a set of sequences shares with the training set, and with itself.

    Parameters
    ----------
    duplicates : int
        Sequences that came before in the same set, on the same strand.
    in_train : int
        Sequences that are in the training set, on the same strand.
    in_train_reversed : int
        Those of which the reverse complement alone is in the training set.
    """

    duplicates: int
    in_train: int
    in_train_reversed: int


class SplitRows(NamedTuple):
    """A split of rows in two; each row is on one side.

    Parameters
    ----------
    train, validation : ndarray of int64
        Indices from 0, ascending.
    """

    train: Int64
    validation: Int64


def sequence_keys(examples: Examples, *, strands: bool = True) -> Keys:
    """Give each sequence a key of 128 bits, so that equal sequences are found without comparing them.

    A lane of the key is ``sum(a[i] * (code[i] + 1))`` modulo 2**64 with random ``a`` (multilinear hashing, Carter and
    Wegman 1979, "Universal classes of hash functions", J. Comput. Syst. Sci. 18). Of a million different sequences,
    two share a key with a probability below 10**-24.

    Parameters
    ----------
    examples : Examples
        N sequences.
    strands : bool
        Give a sequence and its reverse complement the same key.

    Returns
    -------
    ndarray of void of 16 bytes, shape (N,)
        For ``==``, `numpy.unique` and `numpy.isin`. A key depends on its own sequence alone.
    """
    forward_N, reverse_N = _keys_of_strands(examples)
    if not strands:
        return forward_N
    # Both of a pair take the key of the same strand, whichever it is.
    return np.where(_lanes(forward_N)[:, 0] <= _lanes(reverse_N)[:, 0], forward_N, reverse_N)


def overlap(train: Examples, other: Examples) -> Overlap:
    """Count the sequences of `other` that are in `train`, and those that `other` holds more than once."""
    train_N, _ = _keys_of_strands(train)
    forward_M, reverse_M = _keys_of_strands(other)
    same_M = np.isin(forward_M, train_N)
    return Overlap(
        len(other) - len(np.unique(forward_M)),
        int(same_M.sum()),
        int((np.isin(reverse_M, train_N) & ~same_M).sum()),
    )


def leaks(train: Examples, other: Examples, *, strands: bool = True) -> npt.NDArray[np.bool_]:
    """Mark the training sequences that are in `other`, so that they can be dropped and `other` stays as it is.

    Parameters
    ----------
    train, other : Examples
        N training sequences, and those that are tested on.
    strands : bool
        Mark those whose reverse complement is there too.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    return np.isin(sequence_keys(train, strands=strands), sequence_keys(other, strands=strands))


def random_split(count: int, share: float, seed: int) -> SplitRows:
    """Hold out a random share of the rows, as published: whatever the sequences are.

    Parameters
    ----------
    count : int
        Rows, at least 2.
    share : float
        The share to hold out, between 0 and 1; a part of a row counts as one, as at least one stays on each side.
    seed : int
        Any non-negative integer below 2**63.

    Returns
    -------
    SplitRows

    Raises
    ------
    ValueError
        When there are not two rows, or the share is not between 0 and 1.
    """
    _check_share(share)
    if count < 2:
        raise ValueError(f"{count} rows cannot be split; at least 2 are needed")
    held = min(max(math.ceil(share * count - _WHOLE), 1), count - 1)
    order = np.argsort(random_bits(seed, _ROWS, np.arange(count), 1)[:, 0], kind="stable")
    held_N = np.zeros(count, dtype=bool)
    held_N[order[:held]] = True
    return _split(held_N)


def grouped_split(labels: npt.NDArray[np.integer[Any]] | None, keys: Keys, share: float, seed: int) -> SplitRows:
    """Hold out a share of each class, with rows of equal keys on the same side.

    Which rows are held out follows from their keys and the seed, whatever their order. A group whose rows are of
    several classes counts for the most frequent of them. The rows held out are as near to the share, of all and of
    each class, as whole groups allow without exceeding it by more than one row a class. Of a class with hardly any
    rows, or with a large group alone, none may be held out.

    Parameters
    ----------
    labels : ndarray of integer, shape (N,), or None
        The classes to stratify by; ``None`` for no classes.
    keys : ndarray of void, shape (N,)
        As `sequence_keys` gives them.
    share : float
        The share to hold out, between 0 and 1.
    seed : int
        Any non-negative integer below 2**63.

    Returns
    -------
    SplitRows

    Raises
    ------
    ValueError
        When labels and keys do not fit each other, or the share is not between 0 and 1.
    """
    _check_share(share)
    label_N = np.zeros(len(keys), dtype=np.int64) if labels is None else np.asarray(labels)
    if label_N.shape != keys.shape or not np.issubdtype(label_N.dtype, np.integer):
        raise ValueError("labels are not one class number a key; give None to split without classes")
    key_G, group_N, size_G = np.unique(keys, return_inverse=True, return_counts=True)
    class_G = _most_frequent(group_N, label_N)
    order_G = random_bits(seed, _GROUPS, (_lanes(key_G)[:, 0] >> np.uint64(1)).astype(np.int64), 1)[:, 0]

    classes, rank_G = np.unique(class_G, return_inverse=True)
    size_C = np.bincount(rank_G, weights=size_G, minlength=len(classes))
    target_C = _apportion(share, size_C.astype(np.int64))
    held_G = np.zeros(len(key_G), dtype=bool)
    for rank, target in enumerate(target_C.tolist()):
        member = np.flatnonzero(rank_G == rank)
        member = member[np.argsort(order_G[member], kind="stable")]
        held_G[member] = _fill(size_G[member], target)
    return _split(held_G[group_N])


def region_split(regions: Sequence[Region | None], share: float, seed: int) -> SplitRows | None:
    """Hold out whole contigs, about a share of the rows.

    Parameters
    ----------
    regions : sequence of Region or None
        Where each row lies.
    share : float
        The share to hold out, between 0 and 1.
    seed : int
        Any non-negative integer below 2**63.

    Returns
    -------
    SplitRows or None
        The contigs come in random order, and each is held out that brings the rows held out nearer to the share; the
        smallest one where none does. ``None`` where a row's region is unknown or all are on one contig.

    Raises
    ------
    ValueError
        When the share is not between 0 and 1.
    """
    _check_share(share)
    names = [region.contig for region in regions if region is not None]
    contigs, contig_N, count_C = np.unique(np.array(names, dtype=str), return_inverse=True, return_counts=True)
    if len(names) < len(regions) or len(contigs) < 2:
        return None
    name_bits = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) for name in contigs.tolist()]
    order = np.argsort(random_bits(seed, _CONTIGS, np.array(name_bits, dtype=np.int64), 1)[:, 0], kind="stable")
    target = share * len(names)
    held_C = np.zeros(len(contigs), dtype=bool)
    held = 0
    for contig in order.tolist():
        size = int(count_C[contig])
        if abs(held + size - target) < abs(held - target) and held_C.sum() < len(contigs) - 1:
            held_C[contig] = True
            held += size
    if not held:
        held_C[order[np.argmin(count_C[order])]] = True
    return _split(held_C[contig_N])


def _keys_of_strands(examples: Examples) -> tuple[Keys, Keys]:
    """Give the keys of all sequences, and those of their reverse complements."""
    offsets, longest = examples.offsets, int(examples.lengths.max(initial=0))
    factor_2L = np.ascontiguousarray(random_bits(0, _KEYS, np.arange(longest), 2).T)
    keys = np.zeros((2, len(examples), 2), dtype=np.uint64)
    first = 0
    while first < len(examples):
        # At least one sequence, whatever its length.
        last = max(int(np.searchsorted(offsets, offsets[first] + _BASES_AT_ONCE, side="right")) - 1, first + 1)
        code_T = examples.base_codes[offsets[first] : offsets[last]]
        start_T = np.repeat(offsets[first:last], examples.lengths[first:last])
        end_T = np.repeat(offsets[first + 1 : last + 1], examples.lengths[first:last])
        place_T = np.arange(offsets[first], offsets[last])
        strands = (
            (code_T, place_T - start_T),
            (alphabet.COMPLEMENT_OF_CODE[code_T], end_T - 1 - place_T),
        )
        bounds = offsets[first : last + 1] - offsets[first]
        for strand, (code_T, index_T) in enumerate(strands):
            value_T = code_T.astype(np.uint64) + np.uint64(1)
            for lane in range(2):
                # Sums wrap around at 2**64, so that differences of running ones are right.
                running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(factor_2L[lane][index_T] * value_T)])
                keys[strand, first:last, lane] = np.diff(running[bounds])
        first = last
    return keys[0].view(_KEY)[:, 0], keys[1].view(_KEY)[:, 0]


def _lanes(keys: Keys) -> UInt64:
    """View keys as pairs of integers, shape (N, 2)."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)


def _most_frequent(group_N: Int64, label_N: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Give the most frequent label of each group; of several, the lowest."""
    pair, count = np.unique(np.stack([group_N, label_N], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pair[:, 1], -count, pair[:, 0]))
    _, first = np.unique(pair[order, 0], return_index=True)
    labels: npt.NDArray[np.integer[Any]] = pair[order, 1][first]
    return labels


def _apportion(share: float, size_C: Int64) -> Int64:
    """Share out the rows to hold out among classes, by the largest remainders; no class loses its last row to it."""
    exact_C = share * size_C
    whole_C = np.floor(exact_C + _WHOLE).astype(np.int64)
    left = max(round(share * int(size_C.sum())), 1) - int(whole_C.sum())
    order = np.argsort(whole_C - exact_C, kind="stable")
    order = order[whole_C[order] + 1 < size_C[order]]
    whole_C[order[: max(left, 0)]] += 1
    targets: Int64 = whole_C
    return targets


def _fill(size_G: Int64, target: int) -> npt.NDArray[np.bool_]:
    """Choose groups, the first ones that fit, so that their sizes come to the target or as near below as they can."""
    held_G = np.zeros(len(size_G), dtype=bool)
    while True:
        fits = np.flatnonzero(~held_G & (size_G <= target))
        if not len(fits):
            return held_G
        # The first of them fits, so that every round brings the target down.
        chosen = fits[np.cumsum(size_G[fits]) <= target]
        held_G[chosen] = True
        target -= int(size_G[chosen].sum())


def _split(held_N: npt.NDArray[np.bool_]) -> SplitRows:
    return SplitRows(np.flatnonzero(~held_N), np.flatnonzero(held_N))


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share {share} is not between 0 and 1")
