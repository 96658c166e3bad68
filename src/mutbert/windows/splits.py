"""Which parts of a genome are trained on and which are held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mutbert.errors import InputError
from mutbert.regions import Region, match_contig, merge_regions, read_bed, subtract_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.genome.store import ProbabilisticGenome


class Part(NamedTuple):
    """Regions of a genome, merged and in its order."""

    genome: ProbabilisticGenome
    regions: list[Region]


class Split(NamedTuple):
    """Parts that share no base, in the order of the genomes; a genome without regions has none."""

    train: list[Part]
    held_out: list[Part]


def split_genomes(genomes: Sequence[ProbabilisticGenome], train: Sequence[str], held_out: Sequence[str]) -> Split:
    """Return the regions of both sides of a recipe's split; without `train`, all that is not held out is trained on.

    An entry is a contig (``chr22``), a region (``chr22:101-200``, 1-based, both ends included) or a BED file (``*.bed``
    or ``*.bed.gz``). Of several genomes, which are called as their stores are (``human`` for ``human.genome``), the one
    that is meant may stand before it (``human:chr22``, ``human:regions.bed``), and must where more than one has it.
    """
    names = [genome_name(genome) for genome in genomes]
    if len(set(names)) < len(names):
        raise InputError(f"two genomes are called {next(n for n in names if names.count(n) > 1)}; rename one store")
    held = _select(genomes, held_out)
    chosen = _select(genomes, train) if train else [select_regions(one, list(one.contigs)) for one in genomes]
    kept = [subtract_regions(*both) for both in zip(chosen, held, strict=True)]
    if train and kept != chosen:
        regions, rest = next(both for both in zip(chosen, kept, strict=True) if both[0] != both[1])
        raise InputError(
            f"train and held_out share bases in {next(region for region in regions if region not in rest)}; take them "
            "out of one of the two, or leave train empty to train on all that is not held out"
        )
    sides = ([Part(*both) for both in zip(genomes, side, strict=True) if both[1]] for side in (kept, held))
    return Split(*sides)


def genome_name(genome: ProbabilisticGenome) -> str:
    """Return the name of a genome's store without ``.genome``."""
    return genome.path.resolve().name.removesuffix(".genome")


def _select(genomes: Sequence[ProbabilisticGenome], entries: Sequence[str]) -> list[list[Region]]:
    """Return the regions of each genome, each entry going to the one that it names or that alone has it."""
    by_name = {genome_name(genome): number for number, genome in enumerate(genomes)}
    entries_of: list[list[str]] = [[] for _ in genomes]
    for entry in entries:
        name, _, rest = entry.partition(":")
        having = [number for number, genome in enumerate(genomes) if _has(genome, entry)]
        # A contig may be called as a genome is; of several genomes, the genome's name then has to stand before it.
        if name in by_name and rest and not (len(genomes) == 1 and _has_contig(genomes[0], name, rest)):
            entries_of[by_name[name]].append(rest)
        elif len(having) == 1 or len(genomes) == 1:
            entries_of[having[0] if having else 0].append(entry)
        else:
            what = "more than one of the genomes has it" if having else "none of the genomes has it"
            raise InputError(
                f"{entry}: {what}; put the name of one before it, for example {next(iter(by_name))}:{entry} "
                f"(there are {', '.join(by_name)})"
            )
    return [select_regions(genome, own) for genome, own in zip(genomes, entries_of, strict=True)]


def _has_contig(genome: ProbabilisticGenome, name: str, rest: str) -> bool:
    """Return whether a name before a colon is a contig's; a BED file is of no contig."""
    return match_contig(name, genome.contigs) is not None and not is_bed(rest)


def _has(genome: ProbabilisticGenome, entry: str) -> bool:
    """Return whether a genome can be meant; a BED file is any's."""
    try:
        return is_bed(entry) or bool(Region.parse(entry, genome.lengths))
    except InputError:
        return False


def is_bed(entry: str) -> bool:
    """Return whether an entry is a BED file and no contig or region, by its name."""
    return entry.endswith((".bed", ".bed.gz"))


def select_regions(genome: ProbabilisticGenome, entries: Sequence[str]) -> list[Region]:
    """Return contigs, regions and BED files as regions, merged and in the genome's order."""
    regions: list[Region] = []
    for entry in entries:
        if is_bed(entry):
            regions += read_bed(Path(entry), genome.lengths)
        else:
            regions.append(Region.parse(entry, genome.lengths))
    return merge_regions(regions, genome.contigs)
