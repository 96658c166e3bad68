"""Files of a value a base, for genome browsers: bigWig, and bedGraph, plain or bgzip.

Shape suffixes: P positions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, Self

import numpy as np

from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mutbert.arrays import Float32, Int64


_BIGWIG: Final = (".bw", ".bigwig")
SUFFIXES: Final = (*_BIGWIG, ".bedgraph", ".bedgraph.gz")
# The list of contigs is one node of a tree, whose members are counted by two bytes.
_MOST_CONTIGS: Final = 65_535
# Positions are four bytes.
_LONGEST_CONTIG: Final = (1 << 32) - 1
# Runs that are shorter on average take less room with a start for each base than with a section for each run.
_SHORT_RUN: Final = 32


class TrackWriter(Protocol):
    """Takes the values of a track in the order of contigs and positions; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def add(self, contig: str, position_P: Int64, value_P: Float32) -> None:
        """Take values of a contig, at ascending 0-based positions behind all that came before."""


def track_suffix(output: Path) -> str:
    """Give the part of a name that chooses the format, as it is written there.

    Raises
    ------
    InputError
        When it names no format.
    """
    name = output.name
    # The longest first: .bedgraph.gz is no .gz.
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[-len(suffix) :]
    raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(SUFFIXES)}")


def check_tracks(output: Path, lengths: Mapping[str, int]) -> None:
    """Refuse what could not be written, before the model is run for it.

    Parameters
    ----------
    output : Path
        The file that is to be written.
    lengths : mapping of str to int
        The genome's contigs, with their lengths in bases.

    Raises
    ------
    InputError
        When the suffix names no format, or the format does not take such a genome.
    MissingExtraError
        When pyBigWig is needed and not installed.
    """
    if track_suffix(output).lower() not in _BIGWIG:
        return
    try:
        import pyBigWig  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyBigWig", "tracks") from None
    if len(lengths) > _MOST_CONTIGS:
        raise InputError(
            f"{output}: the genome has {len(lengths):,} contigs, and a bigWig takes {_MOST_CONTIGS:,}; write "
            ".bedgraph.gz"
        )
    longest = max(lengths, key=lambda name: lengths[name])
    if lengths[longest] > _LONGEST_CONTIG:
        raise InputError(
            f"{output}: {longest} has {lengths[longest]:,} bases, and a bigWig takes {_LONGEST_CONTIG:,}; write "
            ".bedgraph.gz"
        )


def open_track(path: Path, suffix: str, name: str, lengths: Mapping[str, int]) -> TrackWriter:
    """Open a file for a track.

    Parameters
    ----------
    path : Path
        The file.
    suffix : str
        One of `SUFFIXES`, in either case, which `path` need not end in.
    name : str
        What a browser calls the track; without double quotes. A bigWig has no place for it.
    lengths : mapping of str to int
        All contigs of the genome in its order, with their lengths in bases.

    Returns
    -------
    TrackWriter
        To be used as a context manager; the file is whole when the block has ended.
    """
    if suffix.lower() in _BIGWIG:
        return _BigWig(path, lengths)
    return _BedGraph(path, name, compressed=suffix.lower().endswith(".gz"))


class _BigWig:
    def __init__(self, path: Path, lengths: Mapping[str, int]) -> None:
        import pyBigWig

        self._file: Any = pyBigWig.open(str(path), "w")
        self._file.addHeader(list(lengths.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Here the index and the zoom levels are written.
        self._file.close()

    def add(self, contig: str, position_P: Int64, value_P: Float32) -> None:
        edges = [0, *(np.flatnonzero(np.diff(position_P) != 1) + 1).tolist(), len(position_P)]
        if len(position_P) < _SHORT_RUN * (len(edges) - 1):
            self._file.addEntries(contig, position_P, values=value_P, span=1)
            return
        for first, end in pairwise(edges):
            self._file.addEntries(contig, int(position_P[first]), values=value_P[first:end], span=1, step=1)


class _BedGraph:
    """A line a base; each number is the shortest that is read as the same float32."""

    def __init__(self, path: Path, name: str, *, compressed: bool) -> None:
        import pysam

        # In blocks, so that the file can be indexed, too.
        self._file: BinaryIO = pysam.BGZFile(str(path), "wb") if compressed else path.open("wb")
        self._file.write(f'track type=bedGraph name="{name}"\n'.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()

    def add(self, contig: str, position_P: Int64, value_P: Float32) -> None:
        columns = (position_P.astype("S"), (position_P + 1).astype("S"), value_P.astype("S"))
        line_P: Any = contig.encode()
        for column in columns:
            line_P = np.char.add(np.char.add(line_P, b"\t"), column)
        self._file.write(b"\n".join(line_P.tolist()) + b"\n")
