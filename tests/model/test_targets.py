"""In training the head of the masked model runs at the targets alone, and the loss is what it would be anyway."""

import pytest
import torch

from mutbert.model import MutBertForMaskedLM
from mutbert.model.modeling_mutbert import masked_loss


@pytest.fixture
def case(probs):
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[0, [2, 3, 5, 11]] = mask[1, [0, 7]] = True
    ids = torch.randint(5, 9, (3, 12), generator=torch.Generator().manual_seed(3))
    return {
        "distributions": {"labels": probs(3, 12, seed=7), "target_mask": mask},
        "bases": {"labels": probs(3, 12, columns=4, seed=7), "target_mask": mask},
        "ids": {"labels": ids.masked_fill(~mask, -100)},
    }, mask


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.fixture(params=["found", "bounded"])
def as_on(request, monkeypatch):
    """Find targets as on a CPU, or by their bound as where the host must not wait."""
    if request.param == "bounded":
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    return request.param


@pytest.mark.parametrize("kind", ["distributions", "bases", "ids"])
@pytest.mark.parametrize("max_targets", [6, 7, 36, None])
def test_loss_and_gradients_are_those_of_the_whole(build, probs, case, kind, max_targets, as_on):
    cases, mask = case
    arguments = cases[kind]
    inputs = probs(3, 12)
    model = build(MutBertForMaskedLM).train()
    logits = model(input_probs=inputs).logits
    whole = masked_loss(logits, **arguments)
    wanted = gradients_of(model, whole)
    outputs = model(input_probs=inputs, **arguments, max_targets=max_targets)
    torch.testing.assert_close(outputs.loss, whole)
    torch.testing.assert_close(gradients_of(model, outputs.loss), wanted)
    torch.testing.assert_close(outputs.logits[mask], logits[mask])


@pytest.mark.parametrize("kind", ["distributions", "bases", "ids"])
@pytest.mark.parametrize("max_targets", [6, 36, None])
def test_a_weight_multiplies_its_targets_loss_alone(build, probs, case, kind, max_targets, as_on):
    cases, mask = case
    arguments = cases[kind]
    model = build(MutBertForMaskedLM).train()
    weights = torch.rand(3, 12, generator=torch.Generator().manual_seed(5)) * 3
    # What stands elsewhere is not looked at.
    weights[~mask] = torch.nan
    each = []
    for row, place in mask.nonzero().tolist():
        only = torch.zeros_like(mask)
        only[row, place] = True
        one = arguments | {"target_mask": only}
        each.append(weights[row, place] * model(input_probs=probs(3, 12), **one).loss)
    wanted = sum(each) / len(each)
    outputs = model(input_probs=probs(3, 12), **arguments, target_weights=weights, max_targets=max_targets)
    torch.testing.assert_close(outputs.loss, wanted)
    torch.testing.assert_close(gradients_of(model, outputs.loss), gradients_of(model, wanted))
    torch.testing.assert_close(model.eval()(input_probs=probs(3, 12), **arguments, target_weights=weights).loss, wanted)


def test_weights_of_another_shape_are_refused(build, probs, case):
    cases, _ = case
    model = build(MutBertForMaskedLM)
    for weights in (torch.ones(12, 3), torch.ones(3, 12, 1)):
        with pytest.raises(ValueError, match="target_weights have shape"):
            model.train()(input_probs=probs(3, 12), **cases["ids"], target_weights=weights)
        with pytest.raises(ValueError, match="target_weights have shape"):
            masked_loss(torch.zeros(3, 12, 9), **cases["ids"], target_weights=weights)


def test_the_head_sees_targets_alone(build, probs, case, as_on):
    cases, mask = case
    model = build(MutBertForMaskedLM).train()
    seen = []
    model.cls.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[:-1].numel()))
    outputs = model(input_probs=probs(3, 12), **cases["ids"], max_targets=8)
    model.eval()(input_probs=probs(3, 12), **cases["ids"], max_targets=8)
    assert seen == [6 if as_on == "found" else 8, 36]
    assert outputs.logits.shape == (3, 12, 9)
    assert outputs.logits.isnan().all(dim=-1).sum() == 36 - seen[0]
    assert not outputs.logits[mask].isnan().any()


def test_a_bound_that_is_too_low_is_not_passed_over(build, probs, case, monkeypatch):
    cases, _ = case
    model = build(MutBertForMaskedLM).train()
    with pytest.raises(ValueError, match="there are 6 targets where max_targets is 5"):
        model(input_probs=probs(3, 12), **cases["ids"], max_targets=5)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert model(input_probs=probs(3, 12), **cases["ids"], max_targets=5).loss.isnan()


def test_no_target_in_training(build, probs, as_on):
    model = build(MutBertForMaskedLM).train()
    loss = model(input_probs=probs(1, 5), labels=torch.full((1, 5), -100), max_targets=2).loss
    assert loss.item() == 0
    assert all(gradient.isfinite().all() for gradient in gradients_of(model, loss))


@pytest.mark.parametrize("training", [True, False])
def test_what_stands_elsewhere_has_no_gradient(build, probs, case, training):
    cases, mask = case
    model = build(MutBertForMaskedLM).train(training)
    labels = cases["distributions"]["labels"].masked_fill(~mask[..., None], torch.nan)
    loss = model(input_probs=probs(3, 12), labels=labels, target_mask=mask).loss
    assert all(gradient.isfinite().all() for gradient in gradients_of(model, loss))


# Of torch's own, about a fused kernel that it maps over row by row.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_of_each_sequence_by_vmap(build, probs, case, attention):
    """Under torch.func, where no value can be looked at and none drawn in place."""
    cases, _ = case
    model = build(MutBertForMaskedLM, attention=attention, hidden_dropout_prob=0.1).train()
    weights = dict(model.named_parameters())

    def loss(weights, inputs, labels):
        arguments = {"input_probs": inputs[None], "labels": labels[None]}
        return torch.func.functional_call(model, weights, (), arguments).loss

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), randomness="different")
    gradients = each(weights, probs(3, 12), cases["ids"]["labels"])
    assert all(gradient.shape[0] == 3 and gradient.isfinite().all() for gradient in gradients.values())
