"""Long work in parts, each written once: a part that is there is done, which is all that resuming takes.

The parts of ``NAME`` are in ``NAME.parts`` until it is complete, with a plan of all that they depend on. A finished
output has a mark of its plan, an extended attribute, by which the same command knows it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import polars as pl

from mutbert.errors import FinishedError, InputError, reading
from mutbert.files import (
    atomic_file,
    check_output,
    locked,
    mark_directory,
    mark_of,
    read_mark,
    remove_directory,
    set_mark,
    write_json,
)

_PLAN: Final = "plan.json"
_PARTS: Final = "[0-9]*"


def parts_path(output: Path) -> Path:
    """Return the directory of an output's parts, files that appear whole, and of all that they depend on."""
    return output.with_name(f"{output.name}.parts")


def was_stopped(output: Path) -> bool:
    """Return whether a run of this output can be resumed, or is finished."""
    return (parts_path(output) / _PLAN).exists() or read_mark(output) is not None


def check_done(output: Path, plan: Mapping[str, Any], outputs: Collection[Path] = (), *, force: bool) -> None:
    """Raise FinishedError where nothing is left to resume, InputError where another command has written an output."""
    is_stopped = (parts_path(output) / _PLAN).exists()
    marks = {read_mark(one) for one in outputs or [output]}
    if marks == {mark_of(plan)} and not is_stopped:
        raise FinishedError(f"{output}: the run is finished; nothing is left to resume")
    if not (is_stopped or force or marks == {None}):
        raise InputError(f"{output}: exists already, of another command; choose another output")


@contextmanager
def parts_folder(
    output: Path, plan: Mapping[str, Any], outputs: Collection[Path] = (), *, resume: bool = False, force: bool = False
) -> Iterator[Path]:
    """Yield the locked directory of an output's parts, removed when the block ends well, or without a finished part."""
    folder = parts_path(output)
    if resume:
        check_done(output, plan, outputs, force=force)
    check_output(folder, force=True, directory=True)
    folder.mkdir(exist_ok=True)
    with locked(folder, output):
        path = folder / _PLAN
        if not path.exists() or (force and not resume):
            mark_directory(folder, (_PLAN, _PARTS, ".*"))
            for part in folder.glob(_PARTS):
                part.unlink()
            write_json(path, plan, force=True)
        elif not resume:
            goes_on = f"use --resume to go on from part {len(list(folder.glob(_PARTS))) + 1}"
            raise InputError(f"{folder}: has a stopped run; {goes_on}, or choose another output")
        with reading(path, f"remove {folder}"):
            found = "; ".join(differences(json.loads(path.read_text(encoding="utf-8")), plan))
        if found:
            raise InputError(f"{output}: cannot be resumed: {found}; use the same, or choose another output")
        try:
            yield folder
        except BaseException as error:
            if done := len(list(folder.glob(_PARTS))):
                error.add_note(f"--resume goes on from part {done + 1}")
            else:
                remove_directory(folder)
            raise
        for one in outputs or [output]:
            set_mark(one, mark_of(plan))
        remove_directory(folder)


def run_parts(
    folder: Path, items: Iterable[tuple[int, Any]], compute: Callable[[Any, Path], None], *,
    skipped: Callable[[Any], None], rank: int = 0, ranks: int = 1,
) -> list[Path]:  # fmt: skip
    """Return the files of numbered items; ``compute(item, path)`` writes this process's share of those missing."""
    paths = []
    for number, item in items:
        paths.append(path := folder / f"{number:08d}.parquet")
        if number % ranks != rank or _is_whole(path):
            skipped(item)
        else:
            with atomic_file(path, force=True) as partial:
                compute(item, partial)
    return paths


def _is_whole(part: Path) -> bool:
    """Return whether a part is there and can be read; a damaged one is made again."""
    with suppress(OSError, pl.exceptions.PolarsError):
        pl.read_parquet(part)
        return True
    return False


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
