"""The encoder and its heads, on a tiny model with random weights."""

import shutil

import pytest
import torch

from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
)
from mutbert.model.modeling_mutbert import rotary_tables

SCALINGS = [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile for a CPU needs a C++ compiler")


def assert_near(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


# Inputs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_ids_are_one_hot_probabilities(build, attention):
    model = build(MutBertModel, attention=attention)
    ids = torch.randint(0, 9, (3, 12), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(ids, 9).float()
    wanted = model(input_ids=ids).last_hidden_state
    embeds = model.get_input_embeddings()(ids)
    for inputs in ({"input_probs": one_hot}, {"input_ids": one_hot}, {"inputs_embeds": embeds}):
        torch.testing.assert_close(model(**inputs).last_hidden_state, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = [
            model(each, output_hidden_states=True).hidden_states[0]
            for each in (torch.arange(9)[None], torch.eye(9)[None])
        ]
    torch.testing.assert_close(*embedded, rtol=0, atol=0)


def test_four_columns_are_the_bases(build, probs):
    model = build(MutBertModel)
    bases = probs(2, 10, columns=4)
    widened = torch.cat((torch.zeros(2, 10, 5), bases), dim=-1)
    torch.testing.assert_close(model(input_probs=bases).last_hidden_state, model(input_probs=widened).last_hidden_state)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "exactly one"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long), "input_probs": torch.ones(1, 4, 9)}, "exactly one"),
        ({"input_ids": torch.ones(1, 4)}, "input_probs are floating-point of shape"),
        ({"input_probs": torch.ones(1, 4, 5)}, "input_probs are floating-point of shape"),
        ({"input_probs": torch.ones(1, 4, 9, dtype=torch.long)}, "input_probs are floating-point of shape"),
        ({"input_probs": torch.ones(1, 4, 9) / 9, "attention_mask": torch.ones(1, 5)}, "attention_mask has shape"),
        ({"input_probs": torch.ones(1, 4, 9), "output_attentions": True}, 'attn_implementation="eager"'),
    ],
)
def test_wrong_inputs_are_refused(build, inputs, message):
    with pytest.raises(ValueError, match=message):
        build(MutBertModel)(**inputs)


@pytest.mark.parametrize("columns", [9, 4])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"row 1, position 3 is no distribution: .*nan"),
        (2.0, r"row 1, position 3 is no distribution: .* 2.0"),
        (-0.5, r"row 1, position 3 is no distribution: .* -0.5"),
    ],
)
def test_rows_that_are_no_distributions_are_refused(build, probs, columns, value, message):
    wrong = probs(2, 6, columns=columns)
    wrong[1, 3, 5 % columns] = value
    with pytest.raises(ValueError, match=f"input_probs: {message}"):
        build(MutBertModel)(input_probs=wrong)


def test_padding_may_be_zeros_and_checks_be_off(build, probs, tmp_path):
    model = build(MutBertModel)
    inputs = probs(1, 6)
    inputs[0, 4:] = 0
    with pytest.raises(ValueError, match="position 4 is no distribution"):
        model(input_probs=inputs)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded = model(input_probs=inputs, attention_mask=mask).last_hidden_state[:, :4]
    torch.testing.assert_close(padded, model(input_probs=inputs[:, :4]).last_hidden_state)
    model.config.check_inputs = False
    assert model(input_probs=inputs).last_hidden_state.isfinite().all()
    model.save_pretrained(tmp_path)
    assert MutBertModel.from_pretrained(tmp_path).config.check_inputs, "it is not saved"
    assert not MutBertModel.from_pretrained(tmp_path, check_inputs=False).config.check_inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_mistake(build, probs, dtype):
    """Frequencies rounded to the input's own precision, or printed with four digits, are distributions."""
    assert build(MutBertModel)(input_probs=((probs(50, 200) * 1e4).round() / 1e4).to(dtype))


# Attention and positions


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_padding_and_batch_change_nothing(build, probs, attention, scaling):
    """Also under dynamic scaling, whose base follows a sequence's own length and not its batch's."""
    model = build(MutBertModel, attention=attention, rope_scaling=scaling)
    lengths = (24, 17, 9)
    inputs = probs(3, 24)
    mask = (torch.arange(24) < torch.tensor(lengths)[:, None]).long()
    together = model(input_probs=inputs, attention_mask=mask)
    for row, length in enumerate(lengths):
        for ones in (None, torch.ones(1, length)):
            alone = model(input_probs=inputs[row : row + 1, :length], attention_mask=ones)
            assert_near(together.last_hidden_state[row, :length], alone.last_hidden_state[0])
            assert_near(together.pooler_output[row], alone.pooler_output[0])


@pytest.mark.parametrize("other", ["eager", pytest.param("flex_attention", marks=[pytest.mark.slow, needs_compiler])])
@pytest.mark.parametrize("scaling", SCALINGS)
# Block masks are made by transformers, in a way that torch has deprecated, and torch does so by another such.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_way_of_attending_has_the_same_numbers(build, probs, other, scaling):
    # Not 24 or 72 tokens, at which torch 2.13's own flex kernel is wrong on CPUs with AVX2 alone.
    mask = torch.ones(3, 32)
    mask[1, 9:] = 0
    with torch.inference_mode():
        found, wanted = (
            build(MutBertModel, attention=each, rope_scaling=scaling)(input_probs=probs(3, 32), attention_mask=mask)
            for each in (other, "sdpa")
        )
    assert_near(found.last_hidden_state[mask.bool()], wanted.last_hidden_state[mask.bool()])


def reference_tables(config, length):
    """The formulas of the publication, in double precision and one number at a time."""
    size = config.head_size
    base, step = config.rope_theta, 1.0
    scaling = config.rope_scaling
    if scaling and scaling["type"] == "linear":
        step = 1 / scaling["factor"]
    elif scaling and length > config.max_position_embeddings:
        factor = scaling["factor"]
        base *= (factor * length / config.max_position_embeddings - (factor - 1)) ** (size / (size - 2))
    angles = [[m * step * base ** (-2 * i / size) for i in range(size // 2)] for m in range(length)]
    return torch.tensor(angles).cos(), torch.tensor(angles).sin()


@pytest.mark.parametrize("length", [5, 16, 17, 100])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotary_tables_follow_the_formulas(length, scaling):
    config = MutBertConfig(hidden_size=24, num_attention_heads=3, max_position_embeddings=16, rope_scaling=scaling)
    tables = rotary_tables(config, length, torch.tensor([[length]]))
    for found, wanted in zip(tables, reference_tables(config, length), strict=True):
        torch.testing.assert_close(found[0, :, 0], wanted, atol=2e-5, rtol=0)


# Outputs


def test_pooling(build, probs):
    mask = torch.tensor([[1] * 10, [1] * 6 + [0] * 4])
    outputs = build(MutBertModel)(input_probs=probs(2, 10), attention_mask=mask)
    torch.testing.assert_close(outputs.pooler_output[1], outputs.last_hidden_state[1, :6].mean(dim=0))
    model = build(MutBertModel, pooler_type="first_token_transform")
    outputs = model(input_probs=probs(2, 10))
    wanted = torch.tanh(model.pooler.dense(outputs.last_hidden_state[:, 0]))
    torch.testing.assert_close(outputs.pooler_output, wanted)


@pytest.mark.parametrize(
    ("num_labels", "problem", "labels", "reference"),
    [
        (3, None, torch.tensor([0, 2]), torch.nn.functional.cross_entropy),
        (3, None, torch.tensor([[0.0, 1, 1], [1, 0, 0]]), torch.nn.functional.binary_cross_entropy_with_logits),
        (1, None, torch.tensor([0.5, -1.0]), torch.nn.functional.mse_loss),
        (2, "regression", torch.tensor([[0.5, 1], [-1.0, 2]]), torch.nn.functional.mse_loss),
    ],
)
def test_sequence_classification(build, probs, num_labels, problem, labels, reference):
    model = build(MutBertForSequenceClassification, num_labels=num_labels, problem_type=problem)
    outputs = model(input_probs=probs(2, 10), labels=labels)
    assert outputs.logits.shape == (2, num_labels)
    logits = outputs.logits[:, 0] if num_labels == 1 else outputs.logits
    torch.testing.assert_close(outputs.loss, reference(logits, labels))
    assert model.config.problem_type == problem, "a loss changes no configuration"


def test_token_classification(build, probs):
    model = build(MutBertForTokenClassification, num_labels=3)
    labels = torch.tensor([[0, 1, 2, -100, -100]])
    outputs = model(input_probs=probs(1, 5), labels=labels)
    wanted = torch.nn.functional.cross_entropy(outputs.logits[0, :3], labels[0, :3])
    torch.testing.assert_close(outputs.loss, wanted)


# Training


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_are_those_of_finite_differences(build, probs, attention):
    """In double precision, through every part: embeddings, rotary positions, attention, head, loss."""
    model = build(MutBertForMaskedLM, attention=attention, num_hidden_layers=1, hidden_size=8, intermediate_size=8)
    model = model.double().train()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    places = torch.tensor([[0, 2], [1, 3]])
    labels = probs(2, 2, seed=5).double()
    # [PAD] learns nothing as an input, so it has no part in these.
    inputs = torch.cat((probs(2, 4, columns=3), torch.zeros(2, 4, 6)), dim=-1).roll(4, dims=-1).double()

    def loss(embedding, query, output):
        model.bert.embeddings.word_embeddings.weight.data.copy_(embedding)
        parameters = {
            "bert.embeddings.word_embeddings.weight": embedding,
            "bert.encoder.layer.0.attention.self.query.weight": query,
            "bert.encoder.layer.0.output.dense.weight": output,
        }
        arguments = {"input_probs": inputs, "attention_mask": mask, "labels": labels, "target_places": places}
        return torch.func.functional_call(model, parameters, (), arguments).loss

    layer = model.bert.encoder.layer[0]
    weights = (model.get_input_embeddings().weight, layer.attention.self.query.weight, layer.output.dense.weight)
    assert torch.autograd.gradcheck(loss, [weight.detach().clone().requires_grad_() for weight in weights])


def test_the_vocabulary_is_fixed(build):
    """One that grew would have other tokens at its end, where four columns of probabilities are read as the bases."""
    model = build(MutBertModel)
    assert model.resize_token_embeddings(9) is model.resize_token_embeddings() is model.get_input_embeddings()
    with pytest.raises(ValueError, match="has 9 tokens"):
        model.resize_token_embeddings(10)
