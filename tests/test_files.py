"""Nothing half-written bears the final name, and two writers never meet."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from mutbert.demo import run_demo
from mutbert.errors import InputError
from mutbert.files import atomic_directory, atomic_file, check_output, locked, remove_directory, sha256_of
from mutbert.genome.build import build_genome
from mutbert.genome.simulate import simulate_population


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_directory_appears_when_the_block_ends(tmp_path):
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("text")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "deep" / "file").read_text() == "text"
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with atomic_directory(tmp_path / "out") as folder:
            (folder / "file").write_text("text")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "out.partial" / "deep").mkdir(parents=True)
    (tmp_path / "out.partial" / "deep" / "old").write_text("old")
    with atomic_directory(tmp_path / "out") as folder:
        assert names(folder) == []
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_directory_is_kept_until_it_is_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(InputError, match=r"exists already; .*--force"), atomic_directory(tmp_path / "out"):
        pass

    def fail():
        with atomic_directory(tmp_path / "out", force=True) as folder:
            (folder / "new").write_text("new")
            assert names(tmp_path / "out") == ["old"]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path / "out") == ["old"]
    with atomic_directory(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_second_writer_is_refused(tmp_path):
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "file").write_text("first")
        program = "import sys; from pathlib import Path; from mutbert.files import atomic_directory\n"
        program += "with atomic_directory(Path(sys.argv[1])): pass"
        second = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "out"], capture_output=True, text=True, check=False
        )
        assert "another process is writing it just now" in second.stderr
        assert names(folder) == ["file"]
    assert names(tmp_path / "out") == ["file"]


def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path):
    def race():
        with atomic_directory(tmp_path / "out"):
            (tmp_path / "out").mkdir()

    with pytest.raises(InputError, match="exists already"):
        race()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("suffix", ["", ".txt", ".vcf.gz"])
def test_a_file_appears_when_the_block_ends(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with atomic_file(path) as partial:
        partial.write_text("new")
        # Some writers choose the format by the suffix.
        assert not suffix or partial.suffix == path.suffix
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(tmp_path) == [path.name]


def test_a_file_is_kept_until_it_is_replaced(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(InputError, match="exists already"), atomic_file(path):
        pass

    def fail():
        with atomic_file(path, force=True) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with atomic_file(path, force=True) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.txt"]


def test_folders_that_cannot_take_an_output_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist; create it first"):
        check_output(tmp_path / "absent" / "out", force=True)
    # Root may write anywhere, so the answer is given for the system.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written; choose another"):
        check_output(tmp_path / "out", force=True)


def test_a_checksum_is_that_of_the_content(tmp_path):
    content = b"ACGT" * 1_000_000
    (tmp_path / "file").write_bytes(content)
    told = []
    assert sha256_of(tmp_path / "file", told.append) == hashlib.sha256(content).hexdigest()
    assert sum(told) == len(content)


def test_a_removed_directory_loses_its_name_first(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "file").write_text("x")

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mutbert.files.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_directory(folder)
    assert not folder.exists()
    folder.mkdir()
    remove_directory(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "allowed"), [(["a.txt"], False), (["mark.json", "a.txt"], True), ([".a"], True), ([], True)]
)
def test_force_replaces_only_what_the_command_makes(tmp_path, names, allowed):
    output = tmp_path / "output"
    output.mkdir()
    for name in names:
        (output / name).write_text("x")
    if not allowed:
        with (
            pytest.raises(InputError, match=r"no mark\.\*\), so --force does not"),
            atomic_directory(output, force=True, mark="mark.*"),
        ):
            pass
        assert [file.name for file in output.iterdir()] == names
        return
    with atomic_directory(output, force=True, mark="mark.*") as folder:
        (folder / "new").write_text("y")
    assert [file.name for file in output.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["output"]


def test_no_verb_replaces_a_folder_of_other_things(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nACGT\n")
    for replace in (
        lambda: build_genome(fasta, precious, force=True),
        lambda: simulate_population(precious, length=1000, samples=1, force=True),
        lambda: run_demo(precious, force=True),
    ):
        with pytest.raises(InputError, match="--force does not replace it"):
            replace()
    assert (precious / "thesis.txt").exists()


def test_a_lock_does_not_outlive_its_holder_in_a_forked_process(tmp_path):
    """As a loader's workers do that have not noticed yet that they are alone."""
    end_read, end_write = os.pipe()
    begun_read, begun_write = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(end_write)
            os.write(begun_write, b"x")
            os.read(end_read, 1)
            os._exit(0)
        os.read(begun_read, 1)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.close(end_write)
        os.waitpid(child, 0)


def test_a_forked_process_leaves_the_lock_to_its_parent(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(InputError, match="another process is writing"), locked(tmp_path):
            pass


# Files

BEGIN = "import os, signal, sys, time; from pathlib import Path; from mutbert.files import atomic_file\n"


def start(program, *words):
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program, *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
def test_a_second_writer_of_a_file_is_refused(tmp_path, force):
    path = tmp_path / "out.txt"
    if force:
        path.write_text("old")
    program = f"""
with atomic_file(Path(sys.argv[1]), force={force}) as partial, partial.open("w") as file:
    file.write("first ")
    file.flush()
    print("begun", flush=True)
    file.write(sys.stdin.readline())
"""
    first = start(program, path)
    assert first.stdout.readline() == "begun\n"
    second = start(program, path)
    assert "out.txt: another process is writing it just now" in second.communicate()[1].splitlines()[-1]
    other = tmp_path / "other.txt"
    with atomic_file(other) as partial:
        partial.write_text("another output")
    assert first.communicate("and whole")[1] == ""
    assert path.read_text() == "first and whole"
    assert names(tmp_path) == ["other.txt", "out.txt"]


def test_what_a_killed_writer_of_a_file_left_is_cleared(tmp_path):
    path = tmp_path / "out.txt"
    killed = start(
        """
with atomic_file(Path(sys.argv[1])) as partial:
    partial.write_text("half of it")
    os.kill(os.getpid(), signal.SIGKILL)
""",
        path,
    )
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert names(tmp_path) != []
    with atomic_file(path) as partial:
        assert not partial.exists()
        partial.write_text("whole")
    assert names(tmp_path) == ["out.txt"]


def test_many_writers_of_a_small_file_never_mix(tmp_path):
    """However one's end and another's beginning fall together."""
    program = """
from mutbert.errors import InputError
letter, written, refused = sys.argv[2], 0, 0
while written < 30:
    try:
        with atomic_file(Path(sys.argv[1]), force=True) as partial, partial.open("x") as file:
            for _ in range(4):
                file.write(letter)
                file.flush()
            assert partial.read_text() == 4 * letter
        written += 1
    except InputError:
        refused += 1
    text = Path(sys.argv[1]).read_text() if Path(sys.argv[1]).exists() else "AAAA"
    assert text in ("AAAA", "BBBB", "CCCC"), text
"""
    writers = [start(program, tmp_path / "out.txt", letter) for letter in "ABC"]
    for writer in writers:
        assert writer.communicate()[1] == ""
    assert names(tmp_path) == ["out.txt"]


def test_a_file_s_lock_does_not_outlive_its_holder_in_a_forked_process(tmp_path):
    done = start(
        """
path = Path(sys.argv[1])
end_read, end_write = os.pipe()
with atomic_file(path) as partial:
    partial.write_text("one")
    child = os.fork()
    if child == 0:
        os.close(end_write)
        os.read(end_read, 1)
        os._exit(0)
with atomic_file(path, force=True) as partial:
    partial.write_text("two")
os.close(end_write)
os.waitpid(child, 0)
print(path.read_text())
""",
        tmp_path / "out.txt",
    )
    assert done.communicate() == ("two\n", "")


def test_a_forked_process_that_ends_leaves_the_file_to_its_parent(tmp_path):
    done = start(
        """
path = Path(sys.argv[1])
with atomic_file(path) as partial:
    partial.write_text("mine")
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    try:
        with atomic_file(path):
            pass
    except Exception as error:
        print(error)
print(path.read_text())
""",
        tmp_path / "out.txt",
    )
    printed, wrong = done.communicate()
    assert wrong == ""
    assert "another process is writing" in printed.splitlines()[0]
    assert printed.splitlines()[1] == "mine"
    assert names(tmp_path) == ["out.txt"]


def test_writers_may_lock_the_file_or_put_another_in_its_place(tmp_path):
    """HDF5 does the former."""
    with atomic_file(tmp_path / "locked") as partial, partial.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write("locked")
    with atomic_file(tmp_path / "other") as partial:
        (tmp_path / "aside").write_text("other")
        (tmp_path / "aside").replace(partial)
        with pytest.raises(InputError, match="another process"), atomic_file(tmp_path / "other"):
            pass
    assert (tmp_path / "locked").read_text() == "locked"
    assert (tmp_path / "other").read_text() == "other"
    assert names(tmp_path) == ["locked", "other"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    def race():
        with atomic_file(tmp_path / "out") as partial:
            partial.write_text("ours")
            (tmp_path / "out").write_text("theirs")

    with pytest.raises(InputError, match="exists already"):
        race()
    assert (tmp_path / "out").read_text() == "theirs"
    assert names(tmp_path) == ["out"]
