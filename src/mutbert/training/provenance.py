"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mutbert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.genome.store import ProbabilisticGenome


def provenance_of(genomes: Sequence[ProbabilisticGenome] = ()) -> dict[str, Any]:
    """Return ``versions`` of the libraries, the ``commit`` of a checkout, and each genome's identity by its name."""
    versions = {"python": platform.python_version(), "mutbert": mutbert.__version__}
    versions |= {name: version(name) for name in ("torch", "transformers", "accelerate", "numpy")}
    identities = {genome.path.name: genome.identity for genome in genomes}
    return {"versions": versions, "commit": _commit(Path(mutbert.__file__).parent), "genomes": identities}


def _commit(folder: Path) -> str | None:
    """Return the commit of a checkout of this package, with ``+`` where files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie in somebody else's checkout.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
