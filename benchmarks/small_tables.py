"""Compare fine-tuning by the defaults with the linear probe on ten small tables, as people have them.

    python benchmarks/small_tables.py --model experiments/gue_tf/model

Sequences have the composition and the motifs of their class or number, and mixed lengths; a tenth of the motifs is
missing. Tables have 100 to 2,000 rows, 2 to 5 classes, the rarest from 5%, or numbers of any scale. The metric is
MCC, or Pearson's correlation, on 400 more sequences.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from measure import run_script
from mutbert import finetune
from mutbert.cli.command import print_table
from mutbert.training.recipe import FinetuneRecipe

TEST_ROWS = 400


class Table(NamedTuple):
    """What a table is like: the shares of its classes, or none for numbers of a scale and offset."""

    rows: int
    shares: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0


TABLES = (
    Table(100, (0.5, 0.5)), Table(160, (0.9, 0.1)), Table(340, (0.4, 0.35, 0.25)), Table(400, (0.95, 0.05)),
    Table(600, (0.3, 0.3, 0.2, 0.2)), Table(1000, (0.4, 0.3, 0.15, 0.1, 0.05)), Table(2000, (0.5, 0.5)),
    Table(120, (), 68, 706), Table(500, (), 1e-4), Table(1500, (), 1e5, -3e5),
)  # fmt: skip


def main() -> None:
    """Read the command line, fine-tune, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="experiments/gue_tf/model", help="the model to start from (%(default)s)")
    parser.add_argument("--tables", type=int, default=len(TABLES), help="how many of the ten (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the tables (%(default)s)")
    arguments = parser.parse_args()
    lines, differences = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, table in enumerate(TABLES[: arguments.tables]):
            train, test = (Path(folder) / f"{number}_{part}.csv" for part in ("train", "test"))
            write_tables(table, np.random.default_rng([arguments.seed, number]), train, test)
            found = [reached(arguments.model, train, test, method) for method in ("full", "probe")]
            differences.append(found[0] - found[1])
            kind = f"{len(table.shares)} classes, {min(table.shares):.0%}" if table.shares else f"± {table.scale:g}"
            lines.append((f"{table.rows:,} rows, {kind}", *(f"{value:.3f}" for value in (*found, differences[-1]))))
    lines.append(("mean", "", "", f"{np.mean(differences):.3f}"))
    print_table(("table", "defaults", "probe", "difference"), lines)


def reached(model: str, train: Path, test: Path, method: str) -> float:
    """Return the metric on the test data."""
    settings: Any = {"method": method}
    recipe = FinetuneRecipe(
        model=model, train=str(train), test=str(test), output=f"{train}-{method}", finetune=settings
    )
    with contextlib.redirect_stderr(io.StringIO()):
        metrics = finetune(recipe).metrics
    return float(metrics["metrics"]["test"][metrics["metric"]] or 0)


def write_tables(table: Table, rng: np.random.Generator, train: Path, test: Path) -> None:
    """Write training and test data."""
    motifs = ["".join(rng.choice(list("ACGT"), 7)) for _ in range(max(len(table.shares), 1))]
    for path, rows in ((train, table.rows), (test, TEST_ROWS)):
        lines = ["sequence,label"]
        for row in range(rows):
            if table.shares:
                # Every class as often as its share says, in the test data too.
                label = int(np.searchsorted(np.cumsum(table.shares), (row + 0.5) / rows))
                gc, copies, name = 0.38 + 0.2 * label / (len(table.shares) - 1), rng.random() < 0.9, str(label)
            else:
                label, value = 0, rng.normal()
                gc, copies = 0.48 + 0.06 * value, rng.random() < 1 / (1 + np.exp(-value))
                name = f"{table.offset + table.scale * (value + 0.3 * rng.normal()):.6g}"
            length = int(rng.integers(30, 120))
            sequence = "".join(rng.choice(list("ACGT"), length, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]))
            at = int(rng.integers(length - 7))
            lines.append(f"{sequence[:at]}{motifs[label] if copies else ''}{sequence[at:]},{name}")
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_script(main)
