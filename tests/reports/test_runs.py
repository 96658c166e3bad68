"""The pages of pre-training and fine-tuning runs, from files as runs leave them."""

import json
import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from mutbert.errors import InputError
from mutbert.reports.folder import report
from mutbert.scoring.metrics import constant_guess, evaluate, metric_names, write_predictions

NAN = math.nan


@pytest.fixture
def page_of(tmp_path, read_page):
    """The page of a run's folder with these metrics, history and recipe, as `mutbert report` makes it."""

    def write(metrics, history, recipe):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        (tmp_path / "history.json").write_text(json.dumps(history))
        (tmp_path / "recipe.yaml").write_text(recipe)
        return read_page(report(tmp_path))

    return write


# Pre-training.
TITLES = [
    "Training curve", "Held-out curves", "Held-out table", "By frequency", "Calibration", "Optimiser", "Run details",
    "Recipe",
]  # fmt: skip
GROUPS = ["all", "variant", "other", "variant, up to 0.02", "variant, 0.02 to 0.05", "variant, 0.2 to 0.5"]


def of_groups(*values):
    return dict(zip(GROUPS, values, strict=True))


def logged(step):
    return [
        {"step": step, "loss": 1.3 + 2 / step, "grad_norm": 0.5 + 1 / step, "learning_rate": 1e-4},
        {"step": step, "eval_loss": 1.3 + 1 / step, "eval_loss_variant": 1.31, "eval_loss_other": 1.29 + 1 / step,
         "eval_mcc": 0.5, "eval_pearson": 0.6},
    ]  # fmt: skip


HISTORY = [entry for step in (10, 100, 400, 1200) for entry in logged(step)]
TABLE = {
    "uniform": of_groups(1.3863, 1.3863, 1.3863, 1.3863, None, 1.3863),
    "base composition": of_groups(1.3621, 1.3411, 1.3622, 1.3623, None, 1.3624),
    "order-5 Markov chain": of_groups(1.3302, 1.3425, 1.3303, 1.3304, None, 1.3305),
    "model": of_groups(1.2567, 1.3511, 1.2555, 1.3512, None, 1.3513),
    "entropy floor": of_groups(0.0081, 0.3112, 0.0, 0.0712, None, 0.6211),
}


def bins(*rows):
    return [dict(zip(("predicted", "observed", "pairs"), row, strict=True)) for row in rows]


@pytest.fixture
def pretrained(page_of):
    def write(history=HISTORY, recipe="seed: 1\n", **changes):
        metrics = {
            "kind": "pretrain", "version": 2, "name": "small", "steps": 1200, "unit": "nats per target",
            "targets": of_groups(250123, 6512, 243611, 6065, 0, 1), "cross_entropy": TABLE,
            "calibration": {
                "all targets": bins((0.25, 0.27, 900), (0.5, 0.4, 100), (NAN, NAN, 3)),
                "variant targets": bins((0.25, 0.2, 40)),
            },
            "facts": {"parameters": "86,123,456", "genome": "population.genome"},
            "notes": ["Resumed from checkpoint-120."],
        }  # fmt: skip
        return page_of(metrics | changes, history, recipe)

    return write


def test_a_page_has_its_parts_and_fetches_nothing(pretrained, evil):
    table = TABLE | {evil: of_groups(1.4, 1.4, 1.4, 1.4, None, 1.4)}
    page = pretrained(recipe=evil, name=evil, cross_entropy=table, facts={evil: evil}, notes=[evil])
    assert page.texts("h1") == [f"Pre-training: {evil}"]
    assert page.titles == TITLES
    assert f'<div class="notes"><p>{evil}</p></div>' in page.words
    assert "<script" not in page.source
    page.check_alone()
    # Bins without targets are left out.
    assert {"up to 0.02", "6,065 targets", "1 target", *table} <= set(page.drawings["Cross-entropy by frequency"])
    assert not any("0.05" in text for text in page.drawings["Cross-entropy by frequency"])
    # (900 * 0.02 + 100 * 0.1) / 1000, and 0.05.
    assert "is 0.0280 for all targets, 0.0500 for variant targets." in page.words
    assert page.tables[0][0][:3] == ["predictor", "all\n250,123", "variant\n6,512"]
    for row, (name, values) in zip(page.tables[0][1:], table.items(), strict=True):
        assert row == [name, *("–" if value is None else f"{value:.4f}" for value in values.values())]
    assert page.tables[1] == [[evil, evil]]


def test_the_headline_compares_with_the_best_trivial_predictor(pretrained):
    lead = pretrained([]).lead
    # 1.3302 - 1.2567 = 0.0735; at variant targets the base composition is best, not the Markov chain.
    assert "better than the best trivial predictor (order-5 Markov chain, 1.3302) by 0.0735 or 5.5%" in lead
    assert "worse than the best trivial predictor (base composition, 1.3411) by 0.0100 or 0.7%" in lead
    lead = pretrained([], cross_entropy=TABLE | {"model": of_groups(1.33019, 1.5, 1.2, 1.3, None, 1.3)}).lead
    assert "1.3302 nats per target, no better than" in lead


def test_what_is_missing_or_not_finite_is_said(pretrained):
    page = pretrained(cross_entropy=TABLE | {"model": dict.fromkeys(GROUPS, math.inf)})
    assert "on held-out targets is infinite." in page.lead
    assert page.tables[0][4] == ["model", *["infinite"] * 4, "–", "infinite"]
    page = pretrained([], "", steps=1, targets={}, cross_entropy={}, calibration={}, facts={}, notes=[])
    assert (page.titles, page.drawings, page.tables) == (TITLES, {}, [])
    assert page.lead == "The model was trained for 1 step. Its held-out cross-entropy is not known."
    history = [{"step": 3, "loss": NAN, "grad_norm": 0.0}, {"step": 3, "eval_loss": 1.3, "eval_loss_other": 1.3}]
    table = {name: values | dict.fromkeys(["variant", *GROUPS[3:]]) for name, values in TABLE.items()}
    page = pretrained(history, cross_entropy=table, targets=of_groups(10, 0, 10, 0, 0, 0))
    assert "There are no variant targets. Lower is better." in page.lead
    assert page.source.count("1 value is not drawn: not finite, or a norm of 0.") == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no metrics.json or vep.json and no suites; choose the folder of a finished run"),
        ({"metrics.json": "{"}, "metrics.json: cannot be read"),
        ({"metrics.json": '{"kind": "x", "version": 2}'}, "kind is 'x'; it must be one of pretrain, finetune, vep"),
        ({"suites/x.yaml": ""}, "has no results"),
        ({"held_out.json": "{}"}, "held_out.json: was written by another version of mutbert; repeat the run"),
    ],
)
def test_folders_without_a_page_are_one_line(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        report(tmp_path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()


# Fine-tuning.
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


def drawn(problem, n=120, k=None):
    """Labels, and scores that are better than chance."""
    chance, k = np.random.default_rng(0), k or len(NAMES[problem])
    if problem == "regression":
        label = chance.normal(5, 2, (n, k)).astype(np.float32)
        return label, (label + chance.normal(size=(n, k))).astype(np.float32)
    if problem == "multiclass":
        label = chance.integers(0, k, n)
        return label, (chance.normal(size=(n, k)) + 2 * (label[:, None] == np.arange(k))).astype(np.float32)
    label = chance.integers(0, 2, n if problem == "binary" else (n, k)).astype(np.uint8)
    return label, (2.0 * label - 1 + chance.normal(0, 1.5, label.shape)).astype(np.float32)


def split(name, examples, in_train=0, dropped=0):
    counts = {"examples": examples, "duplicates": 0, "in_train": in_train, "dropped": dropped}
    return {"split": name, **counts, "sha256": "0123456789abcdef"}


def plain(values):
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}


@pytest.fixture
def finetuned(page_of, tmp_path):
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
    label, score = drawn(problem, 40)
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
def test_every_problem_has_its_parts(finetuned, problem, evil):
    # So many numbers that they are drawn as squares.
    labels, scores = drawn(problem, 1100)
    changes = {"history": HISTORY, "recipe": evil, "name": evil, "facts": {evil: evil}, "notes": [evil]}
    changes |= {"classes": [f"{evil}{name}" for name in NAMES[problem]], "splits": [split(evil, 1)]}
    page = finetuned(problem, labels, scores, **changes)
    assert page.titles == ["Metrics", "Training curve", *PARTS[problem], "Data", "Optimiser", "Run details", "Recipe"]
    page.check_alone()
    table = page.table("metric")
    assert table[0] == ["metric", "validation", "test", "constant\nguess"]
    assert [row[2] for row in table[1:]] == [f"{value:.4f}" for value in evaluate(problem, labels, scores).values()]
    assert "<script>" not in page.source
    assert finetuned(problem, labels, scores, **changes).source == page.source


def test_the_headline_says_how_good_that_is(finetuned):
    label = np.array([0] * 70 + [1] * 30)
    score = np.where(label == 1, 1.0, -1.0)
    score[:10] = 1
    interval = {"value": 0.9, "low": 0.85, "high": 0.95}
    assert finetuned(labels=label, scores=score, metric="accuracy", interval=interval).lead == (
        "On the test data, the accuracy is 0.9000 (95% interval 0.8500 to 0.9500), better than the best constant guess,"
        " which reaches 0.7000. The most frequent class, background, is 70.0% of 100 labels. The best step is 20 of 30."
    )
    found = {"test": {"mcc": 0.0, "accuracy": 0.9}}
    lead = finetuned(labels=label, scores=score, metrics=found, interval={"value": 0, "low": -0.1, "high": 0.1}).lead
    assert "MCC is 0.0000 (95% interval -0.1000 to 0.1000), no better than the best constant guess" in lead
    label, score = drawn("regression")
    lead = finetuned("regression", label, score + 1000, metric="mse").lead
    assert "error is 1e+06 (" in lead
    assert ", worse than the best constant guess" in lead
    found = {"metrics": {"validation": evaluate("binary", *drawn("binary"))}, "interval": None, "shown": "validation"}
    page = finetuned(**found)
    assert "There are no test data: the validation data also chose the step, so that these" in page.lead


def test_labels_that_are_missing_count_nowhere(finetuned):
    labels, scores = drawn("multilabel", 60)
    gaps = labels.astype(np.float32)
    gaps[::4, 0] = np.nan
    found = finetuned("multilabel", gaps, scores).table("column")
    known = np.arange(60) % 4 > 0
    row = finetuned("multilabel", labels[known], scores[known]).table("column")
    assert next(one for one in found if one[0] == row[1][0]) in row


def test_leaks_are_warned_of(finetuned):
    splits = [split("train", 900), split("validation", 100, in_train=1), split("test", 120, in_train=30)]
    page = finetuned(splits=splits, notes=["by hand"])
    assert "<p>30 of 120 test sequences (25%) are in the training data too" in page.words
    # They are in them no more.
    splits[0]["dropped"] = 31
    assert 'class="notes"' not in finetuned(splits=splits).source


def test_metrics_by_class_are_those_of_scikit_learn(finetuned):
    for problem, first in (("multiclass", "class"), ("multilabel", "column")):
        label, score = drawn(problem)
        guess = score.argmax(axis=1) if first == "class" else score > 0
        precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(label, guess)
        for k, row in enumerate(finetuned(problem, label, score).table(first)[1:]):
            label_N, guess_N = (label == k, guess == k) if first == "class" else (label[:, k], guess[:, k])
            area = sklearn.metrics.roc_auc_score(label_N, score[:, k])
            expected = [support[k], guess_N.sum(), precision[k], recall[k], f1[k], area]
            np.testing.assert_allclose([float(cell) for cell in row[1:7]], expected, atol=5.1e-5)


def test_the_matrix_has_its_counts(finetuned):
    label, score = np.array([0] * 5 + [1] * 4), np.array([-1.0] * 3 + [1.0] * 6)
    texts = finetuned(labels=label, scores=score).drawings["Confusion matrix"]
    assert {"60.0%", "40.0%", "0.0%", "100.0%", "3", "2", "4"} <= set(texts)
    label, score = drawn("multiclass", 300, 30)
    page = finetuned("multiclass", label, score, classes=[f"c{k}" for k in range(30)])
    assert "6 others" in page.drawings["Confusion matrix"]
    rows = [line.split("\t") for line in page.texts("pre")[0].strip("\n").split("\n")]
    names = rows[0][1:]
    number = [names.index(f"c{k}") if f"c{k}" in names else 24 for k in range(30)]
    expected = sklearn.metrics.confusion_matrix(np.take(number, label), np.take(number, score.argmax(axis=1)))
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows[1:]], expected)
    assert len(page.table("class")) == 31


def test_the_operating_point_and_the_calibration_are_those_of_scikit_learn(finetuned):
    page = finetuned()
    label, score = drawn("binary")
    found = evaluate("binary", label, score)
    assert f"AUROC is {found['auroc']:.4f}, AUPRC {found['auprc']:.4f}" in page.words
    false = (score[label == 0] > 0).mean()
    assert f"(recall) {found['recall']:.4f}, false positive rate {false:.4f}, precision" in page.words
    probability = 1 / (1 + np.exp(-score.astype(np.float64)))
    observed, mean = sklearn.calibration.calibration_curve(label, probability, n_bins=10)
    count = np.histogram(probability, np.linspace(0, 1, 11))[0]
    assert f"is {np.average(np.abs(observed - mean), weights=count[count > 0]):.4f} for enhancer." in page.words


def test_what_is_missing_is_said(finetuned):
    page = finetuned(metrics={"test": {"mcc": None}}, interval=None, splits=[], facts={}, recipe="")
    assert page.lead.startswith("On the test data, the MCC is –. ")
    label, score = drawn("binary")
    page = finetuned(labels=np.ones_like(label), scores=score, interval={"value": 0.0, "low": None, "high": None})
    assert "All test labels are of one class, enhancer" in page.words
    assert {row[0]: row for row in page.table("metric")[1:]}["AUROC"][2:] == ["–", "–"]


@pytest.mark.parametrize(("problem", "columns"), [("binary", 2), ("multiclass", 8), ("regression", 3)])
def test_many_labels_leave_a_small_page(finetuned, problem, columns):
    label, score = drawn(problem, 100_000, columns)
    assert len(finetuned(problem, label, score, classes=[f"c{k}" for k in range(columns)]).source) < 2**19


def test_predictions_that_do_not_fit_are_one_line(finetuned, tmp_path):
    finetuned()
    write_predictions(tmp_path / "predictions.parquet", np.zeros(3, int), np.array([1.0, NAN, 0.0]))
    with pytest.raises(InputError, match="not a number in 1 places; repeat the run"):
        report(tmp_path)
