"""A published checkpoint becomes one of ours, key by key, or nothing is written."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

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
DECODER_BIAS = "cls.predictions.decoder.bias"


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
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_every_kind_of_model(published, probs, tmp_path, model_class, architectures, pooler_type):
    values = {"architectures": architectures}
    folder, model = published(model_class, None, values, pooler_type=pooler_type, num_labels=3)
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
    again = model_class.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(input_probs=probs(2, 10))[-1], model(input_probs=probs(2, 10))[-1])
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")("ACgt")["input_ids"] == [1, 5, 6, 7, 8, 2]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_second_names_are_left_out(published, tmp_path, kind):
    """As a checkpoint of before safetensors has them: the tied decoder, and its bias under two names."""

    def repeat(weights):
        weights[DECODER], weights[DECODER_BIAS] = weights[EMBEDDING].clone(), weights[BIAS].clone()

    folder, model = published(MutBertForMaskedLM, repeat)
    if kind == "bin":
        weights = load_file(folder / "model.safetensors")
        weights[DECODER] = weights[EMBEDDING]  # one storage, as torch saves a tied weight
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert set(done.repeated) == {DECODER, DECODER_BIAS}
    assert done.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}


def test_a_masked_model_keeps_its_decoder_and_its_pooler(published, build, probs, tmp_path):
    body = build(MutBertModel, pooler_type="first_token_transform")

    def add_pooler(weights):
        weights.update({f"bert.pooler.{name}": value for name, value in body.pooler.state_dict().items()})

    settings = {"pooler_type": "first_token_transform", "tie_word_embeddings": False}
    folder, model = published(MutBertForMaskedLM, add_pooler, **settings)
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert (done.model_class, done.repeated) == ("MutBertForMaskedLM", ())
    again = MutBertForMaskedLM.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(input_probs=probs(1, 7)).logits, model(input_probs=probs(1, 7)).logits)
    pooler = MutBertModel.from_pretrained(tmp_path / "ours").pooler
    assert torch.equal(pooler.dense.weight, body.pooler.dense.weight)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"),
            r"has no bert\.encoder\.layer\.1\.output\.dense\.b",
        ),
        (lambda w: w.pop(BIAS), r"has no cls\.predictions\.bias"),
        (lambda w: w.update(extra=torch.zeros(2)), "has extra, which MutBertForMaskedLM has no place for"),
        (lambda w: w.update({"bert.pooler.dense.weight": torch.zeros(32, 32)}), r"pooler\.dense\.weight"),
        (lambda w: w.update({DECODER_BIAS: torch.ones(9)}), "differ, where one is another name"),
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


def test_another_vocabulary_is_refused(build, published, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    MutBertTokenizer().save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text().replace('"A": 5', '"A": 6').replace('"C": 6', '"C": 5')
    build(MutBertForMaskedLM, vocab_size=11).save_pretrained(tmp_path / "wide")
    for source, content, message in (
        (folder, text, r"tokenizer\.json: its tokens are not \[UNK\]"),
        (folder, "{", r"tokenizer\.json: cannot be read"),
        (tmp_path / "wide", "{", "has 11 tokens where MutBERT has 9"),
    ):
        (source / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match=message):
            convert_checkpoint(source, tmp_path / "ours")


def test_precision_and_tokenizer_are_kept(build, tmp_path):
    build(MutBertForMaskedLM).bfloat16().save_pretrained(tmp_path / "half")
    MutBertTokenizer(do_upper_case=False, model_max_length=100).save_pretrained(tmp_path / "half")
    convert_checkpoint(tmp_path / "half", tmp_path / "ours")
    assert {weight.dtype for weight in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}
    assert MutBertConfig.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16
    tokenizer = MutBertTokenizer.from_pretrained(tmp_path / "ours")
    assert (tokenizer.do_upper_case, tokenizer.model_max_length) == (False, 100)


def test_the_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = MutBertForMaskedLM(MutBertConfig())
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_656_585


def test_parts_are_read_by_their_index(published, tmp_path):
    """And other weights in the folder are not."""
    folder, model = published(MutBertForMaskedLM)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 7 for name, weight in weights.items()}, folder / "model_backup.safetensors")
    save_file({"extra": torch.ones(1)}, folder / "model-00099-of-00099.safetensors")
    convert_checkpoint(folder, tmp_path / "ours")
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    convert_checkpoint(tmp_path / "parts", tmp_path / "joined")
    for name in ("ours", "joined"):
        found = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(found[key], weights[key]) for key in weights)
    next((tmp_path / "parts").glob("model-*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"is missing, though model\.safetensors\.index\.json names it"):
        convert_checkpoint(tmp_path / "parts", tmp_path / "other")
    (tmp_path / "parts" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="is no index of weights"):
        convert_checkpoint(tmp_path / "parts", tmp_path / "other")
