"""Forward passes over windows, against the one way in which users reach a model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.inference.passes import (
    MASKED,
    Passes,
    Reads,
    base_log_probabilities,
    entropy,
    join_passes,
    read_bases,
    run_passes,
)
from mutbert.inference.predict import last_hidden_states, predict
from mutbert.model import MutBertForMaskedLM


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])


def passes_of(lengths, seed=0, mixed=2):
    """Random windows, of which some positions are distributions."""
    generator = np.random.default_rng(seed)
    length_N = np.array(lengths, dtype=np.int64)
    code_NL = generator.integers(0, len(alphabet.IUPAC), (len(lengths), max(lengths))).astype(np.uint8)
    places = sorted(
        {(row, int(generator.integers(length))) for row, length in enumerate(lengths) for _ in range(mixed)}
    )
    row_M, column_M = np.array(places).reshape(-1, 2).T
    first_M = generator.integers(0, 65536, len(places))
    frequency_M4 = np.zeros((len(places), 4), dtype=np.uint16)
    frequency_M4[:, 1], frequency_M4[:, 3] = first_M, 65535 - first_M
    return Passes(code_NL, length_N, row_M, column_M, frequency_M4)


def rows_of(passes):
    """The distributions over tokens that the windows stand for, written out."""
    table = np.concatenate([alphabet.TOKEN_PROBABILITIES, np.eye(9, dtype=np.float32)[[alphabet.MASK_ID]]])
    rows = []
    for number in range(len(passes)):
        probs = table[passes.code_NL[number, : passes.length_N[number]]].copy()
        for row, column, frequency in zip(passes.row_M, passes.column_M, passes.frequency_M4, strict=True):
            if row == number:
                probs[column] = 0
                probs[column, alphabet.BASE_IDS] = frequency / np.float32(65535)
        frame = np.eye(9, dtype=np.float32)[[alphabet.CLS_ID, alphabet.SEP_ID]]
        rows.append(np.concatenate([frame[:1], probs, frame[1:]]))
    return rows


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(rows_of(one), rows_of(other), strict=True)) and np.array_equal(
        one.length_N, other.length_N
    )


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_logits_and_states_are_those_of_predict(model, strands, batch_size):
    passes = passes_of([7, 20, 20, 1, 13])
    passes = passes.with_codes(np.array([1, 2]), np.array([5, 19]), MASKED)
    row_T, column_T = np.array([1, 0, 2, 1, 4, 3]), np.array([5, 0, 19, 7, 12, 0])
    row_S, begin_S, end_S = np.array([2, 0, 2, 2]), np.array([0, 3, 5, 19]), np.array([20, 7, 6, 20])
    reads = Reads(row_T, column_T, row_S, begin_S, end_S)
    found = run_passes(model, passes, reads, batch_size=batch_size, strands=strands)
    logits = list(predict(model, rows_of(passes), strands=strands))
    states = list(predict(model.bert, rows_of(passes), last_hidden_states, strands=strands))
    for number, (row, column) in enumerate(zip(row_T, column_T, strict=True)):
        np.testing.assert_allclose(
            found.logit_T4[number], logits[row][column + 1, alphabet.BASE_IDS], atol=1e-5, rtol=1e-5
        )
    for number, (row, begin, end) in enumerate(zip(row_S, begin_S, end_S, strict=True)):
        expected = states[row][begin + 1 : end + 1].mean(axis=0)
        np.testing.assert_allclose(found.state_SD[number], expected, atol=1e-5, rtol=1e-5)


def test_nothing_to_run_gives_nothing(model):
    found = run_passes(model, join_passes([]), read_bases(np.zeros(0, np.int64), np.zeros(0, np.int64)))
    assert found.logit_T4.shape == (0, 4)
    assert found.state_SD.shape == (0, model.config.hidden_size)


def test_progress_counts_windows_once_on_either_strand(model):
    for strands in ("forward", "both"):
        done = []
        reads = read_bases(np.array([0]), np.array([0]))
        run_passes(
            model,
            passes_of([5, 6, 7]),
            reads,
            batch_size=2,
            strands=strands,
            advance=lambda n, done=done: done.append(n),
        )
        assert done == [2, 1]


def test_the_model_keeps_its_mode_and_has_no_gradients(model):
    model.train()
    run_passes(model, passes_of([5]), read_bases(np.array([0]), np.array([0])))
    assert model.training
    assert torch.is_grad_enabled()
    model.eval()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5))
def test_turned_twice_a_window_is_itself(lengths, seed):
    passes = passes_of(lengths, seed)
    assert equal(passes.turned().turned(), passes)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5), st.data())
def test_taken_windows_are_those_asked_for(lengths, seed, data):
    passes = passes_of(lengths, seed)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    taken = rows_of(passes.take(np.array(rows, dtype=np.int64)))
    assert all(np.array_equal(one, rows_of(passes)[row]) for one, row in zip(taken, rows, strict=True))


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=4))
def test_joined_windows_stand_behind_one_another(several):
    parts = [passes_of(lengths, seed) for seed, lengths in enumerate(several)]
    expected = [row for part in parts for row in rows_of(part)]
    found = rows_of(join_passes(parts))
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_code_takes_the_place_of_a_distribution():
    passes = replace(
        passes_of([4], mixed=0),
        row_M=np.array([0, 0]),
        column_M=np.array([1, 2]),
        frequency_M4=np.full((2, 4), 16383, np.uint16),
    )
    edited = passes.with_codes(np.array([0]), np.array([1]), 2)
    assert edited.column_M.tolist() == [2]
    assert edited.code_NL[0, 1] == 2
    assert passes.column_M.tolist() == [1, 2]


def test_entropy_and_log_probabilities_in_closed_form():
    logits = np.array([[0, 0, 0, 0], [1000, 0, 0, 0], [np.log(2), 0, -np.inf, -np.inf]], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        found = entropy(logits[:2])
    assert found[0] == pytest.approx(np.log(4))
    assert found[1] == pytest.approx(0)
    assert base_log_probabilities(logits)[2, :2] == pytest.approx(np.log([2 / 3, 1 / 3]))
