"""Which parts of genomes are trained on and held out, and windows of them: window i is a function of (seed, i)."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
from pydantic import Discriminator, Tag

from mutbert import alphabet
from mutbert.arrays import Bool, Int64, list_ranges
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome, Windows
from mutbert.regions import Region, match_contig, merge_regions, names_text, read_bed, subtract_regions
from mutbert.settings import Settings, Words, listed
from mutbert.windows.masking import Above0
from mutbert.windows.randomness import START, STRAND, random_bits, unit_interval

_BED: Final = (".bed", ".bed.gz")


class RegionSet(Settings):
    """A set of regions that a share of the windows is centred in."""

    bed: str  # a BED file, a contig or a region
    weight: Above0 = 1.0  # of its share


# In errors, a key contains no branch of a union, which brackets mark.
Train = Annotated[
    Annotated[Words, Tag("[words]")] | Annotated[tuple[RegionSet, ...], Tag("[sets]")],
    Discriminator(lambda one: "[sets]" if any(isinstance(x, RegionSet | dict) for x in listed(one)) else "[words]"),
]
"""One set that windows lie in, as contigs, regions and BED files; or a mixture of sets that they are centred in."""


class Part(NamedTuple):
    """Regions of a genome, merged and in its order, that windows lie in; or, of a mixture, are centred in."""

    genome: ProbabilisticGenome
    regions: list[Region]
    source: RegionSet | None = None  # of a mixture
    within: Sequence[Region] = ()  # that the windows of a mixture lie in
    held_out: int = 0  # bases of the source that are not in the regions


class Places(NamedTuple):
    """Windows: indices of genomes and of their contigs, 0-based starts on the forward strand, whether to reverse."""

    genome_B: Int64
    contig_B: Int64
    start_B: Int64
    reverse_B: Bool


class WindowSampler:
    """Windows of any start from which all lies in a region, without an N; reversed with probability `reverse`.

    Of a mixture, each set has its weight's share of the windows, at all starts alike from which the base in the middle
    lies in a region of the set, and the whole window `within`.
    """

    def __init__(self, parts: Sequence[Part], length: int, *, seed: int, reverse: float = 0.0) -> None:
        self.parts, self.length, self.seed, self.reverse = list(parts), length, seed, reverse
        self.genomes = list(dict.fromkeys(part.genome for part in self.parts))
        self._names = [list(genome.contigs) for genome in self.genomes]
        stretches = [_stretches(part, length) for part in self.parts]
        self.sizes = [int(starts_S.sum()) for *_, starts_S in stretches]
        sources = [part.source for part in self.parts if part.source]
        if lacking := [one.bed for one, size in zip(sources, self.sizes, strict=False) if not size]:
            what = f"no window of {length} bases, all of them known and none held out, is centred in it"
            raise InputError(f"{lacking[0]}: {what}; choose shorter windows, or leave it out of train")
        if not any(self.sizes):
            paths = names_text(str(part.genome.path) for part in self.parts)
            where = names_text(str(region) for part in self.parts for region in part.regions)
            what = f"no stretch of {length} known bases in {where}; choose shorter windows or other regions"
            raise InputError(f"{paths}: {what}")
        self._contig, self._start, starts = np.concatenate(stretches, axis=1)
        number = [self.genomes.index(part.genome) for part in self.parts]
        self._genome = np.repeat(number, [found.shape[1] for found in stretches])
        self._last = np.cumsum(starts)
        self._first = self._last - starts
        self.valid_starts = int(self._last[-1])
        # A share of the unit interval for the windows of each set; without a mixture, all of it for all windows.
        edges = np.cumsum([0.0, *(one.weight for one in sources)] if sources else [0.0, 1.0])
        self._edges, self._ranks = edges / edges[-1], np.cumsum([0, *(self.sizes if sources else [self.valid_starts])])
        for genome in self.genomes:
            # A first window makes the genome's index, which processes that fork from here then share.
            genome.windows(np.zeros(1, np.int64), np.zeros(1, np.int64), 1)

    def facts(self) -> dict[str, str]:
        """Return the share of the windows that each part has, and its bases, in words."""
        shares = np.diff(self._edges) if self.parts[0].source else np.array(self.sizes) / self.valid_starts
        found = {}
        for part, size, share in zip(self.parts, self.sizes, shares, strict=True):
            name, bases = genome_name(part.genome), sum(map(len, part.regions))
            text = f"{share:.1%} of windows, {bases:,} bases"
            if part.source:
                name = part.source.bed
                text += f", with no window around {bases - size:,} of them; {part.held_out:,} more are held out"
            found[f"trained on {name}"] = text
        return found

    def places(self, index_B: Int64) -> Places:
        """Return the places of the windows with these indices, (B,)."""
        unit_B = unit_interval(random_bits(self.seed, START, index_B, 1)[:, 0])
        # Rounding may reach the end of the last set.
        rank_B = np.minimum(np.interp(unit_B, self._edges, self._ranks).astype(np.int64), self.valid_starts - 1)
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
        for number, genome in enumerate(self.genomes):
            rows = np.flatnonzero(places.genome_B == number)
            if len(rows):
                yield genome, rows, places.contig_B[rows], places.start_B[rows]


def _stretches(part: Part, length: int) -> Int64:
    """Return the contig, first start and number of starts of each stretch of a part's windows, (3, S)."""
    genome, slot_C = part.genome, part.genome.slots[:, 0]
    slot_of = dict(zip(genome.contigs, slot_C.tolist(), strict=True))
    runs = [
        (slot_of[region.contig] + start, slot_of[region.contig] + end - length + 1)
        for region in (part.within if part.source else part.regions)
        for start, end in genome.known_runs(region.contig, region.start, region.end).tolist()
        if end - start >= length
    ]
    first_S, last_S = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    if part.source:
        # The starts of windows centred in a region overlap with some of these; both are ascending.
        regions = [(slot_of[region.contig] + region.start, len(region)) for region in part.regions]
        begin_R, count_R = np.array(regions, dtype=np.int64).reshape(-1, 2).T
        begin_R -= length // 2
        end_R = begin_R + count_R
        row_N, run_N = list_ranges(np.searchsorted(last_S, begin_R, "right"), np.searchsorted(first_S, end_R))
        first_S, last_S = np.maximum(begin_R[row_N], first_S[run_N]), np.minimum(end_R[row_N], last_S[run_N])
    contig_S = genome.contig_at(first_S)
    return np.stack([contig_S, first_S - slot_C[contig_S], last_S - first_S])


def split_genomes(
    genomes: Sequence[ProbabilisticGenome], train: Sequence[str] | Sequence[RegionSet], held_out: Sequence[str]
) -> tuple[list[Part], list[Part]]:
    """Return parts to train on, or without `train` the rest, and those held out; entries may begin ``GENOME:``.

    Regions that share bases with `held_out` are an error; those of a mixture, often of whole genomes, are without them.
    """
    names = [genome_name(genome) for genome in genomes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two genomes are called {twice[0]}; rename one store")
    held = _select(genomes, held_out)
    words, sets = [one for one in train if isinstance(one, str)], [one for one in train if isinstance(one, RegionSet)]
    chosen = _select(genomes, words) if words else [select_regions(one, list(one.contigs)) for one in genomes]
    kept = [subtract_regions(*both) for both in zip(chosen, held, strict=True)]
    if words and kept != chosen:
        cut = [region for both in zip(chosen, kept, strict=True) for region in both[0] if region not in both[1]]
        remedy = "take them out of one of the two, or leave train empty to train on all that is not held out"
        raise InputError(f"train and held_out share bases in {cut[0]}; {remedy}")
    trained, evaluated = ([Part(*both) for both in zip(genomes, side, strict=True) if both[1]] for side in (kept, held))
    if sets:
        trained = [
            Part(genome, rest := subtract_regions(own, holes), one, within, sum(map(len, own)) - sum(map(len, rest)))
            for one in sets
            for genome, own, holes, within in zip(genomes, _select(genomes, [one.bed]), held, kept, strict=True)
            if own
        ]
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
