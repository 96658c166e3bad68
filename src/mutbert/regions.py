"""Regions of a genome, BED files, and contig names in either naming."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_REGION = re.compile(r"(?P<contig>.+?)(?::(?P<start>[\d,]+)(?:-(?P<end>[\d,]+))?)?")


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A stretch of a contig, 0-based and half-open.

    Parameters
    ----------
    contig : str
        The contig's name.
    start, end : int
        0-based positions of the first base and after the last one.
    name : str
        The name in a BED file; empty where there is none.
    """

    contig: str
    start: int
    end: int
    name: str = ""

    def __len__(self) -> int:
        """Number of bases."""
        return self.end - self.start

    def __str__(self) -> str:
        """``chr22:101-200``: 1-based, both ends included."""
        return f"{self.contig}:{self.start + 1}-{self.end}"

    @classmethod
    def parse(cls, text: str, lengths: Mapping[str, int]) -> Region:
        """Return the region of ``chr22``, ``chr22:101`` or ``chr22:101-200``.

        Parameters
        ----------
        text : str
            1-based, both ends included; commas are allowed. A contig whose own name holds a colon is found by its
            whole name.
        lengths : mapping
            The contigs' lengths in bases. Either naming is accepted.

        Returns
        -------
        Region
            With the contig's name in `lengths`.

        Raises
        ------
        InputError
            When the text is not a region of these contigs.
        """
        whole = match_contig(text, lengths)
        if whole is not None:
            return cls(whole, 0, lengths[whole])
        parts = _REGION.fullmatch(text)
        contig = match_contig(parts["contig"], lengths) if parts else None
        if parts is None or contig is None:
            raise InputError(f"region {text!r}: no such contig; there are {names_text(lengths)}")
        if parts["start"] is None:
            return cls(contig, 0, lengths[contig])
        start = int(parts["start"].replace(",", "")) - 1
        end = int(parts["end"].replace(",", "")) if parts["end"] else start + 1
        if not 0 <= start < end <= lengths[contig]:
            raise InputError(
                f"region {text!r}: not within {contig}:1-{lengths[contig]}; positions are 1-based, both ends included"
            )
        return cls(contig, start, end)


def read_bed(path: Path, lengths: Mapping[str, int]) -> list[Region]:
    """Regions of a BED file, plain or gzip, in its order, with the contigs' names in `lengths`."""
    regions = []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith(("#", "track", "browser")):
                    regions.append(_bed_region(line, f"{path}, line {number}", lengths))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as BED ({error}); check the path and that it is complete") from None
    if not regions:
        raise InputError(f"{path}: holds no regions; expected lines of contig, start, end")
    return regions


def _bed_region(line: str, place: str, lengths: Mapping[str, int]) -> Region:
    fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    try:
        start, end = int(fields[1]), int(fields[2])
    except (IndexError, ValueError):
        raise InputError(f"{place}: expected contig, start, end; found {line.strip()!r}") from None
    contig = match_contig(fields[0], lengths)
    if contig is None:
        raise InputError(f"{place}: no contig {fields[0]!r}; there are {names_text(lengths)}")
    if not 0 <= start < end <= lengths[contig]:
        raise InputError(
            f"{place}: {fields[0]}\t{start}\t{end} is not within the contig's 0 to {lengths[contig]} "
            "(BED is 0-based, end excluded)"
        )
    return Region(contig, start, end, fields[3] if len(fields) > 3 else "")


def merge_regions(regions: Iterable[Region], order: Iterable[str]) -> list[Region]:
    """Regions in the order of the contigs `order`, without names; overlapping and adjacent ones are one."""
    rank = {name: number for number, name in enumerate(order)}
    merged: list[Region] = []
    for region in sorted(regions, key=lambda region: (rank[region.contig], region.start)):
        last = merged[-1] if merged else None
        if last is not None and last.contig == region.contig and region.start <= last.end:
            merged[-1] = Region(last.contig, last.start, max(last.end, region.end))
        else:
            merged.append(Region(region.contig, region.start, region.end))
    return merged


def subtract_regions(regions: Iterable[Region], holes: Iterable[Region]) -> list[Region]:
    """Parts of regions that lie in none of the holes, which are merged."""
    by_contig: dict[str, list[Region]] = {}
    for hole in holes:
        by_contig.setdefault(hole.contig, []).append(hole)
    kept = []
    for region in regions:
        start = region.start
        for hole in by_contig.get(region.contig, []):
            if hole.start < region.end and hole.end > start:
                if hole.start > start:
                    kept.append(Region(region.contig, start, hole.start))
                start = hole.end
        if start < region.end:
            kept.append(Region(region.contig, start, region.end))
    return kept


class ContigNames:
    """Contigs that are found under either naming: ``chr22`` is ``22``, ``chrM`` ``MT``, ``human.1`` ``human.chr1``."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        self._by_normalised: dict[str, str] = {}
        for name in self._names:
            self._by_normalised.setdefault(_normalised(name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def find(self, name: str) -> str | None:
        """Return the same name, or else the first that matches it."""
        return name if name in self._names else self._by_normalised.get(_normalised(name))


def match_contig(name: str, available: Iterable[str]) -> str | None:
    """Return the contig that a name means; `ContigNames` is quicker for many names."""
    return name if isinstance(available, dict) and name in available else ContigNames(available).find(name)


def names_text(names: Iterable[str], most: int = 5) -> str:
    """Some names for a message, for example ``chr1, chr2, chr3 and 22 more``."""
    every = list(names)
    if not every:
        return "none"
    text = ", ".join(every[:most])
    return text if len(every) <= most else f"{text} and {len(every) - most} more"


def _normalised(name: str) -> str:
    # Where the contigs of several species are in one genome, a prefix keeps them apart.
    prefix, dot, contig = name.partition(".")
    return f"{_bare(prefix)}.{_bare(contig)}" if dot else _bare(name)


def _bare(name: str) -> str:
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return "MT" if bare.upper() == "M" else bare.upper() if len(bare) <= 2 else bare
