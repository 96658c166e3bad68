import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mutbert import alphabet
from mutbert.genome.store import ProbabilisticGenome, StoreWriter, float_to_fixed
from mutbert.regions import Region
from mutbert.windows.dataset import WindowDataset, whole_batch
from mutbert.windows.masking import Masking
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.tempering import Tempering, temper

LENGTH = 20


@pytest.fixture
def genome(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 4, 300).astype(np.uint8)
    base[100] = alphabet.IUPAC.index("R")
    position = np.arange(3, 300, 7, dtype=np.uint32)
    frequency = rng.dirichlet(np.ones(4), len(position))
    with StoreWriter(tmp_path) as writer:
        writer.add_contig("chr1", base, position, float_to_fixed(frequency))
        writer.finish()
    return ProbabilisticGenome.open(tmp_path)


def make_dataset(genome, tempering=Tempering(), masking=Masking(share=0.3, replace=0.5, random=0.25, keep=0.25)):  # noqa: B008
    sampler = WindowSampler(genome, LENGTH, [Region("chr1", 0, 300)], seed=11)
    return WindowDataset(sampler, masking, tempering, size=64)


@pytest.mark.parametrize("tempering", [Tempering(), Tempering("log"), Tempering("published")])
def test_a_batch_is_what_the_genome_says(genome, tempering):
    dataset = make_dataset(genome, tempering)
    indices = [5, 0, 63]
    batch = dataset.batch(indices)
    starts = dataset.sampler.places(np.array(indices)).start_B
    for row, start in enumerate(starts):
        labels = batch["labels"][row].numpy()
        expected = genome.frequencies("chr1", start, start + LENGTH)
        varying = genome.variants("chr1", start, start + LENGTH).position - start
        expected[varying] = temper(expected[varying], tempering)
        np.testing.assert_allclose(labels[1:-1, alphabet.BASE_IDS], expected, atol=1e-6)
        assert labels[0].argmax() == alphabet.CLS_ID
        assert labels[-1].argmax() == alphabet.SEP_ID
        np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
        assert np.flatnonzero(batch["variant_mask"][row].numpy()).tolist() == (varying + 1).tolist()


def test_inputs_differ_from_labels_at_targets_alone(genome):
    dataset = make_dataset(genome)
    batch = dataset.batch(range(64))
    inputs, labels, targets = batch["input_probs"], batch["labels"], batch["target_mask"]
    assert targets.sum(1).tolist() == [6] * 64
    assert not targets[:, [0, -1]].any()
    assert torch.equal(inputs[~targets], labels[~targets])
    at_targets = inputs[targets]
    masked = at_targets[:, alphabet.MASK_ID] == 1
    kept = (at_targets == labels[targets]).all(-1)
    one_base = (at_targets[:, alphabet.BASE_IDS] == 1).any(-1)
    assert (masked | kept | one_base).all()
    assert masked.any()
    assert (one_base & ~kept).any()


def test_the_loader_gives_the_same_batches_whatever_its_workers(genome):
    dataset = make_dataset(genome)
    whole = dataset.batch(range(64))
    for workers in (0, 1):
        loader = DataLoader(dataset, batch_size=16, collate_fn=whole_batch, num_workers=workers)
        for name in whole:
            assert torch.equal(torch.cat([batch[name] for batch in loader]), whole[name])
    assert torch.equal(dataset[7]["input_probs"], whole["input_probs"][7])
    assert len(dataset) == 64
