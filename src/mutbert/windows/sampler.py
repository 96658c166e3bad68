"""Window i is a pure function of (seed, i)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.store import Windows
from mutbert.regions import names_text
from mutbert.windows.randomness import START, STRAND, random_bits, unit_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Bool, Int64
    from mutbert.windows.splits import Part


class Places(NamedTuple):
    """Where windows lie.

    Parameters
    ----------
    genome_B : ndarray of int64, shape (B,)
        Index of the genome, in the order of the sampler's parts.
    contig_B : ndarray of int64, shape (B,)
        Index of the contig, in the order of the genome's contigs.
    start_B : ndarray of int64, shape (B,)
        0-based start on the forward strand.
    reverse_B : ndarray of bool, shape (B,)
        Whether the window is read from the reverse strand.
    """

    genome_B: Int64
    contig_B: Int64
    start_B: Int64
    reverse_B: Bool


class WindowSampler:
    """Draw windows uniformly from every valid start.

    A start is valid when the whole window lies in one of the regions and holds no N. Other IUPAC codes are known
    bases with a distribution, and do not make a window invalid. Of several genomes, each gives windows in proportion
    to its valid starts.

    Parameters
    ----------
    parts : sequence of Part
        Genomes, and where in them windows may lie; the regions of a genome do not overlap.
    length : int
        Bases of a window.
    seed : int
        What the draw depends on, beside the index.
    reverse : float
        Share of windows that are read from the reverse strand.

    Attributes
    ----------
    valid_starts : int
        How many different windows of the forward strand there are.

    Raises
    ------
    InputError
        When no stretch of the regions is long enough.
    """

    def __init__(self, parts: Sequence[Part], length: int, *, seed: int, reverse: float = 0.0) -> None:
        self.parts = list(parts)
        self.length = length
        self.seed = seed
        self.reverse = reverse
        self._names = [list(part.genome.contigs) for part in self.parts]
        order = [{name: index for index, name in enumerate(names)} for names in self._names]
        stretches = [
            (number, order[number][region.contig], start, end - length + 1 - start)
            for number, part in enumerate(self.parts)
            for region in part.regions
            for start, end in part.genome.known_runs(region.contig, region.start, region.end)
            if end - start >= length
        ]
        if not stretches:
            where = names_text(str(region) for part in self.parts for region in part.regions)
            raise InputError(
                f"{names_text(str(part.genome.path) for part in self.parts)}: no stretch of {length} known bases in "
                f"{where}; choose shorter windows or other regions"
            )
        self._genome, self._contig, self._start, starts = np.array(stretches, dtype=np.int64).T
        self._last = np.cumsum(starts)
        self.valid_starts = int(self._last[-1])

    @property
    def has_soft_mask(self) -> bool:
        """Whether any base of any of the genomes is soft-masked."""
        return any(part.genome.has_soft_mask for part in self.parts)

    def places(self, index_B: Int64) -> Places:
        """Choose the places of the windows with these indices, shape (B,)."""
        unit_B = unit_interval(random_bits(self.seed, START, index_B, 1)[:, 0])
        rank_B = (unit_B * self.valid_starts).astype(np.int64)
        stretch_B = np.searchsorted(self._last, rank_B, side="right")
        before_B = np.where(stretch_B > 0, self._last[stretch_B - 1], 0)
        start_B = self._start[stretch_B] + rank_B - before_B
        reverse_B = np.zeros(len(index_B), dtype=np.bool_)
        if self.reverse:
            reverse_B = unit_interval(random_bits(self.seed, STRAND, index_B, 1)[:, 0]) < self.reverse
        return Places(self._genome[stretch_B], self._contig[stretch_B], start_B, reverse_B)

    def contig_names(self, places: Places) -> list[str]:
        """Name the contig of each window."""
        return [self._names[genome][contig] for genome, contig in zip(places.genome_B, places.contig_B, strict=True)]

    def read(self, places: Places) -> Windows:
        """Read the windows at these places in one go, each from its strand."""
        base_BL, row_N, column_N, frequency_N4 = self._read_forward(places)
        if places.reverse_B.any():
            base_BL[places.reverse_B] = alphabet.reverse_complement(base_BL[places.reverse_B])
            reverse_N = places.reverse_B[row_N]
            column_N = np.where(reverse_N, self.length - 1 - column_N, column_N)
            # A C G T backwards is T G C A, their complements.
            frequency_N4 = np.where(reverse_N[:, None], frequency_N4[:, ::-1], frequency_N4)
        # Reverse windows are backwards now, and those of one genome came before those of the next.
        order_N = np.argsort(row_N * self.length + column_N)
        return Windows(base_BL, row_N[order_N], column_N[order_N], frequency_N4[order_N])

    def soft_masked(self, places: Places) -> Bool:
        """Say what bases of the windows at these places are soft-masked, shape (B, L)."""
        masked_BL = np.zeros((len(places.start_B), self.length), dtype=np.bool_)
        for number, rows in self._rows_by_genome(places):
            read = self.parts[number].genome.soft_masked_windows
            masked_BL[rows] = read(places.contig_B[rows], places.start_B[rows], self.length)
        masked_BL[places.reverse_B] = masked_BL[places.reverse_B, ::-1]
        return masked_BL

    def _read_forward(self, places: Places) -> Windows:
        if len(self.parts) == 1:
            return self.parts[0].genome.windows(places.contig_B, places.start_B, self.length)
        base_BL = np.empty((len(places.start_B), self.length), dtype=np.uint8)
        variants = []
        for number, rows in self._rows_by_genome(places):
            part = self.parts[number].genome.windows(places.contig_B[rows], places.start_B[rows], self.length)
            base_BL[rows] = part.base_BL
            variants.append((rows[part.row_N], part.column_N, part.frequency_N4))
        if not variants:
            return self.parts[0].genome.windows(places.contig_B, places.start_B, self.length)
        return Windows(base_BL, *(np.concatenate(arrays) for arrays in zip(*variants, strict=True)))

    def _rows_by_genome(self, places: Places) -> list[tuple[int, Int64]]:
        return [(int(number), np.flatnonzero(places.genome_B == number)) for number in np.unique(places.genome_B)]
