"""Fine-tuning from a table to a folder that others load; interrupted, resumed, shared out."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from mutbert.errors import InputError
from mutbert.examples.files import Columns
from mutbert.export import export_model
from mutbert.inference.predictions import predict_table
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.scoring.metrics import evaluate
from mutbert.training.classifier import ClassifierTrainer
from mutbert.training.finetune import finetune, read_finetune_recipe

QUICK = ("finetune.learning_rate=3e-3", "finetune.warmup_steps=2", "finetune.batch_size=16")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small"
    torch.manual_seed(0)
    config = MutBertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    MutBertForMaskedLM(config).save_pretrained(path)
    MutBertTokenizer(model_max_length=64).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sequences():
    """Sequences of differing lengths, half of them rich in G and C."""
    rng = random.Random(1)
    return [
        ("".join(rng.choices("ACGT", weights=[1, 4, 4, 1] if number % 2 else [4, 1, 1, 4], k=rng.randint(20, 40))))
        for number in range(120)
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory, sequences):
    """The same sequences with labels of each kind."""
    folder = tmp_path_factory.mktemp("tables")
    share = [sum(base in "GC" for base in text) / len(text) for text in sequences]
    columns = {
        "binary": ("label", ["rich" if value > 0.5 else "poor" for value in share]),
        "multiclass": ("label", [str(min(2, int(3 * value))) for value in share]),
        "regression": ("label", [f"{value:.4f}" for value in share]),
        "token": ("label", ["".join(str(int(base in "GC")) for base in text) for text in sequences]),
    }
    for name, (title, values) in columns.items():
        write(folder / f"{name}.csv", ["sequence", title], zip(sequences, values, strict=True))
    several = [(text, int(value > 0.5), int("ACG" in text)) for text, value in zip(sequences, share, strict=True)]
    write(folder / "multilabel.csv", ["sequence", "rich", "acg"], several)
    return folder


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def run(model_path, table, output, *settings, **options):
    recipe = read_finetune_recipe(
        None, [f"model={model_path}", f"train={table}", f"test={table}", f"output={output}", *QUICK, *settings]
    )
    return finetune(recipe, **options)


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel", "regression"])
def test_what_is_learnt_is_saved_and_predicted(model_path, tables, tmp_path, problem):
    settings = ["columns.label=[rich,acg]"] if problem == "multilabel" else []
    result = run(model_path, tables / f"{problem}.csv", tmp_path / "run", "finetune.epochs=8", *settings)
    assert result.problem == problem
    reached = result.metrics["test"][result.metric]
    assert reached > 0.5
    assert result.interval.low <= reached <= result.interval.high

    # By the library alone, one sequence at a time.
    model = AutoModelForSequenceClassification.from_pretrained(result.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    rows = read(tmp_path / "run" / "predictions.tsv")
    assert len(rows) == 120
    texts = [row["sequence"] for row in read(tables / f"{problem}.csv")]
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]).numpy()
    if problem == "regression":
        written = [float(row["predicted_label"]) for row in rows]
        np.testing.assert_allclose(written, logits[:, 0], rtol=1e-3, atol=1e-4)
    elif problem == "multilabel":
        names = ["rich", "acg"]
        found = [" ".join(name for name, value in zip(names, row, strict=True) if value > 0) for row in logits]
        assert [row["predicted"] for row in rows] == found
    else:
        found = [model.config.id2label[int(number)] for number in logits.argmax(axis=1)]
        assert [row["predicted"] for row in rows] == found
        assert reached == pytest.approx(
            evaluate("multiclass", [model.config.label2id[row["observed"]] for row in rows], logits, ["mcc"])["mcc"]
        )

    # And by the command's own function, labels left aside.
    report = predict_table(result.model, tables / f"{problem}.csv", tmp_path / "again.tsv", columns=Columns(label=None))
    assert (report.problem, report.sequences) == (problem, 120)
    again = read(tmp_path / "again.tsv")
    shared = [name for name in again[0] if name != "name"]
    assert [[row[name] for name in shared] for row in again] == [[row[name] for name in shared] for row in rows]


def test_labels_of_bases(model_path, tables, tmp_path):
    result = run(model_path, tables / "token.csv", tmp_path / "run", "problem=token", "finetune.epochs=8")
    assert result.problem == "token"
    assert result.metrics["test"]["mcc"] > 0.9
    model = AutoModelForTokenClassification.from_pretrained(result.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    predict_table(result.model, tables / "token.csv", tmp_path / "x.tsv", columns=Columns(label=None))
    for row, source in zip(read(tmp_path / "x.tsv"), read(tables / "token.csv"), strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(source["sequence"], return_tensors="pt")).logits[0, 1:-1]
        assert row["predicted"] == " ".join(map(str, logits.argmax(dim=1).tolist()))


def test_its_card_says_what_it_reaches(model_path, tables, tmp_path):
    result = run(model_path, tables / "binary.csv", tmp_path / "run", "finetune.max_steps=3")
    report = export_model(tmp_path / "run", tmp_path / "shared")
    assert report.missing == ("licence",)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert f"| test | {result.metrics['test']['mcc']:.4f} |" in card
    counts = {count.split: count for count in result.counts}
    assert f"| test | 120 | {counts['test'].in_train} | `{counts['test'].sha256}` |" in card
    assert "pipeline_tag: text-classification" in card


def test_a_probe_is_a_classifier_on_frozen_weights(model_path, tables, tmp_path):
    result = run(model_path, tables / "binary.csv", tmp_path / "run", "finetune.method=probe")
    assert (result.steps, result.metrics["test"]["mcc"] > 0.5) == (0, True)
    before, after = load_file(model_path / "model.safetensors"), load_file(result.model / "model.safetensors")
    for name, value in after.items():
        if not name.startswith("classifier"):
            assert torch.equal(value, before[name]), name
    report = predict_table(
        result.model, tables / "binary.csv", tmp_path / "x.tsv", columns=Columns(label=None), batch_size=7
    )
    assert report.classes == ("poor", "rich")


def test_adapters_are_merged(model_path, tables, tmp_path):
    result = run(
        model_path, tables / "binary.csv", tmp_path / "run", "finetune.method=lora", "finetune.epochs=8",
        "finetune.learning_rate=2e-2",
    )  # fmt: skip
    assert result.metrics["test"]["mcc"] > 0.5
    before, after = load_file(model_path / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert not any("lora" in name for name in after)
    changed = {name for name in after if name in before and not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.split(".")[-2] in {"query", "key", "value", "dense"} for name in changed)


def test_leaks_are_counted_and_dropped(model_path, tables, tmp_path):
    table = tables / "binary.csv"
    result = run(model_path, table, tmp_path / "run", "finetune.max_steps=1")
    counts = {count.split: count for count in result.counts}
    # The test data are the training data here, a part of which was held out.
    assert counts["test"].in_train == counts["train"].examples == 120 - counts["validation"].examples
    with pytest.raises(InputError, match="none are left"):
        run(model_path, table, tmp_path / "other", "drop_leaks=true")
    assert not (tmp_path / "other").exists()


KILLED = ("finetune.max_steps=24", "finetune.eval_steps=4", "finetune.reverse_complement=true")


def test_killed_and_resumed_is_as_unbroken(model_path, tables, tmp_path):
    settings = [f"model={model_path}", f"train={tables / 'binary.csv'}", *QUICK, *KILLED]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    command = [sys.executable, "-m", "mutbert", "finetune", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, f"output={unbroken}"], check=True, capture_output=True, env=environment)
    rng = random.Random(0)
    kills = 0
    for turn in range(12):
        resume = ["--resume"] if turn else []
        with subprocess.Popen(
            [*command, f"output={broken}", *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as process:
            # Somewhere between its first checkpoint of this turn and its end.
            known = set((broken / "checkpoints").glob("*")) if broken.exists() else set()
            while process.poll() is None and set((broken / "checkpoints").glob("checkpoint-*[0-9]")) <= known:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.15)
            if process.poll() is None and kills < 3:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 1
    for name in ("history.json", "metrics.json"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (unbroken, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (broken / "best.safetensors").exists()


def test_two_processes_are_as_one(model_path, tables, tmp_path, launch):
    settings = [
        f"model={model_path}", f"train={tables / 'binary.csv'}", *QUICK, "finetune.max_steps=10",
        "finetune.eval_steps=5", "--json",
    ]  # fmt: skip
    # Processes draw their own random numbers for dropout.
    config = json.loads((model_path / "config.json").read_text())
    quiet = tmp_path / "quiet"
    model = MutBertForMaskedLM.from_pretrained(model_path)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(quiet)
    MutBertTokenizer(model_max_length=64).save_pretrained(quiet)
    assert config["hidden_dropout_prob"] > 0
    settings[0] = f"model={quiet}"
    found = []
    for count in (1, 2):
        done = launch(count, "finetune", *settings, f"output={tmp_path / str(count)}")
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout))
    for one, two in zip(found[0]["history"], found[1]["history"], strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["finetune.metric=auroc", "problem=regression"], "finetune.metric"),
        (["model=cnn"], "model cnn"),
        (["finetune.method=prob"], "method is 'prob'"),
        (["finetune.learning_rte=1"], "did you mean finetune.learning_rate"),
        (["columns.label=[nothing]"], "nothing"),
        (["model=/no/such/folder"], "no such model folder"),
        (["genome=x.genome"], "columns.region"),
        (["finetune.training.learning_rate=1"], "training.learning_rate cannot be set"),
        (["finetune.training.optim=nonsense"], "training"),
        (["seed=-1"], "seed"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(model_path, tables, tmp_path, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        run(model_path, tables / "regression.csv", tmp_path / "run", *settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("model*"))


def test_what_exists_is_kept(model_path, tables, tmp_path):
    table = tables / "binary.csv"
    run(model_path, table, tmp_path / "run", "finetune.max_steps=1")
    with pytest.raises(InputError, match="exists already"):
        run(model_path, table, tmp_path / "run", "finetune.max_steps=1")
    with pytest.raises(InputError, match="the run was started with"):
        run(model_path, table, tmp_path / "run", "finetune.max_steps=2", resume=True)
    run(model_path, table, tmp_path / "run", "finetune.max_steps=1", force=True)


def test_memory_that_runs_out_says_what_helps_and_the_run_goes_on(model_path, tables, tmp_path, monkeypatch):
    """On a smaller part of a step at once, with the same result but for rounding."""
    table, settings = tables / "binary.csv", ("finetune.max_steps=6", "finetune.eval_steps=3")
    whole = run(model_path, table, tmp_path / "whole", *settings)
    step = ClassifierTrainer.training_step

    def short_of_memory(self, *arguments, **options):
        if self.state.global_step == 4:
            raise MemoryError("cannot allocate")
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTrainer, "training_step", short_of_memory)
        with pytest.raises(InputError, match=r"smaller finetune\.micro_batch_size .* the last checkpoint is .*-3"):
            run(model_path, table, tmp_path / "run", *settings)
    result = run(model_path, table, tmp_path / "run", *settings, "finetune.micro_batch_size=8", resume=True)
    assert [entry["step"] for entry in result.history] == [entry["step"] for entry in whole.history]
    with pytest.raises(InputError, match=r"finetune\.learning_rate: 0\.003'"):
        run(model_path, table, tmp_path / "run", *settings, "finetune.learning_rate=1e-3", resume=True)


def test_one_class_alone_is_refused(model_path, tmp_path, sequences):
    write(tmp_path / "one.csv", ["sequence", "label"], [(text, 0) for text in sequences[:20]])
    for method in ("full", "probe"):
        with pytest.raises(InputError, match=r"one\.csv: the training data have one class alone"):
            run(model_path, tmp_path / "one.csv", tmp_path / "run", f"finetune.method={method}")
    assert not (tmp_path / "run").exists()
