"""Measure ``mutbert score --all-snvs`` against ``mutbert score`` on a VCF of all SNVs, and its memory.

    python benchmarks/all_snvs.py

The genome and the tiny model of `score_memory`. Each command is a fresh process; `times` is processor time of the VCF's
by that of ours, both without that of a command for ten positions, which is mostly imports.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from measure import describe_machine, machine_text, measure_command, run_script
from mutbert import alphabet
from mutbert.cli.command import print_table
from score_memory import HEADER, SPACING, make_inputs

if TYPE_CHECKING:
    from measure import Measurement

WAYS: Final = {"centred, .parquet": ("centred", ".parquet"), "centred, .vcf.gz": ("centred", ".vcf.gz"),
               "shared, .parquet": ("shared", ".parquet")}  # fmt: skip


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bases", type=int, default=1_000_000, help="of the comparison (%(default)s)")
    parser.add_argument("--memory", type=int, nargs="*", default=[100_000, 1_000_000, 5_000_000], help="(%(default)s)")
    arguments = parser.parse_args()
    print(machine_text(describe_machine(("torch", "polars", "numpy"))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, max(arguments.bases, *arguments.memory) // SPACING)
        run = [sys.executable, "-m", "mutbert", "score", "--model", folder / "model", "--genome", folder / "x.genome",
               "--strands", "forward", "--batch-size", "512", "--force"]  # fmt: skip

        def ours(bases: int, *words: object) -> Measurement:
            return measure_command([*run, "--all-snvs", "--region", f"c:1-{bases}", *words], folder)

        code_L, letters = np.load(folder / "codes.npy"), alphabet.BASES
        with (folder / "in.vcf").open("w", encoding="ascii") as file:
            file.write(HEADER.format(len(code_L)))
            for at, ref in enumerate(letters[code] for code in code_L[: arguments.bases]):
                file.writelines(f"c\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n" for alt in letters if alt != ref)
        least, rows = ours(10, "-o", folder / "x.parquet").cpu_seconds, []
        for way, (windows, suffix) in WAYS.items():
            how = [("--windows", windows, "-o", folder / f"{one}{suffix}") for one in ("ours", "theirs")]
            took = ours(arguments.bases, *how[0]), measure_command([*run, "--vcf", folder / "in.vcf", *how[1]], folder)
            seconds = [one.cpu_seconds - least for one in took]
            rows.append((way, *(f"{one:.1f}" for one in seconds), f"{seconds[1] / seconds[0]:.2f}"))
            if suffix == ".parquet":
                one, other = (pl.read_parquet(folder / f"{name}.parquet")["LLR"] for name in ("ours", "theirs"))
                print(f"{way}: {len(one):,} SNVs, LLR differ by at most {(one - other).abs().max():.1e}")
        print_table((f"{arguments.bases:,} bases", "all SNVs, s", "VCF, s", "times"), rows)
        peaks = [ours(bases, "-o", folder / "x.parquet").peak_memory / 2**20 for bases in arguments.memory]
        print_table(
            ("bases", "peak MiB"), [(f"{n:,}", f"{m:.0f}") for n, m in zip(arguments.memory, peaks, strict=True)]
        )


if __name__ == "__main__":
    run_script(main)
