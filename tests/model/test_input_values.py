"""Values that cannot be right are refused with their place, where looking at them costs no waiting."""

import pytest
import torch

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertModel
from mutbert.model.modeling_mutbert import check_probabilities


def with_value(probs_BLC, row, position, value):
    probs_BLC = probs_BLC.clone()
    probs_BLC[row, position, 5 % probs_BLC.shape[-1]] = value
    return probs_BLC


@pytest.mark.parametrize("columns", [9, 4])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "row 1, position 3 sums to nan"),
        (float("inf"), "row 1, position 3 sums to inf"),
        (2.0, "row 1, position 3 sums to 2"),
        (-0.5, "row 1, position 3 .*its lowest value is -0.5"),
    ],
)
def test_rows_that_are_no_distributions_are_refused(build, probs, columns, value, message):
    wrong = with_value(probs(2, 6, columns=columns), 1, 3, value)
    with pytest.raises(ValueError, match=f"input_probs: {message}"):
        build(MutBertModel)(input_probs=wrong)
    with pytest.raises(ValueError, match=message):
        build(MutBertModel)(input_ids=wrong)  # as published code passes them


def test_a_row_of_zeros_is_refused_but_at_padding(build, probs):
    model = build(MutBertModel)
    inputs = probs(1, 6)
    inputs[0, 4:] = 0
    with pytest.raises(ValueError, match="position 4 sums to 0"):
        model(input_probs=inputs)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded = model(input_probs=inputs, attention_mask=mask).last_hidden_state[:, :4]
    torch.testing.assert_close(padded, model(input_probs=inputs[:, :4]).last_hidden_state)
    inputs[0, 5, 0] = torch.nan
    with pytest.raises(ValueError, match="position 5 sums to nan"):
        model(input_probs=inputs, attention_mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_rounding_is_no_mistake(dtype):
    """Frequencies rounded to the input's own precision, or printed with four digits, are distributions."""
    probs = torch.softmax(3 * torch.randn(50, 200, 9, generator=torch.Generator().manual_seed(0)), dim=-1)
    check_probabilities("probs", probs.to(dtype), MutBertConfig())
    check_probabilities("probs", ((probs * 1e4).round() / 1e4).to(dtype), MutBertConfig())


def test_labels_are_checked(build, probs):
    model = build(MutBertForMaskedLM)
    labels, places = probs(1, 2), torch.tensor([[0, 3]])
    assert model(input_probs=probs(1, 5), labels=labels, target_places=places).loss.isfinite()
    labels[0, 1] = torch.nan
    with pytest.raises(ValueError, match="labels: row 0, position 1"):
        model(input_probs=probs(1, 5), labels=labels, target_places=places)


def test_checks_can_be_switched_off_and_are_back_when_loaded(build, tmp_path):
    model = build(MutBertModel, check_inputs=False)
    ones = torch.ones(1, 4, 9)
    assert model(input_probs=ones).last_hidden_state.shape == (1, 4, 32)
    model.save_pretrained(tmp_path)
    assert "check_inputs" not in (tmp_path / "config.json").read_text()
    assert MutBertConfig.from_pretrained(tmp_path).check_inputs
    loaded = MutBertModel.from_pretrained(tmp_path, check_inputs=False)
    assert torch.equal(loaded(input_probs=ones).last_hidden_state, model(input_probs=ones).last_hidden_state)
    loaded.config.check_inputs = True
    with pytest.raises(ValueError, match="sums to 9"):
        loaded(input_probs=ones)
