"""The baseline that nobody should be below: which k-mers there are, and a linear model.

Shape suffixes: N sequences, F features.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from mutbert.errors import InputError
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.arrays import Float32
    from mutbert.examples.table import Examples

LENGTHS: Final = (4, 5, 6, 7)
PENALTIES: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Inverse penalties that are tried."""
_ITERATIONS: Final = 300


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
) -> tuple[Float32, float, float]:
    """Return decision values of the test data, C, and the metric on the validation data, by which C is chosen.

    The model is L2 logistic regression, of numbers ridge regression; of equals the strongest penalty is taken. It
    depends on no seed.
    """
    problem = train.problem
    if problem == "token":
        raise InputError("kmer: labels of single bases cannot be learnt from k-mers")
    every = [kmer_features(part) for part in (train, validation, test)]
    used = np.flatnonzero(every[0].getnnz(axis=0))
    if not len(used):
        raise InputError(f"kmer: no training sequence has {LENGTHS[0]} known bases in a row")
    train_NF, validation_NF, test_NF = (features[:, used] for features in every)
    best: tuple[float, Any, float, float] | None = None
    for c in penalties:
        models = _fit(problem, train_NF, train.known_labels, c)
        scores = _scores(models, problem, validation_NF, len(train.classes))
        value = evaluate(problem, validation.known_labels, scores, [metric])[metric]
        rank = -np.inf if np.isnan(value) else -value if metric in LOWER_IS_BETTER else value
        if best is None or rank > best[0]:
            best = rank, models, c, value
    assert best is not None
    return _scores(best[1], problem, test_NF, len(train.classes)), best[2], best[3]


def _fit(problem: str, features_NF: Any, label: npt.NDArray[Any], c: float) -> list[Any]:
    if problem == "regression":
        return [Ridge(alpha=1 / c).fit(features_NF, label)]
    models = []
    for column in label.T if problem == "multilabel" else [label]:
        if len(np.unique(column)) < 2:
            raise InputError("kmer: the training data have one class alone")
        with warnings.catch_warnings():
            # One that has not converged in so many steps is compared like the others.
            warnings.simplefilter("ignore", ConvergenceWarning)
            models.append(LogisticRegression(C=c, max_iter=_ITERATIONS).fit(features_NF, column))
    return models


def _scores(models: list[Any], problem: str, features_NF: Any, classes: int) -> Float32:
    if problem == "regression":
        return np.asarray(models[0].predict(features_NF), dtype=np.float32)
    found = [model.decision_function(features_NF) for model in models]
    if problem == "multilabel":
        return np.stack(found, axis=1).astype(np.float32)
    if problem == "binary":
        return np.asarray(found[0], dtype=np.float32)
    # A class without an example in the training data is never predicted.
    score_NK = np.full((features_NF.shape[0], classes), -1e4, dtype=np.float32)
    present = models[0].classes_
    score_NK[:, present] = np.stack([-found[0], found[0]], axis=1) / 2 if len(present) == 2 else found[0]
    return score_NK
