"""Fine-tuning from a table to a folder that others load; interrupted, killed, resumed."""

import csv
import json
import multiprocessing
import time

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.predictions import predict_table
from mutbert.model import MutBertForSequenceClassification
from mutbert.scoring.metrics import evaluate, read_predictions
from mutbert.training.finetune import finetune, read_finetune_recipe

QUICK = ("finetune.learning_rate=3e-3", "finetune.warmup_steps=2", "finetune.batch_size=16")


@pytest.fixture
def run(model_folders, tables, tmp_path):
    """Fine-tune on a table, which is the test data too; into the folder ``run`` unless the settings say otherwise."""

    def run(name, *settings, resume=False, force=False):
        table = tables / f"{name}.csv"
        words = [f"model={model_folders['mutbert']}", f"train={table}", f"test={table}", f"output={tmp_path / 'run'}"]
        return finetune(read_finetune_recipe(None, [*words, *QUICK, *settings]), resume=resume, force=force)

    return run


def sequences(table):
    with table.open(newline="") as file:
        return [row["sequence"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel", "regression"])
def test_what_is_learnt_is_saved_and_predicted(run, tables, tmp_path, problem):
    result = run(problem, "finetune.epochs=8", *["columns.label=[rich,acg]"] * (problem == "multilabel"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == result.metrics
    assert (metrics["kind"], metrics["version"], metrics["problem"]) == ("finetune", 2, problem)
    reached, interval = metrics["metrics"]["test"][metrics["metric"]], metrics["interval"]
    assert reached > 0.45
    assert interval["low"] <= reached <= interval["high"]
    best = next(one for one in result.history if one["step"] == metrics["best_step"] and "eval_loss" in one)
    assert metrics["metrics"]["validation"] == {name: best[f"eval_{name}"] for name in metrics["metrics"]["test"]}

    # By the library alone, one sequence at a time.
    model = AutoModelForSequenceClassification.from_pretrained(result.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    with torch.no_grad():
        texts = sequences(tables / f"{problem}.csv")
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]).numpy()
    labels, scores = read_predictions(tmp_path / "run" / "predictions.parquet")
    wanted = logits[:, 1] - logits[:, 0] if problem == "binary" else logits.reshape(scores.shape)
    np.testing.assert_allclose(scores, wanted, atol=1e-4, rtol=1e-3)
    assert evaluate(problem, labels, scores) == pytest.approx(metrics["metrics"]["test"])

    # And by the function of the command, labels left aside.
    predict_table(result.model, tables / f"{problem}.csv", tmp_path / "again.parquet", columns=Columns(label=()))
    again = pl.read_parquet(tmp_path / "again.parquet")
    if problem == "regression":
        np.testing.assert_allclose(again["predicted_label"], scores, atol=1e-5)
    elif problem != "multilabel":
        chosen = wanted > 0 if problem == "binary" else scores.argmax(axis=1)
        assert again["predicted"].to_list() == [metrics["classes"][int(number)] for number in chosen]


def test_labels_of_bases(run, tables, tmp_path):
    result = run("token", "problem=token", "finetune.epochs=8", "finetune.max_tokens=30")
    assert result.metrics["metrics"]["test"]["mcc"] > 0.9
    frame = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    texts = [text[:28] for text in sequences(tables / "token.csv")]
    assert frame["name"].to_list() == [str(row) for row, text in enumerate(texts) for _ in text]
    assert frame["label"].to_list() == [int(base in "GC") for text in texts for base in text]


@pytest.mark.parametrize("method", ["probe", "lora"])
def test_other_methods_leave_a_whole_model(run, model_folders, tables, tmp_path, method):
    result = run("binary", f"finetune.method={method}", "finetune.epochs=8", "finetune.learning_rate=2e-2")
    assert result.metrics["metrics"]["test"]["mcc"] > 0.5
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folders["mutbert"], result.model))
    changed = {name for name in after if name in before and not torch.equal(after[name], before[name])}
    # Adapters are merged.
    assert not any("lora" in name for name in after)
    adapted = {"query", "key", "value", "dense"} if method == "lora" else set()
    assert {name.split(".")[-2] for name in changed} == adapted


def test_leaks_are_counted_and_dropped(run, tmp_path):
    result = run("binary", "finetune.max_steps=1")
    counts = {count["split"]: count for count in result.metrics["splits"]}
    # The test data are the training data here, a part of which was held out.
    assert counts["test"]["in_train"] == counts["train"]["examples"] == 120 - counts["validation"]["examples"]
    with pytest.raises(InputError, match="none are left"):
        run("binary", "drop_leaks=true", f"output={tmp_path / 'other'}")
    assert not (tmp_path / "other").exists()


LONGER = ("finetune.max_steps=24", "finetune.eval_steps=4", "finetune.reverse_complement=true")


def test_killed_and_resumed_is_as_unbroken(run, model_folders, tables, tmp_path, monkeypatch, same_weights):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, parts = tmp_path / "whole", tmp_path / "run"
    run("binary", *LONGER, f"output={whole}")
    table = tables / "binary.csv"
    words = [f"model={model_folders['mutbert']}", f"train={table}", f"test={table}", f"output={parts}", *QUICK, *LONGER]
    process = multiprocessing.get_context("spawn").Process(target=finetune, args=(read_finetune_recipe(None, words),))
    process.start()
    while process.is_alive() and not (parts / "checkpoints" / "checkpoint-8").exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (parts / "model").exists()
    run("binary", *LONGER, resume=True)
    for name in ("history.json", "predictions.parquet"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert same_weights(parts / "model", whole / "model")


@pytest.mark.parametrize(("method", "at"), [("full", 1), ("full", 9), ("lora", 10)])
def test_interrupted_at_any_step_it_is_resumed(run, tmp_path, fail, monkeypatch, method, at):
    words = (*LONGER, f"finetune.method={method}", "finetune.patience=2")
    whole = run("binary", *words, f"output={tmp_path / 'whole'}")
    fail(MutBertForSequenceClassification, at=at, error=KeyboardInterrupt())
    try:
        run("binary", *words)
    except KeyboardInterrupt:
        monkeypatch.undo()
        result = run("binary", *words, resume=True)
        assert result.history == whole.history
        assert result.metrics["best_step"] == whole.metrics["best_step"]


def test_stopped_early_and_failing_afterwards_it_takes_no_further_step(run, monkeypatch):
    words = ("finetune.max_steps=24", "finetune.eval_steps=1", "finetune.learning_rate=1e-20", "finetune.patience=3")
    monkeypatch.setattr("mutbert.training.finetune.write_predictions", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("binary", *words)
    monkeypatch.undo()
    result = run("binary", *words, resume=True)
    assert (result.metrics["best_step"], result.metrics["steps"]) == (1, 4)
    assert [one["step"] for one in result.history if "eval_loss" in one] == [1, 2, 3, 4]


WRONG = {
    "finetune.metric=auroc": "finetune.metric",
    "model=cnn": "model cnn",
    "finetune.method=prob": "finetune.method",
    "finetune.learning_rte=1": "did you mean finetune.learning_rate",
    "columns.label=[nothing]": "nothing",
    "model=/no/such/folder": "no such model folder",
    "genome=x.genome": "columns.region",
    "finetune.training.learning_rate=1": "training.learning_rate cannot be set",
    "finetune.training.loging_steps=1": "did you mean training.logging_steps",
    "finetune.training.optim=nonsense": "training: ",
    "finetune.training.optim=lomo": "training: ",
    "finetune.training.lr_scheduler_kwargs={foo: 1}": "training: ",
    "finetune.class_weights=balanced": "labels are numbers",
    "problem=token": "label",
    "train=one.csv": r"one\.csv: the training data have one class alone",
}


@pytest.mark.parametrize("setting", WRONG)
def test_what_cannot_be_trained_is_an_error_before_an_old_run_is_replaced(run, tmp_path, monkeypatch, setting):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.csv").write_text("sequence,label\nACGT,0\nACGA,0\nACCA,0\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("of an old run")
    words = ["problem=binary", "test=null"] if "one.csv" in setting else []
    with pytest.raises(InputError, match=WRONG[setting]) as caught:
        run("regression", setting, *words, force=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_what_exists_is_kept(run):
    run("binary", "finetune.max_steps=1")
    with pytest.raises(InputError, match="exists already"):
        run("binary", "finetune.max_steps=1")
    with pytest.raises(InputError, match="the run was started with"):
        run("binary", "finetune.max_steps=2", resume=True)
    run("binary", "finetune.max_steps=1", force=True)
