"""The report of any folder that mutbert wrote, and what its pages read of one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mutbert
from mutbert.errors import InputError, reading
from mutbert.run_folder import HISTORY, METRICS, RECIPE

if TYPE_CHECKING:
    from mutbert.reports.plots import History


_PAGES: Final = {"pretrain": "pretraining", "finetune": "finetuning", "vep": "vep"}


def report(folder: str | Path, *, force: bool = True) -> Path:
    """Write the HTML report of a folder of `pretrain`, `finetune`, `evaluate_variant_effects` or `run_benchmark`.

    Parameters
    ----------
    folder, force
        The folder, from which alone it is made; replace the report that is there.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        A folder of something else, or one that is incomplete.

    Examples
    --------
    >>> recipe = mutbert.FinetuneRecipe(model="model", train="table.csv", output="other", finetune={"max_steps": 2})
    >>> result = mutbert.finetune(recipe)
    >>> mutbert.report("other").name
    'report.html'
    """
    folder = Path(folder)
    for path in (folder / METRICS, folder / "vep.json"):
        if path.is_file():
            kind = read_record(path)["kind"]
            if kind not in _PAGES:
                raise InputError(f"{path}: kind is {kind!r}; it must be one of {', '.join(_PAGES)}")
            with reading(f"{path} and what lies with it", "repeat the run that wrote them"):
                page: Path = import_module(f"mutbert.reports.{_PAGES[kind]}").write_page_of(folder, force=force)
            return page
    if (earlier := folder / "held_out.json").exists():
        raise InputError(f"{earlier}: was written by another version of mutbert; repeat the run that wrote it")
    if (folder / "suites").is_dir():
        return mutbert.report_benchmark(folder, force=force)[1][0]
    raise InputError(f"{folder}: has no {METRICS} or vep.json and no suites; choose the folder of a finished run")


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that begins with ``kind`` and ``version``."""
    record = _read(path)
    if not isinstance(record, dict) or record.get("version") != 2 or "kind" not in record:
        raise InputError(f"{path}: was written by another version of mutbert; repeat the run that wrote it")
    return record


def read_run(folder: Path) -> tuple[dict[str, Any], History, str]:
    """Return metrics, history and recipe of a training run."""
    history = _read(folder / HISTORY) if (folder / HISTORY).exists() else []
    recipe = (folder / RECIPE).read_text(encoding="utf-8") if (folder / RECIPE).exists() else ""
    return read_record(folder / METRICS), history, recipe


def _read(path: Path) -> Any:
    with reading(path, "choose the folder of a finished run"):
        return json.loads(path.read_text(encoding="utf-8"))


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers from JSON, whose null is not a number."""
    return {name: math.nan if value is None else value for name, value in values.items()}
