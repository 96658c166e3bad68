"""What a run does where it goes wrong: the loss, the memory, the disk."""

import json
import math
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mutbert.errors import InputError
from mutbert.model import MutBertForMaskedLM
from mutbert.training.failures import explain_failures, is_out_of_memory
from mutbert.training.pretrain import pretrain
from mutbert.training.trainer import PretrainTrainer, largest_divisor

NO_DROPOUT = ("model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0")


def history(run):
    return json.loads((run / "history.json").read_text())


def damage_loss_at(monkeypatch, steps):
    """Make the loss of the training steps with these numbers, from 1 on, no number."""
    compute = PretrainTrainer.compute_loss

    def damaged(self, *arguments, **settings):
        loss = compute(self, *arguments, **settings)
        return loss * math.nan if self.state.global_step + 1 in steps else loss

    monkeypatch.setattr(PretrainTrainer, "compute_loss", damaged)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(recipe_path, tmp_path, monkeypatch):
    damage_loss_at(monkeypatch, {5})
    with pytest.raises(InputError, match="not a finite number at step 5") as caught:
        pretrain(recipe_path)
    message = str(caught.value)
    assert "\n" not in message
    # The weights of step 4 are those that gave this loss.
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'checkpoint-2'}" in message
    assert not (tmp_path / "run" / "model").exists()


def test_no_checkpoint_is_saved_of_weights_that_are_no_numbers(recipe_path, tmp_path, monkeypatch):
    """Where the loss is not looked at before the next checkpoint."""
    damage_loss_at(monkeypatch, {3})
    with pytest.raises(InputError, match=r"at step 3, .*there is no checkpoint from before that$"):
        pretrain(recipe_path, ["training.logging_steps=6", "training.eval_steps=6"])
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert names == ["checkpoint-2"]


def test_the_last_step_is_looked_at_too(recipe_path, monkeypatch):
    damage_loss_at(monkeypatch, {6})
    with pytest.raises(InputError, match=r"at step 6, .*there is no checkpoint from before that"):
        pretrain(
            recipe_path,
            ["training.logging_steps=100", "training.eval_strategy=no", "training.save_strategy=no"],
        )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: x"),
        MemoryError("x"),
    ],
)
def test_too_large_a_batch_is_named(recipe_path, monkeypatch, error):
    def fail(self, **inputs):
        raise error

    monkeypatch.setattr(MutBertForMaskedLM, "forward", fail)
    with pytest.raises(InputError, match=r"did not fit into the memory .*per_device_train_batch_size") as caught:
        pretrain(recipe_path)
    assert "\n" not in str(caught.value)
    assert "auto_find_batch_size=true" in str(caught.value)


def test_other_errors_pass(tmp_path):
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"), explain_failures(tmp_path):
        raise RuntimeError("shapes do not match")


def test_a_batch_that_fits_is_found_and_the_steps_stay_the_same(write_recipe, tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "found").mkdir()
    settings = ["windows_a_step=12", "training.per_device_train_batch_size=12", *NO_DROPOUT]
    pretrain(write_recipe(tmp_path / "whole"), settings)

    sizes = []
    forward = MutBertForMaskedLM.forward

    def limited(self, **inputs):
        if self.training:
            sizes.append(len(inputs["labels"]))
            if sizes[-1] > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(self, **inputs)

    monkeypatch.setattr(MutBertForMaskedLM, "forward", limited)
    pretrain(write_recipe(tmp_path / "found"), [*settings, "training.auto_find_batch_size=true"])
    # Each size divides the step; the first that fits is kept.
    assert all(12 % size == 0 for size in sizes)
    assert sizes[-18:] == [4] * 18
    assert max(sizes[-18:]) < min(sizes[:-18])
    for before, after in zip(history(tmp_path / "whole" / "run"), history(tmp_path / "found" / "run"), strict=True):
        assert after == pytest.approx(before, abs=1e-5)


def test_with_dropout_a_run_that_began_again_is_the_one_that_began_so(write_recipe, tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    (tmp_path / "found").mkdir()
    settings = ["windows_a_step=8", "training.auto_find_batch_size=true"]
    pretrain(write_recipe(tmp_path / "small"), [*settings, "training.per_device_train_batch_size=4"])
    forward = MutBertForMaskedLM.forward

    def limited(self, **inputs):
        output = forward(self, **inputs)
        if self.training and len(inputs["labels"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return output

    monkeypatch.setattr(MutBertForMaskedLM, "forward", limited)
    pretrain(write_recipe(tmp_path / "found"), [*settings, "training.per_device_train_batch_size=8"])
    first, second = (load_file(tmp_path / name / "run" / "model" / "model.safetensors") for name in ("small", "found"))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name


def test_memory_that_runs_out_later_loses_no_training(recipe_path, monkeypatch):
    """Weights that have been trained are not taken for initial ones by a run that begins again."""
    forward = MutBertForMaskedLM.forward
    calls = iter(range(10_000))

    def limited(self, **inputs):
        if self.training and next(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(self, **inputs)

    monkeypatch.setattr(MutBertForMaskedLM, "forward", limited)
    with pytest.raises(InputError, match=r"did not suffice after step 3; .*--resume; the last checkpoint is .*-2$"):
        pretrain(recipe_path, ["training.auto_find_batch_size=true"])


def test_divisors():
    for number in range(1, 60):
        for most in range(1, 70):
            expected = max(divisor for divisor in range(1, most + 1) if number % divisor == 0)
            assert largest_divisor(number, most) == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few hundred kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs the right to")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_loses_nothing_and_the_run_goes_on_after_room_was_made(
    small_disk, write_recipe, tmp_path, monkeypatch
):
    (tmp_path / "whole").mkdir()
    longer = ["training.max_steps=8", "training.save_total_limit=20"]
    pretrain(write_recipe(tmp_path / "whole"), longer)
    recipe = write_recipe(small_disk)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        # Room for a checkpoint or two.
        file.write(bytes(900 * 1024 - 8192 * 4 - 420 * 1024))
    with pytest.raises(InputError, match="the disk is full") as caught:
        pretrain(recipe, longer)
    assert "\n" not in str(caught.value)
    assert "make room and give --resume" in str(caught.value)
    filler.unlink()
    kept = list((small_disk / "run" / "checkpoints").glob("*"))
    assert kept, "the checkpoints of before are there"
    result = pretrain(recipe, [*longer[:1], longer[1]], resume=True)
    assert not result.notes
    first, second = (
        load_file(run / "model" / "model.safetensors") for run in (tmp_path / "whole" / "run", small_disk / "run")
    )
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name


def test_a_checkpoint_is_saved_before_the_evaluation_that_is_due(write_recipe, tmp_path, monkeypatch):
    """An evaluation that fails costs no training, and is made up for."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "failing").mkdir()
    settings = ["training.save_steps=3", "training.eval_steps=3"]
    pretrain(write_recipe(tmp_path / "whole"), settings)
    recipe = write_recipe(tmp_path / "failing")

    def fail(*arguments, **inputs):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTrainer, "prediction_step", fail)
        with pytest.raises(RuntimeError, match="killed here"):
            pretrain(recipe, settings)
    run = tmp_path / "failing" / "run"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-3"]
    pretrain(recipe, settings, resume=True)
    assert history(run) == history(tmp_path / "whole" / "run")


def test_the_weights_do_not_depend_on_how_often_a_run_is_evaluated(write_recipe, tmp_path):
    for name, steps in (("often", 1), ("seldom", 6)):
        (tmp_path / name).mkdir()
        pretrain(write_recipe(tmp_path / name), [f"training.eval_steps={steps}"])
    first, second = (load_file(tmp_path / name / "run" / "model" / "model.safetensors") for name in ("often", "seldom"))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name


def test_the_best_checkpoint_stays_beside_the_last_ones(recipe_path, tmp_path, monkeypatch):
    summarise = PretrainTrainer._summarise

    def worse_from_the_third_step_on(self, prediction):
        step = self.state.global_step
        return summarise(self, prediction) | {"cross_entropy": 1 + abs(step - 3)}

    monkeypatch.setattr(PretrainTrainer, "_summarise", worse_from_the_third_step_on)
    pretrain(recipe_path, ["training.save_steps=1", "training.eval_steps=1", "training.max_steps=8"])
    run = tmp_path / "run"
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {f"checkpoint-{step}" for step in (3, 7, 8)}


def test_a_torn_checkpoint_is_passed_over_in_a_run(write_recipe, recipe_path, tmp_path, capsys):
    (tmp_path / "whole").mkdir()
    pretrain(write_recipe(tmp_path / "whole"))
    pretrain(recipe_path)
    run = tmp_path / "run"
    (run / "held_out.json").unlink()
    shutil.rmtree(run / "model")
    optimizer = run / "checkpoints" / "checkpoint-6" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    result = pretrain(recipe_path, resume=True)
    (note,) = result.notes
    assert "checkpoint-6: optimizer.pt has" in note
    assert note in capsys.readouterr().err
    assert history(run) == history(tmp_path / "whole" / "run")


def test_a_model_that_diverged_is_found_by_its_evaluation(recipe_path, tmp_path):
    """The loss of the step was finite; what the step made of the weights is not."""
    words = [
        "training.learning_rate=1e30",
        "training.eval_steps=1",
        "training.save_steps=1",
        "training.logging_steps=9",
    ]
    with pytest.raises(InputError, match="held-out cross-entropy was not a finite number after step 1") as caught:
        pretrain(recipe_path, words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("there is no checkpoint from before that")


def test_new_checkpoints_are_kept_where_later_ones_were_torn(recipe_path, tmp_path, monkeypatch):
    damage_loss_at(monkeypatch, {9})
    words = ["training.max_steps=12", "training.save_steps=1"]
    with pytest.raises(InputError, match="at step 9"):
        pretrain(recipe_path, words)
    checkpoints = tmp_path / "run" / "checkpoints"
    for path in checkpoints.iterdir():
        (path / "optimizer.pt").write_bytes(b"torn")
    monkeypatch.undo()
    damage_loss_at(monkeypatch, {5})
    with pytest.raises(InputError, match="at step 5"):
        pretrain(recipe_path, words, resume=True)
    whole = {path.name for path in checkpoints.iterdir() if not path.name.endswith(".torn")}
    # The best of those evaluated, every third, and the last two.
    assert whole == {"checkpoint-3", "checkpoint-4"}
    assert len(list(checkpoints.glob("*.torn"))) >= 2


@pytest.mark.parametrize("limit", ["-1", "0", "null"])
def test_without_a_limit_all_checkpoints_are_kept(recipe_path, tmp_path, limit):
    pretrain(recipe_path, [f"training.save_total_limit={limit}"])
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}


def stopped_and_resumed(write_recipe, folder, monkeypatch, words, at=5):
    """Run unbroken, and stopped in a step and resumed; give both folders."""
    for name in ("whole", "parts"):
        (folder / name).mkdir()
    pretrain(write_recipe(folder / "whole"), words)
    recipe = write_recipe(folder / "parts")
    with monkeypatch.context() as patch:
        damage_loss_at(patch, {at})
        with pytest.raises(InputError, match=f"at step {at}"):
            pretrain(recipe, words)
    pretrain(recipe, words, resume=True)
    return folder / "whole" / "run", folder / "parts" / "run"


@pytest.mark.parametrize(
    "words",
    [
        ["training.save_steps=4", "training.logging_steps=3"],
        ["training.logging_steps=5", "training.logging_first_step=true"],
        ["training.eval_on_start=true"],
        ["training.lr_scheduler_type=reduce_lr_on_plateau", "training.metric_for_best_model=cross_entropy",
         "training.lr_scheduler_kwargs={patience: 0, threshold: 10}", "training.save_steps=1", "training.eval_steps=2"],
        ["training.optim=sgd", "training.eval_strategy=no"],
        ["training.dataloader_num_workers=1", "windows_a_step=8", "training.per_device_train_batch_size=2"],
    ],
    ids=["unaligned log", "first log", "evaluation at the start", "plateau", "no evaluation", "workers, accumulation"],
)  # fmt: skip
def test_a_run_that_goes_on_is_the_unbroken_one(write_recipe, tmp_path, monkeypatch, words):
    whole, parts = stopped_and_resumed(write_recipe, tmp_path, monkeypatch, words)
    assert history(whole) == history(parts)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, parts))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name


def test_a_step_may_be_shared_out_otherwise_when_a_run_goes_on(write_recipe, tmp_path, monkeypatch):
    """As a run that ran out of memory is told to do."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    words = ["windows_a_step=8", "training.per_device_train_batch_size=8", *NO_DROPOUT]
    pretrain(write_recipe(tmp_path / "whole"), words)
    recipe = write_recipe(tmp_path / "parts")
    with monkeypatch.context() as patch:
        damage_loss_at(patch, {5})
        with pytest.raises(InputError, match="at step 5"):
            pretrain(recipe, words)
    smaller = [
        "training.per_device_train_batch_size=2",
        "training.dataloader_num_workers=1",
        "training.save_total_limit=5",
    ]
    pretrain(recipe, [*words, *smaller], resume=True)
    for before, after in zip(history(tmp_path / "whole" / "run"), history(tmp_path / "parts" / "run"), strict=True):
        assert after == pytest.approx(before, abs=1e-5)


def test_another_number_of_windows_a_step_is_not_gone_on_with(recipe_path):
    pretrain(recipe_path, ["training.max_steps=2"])
    with pytest.raises(InputError, match="started with 'windows_a_step: 4', the recipe now says 'windows_a_step: 8'"):
        pretrain(recipe_path, ["training.max_steps=2", "training.gradient_accumulation_steps=2"], resume=True)


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}"])
def test_records_that_cannot_be_read_are_named(recipe_path, tmp_path, text):
    pretrain(recipe_path, ["training.max_steps=2"])
    (tmp_path / "run" / "provenance.json").write_text(text)
    with pytest.raises(InputError, match=r"provenance\.json .*cannot be read .*start anew") as caught:
        pretrain(recipe_path, ["training.max_steps=2"], resume=True)
    assert "\n" not in str(caught.value)


def test_a_folder_that_a_kill_left_empty_is_gone_on_with(recipe_path, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.partial.yaml").write_text("half a reci")
    assert pretrain(recipe_path, resume=True).steps == 6


def test_a_process_that_loses_the_others_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("mutbert.training.failures.PartialState", lambda: SimpleNamespace(is_main_process=False))
    with pytest.raises(InputError, match="another process has stopped; it says why"), explain_failures(tmp_path):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")
