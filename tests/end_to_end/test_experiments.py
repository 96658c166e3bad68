"""The numbers in the docs are those of the results that lie beside them."""

import re
from pathlib import Path

import pytest

from mutbert.evaluation.results import read_predictions, read_results
from mutbert.scoring.resampling import bootstrap_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "gue_tf" / "results"
HEADING = "## Does pre-training help to find binding sites?"
CELL = re.compile(r"(-?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]")


def table():
    """Of each model, task and protocol the value and its interval, as the docs have them."""
    section = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = [
        [cell.strip().replace("*", "") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    header, _, *body = rows
    return {
        (model, *column.split()): tuple(map(float, CELL.fullmatch(cell).groups()))
        for model, *cells in body
        for column, cell in zip(header[1:], cells, strict=True)
    }


def test_the_table_of_binding_sites_is_what_its_results_say():
    seeds = {}
    for cell in sorted(read_results(RESULTS), key=lambda cell: cell.seed):
        name = f"{cell.model} ({cell.method})" if cell.method else cell.model
        seeds.setdefault((name, cell.task, cell.protocol), []).append(cell)
    said = table()
    assert said.keys() == seeds.keys()
    for key, cells in seeds.items():
        predictions = [read_predictions(RESULTS, cell) for cell in cells]
        scores = [entry.scores for entry in predictions]
        found = bootstrap_interval("binary", "mcc", predictions[0].labels, scores)
        assert said[key] == pytest.approx(found, abs=0.0006), key
