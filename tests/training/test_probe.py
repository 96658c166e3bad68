"""Linear probes against scikit-learn's own pipeline, and as the classifier of a model."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.examples.table import Examples
from mutbert.scoring.metrics import evaluate
from mutbert.training.finetune_settings import FinetuneSettings
from mutbert.training.probe import PENALTIES, Probe, as_classifier, embed_sequences, fit_probe


def make_examples(labels, problem, classes):
    count = len(labels)
    nothing = (None,) * count
    return Examples(np.zeros(count, np.uint8), np.arange(count + 1), labels, ("",) * count, nothing, problem, classes)


def draw(problem, seed, count=80, features=6, classes=3):
    """Embeddings of several scales, one of them constant, and labels that follow from some of them, with noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, features))
    noise = rng.normal(size=(count, classes))
    value = latent[:, :classes] + latent[:, 3 : 3 + classes] / 2 + noise
    embedding = (latent * 10.0 ** np.arange(-2, features - 2) + 5).astype(np.float32)
    embedding = np.concatenate([embedding, np.full((count, 1), 3, np.float32)], axis=1)
    label, names = {
        "binary": ((value[:, 0] > 0.7).astype(np.int64), ("a", "b")),
        "multiclass": (value.argmax(axis=1), ("a", "b", "c")),
        "multilabel": ((value > 0.5).astype(np.uint8), ("a", "b", "c")),
        "regression": (value[:, 0].astype(np.float32), ("y",)),
        "regressions": (value.astype(np.float32), ("x", "y", "z")),
    }[problem]
    return make_examples(label, problem.removesuffix("s") if problem == "regressions" else problem, names), embedding


METRICS = {"binary": "auroc", "multiclass": "mcc", "multilabel": "auprc", "regression": "mse", "regressions": "pearson"}


def pipeline_scores(problem, train, embedding, c, class_weight):
    """Decision values of scikit-learn's own pipelines, one for each label."""
    label = train[0].labels
    if problem.startswith("regression"):
        return make_pipeline(StandardScaler(), Ridge(alpha=1 / c)).fit(train[1], label).predict(embedding)
    columns = label.T if problem == "multilabel" else [label]
    scores = []
    for column in columns:
        logistic = LogisticRegression(C=c, class_weight=class_weight, max_iter=5000, tol=1e-8)
        scores.append(
            make_pipeline(StandardScaler(), logistic).fit(train[1].astype(float), column).decision_function(embedding)
        )
    return scores[0] if problem != "multilabel" else np.stack(scores, axis=1)


@pytest.mark.parametrize(
    ("problem", "class_weights"),
    [*((problem, "none") for problem in METRICS), *((problem, "balanced") for problem in list(METRICS)[:3])],
)
def test_a_probe_is_a_pipeline_whose_penalty_was_chosen_on_the_validation_data(problem, class_weights):
    train, validation = draw(problem, 0), draw(problem, 1)
    metric, kind = METRICS[problem], train[0].problem
    probe = fit_probe(train, validation, metric=metric, class_weights=class_weights)

    weight = None if class_weights == "none" else "balanced"
    found = {}
    for c in PENALTIES:
        scores = pipeline_scores(problem, train, validation[1], c, weight)
        found[c] = evaluate(kind, validation[0].labels, scores, [metric])[metric] * (-1 if metric == "mse" else 1)
    # The strongest penalty of equals.
    assert found[probe.c] == pytest.approx(max(found.values()), abs=1e-6)
    assert probe.c == min(c for c, value in found.items() if value >= max(found.values()) - 1e-9)
    wanted = pipeline_scores(problem, train, validation[1], probe.c, weight)
    np.testing.assert_allclose(probe.scores(validation[1]), wanted, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("left", [(0, 2), (1,)])
def test_a_class_without_an_example_is_never_chosen(left):
    examples, embedding = draw("multiclass", 0)
    rows = np.flatnonzero(np.isin(examples.labels, left))
    train = examples.select(rows), embedding[rows]
    if len(left) == 1:
        with pytest.raises(InputError, match="one class alone"):
            fit_probe(train, (examples, embedding), metric="mcc")
        return
    probe = fit_probe(train, (examples, embedding), metric="mcc")
    assert probe.weight_KD.shape == (3, 7)
    assert np.isfinite(probe.bias_K).all()
    scores = probe.scores(embedding)
    assert set(scores.argmax(axis=1)) == set(left)
    wanted = pipeline_scores("multiclass", train, embedding, probe.c, None)
    np.testing.assert_allclose(scores[:, 2] - scores[:, 0], wanted, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("problem", ["binary", "multilabel"])
def test_one_class_alone_is_refused(problem):
    examples, embedding = draw(problem, 0)
    label = examples.labels.copy()
    label[..., -1] = 0
    if problem == "binary":
        label[:] = 1
    train = make_examples(label, problem, examples.classes), embedding
    with pytest.raises(InputError, match="one class alone"):
        fit_probe(train, (examples, embedding), metric="mcc")


def test_what_a_probe_is_not_for_is_refused():
    examples, embedding = draw("regression", 0)
    with pytest.raises(InputError, match="labels are numbers"):
        fit_probe((examples, embedding), (examples, embedding), metric="mse", class_weights="balanced")
    bases = make_examples(np.zeros(80, np.int64), "token", ("a", "b"))
    with pytest.raises(InputError, match="give method=full or method=lora"):
        fit_probe((bases, embedding), (bases, embedding), metric="mcc")


@pytest.mark.parametrize(("problem", "metric"), [("multilabel", "auroc"), ("regressions", "pearson")])
def test_one_column_of_labels_is_a_column(problem, metric):
    examples, embedding = draw(problem, 0)
    column = make_examples(examples.labels[:, :1], examples.problem, examples.classes[:1])
    probe = fit_probe((column, embedding), (column, embedding), metric=metric)
    flat = draw("regression", 0) if problem == "regressions" else (
        make_examples(examples.labels[:, 0].astype(np.int64), "binary", ("a", "b")), embedding
    )  # fmt: skip
    np.testing.assert_array_equal(probe.scores(embedding), fit_probe(flat, flat, metric=metric).scores(embedding))


def dna(count=40):
    rng = np.random.default_rng(0)
    length = rng.integers(5, 40, count)
    code = rng.integers(0, 4, length.sum()).astype(np.uint8)
    offsets = np.append(0, np.cumsum(length))
    share = np.add.reduceat(code == alphabet.BASES.index("T"), offsets[:-1]) / length
    label = np.stack([share > 0.25, share < 0.2, (share > 0.15) & (share < 0.3)], axis=1)
    labels = {
        "binary": (label[:, 0].astype(np.int64), ("a", "b")),
        "multiclass": (np.digitize(share, [0.2, 0.3]).astype(np.int64), ("a", "b", "c")),
        "multilabel": (label.astype(np.uint8), ("a", "b", "c")),
        "regression": (share.astype(np.float32), ("y",)),
    }
    nothing = (None,) * count
    return {
        problem: Examples(code, offsets, values, ("",) * count, nothing, problem, classes)
        for problem, (values, classes) in labels.items()
    }


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel", "regression"])
def test_a_probe_is_the_classifier_of_a_model(model_folders, problem):
    encoder, examples = open_encoder(model_folders["mutbert"]), dna()[problem]
    inputs, settings = encoder.inputs(examples), FinetuneSettings(batch_size=8)
    outputs = {"binary": 2, "regression": 1}.get(problem, 3)
    model = encoder.classifier(outputs, 64)
    embedding = embed_sequences(encoder, model.base_model, inputs, settings)
    probe = fit_probe((examples, embedding), (examples, embedding), metric="mse" if problem == "regression" else "mcc")
    weight, bias = as_classifier(probe, outputs, torch.float32)
    assert weight.dtype == torch.float32
    assert weight.shape == model.classifier.weight.shape
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
        logits = model.eval()(**inputs.batch(np.arange(len(examples)))).logits.numpy()
    found = logits[:, 1] - logits[:, 0] if problem == "binary" else logits.reshape(len(logits), -1)
    np.testing.assert_allclose(found.squeeze(), probe.scores(embedding).squeeze(), atol=2e-3, rtol=1e-3)


def test_embeddings_of_both_strands_are_their_mean(model_folders):
    encoder, examples = open_encoder(model_folders["bert"]), dna()["binary"]
    inputs, body = encoder.inputs(examples), encoder.body(64)
    forward, both = (
        embed_sequences(encoder, body, inputs, FinetuneSettings(strands=strands, batch_size=5))
        for strands in ("forward", "both")
    )
    # All bases backwards are all sequences backwards, the last one first.
    offsets = examples.offsets[-1] - examples.offsets[::-1]
    turned = Examples(
        alphabet.reverse_complement(examples.base_codes), offsets, None, examples.names, examples.regions, "", ()
    )
    other = embed_sequences(encoder, body, encoder.inputs(turned), FinetuneSettings())[::-1]
    np.testing.assert_allclose(both, (forward + other) / 2, atol=1e-5)


def test_scores_are_linear():
    probe = Probe(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([0.5, -1.0]), 1.0)
    assert probe.scores(np.array([[1, 1]], np.float32)).tolist() == [[3.5, 0.0]]
