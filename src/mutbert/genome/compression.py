"""Input files as they come: plain, gzip or BGZF; missing, cut short or damaged ones are refused in one line."""

from __future__ import annotations

import gzip
import zlib
from enum import Enum
from typing import TYPE_CHECKING, Final

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

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
