"""The documented preparation of the published code, as its user would run it: bcftools steps, then NumPy.

    python benchmarks/bcftools_numpy.py REF.fa VCF FOLDER [--no-genotypes]

Five bcftools steps, each of which writes a bgzipped file for the next: drop IDs and INFO but AF, filter by frequency,
keep SNPs, join the records of a position, list them. Then, for each contig, a one-hot float32 matrix of all its bases,
(L, 4) in the order A, C, G, T, with (1 - AF, AF) in the rows of the sites, saved as ``CONTIG.npy``.

As documented, genotypes travel through all steps. ``--no-genotypes`` drops them in the first one, which nobody has
documented, but a careful user would do.

In its favour, this stops at 16 bytes per base; the published code continues to 43 bytes per base on disk. Like it,
this loses sites of several alternate alleles, and never compares REF with the FASTA.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
from pathlib import Path

import numpy as np

STEPS = (
    ("annotate", "-x", "ID,^INFO/AF"),
    ("view", "-i", "AF>0.02"),
    ("view", "-v", "snps"),
    ("norm", "-m", "+any"),
)
COLUMNS = r"%CHROM\t%POS\t%REF\t%ALT\t%AF\n"


def main() -> None:
    """Read the command line, and prepare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("vcf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-genotypes", action="store_true")
    arguments = parser.parse_args()
    table = run_bcftools(arguments.vcf, arguments.folder, genotypes=not arguments.no_genotypes)
    write_matrices(arguments.fasta, table, arguments.folder)


def run_bcftools(vcf: Path, folder: Path, *, genotypes: bool) -> Path:
    """Run the steps; return the table of sites."""
    last = vcf
    if not genotypes:
        last = folder / "sites.vcf.gz"
        subprocess.run(["bcftools", "view", "-G", "-Oz", "-o", last, vcf], check=True)
    for number, step in enumerate(STEPS, start=1):
        following = folder / f"step{number}.vcf.gz"
        subprocess.run(["bcftools", *step, "-Oz", "-o", following, last], check=True)
        last = following
    table = folder / "sites.tsv"
    subprocess.run(["bcftools", "query", "-f", COLUMNS, "-o", table, last], check=True)
    return table


def write_matrices(fasta: Path, table: Path, folder: Path) -> None:
    """Write each contig's matrix."""
    place = np.full(256, 4)
    place[np.frombuffer(b"ACGT", dtype=np.uint8)] = range(4)
    one_hot = np.eye(5, 4, dtype=np.float32)
    sites = read_sites(table)
    for name, sequence in read_fasta(fasta):
        matrix = one_hot[place[np.frombuffer(sequence, dtype=np.uint8)]]
        for position, reference, alternate, frequency in sites.get(name, []):
            matrix[position] = 0
            matrix[position, "ACGT".index(reference)] = 1 - frequency
            matrix[position, "ACGT".index(alternate)] = frequency
        np.save(folder / f"{name}.npy", matrix)


def read_sites(table: Path) -> dict[str, list[tuple[int, str, str, float]]]:
    """Read the sites of one reference and one alternate base, by contig, with 0-based positions."""
    sites: dict[str, list[tuple[int, str, str, float]]] = {}
    with table.open() as file:
        for line in file:
            name, position, reference, alternate, frequency = line.split("\t")
            if len(reference) == len(alternate) == 1:
                sites.setdefault(name, []).append((int(position) - 1, reference, alternate, float(frequency)))
    return sites


def read_fasta(path: Path) -> list[tuple[str, bytes]]:
    """Read names and upper-case sequences."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    records = [record.partition(b"\n") for record in content.split(b">")[1:]]
    return [(head.split()[0].decode(), body.replace(b"\n", b"").upper()) for head, _, body in records]


if __name__ == "__main__":
    main()
