"""The grid: what is done, what fails, what goes on where it stopped, and what is refused before it costs anything."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mutbert import report_benchmark, run_benchmark
from mutbert.errors import InputError
from mutbert.evaluation.results import Cell, cell_of, read_predictions, read_records
from mutbert.evaluation.run import GridRequest
from mutbert.examples.files import Columns, read_examples
from mutbert.reports.benchmark import COST_TITLE
from mutbert.scoring.metrics import evaluate

ONE = {"protocols": ("corrected",), "seeds": 1}


def records_of(folder):
    return {cell_of(record): record for record in read_records(folder)}


def files_of(folder):
    """What cells have left, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*/*") if path.suffix in {".json", ".parquet"}}


@pytest.fixture(scope="module")
def grid(tmp_path_factory, write_tasks, request_of, model_folders):
    """A grid of all kinds of models, two of which cannot be loaded."""
    folder = tmp_path_factory.mktemp("grid")
    suite = write_tasks(folder)
    remote = shutil.copytree(model_folders["esm"], folder / "remote")
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    models = {name: model_folders[name] for name in ("mutbert", "esm", "bert")}
    models |= {"remote": remote, "missing": folder / "missing"}
    request = request_of(
        suite, models=tuple(f"{name}={place}" for name, place in models.items()), methods=("full", "probe"), **ONE
    )
    reported = []
    return folder, request, run_benchmark(folder / "results", request, report=reported.append), reported


def test_every_cell_is_done_or_says_why_not(grid):
    folder, _, summary, reported = grid
    results = records_of(folder / "results")
    models = ("mutbert", "esm", "bert", "remote", "missing")
    expected = {
        Cell("own", task, model, method, "corrected", 1)
        for task in ("first", "second")
        for model, method in [
            ("kmer", ""), ("cnn", "full"), *((model, method) for model in models for method in ("full", "probe"))
        ]
    }  # fmt: skip
    assert results.keys() == expected == {cell_of(record) for record in reported}
    reasons = {cell.model: record["reason"] for cell, record in results.items() if "reason" in record}
    assert reasons.keys() == {"remote", "missing"}
    assert (summary.done, summary.failed, summary.before, summary.elsewhere) == (16, 8, 0, 0)
    assert sum(summary.failures.values()) == 8
    assert "--trust-remote-code" in reasons["remote"]
    assert str(folder / "missing") in reasons["missing"]
    assert all("\n" not in reason for reason in reasons.values())
    names = {str(path.relative_to(folder / "results")) for path in files_of(folder / "results")}
    assert {"own/first/kmer/corrected-1.json", "own/first/esm-probe/corrected-1.parquet"} <= names
    assert "own/second/missing-full/corrected-1.failed.json" in names


def test_numbers_are_those_of_the_predictions(grid):
    folder, *_ = grid
    done = {cell: record for cell, record in records_of(folder / "results").items() if "reason" not in record}
    for cell, record in done.items():
        labels, scores = read_predictions(folder / "results", cell)
        known = read_examples(folder / "data" / cell.task / "test.csv", Columns(label="label"))[0].known_labels
        assert (labels == known).all()
        values = evaluate("binary", labels, scores)
        assert record["metrics"] == {name: None if np.isnan(value) else value for name, value in values.items()}
        assert (record["metric"], record["note"]) == ("mcc", "")
        assert [split["examples"] for split in record["splits"]] == [48, 16, 16]
        assert [source["split"] for source in record["sources"]] == ["train", "validation", "test"]
        assert record["cost"]["seconds"] > 0
        assert record["cost"]["peak_memory"] > 0
        assert (record["parameters"] is None) == (cell.model == "kmer")
        assert -1 <= record["validation"] <= 1
        if cell.method == "full":
            assert record["chosen"]["of"] == 2
    # The word is there to be found.
    assert [record["metrics"]["mcc"] for cell, record in done.items() if cell.model == "kmer"] == [1.0, 1.0]


def test_what_is_done_is_not_done_again_and_what_failed_is_tried(grid):
    folder, request, *_ = grid
    before = files_of(folder / "results")
    reported = []
    summary = run_benchmark(folder / "results", request, report=reported.append)
    assert (summary.done, summary.failed, summary.before) == (0, 8, 16)
    assert {record["model"] for record in reported} == {"remote", "missing"}
    after = files_of(folder / "results")
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {p for p in after if "failed" in p.name}


def test_a_finished_grid_needs_neither_its_data_nor_its_models(tmp_path, suite, request_of, model_folders):
    copy = shutil.copytree(model_folders["mutbert"], tmp_path / "copy")
    request = request_of(suite, models=(f"mine={copy}",), **ONE)
    first = run_benchmark(tmp_path / "results", request)
    assert (first.failed, first.before) == (0, 0)
    shutil.rmtree(copy)
    shutil.rmtree(suite.parent / "data")
    again = run_benchmark(tmp_path / "results", request)
    assert (again.done, again.failed, again.before) == (0, 0, first.done)


def test_a_cell_that_failed_and_is_then_done_leaves_no_failure(tmp_path, suite, request_of):
    dev = suite.parent / "data" / "first" / "dev.csv"
    text = dev.read_text()
    dev.write_text("sequence,label\nACGT,7\n")
    (suite.parent / "data" / "second" / "dev.csv").unlink()
    summary = run_benchmark(tmp_path / "results", request_of(suite, **ONE))
    # A file that cannot be read costs its own cells alone.
    assert (summary.done, summary.failed) == (0, 4)
    reasons = sorted(summary.failures)
    assert re.search(r"first/dev\.csv.* line 2.*'7'", reasons[0])
    assert "there is no file of validation data" in reasons[1]
    dev.write_text(text)
    assert run_benchmark(tmp_path / "results", request_of(suite, tasks=("first",), **ONE)).done == 2
    left = {path.parts[-3] for path in files_of(tmp_path / "results") if "failed" in path.name}
    assert left == {"second"}


def test_another_model_or_seed_is_done_beside_the_others(suite, request_of, model_folders):
    folder = suite.parent / "results"
    first = run_benchmark(folder, request_of(suite, tasks=("first",), **ONE))
    assert (first.done, first.before) == (2, 0)
    model = f"small={model_folders['mutbert']}"
    more = request_of(
        suite, tasks=("own/first",), models=(model,), methods=("probe", "probe"), protocols=("corrected",)
    )
    second = run_benchmark(folder, more)
    # The network once more, and the new model twice; the k-mers know no seed. What is asked for twice is done once.
    assert (second.done, second.before) == (3, 2)
    cells = [cell for cell in records_of(folder) if cell.model == "small"]
    assert [(cell.method, cell.seed) for cell in cells] == [("probe", 1), ("probe", 2)]
    one, two = (read_predictions(folder, cell)[1] for cell in cells)
    # A probe of trained weights knows no seed either.
    assert (one == two).all()


def test_fresh_weights_differ_by_seed_and_not_by_where_a_run_begins(suite, request_of, model_folders):
    models = (f"fresh=random:{model_folders['mutbert']}",)
    both = request_of(suite, tasks=("first",), models=models, methods=("probe", "full"), baselines=False,
                      protocols=("corrected",))  # fmt: skip
    run_benchmark(suite.parent / "whole", both)
    cells = records_of(suite.parent / "whole")
    assert len(cells) == 4
    found = {}
    for cell in reversed(cells):
        # Each by itself, as an engine would.
        alone = dataclasses.replace(both, methods=(cell.method,), first_seed=cell.seed, seeds=1)
        assert run_benchmark(suite.parent / "parts", alone).done == 1
        whole, part = (read_predictions(suite.parent / name, cell)[1] for name in ("whole", "parts"))
        assert (whole == part).all()
        found[cell.method, cell.seed] = whole
    assert records_of(suite.parent / "parts").keys() == cells.keys()
    assert (found["probe", 1] != found["probe", 2]).any()
    assert (found["full", 1] != found["full", 2]).any()


def test_processes_side_by_side_share_the_cells(suite, request_of):
    request = request_of(suite, settings=("finetune.max_steps=1",))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run_benchmark(suite.parent / "results", request), range(2)))
    assert len(records_of(suite.parent / "results")) == sum(summary.done for summary in both) == 10
    for summary in both:
        assert summary.done + summary.before + summary.elsewhere == 10


def test_leaks_are_dropped_where_that_is_asked_for(suite, request_of, write_rows, random_sequences):
    complement = str.maketrans("ACGT", "TGCA")
    leaked = random_sequences(6, seed=99)
    path = suite.parent / "data" / "first"
    train = read_examples(path / "train.csv", Columns(label="label"))[0]
    rows = [(train.sequence(row), int(train.known_labels[row])) for row in range(len(train))]
    write_rows(path / "train.csv", rows + [(s.translate(complement)[::-1], 1) for s in leaked[:4]])
    test = read_examples(path / "test.csv", Columns(label="label"))[0]
    write_rows(path / "test.csv", [(test.sequence(row), row % 2) for row in range(16)] + [(s, 1) for s in leaked])
    request = request_of(suite, tasks=("first",), **ONE)
    for name, drop, counts in (("kept", False, [(52, 0, 0), (16, 0, 0), (22, 4, 0)]),
                               ("dropped", True, [(48, 0, 4), (16, 0, 0), (22, 4, 0)])):  # fmt: skip
        run_benchmark(suite.parent / name, dataclasses.replace(request, drop_leaks=drop))
        for record in read_records(suite.parent / name):
            found = [(split["examples"], split["in_train"], split["dropped"]) for split in record["splits"]]
            assert found == counts


def test_cells_of_one_protocol_have_the_same_settings(suite, request_of):
    folder = suite.parent / "results"
    request = request_of(suite, tasks=("first",), baselines=True, settings=("corrected.finetune.max_steps=1",), **ONE)
    assert run_benchmark(folder, request).done == 2
    before = files_of(folder)
    other = dataclasses.replace(request, tasks=(), settings=("finetune.max_steps=3",))
    with pytest.raises(InputError, match="cells of corrected were made with other settings; use another folder"):
        run_benchmark(folder, other)
    assert files_of(folder) == before
    # Another protocol's may differ, and a number of seeds is none of the settings.
    assert run_benchmark(folder, dataclasses.replace(other, protocols=("published",), tasks=("first",))).done == 2
    assert (
        run_benchmark(folder, dataclasses.replace(request, seeds=None, settings=(*request.settings, "seeds=3"))).done
        == 2
    )


@pytest.mark.parametrize("what", ["data", "model", "task"])
def test_a_report_refuses_cells_of_one_model_that_were_made_with_different_things(
    what, suite, request_of, model_folders
):
    place = shutil.copytree(model_folders["mutbert"], suite.parent / "model")
    request = request_of(suite, tasks=("first",), models=(f"small={place}",), baselines=False, **ONE)
    run_benchmark(suite.parent / "results", request)
    if what == "model":
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    elif what == "data":
        table = suite.parent / "data" / "first" / "dev.csv"
        table.write_text(table.read_text().replace("A,", "C,", 1))
    else:
        suite.write_text(suite.read_text().replace("{name: first,", '{name: first, classes: ["1", "0"],'))
    run_benchmark(suite.parent / "results", dataclasses.replace(request, first_seed=2))
    with pytest.raises(InputError, match=rf"seed 1 and .*seed 2 were made with different {what}") as caught:
        report_benchmark(suite.parent / "results", resamples=100)
    assert "\n" not in str(caught.value)


SEVERAL = """\
version: 1
name: own
title: One of each
metric: mcc
files: ["{{task}}/{{split}}.csv"]
splits: {{train: train, validation: dev, test: test}}
columns: {{sequence: sequence, label: [{label}]}}
tasks:
  - {{name: it, length: 30, {task}}}
protocols:
  corrected: {{validation: file, seeds: 1, finetune: {{max_steps: 2, batch_size: 16, learning_rate: 1e-3}}}}
"""
CHOICES = {
    "multiclass": ('problem: multiclass, classes: ["x", "y", "z"]', "label", "xyz"),
    "multilabel": ("problem: multilabel, metric: f1", "p, q", None),
    "regression": ("problem: regression, metric: spearman", "label", None),
    "two numbers": ("problem: regression, metric: pearson", "p, q", None),
    "token": ('problem: token, classes: ["0", "1"]', "label", None),
}


@pytest.mark.parametrize("kind", list(CHOICES))
def test_all_kinds_of_problems(kind, tmp_path, request_of, write_rows, random_sequences, model_folders):
    task, label, classes = CHOICES[kind]
    (tmp_path / "own.yaml").write_text(SEVERAL.format(task=task, label=label))
    for seed, (split, count) in enumerate((("train", 48), ("dev", 18), ("test", 18))):
        rng = np.random.default_rng(seed)
        rows = []
        for number, sequence in enumerate(random_sequences(count, 30, seed)):
            labels = {
                "multiclass": [(classes or "xyz")[number % 3]],
                "multilabel": [number % 2, number % 3 // 2],
                "regression": [f"{rng.normal():.4f}"],
                "two numbers": [f"{rng.normal():.4f}", f"{rng.normal():.4f}"],
                "token": ["".join("1" if base == "G" else "0" for base in sequence)],
            }[kind]
            rows.append([sequence, *labels])
        write_rows(tmp_path / "data" / "it" / f"{split}.csv", rows, ("sequence", *label.split(", ")))
    models = tuple(f"{name}={model_folders[name]}" for name in ("mutbert", "bert"))
    request = request_of(tmp_path / "own.yaml", models=models, methods=("full", "probe"))
    run_benchmark(tmp_path / "results", request)
    results = records_of(tmp_path / "results")
    assert len(results) == 6
    # Labels of single bases are for those that read single bases, and are trained.
    failed = {(cell.model, cell.method) for cell, record in results.items() if "reason" in record}
    expected = {("kmer", ""), ("mutbert", "probe"), ("bert", "full"), ("bert", "probe")} if kind == "token" else set()
    assert failed == expected, [record.get("reason") for record in results.values()]
    shape = {"multiclass": (18, 3), "multilabel": (18, 2), "regression": (18,), "two numbers": (18, 2), "token": (540,)}
    problem = {"two numbers": "regression", "token": "binary"}.get(kind, kind)
    for cell, record in results.items():
        if "reason" not in record:
            assert record["problem"] == problem
            labels, scores = read_predictions(tmp_path / "results", cell)
            assert scores.shape == shape[kind]
            assert record["metrics"][record["metric"]] == evaluate(problem, labels, scores)[record["metric"]]
    if kind == "token":
        text = (tmp_path / "data" / "it" / "test.csv").read_text().splitlines()[1:]
        wanted = [int(digit) for line in text for digit in line.split(",")[1]]
        cell = next(cell for cell in results if cell.model == "cnn")
        assert read_predictions(tmp_path / "results", cell)[0].tolist() == wanted
    report, _ = report_benchmark(tmp_path / "results", resamples=100)
    assert len(report.scores) == 6 - len(failed)


@pytest.fixture
def genome(tmp_path, write_genome):
    """A genome in which every fifth position varies, and sequences of it."""
    rng = np.random.default_rng(0)
    letters = "".join(rng.choice(list("ACGT"), 4000))
    halves = np.eye(4) / 2
    codes = ["ACGT".index(letter) for letter in letters]
    variants = {place: halves[codes[place]] + halves[(codes[place] + 1) % 4] for place in range(2, 4000, 5)}
    return write_genome(tmp_path / "small.genome", {"chr1": letters}, {"chr1": variants}), letters


def test_frequencies_are_read_by_mutbert_where_coordinates_are_known(
    genome, suite, request_of, write_rows, model_folders
):
    store, reference = genome
    text = suite.read_text().replace(
        "tasks:\n", "columns: {sequence: sequence, label: [label], region: place}\ntasks:\n"
    )
    suite.write_text(text)
    starts = iter(range(0, 4000, 36))
    for split, count in (("train", 48), ("dev", 16), ("test", 16)):
        rows = []
        for number in range(count):
            start = next(starts)
            rows.append((reference[start : start + 36], number % 2, f"1:{start}-{start + 36}"))
        if split == "test":
            # One that is nowhere, and one that has other bases than the genome there.
            rows[0] = (*rows[0][:2], "chr9:0-36")
            rows[1] = ("A" * 36, *rows[1][1:])
        write_rows(suite.parent / "data" / "first" / f"{split}.csv", rows, ("sequence", "label", "place"))
    models = (f"mutbert={model_folders['mutbert']}", f"esm={model_folders['esm']}")
    request = request_of(suite, tasks=("first",), models=models, methods=("probe",), **ONE)
    run_benchmark(suite.parent / "without", request)
    request = dataclasses.replace(request, genome=str(store))
    assert run_benchmark(suite.parent / "with", request).failed == 0
    for cell, record in records_of(suite.parent / "with").items():
        without, found = (read_predictions(suite.parent / name, cell)[1] for name in ("without", "with"))
        assert (without != found).any() == (cell.model == "mutbert")
        unplaced = {"no place in the genome": 1, "other bases than the genome has there": 1}
        assert record.get("unplaced", {}) == (unplaced if cell.model == "mutbert" else {})
    report, _ = report_benchmark(suite.parent / "with", resamples=100)
    assert "own/first: 1 sequences read without frequencies: no place in the genome" in report.notes


def test_what_is_missing_is_refused_before_anything_is_run(suite, request_of, tmp_path):
    (tmp_path / "file.csv").write_text("sequence,label\nACGT,1\n")
    shutil.copytree(suite.parent / "data", tmp_path / "partly")
    (tmp_path / "partly" / "second" / "test.csv").unlink()
    eqtl = {"suites": ("eqtl",), "models": ("m=nowhere",)}
    (tmp_path / "eqtl.csv").write_text("")
    for message, changes in (
        ("own: where are its files?", {"data": {}}),
        ("--data other=...: there is no such suite", {"data": {"other": "x"}}),
        ("nowhere: has none of first/train.csv", {"data": {"own": "nowhere"}}),
        ("has none of second/test.csv", {"data": {"own": str(tmp_path / "partly")}}),
        ("has none of first/train.csv", {"data": {"own": str(tmp_path / "file.csv")}}),
        ("method fast: choose one of full, lora, probe", {"methods": ("fast",)}),
        ("protocol best: choose one of published, corrected", {"protocols": ("best",)}),
        ("seeds 0: at least 1", {"seeds": 0}),
        ("model kmer=x: expected NAME=PATH, with another name", {"models": ("kmer=x",)}),
        ("model a=: expected NAME=PATH", {"models": ("a=",)}),
        ("model a comes twice", {"models": ("a=x", "a=y")}),
        ("task third: there is none of this name; there are first, own/first, own/second", {"tasks": ("third",)}),
        ("suite own comes twice", {"suites": (str(suite), str(suite))}),
        ("unknown key seds; did you mean seeds", {"settings": ("seds=3",)}),
        ("unknown key finetune.epoch; did you mean finetune.epochs", {"settings": ("corrected.finetune.epoch=3",)}),
        ("learning_rate", {"settings": ("published.finetune.learning_rate=0",)}),
        ("nothing to run", {"baselines": False}),
        ("no.genome", {"genome": str(tmp_path / "no.genome")}),
        ("eqtl: needs the reference", {**eqtl, "data": {"eqtl": str(tmp_path / "eqtl.csv")}}),
        ("ref.fa: no such file", {**eqtl, "data": {"eqtl": str(tmp_path / "eqtl.csv")}, "fasta": "ref.fa"}),
        ("has none of variant_effect", {**eqtl, "data": {"eqtl": str(tmp_path / "partly")}, "fasta": str(suite)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            run_benchmark(tmp_path / "results", request_of(suite, **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "results").exists()
    # What is there can be run alone.
    only = request_of(suite, data={"own": str(tmp_path / "partly")}, tasks=("first",), **ONE)
    assert run_benchmark(tmp_path / "results", only).done == 2


KILLED = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from mutbert.evaluation.run import GridRequest, run_benchmark
suite, data, results, model = sys.argv[1:]
count = 0
def reported(record):
    global count
    count += 1
    if count == 4:
        # In the middle of the next one.
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
request = GridRequest(
    suites=(suite,), data={"own": data}, models=("small=" + model, "gone=" + model + "-is-not-there"),
    methods=("full", "probe"), protocols=("corrected",),
)
run_benchmark(results, request, report=reported)
"""


def without_cost(record):
    return {name: value for name, value in record.items() if name != "cost"}


def test_a_grid_that_is_killed_goes_on_where_it_was(
    tmp_path, write_tasks, request_of, model_folders, quiet_environment
):
    suite = write_tasks(tmp_path)
    place = model_folders["mutbert"]
    models = (f"small={place}", f"gone={place}-is-not-there")
    request = request_of(suite, models=models, methods=("full", "probe"), protocols=("corrected",))
    # Reports have the name of the folder.
    broken, whole = tmp_path / "broken" / "results", tmp_path / "whole" / "results"
    process = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, str(suite), str(suite.parent / "data"), str(broken), str(place)],
        env=quiet_environment, capture_output=True, check=False, timeout=200,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    before = files_of(broken)
    done = {cell for cell, record in records_of(broken).items() if "reason" not in record}
    assert done
    assert 4 <= len(records_of(broken)) < 20
    reported = []
    summary = run_benchmark(broken, request, report=reported.append)
    assert summary.before == len(done)
    assert not done & {cell_of(record) for record in reported}
    after = files_of(broken)
    assert all(after[cell.path(broken)] == before[cell.path(broken)] for cell in done)
    run_benchmark(whole, request)
    results = records_of(whole)
    assert records_of(broken).keys() == results.keys()
    for cell, record in records_of(broken).items():
        assert without_cost(record) == without_cost(results[cell])
        if "reason" not in record:
            for one, other in zip(read_predictions(broken, cell), read_predictions(whole, cell), strict=True):
                assert one.tobytes() == other.tobytes()
    for one, other in zip(*(report_benchmark(folder, resamples=200)[1] for folder in (broken, whole)), strict=True):
        texts = [path.read_text().rpartition(COST_TITLE)[0 if path.suffix == ".html" else 2] for path in (one, other)]
        assert texts[0] == texts[1]
        assert len(texts[0]) > 100


EQTL = """\
version: 1
name: variants
title: Variants
metric: auroc
files: [table.csv]
eqtl:
  length: 40
  tasks: [{name: near, from_distance: 0, to_distance: 100}, {name: far, from_distance: 100}]
  protocols:
    corrected: {c: [0.1, 1], choose_c_on: validation, scores: decision, tissue: one-hot, special_tokens: true,
                edges: lower, seeds: 2, pooled_tokens: 20}
"""


@pytest.fixture
def variants(tmp_path, random_sequences):
    """A suite of variants on three contigs, its table, and a FASTA."""
    contigs = {f"chr{number}": s for number, s in enumerate(random_sequences(4, 900, 3), start=1)}
    (tmp_path / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    rows = ["CHROM,POS,REF,ALT,tissue,label,distance_to_nearest_tss,split"]
    rng = np.random.default_rng(0)
    for name, bases in contigs.items():
        for number, place in enumerate(rng.choice(np.arange(30, 870), 24, replace=False)):
            other = "ACGT"[("ACGT".index(bases[place]) + 1) % 4]
            split = "test" if name == "chr4" else "train"
            rows.append(f"{name},{place + 1},{bases[place]},{other},blood,{number % 2},{rng.integers(200)},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "variants.yaml").write_text(EQTL)
    return tmp_path


def test_variants_are_cells_like_others(variants, model_folders):
    models = (f"fresh=random:{model_folders['mutbert']}", f"small={model_folders['mutbert']}", "gone=/nowhere")
    request = GridRequest(
        suites=(str(variants / "variants.yaml"),), data={"variants": str(variants)}, fasta=str(variants / "ref.fa"),
        models=models, protocols=("corrected",),
    )  # fmt: skip
    whole = run_benchmark(variants / "whole", request)
    results = records_of(variants / "whole")
    methods = {cell.method for cell in results}
    assert len(results) == 3 * 2 * len(methods) * 2
    assert (whole.done, whole.failed) == (2 * len(results) // 3, len(results) // 3), whole.failures
    assert {cell.task for cell in results} == {"near", "far"}
    for cell, record in results.items():
        if "reason" not in record:
            labels, scores = read_predictions(variants / "whole", cell)
            assert record["metrics"]["auroc"] == evaluate("binary", labels, scores, ["auroc"])["auroc"]
    # Fresh weights do not depend on which cell a process begins with.
    cell = next(cell for cell in reversed(results) if cell.model == "fresh")
    run_benchmark(
        variants / "part", dataclasses.replace(request, models=models[:1], tasks=(cell.task,), first_seed=2, seeds=1)
    )
    assert all((one == other).all() for one, other in zip(
        read_predictions(variants / "whole", cell), read_predictions(variants / "part", cell), strict=True
    ))  # fmt: skip
    assert run_benchmark(variants / "whole", request).before == whole.done
    report, _ = report_benchmark(variants / "whole", resamples=100)
    assert set(report.averages.select("tasks", "of_tasks").rows()) == {(2, 2)}
    # No baseline is there for variants, and none is asked for.
    assert report.notes == []
    more = dataclasses.replace(request, models=models[1:2], first_seed=3, seeds=1)
    for name, old, new, word in (
        ("ref.fa", ">chr1\n", ">chr1\nA", "reference"),
        ("variants.yaml", "to_distance: 100", "to_distance: 90", "task"),
        ("table.csv", ",blood,", ",liver,", "data"),
    ):
        folder, text = shutil.copytree(variants / "whole", variants / word), (variants / name).read_text()
        (variants / name).write_text(text.replace(old, new, 1))
        run_benchmark(folder, more)
        (variants / name).write_text(text)
        with pytest.raises(InputError, match=f"were made with different .*{word}"):
            report_benchmark(folder, resamples=100)
