"""The baseline that nobody should be below: which k-mers there are, and a linear model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_matrix

from mutbert.errors import InputError
from mutbert.training.finetune import fit_linear, linear_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Float32
    from mutbert.examples.table import Examples

LENGTHS: Final = (4, 5, 6, 7)
PENALTIES: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Inverse penalties that are tried."""


def kmer_features(examples: Examples) -> csr_matrix:
    """Return which 4- to 7-mers of A, C, G and T each sequence has on either strand, as float32 (N, 21760).

    Columns are 4-mers first, in alphabetical order; a k-mer and its reverse complement share the first one's.
    """
    code_T = examples.base_codes.astype(np.int32)
    row_T = np.repeat(np.arange(len(examples)), examples.lengths)
    # Of the k-mer that begins at each base: its number, that of its reverse complement, and whether it is one.
    forward_T, reverse_T, known_T = np.zeros_like(code_T), np.zeros_like(code_T), np.ones(len(code_T), dtype=np.bool_)
    rows, columns, width = [], [], 0
    for k in range(1, LENGTHS[-1] + 1):
        count = max(len(code_T) - k + 1, 0)
        last_T = code_T[k - 1 :]
        forward_T = forward_T[:count] * 4 + last_T
        reverse_T = reverse_T[:count] + (3 - last_T) * 4 ** (k - 1)
        known_T = known_T[:count] & (last_T < 4) & (row_T[:count] == row_T[k - 1 :])
        if k in LENGTHS:
            rows.append(row_T[:count][known_T])
            columns.append(width + np.minimum(forward_T, reverse_T)[known_T])
            width += 4**k
    where = np.concatenate(rows), np.concatenate(columns)
    features = csr_matrix((np.ones(len(where[0]), np.float32), where), shape=(len(examples), width))
    features.data[:] = 1
    return features


def kmer_baseline(
    train: Examples, validation: Examples, test: Examples, *, metric: str, penalties: Sequence[float] = PENALTIES
) -> tuple[float, Float32, Float32]:
    """Return the C that was chosen on the validation data, and decision values of validation and test data."""
    every = [kmer_features(part) for part in (train, validation, test)]
    used = np.flatnonzero(every[0].getnnz(axis=0))
    if train.problem != "token" and not len(used):
        raise InputError(f"kmer: no training sequence has {LENGTHS[0]} known bases in a row")
    train_NF, validation_NF, test_NF = (features[:, used] for features in every)
    model = fit_linear(
        train.problem, (train_NF, train.known_labels), (validation_NF, validation.known_labels),
        classes=len(train.classes), metric=metric, penalties=penalties, scale=False, iterations=300,
    )  # fmt: skip
    validated, tested = (linear_scores(train.problem, features, model) for features in (validation_NF, test_NF))
    return model[0], validated, tested
