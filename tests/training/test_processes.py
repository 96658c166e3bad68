"""The same recipe trains the same model in one process or in several."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mutbert.settings import read_settings
from mutbert.training.finetune import finetune
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import FinetuneRecipe

STOPPED = Path(__file__).with_name("stopped_at_a_step.py")
SHARDED = Path(__file__).with_name("fsdp_on_processors.py")
# Dropout draws its numbers in each process, so that no two ways of dividing the work could agree.
SETTINGS = (
    "windows_a_step=8", "reverse_complement=0.5", "train=[{bed: 'chr1:1-900'}, {bed: chr1, weight: 3}]",
    "masking={share: 0.3, final_share: 0.15, replace: 0.8, random: 0.1, keep: 0.1}",
    "weighting.variant=3", "model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0",
    "training.per_device_train_batch_size=8", "training.max_steps=20", "training.eval_steps=10",
    "training.save_steps=8", "training.warmup_steps=5", "training.learning_rate=3e-3",
)  # fmt: skip


def history(run):
    return json.loads((run / "history.json").read_text())


def assert_close(first, second, tolerance=1e-5):
    for before, after in zip(first, second, strict=True):
        assert after == pytest.approx(before, abs=tolerance)


def assert_close_weights(first, second, tolerance=1e-4):
    one, other = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


@pytest.fixture
def alone(write_recipe, tmp_path):
    """Run in one process, with more settings."""

    def run(*words):
        (folder := tmp_path / "alone").mkdir()
        return pretrain(write_recipe(folder), [*SETTINGS, *words]).model.parent

    return run


def test_two_processes_with_half_of_the_batch_are_one_with_all_of_it(alone, recipe_path, launch, tmp_path):
    words = ["optimizer=muon", "model.pre_norm=true", "model.gated_feed_forward=true"]
    alone = alone(*words)
    done = launch("pretrain", recipe_path, *SETTINGS, *words)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert_close(history(alone), history(run))
    # Muon computes in bfloat16, whose rounding magnifies that of the gradients.
    assert_close_weights(alone, run, tolerance=1e-3)
    # Printed once, whatever the number of processes; and the recipe does not depend on it.
    assert done.stdout.count("steps: 20") == 1
    for name in ("recipe.yaml", "held_out_windows.tsv"):
        texts = {(one / name).read_text().replace(str(one.parent), "") for one in (run, alone)}
        assert len(texts) == 1
    assert len(list((run / "tensorboard").iterdir())) == 1
    # Stopped between a checkpoint and its end, it is resumed by one process.
    shutil.rmtree(run / "checkpoints" / "checkpoint-20")
    assert pretrain(recipe_path, [*SETTINGS, *words], resume=True).metrics["steps"] == 20
    assert_close(history(alone), history(run))


@pytest.mark.nightly
def test_processes_stop_at_the_same_step_and_go_on_as_if_unbroken(recipe_path, launch, tmp_path):
    words, run = ("windows_a_step=8", "training.logging_steps=4", "training.save_steps=4"), tmp_path / "run"
    done = launch("pretrain", recipe_path, *words)
    assert done.returncode == 0, done.stderr
    whole = run.rename(tmp_path / "whole")
    done = launch("pretrain", recipe_path, *words, program=[STOPPED])
    assert done.returncode != 0
    assert "mutbert: stopped; --resume goes on from step 5\n" in done.stderr
    assert "exitcode  : 143" in done.stderr
    done = launch("pretrain", recipe_path, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert history(run) == history(whole)
    assert_close_weights(run, whole, tolerance=0)


def test_fine_tuning_by_two_processes_is_that_of_one(launch, tmp_path, model_folders, tables):
    head, *rows = (tables / "token.csv").read_text().split()
    # One sequence is so long that the process that has it takes its batch in parts.
    longest = ",".join(map("".join, zip(*(row.split(",") for row in rows[:20]), strict=True)))
    table = tmp_path / "token.csv"
    table.write_text("\n".join([head, *rows, longest]))
    words = [
        f"model={model_folders['mutbert']}", f"train={table}", f"test={table}", "finetune.learning_rate=3e-3",
        "finetune.warmup_steps=2", "finetune.batch_size=16", "finetune.max_steps=8", "finetune.eval_steps=4",
        "problem=token",
    ]  # fmt: skip
    one = finetune(read_settings(FinetuneRecipe, None, [*words, f"output={tmp_path / 'one'}"]))
    done = launch("finetune", *words, f"output={tmp_path / 'two'}", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads(done.stdout)
    assert_close(one.history, two["history"], tolerance=1e-4)
    assert two["metrics"]["test"].keys() == one.metrics["metrics"]["test"].keys()


@pytest.mark.nightly
def test_sharded_training_is_the_same_and_is_resumed(alone, recipe_path, launch, tmp_path):
    alone = alone()
    done = launch("pretrain", recipe_path, *SETTINGS, "training.fsdp=true", program=[SHARDED])
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    # Written by sharded training alone.
    assert list((run / "checkpoints" / "checkpoint-20").glob("pytorch_model_fsdp*"))
    assert_close(history(alone), history(run))
    (run / "checkpoints" / "checkpoint-20" / "scheduler.pt").unlink()
    (run / "metrics.json").unlink()  # that a finished run has
    done = launch("pretrain", recipe_path, *SETTINGS, "training.fsdp=true", "--resume", program=[SHARDED])
    assert done.returncode == 0, done.stderr
    assert "checkpoint-20: scheduler.pt is missing or damaged" in done.stderr
    assert_close(history(alone), history(run))
    assert_close_weights(alone, run)
