"""Predictions go to Parquet and come back as they were."""

import numpy as np
import polars as pl
import pytest

from mutbert.errors import InputError
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.predictions import read_predictions, write_predictions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("problem", "labels", "scores", "columns"),
    [
        ("binary", RNG.integers(0, 2, 9), RNG.normal(size=9).astype(np.float32), "label score"),
        ("multiclass", np.arange(9) % 2, RNG.normal(size=(9, 2)), "label score_a score_b"),
        ("multilabel", RNG.integers(0, 2, (9, 2)), RNG.normal(size=(9, 2)), "label_a label_b score_a score_b"),
        ("regression", RNG.normal(size=(9, 1)), RNG.normal(size=(9, 1)), "label_0 score_0"),
    ],
)
def test_what_is_read_is_what_was_written(tmp_path, problem, labels, scores, columns):
    path, classes = tmp_path / "predictions.parquet", () if problem == "regression" else ("a", "b")
    write_predictions(path, labels, scores, classes=classes, names=[f"row {row}" for row in range(9)])
    assert pl.read_parquet_schema(path).names() == ["name", *columns.split()]
    found_labels, found_scores = read_predictions(path)
    np.testing.assert_array_equal(found_labels, labels)
    np.testing.assert_array_equal(found_scores, scores)
    assert found_scores.dtype == scores.dtype
    assert evaluate(problem, found_labels, found_scores) == evaluate(problem, labels, scores)


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "predictions.parquet"
    for content in (b"not Parquet", None):
        if content is None:
            pl.DataFrame({"x": [1]}).write_parquet(path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"predictions\.parquet: (cannot be read|has no column label)"):
            read_predictions(path)
