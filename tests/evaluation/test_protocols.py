"""Published and corrected differ where they should: each difference by what it does to a task, through the grid."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from mutbert.encoders.adapter import open_encoder
from mutbert.evaluation.cells import SequenceCells
from mutbert.evaluation.results import Cell, cell_of, read_predictions, read_records
from mutbert.evaluation.run import GridRequest, run_benchmark
from mutbert.evaluation.suites import load_suite
from mutbert.evaluation.task_files import load_task
from mutbert.examples.splits import leaks, sequence_keys
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.training.finetune_settings import FinetuneSettings

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def seeds_of(folder, **wanted):
    cells = [
        cell for cell in map(cell_of, read_records(folder)) if all(getattr(cell, k) == v for k, v in wanted.items())
    ]
    return sorted(cell.seed for cell in cells)


@pytest.fixture(scope="module")
def last_base(tmp_path_factory, write_rows, random_sequences, model_folders):
    """The shipped suite on a task that the last of 101 bases decides, learnt by a probe."""
    folder = tmp_path_factory.mktemp("last")
    rng = np.random.default_rng(0)
    for seed, (split, count) in enumerate((("train", 200), ("dev", 60), ("test", 80))):
        heads = random_sequences(count // 2, 3, seed)
        # Each head once with either last base, and all else the same.
        rows = [(head + "A" * 97 + last, int(last == "G")) for head in heads for last in "CG"]
        write_rows(folder / "data" / "0" / f"{split}.csv", [rows[row] for row in rng.permutation(count)])
    request = GridRequest(
        suites=("tfbs",), data={"tfbs": str(folder / "data")}, models=(f"small={model_folders['mutbert']}",),
        methods=("probe",), tasks=("0",), baselines=False,
    )  # fmt: skip
    run_benchmark(folder / "results", request)
    return folder


def test_published_cannot_see_the_last_base_and_corrected_can(last_base):
    text = (last_base / "data" / "0" / "test.csv").read_text().splitlines()[1:]
    sequences = [line.split(",")[0] for line in text]
    row_of = {sequence: row for row, sequence in enumerate(sequences)}
    partner = np.array([row_of[s[:-1] + {"C": "G", "G": "C"}[s[-1]]] for s in sequences])
    for protocol, seed in (("published", 42), ("corrected", 1)):
        cell = Cell("tfbs", "0", "small", "probe", protocol, seed)
        _, scores = read_predictions(last_base / "results", cell)
        mcc = next(record for record in read_records(last_base / "results") if cell_of(record) == cell)["metrics"][
            "mcc"
        ]
        if protocol == "published":
            # Two sequences that differ in the last base alone are one to the model.
            assert (scores == scores[partner]).all()
            assert mcc == 0
        else:
            assert (scores != scores[partner]).all()
            assert mcc > 0.95


def test_one_published_seed_is_42_and_corrected_are_five(last_base):
    assert seeds_of(last_base / "results", protocol="published") == [42]
    assert seeds_of(last_base / "results", protocol="corrected") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("family", "suite", "task", "tokens", "scaling"),
    [
        ("mutbert", "tfbs", "3", 102, None),
        ("esm", "tfbs", "3", None, None),
        ("mutbert", "nt", "H3K4me1", None, {"type": "dynamic", "factor": 2.0}),
        ("mutbert", "nt", "splice_sites_all", None, {"type": "dynamic", "factor": 1.5}),
        ("mutbert", "nt", "promoter_tata", None, None),
        ("nt", "nt", "splice_sites_all", 110, None),
        ("ntv2", "nt", "H4K20me1", 200, None),
        ("dnabert2", "nt", "enhancers", 80, None),
        ("dnabert2", "tfbs", "0", 30, None),
        ("cnn", "tfbs", "0", None, None),
    ],
)
def test_settings_of_a_cell(tmp_path, family, suite, task, tokens, scaling):
    """What the grid fine-tunes with is what the suite says of the family."""

    cells = SequenceCells(load_suite(suite), str(tmp_path), lambda _name: None)
    base = FinetuneSettings(
        learning_rate=1e-3 if family == "cnn" else {"tfbs": 3e-5, "nt": 1e-4}[suite],
        warmup_steps={"tfbs": 50, "nt": 100}[suite],
        eval_steps=200,
        epochs=3.0,
    )
    for protocol in ("published", "corrected"):
        for method in ("full", "lora"):
            found = cells.settings_of(task, protocol, method, family)
            as_published = {"max_tokens": tokens, "rope_scaling": scaling} if protocol == "published" else {}
            assert found == base.replace(method=method, **as_published)


def test_published_dynamic_scaling_reaches_the_model(tmp_path, write_rows, random_sequences):
    """A model trained for 512 tokens reads 1,000 bases as published, by twice its length, or by just what it needs."""
    config = MutBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MutBertForMaskedLM(config).save_pretrained(tmp_path / "model")
    for split in ("train", "test"):
        rows = [(sequence, row % 2) for row, sequence in enumerate(random_sequences(24, 1000, len(split)))]
        write_rows(tmp_path / "H3K9ac" / f"{split}.csv", [(*row, "") for row in rows], ("sequence", "label", "name"))
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
    distinct = random_sequences(100, 300, 1)
    rows = [(turned, row % 2) for row, s in enumerate(distinct) for turned in (s, s, s.translate(COMPLEMENT)[::-1])]
    rows = [(*row, "") for row in rows]
    header = ("sequence", "label", "name")
    write_rows(tmp_path / "promoter_all" / "train.csv", rows, header)
    write_rows(tmp_path / "promoter_all" / "test.csv", [(s, 1, "") for s in random_sequences(10, 300, 2)], header)
    suite = load_suite("nt")
    task = next(task for task in suite.tasks if task.name == "promoter_all")
    parts = {}
    for name, protocol in suite.protocols.items():
        for seed in (1, 2):
            loaded = load_task(suite, task, str(tmp_path), protocol, seed=seed, drop_leaks=False)
            data = parts[name, seed] = loaded.data
            assert (len(data.train), len(data.validation), len(data.test)) == (270, 30, 10)
            shared = leaks(data.train, data.validation).any()
            assert shared == (name == "published")
            counts = {count.split: count for count in data.counts}
            assert (counts["validation"].in_train > 0) == shared
            if name == "corrected":
                # A tenth of each class, in whole groups.
                assert np.bincount(data.validation.known_labels).tolist() == [15, 15]
                keys = Counter(key.tobytes() for key in sequence_keys(data.validation))
                assert set(keys.values()) == {3}
    # Another seed is another split.
    for name in suite.protocols:
        first, second = (sequence_keys(parts[name, seed].validation).tolist() for seed in (1, 2))
        assert sorted(first) != sorted(second)


def test_k_mers_know_chance_only_where_a_split_by_seed_brings_it(tmp_path, suite, request_of):
    run_benchmark(suite.parent / "results", request_of(suite, settings=("finetune.max_steps=1",), tasks=("first",)))
    assert seeds_of(suite.parent / "results", model="kmer", protocol="corrected") == [1]
    assert seeds_of(suite.parent / "results", model="cnn", protocol="corrected") == [1, 2]
    # Without a file of validation data.
    text = suite.read_text().replace("validation: dev, ", "").replace("validation: file", "validation: grouped")
    suite.write_text(text)
    request = request_of(suite, tasks=("first",), protocols=("corrected",), settings=("finetune.max_steps=1",))
    run_benchmark(tmp_path / "grouped", request)
    assert seeds_of(tmp_path / "grouped", model="kmer") == [1, 2]
    cells = [cell for cell in map(cell_of, read_records(tmp_path / "grouped")) if cell.model == "kmer"]
    one, two = (read_predictions(tmp_path / "grouped", cell)[1] for cell in cells)
    # Each seed has learnt from other rows.
    assert (one != two).any()


def test_models_with_different_tokenizers_get_each_their_own_tokens(suite, request_of, model_folders):
    """The published code handed one model's tokens to the next: what runs before a model changes nothing here."""
    kinds = ("esm", "bert", "mutbert")
    request = request_of(
        suite, models=tuple(f"{kind}={model_folders[kind]}" for kind in kinds), baselines=False, tasks=("first",),
        protocols=("corrected",), settings=("finetune.max_steps=1",),
    )  # fmt: skip
    summary = run_benchmark(suite.parent / "together", request)
    assert (summary.done, summary.failed) == (6, 0)
    for kind in kinds:
        alone = dataclasses.replace(request, models=(f"{kind}={model_folders[kind]}",))
        run_benchmark(suite.parent / kind, alone)
        for cell in map(cell_of, read_records(suite.parent / kind)):
            one, other = (read_predictions(suite.parent / name, cell)[1] for name in (kind, "together"))
            assert (one == other).all()


def test_tokens_are_cut_for_a_protocol_and_not_for_the_next(suite, request_of, model_folders):
    text = suite.read_text().replace(
        "  published: &protocol\n", "  published: &protocol\n    max_tokens: {mutbert: 5}\n"
    )
    suite.write_text(text)
    request = request_of(
        suite, models=(f"small={model_folders['mutbert']}",), baselines=False, tasks=("first",), methods=("probe",),
        seeds=1,
    )  # fmt: skip
    run_benchmark(suite.parent / "results", request)
    tokens = {}
    for record in read_records(suite.parent / "results"):
        tokens[record["protocol"]] = record["cost"]["tokens_per_second"] * record["cost"]["seconds"]
    assert tokens["published"] == pytest.approx(80 * 5, rel=0.3)
    assert tokens["corrected"] == pytest.approx(80 * 38, rel=0.3)
