"""Losses of classifiers, the weights of classes in them, and the scale of numbers.

Shape suffixes: N sequences, B batch, L tokens, K classes, labels or numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from mutbert.arrays import Float32
from mutbert.errors import InputError
from mutbert.examples.table import NOT_COUNTED


class ClassifierLoss:
    """Mean loss of a batch: cross-entropy of classes, binary cross-entropy of several labels, squared error of numbers.

    A class is weighted by `class_weights`; of several labels, a positive one is, and those that are NaN do not count.
    Numbers are learnt less their `centre` and divided by their `spread`.
    """

    def __init__(
        self, problem: str, class_weights: Float32 | None = None, centre: Float32 | float = 0.0,
        spread: Float32 | float = 1.0,
    ) -> None:  # fmt: skip
        self.problem, self._of_classes = problem, problem in {"binary", "multiclass", "token"}
        self._weight = None if class_weights is None else torch.from_numpy(class_weights)
        self.centre, self.spread = (torch.as_tensor(value, dtype=torch.float32) for value in (centre, spread))

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss of ``outputs.logits``, (B, K) or (B, L, K), and labels as of `TrainingSamples`.

        With `num_items_in_batch`, the weight of several batches, it is this one's share in their mean.
        """
        logits = outputs.logits.float()
        weight = None if self._weight is None else self._weight.to(logits.device)
        if self._of_classes:
            loss = functional.cross_entropy(
                logits.flatten(0, -2), labels.flatten(), weight, ignore_index=NOT_COUNTED, reduction="sum"
            )
        else:
            own = labels.float().reshape(logits.shape)
            own, known = own.nan_to_num(), ~own.isnan()
            if self.problem == "multilabel":
                each = functional.binary_cross_entropy_with_logits(logits, own, pos_weight=weight, reduction="none")
            else:
                own = (own - self.centre.to(own.device)) / self.spread.to(own.device)
                each = functional.mse_loss(logits, own, reduction="none")
            loss = torch.where(known, each, 0.0).sum()
        # Of bases, a batch may have none that counts; the sum is 0 then.
        total = self.weight_of(labels) if num_items_in_batch is None else num_items_in_batch
        return loss / total.clamp(min=torch.finfo(loss.dtype).tiny)

    def rescale(self, layer: Any, *, undo: bool = False) -> None:
        """Have a linear layer return numbers as they are learnt, where it returns them themselves; or `undo` that."""
        centre, spread = (value.to(layer.weight.device) for value in (self.centre, self.spread))
        with torch.no_grad():
            if undo:
                layer.weight.mul_(spread.reshape(-1, 1))
                if layer.bias is not None:
                    layer.bias.mul_(spread).add_(centre)
            else:
                layer.weight.div_(spread.reshape(-1, 1))
                layer.bias.sub_(centre).div_(spread)

    def weight_of(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the weight of a batch in the mean over several."""
        if not self._of_classes:
            return (~labels.isnan()).float().sum()
        counts = (labels != NOT_COUNTED).float()
        weight = 1 if self._weight is None else self._weight.to(labels.device)[labels.clamp(min=0)]
        return (counts * weight).sum()


def balanced_weights(problem: str, label: npt.NDArray[Any], classes: int) -> Float32:
    """Return ``n / (classes * count)`` for each class, 0 without examples; of multilabel, negatives over positives."""
    if problem == "regression":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    if problem == "multilabel":
        positive, negative = ((label == value).sum(axis=0).astype(np.float64) for value in (1, 0))
        weight = np.divide(negative, positive, out=np.ones_like(positive), where=positive > 0)
    else:
        count = np.bincount(label[label != NOT_COUNTED], minlength=classes).astype(np.float64)
        weight = np.divide(count.sum(), classes * count, out=np.zeros_like(count), where=count > 0)
    return np.asarray(weight, dtype=np.float32)


def output_layer(model: Any, outputs: int) -> Any:
    """Return the linear layer that a classifier's outputs come from."""
    return [one for one in model.modules() if isinstance(one, nn.Linear) and one.out_features == outputs][-1]


def scale_of(labels: Float32, layer: Any) -> dict[str, Any]:
    """Return mean and standard deviation of numbers, or of each column; without a bias, 0 in place of the mean."""
    value_N = labels.astype(np.float64)
    centre = np.nanmean(value_N, axis=0) * (layer.bias is not None)
    spread = np.sqrt(np.nanmean((value_N - centre) ** 2, axis=0))
    return {"centre": np.float32(centre), "spread": np.float32(np.where(spread > 0, spread, 1))}
