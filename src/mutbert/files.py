"""Outputs that appear whole under their final name, and inputs that are checked before they are read.

A file is written as ``.XXXXXXXX.NAME``, a directory as ``NAME.partial/new``, and then renamed; for that moment, what a
directory replaces is ``NAME.partial/old``. One that this program writes holds ``.mutbert.json``, which lists its files:
``force`` replaces a directory only where it holds nothing else.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from filelock import FileLock, SoftFileLock, Timeout

from mutbert.errors import InputError, one_line

_MARKER, _LOCK, _OLD, _ATTRIBUTE = ".mutbert.json", ".lock", "old", "user.mutbert"
_BLOCK: Final = 1 << 20
# The empty block that ends every complete BGZF file (SAM specification, section 4.1.2).
_BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def check_output(path: Path, *, force: bool, directory: bool = False, inputs: Iterable[Any] = ()) -> None:
    """Raise InputError where an output exists (but for `force`), cannot be written, or would cost an input on disk."""
    output = path.resolve()
    for source in (Path(one) for one in inputs if isinstance(one, str | Path)):
        given = source.resolve()
        # Writing into a run's directory is fine, into one whose files are complete is not.
        inside = given in output.parents and "*" not in "".join(_patterns(given) or "*")
        if source.exists() and (inside or output in (given, *given.parents)):
            raise InputError(f"{path}: the input {source} would be lost; choose another output")
    if _is_special(path) and not directory:
        return
    if directory and not os.path.lexists(path):
        settle(path)
    if os.path.lexists(path):
        if not force:
            # Checkpoints, of a run or of one inside, are never recommended to be lost.
            kept = [*path.glob("checkpoints/*"), *path.glob("*/checkpoints/*")]
            remedy = "" if kept else " or give --force to replace it"
            raise InputError(f"{path}: exists already; choose another output{remedy}")
        if not (path.is_dir() and not path.is_symlink() if directory else path.is_file()):
            raise InputError(f"{path}: is not a regular {'directory' if directory else 'file'}; choose another output")
        if directory and (foreign := next(_foreign(path), None)):
            what = f"holds {foreign.relative_to(path)}, which mutbert did not write there"
            raise InputError(f"{path}: {what}; move it away")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        problem = "is not writable" if path.parent.is_dir() else "does not exist"
        raise InputError(f"{path}: the directory {path.parent} {problem}; create it, or choose another output")


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a device or an open file of a process, which are written to, never replaced."""
    home = f"{path.parent.resolve()}/"
    of_system = path.is_symlink() and (home == "/dev/" or home.startswith("/proc/"))
    return path.exists() and not path.is_dir() and (of_system or not path.is_file())


def mark_directory(path: Path, patterns: Iterable[str] = ("*",)) -> None:
    """Record that a directory is this program's, with the patterns of its files' paths; ``*`` matches ``/`` too."""
    write_json(path / _MARKER, {"program": "mutbert", "files": list(patterns)}, force=True)


def _patterns(path: Path) -> list[str] | None:
    """Patterns of a directory's own files; ``None`` where it has no marker."""
    try:
        return [str(pattern) for pattern in json.loads((path / _MARKER).read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _foreign(directory: Path, patterns: Iterable[str] = (), prefix: str = "") -> Iterator[Path]:
    """Yield what a directory holds that this program did not write; a marked subdirectory has its own patterns."""
    own = _patterns(directory)
    if own is not None and prefix and not any(fnmatchcase(prefix, pattern) for pattern in patterns):
        yield directory
        return
    patterns, prefix = (patterns, prefix) if own is None else (own, "")
    for entry in sorted(directory.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _foreign(entry, patterns, f"{prefix}{entry.name}/")
        else:
            # A killed process leaves a file under its temporary name.
            name = re.sub(r"^\.[0-9a-f]{8}\.", "", entry.name)
            known = any(fnmatchcase(prefix + name, pattern) for pattern in patterns)
            if not known and not f"{name}.".startswith((f"{_MARKER}.", f"{_LOCK}.")):
                yield entry


@contextmanager
def atomic_directory(
    path: Path, *, force: bool = False, resume: bool = False, keep: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Yield a directory that becomes `path` at the end; `resume` finds what lies next to it if `keep` returned true."""
    check_output(path, force=force, directory=True)
    with _explained(path), making(path, resume=resume) as folder:
        try:
            # Before anything is removed, as a full disk is one until then.
            with _explained(path):
                _empty(folder)
                yield folder
                files = sorted(one for one in folder.rglob("*") if one.is_file() and one.name != _MARKER)
                mark_directory(folder, [str(file.relative_to(folder)) for file in files])
                mode = (folder / _MARKER).stat().st_mode
                for file in files:
                    _finish(file, mode)
                check_output(path, force=force, directory=True)
                publish(folder, path)
        except BaseException as error:
            if keep():
                error.add_note("--resume goes on from what is finished")
            elif not folder.with_name(_OLD).exists():
                remove_directory(folder.parent)
            raise


def unfinished(path: Path) -> Path:
    """Return where a directory is until it is complete."""
    return path.with_name(f"{path.name}.partial") / "new"


@contextmanager
def making(path: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield `unfinished`, in a directory that is locked, and emptied unless `resume`."""
    folder = unfinished(path)
    partial = folder.parent
    if os.path.lexists(partial) and not _is_unfinished(partial):
        raise InputError(f"{partial}: was not written by mutbert; move it away, or choose another output")
    partial.mkdir(exist_ok=True)
    with locked(partial, path):
        mark_directory(partial)
        if not resume:
            _empty(partial)
        folder.mkdir(exist_ok=True)
        yield folder


def _is_unfinished(partial: Path) -> bool:
    """Return whether a directory is what `making` leaves, and holds nothing else."""
    is_ours = partial.is_dir() and not partial.is_symlink() and _patterns(partial) in (None, ["*"])
    return is_ours and not any(_foreign(partial))


def publish(folder: Path, path: Path) -> None:
    """Rename a complete directory from `making` to its final name; what had that name goes once the new one has it."""
    old = folder.with_name(_OLD)
    try:
        if path.exists():
            path.rename(old)
        folder.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    remove_directory(folder.parent)


def settle(path: Path) -> None:
    """Bring back what a process that was killed in `publish` has left under another name, or remove the rest."""
    old, is_there = unfinished(path).with_name(_OLD), path.exists()
    if (old.parent if is_there else old).is_dir() and _is_unfinished(old.parent):
        with locked(old.parent, path):
            remove_directory(old.parent) if is_there else old.rename(path)


def _empty(directory: Path) -> None:
    """Remove what a directory holds, but for its marker and its lock."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif not entry.name.startswith((_MARKER, _LOCK)):
            entry.unlink()


def remove_directory(directory: Path) -> None:
    """Remove a directory, or what can be removed of it; its marker goes last, by which the rest is known to be ours."""
    with suppress(OSError):
        _empty(directory)
        for name in (_LOCK, f"{_LOCK}.soft", _MARKER):
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()


@contextmanager
def atomic_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a file to write, which becomes `path` in one rename when the block ends without an error."""
    check_output(path, force=force)
    if _is_special(path):
        with TemporaryDirectory(prefix="mutbert-") as folder:
            yield (aside := Path(folder) / path.name)
            with aside.open("rb") as written, path.open("ab") as output:
                shutil.copyfileobj(written, output)
        return
    partial = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        with _explained(path):
            partial.touch(exist_ok=False)
            mode = partial.stat().st_mode
            yield partial
            check_output(path, force=force)
            _finish(partial, mode)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """Return a value as JSON, which has no NaN and no infinity: null takes their place."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1)


def write_json(path: Path, value: Any, *, force: bool = False) -> None:
    """Write a value as JSON, as `atomic_file` does."""
    with atomic_file(path, force=force) as file:
        file.write_text(json_text(value) + "\n", encoding="utf-8")


@contextmanager
def locked(directory: Path, output: Path | None = None) -> Iterator[None]:
    """Hold a directory for this process alone; a killed process holds it no longer."""
    try:
        try:
            held = FileLock(directory / _LOCK, timeout=0).acquire()
        except Timeout:
            raise
        except (OSError, NotImplementedError):
            # Some network file systems have no locks; a file that is there is the next best.
            held = SoftFileLock(directory / f"{_LOCK}.soft", timeout=0).acquire()
    except Timeout:
        raise InputError(f"{output or directory}: another process is writing it; wait until it is done") from None
    with held:
        yield


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise InputError for a write that fails, with the file's name."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Libraries report a full disk by exceptions of their own, some of them without the reason.
        full = free_space(path) < _BLOCK
        lasting = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS}
        if not full and getattr(error, "errno", None) not in lasting and "No space left" not in str(error):
            raise
        reason = "its file system has no room left" if full else one_line(error)
        raise InputError(f"{path}: cannot be written ({reason}); make room or choose another output") from error


def free_space(path: Path) -> int:
    """Return the bytes that are free where a file is, or is to be; no room for names is none."""
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def set_mode(file: Path, mode: int) -> None:
    """Set the mode that the umask asks for; libraries that write by way of private files leave another."""
    if file.stat().st_mode != mode:
        file.chmod(mode)


def _finish(file: Path, mode: int) -> None:
    """Set a file's mode, and flush it to the disk, so that a rename never outruns the data."""
    set_mode(file, mode)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def mark_of(origin: Any) -> bytes:
    """Return the mark of files that are made of some values."""
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).digest()


def set_mark(path: Path, mark: bytes) -> None:
    """Set the mark of a file, an attribute; file systems without any ignore it."""
    with suppress(OSError, AttributeError):
        os.setxattr(path, _ATTRIBUTE, mark)


def read_mark(path: Path) -> bytes | None:
    """Return the mark of a file, or None where it has none."""
    with suppress(OSError, AttributeError):
        return os.getxattr(path, _ATTRIBUTE)
    return None


def sha256_of(path: Path, advance: Callable[[float], None] | None = None) -> str:
    """Hexadecimal SHA-256 of a file; `advance` is called with the bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if advance is not None:
                advance(len(block))
    return digest.hexdigest()


def check_input(path: Path, what: str) -> bool:
    """Return whether a file is compressed by gzip or bgzip; raise InputError where it cannot be read or was cut."""
    if not path.is_file():
        problem = "is a directory, a pipe or a device" if path.exists() else f"no such {what} file"
        raise InputError(f"{path}: {problem}; give a {what} file on disk")
    try:
        with path.open("rb") as file:
            head = file.read(18)
            file.seek(max(path.stat().st_size - len(_BGZF_END), 0))
            end = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not head:
        raise InputError(f"{path}: is empty; give a {what} file with something in it")
    # A BGZF block is a gzip member whose extra field begins with the subfield BC.
    if len(head) == 18 and head[:2] == b"\x1f\x8b" and head[3] & 4 and head[12:14] == b"BC" and end != _BGZF_END:
        raise InputError(f"{path}: its bgzip end marker is missing, so it was cut short; copy or download it again")
    return head[:2] == b"\x1f\x8b"
