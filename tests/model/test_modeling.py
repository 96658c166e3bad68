"""The encoder and its heads, on a tiny model with random weights."""

import shutil

import pytest
import torch

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertForSequenceClassification, MutBertModel
from mutbert.model.modeling_mutbert import MutBertDropout, rotary_tables

SCALINGS = [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile for a CPU needs a C++ compiler")


def assert_near(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_ids_are_one_hot_probabilities(build, attention):
    model, ids = build(MutBertModel, attention=attention), torch.tensor([[0, 1, 2, 4, 5, 6, 7, 8]])
    wanted, one_hot = model(input_ids=ids).last_hidden_state, torch.eye(9)[ids]
    for inputs in (
        {"input_probs": one_hot},
        {"input_ids": one_hot},
        {"inputs_embeds": model.get_input_embeddings()(ids)},
    ):
        torch.testing.assert_close(model(**inputs).last_hidden_state, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = [model(each, output_hidden_states=True).hidden_states[0] for each in (ids, one_hot)]
    torch.testing.assert_close(*embedded, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padded_ids_without_a_mask_are_masked(build, attention):
    model, ids = build(MutBertForSequenceClassification, attention=attention), torch.tensor([[1, 5, 6, 7, 2, 3, 3, 3]])
    wanted = model(input_ids=ids[:, :5]).logits
    assert_near(model(input_ids=ids).logits, wanted)
    assert_near(model(input_ids=torch.cat([ids, ids.flip(1)])).logits[:1], wanted)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "exactly one"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long), "input_probs": torch.ones(1, 4, 9)}, "exactly one"),
        ({"input_ids": torch.ones(1, 4)}, "input_probs are floating-point of shape"),
        ({"input_probs": torch.ones(1, 4, 5)}, "input_probs are floating-point of shape"),
        ({"input_probs": torch.ones(1, 4, 9) / 9, "attention_mask": torch.ones(1, 5)}, "attention_mask has shape"),
        ({"input_probs": torch.ones(1, 4, 9), "output_attentions": True}, 'attn_implementation="eager"'),
        ({"input_probs": torch.ones(1, 4, 9)}, "input_probs: row 0, position 0 is no distribution"),
        ({"labels": torch.ones(1, 5, 9) / 9}, "labels have shape"),
        ({"labels": torch.ones(1, 2, 3) / 3}, "labels are floating-point of shape"),
        ({"labels": torch.full((1, 2, 9), torch.nan)}, "labels: row 0, position 0 is no distribution"),
    ],
)
def test_wrong_inputs_are_refused(build, probs, inputs, message):
    if "labels" in inputs:
        inputs |= {"input_probs": probs(1, 5), "target_places": torch.tensor([[1, 2]])}
    with pytest.raises(ValueError, match=message):
        build(MutBertForMaskedLM)(**inputs)


@pytest.mark.parametrize("columns", [9, 4])
@pytest.mark.parametrize("value", [float("nan"), 2.0, -0.5])
def test_probabilities_are_checked_where_nothing_is_padded(build, probs, tmp_path, columns, value):
    model, inputs = build(MutBertModel), probs(2, 6, columns=columns)
    inputs[1, 3, 5 % columns] = value
    with pytest.raises(ValueError, match=rf"input_probs: row 1, position 3 is no distribution: .*{value}"):
        model(input_probs=inputs)
    if value == value:
        mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
        padded = model(input_probs=inputs, attention_mask=mask).last_hidden_state[1, :3]
        assert_near(padded, model(input_probs=inputs[1:, :3]).last_hidden_state[0])
    # Rounded to the input's own precision, or printed with four digits.
    model(input_probs=((probs(50, 200) * 1e4).round() / 1e4).half())
    model.config.check_inputs = False
    model(input_probs=inputs)
    model.save_pretrained(tmp_path)
    assert MutBertModel.from_pretrained(tmp_path).config.check_inputs, "it is not saved"


@pytest.mark.nightly
@needs_compiler
@pytest.mark.parametrize("scaling", SCALINGS)
# Block masks are made by transformers, in a way that torch has deprecated, and torch does so by another such.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flex_attention_has_the_same_numbers(build, probs, scaling):
    # Not 24 or 72 tokens, at which torch 2.13's own flex kernel is wrong on CPUs with AVX2 alone.
    mask = torch.ones(3, 32)
    mask[1, 9:] = 0
    with torch.inference_mode():
        found, wanted = (
            build(MutBertModel, attention=each, rope_scaling=scaling)(input_probs=probs(3, 32), attention_mask=mask)
            for each in ("flex_attention", "sdpa")
        )
    assert_near(found.last_hidden_state[mask.bool()], wanted.last_hidden_state[mask.bool()])


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_layers_are_those_of_plain_formulas(build, probs, pre_norm, gated):
    model = build(MutBertModel, pre_norm=pre_norm, gated_feed_forward=gated)
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    # So that a norm that is left out, or whose weight is, shows.
    generator = torch.Generator().manual_seed(2)
    for weight in weights.values():
        if weight.dim() == 1:
            weight += torch.rand(weight.shape, generator=generator) / 2
    model.load_state_dict(weights)
    inputs = probs(2, 7)
    hidden = model(input_probs=inputs, output_hidden_states=True).hidden_states[0].double()

    def normalised(x, name):
        if not pre_norm:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt() * weights[f"{name}.weight"]
        return x if pre_norm else x + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def turned(x):
        angle = torch.arange(7.0).double()[:, None] / 10000 ** (torch.arange(0, 8, 2).double() / 8)
        rotation = torch.polar(torch.ones_like(angle), angle)[:, None]
        return torch.complex(x[..., :4], x[..., 4:]) * rotation

    for layer in ("encoder.layer.0", "encoder.layer.1"):
        attention, last = f"{layer}.attention", layer.endswith("1")
        x = normalised(hidden, f"{attention}.self.norm") if pre_norm else hidden
        query, key, value = (linear(x, f"{attention}.self.{one}").view(2, 7, 4, 8) for one in ("query", "key", "value"))
        if pre_norm:
            query, key = (normalised(one, f"{attention}.self.{n}_norm") for one, n in ((query, "query"), (key, "key")))
        score = torch.einsum("bihk,bjhk->bhij", turned(query), turned(key).conj()).real / 8**0.5
        mixed = torch.einsum("bhij,bjhk->bihk", score.softmax(-1), value).flatten(2)
        hidden = hidden + linear(mixed, f"{attention}.output.dense")
        hidden = hidden if pre_norm else normalised(hidden, f"{attention}.output.LayerNorm")
        x = normalised(hidden, f"{layer}.intermediate.norm") if pre_norm else hidden
        up = linear(x, f"{layer}.intermediate.dense")
        gelu = torch.nn.functional.gelu
        up = gelu(linear(x, f"{layer}.intermediate.gate")) * up if gated else gelu(up)
        hidden = hidden + linear(up, f"{layer}.output.dense")
        hidden = normalised(hidden, f"{layer}.output.LayerNorm") if last or not pre_norm else hidden
    found = model(input_probs=inputs, output_hidden_states=True)
    assert_near(found.last_hidden_state.double(), hidden)
    assert torch.equal(found.hidden_states[-1], found.last_hidden_state)


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
    cosine, sine = reference_tables(config, length)
    for found, wanted in zip(tables, ((cosine, cosine), (-sine, sine)), strict=True):
        for head in range(3):
            torch.testing.assert_close(found[0, :, head], torch.cat(wanted, dim=1), atol=2e-5, rtol=0)


def test_dropout_keeps_a_share_of_the_elements_and_their_sum():
    dropout, ones = MutBertDropout(0.1), torch.ones(999, 1001, requires_grad=True)
    torch.manual_seed(3)
    dropped = dropout(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    # Five standard errors, of rows and columns too, so that no pattern is left.
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=5 * (0.1 / 0.9 / dropped.numel()) ** 0.5)
    for dim in (0, 1):
        assert float((dropped.detach().mean(dim) - 1).abs().max()) < 5 * (0.1 / 0.9 / 999) ** 0.5
    dropped.sum().backward()
    torch.testing.assert_close(ones.grad, dropped.detach())
    torch.manual_seed(3)
    torch.testing.assert_close(dropout(ones), dropped, rtol=0, atol=0)
    assert dropout.eval()(ones) is ones


def test_attention_in_training_is_that_in_evaluation_but_for_what_is_dropped(build, probs):
    """So rare a dropout that nothing is dropped, on the path that only training takes."""
    model = build(MutBertForMaskedLM, attention_probs_dropout_prob=1e-9, hidden_dropout_prob=0.0)
    inputs, mask = probs(2, 30), torch.ones(2, 30, dtype=torch.long)
    mask[0, 20:] = 0
    found = [model.train(mode)(input_probs=inputs, attention_mask=mask).logits[mask.bool()] for mode in (True, False)]
    assert_near(*found)


# Targets: the head runs at them alone, and the loss is the mean of their cross-entropies

PLACES = torch.tensor([[2, 5, 11], [0, 7, 8], [3, 1, 10]])
ROWS = torch.arange(3)[:, None]


@pytest.mark.parametrize("columns", [9, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_and_loss_of_the_targets_are_those_of_the_whole(build, probs, columns, weighted):
    model = build(MutBertForMaskedLM).train()
    inputs, labels = probs(3, 12), probs(3, 3, columns=columns, seed=7)
    weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(5)) * 3 if weighted else None
    whole = model(input_probs=inputs).logits[ROWS, PLACES]
    found = model(input_probs=inputs, labels=labels, target_places=PLACES, target_weights=weights)
    torch.testing.assert_close(found.logits, whole)
    padded = torch.nn.functional.pad(labels, (9 - columns, 0))
    losses = torch.nn.functional.cross_entropy(whole.flatten(0, 1), padded.flatten(0, 1), reduction="none")
    wanted = (losses * (1 if weights is None else weights.flatten())).mean()
    torch.testing.assert_close(found.loss, wanted)
    parameters = tuple(model.parameters())
    gradients = (torch.autograd.grad(loss, parameters) for loss in (found.loss, wanted))
    torch.testing.assert_close(*gradients)


def test_targets_may_be_ids_and_no_target_is_no_loss(build, probs):
    model, ids = build(MutBertForMaskedLM), torch.randint(5, 9, (3, 3), generator=torch.Generator().manual_seed(3))
    inputs = {"input_probs": probs(3, 12), "target_places": PLACES}
    losses = [model(**inputs, labels=labels).loss for labels in (ids, torch.nn.functional.one_hot(ids, 9).float())]
    torch.testing.assert_close(*losses)
    loss = model(input_probs=probs(1, 5), labels=torch.full((1, 5), -100)).loss
    assert loss.item() == 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, tuple(model.parameters())))


def test_the_vocabulary_is_fixed(build):
    """One that grew would have other tokens at its end, where four columns are read as the bases."""
    model = build(MutBertModel)
    assert model.resize_token_embeddings(9) is model.resize_token_embeddings() is model.get_input_embeddings()
    with pytest.raises(ValueError, match="has 9 tokens"):
        model.resize_token_embeddings(10)
