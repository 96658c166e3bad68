"""What a probabilistic genome holds, in numbers: size, density, spectra, diversity, transitions and transversions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert.genome.format import FREQUENCY_ONE

if TYPE_CHECKING:
    from mutbert.arrays import Int64
    from mutbert.genome.store import ProbabilisticGenome

SPECTRUM_BINS: Final = 20

DOUBLING_EDGES: Final = (0.0, *(2.0**power for power in range(-15, 1)))
"""(17,) edges of bins that double. A population of constant size without selection has about as many alleles in each
(Fu 1995, Theor. Popul. Biol. 48:172), so that rare and common ones show."""


def summarise_genome(genome: ProbabilisticGenome) -> dict[str, Any]:
    """Return the numbers of a genome by name, counted with one contig in memory at a time.

    `contigs` is a frame of each contig's numbers; `spectrum` and `doubling_spectrum` are alternate alleles by frequency
    in equal bins and in those of `DOUBLING_EDGES`, which are open below. `soft_masked` is 0 in version 1; transitions
    and transversions are of alleles whose reference is A, C, G or T; ratios without a denominator are None. Diversity
    is the mean heterozygosity 1 - Σ p² of known bases (Nei 1973, PNAS 70:3321).
    """
    alleles_U = np.zeros(FREQUENCY_ONE + 1, dtype=np.int64)
    contigs = pl.DataFrame([_count_contig(genome, name, alleles_U) for name in genome.contigs])
    whole = _with_ratios(contigs.drop("name").sum()).row(0, named=True)
    # An edge that is rounded up is still in its bin.
    edges = np.arange(SPECTRUM_BINS + 1) / SPECTRUM_BINS, np.array(DOUBLING_EDGES)
    even, doubling = (np.diff(alleles_U.cumsum()[np.ceil(some * FREQUENCY_ONE).astype(int)]).tolist() for some in edges)
    only_whole = ("known_share", "soft_masked_share", "mean_alternate_frequency", "ti_tv", "multi_allelic")
    contigs, size = _with_ratios(contigs).drop(only_whole), genome.bytes_on_disk
    spectra = {"spectrum": even, "doubling_spectrum": doubling}
    return {"contigs": contigs, **spectra, "bytes_on_disk": size, "bytes_per_base": size / whole["length"], **whole}


def _with_ratios(counts: pl.DataFrame) -> pl.DataFrame:
    def share(part: str, whole: str, scale: int = 1) -> pl.Expr:
        return scale * pl.col(part) / pl.when(pl.col(whole) > 0).then(pl.col(whole))

    return counts.with_columns(
        known_share=share("known", "length"),
        soft_masked_share=share("soft_masked", "length"),
        per_kilobase=share("variants", "known", 1000).fill_null(0.0),
        diversity_per_kilobase=share("differences", "known", 1000).fill_null(0.0),
        mean_alternate_frequency=share("frequencies", "alternates"),
        ti_tv=share("transitions", "transversions"),
    ).drop("differences", "frequencies")


def _count_contig(genome: ProbabilisticGenome, name: str, alleles_U: Int64) -> dict[str, Any]:
    """Return a contig's numbers, and add its alternate alleles to those of each frequency in fixed point."""
    known_R2 = genome.known_runs(name, 0, genome.lengths[name])
    masked = genome.arrays["soft_mask.npy"][slice(*genome.contigs[name].soft_mask)]
    _, reference_V, frequency_V4 = genome.variants(name)
    # Where the reference is an ambiguous code, its likeliest base stands for it.
    is_code_V = reference_V > 3
    allele_V4 = frequency_V4 > 0
    allele_V4[np.arange(len(reference_V)), np.where(is_code_V, frequency_V4.argmax(axis=1), reference_V)] = False
    row_A, base_A = np.nonzero(allele_V4)
    # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition.
    change_A = (reference_V[row_A] ^ base_A)[~is_code_V[row_A]]
    frequency_A = frequency_V4[allele_V4].astype(np.float64)
    alleles_U += np.bincount(np.rint(frequency_A * FREQUENCY_ONE).astype(np.int64), minlength=len(alleles_U))
    return {
        "name": name,
        "length": genome.lengths[name],
        "known": int(np.diff(known_R2).sum()),
        "soft_masked": int(masked["length"].sum(dtype=np.int64)),
        "variants": len(reference_V),
        "alternates": len(row_A),
        "multi_allelic": int((allele_V4.sum(axis=1) > 1).sum()),
        "transitions": int((change_A == 2).sum()),
        "transversions": int((change_A != 2).sum()),
        "differences": float((1 - np.square(frequency_V4, dtype=np.float64).sum(axis=1)).sum()),
        "frequencies": float(frequency_A.sum()),
    }
