"""Trivial predictors against counts made one base at a time."""

import numpy as np
import pytest

from mutbert import alphabet
from mutbert.regions import Region
from mutbert.training.baselines import evaluate_baselines, fit_baselines
from mutbert.windows.dataset import WindowDataset
from mutbert.windows.masking import Masking, Tempering
from mutbert.windows.sampler import Part, WindowSampler

REGIONS = [Region("chr1", 0, 700), Region("chr1", 900, 1203)]


def count_one_by_one(genome):
    composition, markov = np.zeros(4), np.ones((4**5, 4))
    for region in REGIONS:
        for position in range(region.start, region.end):
            frequency = genome.frequencies("chr1", position, position + 1)[0]
            composition += frequency
            if position >= 5:
                before = alphabet.decode(genome.bases("chr1", position - 5, position))
                markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)] += frequency
    return composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [1 << 22, 97])
def test_fitted_counts_are_those_of_a_plain_loop(genome, chunk):
    fitted = fit_baselines([Part(genome, REGIONS)], chunk=chunk)
    composition, markov = count_one_by_one(genome)
    np.testing.assert_allclose(fitted.composition, composition, rtol=1e-6)
    np.testing.assert_allclose(fitted.markov, markov, rtol=1e-6)


def test_cross_entropies_are_those_of_a_plain_loop(genome):
    fitted = fit_baselines([Part(genome, REGIONS)])
    sampler = WindowSampler([Part(genome, [Region("chr2", 0, 1500)])], 25, seed=2)
    dataset = WindowDataset(sampler, Masking(share=0.3, replace=1, random=0, keep=0), Tempering(), size=300)
    result = evaluate_baselines(fitted, dataset)

    losses = {"uniform": [], "base composition": [], "order-5 Markov chain": [], "entropy floor": []}
    varies = []
    for index in range(300):
        start = int(sampler.places(np.array([index])).start_B[0])
        for place in dataset[index]["target_places"][0].tolist():
            position = start + place
            target = genome.frequencies("chr2", position, position + 1)[0].astype(float)
            chain = fitted.composition
            if position >= 5:
                before = alphabet.decode(genome.bases("chr2", position - 5, position))
                chain = fitted.markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)]
            held = target > 0
            for name, predicted in (
                ("uniform", np.full(4, 0.25)), ("base composition", fitted.composition),
                ("order-5 Markov chain", chain), ("entropy floor", target),
            ):  # fmt: skip
                losses[name].append(-(target[held] * np.log(predicted[held])).sum())
            varies.append(len(genome.variants("chr2", position, position + 1).position) == 1)
    for name, values in losses.items():
        values, mask = np.array(values), np.array(varies)
        expected = (values.mean(), values[mask].mean(), values[~mask].mean())
        found = [result[name].cross_entropy[group] for group in ("all", "variant", "other")]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    assert result["uniform"].cross_entropy["all"] == pytest.approx(np.log(4))
    assert result["entropy floor"].cross_entropy["other"] == 0


def test_counts_of_several_genomes_add_up(genome):
    first, second = ([region] for region in REGIONS)
    apart = fit_baselines([Part(genome, first), Part(genome, second)])
    together = fit_baselines([Part(genome, REGIONS)])
    np.testing.assert_allclose(apart.composition, together.composition)
    np.testing.assert_allclose(apart.markov, together.markov)
