"""Build a genome against a bare read of its VCF, and against the way it is published, all in one run.

    python benchmarks/genome.py --output DIR

The population is simulated (``mutbert simulate``) unless files are given. Every contender is a fresh process that
starts from the files and ends with its result on the disk, and they take turns, so that a slower moment of the machine
meets all of them. The files are read once before, so that all find them in the system's cache.

- htslib loop: what every reader has to do, ``for record in pysam.VariantFile(vcf, drop_samples=True): pass``
- bgzip: decompression alone, ``bgzip -dc``
- bcftools + NumPy: the published preparation, see ``bcftools_numpy.py``; its frequencies are compared with ours
- mutbert: ``mutbert genome build``, with one worker and two; with every SNV kept; with frequencies counted from
  genotypes

Figures are ratios to the first of them, from the best of the repeats; medians are in the JSON. Results are
``genome.json``, ``genome.svg`` and ``genome.png`` in the output folder.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pysam

from bcftools_numpy import read_sites
from measure import Measurement, describe_machine, machine_text, measure_command, run_script
from mutbert import ProbabilisticGenome
from mutbert.cli.command import print_table
from mutbert.files import atomic_file, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

MUTBERT: Final = (sys.executable, "-m", "mutbert")
LOOP: Final = (
    "import sys, pysam\nwith pysam.VariantFile(sys.argv[1], drop_samples=True) as file:\n    for record in file: pass"
)
BASELINE: Final = "htslib loop"
BUILD: Final = "mutbert"
PUBLISHED: Final = "bcftools + NumPy"
# The published matrices have AF with six digits in float32, our rows units of 1/65535.
TOLERANCE: Final = 2e-5


class Contender(NamedTuple):
    """A contender, with the reason if it is left out."""

    name: str
    command: tuple[str | Path, ...]
    missing: str = ""


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder for results and all else")
    parser.add_argument("--length", type=int, default=5_000_000, help="bases of the population (%(default)s)")
    parser.add_argument("--samples", type=int, default=3202, help="its people (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--mutation-rate",
        type=float,
        default=2.08e-8,
        help="of the simulation (%(default)s, which gives the 22 records a kilobase of the 1000 Genomes' 3,202)",
    )
    parser.add_argument("--data", type=Path, help="a population that 'mutbert simulate' has written")
    parser.add_argument("--fasta", type=Path, help="real data, in place of a population")
    parser.add_argument("--vcf", type=Path, help="its variants")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every contender (%(default)s)")
    arguments = parser.parse_args()
    if (arguments.fasta is None) != (arguments.vcf is None):
        parser.error("give both --fasta and --vcf, or neither")

    arguments.output.mkdir(parents=True, exist_ok=True)
    fasta, vcf = find_data(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.output, prefix="work-") as work:
        contenders = list_contenders(fasta, vcf, Path(work))
        taken = measure(contenders, Path(work), arguments.repeats)
        checked = compare(Path(work)) if PUBLISHED in taken else None
        bases = sum(ProbabilisticGenome.open(Path(work) / BUILD / "x.genome").lengths.values())
    machine = describe_machine()
    rows = summarise(taken, bases)
    print(f"{fasta.name}, {vcf.name}: {bases:,} bases, {vcf.stat().st_size:,} bytes of VCF; {machine_text(machine)}")
    print(f"best of {arguments.repeats}\n")
    missing = {contender.name: contender.missing for contender in contenders if contender.missing}
    print_rows(rows, missing)
    if checked:
        print(
            f"\n{PUBLISHED} and {BUILD} are equal at {checked['equal']:,} positions that vary. "
            f"{checked['only_ours']:,} more are right in {BUILD} alone, as most have several alternate alleles; "
            f"{checked['only_published']:,} are in {PUBLISHED} alone."
        )
    results = {
        "machine": machine,
        "fasta": fasta.name,
        "vcf": {"name": vcf.name, "bytes": vcf.stat().st_size},
        "bases": bases,
        "contenders": rows,
        "left_out": missing,
        "comparison": checked,
    }
    write_json(arguments.output / "genome.json", results, force=True)
    draw(rows, arguments.output, f"{bases / 1e6:,.1f} Mb, {vcf.stat().st_size / 1e6:,.0f} MB of VCF")
    print(f"\n{arguments.output / 'genome.json'}, genome.svg, genome.png")


def find_data(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return FASTA and VCF, simulated if none are given, read once so that they are in the page cache."""
    if arguments.fasta:
        fasta, vcf = arguments.fasta, arguments.vcf
    else:
        size = f"{arguments.length}x{arguments.samples}-{arguments.seed}-{arguments.mutation_rate:g}"
        folder = arguments.data or arguments.output / f"population-{size}"
        if not folder.exists():
            options = {
                "-o": folder,
                "--length": arguments.length,
                "--samples": arguments.samples,
                "--seed": arguments.seed,
                "--mutation-rate": arguments.mutation_rate,
            }
            words = [str(word) for option in options.items() for word in option]
            subprocess.run([*MUTBERT, "simulate", *words], check=True, stdout=subprocess.DEVNULL)
        fasta, vcf = folder / "ref.fa", folder / "population.vcf.gz"
    for path in (fasta, vcf):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    return fasta, vcf


def list_contenders(fasta: Path, vcf: Path, work: Path) -> list[Contender]:
    """Return the contenders; each writes into its own folder under `work`."""
    words = subprocess.run(
        [*MUTBERT, "genome", "build", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
    ).stdout
    no_workers = "" if "--workers" in words else "this version builds with one worker"
    with pysam.VariantFile(str(vcf)) as file:
        no_genotypes = "" if len(file.header.samples) else f"{vcf.name} has no genotypes"
    if not re.search(r"\bGT\b", words):
        no_genotypes = "this version counts no genotypes"
    no_bcftools = "" if shutil.which("bcftools") else "bcftools is not installed"
    script = Path(__file__).with_name("bcftools_numpy.py")

    def published(name: str, *options: str) -> Contender:
        return Contender(name, (sys.executable, script, fasta, vcf, work / name, *options), no_bcftools)

    def build(name: str, *options: str, missing: str = "") -> Contender:
        command = (*MUTBERT, "genome", "build", "--fasta", fasta, "--vcf", vcf, "-o", work / name / "x.genome")
        return Contender(name, (*command, *options), missing)

    return [
        Contender(BASELINE, (sys.executable, "-c", LOOP, vcf)),
        Contender("bgzip -dc", ("bgzip", "-dc", vcf), "" if shutil.which("bgzip") else "bgzip is not installed"),
        published(PUBLISHED),
        published(f"{PUBLISHED}, no genotypes", "--no-genotypes"),
        build(BUILD),
        build(f"{BUILD}, 2 workers", "--workers", "2", missing=no_workers),
        build(f"{BUILD}, every SNV", "--min-frequency", "0"),
        build(f"{BUILD}, from genotypes", "--frequency-field", "GT", missing=no_genotypes),
        build(
            f"{BUILD}, from genotypes, 2 workers",
            *("--frequency-field", "GT", "--workers", "2"),
            missing=no_workers or no_genotypes,
        ),
    ]


def measure(contenders: Sequence[Contender], work: Path, repeats: int) -> dict[str, list[Measurement]]:
    """Let the contenders take turns, the first turn watched; the output of the last one stays in their folders."""
    taken: dict[str, list[Measurement]] = {one.name: [] for one in contenders if not one.missing}
    for turn in range(repeats + 1):
        for contender in contenders:
            if contender.missing:
                continue
            folder = work / contender.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            taken[contender.name].append(measure_command(contender.command, folder, watched=not turn))
            name = f"turn {turn} of {repeats}" if turn else "watched"
            print(f"{name}, {contender.name}: {taken[contender.name][-1].seconds:.2f} s", file=sys.stderr)
    return taken


def summarise(taken: dict[str, list[Measurement]], bases: int) -> list[dict[str, Any]]:
    """Return each contender's best and median, and its ratios to the bare loop and to our build.

    Time is of the turns that were not watched, memory and disk of the one that was.
    """
    seconds = {name: min(one.seconds for one in each[1:]) for name, each in taken.items()}
    return [
        {
            "name": name,
            "seconds": seconds[name],
            "median_seconds": statistics.median(one.seconds for one in each[1:]),
            "cpu_seconds": min(one.cpu_seconds for one in each[1:]),
            "times_loop": seconds[name] / seconds[BASELINE],
            "times_build": seconds[name] / seconds[BUILD],
            "peak_memory": each[0].peak_memory,
            "peak_disk": each[0].peak_disk,
            "final_disk": each[-1].final_disk,
            "bytes_per_base": each[-1].final_disk / bases,
        }
        for name, each in taken.items()
    ]


def compare(work: Path) -> dict[str, int]:
    """Compare our store with the published matrices; stop where they contradict each other.

    Both were made from the same files with the same minimum. The published way loses sites of several alternate
    alleles, or all but the commonest of these, which is no contradiction.
    """
    genome = ProbabilisticGenome.open(work / BUILD / "x.genome")
    table = read_sites(work / PUBLISHED / "sites.tsv")
    equal = only_ours = only_published = 0
    for name in genome.lengths:
        ours = genome.variants(name)
        matrix_L4 = np.load(work / PUBLISHED / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        published_V = np.isin(ours.position, [position for position, *_ in table.get(name, [])])
        close_V = np.abs(ours.frequency - matrix_L4[ours.position]).max(axis=1) < TOLERANCE
        several_V = (ours.frequency > 0).sum(axis=1) > 2
        wrong = np.flatnonzero(published_V & ~close_V & ~several_V)
        if len(wrong):
            raise SystemExit(f"{PUBLISHED} and {BUILD} contradict each other at {name}:{ours.position[wrong[0]] + 1}")
        equal += int((published_V & close_V).sum())
        only_ours += int((~published_V | ~close_V).sum())
        only_published += len(table.get(name, [])) - int(published_V.sum())
    return {"equal": equal, "only_ours": only_ours, "only_published": only_published}


def print_rows(rows: Sequence[dict[str, Any]], missing: dict[str, str]) -> None:
    """Print the figures as a table, and what was left out."""
    print_table(
        ("contender", "s", "× loop", "× build", "CPU s", "peak memory", "peak disk", "final disk", "B per base"),
        (
            (
                row["name"],
                f"{row['seconds']:.2f}",
                f"{row['times_loop']:.2f}",
                f"{row['times_build']:.2f}",
                f"{row['cpu_seconds']:.2f}",
                *(f"{row[key] / 1e6:,.1f} MB" for key in ("peak_memory", "peak_disk", "final_disk")),
                f"{row['bytes_per_base']:.3f}",
            )
            for row in rows
        ),
    )
    for name, why in missing.items():
        print(f"{name}: {why}")


def draw(rows: Sequence[dict[str, Any]], folder: Path, title: str) -> None:
    """Draw time, memory and disk of each contender as bars that bear their ratios, to ``genome.svg`` and ``.png``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "mutbert"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 0.8 + 0.42 * len(rows)), layout="constrained")
        figure.suptitle(f"Building a probabilistic genome: {title}")
        panels = figure.subplots(1, 3, sharey=True)
        times = [f"{row['seconds']:.2f} s, {row['times_loop']:.2f}×" for row in rows]
        memory = [f"{row['peak_memory'] / 1e6:,.0f} MB" for row in rows]
        disk = [
            f"{row['peak_disk'] / 1e6:,.1f} MB, {row['bytes_per_base']:.2f} B per base" if row["peak_disk"] else ""
            for row in rows
        ]
        for axes, label, key, texts in (
            (panels[0], "time, s and × htslib loop", "seconds", times),
            (panels[1], "peak memory, MB", "peak_memory", memory),
            (panels[2], "peak disk, MB, and final size", "peak_disk", disk),
        ):
            scale = 1 if key == "seconds" else 1e6
            values = [row[key] / scale for row in rows]
            # Okabe and Ito's palette: ours, and the others.
            colours = ["#0072B2" if row["name"].startswith(BUILD) else "#BBBBBB" for row in rows]
            bars = axes.barh([row["name"] for row in rows], values, color=colours, height=0.7)
            axes.bar_label(bars, texts, padding=3)
            axes.set_xlabel(label)
            # Room for the text behind the longest bar.
            axes.set_xlim(0, 1.9 * max(values) or 1)
        panels[0].invert_yaxis()
        for suffix in ("svg", "png"):
            with atomic_file(folder / f"genome.{suffix}", force=True) as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)


if __name__ == "__main__":
    run_script(main)
