import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.model.modeling_mutbert import target_loss
from mutbert.windows.batches import expand_batch
from mutbert.windows.dataset import WindowDataset
from mutbert.windows.masking import Masking, Weighting, weigh_targets
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import Part, select_regions
from mutbert.windows.tempering import Tempering

LENGTH = 30
WEIGHTS = st.floats(0, 100, width=32)


@given(st.integers(0, 1000), st.integers(0, 5), st.integers(0, 8), WEIGHTS, WEIGHTS)
def test_weights_multiply(seed, rows, targets, variant, soft_masked):
    varies, masked = np.random.default_rng(seed).random((2, rows, targets)) < 0.5
    weight = weigh_targets(varies, masked, Weighting(variant, soft_masked))
    assert (weight.dtype, weight.shape) == (np.float32, (rows, targets))
    for row in range(rows):
        for target in range(targets):
            expected = 1.0
            if varies[row, target]:
                expected *= variant
            if masked[row, target]:
                expected *= soft_masked
            assert weight[row, target] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["variant", "soft_masked"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("inf"), float("nan")])
def test_weights_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError) as caught:
        Weighting(**{name: value})
    assert str(caught.value) == f"weighting.{name} is {value}; it must be 0 or more, and finite"


def test_what_is_even():
    assert Weighting().is_even
    assert Weighting(0, 0) == Weighting(variant=0, soft_masked=0)
    assert not any(Weighting(*pair).is_even for pair in [(2, 1), (1, 0), (0.5, 0.5), (2, 2)])


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


def test_the_loss_is_the_sum_of_weights_times_losses_over_the_number_of_targets(genome):
    batch = make(genome, Weighting(3, 0.25), policy="variants_first").batch(range(40))
    dense = expand_batch(batch)
    labels, weights = dense["labels"], dense["target_weights"]
    logits = torch.randn(*labels.shape, generator=torch.Generator().manual_seed(0))
    total, count = 0.0, 0
    for row in range(40):
        for target in range(batch["target_places"].shape[1]):
            scores = logits[row, target].double().numpy()
            log_probabilities = scores - np.log(np.exp(scores).sum())
            loss = -(labels[row, target].double().numpy() * log_probabilities).sum()
            total += batch["target_weights"][row, target].item() * loss
            count += 1
    assert count == 40 * 12
    assert target_loss(logits, labels, weights).item() == pytest.approx(total / count, rel=1e-5)
    # However a batch is divided, its loss is the mean of its parts' losses.
    parts = [target_loss(*(x[some] for x in (logits, labels, weights))) for some in (slice(20), slice(20, 40))]
    assert sum(parts).item() / 2 == pytest.approx(total / count, rel=1e-5)


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
