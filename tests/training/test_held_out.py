"""Held-out sums against plain loops over targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert.training.held_out import CALIBRATED, GROUPS, SUMS, held_out_sums, held_out_windows, summarise_sums
from mutbert.windows.dataset import Targets, WindowDataset
from mutbert.windows.masking import Masking, Tempering
from mutbert.windows.sampler import WindowSampler, select_regions, split_genomes


def draw_targets(seed, windows, count):
    """Invariant targets, and variant ones with frequencies from rare to fixed."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, (windows, count))
    variant = rng.random((windows, count)) < 0.5
    alternate = np.where(variant, rng.choice([0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9, 1.0], variant.shape), 0)
    frequency = np.zeros((windows, count, 4))
    np.put_along_axis(frequency, reference[..., None], 1 - alternate[..., None], axis=2)
    np.put_along_axis(frequency, (reference[..., None] + 1) % 4, alternate[..., None], axis=2)
    predicted = rng.dirichlet(np.ones(9), (windows, count))[..., 5:]
    return Targets(
        torch.zeros(windows, count, dtype=torch.long),
        torch.tensor(frequency, dtype=torch.float32),
        torch.tensor(variant),
        torch.tensor(alternate, dtype=torch.float32),
    ), torch.tensor(predicted, dtype=torch.float32)


def group_of(alternate):
    edges = (0.05, 0.1, 0.2, 0.5)
    names = GROUPS[3:]
    return names[sum(alternate >= np.float32(edge) for edge in edges)]


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12))
def test_cross_entropy_and_calibration_are_those_of_plain_loops(seed, windows, count):
    targets, predicted = draw_targets(seed, windows, count)
    found = summarise_sums(held_out_sums(predicted.log(), targets).numpy())

    losses = {group: [] for group in GROUPS}
    pairs = {name: [[] for _ in range(10)] for name in CALIBRATED}
    for window in range(windows):
        for place in range(count):
            target, guess = targets.frequency_BT4[window, place].tolist(), predicted[window, place].tolist()
            loss = -sum(t * math.log(g) for t, g in zip(target, guess, strict=True))
            varies = bool(targets.variant_BT[window, place])
            names = ["all", "variant" if varies else "other"]
            if varies:
                names.append(group_of(float(targets.alternate_BT[window, place])))
            for name in names:
                losses[name].append(loss)
            for t, g in zip(target, guess, strict=True):
                for name in CALIBRATED if varies else CALIBRATED[:1]:
                    pairs[name][min(int(np.float32(g) * np.float32(10)), 9)].append((g, t))
    for group in GROUPS:
        assert found.targets[group] == len(losses[group])
        if losses[group]:
            assert found.cross_entropy[group] == pytest.approx(np.mean(losses[group]), abs=1e-5)
        else:
            assert math.isnan(found.cross_entropy[group])
    for name in CALIBRATED:
        expected = [(*np.mean(inside, axis=0), len(inside)) for inside in pairs[name] if inside]
        assert len(found.calibration[name]) == len(expected)
        for entry, wanted in zip(found.calibration[name], expected, strict=True):
            assert tuple(entry.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_certain_predictor_is_penalised_where_it_is_wrong_alone():
    targets, _ = draw_targets(3, 4, 10)
    perfect = held_out_sums(targets.frequency_BT4.log(), targets).numpy()
    assert perfect.shape == (4, SUMS)
    found = summarise_sums(perfect)
    assert found.cross_entropy["other"] == 0
    assert np.isfinite(found.cross_entropy["variant"])
    wrong = targets.frequency_BT4.roll(2, dims=-1)
    assert summarise_sums(held_out_sums(wrong.log(), targets).numpy()).cross_entropy["other"] == math.inf


def test_sums_of_parts_are_sums_of_the_whole():
    targets, predicted = draw_targets(5, 6, 8)
    whole = held_out_sums(predicted.log(), targets)
    parts = [held_out_sums(predicted[rows].log(), Targets(*(part[rows] for part in targets)))
             for rows in (slice(0, 2), slice(2, 6))]  # fmt: skip
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_windows_of_an_evaluation_are_listed_with_their_targets(genome):
    split = split_genomes([genome], [], ["chr2"])
    sampler = WindowSampler(split.held_out, 30, seed=1)
    dataset = WindowDataset(sampler, Masking(replace=1, random=0, keep=0), Tempering(), size=1500)
    header, *lines = held_out_windows(dataset).splitlines()
    assert header.split("\t") == ["genome", "contig", "start", "end", "targets"]
    assert len(lines) == 1500
    (region,) = select_regions(genome, ["chr2"])
    for index in (0, 700, 1499):
        name, contig, start, end, targets = lines[index].split("\t")
        assert (name, contig, int(end) - int(start)) == ("small", "chr2", 30)
        assert region.start <= int(start)
        assert int(end) <= region.end
        assert int(start) == sampler.places(np.array([index])).start_B[0]
        assert [int(place) for place in targets.split(",")] == dataset[index]["target_places"][0].tolist()
