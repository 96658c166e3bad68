"""A simulated population: a reference with something to learn in it, and the variants of a coalescent history.

For the demonstration, tests and benchmarks. Both files are a function of the arguments alone, for one version of
msprime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pysam

from mutbert import __version__, alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_directory
from mutbert.genome.fasta import fasta_lines
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutbert.arrays import UInt8


FASTA_NAME: Final = "ref.fa"
VCF_NAME: Final = "population.vcf.gz"

# Human-like history: 10,000 diploids until 1,000 generations ago, then exponential growth to 100,000 today, which gives
# the excess of rare variants that large panels show. Rates are per base and generation.
ANCESTRAL_SIZE: Final = 10_000
PRESENT_SIZE: Final = 100_000
GENERATIONS_OF_GROWTH: Final = 1_000
MUTATION_RATE: Final = 1.25e-8
RECOMBINATION_RATE: Final = 1e-8
_HIGHEST_RATE: Final = 1e-6
TRANSITION_WEIGHT: Final = 4.0
"""A mutation is this many times likelier a transition than either transversion, so that ti/tv is 2."""

# The background is a Markov chain over the last `_ORDER` bases. Its rows are drawn around this composition (A C G T),
# with C followed by G at a fifth of what that would give, as in methylated genomes.
_ORDER: Final = 2
_COMPOSITION: Final = np.array([0.295, 0.205, 0.205, 0.295])
_CPG_DEPLETION: Final = 0.2
_CONCENTRATION: Final = 10.0
_STEPS_OF_A_CHAIN: Final = 2_048
_BURN_IN: Final = 64

# Interspersed repeats: families of elements, copied all over the sequence on both strands, each copy cut short at its
# start and changed at a few per cent of its bases, as transposons are.
_FAMILIES: Final = 8
_ELEMENT_LENGTHS: Final = (150, 600)
_REPEAT_SHARE: Final = 0.3
_DIVERGENCES: Final = (0.01, 0.08)

_LONGEST: Final = 2**29


@dataclass(frozen=True)
class SimulationReport:
    """What a simulation wrote: a FASTA with its ``.fai``, and the phased genotypes of people with their ``.tbi``."""

    path: Path
    fasta: Path
    vcf: Path
    contig: str
    length: int
    samples: int
    records: int


def simulate_population(
    output: str | Path,
    *,
    length: int = 1_000_000,
    samples: int = 500,
    seed: int = 1,
    contig: str = "chr1",
    mutation_rate: float = MUTATION_RATE,
    force: bool = False,
    progress: bool = False,
) -> SimulationReport:
    """Simulate a population and write its reference and genotypes.

    The reference has structure that a small language model can learn (see `simulate_reference`). The population
    grew exponentially; its sites carry any of the four bases and may have several alternate alleles. The reference
    base is always the ancestral one.

    Parameters
    ----------
    output : path
        The folder to write: ``ref.fa`` (and ``.fai``), ``population.vcf.gz`` (and ``.tbi``).
    length : int
        Bases, 1,000 to 536,870,912.
    samples : int
        Diploid people, at least 1.
    seed : int
        From 0. The same arguments give the same files.
    contig : str
        Name of the one contig.
    mutation_rate : float
        Mutations per base and generation, above 0 and up to 1e-6: it sets how densely the genome varies.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    SimulationReport
        What was written.

    Raises
    ------
    InputError
        When an argument is out of range or the output exists.
    MissingExtraError
        When msprime is not installed.
    """
    output = Path(output)
    if not 1_000 <= length <= _LONGEST:
        raise InputError(f"length {length}: is not within 1,000 to {_LONGEST:,} bases, which a .tbi index can hold")
    if samples < 1:
        raise InputError(f"samples {samples}: give at least one")
    if seed < 0:
        raise InputError(f"seed {seed}: give one from 0")
    if not 0 < mutation_rate <= _HIGHEST_RATE:
        raise InputError(f"mutation rate {mutation_rate:g}: is not above 0 and up to {_HIGHEST_RATE:g}")
    if not contig or any(character.isspace() or character in "<>,:;" for character in contig):
        raise InputError(f"contig {contig!r}: give a name without blanks and without any of <>,:;")
    sequence_seed, ancestry_seed, mutation_seed = (
        int(word) % (2**31 - 1) + 1 for word in np.random.SeedSequence(seed).generate_state(3)
    )
    with atomic_directory(output, force=force, mark=FASTA_NAME) as folder:
        ancestry = _simulate_ancestry(length, samples, ancestry_seed, mutation_seed, mutation_rate)
        base_L = simulate_reference(length, np.random.default_rng(sequence_seed))
        (folder / FASTA_NAME).write_bytes(f">{contig}\n".encode() + fasta_lines(alphabet.BYTE_OF_CODE[base_L]))
        pysam.faidx(str(folder / FASTA_NAME))
        records = 0
        with (
            pysam.BGZFile(str(folder / VCF_NAME), "w") as file,
            progress_bar("Writing genotypes", ancestry.num_sites, unit="sites", show=progress) as advance,
        ):
            file.write(_header(contig, length, samples, f"length {length}, samples {samples}, seed {seed}").encode())
            for record in _records(contig, base_L, ancestry):
                file.write(record)
                records += 1
                advance(1)
        pysam.tabix_index(str(folder / VCF_NAME), preset="vcf", force=True)
    return SimulationReport(output, output / FASTA_NAME, output / VCF_NAME, contig, length, samples, records)


def simulate_reference(length: int, random: np.random.Generator) -> UInt8:
    """Return base codes (length,) of a sequence with something to learn in it.

    The background is a Markov chain of order 2 with few CpG. About 30 % is covered by copies of eight repeat
    elements, which differ from their element at 1 to 8 % of their bases, lie on either strand, and are cut short.
    """
    cumulative = np.cumsum(_transitions(random), axis=1)
    base_L = _markov(length, cumulative, random)
    lengths = random.integers(*_ELEMENT_LENGTHS, size=_FAMILIES, endpoint=True)
    elements = [_markov(int(size), cumulative, random) for size in lengths]
    divergences = random.uniform(*_DIVERGENCES, size=_FAMILIES)
    # Copies fall anywhere, also on each other, as newer repeats do on older ones.
    density = -np.log1p(-_REPEAT_SHARE) / _FAMILIES
    for element, divergence in zip(elements, divergences, strict=True):
        _plant(base_L, element, float(divergence), density, random)
    return base_L


def _transitions(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the chance of each next base after each of the 4**order contexts, shape (contexts, 4)."""
    chance = random.dirichlet(_CONCENTRATION * _COMPOSITION, size=4**_ORDER)
    after_c = np.arange(len(chance)) % 4 == alphabet.BASES.index("C")
    chance[after_c, alphabet.BASES.index("G")] *= _CPG_DEPLETION
    transitions: npt.NDArray[np.float64] = chance / chance.sum(axis=1, keepdims=True)
    return transitions


def _markov(length: int, cumulative: npt.NDArray[np.float64], random: np.random.Generator) -> UInt8:
    """Draw a sequence from the chain: many chains side by side, each from its own start, then one after the other."""
    steps = min(length, _STEPS_OF_A_CHAIN)
    chains = -(-length // steps)
    base_SC = np.empty((steps, chains), dtype=np.uint8)
    context_C = random.integers(0, len(cumulative), size=chains)
    for step in range(-_BURN_IN, steps):
        chance_C1 = random.random((chains, 1))
        # The last column is 1 but for rounding, so it is left out.
        next_C = (chance_C1 >= cumulative[context_C, :3]).sum(axis=1)
        context_C = (context_C * 4 + next_C) % len(cumulative)
        if step >= 0:
            base_SC[step] = next_C
    return base_SC.T.reshape(-1)[:length]


def _plant(base_L: UInt8, element: UInt8, divergence: float, density: float, random: np.random.Generator) -> None:
    """Copy a repeat element all over a sequence, in place; `density` is copied bases per base of the sequence."""
    size = len(element)
    copies = round(density * len(base_L) / (size * 2 / 3))
    start_R = random.integers(0, len(base_L), size=copies)
    # A third of the element at least; what is cut off is its start.
    skipped_R = size - random.integers(size // 3, size, size=copies, endpoint=True)
    reverse_R = random.random(copies) < 0.5
    row_N, place_N = list_ranges(skipped_R, np.full(copies, size))
    target_N = start_R[row_N] + np.where(reverse_R[row_N], size - 1 - place_N, place_N - skipped_R[row_N])
    code_N = np.where(reverse_R[row_N], 3 - element[place_N], element[place_N])
    changed_N = random.random(len(code_N)) < divergence
    code_N[changed_N] = (code_N[changed_N] + random.integers(1, 4, size=int(changed_N.sum()))) % 4
    inside_N = target_N < len(base_L)
    base_L[target_N[inside_N]] = code_N[inside_N]


def _simulate_ancestry(length: int, samples: int, ancestry_seed: int, mutation_seed: int, mutation_rate: float) -> Any:
    """Simulate the genealogy and its mutations; allele ``k`` at a site stands for the ancestral base XOR k."""
    try:
        import msprime
    except ImportError:
        raise MissingExtraError("msprime", "simulate") from None
    demography = msprime.Demography()
    growth = np.log(PRESENT_SIZE / ANCESTRAL_SIZE) / GENERATIONS_OF_GROWTH
    demography.add_population(name="population", initial_size=PRESENT_SIZE, growth_rate=growth)
    demography.add_population_parameters_change(time=GENERATIONS_OF_GROWTH, initial_size=ANCESTRAL_SIZE, growth_rate=0)
    ancestry = msprime.sim_ancestry(
        samples,
        demography=demography,
        sequence_length=length,
        recombination_rate=RECOMBINATION_RATE,
        random_seed=ancestry_seed,
    )
    # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition and XOR 1, XOR 3 are the transversions.
    weights = np.array([0, 1, TRANSITION_WEIGHT, 1])
    model = msprime.MatrixMutationModel(
        ["0", "1", "2", "3"],
        root_distribution=[1, 0, 0, 0],
        transition_matrix=[[weights[before ^ after] / weights.sum() for after in range(4)] for before in range(4)],
    )
    return msprime.sim_mutations(ancestry, rate=mutation_rate, model=model, random_seed=mutation_seed)


def _header(contig: str, length: int, samples: int, parameters: str) -> str:
    names = "\t".join(f"person{number:0{len(str(samples))}}" for number in range(1, samples + 1))
    return (
        "##fileformat=VCFv4.2\n"
        f'##source="mutbert {__version__} simulate, {parameters}"\n'
        '##FILTER=<ID=PASS,Description="All filters passed">\n'
        f"##contig=<ID={contig},length={length}>\n"
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Count of each alternate allele">\n'
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency of each alternate allele">\n'
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Number of alleles">\n'
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
        f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}\n"
    )


def _records(contig: str, base_L: UInt8, ancestry: Any) -> Iterator[bytes]:
    """Yield the lines of a VCF, one a site that varies."""
    total = ancestry.num_samples
    # Each person's two haplotypes are four bytes, ``a|b`` and what follows.
    text_P4 = np.tile(np.frombuffer(b"0|0\t", dtype=np.uint8), (total // 2, 1))
    text_P4[-1, 3] = ord("\n")
    for site in ancestry.variants(copy=False):
        count = np.bincount(site.genotypes, minlength=len(site.alleles))
        # Allele 0 is the ancestral one; a later mutation may have hidden another from everyone alive.
        order = [0, *(index for index in range(1, len(count)) if count[index])]
        if len(order) == 1:
            continue
        digit = np.zeros(len(count), dtype=np.uint8)
        digit[order] = ord("0") + np.arange(len(order))
        text_P4[:, 0::2] = digit[site.genotypes].reshape(-1, 2)
        position = int(site.site.position)
        ancestral = int(base_L[position])
        alternates = ",".join(alphabet.BASES[ancestral ^ int(site.alleles[index])] for index in order[1:])
        counts = count[order[1:]].tolist()
        info = f"AC={','.join(map(str, counts))};AF={','.join(f'{value / total:.6g}' for value in counts)};AN={total}"
        fields = (contig, position + 1, ".", alphabet.BASES[ancestral], alternates, ".", "PASS", info, "GT", "")
        yield "\t".join(map(str, fields)).encode() + text_P4.tobytes()
