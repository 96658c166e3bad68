"""A published checkpoint becomes one of ours, key by key, or nothing is written."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from mutbert.errors import InputError
from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
)
from mutbert.model.convert import convert_checkpoint

EMBEDDING = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
BIAS = "cls.predictions.bias"


@pytest.fixture
def published(build, tmp_path):
    """Write a model in the published layout; `edit` changes its weights, keyword arguments its configuration."""

    def published(model_class, edit=None, architectures=None, **changes):
        model = build(model_class, **changes)
        folder = tmp_path / "published"
        model.save_pretrained(folder)
        values = json.loads((folder / "config.json").read_text())
        values |= {"model_type": "bert", "auto_map": {"AutoModel": "modeling_mutbert.RoPEBertModel"}}
        values["architectures"] = architectures
        # As given, where the configuration has one word for what a file may call by two.
        values["pooler_type"] = changes.get("pooler_type", "mean")
        (folder / "config.json").write_text(json.dumps(values))
        if edit is not None:
            weights = load_file(folder / "model.safetensors")
            edit(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, model

    return published


@pytest.mark.parametrize(
    ("model_class", "architectures"),
    [
        (MutBertModel, None),
        (MutBertForMaskedLM, None),
        (MutBertForSequenceClassification, None),
        (MutBertForSequenceClassification, ["RoPEBertForSequenceClassification"]),
        (MutBertForTokenClassification, ["RoPEBertForTokenClassification"]),
    ],
)
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform", "cls"])
def test_every_kind_of_model(published, probs, tmp_path, model_class, architectures, pooler_type):
    folder, model = published(model_class, architectures=architectures, pooler_type=pooler_type, num_labels=3)
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert (done.model_class, done.repeated) == (model_class.__name__, ())
    assert done.parameters == sum(parameter.numel() for parameter in model.parameters())
    before, after = (load_file(where / "model.safetensors") for where in (folder, tmp_path / "ours"))
    assert before.keys() == after.keys()
    assert done.weights == len(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    values = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (values["model_type"], values["architectures"]) == ("mutbert", [model_class.__name__])
    assert "auto_map" not in values
    assert values["pooler_type"] == ("mean" if pooler_type == "mean" else "first_token_transform")
    inputs = probs(2, 10)
    again = model_class.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(input_probs=inputs)[-1], model(input_probs=inputs)[-1])
    if model_class in {MutBertModel, MutBertForSequenceClassification}:
        body = AutoModel.from_pretrained(tmp_path / "ours")
        assert torch.equal(body(input_probs=inputs)[0], model.base_model(input_probs=inputs)[0])
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")("ACgt")["input_ids"] == [1, 5, 6, 7, 8, 2]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_second_names_are_left_out(published, tmp_path, kind):
    """As a checkpoint of before safetensors has them: the tied decoder, and its bias under two names."""

    def repeat(weights):
        weights[DECODER] = weights[EMBEDDING].clone()
        weights["cls.predictions.decoder.bias"] = weights[BIAS].clone()

    folder, model = published(MutBertForMaskedLM, repeat)
    if kind == "bin":
        weights = load_file(folder / "model.safetensors")
        weights[DECODER] = weights[EMBEDDING]  # one storage, as torch saves a tied weight
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert set(done.repeated) == {DECODER, "cls.predictions.decoder.bias"}
    assert done.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}


def test_a_decoder_of_its_own_is_kept(published, probs, tmp_path):
    folder, model = published(MutBertForMaskedLM, tie_word_embeddings=False)
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert done.repeated == ()
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    assert not again.config.tie_word_embeddings
    assert torch.equal(again(input_probs=probs(1, 7)).logits, model(input_probs=probs(1, 7)).logits)


def test_a_masked_model_keeps_its_pooler(published, build, probs, tmp_path):
    body = build(MutBertModel, pooler_type="first_token_transform")

    def add_pooler(weights):
        weights.update({f"bert.pooler.{name}": value for name, value in body.pooler.state_dict().items()})

    folder, _ = published(MutBertForMaskedLM, add_pooler, pooler_type="first_token_transform")
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert done.model_class == "MutBertForMaskedLM"
    again = MutBertModel.from_pretrained(tmp_path / "ours")
    assert torch.equal(again.pooler.dense.weight, body.pooler.dense.weight)
    assert MutBertForMaskedLM.from_pretrained(tmp_path / "ours")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"),
            r"has no bert\.encoder\.layer\.1\.output\.dense\.bias",
        ),
        (lambda w: w.pop(BIAS), r"has no cls\.predictions\.bias"),
        (lambda w: w.update(extra=torch.zeros(2)), "has extra, which MutBertForMaskedLM has no place for"),
        (lambda w: w.update({"bert.pooler.dense.weight": torch.zeros(32, 32)}), r"pooler\.dense\.weight"),
        (lambda w: w.update({"cls.predictions.decoder.bias": torch.ones(9)}), "differ, where one is another name"),
        (lambda w: w.update({"classifier.bias": torch.ones(2)}), "a masked model's head and a classifier"),
        (lambda w: w.update({EMBEDDING: torch.zeros(10, 32)}), r"has shape \(10, 32\) where"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(published, tmp_path, edit, message):
    folder, _ = published(MutBertForMaskedLM, edit)
    with pytest.raises(InputError, match=message) as raised:
        convert_checkpoint(folder, tmp_path / "ours")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_another_vocabulary_is_refused(published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    MutBertTokenizer().save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text().replace('"A": 5', '"A": 6').replace('"C": 6', '"C": 5')
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer\.json: '[AC]' has the id"):
        convert_checkpoint(folder, tmp_path / "ours")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be read"):
        convert_checkpoint(folder, tmp_path / "ours")


def test_a_model_of_more_tokens_is_refused(build, tmp_path):
    build(MutBertForMaskedLM, vocab_size=11).save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match="has 11 tokens where MutBERT has 9"):
        convert_checkpoint(tmp_path / "wide", tmp_path / "ours")


def test_other_things_are_not_replaced(published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert_checkpoint(folder, tmp_path / "ours")
    with pytest.raises(InputError, match=r"no config\.json"):
        convert_checkpoint(folder, tmp_path / "ours", force=True)
    convert_checkpoint(folder, tmp_path / "new")
    convert_checkpoint(tmp_path / "new", tmp_path / "new", force=True)
    assert MutBertForMaskedLM.from_pretrained(tmp_path / "new")


def test_precision_is_kept(build, tmp_path):
    build(MutBertForMaskedLM).bfloat16().save_pretrained(tmp_path / "half")
    convert_checkpoint(tmp_path / "half", tmp_path / "ours")
    assert {weight.dtype for weight in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}
    assert MutBertConfig.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16


@pytest.mark.slow
def test_the_full_size(tmp_path):
    """A checkpoint of the published size and layout, with random weights."""
    model = MutBertForMaskedLM(MutBertConfig())
    model.save_pretrained(tmp_path / "published")
    values = json.loads((tmp_path / "published" / "config.json").read_text())
    values |= {"model_type": "bert", "auto_map": {"AutoModel": "modeling_mutbert.RoPEBertModel"}}
    (tmp_path / "published" / "config.json").write_text(json.dumps(values))
    assert convert_checkpoint(tmp_path / "published", tmp_path / "ours").parameters == 85_656_585
    again = MutBertForMaskedLM.from_pretrained(tmp_path / "ours")
    assert sum(parameter.numel() for parameter in again.parameters()) == 85_656_585
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_other_weights_in_the_folder_are_not_read(published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 7 for name, weight in weights.items()}, folder / "model_backup.safetensors")
    save_file({"extra": torch.ones(1)}, folder / "model-00099-of-00099.safetensors")
    convert_checkpoint(folder, tmp_path / "ours")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_parts_are_read_by_their_index(build, tmp_path):
    model = build(MutBertForMaskedLM)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    parts = sorted((tmp_path / "parts").glob("model-*.safetensors"))
    assert len(parts) > 1
    convert_checkpoint(tmp_path / "parts", tmp_path / "ours")
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}
    parts[-1].unlink()
    with pytest.raises(InputError, match=r"is missing, though model\.safetensors\.index\.json names it"):
        convert_checkpoint(tmp_path / "parts", tmp_path / "other")
    (tmp_path / "parts" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="is no index of weights"):
        convert_checkpoint(tmp_path / "parts", tmp_path / "other")


def test_weights_that_share_memory_are_written_apart(build, probs, tmp_path):
    """As a decoder that is tied in fact and not by its configuration."""
    model = build(MutBertForMaskedLM)
    model.save_pretrained(tmp_path / "bin")
    weights = load_file(tmp_path / "bin" / "model.safetensors")
    (tmp_path / "bin" / "model.safetensors").unlink()
    weights[DECODER] = weights[EMBEDDING]
    torch.save(weights, tmp_path / "bin" / "pytorch_model.bin")
    values = json.loads((tmp_path / "bin" / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "bin" / "config.json").write_text(json.dumps(values))
    convert_checkpoint(tmp_path / "bin", tmp_path / "ours")
    again = MutBertForMaskedLM.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(input_probs=probs(1, 5)).logits, model(input_probs=probs(1, 5)).logits)


def test_the_tokenizer_s_settings_stay(build, tmp_path):
    build(MutBertForMaskedLM).save_pretrained(tmp_path / "source")
    MutBertTokenizer(do_upper_case=False, model_max_length=100).save_pretrained(tmp_path / "source")
    convert_checkpoint(tmp_path / "source", tmp_path / "ours")
    tokenizer = MutBertTokenizer.from_pretrained(tmp_path / "ours")
    assert (tokenizer.do_upper_case, tokenizer.model_max_length) == (False, 100)


def test_an_output_that_would_take_something_along_is_refused(published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="which would be lost"):
        convert_checkpoint(folder, tmp_path, force=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file and not a folder"):
        convert_checkpoint(folder, tmp_path / "file", force=True)
    assert (tmp_path / "file").read_text() == "mine"
