"""Cross-entropy of a predictor on the held-out targets, by kind of target, and its calibration.

All cross-entropies are in nats per target, between the target's distribution over A, C, G, T and the predicted one:
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
"""Kinds of targets: all, variant ones, the others, and variant ones by the frequency of what is not the reference."""

CALIBRATED: Final = ("all targets", "variant targets")
_BINS: Final = 10
_WINDOWS_AT_ONCE: Final = 1024
SUMS: Final = 2 * len(GROUPS) + 3 * _BINS * len(CALIBRATED)
"""Sums per window."""


class HeldOut(NamedTuple):
    """What a predictor achieves on held-out targets."""

    cross_entropy: dict[str, float]  # for each of GROUPS; not a number without such targets
    targets: dict[str, int]  # numbers of targets, likewise
    # for each of CALIBRATED, in ten bins of predicted probability without empty ones: mean "predicted" probability,
    # mean frequency "observed", and number of "pairs" of a target and a base
    calibration: dict[str, list[dict[str, float]]]


def held_out_sums(log_predicted_BT4: Tensor, targets: Targets) -> Tensor:
    """Return sums for `summarise_sums`, float32 (B, S), of log probabilities of A, C, G, T at the targets."""
    target_BT4, variant_BT = targets.frequency_BT4, targets.variant_BT
    log_BT4 = log_predicted_BT4.float()
    # A base of frequency 0 adds nothing, whatever was predicted for it.
    loss_BT = -torch.where(target_BT4 > 0, target_BT4 * log_BT4, 0).sum(-1)
    edges = torch.tensor(_EDGES, device=loss_BT.device)
    bin_BT = torch.bucketize(targets.alternate_BT, edges, right=True)
    masks = [torch.ones_like(variant_BT), variant_BT, ~variant_BT]
    masks += [variant_BT & (bin_BT == number) for number in range(len(_EDGES) + 1)]
    # Not times the mask, as a loss may be infinite.
    sums = [part for mask in masks for part in (torch.where(mask, loss_BT, 0).sum(1), mask.sum(1))]

    predicted_BT4 = log_BT4.exp()
    # NaN has no bin; the cross-entropy shows it.
    place_BT4 = (predicted_BT4.nan_to_num(0) * _BINS).long().clamp(0, _BINS - 1)
    for mask in masks[:2]:
        inside_BT4 = mask[..., None].expand_as(place_BT4)
        for value_BT4 in (torch.ones_like(predicted_BT4), predicted_BT4, target_BT4):
            binned = torch.zeros(len(loss_BT), _BINS, device=loss_BT.device)
            binned.scatter_add_(1, place_BT4.flatten(1), (value_BT4 * inside_BT4).flatten(1))
            sums += binned.unbind(1)
    return torch.stack([part.float() for part in sums], dim=1)


def summarise_sums(sums_BS: npt.NDArray[np.floating]) -> HeldOut:
    """Return the cross-entropies and the calibration of the sums of all windows, (B, S)."""
    sums = sums_BS.sum(axis=0, dtype=np.float64)
    losses, counts = sums[: 2 * len(GROUPS)].reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        means = losses / counts
    calibration = {}
    for name, part in zip(CALIBRATED, sums[2 * len(GROUPS) :].reshape(len(CALIBRATED), 3, _BINS), strict=True):
        calibration[name] = [
            {"predicted": float(predicted / count), "observed": float(observed / count), "pairs": int(count)}
            for count, predicted, observed in part.T
            if count
        ]
    return HeldOut(
        dict(zip(GROUPS, means.tolist(), strict=True)),
        {group: int(count) for group, count in zip(GROUPS, counts, strict=True)},
        calibration,
    )


def held_out_windows(dataset: WindowDataset) -> str:
    """Return the windows of an evaluation as a table, so that other programs can evaluate the same ones.

    Tab-separated: genome, contig, start and end (0-based, half-open), and the targets as comma-separated offsets from
    the start.
    """
    lines = ["genome\tcontig\tstart\tend\ttargets\n"]
    sampler = dataset.sampler
    names = [genome_name(part.genome) for part in sampler.parts]
    for first in range(0, len(dataset), _WINDOWS_AT_ONCE):
        indices = np.arange(first, min(first + _WINDOWS_AT_ONCE, len(dataset)))
        places = sampler.places(indices)
        targets = dataset.batch(indices.tolist())["target_places"].tolist()
        columns = places.genome_B.tolist(), sampler.contig_names(places), places.start_B.tolist(), targets
        for genome, contig, start, offsets in zip(*columns, strict=True):
            place = f"{names[genome]}\t{contig}\t{start}\t{start + sampler.length}"
            lines.append(f"{place}\t{','.join(map(str, offsets))}\n")
    return "".join(lines)
