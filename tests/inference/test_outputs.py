"""Outputs in order, of one strand or both, against one sequence at a time."""

import numpy as np
import pytest
import torch

from mutbert import alphabet
from mutbert.encoders.inputs import BaseInputs
from mutbert.examples.table import Examples
from mutbert.inference.outputs import base_outputs, sequence_outputs
from mutbert.model import MutBertForSequenceClassification, MutBertForTokenClassification

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def examples_of(sequences):
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    nothing = (None,) * len(sequences)
    return Examples(alphabet.encode("".join(sequences)), offsets, None, ("",) * len(sequences), nothing, "", ())


def turned(sequence):
    return alphabet.decode(alphabet.reverse_complement(alphabet.encode(sequence)))


def logits_of(model):
    return lambda batch: model(**batch).logits


def alone(model, sequence, max_tokens=None):
    """A sequence's logits, without any of the machinery."""
    with torch.inference_mode():
        batch = BaseInputs(examples_of([sequence]), max_tokens=max_tokens).batch(np.array([0]))
        return model(**batch).logits[0].numpy()


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_sequences_are_in_the_order_asked_for(build, sequences, strands, batch_size):
    model = build(MutBertForSequenceClassification, num_labels=3)
    inputs = BaseInputs(examples_of(sequences))
    rows = np.random.default_rng(0).permutation(len(sequences))[:13]
    done = []
    found = sequence_outputs(
        model, logits_of(model), inputs, rows, batch_size=batch_size, strands=strands, advance=done.append
    )
    for output, row in zip(found, rows, strict=True):
        wanted = alone(model, sequences[row])
        if strands == "both":
            wanted = (wanted + alone(model, turned(sequences[row]))) / 2
        np.testing.assert_allclose(output, wanted, **CLOSE)
    assert found.dtype == np.float32
    assert sum(done) == len(rows)


def test_all_of_them_where_none_are_named(build, sequences):
    model = build(MutBertForSequenceClassification)
    inputs = BaseInputs(examples_of(sequences))
    every = sequence_outputs(model, logits_of(model), inputs)
    named = sequence_outputs(model, logits_of(model), inputs, np.arange(len(sequences)))
    np.testing.assert_array_equal(every, named)
    assert not len(sequence_outputs(model, logits_of(model), inputs, np.zeros(0, np.int64)))


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("max_tokens", [None, 40, 20])
def test_bases_of_the_other_strand_are_brought_back(build, sequences, strands, max_tokens):
    model = build(MutBertForTokenClassification, num_labels=2)
    inputs = BaseInputs(examples_of(sequences), max_tokens=max_tokens)
    rows = np.arange(len(sequences))[::-2]
    found = base_outputs(model, logits_of(model), inputs, rows, batch_size=4, strands=strands)
    for output, row in zip(found, rows, strict=True):
        sequence = sequences[row]
        forward = alone(model, sequence, max_tokens)[1:-1]
        backward = alone(model, turned(sequence), max_tokens)[1:-1]
        wanted = []
        for base in range(len(forward)):
            other = len(sequence) - 1 - base
            both = strands == "both" and other < len(backward)
            wanted.append((forward[base] + backward[other]) / 2 if both else forward[base])
        assert output.shape == (min(len(sequence), (max_tokens or 99) - 2), 2)
        np.testing.assert_allclose(output, wanted, **CLOSE)


@pytest.mark.parametrize("give", [sequence_outputs, base_outputs])
def test_the_model_is_left_as_it_was(build, sequences, give):
    kind = MutBertForSequenceClassification if give is sequence_outputs else MutBertForTokenClassification
    model = build(kind, hidden_dropout_prob=0.5)
    inputs = BaseInputs(examples_of(sequences))
    wanted = give(model, logits_of(model), inputs)
    model.train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    found = give(model, logits_of(model), inputs)
    assert [module.training for module in model.modules()] == modes
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)

    def fail(batch):
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        give(model, fail, inputs)
    assert [module.training for module in model.modules()] == modes


def test_half_precision_is_near(build, sequences):
    model = build(MutBertForSequenceClassification)
    inputs = BaseInputs(examples_of(sequences))
    whole = sequence_outputs(model, logits_of(model), inputs)
    half = sequence_outputs(model, logits_of(model), inputs, precision="bf16")
    assert half.dtype == np.float32
    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(half, whole, atol=0.1)
