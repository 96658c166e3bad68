"""The parts of a task: what is held out, what is counted, and that nothing but training data is ever dropped."""

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.examples.splits import leaks, sequence_keys
from mutbert.examples.task_data import SPLITS, part_task
from mutbert.tables import SourceFile

SOURCES = {name: SourceFile(f"{name}.csv", 1, f"sha of {name}", None) for name in SPLITS}
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def backwards(sequence):
    return sequence.translate(COMPLEMENT)[::-1]


@pytest.fixture
def examples(make):
    def examples(sequences, labels=None, problem="binary"):
        labels = np.arange(len(sequences)) % 2 if labels is None else labels
        return make(sequences, labels, problem, ("0", "1") if problem == "binary" else ())

    return examples


def written(part):
    return [part.sequence(row) for row in range(len(part))]


def random_sequences(count, length=30, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(row) for row in rng.choice(list("ACGT"), (count, length))]


def part(train, validation=None, test=None, *, how="random", share=0.1, seed=3, drop_leaks=False, sources=SOURCES):
    return part_task(train, validation, test, sources, how=how, share=share, seed=seed, drop_leaks=drop_leaks)


A, B, C, D = random_sequences(4, seed=9)
TRAIN = [A, A, backwards(A), B, C, D]
VALIDATION = [backwards(B), "ACGTAACC"]
TEST = [A, A, backwards(C), "TTTTGGA"]


def test_what_is_shared_is_counted_by_part(examples):
    data = part(examples(TRAIN), examples(VALIDATION), examples(TEST), how="file")
    assert [tuple(count) for count in data.counts] == [
        ("train", 6, 1, 0, 0, "sha of train"),
        ("validation", 2, 0, 1, 0, "sha of validation"),
        ("test", 4, 1, 3, 0, "sha of test"),
    ]
    assert [written(data.parts[name]) for name in SPLITS] == [TRAIN, VALIDATION, TEST]


def test_leaks_are_dropped_from_the_training_data_alone_on_either_strand(examples):
    data = part(examples(TRAIN), examples(VALIDATION), examples(TEST), how="file", drop_leaks=True)
    assert written(data.train) == [D]
    assert (written(data.validation), written(data.test)) == (VALIDATION, TEST)
    assert [tuple(count) for count in data.counts] == [
        ("train", 1, 0, 0, 5, "sha of train"),
        # What was shared is counted as it was.
        ("validation", 2, 0, 1, 0, "sha of validation"),
        ("test", 4, 1, 3, 0, "sha of test"),
    ]
    # Its label went with it.
    assert data.train.known_labels.tolist() == [1]


def test_a_grouped_share_parts_no_equal_sequences_and_keeps_the_classes(examples):
    distinct = random_sequences(60)
    # Each three times, once of them backwards; the label goes with the sequence.
    sequences = [turn(sequence) for sequence in distinct for turn in (str, str, backwards)]
    labels = np.repeat(np.arange(60) % 3 == 0, 3).astype(np.int64)
    data = part(examples(sequences, labels), how="grouped", share=0.2)
    assert not np.isin(sequence_keys(data.validation), sequence_keys(data.train)).any()
    assert len(data.train) + len(data.validation) == 180
    assert data.validation.known_labels.sum() == 12
    assert len(data.validation) == 36
    counts = {count.split: count for count in data.counts}
    assert counts["validation"].in_train == 0
    assert counts["validation"].duplicates == 12


def test_a_random_share_can_leak_and_then_leaks_can_be_dropped(examples):
    distinct = random_sequences(40)
    train = examples(distinct * 3, np.arange(120) % 2)
    data = part(train, share=0.25)
    assert leaks(data.train, data.validation).any()
    assert data.counts[1].in_train > 0
    cleaned = part(train, share=0.25, drop_leaks=True)
    assert written(cleaned.validation) == written(data.validation)
    assert not leaks(cleaned.train, cleaned.validation).any()
    assert cleaned.counts[0].dropped == int(leaks(data.train, data.validation).sum())
    assert cleaned.counts[0].examples == len(data.train) - cleaned.counts[0].dropped


def test_labels_that_are_no_classes_are_grouped_without_them(examples):
    sequences = random_sequences(20)
    labels = np.linspace(0, 1, 40).astype(np.float32)
    data = part(examples([s for s in sequences for _ in range(2)], labels, "regression"), how="grouped", share=0.25)
    assert len(data.validation) == 10
    assert not leaks(data.train, data.validation).any()


def test_what_cannot_be_parted_is_refused(examples):
    with pytest.raises(InputError, match=r"train\.csv: there is no file of validation data"):
        part(examples(TRAIN), how="file")
    for how in ("random", "grouped"):
        with pytest.raises(InputError, match=r"train\.csv: 1 sequences are too few to hold some out"):
            part(examples([A]), how=how)
    # All of one group: no side may stay empty.
    with pytest.raises(InputError, match=r"train\.csv: 5 sequences are too few"):
        part(examples([A] * 5, [0] * 5), how="grouped")
    with pytest.raises(InputError, match=r"train\.csv: all of its sequences are in the validation or test data"):
        part(examples([A, B]), examples([backwards(A)]), examples([B]), how="file", drop_leaks=True)
