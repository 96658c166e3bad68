"""The probabilistic genome: opened from a store by memory map, or held in memory.

Shape suffixes: B windows, L positions of a window, N (window, position) pairs, V variants, R runs, C contigs, 4 bases.
A *slot* is a position in the whole genome, four to a byte of ``sequence.npy``.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from mutbert import alphabet
from mutbert.arrays import Bool, Float32, Int64, UInt8, UInt16, list_ranges
from mutbert.errors import InputError
from mutbert.genome import format as store
from mutbert.regions import Region, match_contig, names_text


def fixed_to_float(fixed: UInt16) -> Float32:
    """Return frequencies in fixed point, units of 1/65535, as float32."""
    return fixed.astype(np.float32) / np.float32(store.FREQUENCY_ONE)


class Variants(NamedTuple):
    """Positions that vary, 0-based (V,), reference base codes (V,), and frequencies of A, C, G, T (V, 4)."""

    position: Int64
    reference: UInt8
    frequency: Float32


class Windows(NamedTuple):
    """Equally long windows: reference base codes, and ascending sparse rows for the positions that vary."""

    base_BL: UInt8
    row_N: Int64  # window
    column_N: Int64  # 0-based position there
    frequency_N4: UInt16  # of A, C, G, T in units of 1/65535

    def distributions(self) -> Float32:
        """Return the distribution over A, C, G, T at every position, float32 of shape (B, L, 4)."""
        dense_BL4 = alphabet.DISTRIBUTIONS[self.base_BL]
        dense_BL4[self.row_N, self.column_N] = fixed_to_float(self.frequency_N4)
        return dense_BL4


@dataclass(frozen=True, eq=False, repr=False)
class ProbabilisticGenome:
    """A reference genome with a population's allele frequencies.

    `open` reads a store, whose pages in memory all processes share; `from_sequences` holds sequences in memory.
    Coordinates are 0-based and half-open; contigs have either name (``chr22`` or ``22``); others raise `InputError`.

    Examples
    --------
    >>> genome = mutbert.ProbabilisticGenome.open("population.genome")
    >>> genome["chr1", 100:110].shape, genome.sequence("1", 0, 8)
    ((10, 4), 'AGGCATTG')
    """

    path: Path  # the store's folder, or the name of sequences in memory in messages
    contigs: Mapping[str, store.Contig]  # in the FASTA's order
    manifest: Mapping[str, Any]  # sources, settings, records used and not used; empty in memory
    arrays: Mapping[str, store.Rows]  # by file name, as in docs/format.md
    _indexes: dict[str, tuple[store.Rows, Int64, Int64]] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        bases, variants = sum(self.lengths.values()), len(self.arrays["variant_position.npy"])
        counts = f"contigs {len(self.contigs)}, bases {bases:,}, variants {variants:,}"
        return f"<{type(self).__name__} {str(self.path)!r}: {counts}>"

    def _repr_html_(self) -> str:
        # Reading a window takes no polars.
        from mutbert.tables import notebook_html

        rows = ((one.name, one.length, one.variants[1] - one.variants[0]) for one in self.contigs.values())
        columns = ("contig", "bases", "variants")
        return notebook_html(repr(self), [dict(zip(columns, row, strict=True)) for row in rows])

    def __getitem__(self, place: str | tuple[str, slice]) -> Float32:
        """Return `frequencies` of ``"chr22:101-200"`` (1-based, both ends), ``"chr22"``, or ``"chr22", 100:200``."""
        if isinstance(place, str):
            region = Region.parse(place, self.lengths)
            return self.frequencies(region.contig, region.start, region.end)
        contig, at = place
        if not isinstance(at, slice) or at.step not in {None, 1}:
            raise InputError(f"{self.path}: index it by a slice without a step, such as genome[{contig!r}, 100:200]")
        start, end, _ = at.indices(self.contig(contig).length)
        return self.frequencies(contig, start, max(start, end))

    @classmethod
    def open(cls, path: str | Path, *, check: bool = False) -> Self:
        """Open a store; `check` compares the SHA-256 of every array. `InputError` has what is wrong with a store."""
        manifest, contigs, arrays = store.read_store(Path(path), check=check)
        return cls(Path(path), contigs, manifest, arrays)

    @classmethod
    def from_sequences(cls, contigs: Iterable[tuple[str, UInt8, store.Rows]], path: str | Path = "sequences") -> Self:
        """Return a genome in memory without variants, from what `read_fasta` yields; `path` is its name in messages."""
        arrays = {name: np.empty((0, *tail), dtype) for name, (dtype, tail) in store.ARRAYS.items()}
        return cls(Path(path), store.write_reference(arrays, contigs), {}, arrays)

    def reference(self) -> Self:
        """Return the genome without variants; it shares this one's sequences."""
        return self.with_variants({})

    def with_variants(self, variants: Mapping[str, tuple[Int64, UInt16]]) -> Self:
        """Return the reference with other variants: by contig, ascending positions (V,) and fixed point (V, 4)."""
        arrays = dict(self.arrays)
        rows = ((self.contig(name).name, *both) for name, both in variants.items())
        contigs = store.write_variants(arrays, self.contigs, rows)
        return replace(self, contigs=contigs, arrays=arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.manifest:
            return type(self), (self.path, self.contigs, self.manifest, self.arrays)
        # Another process opens a store itself and shares its pages; pickled arrays would be copies.
        own = {name: array for name, array in self.arrays.items() if not isinstance(array.base, np.memmap)}
        return _reopen, (self.path.absolute(), self.manifest["arrays"], self.contigs, own)

    @property
    def lengths(self) -> dict[str, int]:
        """The contigs' lengths in bases."""
        return {name: contig.length for name, contig in self.contigs.items()}

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest, which differs between any two stores of different content."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    @property
    def has_soft_mask(self) -> bool:
        """Whether any base is soft-masked; in a store of version 1 none is, as it did not keep the mask."""
        return bool(len(self.arrays["soft_mask.npy"]))

    def contig(self, name: str) -> store.Contig:
        """Return a contig under either naming."""
        if (found := match_contig(name, self.contigs)) is None:
            raise InputError(f"{self.path}: no contig {name!r}; there are {names_text(self.contigs)}")
        return self.contigs[found]

    def bases(self, contig: str, start: int, end: int) -> UInt8:
        """Return the reference as base codes (end - start,), which `mutbert.alphabet.decode` turns into a string."""
        return self._bases(*self._one(contig, start, end), end - start).reshape(-1)

    def sequence(self, contig: str, start: int = 0, end: int | None = None) -> str:
        """Return the reference as an upper-case string of IUPAC codes; of a whole contig by default."""
        return alphabet.decode(self.bases(contig, start, self.contig(contig).length if end is None else end))

    def bases_at(self, contig_N: Int64, position_N: Int64) -> UInt8:
        """Return the base codes at single positions, (N,): indices into `contigs` and 0-based positions, int64 (N,)."""
        return self._bases(contig_N, position_N, 1)[:, 0]

    def contig_at(self, slot_N: Int64) -> Int64:
        """Return the index into `contigs` of each slot's contig, (N,)."""
        return np.searchsorted(self.slots[:, 0], slot_N, side="right") - 1

    def frequencies(self, contig: str, start: int, end: int) -> Float32:
        """Return the distribution over A, C, G, T at every position, float32 (end - start, 4); N is a quarter each."""
        return self.windows(*self._one(contig, start, end), end - start).distributions().reshape(-1, 4)

    def variants(self, contig: str, start: int | None = None, end: int | None = None) -> Variants:
        """Return the positions that vary, their reference bases and frequencies; of a whole contig by default."""
        start, end = start or 0, self.contig(contig).length if end is None else end
        contig_B, start_B = self._one(contig, start, end)
        _, column_V, row_V = self._find("variant_position.npy", contig_B, start_B, end - start)
        position_V = column_V + start
        reference_V = self.bases_at(np.repeat(contig_B, len(position_V)), position_V)
        return Variants(position_V, reference_V, fixed_to_float(self.arrays["variant_frequency.npy"][row_V]))

    def soft_masked(self, contig: str, start: int, end: int) -> Bool:
        """Return which bases are soft-masked, bool (end - start,): in lower case in the FASTA, as repeats are."""
        return self.soft_masked_windows(*self._one(contig, start, end), end - start).reshape(-1)

    def known_runs(self, contig: str, start: int, end: int) -> Int64:
        """Return starts and ends of the stretches without N, ascending, (runs, 2); other codes are known bases."""
        self._one(contig, start, end)
        runs = self.arrays["ambiguity.npy"][slice(*self.contig(contig).ambiguity)]
        gaps = runs[runs["code"] == alphabet.UNKNOWN]
        first = gaps["start"].astype(np.int64)
        edges = np.stack([first, first + gaps["length"]], axis=1).clip(start, end)
        known = np.concatenate([[start], edges.reshape(-1), [end]]).reshape(-1, 2)
        return known[known[:, 0] < known[:, 1]]

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Return windows within their contigs: indices into `contigs` and 0-based starts, int64 (B,)."""
        base_BL = self._bases(contig_B, start_B, length)
        row_N, column_N, variant_N = self._find("variant_position.npy", contig_B, start_B, length)
        # Rows of four are taken as one number each, which is much quicker.
        frequency_N = self.arrays["variant_frequency.npy"].view(np.uint64)[:, 0].take(variant_N)
        return Windows(base_BL, row_N, column_N, frequency_N.view(np.uint16).reshape(-1, 4))

    def soft_masked_windows(self, contig_B: Int64, start_B: Int64, length: int) -> Bool:
        """Return which bases of many windows are soft-masked, bool (B, length); see `windows`."""
        return self._spread("soft_mask.npy", contig_B, start_B, length) > 0

    def _one(self, contig: str, start: int, end: int) -> tuple[Int64, Int64]:
        """Return a region as a batch of one window."""
        found = self.contig(contig)
        if not 0 <= start <= end <= found.length:
            raise InputError(f"{self.path}: {contig}, {start} to {end} (0-based) is not within its 0 to {found.length}")
        return np.array([self._number[found.name]]), np.array([start])

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.contigs)}

    @cached_property
    def slots(self) -> Int64:
        """First slot and length of each contig, (C, 2)."""
        slots = [(one.offset * store.BASES_PER_BYTE, one.length) for one in self.contigs.values()]
        return np.array(slots, dtype=np.int64).reshape(-1, 2)

    def _index(self, name: str) -> tuple[store.Rows, Int64, Int64]:
        """Return the slots of rows in the order of contigs, each contig's first row there, and its row less that."""
        if name not in self._indexes:
            array = self.arrays[name]
            start, kind = (array["start"], name.removesuffix(".npy")) if array.dtype.names else (array, "variants")
            rows = [getattr(contig, kind) for contig in self.contigs.values()]
            first_C, last_C = np.array(rows, dtype=np.int64).reshape(-1, 2).T
            end_C = np.cumsum(last_C - first_C)
            # Half the memory where it is enough, as every process has its own.
            small = len(self.arrays["sequence.npy"]) * store.BASES_PER_BYTE < 2**32
            slot_C = self.slots[:, 0].astype(np.uint32 if small else np.int64)
            own = [start[first:last] for first, last in rows]
            if any(one.max(initial=0) >= length for one, length in zip(own, self.slots[:, 1], strict=True)):
                raise InputError(f"{self.path}/{name}: has positions past a contig's end; copy the store again")
            slots = [one + slot for one, slot in zip(own, slot_C, strict=True)]
            self._indexes[name] = np.concatenate([slot_C[:0], *slots]), end_C - (last_C - first_C), last_C - end_C
        return self._indexes[name]

    def _find(
        self, name: str, contig_B: Int64, start_B: Int64, length: int, reach: int = 0
    ) -> tuple[Int64, Int64, Int64]:
        """Return windows, positions and row numbers of the rows in windows, and of `reach` more before each window."""
        slot_N, first_C, shift_C = self._index(name)
        slot_B = self.slots[contig_B, 0] + start_B
        # Of the index's own type, or NumPy would convert all of it for each search.
        first_B = np.searchsorted(slot_N, (slot_B + reach).astype(slot_N.dtype)) - reach
        last_B = np.searchsorted(slot_N, (slot_B + length).astype(slot_N.dtype))
        row_N, near_N = list_ranges(np.maximum(first_B, first_C[contig_B]), last_B)
        return row_N, slot_N[near_N] - slot_B[row_N], near_N + shift_C[contig_B][row_N]

    def _bases(self, contig_B: Int64, start_B: Int64, length: int) -> UInt8:
        slot_B, length_B = self.slots[contig_B].T
        assert np.all((start_B >= 0) & (start_B + length <= length_B)), "windows lie within their contigs"
        if not len(start_B) or not length:
            return np.empty((len(start_B), length), dtype=np.uint8)
        packed = self.arrays["sequence.npy"]
        count = min((length + 6) // store.BASES_PER_BYTE, len(packed))
        # The last windows of a genome are read from a little before, so that no byte is after the end.
        byte_B = np.minimum((slot_B + start_B) // store.BASES_PER_BYTE, len(packed) - count)
        # Views of all windows so take a tenth of the time of NumPy's `sliding_window_view`.
        packed_windows = np.ndarray((len(packed) - count + 1, count), np.uint8, packed, strides=(1, 1))
        code = store.UNPACK.take(packed_windows[byte_B]).view(np.uint8).reshape(-1)
        begin_B = slot_B + start_B + (np.arange(len(start_B)) * count - byte_B) * store.BASES_PER_BYTE
        base_BL: UInt8 = np.ndarray((len(code) - length + 1, length), np.uint8, code, strides=(1, 1))[begin_B]
        if len(self.arrays["ambiguity.npy"]):
            # Ambiguous bases are packed as 0.
            np.maximum(base_BL, self._spread("ambiguity.npy", contig_B, start_B, length), out=base_BL)
        return base_BL

    def _spread(self, name: str, contig_B: Int64, start_B: Int64, length: int) -> UInt8:
        """Return what run each base of the windows lies in, (B, length): its code or 1, and 0 for none."""
        # Runs do not overlap, so only the last run before a window can reach into it.
        row_R, column_R, run_R = self._find(name, contig_B, start_B, length, reach=1)
        runs = self.arrays[name][run_R]
        begin_R = np.maximum(column_R, 0)
        end_R = np.maximum(np.minimum(column_R + runs["length"], length), begin_R)
        if not np.any(begin_R < end_R):
            return np.zeros((len(start_B), length), dtype=np.uint8)
        # All windows in one line: runs lie between stretches that are none, some of them empty.
        edges = np.stack([row_R * length + begin_R, row_R * length + end_R], axis=1).reshape(-1)
        stretch_S = np.diff(edges, prepend=0, append=len(start_B) * length)
        label_S = np.zeros(len(stretch_S), dtype=np.uint8)
        label_S[1::2] = runs["code"] if name == "ambiguity.npy" else 1
        return np.repeat(label_S, stretch_S).reshape(len(start_B), length)


def _reopen(path: Path, arrays: Any, contigs: Any, own: Mapping[str, store.Rows]) -> ProbabilisticGenome:
    """Return a store that another process has open; `InputError` where another was put in its place since."""
    genome = ProbabilisticGenome.open(path)
    if genome.manifest["arrays"] != arrays:
        raise InputError(f"{path}: was replaced by another genome while it was in use; start again")
    return replace(genome, contigs=contigs, arrays={**genome.arrays, **own})
