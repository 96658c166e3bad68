"""Models of several kinds behind one adapter, loaded whole or refused in one line."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM, EsmForMaskedLM

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import BaseInputs
from mutbert.errors import InputError
from mutbert.model import MutBertForMaskedLM

KINDS = ("mutbert", "esm", "bert")
ONE_LINE = r"\A[^\n]+\Z"


@pytest.fixture(params=KINDS)
def folder(request, model_folders):
    return model_folders[request.param]


@pytest.fixture
def copied(tmp_path, model_folders):
    """A copy of a model's folder, to change."""

    def copy(kind):
        return shutil.copytree(model_folders[kind], tmp_path / kind)

    return copy


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_weights(folder, fragment):
    """Take weights out of a checkpoint."""
    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if fragment not in name}
    save_file(weights, path, metadata={"format": "pt"})


def test_hidden_states_are_those_of_the_model_itself(folder, examples_of, sequences):
    encoder = open_encoder(folder)
    batch = encoder.inputs(examples_of(sequences[:1])).batch(np.array([0]))
    states = encoder.hidden_states(encoder.body(64), batch)

    kind = {"mutbert": MutBertForMaskedLM, "esm": EsmForMaskedLM, "bert": BertForMaskedLM}[folder.name]
    model = kind.from_pretrained(folder).eval()
    # The tokenizer's whole answer, with the mask and the token types that it gives.
    ids = AutoTokenizer.from_pretrained(folder)(sequences[0], return_tensors="pt")
    with torch.inference_mode():
        wanted = model(**ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states, wanted, atol=1e-5, rtol=1e-5)


def test_a_classifier_has_the_model_and_a_fresh_head_that_the_seed_decides(folder, examples_of, sequences):
    encoder = open_encoder(folder)
    batch = encoder.inputs(examples_of(sequences)).batch(np.arange(len(sequences)))
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(encoder.classifier(3, 64))
    assert models[0](**batch).logits.shape == (len(sequences), 3)
    states = [model.state_dict() for model in models]
    differ = {name for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert differ
    assert all("classifier" in name or "pooler" in name for name in differ)
    trained = AutoModelForMaskedLM.from_pretrained(folder).state_dict()
    for name in set(states[0]) & set(trained):
        assert torch.equal(states[0][name], trained[name]), name


def test_random_weights_are_the_seeds_and_nothing_of_the_checkpoint(folder):
    encoder, states = open_encoder(f"random:{folder}"), [open_encoder(folder).body(64).state_dict()]
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        states.append(encoder.body(64).state_dict())
    for name, trained in states[0].items():
        assert torch.equal(states[1][name], states[3][name])
        if trained.dim() == 2 and trained.std() > 0:
            assert not any(torch.equal(one[name], other[name]) for one, other in pairwise(states))


def test_identity_is_that_of_the_weights(copied):
    folder = copied("bert")
    before, fresh = open_encoder(folder).identity(), open_encoder(f"random:{folder}").identity()
    assert open_encoder(folder, name="other").identity() == before
    drop_weights(folder, "cls.")
    assert open_encoder(folder).identity() not in {before, fresh}
    assert open_encoder(f"random:{folder}").identity() == fresh
    change_config(folder, hidden_act="relu")
    assert open_encoder(f"random:{folder}").identity() != fresh


@pytest.mark.parametrize("prefix", ["", "random:"])
def test_longer_sequences_scale_the_rotary_positions_as_far_as_needed(model_folders, prefix):
    encoder = open_encoder(f"{prefix}{model_folders['mutbert']}")
    assert encoder.body(64).config.rope_scaling is None
    assert encoder.body(96).config.rope_scaling == {"type": "dynamic", "factor": 1.5}
    given = {"type": "linear", "factor": 2}
    assert encoder.classifier(2, 128, rope_scaling=given).config.rope_scaling == {"type": "linear", "factor": 2.0}
    for wrong, longest, match in (
        (given, 129, "129 tokens are more than the 128 that .* raise its factor"),
        ({"type": "linear", "factor": 1}, 65, "65 tokens are more than the 64 that .* raise its factor"),
        ({"type": "linear"}, 60, "rope_scaling is"),
        ({"type": "yarn", "factor": 2}, 60, "rope_scaling is"),
    ):
        with pytest.raises(InputError, match=match):
            encoder.classifier(2, longest, rope_scaling=wrong)


@pytest.mark.parametrize("kind", ["esm", "bert"])
@pytest.mark.parametrize("lost", ["layer.1.attention", "word_embeddings"])
def test_a_checkpoint_that_lacks_weights_is_refused(copied, kind, lost):
    folder = copied(kind)
    drop_weights(folder, lost)
    encoder = open_encoder(folder)
    for load in (lambda: encoder.body(20), lambda: encoder.classifier(2, 20)):
        with pytest.raises(InputError, match=f"has no .*{lost.rpartition('.')[2]}.*; choose a model that is whole"):
            load()


def test_what_is_not_there_is_said_in_one_line(tmp_path, copied, examples_of):
    empty = tmp_path / "empty"
    empty.mkdir()
    for model in (tmp_path / "none", empty, f"random:{empty}", f"random:{tmp_path / 'none'}"):
        with pytest.raises(InputError, match=ONE_LINE):
            open_encoder(model)
    folder = copied("bert")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match=r"\A[^\n]+has no tokenizer that knows A, C, G and T[^\n]+\Z"):
        open_encoder(folder).inputs(examples_of(["ACGT"]))
    with pytest.raises(InputError, match="its tokens are not single bases"):
        open_encoder(folder).classifier(2, 20, each_token=True)


CODE = """\
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

Path({witness!r}).write_text("ran")


class OtherConfig(BertConfig):
    pass


class OtherModel(BertForSequenceClassification):
    config_class = OtherConfig
"""


@pytest.mark.parametrize("kind", ["bert", "other"])
def test_code_of_a_checkpoint_runs_only_where_it_is_trusted(copied, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, witness = copied("bert"), tmp_path / "witness"
    (folder / "code.py").write_text(CODE.format(witness=str(witness)))
    automatic = {"AutoConfig": "code.OtherConfig", "AutoModelForSequenceClassification": "code.OtherModel"}
    # The library has a model of the first type itself, and would take that without a word.
    change_config(folder, auto_map=automatic, model_type=kind)
    for model in (folder, f"random:{folder}"):
        with pytest.raises(InputError, match=r"\A[^\n]+ --trust-remote-code to run it\Z"):
            open_encoder(model)
    assert not witness.exists()
    model = open_encoder(folder, trust_remote_code=True).classifier(2, 20)
    assert type(model).__name__ == "OtherModel"
    assert witness.exists()


@pytest.fixture(params=[False, True], ids=["sequence", "token"])
def network(request):
    torch.manual_seed(0)
    return open_encoder("cnn").classifier(3, 10_000, each_token=request.param).eval()


def test_of_the_plain_network_padding_and_the_others_of_a_batch_have_no_part(network, examples_of, sequences):
    inputs = BaseInputs(examples_of(sequences))
    batch = inputs.batch(np.arange(len(sequences)))
    probs = torch.nn.functional.one_hot(batch.pop("input_ids"), alphabet.VOCABULARY_SIZE).float()
    with torch.inference_mode():
        together = network(input_probs=probs, **batch).logits
        alone = [network(**inputs.batch(np.array([row]))).logits[0] for row in range(len(sequences))]
    assert together.shape == ((len(sequences), 62, 3) if network.each_token else (len(sequences), 3))
    for row, wanted in enumerate(alone):
        found = together[row, : len(wanted)] if network.each_token else together[row]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_plain_network_is_nothing_before_it_is_trained():
    encoder = open_encoder("cnn")
    for wrong in (lambda: encoder.body(20), encoder.trained_classifier):
        with pytest.raises(InputError, match=ONE_LINE):
            wrong()
    assert encoder.identity() == open_encoder("cnn", name="other").identity()
