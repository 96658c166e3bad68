"""The probabilistic genome on disk: written contig by contig, opened by memory map.

The format is described in ``docs/format.md``, which is normative. Shape suffixes: B windows, L positions of a
window, N (window, position) pairs, V variants, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.publishing import sha256_of
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import BinaryIO

    UInt8 = npt.NDArray[np.uint8]
    UInt16 = npt.NDArray[np.uint16]
    UInt32 = npt.NDArray[np.uint32]
    Int64 = npt.NDArray[np.int64]
    Float32 = npt.NDArray[np.float32]

FORMAT: Final = "mutbert.genome"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
FREQUENCY_ONE: Final = 65535
"""The fixed-point value of a frequency of 1."""

_AMBIGUITY = np.dtype([("start", "<u4"), ("length", "<u4"), ("code", "u1")])
_ARRAYS: Final[dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {
    "sequence.npy": (np.dtype("u1"), ()),
    "ambiguity.npy": (_AMBIGUITY, ()),
    "variant_position.npy": (np.dtype("<u4"), ()),
    "variant_frequency.npy": (np.dtype("<u2"), (4,)),
}
_LONGEST_CONTIG: Final = 2**32 - 1

# One packed byte to its four base codes, in one uint32, so that unpacking is a single table look-up.
_UNPACK: Final = ((np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3).astype(np.uint8).reshape(-1).view(np.uint32)


class GenomeError(InputError):
    """A genome store that cannot be used: damaged, cut short, of another format or a newer version."""


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
    variants : tuple of int
        Half-open range of its rows in ``variant_position.npy`` and ``variant_frequency.npy``.
    """

    name: str
    length: int
    offset: int
    ambiguity: tuple[int, int]
    variants: tuple[int, int]


class Variants(NamedTuple):
    """The variant positions of a region.

    Parameters
    ----------
    position : ndarray of int64, shape (V,)
        0-based in the contig, ascending.
    reference : ndarray of uint8, shape (V,)
        Base code of the reference base.
    frequency : ndarray of float32, shape (V, 4)
        Allele frequencies in the order A, C, G, T; each row sums to 1.
    """

    position: Int64
    reference: UInt8
    frequency: Float32


class Windows(NamedTuple):
    """A batch of equally long windows: base codes, and sparse rows for the positions that vary.

    Parameters
    ----------
    base_BL : ndarray of uint8, shape (B, L)
        Reference base codes (indices into `mutbert.alphabet.IUPAC`).
    row_N : ndarray of int64, shape (N,)
        Window of each variant position, ascending.
    column_N : ndarray of int64, shape (N,)
        0-based place of each variant position in its window, ascending within a window.
    frequency_N4 : ndarray of uint16, shape (N, 4)
        Allele frequencies in units of 1/65535; each row sums to 65535.
    """

    base_BL: UInt8
    row_N: Int64
    column_N: Int64
    frequency_N4: UInt16

    def distributions(self) -> Float32:
        """Expand to the distribution over A, C, G, T at every position, float32 of shape (B, L, 4)."""
        dense_BL4 = alphabet.DISTRIBUTIONS[self.base_BL]
        dense_BL4[self.row_N, self.column_N] = fixed_to_float(self.frequency_N4)
        return dense_BL4


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


class StoreWriter:
    """Write the arrays of a store into an empty folder, one contig after another, then its manifest.

    Memory is one contig's; the disk never holds more than the result. A context manager: nothing opens as a
    store before `finish` has written the manifest.

    Parameters
    ----------
    directory : Path
        An empty folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._contigs: list[Contig] = []
        self._rows = dict.fromkeys(_ARRAYS, 0)
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        for name in _ARRAYS:
            self._files[name] = (self._directory / name).open("w+b")
            self._write_header(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add_contig(self, name: str, base_L: UInt8, position_V: UInt32, frequency_V4: UInt16) -> None:
        """Append a contig.

        Parameters
        ----------
        name : str
            The contig's name, not used before.
        base_L : ndarray of uint8, shape (L,)
            Reference base codes.
        position_V : ndarray of uint32, shape (V,)
            0-based positions of the variants, strictly ascending.
        frequency_V4 : ndarray of uint16, shape (V, 4)
            Their frequencies in fixed point; each row sums to 65535.
        """
        assert all(name != contig.name for contig in self._contigs), f"contig {name} is given twice"
        assert len(base_L) <= _LONGEST_CONTIG, "positions are 32-bit"
        assert len(position_V) == len(frequency_V4), "a row of frequencies for each position"
        assert np.all(position_V[1:] > position_V[:-1]), "positions ascend"
        assert not len(position_V) or position_V[-1] < len(base_L), "positions lie in the contig"
        assert np.all(frequency_V4.sum(axis=1, dtype=np.int64) == FREQUENCY_ONE), "rows sum to 65535"
        before = dict(self._rows)
        self._append("sequence.npy", _pack(base_L))
        self._append("ambiguity.npy", _ambiguous_runs(base_L))
        self._append("variant_position.npy", position_V.astype("<u4"))
        self._append("variant_frequency.npy", frequency_V4.astype("<u2"))
        self._contigs.append(
            Contig(
                name,
                len(base_L),
                before["sequence.npy"],
                (before["ambiguity.npy"], self._rows["ambiguity.npy"]),
                (before["variant_position.npy"], self._rows["variant_position.npy"]),
            )
        )

    def finish(self, **description: Any) -> None:
        """Write the manifest.

        Parameters
        ----------
        **description
            What else the manifest says: ``sources``, ``settings``, ``records``...; anything JSON can hold.
        """
        for name, file in self._files.items():
            self._write_header(name)
            file.close()
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            **description,
            "contigs": [contig._asdict() for contig in self._contigs],
            "arrays": {
                name: {
                    "bytes": (self._directory / name).stat().st_size,
                    "sha256": sha256_of(self._directory / name),
                }
                for name in _ARRAYS
            },
        }
        (self._directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _append(self, name: str, rows: npt.NDArray[Any]) -> None:
        self._files[name].write(np.ascontiguousarray(rows).data)
        self._rows[name] += len(rows)

    def _write_header(self, name: str) -> None:
        # NumPy pads the header so that the first dimension may grow in place.
        dtype, tail = _ARRAYS[name]
        file = self._files[name]
        file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (self._rows[name], *tail),
        }
        np.lib.format.write_array_header_1_0(file, header)


def _pack(base_L: UInt8) -> UInt8:
    """Put four bases into a byte, the first in the lowest bits; an ambiguous code is packed as A."""
    padded = np.zeros(-(-len(base_L) // 4) * 4, dtype=np.uint8)
    np.multiply(base_L, base_L < 4, out=padded[: len(base_L)])
    quarters = padded.reshape(-1, 4)
    packed: UInt8 = np.bitwise_or.reduce(quarters << np.array([0, 2, 4, 6], dtype=np.uint8), axis=1)
    return packed


def _ambiguous_runs(base_L: UInt8) -> npt.NDArray[Any]:
    """Find the longest runs of one ambiguous code."""
    position = np.flatnonzero(base_L >= 4)
    code = base_L[position]
    first = np.flatnonzero(np.concatenate(([True], (np.diff(position) != 1) | (code[1:] != code[:-1]))))[
        : len(position)
    ]
    runs = np.empty(len(first), dtype=_AMBIGUITY)
    runs["start"] = position[first]
    runs["length"] = np.diff(np.append(first, len(position)))
    runs["code"] = code[first]
    return runs


@dataclass(frozen=True)
class ProbabilisticGenome:
    """A reference genome with a population's allele frequencies, opened by memory map.

    Make one with `open`. Any number of processes may open the same store; they share its pages in memory. All
    coordinates are 0-based and half-open, and every contig may be named either way (``chr22`` or ``22``).

    Parameters
    ----------
    path : Path
        The store's folder.
    contigs : dict of str to Contig
        The contigs by name, in the FASTA's order.
    manifest : dict
        What the store says of itself: sources, settings, records used and not used.
    """

    path: Path
    contigs: Mapping[str, Contig]
    manifest: Mapping[str, Any]
    _sequence: UInt8
    _ambiguity: npt.NDArray[Any]
    _variant_position: UInt32
    _variant_frequency: UInt16

    @classmethod
    def open(cls, path: str | Path, *, check: bool = False) -> Self:
        """Open a store.

        Parameters
        ----------
        path : str or Path
            The folder, by custom ``NAME.genome``.
        check : bool
            Read every array once and compare its SHA-256 with the manifest's. Without it only sizes, shapes
            and types are compared, which takes no time.

        Returns
        -------
        ProbabilisticGenome
            Ready to read.

        Raises
        ------
        GenomeError
            When there is no store, or it is damaged, cut short, or of a newer version.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        arrays = {name: _open_array(path, name, manifest, check=check) for name in _ARRAYS}
        try:
            contigs = {
                entry["name"]: Contig(
                    entry["name"],
                    entry["length"],
                    entry["offset"],
                    tuple(entry["ambiguity"]),
                    tuple(entry["variants"]),
                )
                for entry in manifest["contigs"]
            }
        except (KeyError, TypeError) as error:
            raise GenomeError(f"{path / MANIFEST}: contigs are damaged ({error!r}); build the store again") from None
        genome = cls(
            path,
            contigs,
            manifest,
            arrays["sequence.npy"],
            arrays["ambiguity.npy"],
            arrays["variant_position.npy"],
            arrays["variant_frequency.npy"],
        )
        genome._check_ranges()
        return genome

    @property
    def lengths(self) -> dict[str, int]:
        """The contigs' lengths in bases."""
        return {name: contig.length for name, contig in self.contigs.items()}

    @property
    def bytes_on_disk(self) -> int:
        """Size of the whole store, manifest included."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    def contig(self, name: str) -> Contig:
        """Find a contig under either naming.

        Raises
        ------
        GenomeError
            When there is none.
        """
        found = match_contig(name, self.contigs.keys())
        if found is None:
            raise GenomeError(f"{self.path}: no contig {name!r}; there are {names_text(self.contigs)}")
        return self.contigs[found]

    def bases(self, contig: str, start: int, end: int) -> UInt8:
        """Read the reference.

        Parameters
        ----------
        contig : str
            The contig, under either naming.
        start, end : int
            0-based, half-open.

        Returns
        -------
        ndarray of uint8, shape (end - start,)
            Base codes; `mutbert.alphabet.decode` makes a string of them.

        Raises
        ------
        GenomeError
            When the contig does not exist or the region is not within it.
        """
        found = self._within(contig, start, end)
        first = found.offset + start // 4
        last = found.offset + -(-end // 4)
        codes: UInt8 = _UNPACK[self._sequence[first:last]].view(np.uint8)[start % 4 : start % 4 + end - start]
        runs = self._ambiguity[slice(*found.ambiguity)]
        run_starts = runs["start"].astype(np.int64)
        run_ends = run_starts + runs["length"]
        for index in range(np.searchsorted(run_ends, start, "right"), np.searchsorted(run_starts, end, "left")):
            codes[max(run_starts[index] - start, 0) : run_ends[index] - start] = runs["code"][index]
        return codes

    def variants(self, contig: str, start: int | None = None, end: int | None = None) -> Variants:
        """Read the positions that vary, and their allele frequencies.

        Parameters
        ----------
        contig : str
            The contig, under either naming.
        start, end : int, optional
            0-based, half-open; the whole contig where left out.

        Returns
        -------
        Variants
            Positions, reference bases and frequencies.

        Raises
        ------
        GenomeError
            When the contig does not exist or the region is not within it.
        """
        whole = self.contig(contig)
        start = 0 if start is None else start
        end = whole.length if end is None else end
        found = self._within(contig, start, end)
        positions = self._variant_position[slice(*found.variants)]
        first, last = np.searchsorted(positions, [start, end])
        position = positions[first:last].astype(np.int64)
        rows = slice(found.variants[0] + int(first), found.variants[0] + int(last))
        reference = self.bases(contig, start, end)[position - start] if len(position) else np.zeros(0, np.uint8)
        return Variants(position, reference, fixed_to_float(self._variant_frequency[rows]))

    def frequencies(self, contig: str, start: int, end: int) -> Float32:
        """Read the distribution over A, C, G, T at every position.

        Parameters
        ----------
        contig : str
            The contig, under either naming.
        start, end : int
            0-based, half-open.

        Returns
        -------
        ndarray of float32, shape (end - start, 4)
            Rows sum to 1. Where the reference is an IUPAC code, its distribution (N is a quarter each).

        Raises
        ------
        GenomeError
            When the contig does not exist or the region is not within it.
        """
        dense = alphabet.DISTRIBUTIONS[self.bases(contig, start, end)]
        variants = self.variants(contig, start, end)
        dense[variants.position - start] = variants.frequency
        return dense

    def known_runs(self, contig: str, start: int, end: int) -> Int64:
        """Find the stretches of a region without N.

        Returns
        -------
        ndarray of int64, shape (runs, 2)
            0-based half-open starts and ends, ascending; other IUPAC codes are known bases.
        """
        found = self._within(contig, start, end)
        runs = self._ambiguity[slice(*found.ambiguity)]
        runs = runs[runs["code"] == alphabet.UNKNOWN]
        gap_start = runs["start"].astype(np.int64)
        gap_end = gap_start + runs["length"]
        touching = (gap_end > start) & (gap_start < end)
        starts = np.concatenate(([start], gap_end[touching]))
        ends = np.concatenate((gap_start[touching], [end]))
        return np.stack([starts, ends], axis=1)[ends > starts]

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read many windows of one length at once.

        Parameters
        ----------
        contig_B : ndarray of int64, shape (B,)
            Index of each window's contig, in the order of `contigs`.
        start_B : ndarray of int64, shape (B,)
            0-based start of each window; every window lies within its contig.
        length : int
            Bases of a window.

        Returns
        -------
        Windows
            Base codes and sparse variant rows.
        """
        table = np.array(
            [(c.offset, *c.ambiguity, *c.variants, c.length) for c in self.contigs.values()], dtype=np.int64
        ).reshape(-1, 6)
        offset_B, run_first_B, run_last_B, variant_first_B, variant_last_B, length_B = table[contig_B].T
        assert np.all((start_B >= 0) & (start_B + length <= length_B)), "windows lie within their contigs"
        base_BL = self._unpack(offset_B, start_B, length)
        self._put_ambiguity(base_BL, run_first_B, run_last_B, start_B, length)

        first_B = _bisect(self._variant_position, variant_first_B, variant_last_B, start_B)
        last_B = _bisect(self._variant_position, first_B, variant_last_B, start_B + length)
        row_N, variant_N = _ranges(first_B, last_B)
        column_N = self._variant_position[variant_N].astype(np.int64) - start_B[row_N]
        return Windows(base_BL, row_N, column_N, np.asarray(self._variant_frequency[variant_N]))

    def _unpack(self, offset_B: Int64, start_B: Int64, length: int) -> UInt8:
        """Unpack the four-to-a-byte bases; windows are grouped by their phase in the first byte."""
        count = (length + 6) // 4
        byte_B = offset_B + start_B // 4
        # The last window of a genome may ask for a byte behind the end, whose bases are then cut off.
        byte_BC = np.minimum(byte_B[:, None] + np.arange(count), len(self._sequence) - 1)
        codes = _UNPACK[self._sequence[byte_BC]].view(np.uint8)
        base_BL = np.empty((len(start_B), length), dtype=np.uint8)
        for phase in range(4):
            rows = np.flatnonzero(start_B % 4 == phase)
            base_BL[rows] = codes[rows, phase : phase + length]
        return base_BL

    def _put_ambiguity(
        self, base_BL: UInt8, run_first_B: Int64, run_last_B: Int64, start_B: Int64, length: int
    ) -> None:
        if not len(self._ambiguity):
            return
        starts = self._ambiguity["start"]
        # Runs do not overlap, so only the last run that starts at or before a window can reach into it.
        last_B = _bisect(starts, run_first_B, run_last_B, start_B + length)
        first_B = np.maximum(_bisect(starts, run_first_B, run_last_B, start_B + 1) - 1, run_first_B)
        row_R, run_R = _ranges(first_B, last_B)
        runs = self._ambiguity[run_R]
        begin_R = np.maximum(runs["start"].astype(np.int64) - start_B[row_R], 0)
        end_R = np.minimum(runs["start"].astype(np.int64) + runs["length"] - start_B[row_R], length)
        run_N, column_N = _ranges(begin_R, np.maximum(begin_R, end_R))
        base_BL[row_R[run_N], column_N] = runs["code"][run_N]

    def _within(self, contig: str, start: int, end: int) -> Contig:
        found = self.contig(contig)
        if not 0 <= start <= end <= found.length:
            raise GenomeError(
                f"{self.path}: {contig}, {start} to {end} (0-based) is not within its 0 to {found.length}"
            )
        return found

    def _check_ranges(self) -> None:
        for contig in self.contigs.values():
            if not (
                contig.offset + -(-contig.length // 4) <= len(self._sequence)
                and 0 <= contig.ambiguity[0] <= contig.ambiguity[1] <= len(self._ambiguity)
                and 0 <= contig.variants[0] <= contig.variants[1] <= len(self._variant_position)
            ):
                raise GenomeError(
                    f"{self.path / MANIFEST}: contig {contig.name} does not fit the arrays; build the store again"
                )


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.exists():
        raise GenomeError(f"{path}: no such genome store; build one with 'mutbert genome build'")
    if not file.is_file():
        raise GenomeError(f"{path}: not a genome store (it has no {MANIFEST}); build one with 'mutbert genome build'")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GenomeError(f"{file}: cannot be read ({error}); build the store again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise GenomeError(f"{file}: does not describe a genome store; build one with 'mutbert genome build'")
    version = manifest.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise GenomeError(
            f"{file}: format version {version}, this program reads up to {FORMAT_VERSION}; install a newer mutbert"
        )
    return manifest


def _open_array(path: Path, name: str, manifest: Mapping[str, Any], *, check: bool) -> npt.NDArray[Any]:
    file = path / name
    dtype, tail = _ARRAYS[name]
    try:
        expected = manifest["arrays"][name]
        if file.stat().st_size != expected["bytes"]:
            raise GenomeError(
                f"{file}: {file.stat().st_size} bytes where the manifest says {expected['bytes']}; "
                "it was cut short or changed: copy or build the store again"
            )
        if check and sha256_of(file) != expected["sha256"]:
            raise GenomeError(
                f"{file}: its SHA-256 is not the manifest's; it is damaged: copy or build the store again"
            )
        # A plain array over the memory map: subclass bookkeeping would cost more than the reads themselves.
        array: npt.NDArray[Any] = np.asarray(np.lib.format.open_memmap(file, mode="r"))
    except (KeyError, TypeError, OSError, ValueError) as error:
        if isinstance(error, GenomeError):
            raise
        raise GenomeError(f"{file}: cannot be opened ({error}); copy or build the store again") from None
    if array.dtype != dtype or array.shape[1:] != tail:
        raise GenomeError(f"{file}: holds {array.dtype} {array.shape}, not the format's array; build the store again")
    return array


def _bisect(values: npt.NDArray[Any], first_B: Int64, last_B: Int64, wanted_B: Int64) -> Int64:
    """For each row, find the first index in ``first .. last`` whose value is not below the wanted one.

    All rows are searched at once, each in its own ascending range of `values`.
    """
    low, high = first_B.copy(), last_B.copy()
    while np.any(open_ := low < high):
        middle = (low + high) >> 1
        below = open_ & (values[np.minimum(middle, len(values) - 1)] < wanted_B)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def _ranges(first_B: Int64, last_B: Int64) -> tuple[Int64, Int64]:
    """List the members of many ranges: the range each belongs to, and the member itself."""
    count_B = last_B - first_B
    row_N = np.repeat(np.arange(len(count_B)), count_B)
    before_B = np.cumsum(count_B) - count_B
    return row_N, np.arange(len(row_N)) - before_B[row_N] + first_B[row_N]
