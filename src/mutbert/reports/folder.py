"""The report of any folder that mutbert wrote."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

import mutbert
from mutbert.errors import InputError
from mutbert.reports.run_parts import read_record
from mutbert.run_folder import METRICS

_PAGES: Final = {"pretrain": "pretraining", "finetune": "finetuning", "vep": "vep"}
_RECORDS: Final = (METRICS, "vep.json")


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
    """
    folder = Path(folder)
    for path in (folder / name for name in _RECORDS):
        if path.is_file():
            kind = read_record(path)["kind"]
            if kind not in _PAGES:
                raise InputError(f"{path}: kind is {kind!r}; it must be one of {', '.join(_PAGES)}")
            page: Path = import_module(f"mutbert.reports.{_PAGES[kind]}").write_page_of(folder, force=force)
            return page
    if (earlier := folder / "held_out.json").exists():
        raise InputError(f"{earlier}: was written by another version of mutbert; repeat the run that wrote it")
    if (folder / "suites").is_dir():
        return mutbert.report_benchmark(folder, force=force)[1][0]
    raise InputError(f"{folder}: has no {' or '.join(_RECORDS)} and no suites; choose the folder of a finished run")
