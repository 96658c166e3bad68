"""Checkpoints are read whole or refused; the published layout is read at the first try."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def as_published(folder, **changes):
    """Give a saved model's folder the published configuration."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values |= {
        "model_type": "bert",
        "auto_map": {
            "AutoConfig": "modeling_mutbert.RoPEBertConfig",
            "AutoModelForMaskedLM": "modeling_mutbert.RoPEBertForMaskedLM",
        },
        **changes,
    }
    values.pop("architectures", None)
    path.write_text(json.dumps(values))
    return folder


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def published(build, tmp_path):
    """A masked model in the published layout, and the model itself."""
    model = build(MutBertForMaskedLM)
    model.save_pretrained(tmp_path / "published")
    return as_published(tmp_path / "published"), model


@pytest.mark.shared
def test_golden_keys_are_ours(shared):
    golden = shared / "golden"
    model = read_checkpoint(golden, MutBertForMaskedLM)
    assert load_file(golden / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}
    classifier = read_checkpoint(golden / "classifier", MutBertForSequenceClassification)
    assert load_file(golden / "classifier" / "model.safetensors").keys() == classifier.state_dict().keys()


@pytest.mark.parametrize("load", [MutBertForMaskedLM.from_pretrained, lambda p: read_checkpoint(p, MutBertForMaskedLM)])
def test_published_layout_is_read_and_saved_as_ours(published, probs, tmp_path, load):
    folder, model = published
    loaded = load(folder)
    inputs = probs(2, 10)
    assert torch.equal(loaded(input_probs=inputs).logits, model(input_probs=inputs).logits)
    loaded.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "mutbert"
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()


def test_body_of_a_masked_model(published, probs):
    folder, model = published
    body = read_checkpoint(folder, MutBertModel)
    inputs = probs(2, 10)
    assert torch.equal(body(input_probs=inputs)[0], model.bert(input_probs=inputs)[0])


@pytest.mark.parametrize("model_class", [MutBertForSequenceClassification, MutBertForTokenClassification])
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_fine_tuning_starts_with_a_new_classifier_and_reading_does_not(published, model_class, pooler_type):
    folder, model = published
    fresh = read_checkpoint(folder, model_class, fresh_head=True, num_labels=3, pooler_type=pooler_type)
    assert fresh.classifier.weight.shape == (3, 32)
    assert torch.equal(fresh.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    with pytest.raises(InputError, match=r"has no .*classifier\.bias"):
        read_checkpoint(folder, model_class)


@pytest.mark.parametrize(
    "key",
    [
        EMBEDDING,
        "bert.encoder.layer.1.attention.self.value.bias",
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.weight",
    ],
)
def test_a_missing_weight_is_refused(published, key):
    folder, _ = published
    edit_weights(folder, lambda weights: weights.pop(key))
    with pytest.raises(InputError, match=f"has no .*{key}"):
        read_checkpoint(folder, MutBertForMaskedLM)


@pytest.mark.parametrize("model_class", [MutBertForMaskedLM, MutBertModel, MutBertForSequenceClassification])
@pytest.mark.parametrize(
    "key",
    [
        "bert.embeddings.position_embeddings.weight",
        "bert.encoder.layer.2.output.dense.bias",
        "cls.predictions.extra.weight",
        "cls.seq_relationship.weight",
        "classifier.dense.weight",
    ],
)
def test_a_left_over_weight_is_refused(published, key, model_class):
    folder, _ = published
    edit_weights(folder, lambda weights: weights.update({key: torch.zeros(2)}))
    with pytest.raises(InputError, match=f"has {key}, which"):
        read_checkpoint(folder, model_class, fresh_head=True)


@pytest.mark.parametrize("load", [convert_checkpoint, lambda p, _: read_checkpoint(p, MutBertForMaskedLM)])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight > 0, "numbers of type torch.bool, and needs floats"),
        (lambda weight: weight.int(), "numbers of type torch.int32, and needs floats"),
        (lambda weight: weight.index_fill(0, torch.tensor([1]), torch.nan), "numbers that are not finite"),
        (lambda weight: weight / 0, "numbers that are not finite"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(published, tmp_path, load, change, message):
    folder, _ = published
    edit_weights(folder, lambda weights: weights.update({EMBEDDING: change(weights[EMBEDDING])}))
    with pytest.raises(InputError, match=f"model.safetensors: {EMBEDDING} has {message}"):
        load(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_wrong_shape_is_refused_in_one_line(published):
    folder, _ = published
    with pytest.raises(InputError, match=r"intermediate\.dense\.bias has shape \(48,\) where .* has \(64,\)") as raised:
        read_checkpoint(folder, MutBertForMaskedLM, intermediate_size=64)
    assert "\n" not in str(raised.value)


def test_another_number_of_classes_is_refused(build, tmp_path):
    build(MutBertForSequenceClassification, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"classifier\.\w+ has shape .*make its config agree"):
        read_checkpoint(tmp_path, MutBertForSequenceClassification, fresh_head=True, num_labels=2)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_decoder_of_its_own_is_kept(build, probs, tmp_path, says_so):
    """Whether or not the configuration says that it is not tied."""
    model = build(MutBertForMaskedLM, tie_word_embeddings=False)
    inputs = probs(2, 10)
    model.save_pretrained(tmp_path / "published")
    as_published(tmp_path / "published", tie_word_embeddings=not says_so)
    for source, destination in (("published", "ours"), ("ours", "again")):
        loaded = read_checkpoint(tmp_path / source, MutBertForMaskedLM)
        assert not loaded.config.tie_word_embeddings
        assert torch.equal(loaded(input_probs=inputs).logits, model(input_probs=inputs).logits)
        loaded.save_pretrained(tmp_path / destination)


def test_a_decoder_that_repeats_the_embedding_stays_tied(published):
    folder, _ = published

    def repeat(weights):
        weights[DECODER] = weights[EMBEDDING].clone()
        # Published code has the bias under a second name too.
        weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()

    edit_weights(folder, repeat)
    model = read_checkpoint(folder, MutBertForMaskedLM)
    assert model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("word", ["first_token_transform", "cls"])
def test_first_token_pooler(build, probs, tmp_path, word):
    model = build(MutBertModel, pooler_type="first_token_transform")
    model.save_pretrained(tmp_path)
    folder = as_published(tmp_path, pooler_type=word)
    edit_weights(folder, lambda weights: weights.update({f"bert.{name}": weights.pop(name) for name in list(weights)}))
    inputs = probs(2, 10)
    loaded = read_checkpoint(folder, MutBertModel)
    assert loaded.config.pooler_type == "first_token_transform"
    assert torch.equal(loaded(input_probs=inputs).pooler_output, model(input_probs=inputs).pooler_output)
    mean = read_checkpoint(folder, MutBertModel, pooler_type="mean")
    assert torch.equal(mean(input_probs=inputs).last_hidden_state, model(input_probs=inputs).last_hidden_state)

    as_published(folder, pooler_type="mean")
    with pytest.raises(InputError, match=r"pooler\.dense"):
        read_checkpoint(folder, MutBertModel)


def test_a_masked_model_has_no_first_token_pooler(published):
    folder, _ = published
    as_published(folder, pooler_type="first_token_transform")
    assert read_checkpoint(folder, MutBertForMaskedLM)
    with pytest.raises(InputError, match=r'has no .*pooler\.dense.*give pooler_type="mean"'):
        read_checkpoint(folder, MutBertModel)


@pytest.mark.parametrize("model_class", [MutBertModel, MutBertForSequenceClassification])
def test_a_checkpoint_of_ours_that_says_cls(build, probs, tmp_path, model_class):
    """As earlier versions of this package wrote it."""
    model = build(model_class, pooler_type="first_token_transform")
    model.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pooler_type": "cls"}))
    old = read_checkpoint(tmp_path / "old", model_class)
    old.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["pooler_type"] == "first_token_transform"
    inputs = probs(2, 10)
    for loaded in (old, read_checkpoint(tmp_path / "new", model_class)):
        assert torch.equal(loaded(input_probs=inputs)[-1], model(input_probs=inputs)[-1])


def test_stock_bert_is_refused_by_its_config_and_by_its_weights(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(vocab_size=9, pad_token_id=3, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="stock BERT"):
        read_checkpoint(tmp_path, MutBertForMaskedLM)
    as_published(tmp_path)
    with pytest.raises(InputError, match=r"bert\.embeddings\.position_embeddings\.weight"):
        read_checkpoint(tmp_path, MutBertForMaskedLM)


def test_what_is_no_checkpoint_is_refused_in_one_line(published, tmp_path):
    folder, _ = published
    (tmp_path / "empty").mkdir()
    messages = {
        tmp_path / "nowhere": "no such model folder",
        tmp_path / "empty": "it has no config.json",
        folder: "model.safetensors: cannot be read",
    }
    (folder / "model.safetensors").write_bytes(b"not a tensor in here")
    for path, message in messages.items():
        with pytest.raises(InputError, match=message) as raised:
            read_checkpoint(path, MutBertForMaskedLM)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)


def as_bin(folder, shards=1):
    """Give a model folder's weights the published form before safetensors: files that torch has pickled."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    names = {name: f"pytorch_model-{number % shards + 1:05}-of-{shards:05}.bin" for number, name in enumerate(weights)}
    for file in set(names.values()):
        torch.save({name: weights[name] for name in weights if names[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_are_read_from_bin_files(published, probs, shards):
    folder, model = published
    as_bin(folder, shards)
    inputs = probs(2, 10)
    for loaded in (MutBertForMaskedLM.from_pretrained(folder), read_checkpoint(folder, MutBertForMaskedLM)):
        assert torch.equal(loaded(input_probs=inputs).logits, model(input_probs=inputs).logits)


def test_a_bin_file_with_code_is_refused_and_not_run(published, tmp_path):
    folder, _ = published
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "was here"

    class Payload:
        def __reduce__(self):
            return Path.touch, (trace,)

    # Where the configuration names no precision, the library looks into the weights for it, and opens them once more.
    values = json.loads((folder / "config.json").read_text())
    del values["dtype"]
    (folder / "config.json").write_text(json.dumps(values))
    torch.save({"bert.embeddings.LayerNorm.weight": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="other things than tensors: Weights only load failed") as raised:
        read_checkpoint(folder, MutBertForMaskedLM)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="other things than tensors"):
        convert_checkpoint(folder, tmp_path / "ours")
    assert not trace.exists()


def test_a_torn_bin_file_is_refused(published, tmp_path):
    folder, _ = published
    as_bin(folder)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:1000])
    for load in (
        lambda: read_checkpoint(folder, MutBertForMaskedLM),
        lambda: convert_checkpoint(folder, tmp_path / "a"),
    ):
        with pytest.raises(InputError, match=str(folder)) as raised:
            load()
        assert "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(InputError, match="holds no weights"):
        read_checkpoint(folder, MutBertForMaskedLM)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_decoder_that_got_a_weight_of_its_own_is_saved(build, probs, tmp_path, says_so):
    """Whatever untied it, and whether or not the configuration was told."""
    model = build(MutBertForMaskedLM)
    model.cls.predictions.decoder.weight = torch.nn.Parameter(torch.randn(9, 32))
    model.config.tie_word_embeddings = not says_so
    model.save_pretrained(tmp_path)
    again = read_checkpoint(tmp_path, MutBertForMaskedLM)
    assert torch.equal(again(input_probs=probs(1, 5)).logits, model(input_probs=probs(1, 5)).logits)
    assert not again.config.tie_word_embeddings


def test_what_is_refused_is_not_told_twice(published, capfd):
    folder, _ = published
    edit_weights(folder, lambda weights: weights.pop(EMBEDDING))
    with pytest.raises(InputError, match="has no"):
        read_checkpoint(folder, MutBertForMaskedLM)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda values: values | {"hidden_act": ["gelu"]},
        lambda values: values | {"dtype": "banana"},
        lambda values: values | {"id2label": [1]},
        lambda values: values | {"num_labels": "x"},
        lambda values: values | {"auto_map": "modeling"},
        lambda values: values | {"architectures": 5},
        lambda values: values | {"check": 1},
    ],
)
def test_a_config_with_odd_values_is_read_or_refused_in_one_line(published, tmp_path, change):
    folder, _ = published
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with suppress(InputError):
        convert_checkpoint(folder, tmp_path / "ours")
        assert read_checkpoint(tmp_path / "ours", MutBertForMaskedLM)
        return
    with pytest.raises(InputError) as raised:
        convert_checkpoint(folder, tmp_path / "ours")
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], torch.zeros(2)])
def test_a_bin_file_of_other_things_is_refused(published, tmp_path, content):
    folder, _ = published
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="is no state dict of tensors by name"):
        convert_checkpoint(folder, tmp_path / "ours")


@pytest.mark.parametrize("model_class", [MutBertForSequenceClassification, MutBertForTokenClassification])
@pytest.mark.parametrize(
    "key", ["classifier.bias", "bert.pooler.dense.bias", "bert.pooler.dense", "bert.encoder.layer.0.output.dense.bias"]
)
def test_of_a_classifier_nothing_may_be_missing(build, tmp_path, model_class, key):
    """Whole parts are new in fine-tuning; one of which some is there is torn, and so is one without its pooler."""
    build(model_class, pooler_type="first_token_transform").save_pretrained(tmp_path)
    edit_weights(tmp_path, lambda weights: [weights.pop(name) for name in list(weights) if name.startswith(key)])
    if "pooler" in key and model_class is MutBertForTokenClassification:
        assert read_checkpoint(tmp_path, model_class, fresh_head=True), "it has none"
        return
    with pytest.raises(InputError, match=f"has no .*{key}"):
        read_checkpoint(tmp_path, model_class, fresh_head=True)
