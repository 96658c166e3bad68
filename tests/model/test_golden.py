"""What the published model code answered, for a tiny checkpoint in the published layout."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mutbert import MutBertForMaskedLM, MutBertForSequenceClassification, MutBertModel, MutBertTokenizer
from mutbert.model import read_checkpoint
from mutbert.model.modeling_mutbert import target_loss

CASES = ("plain", "padded", "longer_than_trained", "linear", "dynamic")

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def golden(shared):
    return shared / "golden"


@pytest.fixture(scope="module")
def expected(golden):
    tensors = load_file(golden / "expected.safetensors")
    return {
        case: {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{case}.")}
        for case in CASES
    }


@pytest.mark.parametrize("way", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_published_numbers(golden, expected, case, way):
    settings = {
        "rope_scaling": json.loads((golden / "cases.json").read_text())[case]["rope_scaling"],
        "attn_implementation": way,
    }
    wanted = expected[case]
    mask = wanted["attention_mask"]
    valid = mask.bool()
    masked_model = read_checkpoint(golden, MutBertForMaskedLM, **settings)
    body = read_checkpoint(golden, MutBertModel, **settings)
    classifier = read_checkpoint(golden / "classifier", MutBertForSequenceClassification, **settings)
    with torch.no_grad():
        answer = masked_model(input_probs=wanted["input_probs"], attention_mask=mask, output_hidden_states=True)
        clean = body(input_probs=wanted["clean_probs"], attention_mask=mask)
        # Published code passes distributions as `input_ids`.
        classes = classifier(input_ids=wanted["clean_probs"], attention_mask=mask)

    target = wanted["masked"].bool()
    for found, name in (
        (answer.logits[valid], "logits"),
        (answer.hidden_states[-1][valid], "last_hidden_state"),
        (clean.last_hidden_state[valid], "clean_last_hidden_state"),
        (clean.pooler_output, "pooled"),
        (classes.logits, "classifier_logits"),
        (target_loss(answer.logits[target][None], wanted["label_probs"][target][None]), "loss"),
    ):
        right = wanted[name][valid] if "hidden" in name or name == "logits" else wanted[name]
        torch.testing.assert_close(found, right.squeeze() if name == "loss" else right, atol=1e-5, rtol=0)


def test_interleaved_lengths_give_the_same_bits(golden):
    """The published dynamic scaling keeps the base of the longest input so far."""
    model = read_checkpoint(golden, MutBertModel, rope_scaling={"type": "dynamic", "factor": 2.0})
    ids = torch.randint(5, 9, (1, 400), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, long, again = (model(ids[:, :length]).last_hidden_state for length in (60, 400, 60))
    assert torch.equal(first, again)
    assert not torch.allclose(first, long[:, :60])


@pytest.mark.parametrize("load", [MutBertTokenizer, MutBertTokenizer.from_pretrained], ids=["new", "loaded"])
def test_published_token_ids(golden, load):
    folder = () if load is MutBertTokenizer else (golden,)
    tokenizer = load(*folder, do_upper_case=False)
    for case in json.loads((golden / "tokenizer_cases.json").read_text()):
        texts = [case["text"]] if isinstance(case["text"], str) else case["text"]
        encoded = tokenizer(*texts)
        assert encoded["input_ids"] == case["input_ids"], case
        assert encoded["token_type_ids"] == case.get("token_type_ids", [0] * len(case["input_ids"])), case
