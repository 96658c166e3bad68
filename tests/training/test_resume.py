"""Runs that fail, are killed and are resumed: nothing is lost, and the result is that of an unbroken run."""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open

from mutbert.errors import InputError
from mutbert.files import locked, mark_directory
from mutbert.model import MutBertForMaskedLM
from mutbert.training.folder import FILES
from mutbert.training.pretrain import pretrain

NAN = "the loss was not a finite number"


def read(run, name="history.json"):
    return json.loads((run / name).read_text())


def steps(run):
    return sorted(int(path.name.split("-")[1]) for path in (run / "checkpoints").iterdir())


@pytest.fixture
def recipes(write_recipe, tmp_path):
    """Recipes of two runs, in folders of their own."""
    folders = tmp_path / "whole", tmp_path / "parts"
    for folder in folders:
        folder.mkdir()
    return [write_recipe(folder) for folder in folders]


def interrupted(run, monkeypatch, count):
    """Interrupt a run as a file or folder is renamed for the n-th time; return whether it came to that."""
    left = iter(range(count, -1, -1))

    def guard(original):
        def renamed(self, target):
            if next(left, None) == 0:
                raise KeyboardInterrupt
            return original(self, target)

        return renamed

    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(Path, name, guard(getattr(Path, name)))
        try:
            run()
        except KeyboardInterrupt:
            return True
    return False


def test_interrupted_at_any_write_a_run_is_resumed_as_if_it_were_unbroken(recipes, tmp_path, monkeypatch, same_weights):
    words = [
        "training.max_steps=4", "training.eval_steps=2", "training.logging_first_step=true",
        "training.eval_on_start=true", "training.lr_scheduler_type=reduce_lr_on_plateau",
        "training.lr_scheduler_kwargs={patience: 0, threshold: 10}",
    ]  # fmt: skip
    pretrain(recipes[0], words)
    whole, parts = tmp_path / "whole" / "run", tmp_path / "parts" / "run"
    for count in range(0, 1000, 5):
        again = interrupted(lambda: pretrain(recipes[1], words, force=True), monkeypatch, count)
        for path in [parts / "model", *(parts / "checkpoints").glob("checkpoint-*[0-9]")]:
            if path.exists():
                with safe_open(path / "model.safetensors", "pt") as file:
                    assert file.keys()
                assert (path / "recipe.yaml").exists()
        if not again:
            break
        pretrain(recipes[1], words, resume=True)
        assert read(parts) == read(whole)
        assert same_weights(parts / "model", whole / "model")
    assert count > 10


def test_killed_a_run_is_resumed_as_if_it_were_unbroken(recipes, tmp_path, monkeypatch, same_weights):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["training.max_steps=30", "training.save_steps=2", "training.logging_steps=5"]
    words += ["training.dataloader_num_workers=1", "windows_a_step=8", "training.per_device_train_batch_size=2"]
    words += ["train=[{bed: 'chr1:1-900'}, {bed: chr1, weight: 3}]", "masking={share: 0.3, final_share: 0.15}"]
    words += ["optimizer=muon"]
    pretrain(recipes[0], words)
    process = multiprocessing.get_context("spawn").Process(target=pretrain, args=(recipes[1], words))
    process.start()
    run = tmp_path / "parts" / "run"
    while process.is_alive() and not (run / "checkpoints" / "checkpoint-6").exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (run / "metrics.json").exists()
    result = pretrain(recipes[1], words, resume=True)
    assert read(run) == read(tmp_path / "whole" / "run") == result.history
    assert same_weights(result.model, tmp_path / "whole" / "run" / "model")


@pytest.mark.parametrize("workers", [0, 1])
def test_at_sigterm_a_run_saves_the_step_and_is_resumed_as_if_it_were_unbroken(
    recipes, tmp_path, monkeypatch, same_weights, workers
):
    words = ["training.max_steps=8", "training.eval_steps=5", "training.save_steps=4", "training.logging_steps=4"]
    words += [f"training.dataloader_num_workers={workers}", "training.logging_first_step=true"]
    pretrain(recipes[0], words)
    run, forward, calls = tmp_path / "parts" / "run", MutBertForMaskedLM.forward, itertools.count(1)

    def signalled(self, **inputs):
        if self.training and next(calls) == 5:
            # As a scheduler does it: to all processes of the job, and more than once.
            for process in [*multiprocessing.active_children(), None, None]:
                os.kill(process.pid if process else os.getpid(), signal.SIGTERM)
        return forward(self, **inputs)

    def end(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MutBertForMaskedLM, "forward", signalled)
    signal.signal(signal.SIGTERM, end)
    with pytest.raises(KeyboardInterrupt) as stopped:
        pretrain(recipes[1], words)
    assert stopped.value.__notes__ == ["--resume goes on from step 5"]
    assert steps(run) == [4, 5]
    pretrain(recipes[1], words, resume=True)
    assert next(calls) == 6 + 3
    assert read(run) == read(tmp_path / "whole" / "run")
    assert same_weights(run / "model", tmp_path / "whole" / "run" / "model")


@pytest.mark.nightly
def test_a_loading_process_that_the_system_kills_is_one_line(recipes, tmp_path, same_weights):
    words = ["training.max_steps=60", "training.save_steps=20", "training.dataloader_num_workers=1"]
    pretrain(recipes[0], words)
    run, command = tmp_path / "parts" / "run", [sys.executable, "-m", "mutbert", "pretrain", recipes[1], *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "checkpoints" / "checkpoint-20").exists():
            time.sleep(0.002)
        psutil.Process(process.pid).children()[0].kill()
        assert re.search(
            r"^mutbert: .*run: out of memory \((DataLoader worker|.*reset by peer).*checkpoint-\d+$",
            process.stderr.read(),
            re.M,
        )
    assert process.returncode == 2
    pretrain(recipes[1], words, resume=True)
    assert read(run) == read(tmp_path / "whole" / "run")
    assert same_weights(run / "model", tmp_path / "whole" / "run" / "model")


def test_killed_before_its_first_checkpoint_a_run_is_started_by_resume(recipes, tmp_path, monkeypatch):
    for count in range(4):
        assert interrupted(lambda: pretrain(recipes[1], ["training.max_steps=1"], force=True), monkeypatch, count)
        assert pretrain(recipes[1], ["training.max_steps=1"], resume=True).metrics["steps"] == 1


def test_a_step_may_be_divided_otherwise(recipes, tmp_path, fail, monkeypatch):
    """As a run that ran out of memory is told to do."""
    dropout = ("model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0")
    words = ["windows_a_step=8", "training.per_device_train_batch_size=8", *dropout]
    pretrain(recipes[0], words)
    fail(MutBertForMaskedLM, at=5, error=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    with pytest.raises(InputError, match=r"\A[^\n]*out of memory .*per_device_train_batch_size .* is .*checkpoint-4\Z"):
        pretrain(recipes[1], words)
    monkeypatch.undo()
    smaller = ["training.per_device_train_batch_size=2", "training.dataloader_num_workers=1"]
    pretrain(recipes[1], [*words, *smaller, "training.save_total_limit=5"], resume=True)
    for before, after in zip(*(read(tmp_path / name / "run") for name in ("whole", "parts")), strict=True):
        assert after == pytest.approx(before, abs=1e-5)


def test_a_stopped_run_and_a_finished_one_are_not_replaced_unasked(recipes, tmp_path, fail, monkeypatch, capsys):
    fail(MutBertForMaskedLM, at=5, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as stopped:
        pretrain(recipes[1])
    assert stopped.value.__notes__ == ["--resume goes on from step 4"]
    monkeypatch.undo()
    for what in ("a run that was stopped; use --resume to go on from step 4, or", "a finished run;"):
        with pytest.raises(InputError, match=f"holds {what} choose another output$"):
            pretrain(recipes[1])
        history = pretrain(recipes[1], resume=True).history
    assert history == read(tmp_path / "parts" / "run")
    assert "the run is finished" in capsys.readouterr().err
    run = tmp_path / "parts" / "run"
    assert steps(run)
    assert len({file.stat().st_mode for file in run.rglob("*") if file.is_file()}) == 1, "all are of the umask"


def test_a_checkpoint_is_saved_before_the_evaluation_of_its_step(recipes, tmp_path, monkeypatch):
    """An evaluation that fails costs no training, and is caught up on."""
    words = ["training.save_steps=3", "training.eval_steps=3"]
    pretrain(recipes[0], words)
    forward = MutBertForMaskedLM.forward

    def failing(self, **inputs):
        if not self.training:
            raise RuntimeError("the evaluation failed")
        return forward(self, **inputs)

    monkeypatch.setattr(MutBertForMaskedLM, "forward", failing)
    with pytest.raises(RuntimeError, match="the evaluation failed"):
        pretrain(recipes[1], words)
    monkeypatch.undo()
    assert steps(tmp_path / "parts" / "run") == [3]
    pretrain(recipes[1], words, resume=True)
    assert read(tmp_path / "parts" / "run") == read(tmp_path / "whole" / "run")


def test_a_torn_checkpoint_is_not_resumed_from(recipes, tmp_path, capsys):
    pretrain(recipes[0], [])
    pretrain(recipes[1], [])
    checkpoints = tmp_path / "parts" / "run" / "checkpoints"
    optimizer = checkpoints / "checkpoint-6" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    metrics = tmp_path / "parts" / "run" / "metrics.json"
    metrics.unlink()  # that a finished run has
    result = pretrain(recipes[1], [], resume=True)
    (note,) = result.metrics["notes"]
    assert "checkpoint-6: optimizer.pt is missing or damaged; it was removed" in note
    assert note in capsys.readouterr().err
    assert read(tmp_path / "parts" / "run") == read(tmp_path / "whole" / "run")
    for path in checkpoints.glob(f"*/{FILES}"):
        path.write_text("{")
    metrics.unlink()
    assert pretrain(recipes[1], [], resume=True).history == result.history


def test_the_last_checkpoint_and_the_best_are_kept(recipe_path, tmp_path):
    # Of so high a rate, the last step is hardly the best.
    words = ["training.save_steps=1", "training.eval_steps=1", "training.learning_rate=3"]
    result = pretrain(recipe_path, [*words, "training.save_total_limit=1"])
    losses = {entry["step"]: entry["eval_loss"] for entry in result.history if "eval_loss" in entry}
    assert steps(tmp_path / "run") == sorted({6, min(losses, key=losses.get)})


@pytest.mark.parametrize(
    ("words", "at", "message"),
    [
        ([], 5, f"{NAN} between steps 5 and 5, .*checkpoints from step 4 on are of no use; try a lower"),
        (["training.logging_steps=9", "training.eval_strategy=no", "training.save_strategy=no"], 6,
         f"{NAN} between steps 1 and 6, .*checkpoints from step 1 on are of no use; try a lower"),
        (["training.learning_rate=1e30", "training.eval_steps=1", "training.save_steps=1", "training.logging_steps=9"],
         99, "the held-out cross-entropy was not a finite number after step 1, .*from step 1 on are of no use"),
    ],
    ids=["logged", "last step", "evaluated"],
)  # fmt: skip
def test_a_run_that_diverges_is_stopped(recipe_path, tmp_path, fail, words, at, message):
    fail(MutBertForMaskedLM, at=at)
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        pretrain(recipe_path, words)
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_that_stops_has_not_lost_the_one_that_it_was_to_replace(recipe_path, tmp_path, fail, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    mark_directory(run, ["history.json"])
    (run / "history.json").write_text("[]")
    fail(MutBertForMaskedLM, at=5)
    with pytest.raises(InputError, match=NAN):
        pretrain(recipe_path, force=True)
    monkeypatch.undo()
    assert read(run) == []
    result = pretrain(recipe_path, resume=True)
    assert result.model == run / "model"
    assert result.report == run / "report.html"
    assert read(run) == result.history != []
    assert read(run, "metrics.json")["name"] == "run"
    assert sorted(path.name for path in tmp_path.glob("run*")) == ["run"]


def test_another_run_is_not_resumed(recipe_path, genome_path, tmp_path):
    copy = shutil.copytree(genome_path, tmp_path / "copied.genome")
    words, run = ["training.max_steps=2", f"genome={copy}"], tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="no run to resume"):
        pretrain(recipe_path, words, resume=True)
    (run / "mine.txt").unlink()
    # An empty folder was left by a run that was killed at once.
    pretrain(recipe_path, words, resume=True)
    for other, message in (
        ("training.learning_rate=0.5", r"started with 'training\.learning_rate: 0\.001', the recipe now has 'training"),
        ("training.gradient_accumulation_steps=2", "'windows_a_step: 4', the recipe now has 'windows_a_step: 8'"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(recipe_path, [*words, other], resume=True)
    (run / "metrics.json").unlink()  # that a finished run has
    with locked(run), pytest.raises(InputError, match="another process is writing"):
        pretrain(recipe_path, words, resume=True)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"changed": True}))
    with pytest.raises(InputError, match=r"copied\.genome is not what the run was started with"):
        pretrain(recipe_path, words, resume=True)
    (run / "provenance.json").write_text("[]")
    with pytest.raises(InputError, match=r"provenance\.json: its content is not what"):
        pretrain(recipe_path, words, resume=True)
