"""The folder of a run: made or gone on with, held by one run at a time, alike for all of its processes."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import broadcast

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, check_output, locked, mark_directory, remove_directory
from mutbert.run_folder import PROVENANCE, RECIPE, RUN_FILES, WRITING
from mutbert.training.checkpoints import CHECKPOINTS, resumable_checkpoint, set_aside, step_of
from mutbert.training.failures import explain_failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# What may differ when a run goes on: how a step is shared out, and what is kept; not what a step is.
_MAY_CHANGE: Final = (
    "training.per_device_train_batch_size",
    "training.per_device_eval_batch_size",
    "training.auto_find_batch_size",
    "training.dataloader_",
    "training.save_total_limit",
    "finetune.micro_batch_size",
    "finetune.training.dataloader_",
)


class RunRecords(NamedTuple):
    """What a run is: written into its folder, and compared with what is there when it goes on.

    Parameters
    ----------
    recipe : str
        The resolved recipe, as YAML.
    provenance : mapping
        What it is made with.
    made_of : str
        The part of the provenance that must be the same when the run goes on: checksums by name.
    others : mapping of str to str
        Other files, which must be the same too, by name.
    """

    recipe: str
    provenance: Mapping[str, Any]
    made_of: str
    others: Mapping[str, str]


@contextmanager
def held_folder(
    records: RunRecords, output: Path, *, inputs: Sequence[str | Path] = (), resume: bool, force: bool
) -> Iterator[tuple[Path | None, list[str]]]:
    """Prepare a run's folder and hold it while the run lasts.

    Parameters
    ----------
    records : RunRecords
        What the run is.
    output : Path
        The folder.
    inputs : sequence of paths
        What the run reads, so that no output costs an input.
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
        checkpoint: Path | None = None
        notes: list[str] = []
        with _said_once(state):
            if state.is_main_process:
                # One that holds nothing yet was made by a run that was killed right then.
                if resume and output.is_dir() and not any(output.glob("[!.]*")):
                    mark_directory(output, RUN_FILES)
                elif resume and output.exists():
                    _same_run(output, records)
                else:
                    # Recipes keep their runs in a folder of that name, which nobody should have to make first.
                    with _made(output.parent):
                        output.parent.mkdir(parents=True, exist_ok=True)
                    check_output(output, force=force, directory=True, inputs=inputs)
                    if output.exists():
                        with locked(output):
                            remove_directory(output)
                    with _made(output):
                        output.mkdir()
                        mark_directory(output, RUN_FILES)
                held.enter_context(locked(output))
                shutil.rmtree(output / WRITING, ignore_errors=True)
                with explain_failures(output):
                    for name, text in _texts(records).items():
                        with atomic_file(output / name, force=True) as file:
                            file.write_text(text, encoding="utf-8")
                if resume:
                    checkpoint, torn = resumable_checkpoint(output)
                    for path, wrong in torn.items():
                        # Or it would be taken for one of the last, and newer ones of lower steps be removed for it.
                        set_aside(path)
                        notes.append(f"{path}: {wrong}; going on from {checkpoint or 'the beginning'}")
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


def _texts(records: RunRecords) -> dict[str, str]:
    """Write what a run is, by file name."""
    return {
        RECIPE: records.recipe,
        PROVENANCE: json.dumps(records.provenance, indent=1) + "\n",
        **records.others,
    }


def _same_run(output: Path, records: RunRecords) -> None:
    """Refuse to go on with another recipe, or with other data."""
    path = output / RECIPE
    if not path.is_file():
        raise InputError(f"{path}: there is no run to resume; leave --resume out, or give the folder of a run")
    made_of = records.provenance[records.made_of]
    try:
        old = _flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        started_with = json.loads((output / PROVENANCE).read_text(encoding="utf-8"))[records.made_of]
        others = {name: (output / name).read_text(encoding="utf-8") for name in records.others}
        known = {name: started_with.get(name) for name in made_of}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(
            f"{output}: its {' or '.join(_texts(records))} cannot be read ({one_line(error, 160)}), so the run cannot "
            "be resumed; start anew"
        ) from None
    new = _flat(yaml.safe_load(records.recipe))
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if before != now and not key.startswith(_MAY_CHANGE):
            raise InputError(f"{path}: the run was started with '{key}: {before}', the recipe now says '{key}: {now}'")
    for name, digest in made_of.items():
        if known[name] != digest:
            raise InputError(
                f"{output / PROVENANCE}: {name} is not what the run was started with; resume with the same "
                f"{records.made_of}, or start anew"
            )
    for name, text in others.items():
        if text != records.others[name]:
            raise InputError(
                f"{output / name}: is not what the run was started with; resume with the version of mutbert that it "
                "was started with, or start anew"
            )


def _flat(tree: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Give a tree's values by their place, ``training.max_steps`` for example."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, dict) and value else {f"{place}{key}": value}
    return flat
