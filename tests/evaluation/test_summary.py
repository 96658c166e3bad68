"""From results to what a report says: against the scoring functions, by hand, and the program as people use it."""

import itertools
import json
import math
import re
import sys

import numpy as np
import polars as pl
import pytest

from mutbert import report_benchmark
from mutbert.cli.main import run as program
from mutbert.errors import InputError
from mutbert.evaluation.cells import Cell
from mutbert.evaluation.run import read_records, write_cell
from mutbert.evaluation.suites import load_suite
from mutbert.evaluation.summary import costs_of
from mutbert.reports.benchmark import FILES
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.resampling import holm

RESAMPLES = 100
THREE = """\
version: 1
name: own
title: Three tasks
metric: mcc
files: ["{task}/{split}.csv"]
tasks:
  - {name: z, length: 9}
  - {name: a, length: 9}
  - {name: m, length: 9}
protocols: {published: {seeds: 1}, corrected: {seeds: 3}}
paper:
  - {model: Good-86M, name: good, value: 0.75, parameters: 86}
"""
TASKS = ("z", "a", "m")
ROWS = {"z": 120, "a": 90, "m": 60}
SKILL = {"good": 3.0, "weak": 0.1}  # how much of the answer a model knows


def labels_of(task):
    return np.random.default_rng(TASKS.index(task)).integers(2, size=ROWS[task])


def scores_of(cell):
    chance = np.random.default_rng([cell.seed, *map(ord, "".join(cell[:5]))])
    labels, skill = labels_of(cell.task), SKILL.get(cell.model, 0.05 * sum(map(ord, cell.model[1:])) / 50)
    return (chance.normal(size=len(labels)) + skill * (2 * labels - 1)).astype(np.float32)


def cell_for(model, task, seed):
    return Cell("own", task, model, "" if model == "kmer" else "full", "corrected", seed)


class Made:
    """A results folder that is written by hand."""

    def __init__(self, folder):
        self.folder = folder / "results"
        (self.folder / "suites").mkdir(parents=True)
        (folder / "given.yaml").write_text(THREE)
        (self.folder / "suites" / "own.yaml").write_text(load_suite(folder / "given.yaml").as_yaml())

    def add(self, model, tasks=TASKS, *, seeds=(1, 2, 3), labels=None, **changes):
        for task, seed in itertools.product(tasks, seeds):
            cell = cell_for(model, task, seed)
            scores, known = scores_of(cell), labels_of(task) if labels is None else labels
            record = {
                "problem": "binary",
                "metric": "mcc",
                "metrics": evaluate("binary", labels_of(task), scores, ["mcc"]) | {"auroc": math.nan},
                "parameters": None if model == "kmer" else 1000,
                "note": "",
                "splits": [
                    {"split": "test", "examples": 10, "duplicates": 1, "in_train": 2, "dropped": 0, "sha256": task}
                ],
                "identity": {"data": task, "model": model, "settings": {"a": 1}},
                "cost": {"seconds": 2.0, "peak_memory": 100 * seed, "tokens_per_second": 10.0 * seed},
                "versions": {"python": "3", "mutbert": "1"},
                "commit": "abc",
            }
            cell.path(self.folder).parent.mkdir(parents=True, exist_ok=True)
            write_cell(self.folder, cell, record | changes, known, scores[: len(known)])

    def fail(self, cell):
        cell.path(self.folder).parent.mkdir(parents=True, exist_ok=True)
        write_cell(self.folder, cell, {"reason": "no memory"})

    def summary(self):
        return report_benchmark(self.folder, resamples=RESAMPLES)[0]


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_baselines_come_first_and_tasks_in_the_order_of_the_suite(made):
    """The values themselves are among the frozen answers."""
    models = ("kmer", "cnn", "good", "weak")
    for model in reversed(models):
        made.add(model, seeds=(1,) if model == "kmer" else (2, 1, 3))
    report = made.summary()
    assert report.scores.select("model", "task").rows() == list(itertools.product(models, TASKS))
    assert [len(values) for values in report.scores["per_seed"]] == [1] * 3 + [3] * 9
    columns = report.averages.select("model", "tasks", "of_tasks", "parameters", "published")
    assert columns.rows()[::2] == [("kmer", 3, 3, None, None), ("good", 3, 3, 1000, 0.75)]
    assert report.paper.select("model", "value", "metric").rows() == [("Good-86M", 0.75, "mcc")]
    # Whatever is compared with a baseline comes first.
    pairs = [(two, one) for one, two in itertools.combinations(("kmer", "cnn (full)", "good (full)", "weak (full)"), 2)]
    whole = report.comparisons.filter(pl.col("task") == "")
    assert whole.select("first", "second").rows() == pairs
    assert whole["adjusted_p"].to_list() == holm(whole["p_value"].to_list())
    assert len(report.comparisons) == 6 + 18


def test_a_model_that_is_not_through_has_fewer_tasks_and_is_compared_on_those(made):
    made.add("kmer", seeds=(1,))
    made.add("good", ("a", "z"))
    made.add("weak", ("m",))
    report = made.summary()
    assert report.averages.select("model", "tasks").rows() == [("kmer", 3), ("good", 2), ("weak", 1)]
    assert "<td>&quot;good&quot;</td>" in report._repr_html_()
    assert set(report.comparisons.select("first", "second", "task").rows()) == {
        ("good (full)", "kmer", "2 of 3 tasks"),
        ("good (full)", "kmer", "z"),
        ("good (full)", "kmer", "a"),
        ("weak (full)", "kmer", "m"),
    }


def test_of_many_models_all_are_compared_with_the_best_and_the_baselines(made):
    others = [f"m{number}" for number in range(5)]
    for model in ("kmer", "good", *others):
        made.add(model, ("a",), seeds=(1,))
    comparisons = made.summary().comparisons
    assert {frozenset(pair) for pair in comparisons.select("first", "second").rows()} == {
        frozenset(("kmer", "good (full)")),
        *(frozenset((f"{model} (full)", other)) for model in others for other in ("kmer", "good (full)")),
    }
    # On one task there is nothing to average.
    assert set(comparisons["task"]) == {"a"}


def test_a_mean_over_different_metrics_is_none(made):
    made.add("good", ("a",))
    made.add("good", ("z",), metric="auroc")
    made.add("weak", ("z", "a"), metric="auroc")
    report = made.summary()
    assert report.averages["model"].to_list() == ["weak"]
    assert report.scores["metric"].to_list() == ["auroc", "mcc", "auroc", "auroc"]


OTHER_FILE = [{"split": "test", "examples": 10, "duplicates": 1, "in_train": 2, "dropped": 0, "sha256": "another"}]


@pytest.mark.parametrize(
    ("model", "seed", "changes", "what"),
    [
        ("weak", 1, {"labels": 1 - labels_of("a")}, "test rows"),
        ("weak", 1, {"splits": OTHER_FILE}, "test rows"),
        ("good", 3, {"identity": {"data": "b"}}, "data"),
    ],
)
def test_what_cannot_be_compared_is_an_error(made, model, seed, changes, what):
    made.add("good", ("a",), seeds=(1, 2))
    made.add(model, ("a",), seeds=(seed,), **changes)
    with pytest.raises(InputError, match=rf"own/a, good \(full\), .* own/a, {model} .*with different {what}; remove"):
        made.summary()


def test_settings_may_differ_by_task_and_a_model_may_not(made):
    for number, task in enumerate("az"):
        made.add("good", (task,), identity={"settings": {"a": number}, "model": "one"})
    assert len(made.summary().scores) == 2
    made.add("good", ("m",), identity={"model": "other"})
    with pytest.raises(InputError, match=r"own/a, good .* and own/m, good .* with different model"):
        made.summary()


def test_notes_failures_costs_data_and_facts(made):
    made.add("good", ("a", "z"), note="own: no benchmark")
    made.add("kmer", ("a", "z"), seeds=(1,))
    made.fail(cell_for("good", "m", 1))
    made.fail(cell_for("broken", "a", 1))
    # As a process leaves it that is killed while it writes.
    (made.folder / "suites" / ".own.partial.yaml").write_text("version: 1\nname: ow")
    report = made.summary()
    assert report.notes[0] == "own: no benchmark"
    assert report.notes[1].startswith("own: cnn was not run")
    assert report.failures.select("task", "model", "seed", "reason").rows() == [
        ("a", "broken", 1, "no memory"), ("m", "good", 1, "no memory")
    ]  # fmt: skip
    names = ("model", "cells", "failed", "seconds", "tokens_per_second", "peak_memory")
    assert costs_of(read_records(made.folder)).select(names).rows() == [
        ("kmer", 2, 0, 4.0, 10.0, 100.0), ("broken", 0, 1, 0.0, None, None), ("good", 6, 1, 12.0, 20.0, 300.0)
    ]  # fmt: skip
    # A task's data are listed once, whoever was tested on them.
    assert report.splits.select("task", "split", "sha256").rows() == [("a", "test", "a"), ("z", "test", "z")]
    assert report.facts.items() >= {"cells": "8 done", "versions": "python 3, mutbert 1", "commit": "abc"}.items()


def test_a_report_is_all_of_its_files(made, tmp_path):
    for folder in (tmp_path / "nothing", made.folder):
        with pytest.raises(InputError, match="has no results; run 'mutbert bench run"):
            report_benchmark(folder)
    made.fail(cell_for("good", "m", 1))
    report, (page, *_) = report_benchmark(made.folder, resamples=RESAMPLES)
    assert (len(report.scores), len(report.averages), len(report.failures)) == (0, 0, 1)
    assert "no memory" in page.read_text()
    made.add("good", ("a",), labels=np.ones(90, np.int64), metric="auroc")
    made.add("kmer", ("m", "z"), seeds=(1,))
    # One's own is replaced; another folder's only where that is said.
    files, other = report_benchmark(made.folder, resamples=RESAMPLES)[1], tmp_path / "deep" / "other"
    assert [path.relative_to(made.folder).name for path in files] == list(FILES)
    assert "not a number" in files[0].read_text()
    report_benchmark(made.folder, other, resamples=RESAMPLES)
    with pytest.raises(InputError, match="exists already"):
        report_benchmark(made.folder, other, resamples=RESAMPLES)
    report_benchmark(made.folder, other, resamples=RESAMPLES, force=True)
    assert [(other / path.name).read_bytes() for path in files] == [path.read_bytes() for path in files]
    (made.folder / "suites" / "own.yaml").unlink()
    with pytest.raises(InputError, match=r"own\.yaml: is missing, though there are results of it"):
        report_benchmark(made.folder)


@pytest.fixture
def mutbert(monkeypatch, capsys):
    """Run the program in this process: status, standard output, and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mutbert", "bench", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            program()
        output = capsys.readouterr()
        return caught.value.code or 0, output.out, output.err

    return call


def test_the_program_runs_and_reports(mutbert, suite, model_folders):
    results, data = suite.parent / "results", suite.parent / "data"
    common = ["-o", results, "--suite", suite, "--data", data, "--task", "first", "--protocol", "corrected", "--set",
              "finetune.max_steps=1", "--method", "probe"]  # fmt: skip
    small = f"small={model_folders['mutbert']}"
    # A cell of the grid by itself, which the grid then finds.
    assert mutbert("cell", *common, "--model", small, "--seed", "1")[0] == 0
    assert (results / "own" / "first" / "small-probe" / "corrected-1.parquet").is_file()
    run = ["run", *common, "--seeds", "1", "--model", small]
    status, out, _ = mutbert(*run)
    assert (status, "done: 2" in out, "before: 1" in out, "small" in out) == (0, True, True, True)
    # A model that cannot be loaded fails its cells, with the reason; the rest is done.
    status, out, err = mutbert(*run, "--model", "gone=/nowhere/at/all")
    assert (status, "failed: 1" in out) == (1, True)
    assert re.search("mutbert: 1 failed: .*/nowhere/at/all", err)
    status, out, _ = mutbert("report", results, "-o", suite.parent / "shown", "--resamples", "100", "--json")
    assert (status, json.loads(out)["files"]) == (0, [str(suite.parent / "shown" / name) for name in FILES])
