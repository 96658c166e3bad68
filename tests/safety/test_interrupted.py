"""Every command that writes, killed at each call that changes the disk, and failing at each: nothing is lost."""

import errno
import random
import re
import shutil

import pytest

# What is not the same twice: times, and states of libraries.
VARIES = re.compile(r"metrics\.json|report\.html|(rng_state|optimizer|scheduler|trainer_state)\.")
COST = re.compile(rb'"cost": {[^}]*}')
RESUMES = ("genome build", "score", "embed", "tracks", "pretrain", "finetune")
FAULTS = (0, errno.EIO, errno.ENOSPC)
TEMPORARY = re.compile(r"(.*/)?\.[0-9a-f]{8}\.[^/]*")


# The call of this number, of those that change the folder, raises this OSError, or ends the process where that is 0.
FAILING = """
import fcntl
calls, done = os.open(called, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 0

def fails(error, *path):
    raise OSError(error, os.strerror(error), *path)

def patched(name, original):
    def call(path, *arguments, **settings):
        global done
        opened = path if name == "fsync" else settings.get("dir_fd")
        place = "" if opened is None else os.readlink(f"/proc/self/fd/{opened}")
        place = os.path.abspath(os.path.join(place, *[] if name == "fsync" else [os.fsdecode(path)]))
        if place.startswith(f"{folder}/"):
            os.write(calls, f"{name} {place}\\0".encode())
            done += 1
            if done == number:
                fails(fault, *[] if name == "fsync" else [path]) if fault else os._exit(9)
        return original(path, *arguments, **settings)
    return call

for name in ("rename", "replace", "fsync", "unlink", "remove", "rmdir", "mkdir", "link", "chmod"):
    setattr(os, name, patched(name, getattr(os, name)))
if no_locks:
    fcntl.flock = lambda *_: fails(no_locks)
"""


@pytest.fixture(scope="module")
def run_failing(fork, tmp_path_factory):
    """Run a command; return its status, its errors, and its calls that changed the folder, in order."""
    log = tmp_path_factory.mktemp("calls") / "calls"

    def run(command, folder, number=0, fault=0, no_locks=0):
        names = {"number": number, "fault": fault, "no_locks": no_locks, "called": str(log)}
        status, _, said = fork(command, folder, FAILING, **names)
        return status, said, log.read_text(encoding="utf-8").split("\0")[:-1]

    return run


@pytest.fixture
def start(run_failing, inputs, tmp_path):
    """Start a case in a folder of its own."""
    return lambda verb: Case(run_failing, shutil.copytree(inputs, tmp_path / "inputs"), *verb)


@pytest.fixture
def case(start, verb):
    return start(verb)


class Case:
    """A command in a folder of its inputs."""

    def __init__(self, run, folder, command, suffix):
        self.run, self.folder, self.out = run, folder, f"out{suffix}"
        self.command, self.resumes = command.format(self.out), command.startswith(RESUMES)
        self.is_shared = command.startswith("bench run")  # the same command goes on, in the same folder
        self.inputs, self.is_directory, self.more = self.read(), False, set[str]()

    def read(self, *, under=""):
        """Return files' content by name, or None where it varies."""
        files = [path for path in (self.folder / under).rglob("*") if path.is_file()]
        if (self.folder / under).is_file():
            files = [self.folder / under]
        names = {str(path.relative_to(self.folder / under)): path for path in files}
        skipped = re.compile(r"tensorboard|\.lock|.*\.partial/new/")
        return {
            name: None if VARIES.search(name) else COST.sub(b"", path.read_bytes())
            for name, path in names.items()
            if not skipped.match(name) and not TEMPORARY.fullmatch(name)
        }

    def others(self):
        """Return names that are neither of inputs nor of the output, nor of files that come with that."""
        known = {name.split("/")[0] for name in self.inputs} | {self.out} | self.more
        return {path.name for path in self.folder.iterdir()} - known

    def reset(self, *, old):
        """Remove all but the inputs, and write an output that is to be replaced; return this."""
        for path in [self.folder / name for name in (*self.others(), self.out, *self.more)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path = self.folder / self.out
        if old and self.is_directory:
            path.mkdir()
            (path / ".mutbert.json").write_text('{"files": ["old"]}')
        if old:
            (path / "old" if self.is_directory else path).write_text("old")
        return self.read(under=self.out)

    def unbroken(self, *, old):
        """Return an unbroken run's result and its calls, where an old output is replaced, or there is none."""
        self.reset(old=old)
        status, text, calls = self.run(self.command, self.folder)
        assert status == 0, text
        self.is_directory = (self.folder / self.out).is_dir()
        self.more |= {name for name in self.others() if name.startswith("out") and "part" not in name}
        assert not self.others()
        return self.read(under=self.out), calls

    def again(self):
        """Run the command again as a user would; return its status, output and calls."""
        status, text, calls = self.run(self.command + " --resume" * self.resumes, self.folder)
        return self.run(self.command, self.folder) if "omit --resume" in text else (status, text, calls)

    def check(self, new, number, fault, *, old):
        """Break the command at a call; what was there is there, and the next run ends as an unbroken one."""
        before = self.reset(old=old)
        status, text, _ = self.run(self.command, self.folder, number, fault)
        is_whole = self.read(under=self.out) == new
        kept = [self.read(under=name) for name in (self.out, f"{self.out}.partial/old")]
        assert self.inputs.items() <= self.read().items()
        assert is_whole or not old or before in kept
        left = {name for name in self.others() if fault or not TEMPORARY.fullmatch(name)}
        assert left <= {f"{self.out}.partial", f"{self.out}.parts"}
        if fault and not (status == 0 and is_whole):
            lines = text.splitlines() or [""]
            assert status == (1 if self.is_shared and status == 1 else 2), text
            assert "Traceback" not in text
            assert re.match(r"mutbert: .*\bout", lines[-1]), text
        status, text, calls = self.again()
        assert status == 0 or (is_whole and not old and "exists already" in text), text
        assert self.read(under=self.out) == new
        return calls


def check_all(case, count=None):
    """Check all calls and faults, or so many of them."""
    case.unbroken(old=False)
    for old in (False, True) if count is None else (not case.is_shared,):
        if old and case.is_shared:
            continue
        case.command += " --force" * old
        new, calls = case.unbroken(old=old)
        points = [(number, fault) for number in range(1, len(calls) + 1) for fault in FAULTS]
        for number, fault in points if count is None else random.Random(case.out).sample(points, count):
            try:
                case.check(new, number, fault, old=old)
            except AssertionError as error:
                error.add_note(f"{'--force, ' * old}fault {fault} at call {number}: {calls[number - 1]}")
                raise


def test_interrupted_or_failing_at_some_call_a_command_loses_nothing(case, request):
    if request.node.callspec.id in {"finetune", "grid", "effects", "explorer", "simulate"}:
        pytest.skip("takes long; the nightly test has it")
    check_all(case, 1)


@pytest.mark.nightly
def test_interrupted_or_failing_at_any_call_a_command_loses_nothing(case):
    check_all(case)


@pytest.mark.parametrize("last", ["fsync", "rename"])
def test_a_build_that_fails_at_its_end_keeps_what_it_has_read(start, writes, last):
    case = start(writes["build"])
    new, calls = case.unbroken(old=False)
    number = max(number for number, call in enumerate(calls, 1) if call.startswith(last))
    again = case.check(new, number, errno.EIO, old=False)
    read = [call for call in calls if "/work/parts/." in call]
    assert read
    assert not {re.sub(r"\.[0-9a-f]{8}", "", call) for call in again if "/work/parts/." in call}


@pytest.mark.parametrize(("name", "error"), [("build", errno.ENOLCK), ("bedgraph", errno.ENOSYS)])
def test_a_disk_without_locks_does(start, writes, name, error):
    """A killed process, which then leaves a file, holds nothing back."""
    case = start(writes[name])
    new, calls = case.unbroken(old=False)
    case.reset(old=False)
    assert case.run(case.command, case.folder, len(calls) // 2, 0, error)[0] == 9
    status, text, _ = case.run(f"{case.command} --resume", case.folder, 0, 0, error)
    assert status == 0, text
    assert not case.others()
    assert case.read(under=case.out) == new
