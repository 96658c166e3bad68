"""Cross-entropy of predictors on the held-out targets, by kind of target, their calibration, and trivial predictors.

All cross-entropies are in nats per target, between the target's distribution over A, C, G, T and the predicted one:
``-sum(target * log(predicted))``. Shape suffixes: B windows, T targets of a window, S sums, 4 bases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from mutbert.progress import progress_bar
from mutbert.windows.dataset import targets_of
from mutbert.windows.sampler import genome_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from mutbert.arrays import Float32, Float64, Int64
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.windows.dataset import Targets, WindowDataset
    from mutbert.windows.sampler import Part

_EDGES: Final = (0.05, 0.1, 0.2, 0.5)
GROUPS: Final = (
    "all", "variant", "other", "variant, below 0.05", "variant, 0.05 to 0.1", "variant, 0.1 to 0.2",
    "variant, 0.2 to 0.5", "variant, 0.5 and above",
)  # fmt: skip
"""Kinds of targets: all, variant ones, the others, and variant ones by the frequency of what is not the reference."""

CALIBRATED: Final = ("all targets", "variant targets")
FLOOR: Final = "entropy floor"
"""Name of predicting the target itself."""
_BINS: Final = 10
_WINDOWS_AT_ONCE: Final = 256
_ORDER: Final = 5  # bases before a position that the Markov chain reads
_CONTEXTS: Final = 4**_ORDER


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
    binned = zip(CALIBRATED, sums[2 * len(GROUPS) :].reshape(len(CALIBRATED), 3, _BINS), strict=True)
    calibration = {
        name: [
            {"predicted": float(predicted / count), "observed": float(observed / count), "pairs": int(count)}
            for count, predicted, observed in part.T if count
        ]
        for name, part in binned
    }  # fmt: skip
    targets = dict(zip(GROUPS, counts.astype(int).tolist(), strict=True))
    return HeldOut(dict(zip(GROUPS, means.tolist(), strict=True)), targets, calibration)


def held_out_windows(dataset: WindowDataset) -> str:
    """Return the windows of an evaluation as a table, so that other programs can evaluate the same ones.

    Tab-separated: genome, contig, start and end (0-based, half-open), and the targets as comma-separated offsets from
    the start.
    """
    lines = ["genome\tcontig\tstart\tend\ttargets\n"]
    sampler = dataset.sampler
    names = [genome_name(part.genome) for part in sampler.parts]
    for indices, places in _batches(dataset):
        targets = dataset.batch(indices.tolist())["target_places"].tolist()
        columns = places.genome_B.tolist(), sampler.contig_names(places), places.start_B.tolist(), targets
        for genome, contig, start, offsets in zip(*columns, strict=True):
            place = f"{names[genome]}\t{contig}\t{start}\t{start + sampler.length}"
            lines.append(f"{place}\t{','.join(map(str, offsets))}\n")
    return "".join(lines)


def fit_baselines(parts: Sequence[Part], *, chunk: int = 1 << 22, progress: bool = False) -> tuple[Float64, Float64]:
    """Return shares of bases (4,), and of bases after every five (1024, 4), in the training regions of all genomes.

    A position that varies adds its allele frequencies, so that counts are expected counts in the population; the five
    bases before, the first most significant, are the reference's. One is added to every count after five (Laplace).
    """
    composition = np.zeros(4)
    markov = np.ones((_CONTEXTS, 4))
    total = sum(len(region) for part in parts for region in part.regions)
    with progress_bar("counting bases", total, unit="bases", show=progress) as advance:
        every = ((part.genome, region) for part in parts for region in part.regions)
        for genome, region in (
            (genome, replace(whole, start=start, end=min(start + chunk, whole.end)))
            for genome, whole in every for start in range(whole.start, whole.end, chunk)
        ):  # fmt: skip
            base = genome.bases(region.contig, region.start, region.end)
            frequency = genome.frequencies(region.contig, region.start, region.end)
            known = base < 4
            # The five bases before a chunk are read with it, so that chunks leave no seam.
            context = _contexts(genome, region.contig, region.start, region.end)
            usable = known & (context >= 0)
            composition += frequency[known].sum(axis=0, dtype=np.float64)
            for letter in range(4):
                weights = frequency[usable, letter]
                markov[:, letter] += np.bincount(context[usable], weights=weights, minlength=_CONTEXTS)
            advance(len(region))
    return composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True)


def evaluate_baselines(composition: Float64, markov: Float64, dataset: WindowDataset) -> dict[str, HeldOut]:
    """Return what trivial predictors achieve on a dataset's targets, by name, with `FLOOR` last.

    The Markov chain reads the true five bases before each target, even those that are hidden from the model, so it
    knows more than the model there. Where one of the five is unknown, it predicts the composition.
    """
    sums: dict[str, list[Float32]] = {}
    sampler = dataset.sampler
    for indices, places in _batches(dataset):
        targets = targets_of(dataset.batch(indices.tolist()))
        located = zip(places.genome_B, sampler.contig_names(places), places.start_B, strict=True)
        context_BL = np.stack(
            [_contexts(sampler.parts[one].genome, name, at, at + sampler.length) for one, name, at in located]
        )
        context_BT = np.take_along_axis(context_BL, targets.place_BT.numpy() - 1, axis=1)
        markov_BT4 = np.where((context_BT >= 0)[..., None], markov[context_BT], composition)
        predictions = {
            "uniform": np.full_like(markov_BT4, 0.25),
            "base composition": np.broadcast_to(composition, markov_BT4.shape),
            "order-5 Markov chain": markov_BT4,
            FLOOR: targets.frequency_BT4.numpy(),
        }
        for name, predicted_BT4 in predictions.items():
            with np.errstate(divide="ignore"):
                log_BT4 = torch.from_numpy(np.log(predicted_BT4))
            sums.setdefault(name, []).append(held_out_sums(log_BT4, targets).numpy())
    return {name: summarise_sums(np.concatenate(parts)) for name, parts in sums.items()}


def _batches(dataset: WindowDataset) -> Iterator[tuple[Int64, Any]]:
    """Yield the indices of some windows and where these are."""
    for indices in np.array_split(np.arange(len(dataset)), range(_WINDOWS_AT_ONCE, len(dataset), _WINDOWS_AT_ONCE)):
        yield indices, dataset.sampler.places(indices)


def _contexts(genome: ProbabilisticGenome, contig: str, start: int, end: int) -> Int64:
    """Return the number of the five bases before each position of a region; -1 where one is ambiguous."""
    before = min(_ORDER, start)
    base = np.full(_ORDER + end - start, 4, dtype=np.int64)
    base[_ORDER - before :] = genome.bases(contig, start - before, end)
    windows_L5 = np.lib.stride_tricks.sliding_window_view(base[:-1], _ORDER)
    context_L = windows_L5 @ 4 ** np.arange(_ORDER)[::-1]
    return np.where((windows_L5 < 4).all(axis=1), context_L, -1)
