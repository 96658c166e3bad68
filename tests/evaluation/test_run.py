"""The grid: what is done, what fails, what goes on where it stopped, and what is wrong before it costs anything."""

import dataclasses
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from mutbert import finetune, predict_table, report_benchmark, run_benchmark
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.evaluation.cells import Cell, SequenceCells, cell_of
from mutbert.evaluation.run import GridRequest, read_predictions, read_records
from mutbert.evaluation.suites import load_suite
from mutbert.examples.table import Columns
from mutbert.files import locked
from mutbert.scoring.metrics import evaluate
from mutbert.settings import read_settings
from mutbert.training.recipe import FinetuneRecipe

ONE = {"protocols": ("corrected",), "seeds": 1}
FIRST = {"tasks": ("first",), "baselines": False, **ONE}


def records_of(folder):
    return {cell_of(record): record for record in read_records(folder)}


def same_predictions(cell, *folders):
    one, other = (read_predictions(folder, cell)[1] for folder in folders)
    return (one == other).all()


def counted(done, *, failed=0, before=0, elsewhere=0):
    return {"done": done, "failed": failed, "before": before, "elsewhere": elsewhere, "failures": {}}


def files_of(folder):
    """What cells have left, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*/*") if path.suffix in {".json", ".parquet"}}


def test_every_cell_is_done_or_says_why_not_and_is_tried_again(suite, request_of, model_folders):
    folder = suite.parent
    remote = shutil.copytree(model_folders["esm"], folder / "remote")
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    places = {"mutbert": model_folders["mutbert"], "esm": model_folders["esm"], "remote": remote, "missing": "/missing"}
    models = tuple(f"{name}={place}" for name, place in places.items())
    request = request_of(suite, models=models, methods=("full", "probe"), **ONE)
    summary = run_benchmark(folder / "results", request)
    results, before = records_of(folder / "results"), files_of(folder / "results")
    both = [(name, method) for name in places for method in ("full", "probe")]
    contestants = [("kmer", ""), ("cnn", "full"), *both]
    assert results.keys() == {
        Cell("own", task, *contestant, "corrected", 1) for task in ("first", "second") for contestant in contestants
    }
    assert summary == {**counted(12, failed=8), "failures": summary["failures"]}
    assert sum(summary["failures"].values()) == 8
    reasons = {cell.model: record["reason"] for cell, record in results.items() if "reason" in record}
    assert "--trust-remote-code" in reasons.pop("remote")
    assert "/missing" in reasons.pop("missing")
    assert not reasons
    # The word is there to be found.
    assert all(record["metrics"]["mcc"] == 1 for cell, record in results.items() if cell.model == "kmer")
    assert all(min(one["cost"]["seconds"], one["cost"]["peak_memory"]) > 0 for one in results.values() if "cost" in one)
    again = run_benchmark(folder / "results", request)
    assert (again["done"], again["failed"], again["before"]) == (0, 8, 12)
    after = files_of(folder / "results")
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {p for p in after if "failed" in p.name}


def test_a_finished_grid_needs_neither_its_data_nor_its_models_and_grows(suite, request_of, model_folders):
    folder, copy = suite.parent / "results", shutil.copytree(model_folders["mutbert"], suite.parent / "copy")
    request = request_of(suite, tasks=("own/first",), models=(f"mine={copy}",), methods=("probe", "probe"), **ONE)
    assert run_benchmark(folder, request) == counted(3)
    more = dataclasses.replace(request, seeds=2)
    # The network once more, and the model; the k-mers know no seed. What is asked for twice is done once.
    assert run_benchmark(folder, more) == counted(2, before=3)
    cells = [cell for cell in records_of(folder) if cell.model == "mine"]
    assert [(cell.method, cell.seed) for cell in cells] == [("probe", 1), ("probe", 2)]
    # A probe of trained weights knows no seed either.
    assert (read_predictions(folder, cells[0])[1] == read_predictions(folder, cells[1])[1]).all()
    shutil.rmtree(copy)
    shutil.rmtree(suite.parent / "data")
    assert run_benchmark(folder, more) == counted(0, before=5)


def test_a_terminal_shows_the_cell_and_how_far_its_training_or_embedding_is(
    suite, request_of, model_folders, monkeypatch, capsys
):
    places = suite.parent / "logged", suite.parent / "shown"
    request = request_of(suite, models=(f"small={model_folders['mutbert']}",), **FIRST | {"methods": ("full", "probe")})
    run_benchmark(places[0], request, progress=True)
    # A log has lines of cells alone.
    assert re.fullmatch("benchmark: 2 of 2 cells .*\n", capsys.readouterr().err)
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    run_benchmark(places[1], request, progress=True)
    for words in (
        r"benchmark: .* 0/2 .*own/first, small \(full\), corrected, seed 1",
        r"training: .* 0/2 ",
        r"benchmark: .* 1/2 .*own/first, small \(probe\), corrected, seed 1",
        r"embedding: .* 0/80 ",
    ):
        assert re.search(words, terminal.getvalue()), terminal.getvalue()


def test_a_file_that_cannot_be_read_costs_its_own_cells_alone(tmp_path, suite, request_of):
    (suite.parent / "data" / "first" / "dev.csv").write_text("sequence,label\nACGT,7\n")
    summary = run_benchmark(tmp_path / "results", request_of(suite, **ONE))
    assert (summary["done"], summary["failed"]) == (2, 2)
    assert re.search(r"first/dev\.csv.* line 2.*'7'", *summary["failures"])


def test_fresh_weights_differ_by_seed_and_not_by_where_a_run_begins(suite, request_of, model_folders):
    models = (f"fresh=random:{model_folders['mutbert']}",)
    both = request_of(suite, models=models, **{**FIRST, "methods": ("probe", "full"), "seeds": 2})
    run_benchmark(suite.parent / "whole", both)
    cells, found = records_of(suite.parent / "whole"), {}
    assert len(cells) == 4
    for cell in reversed(cells):
        # Each by itself, as an engine would.
        alone = dataclasses.replace(both, methods=(cell.method,), first_seed=cell.seed, seeds=1)
        assert run_benchmark(suite.parent / "parts", alone)["done"] == 1
        assert same_predictions(cell, suite.parent / "whole", suite.parent / "parts")
        found[cell.method, cell.seed] = read_predictions(suite.parent / "whole", cell)[1]
    assert all((found[method, 1] != found[method, 2]).any() for method in ("probe", "full"))


def test_what_another_process_makes_is_left_to_it(suite, request_of):
    folder, request = suite.parent / "results", request_of(suite, **ONE)
    cell = Cell("own", "first", "cnn", "full", "corrected", 1)
    cell.path(folder).parent.mkdir(parents=True)
    with locked(cell.path(folder).parent):
        assert run_benchmark(folder, request) == counted(3, elsewhere=1)
    assert run_benchmark(folder, request) == counted(1, before=3)


def test_cells_of_one_protocol_have_the_same_settings(suite, request_of):
    folder = suite.parent / "results"
    request = request_of(suite, tasks=("first",), settings=("corrected.finetune.max_steps=1",), **ONE)
    assert run_benchmark(folder, request)["done"] == 2
    before = files_of(folder)
    other = dataclasses.replace(request, tasks=(), settings=("finetune.max_steps=3",))
    with pytest.raises(InputError, match="cells of corrected were made with other settings; use another folder"):
        run_benchmark(folder, other)
    assert files_of(folder) == before
    # Another protocol's may differ, and a number of seeds is none of the settings.
    assert run_benchmark(folder, dataclasses.replace(other, protocols=("published",), tasks=("first",)))["done"] == 2
    more = dataclasses.replace(request, seeds=None, settings=(*request.settings, "seeds=3"))
    assert run_benchmark(folder, more)["done"] == 2


def test_published_dynamic_scaling_reaches_the_model(tmp_path, write_rows, random_sequences, model_folders):
    """Sequences of 1,000 bases are read as published, by twice the length of training, or by what they need."""
    for split in ("train", "test"):
        rows = [(sequence, row % 2, "") for row, sequence in enumerate(random_sequences(24, 1000, len(split)))]
        write_rows(tmp_path / "H3K9ac" / f"{split}.csv", rows, ("sequence", "label", "name"))
    encoder, used = open_encoder(model_folders["mutbert"]), []
    load = encoder.body
    encoder.body = lambda longest, *, rope_scaling: used.append((longest, rope_scaling)) or load(longest)
    cells = SequenceCells(load_suite("nt"), str(tmp_path), lambda _name: encoder)
    for protocol in ("published", "corrected"):
        cells.make(Cell("nt", "H3K9ac", "m", "probe", protocol, 1))
    assert used == [(1002, {"type": "dynamic", "factor": 2.0}), (1002, None)]


@pytest.mark.parametrize("what", ["data", "model", "task"])
def test_a_report_has_no_cells_of_one_model_that_were_made_with_different_things(
    what, suite, request_of, model_folders
):
    place = shutil.copytree(model_folders["mutbert"], suite.parent / "model")
    request = request_of(suite, models=(f"small={place}",), **{**FIRST, "methods": ("probe",)})
    run_benchmark(suite.parent / "results", request)
    path, old, new = {
        "model": (place / "config.json", "{", '{"layer_norm_eps": 1e-6,'),
        "data": (suite.parent / "data" / "first" / "dev.csv", "A,", "C,"),
        "task": (suite, "{name: first,", '{name: first, classes: ["1", "0"],'),
    }[what]
    path.write_text(path.read_text().replace(old, new, 1))
    assert run_benchmark(suite.parent / "results", dataclasses.replace(request, first_seed=2))["done"] == 1
    with pytest.raises(InputError, match=f"small .* were made with different .*{what}"):
        report_benchmark(suite.parent / "results", resamples=100)


def test_frequencies_are_read_by_mutbert_where_coordinates_are_known(
    suite, request_of, write_rows, write_genome, model_folders
):
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 4000))
    variants = dict.fromkeys(range(2, 4000, 5), (0.5, 0.25, 0.25, 0))
    store = write_genome(suite.parent / "small.genome", {"chr1": bases}, {"chr1": variants})
    suite.write_text(suite.read_text().replace("tasks:\n", "columns: {label: [label], region: place}\ntasks:\n", 1))
    starts = iter(range(0, 4000, 36))
    for split, count in (("train", 48), ("dev", 16), ("test", 16)):
        rows = [(bases[at : at + 36], row % 2, f"1:{at}-{at + 36}") for row, at in zip(range(count), starts)]  # noqa: B905
        if split == "test":
            # One that is nowhere, and one that has other bases than the genome there.
            rows[:2] = (*rows[0][:2], "chr9:0-36"), ("A" * 36, *rows[1][1:])
        write_rows(suite.parent / "data" / "first" / f"{split}.csv", rows, ("sequence", "label", "place"))
    models = tuple(f"{name}={model_folders[name]}" for name in ("mutbert", "esm"))
    request = request_of(suite, models=models, **{**FIRST, "methods": ("probe",)})
    run_benchmark(suite.parent / "without", request)
    assert not run_benchmark(suite.parent / "with", dataclasses.replace(request, genome=str(store)))["failed"]
    for cell, record in records_of(suite.parent / "with").items():
        assert same_predictions(cell, suite.parent / "without", suite.parent / "with") == (cell.model == "esm")
        unplaced = {"no place in the genome": 1, "other bases than the genome has there": 1}
        assert record["unplaced"] == (unplaced if cell.model == "mutbert" else {})
    notes = report_benchmark(suite.parent / "with", resamples=100)[0].notes
    assert "own/first: 1 sequences read without frequencies: no place in the genome" in notes


def test_what_is_missing_or_wrong_is_an_error_before_anything_is_run(suite, request_of, tmp_path):
    (tmp_path / "file.csv").write_text("sequence,label\nACGT,1\n")
    shutil.copytree(suite.parent / "data", tmp_path / "partly")
    (tmp_path / "partly" / "second" / "test.csv").unlink()
    eqtl = {"suites": ("eqtl",), "models": ("m=nowhere",), "data": (str(tmp_path / "file.csv"),)}
    for message, changes in (
        ("no suite was given", {"suites": ()}),
        ("own: where are its files?", {"data": ()}),
        ("--data other: expected SUITE=PATH, with a suite of this run: own", {"data": ("other=x",)}),
        ("nowhere: has none of first/train.csv", {"data": ("nowhere",)}),
        ("has none of second/test.csv", {"data": (f"own={tmp_path / 'partly'}",)}),
        ("method fast: choose one of full, lora, probe", {"methods": ("fast",)}),
        ("protocol best: choose one of published, corrected", {"protocols": ("best",)}),
        ("seeds 0: at least 1", {"seeds": 0}),
        ("--model kmer=x: expected NAME=PATH", {"models": ("kmer=x",)}),
        ("--model a=y: expected NAME=PATH, each name once", {"models": ("a=x", "a=y")}),
        ("task third: there is none of this name; there are first, own/first, own/second", {"tasks": ("third",)}),
        ("suite own comes twice", {"suites": (str(suite), str(suite))}),
        ("unknown key finetune.epoch; did you mean finetune.epochs", {"settings": ("corrected.finetune.epoch=3",)}),
        ("nothing to run", {"baselines": False}),
        ("no.genome", {"genome": str(tmp_path / "no.genome")}),
        ("eqtl: needs the reference", eqtl),
        ("eqtl: there is no reference ref.fa", {**eqtl, "fasta": "ref.fa"}),
        ("has none of variant_effect", {**eqtl, "data": (str(tmp_path / "partly"),), "fasta": str(suite)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            run_benchmark(tmp_path / "results", request_of(suite, **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "results").exists()


def test_a_grid_that_is_killed_goes_on_where_it_was(suite, request_of, model_folders):
    place = model_folders["mutbert"]
    models = (f"small={place}", f"gone={place}-is-not-there")
    request = request_of(suite, models=models, methods=("probe",), protocols=("corrected",))
    broken, whole = suite.parent / "broken", suite.parent / "whole"
    words = ["-o", broken, "--suite", suite, "--data", suite.parent / "data", "--method", "probe", "--protocol",
             "corrected", *(word for model in models for word in ("--model", model))]  # fmt: skip
    command = [sys.executable, "-P", "-m", "mutbert", "bench", "run", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len([path for path in files_of(broken) if path.suffix == ".json"]) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = files_of(broken)
    done = [cell.path(broken) for cell, record in records_of(broken).items() if "reason" not in record]
    assert 0 < len(done) < 10
    summary = run_benchmark(broken, request)
    assert (summary["before"], summary["done"]) == (len(done), 10 - len(done))
    run_benchmark(whole, request)
    after, results = files_of(broken), records_of(whole)
    assert all(after[path] == before[path] for path in done)
    assert records_of(broken).keys() == results.keys()
    for cell, record in records_of(broken).items():
        assert {**record, "cost": 0} == {**results[cell], "cost": 0}
        assert "reason" in record or same_predictions(cell, broken, whole)


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
    """A suite of variants on four contigs, its table, and a FASTA."""
    contigs = {f"chr{number}": bases for number, bases in enumerate(random_sequences(4, 900, 3), start=1)}
    (tmp_path / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    rows, rng = ["CHROM,POS,REF,ALT,tissue,label,distance_to_nearest_tss,split"], np.random.default_rng(0)
    for name, bases in contigs.items():
        for number, place in enumerate(rng.choice(np.arange(30, 870), 24, replace=False)):
            change = f"{bases[place]},{bases[place].translate(str.maketrans('ACGT', 'CGTA'))}"
            end = f"{rng.integers(200)},{'test' if name == 'chr4' else 'train'}"
            rows.append(f"{name},{place + 1},{change},blood,{number % 2},{end}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "variants.yaml").write_text(EQTL)
    return tmp_path


def test_variants_are_cells_like_others(variants, model_folders):
    models = (f"fresh=random:{model_folders['mutbert']}", f"small={model_folders['mutbert']}", "gone=/nowhere")
    request = GridRequest(
        (str(variants / "variants.yaml"),), (str(variants),), models, protocols=("corrected",),
        fasta=str(variants / "ref.fa"),
    )  # fmt: skip
    whole, part = variants / "whole", variants / "part"
    summary, results = run_benchmark(whole, request), records_of(whole)
    assert {cell.task for cell in results} == {"near", "far"}
    assert (len(results), summary["done"], summary["failed"]) == (48, 32, 16), summary["failures"]
    for cell, record in results.items():
        if "reason" not in record:
            assert record["metrics"]["auroc"] == evaluate("binary", *read_predictions(whole, cell), ["auroc"])["auroc"]
    # Fresh weights do not depend on which cell a process begins with.
    cell = next(cell for cell in reversed(results) if cell.model == "fresh")
    run_benchmark(part, dataclasses.replace(request, models=models[:1], tasks=(cell.task,), first_seed=2, seeds=1))
    assert same_predictions(cell, whole, part)
    # There is no baseline for variants, and none is missed.
    assert report_benchmark(whole, resamples=100)[0].notes == []
    (variants / "ref.fa").write_text(">chr5\nACGT\n" + (variants / "ref.fa").read_text())
    run_benchmark(whole, dataclasses.replace(request, models=models[1:2], first_seed=3, seeds=1))
    with pytest.raises(InputError, match="were made with different reference"):
        report_benchmark(whole, resamples=100)


PEERS = {"dnabert2": "lora", "nt-500m-1000g": "full", "ntv2-50m": "probe", "caduceus-ph": "full", "caduceus-ps": "lora"}


@pytest.mark.parametrize("name", list(PEERS))
def test_a_fine_tuned_model_predicts_what_the_grid_does(name, suite, request_of, peer_folders):
    method, folder, data = PEERS[name], peer_folders[name], suite.parent / "data" / "first"
    request = request_of(
        suite, models=(f"{name}={folder}",), methods=(method,), protocols=("corrected",), tasks=("first",), seeds=1,
        baselines=False,
    )  # fmt: skip
    assert run_benchmark(suite.parent / "results", request)["done"] == 1
    # As conftest's suite has them.
    own = (f"method={method}", "learning_rate=1e-3", "max_steps=2", "warmup_steps=0", "batch_size=16", "metric=mcc")
    words = [f"train={data / 'train.csv'}", f"validation={data / 'dev.csv'}", f"output={suite.parent / 'run'}"]
    words += ["seed=1", f"model={folder}", *(f"finetune.{setting}" for setting in own)]
    finetune(read_settings(FinetuneRecipe, None, words))
    predict_table(suite.parent / "run" / "model", data / "test.csv", suite.parent / "out.csv", columns=Columns())
    probability = pl.read_csv(suite.parent / "out.csv")["p_1"].to_numpy()
    _, seen = read_predictions(suite.parent / "results", Cell("own", "first", name, method, "corrected", 1))
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-seen.astype(np.float64))), atol=2e-6)
    assert np.ptp(probability) > 0
