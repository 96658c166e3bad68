"""The folder of a run: made or gone on with, held by one run at a time, alike for all of its processes."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast

from mutbert.errors import InputError, one_line
from mutbert.publishing import locked, publish_file, refuse_existing, remove_directory
from mutbert.run_folder import EVALUATED, PROVENANCE, RECIPE, WRITING
from mutbert.training.checkpoints import CHECKPOINTS, resumable_checkpoint, step_of
from mutbert.training.failures import explain_failures
from mutbert.training.held_out import held_out_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mutbert.training.recipe import PretrainRecipe
    from mutbert.windows.dataset import WindowDataset


@contextmanager
def held_folder(
    recipe: PretrainRecipe,
    provenance: Mapping[str, Any],
    held_out: WindowDataset,
    output: Path,
    *,
    resume: bool,
    force: bool,
) -> Iterator[tuple[Path | None, list[str]]]:
    """Prepare a run's folder and hold it while the run lasts.

    Parameters
    ----------
    recipe, provenance, held_out
        What the run is, which is written into the folder, or compared with what is there.
    output : Path
        The folder.
    resume, force : bool
        Whether to go on with the folder that exists, or to replace it.

    Yields
    ------
    tuple of (Path or None, list of str)
        The checkpoint to go on from, and what there is to say of those that were passed over.

    Raises
    ------
    InputError
        When there is another run, or none to go on with; in all processes.
    """
    state = PartialState()
    with ExitStack() as held:
        checkpoint, notes = None, []
        with _said_once(state):
            if state.is_main_process:
                if resume and output.exists():
                    _same_run(output, recipe, provenance, held_out)
                else:
                    # Recipes keep their runs in a folder of that name, which nobody should have to make first.
                    with _made(output.parent):
                        output.parent.mkdir(parents=True, exist_ok=True)
                    refuse_existing(output, force=force, mark=RECIPE)
                    if output.exists():
                        with locked(output):
                            remove_directory(output)
                    with _made(output):
                        output.mkdir()
                held.enter_context(locked(output))
                shutil.rmtree(output / WRITING, ignore_errors=True)
                with explain_failures(output):
                    for name, text in _records(recipe, provenance, held_out).items():
                        with publish_file(output / name, force=True) as file:
                            file.write_text(text, encoding="utf-8")
                if resume:
                    checkpoint, torn = resumable_checkpoint(output)
                    notes = [f"{wrong}; going on from {checkpoint or 'the beginning'}" for wrong in torn]
        for note in notes:
            print(note, file=sys.stderr)  # noqa: T201
        step = step_of(checkpoint) if checkpoint else 0
        step = int(broadcast(torch.tensor([step], device=state.device))[0])
        yield (output / CHECKPOINTS / f"checkpoint-{step}" if step else None), notes


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({one_line(error)}); choose another output") from None


@contextmanager
def _said_once(state: PartialState) -> Iterator[None]:
    """Have all processes stop where the main one has found something wrong."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = int(broadcast(torch.tensor([int(failure is not None)], device=state.device))[0])
    if failure is not None:
        raise failure
    if failed:
        raise InputError("the main process has stopped; it says why")


def _records(recipe: PretrainRecipe, provenance: Mapping[str, Any], held_out: WindowDataset) -> dict[str, str]:
    """Write what a run is, by file name."""
    return {
        RECIPE: recipe.as_yaml(),
        PROVENANCE: json.dumps(provenance, indent=1) + "\n",
        EVALUATED: held_out_windows(held_out),
    }


def _same_run(output: Path, recipe: PretrainRecipe, provenance: Mapping[str, Any], held_out: WindowDataset) -> None:
    """Refuse to go on with another recipe, another genome or another evaluation."""
    path = output / RECIPE
    if not path.is_file():
        raise InputError(f"{path}: there is no run to resume; leave --resume out, or give the folder of a run")
    old, text = path.read_text(encoding="utf-8"), recipe.as_yaml()
    for before, now in zip(old.splitlines(), text.splitlines(), strict=False):
        if before != now:
            raise InputError(
                f"{path}: the run was started with '{before.strip()}', the recipe now says '{now.strip()}'"
            )
    if old != text:
        raise InputError(f"{path}: the run was started with another recipe; resume with the same one")
    if (output / PROVENANCE).is_file():
        before = json.loads((output / PROVENANCE).read_text(encoding="utf-8"))["genomes"]
        for name, digest in provenance["genomes"].items():
            if before.get(name) != digest:
                raise InputError(
                    f"{output / PROVENANCE}: {name} is not the genome that the run was started with; resume with the "
                    "same one, or start anew"
                )
    path = output / EVALUATED
    if path.is_file() and path.read_text(encoding="utf-8") != held_out_windows(held_out):
        raise InputError(
            f"{path}: the held-out windows are not those that the run was started with; resume with the version of "
            "mutbert that it was started with, or start anew"
        )
