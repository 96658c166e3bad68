"""Configurations: the published defaults, wrong values, RoPE scaling under either name, both layouts."""

import json

import pytest

from mutbert.model import MutBertConfig, MutBertForSequenceClassification, MutBertModel

DYNAMIC = {"type": "dynamic", "factor": 2.0}


def saved(config, folder, **changes):
    """Save a configuration, with changes in its file."""
    config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_defaults_are_the_published_model():
    published = {
        "vocab_size": 9, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512, "rope_theta": 10000.0,
        "pooler_type": "mean", "pad_token_id": 3, "type_vocab_size": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    assert published.items() <= MutBertConfig().to_dict().items()
    assert MutBertConfig().rope_scaling is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 50}, "even whole number of at least 2"),
        ({"hidden_size": 36}, "even"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"hidden_dropout_prob": 1.5}, "dropout probability has to be between 0 and 1"),
        ({"classifier_dropout": -1}, "dropout probability has to be between 0 and 1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"pooler_type": "max"}, "pooler_type is 'max'; it must be one of mean, first_token_transform$"),
        ({"pad_token_id": 9}, "pad_token_id"),
        ({"hidden_size": 24, "rope_scaling": DYNAMIC}, "at least 4"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MutBertForSequenceClassification(MutBertConfig(**{"hidden_size": 48, **changes}))


@pytest.mark.parametrize(
    "scaling",
    [
        "dynamic",
        {},
        {"factor": 2.0},
        {"type": "yarn", "factor": 2.0},
        {"type": "linear"},
        {"type": "linear", "factor": 0.5},
        {"type": "linear", "factor": True},
        {"type": "linear", "rope_type": "dynamic", "factor": 2.0},
        {"type": "linear", "factor": 2.0, "beta_fast": 32},
    ],
)
def test_wrong_rope_scaling_is_refused_with_the_remedy(scaling):
    with pytest.raises(ValueError, match=r'rope_scaling is .* give {"type": "linear" or "dynamic", "factor"'):
        MutBertConfig(rope_scaling=scaling)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (DYNAMIC, DYNAMIC),
        ({"rope_type": "linear", "factor": 4}, {"type": "linear", "factor": 4.0}),
        ({"type": "linear", "rope_type": "linear", "factor": 4}, {"type": "linear", "factor": 4.0}),
        ({"type": "dynamic", "factor": 1.0}, None),
        ({"rope_type": "default"}, None),
    ],
)
def test_rope_scaling_has_one_form(given, kept):
    assert MutBertConfig(rope_scaling=given).rope_scaling == kept


def test_rope_scaling_is_set_overridden_and_saved_under_either_name(tmp_path):
    saved(MutBertConfig(hidden_size=48), tmp_path / "plain")
    given = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0}
    loaded, unused = MutBertConfig.from_pretrained(tmp_path / "plain", rope_parameters=given, return_unused_kwargs=True)
    assert unused == {}
    config = MutBertConfig(hidden_size=48)
    config.rope_parameters = given
    for each in (loaded, config, MutBertConfig(hidden_size=48, rope_parameters=given)):
        assert (each.rope_scaling, each.rope_theta) == (DYNAMIC, 500.0)
    config = MutBertConfig.from_pretrained(tmp_path / "plain", rope_scaling=DYNAMIC)
    values = json.loads((saved(config, tmp_path / "scaled") / "config.json").read_text())
    assert values["rope_parameters"] == {"rope_type": "dynamic", "factor": 2.0}
    assert MutBertConfig.from_pretrained(tmp_path / "scaled").rope_scaling == DYNAMIC
    assert MutBertConfig.from_pretrained(tmp_path / "scaled", rope_scaling=None).rope_scaling is None
    with pytest.raises(ValueError, match="rope_scaling is"):
        MutBertConfig.from_pretrained(tmp_path / "scaled", rope_scaling={"type": "longrope", "factor": 2.0})


def test_a_model_checks_what_was_changed_after_its_configuration(config):
    config.num_attention_heads = 5
    with pytest.raises(ValueError, match="even whole number"):
        MutBertModel(config)


def test_a_published_configuration_is_recognised(tmp_path):
    published = {
        "model_type": "bert",
        "architectures": ["RoPEBertForMaskedLM"],
        "auto_map": {"AutoConfig": "JadenLong/MutBERT--modeling_mutbert.RoPEBertConfig"},
    }
    config = MutBertConfig.from_pretrained(saved(MutBertConfig(hidden_size=48), tmp_path, **published))
    assert (config.model_type, config.hidden_size) == ("mutbert", 48)
    assert "auto_map" not in config.to_dict()


@pytest.mark.parametrize(("kind", "message"), [("bert", "stock BERT"), ("esm", "model_type 'esm'")])
def test_other_models_are_refused(tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        MutBertConfig.from_pretrained(saved(MutBertConfig(), tmp_path, model_type=kind))
