"""Export of a probabilistic genome: FASTA in three readings, and its variants (V) as BED, TSV or Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pysam

from mutbert import __version__, alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_file, check_output
from mutbert.genome.fasta import LINE_BASES, fasta_lines
from mutbert.genome.store import FREQUENCY_ONE, ProbabilisticGenome, Variants
from mutbert.progress import progress_bar
from mutbert.regions import Region, merge_regions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mutbert.arrays import UInt8
    from mutbert.progress import Advance

    Piece = tuple[str, str, int, int]  # what goes before it, contig, start, end

TABLE_KINDS: Final = ("bed", "tsv", "parquet")
_FASTA: Final = ("reference", "consensus", "iupac")
KINDS: Final = (*_FASTA, *TABLE_KINDS)

_PIECE_BASES: Final = LINE_BASES << 14  # of memory at once; every piece but the last ends a line
_CODES: Final = np.array([(row > 0) @ [1, 2, 4, 8] for row in alphabet.DISTRIBUTIONS]).argsort()
"""(15,) a set of bases (bit 0 is A, bit 3 is T) less one, to its IUPAC base code."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    path: Path
    kind: str
    regions: int  # of a table, after merging, as bases are
    bases: int
    variants: int
    changed: int  # letters of a FASTA that are not the reference's


def export_genome(
    genome: str | Path | ProbabilisticGenome,
    output: str | Path,
    kind: str | None = None,
    *,
    regions: Sequence[str | Region] | None = None,
    min_frequency: float = 0.0,
    soft_mask: bool = False,
    force: bool = False,
    progress: bool = False,
) -> ExportReport:
    """Write a probabilistic genome, or regions of it, in an open format.

    - ``reference``: FASTA of the reference as it was, IUPAC codes and N included.
    - ``consensus``: FASTA; where the genome varies, the most frequent base, of equal ones the reference's or the first.
    - ``iupac``: FASTA; where the genome varies, the IUPAC code of the bases of at least `min_frequency`, if any.
    - ``bed``: the 12 columns of BED, with the name ``A>G,T`` and as the score 1,000 times the share of bases other than
      the reference's; then the frequencies of A, C, G, T.
    - ``tsv`` and ``parquet``: contig, position (1-based in TSV, 0-based in Parquet), reference, A, C, G, T.

    Frequencies count as equal, or as the minimum, within the 1/65535 to which a store keeps them.

    Parameters
    ----------
    genome, output : path
        The store, which may be open; the file to write, compressed by bgzip if it ends in ``.gz``.
    kind : str, optional
        ``reference``, ``consensus``, ``iupac``, ``bed``, ``tsv`` or ``parquet``; the suffix of the output implies the
        last three.
    regions : sequence of str or Region, optional
        Such as ``chr22``, ``chr22:101-200`` or `mutbert.Region`; every contig by default. A FASTA has them in this
        order, a table each position once, in the genome's order.
    min_frequency, soft_mask : float, bool
        The lowest frequency of a base, for ``iupac``; lower case where the genome is soft-masked, for FASTA.
    force, progress : bool
        Replace the output where it exists; show progress on standard error.

    Returns
    -------
    ExportReport
        What was written.

    Raises
    ------
    InputError
        When the store, the output, the kind or a region cannot be used.
    MissingExtraError
        When Parquet is wanted and pyarrow is not installed.
    """
    output = Path(output)
    kind = _kind_of(output, kind)
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow")
    if not 0 <= min_frequency <= 1:
        raise InputError(f"minimum frequency {min_frequency:g}: is not between 0 and 1")
    for option, is_given, kinds in (("minimum frequency", min_frequency, ["iupac"]), ("soft mask", soft_mask, _FASTA)):
        if is_given and kind not in kinds:
            raise InputError(f"{option}: is for {', '.join(kinds)} alone; leave it out for {kind}")
    check_output(output, force=force, inputs=[genome.path if isinstance(genome, ProbabilisticGenome) else genome])
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    if soft_mask and genome.manifest.get("version") == 1:
        raise InputError(f"{genome.path}: is of format version 1, which keeps no soft mask; build it again")
    lengths = genome.lengths
    if regions is not None and not regions:
        raise InputError(f"{genome.path}: no region was given; give at least one, or leave them out for all")
    # The same region twice would be two records of one name; a Region is validated as its text is.
    chosen = list(dict.fromkeys(Region.parse(str(one), lengths) for one in (lengths if regions is None else regions)))
    if kind in TABLE_KINDS:
        chosen = merge_regions(chosen, genome.contigs)
    bases, variants, changed = sum(map(len, chosen)), 0, 0
    with (
        atomic_file(output, force=force) as file,
        progress_bar(f"Writing {kind}", bases, unit="bases", show=progress) as advance,
    ):
        pieces = _pieces(chosen, lengths, advance)
        if kind == "parquet":
            variants = _write_parquet(file, genome, pieces)
        else:
            is_table = kind in TABLE_KINDS
            texts = _table(genome, pieces, kind) if is_table else _fasta(genome, pieces, kind, min_frequency, soft_mask)
            with pysam.BGZFile(str(file), "wb") if file.suffix == ".gz" else file.open("wb") as output_file:
                for text, more, different in texts:
                    output_file.write(text)
                    variants, changed = variants + more, changed + different
    return ExportReport(output, kind, len(chosen), bases, variants, changed)


def _kind_of(output: Path, kind: str | None) -> str:
    """Return the wanted kind, or that of the suffix, with which it has to agree."""
    suffix = Path(output.stem).suffix if output.suffix == ".gz" else output.suffix
    by_suffix = suffix[1:] if suffix[1:] in TABLE_KINDS else None
    chosen = kind or by_suffix
    if chosen not in KINDS:
        what = "its suffix does not say what to write" if chosen is None else f"there is no kind {kind!r}"
        raise InputError(f"{output}: {what}; give --as with one of {', '.join(KINDS)}")
    is_other = by_suffix not in {None, chosen} or (suffix in {".fa", ".fasta", ".fna"} and chosen in TABLE_KINDS)
    if is_other or (chosen == "parquet" and output.suffix == ".gz"):
        raise InputError(f"{output}: its suffix is not that of {chosen}; choose another name or another kind")
    return chosen


def _pieces(regions: Iterable[Region], lengths: Mapping[str, int], advance: Advance) -> Iterator[Piece]:
    for region in regions:
        name = region.contig if len(region) == lengths[region.contig] else str(region)
        for start in range(region.start, region.end, _PIECE_BASES):
            end = min(start + _PIECE_BASES, region.end)
            yield f">{name}\n" if start == region.start else "", region.contig, start, end
            advance(end - start)


def _fasta(
    genome: ProbabilisticGenome, pieces: Iterable[Piece], kind: str, min_frequency: float, soft_mask: bool
) -> Iterator[tuple[bytes, int, int]]:
    """Yield text, how many positions vary there, and how many of its letters are not the reference's."""
    for head, contig, start, end in pieces:
        place = contig, start, end
        code_L, found = genome.bases(*place), genome.variants(*place)
        code_V = _letters(found, kind, min_frequency)
        code_L[found.position - start] = code_V
        letter_L = alphabet.BYTE_OF_CODE[code_L]
        if soft_mask:
            letter_L |= genome.soft_masked(*place) * np.uint8(ord("a") ^ ord("A"))
        yield head.encode() + fasta_lines(letter_L), len(code_V), int((code_V != found.reference).sum())


def _letters(variants: Variants, kind: str, min_frequency: float) -> UInt8:
    """Return the base code to write at each position that varies, (V,)."""
    if kind == "reference":
        return variants.reference
    fixed_V4 = np.rint(variants.frequency * np.float64(FREQUENCY_ONE))
    # Equal frequencies may be stored one unit apart: half and half are 32768 and 32767.
    is_most_V4 = fixed_V4 >= fixed_V4.max(axis=1, keepdims=True) - 1
    reference_V = np.minimum(variants.reference, 3)
    is_reference_V = is_most_V4[np.arange(len(fixed_V4)), reference_V] & (variants.reference < 4)
    code_V = np.where(is_reference_V, reference_V, is_most_V4.argmax(axis=1))
    if kind == "iupac":
        is_shown_V4 = (fixed_V4 > 0) & (fixed_V4 > min_frequency * FREQUENCY_ONE - 1)
        set_V = is_shown_V4 @ np.array([1, 2, 4, 8])
        code_V = np.where(set_V > 0, _CODES[set_V - 1], code_V)
    return np.where(variants.reference == alphabet.UNKNOWN, alphabet.UNKNOWN, code_V).astype(np.uint8)


def _frames(genome: ProbabilisticGenome, pieces: Iterable[Piece]) -> Iterator[pl.DataFrame]:
    """Yield the positions that vary, with their frequencies to full precision again, so that they round as stored."""
    letters = pl.Series(list(alphabet.IUPAC))
    for _, contig, start, end in pieces:
        found = genome.variants(contig, start, end)
        frequency_V4 = np.rint(found.frequency * np.float64(FREQUENCY_ONE)) / FREQUENCY_ONE
        columns = {"position": found.position, "reference": letters[found.reference]}
        columns |= zip(alphabet.BASES, frequency_V4.T, strict=True)
        yield pl.DataFrame(columns).select(pl.lit(contig).alias("contig"), pl.all())


def _table(genome: ProbabilisticGenome, pieces: Iterable[Piece], kind: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield text of BED or TSV, how many positions vary there, and 0."""
    for number, frame in enumerate(_frames(genome, pieces)):
        lines = _bed(frame) if kind == "bed" else frame.with_columns(pl.col("position") + 1)
        has_header = kind == "tsv" and number == 0
        csv = lines.write_csv(include_header=has_header, separator="\t", quote_style="never", float_precision=6)
        yield csv.encode(), len(frame), 0


def _bed(frame: pl.DataFrame) -> pl.DataFrame:
    start, end, reference = pl.col("position"), pl.col("position") + 1, pl.col("reference")
    others = {base: pl.when(reference != base).then(pl.col(base)).otherwise(0) for base in alphabet.BASES}
    names = [pl.when(frequency > 0).then(pl.lit(base)) for base, frequency in others.items()]
    name = reference + ">" + pl.concat_str(names, separator=",", ignore_nulls=True)
    score = (pl.sum_horizontal(others.values()) * 1000).round().cast(pl.Int64)
    # Browsers read columns 7 to 12 as whole numbers, so that what is ours can only stand after them.
    twelve = (pl.col("contig"), start, end, name, score, pl.lit("."), start, end, *map(pl.lit, (0, 1, 1, 0)))
    return frame.select(*(column.alias(str(number)) for number, column in enumerate(twelve)), *alphabet.BASES)


def _write_parquet(file: Path, genome: ProbabilisticGenome, pieces: Iterable[Piece]) -> int:
    """Write Parquet, and return the number of rows."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    floats = pl.col(*alphabet.BASES).cast(pl.Float32)
    kinds = {"contig": pa.string(), "position": pa.int64(), "reference": pa.string()}
    about = {"created_by": f"mutbert {__version__}", "genome": genome.path.name, "position": "0-based"}
    about |= {"frequencies": "of A, C, G, T in the population; kept to 1/65535"}
    schema = pa.schema(kinds | dict.fromkeys(alphabet.BASES, pa.float32()))
    rows = 0
    # Without its own schema in the file, strings are read as those of any other program.
    with ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
        writer.add_key_value_metadata(about)
        for frame in _frames(genome, pieces):
            writer.write_table(frame.with_columns(floats).to_arrow().cast(schema))
            rows += len(frame)
    return rows
