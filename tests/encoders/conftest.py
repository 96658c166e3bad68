"""Sequences, and the models of all rooms on one thread."""

import random
import shutil

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


@pytest.fixture
def copied(tmp_path, model_folders, peer_folders):
    """A copy of a model's folder, to change, under a name that says nothing of what it is."""
    folders = {**model_folders, **peer_folders}
    return lambda kind: shutil.copytree(folders[kind], tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
