"""What a build has finished, written beside its arrays as it goes, so that a killed one goes on where it was.

The journal is lines of JSON: first what is built from what, once the reference is written; then one line for each
contig whose variants are. A line that was cut, or whose rows are not all on the disk, ends it.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError
from mutbert.genome.format import Contig
from mutbert.genome.population import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from mutbert.genome.population import ContigVariants
    from mutbert.genome.writer import StoreWriter

JOURNAL: Final = "resume.jsonl"
"""The journal's name in the folder of an unfinished store."""


class Finished(NamedTuple):
    """A contig whose variants are written.

    Parameters
    ----------
    contig, vcf_name : str
        Its name in the genome and in the VCF.
    variants : tuple of int
        Half-open range of its rows.
    checksum : int
        CRC-32 of its rows.
    tallies : dict of int to Tally
        What became of its records, by the number of the file.
    """

    contig: str
    vcf_name: str
    variants: tuple[int, int]
    checksum: int
    tallies: Mapping[int, Tally]


class Journal:
    """Writes the journal of a build.

    Parameters
    ----------
    directory : Path
        The folder of the unfinished store.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL
        self._file: BinaryIO | None = None
        self.finished = 0
        """Contigs that the journal holds."""

    def begin(self, plan: Mapping[str, Any], contigs: Sequence[Contig], checksum: int) -> None:
        """Start it, once the reference is written: settings and sources, and where the sequences are."""
        self._file = self._path.open("wb")
        self._write({"plan": plan, "contigs": [contig[:5] for contig in contigs], "checksum": checksum})

    def go_on(self, plan: Mapping[str, Any], finished: Sequence[Finished]) -> None:
        """Begin it anew with what is kept of it and the plan as it is now."""
        first, *lines = self._path.read_bytes().splitlines()
        begun = json.loads(first) | {"plan": plan}
        text = b"".join(line + b"\n" for line in (json.dumps(begun).encode(), *lines[: len(finished)]))
        renewed = self._path.with_suffix(".renewed")
        renewed.write_bytes(text)
        renewed.replace(self._path)
        self._file = self._path.open("ab")
        self.finished = len(finished)

    def add(self, found: ContigVariants, rows: tuple[int, int]) -> None:
        """Add a contig whose rows are written."""
        tallies = {str(number): tally.to_list() for number, tally in found.tallies.items()}
        checksum = _checksum(found.position_V.tobytes(), found.frequency_V4.tobytes())
        self._write([found.contig, found.vcf_name, rows, checksum, tallies])
        self.finished += 1

    def remove(self) -> None:
        """Remove it: a finished store has none."""
        self.close()
        self._path.unlink()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, line: Any) -> None:
        assert self._file is not None, "the journal is begun"
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()


class Begun(NamedTuple):
    """What a stopped build had done.

    Parameters
    ----------
    plan : dict
        What was built from what.
    contigs : list of Contig
        The sequences that were written.
    checksum : int
        CRC-32 of these.
    finished : list of Finished
        The contigs whose variants were written too.
    """

    plan: dict[str, Any]
    contigs: list[Contig]
    checksum: int
    finished: list[Finished]


def read_journal(directory: Path) -> Begun | None:
    """Read what a build had done; ``None`` where there is no journal, as the reference was not written yet."""
    with suppress(OSError, ValueError, KeyError):
        first, *lines = (directory / JOURNAL).read_bytes().splitlines()
        begun = json.loads(first)
        contigs = [
            Contig(name, length, offset, tuple(ambiguity), tuple(soft_mask), (0, 0))
            for name, length, offset, ambiguity, soft_mask in begun["contigs"]
        ]
        finished = []
        for line in lines:
            try:
                contig, vcf_name, rows, checksum, tallies = json.loads(line)
            except ValueError:
                break
            by_file = {int(number): Tally.from_list(numbers) for number, numbers in tallies.items()}
            finished.append(Finished(contig, vcf_name, tuple(rows), checksum, by_file))
        return Begun(begun["plan"], contigs, begun["checksum"], finished)
    return None


def whole_contigs(finished: Sequence[Finished], writer: StoreWriter) -> list[Finished]:
    """Take the finished contigs up to the first whose rows are not as they were written."""
    whole: list[Finished] = []
    for one in finished:
        rows = writer.variant_rows(*one.variants)
        if rows is None or _checksum(*rows) != one.checksum:
            break
        whole.append(one)
    return whole


def check_plan(output: Path, before: Mapping[str, Any], now: Mapping[str, Any], used: set[int]) -> None:
    """Refuse to go on with other settings or files.

    Parameters
    ----------
    output : Path
        The store.
    before, now : mapping
        The plans: ``created_by``, ``settings``, and ``sources`` with the sizes and checksums of all files.
    used : set of int
        The VCF files that gave something to finished contigs. Others may have changed: a download that was cut is
        downloaded again.

    Raises
    ------
    InputError
        When something differs, in one line that names it.
    """
    remedy = "give the same as before, or build anew without --resume"
    for key in ("created_by", "settings"):
        if before[key] != now[key]:
            raise InputError(f"{output}: cannot go on, as its {key} were {before[key]} and are {now[key]}; {remedy}")
    kinds = [[(source["kind"], source["file"]) for source in plan["sources"]] for plan in (before, now)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{output}: cannot go on, as it was begun with other files; {remedy}")
    number = 0
    for old, new in zip(before["sources"], now["sources"], strict=True):
        is_vcf = new["kind"] == "vcf"
        if old != new and not (is_vcf and number not in used):
            raise InputError(f"{new['file']}: has changed since {output} was begun with it; {remedy}")
        number += is_vcf


def _checksum(positions: bytes, frequencies: bytes) -> int:
    return zlib.crc32(frequencies, zlib.crc32(positions))
