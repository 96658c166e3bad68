import math
import re

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from mutbert.errors import InputError
from mutbert.reports.finetuning import constant_guess
from mutbert.reports.folder import report
from mutbert.scoring.metrics import evaluate, metric_names, write_predictions

NAN = math.nan
PARTS = {
    "binary": ["Confusion matrix", "ROC and precision-recall", "Calibration"],
    "multiclass": ["Confusion matrix", "By class", "Calibration"],
    "multilabel": ["By column", "Calibration"],
    "regression": ["Predicted against observed", "By column"],
}
NAMES = {
    "binary": ["background", "enhancer"],
    "multiclass": ["liver", "brain", "lung"],
    "multilabel": ["H3K4me3", "H3K27ac"],
    "regression": ["liver", "brain"],
}


def drawn(problem, n=120, k=None, seed=0):
    """Labels, and scores that are better than chance."""
    chance, k = np.random.default_rng(seed), k or len(NAMES[problem])
    if problem == "regression":
        label = chance.normal(5, 2, (n, k)).astype(np.float32)
        return label, (label + chance.normal(size=(n, k))).astype(np.float32)
    if problem == "multiclass":
        label = chance.integers(0, k, n)
        return label, (chance.normal(size=(n, k)) + 2 * (label[:, None] == np.arange(k))).astype(np.float32)
    label = chance.integers(0, 2, n if problem == "binary" else (n, k)).astype(np.uint8)
    return label, (2.0 * label - 1 + chance.normal(0, 1.5, label.shape)).astype(np.float32)


def logged(metric):
    trained = [{"step": s, "loss": 0.3 + 2 / s, "grad_norm": 1 / s, "learning_rate": 1e-5} for s in (10, 20, 30)]
    return trained + [{"step": s, "eval_loss": 0.4 + 2 / s, f"eval_{metric}": 0.5 + s / 100} for s in (10, 20, 30)]


def split(name, examples, in_train=0, dropped=0, sha256="0123456789abcdef"):
    values = name, examples, 0, in_train, dropped, sha256
    return dict(zip(("split", "examples", "duplicates", "in_train", "dropped", "sha256"), values, strict=True))


def plain(values):
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}


@pytest.fixture
def write(page_of, tmp_path):
    # Drawings take most of the time, so that there is a history where it is looked at.
    def write(problem="binary", labels=None, scores=None, *, history=(), recipe="model: mutbert\n", **changes):
        if labels is None:
            labels, scores = drawn(problem)
        metric = changes.get("metric", "pearson" if problem == "regression" else "mcc")
        found = evaluate("binary" if problem == "token" else problem, labels, scores)
        metrics = {
            "kind": "finetune", "version": 2, "name": "promoters", "problem": problem, "metric": metric,
            "classes": NAMES.get(problem, NAMES["binary"]), "best_step": 20, "steps": 30,
            "metrics": {"validation": dict.fromkeys(found, 0.625), "test": plain(found)},
            "interval": plain({"value": found[metric], "low": found[metric] - 0.0625, "high": found[metric] + 0.0625}),
            "shown": "test", "facts": {"model": "mutbert"}, "notes": [],
            "splits": [split("train", 900), split("validation", 100), split("test", len(labels))],
        } | changes  # fmt: skip
        write_predictions(tmp_path / "predictions.parquet", labels, scores, classes=metrics["classes"])
        return page_of(metrics, list(history), recipe)

    return write


@pytest.mark.parametrize("problem", PARTS)
def test_no_constant_guess_is_better(problem):
    label, score = drawn(problem, 40, seed=5)
    best = constant_guess(problem, label, score)
    if problem == "regression":
        assert best["mse"] == pytest.approx(label.var(axis=0).mean())
        assert math.isnan(best["pearson"])
        return
    width = 1 if score.ndim == 1 else score.shape[1]
    guesses = np.eye(width) if problem == "multiclass" else np.array(list(np.ndindex((2,) * width))) * 2.0 - 1
    every = [evaluate(problem, label, np.broadcast_to(g if score.ndim == 2 else g[0], score.shape)) for g in guesses]
    for name in metric_names(problem):
        assert best[name] == pytest.approx(max(found[name] for found in every)), name


@pytest.mark.parametrize("problem", PARTS)
def test_every_problem_has_its_parts(write, problem):
    # So many numbers that they are drawn as squares.
    labels, scores = drawn(problem, 1100)
    changes = {"history": logged("pearson" if problem == "regression" else "mcc")}
    page = write(problem, labels, scores, **changes)
    assert page.titles == ["Metrics", "Training curve", *PARTS[problem], "Data", "Optimiser", "Run details", "Recipe"]
    page.check_alone()
    table = page.table("metric")
    assert table[0] == ["metric", "validation", "test", "constant\nguess"]
    assert [row[2] for row in table[1:]] == [f"{value:.4f}" for value in evaluate(problem, labels, scores).values()]
    assert {row[1] for row in table[1:]} == {"0.6250"}
    assert write(problem, labels, scores, **changes).source == page.source


def test_the_headline_says_how_good_that_is(write, tmp_path):
    label = np.array([0] * 70 + [1] * 30)
    score = np.where(label == 1, 1.0, -1.0)
    score[:10] = 1
    interval = {"value": 0.9, "low": 0.85, "high": 0.95}
    assert write(labels=label, scores=score, metric="accuracy", interval=interval).lead == (
        "On the test data, the accuracy is 0.9000 (95% interval 0.8500 to 0.9500), better than the best constant guess,"
        " which reaches 0.7000. The most frequent class, background, is 70.0% of 100 labels. The best step is 20 of 30."
    )
    found = {"test": {"mcc": 0.0, "accuracy": 0.9}}
    lead = write(labels=label, scores=score, metrics=found, interval={"value": 0, "low": -0.1, "high": 0.1}).lead
    assert "MCC is 0.0000 (95% interval -0.1000 to 0.1000), no better than the best constant guess" in lead
    assert "The interval contains that too" in lead
    assert "Accuracy is 0.9000; the most frequent class" in lead
    label, score = drawn("regression")
    lead = write("regression", label, score + 1000, metric="mse").lead
    assert "error is 1e+06 (" in lead
    assert ", worse than the best constant guess" in lead
    with pytest.raises(InputError, match="exists already"):
        report(tmp_path, force=False)


def test_without_test_data_or_steps_the_headline_says_so(write):
    found = {"metrics": {"validation": evaluate("binary", *drawn("binary"))}, "interval": None, "shown": "validation"}
    page = write(**found)
    assert page.lead.startswith("On the validation data, the MCC is ")
    assert "interval" not in page.lead
    assert "There are no test data: the validation data also chose the step, so that these" in page.lead
    assert page.table("metric")[0] == ["metric", "validation", "constant\nguess"]
    page = write(best_step=0, steps=0, **found)
    assert "This is a probe" in page.lead
    assert "best step" not in page.source


def test_leaks_are_warned_of(write):
    splits = [split("train", 900), split("validation", 100, in_train=1), split("test", 120, in_train=30)]
    page = write(splits=splits, notes=["by hand"])
    notes = re.search(r'<div class="notes">(.*?)</div>', page.source)[1]
    assert notes.startswith("<p>by hand</p><p>1 of 100 validation sequences (1%) are")
    assert "<p>30 of 120 test sequences (25%) are in the training data too" in notes
    assert page.table("part")[3] == ["test", "120", "0", "30", "0", "0123456789ab"]
    # They are in them no more.
    splits[0]["dropped"] = 31
    assert 'class="notes"' not in write(splits=splits).source


def test_one_class_alone(write):
    problem = "binary"
    label, score = drawn(problem)
    page = write(problem, np.full_like(label, 1), score, interval={"value": 0.0, "low": None, "high": None})
    assert f"All test labels are of one class, {NAMES[problem][1]}" in page.source
    assert {row[0]: row for row in page.table("metric")[1:]}["AUROC"][2:] == ["–", "–"]


def test_metrics_by_class_are_those_of_scikit_learn(write):
    for problem, first in (("multiclass", "class"), ("multilabel", "column")):
        label, score = drawn(problem)
        guess = score.argmax(axis=1) if first == "class" else score > 0
        precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(label, guess)
        for k, row in enumerate(write(problem, label, score).table(first)[1:]):
            label_N, guess_N = (label == k, guess == k) if first == "class" else (label[:, k], guess[:, k])
            area = sklearn.metrics.roc_auc_score(label_N, score[:, k])
            expected = [support[k], guess_N.sum(), precision[k], recall[k], f1[k], area]
            np.testing.assert_allclose([float(cell) for cell in row[1:7]], expected, atol=5.1e-5)


def test_the_matrix_has_its_counts(write):
    label, score = np.array([0] * 5 + [1] * 4), np.array([-1.0] * 3 + [1.0] * 6)
    texts = write(labels=label, scores=score).drawings["Confusion matrix"]
    assert {"60.0%", "40.0%", "0.0%", "100.0%", "3", "2", "4"} <= set(texts)
    label, score = drawn("multiclass", 300, 30)
    page = write("multiclass", label, score, classes=[f"c{k}" for k in range(30)])
    assert "6 others" in page.drawings["Confusion matrix"]
    rows = [line.split("\t") for line in page.texts("pre")[0].strip("\n").split("\n")]
    names = rows[0][1:]
    number = [names.index(f"c{k}") if f"c{k}" in names else 24 for k in range(30)]
    expected = sklearn.metrics.confusion_matrix(np.take(number, label), np.take(number, score.argmax(axis=1)))
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows[1:]], expected)
    assert len(page.table("class")) == 31


def test_the_operating_point_and_the_calibration_are_those_of_scikit_learn(write):
    page = write()
    label, score = drawn("binary")
    found = evaluate("binary", label, score)
    assert f"AUROC is {found['auroc']:.4f}, AUPRC {found['auprc']:.4f}" in page.source
    false = (score[label == 0] > 0).mean()
    assert f"(recall) {found['recall']:.4f}, false positive rate {false:.4f}, precision" in page.source
    probability = 1 / (1 + np.exp(-score.astype(np.float64)))
    observed, mean = sklearn.calibration.calibration_curve(label, probability, n_bins=10)
    count = np.histogram(probability, np.linspace(0, 1, 11))[0]
    assert f"is {np.average(np.abs(observed - mean), weights=count[count > 0]):.4f} for enhancer." in page.source


def test_what_is_missing_is_said(write):
    history = [{"step": 2, "loss": 0.5}, {"step": 2, "eval_loss": NAN, "eval_mcc": NAN}]
    page = write(history=history, metrics={"test": {"mcc": None}}, interval=None, splits=[], facts={}, recipe="")
    assert "2 values are not drawn: not finite" in page.source
    assert page.lead.startswith("On the test data, the MCC is –. ")
    rows = write("multiclass", classes=[]).table("class")[1:]
    assert [row[0] for row in rows] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    page = write(problem="token", labels=drawn("binary")[0], scores=drawn("binary")[1], splits=[split("test", 10)])
    assert "120 in 10 sequences. Bases of one sequence are not independent" in page.source


@pytest.mark.parametrize("problem", PARTS)
def test_all_text_is_text(write, problem, evil):
    classes = [f"{evil}{k}" for k in range(len(NAMES[problem]))]
    changes = {"facts": {evil: evil}, "recipe": evil, "notes": [evil], "splits": [split(evil, 1)]}
    page = write(problem, name=evil, classes=classes, **changes)
    assert "<script>" not in page.source
    assert page.texts("h1") == [f"Fine-tuning: {evil}"]
    assert page.table("part")[1][0] == evil


@pytest.mark.parametrize(("problem", "columns"), [("binary", 2), ("multiclass", 8), ("regression", 3)])
def test_many_labels_leave_a_small_page(write, problem, columns):
    label, score = drawn(problem, 100_000, columns)
    assert len(write(problem, label, score, classes=[f"c{k}" for k in range(columns)]).source) < 2**19


def test_predictions_that_do_not_fit_are_one_line(write, tmp_path):
    write()
    write_predictions(tmp_path / "predictions.parquet", np.zeros(3, int), np.array([1.0, NAN, 0.0]))
    with pytest.raises(InputError, match="not a number in 1 places, first in row 1; repeat the run"):
        report(tmp_path)
    (tmp_path / "predictions.parquet").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        report(tmp_path)
