"""A task's files, found below the folder or the data set on the Hub that the user names, and split into parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError
from mutbert.evaluation.results import fingerprint
from mutbert.examples.files import read_examples
from mutbert.examples.splits import random_split
from mutbert.examples.task_data import part_task
from mutbert.tables import NoSuchFileError, find_file, is_fasta

if TYPE_CHECKING:
    from mutbert.evaluation.suites import Protocol, Suite, Task
    from mutbert.examples.table import Examples
    from mutbert.examples.task_data import TaskData
    from mutbert.tables import SourceFile

HUB: Final = "hf://"
_SUBSET_SEED: Final = 0


class LoadedTask(NamedTuple):
    """A task's data as a protocol wants them."""

    data: TaskData
    identity: str  # a word that differs where files or parts do
    note: str  # why numbers of it are no benchmark; empty where they are
    sources: list[dict[str, Any]]


def load_task(suite: Suite, task: Task, root: str, protocol: Protocol, *, seed: int, drop_leaks: bool) -> LoadedTask:
    """Return a task's parts, of files below `root`: a folder, or ``hf://datasets/OWNER/NAME[@REVISION]``.

    `seed` decides which sequences are validation data, where there is no file of them.
    """
    parts: dict[str, Examples] = {}
    sources: dict[str, SourceFile] = {}
    for split in suite.splits:
        if path := task_file(suite, root, task.name, split):
            parts[split], sources[split] = _read(suite, task, path)
    train, note = parts["train"], ""
    how = protocol.validation if "validation" not in parts else "file"
    most = protocol.max_train_rows
    if most is not None and most < len(train):
        train = train.select(random_split(len(train), most / len(train), _SUBSET_SEED).validation[:most])
        note = f"{suite.name}: at most {most:,} training sequences; no benchmark"
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
    # The seed of a split is in the cell's name.
    settings = [how, protocol.validation_share, most, drop_leaks]
    identity = fingerprint([sorted((name, source.sha256) for name, source in sources.items()), settings])
    return LoadedTask(data, identity, note, [{"split": name, **vars(source)} for name, source in sources.items()])


def check_files(suite: Suite, root: str, tasks: list[str]) -> None:
    """Raise InputError where a local file is missing; of files on the Hub nothing is known before they are read."""
    for task in [""] if suite.eqtl else tasks:
        for split in suite.splits:
            if split != "validation" and not root.startswith(HUB):
                task_file(suite, root, task, split)


def task_file(suite: Suite, root: str, task: str, split: str) -> str | None:
    """Return the path of a task's file, plain or gzip, or `root` where that is an eQTL table.

    None where there are no validation data; raise InputError for another file that is missing.
    """
    if suite.eqtl and not root.startswith(HUB) and Path(root).is_file():
        return root
    called: str = suite.splits[split]  # type: ignore[index]
    names = [pattern.format(task=task, split=called) for pattern in suite.files]
    for name in names:
        path = f"{root.rstrip('/')}/{name}"
        if root.startswith(HUB):
            try:
                find_file(path)
            except NoSuchFileError:
                continue
            return path
        for place in (path, f"{path}.gz"):
            if Path(place).is_file():
                return place
    if split == "validation":
        return None
    raise InputError(
        f"{root}: has none of {', '.join(names)}; give the folder of the {suite.name} files by --data "
        f"{suite.name}=..., or the tasks that there are by --task"
    )


def _read(suite: Suite, task: Task, path: str) -> tuple[Examples, SourceFile]:
    wanted = suite.columns
    if is_fasta(path):
        # The columns of a FASTA have names of their own.
        wanted = wanted.replace(sequence="sequence", label="label", name="name", region="name")
    classes = task.classes if task.problem in {"binary", "multiclass", "token"} else None
    return read_examples(path, wanted, problem=task.problem, classes=classes)
