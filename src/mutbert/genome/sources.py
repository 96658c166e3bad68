"""Input files of a genome, prefixes that keep the names of several species apart, and whose genotypes are counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome.vcf import find_frequencies, read_header
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

FILTERS: Final = ("PASS", ".")
ANY_FILTER: Final = "any"
"""Stands for every FILTER."""
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


class Calls(NamedTuple):
    """A VCF file and how it is read."""

    source: Source
    filters: Collection[str]
    fields: tuple[str, ...]  # of INFO, with frequencies or with both parts of a quotient
    samples: tuple[str, ...] | None  # whose genotypes the fields count anew

    @property
    def frequencies(self) -> str:
        """Where frequencies come from: ``AF``, ``AC/AN``, ``genotypes``."""
        return "/".join(self.fields) if self.samples is None else "genotypes"


Sources: TypeAlias = "str | Path | Sequence[str | Path]"


def parse_sources(given: Sources) -> list[Source]:
    """Return one or many of ``FILE`` or ``PREFIX=FILE``; a file that exists under the whole text is that file."""
    sources: list[Source] = []
    for one in [given] if isinstance(given, (str, Path)) else given:
        parts = None if Path(one).exists() else _PREFIXED.fullmatch(str(one))
        sources.append(Source(Path(one)) if parts is None else Source(Path(parts["path"]), parts["prefix"]))
    for source, number in Counter(sources).items():
        if number > 1:
            raise InputError(f"{source.path}: comes twice; name each file once")
    return sources


def choose_samples(
    samples: str | Path | Sequence[str] | None, population: str | None, sample: str | None
) -> list[str] | None:
    """Return the names of the samples whose genotypes are counted: one, those of a file, or a list; None for none."""
    if sample is not None:
        return [sample]
    if isinstance(samples, (str, Path)):
        return read_samples(Path(samples), population)
    return None if samples is None else list(samples)


def read_samples(path: Path, population: str | None = None) -> list[str]:
    """Return the names in a list of samples, or in a panel as the 1000 Genomes project has it, in the file's order.

    Columns are separated by blanks or tabs: the name, then words of which `population` has to be one. Lines that begin
    with ``#`` are left out, and a panel's first line where it begins with ``sample``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of samples ({error}); check the path") from None
    rows = [line.split() for line in lines if line.strip() and line[0] != "#"]
    if rows and rows[0][0].lower() == "sample" and len(rows[0]) > 1:
        del rows[0]
    names = [row[0] for row in rows if population is None or population in row[1:]]
    if not names:
        known = dict.fromkeys(word for row in rows for word in row[1:])
        wanted = f"no sample of population {population}; there are {names_text(known, 30)}"
        raise InputError(f"{path}: {wanted if rows else 'names no sample; write one name a line'}")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise InputError(f"{path}: sample {twice[0]} comes twice; remove one of the lines")
    return names


def find_calls(
    vcfs: Sequence[Source], frequency_field: str, samples: Sequence[str] | None, filters: Collection[str]
) -> list[Calls]:
    """Return how each file is read, by what it declares; raise where it lacks the field, the samples or the filters."""
    headers = {source: read_header(source.path) for source in vcfs}
    paths = names_text(str(source.path) for source in vcfs)
    known = set[str]().union(*(header.samples for header in headers.values()))
    if unknown := [name for name in samples or () if name not in known]:
        raise InputError(f"{paths}: no sample {names_text(unknown)}; there are {names_text(sorted(known))}")
    declared = {"PASS", ".", ANY_FILTER}.union(*(header.filters for header in headers.values()))
    unknown = [name for name in filters if name not in declared]
    if vcfs and (unknown or not filters):
        there = names_text(sorted(declared), 30)
        raise InputError(f"{paths}: no header declares the FILTER {names_text(unknown)}; there are {there}")
    calls = []
    for source, header in headers.items():
        if samples is not None and set(samples).isdisjoint(header.samples):  # chromosome Y may have men alone
            raise InputError(f"{source.path}: has none of the chosen samples; leave the file out or choose others")
        calls.append(Calls(source, filters, *find_frequencies(source.path, header, frequency_field, samples)))
    return calls


def describe_samples(chosen: Sequence[str]) -> dict[str, Any]:
    """Return what a manifest keeps of chosen samples: their number and a checksum, not their names."""
    return {"number": len(chosen), "sha256": hashlib.sha256("\n".join(sorted(chosen)).encode()).hexdigest()}
