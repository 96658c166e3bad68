"""Which checkpoints are kept, and which are good to go on from."""

import json
import re

import pytest

from mutbert.training.checkpoints import (
    best_checkpoint,
    last_checkpoint,
    prune_checkpoints,
    publish_checkpoint,
    resumable_checkpoint,
    set_aside,
)


@pytest.fixture
def output(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(output, *steps):
    for step in steps:
        writing = output / ".writing" / f"checkpoint-{step}"
        (writing / "part").mkdir(parents=True)
        (writing / "model.safetensors").write_bytes(bytes(range(step % 250)) * 4)
        (writing / "part" / "optimizer.pt").write_bytes(b"state")
        publish_checkpoint(writing, output)


def steps(output):
    return sorted(int(path.name.split("-")[1]) for path in (output / "checkpoints").iterdir())


def test_a_published_checkpoint_lists_its_files(output):
    write(output, 3)
    folder = output / "checkpoints" / "checkpoint-3"
    listed = json.loads((folder / "files.json").read_text())
    assert listed["version"] == 1
    assert {name: entry["bytes"] for name, entry in listed["files"].items()} == {
        "model.safetensors": 12,
        "part/optimizer.pt": 5,
    }
    assert not (output / ".writing" / "checkpoint-3").exists()
    assert resumable_checkpoint(output) == (folder, {})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "has 1 bytes in place of 80"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 80), "is damaged"),
        (lambda folder: (folder / "files.json").unlink(), r"files\.json cannot be read"),
        (lambda folder: (folder / "files.json").write_text("{"), r"files\.json cannot be read"),
        (lambda folder: (folder / "files.json").write_text("[]"), r"files\.json cannot be read"),
    ],
)
def test_a_torn_checkpoint_is_passed_over(output, damage, message):
    write(output, 10, 20)
    damage(output / "checkpoints" / "checkpoint-20")
    found = resumable_checkpoint(output)
    assert found.checkpoint == output / "checkpoints" / "checkpoint-10"
    ((path, torn),) = found.torn.items()
    assert path.name == "checkpoint-20"
    assert re.search(message, torn)
    assert "\n" not in torn
    # By its name it is still the last, until it is set aside.
    assert last_checkpoint(output).name == "checkpoint-20"
    assert last_checkpoint(output, before=20).name == "checkpoint-10"
    set_aside(path)
    assert last_checkpoint(output).name == "checkpoint-10"
    assert (output / "checkpoints" / "checkpoint-20.torn").is_dir()


def test_what_was_set_aside_before_makes_room(output):
    for content in (b"first", b"second"):
        write(output, 20)
        path = output / "checkpoints" / "checkpoint-20"
        (path / "model.safetensors").write_bytes(content)
        set_aside(path)
    assert (output / "checkpoints" / "checkpoint-20.torn" / "model.safetensors").read_bytes() == b"second"
    assert resumable_checkpoint(output) == (None, {})


def test_where_none_is_whole_there_is_none(output):
    assert resumable_checkpoint(output) == (None, {})
    write(output, 5)
    (output / "checkpoints" / "checkpoint-5" / "files.json").unlink()
    assert resumable_checkpoint(output).checkpoint is None


def test_a_newer_checkpoint_replaces_a_torn_one_of_its_name(output):
    write(output, 5)
    (output / "checkpoints" / "checkpoint-5" / "model.safetensors").unlink()
    write(output, 5)
    assert resumable_checkpoint(output).checkpoint.name == "checkpoint-5"


@pytest.mark.parametrize(
    ("evaluated", "last", "kept"),
    [
        ({}, 2, [300, 1000]),
        ({90: 1.3, 200: 1.2, 300: 1.25}, 2, [200, 300, 1000]),
        ({90: 1.2, 200: 1.2, 1000: 1.4}, 1, [90, 1000]),
        ({1000: 1.1, 90: 1.2}, 1, [1000]),
        # The best step had no checkpoint.
        ({95: 1.0, 200: 1.3}, 1, [200, 1000]),
    ],
)
def test_the_last_few_and_the_best_are_kept(output, evaluated, last, kept):
    write(output, 90, 200, 300, 1000)
    prune_checkpoints(output, last, evaluated)
    assert steps(output) == kept


def test_the_best_is_the_earliest_of_equals(output):
    write(output, 90, 200)
    assert best_checkpoint(output, {200: 1.2, 90: 1.2}).name == "checkpoint-90"
    assert best_checkpoint(output, {}) is None
