"""What is embedded: sequences of a file, or regions of a probabilistic genome, one in memory at a time.

Shape suffixes: L length in bases, V vocabulary (9).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.files import check_input
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.sequence_files import TABLES, NamedSequence, format_of, read_sequences
from mutbert.inference.surroundings import count_differing, open_surroundings, records_not_used
from mutbert.model.tokenization_mutbert import with_special_tokens
from mutbert.progress import progress_bar
from mutbert.regions import read_bed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mutbert.arrays import Float32, UInt8
    from mutbert.inference.surroundings import Surroundings
    from mutbert.regions import Region


Item = TypeVar("Item")

_RECORDS_A_STEP = 1000
# Inputs are sorted by length within so many batches, or fewer where their embeddings would be larger than this.
_BATCHES_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 256 << 20


class Record(NamedTuple):
    """A sequence to embed, and where it is from.

    Parameters
    ----------
    name : str
        What the file calls it; a BED region without a name is called by its place, ``chr22:101-200``.
    contig : str
        The contig; for a sequence of a file its own name.
    start, end : int
        0-based and half-open.
    """

    name: str
    contig: str
    start: int
    end: int

    @property
    def length(self) -> int:
        """Its bases."""
        return self.end - self.start


class Input(NamedTuple):
    """A sequence as the model is given it.

    Parameters
    ----------
    record : Record
        Whose it is.
    probs_LV : ndarray of float32, shape (its bases + 2, V)
        Distributions over the tokens, ``[CLS]`` and ``[SEP]`` around them.
    """

    record: Record
    probs_LV: Float32


class Source(Protocol):
    """What is embedded, always in the same order."""

    @property
    def differing(self) -> int | None:
        """Of a person's genome: positions of the regions at which she differs from the reference."""

    @property
    def not_used(self) -> Mapping[str, int]:
        """Of a person's genome: records of the file that change nothing, by reason."""

    def records(self) -> Iterator[Record]:
        """Read it all once, and refuse what cannot be used."""

    def inputs(self) -> Iterator[Input]:
        """Read it for a model that takes distributions."""

    def codes(self) -> Iterator[tuple[Record, UInt8]]:
        """Read it as base codes, for a model that takes tokens; of a genome the reference."""


class _FileSource:
    differing: Final = None
    not_used: Final[Mapping[str, int]] = {}

    def __init__(self, path: Path, file_format: str, sequence_column: str | None, name_column: str | None) -> None:
        self._path = path
        self._format = file_format
        self._sequence_column = sequence_column or "sequence"
        self._name_column = name_column
        check_input(path, file_format.upper())

    def _read(self) -> Iterator[NamedSequence]:
        return read_sequences(
            self._path, self._format, sequence_column=self._sequence_column, name_column=self._name_column
        )

    def records(self) -> Iterator[Record]:
        for name, base_L in self._read():
            yield Record(name, name, 0, len(base_L))

    def inputs(self) -> Iterator[Input]:
        for name, base_L in self._read():
            probs_LV = with_special_tokens(alphabet.TOKEN_PROBABILITIES[base_L])
            yield Input(Record(name, name, 0, len(base_L)), probs_LV)

    def codes(self) -> Iterator[tuple[Record, UInt8]]:
        for name, base_L in self._read():
            yield Record(name, name, 0, len(base_L)), base_L


class _GenomeSource:
    def __init__(self, surroundings: Surroundings, regions: Sequence[Region]) -> None:
        self._surroundings = surroundings
        self._regions = regions
        self._number = {name: number for number, name in enumerate(surroundings.lengths)}
        self.differing = count_differing(
            surroundings, ((self._number[region.contig], region.start, region.end) for region in regions)
        )
        self.not_used = records_not_used(surroundings)

    def records(self) -> Iterator[Record]:
        for region in self._regions:
            yield Record(region.name or str(region), region.contig, region.start, region.end)

    def inputs(self) -> Iterator[Input]:
        for record in self.records():
            found = self._surroundings.windows(
                np.array([self._number[record.contig]]), np.array([record.start]), record.length
            )
            probs_LV = np.zeros((record.length, alphabet.VOCABULARY_SIZE), dtype=np.float32)
            probs_LV[:, alphabet.BASE_IDS] = found.distributions()[0]
            probs_LV[found.base_BL[0] == alphabet.UNKNOWN] = alphabet.TOKEN_PROBABILITIES[alphabet.UNKNOWN]
            yield Input(record, with_special_tokens(probs_LV))

    def codes(self) -> Iterator[tuple[Record, UInt8]]:
        for record in self.records():
            contig_1 = np.array([self._number[record.contig]])
            yield record, self._surroundings.windows(contig_1, np.array([record.start]), record.length).base_BL[0]


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *,
    fasta: str | Path | None = None,
    genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None,
    surroundings: str = "population",
    person_vcf: str | Path | None = None,
    sample: str | None = None,
    sequence_column: str | None = None,
    name_column: str | None = None,
    progress: bool = False,
) -> Source:
    """Open what is to be embedded.

    Parameters
    ----------
    input, fasta, genome, bed, surroundings, person_vcf, sample, sequence_column, name_column, progress
        As for `mutbert.inference.embeddings.embed`.

    Raises
    ------
    InputError
        When not exactly one thing is given, or it is missing or of an unknown format.
    """
    given = [(path, kind) for path, kind in ((input, None), (fasta, "fasta"), (bed, "bed")) if path is not None]
    if len(given) != 1:
        raise InputError(
            "nothing or too much to embed; give one input file, or either a FASTA, or a genome and a BED of its regions"
        )
    path = Path(given[0][0])
    kind = given[0][1] or format_of(path)
    if kind == "bed" and genome is None:
        raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
    if kind != "bed" and genome is not None:
        raise InputError(
            f"{path}: has sequences of its own, and a genome is given; give either a FASTA, or a genome and a BED of "
            "its regions"
        )
    if kind not in TABLES and (sequence_column is not None or name_column is not None):
        raise InputError(
            f"{path}: has no columns to choose; leave out --sequence-column and --name-column, or give a table"
        )
    if genome is None:
        if surroundings != "population" or person_vcf is not None or sample is not None:
            raise InputError(
                f"{path}: has sequences of its own, which are embedded as they are; leave surroundings, sample and "
                "person_vcf out, or give a genome and a BED of its regions"
            )
        return _FileSource(path, kind, sequence_column, name_column)
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    regions = read_bed(path, genome.lengths)
    around = open_surroundings(
        genome,
        surroundings,
        vcf=None if person_vcf is None else Path(person_vcf),
        sample=sample,
        contigs={region.contig for region in regions},
        progress=progress,
    )
    return _GenomeSource(around, regions)


class Survey(NamedTuple):
    """What is in a source.

    Parameters
    ----------
    records, bases : int
        How many.
    longest : Record
        The first of the longest ones.
    """

    records: int
    bases: int
    longest: Record


def survey(records: Iterable[Record], *, progress: bool = False) -> Survey:
    """Go through all records once, so that what cannot be used is found before the model runs.

    Parameters
    ----------
    records : iterable of Record
        At least one. None is kept.
    progress : bool
        Show progress on standard error.
    """
    count = bases = 0
    longest: Record | None = None
    with progress_bar("checking", None, unit="sequences", show=progress) as advance:
        for record in records:
            count += 1
            bases += record.length
            if longest is None or record.length > longest.length:
                longest = record
            if count % _RECORDS_A_STEP == 0:
                advance(_RECORDS_A_STEP)
        advance(count % _RECORDS_A_STEP)
    assert longest is not None
    return Survey(count, bases, longest)


def grouped(items: Iterable[Item], size: Callable[[Item], int], batch_size: int) -> Iterator[list[Item]]:
    """Yield groups that can be sorted by length, and whose embeddings, of `size` bytes each, are not too large."""
    group: list[Item] = []
    total = 0
    for one in items:
        group.append(one)
        total += size(one)
        if len(group) == batch_size * _BATCHES_AT_ONCE or (len(group) >= batch_size and total >= _BYTES_AT_ONCE):
            yield group
            group, total = [], 0
    if group:
        yield group
