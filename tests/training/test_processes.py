"""The same recipe gives the same model in one process or several, with any number of workers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mutbert.training.pretrain import pretrain

SHARDED = Path(__file__).with_name("fsdp_on_processors.py")
# Dropout draws its numbers in each process, so that no two ways of sharing the work out could agree.
SETTINGS = (
    "windows_a_step=8",
    "reverse_complement=0.5",
    "masking={replace: 0.8, random: 0.1, keep: 0.1}",
    "weighting.variant=3",
    "model.hidden_dropout_prob=0.0",
    "model.attention_probs_dropout_prob=0.0",
    "training.per_device_train_batch_size=8",
    "training.max_steps=50",
    "training.eval_steps=25",
    "training.save_steps=20",
    "training.warmup_steps=5",
    "training.learning_rate=3e-3",
)


def history(run):
    return json.loads((run / "history.json").read_text())


def assert_close_histories(first, second):
    assert [entry["step"] for entry in first] == [entry["step"] for entry in second]
    for before, after in zip(first, second, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert after[name] == pytest.approx(value, abs=1e-5), (name, before["step"])


@pytest.fixture(scope="module")
def alone(write_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    pretrain(write_recipe(folder), SETTINGS)
    return folder / "run"


@pytest.fixture(scope="module")
def together(write_recipe, launch, tmp_path_factory):
    """The same run by two processes: its folder, a copy of that as they left it, and what they said."""
    folder = tmp_path_factory.mktemp("together")
    done = launch(2, "pretrain", write_recipe(folder), *SETTINGS)
    assert done.returncode == 0, done.stderr
    return folder / "run", shutil.copytree(folder / "run", folder / "as_left"), done.stdout


@pytest.mark.slow
def test_two_processes_with_half_of_the_batch_are_one_with_all_of_it(alone, together):
    place, run, said = together
    losses = [entry for entry in history(run) if "loss" in entry]
    assert len(losses) == 50
    assert_close_histories(history(alone), history(run))
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (alone, run))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=0)
    # Said once, whatever the number of processes; and nothing of it depends on that number.
    assert said.count("held-out cross-entropy") == 1
    for name in ("recipe.yaml", "held_out_windows.tsv"):
        assert (run / name).read_text().replace(str(place), "RUN") == (alone / name).read_text().replace(
            str(alone), "RUN"
        )
    assert len(list((run / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_a_run_moves_from_two_processes_to_one(alone, together, write_recipe):
    """Killed between its last checkpoint and its end, and gone on with in one process."""
    # A run goes on where it was begun, since its recipe names the place.
    run, as_left, _ = together
    shutil.rmtree(run)
    shutil.copytree(as_left, run)
    (run / "held_out.json").unlink()
    # Of the last two and the best, the one that is farthest from the end.
    first, *later = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in later:
        (checkpoint / "model.safetensors").unlink()
    result = pretrain(write_recipe(run.parent), SETTINGS, resume=True)
    assert result.steps == 50
    assert [note.split(":")[0] for note in result.notes] == [str(path) for path in reversed(later)]
    assert all(note.endswith(f"going on from {first}") for note in result.notes)
    assert_close_histories(history(alone), history(run))


@pytest.mark.slow
def test_sharded_training_is_the_same_and_is_resumed(alone, recipe_path, launch, tmp_path):
    done = launch(2, "pretrain", recipe_path, *SETTINGS, "training.fsdp=true", program=SHARDED)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    # Written by sharded training alone.
    assert list((run / "checkpoints" / "checkpoint-50").glob("pytorch_model_fsdp*"))
    assert_close_histories(history(alone), history(run))
    (run / "held_out.json").unlink()
    for checkpoint in (run / "checkpoints").iterdir():
        if checkpoint.name != "checkpoint-40":
            (checkpoint / "scheduler.pt").unlink()
    done = launch(2, "pretrain", recipe_path, *SETTINGS, "training.fsdp=true", "--resume", program=SHARDED)
    assert done.returncode == 0, done.stderr
    assert "checkpoint-50: scheduler.pt is missing; going on from" in done.stderr
    assert_close_histories(history(alone), history(run))
    weights = load_file(run / "model" / "model.safetensors")
    for name, tensor in load_file(alone / "model" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["windows_a_step=7"], "windows_a_step is 7, which 2 processes cannot divide"),
        (["held_out=[chr9]"], "no such contig"),
    ],
)
def test_all_processes_stop_where_something_is_wrong(recipe_path, launch, tmp_path, words, message):
    done = launch(2, "pretrain", recipe_path, *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_existing_run_stops_all_processes(recipe_path, launch, tmp_path):
    (tmp_path / "run").mkdir()
    done = launch(2, "pretrain", recipe_path)
    assert done.returncode != 0
    assert "exists already" in done.stderr


# Four are more than a small machine has cores for, which torch remarks on.
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 4])
def test_the_model_does_not_depend_on_workers(alone, recipe_path, tmp_path, workers):
    pretrain(recipe_path, [*SETTINGS, f"training.dataloader_num_workers={workers}"])
    assert history(tmp_path / "run") == history(alone)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
