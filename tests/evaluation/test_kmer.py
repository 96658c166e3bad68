"""The k-mer baseline against a slow loop over words; that it finds a planted word is tested with the grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.evaluation.cells import LENGTHS, kmer_baseline, kmer_features
from mutbert.examples.table import Examples

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def backwards(sequence):
    return sequence.translate(COMPLEMENT)[::-1]


def examples(sequences, labels=None):
    labels = np.zeros(len(sequences), np.int64) if labels is None else np.asarray(labels)
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    code = alphabet.encode("".join(sequences)) if any(sequences) else np.zeros(0, np.uint8)
    return Examples(code, offsets, labels, ("",) * len(sequences), (None,) * len(sequences), "binary", ("0", "1"))


def slow_features(sequences):
    """Look every word up in a dictionary."""
    column = {}
    for k in LENGTHS:
        for number in range(4**k):
            word = "".join(alphabet.BASES[number // 4**place % 4] for place in reversed(range(k)))
            column[word] = len(column)
    features = np.zeros((len(sequences), len(column)), np.float32)
    for row, sequence in enumerate(sequences):
        for k in LENGTHS:
            for word in (sequence[place : place + k] for place in range(len(sequence) - k + 1)):
                if set(word) <= set("ACGT"):
                    features[row, min(column[word], column[backwards(word)])] = 1
    return features


@given(st.lists(st.text("ACGT" * 6 + "NRY", max_size=24), min_size=1, max_size=5))
def test_features_are_those_of_a_slow_loop(sequences):
    found = kmer_features(examples(sequences))
    assert (found.shape, found.dtype) == ((len(sequences), 21760), np.float32)
    assert (found.toarray() == slow_features(sequences)).all()


def test_a_sequence_without_known_bases_is_an_error():
    good = examples(["ACGTACGT", "GGGGGGGG"], [0, 1])
    parts = {"train": examples(["ACG", "NNNNNNNN"], [0, 1]), "validation": good, "test": good}
    with pytest.raises(InputError, match="has 4 known bases in a row"):
        kmer_baseline(parts, "mcc")
