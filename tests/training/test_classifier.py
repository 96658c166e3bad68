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
from mutbert.training import classifier_data as data_of
from mutbert.training.classifier import classifier_logits, finetune_classifier, scores_and_labels
from mutbert.training.classifier_data import ClassifierLoss, LabelledInputs, TrainingSamples, sample_order
from mutbert.training.finetune_settings import FinetuneSettings, Lora

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
    """Fine-tune a kind of model on a kind of problem; keyword arguments are settings."""
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
        return finetune_classifier(encoder, *parts, chosen, folder, metric=metric, seed=seed), parts[1], chosen

    return tune


def measured(result, validation, settings):
    """All metrics of a model on the validation data."""
    logits = classifier_logits(
        result.model, validation.inputs, settings, each_token=validation.examples.problem == "token"
    )
    return evaluate(*scores_and_labels(validation.examples, logits))


def evaluations(result, metric="mcc"):
    return {int(entry["step"]): entry[f"eval_{metric}"] for entry in result.history if f"eval_{metric}" in entry}


LENGTHS = st.lists(st.integers(3, 12), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 150), st.integers(1, 6), st.integers(0, 5))
def test_every_pass_has_every_sequence(lengths, steps, batch_size, seed):
    order = sample_order(np.array(lengths), steps, batch_size, seed)
    assert len(order) == steps * batch_size
    assert np.array_equal(order, sample_order(np.array(lengths), steps, batch_size, seed))
    passes, rest = divmod(len(order), len(lengths))
    counts = Counter(order.tolist())
    assert sorted(counts[row] - passes for row in range(len(lengths))) == [0] * (len(lengths) - rest) + [1] * rest
    # What is sorted by length is the same samples, and of one length each pass is whole.
    plain = sample_order(np.full(len(lengths), 9), steps, batch_size, seed)
    for first in range(0, len(order), 64 * batch_size):
        part = slice(first, first + 64 * batch_size)
        assert sorted(order[part]) == sorted(plain[part])
    for number in range(passes):
        assert set(plain[number * len(lengths) : (number + 1) * len(lengths)]) == set(range(len(lengths)))


@given(LENGTHS, st.integers(1, 64), st.integers(1, 6))
def test_a_step_has_similar_lengths(lengths, steps, batch_size):
    length = np.array(lengths)
    spans = sorted(
        (step.min(), step.max()) for step in length[sample_order(length, steps, batch_size, 0)].reshape(-1, batch_size)
    )
    assert all(before[1] <= behind[0] for before, behind in itertools.pairwise(spans))


def test_samples_are_the_sequences_with_their_labels_on_either_strand():
    examples = draw("token", 3)
    data = LabelledInputs(BaseInputs(examples), examples)
    settings = {"steps": 30, "batch_size": 8, "seed": 4}
    samples = TrainingSamples(data, reverse_complement=True, **settings)
    assert len(samples) == 240
    assert 0.35 < samples.reverse_S.mean() < 0.65
    assert not TrainingSamples(data, reverse_complement=False, **settings).reverse_S.any()
    assert samples.tokens() == sum(examples.lengths[row] + 2 for row in samples.row_S)
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
        one = samples[sample]
        assert torch.equal(one["input_ids"][0], batch["input_ids"][row, : len(code) + 2])


def test_labels_of_bases_that_were_cut_are_left_out():
    examples = make_examples(["ACGTAC"], np.arange(6), "token", tuple("abcdef"))
    data = LabelledInputs(BaseInputs(examples), examples)
    found = data.labels(np.array([0, 0]), np.array([False, True]), 6)
    assert found.tolist() == [[IGNORED, 0, 1, 2, 3, IGNORED], [IGNORED, 5, 4, 3, 2, IGNORED]]


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
    numbers = torch.tensor([1.0, -1, 2, 0, 3, 4])
    column = logits[:, :1]
    torch.testing.assert_close(ClassifierLoss("regression")(column, numbers), ((column[:, 0] - numbers) ** 2).mean())


def test_a_batch_without_a_base_that_counts_has_no_loss():
    logits = torch.randn(1, 4, 2, requires_grad=True)
    loss = ClassifierLoss("token")(logits, torch.full((1, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_balanced_weights_are_closed_forms():
    label = np.array([0, 0, 0, 2, IGNORED, 2, 0, 0])
    assert data_of.balanced_weights("token", label, 3).tolist() == pytest.approx([7 / 15, 0, 7 / 6])
    several = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=np.uint8)
    assert data_of.balanced_weights("multilabel", several, 3).tolist() == [1, 3, 1]
    with pytest.raises(InputError, match="labels are numbers"):
        data_of.balanced_weights("regression", np.zeros(3, np.float32), 1)


@pytest.mark.parametrize(
    ("kind", "problem", "metric"),
    [*((kind, "binary", "mcc") for kind in ("mutbert", "esm", "bert", "cnn")), ("mutbert", "multiclass", "mcc"),
     ("mutbert", "multilabel", "auroc"), ("mutbert", "regression", "pearson"), ("mutbert", "token", "mcc")],
)  # fmt: skip
def test_every_kind_of_labels_is_learnt(tune, kind, problem, metric):
    result, validation, settings = tune(kind, problem, metric=metric, reverse_complement=problem == "token")
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    found = measured(result, validation, settings)
    assert found[metric] > 0.9
    # The model is that of the best step.
    assert result.steps == 40
    assert sorted(evaluations(result, metric)) == [10, 20, 30, 40]
    assert evaluations(result, metric)[result.best_step] == pytest.approx(found[metric], abs=1e-6)


def noise(seed):
    """Labels that have nothing to do with the sequences, so that evaluations go up and down."""
    examples = draw("binary", seed)
    # Another stream than that of the motifs.
    label = np.random.default_rng([seed, 1]).integers(0, 2, 48)
    return make_examples([examples.sequence(row) for row in range(48)], label, "binary", ("a", "b"))


@pytest.mark.parametrize(("method", "metric"), [("full", "auroc"), ("lora", "mcc")])
def test_the_first_of_the_best_steps_is_returned(tune, metric, method):
    result, validation, settings = tune(
        train=noise(1), validation=noise(2), metric=metric, eval_steps=2, max_steps=20, method=method,
        learning_rate=3e-3,
    )  # fmt: skip
    found = evaluations(result, metric)
    assert result.best_step == max(found, key=lambda step: (found[step], -step))
    assert len(set(found.values())) > 2
    again = measured(result, validation, settings)
    entry = next(line for line in result.history if line["step"] == result.best_step and "eval_loss" in line)
    for name, value in again.items():
        assert entry[f"eval_{name}"] == pytest.approx(value, abs=1e-4), name


def test_of_errors_the_lowest_is_the_best(tune):
    result, validation, settings = tune("cnn", "regression", metric="mse", eval_steps=5)
    found = evaluations(result, "mse")
    assert result.best_step == min(found, key=lambda step: (found[step], step))
    assert measured(result, validation, settings)["mse"] == pytest.approx(found[result.best_step], rel=1e-4)


def test_a_seed_is_a_result(tune, model_folders):
    kind = f"random:{model_folders['mutbert']}"
    settings = {"max_steps": 6, "eval_steps": 3, "reverse_complement": True}
    states = [tune(kind, seed=seed, **settings)[0].model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def unequal(problem):
    """Few of one class, and few bases that count in some sequences."""
    if problem == "token":
        examples = draw("token", 7)
        label = examples.known_labels.copy()
        label[: len(label) // 2] = IGNORED
        return make_examples([examples.sequence(row) for row in range(48)], label, "token", ("other", "G"))
    examples = draw(problem, 7)
    return examples.select(np.flatnonzero((examples.labels == 0) | (np.arange(48) % 4 == 0)))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("problem", ["binary", "token"])
def test_parts_of_a_batch_give_what_the_batch_gives(tune, problem, class_weights):
    histories = [
        tune(
            problem=problem, train=unequal(problem), max_steps=4, eval_steps=4, learning_rate=1e-3,
            class_weights=class_weights, micro_batch_size=micro, training={"logging_steps": 1},
        )[0].history
        for micro in (None, 4)
    ]  # fmt: skip
    for whole, parts in zip(*histories, strict=True):
        assert parts == pytest.approx(whole, rel=2e-3, abs=1e-6)


def test_predictions_of_both_strands_decide_where_they_are_asked_for(tune):
    result, validation, settings = tune(strands="both", reverse_complement=True)
    again = measured(result, validation, settings)
    assert again["mcc"] == evaluations(result)[result.best_step]
    turned = draw("binary", 11)
    turned = make_examples(
        [alphabet.decode(alphabet.reverse_complement(alphabet.encode(turned.sequence(row)))) for row in range(48)],
        turned.labels, "binary", turned.classes,
    )  # fmt: skip
    logits = [
        classifier_logits(result.model, BaseInputs(examples), settings) for examples in (validation.examples, turned)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


@pytest.mark.parametrize("kind", ["mutbert", "esm"])
def test_adapters_are_all_that_is_trained(tune, model_folders, kind):
    result, validation, settings = tune(kind, method="lora", lora=Lora(rank=2), learning_rate=3e-2)
    assert measured(result, validation, settings)["mcc"] > 0.8
    assert evaluations(result)[result.best_step] == measured(result, validation, settings)["mcc"]
    torch.manual_seed(1)
    longest = int(validation.inputs.length_N.max())
    encoder = open_encoder(model_folders[kind])
    before, after = encoder.classifier(2, longest), result.model
    assert type(after) is type(before)
    names = dict(before.named_parameters())
    changed = {name for name, value in after.named_parameters() if not torch.equal(value, names[name])}
    assert any(name.startswith("classifier") for name in changed)
    adapted = {name for name in changed if not name.startswith("classifier")}
    assert {name.split(".")[-2] for name in adapted} == set(encoder.lora_targets)
    for name in adapted:
        assert name.endswith("weight")
        difference = (dict(after.named_parameters())[name] - names[name]).detach()
        assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2


@pytest.mark.parametrize("settings", [{"eval_steps": 3}, {"eval_steps": 8, "training": {"logging_steps": 1}}])
def test_a_loss_that_is_no_number_stops_the_run(tune, settings):
    with pytest.raises(InputError, match=r"\A[^\n]+not (a )?finite numbers? [^\n]+ lower learning_rate\Z"):
        tune(learning_rate=1e38, max_steps=8, warmup_steps=0, **settings)


def test_validation_data_of_one_class_have_no_area(tune):
    examples = draw("binary", 3)
    alone = examples.select(np.flatnonzero(examples.labels == 0))
    with pytest.raises(InputError, match="auroc could not be computed on the validation data"):
        tune("cnn", validation=alone, metric="auroc", max_steps=2, eval_steps=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"learning_rate": 1}}, "training.learning_rate cannot be set"),
        ({"training": {"bf16": True}}, "training.bf16 cannot be set"),
        ({"training": {"loging_steps": 1}}, "loging_steps"),
        ({"training": {"optim": "none"}}, "training: "),
        ({"method": "lora", "kind": "cnn"}, "has no layers for low-rank adapters"),
        ({"class_weights": "balanced", "problem": "regression", "metric": "mse"}, "labels are numbers"),
        ({"problem": "token", "kind": "esm"}, "its tokens are not single bases"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tune, settings, message):
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        tune(**settings)


def test_settings_give_steps_and_evaluations(tune):
    result, _, _ = tune("cnn", max_steps=None, epochs=2.5, batch_size=10, eval_steps=None)
    # 48 sequences make 12 steps of 10, and a pass ends with the fifth; the last step is always looked at.
    assert result.steps == 12
    assert sorted(evaluations(result)) == [5, 10, 12]
