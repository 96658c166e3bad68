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


def test_padding_and_the_others_of_a_batch_have_no_part(model, examples_of, sequences):
    inputs = BaseInputs(examples_of(sequences))
    together = run(model, inputs.batch(np.arange(len(sequences))))
    assert together.shape == ((len(sequences), 62, 3) if model.each_token else (len(sequences), 3))
    for row in range(len(sequences)):
        alone = run(model, inputs.batch(np.array([row])))[0]
        found = together[row, : len(alone)] if model.each_token else together[row]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_an_id_is_the_distribution_that_is_sure_of_it(model, examples_of, sequences):
    batch = BaseInputs(examples_of(sequences)).batch(np.arange(len(sequences)))
    ids = batch.pop("input_ids")
    probs = torch.nn.functional.one_hot(ids, alphabet.VOCABULARY_SIZE).float()
    assert torch.equal(run(model, {**batch, "input_ids": ids}), run(model, {**batch, "input_probs": probs}))
