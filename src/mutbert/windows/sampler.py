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
    from collections.abc import Iterator, Sequence

    from mutbert.arrays import Bool, Int64
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.windows.splits import Part


class Places(NamedTuple):
    """Windows: indices of genome and of contig there, 0-based start on the forward strand, and whether it is read."""

    genome_B: Int64
    contig_B: Int64
    start_B: Int64
    reverse_B: Bool


class WindowSampler:
    """Draw windows uniformly from every valid start, on the reverse strand with probability `reverse`.

    A start is valid when the whole window lies in one of the regions, which do not overlap, and holds no N. Other IUPAC
    codes are known bases with a distribution. Of several genomes, each has windows in proportion to its valid starts,
    of which there are `valid_starts` together.
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
        self._first = self._last - starts
        self.valid_starts = int(self._last[-1])

    @property
    def has_soft_mask(self) -> bool:
        """Whether any base of any of the genomes is soft-masked."""
        return any(part.genome.has_soft_mask for part in self.parts)

    def places(self, index_B: Int64) -> Places:
        """Return the places of the windows with these indices, (B,)."""
        unit_B = unit_interval(random_bits(self.seed, START, index_B, 1)[:, 0])
        rank_B = (unit_B * self.valid_starts).astype(np.int64)
        stretch_B = np.searchsorted(self._last, rank_B, side="right")
        start_B = self._start[stretch_B] + rank_B - self._first[stretch_B]
        reverse_B = np.zeros(len(index_B), dtype=np.bool_)
        if self.reverse:
            reverse_B = unit_interval(random_bits(self.seed, STRAND, index_B, 1)[:, 0]) < self.reverse
        return Places(self._genome[stretch_B], self._contig[stretch_B], start_B, reverse_B)

    def contig_names(self, places: Places) -> list[str]:
        """Return the name of each window's contig."""
        return [self._names[genome][contig] for genome, contig in zip(places.genome_B, places.contig_B, strict=True)]

    def read(self, places: Places) -> Windows:
        """Return the windows at these places, each from its strand."""
        base_BL = np.empty((len(places.start_B), self.length), dtype=np.uint8)
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.uint16))]
        for genome, rows, contig_B, start_B in self._by_genome(places):
            base_BL[rows], row_N, column_N, frequency_N4 = genome.windows(contig_B, start_B, self.length)
            parts.append((rows[row_N], column_N, frequency_N4))
        row_N, column_N, frequency_N4 = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
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
        """Return which bases of the windows at these places are soft-masked, (B, L)."""
        masked_BL = np.zeros((len(places.start_B), self.length), dtype=np.bool_)
        for genome, rows, contig_B, start_B in self._by_genome(places):
            masked_BL[rows] = genome.soft_masked_windows(contig_B, start_B, self.length)
        masked_BL[places.reverse_B] = masked_BL[places.reverse_B, ::-1]
        return masked_BL

    def _by_genome(self, places: Places) -> Iterator[tuple[ProbabilisticGenome, Int64, Int64, Int64]]:
        """Yield each genome that is read, its windows, and their contigs and starts."""
        for number in np.unique(places.genome_B):
            rows = np.flatnonzero(places.genome_B == number)
            yield self.parts[number].genome, rows, places.contig_B[rows], places.start_B[rows]
