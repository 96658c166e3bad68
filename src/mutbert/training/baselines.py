"""What trivial predictors reach on the targets that the model is evaluated on.

All cross-entropies are in nats a target, between the target's distribution over A, C, G, T and the predicted one:
``-sum(target * log(predicted))``. Shape suffixes: B windows, L positions, 4 bases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.regions import Region
    from mutbert.windows.dataset import WindowDataset

    Float64 = npt.NDArray[np.float64]
    Int64 = npt.NDArray[np.int64]

ORDER: Final = 5
"""Bases before a position that the Markov chain looks at."""
_CONTEXTS: Final = 4**ORDER
_CHUNK: Final = 1 << 22
_EVALUATION_BATCH: Final = 256


class CrossEntropy(NamedTuple):
    """Mean cross-entropy in nats a target, over three sets of targets.

    Parameters
    ----------
    all_targets : float
        Over all targets.
    variant_targets : float
        Over those at positions that vary; not a number where there are none.
    other_targets : float
        Over the others.
    """

    all_targets: float
    variant_targets: float
    other_targets: float


@dataclass(frozen=True)
class Baselines:
    """Predictors fitted on the training regions.

    Parameters
    ----------
    composition : ndarray of float64, shape (4,)
        Share of each base, the population's frequencies counted as such.
    markov : ndarray of float64, shape (1024, 4)
        Distribution of the next base after each run of five, A = 0 to T = 3, the first base the most significant.
    """

    composition: Float64
    markov: Float64


def fit_baselines(genome: ProbabilisticGenome, regions: Sequence[Region], *, progress: bool = False) -> Baselines:
    """Count bases, and bases after every run of five, in the training regions.

    A position that varies adds its allele frequencies, so that counts are expected counts in the population; the
    five bases before are the reference's. One is added to every count of a run (Laplace).
    """
    composition = np.zeros(4)
    markov = np.ones((_CONTEXTS, 4))
    total = sum(len(region) for region in regions)
    with progress_bar("counting bases", total, unit="bases", show=progress) as advance:
        for region in _chunks(regions):
            base = genome.bases(region.contig, region.start, region.end)
            frequency = genome.frequencies(region.contig, region.start, region.end)
            known = base < 4
            # The five bases before a chunk are read with it, so that chunks leave no seam.
            context = _contexts(genome, region.contig, region.start, region.end)
            usable = known & (context >= 0)
            composition += frequency[known].sum(axis=0, dtype=np.float64)
            for letter in range(4):
                markov[:, letter] += np.bincount(
                    context[usable], weights=frequency[usable, letter], minlength=_CONTEXTS
                )
            advance(len(region))
    return Baselines(composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True))


def evaluate_baselines(baselines: Baselines, dataset: WindowDataset) -> dict[str, CrossEntropy]:
    """Evaluate trivial predictors on a dataset's targets.

    The Markov chain sees the true five bases before each target, even those that are hidden from the model, so it
    knows more than the model does on that side. Where one of the five is not known, it falls back to the
    composition.

    Returns
    -------
    dict of str to CrossEntropy
        ``uniform``, ``base composition``, ``order-5 Markov chain``, and ``entropy floor``: the cross-entropy of
        predicting the target itself, below which nothing can go.
    """
    sums: dict[str, list[Float64]] = {}
    variant = []
    genome = dataset.sampler.genome
    names = list(genome.contigs)
    length = dataset.sampler.length
    for first in range(0, len(dataset), _EVALUATION_BATCH):
        indices = np.arange(first, min(first + _EVALUATION_BATCH, len(dataset)))
        batch = dataset.batch(indices.tolist())
        mask_BL = batch["target_mask"].numpy()[:, 1:-1]
        target_N4 = batch["labels"].numpy()[:, 1:-1, alphabet.BASE_IDS][mask_BL].astype(np.float64)
        places = dataset.sampler.places(indices)
        context_BL = np.stack(
            [_contexts(genome, names[contig], start, start + length) for contig, start in zip(*places, strict=True)]
        )
        context_N = context_BL[mask_BL]
        markov_N4 = np.where((context_N >= 0)[:, None], baselines.markov[context_N], baselines.composition)
        predictions = {
            "uniform": np.full(4, 0.25),
            "base composition": baselines.composition,
            "order-5 Markov chain": markov_N4,
            "entropy floor": target_N4,
        }
        for name, predicted in predictions.items():
            # A base that the target does not hold adds nothing, whatever was predicted for it.
            log_N4 = np.log(np.where(target_N4 > 0, predicted, 1.0))
            sums.setdefault(name, []).append(-(target_N4 * log_N4).sum(axis=1))
        variant.append(batch["variant_mask"].numpy()[:, 1:-1][mask_BL])
    variant_N = np.concatenate(variant)
    return {name: cross_entropy(np.concatenate(parts), variant_N) for name, parts in sums.items()}


def cross_entropy(loss_N: Float64, variant_N: npt.NDArray[np.bool_]) -> CrossEntropy:
    """Average losses, shape (N,), over all targets, those that vary, and the others."""
    return CrossEntropy(*(float(part.mean()) if part.size else float("nan") for part in (
        loss_N, loss_N[variant_N], loss_N[~variant_N])))  # fmt: skip


def _contexts(genome: ProbabilisticGenome, contig: str, start: int, end: int) -> Int64:
    """Give the number of the run of five bases before each position of a stretch; -1 where one is ambiguous."""
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


def _chunks(regions: Sequence[Region]) -> Iterator[Region]:
    for region in regions:
        for start in range(region.start, region.end, _CHUNK):
            yield replace(region, start=start, end=min(start + _CHUNK, region.end))
