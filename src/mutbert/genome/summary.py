"""What a probabilistic genome holds, in numbers: size, density, spectra, diversity, transitions and transversions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from mutbert.genome.format import FREQUENCY_ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.genome.store import ProbabilisticGenome, Variants

SPECTRUM_BINS: Final = 20

DOUBLING_EDGES: Final = (0.0, *(2.0**power for power in range(-15, 1)))
"""(17,) edges of bins that double: all up to 1/32768, up to 1/16384, ... up to 1. A population of constant size without
selection has about as many alleles in each (Fu 1995, Theor. Popul. Biol. 48:172), so that rare and common ones show."""

# In units of 1/65535, an edge that itself was rounded up is still within its bin.
_DOUBLING_UNITS: Final = np.ceil(np.array(DOUBLING_EDGES) * FREQUENCY_ONE).astype(np.int64)


@dataclass(frozen=True)
class ContigSummary:
    """What one contig holds.

    Parameters
    ----------
    name : str
        The FASTA's name.
    length : int
        Bases.
    known : int
        Bases that are not N.
    soft_masked : int
        Bases that the FASTA has in lower case, N among them; 0 for a store of version 1, which does not know.
    variants : int
        Positions that vary.
    per_kilobase : float
        Variants per 1,000 known bases.
    alternates : int
        Alternate alleles: a position has up to three.
    transitions, transversions : int
        Alternate alleles by kind of change; see `GenomeSummary`.
    diversity_per_kilobase : float
        Expected heterozygosity; see `GenomeSummary`.
    """

    name: str
    length: int
    known: int
    soft_masked: int
    variants: int
    per_kilobase: float
    alternates: int
    transitions: int
    transversions: int
    diversity_per_kilobase: float


@dataclass(frozen=True)
class GenomeSummary:
    """What a genome holds.

    Parameters
    ----------
    contigs : sequence of ContigSummary
        In the FASTA's order.
    length, known, soft_masked, variants : int
        Sums over the contigs.
    per_kilobase : float
        Variants per 1,000 known bases.
    alternates : int
        Alternate alleles: a position has up to three.
    multi_allelic : int
        Positions with more than one.
    transitions, transversions : int
        Alternate alleles by kind of change; where the reference is an ambiguous code there is no telling, and the
        alleles are in neither.
    spectrum : sequence of int
        Alternate alleles by frequency: bin ``i`` of n is above ``i / n`` and up to ``(i + 1) / n``, within the
        1/65535 that a store keeps.
    doubling_spectrum : sequence of int
        Alternate alleles by frequency in bins that double: bin ``i`` is above ``DOUBLING_EDGES[i]`` and up to
        ``DOUBLING_EDGES[i + 1]``, within 1/65535.
    mean_alternate_frequency : float or None
        Mean frequency of the alternate alleles; ``None`` where there are none.
    diversity_per_kilobase : float
        Expected heterozygosity per 1,000 known bases: the sum of 1 - Σ p² over the positions that vary, the chance that
        two chromosomes drawn from the population differ there (Nei 1973, PNAS 70:3321). With all variants kept it is
        1,000 times the nucleotide diversity.
    bytes_on_disk : int
        Of the whole store.
    bytes_per_base : float
        That, over `length`.
    """

    contigs: Sequence[ContigSummary]
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
    """Count what a genome holds, one contig in memory at a time.

    Parameters
    ----------
    genome : ProbabilisticGenome
        An open store.

    Returns
    -------
    GenomeSummary
        The counts.
    """
    contigs = []
    spectrum = np.zeros(SPECTRUM_BINS, dtype=np.int64)
    doubling = np.zeros(len(DOUBLING_EDGES) - 1, dtype=np.int64)
    multi_allelic = 0
    frequency_sum = difference_sum = 0.0
    for name, length in genome.lengths.items():
        known = int(np.diff(genome.known_runs(name, 0, length), axis=1).sum())
        masked = genome.arrays["soft_mask.npy"][slice(*genome.contigs[name].soft_mask)]
        variants = genome.variants(name)
        allele_V4 = _alternates(variants)
        row_A, base_A = np.nonzero(allele_V4)
        frequency_A = variants.frequency[row_A, base_A]
        # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition.
        is_transition_A = (variants.reference[row_A] ^ base_A) == 2
        is_told_A = variants.reference[row_A] < 4
        differences = float((1 - np.square(variants.frequency, dtype=np.float64).sum(axis=1)).sum())
        contigs.append(
            ContigSummary(
                name=name,
                length=length,
                known=known,
                soft_masked=int(masked["length"].sum(dtype=np.int64)),
                variants=len(variants.position),
                per_kilobase=_per_kilobase(len(variants.position), known),
                alternates=len(row_A),
                transitions=int((is_told_A & is_transition_A).sum()),
                transversions=int((is_told_A & ~is_transition_A).sum()),
                diversity_per_kilobase=_per_kilobase(differences, known),
            )
        )
        multi_allelic += int((allele_V4.sum(axis=1) > 1).sum())
        frequency_sum += float(frequency_A.sum(dtype=np.float64))
        difference_sum += differences
        spectrum += _spectrum(frequency_A)
        doubling += _doubling_spectrum(frequency_A)
    length = sum(contig.length for contig in contigs)
    known = sum(contig.known for contig in contigs)
    positions = sum(contig.variants for contig in contigs)
    alternates = sum(contig.alternates for contig in contigs)
    return GenomeSummary(
        contigs=contigs,
        length=length,
        known=known,
        soft_masked=sum(contig.soft_masked for contig in contigs),
        variants=positions,
        per_kilobase=_per_kilobase(positions, known),
        alternates=alternates,
        multi_allelic=multi_allelic,
        transitions=sum(contig.transitions for contig in contigs),
        transversions=sum(contig.transversions for contig in contigs),
        spectrum=spectrum.tolist(),
        doubling_spectrum=doubling.tolist(),
        mean_alternate_frequency=frequency_sum / alternates if alternates else None,
        diversity_per_kilobase=_per_kilobase(difference_sum, known),
        bytes_on_disk=genome.bytes_on_disk,
        bytes_per_base=genome.bytes_on_disk / length,
    )


def _alternates(variants: Variants) -> npt.NDArray[np.bool_]:
    """Tell which bases are alternate alleles, shape (V, 4).

    Where the reference is an ambiguous code, its likeliest base stands for it.
    """
    frequency_V4 = variants.frequency
    reference_V = np.where(variants.reference < 4, variants.reference, frequency_V4.argmax(axis=1))
    allele_V4: npt.NDArray[np.bool_] = frequency_V4 > 0
    allele_V4[np.arange(len(reference_V)), reference_V] = False
    return allele_V4


def _spectrum(frequency_A: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    # Less one unit of fixed point, as an edge itself may have been rounded up.
    below_A = np.maximum(frequency_A.astype(np.float64) - 1 / FREQUENCY_ONE, 0.5 / FREQUENCY_ONE)
    return np.bincount(np.ceil(below_A * SPECTRUM_BINS).astype(np.int64) - 1, minlength=SPECTRUM_BINS)


def _doubling_spectrum(frequency_A: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    fixed_A = np.rint(frequency_A.astype(np.float64) * FREQUENCY_ONE).astype(np.int64)
    bin_A = np.searchsorted(_DOUBLING_UNITS, fixed_A, side="left") - 1
    return np.bincount(bin_A, minlength=len(DOUBLING_EDGES) - 1)


def _per_kilobase(amount: float, known: int) -> float:
    return 1000 * amount / known if known else 0.0
