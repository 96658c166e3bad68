"""Configurations: the published defaults, wrong values, RoPE scaling under either name, both layouts."""

import json

import pytest
import torch

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertForSequenceClassification

DYNAMIC = {"type": "dynamic", "factor": 2.0}
SCALING = r'rope_scaling is .* give {"type": "linear" or "dynamic", "factor"'


def saved(config, folder, **changes):
    """Save a configuration, with changes in its file."""
    config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_defaults_are_the_published_model():
    with torch.device("meta"):
        model = MutBertForMaskedLM(MutBertConfig())
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_656_585


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 50}, "even whole number of at least 2"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"hidden_dropout_prob": 1.5}, "dropout probability has to be between 0 and 1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"pooler_type": "max"}, "pooler_type is 'max'; it must be one of mean, first_token_transform$"),
        ({"pad_token_id": 9}, "pad_token_id"),
        ({"pre_norm": 1}, "pre_norm is 1; it must be true or false"),
        ({"hidden_size": 24, "rope_scaling": DYNAMIC}, "at least 4"),
        ({"rope_scaling": "dynamic"}, SCALING),
        ({"rope_scaling": {}}, SCALING),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, SCALING),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, SCALING),
        ({"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}}, SCALING),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 32}}, SCALING),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MutBertForSequenceClassification(MutBertConfig(**{"hidden_size": 48, **changes}))
    config = MutBertConfig(hidden_size=48)
    config.num_attention_heads = 5
    with pytest.raises(ValueError, match="even whole number"):
        MutBertForMaskedLM(config)


def test_what_no_published_model_has_is_saved_where_it_is_on(tmp_path):
    MutBertConfig().save_pretrained(tmp_path)
    names = {"pre_norm", "gated_feed_forward"}
    assert not names & json.loads((tmp_path / "config.json").read_text()).keys()
    MutBertConfig(pre_norm=True).save_pretrained(tmp_path)
    assert names & json.loads((tmp_path / "config.json").read_text()).keys() == {"pre_norm"}
    assert MutBertConfig.from_pretrained(tmp_path).pre_norm


def test_rope_scaling_has_one_form_under_either_name(tmp_path):
    for given, kept in (
        ({"type": "linear", "rope_type": "linear", "factor": 4}, {"type": "linear", "factor": 4.0}),
        ({"type": "dynamic", "factor": 1.0}, None),
        ({"rope_type": "default"}, None),
    ):
        assert MutBertConfig(rope_scaling=given).rope_scaling == kept
    plain, given = saved(MutBertConfig(hidden_size=48), tmp_path / "plain"), {**DYNAMIC, "rope_theta": 500.0}
    config = MutBertConfig(hidden_size=48)
    config.rope_parameters = given
    for each in (MutBertConfig.from_pretrained(plain, rope_parameters=given), config):
        assert (each.rope_scaling, each.rope_theta) == (DYNAMIC, 500.0)
    config = MutBertConfig.from_pretrained(plain, rope_scaling=DYNAMIC)
    values = json.loads((saved(config, tmp_path / "scaled") / "config.json").read_text())
    assert values["rope_parameters"] == {"rope_type": "dynamic", "factor": 2.0}
    assert MutBertConfig.from_pretrained(tmp_path / "scaled").rope_scaling == DYNAMIC
    assert MutBertConfig.from_pretrained(tmp_path / "scaled", rope_scaling=None).rope_scaling is None


def test_a_published_configuration_is_recognised_and_others_are_refused(tmp_path):
    published = {"model_type": "bert", "auto_map": {"AutoConfig": "JadenLong/MutBERT--modeling_mutbert.RoPEBertConfig"}}
    config = MutBertConfig.from_pretrained(saved(MutBertConfig(hidden_size=48), tmp_path, **published))
    assert (config.model_type, config.hidden_size) == ("mutbert", 48)
    assert "auto_map" not in config.to_dict()
    for kind, message in (("bert", "stock BERT"), ("esm", "model_type 'esm'")):
        with pytest.raises(ValueError, match=message):
            MutBertConfig.from_pretrained(saved(MutBertConfig(), tmp_path, model_type=kind))
