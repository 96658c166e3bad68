"""The models that MutBERT is compared with, through the grid and through fine-tuning and prediction."""

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from mutbert import finetune, predict_table, report_benchmark, run_benchmark
from mutbert.cli.main import app
from mutbert.errors import InputError
from mutbert.evaluation.results import Cell, cell_of, read_predictions, read_records
from mutbert.examples.files import Columns
from mutbert.training.finetune import read_finetune_recipe

PEERS = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")
METHODS = ("full", "lora", "probe")
SIZES = {"train": 32, "dev": 16, "test": 16}
# As conftest's suite has them.
FEW_STEPS = ("finetune.max_steps=1", "finetune.batch_size=8")
SETTINGS = ("learning_rate=1e-3", "max_steps=2", "warmup_steps=0", "batch_size=16", "metric=mcc")


@pytest.fixture(scope="module")
def grid(tmp_path_factory, write_tasks, request_of, peer_folders, model_folders):
    """A finished grid of every peer beside MutBERT and the baselines; its folder, and that of its data."""
    folder = tmp_path_factory.mktemp("grid")
    models = {"mutbert": model_folders["mutbert"], **peer_folders}
    request = request_of(
        write_tasks(folder, SIZES), models=tuple(f"{name}={place}" for name, place in models.items()),
        methods=METHODS, protocols=("corrected",), tasks=("first",), seeds=1,
    )  # fmt: skip
    summary = run_benchmark(folder / "results", request)
    assert not summary.failed, summary.failures
    return folder


def test_the_report_shows_every_peer_beside_mutbert_and_the_baselines(grid, tmp_path):
    done = {cell_of(record)[2:4] for record in read_records(grid / "results")}
    wanted = {(name, method) for name in ("mutbert", *PEERS) for method in METHODS}
    assert done == wanted | {("kmer", ""), ("cnn", "full")}
    found, (page, *_) = report_benchmark(grid / "results", tmp_path / "report", resamples=100)
    assert set(found.averages.select("model", "method").rows()) == done
    text = page.read_text()
    assert all(name in text for name in ("kmer", "cnn", "mutbert", *PEERS))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PEERS)
def test_a_fine_tuned_model_predicts_what_the_grid_did(grid, tmp_path, peer_folders, name, method):
    data = grid / "data" / "first"
    parts = [f"{part}={data / f'{split}.csv'}" for part, split in (("train", "train"), ("validation", "dev"))]
    settings = [f"finetune.{setting}" for setting in (*SETTINGS, f"method={method}")]
    finetune(
        read_finetune_recipe(
            None, [f"model={peer_folders[name]}", *parts, f"output={tmp_path / 'run'}", "seed=1", *settings]
        )
    )
    predict_table(tmp_path / "run" / "model", data / "test.csv", tmp_path / "out.csv", columns=Columns())
    with (tmp_path / "out.csv").open() as file:
        probability = np.array([float(row["p_1"]) for row in csv.DictReader(file)])
    _, seen = read_predictions(grid / "results", Cell("own", "first", name, method, "corrected", 1))
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-seen.astype(np.float64))), atol=2e-6)
    assert np.ptp(probability) > 0


def cut_short(folder):
    (weights,) = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    weights.write_bytes(weights.read_bytes()[:-1000])


def with_another_option(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_decoder": True, "bidirectional": False}))


def without_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)


@pytest.mark.parametrize("verb", ["embed", "finetune"])
@pytest.mark.parametrize("damage", [cut_short, with_another_option, without_tokenizer])
@pytest.mark.parametrize("name", ["dnabert2", "ntv2-50m", "caduceus-ps"])
def test_a_model_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(
    grid, tmp_path, peer_folders, name, damage, verb
):
    model = shutil.copytree(peer_folders[name], tmp_path / "model")
    damage(model)
    if verb == "embed":
        (tmp_path / "some.fa").write_text(">one\nACGTACGTTGCA\n")
        words = ["embed", "--model", model, "--fasta", tmp_path / "some.fa", "-o", tmp_path / "out.parquet"]
    else:
        train = grid / "data" / "first" / "train.csv"
        words = ["finetune", f"model={model}", f"train={train}", f"output={tmp_path / 'out'}", *FEW_STEPS]
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, list(map(str, words)))
    if damage is without_tokenizer and name == "caduceus-ps":
        # Its tokenizer is code, here as there.
        assert done.exit_code == 0
        return
    assert isinstance(done.exception, InputError)
    assert "\n" not in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before
