"""Predictions go to Parquet and come back as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mutbert.errors import InputError
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.predictions import read_predictions, write_predictions

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("problem", "labels", "scores", "columns"),
    [
        ("binary", RNG.integers(0, 2, 9), RNG.normal(size=9).astype(np.float32), ["label", "score"]),
        ("multiclass", np.arange(9) % 2, RNG.normal(size=(9, 2)), ["label", "score_a", "score_b b"]),
        (
            "multilabel",
            RNG.integers(0, 2, (9, 2)),
            RNG.normal(size=(9, 2)),
            ["label_a", "label_b b", "score_a", "score_b b"],
        ),
        ("regression", RNG.normal(size=9), RNG.normal(size=9), ["label", "score"]),
    ],
)
def test_what_is_read_is_what_was_written(
    tmp_path: Path, problem: str, labels: np.ndarray, scores: np.ndarray, columns: list[str]
) -> None:
    """Values, shapes and types are the same, so that metrics are."""
    path = tmp_path / "predictions.parquet"
    write_predictions(path, labels, scores, classes=("a", "b b"), names=[f"row {row}" for row in range(9)])
    assert pl.read_parquet_schema(path).names() == ["name", *columns]
    found_labels, found_scores = read_predictions(path)
    np.testing.assert_array_equal(found_labels, labels)
    np.testing.assert_array_equal(found_scores, scores)
    assert found_scores.dtype == scores.dtype
    assert evaluate(problem, found_labels, found_scores) == evaluate(problem, labels, scores)


def test_columns_without_classes_have_numbers(tmp_path: Path) -> None:
    """As many as there are, and a single one stays a column of its own."""
    path = tmp_path / "predictions.parquet"
    write_predictions(path, np.zeros((3, 1)), np.ones((3, 1)))
    assert pl.read_parquet_schema(path).names() == ["label_0", "score_0"]
    assert read_predictions(path)[1].shape == (3, 1)


@pytest.mark.parametrize("content", [None, b"not Parquet"])
def test_other_files_are_errors(tmp_path: Path, content: bytes | None) -> None:
    """One line with the file's name."""
    path = tmp_path / "predictions.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.parquet"):
        read_predictions(path)
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="no column label"):
        read_predictions(path)
