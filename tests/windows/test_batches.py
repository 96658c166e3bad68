"""Dense batches and targets against plain loops over compact batches that are made up."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.windows.dataset import expand_batch, targets_of
from mutbert.windows.masking import KEPT

SETS = ["A", "C", "G", "T", "AG", "CT", "CG", "AT", "GT", "AC", "CGT", "AGT", "ACT", "ACG"]


@st.composite
def batches(draw):
    """A compact batch; the codes are all but N, and IUPAC codes may vary too."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    count = draw(st.integers(0, length))
    places = np.flatnonzero(rng.random(rows * length) < draw(st.sampled_from([0, 0.2, 1])))
    frequency = rng.dirichlet(np.full(4, 0.3), len(places)) if draw(st.booleans()) else np.empty((0, 4))
    batch = {
        "base_codes": rng.integers(0, len(SETS), (rows, length)).astype(np.uint8),
        "variant_places": rng.permutation(places).astype(np.int32),
        "variant_frequencies": frequency.astype(np.float32),
        "target_places": np.array([np.sort(rng.permutation(length)[:count]) for _ in range(rows)])
        .reshape(rows, count)
        .astype(draw(st.sampled_from([np.int16, np.int32]))),
        "target_inputs": rng.choice([4, 5, 6, 7, 8, KEPT], (rows, count)).astype(np.uint8),
    }
    if draw(st.booleans()):
        batch["target_weights"] = rng.random((rows, count)).astype(np.float32)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def reference(code):
    return [(base in SETS[code]) / len(SETS[code]) for base in "ACGT"]


def distribution(batch, row, column):
    """The distribution over A, C, G, T at a position."""
    place = row * batch["base_codes"].shape[1] + column
    if len(batch["variant_frequencies"]):
        for number, other in enumerate(batch["variant_places"].tolist()):
            if other == place:
                return batch["variant_frequencies"][number].tolist()
    return reference(int(batch["base_codes"][row, column]))


def one(token):
    return [float(token == other) for other in range(9)]


@given(batches())
def test_a_dense_batch_is_that_of_a_plain_loop(batch):
    before = {name: tensor.clone() for name, tensor in batch.items()}
    dense = expand_batch(batch)
    rows, length = batch["base_codes"].shape
    assert set(dense) == {"input_probs", "labels", "target_places"} | ({"target_weights"} & set(batch))
    inputs, labels = [], []
    for row in range(rows):
        inner = [[0.0] * 5 + distribution(batch, row, column) for column in range(length)]
        inputs.append([one(alphabet.CLS_ID), *inner, one(alphabet.SEP_ID)])
        labels.append([])
        for target, column in enumerate(batch["target_places"][row].tolist()):
            labels[row].append(inputs[row][column + 1])
            token = int(batch["target_inputs"][row, target])
            if token != KEPT:
                inputs[row][column + 1] = one(token)
    labels = np.array(labels, dtype=np.float32).reshape(*batch["target_places"].shape, 9)
    for name, expected in (("labels", labels), ("input_probs", inputs)):
        assert dense[name].dtype == torch.float32
        np.testing.assert_array_equal(dense[name].numpy(), np.array(expected, dtype=np.float32))
    assert dense["target_places"].dtype == torch.int64
    assert torch.equal(dense["target_places"], batch["target_places"].long() + 1)
    if "target_weights" in batch:
        assert torch.equal(dense["target_weights"], batch["target_weights"])
    # The compact one is as it was, and a second time gives the same.
    assert all(torch.equal(batch[name], before[name]) for name in before)
    dense["labels"].zero_()
    dense["input_probs"].zero_()
    np.testing.assert_array_equal(expand_batch(batch)["labels"].numpy(), labels)


@given(batches())
def test_targets_are_those_of_a_plain_loop(batch):
    found = targets_of(batch)
    rows, count = batch["target_places"].shape
    length = batch["base_codes"].shape[1]
    assert found.place_BT.dtype == torch.int64
    assert found.variant_BT.dtype == torch.bool
    assert {found.frequency_BT4.dtype, found.alternate_BT.dtype} == {torch.float32}
    assert found.frequency_BT4.shape == (rows, count, 4)
    assert found.place_BT.shape == found.variant_BT.shape == found.alternate_BT.shape == (rows, count)
    varying = set(batch["variant_places"].tolist())
    for row in range(rows):
        for target, column in enumerate(batch["target_places"][row].tolist()):
            frequency = distribution(batch, row, column)
            alternate = 1 - np.dot(reference(int(batch["base_codes"][row, column])), frequency)
            assert found.place_BT[row, target] == column + 1
            assert found.frequency_BT4[row, target].tolist() == pytest.approx(frequency)
            assert bool(found.variant_BT[row, target]) == (row * length + column in varying)
            assert found.alternate_BT[row, target].item() == pytest.approx(alternate, abs=1e-6)
    # They are the places of the dense batch.
    dense = expand_batch(batch)
    assert torch.equal(dense["target_places"], found.place_BT)
    assert torch.equal(dense["labels"][..., 5:], found.frequency_BT4)


def test_a_base_that_is_not_known_is_the_unknown_token():
    batch = {
        "base_codes": torch.tensor([[alphabet.UNKNOWN, 3]], dtype=torch.uint8),
        "variant_places": torch.empty(0, dtype=torch.int32),
        "variant_frequencies": torch.empty(0, 4),
        "target_places": torch.empty(1, 0, dtype=torch.int16),
        "target_inputs": torch.empty(1, 0, dtype=torch.uint8),
    }
    inputs = expand_batch(batch)["input_probs"]
    assert inputs[0].tolist() == [one(alphabet.CLS_ID), one(alphabet.UNK_ID), one(8), one(alphabet.SEP_ID)]
