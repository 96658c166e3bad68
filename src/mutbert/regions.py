"""Regions of a genome, BED files, and contig names in either naming."""

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mutbert.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A stretch of a contig, 0-based and half-open; `name` and `strand` (+, - or .) are those of a BED file.

    Examples
    --------
    >>> mutbert.Region.parse("chr22:101-200").start
    100
    """

    contig: str
    start: int
    end: int
    name: str = ""
    strand: str = "."

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.end}"

    @classmethod
    def parse(cls, text: str, lengths: Mapping[str, int] | None = None) -> "Region":
        """Return the region of ``chr22``, ``chr22:101`` or ``chr22:101-200``, 1-based with both ends.

        Commas are allowed, either naming is accepted, and a contig's own name may hold a colon. Without the contigs'
        `lengths`, any contig is accepted, and positions are needed.
        """
        if lengths is not None and (whole := match_contig(text, lengths)) is not None:
            return cls(whole, 0, lengths[whole])
        name, _, place = text.rpartition(":")
        contig = name if lengths is None else match_contig(name, lengths)
        ends = re.fullmatch(r"(\d[\d,]*)(?:-(\d[\d,]*))?", place)
        if not contig or ends is None:
            known = "write CONTIG:START-END" if lengths is None else f"no such contig; there are {names_text(lengths)}"
            raise InputError(f"region {text!r}: {known}")
        first, last = (int((end or ends[1]).replace(",", "")) for end in ends.groups())
        most = last if lengths is None else lengths[contig]
        if not 1 <= first <= last <= most:
            raise InputError(f"region {text!r}: not within {contig}:1-{most}; positions are 1-based")
        return cls(contig, first - 1, last)


def read_bed(path: Path, lengths: Mapping[str, int]) -> list[Region]:
    """Return the regions of a BED file, plain or gzip, in its order, with the contigs' names in `lengths`."""
    regions, names = [], ContigNames(lengths)
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith(("#", "track", "browser")):
                    fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
                    regions.append(_bed_region(fields, f"{path}, line {number}", names, lengths))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as BED ({error}); check the path and that it is complete") from None
    if not regions:
        raise InputError(f"{path}: holds no regions; expected lines of contig, start, end")
    return regions


def _bed_region(fields: list[str], place: str, names: "ContigNames", lengths: Mapping[str, int]) -> Region:
    try:
        start, end = map(int, fields[1:3])
    except ValueError:
        raise InputError(f"{place}: expected contig, start, end; found {' '.join(fields)!r}") from None
    if (contig := names.find(fields[0])) is None:
        raise InputError(f"{place}: no contig {fields[0]!r}; there are {names_text(lengths)}")
    if not 0 <= start < end <= lengths[contig]:
        raise InputError(f"{place}: {start} {end} is not within the contig's 0 to {lengths[contig]}, end excluded")
    name, strand = [*fields, "", "", ""][3:6:2]
    if strand not in {"+", "-", ".", ""}:
        raise InputError(f"{place}: the strand, column 6, is {strand!r}; write +, - or ., or cut columns from 5 on")
    return Region(contig, start, end, "" if name == "." else name, strand or ".")


def merge_regions(regions: Iterable[Region], order: Iterable[str]) -> list[Region]:
    """Return regions in the order of the contigs `order`, without names; overlapping and adjacent ones are one."""
    rank = {name: number for number, name in enumerate(order)}
    merged: list[Region] = []
    for region in sorted(regions, key=lambda region: (rank[region.contig], region.start)):
        if merged and merged[-1].contig == region.contig and region.start <= merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, region.end))
        else:
            merged.append(replace(region, name="", strand="."))
    return merged


def subtract_regions(regions: Iterable[Region], holes: Iterable[Region]) -> list[Region]:
    """Return the parts of regions that lie in none of the holes, which are merged."""
    by_contig: dict[str, list[int]] = {}
    for hole in holes:
        by_contig.setdefault(hole.contig, []).extend((hole.start, hole.end))
    kept = []
    for region in regions:
        edges = [min(max(edge, region.start), region.end) for edge in by_contig.get(region.contig, [])]
        places = zip([region.start, *edges[1::2]], [*edges[::2], region.end], strict=True)
        kept += [Region(region.contig, *place) for place in places if place[0] < place[1]]
    return kept


class ContigNames(dict[str, str]):
    """Contigs that are found under either naming: ``chr22`` is ``22``, ``chrM`` ``MT``, ``human.1`` ``human.chr1``."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, name) for name in names)
        self._by_normalized = {_normalized(name): name for name in reversed(self)}

    def find(self, name: str) -> str | None:
        """Return the same name, or else the first that matches it."""
        return name if name in self else self._by_normalized.get(_normalized(name))


def match_contig(name: str, available: Iterable[str]) -> str | None:
    """Return the contig that a name means; `ContigNames` is quicker for many names."""
    return name if isinstance(available, dict) and name in available else ContigNames(available).find(name)


def names_text(names: Iterable[str], most: int = 5) -> str:
    """Return some names for a message, for example ``chr1, chr2, chr3 and 22 more``."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more or "none"


def _normalized(name: str) -> str:
    # Where the contigs of several species are in one genome, a prefix keeps them apart.
    bare = [re.sub("^chr(?=.)", "", part, flags=re.IGNORECASE) for part in name.split(".", 1)]
    return ".".join("MT" if part.upper() == "M" else part.upper() if len(part) <= 2 else part for part in bare)
