"""FASTA files into base codes and their soft mask: plain, gzip or bgzip, either case, any IUPAC code."""

from __future__ import annotations

import gzip
import mmap
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pysam

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.files import Compression, check_input
from mutbert.genome.format import SOFT_MASK, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mutbert.arrays import UInt8

_LOWER: Final = np.uint8(16)
_HEAD_BYTES: Final = 1 << 16


def _code_of_byte() -> bytes:
    """Return byte to base code, with one more bit for lower case, so that one pass over the text tells both."""
    table = alphabet.CODE_OF_BYTE.copy()
    table[ord("a") : ord("z") + 1] |= _LOWER
    return table.tobytes()


_CODES: Final = _code_of_byte()


def read_fasta(path: Path) -> Iterator[tuple[str, UInt8, npt.NDArray[Any]]]:
    """Yield each contig's name, base codes (L,) and runs of lower case (`SOFT_MASK`), one contig in memory at a time.

    The name is the first word of the header; U is read as T. `InputError` names the file, contig and position of
    what is not FASTA, not IUPAC, empty, or there twice.
    """
    _check_start(path)
    name = None
    seen: set[str] = set()
    verbosity = pysam.set_verbosity(0)
    try:
        with pysam.FastxFile(str(path), persist=False) as records:
            for record in records:
                if not record.name:
                    after = "the first header" if name is None else f"the header after contig {name}"
                    raise InputError(f"{path}: {after} has no name; write the contig's name right after the '>'")
                name = record.name
                if name in seen:
                    raise InputError(f"{path}: contig {name} comes twice; rename or remove one")
                seen.add(name)
                if record.quality is not None:
                    raise InputError(f"{path}: contig {name} has a line that starts with '+'; use a FASTA file")
                yield name, *_encode(path, name, record.sequence or "")
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        what = error if isinstance(error, UnicodeDecodeError) else "the data end early or are damaged"
        raise InputError(f"{path}: cannot be read as FASTA ({what}); copy or download it again") from None
    finally:
        pysam.set_verbosity(verbosity)
    if name is None:
        raise InputError(f"{path}: holds no sequence; use a FASTA file with at least one contig")


def _encode(path: Path, name: str, sequence: str) -> tuple[UInt8, npt.NDArray[Any]]:
    """Return base codes and runs of lower case."""
    if not sequence:
        raise InputError(f"{path}: contig {name} has no sequence; remove its header or add the bases")
    code_L: UInt8 = np.frombuffer(bytearray(sequence, "utf-8").translate(_CODES), dtype=np.uint8)
    if code_L.max() == alphabet.NOT_A_BASE:
        wrong = int(np.argmax(code_L == alphabet.NOT_A_BASE))
        raise InputError(
            f"{path}: contig {name}, position {wrong + 1}: {sequence[wrong]!r} is not an IUPAC nucleotide code; "
            "use a FASTA of DNA"
        )
    start, length, _ = find_runs(code_L & _LOWER)
    code_L &= np.uint8(15)
    soft_mask = np.empty(len(start), SOFT_MASK)
    soft_mask["start"], soft_mask["length"] = start, length
    return code_L, soft_mask


def _check_start(path: Path) -> None:
    """Raise for what htslib would skip without a word: text before the first header, and NUL bytes."""
    compression = check_input(path, "FASTA")
    try:
        with path.open("rb") if compression is Compression.PLAIN else gzip.open(path) as file:
            head = file.read(_HEAD_BYTES).lstrip()
            if head and not head.startswith(b">"):
                start = head[:10].decode("ascii", "replace")
                raise InputError(f"{path}: is not FASTA, it starts with {start!r} and not with '>'; use a FASTA file")
            if compression is Compression.PLAIN:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    damage = content.find(b"\0")
                if damage >= 0:
                    raise InputError(f"{path}: byte {damage + 1} is NUL, so it is damaged; copy or download it again")
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: cannot be decompressed ({error}); copy or download it again") from None
