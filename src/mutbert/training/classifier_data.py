"""Samples, labels and losses of fine-tuning: sample s of a run is a function of (seed, s) alone.

Shape suffixes: N sequences, S samples of the run, B batch, L tokens, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from mutbert.errors import InputError
from mutbert.examples.table import NOT_COUNTED
from mutbert.windows.randomness import STRAND, random_bits, unit_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Int64
    from mutbert.encoders.inputs import Inputs
    from mutbert.examples.table import Examples

_STEPS_SORTED: Final = 64  # by length together: enough to leave little padding, and little order


@dataclass(frozen=True)
class LabelledInputs:
    """Sequences as a model takes them, and the examples that they come from."""

    inputs: Inputs
    examples: Examples

    @property
    def problem(self) -> str:
        """Problem of the labels."""
        return self.examples.problem

    @property
    def outputs(self) -> int:
        """Number of outputs of a classifier."""
        labels = self.examples.known_labels
        if self.problem in {"multilabel", "regression"}:
            return 1 if labels.ndim == 1 else int(labels.shape[1])
        return len(self.examples.classes)

    def labels(self, rows: Int64, reverse: Bool, width: int) -> torch.Tensor:
        """Return the labels of a batch: (B,), (B, K), or of bases (B, width) with `NOT_COUNTED` elsewhere."""
        label = self.examples.known_labels
        if self.problem != "token":
            return torch.from_numpy(label[rows])
        start_B, end_B = self.examples.offsets[rows], self.examples.offsets[rows + 1]
        column_BL = np.arange(width - 2)[None]
        source_BL = np.where(reverse[:, None], end_B[:, None] - 1 - column_BL, start_B[:, None] + column_BL)
        inside_BL = column_BL < (end_B - start_B)[:, None]
        label_BL = np.full((len(rows), width), NOT_COUNTED, dtype=np.int64)
        label_BL[:, 1:-1] = np.where(inside_BL, label[np.where(inside_BL, source_BL, 0)], NOT_COUNTED)
        return torch.from_numpy(label_BL)


class TrainingSamples(Dataset[Any]):
    """The samples of a whole run in the order of training, half of them on the other strand if asked for."""

    def __init__(
        self, data: LabelledInputs, *, steps: int, batch_size: int, seed: int, reverse_complement: bool
    ) -> None:
        self._data = data
        self.row_S = sample_order(data.inputs.length_N, steps, batch_size, seed)
        drawn_S = unit_interval(random_bits(seed, STRAND, np.arange(len(self.row_S)), 1)[:, 0])
        self.reverse_S = drawn_S < (0.5 if reverse_complement else 0)

    def __len__(self) -> int:
        return len(self.row_S)

    def __getitems__(self, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return a batch; torch's loader calls this instead of asking for samples one by one."""
        index = np.asarray(samples, dtype=np.int64)
        rows, reverse = self.row_S[index], self.reverse_S[index]
        batch = self._data.inputs.batch(rows, reverse)
        return {**batch, "labels": self._data.labels(rows, reverse, next(iter(batch.values())).shape[1])}

    def tokens(self) -> int:
        """Return the number of tokens of the run, padding excluded."""
        return int(self._data.inputs.length_N[self.row_S].sum())


def sample_order(length_N: Int64, steps: int, batch_size: int, seed: int) -> Int64:
    """Return the row of each sample, (steps * batch_size,): one shuffled pass over all sequences after the other.

    Where their numbers of tokens `length_N` differ, the sequences of a step are of similar lengths.
    """
    count, total = len(length_N), steps * batch_size
    passes = [np.random.default_rng([seed, epoch]).permutation(count) for epoch in range(-(-total // count))]
    row_S = np.concatenate(passes)[:total]
    if (length_N != length_N[0]).any():
        for number, first in enumerate(range(0, total, batch_size * _STEPS_SORTED)):
            part = row_S[first : first + batch_size * _STEPS_SORTED]
            by_length = part[np.argsort(length_N[part], kind="stable")].reshape(-1, batch_size)
            # Steps of short and of long sequences in random order.
            shuffled = np.random.default_rng([seed, number, 1]).permutation(len(by_length))
            row_S[first : first + len(part)] = by_length[shuffled].ravel()
    return row_S.astype(np.int64)


class ClassifierLoss:
    """Mean loss of a batch: cross-entropy of classes, binary cross-entropy of several labels, squared error of numbers.

    A class is weighted by `class_weights`; of several labels, a positive one is.
    """

    def __init__(self, problem: str, class_weights: Float32 | None = None) -> None:
        self.problem = problem
        self._weight = None if class_weights is None else torch.from_numpy(class_weights)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (B, K) or (B, L, K) and labels as `LabelledInputs.labels` returns them."""
        logits = logits.float()
        weight = None if self._weight is None else self._weight.to(logits.device)
        if self.problem in {"binary", "multiclass"}:
            return functional.cross_entropy(logits, labels, weight)
        if self.problem == "token":
            flat = logits.flatten(0, 1), labels.flatten()
            loss = functional.cross_entropy(*flat, weight, ignore_index=NOT_COUNTED, reduction="sum")
            # A batch may have no base that counts; the sum is 0 then.
            return loss / self._sum_of_weights(labels).clamp(min=torch.finfo(loss.dtype).tiny)
        labels = labels.float().reshape(logits.shape)
        if self.problem == "multilabel":
            return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
        return functional.mse_loss(logits, labels)

    def weight_of(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Return the weight of a batch in the mean over several; None where batches of one size weigh the same."""
        weighted = self._weight is not None and self.problem in {"binary", "multiclass"}
        return self._sum_of_weights(labels) if weighted or self.problem == "token" else None

    def _sum_of_weights(self, labels: torch.Tensor) -> torch.Tensor:
        counts = labels != NOT_COUNTED
        if self._weight is None:
            return counts.sum().float()
        return (self._weight.to(labels.device)[labels.clamp(min=0)] * counts).sum()


def balanced_weights(problem: str, label: npt.NDArray[Any], classes: int) -> Float32:
    """Return ``n / (classes * count)`` for each class, 0 without examples; of multilabel, negatives over positives."""
    if problem == "regression":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    if problem == "multilabel":
        positive = label.astype(np.float64).sum(axis=0)
        weight = np.divide(len(label) - positive, positive, out=np.ones_like(positive), where=positive > 0)
    else:
        count = np.bincount(label[label != NOT_COUNTED], minlength=classes).astype(np.float64)
        weight = np.divide(count.sum(), classes * count, out=np.zeros_like(count), where=count > 0)
    return np.asarray(weight, dtype=np.float32)


def decision_scores(problem: str, logits: Float32) -> Float32:
    """Return the decision values of logits: of two classes the log odds of the second (N,), of one number (N,)."""
    if problem == "binary":
        return logits[:, 1] - logits[:, 0]
    return logits[:, 0] if problem == "regression" and logits.shape[1] == 1 else logits
