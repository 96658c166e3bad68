"""``mutbert workflow``: what runs the other commands on one machine or on a cluster, by Snakemake."""

import shutil
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mutbert.files import atomic_directory


def list_workflow() -> dict[str, Any]:
    """List the files of the workflow: rules, configuration, and profiles of machines."""
    with as_file(files("mutbert") / "workflow") as folder:
        names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return {"files": sorted(name for name in names if "__pycache__" not in name)}


def copy_workflow(directory: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Copy the workflow to a folder of one's own, where Snakemake runs it.

    Parameters
    ----------
    directory, force
        The new folder; replace it where it exists and holds nothing else.
    """
    directory = Path(directory)
    with as_file(files("mutbert") / "workflow") as folder, atomic_directory(directory, force=force) as copy:
        for name in list_workflow()["files"]:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, copy / name)  # without the modes of the installation
    needed = "" if find_spec("snakemake") else "pip install 'mutbert[workflow]', "
    edited = f"{needed}edit {directory / 'config/config.yaml'}"
    return {"output": directory, "next": f"{edited}, then: cd {directory} && snakemake --profile profiles/local"}
