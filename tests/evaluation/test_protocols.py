"""Published and corrected differ where they should: each difference by what it does to a task, through the grid."""

import numpy as np
import torch

from mutbert.encoders.adapter import open_encoder
from mutbert.evaluation.cells import SequenceCells, load_task
from mutbert.evaluation.results import Cell, cell_of, read_predictions, read_records
from mutbert.evaluation.run import GridRequest, run_benchmark
from mutbert.evaluation.suites import load_suite
from mutbert.examples.splits import leaks, sequence_keys
from mutbert.model import MutBertConfig, MutBertForMaskedLM

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def test_published_cannot_see_the_last_base_and_corrected_can(tmp_path, write_rows, random_sequences, model_folders):
    """The shipped suite on a task that the last of 101 bases decides, learnt by a probe."""
    rng, data = np.random.default_rng(0), tmp_path / "data" / "0"
    for seed, (split, count) in enumerate((("train", 200), ("dev", 60), ("test", 80))):
        # Each head once with either last base, and all else the same.
        rows = [(f"{head}{'A' * 97}{last}", int(last == "G")) for head in random_sequences(count // 2, 3, seed)
                for last in "CG"]  # fmt: skip
        write_rows(data / f"{split}.csv", [rows[row] for row in rng.permutation(count)])
    request = GridRequest(
        ("tfbs",), (str(tmp_path / "data"),), (f"small={model_folders['mutbert']}",), ("probe",), tasks=("0",),
        baselines=False,
    )  # fmt: skip
    results = tmp_path / "results"
    run_benchmark(results, request)
    seeds = {(record["protocol"], record["seed"]) for record in read_records(results)}
    assert seeds == {("published", 42), *(("corrected", seed) for seed in range(1, 6))}
    sequences = [line.split(",")[0] for line in (data / "test.csv").read_text().splitlines()[1:]]
    partner = np.array([sequences.index(s[:-1] + {"C": "G", "G": "C"}[s[-1]]) for s in sequences])
    for record in read_records(results):
        _, scores = read_predictions(results, cell_of(record))
        if record["protocol"] == "published":
            # Two sequences that differ in the last base alone are one to the model.
            assert (scores == scores[partner]).all()
            assert record["metrics"]["mcc"] == 0
        else:
            assert (scores != scores[partner]).all()
            assert record["metrics"]["mcc"] > 0.95


def test_published_dynamic_scaling_reaches_the_model(tmp_path, write_rows, random_sequences):
    """A model trained for 512 tokens reads 1,000 bases as published, by twice its length, or by just what it needs."""
    config = MutBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MutBertForMaskedLM(config).save_pretrained(tmp_path / "model")
    for split in ("train", "test"):
        rows = [(sequence, row % 2, "") for row, sequence in enumerate(random_sequences(24, 1000, len(split)))]
        write_rows(tmp_path / "H3K9ac" / f"{split}.csv", rows, ("sequence", "label", "name"))
    used = []

    class Watched:
        """An encoder that notes how its models are loaded."""

        def __getattr__(self, name):
            return getattr(encoder, name)

        def body(self, longest, *, rope_scaling=None):
            model = encoder.body(longest, rope_scaling=rope_scaling)
            used.append((longest, rope_scaling, model.config.rope_scaling["factor"]))
            return model

    encoder = open_encoder(tmp_path / "model")
    cells = SequenceCells(load_suite("nt"), str(tmp_path), lambda _name: Watched())
    for protocol in ("published", "corrected"):
        cells.make(Cell("nt", "H3K9ac", "m", "probe", protocol, 1))
    assert used == [(1002, {"type": "dynamic", "factor": 2.0}, 2.0), (1002, None, 1002 / 512)]


def test_published_validation_data_hold_what_was_trained_on_and_corrected_do_not(
    tmp_path, write_rows, random_sequences
):
    """Every sequence of the training data is there three times, once of them backwards."""
    header, distinct = ("sequence", "label", "name"), random_sequences(100, 300, 1)
    rows = [(bases, row % 2, "") for row, s in enumerate(distinct) for bases in (s, s, s.translate(COMPLEMENT)[::-1])]
    write_rows(tmp_path / "promoter_all" / "train.csv", rows, header)
    write_rows(tmp_path / "promoter_all" / "test.csv", [(s, 1, "") for s in random_sequences(10, 300, 2)], header)
    suite = load_suite("nt")
    for name in suite.protocols:
        keys = []
        for seed in (1, 2):
            parts, about = load_task(suite, str(tmp_path), "promoter_all", name, seed, drop_leaks=False)
            assert [len(part) for part in parts.values()] == [270, 30, 10]
            shared = leaks(parts["train"], parts["validation"]).any()
            counts = {count["split"]: count for count in about["splits"]}
            assert shared == (name == "published") == (counts["validation"]["in_train"] > 0)
            keys.append(sorted(sequence_keys(parts["validation"]).tolist()))
            if name == "corrected":
                # A tenth of each class, in whole groups.
                assert np.bincount(parts["validation"].known_labels).tolist() == [15, 15]
                assert set(np.unique(sequence_keys(parts["validation"]), return_counts=True)[1]) == {3}
        # Another seed is another split.
        assert keys[0] != keys[1]
