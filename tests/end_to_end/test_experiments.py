"""The numbers in the documentation are those of the published results."""

import re
from pathlib import Path

import numpy as np
import pytest

from mutbert.evaluation.cells import cell_of, label_of
from mutbert.evaluation.run import read_predictions, read_records
from mutbert.scoring.resampling import TaskScores, interval

RESULTS = Path(__file__).parents[2] / "experiments" / "gue_tf" / "results"
HEADING = r"## Does pre-training help to find binding sites\?"
CELL = re.compile(r"([-+]?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]")


def tables(section):
    """Return the values of the two tables: by model, task and protocol; by two models and protocol."""
    for names, block in zip((1, 2), re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE), strict=True):
        rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines()]
        columns = [column.replace("difference, ", "").split() for column in rows[0]]
        yield {
            (*row[:names], *columns[at]): tuple(map(float, CELL.match(row[at].replace("*", "")).groups()))
            for row in rows[2:]
            for at in range(names, len(row))
        }


def test_the_tables_of_binding_sites_show_the_results(read_page):
    shown, differences = tables(read_page("docs/experiments.md", HEADING))
    seeds = {}
    for cell in map(cell_of, read_records(RESULTS)):
        seeds.setdefault((label_of(cell.model, cell.method), cell.task, cell.protocol), []).append(
            read_predictions(RESULTS, cell)
        )
    assert shown.keys() == seeds.keys()
    for key, found in seeds.items():
        assert len(found) == (1 if key[0] == "kmer" else 5), key
        expected = interval([TaskScores("binary", "mcc", found[0][0], [scores for _, scores in found])])
        assert shown[key] == pytest.approx(expected, abs=0.0006), key
    for (first, second, protocol), (difference, *_) in differences.items():
        averages = [np.mean([shown[model, task, protocol][0] for task in "012"]) for model in (first, second)]
        assert difference == pytest.approx(averages[0] - averages[1], abs=0.0011)
