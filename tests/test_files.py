"""Outputs appear whole under their final name, and nothing is removed that this program did not write."""

import hashlib
import os
import shutil

import pytest

from mutbert.errors import InputError
from mutbert.files import atomic_directory, atomic_file, check_input, check_output, mark_directory, sha256_of


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {".mutbert.json", ".lock"}
    }


def write(path, text="new", **settings):
    """Write a directory of one file in a subdirectory."""
    with atomic_directory(path, **settings) as folder:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "file").write_text(text)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def test_a_directory_appears_when_the_block_ends_without_an_error(tmp_path):
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "file").write_text("text")
        (folder / "file").chmod(0o600)
        assert not (tmp_path / "out").exists()
    assert len({file.stat().st_mode for file in (tmp_path / "out").iterdir()}) == 1
    for settings in ({}, {"force": True}):
        with pytest.raises((KeyboardInterrupt, InputError)), atomic_directory(tmp_path / "out", **settings) as folder:
            (folder / "file").write_text("other")
            raise KeyboardInterrupt
    assert everything(tmp_path) == {"out/file": "text"}
    write(tmp_path / "out", "new", force=True)
    assert everything(tmp_path) == {"out/deep/file": "new"}
    with pytest.raises(InputError, match="exists already"), atomic_directory(tmp_path / "meanwhile"):
        (tmp_path / "meanwhile").mkdir()
    (tmp_path / "meanwhile" / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(InputError, match=r"exists already; choose another output$"):
        check_output(tmp_path / "meanwhile", force=False, directory=True)
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "kept", keep=lambda: True) as folder:
        (folder / "part").write_text("done")
        raise RuntimeError
    assert everything(tmp_path / "kept.partial") == {"new/part": "done"}


@pytest.mark.parametrize("name", ["out", "out.vcf.gz"])
def test_a_file_appears_when_the_block_ends_without_an_error(tmp_path, name):
    out = tmp_path / name
    before = os.umask(0o027)
    try:
        with atomic_file(out) as partial:
            assert partial.name.endswith(name)
            partial.write_text("text")
            partial.chmod(0o600)  # as libraries do that write to a private file
            assert not out.exists()
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640
    with pytest.raises(InputError, match=r"exists already; .*--force"), atomic_file(out):
        pass
    with pytest.raises(RuntimeError), atomic_file(out, force=True) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert out.read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("where", ["out", "out.partial", "out/deep"])
@pytest.mark.parametrize("name", ["thesis", "manifest.json", ".git/HEAD", "yarn.lock", "link"])
def test_nothing_foreign_is_removed(tmp_path, where, name):
    """Neither a file that somebody wrote there, whatever its name, nor what a link leads to."""
    write(tmp_path / "out", "old")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis").write_text("precious")
    path = tmp_path / where / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("precious")
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"mutbert did not write|not written by mutbert"):
        write(tmp_path / "out", force=True)
    assert everything(tmp_path) == before


def test_a_directory_that_a_killed_process_was_replacing_comes_back(tmp_path):
    """It was killed between two renames, the new one complete or not; what is named so, but is no such rest, stays."""
    out = tmp_path / "out"
    write(out, "old")
    write(tmp_path / "out.partial", "another")
    with pytest.raises(InputError, match=r"out\.partial: was not written by mutbert; move it away"):
        write(out, force=True)
    assert everything(tmp_path / "out.partial") == {"deep/file": "another"}
    mark_directory(tmp_path / "out.partial")
    out.rename(tmp_path / "out.partial" / "old")
    with pytest.raises(InputError, match="exists already"):
        write(out)
    assert everything(out) == {"deep/file": "old"}
    write(out, force=True)
    assert everything(tmp_path) == {"out/deep/file": "new"}


def test_links_are_not_followed(tmp_path):
    write(tmp_path / "folder")
    (tmp_path / "target").write_text("precious")
    for link, to in (("link", "target"), ("linked", "folder"), ("new.partial", "folder")):
        (tmp_path / link).symlink_to(to)
    with atomic_file(tmp_path / "link", force=True) as partial:
        partial.write_text("new")
    assert (tmp_path / "target").read_text() == "precious"
    for name, message in (("linked", "not a regular directory"), ("new", "not written by mutbert")):
        with pytest.raises(InputError, match=message):
            write(tmp_path / name, force=True)
    assert everything(tmp_path / "folder") == {"deep/file": "new"}


def test_a_run_s_directory_has_the_files_of_its_patterns(tmp_path):
    (tmp_path / "run" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    mark_directory(tmp_path / "run", ("history.json", "checkpoints/*", "model/*"))
    (tmp_path / "run" / "history.json").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "checkpoint-1" / "weights").write_text("1")
    check_output(tmp_path / "run", force=True, directory=True)
    write(tmp_path / "run" / "model")
    # What a process leaves that is killed while it writes a file.
    (tmp_path / "run" / ".d4626794.history.json").write_text("{")
    check_output(tmp_path / "run", force=True, directory=True)
    write(tmp_path / "run" / "human.genome")
    with pytest.raises(InputError, match=r"holds human\.genome, which mutbert did not write there"):
        check_output(tmp_path / "run", force=True, directory=True)
    shutil.rmtree(tmp_path / "run" / "human.genome")
    (tmp_path / "run" / "model" / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds model/notes\.txt"):
        check_output(tmp_path / "run", force=True, directory=True)


def test_an_output_that_would_cost_an_input_is_refused(tmp_path):
    write(tmp_path / "store")
    (tmp_path / "store" / "ref.fa").write_text(">1\nACGT\n")
    (tmp_path / "link").symlink_to("store")
    (tmp_path / "run").mkdir()
    mark_directory(tmp_path / "run", ("model/*",))
    check_output(tmp_path / "run" / "predictions.tsv", force=False, inputs=[tmp_path / "run", "name/of-a-model"])
    for output, source in (
        ("store", "store"), ("store", "store/ref.fa"), ("store/deep/model", "store"), ("link", "store"),
        ("missing/../store", "store"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"the input .*{source} would be lost"):
            check_output(tmp_path / output, force=True, directory=True, inputs=[tmp_path / source])


def test_what_cannot_take_an_output_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="does not exist; create it"):
        check_output(tmp_path / "no" / "out", force=True)
    for force, message in ((True, "not a regular directory"), (False, "exists already")):
        with pytest.raises(InputError, match=message):
            check_output(tmp_path / "fifo", force=force, directory=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="not writable"):
        check_output(tmp_path / "out", force=False)


def test_inputs_are_checked_and_their_content_has_a_checksum(tmp_path):
    file, content = tmp_path / "file", os.urandom(3_000_000)
    for message, text in (
        ("no such VCF file", None),
        ("is empty", b""),
        ("end marker is missing", bytes.fromhex("1f8b08040000000000ff060042430200") + bytes(40)),
    ):
        if text is not None:
            file.write_bytes(text)
        with pytest.raises(InputError, match=message):
            check_input(file, "VCF")
    with pytest.raises(InputError, match="is a directory"):
        check_input(tmp_path, "VCF")
    file.write_bytes(content)
    assert sha256_of(file) == hashlib.sha256(content).hexdigest()
