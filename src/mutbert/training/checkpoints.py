"""The checkpoints of a run: published whole, checked before they are used, the last few and the best kept."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mutbert.files import remove_directory, rename_directory, sha256_of, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHECKPOINTS: Final = "checkpoints"
FILES: Final = "files.json"
"""In a checkpoint: the size and SHA-256 of every other file of it."""
# Not those that were being removed when a run was killed.
_CHECKPOINT: Final = "checkpoint-*[0-9]"


class Resumable(NamedTuple):
    """Where a run can go on.

    Parameters
    ----------
    checkpoint : Path or None
        The last checkpoint that is whole.
    torn : dict of Path to str
        Later ones, and what is wrong with each, in a few words.
    """

    checkpoint: Path | None
    torn: dict[Path, str]


def publish_checkpoint(writing: Path, output: Path) -> Path:
    """Give a checkpoint its name, once all of it is written and on the disk.

    Parameters
    ----------
    writing : Path
        The folder, ``checkpoint-STEP``.
    output : Path
        The run's folder.

    Returns
    -------
    Path
        The published folder.
    """
    (output / CHECKPOINTS).mkdir(exist_ok=True)
    files = {
        str(path.relative_to(writing)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(writing.rglob("*"))
        if path.is_file()
    }
    write_json(writing / FILES, {"version": 1, "files": files}, force=True)
    published = output / CHECKPOINTS / writing.name
    rename_directory(writing, published)
    return published


def resumable_checkpoint(output: Path) -> Resumable:
    """Find the last checkpoint of a run that is whole; one may have been torn by a copy or a failing disk."""
    torn: dict[Path, str] = {}
    for checkpoint in sorted(_all(output), key=step_of, reverse=True):
        wrong = _what_is_wrong(checkpoint)
        if wrong is None:
            return Resumable(checkpoint, torn)
        torn[checkpoint] = wrong
    return Resumable(None, torn)


def set_aside(checkpoint: Path) -> None:
    """Take a checkpoint's name from it, so that it is no longer one of the run's; it stays to be looked at."""
    aside = checkpoint.with_name(f"{checkpoint.name}.torn")
    if aside.exists():
        remove_directory(aside)
    checkpoint.rename(aside)


def last_checkpoint(output: Path, before: float = math.inf) -> Path | None:
    """Find the last checkpoint of a run by its name, of those of a step below `before`."""
    return max((path for path in _all(output) if step_of(path) < before), key=step_of, default=None)


def prune_checkpoints(output: Path, last: int, cross_entropies: Mapping[int, float]) -> None:
    """Remove all checkpoints but the last few and the best.

    Parameters
    ----------
    output : Path
        The run's folder.
    last : int
        How many to keep of the last.
    cross_entropies : mapping of int to float
        Held-out cross-entropy by step; a checkpoint of another step cannot be the best.
    """
    checkpoints = sorted(_all(output), key=step_of)
    kept = {*checkpoints[-last:], best_checkpoint(output, cross_entropies)}
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            remove_directory(checkpoint)


def best_checkpoint(output: Path, cross_entropies: Mapping[int, float]) -> Path | None:
    """Find the checkpoint with the lowest held-out cross-entropy; the earliest of equals."""
    evaluated = [checkpoint for checkpoint in _all(output) if step_of(checkpoint) in cross_entropies]
    return min(evaluated, key=lambda path: (cross_entropies[step_of(path)], step_of(path)), default=None)


def step_of(checkpoint: Path) -> int:
    """Read a checkpoint's step off its name."""
    return int(checkpoint.name.rpartition("-")[2])


def _all(output: Path) -> Sequence[Path]:
    return list((output / CHECKPOINTS).glob(_CHECKPOINT))


def _what_is_wrong(checkpoint: Path) -> str | None:
    try:
        listed = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))["files"]
        for name, expected in listed.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes in place of {expected['bytes']}"
            if sha256_of(path) != expected["sha256"]:
                return f"{name} is damaged (its SHA-256 is another)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{FILES} cannot be read ({' '.join(str(error).split())})"
    return None
