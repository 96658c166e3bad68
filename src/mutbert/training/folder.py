"""The folder of a run: created or resumed, locked by one run at a time, alike for all of its processes."""

from __future__ import annotations

import errno
import json
import math
import shutil
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from accelerate.utils.memory import should_reduce_batch_size

from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import (
    atomic_directory,
    atomic_file,
    check_output,
    locked,
    mark_directory,
    remove_directory,
    write_json,
)
from mutbert.run_folder import MODEL, PROVENANCE, RECIPE, RUN_FILES, WRITING
from mutbert.settings import read_settings
from mutbert.training.checkpoints import checkpoint_of, checkpoints_of, resumable_checkpoint, step_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mutbert.settings import Settings

# How a step is divided and what is kept may differ when a run is resumed; what a step is may not.
_MAY_CHANGE: Final = (
    "training.per_device_train_batch_size", "training.per_device_eval_batch_size", "training.dataloader_",
    "training.save_total_limit", "finetune.micro_batch_size", "finetune.training.dataloader_",
)  # fmt: skip
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# How torch and safetensors report a file that could not be written.
_NOT_WRITTEN: Final = (
    "No space left",
    "PytorchStreamWriter failed",
    "file write failed",
    "unexpected pos",
    "I/O error",
)


@dataclass(frozen=True)
class RunResult:
    """What a training run left behind.

    Parameters
    ----------
    model : Path
        The trained model's folder, for ``from_pretrained`` and the other commands.
    metrics : dict
        The content of ``metrics.json``; empty in processes other than the main one.
    history : list of dict
        The content of ``history.json``.
    report : Path or None
        The HTML page; None without matplotlib, and in processes other than the main one.
    """

    model: Path
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    report: Path | None


class TrainingStoppedError(InputError):
    """Error for a run that diverged; checkpoints from the step `spoilt_from` on are of no use."""

    def __init__(self, message: str, spoilt_from: float = math.inf) -> None:
        super().__init__(message)
        self.spoilt_from = spoilt_from


@contextmanager
def open_run(
    recipe: Settings, provenance: Mapping[str, Any], run: Path, *, inputs: Sequence[str | Path], resume: bool,
    force: bool, if_short_of_memory: str,
) -> Iterator[tuple[Path | None, list[str]]]:  # fmt: skip
    """Yield the checkpoint to resume from and notes, with the run's folder created and locked for the block.

    Errors of the block for which a user can do something are raised as InputError.
    """
    state = PartialState()
    with ExitStack() as held:
        checkpoint: Path | None = None
        notes: list[str] = []
        with _all_or_none(state):
            if state.is_main_process:
                _create(run, recipe, provenance, inputs, resume=resume, force=force)
                held.enter_context(locked(run))
                shutil.rmtree(run / WRITING, ignore_errors=True)
                with _explained(run, if_short_of_memory):
                    write_records(run, recipe, provenance)
                if resume:
                    checkpoint, notes = resumable_checkpoint(run)
        for note in notes:
            print(note, file=sys.stderr)  # noqa: T201
        own = torch.tensor([step_of(checkpoint) if checkpoint else 0], device=state.device)
        step = int(broadcast(own)[0])
        with _explained(run, if_short_of_memory):
            yield (checkpoint_of(run, step) if step else None), notes
            if state.is_main_process:
                shutil.rmtree(run / WRITING, ignore_errors=True)
        # A process that ended now would take the main one with it, which may still be writing.
        state.wait_for_everyone()


def write_records(folder: Path, recipe: Settings, provenance: Mapping[str, Any]) -> None:
    """Write the recipe and the provenance."""
    with atomic_file(folder / RECIPE, force=True) as file:
        file.write_text(recipe.as_yaml(), encoding="utf-8")
    write_json(folder / PROVENANCE, provenance, force=True)


@contextmanager
def model_folder(run: Path, recipe: Settings, provenance: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder to write the trained model into, which is published with the recipe and the provenance."""
    with atomic_directory(run / MODEL, force=True) as folder:
        yield folder
        write_records(folder, recipe, provenance)


def provenance_facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return versions and commit as a report shows them."""
    versions = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    return {"versions": versions, "commit": provenance["commit"] or "not from a checkout"}


def write_page(kind: str, run: Path) -> Path | None:
    """Return the HTML page of a run's folder, written by `mutbert.reports`; None without matplotlib."""
    try:
        page: Path = import_module(f"mutbert.reports.{kind}").write_page_of(run, force=True)
    except (MissingExtraError, AttributeError) as error:
        print(f"no report was written: {error}", file=sys.stderr)  # noqa: T201
        return None
    return page


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers as JSON can hold them, None for what is not a number."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}


def _create(
    run: Path,
    recipe: Settings,
    provenance: Mapping[str, Any],
    inputs: Sequence[str | Path],
    *,
    resume: bool,
    force: bool,
) -> None:
    try:
        # One that holds nothing yet was created by a run that was killed right then.
        if resume and run.is_dir() and not any(run.glob("[!.]*")):
            mark_directory(run, RUN_FILES)
            return
        if resume and run.exists():
            _check_same_run(run, recipe, provenance)
            return
        run.parent.mkdir(parents=True, exist_ok=True)
        check_output(run, force=force, directory=True, inputs=inputs)
        if run.exists():
            with locked(run):
                remove_directory(run)
        run.mkdir()
        mark_directory(run, RUN_FILES)
    except OSError as error:
        raise InputError(f"{run}: cannot be created ({one_line(error)}); choose another output") from None


def _check_same_run(run: Path, recipe: Settings, provenance: Mapping[str, Any]) -> None:
    """Raise InputError where a run was started with another recipe or other data."""
    if not (run / RECIPE).is_file():
        raise InputError(f"{run / RECIPE}: there is no run to resume; omit --resume, or choose the folder of a run")
    before = read_settings(type(recipe), run / RECIPE).model_dump(mode="json")
    for key, was, now in _differences(before, recipe.model_dump(mode="json")):
        if not key.startswith(_MAY_CHANGE):
            raise InputError(
                f"{run / RECIPE}: the run was started with '{key}: {was}', the recipe now has '{key}: {now}'"
            )
    path = run / PROVENANCE
    try:
        started = json.loads(path.read_text(encoding="utf-8"))
        made = {key: started[key] for key in provenance.keys() - {"versions", "commit"}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error, 160)}); start the run anew") from None
    for key, _, _ in _differences(made, {key: provenance[key] for key in made}):
        raise InputError(f"{path}: {key} is not what the run was started with; resume with the same, or start anew")


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two nested mappings differ: keys joined by dots, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


@contextmanager
def _all_or_none(state: PartialState) -> Iterator[None]:
    """Stop all processes where the block failed in one."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = int(broadcast(torch.tensor([int(failure is not None)], device=state.device))[0])
    if failure is not None:
        raise failure
    if failed:
        raise InputError("the main process has stopped; see its message")


@contextmanager
def _explained(run: Path, if_short_of_memory: str) -> Iterator[None]:
    """Raise InputError with what is left and what to do, for a loss, a memory or a disk that failed."""
    try:
        yield
    except TrainingStoppedError as error:
        raise InputError(f"{run}: {error}; {_left(run, error.spoilt_from)}") from None
    except Exception as error:
        said = one_line(error, 160)
        if isinstance(error, MemoryError) or should_reduce_batch_size(error):
            raise InputError(f"{run}: out of memory ({said}); {if_short_of_memory}; {_left(run)}") from error
        kinds = isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
        if getattr(error, "errno", None) in _FULL or (kinds and any(text in str(error) for text in _NOT_WRITTEN)):
            raise InputError(
                f"{run}: cannot be written, the disk is full ({said}); make room and use --resume; {_left(run)}"
            ) from error
        raise


def _left(run: Path, before: float = math.inf) -> str:
    found = [checkpoint for checkpoint in checkpoints_of(run) if step_of(checkpoint) < before]
    if not found:
        return "no checkpoint was saved yet" if before == math.inf else "there is no checkpoint from before that"
    return f"the last {'good ' * (before != math.inf)}checkpoint is {found[-1]}"
