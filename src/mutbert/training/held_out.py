"""What a predictor reaches on the held-out targets: cross-entropy by kind of target, and calibration.

All cross-entropies are in nats a target, between the target's distribution over A, C, G, T and the predicted one:
``-sum(target * log(predicted))``. Shape suffixes: B windows, T targets of a window, S sums, 4 bases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from mutbert.windows.sampler import genome_name

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from mutbert.windows.dataset import Targets, WindowDataset

_EDGES: Final = (0.05, 0.1, 0.2, 0.5)
GROUPS: Final = (
    "all",
    "variant",
    "other",
    "variant, below 0.05",
    "variant, 0.05 to 0.1",
    "variant, 0.1 to 0.2",
    "variant, 0.2 to 0.5",
    "variant, 0.5 and above",
)
"""Kinds of targets: all, those that vary, the others, and those that vary by the frequency of what is not reference."""

CALIBRATED: Final = ("all targets", "variant targets")
_BINS: Final = 10
_WINDOWS_AT_ONCE: Final = 1024
SUMS: Final = 2 * len(GROUPS) + 3 * _BINS * len(CALIBRATED)
"""How many sums `held_out_sums` gives a window."""


class CalibrationBin(NamedTuple):
    """Bases that were predicted with about the same probability.

    Parameters
    ----------
    predicted : float
        Mean of the predicted probabilities.
    observed : float
        Mean of the bases' frequencies.
    pairs : int
        How many pairs of a target and a base there are, four for each target.
    """

    predicted: float
    observed: float
    pairs: int


class HeldOut(NamedTuple):
    """How a predictor does on held-out targets.

    Parameters
    ----------
    cross_entropy : dict of str to float
        For each of `GROUPS`, in nats a target; not a number where there are no such targets.
    targets : dict of str to int
        How many targets there are of each.
    calibration : dict of str to list of CalibrationBin
        For ``all targets`` and ``variant targets``, in ten bins of predicted probability; empty bins are left out.
    """

    cross_entropy: dict[str, float]
    targets: dict[str, int]
    calibration: dict[str, list[CalibrationBin]]


def held_out_sums(log_predicted_BT4: Tensor, targets: Targets) -> Tensor:
    """Sum up a batch, a window in a row.

    Parameters
    ----------
    log_predicted_BT4 : Tensor of float, shape (B, T, 4)
        Logarithms of the predicted probabilities.
    targets : Targets
        What stands there.

    Returns
    -------
    Tensor of float32, shape (B, S)
        For `summarise_sums`, when those of all windows are there.
    """
    target_BT4, variant_BT = targets.frequency_BT4, targets.variant_BT
    log_BT4 = log_predicted_BT4.float()
    # A base that the target does not hold adds nothing, whatever was predicted for it.
    loss_BT = -torch.where(target_BT4 > 0, target_BT4 * log_BT4, 0).sum(-1)
    edges = torch.tensor(_EDGES, device=loss_BT.device)
    bin_BT = torch.bucketize(targets.alternate_BT, edges, right=True)
    masks = [torch.ones_like(variant_BT), variant_BT, ~variant_BT]
    masks += [variant_BT & (bin_BT == number) for number in range(len(_EDGES) + 1)]
    # Not times the mask, as a loss may be infinite.
    sums = [part for mask in masks for part in (torch.where(mask, loss_BT, 0).sum(1), mask.sum(1))]

    predicted_BT4 = log_BT4.exp()
    # What is no number has no bin; the cross-entropy says that something is wrong.
    place_BT4 = (predicted_BT4.nan_to_num(0) * _BINS).long().clamp(0, _BINS - 1)
    for mask in masks[:2]:
        inside_BT4 = mask[..., None].expand_as(place_BT4)
        for value_BT4 in (torch.ones_like(predicted_BT4), predicted_BT4, target_BT4):
            binned = torch.zeros(len(loss_BT), _BINS, device=loss_BT.device)
            binned.scatter_add_(1, place_BT4.flatten(1), (value_BT4 * inside_BT4).flatten(1))
            sums += binned.unbind(1)
    return torch.stack([part.float() for part in sums], dim=1)


def summarise_sums(sums_BS: npt.NDArray[np.floating]) -> HeldOut:
    """Make of the sums of all windows, shape (B, S), what they say."""
    sums = sums_BS.sum(axis=0, dtype=np.float64)
    losses, counts = sums[: 2 * len(GROUPS)].reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        means = losses / counts
    calibration = {}
    for name, part in zip(CALIBRATED, sums[2 * len(GROUPS) :].reshape(len(CALIBRATED), 3, _BINS), strict=True):
        calibration[name] = [
            CalibrationBin(float(predicted / count), float(observed / count), int(count))
            for count, predicted, observed in part.T
            if count
        ]
    return HeldOut(
        dict(zip(GROUPS, means.tolist(), strict=True)),
        {group: int(count) for group, count in zip(GROUPS, counts, strict=True)},
        calibration,
    )


def held_out_windows(dataset: WindowDataset) -> str:
    """List the windows of an evaluation and their targets, so that another program can look at the same ones.

    Returns
    -------
    str
        Tab-separated lines: genome, contig, start and end (0-based, half-open), and the targets as offsets from the
        start (0-based, comma-separated).
    """
    lines = ["genome\tcontig\tstart\tend\ttargets\n"]
    sampler = dataset.sampler
    names = [genome_name(part.genome) for part in sampler.parts]
    for first in range(0, len(dataset), _WINDOWS_AT_ONCE):
        indices = np.arange(first, min(first + _WINDOWS_AT_ONCE, len(dataset)))
        places = sampler.places(indices)
        rows = zip(
            places.genome_B.tolist(),
            sampler.contig_names(places),
            places.start_B.tolist(),
            dataset.batch(indices.tolist())["target_places"].tolist(),
            strict=True,
        )
        for genome, contig, start, targets in rows:
            place = f"{names[genome]}\t{contig}\t{start}\t{start + sampler.length}"
            lines.append(f"{place}\t{','.join(map(str, targets))}\n")
    return "".join(lines)
