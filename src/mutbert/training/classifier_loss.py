"""The loss of each kind of problem, with classes weighed by how rare they are where that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from mutbert.errors import InputError
from mutbert.training.classifier_data import IGNORED

if TYPE_CHECKING:
    import numpy.typing as npt


class ClassifierLoss:
    """Mean loss over a batch.

    Cross-entropy for classes, of sequences or of bases; binary cross-entropy for several labels at once; squared error
    for numbers.

    Parameters
    ----------
    problem : str
        As in `mutbert.examples.table.Examples`.
    class_weights : ndarray of float32, optional
        What a class counts; of several labels at once, what a positive one does.
    """

    def __init__(self, problem: str, class_weights: npt.NDArray[np.float32] | None = None) -> None:
        self.problem = problem
        self._weight = None if class_weights is None else torch.from_numpy(class_weights)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute it; logits (B, N) or (B, L, N), labels as `Targets.batch` gives them."""
        logits = logits.float()
        weight = None if self._weight is None else self._weight.to(logits.device)
        if self.problem in {"binary", "multiclass"}:
            return functional.cross_entropy(logits, labels, weight)
        if self.problem == "token":
            loss = functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), weight, ignore_index=IGNORED, reduction="sum"
            )
            # A batch may have no base that counts; the sum is 0 then.
            return loss / self._sum_of_weights(labels).clamp(min=torch.finfo(loss.dtype).tiny)
        labels = labels.float().reshape(logits.shape)
        if self.problem == "multilabel":
            return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
        return functional.mse_loss(logits, labels)

    def weight_of(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Say what a batch counts in the mean over several; ``None`` where those of one size count the same."""
        weighted = self._weight is not None and self.problem in {"binary", "multiclass"}
        return self._sum_of_weights(labels) if weighted or self.problem == "token" else None

    def _sum_of_weights(self, labels: torch.Tensor) -> torch.Tensor:
        counts = labels != IGNORED
        if self._weight is None:
            return counts.sum().float()
        return (self._weight.to(labels.device)[labels.clamp(min=0)] * counts).sum()


def balanced_weights(problem: str, label: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float32]:
    """Weigh classes by how rare they are, ``n / (classes * count)``; positive labels by negatives over positives.

    A class without an example counts nothing, since there is nothing to weigh.

    Raises
    ------
    InputError
        When labels are numbers.
    """
    if problem == "regression":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    if problem == "multilabel":
        positive = label.astype(np.float64).sum(axis=0)
        weight = np.divide(len(label) - positive, positive, out=np.ones_like(positive), where=positive > 0)
        return np.asarray(weight, dtype=np.float32)
    count = np.bincount(label[label != IGNORED], minlength=classes).astype(np.float64)
    weight = np.divide(count.sum(), classes * count, out=np.zeros_like(count), where=count > 0)
    return np.asarray(weight, dtype=np.float32)


def decision_scores(problem: str, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn logits into the decision values that metrics are computed of.

    Returns
    -------
    ndarray of float32
        For two classes (n,), the log odds of the second; of regression with one number (n,); otherwise as they are.
    """
    if problem == "binary":
        logits = logits[:, 1] - logits[:, 0]
    elif problem == "regression" and logits.shape[1] == 1:
        logits = logits[:, 0]
    return logits


def outputs_needed(problem: str, label: npt.NDArray[Any], classes: int) -> int:
    """Count the numbers that a classifier has to give."""
    if problem in {"multilabel", "regression"}:
        return 1 if label.ndim == 1 else int(label.shape[1])
    return classes
