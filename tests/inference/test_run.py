"""The loop over batches, against the model run on one sequence at a time; what a model is asked."""

import numpy as np
import pytest
import torch

from mutbert import alphabet
from mutbert.encoders.inputs import BaseInputs, PaddedWindows
from mutbert.inference.run import base_outputs
from mutbert.model import MutBertForTokenClassification

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def inputs_of(sequences, **settings):
    return BaseInputs(PaddedWindows.of([alphabet.encode(sequence) for sequence in sequences]), **settings)


def turned(sequence):
    return alphabet.decode(alphabet.reverse_complement(alphabet.encode(sequence)))


def logits_of(model):
    return lambda batch: model(**batch).logits


def logits_alone(model, sequence, **settings):
    with torch.inference_mode():
        return model(**inputs_of([sequence], **settings).batch(np.array([0]))).logits[0].numpy()


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("max_tokens", [None, 40, 20])
def test_outputs_of_bases_of_both_strands(build, sequences, strands, max_tokens):
    model = build(MutBertForTokenClassification, num_labels=2)
    inputs, rows = inputs_of(sequences, max_tokens=max_tokens), np.arange(len(sequences))[::-2]
    found = base_outputs(model, logits_of(model), inputs, rows, batch_size=4, strands=strands)
    for output, sequence in zip(found, [sequences[row] for row in rows], strict=True):
        wanted = logits_alone(model, sequence, max_tokens=max_tokens)[1:-1].copy()
        backward = logits_alone(model, turned(sequence), max_tokens=max_tokens)[1:-1]
        for base in range(len(wanted)):
            other = len(sequence) - 1 - base
            if strands == "both" and other < len(backward):
                wanted[base] = (wanted[base] + backward[other]) / 2
        np.testing.assert_allclose(output, wanted, **CLOSE)
