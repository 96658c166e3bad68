"""Every way of attending gives the same numbers, padded and unpadded."""

import inspect
import shutil
from itertools import pairwise

import pytest
import torch
from transformers import modeling_flash_attention_utils as flash_utils

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertModel
from mutbert.model.modeling_mutbert import rotary_tables, rotate

SCALINGS = [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile for a CPU needs a C++ compiler")


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


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
    mask = torch.ones(3, 32)
    mask[1, 9:] = 0
    for arguments in (
        {"input_probs": probs(3, 32)},
        {"input_probs": probs(3, 32), "attention_mask": mask},
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


def test_flash_kernels_with_several_rows_and_padding(build, probs, flash):
    reference, model = build(MutBertModel), flash(MutBertModel)
    inputs = probs(3, 12)
    mask = torch.ones(3, 12)
    mask[1, 9:] = 0
    for arguments in ({}, {"attention_mask": mask}):
        found = model(input_probs=inputs, **arguments).last_hidden_state
        wanted = reference(input_probs=inputs, **arguments).last_hidden_state
        keep = arguments.get("attention_mask", torch.ones(3, 12)).bool()
        assert_same(found[keep], wanted[keep])


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
    tables = rotary_tables(config, 100, torch.tensor([[100]]))
    query = torch.randn(1, 100, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    wanted = rotate(query.float(), tables)
    found = rotate(query, tables)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted.bfloat16())
