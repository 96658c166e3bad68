"""Measure ``mutbert score --all-snvs`` against ``mutbert score`` on a VCF of all SNVs, and its memory.

    python benchmarks/all_snvs.py

Genome and tiny model are those of `score_memory`. Each command is a fresh process; of its processor time, that of a
command for ten positions, mostly imports, is taken off.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from measure import describe_machine, machine_text, measure_command, run_script
from mutbert import alphabet
from mutbert.cli.command import print_table
from score_memory import HEADER, SPACING, make_inputs


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bases", type=int, default=1_000_000, help="of the comparison (%(default)s)")
    parser.add_argument("--memory", type=int, nargs="*", default=[100_000, 1_000_000, 5_000_000], help="(%(default)s)")
    arguments, letters, rows = parser.parse_args(), alphabet.BASES, []
    print(machine_text(describe_machine(("torch", "polars", "numpy"))))
    with tempfile.TemporaryDirectory() as name:
        folder, bases = Path(name), arguments.bases
        make_inputs(folder, max([bases, *arguments.memory]) // SPACING)
        run = [sys.executable, "-m", "mutbert", "score", "--model", folder / "model", "--genome", folder / "x.genome",
               "--strands", "forward", "--batch-size", "128", "--force", "-o"]  # fmt: skip
        text = alphabet.decode(np.load(folder / "codes.npy"))
        snvs = ((at, ref, alt) for at, ref in enumerate(text[:bases], 1) for alt in letters if alt != ref)
        with (folder / "in.vcf").open("w", encoding="ascii") as file:
            file.write(HEADER.format(len(text)))
            file.writelines(f"c\t{at}\t.\t{ref}\t{alt}\t.\t.\t.\n" for at, ref, alt in snvs)
        sources = {"ours": ("--all-snvs", "--region", f"c:1-{bases}"), "theirs": ("--vcf", folder / "in.vcf")}
        least = measure_command([*run, folder / "x.tsv", "--all-snvs", "--region", "c:1-10"], folder).cpu_seconds
        for windows, suffix in (("centred", ".parquet"), ("centred", ".vcf.gz"), ("shared", ".parquet")):
            outputs = {one: folder / f"{one}{suffix}" for one in sources}
            commands = ([*run, outputs[one], "--windows", windows, *words] for one, words in sources.items())
            seconds = [measure_command(command, folder).cpu_seconds - least for command in commands]
            rows.append((f"{windows}, {suffix}", *(f"{one:.1f}" for one in seconds), f"{seconds[1] / seconds[0]:.2f}"))
            if suffix == ".parquet":
                one, other = (pl.read_parquet(path)["LLR"] for path in outputs.values())
                print(f"{windows}: {len(one):,} SNVs, whose LLR differ by at most {(one - other).abs().max():.1e}")
        print_table((f"{bases:,} bases", "all SNVs, CPU s", "VCF, CPU s", "times"), rows)
        commands = {n: [*run, folder / "x.parquet", "--all-snvs", "--region", f"c:1-{n}"] for n in arguments.memory}
        peaks = {n: measure_command(command, folder).peak_memory / 2**20 for n, command in commands.items()}
        print_table(("bases", "peak MiB"), [(f"{n:,}", f"{peak:.0f}") for n, peak in peaks.items()])


if __name__ == "__main__":
    run_script(main)
