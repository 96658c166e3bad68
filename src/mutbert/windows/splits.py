"""Which parts of a genome are trained on and which are held out."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mutbert.errors import InputError
from mutbert.regions import Region, match_contig, read_bed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mutbert.genome.store import ProbabilisticGenome


class Part(NamedTuple):
    """Some regions of a genome.

    Parameters
    ----------
    genome : ProbabilisticGenome
        The genome.
    regions : list of Region
        Merged, in the genome's order.
    """

    genome: ProbabilisticGenome
    regions: list[Region]


class Split(NamedTuple):
    """Two sets of regions that share no base.

    Parameters
    ----------
    train, held_out : list of Part
        One part a genome, in the order of the genomes; a genome without regions has none.
    """

    train: list[Part]
    held_out: list[Part]


def split_genomes(genomes: Sequence[ProbabilisticGenome], train: Sequence[str], held_out: Sequence[str]) -> Split:
    """Read a recipe's split.

    Parameters
    ----------
    genomes : sequence of ProbabilisticGenome
        The genomes to split, each with a name of its own (``human`` where the store is ``human.genome``).
    train, held_out : sequence of str
        Each entry is a contig (``chr22``), a region (``chr22:101-200``, 1-based, both ends included) or a BED
        file (``*.bed`` or ``*.bed.gz``); of several genomes, the one that is meant may stand before it
        (``human:chr22``, ``human:regions.bed``), and must where it could be more than one. No `train` at all means
        everything that is not held out.

    Returns
    -------
    Split
        The regions of both.

    Raises
    ------
    InputError
        When an entry cannot be found or is not clear, or both sides share bases.
    """
    names = [genome_name(genome) for genome in genomes]
    if len(set(names)) < len(names):
        raise InputError(f"two genomes are called {next(n for n in names if names.count(n) > 1)}; rename one store")
    held = _select(genomes, held_out)
    if not train:
        whole = [select_regions(genome, list(genome.contigs)) for genome in genomes]
        chosen = [_subtract(all_of_it, holes) for all_of_it, holes in zip(whole, held, strict=True)]
    else:
        chosen = _select(genomes, train)
        for regions, holes in zip(chosen, held, strict=True):
            kept = _subtract(regions, holes)
            if kept != regions:
                shared = next(region for region in regions if region not in kept)
                raise InputError(
                    f"train and held_out share bases in {shared}; take them out of one of the two, "
                    "or leave train empty to train on all that is not held out"
                )
    return Split(_parts(genomes, chosen), _parts(genomes, held))


def genome_name(genome: ProbabilisticGenome) -> str:
    """Name a genome as its store is called, without ``.genome``."""
    return genome.path.resolve().name.removesuffix(".genome")


def _parts(genomes: Sequence[ProbabilisticGenome], regions: list[list[Region]]) -> list[Part]:
    return [Part(genome, some) for genome, some in zip(genomes, regions, strict=True) if some]


def _select(genomes: Sequence[ProbabilisticGenome], entries: Sequence[str]) -> list[list[Region]]:
    """Give the regions of each genome, each entry going to the one that it names or that alone has it."""
    if len(genomes) == 1:
        (genome,) = genomes
        name = genome_name(genome)
        # Where a contig is called as the genome is, that is the contig of a region; a BED file is of no contig.
        is_contig = match_contig(name, genome.contigs) is not None
        own = [entry if is_contig and not is_bed(entry) else entry.removeprefix(f"{name}:") for entry in entries]
        return [select_regions(genome, own)]
    by_name = {genome_name(genome): number for number, genome in enumerate(genomes)}
    entries_of: list[list[str]] = [[] for _ in genomes]
    for entry in entries:
        name, _, rest = entry.partition(":")
        # A contig may be called as a genome is; then the genome has to stand before it.
        if name in by_name and rest:
            entries_of[by_name[name]].append(rest)
            continue
        having = [number for number, genome in enumerate(genomes) if _has(genome, entry)]
        if len(having) != 1:
            said = "more than one of the genomes has it" if having else "none of the genomes has it"
            raise InputError(
                f"{entry}: {said}; put the name of one before it, for example {next(iter(by_name))}:{entry} "
                f"(there are {', '.join(by_name)})"
            )
        entries_of[having[0]].append(entry)
    return [select_regions(genome, own) for genome, own in zip(genomes, entries_of, strict=True)]


def _has(genome: ProbabilisticGenome, entry: str) -> bool:
    """Say whether a genome can be meant; a BED file is any's."""
    try:
        return is_bed(entry) or bool(Region.parse(entry, genome.lengths))
    except InputError:
        return False


def is_bed(entry: str) -> bool:
    """Tell a BED file from a contig or region, by its name."""
    return entry.endswith((".bed", ".bed.gz"))


def select_regions(genome: ProbabilisticGenome, entries: Sequence[str]) -> list[Region]:
    """Read contigs, regions and BED files; overlapping and touching ones are merged, in the genome's order."""
    regions: list[Region] = []
    for entry in entries:
        if is_bed(entry):
            regions += read_bed(Path(entry), genome.lengths)
        else:
            regions.append(Region.parse(entry, genome.lengths))
    order = {name: index for index, name in enumerate(genome.contigs)}
    regions.sort(key=lambda region: (order[region.contig], region.start))
    return [merged for contig, group in groupby(regions, lambda r: r.contig) for merged in _merge(contig, group)]


def _merge(contig: str, regions: Iterable[Region]) -> list[Region]:
    merged: list[Region] = []
    for region in regions:
        if merged and region.start <= merged[-1].end:
            merged[-1] = Region(contig, merged[-1].start, max(merged[-1].end, region.end))
        else:
            merged.append(Region(contig, region.start, region.end))
    return merged


def _subtract(regions: list[Region], holes: list[Region]) -> list[Region]:
    kept = []
    for region in regions:
        start = region.start
        for hole in holes:
            if hole.contig == region.contig and hole.start < region.end and hole.end > start:
                if hole.start > start:
                    kept.append(Region(region.contig, start, hole.start))
                start = hole.end
        if start < region.end:
            kept.append(Region(region.contig, start, region.end))
    return kept
