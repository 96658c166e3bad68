"""From results to what a report says: against the scoring functions, brute force, and the program as people use it."""

import itertools
import json
import re
import sys

import numpy as np
import polars as pl
import pytest

from mutbert import report_benchmark
from mutbert.cli.main import run as program
from mutbert.errors import InputError
from mutbert.evaluation.results import Cell, read_records, write_cell, write_failure
from mutbert.evaluation.suites import load_suite
from mutbert.evaluation.summary import costs_of, summarise
from mutbert.reports.benchmark import FILES
from mutbert.scoring import resampling
from mutbert.scoring.resampling import TaskScores

RESAMPLES = 200
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
  - {model: Other, name: other, value: 0.5, parameters: 7}
"""
TASKS = ("z", "a", "m")
ROWS = {"z": 120, "a": 90, "m": 60}
# How much of the answer a model knows.
SKILL = {"kmer": 0.8, "cnn": 0.4, "good": 3.0, "weak": 0.1}


def labels_of(task):
    return np.random.default_rng(TASKS.index(task)).integers(2, size=ROWS[task])


def scores_of(cell, skill):
    chance = np.random.default_rng([cell.seed, *map(ord, "".join(cell[:5]))])
    labels = labels_of(cell.task)
    return (chance.normal(size=len(labels)) + skill * (2 * labels - 1)).astype(np.float32)


def mcc(labels, scores):
    """Matthews' correlation, by counting."""
    guess = scores > 0
    tp, tn = (guess & (labels == 1)).sum(), (~guess & (labels == 0)).sum()
    fp, fn = (guess & (labels == 0)).sum(), (~guess & (labels == 1)).sum()
    return float((tp * tn - fp * fn) / np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))))


class Made:
    """A results folder that is written by hand."""

    def __init__(self, folder):
        self.folder = folder / "results"
        (self.folder / "suites").mkdir(parents=True)
        (folder / "given.yaml").write_text(THREE)
        (self.folder / "suites" / "own.yaml").write_text(load_suite(folder / "given.yaml").as_yaml())
        self.scores = {}

    def add(self, model, tasks=TASKS, *, method="full", protocol="corrected", seeds=(1, 2, 3), skill=None, labels=None,
            **changes):  # fmt: skip
        method = "" if model == "kmer" else method
        for task, seed in itertools.product(tasks, seeds):
            cell = Cell("own", task, model, method, protocol, seed)
            scores = scores_of(cell, SKILL.get(model, 1.0) if skill is None else skill)
            self.scores[cell] = scores
            known = labels_of(task) if labels is None else labels
            value = mcc(labels_of(task), scores)
            record = {
                "problem": "binary",
                "metric": "mcc",
                "metrics": {"mcc": value, "auroc": float("nan")},
                "parameters": None if cell.model == "kmer" else 1000,
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

    def fail(self, cell, reason="no memory"):
        cell.path(self.folder).parent.mkdir(parents=True, exist_ok=True)
        write_failure(self.folder, cell, reason)

    def part(self, task, model, seeds=(1, 2, 3)):
        method = "" if model == "kmer" else "full"
        return [self.scores[Cell("own", task, model, method, "corrected", seed)] for seed in seeds]


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def holm_by_hand(p_values):
    """Multiply the smallest by how many there are, the next by one less, and never fall below the one before."""
    adjusted, worst = {}, 0.0
    order = sorted(range(len(p_values)), key=lambda entry: p_values[entry])
    for rank, entry in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[entry]))
        adjusted[entry] = worst
    return [adjusted[entry] for entry in range(len(p_values))]


def test_values_and_intervals_are_those_of_the_scoring(made):
    for model in ("good", "kmer"):
        made.add(model, seeds=(1,) if model == "kmer" else (2, 1, 3))
    report = summarise(made.folder, resamples=RESAMPLES)
    # The baseline comes first, and tasks in the suite's order.
    assert report.scores.select("model", "task").rows() == [
        *(("kmer", task) for task in TASKS), *(("good", task) for task in TASKS)
    ]  # fmt: skip
    for score in report.scores.to_dicts():
        seeds = (1,) if score["model"] == "kmer" else (1, 2, 3)
        scores, labels = made.part(score["task"], score["model"], seeds), labels_of(score["task"])
        interval = resampling.interval([TaskScores("binary", "mcc", labels, scores)], resamples=RESAMPLES)
        assert (score["value"], score["low"], score["high"]) == tuple(interval)
        assert score["per_seed"] == pytest.approx([mcc(labels, entry) for entry in scores])
        assert score["value"] == pytest.approx(np.mean(score["per_seed"]))
        assert (score["metric"], score["protocol"]) == ("mcc", "corrected")
    for average, seeds in zip(report.averages.to_dicts(), ((1,), (1, 2, 3)), strict=True):
        parts = [("binary", "mcc", labels_of(task), made.part(task, average["model"], seeds)) for task in TASKS]
        interval = resampling.interval([TaskScores(*part) for part in parts], resamples=RESAMPLES)
        assert (average["value"], average["low"], average["high"]) == tuple(interval)
        assert average["value"] == pytest.approx(report.scores.filter(model=average["model"])["value"].mean())
    # The paper's number stands beside the model of that name.
    columns = report.averages.select("tasks", "of_tasks", "parameters", "published")
    assert columns.rows() == [(3, 3, None, None), (3, 3, 1000, 0.75)]
    assert report.paper.select("model", "value", "metric").rows() == [("Good-86M", 0.75, "mcc"), ("Other", 0.5, "mcc")]


def test_a_model_that_is_not_through_has_fewer_tasks_and_is_compared_on_those(made):
    made.add("kmer", seeds=(1,))
    made.add("good", ("a", "z"))
    made.add("weak", ("m",))
    report = summarise(made.folder, resamples=RESAMPLES)
    assert report.averages.select("model", "tasks", "of_tasks").rows() == [
        ("kmer", 3, 3), ("good", 2, 3), ("weak", 1, 3)
    ]  # fmt: skip
    assert set(report.comparisons.select("first", "second", "task").rows()) == {
        ("good (full)", "kmer", "2 of 3 tasks"),
        ("good (full)", "kmer", "z"),
        ("good (full)", "kmer", "a"),
        ("weak (full)", "kmer", "m"),
    }


def test_comparisons_have_the_right_sign_and_are_adjusted_by_family(made):
    for model in ("kmer", "cnn", "good", "weak"):
        made.add(model, seeds=(1,) if model == "kmer" else (1, 2, 3))
    report = summarise(made.folder, resamples=RESAMPLES)
    # Whatever is compared with a baseline comes first.
    assert set(report.comparisons.select("first", "second").rows()) == {
        ("cnn (full)", "kmer"), ("good (full)", "kmer"), ("weak (full)", "kmer"), ("good (full)", "cnn (full)"),
        ("weak (full)", "cnn (full)"), ("weak (full)", "good (full)"),
    }  # fmt: skip
    for row in report.comparisons.to_dicts():
        names = [name.removesuffix(" (full)") for name in (row["first"], row["second"])]
        seeds = [(1,) if name == "kmer" else (1, 2, 3) for name in names]
        settings = {"resamples": RESAMPLES, "permutations": RESAMPLES}
        tasks = TASKS if row["task"] == "" else [row["task"]]
        expected = resampling.difference(
            *(
                [TaskScores("binary", "mcc", labels_of(task), made.part(task, *pair)) for task in tasks]
                for pair in zip(names, seeds, strict=True)
            ),
            **settings,
        )
        assert tuple(row[name] for name in ("difference", "low", "high", "p_value", "method")) == tuple(expected)
    whole, single = (report.comparisons.filter((pl.col("task") == "") == is_whole) for is_whole in (True, False))
    for family, count in ((whole, 6), (single, 18)):
        assert len(family) == count
        assert family["adjusted_p"].to_list() == pytest.approx(holm_by_hand(family["p_value"].to_list()))
    best = whole.row(by_predicate=(pl.col("first") == "good (full)") & (pl.col("second") == "kmer"), named=True)
    assert best["difference"] > 0
    assert best["adjusted_p"] < 0.05


def test_of_many_models_all_are_compared_with_the_best_and_the_baselines(made):
    made.add("kmer", ("a",), seeds=(1,))
    made.add("good", ("a",), seeds=(1,))
    others = [f"m{number}" for number in range(5)]
    for number, model in enumerate(others):
        made.add(model, ("a",), seeds=(1,), skill=0.1 * number)
    report = summarise(made.folder, resamples=RESAMPLES)
    pairs = {frozenset(pair) for pair in report.comparisons.select("first", "second").rows()}
    assert pairs == {frozenset(("kmer", "good (full)"))} | {
        frozenset((f"{model} (full)", other)) for model in others for other in ("kmer", "good (full)")
    }
    # On one task there is nothing to average.
    assert set(report.comparisons["task"]) == {"a"}


def test_a_mean_over_different_metrics_is_none(made):
    made.add("good", ("a",))
    made.add("good", ("z",), metric="auroc")
    made.add("weak", ("z", "a"), metric="auroc")
    report = summarise(made.folder, resamples=RESAMPLES)
    assert report.averages["model"].to_list() == ["weak"]
    assert report.scores.select("model", "metric").rows() == [
        ("good", "auroc"), ("good", "mcc"), ("weak", "auroc"), ("weak", "auroc")
    ]  # fmt: skip


OTHER_FILE = [{"split": "test", "examples": 10, "duplicates": 1, "in_train": 2, "dropped": 0, "sha256": "another"}]


@pytest.mark.parametrize(
    ("model", "seeds", "changes", "what"),
    [
        ("weak", (1,), {"labels": 1 - labels_of("a")}, "test rows"),
        ("weak", (1,), {"labels": labels_of("a")[:50]}, "test rows"),
        ("weak", (1,), {"splits": OTHER_FILE}, "test rows"),
        ("good", (3,), {"labels": 1 - labels_of("a")}, "test rows"),
        ("good", (3,), {"identity": {"data": "b"}}, "data"),
        ("good", (3,), {"identity": {"settings": {"a": 2}}}, "settings"),
        ("good", (3,), {"identity": {"model": "of another hash"}}, "model"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(made, model, seeds, changes, what):
    made.add("good", ("a",), seeds=(1, 2))
    made.add(model, ("a",), seeds=seeds, **changes)
    with pytest.raises(InputError, match=rf"own/a, good \(full\), .* own/a, {model} .*with different {what}; remove"):
        summarise(made.folder, resamples=RESAMPLES)


def test_settings_may_differ_by_task_and_a_model_may_not(made):
    made.add("good", ("a",), identity={"settings": {"a": 2}, "model": "one"})
    made.add("good", ("z",), identity={"settings": {"a": 3}, "model": "one"})
    assert len(summarise(made.folder, resamples=RESAMPLES).scores) == 2
    made.add("good", ("m",), identity={"settings": {"a": 3}, "model": "other"})
    with pytest.raises(InputError, match=r"own/a, good .* and own/m, good .* with different model"):
        summarise(made.folder, resamples=RESAMPLES)


def test_notes_failures_costs_data_and_facts(made):
    made.add("good", ("a", "z"), note="own: no benchmark")
    made.add("kmer", ("a", "z"), seeds=(1,))
    cell = Cell("own", "m", "good", "full", "corrected", 1)
    made.fail(cell)
    made.fail(cell._replace(task="a", model="broken"))
    report = summarise(made.folder, resamples=RESAMPLES)
    assert report.notes == [
        "own: no benchmark",
        "own: cnn was not run, so nothing shows what a trivial model reaches; run it too",
    ]
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
    made.add("good", ("a", "z"))
    made.add("kmer", ("a", "z"), seeds=(1,))
    # As a process leaves it that is killed while it writes.
    (made.folder / "suites" / ".own.partial.yaml").write_text("version: 1\nname: ow")
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert [path.name for path in files] == list(FILES)
    assert all(path.parent == made.folder and path.stat().st_size for path in files)
    assert pl.read_csv(made.folder / "scores.csv")["value"].to_list() == report.scores["value"].to_list()
    # One's own is replaced; another folder's only where that is said.
    before = [path.read_bytes() for path in files]
    report_benchmark(made.folder, resamples=RESAMPLES)
    assert [path.read_bytes() for path in files] == before
    other = tmp_path / "deep" / "other"
    report_benchmark(made.folder, other, resamples=RESAMPLES)
    with pytest.raises(InputError, match="exists already"):
        report_benchmark(made.folder, other, resamples=RESAMPLES)
    report_benchmark(made.folder, other, resamples=RESAMPLES, force=True)
    assert [(other / name).read_bytes() for name in FILES] == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        report_benchmark(made.folder, tmp_path / "file" / "inside", resamples=RESAMPLES)


def test_there_must_be_results_and_their_suites(made, tmp_path):
    for folder in (tmp_path / "nothing", made.folder):
        with pytest.raises(InputError, match="has no results; run 'mutbert bench run"):
            report_benchmark(folder)
    made.add("good", ("a",))
    (made.folder / "suites" / "own.yaml").unlink()
    with pytest.raises(InputError, match=r"own\.yaml: is missing, though there are results of it"):
        report_benchmark(made.folder)


def test_nothing_but_failures_is_a_report_too(made):
    made.fail(Cell("own", "a", "good", "full", "corrected", 1))
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert (len(report.scores), len(report.averages), len(report.failures)) == (0, 0, 1)
    assert "no memory" in files[0].read_text()


def test_a_metric_that_is_not_defined_is_none_in_the_report(made):
    made.add("good", ("a",), labels=np.ones(90, np.int64), metric="auroc")
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert np.isnan(report.scores["value"][0])
    assert "not a number" in files[0].read_text()
    assert costs_of(read_records(made.folder))["value"].to_list() == [None]


@pytest.fixture
def mutbert(monkeypatch, capsys):
    """Run the program in this process: status, standard output, and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mutbert", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            program()
        output = capsys.readouterr()
        return caught.value.code or 0, output.out, output.err

    return call


def test_the_program_lists_suites_and_models(mutbert, suite):
    status, out, _ = mutbert("bench", "list")
    assert status == 0
    for word in ("tfbs", "H3K27ac", "splice_sites_all", "30-100kb", "100,000 on", "dnabert2", "kmer and cnn"):
        assert word in out
    status, out, _ = mutbert("bench", "list", "--suite", suite, "--json")
    found = json.loads(out)
    assert status == 0
    assert [task["name"] for task in found["suites"][0]["tasks"]] == ["first", "second"]
    assert {model["name"] for model in found["models"]} >= {"mutbert", "ntv2-500m", "caduceus-ph"}


def test_the_program_runs_and_reports(mutbert, suite, model_folders):
    results, data = suite.parent / "results", suite.parent / "data"
    common = ["-o", results, "--suite", suite, "--data", data, "--task", "first", "--protocol", "corrected", "--set",
              "finetune.max_steps=1", "--method", "probe"]  # fmt: skip
    small = f"small={model_folders['mutbert']}"
    # A cell of the grid by itself, which the grid then finds.
    assert mutbert("bench", "cell", *common, "--model", small, "--seed", "1")[0] == 0
    assert (results / "own" / "first" / "small-probe" / "corrected-1.parquet").is_file()
    run = ["bench", "run", *common, "--seeds", "1", "--model", small]
    status, out, _ = mutbert(*run)
    assert status == 0
    assert "done: 2\nfailed: 0\nbefore: 1\n" in out
    assert re.search(r"own +corrected +small +probe", out)
    status, out, _ = mutbert(*run, "--json")
    assert json.loads(out) == {
        "done": 0, "failed": 0, "before": 3, "elsewhere": 0, "failures": {}, "output": str(results)
    }  # fmt: skip
    # A model that cannot be loaded fails its cells, with the reason; the rest is done.
    status, out, err = mutbert(*run, "--model", "gone=/nowhere/at/all")
    assert status == 1
    assert "failed: 1\nbefore: 3\n" in out
    assert re.search("mutbert: 1 failed: .*/nowhere/at/all", err)
    assert mutbert("bench", "cell", *common, "--model", "/nowhere/at/all", "--seed", "1")[0] == 1
    assert mutbert("bench", "cell", *common, "--model", "kmer", "--seed", "9")[0] == 0
    status, out, _ = mutbert("bench", "report", results, "--resamples", "100")
    assert status == 0
    assert f"report: {results / 'report.html'}" in out
    status, out, _ = mutbert("bench", "report", results, "-o", suite.parent / "shown", "--resamples", "100", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["files"] == [str(suite.parent / "shown" / name) for name in FILES]
    assert {entry["model"] for entry in found["averages"]} == {"kmer", "cnn", "small"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "no suite was given"),
        (["run", "--suite", "tfsb"], "tfsb: cannot be read"),
        (["run", "--suite", "tfbs"], "tfbs: where are its files?"),
        (["run", "--suite", "tfbs", "--data", "tfbs=nowhere"], "nowhere: has none of"),
        (["run", "--suite", "tfbs", "--suite", "nt", "--data", "x"], "--data x: name the suite"),
        (["run", "--suite", "nt", "--data", "a", "--data", "nt=b"], "nt=... is given twice"),
        (["run", "--suite", "nt", "--data", "a", "--set", "seeds"], "'seeds' is not of the form"),
        (["list", "--suite", "other"], "other: cannot be read"),
        (["report", "nothing"], "nothing: has no results"),
        (["cell", "--suite", "tfbs", "--data", "nowhere", "--task", "0", "--model", "kmer", "--protocol", "best",
          "--seed", "1"], "protocol best: choose one of published, corrected"),
    ],
)  # fmt: skip
def test_the_program_explains_in_one_line_what_is_wrong(mutbert, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = mutbert("bench", *words, *(["-o", "out"] if words[0] in {"run", "cell"} else []))
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("mutbert: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
