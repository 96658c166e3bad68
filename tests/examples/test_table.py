"""Ragged arrays of sequences against plain lists of strings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.examples.table import Examples
from mutbert.regions import Region

SEQUENCES = st.lists(st.text("ACGTRYSWKMBDHVN", max_size=12), max_size=8)


def make(sequences, problem="multiclass", classes=("a", "b", "c"), seed=0):
    count, bases = len(sequences), sum(map(len, sequences))
    rng = np.random.default_rng(seed)
    labels = {
        "": None,
        "multiclass": rng.integers(0, 3, count),
        "multilabel": rng.integers(0, 2, (count, 3)).astype(np.uint8),
        "regression": rng.normal(size=count).astype(np.float32),
        "token": rng.integers(-1, 3, bases),
    }[problem]
    return Examples(
        alphabet.encode("".join(sequences)),
        np.cumsum([0, *map(len, sequences)]),
        labels,
        tuple(f"s{number}" for number in range(count)),
        tuple(Region("chr1", number, number + len(text)) for number, text in enumerate(sequences)),
        problem,
        classes if problem else (),
    )


def label_of(examples, row):
    if examples.labels is None:
        return None
    if examples.problem == "token":
        return examples.labels[examples.offsets[row] : examples.offsets[row + 1]].tolist()
    return examples.labels[row].tolist()


def rows_of(examples):
    return [
        (examples.sequence(row), label_of(examples, row), examples.names[row], examples.regions[row])
        for row in range(len(examples))
    ]


problems = pytest.mark.parametrize("problem", ["", "multiclass", "multilabel", "regression", "token"])


@problems
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


def test_a_row_from_the_end_and_one_that_is_not_there():
    examples = make(["ACGT", "GG"])
    assert examples.sequence(-1) == "GG"
    with pytest.raises(IndexError):
        examples.sequence(2)
    with pytest.raises(IndexError):
        examples.select(np.array([2]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"offsets": np.array([0, 3])}, "offsets"),
        ({"names": ()}, "1 sequences, but 0 names"),
        ({"problem": "other"}, "'other'"),
        ({"labels": None}, "does not go with the labels"),
        ({"labels": np.zeros(2, dtype=np.int64)}, "2 labels where 1"),
        ({"problem": "token"}, "1 labels where 4"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed, said):
    good = {
        "base_codes": alphabet.encode("ACGT"),
        "offsets": np.array([0, 4]),
        "labels": np.zeros(1, dtype=np.int64),
        "names": ("",),
        "regions": (None,),
        "problem": "binary",
        "classes": ("0", "1"),
    }
    assert len(Examples(**good)) == 1
    with pytest.raises(ValueError, match=said):
        Examples(**good | changed)
