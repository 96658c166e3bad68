"""Where a file is: on the disk, or in a data set of the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple
from urllib.parse import unquote

from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import sha256_of

_HUB: Final = "hf://"
_HUB_PLACE: Final = re.compile(
    r"hf://datasets/(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?/(?P<file>.+)"
)
_HUB_FORM: Final = "hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE"


@dataclass(frozen=True)
class SourceFile:
    """A file as it was read, so that it can be found and compared again.

    Parameters
    ----------
    place : str
        Its path, or its address on the Hub.
    bytes : int
        Its size, compressed if it is.
    sha256 : str
        Its SHA-256, in hexadecimal digits.
    revision : str or None
        The commit that a file from the Hub is of.
    """

    place: str
    bytes: int
    sha256: str
    revision: str | None


class NoSuchFileError(InputError):
    """There is no file of this name, where everything else is as it should be."""


class FoundFile(NamedTuple):
    """A file on the disk, and where it is from."""

    path: Path
    source: SourceFile


def find_file(place: str | Path) -> FoundFile:
    """Find a file on the disk, or fetch it from the Hugging Face Hub.

    Parameters
    ----------
    place : str or Path
        A path, or ``hf://datasets/OWNER/NAME/FILE``, with ``@REVISION`` behind the name where it is not to be the
        newest. A file is fetched once and then taken from the Hub's cache; a data set's script is never run.

    Returns
    -------
    FoundFile

    Raises
    ------
    InputError
        When there is no such file, or it cannot be fetched or read.
    MissingExtraError
        When the file is on the Hub and huggingface_hub is not installed.
    """
    name = str(place)
    revision = None
    if name.startswith(_HUB):
        path, revision = _fetch(name)
    else:
        path = Path(place)
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give the file itself")
        if not path.is_file():
            raise NoSuchFileError(f"{name}: no such file; check the path")
    try:
        return FoundFile(path, SourceFile(name, path.stat().st_size, sha256_of(path), revision))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions") from None


def _fetch(place: str) -> tuple[Path, str]:
    parts = _HUB_PLACE.fullmatch(place)
    if parts is None:
        raise InputError(f"{place}: is no file of a data set on the Hub; write {_HUB_FORM}")
    if parts["file"].endswith(".py"):
        raise InputError(f"{place}: is a script, and none is ever run; give the file of data that it reads")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "bench") from None
    revision = unquote(parts["revision"]) if parts["revision"] else None
    try:
        path = Path(hf_hub_download(parts["repository"], parts["file"], repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError:
        raise InputError(
            f"{place}: is not in the cache and the Hub cannot be reached; check the network, or give a file on the disk"
        ) from None
    except EntryNotFoundError:
        raise NoSuchFileError(
            f"{place}: the data set has no file {parts['file']}; look at its files on the Hub"
        ) from None
    # The client lets through what its HTTP library raises, which is not the same in all its versions.
    except Exception as error:
        raise InputError(
            f"{place}: cannot be fetched ({one_line(error, 300)}); check the address, the network and whether the data "
            "set asks for a login"
        ) from None
    # The cache keeps the files of a commit in a folder of its name.
    return path, path.parents[len(PurePosixPath(parts["file"]).parts) - 1].name
