import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.windows.dataset import WindowDataset, expand_batch
from mutbert.windows.masking import Masking, Tempering, Weighting
from mutbert.windows.sampler import Part, WindowSampler, select_regions

LENGTH = 30
WEIGHTS = st.floats(0, 100, width=32)


@pytest.mark.parametrize("name", ["variant", "soft_masked"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("inf"), float("nan")])
def test_weights_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError) as caught:
        Weighting(**{name: value})
    assert str(caught.value) == f"weighting.{name} is {value}; it must be 0 or more, and finite"


def make(genome, weighting, reverse=0.0, policy="uniform"):
    sampler = WindowSampler([Part(genome, select_regions(genome, ["chr0", "chr1"]))], LENGTH, seed=3, reverse=reverse)
    return WindowDataset(sampler, Masking(policy, 0.4), Tempering(), 40, weighting=weighting)


@pytest.fixture(scope="module")
def genome(random_genome):
    return random_genome(5, [400, 150])


@pytest.mark.parametrize("weighting", [Weighting(3, 1), Weighting(1, 0.25), Weighting(0, 5), Weighting(2.5, 0.1)])
@pytest.mark.parametrize("reverse", [0, 0.5])
def test_targets_have_the_weights_of_their_places_and_nothing_else_changes(genome, weighting, reverse):
    dataset = make(genome, weighting, reverse)
    batch = dataset.batch(range(40))
    places = dataset.sampler.places(np.arange(40))
    varying = {name: set(genome.variants(name).position.tolist()) for name in genome.contigs}
    masked = {name: genome.soft_masked(name, 0, contig.length) for name, contig in genome.contigs.items()}
    seen = set()
    for row, contig in enumerate(dataset.sampler.contig_names(places)):
        for target, column in enumerate(batch["target_places"][row].tolist()):
            step = LENGTH - 1 - column if places.reverse_B[row] else column
            position = int(places.start_B[row]) + step
            kind = position in varying[contig], bool(masked[contig][position])
            expected = (weighting.variant if kind[0] else 1) * (weighting.soft_masked if kind[1] else 1)
            assert batch["target_weights"][row, target].item() == pytest.approx(expected)
            seen.add(kind)
    assert len(seen) == 4

    even = make(genome, Weighting(), reverse).batch(range(40))
    assert "target_weights" not in even
    assert set(batch) == {*even, "target_weights"}
    assert all(torch.equal(batch[name], even[name]) for name in even)

    dense, dense_even = expand_batch(batch), expand_batch(even)
    assert set(dense) == {*dense_even, "target_weights"}
    assert all(torch.equal(dense[name], dense_even[name]) for name in dense_even)
    assert torch.equal(dense["target_weights"], batch["target_weights"])


def test_a_soft_mask_that_is_not_there_cannot_be_weighed(make_genome):
    upper = make_genome({"chr0": "ACGT" * 20, "chr1": "ACGT" * 20})
    with pytest.raises(InputError) as caught:
        make(upper, Weighting(soft_masked=0.1))
    assert str(caught.value) == (
        "weighting.soft_masked is set, but the genome has no soft-masked bases; build it from a FASTA with repeats in "
        "lower case, or leave weighting.soft_masked at 1"
    )
    # What varies can be weighed all the same.
    assert set(make(upper, Weighting(variant=2)).batch([0])["target_weights"].tolist()[0]) == {1.0}
