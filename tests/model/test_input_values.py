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
        (float("nan"), "row 1, position 3 has a value that is no finite number"),
        (float("inf"), "row 1, position 3 has a value that is no finite number"),
        (2.0, "row 1, position 3 sums to 2"),
        (-0.5, "row 1, position 3 has the probability -0.5"),
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
    with pytest.raises(ValueError, match="position 5 has a value that is no finite number"):
        model(input_probs=inputs, attention_mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_rounding_is_no_mistake(dtype):
    """Frequencies rounded to the input's own precision, or printed with four digits, are distributions."""
    probs = torch.softmax(3 * torch.randn(50, 200, 9, generator=torch.Generator().manual_seed(0)), dim=-1)
    check_probabilities("probs", probs.to(dtype))
    check_probabilities("probs", ((probs * 1e4).round() / 1e4).to(dtype))


@pytest.mark.parametrize(("token", "label"), [(9, 5), (-1, 5), (5, 9), (5, -7)])
def test_ids_out_of_the_vocabulary_are_refused(build, token, label):
    ids = torch.full((1, 4), 6)
    labels = ids.clone()
    ids[0, 2], labels[0, 2] = token, label
    name, value = ("input_ids", token) if token != 5 else ("labels", label)
    with pytest.raises(ValueError, match=f"{name} has {value} at row 0, position 2; the ids are 0 to 8"):
        build(MutBertForMaskedLM)(input_ids=ids, labels=labels)


def test_token_types_that_there_are_not_are_refused(build):
    with pytest.raises(ValueError, match="token_type_ids has 2 at row 0, position 1; the ids are 0 to 1"):
        build(MutBertModel)(input_ids=torch.full((1, 3), 5), token_type_ids=torch.tensor([[0, 2, 0]]))


def test_labels_are_looked_at_where_they_are_targets(build, probs):
    model = build(MutBertForMaskedLM)
    inputs, labels = probs(1, 5), probs(1, 5)
    labels[0, 3] = torch.nan
    mask = torch.tensor([[True, False, False, False, False]])
    assert model(input_probs=inputs, labels=labels, target_mask=mask).loss.isfinite()
    mask[0, 3] = True
    with pytest.raises(ValueError, match="labels: row 0, position 3"):
        model(input_probs=inputs, labels=labels, target_mask=mask)


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
