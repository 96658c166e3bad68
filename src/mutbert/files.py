"""Outputs are written aside and renamed into place, so that nothing half-written ever bears the final name."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
# Descriptors of the folders and outputs that this process holds.
_locks: set[int] = set()


def check_output(path: Path, *, force: bool, mark: str | None = None) -> None:
    """Refuse an output that exists, or whose folder does not.

    Parameters
    ----------
    path : Path
        The output.
    force : bool
        Whether it may be replaced.
    mark : str, optional
        A pattern of names, of which a folder that may be replaced holds one: whoever gives the wrong folder by
        mistake does not lose it. A folder with nothing but hidden files in it may be replaced too.

    Raises
    ------
    InputError
        When `path` exists and `force` is false or the folder has no mark; when its parent folder is missing or
        cannot be written.
    """
    if path.exists() and not force:
        raise InputError(f"{path}: exists already; choose another output or give --force to replace it")
    if mark and path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file and not a folder of this command; choose another output")
    if mark and path.is_dir() and not any(path.glob(mark)) and any(path.glob("[!.]*")):
        raise InputError(
            f"{path}: holds other things than this command makes (no {mark}), so --force does not replace it; choose "
            "another output, or remove it yourself"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written; choose another output")


def refuse_inside(source: Path, output: Path) -> None:
    """Refuse an output that holds its source, which would go with it.

    Raises
    ------
    InputError
        When `source` lies inside `output`.
    """
    if output.resolve() in source.resolve().parents:
        raise InputError(f"{output}: holds {source}, which would be lost; choose another output")


@contextmanager
def atomic_directory(
    path: Path,
    *,
    force: bool = False,
    mark: str | None = None,
    resume: bool = False,
    keep: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """Give a folder to write into that becomes `path` in one rename when the block ends well.

    The folder is ``NAME.partial`` beside `path`. It is locked while the block runs, so that two processes never
    write the same output; what a killed process left there is cleared. On an error it is removed.

    Parameters
    ----------
    path : Path
        The folder to publish.
    force : bool
        Replace `path` where it exists.
    mark : str, optional
        What a folder that is replaced holds; see `check_output`.
    resume : bool
        Leave in the folder what an earlier process left there.
    keep : callable
        Asked after an error: whether the folder is to stay, so that a later call may go on with it.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    InputError
        When `path` exists and `force` is false, or another process is writing it.
    """
    check_output(path, force=force, mark=mark)
    partial = path.with_name(path.name + ".partial")
    partial.mkdir(exist_ok=True)
    with locked(partial, path):
        try:
            if not resume:
                _clear(partial)
            yield partial
            check_output(path, force=force, mark=mark)
            rename_directory(partial, path)
        except BaseException:
            if not keep():
                shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def locked(directory: Path, output: Path | None = None) -> Iterator[None]:
    """Hold a folder for this process alone; the lock goes with the process, however it ends.

    Raises
    ------
    InputError
        When another process holds it; the message names `output`, or the folder where that is left out.
    """
    descriptor = _hold(directory, os.O_RDONLY, output or directory)
    try:
        yield
    finally:
        _release(descriptor)


@contextmanager
def _locked_beside(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold an output by a file of its own beside it, which is there for no longer; gives whether it is held still.

    What is written cannot itself be held, as some writers lock it, or put another file in its place.
    """
    lock = path.with_name(f".{path.name}.lock")
    while True:
        descriptor = _hold(lock, os.O_RDWR | os.O_CREAT, path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        # Whoever had it removed it meanwhile, so that it holds nothing.
        _release(descriptor)
    try:
        yield lambda: descriptor in _locks
    finally:
        if descriptor in _locks:
            lock.unlink(missing_ok=True)
        _release(descriptor)


def _hold(path: Path, flags: int, output: Path) -> int:
    descriptor = os.open(path, flags, 0o666)
    _locks.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        _release(descriptor)
        if isinstance(error, BlockingIOError):
            raise InputError(
                f"{output}: another process is writing it just now; wait for it or choose another output"
            ) from None
        raise
    return descriptor


def _release(descriptor: int) -> None:
    # In a process that was forked meanwhile it is closed already.
    if descriptor in _locks:
        _locks.remove(descriptor)
        os.close(descriptor)


def _let_go() -> None:
    """Close the locks that a forked process has with its parent: they would outlive the one that holds them."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def atomic_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a file to write that becomes `path` in one rename when the block ends well.

    It is locked while the block runs, so that two processes never write the same output; what a killed process left
    there is cleared. On an error it is removed.

    Parameters
    ----------
    path : Path
        The file to publish.
    force : bool
        Replace `path` where it exists.

    Yields
    ------
    Path
        The file to write.

    Raises
    ------
    InputError
        When `path` exists and `force` is false, or another process is writing it.
    """
    check_output(path, force=force)
    # The suffix stays last, because some writers choose the format by it.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    with _locked_beside(path) as is_held:
        try:
            partial.unlink(missing_ok=True)
            yield partial
            check_output(path, force=force)
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
        except BaseException:
            # Of a process that was forked meanwhile it is not.
            if is_held():
                partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any, *, force: bool = False) -> None:
    """Write a value as JSON, as `atomic_file` does."""
    with atomic_file(path, force=force) as file:
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def sha256_of(path: Path, advance: Callable[[float], None] | None = None) -> str:
    """Compute the SHA-256 of a file, as hexadecimal digits; `advance` is told of each chunk's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


def rename_directory(partial: Path, path: Path) -> None:
    """Rename a finished folder to its final name, once all of it is on the disk.

    An old `path` is moved aside first and removed last, so that one of the two always exists.
    """
    _sync_tree(partial)
    replaced = path.with_name(path.name + ".replaced")
    if path.exists():
        _remove(replaced)
        path.rename(replaced)
    partial.rename(path)
    _sync(path.parent)
    _remove(replaced)


def remove_directory(path: Path) -> None:
    """Remove a folder that may be a finished output; it loses its name first, so that no half of it ever bears it."""
    removed = path.with_name(path.name + ".removed")
    _remove(removed)
    path.rename(removed)
    _remove(removed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        _remove(entry)


def _sync_tree(directory: Path) -> None:
    paths = [Path(folder) / name for folder, _, names in os.walk(directory) for name in (*names, ".")]
    # Many at once, as a disk takes them in hardly more time than one.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    """Have the operating system put a file or folder on the disk, so that the rename never outruns the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_BLOCK_BYTES: Final = 1 << 22

# The empty block that ends every complete BGZF file (SAM specification, section 4.1.2).
_BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class Compression(Enum):
    """How a file is compressed, told by its first bytes and not by its name."""

    PLAIN = "plain"
    GZIP = "gzip"
    BGZF = "bgzip"


def check_input(path: Path, what: str) -> Compression:
    """Refuse what is not a readable file with something in it.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should hold, for the message: ``FASTA``, ``VCF``.

    Returns
    -------
    Compression
        Of the file.

    Raises
    ------
    InputError
        When it is missing, a folder, empty, not readable, or BGZF without its end marker.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the {what} file itself")
    if not path.exists():
        raise InputError(f"{path}: no such {what} file; check the path")
    if not path.is_file():
        raise InputError(
            f"{path}: is not a regular file; save the {what} to a file first, as it is read more than once"
        )
    try:
        with path.open("rb") as file:
            return _compression(path, file, what)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _compression(path: Path, file: BinaryIO, what: str) -> Compression:
    head = file.read(18)
    if not head:
        raise InputError(f"{path}: is empty; give a {what} file with something in it")
    if head[:2] != b"\x1f\x8b":
        return Compression.PLAIN
    # A BGZF block is a gzip member whose extra field begins with the subfield BC.
    if len(head) < 18 or not head[3] & 4 or head[12:14] != b"BC":
        return Compression.GZIP
    size = file.seek(0, 2)
    file.seek(max(size - len(_BGZF_END), 0))
    if file.read() != _BGZF_END:
        raise InputError(f"{path}: its bgzip end marker is missing, so it was cut short; copy or download it again")
    return Compression.BGZF


def read_blocks(path: Path, what: str, advance: Callable[[float], None] | None = None) -> Iterator[bytes]:
    """Read a file's content in large blocks, decompressed where it is gzip or BGZF.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should hold, for messages.
    advance : callable, optional
        Told of the bytes read from the disk, thus compressed ones, since its last call.

    Yields
    ------
    bytes
        Never empty.

    Raises
    ------
    InputError
        See `check_input`; also when the compressed data end early or are damaged.
    """
    compression = check_input(path, what)
    try:
        with path.open("rb") as raw:
            file = raw if compression is Compression.PLAIN else gzip.GzipFile(fileobj=raw)
            told = 0
            while block := file.read(_BLOCK_BYTES):
                if advance is not None:
                    advance(raw.tell() - told)
                    told = raw.tell()
                yield block
    except EOFError:
        raise InputError(
            f"{path}: the compressed data end early, so it was cut short; copy or download it again"
        ) from None
    except (OSError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be decompressed ({error}); it is damaged: copy or download it again"
        ) from None
