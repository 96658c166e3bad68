"""Which parts of a genome are trained on and which are held out."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mutbert.errors import InputError
from mutbert.regions import Region, read_bed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mutbert.genome.store import ProbabilisticGenome


class Split(NamedTuple):
    """Two sets of regions that share no base.

    Parameters
    ----------
    train, held_out : list of Region
        Merged, in the genome's order.
    """

    train: list[Region]
    held_out: list[Region]


def split_genome(genome: ProbabilisticGenome, train: Sequence[str], held_out: Sequence[str]) -> Split:
    """Read a recipe's split.

    Parameters
    ----------
    genome : ProbabilisticGenome
        The genome to split.
    train, held_out : sequence of str
        Each entry is a contig (``chr22``), a region (``chr22:101-200``, 1-based, both ends included) or a BED
        file (``*.bed`` or ``*.bed.gz``). No `train` at all means everything that is not held out.

    Returns
    -------
    Split
        The regions of both.

    Raises
    ------
    InputError
        When an entry cannot be found, or both sides share bases.
    """
    held = select_regions(genome, held_out)
    if not train:
        return Split(_subtract(select_regions(genome, list(genome.contigs)), held), held)
    chosen = select_regions(genome, train)
    kept = _subtract(chosen, held)
    if kept != chosen:
        shared = next(region for region in chosen if region not in kept)
        raise InputError(
            f"train and held_out share bases in {shared}; take them out of one of the two, "
            "or leave train empty to train on all that is not held out"
        )
    return Split(chosen, held)


def select_regions(genome: ProbabilisticGenome, entries: Sequence[str]) -> list[Region]:
    """Read contigs, regions and BED files; overlapping and touching ones are merged, in the genome's order."""
    regions: list[Region] = []
    for entry in entries:
        if entry.endswith((".bed", ".bed.gz")):
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
