"""Models trained elsewhere: read as they were meant, or refused in one line with the cause."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, GPT2Config
from transformers import GPT2ForSequenceClassification as Gpt

from mutbert import finetune, predict_table
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.run import open_model
from mutbert.model import MutBertForMaskedLM
from mutbert.settings import read_settings
from mutbert.training.recipe import FinetuneRecipe

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
TEXTS = ["ACGTTGCA", "GATTACAGATTACAGGA", "TTGACCA" * 5, "ACGTTGCA"]


@pytest.fixture
def copied(tmp_path, model_folders):
    """A copy of a model's folder, to change."""
    return lambda kind: shutil.copytree(model_folders[kind], tmp_path / kind)


@pytest.fixture
def predict(tmp_path):
    """Predictions of a model for sequences, as a table."""

    def predict(model, texts=TEXTS, **settings):
        (tmp_path / "in.csv").write_text("\n".join(["sequence", *texts]))
        output = tmp_path / "out.parquet"
        predict_table(model, tmp_path / "in.csv", output, columns=Columns(), force=True, **settings)
        return pl.read_parquet(output)

    return predict


def change_weights(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_json(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def save_classifier(folder, bert, kind=BertForSequenceClassification, config=BertConfig, **values):
    """Save a small classifier of byte pairs as another program would."""
    tokenizer = AutoTokenizer.from_pretrained(bert)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), initializer_range=0.5, **sizes, **values)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize("kind", ["mutbert", "esm", "bert"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_a_wrapper_left_are_those_of_the_model(copied, model_folders, examples_of, kind, prefix):
    folder = copied(kind)
    change_weights(folder, lambda weights: {prefix + name: value for name, value in weights.items()})
    wanted, found = (open_encoder(one).body(64).state_dict() for one in (model_folders[kind], folder))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted if "pooler" not in name)


def larger_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["GATTACAGATTACA"])
    tokenizer.save_pretrained(folder)


def adapter(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text("{}")


def with_ids(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"A": 5', '"A": 6').replace('"C": 6', '"C": 5'))


def cast(change):
    return lambda folder: change_weights(folder, lambda weights: {name: change(one) for name, one in weights.items()})


FAULTS = {
    "pointer of weights": (lambda folder: (folder / "model.safetensors").write_text(POINTER), "Git LFS.*git lfs pull"),
    "pointer of tokens": (
        lambda folder: (folder / "tokenizer.json").write_text(POINTER),
        "tokenizer.json is a pointer",
    ),
    "adapter": (adapter, "holds an adapter and no model; .*merge_and_unload"),
    "integers": (cast(torch.Tensor.int), "torch.int32, and needs floats"),
    "booleans": (cast(torch.Tensor.bool), "torch.bool, and needs floats"),
    "no numbers": (cast(lambda one: one * float("nan")), "are not finite"),
}


@pytest.mark.parametrize("kind", ["mutbert", "esm", "bert"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_one_line_with_the_cause(copied, kind, fault):
    folder = copied(kind)
    change, message = FAULTS[fault]
    change(folder)
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        open_encoder(folder).body(20)


def test_tokens_that_are_not_the_models_are_refused(copied, examples_of):
    for kind, change, message in (
        ("bert", larger_tokenizer, "tokenizer has ids up to .* its embedding ends at"),
        ("mutbert", with_ids, "its tokens are not"),
        ("esm", lambda folder: change_json(folder, "tokenizer_config.json", pad_token=None), "has no padding token"),
    ):
        folder = copied(kind)
        change(folder)
        encoder = open_encoder(folder)
        with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
            encoder.body(20), encoder.inputs(examples_of(["ACGT"]))


def test_a_run_stands_for_its_model(model_folders, tmp_path):
    shutil.copytree(model_folders["mutbert"], tmp_path / "run" / "model")
    for name in (tmp_path / "run", str(tmp_path / "run")):
        assert open_encoder(name).identity() == open_encoder(model_folders["mutbert"]).identity()
        assert open_model(name, MutBertForMaskedLM).name_or_path == str(tmp_path / "run" / "model")


def test_a_classifier_has_no_likelihoods(model_folders, tmp_path):
    open_encoder(model_folders["mutbert"]).classifier(2, 20).save_pretrained(tmp_path / "classifier")
    with pytest.raises(InputError, match=r"\A[^\n]*use a masked language model[^\n]*no classifier\Z"):
        open_model(tmp_path / "classifier", MutBertForMaskedLM)


def test_several_labels_are_not_taken_for_classes(model_folders, tmp_path, predict):
    model, tokenizer = save_classifier(tmp_path / "labels", model_folders["bert"], num_labels=3)
    result = predict_table(tmp_path / "labels", pl.DataFrame({"sequence": TEXTS}), None, columns=Columns())
    assert result["predictions"]["predicted"].is_in(["LABEL_0", "LABEL_1", "LABEL_2"]).all()
    assert any("no problem_type" in note for note in result["notes"])
    change_json(tmp_path / "labels", "config.json", problem_type="multi_label_classification")
    found = predict(tmp_path / "labels").select("^p_.*$").to_numpy()
    with torch.no_grad():
        wanted = [torch.sigmoid(model(**tokenizer(text, return_tensors="pt")).logits[0]).numpy() for text in TEXTS]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


CODE = """\
from transformers import BertConfig, BertForSequenceClassification


class OtherConfig(BertConfig):
    pass


class OtherModel(BertForSequenceClassification):
    config_class = OtherConfig

    def forward(self, input_ids, labels=None):
        return super().forward(input_ids=input_ids, attention_mask=input_ids.new_ones(input_ids.shape))
"""


@pytest.mark.parametrize("kind", ["no mask", "no padding"])
def test_a_sequence_has_the_same_prediction_whatever_is_in_its_batch(
    model_folders, tmp_path, predict, monkeypatch, kind
):
    """A model that takes no mask, and one that finds the last token by a padding that its configuration lacks."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, single = tmp_path / "other", {"problem_type": "single_label_classification", "num_labels": 2}
    if kind == "no mask":
        save_classifier(folder, model_folders["bert"], **single)
        (folder / "code.py").write_text(CODE)
        automatic = {"AutoConfig": "code.OtherConfig", "AutoModelForSequenceClassification": "code.OtherModel"}
        change_json(folder, "config.json", auto_map=automatic)
    else:
        save_classifier(folder, model_folders["bert"], Gpt, GPT2Config, **single)
    together = predict(folder, trust_remote_code=True)
    alone = pl.concat([predict(folder, [text], trust_remote_code=True) for text in TEXTS])
    np.testing.assert_allclose(together["p_LABEL_0"], alone["p_LABEL_0"], atol=1e-6)
    assert together["p_LABEL_0"].n_unique() == 3
    if kind == "no mask":
        rows = [f"{text}{'A' * row},{row % 2}" for row, text in enumerate(6 * TEXTS)]
        (tmp_path / "train.csv").write_text("\n".join(["sequence,label", *rows]))
        words = [f"model={folder}", f"train={tmp_path / 'train.csv'}", f"output={tmp_path / 'run'}"]
        with pytest.raises(InputError, match=r"\A[^\n]*no attention_mask[^\n]*set finetune.micro_batch_size=1\Z"):
            finetune(read_settings(FinetuneRecipe, None, [*words, "trust_remote_code=true"]))


@pytest.mark.parametrize("kind", ["mutbert", "bert", "nt-500m-1000g", "caduceus-ph"])
def test_a_classifier_of_other_classes_is_the_start_of_a_new_one(model_folders, peer_folders, tmp_path, capfd, kind):
    """With the model's body and a fresh head, which is printed; of the same classes it goes on with its own."""
    encoder = open_encoder({**model_folders, **peer_folders}[kind])
    first = encoder.classifier(2, 20)
    first.config.id2label, first.config.label2id = {0: "x", 1: "y"}, {"x": 0, "y": 1}
    first.save_pretrained(tmp_path / "first")
    encoder.save_tokenizer(tmp_path / "first", 20)
    again = open_encoder(tmp_path / "first")
    states = [
        first.state_dict(),
        *(again.classifier(len(new), 20, classes=new).state_dict() for new in ("xy", "ab", "abc")),
    ]
    lines = [line for line in capfd.readouterr().err.splitlines() if "classifier" in line]
    assert [line.partition(": ")[2] for line in lines] == [
        f"its classifier knows x, y; one of fresh weights is trained for {new}" for new in ("a, b", "a, b, c")
    ]
    heads = [name for name in states[0] if name.startswith(("classifier", "score"))]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name])
        assert name in heads or torch.equal(states[0][name], states[3][name])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in heads)
