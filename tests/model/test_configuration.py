import json

import pytest

from mutbert.model import MutBertConfig, MutBertModel

DYNAMIC = {"type": "dynamic", "factor": 2.0}


def test_defaults_are_the_published_model():
    config = MutBertConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        9,
        768,
        12,
        12,
    )
    assert (config.intermediate_size, config.hidden_act, config.layer_norm_eps) == (3072, "gelu", 1e-12)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.1)
    assert (config.max_position_embeddings, config.rope_theta, config.rope_scaling) == (512, 10000.0, None)
    assert (config.pooler_type, config.pad_token_id, config.type_vocab_size) == ("mean", 3, 2)
    assert config.tie_word_embeddings
    assert config.head_size == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 50}, "even whole number of at least 2"),
        ({"hidden_size": 36}, "even"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob"),
        ({"classifier_dropout": -1}, "classifier_dropout"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"pooler_type": "max"}, "pooler_type is 'max'; it must be one of mean, first_token_transform$"),
        ({"pad_token_id": 9}, "pad_token_id"),
        ({"hidden_size": 24, "rope_scaling": DYNAMIC}, "at least 4"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MutBertConfig(**{"hidden_size": 48, **changes})


@pytest.mark.parametrize(
    "scaling",
    [
        "dynamic",
        {},
        {"factor": 2.0},
        {"type": "yarn", "factor": 2.0},
        {"type": "linear"},
        {"type": "linear", "factor": 0.5},
        {"type": "linear", "factor": "2"},
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


def test_rope_parameters_are_read():
    config = MutBertConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0})
    assert (config.rope_scaling, config.rope_theta) == (DYNAMIC, 500.0)


def test_rope_parameters_can_be_set_and_overridden(tmp_path):
    config = MutBertConfig(hidden_size=48)
    config.save_pretrained(tmp_path)
    given = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0}
    loaded, unused = MutBertConfig.from_pretrained(tmp_path, rope_parameters=given, return_unused_kwargs=True)
    assert (loaded.rope_scaling, loaded.rope_theta, unused) == (DYNAMIC, 500.0, {})
    config.rope_parameters = given
    assert (config.rope_scaling, config.rope_theta) == (DYNAMIC, 500.0)
    config.rope_parameters = None
    assert config.rope_scaling is None
    with pytest.raises(ValueError, match="rope_scaling is"):
        config.rope_parameters = {"rope_type": "yarn", "factor": 2.0}


def test_rope_scaling_is_overridden_saved_and_read_again(tmp_path):
    MutBertConfig(hidden_size=48).save_pretrained(tmp_path / "plain")
    config = MutBertConfig.from_pretrained(tmp_path / "plain", rope_scaling=DYNAMIC)
    assert config.rope_scaling == DYNAMIC
    config.save_pretrained(tmp_path / "scaled")
    assert json.loads((tmp_path / "scaled" / "config.json").read_text())["rope_parameters"] == {
        "rope_type": "dynamic",
        "factor": DYNAMIC["factor"],
    }
    assert MutBertConfig.from_pretrained(tmp_path / "scaled").rope_scaling == DYNAMIC
    assert MutBertConfig.from_pretrained(tmp_path / "scaled", rope_scaling=None).rope_scaling is None
    with pytest.raises(ValueError, match="rope_scaling is"):
        MutBertConfig.from_pretrained(tmp_path / "scaled", rope_scaling={"type": "longrope", "factor": 2.0})


@pytest.mark.parametrize("word", ["cls", "first_token_transform"])
def test_first_token_pooling_has_one_name(tmp_path, word):
    config = MutBertConfig(hidden_size=48)
    config.save_pretrained(tmp_path / "mean")
    config.pooler_type = word
    overridden = MutBertConfig.from_pretrained(tmp_path / "mean", pooler_type=word)
    for each in (config, overridden, MutBertConfig(hidden_size=48, pooler_type=word)):
        assert each.pooler_type == "first_token_transform"
    path = tmp_path / "mean" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pooler_type": word}))
    read = MutBertConfig.from_pretrained(tmp_path / "mean")
    read.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["pooler_type"] == "first_token_transform"
    assert MutBertConfig.from_pretrained(tmp_path / "again").pooler_type == "first_token_transform"


def test_every_value_survives_saving(tmp_path):
    config = MutBertConfig(
        hidden_size=24,
        num_attention_heads=2,
        rope_theta=77.0,
        pooler_type="first_token_transform",
        classifier_dropout=0.5,
        num_labels=3,
        problem_type="single_label_classification",
        tie_word_embeddings=False,
    )
    config.save_pretrained(tmp_path)
    again = MutBertConfig.from_pretrained(tmp_path)
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}


def test_a_model_checks_what_was_changed_behind_the_configuration(config):
    config.num_attention_heads = 5
    with pytest.raises(ValueError, match="even whole number"):
        MutBertModel(config)


@pytest.mark.parametrize("word", ["cls", "first_token_transform"])
def test_published_configuration_is_recognised(tmp_path, word):
    published = {
        "model_type": "bert",
        "architectures": ["RoPEBertForMaskedLM"],
        "auto_map": {"AutoConfig": "JadenLong/MutBERT--modeling_mutbert.RoPEBertConfig"},
        "hidden_size": 48,
        "num_attention_heads": 4,
        "pooler_type": word,
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    config = MutBertConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.hidden_size, config.pooler_type) == ("mutbert", 48, "first_token_transform")
    assert "auto_map" not in config.to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "stock BERT"),
        ({"model_type": "bert"}, "stock BERT"),
        ({"model_type": "esm"}, "model_type 'esm'"),
    ],
)
def test_other_models_are_refused(tmp_path, values, message):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        MutBertConfig.from_pretrained(tmp_path)
