"""What is embedded: the sequences of a file, or the regions of a genome. Shape suffixes: L bases."""

from __future__ import annotations

import csv
import gzip
import zlib
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pysam

from mutbert import alphabet
from mutbert.encoders.inputs import PaddedWindows, read_windows
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import check_input, sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.surroundings import open_surroundings
from mutbert.regions import names_text, read_bed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mutbert.arrays import UInt8

_SUFFIXES: Final = {
    ".fa": "FASTA", ".fasta": "FASTA", ".fna": "FASTA", ".fas": "FASTA", ".fq": "FASTQ", ".fastq": "FASTQ",
    ".csv": "CSV", ".tsv": "TSV", ".txt": "TSV", ".parquet": "Parquet", ".bed": "BED",
}  # fmt: skip
_SEPARATORS: Final = {"CSV": ",", "TSV": "\t"}
_ROWS_AT_ONCE: Final = 1024


class Record(NamedTuple):
    """A sequence to embed, with 0-based half-open bounds."""

    name: str
    contig: str
    start: int
    end: int
    code_L: UInt8 | None = None  # of a file's

    @property
    def length(self) -> int:
        """Its bases."""
        return self.end - self.start


class Source(NamedTuple):
    """Records that can be read repeatedly, their windows, and what both depend on."""

    read: Callable[[], Iterator[Record]]
    windows: Callable[[Sequence[Record]], PaddedWindows]
    plan: Mapping[str, Any]
    differing: int | None = None  # positions of a person, and records that change nothing
    not_used: Mapping[str, int] = {}


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *, fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, sequence_column: str | None = None, name_column: str | None = None,
    surroundings: str = "population", **person: Any,
) -> Source:  # fmt: skip
    """Return what is to be embedded; arguments as for `mutbert.inference.embeddings.embed`."""
    given = [(path, kind) for path, kind in ((input, None), (fasta, "FASTA"), (bed, "BED")) if path is not None]
    if len(given) != 1:
        raise InputError("nothing or too much to embed; give one input file, a FASTA, or a genome and a BED of it")
    path = Path(given[0][0])
    kind = given[0][1] or format_of(path)
    if kind not in (*_SEPARATORS, "Parquet") and (sequence_column or name_column):
        raise InputError(f"{path}: has no columns to choose; leave out --sequence-column and --name-column")
    if kind == "BED":
        if genome is None:
            raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
        return _regions(genome, path, surroundings, **person)
    if genome is not None or surroundings != "population" or person.get("person_vcf") or person.get("sample"):
        raise InputError(f"{path}: has sequences of its own, which are embedded as they are; leave genome, "
                         "surroundings, sample and person_vcf out, or give a BED in its place")  # fmt: skip
    check_input(path, kind)
    columns = sequence_column or "sequence", name_column
    return Source(
        lambda: read_sequences(path, kind, *columns),
        lambda records: PaddedWindows.of([record.code_L for record in records if record.code_L is not None]),
        {"input": sha256_of(path), "columns": columns},
    )


def _regions(
    genome: str | Path | ProbabilisticGenome, bed: Path, surroundings: str, person_vcf: str | Path | None = None,
    sample: str | None = None, *, progress: bool = False,
) -> Source:  # fmt: skip
    opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    regions, number = read_bed(bed, opened.lengths), {name: index for index, name in enumerate(opened.lengths)}
    contigs = {region.contig for region in regions}
    around = open_surroundings(opened, surroundings, vcf=person_vcf, sample=sample, contigs=contigs, progress=progress)
    person = {"sample": sample, "person_vcf": person_vcf and sha256_of(Path(person_vcf))}

    def windows(records: Sequence[Record]) -> PaddedWindows:
        places = [(number[record.contig], record.start, record.length) for record in records]
        return read_windows(around.genome, *np.array(places, dtype=np.int64).reshape(-1, 3).T)

    return Source(
        lambda: (Record(region.name or str(region), region.contig, region.start, region.end) for region in regions),
        windows,
        {"bed": sha256_of(bed), "genome": opened.identity, **person},
        around.count_differing((number[region.contig], region.start, region.end) for region in regions),
        around.not_used,
    )


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names."""
    name = path.name.lower()
    found = _SUFFIXES.get(PurePath(name.removesuffix(".gz")).suffix)
    if found is None or (found == "Parquet" and name.endswith(".gz")):
        raise InputError(f"{path}: its name does not tell the format; it should end in {', '.join(_SUFFIXES)} (text "
                         "also with .gz)")  # fmt: skip
    return found


def read_sequences(
    path: Path, kind: str, sequence_column: str = "sequence", name_column: str | None = None
) -> Iterator[Record]:
    """Yield a file's sequences, a few in memory at a time: IUPAC codes in either case, U as T.

    A table's names are in the column ``name`` where no other is chosen; a row without one has its number, from 0.
    """
    number, read = 0, {"Parquet": _read_parquet, **dict.fromkeys(_SEPARATORS, _read_separated)}.get(kind, _read_fastx)
    try:
        with ExitStack() as stack:
            for name, text in read(path, stack, sequence_column, name_column):
                if not name and kind.startswith("FAST"):
                    raise ValueError("the header has no name; write it right after the first character")
                if not text:
                    raise ValueError("the sequence is empty; remove the record, or add the bases")
                code_L = alphabet.encode(text)
                yield Record(name or str(number), name or str(number), 0, len(code_L), code_L)
                number += 1
    except InputError:
        raise
    # The libraries' own words; pyarrow's and csv's errors are among these.
    except (OSError, EOFError, ValueError, NotImplementedError, csv.Error, zlib.error) as error:
        raise InputError(f"{path}, record {number + 1}: {one_line(error, 300)}") from None
    if not number:
        raise InputError(f"{path}: holds no {kind} records; give a file with sequences in it")


def _read_fastx(path: Path, stack: ExitStack, *_: str | None) -> Iterator[tuple[str | None, str | None]]:
    stack.callback(pysam.set_verbosity, pysam.set_verbosity(0))
    for record in stack.enter_context(pysam.FastxFile(str(path))):
        yield record.name, record.sequence


def _read_separated(path: Path, stack: ExitStack, *wanted: str | None) -> Iterator[tuple[str | None, str | None]]:
    with path.open("rb") as raw:
        opened: Any = gzip.open if raw.read(2) == b"\x1f\x8b" else open
    file = stack.enter_context(opened(path, "rt", encoding="utf-8-sig", newline=""))
    reader = csv.DictReader(file, delimiter=_SEPARATORS[format_of(path)], strict=True)
    sequence, name = _columns(path, list(reader.fieldnames or ()), *wanted)
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has not as many columns as the header")
        yield row[name] if name else "", row[sequence]


def _read_parquet(path: Path, stack: ExitStack, *wanted: str | None) -> Iterator[tuple[str | None, str | None]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "embed") from None
    file = stack.enter_context(parquet.ParquetFile(path, page_checksum_verification=True))
    sequence, name = _columns(path, file.schema_arrow.names, *wanted)
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[sequence, *([name] if name else ())]):
        columns = [batch.column(column or sequence).cast(pa.large_string()).to_pylist() for column in (name, sequence)]
        yield from zip(columns[0] if name else [None] * len(batch), columns[1], strict=True)


def _columns(path: Path, header: Sequence[str], sequence: str | None, name: str | None) -> tuple[str, str | None]:
    """Return the columns of sequences and, if there is one, of names."""
    name = name or ("name" if "name" in header else None)
    for option, column in (("sequence", sequence), ("name", name)):
        if column is not None and header.count(column) != 1:
            raise InputError(f"{path}: {header.count(column) or 'no'} columns {column!r}; there are "
                             f"{names_text(header, 20)}: choose one with --{option}-column")  # fmt: skip
    return str(sequence), name
