"""Every command that writes, on a full disk, over its own inputs, into pipes, and wherever a process may run."""

import itertools
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

SIZES = [4, 8, 12, 16, 24, 40, 64, 100, 160, 320, 700, 2048]  # kB


@pytest.fixture(scope="session")
def forked(fork):
    """Run a command that ends well, or with one line; return its status, what it printed, and that line."""

    def run(command, folder, before="", **environment):
        status, out, said = fork(command, folder, before, environment)
        assert status in {0, 2}, (command, before, environment, said)
        assert "Traceback" not in said, (command, before, environment, said)
        lines = [line for line in said.splitlines() if line.startswith("mutbert: ") and "runs on" not in line]
        assert status == 0 or len(lines) == 1, (command, before, environment, said)
        return status, out, "".join(lines)

    return run


def content(path):
    """Bytes of a file, or of all in a folder, by path."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    own = {".lock", ".mutbert.json"}
    return {str(one.relative_to(path)): one.read_bytes() for one in files if one.is_file() and one.name not in own}


@pytest.fixture
def disk(tmp_path):
    """Mount a file system of so many kB; the test is skipped where that is not permitted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size, *, again=False):
        options = f"{'remount,' * again}size={size}k"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=False).returncode:
            pytest.skip("no file system may be mounted")
        return place

    yield mount
    while subprocess.run(["umount", "-l", place], check=False, capture_output=True).returncode == 0:
        pass


def on_full_disks(name, writes, sizes, inputs, forked, disk, tmp_path):
    """A command whose output has room for some of it, where there is none before and where there is a good one."""
    command, suffix = writes[name]
    whole = tmp_path / f"out{suffix}"
    assert forked(command.format(whole), inputs)[0] == 0
    copy = shutil.copytree if whole.is_dir() else shutil.copy
    for size, force in sizes:
        output = disk(8192) / whole.name
        if force:
            copy(whole, output)
        used = subprocess.run(["du", "-sk", output.parent], check=True, capture_output=True).stdout.split()[0]
        disk(size + int(used), again=True)
        status, _, line = forked(command.format(output) + " --force" * force, inputs)
        if status == 0:
            assert len(content(output)) == len(content(whole))
            assert content(output) == content(whole) or name in {"pretrain", "finetune", "grid", "tensors"}
        else:
            assert str(output) in line
            # A run that is there already goes on where it is.
            runs = not force and name in {"pretrain", "finetune", "grid"}
            assert runs or os.path.lexists(output) == force
            assert not force or content(output) == content(whole)
        subprocess.run(["umount", "-l", output.parent], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(write, inputs, forked, disk, tmp_path):
    name, writes = write
    start = list(writes).index(name) % 4
    sizes = zip(SIZES[start::4], itertools.cycle((False, name != "grid")), strict=False)
    on_full_disks(name, writes, sizes, inputs, forked, disk, tmp_path)


@pytest.mark.nightly
def test_all_full_disks(write, inputs, forked, disk, tmp_path):
    name, writes = write
    sizes = itertools.product(SIZES, {False, name != "grid"})
    on_full_disks(name, writes, sizes, inputs, forked, disk, tmp_path)


def test_force_costs_no_input(write, inputs, forked, tmp_path):
    """The output is an input, lies in it, or is another name of it."""
    name, writes = write
    command, suffix = writes[name]
    here = tmp_path / "here"
    shutil.copytree(inputs, here)
    (here / "deep").mkdir()
    found = {word.partition("=")[2] or word for word in command.split()}
    for source in sorted(word for word in found if (here / word).exists()):
        (here / f"link{suffix}").unlink(missing_ok=True)
        (here / f"link{suffix}").symlink_to(here / source)
        before = content(here)
        for output in (source, f"deep/../{source}", f"../here/{source}", f"link{suffix}", f"{source}/out{suffix}"):
            if name != "grid":
                forked(f"{command.format(output)} --force", here)
                now = content(here)
                assert {path: now.get(path) for path in before} == before, output
        if (here / source).is_file() and suffix:
            (named := tmp_path / f"named{suffix}").unlink(missing_ok=True)
            os.link(here / source, named)
            forked(f"{command.format(named)} --force", here)
            assert content(here) == before


def test_pipes_and_devices_are_written_to(write, inputs, forked, tmp_path):
    name, writes = write
    command, suffix = writes[name]
    pipe, null, whole = (tmp_path / f"{one}{suffix}" for one in ("pipe", "null", "whole"))
    os.mkfifo(pipe)
    null.symlink_to(os.devnull)
    if suffix in {"", ".genome"}:
        for output in (pipe, null):
            status, _, line = forked(command.format(output) + " --force" * (name != "grid"), inputs)
            assert (status, str(output) in line) == (2, True)
    else:
        assert forked(command.format(whole), inputs)[0] == forked(command.format(null), inputs)[0] == 0
        read = tmp_path / "read"
        with read.open("wb") as file, subprocess.Popen(["cat", pipe], stdout=file):
            assert forked(command.format(pipe), inputs)[0] == 0
        assert read.stat().st_size == whole.stat().st_size
    assert pipe.is_fifo()
    assert null.is_symlink()
    assert Path(os.devnull).is_char_device()


PLACES = [
    ("os.close(2); sys.stderr = None", {}),
    ("[os.close(one) for one in (0, 1, 2)]; sys.stdin = sys.stdout = sys.stderr = None", {}),
    ("one, two = os.pipe(); os.close(one); os.dup2(two, 1)", {}),
    ("os.environ.pop('HOME'); os.environ.pop('LANG', None)", {"LC_ALL": "C", "TERM": "dumb", "COLUMNS": "0"}),
    ("os.umask(0o077)", {"HOME": "/proc/none", "TMPDIR": "/none", "PYTHONSAFEPATH": "1"}),
]


def test_a_command_runs_anywhere(write, inputs, forked, tmp_path):
    """Its files follow the umask, and what JSON it prints and writes is JSON."""
    name, writes = write
    command, suffix = writes[name]
    first = list(writes).index(name) % 5
    for number, (before, environment) in enumerate([*PLACES, *PLACES][first : first + 2]):
        output = tmp_path / f"ü{number}{suffix}"
        status, out, _ = forked(command.format(output) + " --json", inputs, before, **environment)
        assert status == 0
        for one in [output, *output.rglob("*")] if "umask" in before else []:
            assert stat.S_IMODE(one.stat().st_mode) == (0o700 if one.is_dir() else 0o600), one
        texts = [out] * ("LC_ALL" in environment) + [one.read_text() for one in output.rglob("*.json")]
        for text in texts:
            assert json.loads(text, parse_constant=pytest.fail) is not None


def test_a_working_directory_that_was_removed_is_one_line(inputs, forked):
    before = "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    line = forked(f"genome export {inputs}/small.genome --as reference -o x.fa", inputs, before)[2]
    assert "working directory" in line
