"""A fine-tuned model reads as it was trained, each sequence for itself; and what becomes of long ones."""

import itertools
import json
import random

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mutbert import MutBertConfig, alphabet, embed, predict_table
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.genome.store import ProbabilisticGenome
from mutbert.scoring.metrics import read_predictions
from mutbert.settings import read_settings
from mutbert.training.finetune import finetune
from mutbert.training.recipe import FinetuneRecipe

SCALINGS = (None, "{type: linear, factor: 3}", "{type: dynamic, factor: 2.5}")
LABELS = {
    "binary": "half", "multiclass": "third", "multilabel": "[half,acg]", "regression": "share", "token": "bases"
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory, genome_path):
    """Sequences of a genome, of 20 to 100 bases for training and to 140 for the test, where models read 64 tokens."""
    folder, rng = tmp_path_factory.mktemp("files"), random.Random(2)
    genome = ProbabilisticGenome.open(genome_path)
    for name, count, longest in (("train", 40, 100), ("test", 24, 140)):
        rows = []
        for number in range(count):
            start, length = rng.randrange(3800), longest if number < 2 else rng.randint(20, longest)
            text = alphabet.decode(genome.bases("chr1", start, start + length))
            share = sum(base in "GC" for base in text) / len(text)
            label = {
                "half": int(share > 0.5), "third": number % 3, "acg": int("ACG" in text), "share": share,
                "bases": "".join(str(int(base in "GC")) for base in text),
            }  # fmt: skip
            rows.append({"sequence": text, "locus": f"chr1:{start}-{start + length}", **label})
        pl.DataFrame(rows).write_csv(folder / f"{name}.csv")
    return folder


@pytest.fixture(scope="module")
def tune(files, model_folders, tmp_path_factory):
    """Fine-tune for a step, and return the run's folder."""

    def tune(*settings, kind="mutbert", problem="binary"):
        output = tmp_path_factory.mktemp("runs") / "run"
        finetune(read_settings(FinetuneRecipe, None, [
            f"model={model_folders[kind]}", f"train={files / 'train.csv'}", f"test={files / 'test.csv'}",
            f"output={output}", f"problem={problem}", f"columns.label={LABELS[problem]}", "finetune.max_steps=1",
            "finetune.learning_rate=1e-2", "finetune.warmup_steps=0", "finetune.batch_size=8", *settings,
        ]))  # fmt: skip
        return output

    return tune


@pytest.fixture(autouse=True, scope="module")
def _without_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mutbert.reports.finetuning.write_page_of", lambda folder, **_: None)  # noqa: ARG005
        yield


def predict(model, sequences, output, **settings):
    """Return the frame and what the function returns."""
    result = predict_table(model, sequences, output, columns=Columns(), force=True, **settings)
    return pl.read_parquet(output), result


def check_same(run, problem, frame):
    """Compare a table of predictions with those of the run itself."""
    _, scores = read_predictions(run / "predictions.parquet")
    found = frame.select("^(p|predicted)_.*$").to_numpy()
    if problem == "token":
        found, wanted = np.concatenate([row.split() for row in frame["predicted"]]).astype(int), scores > 0
    elif problem == "multiclass":
        wanted = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    elif problem == "binary":
        wanted = np.stack([1 / (1 + np.exp(scores)), 1 / (1 + np.exp(-scores))], axis=1)
    else:
        wanted = scores.reshape(found.shape) if problem == "regression" else 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=1e-5)


PRODUCT = list(itertools.product(("forward", "both"), (None, 40), SCALINGS, (False, True)))


@pytest.mark.parametrize("number", range(len(PRODUCT)))
def test_predictions_are_those_of_the_run(tune, files, genome_path, tmp_path, number):
    strands, most, scaling, frequencies = PRODUCT[number]
    problem, precision = [*LABELS][number % 5], ("fp32", "bf16")[number // 5 % 2]
    method = "full" if problem == "token" else ("full", "lora", "probe")[number // 2 % 3]
    words = [f"finetune.strands={strands}", f"finetune.method={method}", f"finetune.precision={precision}"]
    words += [f"finetune.max_tokens={most}"] * bool(most) + [f"finetune.rope_scaling={scaling}"] * bool(scaling)
    run = tune(*words, *[f"genome={genome_path}", "columns.region=locus"] * frequencies, problem=problem)
    frame, result = predict(run / "model", files / "test.csv", tmp_path / "out.parquet")
    check_same(run, problem, frame)
    assert result["notes"] == []
    bases = pl.read_csv(files / "test.csv", infer_schema=False)["sequence"].str.len_bytes()
    assert result["long"] == ({"truncated": (bases > 38).sum()} if most else {})
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer.model_max_length == (most or (140 + 2 if scaling is None else 192 if "linear" in scaling else 160))
    if problem != "token" and (strands, precision, frequencies) == ("forward", "fp32", False):
        # By the library alone, one sequence at a time.
        classifier = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
        texts = pl.read_csv(files / "test.csv", infer_schema=False)["sequence"]
        with torch.inference_mode():
            logits = [classifier(**tokenizer(one, truncation=True, return_tensors="pt")).logits[0] for one in texts]
        logits, (_, scores) = torch.stack(logits).numpy(), read_predictions(run / "predictions.parquet")
        wanted = logits[:, 1] - logits[:, 0] if problem == "binary" else logits.reshape(scores.shape)
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["esm", "bert"])
@pytest.mark.parametrize(("method", "strands"), [("full", "both"), ("lora", "forward"), ("probe", "both")])
def test_other_models_predict_what_their_runs_did(tune, files, tmp_path, kind, method, strands):
    words = f"finetune.method={method}", f"finetune.strands={strands}", "finetune.max_tokens=9"
    run = tune(*words, kind=kind, problem="multiclass")
    frame, result = predict(run / "model", files / "test.csv", tmp_path / "out.parquet")
    check_same(run, "multiclass", frame)
    assert result["long"]["truncated"] > 0
    assert AutoTokenizer.from_pretrained(run / "model").model_max_length == 9


@given(st.integers(1, 5000), st.integers(1, 10**6))
def test_a_factor_covers_the_tokens_that_it_is_made_for(trained, longest):
    scaling = {"type": "dynamic", "factor": max(longest / trained, 1)}
    config = MutBertConfig(max_position_embeddings=trained, rope_scaling=scaling)
    assert config.most_tokens == max(longest, trained)


@pytest.fixture(scope="module", params=["mutbert", "esm", "bert"])
def model(request, tune):
    """A classifier that is fine-tuned on longer sequences than its model was trained for, where it can be."""
    return tune(kind=request.param) / "model"


@given(data=st.data())
def test_an_output_depends_on_its_own_sequence_alone(model, files, data):
    every = pl.read_csv(files / "test.csv", infer_schema=False)["sequence"].to_list()
    rows = data.draw(st.lists(st.integers(0, len(every) - 1), min_size=1, max_size=8))
    size = data.draw(st.integers(1, 4))
    whole, _ = predict(model, files / "test.csv", files / "whole.parquet")
    pl.DataFrame({"sequence": [every[row] for row in rows]}).write_csv(files / "some.csv")
    some, _ = predict(model, files / "some.csv", files / "some.parquet", batch_size=size)
    np.testing.assert_allclose(some["p_1"], whole["p_1"].to_numpy()[rows], atol=1e-5)


def write(path, texts, **columns):
    pl.DataFrame({"sequence": texts, **columns}).write_csv(path)
    return path


def log_odds(frame):
    return np.log(frame["p_1"].to_numpy() / frame["p_0"].to_numpy())


@pytest.mark.parametrize("kind", ["mutbert", "bert"])
def test_long_sequences(tune, files, tmp_path, kind):
    model = tune("finetune.max_tokens=20", kind=kind) / "model"
    rng = random.Random(3)
    texts = ["".join(rng.choices("ACGT", k=length)) for length in (12, 90, 18, 200)]
    table = write(tmp_path / "x.csv", texts, id=["a", "b", "", "d"])

    def found(long, source=table):
        result = predict_table(model, source, tmp_path / "x.parquet", columns=Columns(name="id"), force=True, long=long)
        return pl.read_parquet(tmp_path / "x.parquet"), result["long"], result["notes"]

    cut, counts, notes = found(None)
    assert (counts, notes, cut["name"].to_list()) == ({"truncated": 2}, [], ["a", "b", "2", "d"])
    refused = rf"^{table}: sequence b: 90 bases are \d+ tokens, and the model reads 20; use"
    with pytest.raises(InputError, match=refused):
        found("refuse")
    left, counts, notes = found("skip")
    assert (counts, left["name"].to_list()) == ({"skipped": 2}, ["a", "2"])
    assert notes == ["long is skip, and truncate in training"]
    np.testing.assert_allclose(left["p_1"], cut["p_1"].to_numpy()[[0, 2]], atol=1e-6)
    joined, counts, _ = found("window")
    assert counts == {"read in windows": 2}
    if kind == "mutbert":
        for row, number in ((1, 5), (3, 12)):
            ends = [one * len(texts[row]) // number for one in range(number + 1)]
            parts = [texts[row][start:end] for start, end in itertools.pairwise(ends)]
            alone, counts, _ = found("refuse", write(tmp_path / "y.csv", parts, id=[""] * number))
            assert counts == {}
            wanted = np.average(log_odds(alone), weights=list(map(len, parts)))
            assert log_odds(joined)[row] == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(InputError, match=r"or --long truncate or window$"):
        found("skip", write(tmp_path / "z.csv", texts[1:2], id=["a"]))
    with pytest.raises(InputError, match="long is 'cut'"):
        found("cut")


def test_what_differs_from_training_is_said(tune, files, genome_path, tmp_path, write_genome):
    model = tune("finetune.strands=both", f"genome={genome_path}", "columns.region=locus") / "model"
    config = json.loads((model / "config.json").read_text())["input_settings"]
    assert (config["strands"], config["genome"], config["region"]) == ("both", str(genome_path), "locus")
    output = tmp_path / "x.parquet"
    trained, result = predict(model, files / "test.csv", output)
    assert (result["notes"], sum(result["unplaced"].values())) == ([], 0)
    other, result = predict(model, files / "test.csv", output, strands="forward", precision="fp32", genome="none")
    strands, frequencies = "strands is forward, and both in training", f"and {genome_path} in training"
    assert result["notes"] == [strands, f"genome is none, {frequencies}"]
    assert (other["p_1"] != trained["p_1"]).all()
    other = write_genome(tmp_path / "other.genome", {"chr1": "ACGT" * 50})
    _, result = predict(model, files / "test.csv", output, genome=other)
    assert result["notes"] == [f"genome is {other}, {frequencies}"]
    path, values = model / "config.json", json.loads((model / "config.json").read_text())
    for genome, message in ((other, "another genome"), (tmp_path / "none.genome", "no")):
        values["input_settings"] |= {"genome": str(genome)}
        path.write_text(json.dumps(values))
        with pytest.raises(InputError, match=f"{message}.*--genome none"):
            predict(model, files / "test.csv", output)
    path.write_text(json.dumps(values | {"input_settings": {"strands": "all"}}))
    with pytest.raises(InputError, match="input_settings of its config"):
        predict(model, files / "test.csv", output)


@pytest.mark.parametrize("kind", ["mutbert", "bert"])
def test_long_sequences_are_embedded_as_asked(model_folders, tmp_path, kind):
    rng = random.Random(4)
    texts, output = ["".join(rng.choices("ACGT", k=length)) for length in (30, 900, 62, 600)], tmp_path / "x.parquet"

    def found(long, texts=texts):
        table = write(tmp_path / "x.csv", texts)
        result = embed(model_folders[kind], input=table, output=output, long=long, strands="both", force=True)
        return pl.read_parquet(output)["embedding"].to_numpy(), result["long"]

    short, _ = found("refuse", texts[::2])
    for long, counted, rows in (("skip", {"skipped": 2}, [0, 1]), ("truncate", {"truncated": 2}, [0, 2])):
        embeddings, counts = found(long)
        assert counts == counted
        np.testing.assert_allclose(embeddings[rows], short, atol=1e-5)
    if kind == "mutbert":
        np.testing.assert_allclose(embeddings, found("refuse", [text[:62] for text in texts])[0], atol=1e-5)
    for long, some, message in (("refuse", texts, "1: 9"), ("skip", texts[1:2], r"or --long truncate or window$")):
        with pytest.raises(InputError, match=message):
            found(long, some)
