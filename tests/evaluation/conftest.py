"""Small suites with a word to find, and the models of all tests here on one thread."""

import numpy as np
import pytest

from mutbert.evaluation.run import GridRequest

SUITE = """\
version: 1
name: own
title: A word to find
metric: mcc
files: ["{task}/{split}.csv"]
splits: {train: train, validation: dev, test: test}
tasks:
  - {name: first, length: 36}
  - {name: second, length: 36}
protocols:
  published: &protocol
    validation: file
    finetune: &settings {learning_rate: 1e-3, max_steps: 2, warmup_steps: 0, batch_size: 16}
    first_seed: 42
    seeds: 1
  corrected:
    validation: file
    finetune: *settings
    seeds: 2
"""


@pytest.fixture(scope="session")
def random_sequences():
    """Return random sequences."""

    def make(count, length=36, seed=0):
        return ["".join(row) for row in np.random.default_rng(seed).choice(list("ACGT"), (count, length))]

    return make


@pytest.fixture(scope="session")
def write_rows():
    """Write a table; return its path."""

    def write(path, rows, header=("sequence", "label")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))
        return path

    return write


@pytest.fixture(scope="session")
def write_tasks(random_sequences, write_rows):
    """Write the suite and the files of its two tasks into a folder; return the path of the suite."""

    def write(folder):
        for number, task in enumerate(("first", "second")):
            for part, (split, size) in enumerate({"train": 48, "dev": 16, "test": 16}.items()):
                words = enumerate(random_sequences(size, seed=10 * number + part))
                rows = [(("CCCCCCC", "GATTACA")[row % 2] + bases[7:], row % 2) for row, bases in words]
                write_rows(folder / "data" / task / f"{split}.csv", rows)
        (folder / "own.yaml").write_text(SUITE)
        return folder / "own.yaml"

    return write


@pytest.fixture
def suite(tmp_path, write_tasks):
    return write_tasks(tmp_path)


@pytest.fixture(scope="session")
def request_of():
    """Return a request of the suite that lies next to its data."""

    def make(path, **changes):
        return GridRequest(**{"suites": (str(path),), "data": (str(path.parent / "data"),), **changes})

    return make
