from typing import get_args

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mutbert import alphabet
from mutbert.windows.dataset import WindowDataset, expand_batch, targets_of
from mutbert.windows.masking import KEPT, Masking, Policy, Tempering, Weighting, choose_targets, corrupt, temper
from mutbert.windows.randomness import random_bits
from mutbert.windows.sampler import Part, WindowSampler, select_regions

LENGTH = 20
MASKING = Masking("uniform", share=0.3, replace=0.5, random=0.25, keep=0.25)
TEMPERINGS = [Tempering(), Tempering("log", 0.5), Tempering("published")]
PLAIN = Tempering()


@pytest.fixture(scope="module")
def genomes(random_genome):
    return [random_genome(0, [300, 50]), random_genome(1, [120])]


def whole(genome):
    return Part(genome, select_regions(genome, list(genome.contigs)))


def make(genomes, masking=MASKING, tempering=PLAIN, *, length=LENGTH, reverse=0.0, seed=11, **others):
    sampler = WindowSampler([whole(genome) for genome in genomes], length, seed=seed, reverse=reverse)
    return WindowDataset(sampler, masking, tempering, size=64, **others)


def placed(sampler, index):
    """Genome, contig, start and strand of a window."""
    places = sampler.places(np.array([index]))
    (name,) = sampler.contig_names(places)
    return sampler.parts[places.genome_B[0]].genome, name, int(places.start_B[0]), bool(places.reverse_B[0])


def varying(genome, name, start, backwards, length=LENGTH):
    columns = genome.variants(name, start, start + length).position - start
    return length - 1 - columns[::-1] if backwards else columns


def uncorrupted(batch):
    """The model's input, had all targets been kept as they are."""
    kept = torch.full_like(batch["target_inputs"], KEPT)
    return expand_batch(batch | {"target_inputs": kept})["input_probs"]


@pytest.mark.parametrize("frequencies", ["population", "reference"])
@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("reverse", [0.0, 0.5])
def test_a_batch_is_what_the_genome_says(genomes, tempering, frequencies, reverse):
    dataset = make(genomes, tempering=tempering, frequencies=frequencies, reverse=reverse)
    indices = [5, 0, 63, 5, *range(20)]
    batch = dataset.batch(indices)
    shown = uncorrupted(batch).numpy()
    variants = []
    for row, index in enumerate(indices):
        genome, name, start, backwards = placed(dataset.sampler, index)
        columns = varying(genome, name, start, backwards)
        if frequencies == "population":
            expected = genome.frequencies(name, start, start + LENGTH)
        else:
            expected = alphabet.DISTRIBUTIONS[genome.bases(name, start, start + LENGTH)]
        if backwards:
            expected = expected[::-1, ::-1].copy()
        if frequencies == "population":
            expected[columns] = temper(expected[columns], tempering)
        np.testing.assert_allclose(shown[row, 1:-1, alphabet.BASE_IDS], expected, atol=1e-6)
        assert shown[row, 0].tolist() == [token == alphabet.CLS_ID for token in range(9)]
        assert shown[row, -1].tolist() == [token == alphabet.SEP_ID for token in range(9)]
        assert not shown[row, 1:-1, : alphabet.BASE_IDS.start].any()
        variants += (row * LENGTH + columns).tolist()
    assert batch["variant_places"].tolist() == variants
    assert len(batch["variant_frequencies"]) == (len(variants) if frequencies == "population" else 0)


@pytest.mark.parametrize("policy", get_args(Policy))
def test_targets_and_what_is_seen_there_follow_the_window_s_own_streams(genomes, policy):
    masking = Masking(policy, 0.3, 0.5, 0.25, 0.25, variant_weight=4, span_length=3)
    dataset = make(genomes, masking, reverse=0.5)
    batch = dataset.batch(range(64))
    for row in range(64):
        variant = np.zeros((1, LENGTH), dtype=bool)
        variant[0, varying(*placed(dataset.sampler, row))] = True
        index = np.array([row])
        expected = choose_targets(variant, random_bits(11, 2, index, masking.draws(LENGTH)), masking)[0].tolist()
        assert batch["target_places"][row].tolist() == expected
        seen = corrupt(random_bits(11, 3, index, LENGTH), masking)[0]
        assert batch["target_inputs"][row].tolist() == seen[expected].tolist()


def test_a_share_that_changes_is_one_within_a_step(genomes):
    dataset = make(genomes, Masking("uniform", 0.6, final_share=0.2), steps=8)
    for step, count in enumerate([12, 10, 9, 8, 7, 6, 5, 4]):
        for indices in (range(8 * step, 8 * step + 8), [8 * step + 7]):
            batch = dataset.batch(indices)
            assert batch["target_places"].shape == (len(indices), count)
            fixed = make(genomes, Masking("uniform", (count + 0.5) / LENGTH)).batch(indices)
            assert all(torch.equal(batch[name], fixed[name]) for name in fixed)
    with pytest.raises(AssertionError, match="a batch is of one step"):
        dataset.batch([7, 8])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_loader_gives_the_same_batches_whatever_its_workers(genomes, workers):
    dataset = make(genomes, reverse=0.5, weighting=Weighting(2, 0.5))
    loader = DataLoader(dataset, batch_size=24, collate_fn=dict, num_workers=workers)
    for number, batch in enumerate(loader):
        expected = dataset.batch(range(24 * number, min(24 * number + 24, 64)))
        assert set(batch) == set(expected)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert number == 2


@pytest.mark.parametrize(("length", "kind"), [(1 << 15, torch.int16), ((1 << 15) + 1, torch.int32)])
def test_places_in_long_windows_are_kept(make_genome, length, kind):
    genome = make_genome({"chr1": "ACGT" * 9000})
    batch = make([genome], Masking("uniform", 1.0, 1.0, 0.0, 0.0), length=length).batch([0])
    assert batch["target_places"].dtype == kind
    assert batch["target_places"][0].tolist() == list(range(length))
    dense = expand_batch(batch)
    assert dense["target_places"][0].tolist() == list(range(1, length + 1))
    assert (dense["input_probs"][0, 1:-1, alphabet.MASK_ID] == 1).all()


@pytest.mark.parametrize("weighting", [Weighting(3, 1), Weighting(1, 0.25), Weighting(0, 5), Weighting(2.5, 0.1)])
@pytest.mark.parametrize("reverse", [0, 0.5])
def test_targets_have_the_weights_of_their_places_and_nothing_else_changes(genomes, weighting, reverse):
    genome = genomes[0]
    dataset = make([genome], length=30, reverse=reverse, weighting=weighting)
    batch = dataset.batch(range(40))
    places = dataset.sampler.places(np.arange(40))
    varying = {name: set(genome.variants(name).position.tolist()) for name in genome.contigs}
    masked = {name: genome.soft_masked(name, 0, contig.length) for name, contig in genome.contigs.items()}
    seen = set()
    for row, contig in enumerate(dataset.sampler.contig_names(places)):
        for target, column in enumerate(batch["target_places"][row].tolist()):
            step = 29 - column if places.reverse_B[row] else column
            position = int(places.start_B[row]) + step
            kind = position in varying[contig], bool(masked[contig][position])
            expected = (weighting.variant if kind[0] else 1) * (weighting.soft_masked if kind[1] else 1)
            assert batch["target_weights"][row, target].item() == pytest.approx(expected)
            seen.add(kind)
    assert len(seen) == 4

    even = make([genome], length=30, reverse=reverse).batch(range(40))
    assert set(batch) == {*even, "target_weights"}
    assert all(torch.equal(batch[name], even[name]) for name in even)


@pytest.mark.parametrize("frequencies", ["population", "reference"])
def test_a_dense_batch_is_corrupted_at_its_targets_alone(genomes, frequencies):
    batch = make(genomes, reverse=0.5, frequencies=frequencies, weighting=Weighting(2, 0.5)).batch(range(64))
    shown, dense, targets = uncorrupted(batch), expand_batch(batch), targets_of(batch)
    wanted, varies = shown.clone(), set(batch["variant_places"].tolist())
    for row, columns in enumerate(batch["target_places"].tolist()):
        for target, column in enumerate(columns):
            label, seen = shown[row, column + 1], int(batch["target_inputs"][row, target])
            if seen != KEPT:
                wanted[row, column + 1] = torch.eye(9)[seen]
            assert torch.equal(dense["labels"][row, target], label)
            assert torch.equal(targets.frequency_BT4[row, target], label[5:])
            assert bool(targets.variant_BT[row, target]) == (row * LENGTH + column in varies)
            alternate = 1 - label[5:].numpy() @ alphabet.DISTRIBUTIONS[batch["base_codes"][row, column]]
            assert targets.alternate_BT[row, target].item() == pytest.approx(alternate, abs=1e-6)
    assert torch.equal(dense["input_probs"], wanted)
    assert torch.equal(dense["target_weights"], batch["target_weights"])
    for places in (dense["target_places"], targets.place_BT):
        assert torch.equal(places, batch["target_places"].long() + 1)
