"""Every way of attending gives the same numbers, padded, unpadded and packed."""

import inspect
import shutil
from itertools import pairwise

import pytest
import torch
from transformers import modeling_flash_attention_utils as flash_utils

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertModel
from mutbert.model.modeling_mutbert import rotary_tables, rotate

LENGTHS = (7, 1, 24, 3, 12, 1)
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
    first, second, third = (probs(1, length, seed=length) for length in (24, 7, 12))
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
    with pytest.raises(ValueError, match=r"attention_mask is .*four dimensions"):
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
    # Not 24 or 72, at which torch 2.13's own kernel is wrong on CPUs with AVX2 alone.
    inputs = [probs(1, length, seed=length) for length in (13, 24, 27)]
    row, positions = packed(inputs, rows=1)
    mask = torch.ones(3, 32)
    mask[1, 9:] = 0
    for arguments in (
        {"input_probs": probs(3, 32)},
        {"input_probs": probs(3, 32), "attention_mask": mask},
        {"input_probs": row, "position_ids": positions},
    ):
        with torch.inference_mode():
            found, wanted = (one(**arguments).last_hidden_state for one in (model, reference))
        keep = arguments.get("attention_mask", torch.ones(found.shape[:2])).bool()
        assert_same(found[keep], wanted[keep])


# Flash kernels run on GPUs alone. Two plain functions take their place behind all that the library does for them.


def flash_kernel(query, key, value, *, causal, softmax_scale, **_):
    assert not causal
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*heads_first, scale=softmax_scale).transpose(1, 2)


def flash_kernel_of_sequences(
    query, key, value, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, softmax_scale, **_
):
    """Attend within each sequence of those laid end to end; shape (tokens, heads, size)."""
    assert not causal
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    starts = cu_seqlens_q.tolist()
    assert (starts[0], starts[-1]) == (0, len(query))
    assert max_seqlen_q == max_seqlen_k == max(last - first for first, last in pairwise(starts))
    parts = [
        flash_kernel(*(x[None, first:last] for x in (query, key, value)), causal=causal, softmax_scale=softmax_scale)
        for first, last in pairwise(starts)
    ]
    return torch.cat(parts, dim=1)[0]


@pytest.fixture
def flash(build, monkeypatch):
    """Build models that attend by them."""

    def kernels(*_, **__):
        # In newer releases there is a third, for what a decoder has seen.
        third = (None,) if "kvcache" in inspect.getsource(flash_utils.lazy_import_flash_attention) else ()
        return (flash_kernel, flash_kernel_of_sequences, *third, flash_utils._pad_input, flash_utils._unpad_input)

    monkeypatch.setattr(flash_utils, "_lazy_imports", kernels)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None, raising=False)

    def flash(model_class, **changes):
        model = build(model_class, **changes)
        # The public ways refuse what is not installed.
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


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_prepared_mask_may_leave_a_row_with_nothing(build, probs, attention):
    model = build(MutBertModel, attention=attention)
    mask = torch.zeros(1, 1, 6, 6)
    mask[0, 0, 2] = -torch.inf
    found = model(input_probs=probs(1, 6), attention_mask=mask).last_hidden_state
    wanted = model(input_probs=probs(1, 6)).last_hidden_state
    assert found.isfinite().all()
    assert wanted.shape == found.shape


def test_whole_numbers_are_no_mask_of_four_dimensions(build, probs):
    """Added to the scores, as numbers are, they would be another mask than they look."""
    with pytest.raises(ValueError, match=r"is torch\.int64 of shape"):
        build(MutBertModel)(input_probs=probs(1, 6), attention_mask=torch.ones(1, 1, 6, 6, dtype=torch.long))


def test_the_pooler_takes_a_mask_as_attention_does(build, probs):
    model = build(MutBertModel)
    inputs = probs(1, 6)
    one, other = (
        model(input_probs=inputs, attention_mask=torch.tensor([m])) for m in ([1, 1, 1, 1, 1, 0], [1, 2, 2, 1, 3, 0])
    )
    torch.testing.assert_close(other.pooler_output, one.pooler_output)


@pytest.mark.parametrize("training", [True, False])
def test_without_padding_no_mask_is_passed(build, probs, monkeypatch, training):
    """So that a flash kernel can be used."""
    masks = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(*inputs, **settings):
        masks.append(settings["attn_mask"])
        return attend(*inputs, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    build(MutBertForMaskedLM).train(training)(input_probs=probs(2, 6))
    assert masks == [None, None]


def test_rotation_is_in_float32(build):
    """Also of queries in half precision, whose own would lose places far out."""
    config = MutBertConfig(hidden_size=32, num_attention_heads=4)
    tables = rotary_tables(config, torch.arange(400, 500)[None], torch.tensor([[500]]))
    query = torch.randn(1, 100, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    wanted = rotate(query.float(), tables)
    found = rotate(query, tables)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted.bfloat16())
