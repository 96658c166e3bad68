"""Checkpoints, published or ours, are read and converted key by key, or refused in one line with nothing written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from mutbert import convert_checkpoint
from mutbert.errors import InputError
from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
    read_checkpoint,
)

EMBEDDING = "bert.embeddings.word_embeddings.weight"
DECODER, BIAS = "cls.predictions.decoder.weight", "cls.predictions.bias"
DECODER_BIAS, POSITIONS = "cls.predictions.decoder.bias", "bert.embeddings.position_embeddings.weight"
FIRST_TOKEN = {"pooler_type": "first_token_transform"}
CLASSIFIERS = (MutBertForSequenceClassification, MutBertForTokenClassification)


def refusal(call):
    """Return the one line with which a call refuses its input."""
    with pytest.raises(InputError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def ways(folder, tmp_path, model_class=MutBertForMaskedLM):
    """The two ways of reading a checkpoint; the second one writes nothing where it fails."""
    return lambda: read_checkpoint(folder, model_class), lambda: convert_checkpoint(folder, tmp_path / "ours")


def as_bin(folder, shards=1):
    """Turn a folder's weights into the published form before safetensors: files that torch has pickled."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if DECODER in weights:
        weights[DECODER] = weights[EMBEDDING]  # one storage, as torch saves a tied weight
    names = {name: f"pytorch_model-{number % shards + 1:05}-of-{shards:05}.bin" for number, name in enumerate(weights)}
    for file in set(names.values()):
        part = {name: weights[name] for name in weights if names[name] == file}
        torch.save(part, folder / (file if shards > 1 else "pytorch_model.bin"))
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize("model_class", [MutBertModel, MutBertForMaskedLM, *CLASSIFIERS])
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_every_kind_of_model_is_converted(published, probs, tmp_path, model_class, pooler_type):
    names = ["RoPEBertForTokenClassification"] if model_class is MutBertForTokenClassification else None
    folder, model = published(model_class, None, {"architectures": names}, pooler_type=pooler_type, num_labels=3)
    done = convert_checkpoint(folder, tmp_path / "ours")
    before, after = (load_file(where / "model.safetensors") for where in (folder, tmp_path / "ours"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counts = {"parameters": parameters, "weights": len(after), "repeated": []}
    assert done == {"output": tmp_path / "ours", "model_class": model_class.__name__, **counts}
    assert before.keys() == after.keys()
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
        as_bin(folder)
    done = convert_checkpoint(folder, tmp_path / "ours")
    assert set(done["repeated"]) == {DECODER, DECODER_BIAS}
    assert done["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == model.state_dict().keys() - {DECODER}


@pytest.mark.parametrize("in_config", [True, False])
def test_a_decoder_of_its_own_is_kept(published, probs, tmp_path, in_config):
    """Whether or not the configuration has it so."""
    values = {"tie_word_embeddings": not in_config}
    folder, model = published(MutBertForMaskedLM, None, values, tie_word_embeddings=False)
    assert convert_checkpoint(folder, tmp_path / "converted")["repeated"] == []
    for source in (folder, tmp_path / "converted"):
        loaded = read_checkpoint(source, MutBertForMaskedLM)
        assert not loaded.config.tie_word_embeddings
        assert torch.equal(loaded(input_probs=probs(2, 10)).logits, model(input_probs=probs(2, 10)).logits)


def test_precision_and_tokenizer_are_kept(build, tmp_path):
    build(MutBertForMaskedLM).bfloat16().save_pretrained(tmp_path / "half")
    MutBertTokenizer(do_upper_case=False, model_max_length=100).save_pretrained(tmp_path / "half")
    convert_checkpoint(tmp_path / "half", tmp_path / "ours")
    assert {weight.dtype for weight in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}
    assert MutBertConfig.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16
    tokenizer = MutBertTokenizer.from_pretrained(tmp_path / "ours")
    assert (tokenizer.do_upper_case, tokenizer.model_max_length) == (False, 100)


@pytest.mark.parametrize("form", ["safetensors", "bin", "bin in parts", "safetensors in parts"])
def test_weights_are_read_from_every_form(published, probs, tmp_path, form):
    """By their index where there are parts; and other weights in the folder are not."""
    folder, model = published(MutBertForMaskedLM)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 7 for name, weight in weights.items()}, folder / "model_backup.safetensors")
    if form.startswith("bin"):
        as_bin(folder, 3 if "parts" in form else 1)
    elif "parts" in form:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="20KB")
    loaded = read_checkpoint(folder, MutBertForMaskedLM)
    assert torch.equal(loaded(input_probs=probs(2, 10)).logits, model(input_probs=probs(2, 10)).logits)
    if "parts" in form:
        load = ways(folder, tmp_path)[1]
        (index,) = folder.glob("*.index.json")
        next(folder.glob("*-00002-of-*")).unlink()
        assert f"is missing, though {index.name} names it" in refusal(load)
        index.write_text("{}")
        assert "index.json: cannot be read" in refusal(load)


class Payload:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("content", ["code", "torn", {"epoch": 3}, torch.zeros(2)])
def test_a_bin_file_of_other_things_is_refused_and_not_run(published, tmp_path, content):
    folder, _ = published(MutBertForMaskedLM)
    (folder / "model.safetensors").unlink()
    trace, path = tmp_path / "was here", folder / "pytorch_model.bin"
    torch.save({EMBEDDING: Payload(trace)} if content == "code" else content, path)
    if content == "torn":
        path.write_bytes(path.read_bytes()[:100])
    for load in ways(folder, tmp_path):
        text = refusal(load)
        assert text.startswith(f"{path}: ")
        assert "trust" not in text, "torch's own remedy"
    assert not trace.exists()


@pytest.mark.parametrize(
    # The first of `ways` that refuses it.
    ("edit", "message", "first"),
    [
        (lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"), "has no bert.encoder.layer.1.output.dense.b", 0),
        (lambda w: w.pop(BIAS), "has no cls.predictions.bias", 0),
        (lambda w: w.update(extra=torch.zeros(2)), "has extra, which MutBertForMaskedLM does not", 0),
        (lambda w: w.update({POSITIONS: torch.zeros(2)}), f"has {POSITIONS}, which", 0),
        (lambda w: w.update({"cls.seq_relationship.weight": torch.zeros(2)}), "has cls.seq_relationship.weight", 0),
        (lambda w: w.update({EMBEDDING: torch.zeros(10, 32)}), "has shape (10, 32) where", 0),
        (lambda w: w.update({EMBEDDING: w[EMBEDDING].int()}), "numbers of type torch.int32, and needs floats", 0),
        (lambda w: w.update({EMBEDDING: w[EMBEDDING] / 0}), f"{EMBEDDING} has numbers that are not finite", 0),
        (lambda w: w.update({"bert.pooler.dense.weight": torch.zeros(32, 32)}), "pooler.dense.weight", 1),
        (lambda w: w.update({DECODER_BIAS: torch.ones(9)}), "differ, where one is another name", 1),
        (lambda w: w.update({"classifier.bias": torch.ones(2)}), "a masked model's head and a classifier", 1),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(published, tmp_path, capfd, edit, message, first):
    folder, _ = published(MutBertForMaskedLM, edit)
    for load in ways(folder, tmp_path)[first:]:
        assert message in refusal(load)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_fine_tuning_starts_with_a_new_classifier_that_nothing_may_be_missing_of(published, model_class, pooler_type):
    def read(**settings):
        return read_checkpoint(folder, model_class, num_labels=3, pooler_type=pooler_type, **settings)

    folder, model = published(MutBertForMaskedLM)
    fresh = read(fresh_head=True)
    assert fresh.classifier.weight.shape == (3, 32)
    assert torch.equal(fresh.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    assert "has no" in refusal(read)
    keys = ["classifier.bias", "bert.encoder.layer.0.output.dense.bias"]
    if fresh.bert.pooler is not None:
        keys.append("bert.pooler.dense.bias")
    for key in keys:
        published(model_class, lambda weights, key=key: weights.pop(key), pooler_type=pooler_type, num_labels=3)
        assert f"has no {key}" in refusal(lambda: read(fresh_head=True))


def test_what_is_no_checkpoint_is_refused(published, build, tmp_path):
    folder, _ = published(MutBertForMaskedLM)
    stock, tokenizer = tmp_path / "stock", folder / "tokenizer.json"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(vocab_size=9, pad_token_id=3, **sizes)).save_pretrained(stock)
    (tmp_path / "empty").mkdir()
    build(MutBertForMaskedLM, vocab_size=11).save_pretrained(tmp_path / "wide")
    MutBertTokenizer().save_pretrained(folder)
    renumbered = tokenizer.read_text().replace('"A": 5', '"A": 6').replace('"C": 6', '"C": 5')
    for way, path, file, content, message in (
        (0, tmp_path / "nowhere", None, "", "no such model folder"),
        (0, tmp_path / "empty", None, "", "it has no config.json"),
        (0, stock, None, "", "stock BERT"),
        (0, stock, "config.json", (folder / "config.json").read_text(), "has bert.embeddings.position"),
        (1, tmp_path / "wide", None, "", "has 11 tokens where MutBERT has 9"),
        (1, folder, "tokenizer.json", renumbered, "tokenizer.json: its tokens are not [UNK]"),
        (1, folder, "tokenizer.json", "{", "tokenizer.json: cannot be read"),
        (0, folder, "model.safetensors", "not a tensor in here", "model.safetensors: cannot be read"),
    ):
        if file is not None:
            (path / file).write_text(content)
        text = refusal(ways(path, tmp_path)[way])
        assert text.startswith(str(path))
        assert message in text
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(ways(folder, tmp_path)[0])
    for changes in ({"hidden_act": ["gelu"]}, {"dtype": "banana"}, {"id2label": [1]}, {"check": 1}):
        folder, _ = published(MutBertForMaskedLM, None, changes)
        assert refusal(ways(folder, tmp_path)[0]).startswith(str(folder))
