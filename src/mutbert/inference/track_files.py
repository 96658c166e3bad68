"""Values of single bases as files for genome browsers: bigWig and bedGraph."""

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pysam

from mutbert.arrays import Float32
from mutbert.errors import InputError, require
from mutbert.files import free_space

_BIGWIG: Final = (".bw", ".bigwig")
TRACK_FORMATS: Final = (".bedgraph.gz", ".bedgraph", *_BIGWIG)


def check_bigwig(path: Path, contigs: Collection[str]) -> None:
    """Raise where a path is that of a bigWig, and none of these contigs can be written."""
    if path.suffix.lower() in _BIGWIG:
        require("pyBigWig")
        if len(contigs) >= 1 << 16:
            raise InputError(f"{path}: a bigWig counts contigs by two bytes, up to 65,535; write .bedgraph.gz")


def write_track(path: Path, scans: Sequence[pl.LazyFrame], track: str, lengths: Mapping[str, int]) -> None:
    """Write ``contig``, ``position`` and a value in the format of the suffix; bases without one are left out."""
    columns = "contig", "position", (pl.col("position") + 1).alias("end"), track
    scans = [scan.filter(pl.col(track).is_not_nan()).select(columns) for scan in scans]
    if path.suffix.lower() in _BIGWIG:
        _write_bigwig(path, scans, lengths)
        return
    with pysam.BGZFile(str(path), "wb") if path.suffix.lower() == ".gz" else path.open("wb") as file:
        file.write(f'track type=bedGraph name="{track}"\n'.encode())
        for scan in scans:
            # Each number is the shortest that is read as the same float32.
            file.write(scan.collect().write_csv(include_header=False, separator="\t").encode())


def _write_bigwig(path: Path, scans: Sequence[pl.LazyFrame], lengths: Mapping[str, int]) -> None:
    """Write contig, position, end and value as bigWig; raise OSError where the file does not hold them."""
    import pyBigWig

    def runs(most_bytes: int = 0) -> Iterator[tuple[str, int, Float32]]:
        for frame in (scan.collect() for scan in scans):
            # On a full disk the library reports success, or never returns.
            if free_space(path) < most_bytes * (len(frame) + len(lengths) + (1 << 14)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Of adjacent bases, positions less row numbers are equal.
            key = pl.col("position") - pl.int_range(pl.len())
            for (name, _), rows in frame.group_by("contig", key, maintain_order=True):
                yield str(name), rows["position"][0], rows[:, 3].to_numpy()

    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for name, start, value_P in runs(64):
            file.addEntries(name, start, values=value_P, span=1, step=1)
    with pyBigWig.open(str(path)) as file:
        read = file.values
        same = (np.array_equal(read(name, at, at + len(one), numpy=True), one) for name, at, one in runs())
        if file.chroms() != lengths or not all(same):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
