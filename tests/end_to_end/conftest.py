import subprocess
import sys

import pytest

from mutbert.cli.main import run as run_program


@pytest.fixture(scope="session")
def mutbert():
    """Run the installed program as a user does; give its completed process."""

    def run(*words, status=0, **settings):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "mutbert.cli", *map(str, words)],
            capture_output=True, text=True, check=False, **settings,
        )  # fmt: skip
        assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def mutbert_here(monkeypatch, capfd):
    """Run the program in this process, where the libraries are imported already; give what `mutbert` gives."""

    def run(*words, status=0):
        words = ["mutbert", *map(str, words)]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_program()
        done = subprocess.CompletedProcess(words, ended.value.code or 0, *capfd.readouterr())
        assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def demo(mutbert, tmp_path_factory):
    """The demo's folder, made with a few steps only."""
    folder = tmp_path_factory.mktemp("work") / "demo"
    mutbert("demo", "--output", folder, "--steps", "4")
    return folder
