"""Fine-tuning against torch's own losses and plain loops, and on problems small enough to be learnt at once."""

import itertools
import random
from collections import Counter

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
from mutbert.examples.table import Examples
from mutbert.scoring.metrics import evaluate
from mutbert.training import classifier as data_of
from mutbert.training.classifier import (
    ClassifierLoss,
    LabelledInputs,
    TrainingSamples,
    classifier_logits,
    classifier_trainer,
    sample_order,
    scores_and_labels,
)
from mutbert.training.recipe import FinetuneSettings, Lora

MOTIFS = ("ACCTGA", "GTGACA", "CTTTAG")


def make_examples(sequences, labels, problem, classes):
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    nothing = (None,) * len(sequences)
    return Examples(
        alphabet.encode("".join(sequences)), offsets, labels, ("",) * len(sequences), nothing, problem, classes
    )


def draw(problem, seed, count=48):
    """Repeats of a motif with a few random bases behind, and labels that follow from the motifs."""
    generator, rng = random.Random(seed), np.random.default_rng(seed)
    classes = 3 if problem == "multiclass" else 2
    motif = rng.integers(0, classes, count)
    sequences = [
        MOTIFS[number] * generator.randint(3, 5) + "".join(generator.choices("ACGT", k=generator.randint(0, 5)))
        for number in motif
    ]
    if problem in {"binary", "multiclass"}:
        return make_examples(sequences, motif, problem, tuple("abc"[:classes]))
    if problem == "multilabel":
        return make_examples(sequences, np.stack([motif, 1 - motif], axis=1).astype(np.uint8), problem, ("a", "b"))
    if problem == "regression":
        return make_examples(sequences, (motif * 2 - 1).astype(np.float32), problem, ("y",))
    label = (alphabet.encode("".join(sequences)) == 2).astype(np.int64)
    label[rng.random(len(label)) < 0.2] = IGNORED
    return make_examples(sequences, label, "token", ("other", "G"))


@pytest.fixture
def tune(model_folders, tmp_path):
    """Fine-tune a kind of model on a kind of problem; return it, what was recorded, and the metric it reaches."""
    numbers = itertools.count()

    def tune(kind="mutbert", problem="binary", *, seed=1, metric="mcc", train=None, validation=None, **settings):
        encoder = open_encoder(model_folders.get(kind, kind))
        parts = [
            LabelledInputs(encoder.inputs(part, max_tokens=settings.get("max_tokens")), part)
            for part in (train or draw(problem, 10), validation or draw(problem, 11))
        ]
        values = {
            "max_steps": 40, "batch_size": 16, "eval_steps": 10, "learning_rate": 1e-2, "warmup_steps": 2,
            "training": {"logging_steps": 5}, **settings,
        }  # fmt: skip
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        chosen = FinetuneSettings(**values)
        trainer = classifier_trainer(encoder, *parts, chosen, folder, metric=metric, seed=seed)
        model, trained = trainer.fine_tune()
        inputs, examples = parts[1]
        logits = classifier_logits(model, inputs, chosen, each_token=examples.problem == "token")
        return model, trained, evaluate(*scores_and_labels(examples, logits))[metric]

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
    # The first 64 steps are sorted by length.
    sorted_ = np.array(lengths)[order[: 64 * batch_size]].reshape(-1, batch_size)
    spans = sorted((step.min(), step.max()) for step in sorted_)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_samples_are_the_sequences_with_their_labels_on_either_strand():
    examples = draw("token", 3)
    data = LabelledInputs(BaseInputs(examples), examples)
    settings = {"steps": 30, "batch_size": 8, "seed": 4}
    samples = TrainingSamples(data, reverse_complement=True, **settings)
    assert len(samples) == 240
    assert 0.35 < samples.reverse_S.mean() < 0.65
    assert not TrainingSamples(data, reverse_complement=False, **settings).reverse_S.any()
    batch = samples.__getitems__(range(8, 16))
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
    logits = torch.randn(6, 3, generator=generator)
    weights = np.array([0.5, 1.0, 4.0], dtype=np.float32) if weighted else None
    tensor = None if weights is None else torch.from_numpy(weights)
    label = torch.tensor([0, 1, 2, 2, 0, 0])
    several = torch.tensor([[0, 1, 1], [1, 0, 0]] * 3, dtype=torch.uint8)
    bases = torch.tensor([[IGNORED, 0, 1, 2, IGNORED, 2]] * 3)
    each = torch.randn(3, 6, 3, generator=generator)
    kept = bases.flatten() != IGNORED
    for problem, values, given_labels, wanted in (
        ("multiclass", logits, label, functional.cross_entropy(logits, label, tensor)),
        ("multilabel", logits, several,
         functional.binary_cross_entropy_with_logits(logits, several.float(), pos_weight=tensor)),
        ("token", each, bases, functional.cross_entropy(each.reshape(-1, 3)[kept], bases.flatten()[kept], tensor)),
        ("regression", logits, several.float(), ((logits - several) ** 2).mean()),
    ):  # fmt: skip
        torch.testing.assert_close(ClassifierLoss(problem, weights)(values, given_labels), wanted)
        # Half precision of the logits is not that of the loss.
        assert ClassifierLoss(problem, weights)(values.bfloat16(), given_labels).dtype == torch.float32
    # Of no base that counts, the loss is 0.
    assert ClassifierLoss("token")(each, torch.full_like(bases, IGNORED)) == 0


def test_balanced_weights_are_closed_forms():
    label = np.array([0, 0, 0, 2, IGNORED, 2, 0, 0])
    assert data_of.balanced_weights("token", label, 3).tolist() == pytest.approx([7 / 15, 0, 7 / 6])
    several = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=np.uint8)
    assert data_of.balanced_weights("multilabel", several, 3).tolist() == [1, 3, 1]
    with pytest.raises(InputError, match="labels are numbers"):
        data_of.balanced_weights("regression", np.zeros(3, np.float32), 1)


@pytest.mark.parametrize(
    ("kind", "problem", "metric"),
    [*((kind, "binary", "mcc") for kind in ("esm", "bert", "cnn")), ("mutbert", "multiclass", "mcc"),
     ("mutbert", "multilabel", "auroc"), ("mutbert", "regression", "mse"), ("mutbert", "token", "mcc")],
)  # fmt: skip
def test_every_kind_of_labels_is_learnt(tune, kind, problem, metric):
    _, trained, reached = tune(kind, problem, metric=metric, reverse_complement=problem == "token")
    losses = [entry["loss"] for entry in trained["history"] if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    assert reached < 0.3 if metric == "mse" else reached > 0.9
    # The model is that of the best step.
    assert trained["steps"] == 40
    assert sorted(evaluations(trained, metric)) == [10, 20, 30, 40]
    assert evaluations(trained, metric)[trained["best_step"]] == pytest.approx(reached, abs=1e-6)


def noise(seed):
    """Labels that have nothing to do with the sequences, so that evaluations go up and down."""
    examples = draw("binary", seed)
    # Another stream than that of the motifs.
    label = np.random.default_rng([seed, 1]).integers(0, 2, 48)
    return make_examples([examples.sequence(row) for row in range(48)], label, "binary", ("a", "b"))


@pytest.mark.parametrize(("method", "metric"), [("full", "auroc"), ("lora", "mcc")])
def test_the_first_of_the_best_steps_is_returned(tune, metric, method):
    _, trained, reached = tune(
        train=noise(1), validation=noise(2), metric=metric, eval_steps=2, max_steps=20, method=method,
        learning_rate=3e-3,
    )  # fmt: skip
    found = evaluations(trained, metric)
    assert trained["best_step"] == max(found, key=lambda step: (found[step], -step))
    assert len(set(found.values())) > 2
    assert reached == pytest.approx(found[trained["best_step"]], abs=1e-4)


def unequal(problem):
    """Few of one class, and few bases that count in some sequences."""
    if problem == "token":
        examples = draw("token", 7)
        label = examples.known_labels.copy()
        label[: len(label) // 2] = IGNORED
        return make_examples([examples.sequence(row) for row in range(48)], label, "token", ("other", "G"))
    examples = draw(problem, 7)
    return examples.select(np.flatnonzero((examples.labels == 0) | (np.arange(48) % 4 == 0)))


@pytest.mark.parametrize(("problem", "class_weights"), [("binary", "balanced"), ("token", "none")])
def test_parts_of_a_batch_give_what_the_batch_gives(tune, problem, class_weights):
    histories = [
        tune(
            problem=problem, train=unequal(problem), max_steps=4, eval_steps=4, learning_rate=1e-3,
            class_weights=class_weights, micro_batch_size=micro, training={"logging_steps": 1},
        )[1]["history"]
        for micro in (None, 4)
    ]  # fmt: skip
    for whole, parts in zip(*histories, strict=True):
        assert parts == pytest.approx(whole, rel=2e-3, abs=1e-6)


def test_adapters_are_all_that_is_trained(tune, model_folders):
    after, _, reached = tune("esm", method="lora", lora=Lora(rank=2), learning_rate=3e-2)
    assert reached > 0.8
    torch.manual_seed(1)
    encoder = open_encoder(model_folders["esm"])
    names = dict(encoder.classifier(2, 20).named_parameters())
    changed = {name: value for name, value in after.named_parameters() if not torch.equal(value, names[name])}
    adapted = {name: value for name, value in changed.items() if not name.startswith("classifier")}
    assert len(adapted) < len(changed)
    assert {name.split(".")[-2] for name in adapted} == set(encoder.lora_targets)
    for name, value in adapted.items():
        assert name.endswith("weight")
        assert torch.linalg.matrix_rank((value - names[name]).detach(), rtol=1e-3) <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"bf16": True}}, "training.bf16 cannot be set"),
        ({"method": "lora", "kind": "cnn"}, "has no layers for low-rank adapters"),
        ({"problem": "token", "kind": "esm"}, "its tokens are not single bases"),
        ({"validation": noise(1).select(np.zeros(3, int)), "metric": "auroc"}, "auroc could not be computed"),
        *(({"learning_rate": 1e38, "warmup_steps": 0, "training": {"logging_steps": steps}},
           r"not (a )?finite numbers? [^\n]+ lower learning_rate") for steps in (1, 50)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(tune, settings, message):
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        tune(**{"max_steps": 8, "eval_steps": 8} | settings)
