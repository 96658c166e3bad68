"""The folder of a run that is not finished: what it is a run of, and the parts of it that are.

A folder holds ``run.json``; what stands before the first part, ``header.KIND``; and for each part ``000012.KIND``, one
or more of them, and ``000012.json``, which is written last: a part that has it is whole. Everything is written aside
and renamed.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

VERSION: Final = 1
"""Of the folder's format."""
BEGUN: Final = "begun"
PUBLISHING: Final = "publishing"
"""From when results are put into place."""
COMPLETE: Final = "complete"
"""Where all parts of a shard are there."""
RUN: Final = "run.json"
"""In a folder of parts: what it is a run of."""
# Names of what a run makes; hidden ones are written aside.
_OWN: Final = re.compile(r"\.?(run|header|process-\d+|\d{6,})\..*")


@dataclass(frozen=True)
class Run:
    """What a folder is a run of.

    Parameters
    ----------
    made_of : mapping
        All that results depend on: ``mutbert``, its version; ``vcf``, ``model``, ``genome``, checksums; ``settings``.
    shard : tuple of int
        Which part of how many, from 1.
    kinds : tuple of str
        Suffixes of the files of each part.
    records, alleles, chunks : int
        Of the whole VCF.
    chunk_records : int
        Most records of a part.
    in_order : bool
        Whether its records are, so that it can have an index.
    columns : tuple of str
        Names of the fields, as tables have them.
    vcf : str
        Name of the VCF.
    vcf_bytes : int
        Its size.
    person_not_used : mapping of str to int, optional
        Of a person's genotypes: records that changed nothing, by reason.
    warnings : tuple of str
        What is odd and may be meant so, in a line each.
    calibration : mapping, optional
        Where a background is scored: what the file of it says of itself.
    state : str
        How far it is: `BEGUN`, `PUBLISHING` or `COMPLETE`.
    """

    made_of: Mapping[str, Any]
    shard: tuple[int, int]
    kinds: tuple[str, ...]
    records: int
    alleles: int
    chunks: int
    chunk_records: int
    in_order: bool
    columns: tuple[str, ...]
    vcf: str
    vcf_bytes: int
    person_not_used: Mapping[str, int] | None = None
    warnings: tuple[str, ...] = ()
    calibration: Mapping[str, Any] | None = None
    state: str = BEGUN


@dataclass(frozen=True)
class Counts:
    """What became of some alternate alleles.

    Parameters
    ----------
    records, alleles : int
        How many; a record without an alternate counts as one allele.
    scored : mapping of str to int
        Alleles with a score, by kind.
    missing : mapping of str to int
        Alleles without, by reason; with the others they are all.
    without_frequency : int
        Scored SNVs whose record does not say how frequent its alleles are, where that is asked for.
    without_background : int
        Scores that are of a kind of which the background has too few.
    """

    records: int = 0
    alleles: int = 0
    scored: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    without_frequency: int = 0
    without_background: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add two of them up."""
        return Counts(
            self.records + other.records,
            self.alleles + other.alleles,
            _added(self.scored, other.scored),
            _added(self.missing, other.missing),
            self.without_frequency + other.without_frequency,
            self.without_background + other.without_background,
        )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


class Parts:
    """A folder of parts.

    Parameters
    ----------
    folder : Path
        It need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_run(self) -> Run | None:
        """Read what the folder is a run of; ``None`` where it says nothing yet.

        Raises
        ------
        InputError
            When what it says cannot be read, or is of a newer version.
        """
        path = self.folder / RUN
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("version")
            if version == VERSION:
                tuples: dict[str, Any] = {
                    one.name: tuple(value) if isinstance(value := values[one.name], list) else value
                    for one in fields(Run)
                }
                return Run(**tuples)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: cannot be read ({one_line(error, 160)}); remove its folder and start anew"
            ) from None
        raise InputError(
            f"{path}: is of version {version}, and this version of mutbert reads {VERSION}; update mutbert"
        )

    def write_run(self, run: Run) -> None:
        """Write what it is a run of."""
        write_json(self.folder / RUN, {"version": VERSION, **asdict(run)}, force=True)

    def clear(self) -> None:
        """Remove all that is in it.

        Raises
        ------
        InputError
            When there are other things than a run makes.
        """
        paths = list(self.folder.iterdir())
        for path in paths:
            if not path.is_file() or _OWN.fullmatch(path.name) is None:
                raise InputError(
                    f"{self.folder}: is needed for the parts of this run, but holds {path.name}; move it away, or "
                    "choose another output"
                )
        for path in paths:
            path.unlink()

    def remove_marks(self) -> None:
        """Remove what processes of an earlier call have left there to find each other."""
        for path in self.folder.glob("process-*"):
            path.unlink()

    def path(self, number: int, kind: str) -> Path:
        """Say where a file of a part is."""
        return self.folder / f"{number:06d}.{kind}"

    def header(self, kind: str) -> Path:
        """Say where what stands before the first part is."""
        return self.folder / f"header.{kind}"

    def write(self, number: int, writers: Mapping[str, Callable[[Path], None]], counts: Counts) -> None:
        """Write a part.

        Parameters
        ----------
        number : int
            Which.
        writers : mapping of str to callable
            Of each kind of file, what writes it.
        counts : Counts
            What is in it.
        """
        sums = {}
        for kind, writer in writers.items():
            path = self.path(number, kind)
            with atomic_file(path, force=True) as aside:
                writer(aside)
                content = aside.read_bytes()
                sums[kind] = [len(content), zlib.crc32(content)]
        write_json(self.path(number, "json"), {"files": sums, "counts": asdict(counts)}, force=True)

    def counts(self, number: int) -> Counts | None:
        """Say what is in a part; ``None`` where it is not there or not whole."""
        note = self._note(number)
        if note is None or any(_size(self.path(number, kind)) != size for kind, (size, _) in note["files"].items()):
            return None
        return Counts(**note["counts"])

    def is_empty(self) -> bool:
        """Tell whether no part is finished."""
        return not any(self.folder.glob("[0-9]*.json"))

    def read(self, number: int, kind: str) -> bytes:
        """Read a file of a part.

        Raises
        ------
        InputError
            When it is not as it was written.
        """
        path = self.path(number, kind)
        note = self._note(number)
        content = path.read_bytes() if path.is_file() else b""
        if note is None or note["files"].get(kind) != [len(content), zlib.crc32(content)]:
            raise InputError(
                f"{path}: is missing or damaged; remove {path.with_suffix('').stem}.json beside it and run again with "
                "--resume, or copy the folder again"
            )
        return content

    def _note(self, number: int) -> dict[str, Any] | None:
        try:
            note = json.loads(self.path(number, "json").read_text(encoding="utf-8"))
            return note if {"files", "counts"} <= set(note) else None
        except (OSError, ValueError, TypeError):
            return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


class Whole(NamedTuple):
    """All parts of a VCF, in one folder or in one a shard.

    Parameters
    ----------
    run : Run
        What they are of.
    shards : sequence of Parts
        The folder of each shard, in their order; one where there are no shards.
    """

    run: Run
    shards: Sequence[Parts]

    def shard_of(self, number: int) -> Parts:
        """Give the folder that has a part."""
        return self.shards[number % len(self.shards)]

    def contents(self, kind: str) -> Iterator[bytes]:
        """Read the files of one kind, part by part."""
        for number in range(self.run.chunks):
            yield self.shard_of(number).read(number, kind)

    def header(self, kind: str) -> bytes:
        """Read what stands before the first part."""
        return self.shards[0].header(kind).read_bytes()

    def total(self) -> Counts:
        """Add up what is in all parts."""
        total = Counts()
        for number in range(self.run.chunks):
            counts = self.shard_of(number).counts(number)
            if counts is None:
                raise InputError(
                    f"{self.shard_of(number).path(number, 'json')}: is missing, or a file of its part is; copy the "
                    "folder again, or run its shard again"
                )
            total += counts
        return total


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words in what two runs differ, as `Run.made_of` has it; nothing where they do not.

    Parameters
    ----------
    before, now : mapping
        What they are made of.
    """
    now = json.loads(json.dumps(now))
    found = []
    for name, text in (
        ("vcf", "the VCF is another"),
        ("model", "the model is another"),
        ("genome", "the genome is another"),
    ):
        if before.get(name) != now.get(name):
            found.append(text)
    if before.get("mutbert") != now.get("mutbert"):
        found.append(f"mutbert was {before.get('mutbert')} and is {now.get('mutbert')}")
    old, new = before.get("settings", {}), now.get("settings", {})
    return found + [
        f"{name} was {_shown(old.get(name))} and is {_shown(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
