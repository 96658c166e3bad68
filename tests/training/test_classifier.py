"""Fine-tuning against torch's own losses and plain loops, and on problems small enough to be learnt at once."""

import itertools
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import BaseInputs
from mutbert.errors import InputError
from mutbert.examples.table import NOT_COUNTED as IGNORED
from mutbert.examples.table import Columns, read_examples
from mutbert.scoring.metrics import evaluate
from mutbert.training.classifier import (
    LabelledInputs,
    TrainingSamples,
    classifier_logits,
    classifier_trainer,
    sample_order,
    scores_and_labels,
    unpadded_parts,
)  # fmt: skip
from mutbert.training.losses import ClassifierLoss, balanced_weights
from mutbert.training.recipe import FinetuneSettings


@pytest.fixture
def examples(tables):
    """Labelled sequences of a kind of problem."""

    def read(problem):
        columns = Columns(label=("rich", "acg")) if problem == "multilabel" else Columns()
        return read_examples(str(tables / f"{problem}.csv"), columns, problem=problem)[0]

    return read


@pytest.fixture
def tune(model_folders, examples, tmp_path):
    """Fine-tune a kind of model on a kind of problem; return it, what was recorded, and the metric it reaches."""

    def tune(kind="mutbert", problem="binary", *, seed=1, metric="mcc", train=None, validation=None, **settings):
        encoder = open_encoder(model_folders.get(kind, kind))
        train = train or examples(problem)
        parts = [LabelledInputs(encoder.inputs(part), part) for part in (train, validation or train)]
        chosen = FinetuneSettings(**{
            "max_steps": 40, "batch_size": 16, "eval_steps": 10, "learning_rate": 1e-2, "warmup_steps": 2,
            "training": {"logging_steps": 5}, **settings,
        })  # fmt: skip
        model, trained = classifier_trainer(encoder, *parts, chosen, tmp_path, metric=metric, seed=seed).fine_tune()
        reached = evaluate(*scores_and_labels(parts[1].examples, classifier_logits(model, parts[1], chosen)))[metric]
        return model, trained, reached

    return tune


def evaluations(trained, metric="mcc"):
    return {int(entry["step"]): entry[f"eval_{metric}"] for entry in trained["history"] if f"eval_{metric}" in entry}


LENGTHS = st.lists(st.integers(3, 12), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 150), st.integers(1, 6), st.integers(0, 5))
def test_every_pass_has_every_sequence(lengths, steps, batch_size, seed):
    order = sample_order(np.array(lengths), steps, batch_size, seed)
    assert len(order) == steps * batch_size
    assert np.array_equal(order, sample_order(np.array(lengths), steps, batch_size, seed))
    passes, rest = divmod(len(order), len(lengths))
    counts = Counter(order.tolist())
    assert sorted(counts[row] - passes for row in range(len(lengths))) == [0] * (len(lengths) - rest) + [1] * rest
    for first in range(0, len(order), len(lengths)):
        # Each pass is of different sequences, and those of its whole steps are sorted by length.
        assert len(set(order[first : first + len(lengths)])) == len(order[first : first + len(lengths)])
        whole = range(-(-first // batch_size), min(first + len(lengths), len(order)) // batch_size)
        of_steps = [np.array(lengths)[order[batch_size * one : batch_size * (one + 1)]] for one in whole]
        spans = sorted((step.min(), step.max()) for step in of_steps)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    if len(lengths) >= batch_size:
        assert all(len(set(step)) == batch_size for step in order.reshape(steps, batch_size))


def padded(lengths):
    return len(lengths) * max(lengths) > 2 * sum(lengths)


@given(st.lists(st.integers(3, 12) | st.integers(3, 8000), min_size=1, max_size=40))
def test_a_batch_is_in_parts_where_it_would_be_padding(lengths):
    parts = unpadded_parts(np.arange(len(lengths)), np.array(lengths))
    assert np.concatenate(parts).tolist() == [*range(len(lengths))]
    assert (len(parts) > 1) == padded(lengths)
    assert not any(padded([lengths[row] for row in part]) for part in parts)


def test_samples_are_the_sequences_with_their_labels_on_either_strand(examples):
    examples = examples("token")
    data = LabelledInputs(BaseInputs(examples), examples)
    settings = {"steps": 30, "batch_size": 8, "seed": 4}
    samples = TrainingSamples(data, reverse=True, **settings)
    assert len(samples) == 240
    assert 0.35 < samples.reverse_S.mean() < 0.65
    assert not TrainingSamples(data, reverse=False, **settings).reverse_S.any()
    (batch,) = samples.__getitems__(range(8, 16))
    for row, sample in enumerate(range(8, 16)):
        number, turned = samples.row_S[sample], samples.reverse_S[sample]
        code = alphabet.encode(examples.sequence(number))
        label = examples.known_labels[examples.offsets[number] : examples.offsets[number + 1]]
        if turned:
            code, label = alphabet.reverse_complement(code), label[::-1]
        width = batch["labels"].shape[1]
        assert batch["labels"][row].tolist() == [IGNORED, *label, *[IGNORED] * (width - 1 - len(label))]
        assert batch["input_ids"][row, 1 : len(code) + 1].tolist() == alphabet.TOKEN_ID_OF_CODE[code].tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_torchs(weighted):
    generator = torch.Generator().manual_seed(0)
    logits, each = torch.randn(6, 3, generator=generator), torch.randn(3, 6, 3, generator=generator)
    weights = np.array([0.5, 1.0, 4.0], dtype=np.float32) if weighted else None
    tensor = None if weights is None else torch.from_numpy(weights)
    label, several = torch.tensor([0, 1, 2, 2, 0, 0]), torch.tensor([[0, 1, 1], [1, 0, 0]] * 3, dtype=torch.uint8)
    bases = torch.tensor([[IGNORED, 0, 1, 2, IGNORED, 2]] * 3)
    for problem, values, given_labels, wanted in (
        ("multiclass", logits, label, functional.cross_entropy(logits, label, tensor)),
        ("multilabel", logits, several,
         functional.binary_cross_entropy_with_logits(logits, several.float(), pos_weight=tensor)),
        ("token", each, bases, functional.cross_entropy(each.transpose(1, 2), bases, tensor)),
        ("regression", logits, several.float(), ((logits - several) ** 2).mean()),
    ):  # fmt: skip
        loss = ClassifierLoss(problem, weights)(SimpleNamespace(logits=values), given_labels)
        torch.testing.assert_close(loss, wanted)
    # Of labels with gaps, the others count.
    gaps = several.float().masked_fill(torch.tensor([[True, False, False], [False] * 3] * 3), torch.nan)
    known = ~gaps.isnan()
    loss = ClassifierLoss("regression", None, np.float32([1, 2, 3]), np.float32([2, 1, 4]))
    wanted = ((logits - (gaps - torch.tensor([1, 2, 3])) / torch.tensor([2, 1, 4])) ** 2)[known].mean()
    torch.testing.assert_close(loss(SimpleNamespace(logits=logits), gaps), wanted)
    every = functional.binary_cross_entropy_with_logits(logits, several.float(), pos_weight=tensor, reduction="none")
    loss = ClassifierLoss("multilabel", weights)(SimpleNamespace(logits=logits), gaps)
    torch.testing.assert_close(loss, every[known].mean())
    # Of no base that counts, the loss is 0; half precision of the logits is not that of the loss.
    nothing = ClassifierLoss("token")(SimpleNamespace(logits=each.bfloat16()), torch.full_like(bases, IGNORED))
    assert (nothing, nothing.dtype) == (0, torch.float32)


def test_balanced_weights_are_closed_forms():
    label = np.array([0, 0, 0, 2, IGNORED, 2, 0, 0])
    assert balanced_weights("token", label, 3).tolist() == pytest.approx([7 / 15, 0, 7 / 6])
    several = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=np.uint8)
    assert balanced_weights("multilabel", several, 3).tolist() == [1, 3, 1]
    with pytest.raises(InputError, match="labels are numbers"):
        balanced_weights("regression", np.zeros(3, np.float32), 1)


@pytest.mark.parametrize(
    ("kind", "problem", "metric"),
    [("esm", "binary", "mcc"), ("bert", "multiclass", "mcc"), ("cnn", "regression", "mse"),
     ("mutbert", "token", "mcc")],
)  # fmt: skip
def test_every_kind_of_labels_is_learnt(tune, kind, problem, metric):
    _, trained, reached = tune(kind, problem, metric=metric, max_steps=100, reverse_complement=problem == "token")
    losses = [entry["loss"] for entry in trained["history"] if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    assert reached < 0.3 if metric == "mse" else reached > 0.85
    # The model is that of the best step.
    assert trained["steps"] == 100
    assert sorted(evaluations(trained, metric)) == [*range(10, 101, 10)]
    best = (min if metric == "mse" else max)(evaluations(trained, metric).values())
    assert evaluations(trained, metric)[trained["best_step"]] == best == pytest.approx(reached, abs=1e-6)


def test_of_a_rare_class_that_is_never_predicted_the_step_of_the_lowest_loss_is_returned(tune, examples):
    rare = examples("binary").select(np.r_[np.arange(1, 120, 2), [0, 2, 4]])
    _, trained, reached = tune(train=rare, learning_rate=1e-4, max_steps=20, eval_steps=5)
    losses = evaluations(trained, "loss")
    assert (reached, set(evaluations(trained).values())) == (0, {0})
    assert trained["best_step"] == min(losses, key=losses.get) > 5


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["mutbert", "esm", "cnn"])
def test_numbers_of_any_scale_are_learnt_alike(tune, examples, kind, scale):
    part = examples("regression")
    part = replace(part, labels=(scale * (10 * part.labels + 70)).astype(np.float32))
    _, trained, reached = tune(kind, train=part, metric="r2", max_steps=60)
    assert reached > 0.5
    assert evaluations(trained, "r2")[trained["best_step"]] == pytest.approx(reached, abs=1e-3)


@pytest.mark.parametrize(("problem", "class_weights"), [("binary", "balanced"), ("token", "none")])
def test_parts_of_a_batch_give_what_the_batch_gives(tune, examples, problem, class_weights):
    # Few of one class, and few bases that count in some sequences.
    train = examples(problem)
    if problem == "token":
        labels = train.known_labels
        labels = np.where(np.arange(len(labels)) < len(labels) // 2, IGNORED, labels)
        # The first thirty as one, beside which the others would be padding.
        names, offsets = train.names[:91], np.append(0, train.offsets[30:])
        train = replace(train, labels=labels, names=names, regions=train.regions[:91], offsets=offsets)
    else:
        train = train.select(np.flatnonzero((train.labels == 0) | (np.arange(len(train)) % 8 == 1)))
    settings = {"max_steps": 4, "eval_steps": 4, "learning_rate": 1e-3, "training": {"logging_steps": 1}}
    whole, parts = (
        tune(train=train, class_weights=class_weights, micro_batch_size=micro, **settings)[1]["history"]
        for micro in (None, 4)
    )
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lora", "kind": "cnn"}, "has no layers for low-rank adapters"),
        ({"problem": "token", "kind": "esm"}, "its tokens are not single bases"),
        ({"validation": "one class", "metric": "auroc"}, "auroc cannot be computed"),
        *(({"learning_rate": 1e38, "warmup_steps": 0, "training": {"logging_steps": steps}},
           r"not (a )?finite numbers? [^\n]+ lower learning_rate") for steps in (1, 50)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(tune, examples, settings, message):
    if "validation" in settings:
        settings |= {"validation": examples("binary").select(np.zeros(3, int))}
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        tune(**{"max_steps": 8, "eval_steps": 8} | settings)
