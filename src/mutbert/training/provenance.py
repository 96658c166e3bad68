"""What a run was made with, kept beside each checkpoint and model."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mutbert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.genome.store import ProbabilisticGenome

_LIBRARIES: Final = ("torch", "transformers", "accelerate", "numpy")


def provenance_of(genomes: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    """Say what a run is made with.

    Returns
    -------
    dict
        ``versions`` of Python, this package and the libraries that decide results; ``commit``, the Git commit of this
        package where it is used from a checkout, with ``+`` behind it where files differ from it; ``genomes``, the
        SHA-256 of each store's manifest by its name, which holds those of its arrays.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "mutbert": mutbert.__version__,
            **{name: _version(name) for name in _LIBRARIES},
        },
        "commit": _commit(Path(mutbert.__file__).parent),
        "genomes": {genome.path.name: genome.identity for genome in genomes},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Find the commit of a checkout of this package; an installed package may lie in somebody else's checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", "__init__.py") != "__init__.py":
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
