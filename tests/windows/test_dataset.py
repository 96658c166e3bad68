import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mutbert import alphabet
from mutbert.windows.dataset import WindowDataset, expand_batch, whole_batch
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
    assert shown.shape == (len(indices), LENGTH + 2, alphabet.VOCABULARY_SIZE)
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


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_loader_gives_the_same_batches_whatever_its_workers(genomes, workers):
    dataset = make(genomes, reverse=0.5, weighting=Weighting(2, 0.5))
    loader = DataLoader(dataset, batch_size=24, collate_fn=whole_batch, num_workers=workers)
    batches = list(loader)
    assert [len(batch["base_codes"]) for batch in batches] == [24, 24, 16]
    for number, batch in enumerate(batches):
        expected = dataset.batch(range(24 * number, min(24 * number + 24, 64)))
        assert set(batch) == set(expected)
        assert len(batch) == 6
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from(get_args(Policy)),
    st.sampled_from([0, 0.5]),
    st.sampled_from(["population", "reference"]),
)
def test_windows_are_the_same_in_any_batching(genomes, indices, cuts, policy, reverse, frequencies):
    masking = Masking(policy, 0.3, 0.5, 0.25, 0.25)
    dataset = make(genomes, masking, reverse=reverse, frequencies=frequencies, weighting=Weighting(2, 0.5))
    together = dataset.batch(indices)
    edges = [0, *sorted(min(cut, len(indices)) for cut in cuts), len(indices)]
    parts = [dataset.__getitems__(indices[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    shift = 0
    for part in parts:
        part["variant_places"] = part["variant_places"] + shift * LENGTH
        shift += len(part["base_codes"])
    for name, whole_tensor in together.items():
        joined = torch.cat([part[name] for part in parts])
        assert joined.dtype == whole_tensor.dtype
        assert torch.equal(joined, whole_tensor)


def test_a_batch_is_compact(make_genome):
    # A variant in 60 bases, which is what 1000 Genomes has above a frequency of 1 %, twice over.
    rng = np.random.default_rng(0)
    sequence = "".join(rng.choice(list("ACGTacgt"), 20_000))
    rows = dict.fromkeys(range(0, 20_000, 60), (0.9, 0.1, 0, 0))
    genome = make_genome({"chr1": sequence}, {"chr1": rows})
    batch = make([genome], Masking(), length=510).batch(range(100))
    kinds = {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in batch.items()}
    variants = len(batch["variant_places"])
    assert variants == pytest.approx(100 * 510 / 60, abs=100)
    assert kinds == {
        "base_codes": ("uint8", (100, 510)),
        "variant_places": ("int32", (variants,)),
        "variant_frequencies": ("float32", (variants, 4)),
        "target_places": ("int16", (100, 76)),
        "target_inputs": ("uint8", (100, 76)),
    }
    # Torch's own storage is not larger, so that no worker sends more.
    assert sum(tensor.untyped_storage().nbytes() for tensor in batch.values()) < 100 * 1000
    assert sum(tensor.nbytes for tensor in expand_batch(batch).values()) > 100 * 20_000


@pytest.mark.parametrize(("length", "kind"), [(1 << 15, torch.int16), ((1 << 15) + 1, torch.int32)])
def test_places_in_long_windows_are_kept(make_genome, length, kind):
    genome = make_genome({"chr1": "ACGT" * 9000})
    batch = make([genome], Masking("uniform", 1.0, 1.0, 0.0, 0.0), length=length).batch([0])
    assert batch["target_places"].dtype == kind
    assert batch["target_places"][0].tolist() == list(range(length))
    dense = expand_batch(batch)
    assert dense["target_places"][0].tolist() == list(range(1, length + 1))
    assert (dense["input_probs"][0, 1:-1, alphabet.MASK_ID] == 1).all()
