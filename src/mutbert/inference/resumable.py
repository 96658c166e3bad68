"""A long run as parts, each a file that appears whole: a part that has its file is done and never computed again.

The parts of ``OUTPUT`` are in the folder ``OUTPUT.parts``: ``000000.parquet``, ``000001.parquet``... and ``plan.json``,
which holds all that their numbers depend on. The folder goes when the output is there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mutbert.errors import InputError
from mutbert.files import atomic_file, locked, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from mutbert.genome.store import ProbabilisticGenome

Item = TypeVar("Item")

PLAN: Final = "plan.json"


@contextmanager
def parts_folder(output: Path, plan: Mapping[str, Any], *, resume: bool = False, force: bool = False) -> Iterator[Path]:
    """Yield the folder of an output's parts, which goes when the block ends well, or before any part is finished.

    With `resume` an earlier run of the same plan goes on; with `force` it is thrown away. What differs is named.
    """
    plan = json.loads(json.dumps(plan))
    folder = output.with_name(f"{output.name}.parts")
    folder.mkdir(exist_ok=True)
    with locked(folder, output):
        path = folder / PLAN
        if path.exists() and resume:
            before = json.loads(path.read_text(encoding="utf-8"))
            if other := [
                f"{name} was {json.dumps(before.get(name)):.80} and is {json.dumps(plan.get(name)):.80}"
                for name in {**before, **plan}
                if before.get(name) != plan.get(name)
            ]:
                raise InputError(
                    f"{output}: cannot go on: {'; '.join(other)}; give the same as before, or --force to start anew"
                )
        elif path.exists() and not force:
            raise InputError(
                f"{folder}: an unfinished run is there; give --resume to go on with it, or --force to start anew"
            )
        else:
            path.unlink(missing_ok=True)
            for part in folder.glob("[0-9]*"):
                part.unlink()
            write_json(path, plan)
        try:
            yield folder
        except BaseException:
            if not any(folder.glob("[0-9]*")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def run_parts(
    folder: Path,
    items: Iterable[tuple[int, Item]],
    compute: Callable[[Item, Path], None],
    *,
    suffix: str = ".parquet",
    skipped: Callable[[Item], None] = lambda _: None,
) -> list[Path]:
    """Return the files of numbered items, having ``compute(item, path)`` write those that are missing."""
    paths = []
    for number, item in items:
        path = folder / f"{number:06d}{suffix}"
        if path.exists():
            skipped(item)
        else:
            with atomic_file(path) as partial:
                compute(item, partial)
        paths.append(path)
    return paths


def genome_hash(genome: ProbabilisticGenome) -> str:
    """Return the SHA-256 of what a store's manifest holds of its arrays and contigs, checksums among it."""
    held = [genome.manifest["arrays"], genome.manifest["contigs"]]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
