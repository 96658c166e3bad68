"""Linear models against scikit-learn's own pipelines, and as the classifier of a model."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutbert.errors import InputError
from mutbert.scoring.metrics import evaluate
from mutbert.training.linear import PENALTIES, choose_penalty, fit_linear, linear_scores

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


def test_what_cannot_be_fitted_is_an_error():
    feature, label = draw("multilabel", 0)
    for problem, given in (("binary", np.ones(80, np.int64)), ("multilabel", label * [1, 1, 0])):
        with pytest.raises(InputError, match="one class alone"):
            fit_linear(problem, (feature, given), (feature, given), classes=3, metric="mcc")
    number = draw("regression", 0)
    for problem, message in (("regression", "labels are numbers"), ("token", "method=full or method=lora")):
        with pytest.raises(InputError, match=message):
            fit_linear(problem, number, number, classes=1, metric="mse", class_weights="balanced")


def test_of_equals_the_strongest_penalty_is_chosen_and_what_is_no_number_is_the_worst():
    values = {0.1: float("nan"), 1.0: 2.0, 10.0: 2.0, 100.0: 1.0}
    assert choose_penalty(lambda c: c, values.get, reversed(values)) == 1.0
    assert choose_penalty(lambda c: c, lambda _: float("nan"), values) == 0.1
