"""Metrics against scikit-learn and SciPy, and weights against rows that stand there several times."""

import math
from functools import partial

import numpy as np
import polars as pl
import pytest
import scipy.stats
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.scoring.metrics import evaluate, metric_names, read_predictions, weighted_metric, write_predictions

PROBLEMS = ("binary", "multiclass", "multilabel", "regression")
CASES = [(problem, metric) for problem in PROBLEMS for metric in metric_names(problem)]


def draw(problem, seed, rows, columns=3):
    """Labels and scores on a coarse grid, so that many scores are equal, some of them zero."""
    rng = np.random.default_rng(seed)
    shape = (rows,) if problem == "binary" else (rows, columns)
    scores = rng.integers(-4, 5, shape) / 4
    if problem == "regression":
        return rng.integers(-3, 4, shape) / 3 + 0.5 * scores, scores
    if problem == "multiclass":
        return rng.integers(0, columns, rows), scores
    return (scores + rng.normal(0, 1, shape) > 0.3).astype(int), scores


def area(metric, labels, scores):
    if labels.min() == labels.max():
        return math.nan
    return (sk.roc_auc_score if metric == "auroc" else sk.average_precision_score)(labels, scores)


def mean_of_defined(values):
    defined = [value for value in values if not math.isnan(value)]
    return np.mean(defined) if defined else math.nan


def hard_oracle(metric, actual, guesses, **options):
    if metric in ("mcc", "accuracy"):
        return (sk.matthews_corrcoef if metric == "mcc" else sk.accuracy_score)(actual, guesses)
    return getattr(sk, f"{metric}_score")(actual, guesses, zero_division=0, **options)


def regression_oracle(metric, labels, scores):
    if metric == "mse":
        return sk.mean_squared_error(labels, scores)
    if labels.min() == labels.max() or (metric != "r2" and scores.min() == scores.max()):
        return math.nan
    if metric == "r2":
        return sk.r2_score(labels, scores)
    return (scipy.stats.pearsonr if metric == "pearson" else scipy.stats.spearmanr)(labels, scores).statistic


def oracle(problem, metric, labels, scores):
    if problem == "binary":
        if metric in ("auroc", "auprc"):
            return area(metric, labels, scores)
        return hard_oracle(metric, labels, scores > 0)
    if problem == "multiclass":
        classes = range(scores.shape[1])
        if metric in ("auroc", "auprc"):
            return mean_of_defined([area(metric, labels == each, scores[:, each]) for each in classes])
        return hard_oracle(metric, labels, scores.argmax(axis=1), labels=classes, average="macro")
    columns = list(zip(labels.T, scores.T, strict=True))
    if problem == "multilabel":
        return mean_of_defined([oracle("binary", metric, *column) for column in columns])
    return np.mean([regression_oracle(metric, *column) for column in columns])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@pytest.mark.parametrize("problem", PROBLEMS)
@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 40), columns=st.integers(2, 5))
def test_metrics_are_those_of_scikit_learn_and_scipy(problem, seed, rows, columns):
    labels, scores = draw(problem, seed, rows, columns)
    found = evaluate(problem, labels, scores)
    assert tuple(found) == metric_names(problem)
    for metric, value in found.items():
        assert value == pytest.approx(oracle(problem, metric, labels, scores), abs=1e-12, nan_ok=True), metric


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(("problem", "metric"), [case for case in CASES if case[0] in ("multilabel", "regression")])
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 40))
def test_of_labels_with_gaps_a_column_is_that_of_its_known_rows(problem, metric, seed, rows):
    labels, scores = draw(problem, seed, rows)
    known = np.random.default_rng(seed).random(labels.shape) < 0.7
    known[0] = True
    of_column = partial(oracle, "binary") if problem == "multilabel" else regression_oracle
    values = [
        of_column(metric, *(one[own] for one in two)) for *two, own in zip(labels.T, scores.T, known.T, strict=True)
    ]
    found = evaluate(problem, np.where(known, labels, np.nan), scores, [metric])[metric]
    wanted = mean_of_defined(values) if problem == "multilabel" else np.mean(values)
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("problem", "metric"), CASES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 25), weightings=st.integers(1, 4))
def test_a_weight_is_a_row_that_stands_there_as_often(problem, metric, seed, rows, weightings):
    labels, scores = draw(problem, seed, rows)
    rng = np.random.default_rng(seed + 1)
    weight_RN = rng.multinomial(rows, np.full(rows, 1 / rows), size=weightings)
    found = weighted_metric(problem, metric, labels, scores)(weight_RN.astype(float))
    assert found.shape == (weightings,)
    for value, weight_N in zip(found, weight_RN, strict=True):
        repeated = evaluate(problem, np.repeat(labels, weight_N, axis=0), np.repeat(scores, weight_N, axis=0), [metric])
        assert value == pytest.approx(repeated[metric], abs=1e-10, nan_ok=True)


@given(st.integers(0, 10_000))
def test_a_resample_that_is_constant_has_no_correlation_however_it_is_rounded(seed):
    rng = np.random.default_rng(seed)
    labels, scores = rng.normal(size=(2, 12))
    scores[:5] = scores[0]
    weight_RN = np.pad(rng.multinomial(12, np.full(5, 0.2), size=20), ((0, 0), (0, 7))).astype(float)
    for metric in ("pearson", "spearman"):
        assert np.isnan(weighted_metric("regression", metric, labels, scores)(weight_RN)).all()


@pytest.mark.parametrize(
    ("problem", "labels", "scores", "said"),
    [
        ("binary", [0, 1], [0.5], r"labels of shape \(2,\) and scores of shape \(1,\) do not fit binary"),
        ("binary", [0, 1, 1], [0.5, np.nan, np.nan], "not a number in 2 places"),
        ("regression", [0.0, np.nan], [0.5, 1], "must be finite"),
        ("binary", [0, 2], [0.5, 1], "must be integers from 0 to 1, not int64 from 0 to 2"),
    ],
)
def test_what_cannot_be_scored_is_an_error(problem, labels, scores, said):
    with pytest.raises(ValueError, match=said):
        evaluate(problem, labels, scores)


@pytest.mark.parametrize(
    ("problem", "classes", "columns"),
    [
        ("binary", (), ["label", "score"]),
        ("multiclass", ("a", "b b", "c"), ["label", "score_a", "score_b b", "score_c"]),
        ("multilabel", (), [f"{kind}_{number}" for kind in ("label", "score") for number in range(3)]),
    ],
)
def test_predictions_are_read_as_they_were_written(tmp_path, problem, classes, columns):
    path, (labels, scores) = tmp_path / "predictions.parquet", draw(problem, 0, 9)
    write_predictions(path, labels, scores, classes=classes, names=[f"row {row}" for row in range(9)])
    assert pl.read_parquet_schema(path).names() == ["name", *columns]
    for found, wanted in zip(read_predictions(path), (labels, scores), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)


def test_files_that_are_no_predictions_are_errors(tmp_path):
    path = tmp_path / "predictions.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="no column label"):
        read_predictions(path)
    path.write_bytes(b"not Parquet")
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read"):
        read_predictions(path)
