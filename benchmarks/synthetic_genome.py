"""Generate a genome the size of the human one, and the sites of a large panel on it, for the other benchmarks.

    python benchmarks/synthetic_genome.py --output DIR

writes ``ref.fa`` (or a bgzipped ``ref.fa.gz``), ``sites.vcf.gz`` with its index (or one VCF a contig), and
``truth.json``, which says how many sites of each kind there are, so that a builder's counts can be compared.

The bases are uniform noise, as neither time nor size of a build depends on what they say: 24 contigs with the lengths
of GRCh38's chromosomes, scaled; N at telomeres and centromeres; every other run of some hundred bases in lower case.
The sites are uniform over the known bases, at least `SPACING` apart. Allele counts k of `ALLELES` follow 1/k, as in a
population of constant size.

Every contig has random numbers of its own, so the same arguments give the same files. Memory is one contig's bases
and a piece of its sites.

Shape suffixes: L bases of a contig or piece, N sites of a piece, T characters of a column of text.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pysam

from measure import run_script
from mutbert.arrays import list_ranges
from mutbert.files import atomic_directory
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]

# GRCh38, in bases (public: the assembly report of GCF_000001405.26).
HUMAN_LENGTHS: Final = {
    "chr1": 248_956_422, "chr2": 242_193_529, "chr3": 198_295_559, "chr4": 190_214_555, "chr5": 181_538_259,
    "chr6": 170_805_979, "chr7": 159_345_973, "chr8": 145_138_636, "chr9": 138_394_717, "chr10": 133_797_422,
    "chr11": 135_086_622, "chr12": 133_275_309, "chr13": 114_364_328, "chr14": 107_043_718, "chr15": 101_991_189,
    "chr16": 90_338_345, "chr17": 83_257_441, "chr18": 80_373_285, "chr19": 58_617_616, "chr20": 64_444_167,
    "chr21": 46_709_983, "chr22": 50_818_468, "chrX": 156_040_895, "chrY": 57_227_415,
}  # fmt: skip
TELOMERE: Final = 10_000
"""Bases of N at both ends of a human contig; shorter where contigs are."""
CENTROMERE_SHARE: Final = 0.03

ALLELES: Final = 6_404
"""AN of every site: two of each of 3,202 people."""
COMMON: Final = 0.02
"""Where the published method draws the line."""
SPACING: Final = 4
"""Sites are at least this far apart, so that the longest REF of several nucleotides overlaps no other site."""

# Of all sites. The rest are biallelic single-nucleotide variants.
SHARES: Final = {"insertion": 0.04, "deletion": 0.06, "several_nucleotides": 0.005, "two_alternates": 0.02}
TRANSITIONS: Final = 2 / 3
LONGEST_INDEL: Final = 12

MEAN_CASE_RUN: Final = 300
LINE: Final = 60
PIECE: Final = LINE << 18
"""Bases that are written at a time."""
SITES_OF_A_PIECE: Final = 1 << 18

FEWEST_BASES: Final = 100_000
TRUTH: Final = "truth.json"

LETTERS: Final = np.frombuffer(b"ACGT", dtype=np.uint8)
LETTERS_OF_BYTE: Final = LETTERS[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3].reshape(-1).view(np.uint32)
CODE_OF_LETTER: Final = np.zeros(256, dtype=np.uint8)
CODE_OF_LETTER[LETTERS] = np.arange(4)

_COUNTS: Final = range(1, ALLELES)
AC_FIRST: Final = pa.array(["", *(f"AC={count}" for count in _COUNTS)])
AC_SECOND: Final = pa.array(["", *(f",{count}" for count in _COUNTS)])
AF_FIRST: Final = pa.array(["", *(f";AF={count / ALLELES:.6g}" for count in _COUNTS)])
AF_SECOND: Final = pa.array(["", *(f",{count / ALLELES:.6g}" for count in _COUNTS)])


def main() -> None:
    """Read the command line, and generate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder to write")
    parser.add_argument("--bases", type=float, default=3.1e9, help="of all contigs together (%(default)g)")
    parser.add_argument("--records", type=float, default=75e6, help="sites of all contigs together (%(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="the same arguments give the same files (%(default)s)")
    parser.add_argument("--bgzip", action="store_true", help="compress the FASTA too")
    parser.add_argument("--per-contig", action="store_true", help="write one VCF a contig")
    parser.add_argument("--force", action="store_true", help="replace the folder where it exists")
    arguments = parser.parse_args()
    bases, records = round(arguments.bases), round(arguments.records)
    if bases < FEWEST_BASES or records * 4 * SPACING > bases:
        parser.error(f"give at least {FEWEST_BASES:,} bases, and {4 * SPACING} for each record")
    start = time.perf_counter()
    with atomic_directory(arguments.output, force=arguments.force) as folder:
        truth = generate(
            folder, bases, records, seed=arguments.seed, bgzip=arguments.bgzip, per_contig=arguments.per_contig
        )
        (folder / TRUTH).write_text(json.dumps(truth, indent=1) + "\n")
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    seconds = time.perf_counter() - start
    print(f"{arguments.output}: {bases:,} bases, {records:,} records, {size:,} bytes, {seconds:.0f} s")


def generate(
    folder: Path, bases: int, records: int, *, seed: int, bgzip: bool = False, per_contig: bool = False
) -> dict[str, int]:
    """Write the files into an empty folder; return the number of sites of each kind."""
    lengths = dict(zip(HUMAN_LENGTHS, _apportion(bases, HUMAN_LENGTHS.values()), strict=True))
    sites = dict(zip(lengths, _apportion(records, lengths.values()), strict=True))
    truth: Counter[str] = Counter()
    with ExitStack() as files, progress_bar("Generating", records, unit="sites") as advance:
        fasta = files.enter_context(_open(folder / ("ref.fa.gz" if bgzip else "ref.fa")))
        vcfs: dict[str, BinaryIO] = {}
        for index, (name, length) in enumerate(lengths.items()):
            random = np.random.default_rng([seed, index])
            known = _known(length)
            letter_L = _write_contig(fasta, name, length, known, random)
            vcf_name = f"sites.{name}.vcf.gz" if per_contig else "sites.vcf.gz"
            if vcf_name not in vcfs:
                vcfs[vcf_name] = files.enter_context(_open(folder / vcf_name))
                vcfs[vcf_name].write(_header(lengths))
            for lines, kinds in _sites(name, letter_L, known, sites[name], random):
                vcfs[vcf_name].write(lines)
                truth.update(kinds)
                advance(kinds["records"])
    for vcf_name in vcfs:
        pysam.tabix_index(str(folder / vcf_name), preset="vcf", force=True)
    return {"bases": bases, **truth}


def _apportion(total: int, weights: Iterable[int]) -> list[int]:
    """Return a number divided in proportion to weights; the parts sum to it."""
    edges = np.cumsum([0, *weights])
    parts: list[int] = np.diff(np.round(edges / edges[-1] * total).astype(np.int64)).tolist()
    return parts


def _open(path: Path) -> BinaryIO:
    return pysam.BGZFile(str(path), "w") if path.suffix == ".gz" else path.open("wb")


def _known(length: int) -> list[tuple[int, int]]:
    """Return the two regions of a contig without N: between the telomeres and the centromere in the middle."""
    telomere = min(TELOMERE, length // 100)
    centromere = round(CENTROMERE_SHARE * length)
    middle = (length - centromere) // 2
    return [(telomere, middle), (middle + centromere, length - telomere)]


def _write_contig(
    file: BinaryIO, name: str, length: int, known: list[tuple[int, int]], random: np.random.Generator
) -> UInt8:
    """Write a contig's bases; return them as upper-case letters, shape (L,)."""
    letter_L: UInt8 = LETTERS_OF_BYTE[np.frombuffer(random.bytes(-(-length // 4)), dtype=np.uint8)].view(np.uint8)[
        :length
    ]
    end_of_last = 0
    for start, end in [*known, (length, length)]:
        letter_L[end_of_last:start] = ord("N")
        end_of_last = end
    file.write(f">{name}\n".encode())
    for start in range(0, length, PIECE):
        piece_L = letter_L[start : start + PIECE]
        # The bit that makes a letter lower case, on for every other run; N stays as it is.
        runs = random.geometric(1 / MEAN_CASE_RUN, size=2 * len(piece_L) // MEAN_CASE_RUN + 10)
        bit_L = np.repeat(np.resize(np.array([0, 32], dtype=np.uint8), len(runs)), runs)[: len(piece_L)]
        text_L = piece_L | bit_L * (piece_L != ord("N"))
        whole = len(text_L) // LINE * LINE
        lines = np.full((whole // LINE, LINE + 1), ord("\n"), dtype=np.uint8)
        lines[:, :-1] = text_L[:whole].reshape(-1, LINE)
        file.write(lines.tobytes())
        if whole < len(text_L):
            file.write(text_L[whole:].tobytes() + b"\n")
    return letter_L


def _header(lengths: dict[str, int]) -> bytes:
    contigs = "".join(f"##contig=<ID={name},length={length}>\n" for name, length in lengths.items())
    return (
        "##fileformat=VCFv4.2\n"
        '##FILTER=<ID=PASS,Description="All filters passed">\n'
        f"{contigs}"
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Count of each alternate allele">\n'
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency of each alternate allele">\n'
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Number of alleles">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    ).encode()


def _sites(
    name: str, letter_L: UInt8, known: list[tuple[int, int]], count: int, random: np.random.Generator
) -> Iterator[tuple[bytes, Counter[str]]]:
    """Yield the lines of a contig's sites in pieces, with the number of each kind."""
    for (start, end), sites in zip(known, _apportion(count, (end - start for start, end in known)), strict=True):
        pieces = -(-sites // SITES_OF_A_PIECE)
        edges = np.linspace(start, end, pieces + 1).astype(np.int64)
        for begin, stop, number in zip(edges[:-1], edges[1:], _apportion(sites, np.diff(edges)), strict=True):
            # Sorted draws, moved apart: every set of sites that far apart is as likely as another.
            room = int(stop - begin) - number * SPACING - LONGEST_INDEL
            position_N = begin + np.sort(random.integers(0, room, size=number)) + SPACING * np.arange(number)
            yield _lines(name, letter_L, position_N, random)


def _lines(name: str, letter_L: UInt8, position_N: Int64, random: np.random.Generator) -> tuple[bytes, Counter[str]]:
    """Return sites as text: column by column, then all columns joined."""
    count = len(position_N)
    kind_N = np.searchsorted(np.cumsum(list(SHARES.values())), random.random(count), side="right")
    is_insertion_N, is_deletion_N, is_several_N, has_two_N = (kind_N == index for index in range(len(SHARES)))

    nucleotides_N = random.integers(2, SPACING, size=count, endpoint=True)
    longer_N = random.integers(2, LONGEST_INDEL, size=count, endpoint=True)
    reference_length_N = np.select([is_deletion_N, is_several_N], [longer_N, nucleotides_N], 1)
    alternate_length_N = np.select([is_insertion_N, is_several_N, has_two_N], [longer_N, nucleotides_N, len("A,C")], 1)

    # Base codes A C G T are 0 1 2 3, so that XOR 2 is the transition and XOR 1, XOR 3 are the transversions.
    reference_T = letter_L[list_ranges(position_N, position_N + reference_length_N)[1]]
    first_letter_N = letter_L[position_N]
    change_N = np.where(random.random(count) < TRANSITIONS, 2, random.choice(np.array([1, 3]), size=count))
    other_change_N = 1 + (change_N - 1 + random.integers(1, 3, size=count)) % 3
    alternate_T = LETTERS[random.integers(0, 4, size=alternate_length_N.sum())]
    first_N = np.cumsum(alternate_length_N) - alternate_length_N
    alternate_T[first_N] = np.where(is_insertion_N | is_deletion_N, first_letter_N, _changed(first_letter_N, change_N))
    alternate_T[first_N[has_two_N] + 1] = ord(",")
    alternate_T[first_N[has_two_N] + 2] = _changed(first_letter_N, other_change_N)[has_two_N]
    # Of several nucleotides every one changes.
    before_T = reference_T[np.repeat(is_several_N, reference_length_N)]
    alternate_T[np.repeat(is_several_N, alternate_length_N)] = _changed(
        before_T, random.integers(1, 4, size=len(before_T))
    )

    count_N = np.floor(ALLELES ** random.random(count)).astype(np.int64).clip(1, ALLELES - 1)
    other_count_N = np.floor(ALLELES ** random.random(count)).astype(np.int64).clip(1, ALLELES - count_N)
    other_count_N[~has_two_N] = 0
    lines = pc.binary_join_element_wise(
        f"{name}\t",
        pc.cast(pa.array(position_N + 1), pa.string()),
        "\t.\t",
        _strings(reference_length_N, reference_T),
        "\t",
        _strings(alternate_length_N, alternate_T),
        "\t.\tPASS\t",
        AC_FIRST.take(pa.array(count_N)),
        AC_SECOND.take(pa.array(other_count_N)),
        AF_FIRST.take(pa.array(count_N)),
        AF_SECOND.take(pa.array(other_count_N)),
        f";AN={ALLELES}\n",
        "",
    )
    single_N = kind_N >= list(SHARES).index("two_alternates")
    common_N = single_N & (count_N + other_count_N > COMMON * ALLELES)
    kinds = dict(zip(SHARES, np.bincount(kind_N, minlength=len(SHARES)).tolist(), strict=False))
    kinds |= {"records": count, "single_nucleotide": int(single_N.sum()), f"above_{COMMON}": int(common_N.sum())}
    # The lines of an Arrow column lie one behind the other, so that its buffer is the text.
    return lines.buffers()[2].to_pybytes(), Counter(kinds)


def _changed(letter_N: UInt8, change_N: Int64) -> UInt8:
    """Return other bases, as letters; a change is 1, 2 or 3, and 2 is the transition."""
    changed_N: UInt8 = LETTERS[CODE_OF_LETTER[letter_N] ^ change_N]
    return changed_N


def _strings(length_N: Int64, letter_T: UInt8) -> pa.StringArray:
    """Return letters cut into strings of given lengths."""
    offsets = np.concatenate([[0], np.cumsum(length_N)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(length_N), pa.py_buffer(offsets), pa.py_buffer(letter_T))


if __name__ == "__main__":
    run_script(main)
