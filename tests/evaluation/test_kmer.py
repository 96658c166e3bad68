"""The k-mer baseline: against a slow loop over words, and on tasks whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.evaluation.kmer import LENGTHS, PENALTIES, kmer_baseline, kmer_features
from mutbert.examples.files import Columns, read_examples
from mutbert.examples.table import Examples
from mutbert.scoring.metrics import evaluate

COMPLEMENT = str.maketrans("ACGT", "TGCA")
WIDTH = sum(4**k for k in LENGTHS)


def backwards(sequence):
    return sequence.translate(COMPLEMENT)[::-1]


def examples(sequences, labels=None, problem="binary", classes=("0", "1")):
    labels = np.zeros(len(sequences), np.int64) if labels is None else np.asarray(labels)
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    count = len(sequences)
    code = alphabet.encode("".join(sequences)) if any(sequences) else np.zeros(0, np.uint8)
    return Examples(code, offsets, labels, ("",) * count, (None,) * count, problem, classes)


def slow_features(sequences):
    """Look every word up in a dictionary."""
    column, start = {}, 0
    for k in LENGTHS:
        for number in range(4**k):
            word = "".join(alphabet.BASES[number // 4**place % 4] for place in reversed(range(k)))
            column[word] = start + number
        start += 4**k
    features = np.zeros((len(sequences), WIDTH), np.float32)
    for row, sequence in enumerate(sequences):
        for k in LENGTHS:
            for place in range(len(sequence) - k + 1):
                word = sequence[place : place + k]
                if set(word) <= set("ACGT"):
                    features[row, min(column[word], column[backwards(word)])] = 1
    return features


@given(st.lists(st.text("ACGT" * 6 + "NRY", max_size=24), min_size=1, max_size=5))
def test_features_are_those_of_a_slow_loop(sequences):
    found = kmer_features(examples(sequences))
    assert found.shape == (len(sequences), 21760)
    assert found.dtype == np.float32
    assert (found.toarray() == slow_features(sequences)).all()


def planted(count, words, seed, length=60, low=None):
    """Random sequences that hold the word of their class, on either strand."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(words) if low is None else low, size=count)
    sequences = []
    for label in labels:
        sequence = "".join(rng.choice(list("ACGT"), length))
        word = words[label]
        place = int(rng.integers(length - 8))
        sequence = sequence[:place] + word + sequence[place + len(word) :]
        sequences.append(backwards(sequence) if rng.random() < 0.5 else sequence)
    return sequences, labels


def test_a_planted_word_is_found():
    parts = [examples(*planted(count, ["", "GATTACA"], seed)) for seed, count in enumerate((800, 100, 200))]
    _, validated, found = kmer_baseline(*parts, metric="mcc")
    value = evaluate("binary", parts[1].known_labels, validated, ["mcc"])["mcc"]
    assert evaluate("binary", parts[2].known_labels, found, ["mcc"])["mcc"] > 0.95
    assert value > 0.95
    assert found.dtype == np.float32
    # It knows no chance, and no strand.
    assert (kmer_baseline(*parts, metric="mcc")[2] == found).all()
    turned = [
        examples([backwards(part.sequence(row)) for row in range(len(part))], part.known_labels) for part in parts
    ]
    assert (kmer_baseline(*turned, metric="mcc")[2] == found).all()


def test_of_equals_the_strongest_penalty_is_chosen():
    labels = np.arange(40) % 2
    part = examples([("GGGGGGGG", "CATCATCA")[label] for label in labels], labels)
    assert kmer_baseline(part, part, part, metric="mcc")[0].c == PENALTIES[0] == min(PENALTIES)


def test_several_classes_and_one_that_is_not_there():
    words, classes = ["GATTACA", "CCATGGT", "TTCGCAA"], ("a", "b", "c")

    def part(count, seed, low=3):
        return examples(*planted(count, words, seed, low=low), "multiclass", classes)

    train, validation, test = part(400, 0), part(100, 1), part(200, 2)
    *_, found = kmer_baseline(train, validation, test, metric="mcc")
    assert found.shape == (200, 3)
    assert evaluate("multiclass", test.known_labels, found, ["mcc"])["mcc"] > 0.95
    # The third class is not in the training data, so that it is never said.
    *_, few = kmer_baseline(part(400, 0, low=2), validation, test, metric="mcc")
    assert few.shape == (200, 3)
    guess = few.argmax(axis=1)
    assert set(guess) == {0, 1}
    known = test.known_labels < 2
    assert (guess[known] == test.known_labels[known]).mean() > 0.95


def test_several_labels_and_numbers():
    words = ["GATTACA", "CCATGGT"]

    def part(count, seed):
        sequences, first = planted(count, ["", words[0]], seed)
        second = np.random.default_rng(seed + 50).integers(2, size=count)
        sequences = [s + (words[1] if also else "ACTGACTT") for s, also in zip(sequences, second, strict=True)]
        return sequences, np.stack([first, second], axis=1)

    rows = [part(400, 0), part(100, 1), part(200, 2)]
    several = [examples(sequences, labels.astype(np.uint8), "multilabel", ("p", "q")) for sequences, labels in rows]
    *_, found = kmer_baseline(*several, metric="mcc")
    assert found.shape == (200, 2)
    assert evaluate("multilabel", several[2].known_labels, found, ["mcc"])["mcc"] > 0.9
    for columns in (0, [0, 1]):
        numbers = [
            examples(sequences, (2 * labels[:, columns] + 1).astype(np.float32), "regression", ())
            for sequences, labels in rows
        ]
        for metric, good in (("pearson", lambda value: value > 0.8), ("mse", lambda value: value < 0.4)):
            *_, found = kmer_baseline(*numbers, metric=metric)
            assert found.shape == numbers[2].known_labels.shape
            assert good(evaluate("regression", numbers[2].known_labels, found, [metric])[metric])


def test_what_cannot_be_learnt_is_refused():
    good = examples(["ACGTACGT", "GGGGGGGG"], [0, 1])
    token = examples(["ACGT"], [0, 1, 0, 1], "token")
    one = examples(["ACGTACGT", "GGGGGGGG"], np.array([[0, 1], [1, 1]], np.uint8), "multilabel")
    with pytest.raises(InputError, match="labels of bases"):
        kmer_baseline(token, token, token, metric="mcc")
    with pytest.raises(InputError, match="one class alone"):
        kmer_baseline(examples(["ACGTACGT", "GGGGGGGG"], [1, 1]), good, good, metric="mcc")
    with pytest.raises(InputError, match="one class alone"):
        kmer_baseline(one, one, one, metric="mcc")
    with pytest.raises(InputError, match="has 4 known bases in a row"):
        kmer_baseline(examples(["ACG", "NNNNNNNN"], [0, 1]), good, good, metric="mcc")


@pytest.mark.shared
@pytest.mark.slow
def test_it_reaches_on_real_data_what_the_design_says(shared):
    folder = shared / "data" / "gue" / "tf" / "0"
    columns = Columns()
    parts = [
        read_examples(folder / f"{name}.csv.gz", columns, problem="binary", classes=("0", "1"))[0]
        for name in ("train", "dev", "test")
    ]
    # The others take longer, and the validation data choose none of them.
    *_, found = kmer_baseline(*parts, metric="mcc", penalties=PENALTIES[2:4])
    assert evaluate("binary", parts[2].known_labels, found, ["mcc"])["mcc"] >= 0.62
