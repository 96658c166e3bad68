"""Places in a genome: regions, BED files, and contig names in either naming."""

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
    start : int
        0-based position of the first base.
    end : int
        0-based position behind the last base.
    name : str
        What a BED file calls it; empty where it has no name.
    """

    contig: str
    start: int
    end: int
    name: str = ""

    def __len__(self) -> int:
        """Count the bases."""
        return self.end - self.start

    def __str__(self) -> str:
        """Write the region as people do, ``chr22:101-200``: 1-based, both ends included."""
        return f"{self.contig}:{self.start + 1}-{self.end}"

    @classmethod
    def parse(cls, text: str, lengths: Mapping[str, int]) -> Region:
        """Read ``chr22``, ``chr22:101`` or ``chr22:101-200`` (1-based, both ends included; commas allowed).

        Parameters
        ----------
        text : str
            The region.
        lengths : mapping
            The contigs that there are, with their lengths in bases. Either naming is accepted, and a contig
            whose own name holds a colon is found by its whole name.

        Returns
        -------
        Region
            Under the name that `lengths` uses.

        Raises
        ------
        InputError
            When the text is no region, or lies outside the contigs.
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
    """Read the regions of a BED file (plain or gzip), in its order.

    Parameters
    ----------
    path : Path
        Tab- or space-separated: contig, 0-based start, end, and a name where there is a fourth column.
    lengths : mapping
        The contigs that there are, with their lengths in bases; either naming is accepted.

    Returns
    -------
    list of Region
        Under the names that `lengths` uses.

    Raises
    ------
    InputError
        When the file cannot be read, or a line is no region of these contigs; names file and line.
    """
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
    """Contigs that can be found under either naming: ``chr22`` is ``22``, ``chrM`` is ``MT``.

    Behind the prefix of a species it is the same: ``human.1`` is ``human.chr1``.

    Parameters
    ----------
    names : iterable of str
        The names that there are; of several that match, the first is found.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        self._by_normalised: dict[str, str] = {}
        for name in self._names:
            self._by_normalised.setdefault(_normalised(name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def find(self, name: str) -> str | None:
        """Find the member that is a name, or else the first that matches it; ``None`` where there is none."""
        return name if name in self._names else self._by_normalised.get(_normalised(name))


def match_contig(name: str, available: Iterable[str]) -> str | None:
    """Find one contig under either naming; see `ContigNames`, which is quicker for many.

    Parameters
    ----------
    name : str
        The name to look for.
    available : iterable of str
        The names that there are. The same name is preferred over one that only matches.

    Returns
    -------
    str or None
        The matching member of `available`; ``None`` where there is none.
    """
    names = available if isinstance(available, (dict, set, frozenset)) else list(available)
    if name in names:
        return name
    wanted = _normalised(name)
    return next((other for other in names if _normalised(other) == wanted), None)


def names_text(names: Iterable[str], most: int = 5) -> str:
    """List some names for a message, for example ``chr1, chr2, chr3 and 22 more``."""
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
