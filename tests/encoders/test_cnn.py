"""The plain network: a sequence's output is its own, however it is written and whoever is beside it."""

import numpy as np
import pytest
import torch

from mutbert import alphabet
from mutbert.encoders.adapter import CnnClassifier
from mutbert.encoders.inputs import BaseInputs


@pytest.fixture(params=[False, True], ids=["sequence", "token"])
def model(request):
    torch.manual_seed(0)
    return CnnClassifier(3, each_token=request.param).eval()


def run(model, batch):
    with torch.inference_mode():
        return model(**batch).logits


def test_shapes(model, examples_of, sequences):
    inputs = BaseInputs(examples_of(sequences))
    batch = inputs.batch(np.arange(len(sequences)))
    shape = (len(sequences), 62, 3) if model.each_token else (len(sequences), 3)
    assert run(model, batch).shape == shape


def test_padding_and_the_others_of_a_batch_have_no_part(model, examples_of, sequences):
    inputs = BaseInputs(examples_of(sequences))
    together = run(model, inputs.batch(np.arange(len(sequences))))
    for row in range(len(sequences)):
        alone = run(model, inputs.batch(np.array([row])))[0]
        found = together[row, : len(alone)] if model.each_token else together[row]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_an_id_is_the_distribution_that_is_sure_of_it(model, examples_of, sequences):
    batch = BaseInputs(examples_of(sequences)).batch(np.arange(len(sequences)))
    ids = batch.pop("input_ids")
    probs = torch.nn.functional.one_hot(ids, alphabet.VOCABULARY_SIZE).float()
    assert torch.equal(run(model, {**batch, "input_ids": ids}), run(model, {**batch, "input_probs": probs}))


def test_the_weights_hear_of_every_base(model):
    probs = torch.zeros(1, 20, 9)
    probs[..., alphabet.BASE_IDS] = 0.25
    probs.requires_grad_()
    model(input_probs=probs).logits.sum().backward()
    gradient = probs.grad[0]
    assert (gradient[:, alphabet.BASE_IDS].abs().sum(dim=1) > 0).all()
    assert not gradient[:, : alphabet.BASE_IDS.start].any()
