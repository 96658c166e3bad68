import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.reports.finetuning import (
    FinetuningReport,
    calibration_bins,
    confusion,
    constant_guess,
    write_finetuning_page,
)
from mutbert.reports.finetuning_figures import _thinned, sweep
from mutbert.scoring.metrics import evaluate, metric_names

NAN = math.nan
EVIL = "<script>alert('x')</script> & $x_1$ \"q\""
COMMON = ["Data", "Optimiser", "What the run was made of", "Recipe"]
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
    """Labels, and scores that know something of them."""
    chance = np.random.default_rng(seed)
    k = k or len(NAMES[problem])
    if problem == "binary":
        label = chance.integers(0, 2, n)
        return label, (2 * label - 1 + chance.normal(0, 1.5, n)).astype(np.float32)
    if problem == "multiclass":
        label = chance.integers(0, k, n)
        return label, (chance.normal(size=(n, k)) + 2 * (label[:, None] == np.arange(k))).astype(np.float32)
    if problem == "multilabel":
        label = chance.integers(0, 2, (n, k)).astype(np.uint8)
        return label, (2.0 * label - 1 + chance.normal(0, 1.5, (n, k))).astype(np.float32)
    label = chance.normal(5, 2, (n, k)).astype(np.float32)
    return label, (label + chance.normal(size=(n, k))).astype(np.float32)


def logged(problem):
    metric = "pearson" if problem == "regression" else "mcc"
    return [
        entry
        for step in (10, 20, 30)
        for entry in (
            {"step": step, "loss": 0.3 + 2 / step, "grad_norm": 1 / step, "learning_rate": 1e-5},
            {"step": step, "eval_loss": 0.4 + 2 / step, f"eval_{metric}": 0.5 + step / 100},
        )
    ]


def split(name, examples, **changes):
    return {
        "split": name, "examples": examples, "duplicates": 0, "in_train": 0, "dropped": 0, "sha256": f"{examples:064x}"
    } | changes  # fmt: skip


def made(problem="binary", labels=None, scores=None, **changes):
    if labels is None:
        labels, scores = drawn(problem)
    metric = changes.pop("metric", "pearson" if problem == "regression" else "mcc")
    found = evaluate(problem, labels, scores)
    report = FinetuningReport(
        name="promoters",
        problem=problem,
        metric=metric,
        classes=NAMES[problem],
        metrics={"validation": dict.fromkeys(metric_names(problem), 0.625), "test": found},
        interval=(found[metric], found[metric] - 0.0625, found[metric] + 0.0625),
        shown="test",
        labels=labels,
        scores=scores,
        # Drawings take most of the time, so that these are there where they are looked at.
        history=[],
        best_step=20,
        steps=30,
        splits=[split("train", 900), split("validation", 100), split("test", len(labels))],
        facts={"model": "mutbert", "seed": "42"},
        recipe="\nmodel: mutbert\n",
    )
    return dataclasses.replace(report, **changes)


class Page(HTMLParser):
    """A page's parts: its headings and paragraphs, the tables' cells, the texts of drawings, and all addresses."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.texts, self.tables, self.drawings = source, [], {}, [], {}
        self.links, self.ids, self.open = [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [v for k, v in attributes.items() if k in {"src", "href", "xlink:href", "data", "action"}]
        self.ids += [v for k, v in attributes.items() if k == "id"]
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "svg":
            self.drawing = self.drawings.setdefault(attributes["aria-label"], [])
        elif "svg" not in self.open:
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "svg" in self.open:
            if data.strip():
                self.drawing.append(data)
        elif "table" in self.open:
            if self.open[-1] in {"td", "th"}:
                self.tables[-1][-1][-1] += data
        elif self.open:
            self.texts.setdefault(self.open[-1], [""])[-1] += data

    @property
    def lead(self):
        return self.texts["p"][0]

    @property
    def titles(self):
        return self.texts["h2"]

    def table(self, first):
        return next(table for table in self.tables if table[0][0] == first)


@pytest.fixture
def write(tmp_path):
    def write(report):
        path = tmp_path / "report.html"
        write_finetuning_page(path, report, force=True)
        return Page(path.read_text(encoding="utf-8"))

    return write


# The curves.


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=40))
def test_curves_are_those_of_scikit_learn(pairs):
    label, score = np.array(pairs).T
    found = sweep(label, score / 4)
    if label.min() == label.max():
        assert np.isnan(found.roc()[int(label[0])]).sum() in {0, len(found.roc()[0])}
        return
    false, true, threshold = sklearn.metrics.roc_curve(label, score / 4, drop_intermediate=False)
    np.testing.assert_allclose(found.roc(), (false, true), atol=1e-15)
    np.testing.assert_array_equal(found.threshold_G, threshold[1:])
    precision, recall, _ = sklearn.metrics.precision_recall_curve(label, score / 4)
    np.testing.assert_allclose(found.precision_recall(), (precision[-2::-1], recall[-2::-1]), atol=1e-15)


@pytest.mark.parametrize("label", [0, 1])
def test_with_one_class_a_curve_is_no_number(label):
    rates = sweep(np.full(5, label), np.arange(5.0)).roc()
    assert np.isnan(rates[1 - label]).all()
    assert rates[label][-1] == 1


def test_a_thinned_curve_is_the_curve():
    label, score = drawn("binary", 50_000)
    x, y = sweep(label, score).roc()
    thin_x, thin_y = _thinned(x, y)
    assert len(thin_x) <= 401
    assert (thin_x[0], thin_y[0], thin_x[-1], thin_y[-1]) == (0, 0, 1, 1)
    np.testing.assert_allclose(np.interp(x, thin_x, thin_y), y, atol=2 / 300)
    assert np.isin(thin_x, x).all()


def test_a_short_curve_keeps_all_of_its_corners():
    x, y = np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(_thinned(x, y), (x, y))


def test_calibration_bins_by_brute_force():
    chance = np.random.default_rng(3)
    probability, true = np.append(chance.random(500), [0, 1, 0.3]), chance.integers(0, 2, 503)
    bins = calibration_bins(probability, true)
    assert sum(count for _, _, count in bins) == 503
    expected, observed = sklearn.calibration.calibration_curve(true, probability, n_bins=10)
    # scikit-learn closes its bins above, so that 0.3 alone lies elsewhere.
    np.testing.assert_allclose([bins[i][:2] for i in (0, 1, 4, 9)], [(observed[i], expected[i]) for i in (0, 1, 4, 9)])
    assert calibration_bins(np.array([1.0, 0.95]), np.array([1, 0])) == [(0.975, 0.5, 2)]


# Counts and guesses.


def test_confusion_is_that_of_scikit_learn():
    chance = np.random.default_rng(4)
    label, said = chance.integers(0, 5, (2, 300))
    found = confusion(label, said, list("abcde"))
    np.testing.assert_array_equal(found.count_KK, sklearn.metrics.confusion_matrix(label, said))
    label[label == 1] = 0
    merged = confusion(label, said, list("abcde"), most=2)
    kept = [0, int(np.bincount(label, minlength=5)[1:].argmax()) + 1]
    assert merged.names == [*("abcde"[k] for k in kept), "3 others"]
    of = np.array([kept.index(k) if k in kept else 2 for k in range(5)])
    np.testing.assert_array_equal(merged.count_KK, sklearn.metrics.confusion_matrix(of[label], of[said]))


@pytest.mark.parametrize("problem", PARTS)
def test_no_constant_guess_is_better(problem):
    label, score = drawn(problem, 40, seed=5)
    best = constant_guess(problem, label, score)
    if problem == "regression":
        assert best["mse"] == pytest.approx(label.var(axis=0).mean())
        assert math.isnan(best["pearson"])
        assert math.isnan(best["spearman"])
        return
    width = 1 if score.ndim == 1 else score.shape[1]
    guesses = np.eye(width) if problem == "multiclass" else np.array(list(np.ndindex((2,) * width))) * 2.0 - 1
    every = [evaluate(problem, label, np.broadcast_to(g if score.ndim == 2 else g[0], score.shape)) for g in guesses]
    for name in metric_names(problem):
        assert best[name] == pytest.approx(max(found[name] for found in every)), name


# The page.


@pytest.mark.parametrize("problem", PARTS)
def test_every_problem_has_its_parts(write, problem):
    page = write(made(problem, history=logged(problem)))
    assert page.titles == ["Metrics", "Training curve", *PARTS[problem], *COMMON]
    assert page.texts["h1"] == ["Fine-tuning: promoters"]
    assert all(page.drawings.values())
    table = page.table("metric")
    assert table[0] == ["metric", "validation", "test", "constant\nguess"]
    found = evaluate(problem, *drawn(problem))
    assert [row[2] for row in table[1:]] == [f"{value:.4f}" for value in found.values()]
    assert {row[1] for row in table[1:]} == {"0.6250"}
    assert page.source.count('<tr class="marked">') == 1
    assert "Bases" not in page.source


def test_the_headline_says_how_good_that_is(write):
    label = np.array([0] * 70 + [1] * 30)
    score = np.where(label == 1, 1.0, -1.0)
    score[:10] = 1
    lead = write(made(labels=label, scores=score, metric="accuracy", interval=(0.9, 0.85, 0.95))).lead
    assert lead == (
        "On the test data, the accuracy is 0.9000 (95 % interval 0.8500 to 0.9500), better than a constant guess, "
        "which reaches 0.7000. The most frequent class, background, has a share of 0.7000 of 100 labels. The best "
        "step is 20 of 30."
    )
    lead = write(made(labels=label, scores=score, interval=(0.0, -0.1, 0.1))).lead
    assert (
        "MCC is 0.0000 (95 % interval -0.1000 to 0.1000), no better than a constant guess, which reaches 0.0000."
        in lead
    )
    assert "The interval holds that too" in lead
    assert "Accuracy is 0.9000, and the most frequent class, background, has a share of 0.7000" in lead


def test_a_lower_error_is_better(write):
    label, score = drawn("regression")
    lead = write(made("regression", label, score, metric="mse")).lead
    assert re.search(r"mean squared error is .*, better than a constant guess, which reaches", lead)
    lead = write(made("regression", label, score + 1000, metric="mse")).lead
    assert "error is 1e+06 (" in lead
    assert ", worse than a constant guess" in lead
    assert "; a constant guess has no correlation." in write(made("regression")).lead


def test_without_test_data_the_headline_warns(write):
    found = {"validation": evaluate("binary", *drawn("binary"))}
    changes = {"metrics": found, "interval": None, "shown": "validation"}
    page = write(made(**changes))
    assert page.lead.startswith("On the validation data, the MCC is ")
    assert "interval" not in page.lead
    assert (
        "There are no test data: the validation data chose the step, so that these numbers are too good." in page.lead
    )
    assert page.table("metric")[0] == ["metric", "validation", "constant\nguess"]
    page = write(made(best_step=0, steps=0, **changes))
    assert "the validation data chose the probe" in page.lead


def test_a_probe_says_so(write):
    page = write(made(best_step=0, steps=0))
    assert "This is a probe" in page.lead
    assert "best step" not in page.source
    assert not {"Training curve", "Optimiser"} & set(page.drawings)
    assert "A probe is fitted at once" in page.source


def test_leaks_and_one_class_are_warned_of(write):
    splits = [split("train", 900), split("validation", 100, in_train=1), split("test", 120, in_train=30)]
    page = write(made(splits=splits, notes=["by hand"]))
    notes = re.search(r'<div class="notes">(.*?)</div>', page.source)[1]
    assert notes.startswith("<p>by hand</p><p>1 of 100 validation sequences (1 %) are")
    assert "<p>30 of 120 test sequences (25 %) are in the training data too" in notes
    assert page.table("part")[3] == ["test", "120", "0", "30", "0", f"{120:064x}"[:12]]
    # They are in them no more.
    splits[0]["dropped"] = 31
    assert 'class="notes"' not in write(made(splits=splits)).source


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone(write, problem, only):
    label, score = drawn(problem)
    page = write(made(problem, np.full_like(label, only), score, interval=(0.0, NAN, NAN)))
    assert f"All test labels are of one class, {NAMES[problem][only]}" in page.source
    assert "ROC curve" not in page.drawings
    cells = {row[0]: row for row in page.table("metric")[1:]}
    assert cells["AUROC"][2:] == ["not a number", "–"]
    if problem == "multiclass":
        row = page.table("class")[1 + (1 - only)]
        assert row[1] == "0"
        assert row[4:] == ["–", "0.0000", "–", "–"]


def test_metrics_by_class_are_those_of_scikit_learn(write):
    label, score = drawn("multiclass")
    rows = write(made("multiclass", label, score)).table("class")[1:]
    said = score.argmax(axis=1)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(label, said)
    for k, row in enumerate(rows):
        area = sklearn.metrics.roc_auc_score(label == k, score[:, k])
        expected = [support[k], (said == k).sum(), precision[k], recall[k], f1[k], area]
        np.testing.assert_allclose([float(cell) for cell in row[1:7]], expected, atol=5.1e-5)
    label, score = drawn("multilabel")
    rows = write(made("multilabel", label, score)).table("column")[1:]
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(label, score > 0)
    for k, row in enumerate(rows):
        expected = [support[k], (score[:, k] > 0).sum(), precision[k], recall[k], f1[k]]
        np.testing.assert_allclose([float(cell) for cell in row[1:6]], expected, atol=5.1e-5)


def test_the_matrix_bears_its_counts(write):
    label = np.array([0] * 5 + [1] * 4)
    score = np.array([-1] * 3 + [1] * 2 + [1] * 4)
    texts = write(made(labels=label, scores=score.astype(float))).drawings["Confusion matrix"]
    assert {"60.0 %", "40.0 %", "0.0 %", "100.0 %", "3", "2", "4"} <= set(texts)
    many = made("multiclass", *drawn("multiclass", 300, 30), classes=[f"c{k}" for k in range(30)])
    page = write(many)
    assert "6 others" in page.drawings["Confusion matrix"]
    lines = page.texts["pre"][0].strip("\n").split("\n")
    assert sum(int(cell) for line in lines[1:] for cell in line.split("\t")[1:]) == 300
    assert len(page.table("class")) == 31


def test_curves_mark_what_is_drawn(write):
    page = write(made(history=logged("binary")))
    assert {"training loss", "validation loss", "validation MCC", "best step"} <= set(page.drawings["Training curve"])
    found = evaluate("binary", *drawn("binary"))
    assert {f"model, AUROC {found['auroc']:.4f}", "predictions"} <= set(page.drawings["ROC curve"])
    assert f"model, AUPRC {found['auprc']:.4f}" in page.drawings["Precision-recall curve"]
    assert {"enhancer", "perfectly calibrated"} <= set(page.drawings["Calibration"])


def test_no_prediction_of_a_class_leaves_a_curve(write):
    label, score = drawn("binary")
    page = write(made(labels=label, scores=score - 100))
    assert "predictions" in page.drawings["ROC curve"]
    assert "predictions" not in page.drawings["Precision-recall curve"]


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel"])
def test_scores_may_be_of_any_size(write, problem):
    label, score = drawn(problem)
    with np.errstate(over="ignore"):
        score = (score * np.float32(1e38)) * np.float32(1e3)
    assert np.isinf(score).any()
    assert "Calibration" in write(made(problem, label, score)).drawings


def test_a_regression_with_one_column_or_a_constant(write):
    label, score = (values[:, 0] for values in drawn("regression"))
    page = write(made("regression", label, score, classes=["expression"]))
    assert "By column" not in page.titles
    assert "Predicted against observed: expression" in page.drawings
    page = write(made("regression", np.zeros(5), np.zeros(5), interval=None, metric="mse", classes=["zero"]))
    assert "not a number" in page.source
    assert "no better than a constant guess, which reaches 0.0000" in page.lead


def test_labels_of_bases_are_not_taken_for_sequences(write):
    assert (
        "120 in 10 sequences. Bases of one sequence are not independent"
        in write(made(splits=[split("test", 10)])).source
    )


def test_values_that_are_not_finite_are_counted(write):
    history = [
        {"step": 1, "loss": NAN, "grad_norm": math.inf, "learning_rate": 1e-5},
        {"step": 2, "loss": 0.5, "grad_norm": 0.0, "learning_rate": 1e-5},
        {"step": 2, "eval_loss": 0.5, "eval_mcc": NAN},
    ]
    page = write(made(history=history, metrics={"test": {"mcc": NAN}}, interval=None))
    assert "2 values that are not finite could not be drawn." in page.source
    assert "1 norm of 0 could not be drawn on it. 1 value that is not finite" in page.source
    assert "validation MCC" not in page.drawings["Training curve"]
    assert page.lead.startswith("On the test data, the MCC is not a number. ")
    page = write(made(splits=[], facts={}, recipe=""))
    assert "Nothing was logged." in page.source
    assert page.source.count("Not known.") == 3


@pytest.mark.parametrize("problem", PARTS)
def test_all_text_is_text(write, problem):
    label, score = drawn(problem)
    splits = [split(EVIL, 120, sha256="<b>")]
    page = write(
        made(
            problem, label, score, name=EVIL, classes=[f"{EVIL}{k}" for k in range(len(NAMES[problem]))],
            facts={EVIL: EVIL}, recipe=EVIL, notes=[EVIL], splits=splits,
        )
    )  # fmt: skip
    assert not {"script", "b"} & set(page.tags)
    assert page.texts["h1"] == [f"Fine-tuning: {EVIL}"]
    assert page.texts["pre"][-1] == "\n" + EVIL
    assert page.table("part")[1][0] == EVIL


@pytest.mark.parametrize("problem", PARTS)
def test_a_page_fetches_nothing_and_is_always_the_same(write, problem):
    report = made(problem, *drawn(problem, 2100), history=logged(problem))
    page = write(report)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert all(
        link.startswith("data:image/png;base64,") or (link[0] == "#" and link[1:] in page.ids) for link in page.links
    )
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", page.source))
    assert "@import" not in page.source
    assert len(page.ids) == len(set(page.ids))
    assert write(report).source == page.source


@pytest.mark.parametrize(("problem", "columns"), [("binary", 2), ("multiclass", 8), ("regression", 3)])
def test_many_labels_leave_a_small_page(write, problem, columns):
    label, score = drawn(problem, 100_000, columns)
    found = made(problem, label, score, classes=[f"c{k}" for k in range(columns)])
    assert len(write(found).source) < 2**19


def test_few_columns_of_points_leave_a_small_page(write):
    label, score = drawn("regression", 2000)
    page = write(made("regression", label[:, 0], score[:, 0], classes=["one"]))
    assert "A point is a label." in page.source
    assert len(page.source) < 2**19


def test_names_that_are_not_as_many_as_scores_are_numbers(write):
    rows = write(made("multiclass", classes=["a"])).table("class")[1:]
    assert [row[0] for row in rows] == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_a_page_is_not_replaced_unless_forced(tmp_path):
    path = tmp_path / "report.html"
    write_finetuning_page(path, made())
    with pytest.raises(InputError, match="exists already"):
        write_finetuning_page(path, made())


def test_labels_and_scores_must_agree(tmp_path):
    for wrong, message in (({"scores": np.zeros(119)}, "do not agree"), ({"metric": "mse"}, "has no metric 'mse'")):
        with pytest.raises(ValueError, match=message):
            write_finetuning_page(tmp_path / "report.html", dataclasses.replace(made(), **wrong))
