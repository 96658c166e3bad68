"""Sequences as `Examples`."""

import numpy as np
import pytest

from mutbert import alphabet
from mutbert.examples.table import Examples


@pytest.fixture(scope="session")
def make():
    def make(sequences, labels=None, problem=None, classes=("0", "1")):
        offsets, count = np.cumsum([0, *map(len, sequences)]), len(sequences)
        problem = ("" if labels is None else "binary") if problem is None else problem
        return Examples(
            alphabet.encode("".join(sequences)), offsets, None if labels is None else np.asarray(labels),
            tuple(f"s{row}" for row in range(count)), (None,) * count, problem, classes if problem else (),
        )  # fmt: skip

    return make
