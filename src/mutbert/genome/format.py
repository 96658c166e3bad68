"""The format of a store: its files, and how they keep bases and frequencies; ``docs/format.md`` is normative.

Four bases to a byte, ambiguous codes and the soft mask as runs, frequencies in fixed point.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Float32, Int64, UInt8, UInt16


FORMAT: Final = "mutbert.genome"
FORMAT_VERSION: Final = 2
MANIFEST: Final = "manifest.json"

FREQUENCY_ONE: Final = 65535
"""The fixed-point value of a frequency of 1."""

BASES_PER_BYTE: Final = 4

AMBIGUITY: Final = np.dtype([("start", "<u4"), ("length", "<u4"), ("code", "u1")])
"""A run of one ambiguous code: 0-based start in the contig, length in bases, base code."""

SOFT_MASK: Final = np.dtype([("start", "<u4"), ("length", "<u4")])
"""A run of soft-masked bases: 0-based start in the contig, length in bases."""

ARRAYS: Final[dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {
    "sequence.npy": (np.dtype("u1"), ()),
    "ambiguity.npy": (AMBIGUITY, ()),
    "soft_mask.npy": (SOFT_MASK, ()),
    "variant_position.npy": (np.dtype("<u4"), ()),
    "variant_frequency.npy": (np.dtype("<u2"), (4,)),
}
"""The files of a store: the type of a row, and its shape."""

SINCE: Final = {"soft_mask.npy": 2}
"""The version that a file came with, where stores of version 1 do not have it."""

LONGEST_CONTIG: Final = 2**32 - 1

_SHIFTS: Final = np.array([0, 2, 4, 6], dtype=np.uint8)

UNPACK: Final = ((np.arange(256)[:, None] >> _SHIFTS) & 3).astype(np.uint8).reshape(-1).view(np.uint32)
"""(256,) one packed byte to its four base codes, in one uint32, so that unpacking is a single table look-up."""


class Contig(NamedTuple):
    """Where a contig's data lie in the arrays of a store.

    Parameters
    ----------
    name : str
        The FASTA's name.
    length : int
        Bases.
    offset : int
        First byte of the contig in ``sequence.npy``.
    ambiguity : tuple of int
        Half-open range of its rows in ``ambiguity.npy``.
    soft_mask : tuple of int
        Half-open range of its rows in ``soft_mask.npy``.
    variants : tuple of int
        Half-open range of its rows in ``variant_position.npy`` and ``variant_frequency.npy``.
    """

    name: str
    length: int
    offset: int
    ambiguity: tuple[int, int]
    soft_mask: tuple[int, int]
    variants: tuple[int, int]


def fixed_to_float(fixed: UInt16) -> Float32:
    """Turn fixed-point frequencies (units of 1/65535) into float32."""
    return fixed.astype(np.float32) / np.float32(FREQUENCY_ONE)


def float_to_fixed(frequency_V4: npt.NDArray[np.floating[Any]]) -> UInt16:
    """Turn distributions into fixed point, by the largest remainder, so that every row sums to exactly 65535.

    Parameters
    ----------
    frequency_V4 : ndarray of float, shape (V, 4)
        Non-negative; rows sum to 1 within 1e-3 (they are normalised first).

    Returns
    -------
    ndarray of uint16, shape (V, 4)
        No value is further than 1/65535 from its frequency.
    """
    if not len(frequency_V4):
        return np.zeros((0, 4), dtype=np.uint16)
    exact = frequency_V4.astype(np.float64)
    total = exact.sum(axis=1, keepdims=True)
    assert np.all(exact >= 0), "frequencies are not negative"
    assert np.all(np.abs(total - 1) < 1e-3), "rows sum to 1"
    exact *= FREQUENCY_ONE / total
    floor = np.floor(exact)
    missing = FREQUENCY_ONE - floor.sum(axis=1, keepdims=True)
    # The `missing` largest remainders of a row are rounded up; ties go to the first base.
    rank = np.argsort(np.argsort(-(exact - floor), axis=1, kind="stable"), axis=1, kind="stable")
    fixed_V4: UInt16 = (floor + (rank < missing)).astype(np.uint16)
    return fixed_V4


def write_reference(folder: Path, contigs: Iterable[tuple[str, UInt8, npt.NDArray[Any]]]) -> dict[str, Contig]:
    """Write the sequences of a store, one contig in memory at a time, and return where each contig lies.

    A contig is its name, not used before, its base codes (L,) and its soft mask as runs of `SOFT_MASK`.
    """
    found: dict[str, Contig] = {}
    with (
        _growing(folder, "sequence.npy") as add_bytes,
        _growing(folder, "ambiguity.npy") as add_ambiguity,
        _growing(folder, "soft_mask.npy") as add_soft_mask,
    ):
        for name, code_L, soft_mask in contigs:
            assert name not in found, f"contig {name} comes twice"
            if len(code_L) > LONGEST_CONTIG:
                raise InputError(f"contig {name}: longer than {LONGEST_CONTIG:,} bases, the most a store can hold")
            offset, _ = add_bytes(pack(code_L))
            ambiguity = add_ambiguity(find_ambiguity(code_L))
            found[name] = Contig(name, len(code_L), offset, ambiguity, add_soft_mask(soft_mask), (0, 0))
    return found


def write_variants(
    folder: Path, contigs: Mapping[str, Contig], variants: Iterable[tuple[str, Int64, UInt16]]
) -> dict[str, Contig]:
    """Write the variants of a store, and return the contigs with the rows of theirs.

    A contig has its name, ascending 0-based positions (V,) and frequencies in fixed point (V, 4), and comes once at
    most; those that do not come have no variants.
    """
    found = dict(contigs)
    with _growing(folder, "variant_position.npy") as add_position, _growing(folder, "variant_frequency.npy") as add:
        for name, position_V, frequency_V4 in variants:
            contig = found[name]
            assert contig.variants == (0, 0), f"the variants of contig {name} come twice"
            assert np.all(position_V[1:] > position_V[:-1]), "positions ascend"
            assert not len(position_V) or 0 <= position_V[0] <= position_V[-1] < contig.length, "within the contig"
            assert frequency_V4.shape == (len(position_V), 4), "a row of frequencies for each position"
            assert np.all(frequency_V4.sum(axis=1, dtype=np.int64) == FREQUENCY_ONE), "rows sum to 65535"
            add(frequency_V4)
            found[name] = contig._replace(variants=add_position(position_V))
    return found


def write_manifest(folder: Path, contigs: Mapping[str, Contig], **provenance: Any) -> None:
    """Write the manifest, which makes a store of the folder; `provenance` is anything else that it is to hold."""
    arrays = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in ARRAYS}
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **provenance,
        "contigs": [contig._asdict() for contig in contigs.values()],
        "arrays": arrays,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _growing(folder: Path, name: str) -> Iterator[Callable[[npt.NDArray[Any]], tuple[int, int]]]:
    """Yield a function that appends rows to an array's new file, and returns their half-open range."""
    dtype, tail = ARRAYS[name]
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (0, *tail)}
    rows = 0

    def append(added: npt.NDArray[Any]) -> tuple[int, int]:
        nonlocal rows
        file.write(np.ascontiguousarray(added, dtype=dtype).data)
        first, rows = rows, rows + len(added)
        return first, rows

    with (folder / name).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield append
        # NumPy pads the header so that the first dimension may grow in place.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *tail)})


def find_runs(label_L: UInt8) -> tuple[Int64, Int64, UInt8]:
    """Return the start, length and label of each longest run of one label; labels of 0 are no runs."""
    begins_L = np.ones(len(label_L), dtype=bool)
    begins_L[1:] = label_L[1:] != label_L[:-1]
    start = np.flatnonzero(begins_L)
    length = np.diff(start, append=len(label_L))
    labelled = label_L[start] > 0
    return start[labelled], length[labelled], label_L[start[labelled]]


def find_ambiguity(code_L: UInt8) -> npt.NDArray[Any]:
    """Return the longest runs of one ambiguous code, rows of `AMBIGUITY`."""
    start, length, code = find_runs(code_L * (code_L >= 4))
    runs = np.empty(len(start), dtype=AMBIGUITY)
    runs["start"], runs["length"], runs["code"] = start, length, code
    return runs


def pack(base_L: UInt8) -> UInt8:
    """Put four bases into a byte, the first in the lowest bits.

    Parameters
    ----------
    base_L : ndarray of uint8, shape (L,)
        Base codes; an ambiguous code is packed as A, and so is what the last byte has no base for.

    Returns
    -------
    ndarray of uint8, shape (ceil(L / 4),)
    """
    packed = np.zeros(-(-len(base_L) // BASES_PER_BYTE), dtype=np.uint8)
    for place, shift in enumerate(_SHIFTS):
        code = base_L[place::BASES_PER_BYTE]
        packed[: len(code)] |= (code * (code < 4)) << shift
    return packed


def ambiguous_runs(base_L: UInt8, start: int = 0) -> npt.NDArray[Any]:
    """Find the longest runs of one ambiguous code.

    Parameters
    ----------
    base_L : ndarray of uint8, shape (L,)
        Base codes.
    start : int
        Position of the first of them in its contig.

    Returns
    -------
    ndarray of `AMBIGUITY`, shape (runs,)
        Ascending.
    """
    position = np.flatnonzero(base_L >= 4)
    code = base_L[position]
    begins = np.ones(len(position), dtype=bool)
    begins[1:] = (np.diff(position) != 1) | (code[1:] != code[:-1])
    first = np.flatnonzero(begins)
    runs = np.empty(len(first), dtype=AMBIGUITY)
    runs["start"] = position[first] + start
    runs["length"] = np.diff(np.append(first, len(position)))
    runs["code"] = code[first]
    return runs


def true_runs(flag_L: npt.NDArray[np.bool_], start: int = 0) -> npt.NDArray[Any]:
    """Find the longest runs of true flags.

    Parameters
    ----------
    flag_L : ndarray of bool, shape (L,)
        One for each base.
    start : int
        Position of the first of them in its contig.

    Returns
    -------
    ndarray of `SOFT_MASK`, shape (runs,)
        Ascending; no two touch.
    """
    change = np.flatnonzero(flag_L[1:] != flag_L[:-1]) + 1
    edges = np.concatenate([np.flatnonzero(flag_L[:1]), change, np.flatnonzero(flag_L[-1:]) + len(flag_L)])
    runs = np.empty(len(edges) // 2, dtype=SOFT_MASK)
    runs["start"] = edges[0::2] + start
    runs["length"] = edges[1::2] - edges[0::2]
    return runs


def join_runs(parts: Sequence[npt.NDArray[Any]], kind: np.dtype[Any] = AMBIGUITY) -> npt.NDArray[Any]:
    """Join the runs of consecutive pieces of a contig; a run that a cut went through becomes one again.

    Parameters
    ----------
    parts : sequence of ndarray
        The runs of each piece, ascending.
    kind : dtype
        Theirs: `AMBIGUITY` or `SOFT_MASK`.

    Returns
    -------
    ndarray of `kind`, shape (runs,)
        Ascending.
    """
    runs = np.concatenate([np.empty(0, dtype=kind), *parts])
    if not len(runs):
        return runs
    end = runs["start"].astype(np.int64) + runs["length"]
    begins = np.ones(len(runs), dtype=bool)
    begins[1:] = runs["start"][1:] != end[:-1]
    if kind == AMBIGUITY:
        begins[1:] |= runs["code"][1:] != runs["code"][:-1]
    first = np.flatnonzero(begins)
    joined = runs[first]
    joined["length"] = np.add.reduceat(runs["length"].astype(np.int64), first)
    return joined


def codes_at(packed: UInt8, runs: npt.NDArray[Any], position_V: Int64) -> UInt8:
    """Read the base codes at some positions of a packed contig.

    Parameters
    ----------
    packed : ndarray of uint8
        The contig's bytes.
    runs : ndarray of `AMBIGUITY`
        Its ambiguous runs, ascending.
    position_V : ndarray of int64, shape (V,)
        0-based positions within the contig, in any order.

    Returns
    -------
    ndarray of uint8, shape (V,)
        Base codes.
    """
    code_V: UInt8 = (packed[position_V // BASES_PER_BYTE] >> _SHIFTS[position_V % BASES_PER_BYTE]) & np.uint8(3)
    if len(runs):
        run_V = np.searchsorted(runs["start"], position_V, side="right") - 1
        found_V = runs[run_V]
        inside_V = (run_V >= 0) & (position_V < found_V["start"].astype(np.int64) + found_V["length"])
        code_V[inside_V] = found_V["code"][inside_V]
    return code_V


def bisect_rows(values: npt.NDArray[Any], first_B: Int64, last_B: Int64, wanted_B: Int64) -> Int64:
    """For each row, find the first index in ``first .. last`` whose value is not below the wanted one.

    All rows are searched at once, each in its own ascending range of `values`.
    """
    low, high = first_B, last_B
    for _ in range(int(np.max(last_B - first_B, initial=0)).bit_length()):
        middle = (low + high) >> 1
        # A search that has ended may look behind the last value, and stays where it is.
        below = (low < high) & (values[np.minimum(middle, len(values) - 1)] < wanted_B)
        low = np.where(below, middle + 1, low)
        high = np.where(below, high, middle)
    return low


def runs_in_windows(
    runs: npt.NDArray[Any], first_B: Int64, last_B: Int64, start_B: Int64, length: int
) -> tuple[Int64, Int64, Int64, Int64]:
    """Cut runs to windows of one length.

    Parameters
    ----------
    runs : ndarray of `AMBIGUITY` or `SOFT_MASK`
        Those of all contigs.
    first_B, last_B : ndarray of int64, shape (B,)
        Half-open range of the runs of each window's contig.
    start_B : ndarray of int64, shape (B,)
        0-based start of each window in its contig.
    length : int
        Bases of a window.

    Returns
    -------
    ndarray of int64, shape (R,)
        The window of each run that may reach into one, ascending.
    ndarray of int64, shape (R,)
        The run, ascending within a window.
    ndarray of int64, shape (R,)
        Its begin in the window, 0 to `length`.
    ndarray of int64, shape (R,)
        Its end in the window, which is its begin where it ended before the window.
    """
    starts = runs["start"]
    # Runs do not overlap, so only the last run that starts at or before a window can reach into it from there.
    begin_B = np.maximum(bisect_rows(starts, first_B, last_B, start_B + 1) - 1, first_B)
    # Behind it a window has at most as many runs as bases, which bounds the second search.
    most_B = np.minimum(begin_B + 1 + length, last_B)
    row_R, run_R = list_ranges(begin_B, bisect_rows(starts, begin_B, most_B, start_B + length))
    found = runs[run_R]
    shift_R = found["start"].astype(np.int64) - start_B[row_R]
    begin_R = np.maximum(shift_R, 0)
    return row_R, run_R, begin_R, np.maximum(np.minimum(shift_R + found["length"], length), begin_R)
