"""Whether records can be BCF, which keeps values as what the header says that they are, and text as it is."""

from __future__ import annotations

import math
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.effects.vcf_header import FIXED, as_text
from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Numbers have 24 bits in BCF, and six digits where htslib writes them.
_ROUNDING: Final = 1e-5
_BETWEEN_VALUES: Final = re.compile(rb"[;:,=]")
_MOST_LETTERS: Final = 40
_INFO: Final = FIXED - 1


def write_bcf(text: Path, path: Path, *, packed: bool = True) -> None:
    """Write a VCF as BCF.

    Raises
    ------
    pysam.SamtoolsError
        When it cannot be, for instance because a record names what the header does not declare.
    """
    from pysam import bcftools

    how = "-Ob" if packed else "-Ou"
    bcftools.view("--no-version", how, "-o", os.fspath(path), os.fspath(text), catch_stdout=False)


def completed_header(text: Path) -> bytes:
    """Give a VCF's header with all that its records name; htslib adds to it as it reads them.

    Raises
    ------
    ValueError
        When htslib cannot read a record.
    """
    try:
        with pysam.VariantFile(os.fspath(text)) as file:
            for _ in file:
                pass
            return str(file.header).encode()
    except OSError as error:
        raise ValueError(str(error)) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep htslib from printing what is said in other words, or is no fault."""
    verbosity = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(verbosity)


class BcfCheck:
    """Refuses records that cannot be BCF, or of which BCF would not keep all.

    What it may change: digits of numbers behind the sixth, zeros and signs before them, and missing values at an end.

    Parameters
    ----------
    header : bytes
        All lines, each ended by a newline; what records name beyond it is no fault.
    """

    def __init__(self, header: bytes) -> None:
        self._header = header

    def refuse(self, lines: Sequence[bytes], place: Callable[[int], str]) -> None:
        """Refuse what cannot be.

        Parameters
        ----------
        lines : sequence of bytes
            Whole records, without line ends.
        place : callable
            Says of a row where its record stands.

        Raises
        ------
        InputError
            With the first record of which something would be lost.
        """
        kept = self._there_and_back(lines)
        if kept is None:
            row = self._first_refused(lines)
            raise InputError(
                f"{place(row)}: htslib cannot read what the record has in INFO, FORMAT or samples, or its POS is too "
                "large, so that it cannot be BCF; write .vcf.gz, or mend the line"
            )
        for row, (line, other) in enumerate(zip(lines, kept, strict=True)):
            if line != other and (lost := _lost(line, other)) is not None:
                raise InputError(
                    f"{place(row)}: of {lost.column}, BCF would keep {lost.before} as {lost.after}, by what the header "
                    "says of it; write .vcf.gz, or mend the line or the header"
                )

    def _there_and_back(self, lines: Sequence[bytes]) -> list[bytes] | None:
        """Give records as BCF keeps them; ``None`` where it does not."""
        with tempfile.TemporaryDirectory() as folder, quiet():
            text, packed, back = (Path(folder) / name for name in ("in.vcf", "kept.bcf", "out.vcf"))
            body = b"".join([line + b"\n" for line in lines])
            text.write_bytes(self._header + body)
            try:
                try:
                    write_bcf(text, packed, packed=False)
                except pysam.SamtoolsError:
                    # BCF numbers what the header declares, and so has no place for what it does not.
                    self._header = completed_header(text)
                    text.write_bytes(self._header + body)
                    write_bcf(text, packed, packed=False)
            except (pysam.SamtoolsError, ValueError):
                return None
            pysam.bcftools.view("--no-version", "-H", "-o", os.fspath(back), os.fspath(packed), catch_stdout=False)
            return back.read_bytes().split(b"\n")[:-1]

    def _first_refused(self, lines: Sequence[bytes]) -> int:
        """Find the first record without which those before it can be BCF."""
        good, bad = 0, len(lines)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._there_and_back(lines[:middle]) is None:
                bad = middle
            else:
                good = middle
        return bad - 1


class _Lost(NamedTuple):
    column: str
    before: str
    after: str


def _lost(line: bytes, other: bytes) -> _Lost | None:
    """Say what a record has that another one has not, in its first column that differs by more than rounding."""
    columns, others = line.split(b"\t"), other.split(b"\t")
    others += [b"."] * (len(columns) - len(others))
    for number, (before, after) in enumerate(zip(columns, others, strict=False)):
        if before == after or _is_kept(before, after):
            continue
        if number == _INFO:
            fields = [field for field in before.split(b";") if field]
            kept = [field for field in after.split(b";") if field]
            before, after = next(
                (pair for pair in zip(fields, kept, strict=False) if not _is_kept(*pair)), (before, after)
            )
        return _Lost(_NAMES[number] if number < len(_NAMES) else "a sample", _shown(before), _shown(after))
    return None


_NAMES: Final = ("CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")


def _is_kept(before: bytes, after: bytes) -> bool:
    values, others = _values(before), _values(after)
    return len(values) == len(others) and all(map(_is_same, values, others))


def _values(text: bytes) -> list[bytes]:
    return [value for value in _BETWEEN_VALUES.split(text) if value not in {b"", b"."}]


def _is_same(before: bytes, after: bytes) -> bool:
    if before == after:
        return True
    try:
        one, other = float(before), float(after)
    except ValueError:
        return False
    return math.isclose(one, other, rel_tol=_ROUNDING) or (math.isnan(one) and math.isnan(other))


def _shown(text: bytes) -> str:
    words = as_text(text)
    return repr(words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS]}...")
