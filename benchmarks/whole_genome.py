"""Build a genome of any size with one worker and with two, against a bare read of its VCF, in one run.

    python benchmarks/whole_genome.py runs/synthetic -o runs/whole

The first folder is the output of ``synthetic_genome.py``. Each contender is a fresh process that is watched:
time, and memory of all its processes together. The last one's store is left as ``store/x.genome`` in the output folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from genome import BASELINE, LOOP, MUTBERT
from measure import describe_machine, machine_text, measure_command, run_script
from mutbert.cli.command import print_table
from mutbert.files import write_json


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder with ref.fa and sites.vcf.gz")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder for results and stores")
    parser.add_argument("--min-frequency", default="0")
    arguments = parser.parse_args()
    fasta, vcf = arguments.data / "ref.fa", arguments.data / "sites.vcf.gz"
    for path in (fasta, vcf):
        # So that all find it in the system's cache, as far as that has room.
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    store = arguments.output / "store" / "x.genome"
    build = [*MUTBERT, "genome", "build", "--fasta", fasta, "--vcf", vcf, "-o", store]
    build += ["--min-frequency", arguments.min_frequency]
    contenders = {
        BASELINE: [sys.executable, "-c", LOOP, vcf],
        "one worker": [*build, "--workers", "1"],
        "two workers": [*build, "--workers", "2"],
    }
    rows = []
    for name, command in contenders.items():
        shutil.rmtree(store.parent, ignore_errors=True)
        store.parent.mkdir(parents=True)
        taken = measure_command(command, store.parent)
        rows.append({"name": name, **taken._asdict()})
        print(f"{name}: {taken.seconds:.1f} s", file=sys.stderr)
    machine = describe_machine()
    write_json(arguments.output / "whole_genome.json", {"machine": machine, "contenders": rows}, force=True)
    print(machine_text(machine))
    print_table(
        ("contender", "s", "× loop", "CPU s", "peak memory", "peak disk", "final disk"),
        (
            (
                row["name"],
                f"{row['seconds']:.1f}",
                f"{row['seconds'] / rows[0]['seconds']:.2f}",
                f"{row['cpu_seconds']:.1f}",
                *(f"{row[key] / 1e6:,.1f} MB" for key in ("peak_memory", "peak_disk", "final_disk")),
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    run_script(main)
