"""FASTA files into base codes and their soft mask, streamed: plain, gzip or bgzip, either case, any IUPAC code."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.files import read_blocks
from mutbert.genome.format import SOFT_MASK
from mutbert.genome.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mutbert.arrays import UInt8


_CODE_BITS: Final = np.uint8(15)
_LOWER: Final = np.uint8(16)
# What is computed of a piece stays in the processor's cache.
_PIECE_BASES: Final = 1 << 18


def _table() -> bytes:
    """Byte to base code, with another bit for lower case, so that one pass over the text tells both."""
    table = alphabet.CODE_OF_BYTE.copy()
    lower = np.arange(ord("a"), ord("z") + 1)
    table[lower] |= _LOWER
    return table.tobytes()


_CODES: Final = _table()
_LINE_ENDS: Final = b"\r\n"


class FastaPiece(NamedTuple):
    """Consecutive bases of a contig.

    Parameters
    ----------
    contig : str
        The first word of the header line, behind the file's prefix if it has one.
    start : int
        0-based position of the piece in its contig.
    base_L : ndarray of uint8, shape (L,)
        Base codes, indices into `mutbert.alphabet.IUPAC`.
    soft_mask : ndarray of `mutbert.genome.format.SOFT_MASK`, shape (runs,)
        The longest runs of lower case in the piece, ascending; their starts are positions in the contig.
    """

    contig: str
    start: int
    base_L: UInt8
    soft_mask: npt.NDArray[Any]


class FastaContig(NamedTuple):
    """A whole contig.

    Parameters
    ----------
    name : str
        The first word of the header line.
    base_L : ndarray of uint8, shape (L,)
        Base codes, indices into `mutbert.alphabet.IUPAC`.
    """

    name: str
    base_L: UInt8


def read_fasta(
    paths: Path | Sequence[Path | Source], advance: Callable[[float], None] | None = None
) -> Iterator[FastaContig]:
    """Read the contigs of FASTA files, one whole contig in memory at a time.

    See `read_pieces` for what is accepted and what is refused.
    """
    for name, pieces in groupby(read_pieces(paths, advance), key=lambda piece: piece.contig):
        yield FastaContig(name, np.concatenate([piece.base_L for piece in pieces]))


def read_pieces(
    paths: Path | Sequence[Path | Source], advance: Callable[[float], None] | None = None
) -> Iterator[FastaPiece]:
    """Read FASTA files in pieces of some hundred kilobases, in constant memory.

    Parameters
    ----------
    paths : Path or sequence of Path or Source
        The files, the latter with a prefix for the names of their contigs: plain, gzip or bgzip, told by their
        content; any IUPAC code in either case; U is read as T; lines of any length, with either kind of line end.
    advance : callable, optional
        Told of the bytes read from the disk (compressed ones) since its last call.

    Yields
    ------
    FastaPiece
        In the order of the files. The pieces of a contig follow each other and are never empty.

    Raises
    ------
    InputError
        When a file is missing, empty, cut short, damaged or not FASTA; when a character is no IUPAC code; when
        a contig has no name or no sequence, or a name comes twice, in whichever files.
    """
    seen: dict[str, Path] = {}
    for path in (paths,) if isinstance(paths, Path) else paths:
        source = path if isinstance(path, Source) else Source(path)
        yield from _Parser(source, seen).pieces(advance)


class _Parser:
    """What is known at a place in a file: the contig, and how many of its bases were read."""

    def __init__(self, source: Source, seen: dict[str, Path]) -> None:
        self._path = source.path
        self._full_name = source.name
        self._seen = seen
        self._contig: str | None = None
        self._length = 0

    def pieces(self, advance: Callable[[float], None] | None) -> Iterator[FastaPiece]:
        # A header is a '>' behind a line end; the first one has a line end put before it.
        rest = b"\n"
        for block in read_blocks(self._path, "FASTA", advance):
            text = rest + block
            place = 0
            while (header := text.find(b"\n>", place)) >= 0:
                yield from self._sequence(text[place:header])
                place = header
                end = text.find(b"\n", header + 2)
                if end < 0:
                    break
                self._begin(text[header + 2 : end])
                place = end
            else:
                # A line end at the end may be the one before a header.
                keep = len(text) - text.endswith(b"\n")
                yield from self._sequence(text[place:keep])
                place = keep
            rest = text[place:]
        if rest.startswith(b"\n>"):
            self._begin(rest[2:])
        elif self._contig is None:
            self._refuse_start(rest)
        self._end()

    def _sequence(self, text: bytes) -> Iterator[FastaPiece]:
        letters = np.frombuffer(text.translate(_CODES, _LINE_ENDS), dtype=np.uint8)
        if not len(letters):
            return
        if self._contig is None:
            self._refuse_start(text)
        if letters.max() == alphabet.NOT_A_BASE:
            place = int(np.argmax(letters == alphabet.NOT_A_BASE))
            character = chr(text.translate(None, _LINE_ENDS)[place])
            raise InputError(
                f"{self._path}: contig {self._contig}, position {self._length + place + 1}: {character!r} is not an "
                "IUPAC nucleotide code; give a FASTA of DNA"
            )
        assert self._contig is not None
        for start in range(0, len(letters), _PIECE_BASES):
            piece = letters[start : start + _PIECE_BASES]
            soft_mask = true_runs(piece > _CODE_BITS, self._length)
            yield FastaPiece(self._contig, self._length, piece & _CODE_BITS, soft_mask)
            self._length += len(piece)

    def _begin(self, header: bytes) -> None:
        self._end()
        words = header.decode("utf-8", "replace").split()
        if not words or header[:1].isspace():
            after = f"the header after contig {self._contig}" if self._contig else "the first header"
            raise InputError(f"{self._path}: {after} has no name; write the contig's name right behind the '>'")
        name = self._full_name(words[0])
        if name in self._seen:
            also = "" if self._seen[name] == self._path else f" (also in {self._seen[name]})"
            raise InputError(
                f"{self._path}: contig {name} comes twice{also}; rename or remove one, or give each "
                "FASTA a prefix (PREFIX=FILE)"
            )
        self._seen[name] = self._path
        self._contig, self._length = name, 0

    def _end(self) -> None:
        if self._contig is not None and not self._length:
            raise InputError(f"{self._path}: contig {self._contig} has no sequence; remove its header or add the bases")

    def _refuse_start(self, text: bytes) -> None:
        start = text.strip()[:10].decode("ascii", "replace")
        if not start:
            raise InputError(f"{self._path}: holds no sequence; give a FASTA file with something in it")
        raise InputError(f"{self._path}: is not FASTA, it starts with {start!r} and not with '>'; give a FASTA file")


def true_runs(flag_L: npt.NDArray[np.bool_], start: int = 0) -> npt.NDArray[Any]:
    """Find the longest runs of true flags.

    Parameters
    ----------
    flag_L : ndarray of bool, shape (L,)
        One for each base.
    start : int
        Position of the first of them in its contig.

    Returns
    -------
    ndarray of `SOFT_MASK`, shape (runs,)
        Ascending; no two touch.
    """
    change = np.flatnonzero(flag_L[1:] != flag_L[:-1]) + 1
    edges = np.concatenate([np.flatnonzero(flag_L[:1]), change, np.flatnonzero(flag_L[-1:]) + len(flag_L)])
    runs = np.empty(len(edges) // 2, dtype=SOFT_MASK)
    runs["start"] = edges[0::2] + start
    runs["length"] = edges[1::2] - edges[0::2]
    return runs
