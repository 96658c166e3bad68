"""A simulated population for the demonstration, tests and benchmarks: a reference with structure, and its variants."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pysam

from mutbert import __version__, alphabet
from mutbert.arrays import UInt8, list_ranges
from mutbert.errors import InputError, require
from mutbert.files import atomic_directory
from mutbert.genome.sources import fasta_lines
from mutbert.progress import progress_bar

_HEADER: Final = """\
##fileformat=VCFv4.2
##source="mutbert {} simulate, {}"
##FILTER=<ID=PASS,Description="All filters passed">
##contig=<ID={},length={}>
##INFO=<ID=AC,Number=A,Type=Integer,Description="Count of each alternate allele">
##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency of each alternate allele">
##INFO=<ID=AN,Number=1,Type=Integer,Description="Number of alleles">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{}
"""


def simulate_population(
    output: str | Path, *, length: int = 1_000_000, samples: int = 500, seed: int = 1, contig: str = "chr1",
    mutation_rate: float = 1.25e-8, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Simulate a population and write its reference and genotypes; ``docs/genome.md`` has its history.

    Parameters
    ----------
    output : path
        The folder to write: ``ref.fa`` (and ``.fai``), ``population.vcf.gz`` (and ``.tbi``).
    length, samples, seed, contig, mutation_rate, force, progress
        Bases, 1,000 to 536,870,912; diploid people; seed, for the same files again; name of the contig; mutations per
        base and generation, up to 1e-6; replace the output where it exists; show progress on standard error.

    Returns
    -------
    dict
        Paths of the folder (`path`), `fasta` and `vcf`; `contig`, `length` and the numbers of `samples` and `records`.

    Raises
    ------
    InputError
        A number out of its range, and an output that exists.

    Examples
    --------
    >>> report = mutbert.simulate_population("simulated", length=5000, samples=4)
    >>> report["length"], report["samples"]
    (5000, 4)
    """
    output = Path(output)
    for fits, problem in (
        (1_000 <= length <= 2**29, f"length {length}: is not from 1,000 to {2**29:,}, the most of a .tbi index"),
        (samples >= 1, f"samples {samples}: must be at least 1"),
        (seed >= 0, f"seed {seed}: must be at least 0"),
        (0 < mutation_rate <= 1e-6, f"mutation rate {mutation_rate:g}: is not above 0 and up to 1e-06"),
        (re.fullmatch(r"[^\s<>,:;]+", contig), f"contig {contig!r}: must be a name without blanks or any of <>,:;"),
    ):
        if not fits:
            raise InputError(problem)
    seeds = [int(word) % (2**31 - 1) + 1 for word in np.random.SeedSequence(seed).generate_state(3)]
    with atomic_directory(output, force=force) as folder:
        fasta, vcf = folder / "ref.fa", folder / "population.vcf.gz"
        ancestry = _simulate_ancestry(length, samples, seeds[1:], mutation_rate)
        base_L = simulate_reference(length, np.random.default_rng(seeds[0]))
        fasta.write_bytes(f">{contig}\n".encode() + fasta_lines(alphabet.BYTE_OF_CODE[base_L]))
        pysam.faidx(str(fasta))
        with (
            pysam.BGZFile(str(vcf), "w") as file,
            progress_bar("Writing genotypes", ancestry.num_sites, unit="sites", show=progress) as advance,
        ):
            names = [f"person{number:0{len(str(samples))}}" for number in range(1, samples + 1)]
            parameters = f"length {length}, samples {samples}, seed {seed}"
            file.write(_HEADER.format(__version__, parameters, contig, length, "\t".join(names)).encode())
            records = 0
            for line in _records(contig, base_L, ancestry):
                file.write(line)
                records += 1
                advance(1)
        pysam.tabix_index(str(vcf), preset="vcf", force=True)
    paths = {"path": output, "fasta": output / fasta.name, "vcf": output / vcf.name}
    return {**paths, "contig": contig, "length": length, "samples": samples, "records": records}


def simulate_reference(length: int, random: np.random.Generator) -> UInt8:
    """Return base codes (length,): a Markov chain of order 2, of which copies of repeats cover 30 %."""
    # Drawn around the composition of A, C, G, T, with a fifth of the CpG that it has, as in methylated genomes.
    chance = random.dirichlet(10 * np.array([0.295, 0.205, 0.205, 0.295]), size=16)
    chance[1::4, 2] *= 0.2
    cumulative = np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)
    base_L = _markov(length, cumulative, random)
    # Families of elements are copied anywhere, also on each other, as newer transposons are on older ones.
    elements = [_markov(int(size), cumulative, random) for size in random.integers(150, 600, size=8, endpoint=True)]
    for element, divergence in zip(elements, random.uniform(0.01, 0.08, size=8), strict=True):
        size = len(element)
        copies = round(-np.log1p(-0.3) / 8 * length / (size * 2 / 3))
        start_R = random.integers(0, length, size=copies)
        # A third of the element at least; what is cut off is its start.
        skipped_R = size - random.integers(size // 3, size, size=copies, endpoint=True)
        reverse_R = random.random(copies) < 0.5
        row_N, place_N = list_ranges(skipped_R, np.full(copies, size))
        target_N = start_R[row_N] + np.where(reverse_R[row_N], size - 1 - place_N, place_N - skipped_R[row_N])
        code_N = np.where(reverse_R[row_N], 3 - element[place_N], element[place_N])
        changed_N = random.random(len(code_N)) < divergence
        code_N[changed_N] = (code_N[changed_N] + random.integers(1, 4, size=int(changed_N.sum()))) % 4
        inside_N = target_N < length
        base_L[target_N[inside_N]] = code_N[inside_N]
    return base_L


def _markov(length: int, cumulative: npt.NDArray[np.float64], random: np.random.Generator) -> UInt8:
    """Return a sequence from the chain: many chains drawn at once, each from its own start, then concatenated."""
    steps, burn_in = min(length, 2048), 64
    base_SC = np.empty((steps, -(-length // steps)), dtype=np.uint8)
    context_C = random.integers(0, 16, size=base_SC.shape[1])
    for step in range(-burn_in, steps):
        # The last column is 1 but for rounding, so it is left out.
        next_C = (random.random((base_SC.shape[1], 1)) >= cumulative[context_C, :3]).sum(axis=1)
        context_C = (context_C * 4 + next_C) % 16
        if step >= 0:
            base_SC[step] = next_C
    return base_SC.T.reshape(-1)[:length]


def _simulate_ancestry(length: int, samples: int, seeds: Sequence[int], mutation_rate: float) -> Any:
    """Return a genealogy with mutations; allele ``k`` at a site stands for the ancestral base XOR k."""
    require("msprime")
    import msprime

    # Human-like: growth from 10,000 diploids 1,000 generations ago gives the excess of rare variants of large panels.
    demography = msprime.Demography()
    demography.add_population(name="population", initial_size=100_000, growth_rate=np.log(100_000 / 10_000) / 1000)
    demography.add_population_parameters_change(time=1000, initial_size=10_000, growth_rate=0)
    rates = {"sequence_length": length, "recombination_rate": 1e-8}
    ancestry = msprime.sim_ancestry(samples, demography=demography, random_seed=seeds[0], **rates)
    # Base codes A C G T are 0 1 2 3: XOR 2 is the transition, XOR 1 and 3 are the transversions, so that ti/tv is 2.
    changes = (np.array([0, 1, 4, 1]) / 6)[np.arange(4)[:, None] ^ np.arange(4)]
    model = msprime.MatrixMutationModel(list("0123"), root_distribution=[1, 0, 0, 0], transition_matrix=changes)
    return msprime.sim_mutations(ancestry, rate=mutation_rate, model=model, random_seed=seeds[1])


def _records(contig: str, base_L: UInt8, ancestry: Any) -> Iterator[bytes]:
    """Yield the lines of a VCF, one a site that varies."""
    total = ancestry.num_samples
    # Each person's two haplotypes are four bytes, ``a|b`` and what follows.
    text_P4 = np.tile(np.frombuffer(b"0|0\t", dtype=np.uint8), (total // 2, 1))
    text_P4[-1, 3] = ord("\n")
    for site in ancestry.variants(copy=False):
        count = np.bincount(site.genotypes, minlength=len(site.alleles))
        # Allele 0 is the ancestral one; a later mutation may have hidden another from everyone alive.
        alternates = [index for index in range(1, len(count)) if count[index]]
        if alternates:
            digit = np.zeros(len(count), dtype=np.uint8)
            digit[[0, *alternates]] = ord("0") + np.arange(len(alternates) + 1)
            text_P4[:, 0::2] = digit[site.genotypes].reshape(-1, 2)
            position, counts = int(site.site.position), count[alternates].tolist()
            ref = int(base_L[position])
            alt = ",".join(alphabet.BASES[ref ^ int(site.alleles[index])] for index in alternates)
            shares = ",".join(f"{value / total:.6g}" for value in counts)
            info = f"AC={','.join(map(str, counts))};AF={shares};AN={total}"
            fields = (contig, position + 1, ".", alphabet.BASES[ref], alt, ".", "PASS", info, "GT", "")
            yield "\t".join(map(str, fields)).encode() + text_P4.tobytes()
