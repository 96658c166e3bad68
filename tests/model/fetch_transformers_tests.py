"""Fetch the tests that `transformers` ships in its source distribution, for `test_transformers_common.py`.

They are in no wheel and are not ours to copy, so they lie outside of git, in ``.venv/transformers-tests``. Without
them, as where there is no network, the tests that need them are skipped; so a failure here is one line and no error.

    .venv/bin/python tests/model/fetch_transformers_tests.py
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "transformers-tests"


def main():
    version = importlib.metadata.version("transformers")
    marker = FOLDER / "VERSION"
    if marker.is_file() and marker.read_text().strip() == version:
        FOLDER.touch()  # Newer than what `make` compares it with.
        return
    # In the same folder, so that they can be renamed.
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="transformers-tests-") as scratch:
        try:
            unpacked = unpack(download(version, Path(scratch)), Path(scratch))
        except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
            print(f"the tests of transformers {version} could not be had, so ours that use them are skipped: {error}")
            return
        (unpacked / "VERSION").write_text(f"{version}\n")
        (unpacked / "__init__.py").touch()  # `test_configuration_common.py` reads it.
        if FOLDER.exists():
            shutil.move(FOLDER, Path(scratch) / "old")
        unpacked.rename(FOLDER)


def download(version, folder):
    """Return the source distribution, fetched by pip, which knows which index to ask."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # A machine without a network is to learn so soon.
    pip += ["--retries", "1", "--timeout", "15", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
    result = subprocess.run(
        [*pip, f"transformers=={version}"], capture_output=True, text=True, timeout=300, check=False
    )
    found = sorted(folder.glob("transformers-*.tar.gz"))
    if result.returncode or not found:
        raise OSError((result.stderr.strip().splitlines() or ["pip found no source distribution"])[-1])
    return found[0]


def unpack(archive, folder):
    """Return the folder ``tests``, with its Python files and no subfolders."""
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar if re.fullmatch(r"[^/]+/tests/\w+\.py", member.name)]
        tar.extractall(folder, members=wanted, filter="data")
    if not wanted:
        raise OSError(f"{archive.name} has no tests")
    return folder / Path(wanted[0].name).parent


if __name__ == "__main__":
    main()
