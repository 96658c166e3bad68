"""The encoder and its heads, on a tiny model with random weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

import mutbert.model
from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
)
from mutbert.model.modeling_mutbert import rotary_tables

HEADS = (MutBertForMaskedLM, MutBertForSequenceClassification, MutBertForTokenClassification)


def test_full_size_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = MutBertForMaskedLM(MutBertConfig())
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_656_585


# Inputs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_ids_are_one_hot_probabilities(build, attention):
    model = build(MutBertModel, attention=attention)
    ids = torch.randint(0, 9, (3, 12), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(ids, 9).float()
    wanted = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(model(input_probs=one_hot).last_hidden_state, wanted)
    torch.testing.assert_close(model(input_ids=one_hot).last_hidden_state, wanted, msg="as published code passes it")
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embeds).last_hidden_state, wanted)


def test_ids_are_one_hot_probabilities_under_autocast(build):
    model = build(MutBertModel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        from_ids, from_probs = (
            model(given, output_hidden_states=True).hidden_states[0]
            for given in (torch.arange(9)[None], torch.eye(9)[None])
        )
    torch.testing.assert_close(from_ids, from_probs, rtol=0, atol=0)


def test_four_columns_are_the_bases(build, probs):
    model = build(MutBertModel)
    bases = probs(2, 10, columns=4)
    widened = torch.cat((torch.zeros(2, 10, 5), bases), dim=-1)
    torch.testing.assert_close(model(input_probs=bases).last_hidden_state, model(input_probs=widened).last_hidden_state)


def test_token_types_count(build, probs):
    model = build(MutBertModel)
    inputs = probs(2, 10)
    zeros = torch.zeros(2, 10, dtype=torch.long)
    alone = model(input_probs=inputs).last_hidden_state
    torch.testing.assert_close(model(input_probs=inputs, token_type_ids=zeros).last_hidden_state, alone)
    assert not torch.allclose(model(input_probs=inputs, token_type_ids=zeros + 1).last_hidden_state, alone)


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


# Invariances


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}])
def test_padding_and_batch_change_nothing(build, probs, attention, scaling):
    """Also under dynamic scaling, whose base follows a sequence's own length and not its batch's."""
    model = build(MutBertModel, attention=attention, rope_scaling=scaling)
    lengths = (24, 17, 9)
    inputs = probs(3, 24)
    mask = (torch.arange(24) < torch.tensor(lengths)[:, None]).long()
    together = model(input_probs=inputs, attention_mask=mask)
    for row, length in enumerate(lengths):
        alone = model(input_probs=inputs[row : row + 1, :length])
        torch.testing.assert_close(
            together.last_hidden_state[row, :length], alone.last_hidden_state[0], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(together.pooler_output[row], alone.pooler_output[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mask_of_ones_is_no_mask(build, probs, attention):
    model = build(MutBertModel, attention=attention)
    inputs = probs(2, 12)
    torch.testing.assert_close(
        model(input_probs=inputs, attention_mask=torch.ones(2, 12)).last_hidden_state,
        model(input_probs=inputs).last_hidden_state,
    )


def test_eager_and_sdpa_agree(build, probs):
    inputs = probs(2, 12)
    mask = torch.ones(2, 12)
    mask[1, 7:] = 0
    eager, sdpa = (
        build(MutBertModel, attention=attention)(input_probs=inputs, attention_mask=mask).last_hidden_state
        for attention in ("eager", "sdpa")
    )
    torch.testing.assert_close(eager[mask.bool()], sdpa[mask.bool()], atol=1e-5, rtol=1e-4)


def test_what_was_run_before_changes_nothing(build, probs):
    """The published dynamic scaling keeps the base of the longest input so far."""
    model = build(MutBertModel, rope_scaling={"type": "dynamic", "factor": 2.0})
    short, long = probs(2, 12), probs(2, 40)
    first_short, first_long = model(input_probs=short).last_hidden_state, model(input_probs=long).last_hidden_state
    for _ in range(2):
        assert torch.equal(model(input_probs=short).last_hidden_state, first_short)
        assert torch.equal(model(input_probs=long).last_hidden_state, first_long)


# Rotary positions


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
@pytest.mark.parametrize(
    "scaling",
    [None, {"type": "linear", "factor": 3.0}, {"type": "dynamic", "factor": 1.5}, {"type": "dynamic", "factor": 4}],
)
def test_rotary_tables_follow_the_formulas(length, scaling):
    config = MutBertConfig(hidden_size=24, num_attention_heads=3, max_position_embeddings=16, rope_scaling=scaling)
    tables = rotary_tables(config, length, torch.tensor([[length]]))
    for found, wanted in zip(tables, reference_tables(config, length), strict=True):
        torch.testing.assert_close(found[0, :, 0], wanted, atol=2e-5, rtol=0)


def test_dynamic_scaling_leaves_trained_lengths_alone(build, probs):
    inputs = probs(2, 16)
    plain = build(MutBertModel)(input_probs=inputs).last_hidden_state
    scaled = build(MutBertModel, rope_scaling={"type": "dynamic", "factor": 8.0})(input_probs=inputs)
    assert torch.equal(plain, scaled.last_hidden_state)


def test_what_is_no_argument_is_refused(build, probs):
    for model_class in (MutBertModel, *HEADS):
        with pytest.raises(TypeError, match="position_ids"):
            build(model_class)(input_probs=probs(1, 4), position_ids=torch.arange(4)[None])


# Pooling and optional outputs


def test_mean_pooling(build, probs):
    model = build(MutBertModel)
    mask = torch.ones(2, 10)
    mask[1, 6:] = 0
    outputs = model(input_probs=probs(2, 10), attention_mask=mask)
    torch.testing.assert_close(outputs.pooler_output[1], outputs.last_hidden_state[1, :6].mean(dim=0))


@pytest.mark.parametrize("pooler_type", ["first_token_transform", "cls"])
def test_first_token_pooling(build, probs, pooler_type):
    model = build(MutBertModel, pooler_type=pooler_type)
    outputs = model(input_probs=probs(2, 10))
    wanted = torch.tanh(model.pooler.dense(outputs.last_hidden_state[:, 0]))
    torch.testing.assert_close(outputs.pooler_output, wanted)
    assert not any("pooler" in name for name in build(MutBertModel).state_dict())


def test_attentions_and_hidden_states(build, probs):
    model = build(MutBertForMaskedLM, attention="eager")
    outputs = model(input_probs=probs(2, 10), output_attentions=True, output_hidden_states=True)
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(2, 4, 10, 10)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(dim=-1), torch.ones(2, 4, 10))
    assert [tuple(hidden.shape) for hidden in outputs.hidden_states] == [(2, 10, 32)] * 3


def test_outputs_as_a_tuple(build, probs):
    model = build(MutBertForMaskedLM)
    inputs = probs(2, 10)
    assert torch.equal(model(input_probs=inputs, return_dict=False)[0], model(input_probs=inputs).logits)


# Losses


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


@pytest.mark.parametrize("model_class", HEADS)
def test_every_parameter_learns(build, probs, model_class):
    model = build(model_class, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1).train()
    labels = {
        MutBertForMaskedLM: torch.randint(5, 9, (2, 10)),
        MutBertForSequenceClassification: torch.tensor([0, 1]),
        MutBertForTokenClassification: torch.randint(0, 2, (2, 10)),
    }[model_class]
    model(input_probs=probs(2, 10), labels=labels).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_checkpointing_gives_the_same_gradients(build, probs, dropout):
    """The layers run twice, and drop the same features both times."""
    gradients = []
    for checkpointing in (False, True):
        model = build(MutBertForMaskedLM, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout).train()
        if checkpointing:
            # The name in transformers 5.0 is an alias of the newer one, which warns.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        mask = torch.ones(2, 10)
        mask[1, 8:] = 0
        labels = torch.randint(5, 9, (2, 10), generator=torch.Generator().manual_seed(0))
        torch.manual_seed(5)
        model(input_probs=probs(2, 10), attention_mask=mask, labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_fresh_weights():
    torch.manual_seed(0)
    model = MutBertForMaskedLM(MutBertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2))
    weights = model.state_dict()
    embedding = weights["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(embedding[3], torch.zeros(64)), "[PAD]"
    assert embedding[5:].std().item() == pytest.approx(0.02, rel=0.2)
    assert weights["bert.encoder.layer.0.intermediate.dense.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for name, weight in weights.items():
        if name.endswith("LayerNorm.weight"):
            assert torch.equal(weight, torch.ones_like(weight)), name
        elif name.endswith("bias"):
            assert torch.equal(weight, torch.zeros_like(weight)), name
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_finite_differences(build, probs, attention, training):
    """In double precision, through every part: embeddings, rotary positions, attention, head, loss."""
    model = build(MutBertForMaskedLM, attention=attention, num_hidden_layers=1, hidden_size=8, intermediate_size=8)
    model = model.double().train(training)
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


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(build, probs, attention, dtype):
    model = build(MutBertForMaskedLM, attention=attention)
    inputs = probs(2, 10)
    mask = torch.ones(2, 10)
    mask[1, 8:] = 0
    full = model(input_probs=inputs, attention_mask=mask).logits.softmax(dim=-1)
    with torch.autocast("cpu", dtype=dtype):
        autocast = model(input_probs=inputs, attention_mask=mask).logits
    half = model.to(dtype)(input_probs=inputs, attention_mask=mask).logits
    assert half.dtype == dtype
    for found in (autocast, half):
        torch.testing.assert_close(found.float().softmax(dim=-1), full, atol=0.05, rtol=0)


# Hugging Face citizenship


@pytest.mark.parametrize(
    ("model_class", "auto_class"),
    [
        (MutBertModel, AutoModel),
        (MutBertForMaskedLM, AutoModelForMaskedLM),
        (MutBertForSequenceClassification, AutoModelForSequenceClassification),
        (MutBertForTokenClassification, AutoModelForTokenClassification),
    ],
)
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_saved_models_are_found_by_the_auto_classes(build, probs, tmp_path, model_class, auto_class, pooler_type):
    model = build(model_class, pooler_type=pooler_type)
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is MutBertConfig
    again = auto_class.from_pretrained(tmp_path)
    assert type(again) is model_class
    assert again.state_dict().keys() == model.state_dict().keys()
    inputs = probs(2, 10)
    assert torch.equal(again(input_probs=inputs)[0], model(input_probs=inputs)[0])


def test_rope_scaling_is_an_argument_of_loading(build, probs, tmp_path):
    build(MutBertForMaskedLM).save_pretrained(tmp_path / "plain")
    scaling = {"type": "dynamic", "factor": 2.0}
    scaled = AutoModelForMaskedLM.from_pretrained(tmp_path / "plain", rope_scaling=scaling)
    scaled.save_pretrained(tmp_path / "scaled")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "scaled")
    assert again.config.rope_scaling == scaling
    inputs = probs(1, 40)
    assert torch.equal(again(input_probs=inputs).logits, scaled(input_probs=inputs).logits)
    assert not torch.allclose(build(MutBertForMaskedLM)(input_probs=inputs).logits, again(input_probs=inputs).logits)


@pytest.mark.parametrize("model_class", [MutBertModel, *HEADS])
def test_attention_can_be_changed_after_loading(build, model_class):
    model = build(model_class, attention="sdpa")
    ids = torch.arange(9)[None]
    model.set_attn_implementation("eager")
    assert len(model(input_ids=ids, output_attentions=True).attentions) == 2
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="'sdpa' attention has no weights"):
        model(input_ids=ids, output_attentions=True)


@pytest.mark.parametrize("model_class", [MutBertModel, *HEADS])
def test_the_vocabulary_is_fixed(build, model_class):
    """One that grew would have other tokens at its end, where four columns of probabilities are read as the bases."""
    model = build(model_class)
    embedding = model.get_input_embeddings()
    assert model.resize_token_embeddings(9) is model.resize_token_embeddings() is embedding
    for wanted in ({"new_num_tokens": 10}, {"new_num_tokens": 5}):
        with pytest.raises(ValueError, match="has 9 tokens"):
            model.resize_token_embeddings(**wanted)
    assert model.get_input_embeddings() is embedding
    assert model.config.vocab_size == 9


def test_model_code_travels_alone(tmp_path):
    """Copied beside a checkpoint, the two files need nothing of this package."""
    package = tmp_path / "travelled"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("configuration_mutbert.py", "modeling_mutbert.py"):
        (package / name).write_text((Path(mutbert.model.__file__).parent / name).read_text())
    program = (
        "import sys; sys.modules['mutbert'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import torch\n"
        "from travelled.modeling_mutbert import MutBertForMaskedLM\n"
        "from travelled.configuration_mutbert import MutBertConfig\n"
        "config = MutBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)\n"
        "print(tuple(MutBertForMaskedLM(config)(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 4, 9)\n", done.stderr


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_missing_library_is_said_with_its_extra(library):
    program = f"import sys; sys.modules[{library!r}] = None; import mutbert.model"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"{library} is not installed; remedy: pip install 'mutbert[model]'" in done.stderr
