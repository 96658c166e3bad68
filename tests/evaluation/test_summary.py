"""From results to what a report says: against the scoring functions, brute force, and the program as people use it."""

import csv
import itertools
import json
import sys

import numpy as np
import pytest
import torch

from mutbert.cli.main import run as program
from mutbert.errors import InputError
from mutbert.evaluation.results import Cell, CellResult, Predictions, read_results, results_writer
from mutbert.evaluation.run import GridRequest, run_benchmark
from mutbert.evaluation.suites import load_suite
from mutbert.evaluation.summary import progress_table, report_benchmark, summarise
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.reports.benchmark import FILES
from mutbert.scoring.resampling import average_interval, bootstrap_interval, compare, compare_average
from mutbert.settings import settings_text

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


class Made:
    """A results folder that is written by hand."""

    def __init__(self, folder, text=THREE):
        self.folder = folder / "results"
        (self.folder / "suites").mkdir(parents=True)
        self.add_suite(folder, text)
        self.scores = {}

    def add_suite(self, folder, text):
        (folder / "given.yaml").write_text(text)
        suite = load_suite(folder / "given.yaml")
        (self.folder / "suites" / f"{suite.name}.yaml").write_text(settings_text(suite))

    def add(self, model, tasks=TASKS, *, method="full", protocol="corrected", seeds=(1, 2, 3), skill=None, **changes):
        method = "" if model == "kmer" else method
        for task, seed in itertools.product(tasks, seeds):
            cell = Cell("own", task, model, method, protocol, seed)
            scores = scores_of(cell, SKILL.get(model, 1.0) if skill is None else skill)
            self.scores[cell] = scores
            labels = changes.get("labels", labels_of(task))
            self.write(
                cell, Predictions(labels, scores[: len(labels)]), **{k: v for k, v in changes.items() if k != "labels"}
            )

    def write(self, cell, predictions, status="done", **changes):
        values = {
            "problem": "binary",
            "metric": "mcc",
            "metrics": {"mcc": 0.1 * cell.seed},
            "parameters": None if cell.model == "kmer" else 1000,
            "smoke": "",
            "splits": [
                {"split": "test", "examples": 10, "duplicates": 1, "in_train": 2, "dropped": 0, "sha256": cell.task}
            ],
            "cost": {"seconds": 2.0, "peak_memory": 100 * cell.seed, "tokens_per_second": 10.0 * cell.seed},
            "versions": {"versions": {"python": "3", "mutbert": "1"}, "commit": "abc"},
        } if status == "done" else {"reason": "no memory"}  # fmt: skip
        with results_writer(self.folder, (1, 1)) as write:
            write(CellResult(cell, status, {}, {**values, **changes}), predictions)

    def part(self, task, model, seeds=(1, 2, 3), method="full", protocol="corrected"):
        method = "" if model == "kmer" else method
        return [self.scores[Cell("own", task, model, method, protocol, seed)] for seed in seeds]


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def mcc(labels, scores):
    """Matthews' correlation, by counting."""
    guess = scores > 0
    tp, tn = (guess & (labels == 1)).sum(), (~guess & (labels == 0)).sum()
    fp, fn = (guess & (labels == 0)).sum(), (~guess & (labels == 1)).sum()
    return (tp * tn - fp * fn) / np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


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
    assert [(score.model, score.task) for score in report.scores] == [
        *(("kmer", task) for task in TASKS), *(("good", task) for task in TASKS)
    ]  # fmt: skip
    for score in report.scores:
        seeds = (1,) if score.model == "kmer" else (1, 2, 3)
        scores, labels = made.part(score.task, score.model, seeds), labels_of(score.task)
        interval = bootstrap_interval("binary", "mcc", labels, scores, resamples=RESAMPLES)
        assert (score.value, score.low, score.high) == tuple(interval)
        assert score.per_seed == pytest.approx([mcc(labels, entry) for entry in scores])
        assert score.value == pytest.approx(np.mean(score.per_seed))
        assert (score.metric, score.protocol) == ("mcc", "corrected")
    for average, seeds in zip(report.averages, ((1,), (1, 2, 3)), strict=True):
        parts = [("binary", "mcc", labels_of(task), made.part(task, average.model, seeds)) for task in TASKS]
        interval = average_interval(parts, resamples=RESAMPLES)
        assert (average.value, average.low, average.high) == tuple(interval)
        assert average.value == pytest.approx(
            np.mean([score.value for score in report.scores if score.model == average.model])
        )
        assert (average.tasks, average.of_tasks) == (3, 3)
    assert [average.parameters for average in report.averages] == [None, 1000]
    # The paper's number stands beside the model of that name.
    assert [average.published for average in report.averages] == [None, 0.75]
    assert [(row.model, row.value, row.metric) for row in report.paper] == [
        ("Good-86M", 0.75, "mcc"),
        ("Other", 0.5, "mcc"),
    ]


def test_a_model_that_is_not_through_has_fewer_tasks_and_is_compared_on_those(made):
    made.add("kmer", seeds=(1,))
    made.add("good", ("a", "z"))
    made.add("weak", ("m",))
    report = summarise(made.folder, resamples=RESAMPLES)
    assert {average.model: (average.tasks, average.of_tasks) for average in report.averages} == {
        "kmer": (3, 3), "good": (2, 3), "weak": (1, 3)
    }  # fmt: skip
    found = {(row.first, row.second, row.task) for row in report.comparisons}
    assert found == {
        ("good (full)", "kmer", "2 of 3 tasks"),
        ("good (full)", "kmer", "z"),
        ("good (full)", "kmer", "a"),
        ("weak (full)", "kmer", "m"),
    }
    (markdown,) = (path for path in report_benchmark(made.folder, resamples=RESAMPLES)[1] if path.suffix == ".md")
    # The paper's average over all tasks is not put beside one over some.
    assert "2 of 3" in markdown.read_text()


def test_comparisons_have_the_right_sign_and_are_adjusted_by_family(made):
    for model in ("kmer", "cnn", "good", "weak"):
        made.add(model, seeds=(1,) if model == "kmer" else (1, 2, 3))
    report = summarise(made.folder, resamples=RESAMPLES)
    pairs = {(row.first, row.second) for row in report.comparisons}
    # Whatever is compared with a baseline comes first.
    assert pairs == {
        ("cnn (full)", "kmer"), ("good (full)", "kmer"), ("weak (full)", "kmer"), ("good (full)", "cnn (full)"),
        ("weak (full)", "cnn (full)"), ("weak (full)", "good (full)"),
    }  # fmt: skip
    value = {f"{row.model} (full)" if row.method else row.model: row.value for row in report.averages}
    for row in report.comparisons:
        names = [name.removesuffix(" (full)") for name in (row.first, row.second)]
        seeds = [(1,) if name == "kmer" else (1, 2, 3) for name in names]
        settings = {"resamples": RESAMPLES, "permutations": RESAMPLES}
        parts = [
            ("binary", "mcc", labels_of(task), *(made.part(task, *pair) for pair in zip(names, seeds, strict=True)))
            for task in TASKS
        ]
        if row.task == "":
            expected = compare_average(parts, **settings)
            assert row.difference == pytest.approx(value[row.first] - value[row.second])
        else:
            expected = compare(*parts[TASKS.index(row.task)], **settings)
        assert (row.difference, row.low, row.high, row.p_value, row.method) == tuple(expected)
    for family in (
        [row for row in report.comparisons if not row.task],
        [row for row in report.comparisons if row.task],
    ):
        assert len(family) in {6, 18}
        assert [row.adjusted_p for row in family] == pytest.approx(holm_by_hand([row.p_value for row in family]))
    whole = {(row.first, row.second): row for row in report.comparisons if not row.task}
    assert whole["good (full)", "kmer"].difference > 0
    assert whole["good (full)", "kmer"].adjusted_p < 0.05
    assert whole["weak (full)", "good (full)"].difference < 0


def test_protocols_are_not_compared_with_each_other(made):
    made.add("good")
    made.add("good", protocol="published", seeds=(42,))
    made.add("good", method="probe")
    report = summarise(made.folder, resamples=RESAMPLES)
    assert {(row.first, row.second, row.protocol) for row in report.comparisons} == {
        ("good (probe)", "good (full)", "corrected")
    }
    assert [(average.protocol, average.method) for average in report.averages] == [
        ("corrected", "full"), ("corrected", "probe"), ("published", "full")
    ]  # fmt: skip


def test_of_many_models_all_are_held_against_the_best_and_the_baselines(made):
    made.add("kmer", ("a",), seeds=(1,))
    made.add("good", ("a",), seeds=(1,))
    others = [f"m{number}" for number in range(5)]
    for number, model in enumerate(others):
        made.add(model, ("a",), seeds=(1,), skill=0.1 * number)
    report = summarise(made.folder, resamples=RESAMPLES)
    pairs = {frozenset((row.first, row.second)) for row in report.comparisons}
    labels = [f"{model} (full)" for model in others]
    assert pairs == {frozenset(("kmer", "good (full)"))} | {
        frozenset((label, other)) for label in labels for other in ("kmer", "good (full)")
    }
    # On one task there is nothing to average.
    assert all(row.task == "a" for row in report.comparisons)


def test_a_mean_over_different_metrics_is_none(made):
    made.add("good", ("a",))
    made.add("good", ("z",), metric="auroc")
    made.add("weak", ("z", "a"), metric="auroc")
    report = summarise(made.folder, resamples=RESAMPLES)
    assert [average.model for average in report.averages] == ["weak"]
    assert [(score.model, score.metric) for score in report.scores] == [
        ("good", "auroc"), ("good", "mcc"), ("weak", "auroc"), ("weak", "auroc")
    ]  # fmt: skip


def test_what_was_tested_on_different_rows_is_not_compared(made):
    made.add("good", ("a",))
    made.add("weak", ("a",), labels=1 - labels_of("a"))
    with pytest.raises(InputError, match=r"own/a, weak \(full\).* and own/a, good .*were tested on different rows"):
        summarise(made.folder, resamples=RESAMPLES)


def test_nor_on_fewer_rows(made):
    made.add("good", ("a",))
    made.add("weak", ("a",), labels=labels_of("a")[:50])
    with pytest.raises(InputError, match="were tested on different rows"):
        summarise(made.folder, resamples=RESAMPLES)


def test_nor_on_another_file_with_the_same_labels(made):
    made.add("good", ("a",))
    split = {"split": "test", "examples": 10, "duplicates": 1, "in_train": 2, "dropped": 0, "sha256": "another"}
    made.add("weak", ("a",), splits=[split])
    with pytest.raises(InputError, match="were tested on different rows"):
        summarise(made.folder, resamples=RESAMPLES)


def test_seeds_of_one_model_that_were_tested_on_different_rows_are_refused(made):
    made.add("good", ("a",), seeds=(1, 2))
    made.add("good", ("a",), seeds=(3,), labels=1 - labels_of("a"))
    with pytest.raises(InputError, match="were tested on different rows"):
        summarise(made.folder, resamples=RESAMPLES)


def test_notes_failures_costs_data_and_facts(made):
    made.add("good", ("a", "z"), smoke="own: a smoke run, no benchmark")
    made.add("kmer", ("a", "z"), seeds=(1,))
    cell = Cell("own", "m", "good", "full", "corrected", 1)
    made.write(cell, None, status="failed")
    made.write(cell._replace(task="a", model="broken"), None, status="failed")
    report = summarise(made.folder, resamples=RESAMPLES)
    assert report.notes == (
        "own: a smoke run, no benchmark",
        "own: cnn was not run, so nothing says what a trivial model reaches; run it too",
    )
    assert [(entry.task, entry.model, entry.seed, entry.reason) for entry in report.failures] == [
        ("a", "broken", 1, "no memory"), ("m", "good", 1, "no memory")
    ]  # fmt: skip
    costs = {cost.model: cost for cost in report.costs}
    assert (costs["good"].cells, costs["good"].seconds) == (6, 12.0)
    assert (costs["good"].tokens_per_second, costs["good"].peak_memory) == (20.0, 300)
    # A task's data are listed once, whoever was tested on them.
    assert [(entry.task, entry.split, entry.sha256) for entry in report.splits] == [
        ("a", "test", "a"),
        ("z", "test", "z"),
    ]
    assert report.facts == {"cells": "8 done", "versions": "python 3, mutbert 1", "commit": "abc"}
    header, rows = progress_table(read_results(made.folder))
    assert header[:4] == ["suite: model", "protocol", "done", "failed"]
    assert [row[:5] for row in rows] == [
        ["own: kmer", "corrected", "2", "0", "mcc 0.100"],
        ["own: broken (full)", "corrected", "0", "1", ""],
        ["own: good (full)", "corrected", "6", "1", "mcc 0.200"],
    ]


def test_no_note_where_both_baselines_were_run(made):
    for model in ("kmer", "cnn", "good"):
        made.add(model, ("a",), seeds=(1,))
    assert summarise(made.folder, resamples=RESAMPLES).notes == ()


def test_a_report_is_all_of_its_files(made, tmp_path):
    made.add("good", ("a", "z"))
    made.add("kmer", ("a", "z"), seeds=(1,))
    # As a process leaves it that is killed while it writes.
    (made.folder / "suites" / ".own.partial.yaml").write_text("version: 1\nname: ow")
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert [path.name for path in files] == list(FILES)
    assert all(path.parent == made.folder and path.stat().st_size for path in files)
    with (made.folder / "scores.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["value"]) for row in rows] == pytest.approx([score.value for score in report.scores], abs=1e-6)
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
    with pytest.raises(InputError, match="holds no results; run 'mutbert bench run"):
        report_benchmark(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no results"):
        report_benchmark(made.folder)
    made.add("good", ("a",))
    (made.folder / "suites" / "own.yaml").unlink()
    with pytest.raises(InputError, match=r"own\.yaml: is missing, though there are results of it"):
        report_benchmark(made.folder)


def test_nothing_but_failures_is_a_report_too(made):
    made.write(Cell("own", "a", "good", "full", "corrected", 1), None, status="failed")
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert (report.scores, report.averages, len(report.failures)) == ((), (), 1)
    assert "no memory" in files[1].read_text()


def test_a_metric_that_is_not_defined_is_none_in_the_report(made):
    made.add("good", ("a",), labels=np.ones(90, np.int64), metric="auroc", metrics={"auroc": None})
    report, files = report_benchmark(made.folder, resamples=RESAMPLES)
    assert np.isnan(report.scores[0].value)
    assert "nan" not in files[1].read_text().lower().replace("nanosec", "")
    assert progress_table(read_results(made.folder))[1][0][4] == ""


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
    words = ["bench", "run", "-o", results, "--suite", suite, "--data", data, "--task", "first", "--seeds", "1",
             "--protocol", "corrected", "--set", "finetune.max_steps=1", "--model", f"small={model_folders['mutbert']}",
             "--method", "probe"]  # fmt: skip
    status, out, _ = mutbert(*words)
    assert status == 0
    assert f"{results}: 3 cells done, 0 were done before, 0 failed" in out
    assert "own: small (probe)" in out
    status, out, err = mutbert(*words, "--json", "--shard", "1/2")
    assert status == 0
    assert json.loads(out) == {
        "done": 0, "failed": 0, "before": 2, "elsewhere": 1, "failures": {}, "output": str(results)
    }  # fmt: skip
    # A model that cannot be loaded fails its cells, with the reason; the rest is done.
    status, out, err = mutbert(*words, "--model", "gone=/nowhere/at/all")
    assert status == 1
    assert "3 were done before, 1 failed" in out
    assert "mutbert: 1 failed: " in err
    assert "/nowhere/at/all" in err
    status, out, _ = mutbert("bench", "report", results, "--resamples", "100")
    assert status == 0
    assert f"report: {results / 'report.html'}" in out
    assert "1 of 2" in out
    status, out, _ = mutbert("bench", "report", results, "-o", suite.parent / "shown", "--resamples", "100", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["files"] == [str(suite.parent / "shown" / name) for name in FILES]
    assert {entry["model"] for entry in found["averages"]} == {"kmer", "cnn", "small"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "run", "-o", "out"], "no suite was given"),
        (["bench", "run", "-o", "out", "--suite", "tfsb"], "tfsb: cannot be read"),
        (["bench", "run", "-o", "out", "--suite", "tfbs"], "tfbs: where are its files?"),
        (["bench", "run", "-o", "out", "--suite", "tfbs", "--data", "tfbs=nowhere"], "nowhere: has none of"),
        (
            ["bench", "run", "-o", "out", "--suite", "tfbs", "--suite", "nt", "--data", "x"],
            "--data x: say of which suite",
        ),
        (["bench", "run", "-o", "out", "--suite", "nt", "--data", "a", "--data", "nt=b"], "nt=... is given twice"),
        (["bench", "run", "-o", "out", "--suite", "nt", "--shard", "half"], "--shard half: give I/N, for example 1/4"),
        (["bench", "run", "-o", "out", "--suite", "nt", "--data", "a", "--shard", "5/4"], "shard 5/4"),
        (["bench", "run", "-o", "out", "--suite", "nt", "--data", "a", "--set", "seeds"], "'seeds' is not of the form"),
        (["bench", "list", "--suite", "other"], "other: cannot be read"),
        (["bench", "report", "nothing"], "nothing: holds no results"),
    ],
)
def test_the_program_says_in_one_line_what_is_wrong(mutbert, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = mutbert(*words)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("mutbert: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
@pytest.mark.slow
def test_all_tasks_of_nt_on_a_sample(shared, tmp_path):
    sample = shared / "data" / "nucleotide_transformer" / "revised_sample_1500.tsv.gz"
    config = MutBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MutBertForMaskedLM(config).save_pretrained(tmp_path / "model")
    request = GridRequest(
        suites=("nt",), data={"nt": str(sample)}, models=(f"tiny={tmp_path / 'model'}",), seeds=1,
        settings=("finetune.max_steps=1", "finetune.batch_size=8", "finetune.max_tokens=66"), protocols=("corrected",),
    )  # fmt: skip
    summary = run_benchmark(tmp_path / "results", request)
    assert (summary.done, summary.failed) == (54, 0), summary.failures
    results = read_results(tmp_path / "results")
    counts = {cell.task: {s["split"]: s["examples"] for s in entry.values["splits"]} for cell, entry in results.items()}
    # Every row of the sample is in one part of its task.
    assert len(counts) == 18
    assert sum(sum(parts.values()) for parts in counts.values()) == 1500
    for entry in results.values():
        assert entry.values["splits"][2]["in_train"] == 0
    report, _ = report_benchmark(tmp_path / "results", resamples=100)
    assert report.notes == (
        "nt: revised_sample_1500.tsv.gz is one file, which was split here; a smoke run, no benchmark",
    )
    assert {(average.tasks, average.of_tasks) for average in report.averages} == {(18, 18)}
