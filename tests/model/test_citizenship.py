"""What works with a transformers encoder works with these: Auto classes, pipelines, LoRA, the Trainer, remote code."""

import subprocess
import sys
import sysconfig

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mutbert import convert_checkpoint, export_model
from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
    read_checkpoint,
)

DYNAMIC = {"type": "dynamic", "factor": 2.0}
AUTO_CLASSES = {
    MutBertModel: transformers.AutoModel,
    MutBertForMaskedLM: transformers.AutoModelForMaskedLM,
    MutBertForSequenceClassification: transformers.AutoModelForSequenceClassification,
    MutBertForTokenClassification: transformers.AutoModelForTokenClassification,
}


@pytest.fixture
def folder(build, tmp_path):
    """Save a model of a class with its tokenizer, and return its folder and the model."""

    def folder(model_class, **changes):
        model = build(model_class, **changes)
        model.save_pretrained(tmp_path / "model")
        MutBertTokenizer(model_max_length=16).save_pretrained(tmp_path / "model")
        return str(tmp_path / "model"), model

    return folder


@pytest.mark.parametrize("model_class", AUTO_CLASSES)
@pytest.mark.parametrize("pooler_type", ["mean", "first_token_transform"])
def test_the_auto_classes_find_models_and_take_overrides(folder, probs, tmp_path, model_class, pooler_type):
    path, model = folder(model_class, pooler_type=pooler_type)
    auto = AUTO_CLASSES[model_class]
    assert type(transformers.AutoConfig.from_pretrained(path)) is MutBertConfig
    again = auto.from_pretrained(path)
    assert type(again) is model_class
    assert again.state_dict().keys() == model.state_dict().keys()
    inputs = probs(2, 40)
    assert torch.equal(again(input_probs=inputs)[0], model(input_probs=inputs)[0])
    scaled = auto.from_pretrained(path, rope_scaling=DYNAMIC)
    scaled.save_pretrained(tmp_path / "scaled")
    again = auto.from_pretrained(tmp_path / "scaled")
    assert torch.equal(again(input_probs=inputs)[0], scaled(input_probs=inputs)[0])
    assert not torch.allclose(again(input_probs=inputs)[0], model(input_probs=inputs)[0])
    again.set_attn_implementation("eager")
    assert len(again(input_probs=inputs, output_attentions=True).attentions) == 2


def test_fill_mask(folder):
    path, model = folder(MutBertForMaskedLM)
    answers = transformers.pipeline("fill-mask", path)("ac[MASK]T", targets=["A", "C", "G", "T"], top_k=4)
    logits = model(input_ids=torch.tensor([[1, 5, 6, 4, 8, 2]])).logits[0, 3]
    wanted = logits.softmax(dim=-1)[5:].sort(descending=True)
    torch.testing.assert_close(torch.tensor([answer["score"] for answer in answers]), wanted.values)
    assert [answer["sequence"] for answer in answers] == [f"AC{'ACGT'[i]}T" for i in wanted.indices]


# peft asks a model by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_of_the_embedding_counts_for_probabilities_too(folder):
    config = peft.LoraConfig(target_modules=["word_embeddings"], init_lora_weights=False)
    model = peft.get_peft_model(MutBertModel.from_pretrained(folder(MutBertModel)[0]), config).eval()
    ids = torch.tensor([[0, 1, 2, 4, 5, 6, 7, 8]])
    from_ids = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(model(input_probs=torch.eye(9)[ids]).last_hidden_state, from_ids)


# Remote code

PROGRAM = """
import sys
sys.modules["mutbert"] = None  # in case that it lies among the libraries
sys.path.append(sys.argv[1])
from pathlib import Path
import torch, transformers
from safetensors.torch import load_file, save_file
for folder in map(Path, sys.argv[3:]):
    inputs = load_file(f"{folder}.in")
    model = getattr(transformers, sys.argv[2]).from_pretrained(folder, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        save_file({"logits": model(**inputs).logits.contiguous()}, f"{folder}.out")
"""


def run_without_mutbert(inputs_of, auto, tmp_path):
    """Load folders by remote code, in a Python that sees the libraries and not this package; return the logits."""
    for folder, inputs in inputs_of.items():
        save_file(inputs, f"{folder}.in")
    done = subprocess.run(
        # -S leaves out the .pth files by which an editable installation is found.
        [sys.executable, "-S", "-c", PROGRAM, sysconfig.get_paths()["purelib"], auto, *map(str, inputs_of)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [load_file(f"{folder}.out")["logits"] for folder in inputs_of]


CASES = {
    "plain": None, "padded": None, "longer_than_trained": None, "linear": {"type": "linear", "factor": 2.0},
    "dynamic": DYNAMIC,
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("part", ["", "classifier"])
def test_published_numbers_at_the_end_of_the_way(shared, tmp_path, build, part):
    """Published or new, converted, saved, exported, and loaded by remote code without this package."""
    golden = shared / "golden"
    expected = load_file(golden / "expected.safetensors")
    convert_checkpoint(golden / part, tmp_path / "converted")
    model_class = MutBertForSequenceClassification if part else MutBertForMaskedLM
    auto = AUTO_CLASSES[model_class].__name__
    probs, logits = ("clean_probs", "classifier_logits") if part else ("input_probs", "logits")
    inputs_of = {}
    for case, scaling in CASES.items():
        scaled = tmp_path / f"{case}-scaled"
        read_checkpoint(tmp_path / "converted", model_class, rope_scaling=scaling).save_pretrained(scaled)
        export_model(scaled, tmp_path / case)
        inputs = {"input_probs": expected[f"{case}.{probs}"], "attention_mask": expected[f"{case}.attention_mask"]}
        inputs_of[tmp_path / case] = inputs
    new = build(model_class, pre_norm=True, gated_feed_forward=True)
    new.save_pretrained(tmp_path / "new")
    export_model(tmp_path / "new", tmp_path / "new-exported")
    inputs_of[tmp_path / "new-exported"] = inputs
    *results, found = run_without_mutbert(inputs_of, auto, tmp_path)
    torch.testing.assert_close(found, new(**inputs).logits)
    for case, found in zip(CASES, results, strict=True):
        wanted = expected[f"{case}.{logits}"]
        valid = ... if part else expected[f"{case}.attention_mask"].bool()
        assert (found[valid] - wanted[valid]).abs().max() <= 1e-5, case
