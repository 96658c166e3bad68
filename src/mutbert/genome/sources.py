"""Input files of a genome, prefixes that keep the names of several species apart, and whose genotypes are counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_PREFIXED: Final = re.compile(r"(?P<prefix>[A-Za-z0-9_-]+)=(?P<path>.+)")


class Source(NamedTuple):
    """A FASTA or VCF file; its contig ``chr1`` is ``human.chr1`` in the genome where the prefix is ``human``."""

    path: Path
    prefix: str = ""

    def name(self, contig: str) -> str:
        """Return the genome's name of a contig."""
        return f"{self.prefix}.{contig}" if self.prefix else contig

    def describe(self, kind: str, advance: Callable[[float], None] | None = None) -> dict[str, Any]:
        """Return what a manifest keeps: kind, name without folder, bytes, SHA-256, and the prefix if it has one."""
        size, digest = self.path.stat().st_size, sha256_of(self.path, advance)
        described = {"kind": kind, "file": self.path.name, "bytes": size, "sha256": digest}
        return described | ({"prefix": self.prefix} if self.prefix else {})


Sources: TypeAlias = "str | Path | Source | Sequence[str | Path | Source]"


def parse_sources(given: Sources) -> list[Source]:
    """Return one or many of ``FILE`` or ``PREFIX=FILE``; a file that exists under the whole text is that file."""
    sources: list[Source] = []
    for one in [given] if isinstance(given, (str, Path, Source)) else given:
        if not isinstance(one, Source):
            parts = None if Path(one).exists() else _PREFIXED.fullmatch(str(one))
            one = Source(Path(one)) if parts is None else Source(Path(parts["path"]), parts["prefix"])
        if one in sources:
            raise InputError(f"{one.path}: comes twice; name each file once")
        sources.append(one)
    return sources


def read_samples(path: Path, population: str | None = None) -> list[str]:
    """Return the names in a list of samples, or in a panel as the 1000 Genomes project has it, in the file's order.

    Columns are separated by blanks or tabs: the name, then words of which `population` has to be one. Lines that begin
    with ``#`` are left out, and a panel's first line where it begins with ``sample``.
    """
    try:
        rows = [
            line.split() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#" and line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read as a list of samples ({reason}); check the path") from None
    if rows and rows[0][0].lower() == "sample" and len(rows[0]) > 1:
        del rows[0]
    names = [row[0] for row in rows if population is None or population in row[1:]]
    if rows and not names:
        populations = dict.fromkeys(word for row in rows for word in row[1:])
        raise InputError(f"{path}: no sample of population {population}; there are {names_text(populations, 30)}")
    if not names:
        raise InputError(f"{path}: names no sample; write one name a line")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise InputError(f"{path}: sample {twice[0]} comes twice; remove one of the lines")
    return names


def check_samples(chosen: Sequence[str], available: Mapping[Path, Collection[str]]) -> None:
    """Raise for samples that no file has, and for files that have none of them: chromosome Y's may have only men."""
    known = set().union(*available.values())
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(
            f"{names_text(map(str, available))}: no sample {names_text(unknown)}; there are {names_text(sorted(known))}"
        )
    for path, names in available.items():
        if not set(chosen) & set(names):
            raise InputError(f"{path}: has none of the chosen samples; leave the file out or choose others")


def describe_samples(chosen: Sequence[str]) -> dict[str, Any]:
    """Return what a manifest keeps of chosen samples: their number and a checksum, not their names."""
    text = "\n".join(sorted(chosen)).encode("utf-8")
    return {"number": len(chosen), "sha256": hashlib.sha256(text).hexdigest()}
