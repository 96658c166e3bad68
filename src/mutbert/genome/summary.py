"""What a probabilistic genome holds, in numbers: size, density, spectra, diversity, transitions and transversions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert.alphabet import UNKNOWN
from mutbert.genome.format import FREQUENCY_ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Float64, Int64
    from mutbert.genome.store import ProbabilisticGenome

SPECTRUM_BINS: Final = 20

DOUBLING_EDGES: Final = (0.0, *(2.0**power for power in range(-15, 1)))
"""(17,) edges of bins that double: all up to 1/32768, up to 1/16384, ... up to 1. A population of constant size without
selection has about as many alleles in each (Fu 1995, Theor. Popul. Biol. 48:172), so that rare and common ones show."""


@dataclass(frozen=True)
class GenomeSummary:
    """What a genome holds.

    Parameters
    ----------
    contigs : polars.DataFrame
        In the FASTA's order: ``name`` and, of each contig, all numbers below that are of the same name.
    length, known, soft_masked, variants : int
        Bases; those that are not N; those in lower case in the FASTA (0 in version 1); positions that vary.
    per_kilobase : float
        Variants per 1,000 known bases.
    alternates, multi_allelic : int
        Alternate alleles, up to three at a position; positions with more than one.
    transitions, transversions : int
        Alternate alleles by kind of change; where the reference is an ambiguous code they are neither.
    spectrum, doubling_spectrum : list of int
        Alternate alleles by frequency, within the 1/65535 that a store keeps: bin ``i`` of n is above ``i / n`` and up
        to ``(i + 1) / n``, or above ``DOUBLING_EDGES[i]`` and up to ``DOUBLING_EDGES[i + 1]``.
    mean_alternate_frequency : float or None
        ``None`` where there are no alternate alleles.
    diversity_per_kilobase : float
        Expected heterozygosity per 1,000 known bases: the sum of 1 - Σ p² over the positions that vary, the chance that
        two chromosomes drawn from the population differ there (Nei 1973, PNAS 70:3321). With all variants kept it is
        1,000 times the nucleotide diversity.
    bytes_on_disk, bytes_per_base : int, float
        Of the whole store.
    """

    contigs: pl.DataFrame
    length: int
    known: int
    soft_masked: int
    variants: int
    per_kilobase: float
    alternates: int
    multi_allelic: int
    transitions: int
    transversions: int
    spectrum: Sequence[int]
    doubling_spectrum: Sequence[int]
    mean_alternate_frequency: float | None
    diversity_per_kilobase: float
    bytes_on_disk: int
    bytes_per_base: float

    @property
    def known_share(self) -> float:
        """The share of bases that are not N."""
        return self.known / self.length

    @property
    def soft_masked_share(self) -> float:
        """The share of bases that are soft-masked."""
        return self.soft_masked / self.length

    @property
    def transitions_per_transversion(self) -> float | None:
        """The ratio ti/tv; ``None`` where there are no transversions."""
        return self.transitions / self.transversions if self.transversions else None


def summarise_genome(genome: ProbabilisticGenome) -> GenomeSummary:
    """Return what a genome holds, counted with one contig in memory at a time."""
    spectrum, doubling = (np.zeros(bins, dtype=np.int64) for bins in (SPECTRUM_BINS, len(DOUBLING_EDGES) - 1))
    rows = []
    for name in genome.contigs:
        counts, fixed_A = _count_contig(genome, name)
        rows.append(counts)
        spectrum += _histogram(fixed_A, np.arange(SPECTRUM_BINS + 1) / SPECTRUM_BINS)
        doubling += _histogram(fixed_A, np.array(DOUBLING_EDGES))
    contigs = pl.DataFrame(rows)
    (whole,) = _per_kilobase(contigs.drop("name").sum()).to_dicts()
    frequencies = whole.pop("frequencies")
    return GenomeSummary(
        contigs=_per_kilobase(contigs).drop("frequencies", "multi_allelic"),
        **whole,
        spectrum=spectrum.tolist(),
        doubling_spectrum=doubling.tolist(),
        mean_alternate_frequency=frequencies / whole["alternates"] if whole["alternates"] else None,
        bytes_on_disk=genome.bytes_on_disk,
        bytes_per_base=genome.bytes_on_disk / whole["length"],
    )


def _count_contig(genome: ProbabilisticGenome, name: str) -> tuple[dict[str, Any], Int64]:
    """Return a contig's numbers, and the frequencies of its alternate alleles in fixed point, (A,)."""
    contig = genome.contigs[name]
    runs = genome.arrays["ambiguity.npy"][slice(*contig.ambiguity)]
    masked = genome.arrays["soft_mask.npy"][slice(*contig.soft_mask)]
    _, reference_V, frequency_V4 = genome.variants(name)
    # Where the reference is an ambiguous code, its likeliest base stands for it.
    is_code_V = reference_V > 3
    allele_V4 = frequency_V4 > 0
    allele_V4[np.arange(len(reference_V)), np.where(is_code_V, frequency_V4.argmax(axis=1), reference_V)] = False
    row_A, base_A = np.nonzero(allele_V4)
    # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition.
    change_A = (reference_V[row_A] ^ base_A)[~is_code_V[row_A]]
    frequency_A = frequency_V4[allele_V4].astype(np.float64)
    counts = {
        "name": name,
        "length": contig.length,
        "known": contig.length - int(runs["length"][runs["code"] == UNKNOWN].sum(dtype=np.int64)),
        "soft_masked": int(masked["length"].sum(dtype=np.int64)),
        "variants": len(reference_V),
        "alternates": len(row_A),
        "multi_allelic": int((allele_V4.sum(axis=1) > 1).sum()),
        "transitions": int((change_A == 2).sum()),
        "transversions": int((change_A != 2).sum()),
        "differences": float((1 - np.square(frequency_V4, dtype=np.float64).sum(axis=1)).sum()),
        "frequencies": float(frequency_A.sum()),
    }
    return counts, np.rint(frequency_A * FREQUENCY_ONE).astype(np.int64)


def _per_kilobase(counts: pl.DataFrame) -> pl.DataFrame:
    known = pl.when(pl.col("known") > 0).then(pl.col("known"))
    return counts.with_columns(
        per_kilobase=(1000 * pl.col("variants") / known).fill_null(0.0),
        diversity_per_kilobase=(1000 * pl.col("differences") / known).fill_null(0.0),
    ).drop("differences")


def _histogram(fixed_A: Int64, edges: Float64) -> Int64:
    """Return how many lie above each edge and up to the next; an edge that is rounded up is still in its bin."""
    units = np.ceil(edges * FREQUENCY_ONE)
    return np.bincount(np.searchsorted(units, fixed_A) - 1, minlength=len(edges) - 1)
