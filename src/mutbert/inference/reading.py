"""What a model reads: sequences or regions of a genome, as far as it reads them.

Shape suffixes: N sequences, P pieces of them, T bases of all pieces.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import Int64, list_ranges
from mutbert.encoders.adapter import Encoder
from mutbert.errors import InputError
from mutbert.examples.table import Columns, Examples, read_examples
from mutbert.files import sha256_of
from mutbert.genome.sources import read_sequences
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import Surroundings, open_surroundings
from mutbert.regions import read_bed
from mutbert.tables import is_fasta


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *, fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, sequence_column: str | None = None, name_column: str | None = None,
    surroundings: str = "population", person_vcf: str | Path | None = None, sample: str | None = None,
    progress: bool = False,
) -> tuple[Examples, dict[str, Any], Surroundings | None]:  # fmt: skip
    """Return sequences, or regions as their strand reads, what they depend on, and of regions the genome as seen."""
    given: list[Any] = [path for path in (input, fasta, bed) if path is not None]
    if len(given) != 1:
        raise InputError("nothing or too much to embed; give one input file, a FASTA, or a genome and a BED of it")
    path = Path(given[0])
    if bed is None and not path.name.lower().removesuffix(".gz").endswith(".bed"):
        if genome is not None or surroundings != "population" or person_vcf or sample:
            what = "has sequences of its own, which are embedded as they are"
            raise InputError(f"{path}: {what}; leave the options of a genome out, or give a BED in its place")
        table, columns = given[0], Columns(sequence=sequence_column or "sequence", label=(), name=name_column)
        if fasta is not None and not is_fasta(str(path)):
            table = pl.DataFrame(list(read_sequences(path)), schema=["name", "sequence"], orient="row")
        examples, source = read_examples(table, columns)
        return examples, {"input": source.sha256 or sha256_of(path), "columns": columns.model_dump()}, None
    if genome is None:
        raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
    if sequence_column or name_column:
        raise InputError(f"{path}: has no columns to choose; leave out --sequence-column and --name-column")
    opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    regions, codes, names = read_bed(path, opened.lengths), [], []
    for one in regions:
        code_L, minus = opened.bases(one.contig, one.start, one.end), one.strand == "-"
        codes.append(alphabet.reverse_complement(code_L) if minus else code_L)
        names.append(one.name or (f"{one}(-)" if minus else str(one)))
    contigs = {one.contig for one in regions}
    around = open_surroundings(opened, surroundings, person_vcf, sample, contigs=contigs, progress=progress)
    offsets = np.cumsum([0, *map(len, codes)])
    examples = Examples(np.concatenate(codes), offsets, None, tuple(names), tuple(regions), "", ())
    calls = person_vcf and sha256_of(Path(person_vcf))
    plan = {"bed": sha256_of(path), "genome": opened.identity, "sample": sample, "person_vcf": calls}
    return examples, plan, around


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

    def parts(self, size: int) -> Iterator["Pieces"]:
        """Yield those of so many sequences at a time."""
        for rows in np.split(np.arange(len(self.whole)), range(size, len(self.whole), size)):
            chosen = np.arange(*np.searchsorted(self.row_P, [rows[0], rows[-1] + 1]))
            yield Pieces(self.whole.select(rows), self.pieces.select(chosen), self.row_P[chosen] - rows[0], self.counts)

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
    examples: Examples, encoder: Encoder, most: int | None, long: str, *, place: str, cut: bool = False
) -> Pieces:
    """Return what a model of `most` tokens reads; `cut` where a token is a base, which else the tokenizer cuts."""
    # A sequence without a name has its number.
    whole = replace(examples, names=tuple(name or str(row) for row, name in enumerate(examples.names)))
    bases_N, tokens_N, every = whole.lengths, whole.lengths + 2, np.arange(len(whole))
    # No token is less than a base, but for special ones at either end.
    if most is None or not len(rows := np.flatnonzero(tokens_N > most)):
        return Pieces(whole, whole, every, {})
    tokens_N[rows] = encoder.inputs(whole.select(rows)).length_N
    long_N = tokens_N > most
    word = {"truncate": "truncated", "window": "read in windows"}.get(long, "skipped")
    counts = {word: int(long_N.sum())} if long_N.any() else {}
    if counts and (long == "refuse" or (long == "skip" and long_N.all())):
        first = int(np.argmax(long_N))
        what = f"sequence {whole.names[first]}: {bases_N[first]:,} bases are {tokens_N[first]:,} tokens"
        others = "truncate or window" if long == "skip" else "truncate, window or skip"
        raise InputError(f"{place}: {what}, and the model reads {most:,}; use shorter ones, or --long {others}")
    if long == "skip":
        whole = whole.select(~long_N)
    elif long == "truncate" and cut:
        whole = _cut(whole, every, 0 * every, np.minimum(bases_N, most - 2))
    if long != "window":
        return Pieces(whole, whole, every[: len(whole)], counts)
    # In as few equal windows as have at most so many tokens each.
    count_N = np.where(long_N, -(-(tokens_N - 2) // max(most - 2, 1)), 1)
    while True:
        row_P, number_P = list_ranges(0 * every, count_N)
        pieces = _cut(whole, row_P, *(at_P * bases_N[row_P] // count_N[row_P] for at_P in (number_P, number_P + 1)))
        if not (more := np.unique(row_P[encoder.inputs(pieces).length_N > most])).size:
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
