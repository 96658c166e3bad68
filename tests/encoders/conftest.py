"""Sequences, and the models of all rooms on one thread."""

import random

import numpy as np
import pytest

from mutbert import alphabet
from mutbert.examples.table import Examples


@pytest.fixture(scope="session")
def examples_of():
    """Make examples without labels of sequences."""

    def make(sequences, regions=None):
        offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
        places = tuple(regions or [None] * len(sequences))
        return Examples(alphabet.encode("".join(sequences)), offsets, None, ("",) * len(sequences), places, "", ())

    return make


@pytest.fixture(scope="session")
def sequences():
    """Twelve sequences of 1 to 60 bases, in no order of length, N among them."""
    generator = random.Random(0)
    lengths = [generator.randint(1, 60) for _ in range(10)] + [1, 60]
    return ["".join(generator.choices("ACGTN", [8, 8, 8, 8, 1], k=length)) for length in lengths]
