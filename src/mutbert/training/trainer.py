"""transformers' Trainer, taught which positions vary.

Shape suffixes: B windows, L positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import transformers


class PretrainTrainer(transformers.Trainer):
    """The library's Trainer with batches that know which positions vary.

    Parameters
    ----------
    targets_a_window : int
        Targets of a training window, which the model wants to know beforehand.
    **settings
        As `transformers.Trainer` takes them, without `compute_metrics`.
    """

    def __init__(self, *, targets_a_window: int, **settings: Any) -> None:
        super().__init__(compute_metrics=_mean_cross_entropy, **settings)
        self._targets_a_window = targets_a_window
        # The library's own progress would come twice.
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Take windows in order, which is random already: window i is drawn from (seed, i)."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Take away what only the evaluation needs, and say how many targets there are."""
        batch: dict[str, Any] = _without_variants(inputs)
        batch["max_targets"] = len(inputs["labels"]) * self._targets_a_window
        return super().compute_loss(model, batch, *args, **kwargs)

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum cross-entropies over a window's targets, so that no logits have to be kept.

        Returns
        -------
        tuple of torch.Tensor
            The loss; float32 (B, 4): the sum over all targets, their number, and the same over those that vary;
            and the same again, in the place of labels.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**_without_variants(inputs))
        loss_BL = -(inputs["labels"] * output.logits.float().log_softmax(-1)).sum(-1)
        every_BL = inputs["target_mask"]
        variant_BL = every_BL & inputs["variant_mask"]
        sums_B4 = torch.stack(
            [
                part
                for mask_BL in (every_BL, variant_BL)
                for part in ((loss_BL * mask_BL).sum(1), mask_BL.sum(1).float())
            ],
            dim=1,
        )
        return output.loss.detach().float(), sums_B4, sums_B4


def _without_variants(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "variant_mask"}


def _mean_cross_entropy(prediction: transformers.EvalPrediction) -> dict[str, float]:
    every, targets, variant, variants = prediction.predictions.sum(axis=0, dtype=np.float64)
    others = targets - variants
    return {
        "cross_entropy": float(every / targets),
        "cross_entropy_variant": float(variant / variants) if variants else math.nan,
        "cross_entropy_other": float((every - variant) / others) if others else math.nan,
    }
