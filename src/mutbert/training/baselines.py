"""Trivial predictors on the targets that the model is evaluated on.

Shape suffixes: B windows, L positions, T targets of a window, 4 bases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from mutbert.progress import progress_bar
from mutbert.training.held_out import held_out_sums, summarise_sums
from mutbert.windows.dataset import targets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mutbert.arrays import Float32, Float64, Int64
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.regions import Region
    from mutbert.training.held_out import HeldOut
    from mutbert.windows.dataset import WindowDataset
    from mutbert.windows.sampler import Part


ORDER: Final = 5
"""Bases before a position that the Markov chain reads."""
FLOOR: Final = "entropy floor"
"""Name of predicting the target itself."""
_CONTEXTS: Final = 4**ORDER
_EVALUATION_BATCH: Final = 256


class Baselines(NamedTuple):
    """Predictors fitted on the training regions."""

    composition: Float64  # (4,), share of each base, the population's frequencies counted as such
    markov: Float64  # (1024, 4), distribution of the base after each five, A = 0 to T = 3, the first most significant


def fit_baselines(parts: Sequence[Part], *, chunk: int = 1 << 22, progress: bool = False) -> Baselines:
    """Return shares of bases, and of bases after every five, in the training regions of all genomes.

    A position that varies adds its allele frequencies, so that counts are expected counts in the population; the five
    bases before are the reference's. One is added to every count after five bases (Laplace).
    """
    composition = np.zeros(4)
    markov = np.ones((_CONTEXTS, 4))
    total = sum(len(region) for part in parts for region in part.regions)
    with progress_bar("counting bases", total, unit="bases", show=progress) as advance:
        for genome, region in _chunks(parts, chunk):
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
    return Baselines(composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True))


def evaluate_baselines(baselines: Baselines, dataset: WindowDataset) -> dict[str, HeldOut]:
    """Return what trivial predictors achieve on a dataset's targets, by name, with `FLOOR` last.

    The Markov chain reads the true five bases before each target, even those that are hidden from the model, so it
    knows more than the model there. Where one of the five is unknown, it predicts the composition.
    """
    sums: dict[str, list[Float32]] = {}
    sampler = dataset.sampler
    for first in range(0, len(dataset), _EVALUATION_BATCH):
        indices = np.arange(first, min(first + _EVALUATION_BATCH, len(dataset)))
        targets = targets_of(dataset.batch(indices.tolist()))
        places = sampler.places(indices)
        located = zip(places.genome_B, sampler.contig_names(places), places.start_B, strict=True)
        context_BL = np.stack(
            [_contexts(sampler.parts[one].genome, name, at, at + sampler.length) for one, name, at in located]
        )
        context_BT = np.take_along_axis(context_BL, targets.place_BT.numpy() - 1, axis=1)
        markov_BT4 = np.where((context_BT >= 0)[..., None], baselines.markov[context_BT], baselines.composition)
        predictions = {
            "uniform": np.full_like(markov_BT4, 0.25),
            "base composition": np.broadcast_to(baselines.composition, markov_BT4.shape),
            "order-5 Markov chain": markov_BT4,
            FLOOR: targets.frequency_BT4.numpy(),
        }
        for name, predicted_BT4 in predictions.items():
            with np.errstate(divide="ignore"):
                log_BT4 = torch.from_numpy(np.log(predicted_BT4))
            sums.setdefault(name, []).append(held_out_sums(log_BT4, targets).numpy())
    return {name: summarise_sums(np.concatenate(parts)) for name, parts in sums.items()}


def _contexts(genome: ProbabilisticGenome, contig: str, start: int, end: int) -> Int64:
    """Return the number of the five bases before each position of a region; -1 where one is ambiguous."""
    before = min(ORDER, start)
    base = np.full(ORDER + end - start, 4, dtype=np.int64)
    base[ORDER - before :] = genome.bases(contig, start - before, end)
    context = np.zeros(end - start, dtype=np.int64)
    known = np.ones(end - start, dtype=np.bool_)
    for place in range(ORDER):
        part = base[place : place + end - start]
        context = context * 4 + (part & 3)
        known &= part < 4
    context[~known] = -1
    return context


def _chunks(parts: Sequence[Part], chunk: int) -> Iterator[tuple[ProbabilisticGenome, Region]]:
    for genome, regions in parts:
        for region in regions:
            for start in range(region.start, region.end, chunk):
                yield genome, replace(region, start=start, end=min(start + chunk, region.end))
