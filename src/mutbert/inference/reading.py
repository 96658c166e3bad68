"""What a model reads: sequences or regions of a genome, as far as it reads them, and as in its training.

Shape suffixes: N sequences, P pieces of them, T bases of all pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from mutbert import alphabet
from mutbert.arrays import Int64, list_ranges
from mutbert.encoders.inputs import PaddedWindows, read_windows
from mutbert.errors import InputError, one_line
from mutbert.examples.table import Columns, Examples, read_examples
from mutbert.files import sha256_of
from mutbert.genome.sources import read_sequences
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import open_surroundings
from mutbert.regions import read_bed
from mutbert.settings import Settings
from mutbert.tables import is_fasta

_COUNTED: Final = {"truncate": "truncated", "window": "read in windows", "skip": "skipped"}


class Source(NamedTuple):
    """Sequences, or regions of a genome as their strand reads, with base codes."""

    examples: Examples
    plan: Mapping[str, Any]  # what they depend on
    windows: Callable[[Examples], PaddedWindows] | None = None  # with the distributions of a genome
    differing: int | None = None  # positions of a person, and records that change nothing
    not_used: Mapping[str, int] = {}


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *, fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, sequence_column: str | None = None, name_column: str | None = None,
    surroundings: str = "population", person_vcf: str | Path | None = None, sample: str | None = None,
    progress: bool = False,
) -> Source:  # fmt: skip
    """Return what is to be embedded; arguments as for `embed`."""
    given: list[Any] = [path for path in (input, fasta, bed) if path is not None]
    if len(given) != 1:
        raise InputError("nothing or too much to embed; give one input file, a FASTA, or a genome and a BED of it")
    path = Path(given[0])
    if bed is None and not path.name.lower().removesuffix(".gz").endswith(".bed"):
        if genome is not None or surroundings != "population" or person_vcf or sample:
            raise InputError(f"{path}: has sequences of its own, which are embedded as they are; leave genome, "
                             "surroundings, sample and person_vcf out, or give a BED in its place")  # fmt: skip
        table, columns = given[0], Columns(sequence=sequence_column or "sequence", label=(), name=name_column)
        if fasta is not None and not is_fasta(str(path)):
            table = pl.DataFrame(list(read_sequences(path)), schema=["name", "sequence"], orient="row")
        examples, source = read_examples(table, columns)
        return Source(examples, {"input": source.sha256 or sha256_of(path), "columns": columns.model_dump()})
    if genome is None:
        raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
    if sequence_column or name_column:
        raise InputError(f"{path}: has no columns to choose; leave out --sequence-column and --name-column")
    opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    regions = tuple(
        replace(one, name=one.name or (f"{one}(-)" if one.strand == "-" else str(one)))
        for one in read_bed(path, opened.lengths)
    )
    contigs, number = {one.contig for one in regions}, {name: index for index, name in enumerate(opened.lengths)}
    around = open_surroundings(opened, surroundings, person_vcf, sample, contigs=contigs, progress=progress)

    def windows(examples: Examples) -> PaddedWindows:
        places = [(number[one.contig], one.start, len(one), one.strand == "-") for one in examples.regions if one]
        *where, turned_N = np.array(places, dtype=np.int64).reshape(-1, 4).T
        return read_windows(around.genome, *where).reverse_complement(turned_N > 0)

    codes = [opened.bases(one.contig, one.start, one.end) for one in regions]
    for row, one in enumerate(regions):
        codes[row] = alphabet.reverse_complement(codes[row]) if one.strand == "-" else codes[row]
    offsets, names = np.cumsum([0, *map(len, codes)]), tuple(one.name for one in regions)
    examples = Examples(np.concatenate(codes), offsets, None, names, regions, "", ())
    plan: dict[str, Any] = {"bed": sha256_of(path), "genome": opened.identity, "sample": sample}
    plan["person_vcf"] = person_vcf and sha256_of(Path(person_vcf))
    return Source(examples, plan, windows, around.count_differing(regions), around.not_used)


class Pieces(NamedTuple):
    """Sequences as far as a model reads them, whole or in windows."""

    whole: Examples
    pieces: Examples
    row_P: Int64  # the sequence of each piece
    counts: Mapping[str, int]  # of sequences that are longer, by what became of them

    @property
    def only_unknown(self) -> int:
        """The number of sequences that are nothing but N."""
        unknown_T = self.whole.base_codes == alphabet.UNKNOWN
        return int(np.logical_and.reduceat(unknown_T, self.whole.offsets[:-1]).sum())

    @property
    def work(self) -> str:
        """What a model has to do, in words."""
        windows = f", {len(self.row_P):,} windows" if len(self.row_P) > len(self.whole) else ""
        return f"{len(self.whole):,} sequences{windows}, {len(self.pieces.base_codes):,} bases"

    def parts(self, size: int) -> Iterator[Pieces]:
        """Yield those of so many sequences at a time."""
        for rows in np.split(np.arange(len(self.whole)), range(size, len(self.whole), size)):
            chosen = np.arange(*np.searchsorted(self.row_P, [rows[0], rows[-1] + 1]))
            parts = self.whole.select(rows), self.pieces.select(chosen)
            yield Pieces(*parts, self.row_P[chosen] - rows[0], self.counts)

    def pool(self, outputs: Any, *, maximum: bool = False) -> Any:
        """Return outputs (P, ...) as means over each sequence's bases, or maxima; those of bases, a list, joined."""
        first = np.flatnonzero(np.diff(self.row_P, prepend=-1))
        if len(first) == len(self.row_P):
            return outputs
        if isinstance(outputs, list):
            return [np.concatenate(outputs[start:end]) for start, end in pairwise([*first, len(outputs)])]
        if maximum:
            return np.maximum.reduceat(outputs, first)
        weight_P = self.pieces.lengths.reshape(-1, *[1] * (outputs.ndim - 1))
        return np.add.reduceat(outputs * weight_P, first) / np.add.reduceat(weight_P, first)


def fit_sequences(
    examples: Examples, tokens_of: Callable[[Examples], Int64], most: int | None, long: str, *, place: str,
    cut: bool = False,
) -> Pieces:  # fmt: skip
    """Return what a model of `most` tokens reads; `cut` where a token is a base, which else the tokenizer cuts."""
    # A sequence without a name has its number.
    whole = replace(examples, names=tuple(name or str(row) for row, name in enumerate(examples.names)))
    bases_N, tokens_N, every = whole.lengths, whole.lengths + 2, np.arange(len(whole))
    # No token is less than a base, but for special ones at either end.
    if most is None or not len(rows := np.flatnonzero(tokens_N > most)):
        return Pieces(whole, whole, every, {})
    tokens_N[rows] = tokens_of(whole.select(rows))
    long_N = tokens_N > most
    counts = {_COUNTED.get(long, ""): int(long_N.sum())} if long_N.any() else {}
    if counts and (long == "refuse" or (long == "skip" and long_N.all())):
        first = int(np.argmax(long_N))
        what = f"sequence {whole.names[first]}: {bases_N[first]:,} bases are {tokens_N[first]:,} tokens"
        others = "truncate or window" if long == "skip" else "truncate, window or skip"
        raise InputError(f"{place}: {what}, and the model reads {most:,}; use shorter ones, or --long {others}")
    if long != "window":
        if long == "skip":
            whole = whole.select(~long_N)
        elif cut:
            whole = _cut(whole, every, 0 * every, np.minimum(bases_N, most - 2))
        return Pieces(whole, whole, every[: len(whole)], counts)
    # In as few equal windows as have at most so many tokens each.
    count_N = np.where(long_N, -(-(tokens_N - 2) // max(most - 2, 1)), 1)
    while True:
        row_P, number_P = list_ranges(0 * every, count_N)
        pieces = _cut(whole, row_P, *(at_P * bases_N[row_P] // count_N[row_P] for at_P in (number_P, number_P + 1)))
        if not (more := np.unique(row_P[tokens_of(pieces) > most])).size:
            return Pieces(whole, pieces, row_P, counts)
        count_N[more] += 1


def _cut(examples: Examples, row_P: Int64, begin_P: Int64, end_P: Int64) -> Examples:
    """Return parts of sequences, and of their regions."""
    first_P, regions = examples.offsets[row_P], [examples.regions[row] for row in row_P]
    for piece, (region, begin, end) in enumerate(zip(regions, begin_P.tolist(), end_P.tolist(), strict=True)):
        if region is not None:
            start = region.end - end if region.strand == "-" else region.start + begin
            regions[piece] = replace(region, start=start, end=start + end - begin)
    base_codes = examples.base_codes[list_ranges(first_P + begin_P, first_P + end_P)[1]]
    names, offsets = tuple(examples.names[row] for row in row_P), np.append(0, np.cumsum(end_P - begin_P))
    return Examples(base_codes, offsets, None, names, tuple(regions), "", ())


class InputSettings(Settings):
    """What shapes a fine-tuned model's input, but for RoPE scaling: ``input_settings`` of its configuration."""

    max_tokens: int | None = Field(None, ge=3)
    strands: Literal["forward", "both"] = "forward"
    precision: Literal["fp32", "bf16"] = "fp32"
    genome: str | None = None  # path of the store with the allele frequencies, its identity,
    genome_identity: str | None = None
    region: str | None = None  # and the column that locates a sequence


def read_as_trained(
    model: str | Path, config: Any, *, genome: str | Path | None = None, **chosen: str | None
) -> tuple[InputSettings, ProbabilisticGenome | None, list[str]]:
    """Return how a model reads and the genome, as in training but for what is chosen, and a line for each difference.

    A genome of "none" is none; `chosen` are other values of `InputSettings`, or None for those of training.
    """
    known = getattr(config, "input_settings", None)
    try:
        trained = InputSettings.model_validate(known or {})
    except ValueError as error:
        raise InputError(f"{model}: input_settings of its config.json: {one_line(error)}; fine-tune it again") from None
    path = trained.genome if genome is None else None if str(genome) == "none" else str(genome)
    remedy = f"{model} was fine-tuned with its allele frequencies; use --genome with it where it is, or --genome none"
    try:
        store = None if path is None else ProbabilisticGenome.open(path)
    except InputError as error:
        raise error if genome is not None else InputError(f"{error}; {remedy}") from None
    identity = store and store.identity
    if genome is None and identity != trained.genome_identity:
        raise InputError(f"{path}: is another genome than that of the training; {remedy}")
    settings = trained.replace(**{name: value for name, value in chosen.items() if value is not None})
    pairs = {name: (getattr(settings, name), getattr(trained, name)) for name in chosen}
    if identity != trained.genome_identity:
        pairs["genome"] = path or "none", trained.genome or "none"
    notes = [f"{name} is {now}, and {was} in training" for name, (now, was) in pairs.items() if now != was]
    return settings, store, notes if known is not None else []
