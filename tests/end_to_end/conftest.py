import os
import subprocess
import sys

import pytest
import typer
from filelock import FileLock
from typer.testing import CliRunner

from mutbert.cli.main import app
from mutbert.cli.main import run as run_program


@pytest.fixture(scope="session")
def mutbert():
    """Run the installed program as a user does, and return its completed process."""

    def run(*words, status=0, **settings):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "mutbert", *map(str, words)],
            capture_output=True, text=True, check=False, **settings,
        )  # fmt: skip
        assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def mutbert_here(monkeypatch, capfd):
    """Run the program in this process, which has imported the libraries, and return what `mutbert` returns."""

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
def verbs():
    """Every verb and group of verbs by its words, with its options."""

    def walk(group, *words):
        context = group.make_context(" ".join(["mutbert", *words]), ["-"], resilient_parsing=True)
        for name in group.list_commands(context):
            _, command, _ = group.resolve_command(context, [name])
            yield (*words, name), command
            if hasattr(command, "list_commands"):
                yield from walk(command, *words, name)

    return dict(walk(typer.main.get_command(app)))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder of the demo with a few steps, made once for all processes of the tests."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "work"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        if not (root / "demo").exists():
            done = CliRunner().invoke(app, ["demo", "--output", str(root / "demo"), "--steps", "4"])
            assert done.exit_code == 0, f"{done.output}\n{done.exception}"
    return root / "demo"
