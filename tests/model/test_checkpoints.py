"""Checkpoints are read whole or refused in one line; the published layout is read at the first try."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from mutbert.errors import InputError
from mutbert.model import (
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    read_checkpoint,
)
from mutbert.model.convert import convert_checkpoint

EMBEDDING = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
BIAS = "cls.predictions.bias"
CLASSIFIERS = (MutBertForSequenceClassification, MutBertForTokenClassification)


def refusal(call):
    """Return the one line with which a call refuses its input."""
    with pytest.raises(InputError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.shared
def test_golden_keys_are_ours(shared):
    golden = shared / "golden"
    model = read_checkpoint(golden, MutBertForMaskedLM)
    assert load_file(golden / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}
    classifier = read_checkpoint(golden / "classifier", MutBertForSequenceClassification)
    assert load_file(golden / "classifier" / "model.safetensors").keys() == classifier.state_dict().keys()


@pytest.mark.parametrize("load", [MutBertForMaskedLM.from_pretrained, lambda p: read_checkpoint(p, MutBertForMaskedLM)])
def test_published_layout_is_read_and_saved_as_ours(published, probs, tmp_path, load):
    folder, model = published(MutBertForMaskedLM)
    loaded = load(folder)
    assert torch.equal(loaded(input_probs=probs(2, 10)).logits, model(input_probs=probs(2, 10)).logits)
    assert loaded.name_or_path == loaded.config.name_or_path == str(folder)
    loaded.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "mutbert"
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    body = read_checkpoint(folder, MutBertModel, dtype=torch.bfloat16, attn_implementation="eager")
    assert {weight.dtype for weight in body.parameters()} == {torch.bfloat16}
    assert len(body(input_probs=probs(2, 10), output_attentions=True).attentions) == 2


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_fine_tuning_starts_with_a_new_classifier_and_reading_does_not(published, model_class, pooler_type):
    folder, model = published(MutBertForMaskedLM)
    fresh = read_checkpoint(folder, model_class, fresh_head=True, num_labels=3, pooler_type=pooler_type)
    assert fresh.classifier.weight.shape == (3, 32)
    assert torch.equal(fresh.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    assert "has no" in refusal(lambda: read_checkpoint(folder, model_class))


def test_a_missing_weight_is_refused_once(published, capfd):
    folder, _ = published(MutBertForMaskedLM, lambda weights: weights.pop(EMBEDDING))
    assert f"has no {EMBEDDING}" in refusal(lambda: read_checkpoint(folder, MutBertForMaskedLM))
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("model_class", [MutBertForMaskedLM, MutBertModel, MutBertForSequenceClassification])
@pytest.mark.parametrize(
    "key",
    [
        "bert.embeddings.position_embeddings.weight", "bert.encoder.layer.2.output.dense.bias",
        "cls.predictions.extra.weight", "cls.seq_relationship.weight", "classifier.dense.weight",
    ],
)  # fmt: skip
def test_a_left_over_weight_is_refused(published, key, model_class):
    folder, _ = published(MutBertForMaskedLM, lambda weights: weights.update({key: torch.zeros(2)}))
    assert f"has {key}, which" in refusal(lambda: read_checkpoint(folder, model_class, fresh_head=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight > 0, "numbers of type torch.bool, and needs floats"),
        (lambda weight: weight.int(), "numbers of type torch.int32, and needs floats"),
        (lambda weight: weight.index_fill(0, torch.tensor([1]), torch.nan), "numbers that are not finite"),
        (lambda weight: weight / 0, "numbers that are not finite"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(published, tmp_path, change, message):
    folder, _ = published(MutBertForMaskedLM, lambda weights: weights.update({EMBEDDING: change(weights[EMBEDDING])}))
    for load in (lambda: read_checkpoint(folder, MutBertModel), lambda: convert_checkpoint(folder, tmp_path / "ours")):
        assert f"model.safetensors: {EMBEDDING} has {message}" in refusal(load)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("key", ["classifier.bias", "bert.pooler.dense", "bert.encoder.layer.0.output.dense.bias"])
def test_of_a_classifier_nothing_may_be_missing(published, model_class, key):
    """Whole parts are new in fine-tuning; one of which some is there is torn, and so is one without its pooler."""

    def tear(weights):
        for name in [name for name in weights if name.startswith(key)]:
            del weights[name]

    folder, _ = published(model_class, tear, pooler_type="first_token_transform")
    if "pooler" in key and model_class is MutBertForTokenClassification:
        assert read_checkpoint(folder, model_class, fresh_head=True), "it has none"
    else:
        assert f"has no {key}" in refusal(lambda: read_checkpoint(folder, model_class, fresh_head=True))


@pytest.mark.parametrize("in_config", [True, False])
def test_a_decoder_of_its_own_is_kept(published, probs, tmp_path, in_config):
    """Whether or not the configuration has it so."""
    folder, model = published(
        MutBertForMaskedLM, None, {"tie_word_embeddings": not in_config}, tie_word_embeddings=False
    )
    for source, destination in ((folder, "ours"), (tmp_path / "ours", "again")):
        loaded = read_checkpoint(source, MutBertForMaskedLM)
        assert not loaded.config.tie_word_embeddings
        assert torch.equal(loaded(input_probs=probs(2, 10)).logits, model(input_probs=probs(2, 10)).logits)
        loaded.config.tie_word_embeddings = not in_config
        loaded.save_pretrained(tmp_path / destination)


@pytest.mark.parametrize("word", ["first_token_transform", "cls"])
def test_first_token_pooler(published, probs, word):
    def of_a_body(weights):
        weights.update({f"bert.{name}": weights.pop(name) for name in list(weights)})

    settings = {"pooler_type": "first_token_transform"}
    folder, model = published(MutBertModel, of_a_body, {"pooler_type": word}, **settings)
    wanted = model(input_probs=probs(2, 10))
    assert torch.equal(read_checkpoint(folder, MutBertModel)(input_probs=probs(2, 10)).pooler_output, wanted[1])
    mean = read_checkpoint(folder, MutBertModel, pooler_type="mean")
    assert torch.equal(mean(input_probs=probs(2, 10)).last_hidden_state, wanted[0])
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pooler_type": "mean"}))
    assert "pooler.dense" in refusal(lambda: read_checkpoint(folder, MutBertModel))


def test_stock_bert_is_refused_by_its_config_and_by_its_weights(published, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    stock = tmp_path / "stock"
    BertForMaskedLM(BertConfig(vocab_size=9, pad_token_id=3, **sizes)).save_pretrained(stock)
    assert "stock BERT" in refusal(lambda: read_checkpoint(stock, MutBertForMaskedLM))
    (published(MutBertForMaskedLM)[0] / "config.json").replace(stock / "config.json")
    assert "has bert.embeddings.position" in refusal(lambda: read_checkpoint(stock, MutBertForMaskedLM))


def test_what_is_no_checkpoint_is_refused(published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    (tmp_path / "empty").mkdir()
    (folder / "model.safetensors").write_bytes(b"not a tensor in here")
    for path, message in (
        (tmp_path / "nowhere", "no such model folder"),
        (tmp_path / "empty", "it has no config.json"),
        (folder, "model.safetensors: cannot be read"),
    ):
        text = refusal(lambda: read_checkpoint(path, MutBertForMaskedLM))  # noqa: B023
        assert text.startswith(str(path))
        assert message in text
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(lambda: read_checkpoint(folder, MutBertForMaskedLM))


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_are_read_from_bin_files(published, probs, shards):
    """The published form before safetensors: files that torch has pickled."""
    folder, model = published(MutBertForMaskedLM)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"pytorch_model-{number % shards + 1:05}-of-{shards:05}.bin" for number, name in enumerate(weights)}
    for file in set(names.values()):
        part = {name: weights[name] for name in weights if names[name] == file}
        torch.save(part, folder / (file if shards > 1 else "pytorch_model.bin"))
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    loaded = read_checkpoint(folder, MutBertForMaskedLM)
    assert torch.equal(loaded(input_probs=probs(2, 10)).logits, model(input_probs=probs(2, 10)).logits)


class Payload:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("content", ["code", "torn", {"epoch": 3}, [torch.zeros(2)], torch.zeros(2)])
def test_a_bin_file_of_other_things_is_refused_and_not_run(published, tmp_path, content):
    folder, _ = published(MutBertForMaskedLM)
    (folder / "model.safetensors").unlink()
    trace, path = tmp_path / "was here", folder / "pytorch_model.bin"
    torch.save({EMBEDDING: Payload(trace)} if content == "code" else content, path)
    if content == "torn":
        path.write_bytes(path.read_bytes()[:100])
    for load in (lambda: read_checkpoint(folder, MutBertModel), lambda: convert_checkpoint(folder, tmp_path / "ours")):
        text = refusal(load)
        assert text.startswith(f"{path}: ")
        assert "trust" not in text, "torch's own remedy"
    assert not trace.exists()


@pytest.mark.parametrize(
    "changes", [{"hidden_act": ["gelu"]}, {"dtype": "banana"}, {"id2label": [1]}, {"num_labels": "x"}, {"check": 1}]
)
def test_a_config_with_odd_values_is_refused(published, changes):
    folder, _ = published(MutBertForMaskedLM, None, changes)
    assert refusal(lambda: read_checkpoint(folder, MutBertForMaskedLM)).startswith(str(folder))
