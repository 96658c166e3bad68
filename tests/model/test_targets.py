"""The head of the masked model runs at the targets alone, and the loss is the mean of their cross-entropies."""

import math

import pytest
import torch

from mutbert.model import MutBertForMaskedLM
from mutbert.model.modeling_mutbert import target_loss

PLACES = torch.tensor([[2, 5, 11], [0, 7, 8], [3, 1, 10]])
ROWS = torch.arange(3)[:, None]


def cross_entropy(logits, labels):
    """One number at a time."""
    logits = logits.detach()
    log_sum = math.log(sum(math.exp(x) for x in logits.tolist()))
    tokens = range(9 - len(labels), 9)
    return sum(p * (log_sum - float(logits[v])) for p, v in zip(labels.tolist(), tokens, strict=True))


@pytest.mark.parametrize("columns", [9, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_and_loss_of_the_targets_are_those_of_the_whole(build, probs, columns, weighted):
    model = build(MutBertForMaskedLM).train()
    inputs, labels = probs(3, 12), probs(3, 3, columns=columns, seed=7)
    weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(5)) * 3 if weighted else None
    whole = model(input_probs=inputs).logits[ROWS, PLACES]
    found = model(input_probs=inputs, labels=labels, target_places=PLACES, target_weights=weights)
    assert found.logits.shape == (3, 3, 9)
    torch.testing.assert_close(found.logits, whole)
    factors = torch.ones(9) if weights is None else weights.flatten()
    pairs = zip(whole.flatten(0, 1), labels.flatten(0, 1), factors.tolist(), strict=True)
    wanted = sum(factor * cross_entropy(*pair) for *pair, factor in pairs) / 9
    assert found.loss.item() == pytest.approx(wanted, abs=1e-5)
    parameters = tuple(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.loss, parameters),
        torch.autograd.grad(target_loss(whole, labels, weights), parameters),
    )


def test_the_loss_in_closed_form():
    """With equal logits every distribution costs log V; with one column ahead by x, log(V − 1 + e^x) − x · p."""
    logits, target = torch.zeros(1, 2, 9), torch.zeros(1, 2, 9)
    target[..., 5], target[..., 6] = 0.7, 0.3
    assert target_loss(logits, target).item() == pytest.approx(math.log(9))
    logits[0, 1, 5] = 2.0
    ahead = math.log(8 + math.exp(2.0)) - 2.0 * 0.7
    assert target_loss(logits, target).item() == pytest.approx((math.log(9) + ahead) / 2)
    assert target_loss(logits, target[..., 5:]).item() == pytest.approx((math.log(9) + ahead) / 2)
    assert target_loss(logits, target, torch.tensor([[0.0, 3.0]])).item() == pytest.approx(ahead * 3 / 2)


def test_ids_are_one_hot_distributions(build, probs):
    model = build(MutBertForMaskedLM)
    ids = torch.randint(5, 9, (3, 12), generator=torch.Generator().manual_seed(3))
    at_places = ids[ROWS, PLACES]
    elsewhere = torch.full_like(ids, -100).index_put((ROWS, PLACES), at_places)
    whole = model(input_probs=probs(3, 12), labels=elsewhere)
    wanted = torch.nn.functional.cross_entropy(whole.logits.flatten(0, 1), elsewhere.flatten())
    torch.testing.assert_close(whole.loss, wanted)
    for labels in (at_places, torch.nn.functional.one_hot(at_places, 9).float()):
        found = model(input_probs=probs(3, 12), labels=labels, target_places=PLACES)
        torch.testing.assert_close(found.loss, wanted)


@pytest.mark.parametrize(
    "targets",
    [
        {"labels": torch.full((1, 5), -100)},
        {"labels": torch.ones(1, 0, 9), "target_places": torch.ones(1, 0, dtype=torch.long)},
    ],
)
def test_no_target_is_no_loss(build, probs, targets):
    model = build(MutBertForMaskedLM)
    loss = model(input_probs=probs(1, 5), **targets).loss
    assert loss.item() == 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, tuple(model.parameters())))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(1, 5, 9) / 9, "labels have shape"),
        (torch.ones(1, 2, 3) / 3, "labels are floating-point of shape"),
        (torch.ones(1, 5, dtype=torch.long), "labels have shape"),
        (torch.full((1, 2, 9), torch.nan), "labels: row 0, position 0 is no distribution"),
    ],
)
def test_wrong_labels_are_refused(build, probs, labels, message):
    with pytest.raises(ValueError, match=message):
        build(MutBertForMaskedLM)(input_probs=probs(1, 5), labels=labels, target_places=torch.tensor([[1, 2]]))
