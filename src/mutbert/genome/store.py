"""The probabilistic genome on disk, opened by memory map.

The format is described in ``docs/format.md``, which is normative. Shape suffixes: B windows, L positions of a
window, N (window, position) pairs, V variants, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome.format import (
    ARRAYS,
    BASES_PER_BYTE,
    FORMAT,
    FORMAT_VERSION,
    FREQUENCY_ONE,
    MANIFEST,
    SINCE,
    UNPACK,
    Contig,
    bisect_rows,
    codes_at,
    fixed_to_float,
    float_to_fixed,
    runs_in_windows,
)
from mutbert.genome.writer import StoreWriter
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Bool, Float32, Int64, UInt8, UInt16, UInt32


# The writer and the fixed point live next door; this is the one address that other rooms know.
__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "FREQUENCY_ONE",
    "MANIFEST",
    "Contig",
    "GenomeError",
    "ProbabilisticGenome",
    "StoreWriter",
    "Variants",
    "Windows",
    "fixed_to_float",
    "float_to_fixed",
]


class GenomeError(InputError):
    """A genome store that cannot be used: damaged, cut short, of another format or a newer version."""


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
    _soft_mask: npt.NDArray[Any]
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
        version = manifest["version"]
        arrays = {
            name: _open_array(path, name, manifest, check=check)
            if version >= SINCE.get(name, 1)
            else np.empty((0, *tail), dtype)
            for name, (dtype, tail) in ARRAYS.items()
        }
        try:
            contigs = {
                entry["name"]: Contig(
                    entry["name"],
                    entry["length"],
                    entry["offset"],
                    tuple(entry["ambiguity"]),
                    tuple(entry["soft_mask"]) if version >= SINCE["soft_mask.npy"] else (0, 0),
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
            arrays["soft_mask.npy"],
            arrays["variant_position.npy"],
            arrays["variant_frequency.npy"],
        )
        genome._check_ranges()
        return genome

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the store itself and shares the pages in memory; pickled arrays would be copies.
        return _reopen, (type(self), self.path.absolute(), self.manifest["arrays"])

    @property
    def lengths(self) -> dict[str, int]:
        """The contigs' lengths in bases."""
        return {name: contig.length for name, contig in self.contigs.items()}

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The memory-mapped arrays by file name; ``docs/format.md`` says what they hold."""
        every = (
            self._sequence,
            self._ambiguity,
            self._soft_mask,
            self._variant_position,
            self._variant_frequency,
        )
        return dict(zip(ARRAYS, every, strict=True))

    @property
    def has_soft_mask(self) -> bool:
        """Whether any base is soft-masked; in a store of version 1 none is, as it did not keep the mask."""
        return bool(len(self._soft_mask))

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
        codes: UInt8 = UNPACK[self._sequence[first:last]].view(np.uint8)[start % 4 : start % 4 + end - start]
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
        # Of the positions' own type, or NumPy would convert all of them for each search.
        first, last = np.searchsorted(positions, np.array([start, end], dtype=positions.dtype))
        position = positions[first:last].astype(np.int64)
        rows = slice(found.variants[0] + int(first), found.variants[0] + int(last))
        packed = self._sequence[whole.offset : whole.offset + -(-whole.length // BASES_PER_BYTE)]
        reference = codes_at(packed, self._ambiguity[slice(*whole.ambiguity)], position)
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
        table = self._contig_table[contig_B]
        offset_B, length_B, run_first_B, run_last_B, _, _, variant_first_B, variant_last_B = table.T
        assert np.all((start_B >= 0) & (start_B + length <= length_B)), "windows lie within their contigs"
        base_BL = self._unpack(offset_B, start_B, length)
        self._put_ambiguity(base_BL, run_first_B, run_last_B, start_B, length)

        first_B = bisect_rows(self._variant_position, variant_first_B, variant_last_B, start_B)
        # A window has at most as many variants as bases, which bounds the second search.
        most_B = np.minimum(first_B + length, variant_last_B)
        last_B = bisect_rows(self._variant_position, first_B, most_B, start_B + length)
        row_N, variant_N = list_ranges(first_B, last_B)
        column_N = self._variant_position[variant_N].astype(np.int64) - start_B[row_N]
        return Windows(base_BL, row_N, column_N, np.asarray(self._variant_frequency[variant_N]))

    def soft_masked(self, contig: str, start: int, end: int) -> Bool:
        """Tell which bases of a region are soft-masked: in lower case in the FASTA, as repeats are by custom.

        Parameters
        ----------
        contig : str
            The contig, under either naming.
        start, end : int
            0-based, half-open.

        Returns
        -------
        ndarray of bool, shape (end - start,)
            All false where the FASTA was in upper case; see also `has_soft_mask`.

        Raises
        ------
        GenomeError
            When the contig does not exist or the region is not within it.
        """
        first, last = self._within(contig, start, end).soft_mask
        masked_L: Bool = self._spread_soft_mask(
            np.array([first]), np.array([last]), np.array([start]), end - start
        ).reshape(-1)
        return masked_L

    def soft_masked_windows(self, contig_B: Int64, start_B: Int64, length: int) -> Bool:
        """Tell which bases of many windows of one length are soft-masked.

        Parameters
        ----------
        contig_B, start_B, length
            As in `windows`.

        Returns
        -------
        ndarray of bool, shape (B, length)
            See `soft_masked`.
        """
        table = self._contig_table[contig_B]
        _, length_B, _, _, first_B, last_B, _, _ = table.T
        assert np.all((start_B >= 0) & (start_B + length <= length_B)), "windows lie within their contigs"
        return self._spread_soft_mask(first_B, last_B, start_B, length)

    @cached_property
    def _contig_table(self) -> Int64:
        """Say where the contigs' data lie, a row for each; many assemblies have thousands."""
        rows = [
            (one.offset, one.length, *one.ambiguity, *one.soft_mask, *one.variants) for one in self.contigs.values()
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, 8)

    def _unpack(self, offset_B: Int64, start_B: Int64, length: int) -> UInt8:
        """Unpack the four-to-a-byte bases; windows are grouped by their phase in the first byte."""
        count = (length + 6) // 4
        byte_B = offset_B + start_B // 4
        # The last window of a genome may ask for a byte behind the end, whose bases are then cut off.
        packed_BC = self._sequence.take(byte_B[:, None] + np.arange(count), mode="clip")
        codes = UNPACK[packed_BC].view(np.uint8)
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
        row_R, run_R, begin_R, end_R = runs_in_windows(self._ambiguity, run_first_B, run_last_B, start_B, length)
        place_N, column_N = list_ranges(begin_R, end_R)
        base_BL[row_R[place_N], column_N] = self._ambiguity["code"][run_R][place_N]

    def _spread_soft_mask(self, first_B: Int64, last_B: Int64, start_B: Int64, length: int) -> Bool:
        """Turn the runs of the soft mask into a flag for each base of the windows."""
        if not len(self._soft_mask):
            return np.zeros((len(start_B), length), dtype=bool)
        row_R, _, begin_R, end_R = runs_in_windows(self._soft_mask, first_B, last_B, start_B, length)
        # All windows in one line: stretches that are masked lie between stretches that are not, some of them empty.
        edges = np.stack([row_R * length + begin_R, row_R * length + end_R], axis=1).reshape(-1)
        stretch_S = np.diff(edges, prepend=0, append=len(start_B) * length)
        return np.repeat(np.arange(len(stretch_S)) % 2 == 1, stretch_S).reshape(len(start_B), length)

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
                and 0 <= contig.soft_mask[0] <= contig.soft_mask[1] <= len(self._soft_mask)
                and 0 <= contig.variants[0] <= contig.variants[1] <= len(self._variant_position)
            ):
                raise GenomeError(
                    f"{self.path / MANIFEST}: contig {contig.name} does not fit the arrays; build the store again"
                )


def _reopen(kind: type[ProbabilisticGenome], path: Path, arrays: Mapping[str, Any]) -> ProbabilisticGenome:
    """Open a store that another process has open, and refuse one that was put in its place since."""
    genome = kind.open(path)
    if genome.manifest["arrays"] != arrays:
        raise GenomeError(f"{path}: was replaced by another genome while it was in use; start again")
    return genome


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
    dtype, tail = ARRAYS[name]
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
