"""Which parts of genomes are trained on and held out, and windows of them: window i is a function of (seed, i)."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.arrays import Bool, Int64
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome, Windows
from mutbert.regions import Region, match_contig, merge_regions, names_text, read_bed, subtract_regions
from mutbert.windows.randomness import START, STRAND, random_bits, unit_interval

_BED: Final = (".bed", ".bed.gz")


class Part(NamedTuple):
    """Regions of a genome, merged and in its order."""

    genome: ProbabilisticGenome
    regions: list[Region]


class Places(NamedTuple):
    """Windows: indices of genomes and of their contigs, 0-based starts on the forward strand, whether to reverse."""

    genome_B: Int64
    contig_B: Int64
    start_B: Int64
    reverse_B: Bool


class WindowSampler:
    """Windows of any start from which all lies in a region, without an N; reversed with probability `reverse`."""

    def __init__(self, parts: Sequence[Part], length: int, *, seed: int, reverse: float = 0.0) -> None:
        self.parts, self.length, self.seed, self.reverse = list(parts), length, seed, reverse
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
            paths = names_text(str(part.genome.path) for part in self.parts)
            where = names_text(str(region) for part in self.parts for region in part.regions)
            what = f"no stretch of {length} known bases in {where}; choose shorter windows or other regions"
            raise InputError(f"{paths}: {what}")
        self._genome, self._contig, self._start, starts = np.array(stretches, dtype=np.int64).T
        self._last = np.cumsum(starts)
        self._first = self._last - starts
        self.valid_starts = int(self._last[-1])
        for part in self.parts:
            # A first window makes the genome's index, which processes that fork from here then share.
            part.genome.windows(np.zeros(1, np.int64), np.zeros(1, np.int64), 1)

    def places(self, index_B: Int64) -> Places:
        """Return the places of the windows with these indices, (B,)."""
        rank_B = (unit_interval(random_bits(self.seed, START, index_B, 1)[:, 0]) * self.valid_starts).astype(np.int64)
        stretch_B = np.searchsorted(self._last, rank_B, side="right")
        start_B = self._start[stretch_B] + rank_B - self._first[stretch_B]
        reverse_B = unit_interval(random_bits(self.seed, STRAND, index_B, 1)[:, 0]) < self.reverse
        return Places(self._genome[stretch_B], self._contig[stretch_B], start_B, reverse_B)

    def contig_names(self, places: Places) -> list[str]:
        """Return the name of each window's contig."""
        return [self._names[genome][contig] for genome, contig in zip(places.genome_B, places.contig_B, strict=True)]

    def read(self, places: Places) -> Windows:
        """Return the windows at these places, each from its strand."""
        base_BL = np.empty((len(places.start_B), self.length), dtype=np.uint8)
        parts = []
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
        # A stable sort is quick with such runs: reverse windows backwards, one genome's windows before the next one's.
        order_N = np.argsort(row_N * self.length + column_N, kind="stable")
        return Windows(base_BL, row_N[order_N], column_N[order_N], frequency_N4.take(order_N, axis=0))

    def soft_masked(self, places: Places) -> Bool:
        """Return which bases of the windows are soft-masked, (B, L)."""
        masked_BL = np.zeros((len(places.start_B), self.length), dtype=np.bool_)
        for genome, rows, contig_B, start_B in self._by_genome(places):
            masked_BL[rows] = genome.soft_masked_windows(contig_B, start_B, self.length)
        masked_BL[places.reverse_B] = masked_BL[places.reverse_B, ::-1]
        return masked_BL

    def _by_genome(self, places: Places) -> Iterator[tuple[ProbabilisticGenome, Int64, Int64, Int64]]:
        """Yield each genome that is read, its windows, and their contigs and starts."""
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(places.genome_B == number)
            if len(rows):
                yield part.genome, rows, places.contig_B[rows], places.start_B[rows]


def split_genomes(
    genomes: Sequence[ProbabilisticGenome], train: Sequence[str], held_out: Sequence[str]
) -> tuple[list[Part], list[Part]]:
    """Return parts to train on, or without `train` the rest, and those held out; entries may begin ``GENOME:``."""
    names = [genome_name(genome) for genome in genomes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two genomes are called {twice[0]}; rename one store")
    held = _select(genomes, held_out)
    chosen = _select(genomes, train) if train else [select_regions(one, list(one.contigs)) for one in genomes]
    kept = [subtract_regions(*both) for both in zip(chosen, held, strict=True)]
    if train and kept != chosen:
        cut = [region for both in zip(chosen, kept, strict=True) for region in both[0] if region not in both[1]]
        remedy = "take them out of one of the two, or leave train empty to train on all that is not held out"
        raise InputError(f"train and held_out share bases in {cut[0]}; {remedy}")
    trained, evaluated = ([Part(*both) for both in zip(genomes, side, strict=True) if both[1]] for side in (kept, held))
    return trained, evaluated


def genome_name(genome: ProbabilisticGenome) -> str:
    """Return the name of a genome's store without ``.genome``."""
    return genome.path.resolve().name.removesuffix(".genome")


def _select(genomes: Sequence[ProbabilisticGenome], entries: Sequence[str]) -> list[list[Region]]:
    """Return the regions of each genome, each entry going to the one that it names or that alone has it."""
    by_name = {genome_name(genome): number for number, genome in enumerate(genomes)}
    entries_of: list[list[str]] = [[] for _ in genomes]
    for entry in entries:
        name, _, rest = entry.partition(":")
        having = [number for number, genome in enumerate(genomes) if entry.endswith(_BED) or _has(genome, entry)]
        # A contig may be called as a genome is; of several genomes, the genome's name then has to come first.
        is_contig = len(genomes) == 1 and match_contig(name, genomes[0].contigs) is not None and not rest.endswith(_BED)
        if name in by_name and rest and not is_contig:
            entries_of[by_name[name]].append(rest)
        elif len(having) == 1 or len(genomes) == 1:
            entries_of[having[0] if having else 0].append(entry)
        else:
            what = "more than one of the genomes has it" if having else "none of the genomes has it"
            example = f"for example {next(iter(by_name))}:{entry} (there are {', '.join(by_name)})"
            raise InputError(f"{entry}: {what}; put the name of one before it, {example}")
    return [select_regions(genome, own) for genome, own in zip(genomes, entries_of, strict=True)]


def _has(genome: ProbabilisticGenome, entry: str) -> bool:
    with suppress(InputError):
        return bool(Region.parse(entry, genome.lengths))
    return False


def select_regions(genome: ProbabilisticGenome, entries: Sequence[str]) -> list[Region]:
    """Return contigs, regions and BED files as regions, merged and in the genome's order."""
    known = genome.lengths
    found = (read_bed(Path(one), known) if one.endswith(_BED) else [Region.parse(one, known)] for one in entries)
    return merge_regions(chain.from_iterable(found), known)
