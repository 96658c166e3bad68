"""Dropout as the models draw it on a CPU, held against what dropout is."""

import math

import pytest
import torch

from mutbert.model import MutBertModel
from mutbert.model.modeling_mutbert import MutBertDropout, eager_attention_forward


def dropped(x, probability, seed=0):
    torch.manual_seed(seed)
    return MutBertDropout(probability).train()(x)


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_stays_is_scaled_and_its_share_is_right(probability, dtype):
    count = 1_000_003  # no multiple of the elements that a draw decides on
    found = dropped(torch.ones(count, dtype=dtype), probability)
    assert found.dtype == dtype
    kept = found != 0
    share = kept.float().mean().item()
    # Five standard deviations of a binomial, and the 2^-17 by which the probability is rounded.
    assert abs(share - (1 - probability)) < 5 * math.sqrt(probability * (1 - probability) / count) + 2**-17
    torch.testing.assert_close(found[kept].float().unique().item(), 1 / (1 - probability), rtol=0.005, atol=0)


def test_neighbours_are_independent():
    """Of four elements that share a draw, each goes without regard to the others."""
    gone = dropped(torch.ones(400_000), 0.25).view(-1, 4) == 0
    for first in range(4):
        for second in range(first + 1, 4):
            both = (gone[:, first] & gone[:, second]).float().mean().item()
            assert both == pytest.approx(0.0625, abs=5 * math.sqrt(0.0625 * 0.9375 / 100_000))


def test_it_follows_the_seed_and_leaves_evaluation_alone():
    x = torch.randn(7, 11)
    assert torch.equal(dropped(x, 0.3, seed=1), dropped(x, 0.3, seed=1))
    assert not torch.equal(dropped(x, 0.3, seed=1), dropped(x, 0.3, seed=2))
    assert MutBertDropout(0.3).eval()(x) is x
    assert MutBertDropout(0.0).train()(x) is x
    assert torch.equal(dropped(x, 1.0), torch.zeros_like(x))
    assert dropped(torch.ones(0, 3), 0.3).shape == (0, 3)


def test_gradients_flow_through_what_stays():
    x = torch.ones(1000, requires_grad=True)
    found = dropped(x, 0.4)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


def test_attention_with_dropout_is_right_on_average():
    """Every weight goes with the same probability, and the mean over many draws is what attention without gives."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 6, 4, generator=generator) for _ in range(3))
    module = torch.nn.Module().train()
    torch.manual_seed(0)
    wide = [x.expand(4000, -1, -1, -1) for x in (query, key, value)]
    mixed, weights = eager_attention_forward(module, *wide, None, 0.5, dropout=0.3)
    plain, plain_weights = eager_attention_forward(module, query, key, value, None, 0.5)
    torch.testing.assert_close(weights[:1], plain_weights, msg="weights are those before dropout")
    assert not torch.allclose(mixed[0], mixed[1])
    torch.testing.assert_close(mixed.mean(dim=0), plain[0], atol=0.06, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_training_draws_anew_each_time_and_repeats_with_the_seed(build, probs, attention):
    model = build(MutBertModel, attention=attention, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()
    inputs = probs(2, 12)

    def run(seed):
        torch.manual_seed(seed)
        return model(input_probs=inputs).last_hidden_state

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))
