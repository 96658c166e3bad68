import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mutbert import alphabet
from mutbert.errors import InputError
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


def test_a_soft_mask_that_is_not_there_cannot_be_weighed(make_genome):
    upper = make_genome({"chr0": "ACGT" * 20, "chr1": "ACGT" * 20})
    with pytest.raises(
        InputError, match=r"weighting\.soft_masked is set, but the genome has no soft-masked bases; build"
    ):
        make([upper], weighting=Weighting(soft_masked=0.1))
    # What varies can be weighed all the same.
    assert set(make([upper], weighting=Weighting(variant=2)).batch([0])["target_weights"].tolist()[0]) == {1.0}


# ---- dense batches against plain loops over compact batches that are made up

SETS = ["A", "C", "G", "T", "AG", "CT", "CG", "AT", "GT", "AC", "CGT", "AGT", "ACT", "ACG"]


@st.composite
def batches(draw):
    """A compact batch; the codes are all but N, and IUPAC codes may vary too."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    count = draw(st.integers(0, length))
    places = np.flatnonzero(rng.random(rows * length) < draw(st.sampled_from([0, 0.2, 1])))
    frequency = rng.dirichlet(np.full(4, 0.3), len(places)) if draw(st.booleans()) else np.empty((0, 4))
    batch = {
        "base_codes": rng.integers(0, len(SETS), (rows, length)).astype(np.uint8),
        "variant_places": rng.permutation(places).astype(np.int32),
        "variant_frequencies": frequency.astype(np.float32),
        "target_places": np.array([np.sort(rng.permutation(length)[:count]) for _ in range(rows)])
        .reshape(rows, count)
        .astype(draw(st.sampled_from([np.int16, np.int32]))),
        "target_inputs": rng.choice([4, 5, 6, 7, 8, KEPT], (rows, count)).astype(np.uint8),
    }
    if draw(st.booleans()):
        batch["target_weights"] = rng.random((rows, count)).astype(np.float32)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def reference(code):
    return [(base in SETS[code]) / len(SETS[code]) for base in "ACGT"]


def distribution(batch, row, column):
    """The distribution over A, C, G, T at a position."""
    place = row * batch["base_codes"].shape[1] + column
    if len(batch["variant_frequencies"]):
        for number, other in enumerate(batch["variant_places"].tolist()):
            if other == place:
                return batch["variant_frequencies"][number].tolist()
    return reference(int(batch["base_codes"][row, column]))


def one(token):
    return [float(token == other) for other in range(9)]


@given(batches())
def test_a_dense_batch_is_that_of_a_plain_loop(batch):
    before = {name: tensor.clone() for name, tensor in batch.items()}
    dense = expand_batch(batch)
    rows, length = batch["base_codes"].shape
    inputs, labels = [], []
    for row in range(rows):
        inner = [[0.0] * 5 + distribution(batch, row, column) for column in range(length)]
        inputs.append([one(alphabet.CLS_ID), *inner, one(alphabet.SEP_ID)])
        labels.append([])
        for target, column in enumerate(batch["target_places"][row].tolist()):
            labels[row].append(inputs[row][column + 1])
            token = int(batch["target_inputs"][row, target])
            if token != KEPT:
                inputs[row][column + 1] = one(token)
    labels = np.array(labels, dtype=np.float32).reshape(*batch["target_places"].shape, 9)
    for name, expected in (("labels", labels), ("input_probs", inputs)):
        assert dense[name].dtype == torch.float32
        np.testing.assert_array_equal(dense[name].numpy(), np.array(expected, dtype=np.float32))
    assert dense["target_places"].dtype == torch.int64
    assert torch.equal(dense["target_places"], batch["target_places"].long() + 1)
    if "target_weights" in batch:
        assert torch.equal(dense["target_weights"], batch["target_weights"])
    assert all(torch.equal(batch[name], before[name]) for name in before)


@given(batches())
def test_targets_are_those_of_a_plain_loop(batch):
    found = targets_of(batch)
    rows, count = batch["target_places"].shape
    length = batch["base_codes"].shape[1]
    assert found.frequency_BT4.shape == (rows, count, 4)
    assert found.place_BT.shape == found.variant_BT.shape == found.alternate_BT.shape == (rows, count)
    varying = set(batch["variant_places"].tolist())
    for row in range(rows):
        for target, column in enumerate(batch["target_places"][row].tolist()):
            frequency = distribution(batch, row, column)
            alternate = 1 - np.dot(reference(int(batch["base_codes"][row, column])), frequency)
            assert found.place_BT[row, target] == column + 1
            assert found.frequency_BT4[row, target].tolist() == pytest.approx(frequency)
            assert bool(found.variant_BT[row, target]) == (row * length + column in varying)
            assert found.alternate_BT[row, target].item() == pytest.approx(alternate, abs=1e-6)
