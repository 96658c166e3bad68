"""Sequences as ragged arrays against plain lists of strings."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.examples.table import Examples
from mutbert.regions import Region

SEQUENCES = st.lists(st.text("ACGTRYSWKMBDHVN", max_size=12), max_size=8)


def make(sequences, problem):
    count, bases = len(sequences), sum(map(len, sequences))
    rng = np.random.default_rng(0)
    labels = {
        "": None,
        "multiclass": rng.integers(0, 3, count),
        "multilabel": rng.integers(0, 2, (count, 3)).astype(np.uint8),
        "token": rng.integers(-1, 3, bases),
    }[problem]
    regions = tuple(Region("chr1", number, number + len(text)) for number, text in enumerate(sequences))
    names, offsets = tuple(f"s{number}" for number in range(count)), np.cumsum([0, *map(len, sequences)])
    classes = ("a", "b", "c") if problem else ()
    return Examples(alphabet.encode("".join(sequences)), offsets, labels, names, regions, problem, classes)


def rows_of(examples):
    bounds, labels = examples.offsets.tolist(), examples.labels
    if labels is None:
        labels = [None] * len(examples)
    elif examples.problem == "token":
        labels = [labels[start:end].tolist() for start, end in pairwise(bounds)]
    else:
        labels = labels.tolist()
    sequences = [examples.sequence(row) for row in range(len(examples))]
    return list(zip(sequences, labels, examples.names, examples.regions, strict=True))


@pytest.mark.parametrize("problem", ["", "multiclass", "multilabel", "token"])
@settings(max_examples=30)
@given(data=st.data(), sequences=SEQUENCES)
def test_selecting_is_what_a_list_of_rows_gives(problem, data, sequences):
    examples = make(sequences, problem)
    assert examples.lengths.tolist() == [len(text) for text in sequences]
    assert [row[0] for row in rows_of(examples)] == sequences
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), max_size=10)) if sequences else []
    chosen = examples.select(np.array(rows, dtype=np.int64))
    assert rows_of(chosen) == [rows_of(examples)[row] for row in rows]
    assert (chosen.problem, chosen.classes) == (examples.problem, examples.classes)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences))), dtype=bool)
    assert rows_of(examples.select(mask)) == [row for row, kept in zip(rows_of(examples), mask, strict=True) if kept]
