"""Predictions go to Parquet and come back as they were."""

import numpy as np
import polars as pl
import pytest

from mutbert.errors import InputError
from mutbert.scoring.predictions import read_predictions, write_predictions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("labels", "scores", "columns"),
    [
        (RNG.integers(0, 2, 9), RNG.normal(size=9).astype(np.float32), ["label", "score"]),
        (np.arange(9) % 2, RNG.normal(size=(9, 2)), ["label", "score_a", "score_b b"]),
        (RNG.integers(0, 2, (9, 2)), RNG.normal(size=(9, 2)), ["label_a", "label_b b", "score_a", "score_b b"]),
        (RNG.normal(size=(9, 1)), RNG.normal(size=(9, 1)), ["label_0", "score_0"]),
    ],
)
def test_what_is_read_is_what_was_written(tmp_path, labels, scores, columns):
    path = tmp_path / "predictions.parquet"
    classes = () if "label_0" in columns else ("a", "b b")
    write_predictions(path, labels, scores, classes=classes, names=[f"row {row}" for row in range(9)])
    assert pl.read_parquet_schema(path).names() == ["name", *columns]
    for found, wanted in zip(read_predictions(path), (labels, scores), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "predictions.parquet"
    for write, message in (
        (lambda: None, r"predictions\.parquet"),
        (lambda: path.write_bytes(b"not Parquet"), r"predictions\.parquet"),
        (lambda: pl.DataFrame({"x": [1]}).write_parquet(path), "no column label"),
    ):
        write()
        with pytest.raises(InputError, match=message):
            read_predictions(path)
