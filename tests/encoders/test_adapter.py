"""Models of several kinds behind one adapter, ours and others': read as they were meant, or refused in one line."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    EsmForMaskedLM,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from mutbert import alphabet, finetune, predict_table
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import BaseInputs
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.run import open_model
from mutbert.model import MutBertForMaskedLM
from mutbert.settings import read_settings
from mutbert.training.recipe import FinetuneRecipe

KINDS = ("mutbert", "esm", "bert")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
TEXTS = ["ACGTTGCA", "GATTACAGATTACAGGA", "TTGACCA" * 5, "ACGTTGCA"]
# A model that takes no mask, and leaves a trace where its code runs.
CODE = """\
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

Path({witness!r}).write_text("ran")


class OtherConfig(BertConfig):
    pass


class OtherModel(BertForSequenceClassification):
    config_class = OtherConfig

    def forward(self, input_ids, labels=None):
        return super().forward(input_ids=input_ids, attention_mask=input_ids.new_ones(input_ids.shape))
"""


def one_line(part=""):
    return rf"\A[^\n]*{part}[^\n]*\Z"


@pytest.fixture(params=KINDS)
def folder(request, model_folders):
    return model_folders[request.param]


@pytest.fixture
def add_code(tmp_path, monkeypatch):
    """Add code to a model's folder, which the library would run; return where it leaves a trace."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def add(folder, **values):
        (folder / "code.py").write_text(CODE.format(witness=str(tmp_path / "witness")))
        automatic = {"AutoConfig": "code.OtherConfig", "AutoModelForSequenceClassification": "code.OtherModel"}
        change_json(folder, auto_map=automatic, **values)
        return tmp_path / "witness"

    return add


def predict(model, texts=TEXTS, **settings):
    """Predictions of a model for sequences, and notes on them."""
    found = predict_table(model, pl.DataFrame({"sequence": texts}), None, columns=Columns(), **settings)
    return found["predictions"], found["notes"]


def change_json(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder, change):
    """Replace each weight by what `change` returns for its name and it: another name and weight, or None."""
    path = folder / "model.safetensors"
    changed = filter(None, (change(name, weight) for name, weight in load_file(path).items()))
    save_file(dict(changed), path, metadata={"format": "pt"})


def drop_weights(folder, fragment):
    change_weights(folder, lambda name, weight: None if fragment in name else (name, weight))


def save_classifier(folder, bert, kind=BertForSequenceClassification, config=BertConfig, **values):
    """Save a small classifier of byte pairs as another program would."""
    tokenizer = AutoTokenizer.from_pretrained(bert)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), initializer_range=0.5, **sizes, **values)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


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
    assert all(torch.equal(states[0][name], trained[name]) for name in set(states[0]) & set(trained))


def test_random_weights_are_the_seeds_and_nothing_of_the_checkpoint(folder):
    encoder, states = open_encoder(f"random:{folder}"), [open_encoder(folder).body(64).state_dict()]
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        states.append(encoder.body(64).state_dict())
    for name, trained in states[0].items():
        assert torch.equal(states[1][name], states[3][name])
        if trained.dim() == 2 and trained.std() > 0:
            assert not any(torch.equal(one[name], other[name]) for one, other in pairwise(states))


def test_identity_is_that_of_the_weights_and_a_run_stands_for_its_model(copied, tmp_path):
    folder = copied("bert")
    before, fresh = open_encoder(folder).identity(), open_encoder(f"random:{folder}").identity()
    assert open_encoder(folder, name="other").identity() == before
    drop_weights(folder, "cls.")
    assert open_encoder(folder).identity() not in {before, fresh}
    assert open_encoder(f"random:{folder}").identity() == fresh
    change_json(folder, hidden_act="relu")
    assert open_encoder(f"random:{folder}").identity() != fresh
    own = copied("mutbert")
    before = open_encoder(own).identity()
    (tmp_path / "run").mkdir()
    own.rename(tmp_path / "run" / "model")
    for name in (tmp_path / "run", str(tmp_path / "run")):
        assert open_encoder(name).identity() == before
        assert open_model(name, MutBertForMaskedLM).name_or_path == str(tmp_path / "run" / "model")


@pytest.mark.parametrize("prefix", ["", "random:"])
def test_longer_sequences_scale_the_rotary_positions_as_far_as_needed(model_folders, prefix):
    encoder = open_encoder(f"{prefix}{model_folders['mutbert']}")
    assert encoder.body(64).config.rope_scaling is None
    assert encoder.body(96).config.rope_scaling == {"type": "dynamic", "factor": 1.5}
    linear = {"type": "linear", "factor": 2}
    assert encoder.classifier(2, 128, rope_scaling=linear).config.rope_scaling == {"type": "linear", "factor": 2.0}
    for wrong, longest, match in (
        (linear, 129, "129 tokens are more than the 128 that .* raise its factor"),
        ({"type": "linear", "factor": 1}, 65, "65 tokens are more than the 64 that .* raise its factor"),
        ({"type": "linear"}, 60, "rope_scaling is"),
        ({"type": "yarn", "factor": 2}, 60, "rope_scaling is"),
    ):
        with pytest.raises(InputError, match=match):
            encoder.classifier(2, longest, rope_scaling=wrong)


@pytest.mark.parametrize("kind", ["bert", "other"])
def test_code_of_a_checkpoint_runs_only_where_it_is_trusted(copied, add_code, kind, capfd):
    folder = copied("bert")
    # The library has a model of the first type itself, and would take that without a word.
    witness = add_code(folder, model_type=kind)
    for model in (folder, f"random:{folder}"):
        with pytest.raises(InputError, match=one_line("--trust-remote-code to run it")):
            open_encoder(model)
    assert not witness.exists()
    model = open_encoder(folder, trust_remote_code=True).classifier(2, 20)
    assert type(model).__name__ == "OtherModel"
    assert witness.exists()
    assert f"{folder}: runs code that comes with the checkpoint, code.py " in capfd.readouterr().err
    trusted = FinetuneRecipe(model=str(folder), train="x.csv", output="x", trust_remote_code=True)
    assert "trust_remote_code: false" in trusted.as_yaml()  # which a run's folder has


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_a_wrapper_left_are_those_of_the_model(copied, model_folders, kind, prefix):
    folder = copied(kind)
    change_weights(folder, lambda name, weight: (prefix + name, weight))
    wanted, found = (open_encoder(one).body(64).state_dict() for one in (model_folders[kind], folder))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted if "pooler" not in name)


def adapter(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text("{}")


def cast(change):
    return lambda folder: change_weights(folder, lambda name, weight: (name, change(weight)))


FAULTS = {
    "pointer of weights": (lambda folder: (folder / "model.safetensors").write_text(POINTER), "Git LFS.*git lfs pull"),
    "pointer of tokens": (
        lambda folder: (folder / "tokenizer.json").write_text(POINTER),
        "tokenizer.json is a.*LFS",
    ),
    "adapter": (adapter, "holds an adapter and no model; .*merge_and_unload"),
    "integers": (cast(torch.Tensor.int), "torch.int32, and needs floats"),
    "booleans": (cast(torch.Tensor.bool), "torch.bool, and needs floats"),
    "no numbers": (cast(lambda one: one * float("nan")), "are not finite"),
    "no layer": (lambda folder: drop_weights(folder, "layer.1.attention"), "has no .*layer.1.attention"),
    "no embedding": (lambda folder: drop_weights(folder, "word_embeddings"), "has no .*word_embeddings"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_one_line_with_the_cause(copied, kind, fault):
    folder = copied(kind)
    change, message = FAULTS[fault]
    change(folder)
    for load in (lambda encoder: encoder.body(20), lambda encoder: encoder.classifier(2, 20)):
        with pytest.raises(InputError, match=one_line(message)):
            load(open_encoder(folder))


def larger_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["GATTACAGATTACA"])
    tokenizer.save_pretrained(folder)


def with_ids(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"A": 5', '"A": 6').replace('"C": 6', '"C": 5'))


def without_tokens(folder):
    for path in folder.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bert", larger_tokenizer, "tokenizer has ids up to .* its embedding ends at"),
        ("bert", without_tokens, "has no tokenizer that knows A, C, G and T"),
        ("mutbert", with_ids, "its tokens are not"),
        ("esm", lambda folder: change_json(folder, "tokenizer_config.json", pad_token=None), "has no padding token"),
    ],
)
def test_tokens_that_are_not_the_models_are_refused(copied, examples_of, kind, change, message):
    folder = copied(kind)
    change(folder)
    encoder = open_encoder(folder)
    with pytest.raises(InputError, match=one_line(message)):
        encoder.body(20), encoder.inputs(examples_of(["ACGT"]))


def test_what_is_not_there_or_cannot_be_is_one_line(tmp_path, model_folders):
    empty, bert, cnn = tmp_path / "empty", open_encoder(model_folders["bert"]), open_encoder("cnn")
    empty.mkdir()
    wrong = [lambda model=model: open_encoder(model) for model in (tmp_path / "none", empty)]
    wrong += [lambda model=model: open_encoder(f"random:{model}") for model in (tmp_path / "none", empty)]
    for use in (*wrong, lambda: bert.classifier(2, 20, each_token=True), lambda: cnn.body(20), cnn.trained_classifier):
        with pytest.raises(InputError, match=one_line()):
            use()
    assert cnn.identity() == open_encoder("cnn", name="other").identity()
    open_encoder(model_folders["mutbert"]).classifier(2, 20).save_pretrained(tmp_path / "classifier")
    with pytest.raises(InputError, match=one_line("use a masked language model, .*no classifier")):
        open_model(tmp_path / "classifier", MutBertForMaskedLM)


def test_several_labels_are_not_taken_for_classes(model_folders, tmp_path):
    model, tokenizer = save_classifier(tmp_path / "labels", model_folders["bert"], num_labels=3)
    predictions, notes = predict(tmp_path / "labels")
    assert predictions["predicted"].is_in(["LABEL_0", "LABEL_1", "LABEL_2"]).all()
    assert any("no problem_type" in note for note in notes)
    change_json(tmp_path / "labels", problem_type="multi_label_classification")
    found = predict(tmp_path / "labels")[0].select("^p_.*$").to_numpy()
    with torch.no_grad():
        wanted = [torch.sigmoid(model(**tokenizer(text, return_tensors="pt")).logits[0]).numpy() for text in TEXTS]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["no mask", "no padding"])
def test_a_sequence_has_the_same_prediction_whatever_is_in_its_batch(model_folders, tmp_path, add_code, kind):
    """A model that takes no mask, and one that finds the last token by a padding that its configuration lacks."""
    folder, single = tmp_path / "other", {"problem_type": "single_label_classification", "num_labels": 2}
    if kind == "no mask":
        save_classifier(folder, model_folders["bert"], **single)
        add_code(folder)
    else:
        save_classifier(folder, model_folders["bert"], GPT2ForSequenceClassification, GPT2Config, **single)
    together = predict(folder, trust_remote_code=True)[0]["p_LABEL_0"]
    alone = [predict(folder, [text], trust_remote_code=True)[0]["p_LABEL_0"].item() for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.n_unique() == 3
    if kind == "no mask":
        rows = [f"{text}{'A' * row},{row % 2}" for row, text in enumerate(6 * TEXTS)]
        (tmp_path / "train.csv").write_text("\n".join(["sequence,label", *rows]))
        words = [f"model={folder}", f"train={tmp_path / 'train.csv'}", f"output={tmp_path / 'run'}"]
        with pytest.raises(InputError, match=one_line("no attention_mask.* set finetune.micro_batch_size=1")):
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
    started = [again.classifier(len(new), 20, classes=new).state_dict() for new in ("xy", "ab", "abc")]
    lines = [line for line in capfd.readouterr().err.splitlines() if "classifier" in line]
    assert [line.partition(": ")[2] for line in lines] == [
        f"its classifier knows x, y; one of fresh weights is trained for {new}" for new in ("a, b", "a, b, c")
    ]
    heads = {name for name in started[0] if name.startswith(("classifier", "score"))}
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, started[0][name])
        assert name in heads or torch.equal(weight, started[2][name])
    assert any(not torch.equal(started[0][name], started[1][name]) for name in heads)


@pytest.mark.parametrize("each_token", [False, True])
def test_of_the_plain_network_padding_and_the_others_of_a_batch_have_no_part(examples_of, sequences, each_token):
    torch.manual_seed(0)
    network, inputs = (
        open_encoder("cnn").classifier(3, 99, each_token=each_token).eval(),
        BaseInputs(examples_of(sequences)),
    )
    batch = inputs.batch(np.arange(len(sequences)))
    probs = torch.nn.functional.one_hot(batch.pop("input_ids"), alphabet.VOCABULARY_SIZE).float()
    with torch.inference_mode():
        together = network(input_probs=probs, **batch).logits
        alone = [network(**inputs.batch(np.array([row]))).logits[0] for row in range(len(sequences))]
    assert together.shape == ((len(sequences), 62, 3) if each_token else (len(sequences), 3))
    for found, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-5, rtol=1e-5)


def test_a_mistyped_folder_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/smal", "random:runs/smal", "smal"):
        with pytest.raises(InputError, match=r"\A(runs/)?smal: no such model folder; .{,100}\Z"):
            open_encoder(name)
