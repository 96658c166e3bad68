"""The genome that a model sees, and where windows of it lie. Shape suffix: P positions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.population import read_person

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mutbert.arrays import Int64
    from mutbert.genome.store import ProbabilisticGenome

SURROUNDINGS: Final = ("reference", "population", "person")
PLACEMENTS: Final = ("centred", "shared")


class Surroundings(NamedTuple):
    """A genome as it is seen."""

    kind: str  # one of `SURROUNDINGS`
    genome: ProbabilisticGenome
    not_used: Mapping[str, int]  # a person's records that change nothing, by reason

    def count_differing(self, spans: Iterable[tuple[int, int, int]]) -> int | None:
        """Return at how many positions of spans (contig number, start, end) a person differs from the reference."""
        if self.kind != "person":
            return None
        names = list(self.genome.lengths)
        return sum(len(self.genome.variants(names[contig], start, end).position) for contig, start, end in spans)


def open_surroundings(
    genome: ProbabilisticGenome, kind: str, *, vcf: str | Path | None = None, sample: str | None = None,
    contigs: Collection[str] | None = None, progress: bool = False,
) -> Surroundings:  # fmt: skip
    """Return a genome as it is to be seen; of a person, `sample` of `vcf`, on some contigs or all."""
    if kind not in SURROUNDINGS:
        raise InputError(f"surroundings is {kind!r}; it must be one of {', '.join(SURROUNDINGS)}")
    if kind != "person":
        if given := [f"{name} {value}" for name, value in (("sample", sample), ("person_vcf", vcf)) if value]:
            raise InputError(f"{given[0]} is given, but the surroundings are the {kind}; choose person for it")
        return Surroundings(kind, genome if kind == "population" else genome.reference(), {})
    if sample is None:
        raise InputError("the surroundings are a person, but no sample is named; give --sample NAME, as in its VCF")
    if vcf is None:
        raise InputError(f"the surroundings are {sample}, but no genotypes are given; give --person-vcf FILE")
    variants, not_used = read_person(genome, Path(vcf), sample, contigs=contigs, progress=progress)
    return Surroundings(kind, genome.with_variants(variants), not_used)


class Placed(NamedTuple):
    """0-based starts of windows, and their bases."""

    start_P: Int64
    length_P: Int64


def place_windows(position_P: Int64, contig_length_P: Int64, context: int, placement: str = "centred") -> Placed:
    """Return the window of `context` bases (of a shorter contig all) in which each position is seen.

    Centred, the position is base ``context // 2``. Shared, windows lie on a grid half a context apart, and a position
    has at least a quarter of the context, rounded down, on either side. At contigs' ends windows are shifted.
    """
    if placement == "shared":
        stride = max(context // 2, 1)
        start_P = position_P // stride * stride - (context - stride) // 2
    else:
        start_P = position_P - context // 2
    length_P = np.minimum(context, contig_length_P)
    return Placed(np.clip(start_P, 0, contig_length_P - length_P), length_P)
