"""Predictions for sequences in memory, and how likely a masked model finds each.

Shape suffixes: N sequences, P positions, L bases of a sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.examples.table import Columns, read_examples, table_of
from mutbert.genome.format import SOFT_MASK
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.bases import BasePredictor, PredictionSettings
from mutbert.inference.predictions import predict_table
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from mutbert.model import MutBertForMaskedLM


def predict_sequences(
    model: str | Path, sequences: Any, *, columns: Columns | None = None, **options: Any
) -> pl.DataFrame:
    """Return a fine-tuned model's predictions for sequences as a frame; `predict_table` writes them.

    Parameters
    ----------
    model, columns, options
        As for `predict_table`.
    sequences
        As for `embed_sequences`.

    Returns
    -------
    DataFrame
        A row per sequence, with the columns of the table that `predict_table` writes.
    """
    found = predict_table(model, table_of(sequences), None, columns=columns or Columns(), **options)
    return found["predictions"]  # type: ignore[no-any-return]


def score_sequences(
    model: str | Path | MutBertForMaskedLM, sequences: Any, *, settings: PredictionSettings | None = None,
    progress: bool = False,
) -> pl.DataFrame:  # fmt: skip
    """Return the pseudo-log-likelihood of each sequence: the sum of ln P(base), each base masked in turn.

    P is over A, C, G and T; other codes do not count (Salazar et al. 2020, arXiv 1910.14659). In a sequence longer than
    the context, each base is in the middle of a window of its own. To compare sequences of different lengths, divide by
    the bases.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, run on a GPU if there is one (in Python also a loaded model).
    sequences
        A FASTA, FASTQ, CSV, TSV or Parquet file (in Python also one sequence as text, several, or a frame with a column
        ``sequence``).
    settings, progress : optional
        How the model is run; show progress.

    Returns
    -------
    DataFrame
        A row per sequence: ``name``, by default its number from 0; ``bases`` that count; and their ``log_likelihood``,
        in nats, null where none counts.
    """
    examples, _ = read_examples(table_of(sequences), Columns(label=()))
    codes, unmasked = np.split(examples.base_codes, examples.offsets[1:-1]), np.zeros(0, dtype=SOFT_MASK)
    genome = ProbabilisticGenome.from_sequences((str(row), code_L, unmasked) for row, code_L in enumerate(codes))
    predictor = BasePredictor(model, genome, settings or PredictionSettings())
    row_P, position_P = list_ranges(np.zeros(len(examples), dtype=np.int64), examples.lengths)
    at_once = predictor.windows_at_once(1)
    with progress_bar("scoring", len(row_P), unit="bases", show=progress) as advance:
        parts = [slice(first, first + at_once) for first in range(0, len(row_P), at_once)]
        scores = pl.concat(predictor.predict(row_P[part], position_P[part], 1, advance) for part in parts)
    log_P, known_P = scores["reference_probability"].cast(pl.Float64).log(), scores["base"] < len(alphabet.BASES)
    bases_N = np.bincount(row_P[known_P], minlength=len(examples))
    total_N = np.bincount(row_P[known_P], log_P.filter(known_P), len(examples))
    names = [name or str(row) for row, name in enumerate(examples.names)]
    table = pl.DataFrame({"name": names, "bases": bases_N, "log_likelihood": total_N})
    return table.with_columns(pl.when(pl.col("bases") > 0).then("log_likelihood").alias("log_likelihood"))
