"""The header of a VCF or BCF file, whole; what htslib would not read is refused before any record is."""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple

import pysam

from mutbert.errors import InputError
from mutbert.files import check_input, read_blocks
from mutbert.genome.vcf_text import is_bcf, open_vcf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_FIRST_LINE: Final = b"##fileformat=VCF"
_COLUMNS: Final = [b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO"]
FIXED: Final = len(_COLUMNS)
"""Columns that every record has."""

# What htslib makes of a name that the header does not declare.
_DUMMIES: Final = {
    "contig": "##contig=<ID={}>",
    "INFO": '##INFO=<ID={},Number=1,Type=String,Description="Dummy">',
    "FILTER": '##FILTER=<ID={},Description="Dummy">',
    "FORMAT": '##FORMAT=<ID={},Number=1,Type=String,Description="Dummy">',
}
_SEPARATORS: Final = {"INFO": b";", "FILTER": b";", "FORMAT": b":"}
# Names without any of these are accepted.
_SUSPICIOUS: Final = re.compile(rb'[,<>"\[ ]')

_DECLARED_INFO: Final = re.compile(rb'^##INFO=<(?:[^"\n]*,)?ID=([^,>\n]+)', re.MULTILINE)
# A name with one of these would end the declaration.
_NOT_IN_A_NAME: Final = re.compile(r'[,<>"\s]')


class WholeHeader(NamedTuple):
    """What stands before the records.

    Parameters
    ----------
    text : bytes
        All lines, each ended by a newline.
    samples : tuple of str
        In the order of the columns.
    info : mapping of str to (str, str)
        Number and Type of each declared INFO field: ``("A", "Float")``.
    contigs, filters, formats : tuple of str
        Declared names.
    """

    text: bytes
    samples: tuple[str, ...]
    info: Mapping[str, tuple[str, str]]
    contigs: tuple[str, ...]
    filters: tuple[str, ...]
    formats: tuple[str, ...]


def as_text(name: bytes) -> str:
    """Give what a file has as text; bytes that are not UTF-8 become their numbers."""
    return name.decode("utf-8", "backslashreplace")


def read_whole_header(path: Path) -> WholeHeader:
    """Read the header of a VCF or BCF file.

    Parameters
    ----------
    path : Path
        Plain, gzip or bgzip, told by its content.

    Raises
    ------
    InputError
        When the file is missing, empty, damaged, no VCF, or its header is one that htslib refuses.
    """
    check_input(path, "VCF")
    try:
        if is_bcf(path):
            with open_vcf(path, drop_samples=False) as file:
                return _declared(str(file.header).encode(), tuple(file.header.samples), file.header)
        text, samples = _read_text(path)
        return _declared(text, samples, _checked(path, text))
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: names in its header are not UTF-8 text; mend them, for instance by 'iconv -t UTF-8'"
        ) from None


def _declared(text: bytes, samples: tuple[str, ...], header: pysam.VariantHeader) -> WholeHeader:
    info = {name: (str(field.number), str(field.type)) for name, field in header.info.items()}
    return WholeHeader(text, samples, info, tuple(header.contigs), tuple(header.filters), tuple(header.formats))


def _read_text(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Read the header's lines and the names of samples."""
    lines: list[bytes] = []
    samples: tuple[str, ...] | None = None
    for number, line in enumerate(_lines(path), start=1):
        line = line.removesuffix(b"\r")
        place = f"{path}, line {number}"
        if samples is not None:
            if line.startswith(b"#"):
                raise InputError(f"{place}: a header line stands behind the one that begins with #CHROM; take it out")
            break
        if b"\0" in line:
            raise InputError(f"{place}: has a NUL byte; the file is damaged: copy or download it again")
        if line.startswith(b"#CHROM"):
            samples = _read_samples(place, line.split(b"\t"))
        elif not line:
            raise InputError(f"{place}: is empty, but the header goes on behind it; take the line out")
        elif not line.startswith(b"#"):
            raise InputError(f"{place}: a record without a line '#CHROM POS ID ...' before it; put that line back")
        elif not line.startswith(b"##"):
            raise InputError(
                f"{place}: a header line begins with ## (only the last one, with #CHROM); mend or delete it"
            )
        lines.append(line + b"\n")
    if samples is None:
        raise InputError(
            f"{path}: has no line that begins with #CHROM, so it may be cut short; copy it again, or put the line back"
        )
    return b"".join(lines), samples


def _lines(path: Path) -> Iterator[bytes]:
    """Give lines without their ends, of a file whose first one says that it is VCF."""
    rest = b""
    is_first = True
    for block in read_blocks(path, "VCF"):
        if is_first and not block.startswith(_FIRST_LINE):
            raise InputError(
                f"{path}: is not VCF or BCF; give a VCF whose first line is ##fileformat=VCFv4.2 or another version"
            )
        is_first = False
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _read_samples(place: str, columns: list[bytes]) -> tuple[str, ...]:
    if len(columns) == 1:
        raise InputError(f"{place}: has its columns separated by spaces; VCF has tabs: put tabs in their place")
    if columns[:FIXED] != _COLUMNS:
        raise InputError(
            f"{place}: its columns must be {' '.join(map(as_text, _COLUMNS))}, separated by tabs; name them so"
        )
    if columns[FIXED:] and (columns[FIXED] != b"FORMAT" or len(columns) == FIXED + 1):
        raise InputError(f"{place}: behind INFO come FORMAT and one or more samples, or nothing; mend the line")
    samples = tuple(map(as_text, columns[FIXED + 1 :]))
    if "" in samples:
        raise InputError(f"{place}: a sample has no name, or a tab stands at the line's end; mend the line")
    if len(set(samples)) < len(samples):
        twice = next(name for number, name in enumerate(samples) if name in samples[:number])
        raise InputError(f"{place}: two samples have the name {twice}; rename one, for instance by 'bcftools reheader'")
    return samples


def _checked(path: Path, text: bytes) -> pysam.VariantHeader:
    """Have htslib read a header."""
    verbosity = pysam.set_verbosity(0)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.seek(0)
            with pysam.VariantFile(file) as opened:
                return opened.header.copy()
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError):
        raise InputError(
            f"{path}: its header cannot be read by htslib; see what 'bcftools view -h' says of it, and mend it"
        ) from None
    finally:
        pysam.set_verbosity(verbosity)


def refuse_declared(header: bytes, names: Sequence[str]) -> None:
    """Refuse a header that declares one of some INFO fields already.

    Raises
    ------
    InputError
        With the first that it declares.
    """
    known = set(_DECLARED_INFO.findall(header))
    for name in names:
        if name.encode() in known:
            raise InputError(
                f"the VCF's header has an INFO field {name} already, as if it had been scored before; choose "
                "other names with --prefix"
            )


def declare(header: bytes, declarations: Sequence[str], contigs: Mapping[str, int | None]) -> bytes:
    """Put lines into a header.

    Parameters
    ----------
    header : bytes
        All lines, each ended by a newline.
    declarations : sequence of str
        What is put before the line with #CHROM: ``##INFO=<...>``, without line ends. That they are new is for
        `refuse_declared` to see.
    contigs : mapping of str to int or None
        Lengths in bases, in order, of the contigs that the records name; ``None`` where it is not known. They are
        declared where the header declares no contigs; a name that cannot stand there is left out.

    Returns
    -------
    bytes
        The header; what it had before has not changed.
    """
    added = [line.encode() for line in declarations]
    if b"\n##contig=" not in header:
        named = [(name, length) for name, length in contigs.items() if not _NOT_IN_A_NAME.search(name)]
        lines = [f"ID={name}" if length is None else f"ID={name},length={length}" for name, length in named]
        added = [f"##contig=<{line}>".encode() for line in lines] + added
    begin = header.rindex(b"\n#CHROM") + 1
    return b"".join([header[:begin], *(line + b"\n" for line in added), header[begin:]])


class UndeclaredNames:
    """Finds names that records have, the header does not declare, and htslib cannot make a declaration of.

    Parameters
    ----------
    header : WholeHeader
        Of the file.
    """

    def __init__(self, header: WholeHeader) -> None:
        named = {"contig": header.contigs, "INFO": header.info, "FILTER": header.filters, "FORMAT": header.formats}
        self._declared = {kind: frozenset(name.encode() for name in names) for kind, names in named.items()}

    def find_unusable(self, kind: str, text: bytes) -> bytes | None:
        """Give the first such name, ``None`` where there is none.

        Parameters
        ----------
        kind : {"contig", "INFO", "FILTER", "FORMAT"}
            What column it is.
        text : bytes
            All that a record has there.
        """
        if not _SUSPICIOUS.search(text):
            return None
        names = text.split(_SEPARATORS[kind]) if kind in _SEPARATORS else [text]
        if kind == "INFO":
            names = [field.partition(b"=")[0] for field in names]
        declared = self._declared[kind]
        return next((name for name in names if name not in declared and not _is_usable(kind, name)), None)


def _is_usable(kind: str, name: bytes) -> bool:
    if not _SUSPICIOUS.search(name):
        return True
    verbosity = pysam.set_verbosity(0)
    try:
        header = pysam.VariantHeader()
        header.add_line(_DUMMIES[kind].format(as_text(name)))
    except (OSError, ValueError):
        return False
    finally:
        pysam.set_verbosity(verbosity)
    of_kind = {"contig": header.contigs, "INFO": header.info, "FILTER": header.filters, "FORMAT": header.formats}
    return as_text(name) in of_kind[kind]
