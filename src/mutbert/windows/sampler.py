"""Window i is a pure function of (seed, i)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.regions import names_text
from mutbert.windows.randomness import START, random_bits, unit_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.genome.store import ProbabilisticGenome, Windows
    from mutbert.regions import Region

    Int64 = npt.NDArray[np.int64]


class Places(NamedTuple):
    """Where windows lie.

    Parameters
    ----------
    contig_B : ndarray of int64, shape (B,)
        Index of the contig, in the order of the genome's contigs.
    start_B : ndarray of int64, shape (B,)
        0-based start.
    """

    contig_B: Int64
    start_B: Int64


class WindowSampler:
    """Draw windows uniformly from every valid start.

    A start is valid when the whole window lies in one of the regions and holds no N. Other IUPAC codes are known
    bases with a distribution, and do not make a window invalid.

    Parameters
    ----------
    genome : ProbabilisticGenome
        Where to read.
    length : int
        Bases of a window.
    regions : sequence of Region
        Where windows may lie; they do not overlap.
    seed : int
        What the draw depends on, beside the index.

    Attributes
    ----------
    valid_starts : int
        How many different windows there are.

    Raises
    ------
    InputError
        When no stretch of the regions is long enough.
    """

    def __init__(self, genome: ProbabilisticGenome, length: int, regions: Sequence[Region], *, seed: int) -> None:
        self.genome = genome
        self.length = length
        self.seed = seed
        order = {name: index for index, name in enumerate(genome.contigs)}
        stretches = [
            (order[region.contig], start, end - length + 1 - start)
            for region in regions
            for start, end in genome.known_runs(region.contig, region.start, region.end)
            if end - start >= length
        ]
        if not stretches:
            raise InputError(
                f"{genome.path}: no stretch of {length} known bases in {names_text(map(str, regions))}; "
                "choose shorter windows or other regions"
            )
        self._contig, self._start, starts = np.array(stretches, dtype=np.int64).T
        self._last = np.cumsum(starts)
        self.valid_starts = int(self._last[-1])

    def places(self, index_B: Int64) -> Places:
        """Choose the places of the windows with these indices, shape (B,)."""
        unit_B = unit_interval(random_bits(self.seed, START, index_B, 1)[:, 0])
        rank_B = (unit_B * self.valid_starts).astype(np.int64)
        stretch_B = np.searchsorted(self._last, rank_B, side="right")
        before_B = np.where(stretch_B > 0, self._last[stretch_B - 1], 0)
        return Places(self._contig[stretch_B], self._start[stretch_B] + rank_B - before_B)

    def read(self, index_B: Int64) -> Windows:
        """Read the windows with these indices, shape (B,), in one go."""
        return self.genome.windows(*self.places(index_B), self.length)
