"""A long run as parts, each a file that appears whole: a part that has its file is done and never computed again.

The directory ``OUTPUT.parts`` has ``00000000.parquet`` and so on, and all that they depend on in ``plan.json``.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output, locked, mark_directory, write_json

_PLAN: Final = "plan.json"
_PARTS: Final = "[0-9]*"


def parts_path(output: Path) -> Path:
    """Path of the directory of an output's parts."""
    return output.with_name(f"{output.name}.parts")


def was_stopped(output: Path) -> bool:
    """Return whether a run of this output can be resumed."""
    return (parts_path(output) / _PLAN).exists()


@contextmanager
def parts_folder(output: Path, plan: Mapping[str, Any], *, resume: bool = False, force: bool = False) -> Iterator[Path]:
    """Yield the directory of an output's parts, locked; removed when the block ends well, or without a finished part.

    With `resume` an earlier run of the same plan is continued; with `force` it is discarded.
    """
    folder = parts_path(output)
    check_output(folder, force=True, directory=True)
    folder.mkdir(exist_ok=True)
    with locked(folder, output):
        path = folder / _PLAN
        if path.exists() and resume:
            if found := "; ".join(differences(json.loads(path.read_text(encoding="utf-8")), plan)):
                raise InputError(f"{output}: cannot be resumed: {found}; use the same, or choose another output")
        elif path.exists() and not force:
            goes_on = f"use --resume to go on from part {len(list(folder.glob(_PARTS))) + 1}"
            raise InputError(f"{folder}: has a stopped run; {goes_on}, or choose another output")
        else:
            mark_directory(folder, (_PLAN, _PARTS, ".*"))
            path.unlink(missing_ok=True)
            for part in folder.glob(_PARTS):
                part.unlink()
            write_json(path, plan)
        try:
            yield folder
        except BaseException as error:
            if done := len(list(folder.glob(_PARTS))):
                error.add_note(f"--resume goes on from part {done + 1}")
            else:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def run_parts(
    folder: Path, items: Iterable[tuple[int, Any]], compute: Callable[[Any, Path], None], *,
    skipped: Callable[[Any], None], rank: int = 0, ranks: int = 1,
) -> list[Path]:  # fmt: skip
    """Return the files of numbered items; ``compute(item, path)`` writes this process's share of those missing."""
    paths = []
    for number, item in items:
        paths.append(path := folder / f"{number:08d}.parquet")
        if path.exists() or number % ranks != rank:
            skipped(item)
        else:
            with atomic_file(path) as partial:
                compute(item, partial)
    return paths


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words how two plans differ, with their nested ``settings``."""
    old, new = ({**plan, **plan.get("settings", {})} for plan in json.loads(json.dumps([before, now])))
    return [
        f"the {name} is another"
        if len(str(new.get(name))) == 64  # letters of a SHA-256
        else f"{name} was {json.dumps(old.get(name)):.80} and is {json.dumps(new.get(name)):.80}"
        for name in {**old, **new}
        if name != "settings" and old.get(name) != new.get(name)
    ]
