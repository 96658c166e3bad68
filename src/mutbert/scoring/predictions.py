"""Labels and scores of a test set as Parquet: the predictions of a fine-tuning run and of a benchmark's cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


def write_predictions(
    path: Path, labels: npt.ArrayLike, scores: npt.ArrayLike, *, classes: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Write labels and scores as `mutbert.scoring.metrics.evaluate` takes them, in place of an earlier file.

    Columns: ``name``, where there are names; ``label`` and ``score`` where they have one dimension, and otherwise
    ``label_CLASS`` and ``score_CLASS`` for each column, with its number where there are no classes.
    """
    import polars as pl

    columns: dict[str, Any] = {} if names is None else {"name": np.asarray(names, dtype=str)}
    for kind, values in (("label", np.asarray(labels)), ("score", np.asarray(scores))):
        if values.ndim == 1:
            columns[kind] = values
        else:
            named = classes or range(values.shape[1])
            columns |= {f"{kind}_{name}": column for name, column in zip(named, values.T, strict=True)}
    with atomic_file(path, force=True) as file:
        pl.DataFrame(columns).write_parquet(file)


def read_predictions(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the labels and the scores that `write_predictions` wrote."""
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); remake it with the run that wrote it") from None
    arrays = []
    for kind in ("label", "score"):
        several = frame.select(f"^{kind}(_.*)?$")
        if not several.width:
            raise InputError(f"{path}: has no column {kind} or {kind}_CLASS; choose predictions that mutbert wrote")
        arrays.append(frame[kind].to_numpy() if kind in frame.columns else several.to_numpy(order="c"))
    return arrays[0], arrays[1]
