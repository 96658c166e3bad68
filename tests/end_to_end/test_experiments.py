"""The numbers in the documentation are those of the published results."""

import re
from pathlib import Path

import numpy as np
import pytest

from mutbert.evaluation.results import cell_of, read_predictions, read_records
from mutbert.scoring.resampling import bootstrap_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "gue_tf" / "results"
HEADING = "## Does pre-training help to find binding sites?"
CELL = re.compile(r"([-+]?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]")


def tables():
    """Return the values of the two tables: by model, task and protocol; by two models and protocol."""
    section = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    found = []
    for names, block in zip((1, 2), re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE), strict=True):
        rows = [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in block.splitlines()]
        header, _, *body = rows
        values = {}
        for row in body:
            for column, cell in zip(header[names:], row[names:], strict=True):
                words = column.replace("difference, ", "").split()
                values[*row[:names], *words] = tuple(map(float, CELL.match(cell).groups()))
        found.append(values)
    return found


def test_the_tables_of_binding_sites_show_the_results():
    seeds = {}
    for cell in map(cell_of, read_records(RESULTS)):
        seeds.setdefault((cell.label, cell.task, cell.protocol), []).append(cell)
    shown, differences = tables()
    assert shown.keys() == seeds.keys()
    values = {}
    for key, cells in seeds.items():
        predictions = [read_predictions(RESULTS, cell) for cell in cells]
        scores = [scores for _, scores in predictions]
        found = bootstrap_interval("binary", "mcc", predictions[0][0], scores)
        assert shown[key] == pytest.approx(found, abs=0.0006), key
        assert len(cells) == (1 if key[0] == "kmer" else 5), key
        values[key] = found[0]
    models, protocols = {key[0] for key in values}, ("corrected", "published")
    average = {(m, p): np.mean([values[m, task, p] for task in "012"]) for m in models for p in protocols}
    assert len(differences) == len(models) * (len(models) - 1)
    for (first, second, protocol), (difference, low, high) in differences.items():
        assert difference == pytest.approx(average[first, protocol] - average[second, protocol], abs=0.0006)
        assert low < difference < high
