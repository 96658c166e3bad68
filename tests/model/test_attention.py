"""Every way of attending gives the same numbers, padded, unpadded and packed."""

import shutil
from itertools import pairwise

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mutbert.model import MutBertForMaskedLM, MutBertModel

LENGTHS = (7, 24, 3, 12)
SCALINGS = [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile for a CPU needs a C++ compiler")


def sequences(probs):
    return [probs(1, length, seed=length) for length in LENGTHS]


def alone(model, inputs):
    return [model(input_probs=each).last_hidden_state[0] for each in inputs]


def packed(inputs, rows):
    """Lay sequences behind one another into so many rows of the same length."""
    positions = [torch.arange(each.shape[1]) for each in inputs]
    return (
        torch.cat([each[0] for each in inputs]).unflatten(0, (rows, -1)),
        torch.cat(positions).unflatten(0, (rows, -1)),
    )


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_packed_sequences_do_not_see_each_other(build, probs, attention, scaling):
    """Also under dynamic scaling, whose base follows each sequence's own length."""
    model = build(MutBertModel, attention=attention, rope_scaling=scaling)
    inputs = sequences(probs)
    wanted = torch.cat(alone(model, inputs))
    row, positions = packed(inputs, rows=1)
    assert_same(model(input_probs=row, position_ids=positions).last_hidden_state[0], wanted)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("own_positions", [True, False])
def test_packed_rows_with_padding(build, probs, attention, own_positions):
    """Padding may count on from the last sequence or start anew; either way it changes nothing elsewhere."""
    model = build(MutBertModel, attention=attention, rope_scaling=SCALINGS[2])
    first, second, third = sequences(probs)[1], sequences(probs)[0], sequences(probs)[3]
    length = 31
    inputs = torch.zeros(2, length, 9)
    inputs[..., 3] = 1
    inputs[0] = torch.cat((first[0], second[0]))
    inputs[1, :12] = third[0]
    positions = torch.arange(length).repeat(2, 1)
    positions[0, 24:] -= 24
    if own_positions:
        positions[1, 12:] -= 12
    mask = torch.ones(2, length)
    mask[1, 12:] = 0
    found = model(input_probs=inputs, attention_mask=mask, position_ids=positions).last_hidden_state
    assert found.isfinite().all()
    assert_same(found[0], torch.cat(alone(model, [first, second])))
    assert_same(found[1, :12], alone(model, [third])[0])


def test_packed_labels_give_the_loss_of_the_batch(build, probs):
    model = build(MutBertForMaskedLM)
    inputs = sequences(probs)
    generator = torch.Generator().manual_seed(2)
    labels = [torch.randint(5, 9, (1, length), generator=generator) for length in LENGTHS]
    row, positions = packed(inputs, rows=1)
    packed_loss = model(input_probs=row, position_ids=positions, labels=torch.cat(labels, dim=1)).loss
    each = [model(input_probs=x, labels=y).loss * y.numel() for x, y in zip(inputs, labels, strict=True)]
    torch.testing.assert_close(packed_loss, sum(each) / sum(LENGTHS))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("added", [True, False])
def test_a_prepared_mask_is_taken_as_it_is(build, probs, attention, added):
    """Boolean, or numbers added to the scores, as published code passes its own."""
    model = build(MutBertModel, attention=attention)
    inputs = probs(2, 12)
    mask = torch.ones(2, 12)
    mask[1, 7:] = 0
    prepared = mask.bool()[:, None, None, :].expand(-1, 1, 12, -1)
    if added:
        prepared = torch.zeros(prepared.shape).masked_fill(~prepared, torch.finfo(torch.float32).min)
    found = model(input_probs=inputs, attention_mask=prepared).last_hidden_state
    wanted = model(input_probs=inputs, attention_mask=mask).last_hidden_state
    assert_same(found[mask.bool()], wanted[mask.bool()])
    with pytest.raises(ValueError, match=r"attention_mask has shape .*four dimensions"):
        model(input_probs=inputs, attention_mask=prepared[..., :5])


@pytest.mark.slow
@needs_compiler
# Block masks are made by transformers, in a way that torch has deprecated, and torch does so by another such.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_flex_attention(build, probs, scaling):
    reference, model = (
        build(MutBertModel, attention=name, rope_scaling=scaling) for name in ("sdpa", "flex_attention")
    )
    inputs = sequences(probs)
    row, positions = packed(inputs, rows=1)
    mask = torch.ones(3, 24)
    mask[1, 9:] = 0
    for arguments in (
        {"input_probs": probs(3, 24)},
        {"input_probs": probs(3, 24), "attention_mask": mask},
        {"input_probs": row, "position_ids": positions},
    ):
        with torch.inference_mode():
            found, wanted = (one(**arguments).last_hidden_state for one in (model, reference))
        keep = arguments.get("attention_mask", torch.ones(found.shape[:2])).bool()
        assert_same(found[keep], wanted[keep])


# Flash kernels run on GPUs alone. What the library hands to them is held against attention of each sequence by itself.


def boundaries_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kernel):
    """Do what a flash kernel does with sequences laid end to end, or with a batch and its mask, by plain products."""
    batch, heads, length, size = query.shape
    if "cu_seq_lens_q" not in kernel:
        keep = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keep, scale=scaling)
        return mixed.transpose(1, 2), None
    assert attention_mask is None
    assert torch.equal(kernel["cu_seq_lens_q"], kernel["cu_seq_lens_k"])
    starts = kernel["cu_seq_lens_q"].tolist()
    assert (starts[0], starts[-1]) == (0, batch * length)
    assert kernel["max_length_q"] == kernel["max_length_k"] == max(b - a for a, b in pairwise(starts))
    flat = [x.transpose(1, 2).reshape(batch * length, heads, size).transpose(0, 1) for x in (query, key, value)]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(*(x[:, first:last] for x in flat), scale=scaling)
        for first, last in pairwise(starts)
    ]
    return torch.cat(parts, dim=1).transpose(0, 1).unflatten(0, (batch, length)), None


@pytest.fixture
def flash(build, monkeypatch):
    """Build models that attend by a stand-in for a flash kernel."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", boundaries_attention)

    def flash(model_class, **changes):
        model = build(model_class, **changes)
        model.config._attn_implementation_internal = "flash_attention_2"
        assert model.config._attn_implementation == "flash_attention_2"
        return model

    return flash


@pytest.mark.parametrize("scaling", SCALINGS)
def test_flash_kernels_are_told_where_sequences_start(build, probs, flash, scaling):
    reference, model = (make(MutBertModel, rope_scaling=scaling) for make in (build, flash))
    inputs = sequences(probs)
    row, positions = packed(inputs, rows=1)
    assert_same(
        model(input_probs=row, position_ids=positions).last_hidden_state[0], torch.cat(alone(reference, inputs))
    )


def test_flash_kernels_with_several_rows_and_padding(build, probs, flash):
    reference, model = build(MutBertModel), flash(MutBertModel)
    inputs = probs(3, 12)
    mask = torch.ones(3, 12)
    mask[1, 9:] = 0
    positions = torch.tensor([[*range(5), *range(7)], [*range(12)], [*range(8), *range(4)]])
    for arguments in (
        {},
        {"attention_mask": mask},
        {"position_ids": positions},
        {"attention_mask": mask, "position_ids": positions},
    ):
        found = model(input_probs=inputs, **arguments).last_hidden_state
        wanted = reference(input_probs=inputs, **arguments).last_hidden_state
        keep = arguments.get("attention_mask", torch.ones(3, 12)).bool()
        assert_same(found[keep], wanted[keep])
    with pytest.raises(ValueError, match="four dimensions"):
        model(input_probs=inputs, attention_mask=torch.ones(3, 1, 12, 12))
