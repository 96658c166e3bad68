"""Fine-tuning from a table to a folder that others load, interrupted, resumed; linear models against scikit-learn's."""

import json
import re

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutbert.errors import InputError
from mutbert.model import MutBertForSequenceClassification
from mutbert.scoring.metrics import evaluate, read_predictions
from mutbert.settings import read_settings
from mutbert.training.finetune import PENALTIES, finetune, fit_linear, linear_scores
from mutbert.training.recipe import FinetuneRecipe

QUICK = ("finetune.learning_rate=3e-3", "finetune.warmup_steps=2", "finetune.batch_size=16")


@pytest.fixture
def run(model_folders, tables, tmp_path):
    """Fine-tune on a table, which is the test data too; into the folder ``run`` unless the settings say otherwise."""

    def run(name, *settings, resume=False, force=False):
        table = tables / f"{name}.csv"
        words = [f"model={model_folders['mutbert']}", f"train={table}", f"test={table}", f"output={tmp_path / 'run'}"]
        return finetune(read_settings(FinetuneRecipe, None, [*words, *QUICK, *settings]), resume=resume, force=force)

    return run


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

    labels, scores = read_predictions(tmp_path / "run" / "predictions.parquet")
    assert evaluate(problem, labels, scores) == pytest.approx(metrics["metrics"]["test"])


def test_labels_of_bases(run, tables, tmp_path):
    result = run("token", "problem=token", "finetune.epochs=8", "finetune.max_tokens=30")
    assert result.metrics["metrics"]["test"]["mcc"] > 0.9
    assert "mcc" in result._repr_html_()
    frame = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    texts = [text[:28] for text in pl.read_csv(tables / "token.csv", infer_schema=False)["sequence"]]
    assert frame["name"].to_list() == [str(row) for row, text in enumerate(texts) for _ in text]
    assert frame["label"].to_list() == [int(base in "GC") for text in texts for base in text]


LONGER = ("finetune.max_steps=24", "finetune.eval_steps=4", "finetune.reverse_complement=true")


@pytest.mark.parametrize(("method", "at"), [("full", 1), ("lora", 10)])
def test_interrupted_at_any_step_it_is_resumed(run, tmp_path, fail, monkeypatch, same_weights, method, at):
    words = (*LONGER, f"finetune.method={method}", "finetune.patience=2")
    whole = run("binary", *words, f"output={tmp_path / 'whole'}")
    fail(MutBertForSequenceClassification, at=at, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run("binary", *words)
    monkeypatch.undo()
    result = run("binary", *words, resume=True)
    assert result.history == whole.history
    assert result.metrics["best_step"] == whole.metrics["best_step"]
    assert same_weights(result.model, whole.model)
    one, other = (result.model.with_name("predictions.parquet"), whole.model.with_name("predictions.parquet"))
    assert one.read_bytes() == other.read_bytes()


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
    "finetune.training.optim=lomo": "training: ",
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


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [("aba", "aaa", r"v\.csv: the validation data have one class alone"),
     ("aba", "abc", r"v\.csv: the validation data have class 'c', which the training data lack"),
     ("123", "444", "pearson cannot be computed on the validation data")],
)  # fmt: skip
def test_validation_data_that_cannot_choose_a_step_are_an_error(run, tmp_path, train, validation, message):
    words = ["problem=multiclass", "classes=[a,b,c]"] if train == "aba" else ["problem=regression"]
    for name, labels in (("train", train), ("validation", validation)):
        table = tmp_path / f"{name[0]}.csv"
        rows = "".join(f"ACG{base},{label}\n" for base, label in zip("ACG", labels, strict=True))
        table.write_text(f"sequence,label\n{rows}")
        words.append(f"{name}={table}")
    with pytest.raises(InputError, match=message):
        run("binary", "test=null", *words)
    assert not (tmp_path / "run").exists()


def test_what_was_found_in_the_data_is_printed_and_kept(run, tables, tmp_path, capsys):
    text = (tables / "binary.csv").read_text()
    first = text.splitlines()[1].split(",")[0]
    (tmp_path / "t.csv").write_text(f"{text}\n{first},rich\n{first},poor\nNA,rich\nACGT,NA\nACGT,\n")
    result = run("binary", f"train={tmp_path / 't.csv'}", "finetune.max_steps=2")
    counts = [text.count(",rich") + 1, text.count(",poor") + 1]
    wanted = [
        f"t.csv: binary; rows: 122, poor: {counts[1]}, rich: {counts[0]}",
        "t.csv: rows without a sequence, left out: 1",
        "t.csv: rows without a label, left out: 2", "t.csv: sequences with different labels in different rows: 1",
        "test sequences that are in the training data: ",
    ]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    for line in wanted:
        assert any(line in one for one in lines), line
    for line in wanted[1:]:
        assert any(line in one for one in result.metrics["notes"]), line


def test_a_run_that_learns_nothing_says_so_and_recommends_the_probe(run, tables, tmp_path):
    # A classifier of the same sequences whose classes have changed places.
    first = run("binary", "finetune.epochs=8", f"output={tmp_path / 'first'}")
    assert "probe" not in " ".join(first.metrics["notes"])
    words = {",rich": ",poor", ",poor": ",rich"}
    text = re.sub(",(rich|poor)", lambda found: words[found[0]], (tables / "binary.csv").read_text())
    (tmp_path / "t.csv").write_text(text)
    words = (f"model={first.model}", f"train={tmp_path / 't.csv'}", "test=null")
    notes = " ".join(run("binary", *words, "finetune.learning_rate=1e-9", "finetune.max_steps=2").metrics["notes"])
    assert "no better than a constant guess" in notes
    assert "finetune.method=probe" in notes


@pytest.mark.parametrize("problem", ["multiclass", "regression"])
def test_of_few_sequences_a_fresh_classifier_starts_from_the_probe(run, problem):
    full = run(problem, "finetune.learning_rate=1e-12", "finetune.max_steps=1")
    probe = run(problem, "finetune.method=probe", force=True)
    assert full.metrics["metrics"]["test"] == pytest.approx(probe.metrics["metrics"]["test"], abs=1e-3)


@pytest.mark.parametrize("method", ["full", "probe"])
def test_of_several_labels_some_may_be_missing(run, tmp_path, tables, method):
    row, name = pl.row_index(), pl.col
    frame = pl.read_csv(tables / "multilabel.csv").select(
        "sequence", pl.when(row % 5 > 0).then(name("rich")), pl.when(row % 3 > 0).then(name("acg"))
    )
    frame.write_csv(tmp_path / "gaps.csv")
    words = ("columns.label=[rich,acg]", f"train={tmp_path / 'gaps.csv'}", f"test={tmp_path / 'gaps.csv'}")
    result = run("multilabel", *words, "finetune.epochs=8", f"finetune.method={method}", "finetune.metric=auroc")
    assert result.metrics["metrics"]["test"]["auroc"] > 0.6
    labels, _ = read_predictions(tmp_path / "run" / "predictions.parquet")
    # Rows without either are left out.
    assert (len(labels), *np.isnan(labels).sum(axis=0)) == (112, 16, 32)


METRICS = {"binary": "auroc", "multiclass": "mcc", "multilabel": "auprc", "regression": "mse", "regressions": "pearson"}


def draw(problem, seed, count=80, features=6, classes=3):
    """Features of several scales, one of them constant, and labels that follow from some of them, with noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, features))
    value = latent[:, :classes] + latent[:, 3 : 3 + classes] / 2 + rng.normal(size=(count, classes))
    feature = (latent * 10.0 ** np.arange(-2, features - 2) + 5).astype(np.float32)
    feature = np.concatenate([feature, np.full((count, 1), 3, np.float32)], axis=1)
    return feature, {
        "binary": (value[:, 0] > 0.7).astype(np.int64),
        "multiclass": value.argmax(axis=1),
        "multilabel": (value > 0.5).astype(np.uint8),
        "regression": value[:, 0].astype(np.float32),
        "regressions": value.astype(np.float32),
    }[problem]


def pipeline_scores(problem, train, feature, c, class_weight):
    """Decision values of scikit-learn's own pipelines, one for each label."""
    if problem.startswith("regression"):
        return make_pipeline(StandardScaler(), Ridge(alpha=1 / c)).fit(*train).predict(feature)
    columns = train[1].T if problem == "multilabel" else [train[1]]
    logistic = LogisticRegression(C=c, class_weight=class_weight, max_iter=5000, tol=1e-8)
    scores = [
        make_pipeline(StandardScaler(), logistic).fit(train[0].astype(float), column).decision_function(feature)
        for column in columns
    ]
    return scores[0] if problem != "multilabel" else np.stack(scores, axis=1)


@pytest.mark.parametrize(
    ("problem", "class_weights"),
    [*((problem, "none") for problem in METRICS), *((problem, "balanced") for problem in list(METRICS)[:3])],
)
def test_it_is_a_pipeline_whose_penalty_was_chosen_on_the_validation_data(problem, class_weights):
    train, validation = draw(problem, 0), draw(problem, 1)
    metric, kind = METRICS[problem], problem.removesuffix("s") if problem == "regressions" else problem
    classes = 2 if problem == "binary" else 3
    model = fit_linear(kind, train, validation, classes=classes, metric=metric, class_weights=class_weights)
    weight = None if class_weights == "none" else "balanced"
    found = {}
    for c in PENALTIES:
        scores = pipeline_scores(problem, train, validation[0], c, weight)
        found[c] = evaluate(kind, validation[1], scores, [metric])[metric] * (-1 if metric == "mse" else 1)
    assert model[0] == min(c for c, value in found.items() if value >= max(found.values()) - 1e-9)
    wanted = pipeline_scores(problem, train, validation[0], model[0], weight)
    np.testing.assert_allclose(linear_scores(kind, validation[0], model), wanted, atol=5e-3, rtol=5e-3)


def test_a_class_without_an_example_is_never_chosen():
    feature, label = draw("multiclass", 0)
    train = feature[label != 1], label[label != 1]
    model = fit_linear("multiclass", train, (feature, label), classes=3, metric="mcc")
    scores = linear_scores("multiclass", feature, model)
    assert set(scores.argmax(axis=1)) == {0, 2}
    wanted = pipeline_scores("multiclass", train, feature, model[0], None)
    np.testing.assert_allclose(scores[:, 2] - scores[:, 0], wanted, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [("multilabel", "multilabel", "one class alone"), ("regression", "regression", "labels are numbers"),
     ("regression", "token", "method=full or method=lora")],
)  # fmt: skip
def test_what_cannot_be_fitted_is_an_error(problem, kind, message):
    feature, label = draw(problem, 0)
    given = feature, label * [1, 1, 0] if kind == "multilabel" else label
    with pytest.raises(InputError, match=message):
        fit_linear(kind, given, given, classes=3, metric="mcc", class_weights="balanced")
