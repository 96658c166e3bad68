"""Input files of a genome, and the prefix that keeps the names of several species apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError
from mutbert.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PREFIXED: Final = re.compile(r"(?P<prefix>[A-Za-z0-9_-]+)=(?P<path>.+)")


class Source(NamedTuple):
    """A FASTA or VCF file.

    Parameters
    ----------
    path : Path
        The file.
    prefix : str
        What its contigs are called in the genome: ``human`` makes ``human.chr1`` of ``chr1``. Empty leaves the names
        as they are.
    """

    path: Path
    prefix: str = ""

    def name(self, contig: str) -> str:
        """Give the genome's name of a contig of this file."""
        return f"{self.prefix}.{contig}" if self.prefix else contig

    def own_names(self, names: Iterable[str]) -> Iterator[str]:
        """Give the names of those of the genome's contigs that may be of this file, without the prefix."""
        begin = self.name("")
        return (name[len(begin) :] for name in names if name.startswith(begin))

    @classmethod
    def parse(cls, given: str | Path | Source) -> Source:
        """Read ``FILE`` or ``PREFIX=FILE``; a file that exists under the whole text is that file."""
        if isinstance(given, Source):
            return given
        parts = _PREFIXED.fullmatch(str(given))
        if parts is None or Path(given).exists():
            return cls(Path(given))
        return cls(Path(parts["path"]), parts["prefix"])


def parse_sources(given: str | Path | Source | Iterable[str | Path | Source]) -> list[Source]:
    """Read one or many of what `Source.parse` reads.

    Raises
    ------
    InputError
        When a file is given twice.
    """
    every = (given,) if isinstance(given, (str, Path, Source)) else given
    sources = [Source.parse(each) for each in every]
    for number, source in enumerate(sources):
        if source in sources[:number]:
            raise InputError(f"{source.path}: is given twice; give each file once")
    return sources


def describe_source(kind: str, source: Source, advance: Callable[[float], None] | None = None) -> dict[str, Any]:
    """Say of a file what a manifest keeps: kind, name without folder, bytes, SHA-256, and the prefix if it has one."""
    path = source.path
    described = {
        "kind": kind,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path, advance),
    }
    return described | {"prefix": source.prefix} if source.prefix else described
