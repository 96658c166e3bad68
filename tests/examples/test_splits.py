"""Rows against lists, keys against sets of strings, splits against what they promise, and the parts of a task."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.examples import splits
from mutbert.examples.table import Examples
from mutbert.regions import Region
from mutbert.tables import SourceFile

modest = settings(max_examples=40)
COMPLEMENT = str.maketrans("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN")
# Short ones of few letters, so that equal and reversed ones come often.
SEQUENCES = st.lists(st.text("ACGTN", min_size=1, max_size=4), max_size=30)


def make(sequences, problem=""):
    count, bases, rng = len(sequences), sum(map(len, sequences)), np.random.default_rng(0)
    labels = {
        "": None, "binary": np.arange(count) % 2, "multilabel": rng.integers(0, 2, (count, 3)).astype(np.uint8),
        "token": rng.integers(-1, 3, bases),
    }[problem]  # fmt: skip
    names, regions = zip(("", None), *((f"s{row}", Region("chr1", row, row + 1)) for row in range(count)), strict=True)
    offsets = np.cumsum([0, *map(len, sequences)])
    return Examples(alphabet.encode("".join(sequences)), offsets, labels, names[1:], regions[1:], problem, ("a", "b"))


def reverse(sequence):
    return sequence.translate(COMPLEMENT)[::-1]


def draw_sequences(count, length, seed=0):
    codes = np.random.default_rng(seed).integers(0, 4, (count, length)).astype(np.uint8)
    return [alphabet.decode(row) for row in codes]


def rows_of(examples):
    labels = [None] * len(examples) if examples.labels is None else examples.labels.tolist()
    if examples.problem == "token":
        labels = [labels[start:end] for start, end in pairwise(examples.offsets.tolist())]
    sequences = [examples.sequence(row) for row in range(len(examples))]
    return list(zip(sequences, labels, examples.names, examples.regions, strict=True))


@pytest.mark.parametrize("problem", ["", "binary", "multilabel", "token"])
@modest
@given(data=st.data(), sequences=SEQUENCES)
def test_rows_are_chosen_as_from_a_list(problem, data, sequences):
    examples = make(sequences, problem)
    assert [row[0] for row in rows_of(examples)] == sequences
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), max_size=10)) if sequences else []
    chosen = examples.select(np.array(rows, dtype=np.int64))
    assert rows_of(chosen) == [rows_of(examples)[row] for row in rows]
    assert (chosen.problem, chosen.classes) == (examples.problem, examples.classes)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences))), dtype=bool)
    assert rows_of(examples.select(mask)) == [row for row, kept in zip(rows_of(examples), mask, strict=True) if kept]


@modest
@given(SEQUENCES)
def test_keys_are_equal_where_sequences_are(sequences):
    keys = make(sequences).strand_keys[0]
    assert (keys[:, None] == keys).tolist() == [[one == other for other in sequences] for one in sequences]
    keys = splits.sequence_keys(make(sequences))
    expected = [[one in (other, reverse(other)) for other in sequences] for one in sequences]
    assert (keys[:, None] == keys).tolist() == expected
    assert (keys == splits.sequence_keys(make([reverse(text) for text in sequences]))).all()


def test_keys_of_chosen_rows_are_their_own():
    several = make(draw_sequences(40, 30))
    assert (several.strand_keys[:, [7, 3, 3]] == several.select(np.array([7, 3, 3])).strand_keys).all()
    assert (several.strand_keys[:, 9:] == make(draw_sequences(40, 30)[9:]).strand_keys).all()


@modest
@given(SEQUENCES, SEQUENCES)
def test_overlap_and_leaks_are_those_of_sets(train, other):
    shared = [text in train or reverse(text) in train for text in other]
    assert splits.overlap(make(train), make(other)) == (len(other) - len(set(other)), sum(shared))
    found = splits.leaks(make(train), make(other))
    assert found.tolist() == [text in other or reverse(text) in other for text in train]


@modest
@given(st.data(), st.integers(1, 60), st.sampled_from([0.1, 0.25, 0.5, 0.8]), st.integers(0, 1000))
def test_groups_stay_together_in_any_order(data, count, share, seed):
    pool = draw_sequences(20, 10)
    sequences = data.draw(st.lists(st.sampled_from(pool), min_size=count, max_size=count))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    keys, order = splits.sequence_keys(make(sequences)), np.random.default_rng(seed).permutation(count)
    held = splits.grouped_split(labels, keys, share, seed)
    assert not set(np.array(sequences)[held]) & set(np.array(sequences)[~held])
    assert (splits.grouped_split(labels[order], keys[order], share, seed) == held[order]).all()


def test_sequences_of_several_classes_are_counted():
    examples = make([*"ACAC", "A", "G", "G", "T"], "binary")  # labels 0, 1, 0, 1, 0, 1, 0, 1
    assert splits.conflicts(examples) == 1


@modest
@given(st.lists(st.integers(0, 7), min_size=2, max_size=200), st.sampled_from([0.1, 0.3, 0.6]), st.integers(0, 50))
def test_contigs_are_held_out_whole(numbers, share, seed):
    names = [f"chr{number}" for number in numbers]
    held_N = splits.region_split([Region(name, 0, 10) for name in names], share, seed)
    if len(set(names)) == 1:
        assert held_N is None
        return
    train, held = (set(np.array(names)[side]) for side in (~held_N, held_N))
    assert min(map(len, (train, held))) > len(train & held) == 0
    # No contig that is trained on would bring it nearer, where another one stays.
    sizes, off = Counter(names), held_N.sum() - share * len(names)
    assert len(train) == 1 or all(abs(off + sizes[name]) >= abs(off) for name in train)


SOURCES = {name: SourceFile(f"{name}.csv", 1, f"sha of {name}", None) for name in ("train", "validation", "test")}


def part(*parts, how="random", drop_leaks=False):
    given = {name: make(part, "binary") for name, part in zip(SOURCES, parts, strict=False) if part}
    found, counts = splits.part_task(given, SOURCES, how=how, share=0.1, seed=3, drop_leaks=drop_leaks)
    texts = [[part.sequence(row) for row in range(len(part))] for part in found.values()]
    return found["train"].known_labels.tolist(), texts, [tuple(count.values()) for count in counts]


A, B, C, D = draw_sequences(4, 30, seed=9)
TRAIN = [A, A, reverse(A), B, C, D]
VALIDATION = [reverse(B), "ACGTAACC"]
TEST = [A, A, reverse(C), "TTTTGGA"]


def test_leaks_are_dropped_from_the_training_data_alone_on_either_strand():
    assert part(TRAIN, VALIDATION, TEST, how="file", drop_leaks=True) == (
        # Its label went with it.
        [1],
        [[D], VALIDATION, TEST],
        # What was shared is counted as it was.
        [("train", 1, 0, 0, 5, "sha of train"), ("validation", 2, 0, 1, 0, "sha of validation"),
         ("test", 4, 1, 3, 0, "sha of test")],
    )  # fmt: skip
    _, texts, counts = part(TRAIN, VALIDATION, TEST, how="file")
    assert [count[1:5] for count in counts] == [(6, 1, 0, 0), (2, 0, 1, 0), (4, 1, 3, 0)]
    assert texts == [TRAIN, VALIDATION, TEST]


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([TRAIN], {"how": "file"}, "there is no file of validation data"),
        ([[A]], {"how": "random"}, "1 sequences are too few to hold some out"),
        # All of one group: no side may stay empty.
        ([[A] * 5], {"how": "grouped"}, "5 sequences are too few"),
        ([[A, B], [reverse(A)], [B]], {"drop_leaks": True}, "all of its sequences are in the validation"),
    ],
)
def test_what_cannot_be_parted_is_an_error(parts, options, message):
    with pytest.raises(InputError, match=rf"train\.csv: {message}"):
        part(*parts, **options)
