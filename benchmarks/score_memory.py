"""Measure the memory of ``mutbert score`` as files grow.

    python benchmarks/score_memory.py

A random genome has so many SNVs and one in twenty indels; a tiny model scores them, as how much memory a model takes
has nothing to do with the file. Each number of variants is a fresh process; memory is the most that it held.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from measure import describe_machine, machine_text, measure_command, run_script
from mutbert import alphabet
from mutbert.cli.command import print_table
from mutbert.errors import InputError
from mutbert.files import write_json
from mutbert.genome.build import build_genome
from mutbert.model import MutBertConfig, MutBertForMaskedLM

CONTEXT: Final = 30
SPACING: Final = 4
HEADER: Final = "##fileformat=VCFv4.2\n##contig=<ID=c,length={}>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--variants",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="records of the files (%(default)s)",
    )
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to put score_memory.json")
    arguments = parser.parse_args()
    if min(arguments.variants) < 1:
        raise InputError(f"--variants has {min(arguments.variants)}; each must be at least 1")

    machine = describe_machine(("torch", "transformers", "numpy", "pysam"))
    print(machine_text(machine))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, max(arguments.variants))
        for variants in arguments.variants:
            work = folder / f"{variants}"
            work.mkdir()
            write_variants(folder, work / "in.vcf", variants)
            command = [
                sys.executable, "-m", "mutbert", "score", "--model", folder / "model", "--genome", folder / "x.genome",
                "--vcf", work / "in.vcf", "-o", work / "out.vcf.gz", "--strands", "forward", "--batch-size", "512",
                "--flank", "2",
            ]  # fmt: skip
            took = measure_command(command, work)
            rows.append({"variants": variants, "seconds": took.seconds, "peak_memory": took.peak_memory})
    print_table(
        ("variants", "s", "peak MiB", "× the first"),
        [
            (
                f"{row['variants']:,}",
                f"{row['seconds']:.0f}",
                f"{row['peak_memory'] / 2**20:.0f}",
                f"{row['peak_memory'] / rows[0]['peak_memory']:.3f}",
            )
            for row in rows
        ],
    )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output / "score_memory.json", {"machine": machine, "rows": rows}, force=True)


def make_inputs(folder: Path, variants: int) -> None:
    """Write the genome, as a store and as codes, and the model."""
    generator = np.random.default_rng(0)
    code_L = generator.integers(0, len(alphabet.BASES), SPACING * variants + 2 * CONTEXT).astype(np.uint8)
    np.save(folder / "codes.npy", code_L)
    (folder / "ref.fa").write_text(f">c\n{alphabet.decode(code_L)}\n", encoding="ascii")
    build_genome(folder / "ref.fa", folder / "x.genome")
    config = MutBertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=CONTEXT + 2,
    )
    MutBertForMaskedLM(config).save_pretrained(folder / "model")


def write_variants(folder: Path, path: Path, variants: int) -> None:
    """Write the first variants of the genome: every twentieth a deletion of one base, the others SNVs."""
    code_L = np.load(folder / "codes.npy")
    position_N = CONTEXT + SPACING * np.arange(variants)
    before = alphabet.decode(code_L[position_N])
    behind = alphabet.decode(code_L[position_N + 1])
    other = alphabet.decode((code_L[position_N] + 1) % len(alphabet.BASES))
    with path.open("w", encoding="ascii") as file:
        file.write(HEADER.format(len(code_L)))
        file.writelines(
            f"c\t{at + 1}\t.\t{ref}{following}\t{ref}\t.\t.\t.\n"
            if number % 20 == 0
            else f"c\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n"
            for number, (at, ref, alt, following) in enumerate(zip(position_N, before, other, behind, strict=True))
        )


if __name__ == "__main__":
    run_script(main)
