"""FASTA files into base codes and their soft mask: plain, gzip or bgzip, either case, any IUPAC code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pysam

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.files import check_input
from mutbert.genome.format import SOFT_MASK, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mutbert.arrays import UInt8

LINE_BASES: Final = 60  # of what is written

_LOWER: Final = np.uint8(16)
_PIECE_BASES: Final = 1 << 20
# Byte to base code, with one more bit for lower case, for one pass over the text.
_CODES: Final = (alphabet.CODE_OF_BYTE | _LOWER * np.array([chr(byte).islower() for byte in range(256)])).tobytes()


def read_fasta(path: Path) -> Iterator[tuple[str, UInt8, npt.NDArray[Any]]]:
    """Yield each contig's name, base codes (L,) and runs of lower case (`SOFT_MASK`); U is read as T."""
    for name, sequence in read_sequences(path):
        yield name, *_encode(f"{path}: contig {name}", sequence)


def read_sequences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each contig's name and letters, blanks left out as `samtools faidx` does."""
    check_input(path, "FASTA")
    seen: set[str] = set()
    verbosity = pysam.set_verbosity(0)
    try:
        _check_text(path)
        with pysam.FastxFile(str(path), persist=False) as records:
            for record in records:
                # After blanks, the name is in the comment.
                name, sequence = record.name or "".join((record.comment or "").split()[:1]), record.sequence or ""
                sequence = "".join(sequence.split()) if " " in sequence or "\t" in sequence else sequence
                for wrong, problem in (
                    (not name, f"header {len(seen) + 1} has no name; write the contig's name right after the '>'"),
                    (name in seen, f"contig {name} comes twice; rename or remove one"),
                    (record.quality is not None, f"contig {name} has a line that starts with '+'; use a FASTA file"),
                    (not sequence, f"contig {name} has no sequence; remove its header or add the bases"),
                ):
                    if wrong:
                        raise InputError(f"{path}: {problem}")
                seen.add(name)
                yield name, sequence
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as FASTA ({error}); copy or download it again") from None
    finally:
        pysam.set_verbosity(verbosity)
    if not seen:
        raise InputError(f"{path}: holds no sequence; use a FASTA file with at least one contig")


def _check_text(path: Path) -> None:
    """Raise for what htslib would skip or cut without a word: text before the first header, and NUL bytes."""
    with pysam.BGZFile(str(path)) as text:
        start = text.read(_PIECE_BASES).strip()[:10].decode("ascii", "replace")
    if start and start[0] != ">":
        raise InputError(f"{path}: is not FASTA, it starts with {start!r} and not with '>'; use a FASTA file")
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b" and any(b"\0" in piece for piece in iter(lambda: file.read(_PIECE_BASES), b"")):
            raise InputError(f"{path}: holds NUL bytes, so it is damaged; copy or download it again")


def _encode(where: str, sequence: str) -> tuple[UInt8, npt.NDArray[Any]]:
    """Return base codes and runs of lower case."""
    code_L = np.empty(len(sequence), dtype=np.uint8)
    # By pieces, as a chromosome and each copy of it take hundreds of megabytes.
    for start in range(0, len(sequence), _PIECE_BASES):
        piece = sequence[start : start + _PIECE_BASES].encode("ascii", "replace").translate(_CODES)
        code_L[start : start + _PIECE_BASES] = np.frombuffer(piece, dtype=np.uint8)
    if code_L.max() == alphabet.NOT_A_BASE:
        wrong = int(np.argmax(code_L == alphabet.NOT_A_BASE))
        raise InputError(f"{where}, position {wrong + 1}: {sequence[wrong]!r} is not an IUPAC code; use a FASTA of DNA")
    soft_mask = find_runs(code_L, SOFT_MASK, lambda code: code & _LOWER)
    code_L &= np.uint8(15)
    return code_L, soft_mask


def fasta_lines(letter_L: UInt8) -> bytes:
    """Return letters, as ASCII bytes, in lines of `LINE_BASES`, each with its end."""
    lines = np.full((-(-len(letter_L) // LINE_BASES), LINE_BASES + 1), ord("\n"), dtype=np.uint8)
    full, rest = divmod(len(letter_L), LINE_BASES)
    lines[:full, :-1] = letter_L[: len(letter_L) - rest].reshape(full, LINE_BASES)
    lines[full:, :rest] = letter_L[len(letter_L) - rest :]
    return lines.tobytes().rstrip(b"\n") + b"\n"
