"""The baseline that nobody should be below: which k-mers there are, and logistic regression.

Shape suffixes: N sequences, T bases, F features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate

try:
    from scipy import sparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
except ImportError as error:
    raise MissingExtraError("scikit-learn", "bench") from error

if TYPE_CHECKING:
    import numpy.typing as npt

    from mutbert.arrays import Float32
    from mutbert.examples.table import Examples


LENGTHS: Final = (4, 5, 6, 7)
PENALTIES: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Values of C, the inverse of the penalty, that are tried."""
_ITERATIONS: Final = 300


@dataclass(frozen=True)
class KmerResult:
    """What the baseline says of the test data.

    Parameters
    ----------
    validation, test : ndarray of float32
        Decision values, as `mutbert.scoring.metrics` takes them.
    c : float
        The inverse penalty that was best on the validation data.
    features : int
        k-mers that occur in the training data.
    """

    validation: Float32
    test: Float32
    c: float
    features: int


def kmer_features(examples: Examples) -> sparse.csr_matrix:
    """Say which 4- to 7-mers a sequence holds, on either strand.

    Parameters
    ----------
    examples : Examples
        N sequences; a k-mer with an ambiguous code is none.

    Returns
    -------
    csr_matrix of float32, shape (N, 21760)
        1 where the k-mer or its reverse complement, which share a column, is there; columns are 4-mers first, in
        alphabetical order, and half of them stay empty.
    """
    code_T = examples.base_codes.astype(np.int64)
    known_T = code_T < len(alphabet.BASES)
    row_T = np.repeat(np.arange(len(examples)), examples.lengths)
    place_T = np.arange(len(code_T)) - examples.offsets[row_T]
    left_T = examples.lengths[row_T] - place_T
    rows, columns, width = [], [], 0
    for k in LENGTHS:
        forward_T = np.zeros(len(code_T), dtype=np.int64)
        reverse_T = np.zeros(len(code_T), dtype=np.int64)
        whole_T = left_T >= k
        for step in range(k):
            base_T = np.zeros_like(code_T)
            here_T = np.zeros_like(known_T)
            kept = max(len(code_T) - step, 0)
            base_T[:kept], here_T[:kept] = code_T[step:], known_T[step:]
            forward_T = forward_T * 4 + base_T
            # The complement of base b is 3 - b, and the last one comes first.
            reverse_T += (3 - base_T) * 4**step
            whole_T &= here_T
        rows.append(row_T[whole_T])
        columns.append(width + np.minimum(forward_T, reverse_T)[whole_T])
        width += 4**k
    # Sorted and compared to the one before, which is many times quicker than NumPy's own way to what is different.
    entry = np.sort(np.concatenate(rows) * width + np.concatenate(columns))
    entry = entry[np.diff(entry, prepend=-1) > 0]
    shape = (len(examples), width)
    return sparse.csr_matrix((np.ones(len(entry), np.float32), (entry // width, entry % width)), shape=shape)


def kmer_baseline(train: Examples, validation: Examples, test: Examples, *, metric: str) -> KmerResult:
    """Fit L2 logistic regression (ridge regression for numbers) to k-mers, with C chosen on the validation data.

    Parameters
    ----------
    train, validation, test : Examples
        The parts of a task.
    metric : str
        What C is chosen by; of equals the strongest penalty.

    Returns
    -------
    KmerResult
        It depends on no seed.

    Raises
    ------
    InputError
        When labels are of single bases, or the training data have one class alone or no k-mer.
    """
    problem = train.problem
    if problem == "token":
        raise InputError("kmer: knows no single bases, and the labels are of such")
    every = [kmer_features(part) for part in (train, validation, test)]
    used = np.flatnonzero(every[0].getnnz(axis=0))
    if not len(used):
        raise InputError(f"kmer: no sequence of the training data has {LENGTHS[0]} bases in a row that are known")
    train_NF, validation_NF, test_NF = (features[:, used] for features in every)
    best: tuple[float, KmerResult] | None = None
    for c in PENALTIES:
        models = _fit(problem, train_NF, train.known_labels, c)
        found = [_scores(models, problem, features, len(train.classes)) for features in (validation_NF, test_NF)]
        value = evaluate(problem, validation.known_labels, found[0], [metric])[metric]
        value = -np.inf if np.isnan(value) else -value if metric in LOWER_IS_BETTER else value
        if best is None or value > best[0]:
            best = value, KmerResult(found[0], found[1], c, len(used))
    assert best is not None
    return best[1]


def _fit(problem: str, features_NF: Any, label: npt.NDArray[Any], c: float) -> list[Any]:
    if problem == "regression":
        return [Ridge(alpha=1 / c).fit(features_NF, label)]
    models = []
    for column in label.T if problem == "multilabel" else [label]:
        if len(np.unique(column)) < 2:
            raise InputError("kmer: the training data have one class alone, of which nothing can be learnt")
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
    # A class without an example in the training data is never said.
    score_NK = np.full((features_NF.shape[0], classes), -1e4, dtype=np.float32)
    present = models[0].classes_
    score_NK[:, present] = np.stack([-found[0], found[0]], axis=1) / 2 if len(present) == 2 else found[0]
    return score_NK
