"""A task's files, found below the folder or the data set on the Hub that the user names, and parted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mutbert.errors import InputError
from mutbert.evaluation.results import fingerprint
from mutbert.examples.columns import is_fasta
from mutbert.examples.files import read_examples
from mutbert.examples.places import NoSuchFileError, find_file
from mutbert.examples.splits import grouped_split, random_split, sequence_keys
from mutbert.examples.task_data import part_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.evaluation.suites import Protocol, Suite, Task
    from mutbert.examples.places import SourceFile
    from mutbert.examples.table import Examples
    from mutbert.examples.task_data import TaskData

HUB: Final = "hf://"
_COMPRESSED: Final = ".gz"
# Of one file for all, a fifth is tested on, and of the rest a fifth chosen on.
_TEST_SHARE: Final = 0.2
_SUBSET_SEED: Final = 0


@dataclass(frozen=True)
class LoadedTask:
    """A task's data as a protocol wants them.

    Parameters
    ----------
    data : TaskData
        The parts.
    identity : str
        A word that differs where files or parts do.
    smoke : str
        Why its numbers are no benchmark; empty where they are one.
    sources : tuple of dict
        The files: place, bytes, SHA-256 and revision.
    """

    data: TaskData
    identity: str
    smoke: str
    sources: tuple[dict[str, Any], ...]


def load_task(suite: Suite, task: Task, root: str, protocol: Protocol, *, seed: int, drop_leaks: bool) -> LoadedTask:
    """Read a task and part it.

    Parameters
    ----------
    suite, task : Suite, Task
        Which.
    root : str
        The folder that holds the suite's files, ``hf://datasets/OWNER/NAME[@REVISION]``, or one file of all tasks.
    protocol : Protocol
        How validation data are taken.
    seed : int
        What that depends on.
    drop_leaks : bool
        See `mutbert.examples.task_data.part_task`.

    Returns
    -------
    LoadedTask
        The data.

    Raises
    ------
    InputError
        When files are missing or cannot be read.
    """
    smoke = ""
    if not root.startswith(HUB) and Path(root).is_file():
        parts, sources = _one_file(suite, task, root)
        smoke = f"{suite.name}: {Path(root).name} is one file, which was split here; a smoke run, no benchmark"
    else:
        parts, sources = _files(suite, task, root)
    train = parts["train"]
    how = protocol.validation if parts.get("validation") is None else "file"
    if protocol.max_train_rows is not None and protocol.max_train_rows < len(train):
        kept = random_split(len(train), protocol.max_train_rows / len(train), _SUBSET_SEED).validation
        train = train.select(kept[: protocol.max_train_rows])
        smoke = smoke or f"{suite.name}: at most {protocol.max_train_rows:,} training sequences; no benchmark"
    data = part_task(
        train,
        parts.get("validation"),
        parts["test"],
        sources,
        how=how,
        share=protocol.validation_share,
        seed=seed,
        drop_leaks=drop_leaks,
    )
    # A split by seed is another for every seed, and the seed is in the cell's name.
    settings = [how, protocol.validation_share, protocol.max_train_rows, drop_leaks, bool(smoke)]
    identity = fingerprint([sorted((name, source.sha256) for name, source in sources.items()), settings])
    described = tuple(
        {
            "split": name,
            "place": source.place,
            "bytes": source.bytes,
            "sha256": source.sha256,
            "revision": source.revision,
        }
        for name, source in sources.items()
    )
    return LoadedTask(data, identity, smoke, described)


def refuse_missing(suite: Suite, task: Task, root: str) -> None:
    """Refuse a task whose files are not where they should be, before anything is run.

    Raises
    ------
    InputError
        With what is missing. Of files on the Hub nothing is known before they are read.
    """
    if root.startswith(HUB):
        return
    if Path(root).is_file():
        if suite.task_column is None:
            raise InputError(f"{root}: is a file, and the {suite.name} suite has a folder of them; give that")
        return
    for split, called in suite.splits.items():
        if split != "validation" and _found(suite, task.name, root, called) is None:
            names = ", ".join(pattern.format(task=task.name, split=called) for pattern in suite.files)
            raise InputError(
                f"{root}: has none of {names}; give the folder of the {suite.name} files by --data {suite.name}=..., "
                "or the tasks that there are by --task"
            )


def found_file(suite: Suite, root: str) -> str:
    """Find the one file of a suite that has no tasks in files of their own.

    Raises
    ------
    InputError
        When none of its names is there.
    """
    if not root.startswith(HUB) and Path(root).is_file():
        return root
    place = _found(suite, "", root, "")
    if place is None:
        raise InputError(
            f"{root}: has none of {', '.join(suite.files)}; give the {suite.name} table by --data {suite.name}=..."
        )
    return place


def _files(suite: Suite, task: Task, root: str) -> tuple[dict[str, Examples], dict[str, SourceFile]]:
    parts: dict[str, Examples] = {}
    sources: dict[str, SourceFile] = {}
    for split, called in suite.splits.items():
        place = _found(suite, task.name, root, called)
        if place is None:
            if split == "validation":
                continue
            refuse_missing(suite, task, root)
            raise InputError(f"{root}: has no {called} file of {suite.name}/{task.name}; look at its files")
        parts[split], sources[split] = _read(suite, task, place)
    return parts, sources


def _found(suite: Suite, task: str, root: str, called: str) -> str | None:
    for pattern in suite.files:
        path = pattern.format(task=task, split=called)
        if root.startswith(HUB):
            try:
                find_file(f"{root.rstrip('/')}/{path}")
            except NoSuchFileError:
                continue
            return f"{root.rstrip('/')}/{path}"
        for name in (path, path + _COMPRESSED):
            if (Path(root) / name).is_file():
                return str(Path(root) / name)
    return None


def _one_file(suite: Suite, task: Task, root: str) -> tuple[dict[str, Examples], dict[str, SourceFile]]:
    refuse_missing(suite, task, root)
    assert suite.task_column is not None
    every, source = _read(suite, task, root, {suite.task_column: task.name})
    keys = sequence_keys(every)
    labels = every.known_labels if every.problem in {"binary", "multiclass"} else None
    rest, test = grouped_split(labels, keys, _TEST_SHARE, _SUBSET_SEED)
    if not len(test) or len(rest) < 2:
        raise InputError(f"{root}: has {len(every)} sequences of {task.name}, too few to hold some out")
    rest_labels = None if labels is None else labels[rest]
    train, validation = grouped_split(rest_labels, keys[rest], _TEST_SHARE, _SUBSET_SEED + 1)
    if not len(validation):
        validation = np.arange(len(rest))[:1]
        train = np.arange(1, len(rest))
    parts = {
        "train": every.select(rest[train]),
        "validation": every.select(rest[validation]),
        "test": every.select(test),
    }
    return parts, dict.fromkeys(parts, source)


def _read(suite: Suite, task: Task, place: str, where: dict[str, str] | None = None) -> tuple[Examples, SourceFile]:
    wanted = suite.columns.chosen(where)
    if is_fasta(place):
        # Of a FASTA the names of columns are given.
        wanted = wanted.replace(sequence="sequence", label="label", name="name", region="name")
    has_classes = task.problem in {"binary", "multiclass", "token"}
    return read_examples(place, wanted, problem=task.problem, classes=task.classes if has_classes else None)


def chosen_tasks(suite: Suite, names: Sequence[str]) -> list[Any]:
    """Give the tasks of these names, all where there are none; whichever kind the suite has.

    Raises
    ------
    InputError
        When there is no task of a name.
    """
    tasks: Sequence[Any] = (suite.eqtl or suite).tasks
    known = {task.name: task for task in tasks}
    for name in names:
        if name not in known:
            raise InputError(f"{suite.name} has no task {name}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(tasks)
