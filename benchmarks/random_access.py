"""Measure how many random windows per second one core reads from a genome.

    python benchmarks/random_access.py NAME.genome

A window here is what a training batch needs: token ids of its bases, and the sparse rows of its variants. Windows lie
anywhere, also where the reference is N, and are drawn before the clock starts. Three ways of reading them:

- cold: in batches, once, after the system was asked to forget the store's pages (a network disk or a virtual
  machine's host may still hold them);
- one by one: `ProbabilisticGenome.frequencies`, which returns a dense distribution instead;
- in batches: `ProbabilisticGenome.windows`, and ids through the table of `mutbert.alphabet`.

The last two run after every page was read, and take turns; best and median of the rounds are reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from measure import describe_machine, machine_text, run_script
from mutbert import ProbabilisticGenome, alphabet
from mutbert.cli.command import print_table
from mutbert.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable


class Places(NamedTuple):
    """Positions of windows: index of the contig and 0-based start, each of shape (B,)."""

    contig_B: npt.NDArray[np.int64]
    start_B: npt.NDArray[np.int64]


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("genome", type=Path, metavar="GENOME", help="made by 'mutbert genome build'")
    parser.add_argument("--windows", type=int, default=1_000_000, help="different windows (%(default)s)")
    parser.add_argument("--length", type=int, default=510, help="bases per window (%(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024, 4096], help="windows a batch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="longest round of one way (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", "-o", type=Path, help="the figures as JSON")
    arguments = parser.parse_args()
    machine = describe_machine()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    genome = ProbabilisticGenome.open(arguments.genome)
    forget_pages(arguments.genome)
    places = draw_places(genome, arguments.windows, arguments.length, arguments.seed)
    largest = max(arguments.batch)
    cold = rate(lambda first, last: read_batch(genome, places, first, last, arguments.length), places, largest, 2)
    touch_pages(arguments.genome)
    check(genome, places, arguments.length)

    def one_by_one(first: int, last: int) -> None:
        for index in range(first, last):
            read_one(genome, places, index, arguments.length)

    def in_batches(first: int, last: int) -> None:
        read_batch(genome, places, first, last, arguments.length)

    ways: dict[str, tuple[Callable[[int, int], None], int]] = {"one by one": (one_by_one, 64)}
    ways |= {f"in batches of {size:,}": (in_batches, size) for size in arguments.batch}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, (read, size) in ways.items():
            rates[name].append(rate(read, places, size, arguments.seconds))

    plain = max(rates["one by one"])
    rows = [(f"cold, in batches of {largest:,}", f"{cold:,.0f}", "", f"{cold / plain:.2f}")]
    rows += [
        (name, f"{max(each):,.0f}", f"{statistics.median(each):,.0f}", f"{max(each) / plain:.2f}")
        for name, each in rates.items()
    ]
    variants = sum(last - first for first, last in (contig.variants for contig in genome.contigs.values()))
    print(f"{arguments.genome}: {sum(genome.lengths.values()):,} bases, {variants:,} variants")
    print(f"windows of {arguments.length} bases per second, on one core; {machine_text(machine)}\n")
    print_table(("way", "best", "median", "× one by one"), rows)
    if arguments.output:
        figures = {"machine": machine, "length": arguments.length, "cold": cold, "warm": rates}
        write_json(arguments.output, figures, force=True)


def forget_pages(store: Path) -> None:
    """Ask the system to drop a store's files from its cache."""
    if hasattr(os, "posix_fadvise"):
        for path in store.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def touch_pages(store: Path) -> None:
    """Read a store's files once, so that they are in the page cache if memory allows."""
    for path in store.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def draw_places(genome: ProbabilisticGenome, count: int, length: int, seed: int) -> Places:
    """Return random windows, every start in the genome equally likely."""
    random = np.random.default_rng(seed)
    starts = np.maximum(np.array(list(genome.lengths.values())) - length + 1, 0)
    contig_B = random.choice(len(starts), size=count, p=starts / starts.sum())
    return Places(contig_B, random.integers(0, starts[contig_B]))


def read_batch(
    genome: ProbabilisticGenome, places: Places, first: int, last: int, length: int
) -> npt.NDArray[np.int64]:
    """Return the token ids of consecutive windows of the draw; the variants' rows need no conversion."""
    windows = genome.windows(places.contig_B[first:last], places.start_B[first:last], length)
    return alphabet.TOKEN_ID_OF_CODE[windows.base_BL]


def read_one(genome: ProbabilisticGenome, places: Places, index: int, length: int) -> npt.NDArray[np.float32]:
    """Return one window of the draw."""
    start = int(places.start_B[index])
    return genome.frequencies(list(genome.contigs)[places.contig_B[index]], start, start + length)


def check(genome: ProbabilisticGenome, places: Places, length: int, count: int = 100) -> None:
    """Stop if the two ways differ."""
    windows = genome.windows(places.contig_B[:count], places.start_B[:count], length)
    for index, dense in enumerate(windows.distributions()):
        np.testing.assert_array_equal(dense, read_one(genome, places, index, length))


def rate(read: Callable[[int, int], object], places: Places, size: int, seconds: float) -> float:
    """Return windows per second over the draw, or over as much of it as the time allows."""
    total = len(places.start_B)
    done = 0
    start = time.perf_counter()
    while done < total and time.perf_counter() - start < seconds:
        read(done, min(done + size, total))
        done = min(done + size, total)
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    run_script(main)
