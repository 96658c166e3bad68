"""The models that MutBERT is compared with: the grid, and fine-tuning with prediction."""

import csv

import numpy as np
import pytest

from mutbert import finetune, predict_table, run_benchmark
from mutbert.evaluation.cells import Cell
from mutbert.evaluation.run import read_predictions
from mutbert.examples.table import Columns
from mutbert.settings import read_settings
from mutbert.training.recipe import FinetuneRecipe

PEERS = {"dnabert2": "lora", "nt-500m-1000g": "full", "ntv2-50m": "probe", "caduceus-ph": "full", "caduceus-ps": "lora"}
# As conftest's suite has them.
SETTINGS = ("learning_rate=1e-3", "max_steps=2", "warmup_steps=0", "batch_size=16", "metric=mcc")


@pytest.mark.parametrize("name", list(PEERS))
def test_a_fine_tuned_model_predicts_what_the_grid_does(name, suite, request_of, peer_folders):
    method, folder, data = PEERS[name], peer_folders[name], suite.parent / "data" / "first"
    request = request_of(
        suite, models=(f"{name}={folder}",), methods=(method,), protocols=("corrected",), tasks=("first",), seeds=1,
        baselines=False,
    )  # fmt: skip
    assert run_benchmark(suite.parent / "results", request)["done"] == 1
    settings = [f"finetune.{setting}" for setting in (*SETTINGS, f"method={method}")]
    words = [f"train={data / 'train.csv'}", f"validation={data / 'dev.csv'}", f"output={suite.parent / 'run'}"]
    finetune(read_settings(FinetuneRecipe, None, [f"model={folder}", *words, "seed=1", *settings]))
    predict_table(suite.parent / "run" / "model", data / "test.csv", suite.parent / "out.csv", columns=Columns())
    with (suite.parent / "out.csv").open() as file:
        probability = np.array([float(row["p_1"]) for row in csv.DictReader(file)])
    _, seen = read_predictions(suite.parent / "results", Cell("own", "first", name, method, "corrected", 1))
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-seen.astype(np.float64))), atol=2e-6)
    assert np.ptp(probability) > 0
