"""What is embedded: the sequences of a file, or the regions of a genome. Shape suffix: L bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pysam

from mutbert import alphabet
from mutbert.encoders.inputs import PaddedWindows, read_windows
from mutbert.errors import InputError, one_line
from mutbert.examples.table import encode_sequences
from mutbert.files import check_input, sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import open_surroundings
from mutbert.regions import Region, read_bed
from mutbert.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mutbert.arrays import UInt8

    Record = tuple[Region, UInt8 | None]

_KINDS: Final = {
    ".fa": "FASTA", ".fasta": "FASTA", ".fna": "FASTA", ".fas": "FASTA", ".fq": "FASTQ", ".fastq": "FASTQ",
    ".csv": "table", ".tsv": "table", ".txt": "table", ".parquet": "table", ".bed": "BED",
}  # fmt: skip


class Source(NamedTuple):
    """What can be read repeatedly, named regions of a genome or of themselves with their codes, and its windows."""

    read: Callable[[], Iterator[Record]]
    windows: Callable[[Sequence[Record]], PaddedWindows]
    plan: Mapping[str, Any]  # what both depend on
    differing: int | None = None  # positions of a person, and records that change nothing
    not_used: Mapping[str, int] = {}


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *, fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, sequence_column: str | None = None, name_column: str | None = None,
    surroundings: str = "population", person_vcf: str | Path | None = None, sample: str | None = None,
    progress: bool = False,
) -> Source:  # fmt: skip
    """Return what is to be embedded; arguments as for `mutbert.inference.embeddings.embed`."""
    given = [(path, kind) for path, kind in ((input, None), (fasta, "FASTA"), (bed, "BED")) if path is not None]
    if len(given) != 1:
        raise InputError("nothing or too much to embed; give one input file, a FASTA, or a genome and a BED of it")
    path = Path(given[0][0])
    kind = given[0][1] or _KINDS.get(PurePath(path.name.lower().removesuffix(".gz")).suffix)
    if kind is None:
        raise InputError(f"{path}: its suffix names no format; it should be one of {', '.join(_KINDS)}, text also .gz")
    if kind != "table" and (sequence_column or name_column):
        raise InputError(f"{path}: has no columns to choose; leave out --sequence-column and --name-column")
    if kind == "BED":
        if genome is None:
            raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
        return _regions(genome, path, surroundings, person_vcf, sample, progress=progress)
    if genome is not None or surroundings != "population" or person_vcf or sample:
        raise InputError(f"{path}: has sequences of its own, which are embedded as they are; leave genome, "
                         "surroundings, sample and person_vcf out, or give a BED in its place")  # fmt: skip
    check_input(path, kind)
    columns = sequence_column or "sequence", name_column
    return Source(
        _read_table(path, *columns) if kind == "table" else lambda: _read_records(path, kind),
        lambda records: PaddedWindows.of([code_L for _, code_L in records if code_L is not None]),
        {"input": sha256_of(path), "columns": columns},
    )


def _regions(
    genome: str | Path | ProbabilisticGenome, bed: Path, surroundings: str, person_vcf: str | Path | None,
    sample: str | None, *, progress: bool,
) -> Source:  # fmt: skip
    opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    regions = [replace(one, name=one.name or str(one)) for one in read_bed(bed, opened.lengths)]
    contigs, number = {one.contig for one in regions}, {name: index for index, name in enumerate(opened.lengths)}
    around = open_surroundings(opened, surroundings, person_vcf, sample, contigs=contigs, progress=progress)
    plan: dict[str, Any] = {"bed": sha256_of(bed), "genome": opened.identity, "sample": sample}
    plan["person_vcf"] = person_vcf and sha256_of(Path(person_vcf))

    def windows(records: Sequence[Record]) -> PaddedWindows:
        places = [(number[region.contig], region.start, len(region)) for region, _ in records]
        return read_windows(around.genome, *np.array(places, dtype=np.int64).reshape(-1, 3).T)

    differing = around.count_differing(regions)
    return Source(lambda: ((region, None) for region in regions), windows, plan, differing, around.not_used)


def _read_records(path: Path, kind: str) -> Iterator[Record]:
    """Yield the sequences of a FASTA or FASTQ, one in memory at a time: IUPAC codes in either case, U as T."""
    number, verbosity = 0, pysam.set_verbosity(0)
    try:
        with pysam.FastxFile(str(path)) as file:
            for record in file:
                if not record.name:
                    raise ValueError("the header has no name; write it right after the first character")
                if not record.sequence:
                    raise ValueError("the sequence is empty; remove the record, or add the bases")
                code_L = alphabet.encode(record.sequence)
                yield Region(record.name, 0, len(code_L), record.name), code_L
                number += 1
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, record {number + 1}: {one_line(error, 300)}") from None
    finally:
        pysam.set_verbosity(verbosity)
    if not number:
        raise InputError(f"{path}: holds no {kind} records; give a file with sequences in it")


def _read_table(path: Path, sequence: str, name: str | None) -> Callable[[], Iterator[Record]]:
    """Return what yields a table's sequences; a row without a name has its number, from 0."""
    chosen = [sequence] if name is None else [sequence, name]
    frame, source = read_table(path, lambda header: [*chosen, *["name"] * (name is None and "name" in header)])
    code_T, offsets = encode_sequences(frame, source.place, sequence)
    names = frame[name or "name"] if len(frame.columns) > 2 else [None] * len(frame)

    def read() -> Iterator[Record]:
        for row, (one, code_L) in enumerate(zip(names, np.split(code_T, offsets[1:-1]), strict=True)):
            yield Region(one or str(row), 0, len(code_L), one or str(row)), code_L

    return read
