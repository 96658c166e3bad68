"""The grid: what is done, what fails, what goes on where it stopped, and what is refused before it costs anything."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.evaluation.results import DONE, FAILED, Cell, read_predictions, read_results
from mutbert.evaluation.run import GridRequest, run_benchmark
from mutbert.evaluation.summary import report_benchmark
from mutbert.examples.columns import Columns
from mutbert.examples.files import read_examples
from mutbert.reports.benchmark import COST_TITLE
from mutbert.scoring.metrics import evaluate

ONE = {"protocols": ("corrected",), "seeds": 1}


def lines_of(folder, shard="1-of-1"):
    path = folder / "shards" / shard / "cells.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def without_cost(line):
    values = json.loads(line)
    values.pop("cost", None)
    return values


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
    told = []
    return folder, request, run_benchmark(folder / "results", request, report=told.append), told


def test_every_cell_is_done_or_says_why_not(grid):
    folder, _, summary, told = grid
    results = read_results(folder / "results")
    models = ("mutbert", "esm", "bert", "remote", "missing")
    expected = {
        Cell("own", task, model, method, "corrected", 1)
        for task in ("first", "second")
        for model, method in [
            ("kmer", ""), ("cnn", "full"), *((model, method) for model in models for method in ("full", "probe"))
        ]
    }  # fmt: skip
    assert results.keys() == expected
    assert [entry.cell for entry in told] == list(results)
    failed = {cell for cell, entry in results.items() if entry.status == FAILED}
    assert {cell.model for cell in failed} == {"remote", "missing"}
    assert (summary.done, summary.failed, summary.before, summary.elsewhere) == (16, 8, 0, 0)
    assert sum(summary.failures.values()) == 8
    reasons = {cell.model: results[cell].values["reason"] for cell in failed}
    assert "--trust-remote-code" in reasons["remote"]
    assert str(folder / "missing") in reasons["missing"]
    assert all("\n" not in reason for reason in reasons.values())


def test_numbers_are_those_of_the_predictions(grid):
    folder, *_ = grid
    for cell, entry in read_results(folder / "results").items():
        if entry.status != DONE:
            continue
        found = read_predictions(folder / "results", cell)
        labels = read_examples(folder / "data" / cell.task / "test.csv", Columns(label="label"))[0].known_labels
        assert (found.labels == labels).all()
        values = evaluate("binary", found.labels, found.scores)
        expected = {name: None if np.isnan(value) else value for name, value in values.items()}
        assert entry.values["metrics"] == expected
        assert entry.values["metric"] == "mcc"
        assert entry.values["smoke"] == ""
        assert [split["examples"] for split in entry.values["splits"]] == [48, 16, 16]
        assert entry.values["cost"]["seconds"] > 0
        assert entry.values["cost"]["peak_memory"] > 0
        assert (entry.values["parameters"] is None) == (cell.model == "kmer")
        if cell.method == "full":
            assert entry.values["chosen"]["of"] == 2
    kmer = [entry for cell, entry in read_results(folder / "results").items() if cell.model == "kmer"]
    # The word is there to be found.
    assert [entry.values["metrics"]["mcc"] for entry in kmer] == [1.0, 1.0]


def test_what_is_done_is_not_done_again_and_what_failed_is_tried(grid):
    folder, request, *_ = grid
    before = lines_of(folder / "results")
    told = []
    summary = run_benchmark(folder / "results", request, report=told.append)
    assert (summary.done, summary.failed, summary.before) == (0, 8, 16)
    after = lines_of(folder / "results")
    assert after[: len(before)] == before
    assert {entry.cell.model for entry in told} == {"remote", "missing"}
    assert len(after) == len(before) + 8
    assert len(read_results(folder / "results")) == len(before)


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
    cells = [cell for cell in read_results(folder) if cell.model == "small"]
    assert [(cell.method, cell.seed) for cell in cells] == [("probe", 1), ("probe", 2)]
    one, two = (read_predictions(folder, cell).scores for cell in cells)
    # A probe of trained weights knows no seed either.
    assert (one == two).all()


def test_fresh_weights_differ_by_seed_and_not_by_where_a_run_begins(suite, request_of, model_folders):
    models = (f"fresh=random:{model_folders['mutbert']}",)
    both = request_of(suite, tasks=("first",), models=models, methods=("probe", "full"), baselines=False,
                      protocols=("corrected",))  # fmt: skip
    run_benchmark(suite.parent / "whole", both)
    for part in (1, 2, 3):
        # One process a cell, but for one that does two.
        run_benchmark(suite.parent / "parts", GridRequest(**{**vars(both), "shard": (part, 3)}))
    cells = read_results(suite.parent / "whole")
    assert read_results(suite.parent / "parts").keys() == cells.keys()
    assert len(cells) == 4
    found = {}
    for cell in cells:
        whole, part = (read_predictions(suite.parent / name, cell).scores for name in ("whole", "parts"))
        assert (whole == part).all()
        found[cell.method, cell.seed] = whole
    assert (found["probe", 1] != found["probe", 2]).any()
    assert (found["full", 1] != found["full", 2]).any()


def test_shards_are_a_partition(suite, request_of):
    folder = suite.parent / "results"
    every = {}
    for part in (1, 2, 3):
        request = request_of(suite, shard=(part, 3), settings=("finetune.max_steps=1",))
        summary = run_benchmark(folder, request)
        own = [json.loads(line) for line in lines_of(folder, f"{part}-of-3")]
        assert (summary.done, summary.elsewhere) == (len(own), 10 - len(own))
        assert len(own) in {3, 4}
        for line in own:
            cell = Cell(**{name: line[name] for name in Cell._fields})
            assert cell not in every
            every[cell] = line
    assert len(every) == 10
    # A whole run finds nothing left to do.
    summary = run_benchmark(folder, request_of(suite, settings=("finetune.max_steps=1",)))
    assert (summary.done, summary.before) == (0, 10)


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
        run_benchmark(suite.parent / name, GridRequest(**{**vars(request), "drop_leaks": drop}))
        for entry in read_results(suite.parent / name).values():
            found = [(split["examples"], split["in_train"], split["dropped"]) for split in entry.values["splits"]]
            assert found == counts
    with pytest.raises(InputError, match="was done with another data"):
        run_benchmark(suite.parent / "kept", GridRequest(**{**vars(request), "drop_leaks": True}))


def test_other_data_models_or_settings_under_the_same_results_are_refused(suite, request_of, model_folders):
    folder, place = suite.parent / "results", shutil.copytree(model_folders["mutbert"], suite.parent / "model")
    request = request_of(suite, tasks=("first",), models=(f"small={place}",), baselines=False, **ONE)

    def refused(message, **changes):
        before = lines_of(folder)
        with pytest.raises(InputError, match=message):
            run_benchmark(folder, GridRequest(**{**vars(request), **changes}))
        assert lines_of(folder) == before

    assert run_benchmark(folder, request).done == 1
    refused("was done with another settings", settings=("finetune.learning_rate=1e-5",))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    refused("was done with another model; choose another folder of results, or give the model another name")
    (place / "config.json").write_text(json.dumps(config))
    table = suite.parent / "data" / "first" / "dev.csv"
    text = table.read_text()
    table.write_text(text.replace("A,", "C,", 1))
    refused(r"own/first, small \(full\), corrected, seed 1 was done with another data")
    table.write_text(text)
    suite.write_text(suite.read_text().replace("{name: first,", '{name: first, classes: ["1", "0"],'))
    refused("was done with another task")


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
    results = read_results(tmp_path / "results")
    assert len(results) == 6
    # Labels of single bases are for those that read single bases, and are trained.
    failed = {(cell.model, cell.method) for cell, entry in results.items() if entry.status == FAILED}
    expected = {("kmer", ""), ("mutbert", "probe"), ("bert", "full"), ("bert", "probe")} if kind == "token" else set()
    assert failed == expected, [entry.values.get("reason") for entry in results.values()]
    shape = {"multiclass": (18, 3), "multilabel": (18, 2), "regression": (18,), "two numbers": (18, 2), "token": (540,)}
    problem = {"two numbers": "regression", "token": "binary"}.get(kind, kind)
    for cell, entry in results.items():
        if entry.status == DONE:
            assert entry.values["problem"] == problem
            found = read_predictions(tmp_path / "results", cell)
            assert found.scores.shape == shape[kind]
            value = evaluate(problem, found.labels, found.scores, [entry.values["metric"]])[entry.values["metric"]]
            assert entry.values["metrics"][entry.values["metric"]] == pytest.approx(value)
    if kind == "token":
        text = (tmp_path / "data" / "it" / "test.csv").read_text().splitlines()[1:]
        wanted = [int(digit) for line in text for digit in line.split(",")[1]]
        cell = next(cell for cell in results if cell.model == "cnn")
        assert read_predictions(tmp_path / "results", cell).labels.tolist() == wanted
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
    request = GridRequest(**{**vars(request), "genome": str(store)})
    assert run_benchmark(suite.parent / "with", request).failed == 0
    for cell, entry in read_results(suite.parent / "with").items():
        without, found = (read_predictions(suite.parent / name, cell).scores for name in ("without", "with"))
        assert (without != found).any() == (cell.model == "mutbert")
        unplaced = {"no place in the genome": 1, "other bases than the genome has there": 1}
        assert entry.values.get("unplaced") == (unplaced if cell.model == "mutbert" else None)
    report, _ = report_benchmark(suite.parent / "with", resamples=100)
    assert "own/first: 1 sequences read without frequencies: no place in the genome" in report.notes
    with pytest.raises(InputError, match="was done with another settings"):
        run_benchmark(suite.parent / "without", request)


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
        ("is a file, and the own suite has a folder", {"data": {"own": str(tmp_path / "file.csv")}}),
        ("method fast: choose of full, lora, probe", {"methods": ("fast",)}),
        ("protocol best: choose of published, corrected", {"protocols": ("best",)}),
        ("shard 3/2:", {"shard": (3, 2)}),
        ("shard 0/2:", {"shard": (0, 2)}),
        ("seeds 0: give at least 1", {"seeds": 0}),
        ("model kmer=x: give NAME=PLACE, with another name", {"models": ("kmer=x",)}),
        ("model a=: give NAME=PLACE", {"models": ("a=",)}),
        ("model a is given twice", {"models": ("a=x", "a=y")}),
        ("task third: there is none of this name; there are first, own/first, own/second", {"tasks": ("third",)}),
        ("suite own is given twice", {"suites": (str(suite), str(suite))}),
        ("unknown key seds; did you mean seeds", {"settings": ("seds=3",)}),
        ("unknown key finetune.epoch; did you mean finetune.epochs", {"settings": ("corrected.finetune.epoch=3",)}),
        ("learning_rate is 0.0", {"settings": ("published.finetune.learning_rate=0",)}),
        ("nothing to run", {"baselines": False}),
        ("no.genome", {"genome": str(tmp_path / "no.genome")}),
        ("eqtl: needs the reference", {**eqtl, "data": {"eqtl": str(tmp_path / "eqtl.csv")}}),
        ("ref.fa: there is no such file", {**eqtl, "data": {"eqtl": str(tmp_path / "eqtl.csv")}, "fasta": "ref.fa"}),
        ("has none of variant_effect", {**eqtl, "data": {"eqtl": str(tmp_path / "partly")}, "fasta": str(suite)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            run_benchmark(tmp_path / "results", request_of(suite, **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "results").exists()
    # What is there can be run alone.
    only = request_of(suite, data={"own": str(tmp_path / "partly")}, tasks=("first",), **ONE)
    assert run_benchmark(tmp_path / "results", only).done == 2


def test_a_file_that_cannot_be_read_costs_its_own_cells_alone(suite, request_of):
    (suite.parent / "data" / "first" / "dev.csv").write_text("sequence,label\nACGT,7\n")
    (suite.parent / "data" / "second" / "dev.csv").unlink()
    summary = run_benchmark(suite.parent / "results", request_of(suite, **ONE))
    assert (summary.done, summary.failed) == (0, 4)
    reasons = sorted(summary.failures)
    assert re.search(r"first/dev\.csv.* line 2.*'7' is not one of the classes", reasons[0])
    assert "there is no file of validation data" in reasons[1]


def test_one_seed_of_chance_alone_gives_the_same_numbers_again(suite, request_of):
    request = request_of(suite, tasks=("second",), **ONE)
    for name in ("once", "again"):
        run_benchmark(suite.parent / name, request)
    once, again = ([without_cost(line) for line in lines_of(suite.parent / name)] for name in ("once", "again"))
    assert once == again


KILLED = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from mutbert.evaluation.run import GridRequest, run_benchmark
suite, data, results, model = sys.argv[1:]
count = 0
def told(result):
    global count
    count += 1
    if count == 4:
        # In the middle of the next one.
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
request = GridRequest(
    suites=(suite,), data={"own": data}, models=("small=" + model, "gone=" + model + "-is-not-there"),
    methods=("full", "probe"), protocols=("corrected",),
)
run_benchmark(results, request, report=told)
"""


def up_to_cost(path):
    text = path.read_text()
    assert path.suffix == ".csv" or COST_TITLE in text
    return text.rpartition(COST_TITLE)[0] if path.suffix != ".csv" else text


def test_a_grid_that_is_killed_goes_on_where_it_was(
    tmp_path, write_tasks, request_of, model_folders, quiet_environment
):
    suite = write_tasks(tmp_path)
    place = model_folders["mutbert"]
    models = (f"small={place}", f"gone={place}-is-not-there")
    request = request_of(suite, models=models, methods=("full", "probe"), protocols=("corrected",))
    # Reports bear the name of the folder.
    broken, whole = tmp_path / "broken" / "results", tmp_path / "whole" / "results"
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(suite), str(suite.parent / "data"), str(broken), str(place)],
        env=quiet_environment, capture_output=True, check=False, timeout=200,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    before = lines_of(broken)
    assert 4 <= len(before) < 20
    cells = {line: json.loads(line) for line in before}
    done = [line for line in before if cells[line]["status"] == DONE]
    assert done
    told = []
    summary = run_benchmark(broken, request, report=told.append)
    after = lines_of(broken)
    assert after[: len(before)] == before
    assert summary.before == len(done)
    again = {entry.cell for entry in told}
    assert not again & {Cell(**{name: cells[line][name] for name in Cell._fields}) for line in done}
    run_benchmark(whole, request)
    results = read_results(whole)
    assert read_results(broken).keys() == results.keys()
    for cell, entry in read_results(broken).items():
        assert without_cost(entry.as_json()) == without_cost(results[cell].as_json())
        if entry.status == DONE:
            for one, other in zip(read_predictions(broken, cell), read_predictions(whole, cell), strict=True):
                assert one.tobytes() == other.tobytes()
    reports = [report_benchmark(folder, resamples=200)[1] for folder in (broken, whole)]
    for one, other in zip(*reports, strict=True):
        assert one.name == other.name
        assert up_to_cost(one) == up_to_cost(other)
        assert len(up_to_cost(one)) > 100


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
    results = read_results(variants / "whole")
    methods = {cell.method for cell in results}
    assert len(results) == 3 * 2 * len(methods) * 2
    assert (whole.done, whole.failed) == (2 * len(results) // 3, len(results) // 3)
    assert {cell.task for cell in results} == {"near", "far"}
    for cell, entry in results.items():
        if entry.status == DONE:
            found = read_predictions(variants / "whole", cell)
            assert entry.values["metrics"]["auroc"] == pytest.approx(
                evaluate("binary", found.labels, found.scores, ["auroc"])["auroc"]
            )
    # Fresh weights do not depend on which cell a process begins with.
    for part in (2, 1, 3):
        run_benchmark(variants / "parts", GridRequest(**{**vars(request), "shard": (part, 3)}))
    assert read_results(variants / "parts").keys() == results.keys()
    for cell, entry in results.items():
        if entry.status == DONE:
            one, other = (read_predictions(variants / name, cell).scores for name in ("whole", "parts"))
            assert (one == other).all()
    assert run_benchmark(variants / "whole", request).before == whole.done
    report, _ = report_benchmark(variants / "whole", resamples=100)
    assert {(row.tasks, row.of_tasks) for row in report.averages} == {(2, 2)}
    # No baseline is there for variants, and none is asked for.
    assert report.notes == ()
    for name, old, new, word in (
        ("ref.fa", ">chr1\n", ">chr1\nA", "reference"),
        ("variants.yaml", "to_distance: 100", "to_distance: 90", "task"),
        ("table.csv", ",blood,", ",liver,", "data"),
        ("variants.yaml", "c: [0.1, 1]", "c: [0.1, 2]", "settings"),
    ):
        text = (variants / name).read_text()
        (variants / name).write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=rf"was done with another .*{word}"):
            run_benchmark(variants / "whole", request)
        (variants / name).write_text(text)


def test_a_finished_cell_outlives_its_model(tmp_path, suite, request_of, model_folders):
    copy = shutil.copytree(model_folders["mutbert"], tmp_path / "copy")
    request = request_of(suite, models=(f"mine={copy}",), **ONE)
    first = run_benchmark(tmp_path / "results", request)
    assert (first.failed, first.before) == (0, 0)
    shutil.rmtree(copy)
    again = run_benchmark(tmp_path / "results", request)
    assert (again.done, again.failed, again.before) == (0, 0, first.done)


def test_what_cannot_be_had_is_asked_for_once(tmp_path, suite, request_of, monkeypatch):
    asked = Counter()

    def in_vain(name, error):
        def ask(*_arguments, **_settings):
            asked[name] += 1
            raise InputError(error)

        return ask

    monkeypatch.setattr("mutbert.evaluation.run.open_encoder", in_vain("model", "no such model"))
    summary = run_benchmark(tmp_path / "a", request_of(suite, models=("x=some/where",), baselines=False, seeds=3))
    assert (summary.done, summary.failures, asked["model"]) == (0, {"no such model": summary.failed}, 1)
    monkeypatch.setattr("mutbert.evaluation.sequence_grid.load_task", in_vain("data", "no such data"))
    summary = run_benchmark(tmp_path / "b", request_of(suite, tasks=("first",), protocols=("corrected",), seeds=3))
    assert (summary.done, summary.failures) == (0, {"no such data": summary.failed})
    assert asked["data"] == 1
    assert len({cell.seed for cell in read_results(tmp_path / "b")}) == 3
