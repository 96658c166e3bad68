"""The loop over batches, against the model run on one sequence at a time; what a model is asked."""

import numpy as np
import pytest
import torch

from mutbert import alphabet
from mutbert.encoders.inputs import BaseInputs, PaddedWindows
from mutbert.errors import InputError
from mutbert.inference.run import base_outputs, resolve_context, sequence_outputs
from mutbert.model import MutBertConfig, MutBertForSequenceClassification, MutBertForTokenClassification

DYNAMIC = {"type": "dynamic", "factor": 2}
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
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_outputs_of_sequences_are_in_the_order_asked_for(build, sequences, strands, batch_size):
    model = build(MutBertForSequenceClassification, num_labels=3)
    rows, settings = np.random.default_rng(0).permutation(len(sequences))[:13], {"strands": strands}
    inputs = inputs_of(sequences)
    found = sequence_outputs(model, logits_of(model), inputs, rows, batch_size=batch_size, **settings)
    wanted = [logits_alone(model, sequences[row]) for row in rows]
    if strands == "both":
        other = [logits_alone(model, turned(sequences[row])) for row in rows]
        wanted = (np.array(wanted) + other) / 2
    np.testing.assert_allclose(found, wanted, **CLOSE)
    every = sequence_outputs(model, logits_of(model), inputs, batch_size=batch_size, **settings)
    np.testing.assert_allclose(every[rows], found, **CLOSE)
    assert not len(sequence_outputs(model, logits_of(model), inputs, np.zeros(0, np.int64)))


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


@pytest.mark.parametrize(
    ("context", "scaling", "found"),
    [
        (None, None, 62), (1, None, 1), (62, None, 62), (None, DYNAMIC, 62), (126, DYNAMIC, 126),
        (0, None, "context is 0; it must be at least 1"),
        (63, None, "context: 63 bases are 65 tokens .*--rope-scaling dynamic:2"),
        (127, DYNAMIC, "rope_scaling takes it to 128"),
        (10, {"type": "round", "factor": 2}, "round"),
    ],
)  # fmt: skip
def test_a_context_is_what_is_asked_for_or_what_the_model_is_trained_for(context, scaling, found):
    config = MutBertConfig(max_position_embeddings=64)
    if isinstance(found, int):
        assert resolve_context(config, context, scaling) == found
    else:
        with pytest.raises(InputError, match=found):
            resolve_context(config, context, scaling)
    assert config.rope_scaling is None
