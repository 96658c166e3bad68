"""VCF read as lines of text, for `mutbert.genome.verify`: one parser for plain text, gzip, bgzip and BCF.

Nothing here is shared with the builder, which leaves the reading to htslib.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pysam

from mutbert.errors import InputError
from mutbert.genome.rederive import (
    FATES,
    FILTERED,
    INDEL,
    NO_ALTERNATE,
    NO_FREQUENCY,
    ODD_ALTERNATE,
    OUTSIDE,
    OVERLAPPING,
    SAME,
    SYMBOLIC,
    UNKNOWN_REFERENCE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mutbert.genome.rederive import Places

    Int64 = npt.NDArray[np.int64]
    Frequencies = Callable[[Sequence[str], int], Sequence[float]]

_BLOCK = 1 << 22
_CODE = {"A": 0, "C": 1, "G": 2, "T": 3}
_MISSING = math.nan
_IMPOSSIBLE = -1.0
_DECLARATION = re.compile(r"##(INFO|FORMAT)=<.*?\bID=([^,>]+).*?\bType=(\w+)")
_BEHIND_GENOTYPE = re.compile(r":[^\t]*")


class Rules(NamedTuple):
    """What a build was told.

    Parameters
    ----------
    frequency_field : str
        An INFO field, a quotient ``X/Y`` of two, or ``GT``.
    filters : frozenset of str or None
        The values of FILTER that pass; None lets all pass.
    samples : frozenset of str or None
        Samples whose genotypes are counted; None where none were chosen.
    """

    frequency_field: str
    filters: frozenset[str] | None
    samples: frozenset[str] | None


class FileTally(NamedTuple):
    """What was read of one VCF.

    Parameters
    ----------
    frequency_from : str
        ``"AF"``, another field, a quotient, or ``"genotypes"``.
    read : int
        Records.
    fates : ndarray of int64, shape (17,)
        Records without a place of their own, by the number of their fate.
    samples : frozenset of str
        The chosen samples that the file has.
    """

    frequency_from: str
    read: int
    fates: Int64
    samples: frozenset[str]


class Allele(NamedTuple):
    """An alternate allele without its position.

    Parameters
    ----------
    fate : int
        How far it came, for what of it is not in `places`.
    places : tuple of (int, int, int)
        Single nucleotides that it changes: offset from POS, reference base, alternate base.
    whole : tuple of (int, str, str) or None
        Of several nucleotides: the trimmed allele, as offset from POS, reference and alternate.
    """

    fate: int
    places: tuple[tuple[int, int, int], ...]
    whole: tuple[int, str, str] | None


@lru_cache(maxsize=1 << 14)
def read_allele(reference: str, alternate: str) -> Allele:
    """Say what an alternate allele changes; both texts are in upper case."""
    if alternate == "*":
        return Allele(OVERLAPPING, (), None)
    if alternate == ".":
        return Allele(NO_ALTERNATE, (), None)
    if not (alternate.isascii() and alternate.isalpha()):
        return Allele(SYMBOLIC, (), None)
    if len(alternate) != len(reference):
        return Allele(INDEL, (), None)
    differing = [at for at, base in enumerate(alternate) if base != reference[at]]
    if not differing:
        return Allele(SAME, (), None)
    fate = 0
    places = []
    for at in differing:
        if reference[at] not in _CODE:
            fate = max(fate, UNKNOWN_REFERENCE)
        elif alternate[at] not in _CODE:
            fate = max(fate, ODD_ALTERNATE)
        else:
            places.append((at, _CODE[reference[at]], _CODE[alternate[at]]))
    first, last = differing[0], differing[-1]
    several = first != last
    whole = (first, reference[first : last + 1], alternate[first : last + 1]) if several else None
    return Allele(fate, tuple(places), whole)


@lru_cache(maxsize=1 << 14)
def read_genotype(text: str) -> tuple[int, ...]:
    """List the alleles that a genotype calls, 0 for the reference: ``0|1`` is (0, 1), ``./2`` is (2,).

    Raises
    ------
    ValueError
        When it is no genotype.
    """
    calls = [call for call in text.replace("|", "/").split("/") if call not in {"", "."}]
    if not all(call.isascii() and call.isdigit() for call in calls):
        raise ValueError(text)
    return tuple(int(call) for call in calls)


def read_vcf(
    path: Path,
    number: int,
    find_contig: Callable[[str], int],
    rules: Rules,
    places: Places,
    advance: Callable[[float], None],
) -> FileTally:
    """Read a VCF or BCF as text, and put its places with those of the other files.

    Parameters
    ----------
    path : Path
        Plain, gzip, bgzip or BCF, told by the content.
    number : int
        The file's number, from 0 in the order given.
    find_contig : callable
        A contig's name in the file to its number in the FASTA; ``-1 - NO_CONTIG`` or ``-1 - NOT_SELECTED`` where it
        is not wanted.
    rules : Rules
        What the build was told.
    places : Places
        Receives the rows.
    advance : callable
        Is told of bytes read.

    Returns
    -------
    FileTally
        The records, and what became of those without rows.

    Raises
    ------
    InputError
        When the file cannot be read, or no genome can have been built from it.
    """
    try:
        blocks = _read_blocks(path, rules.frequency_field, advance)
        info, formats, samples, first = _read_header(path, blocks)
        source, frequencies, chosen = _find_frequencies(path, info, formats, samples, rules)
        fates = np.zeros(len(FATES), dtype=np.int64)
        contigs: dict[str, int] = {}
        passing: dict[str, bool] = {}
        read = 0
        for line in chain.from_iterable(chain([first], blocks)):
            if not line:
                continue
            read += 1
            columns = line.split("\t", 9)
            if len(columns) < 8 or not columns[1].isdecimal():
                raise InputError(f"{path}: record {read} is not a line of VCF ({line[:40]!r}); check the file")
            name, filters = columns[0], columns[6]
            contig = contigs.get(name)
            if contig is None:
                contig = contigs[name] = find_contig(name)
            if contig < 0:
                fates[-1 - contig] += 1
                continue
            if filters not in passing:
                passing[filters] = rules.filters is None or not rules.filters.isdisjoint(filters.split(";"))
            if not passing[filters]:
                fates[FILTERED] += 1
                continue
            fate, rows = _read_record(columns, frequencies)
            if rows:
                places.add(contig, number, fate, rows)
            else:
                fates[fate] += 1
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as VCF ({error}); check the path and that it is complete") from None
    return FileTally(source, read, fates, chosen)


def _read_record(
    columns: Sequence[str], frequencies: Frequencies
) -> tuple[int, list[tuple[int, float, int, int, int]]]:
    """Give how far the alleles without rows came, and the rows of the others."""
    start = int(columns[1]) - 1
    reference = columns[3].upper()
    alternates = columns[4].upper().split(",")
    furthest = 0
    rows = []
    values: Sequence[float] = ()
    for index, alternate in enumerate(alternates):
        fate, places, whole = read_allele(reference, alternate)
        if places:
            # Genotypes are counted only where they matter.
            values = values or frequencies(columns, len(alternates))
            frequency = values[index]
            if frequency != frequency:
                fate = max(fate, NO_FREQUENCY)
            else:
                allele = 0 if whole is None else _allele_number(start + whole[0], whole[1], whole[2])
                for offset, base, other in places:
                    if 0 <= start + offset < 2**32:
                        rows.append((start + offset, frequency, allele, base, other))
                    else:
                        fate = max(fate, OUTSIDE)
        furthest = max(furthest, fate)
    return furthest, rows


def _allele_number(start: int, reference: str, alternate: str) -> int:
    """Give a number that no other allele at this place has, but for one chance in 2 to the 63; never 0."""
    digest = blake2b(f"{start} {reference} {alternate}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") | 1


def _read_blocks(path: Path, field: str, advance: Callable[[float], None]) -> Iterator[list[str]]:
    """Give a file's lines, many at a time."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if packed else raw as file:
            start = file.read(3)
            if start == b"BCF":
                yield from _read_bcf(path, field, advance)
                return
            done = 0
            rest = start
            while piece := file.read(_BLOCK):
                advance(raw.tell() - done)
                done = raw.tell()
                piece = rest + piece
                cut = piece.rfind(b"\n") + 1
                rest = piece[cut:]
                if cut:
                    yield _split_lines(piece[:cut])
            yield _split_lines(rest)


def _split_lines(block: bytes) -> list[str]:
    text = block.decode("utf-8", "surrogateescape")
    return (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")


def _read_bcf(path: Path, field: str, advance: Callable[[float], None]) -> Iterator[list[str]]:
    with pysam.VariantFile(str(path)) as file:
        yield [*str(file.header).splitlines(), ""]
        exact = field in file.header.info and file.header.info[field].type == "Float"
        for record in file:
            line = str(record).rstrip("\n")
            if exact and field in record.info:
                # The text has six digits of a number, and the file seven.
                values = record.info[field]
                values = values if isinstance(values, tuple) else (values,)
                columns = line.split("\t")
                columns[7] = f"{field}=" + ",".join("." if value is None else repr(value) for value in values)
                line = "\t".join(columns)
            yield [line]
    advance(path.stat().st_size)


def _read_header(
    path: Path, blocks: Iterator[list[str]]
) -> tuple[dict[str, str], dict[str, str], list[str], list[str]]:
    """Give the types of INFO and FORMAT fields, the samples, and the lines behind the header in its last block."""
    types: dict[str, dict[str, str]] = {"INFO": {}, "FORMAT": {}}
    begun = False
    for lines in blocks:
        for number, line in enumerate(lines):
            if not begun and not line.startswith("##fileformat=VCF"):
                raise InputError(f"{path}: is not VCF (its first line is {line[:40]!r}); give a VCF or BCF file")
            begun = True
            if found := _DECLARATION.match(line):
                types[found[1]].setdefault(found[2], found[3])
            if line.startswith("#CHROM"):
                return types["INFO"], types["FORMAT"], line.split("\t")[9:], lines[number + 1 :]
    raise InputError(f"{path}: is not VCF (it has no line #CHROM); give a complete VCF or BCF file")


def _find_frequencies(
    path: Path, info: dict[str, str], formats: dict[str, str], samples: Sequence[str], rules: Rules
) -> tuple[str, Frequencies, frozenset[str]]:
    """Choose where a file's frequencies come from: its name, a function of a record, and the samples it counts."""
    field = rules.frequency_field
    counted = "GT" in formats and bool(samples)
    if rules.samples is not None or field == "GT":
        if not counted:
            raise InputError(f"{path}: has no genotypes, from which the genome's frequencies come; give another file")
        return "genotypes", *_count_genotypes(path, samples, rules.samples)
    if field == "AF" and info.get("AF") != "Float":
        if info.get("AC") == info.get("AN") == "Integer":
            field = "AC/AN"
        elif counted:
            return "genotypes", *_count_genotypes(path, samples, None)
    above, _, below = field.partition("/")
    wanted = [(above, "Integer"), (below, "Integer")] if below else [(field, "Float")]
    for name, kind in wanted:
        if info.get(name) != kind:
            raise InputError(
                f"{path}: declares no INFO field {name} of type {kind}, from which the genome's frequencies come; give "
                "the file that it was built from"
            )
    return field, (_divide(above, below) if below else _read_field(field)), frozenset()


def _read_field(field: str) -> Frequencies:
    def frequencies(columns: Sequence[str], alternates: int) -> Sequence[float]:
        return _numbers(columns[7], field, alternates)

    return frequencies


def _divide(above: str, below: str) -> Frequencies:
    def frequencies(columns: Sequence[str], alternates: int) -> Sequence[float]:
        (total,) = _numbers(columns[7], below, 1)
        if not total:
            return [_MISSING] * alternates
        return [count / total for count in _numbers(columns[7], above, alternates)]

    return frequencies


def _numbers(info: str, field: str, wanted: int) -> list[float]:
    """Read the numbers of an INFO field; `_IMPOSSIBLE` where they are not numbers, or not as many as wanted."""
    if info.startswith(field + "="):
        start = len(field) + 1
    else:
        start = info.find(f";{field}=") + len(field) + 2
        if start < len(field) + 2:
            return [_MISSING] * wanted
    end = info.find(";", start)
    text = info[start:] if end < 0 else info[start:end]
    if text in {"", "."}:
        return [_MISSING] * wanted
    try:
        numbers = [_MISSING if one == "." else float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    return numbers if len(numbers) == wanted else [_IMPOSSIBLE] * wanted


def _count_genotypes(
    path: Path, samples: Sequence[str], chosen: frozenset[str] | None
) -> tuple[Frequencies, frozenset[str]]:
    found = frozenset(samples) if chosen is None else chosen.intersection(samples)
    if not found:
        raise InputError(f"{path}: has none of the chosen samples; leave it out, or give other samples")
    columns_of_found = [index for index, name in enumerate(samples) if name in found]
    every = len(columns_of_found) == len(samples)
    pick = itemgetter(*columns_of_found)

    def frequencies(columns: Sequence[str], alternates: int) -> Sequence[float]:
        keys = columns[8].split(":") if len(columns) > 9 else []
        if "GT" not in keys:
            return [_MISSING] * alternates
        texts: Sequence[str] = columns[9].split("\t")
        place = f"{path}: {columns[0]}:{columns[1]}"
        if len(texts) != len(samples):
            raise InputError(f"{place}: has {len(texts)} samples, and the header {len(samples)}; check the file")
        if not every:
            texts = pick(texts) if len(columns_of_found) > 1 else (pick(texts),)
        if keys[0] != "GT":
            at = keys.index("GT")
            texts = [(text.split(":", at + 1) + ["."] * at)[at] for text in texts]
        elif len(keys) > 1:
            # One pass over the text instead of one over the samples.
            texts = _BEHIND_GENOTYPE.sub("", "\t".join(texts)).split("\t")
        calls = [0] * (alternates + 1)
        try:
            for text, times in Counter(texts).items():
                for allele in read_genotype(text):
                    calls[allele] += times
        except (ValueError, IndexError):
            raise InputError(f"{place}: genotype {text!r} is none of its alleles; check the file") from None
        called = sum(calls)
        return [count / called for count in calls[1:]] if called else [_MISSING] * alternates

    return frequencies, found
