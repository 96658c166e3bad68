"""Checkpoints of a run: published complete, checked before use; the last few and the best are kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from mutbert.files import remove_directory, rename_directory, write_json
from mutbert.run_folder import CHECKPOINTS

if TYPE_CHECKING:
    from pathlib import Path

FILES: Final = "files.json"
"""In a checkpoint: the size in bytes of every other file, by its path."""


def publish_checkpoint(writing: Path, run: Path) -> None:
    """Give a complete checkpoint ``checkpoint-STEP`` its final name."""
    (run / CHECKPOINTS).mkdir(exist_ok=True)
    write_json(writing / FILES, _sizes(writing), force=True)
    rename_directory(writing, run / CHECKPOINTS / writing.name)


def checkpoint_of(run: Path, step: int) -> Path:
    """Path of the checkpoint of a step."""
    return run / CHECKPOINTS / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """Step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints of a run by step; one that a killed process was removing has another name."""
    return sorted((run / CHECKPOINTS).glob("checkpoint-*[0-9]"), key=step_of)


def resumable_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """Return the last complete checkpoint, and a line for each later one, which is removed."""
    notes: list[str] = []
    for checkpoint in reversed(checkpoints_of(run)):
        try:
            problem = _difference(json.loads((checkpoint / FILES).read_text(encoding="utf-8")), _sizes(checkpoint))
        except (OSError, ValueError, AttributeError) as error:
            problem = f"{FILES} cannot be read ({' '.join(str(error).split())})"
        if not problem:
            return checkpoint, notes
        notes.append(f"{checkpoint}: {problem}; it was removed")
        remove_directory(checkpoint)
    return None, notes


def prune_checkpoints(run: Path, last: int, best: str | None) -> None:
    """Remove all checkpoints but the last few and the best."""
    for checkpoint in checkpoints_of(run)[:-last]:
        if str(checkpoint) != best:
            remove_directory(checkpoint)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILES)
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _difference(expected: dict[str, int], found: dict[str, int]) -> str:
    for name, size in expected.items():
        if found.get(name) != size:
            return f"{name} has {found[name]} bytes instead of {size}" if name in found else f"{name} is missing"
    return ""
