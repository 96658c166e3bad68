"""Back from a probabilistic genome to open formats: FASTA in three readings, and its variants as BED, TSV or Parquet.

Shape suffixes: L positions, V variants, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mutbert import __version__, alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_file, check_output
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mutbert.arrays import Int64, UInt8
    from mutbert.genome.store import Variants
    from mutbert.progress import Advance


SEQUENCE_KINDS: Final = ("reference", "consensus", "iupac")
TABLE_KINDS: Final = ("bed", "tsv", "parquet")
KINDS: Final = (*SEQUENCE_KINDS, *TABLE_KINDS)

LINE_BASES: Final = 60
"""Bases on a line of FASTA."""

_FASTA_SUFFIXES: Final = (".fa", ".fasta", ".fna")
# About a million bases at once: memory stays some tens of megabytes, and every piece but the last ends a line.
_PIECE_BASES: Final = LINE_BASES << 14
_ROWS_AT_ONCE: Final = 1 << 18

# (16,) a set of bases (bit 0 is A, bit 3 is T) to its IUPAC base code; the empty set never occurs.
_CODE_OF_SET: Final = np.array(
    [alphabet.UNKNOWN]
    + [
        alphabet.IUPAC.index(alphabet.iupac_of("".join(base for i, base in enumerate("ACGT") if members >> i & 1)))
        for members in range(1, 16)
    ],
    dtype=np.uint8,
)
_LETTERS: Final = alphabet.BYTE_OF_CODE.tobytes().ljust(256, b"?")
_BITS: Final = np.array([1, 2, 4, 8], dtype=np.uint8)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        One of `KINDS`.
    regions : int
        Contigs and regions written; for a table, after those that overlap were joined.
    bases : int
        Positions that they cover.
    variants : int
        Positions among them that vary: for a table, its rows.
    changed : int
        Letters that are not the reference's; 0 for a table.
    """

    path: Path
    kind: str
    regions: int
    bases: int
    variants: int
    changed: int


class _Counts(NamedTuple):
    """Positions that vary, and letters that are not the reference's."""

    variants: int
    changed: int


class _Rows(NamedTuple):
    """Some positions that vary, of one contig or several."""

    contig: npt.NDArray[np.object_]
    position: Int64
    reference: UInt8
    fixed: Int64


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

    ============= ===================================================================================================
    ``reference`` FASTA: the reference as it was given, IUPAC codes and N included.
    ``consensus`` FASTA: at each position that varies the most frequent base. Of bases equally frequent it is the
                  reference's where that is among them, else the first in the order A, C, G, T.
    ``iupac``     FASTA: at each position that varies the IUPAC code of every base that has at least `min_frequency`,
                  or of the most frequent one where none has. All four bases together are N, as is N itself.
    ``bed``       One line a position that varies, no header: the 12 columns of BED, with the name ``A>G,T`` and 1,000
                  times the share of all bases but the reference's as the score; then the frequencies of A, C, G, T.
    ``tsv``       The same with a header: contig, 1-based position, reference, A, C, G, T.
    ``parquet``   contig, 0-based position (int64), reference, A, C, G, T (float32).
    ============= ===================================================================================================

    Frequencies count as equal, or as the minimum, within the 1/65535 to which a store keeps them.

    Parameters
    ----------
    genome : path or ProbabilisticGenome
        The store.
    output : path
        The file to write: FASTA, BED and TSV are compressed by bgzip where it ends in ``.gz``.
    kind : str, optional
        One of `KINDS`; where left out, the suffix of `output` says ``bed``, ``tsv`` or ``parquet``.
    regions : sequence of str or Region, optional
        What to write, as ``chr22`` or ``chr22:101-200`` (1-based, both ends included) under either naming, or as
        `mutbert.Region` (0-based, half-open); every contig where left out. FASTA has them in this order, each once,
        and a part of a contig under such a name, ``>chr22:101-200``. A table has each position once, in the order of
        the genome.
    min_frequency : float
        For ``iupac`` alone: between 0 and 1; 0 takes every base that occurs.
    soft_mask : bool
        For FASTA alone: write what the genome has as soft-masked in lower case; all is upper case otherwise.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    ExportReport
        What was written.

    Raises
    ------
    InputError
        When the store, the output, the kind or a region cannot be used; nothing is left behind. A store of version 1
        has no soft mask to write.
    MissingExtraError
        When a table is wanted and pyarrow is not installed.
    """
    output = Path(output)
    kind = _kind_of(output, kind)
    if not 0 <= min_frequency <= 1:
        raise InputError(f"minimum frequency {min_frequency:g}: is not between 0 and 1")
    if min_frequency and kind != "iupac":
        raise InputError(f"minimum frequency {min_frequency:g}: is for iupac alone; leave it out for {kind}")
    if soft_mask and kind not in SEQUENCE_KINDS:
        raise InputError(f"soft mask: is for FASTA alone; leave it out for {kind}")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file")
    check_output(output, force=force)
    if kind in TABLE_KINDS:
        _need_pyarrow()
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    if soft_mask and genome.manifest["version"] == 1:
        raise InputError(f"{genome.path}: is of format version 1, which keeps no soft mask; build it again")
    chosen = _regions_of(genome, regions)
    if kind in TABLE_KINDS:
        chosen = _joined(chosen, list(genome.contigs))
    bases = sum(map(len, chosen))
    with (
        atomic_file(output, force=force) as file,
        progress_bar(f"Writing {kind}", bases, unit="bases", show=progress) as advance,
    ):
        if kind in SEQUENCE_KINDS:
            counts = _write_fasta(file, genome, chosen, kind, min_frequency, advance, soft_mask=soft_mask)
        else:
            counts = _write_table(file, genome, chosen, kind, advance)
    return ExportReport(output, kind, len(chosen), bases, *counts)


def _kind_of(output: Path, kind: str | None) -> str:
    """Check the wanted kind against the suffix, or take it from there."""
    suffix = Path(output.stem).suffix if output.suffix == ".gz" else output.suffix
    by_suffix = suffix[1:] if suffix[1:] in TABLE_KINDS else None
    if kind is None and by_suffix is None:
        raise InputError(f"{output}: its suffix does not say what to write; give --as with one of {', '.join(KINDS)}")
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind {kind!r}: there is no such kind; choose one of {', '.join(KINDS)}")
    chosen = kind or by_suffix
    assert chosen is not None
    if by_suffix not in {None, chosen} or (suffix in _FASTA_SUFFIXES and chosen in TABLE_KINDS):
        raise InputError(
            f"{output}: its suffix is not that of {chosen}; name the file otherwise or choose another kind"
        )
    if chosen == "parquet" and output.suffix == ".gz":
        raise InputError(f"{output}: Parquet is compressed in itself; leave out the .gz")
    return chosen


def _regions_of(genome: ProbabilisticGenome, wanted: Sequence[str | Region] | None) -> list[Region]:
    lengths = genome.lengths
    if wanted is None:
        return [Region(name, 0, length) for name, length in lengths.items()]
    found = []
    for region in wanted:
        if isinstance(region, str):
            found.append(Region.parse(region, lengths))
            continue
        contig = genome.contig(region.contig)
        if not 0 <= region.start < region.end <= contig.length:
            raise InputError(
                f"{genome.path}: {region.contig}, {region.start} to {region.end} (0-based) is not within its 0 to "
                f"{contig.length}"
            )
        found.append(Region(contig.name, region.start, region.end))
    if not found:
        raise InputError(f"{genome.path}: no region was given; give at least one, or leave them out for all")
    # The same region twice would be two records of one name.
    return list(dict.fromkeys(found))


def _joined(regions: Iterable[Region], order: list[str]) -> list[Region]:
    """Sort regions as the genome is, and join those that overlap or touch."""
    joined: list[Region] = []
    for region in sorted(regions, key=lambda region: (order.index(region.contig), region.start)):
        last = joined[-1] if joined else None
        if last is not None and last.contig == region.contig and region.start <= last.end:
            joined[-1] = Region(last.contig, last.start, max(last.end, region.end))
        else:
            joined.append(region)
    return joined


def _pieces(region: Region) -> Iterator[tuple[int, int]]:
    for start in range(region.start, region.end, _PIECE_BASES):
        yield start, min(start + _PIECE_BASES, region.end)


@contextmanager
def _writing(file: Path) -> Iterator[Callable[[bytes | memoryview], object]]:
    """Open a file, and give a function that writes to it; it compresses by bgzip where the name ends in .gz."""
    if file.suffix == ".gz":
        import pysam

        with closing(pysam.BGZFile(str(file), "wb")) as packed:
            # It takes nothing but bytes.
            yield lambda data: packed.write(bytes(data))
    else:
        with file.open("wb") as plain:
            yield plain.write


# ---------------------------------------------------------------------------------------------------------- sequences


def _write_fasta(
    file: Path,
    genome: ProbabilisticGenome,
    regions: Iterable[Region],
    kind: str,
    min_frequency: float,
    advance: Advance,
    *,
    soft_mask: bool,
) -> _Counts:
    variants = changed = 0
    with _writing(file) as write:
        for region in regions:
            whole = len(region) == genome.contigs[region.contig].length
            write(f">{region.contig if whole else region}\n".encode())
            for start, end in _pieces(region):
                base_L = genome.bases(region.contig, start, end)
                found = genome.variants(region.contig, start, end)
                variants += len(found.position)
                if kind != "reference" and len(found.position):
                    code_V = _letters(found, kind, min_frequency)
                    changed += int((code_V != found.reference).sum())
                    base_L[found.position - start] = code_V
                lower_L = genome.soft_masked(region.contig, start, end) if soft_mask else None
                write(_in_lines(base_L, lower_L).data)
                advance(end - start)
    return _Counts(variants, changed)


def _letters(variants: Variants, kind: str, min_frequency: float) -> UInt8:
    """Choose the base code to write at each position that varies, shape (V,)."""
    fixed_V4 = _fixed(variants)
    # Equal frequencies may be stored one unit apart: half and half are 32768 and 32767.
    is_most_V4 = fixed_V4 >= fixed_V4.max(axis=1, keepdims=True) - 1
    row_V = np.arange(len(fixed_V4))
    reference_V = np.minimum(variants.reference, 3)
    is_reference_V = is_most_V4[row_V, reference_V] & (variants.reference < 4)
    most_V = np.where(is_reference_V, reference_V, is_most_V4.argmax(axis=1)).astype(np.uint8)
    if kind == "consensus":
        code_V = most_V
    else:
        is_shown_V4 = (fixed_V4 > 0) & (fixed_V4 > min_frequency * FREQUENCY_ONE - 1)
        set_V = is_shown_V4 @ _BITS
        code_V = np.where(set_V > 0, _CODE_OF_SET[set_V], most_V)
    return np.where(variants.reference == alphabet.UNKNOWN, np.uint8(alphabet.UNKNOWN), code_V)


def _in_lines(base_L: UInt8, lower_L: npt.NDArray[np.bool_] | None) -> UInt8:
    """Turn base codes into lines of letters, each with its end; those with a flag are in lower case."""
    # Three times as fast as a look-up by NumPy, which spends its time on wide indices.
    letter_L = np.frombuffer(base_L.tobytes().translate(_LETTERS), dtype=np.uint8)
    if lower_L is not None:
        letter_L = letter_L | lower_L * np.uint8(ord("a") ^ ord("A"))
    full, rest = divmod(len(letter_L), LINE_BASES)
    text = np.full(len(letter_L) + full + bool(rest), ord("\n"), dtype=np.uint8)
    lines = text[: full * (LINE_BASES + 1)].reshape(full, LINE_BASES + 1)
    lines[:, :LINE_BASES] = letter_L[: full * LINE_BASES].reshape(full, LINE_BASES)
    if rest:
        text[-rest - 1 : -1] = letter_L[-rest:]
    return text


# ------------------------------------------------------------------------------------------------------------- tables


def _write_table(
    file: Path, genome: ProbabilisticGenome, regions: Iterable[Region], kind: str, advance: Advance
) -> _Counts:
    batches = _batches(genome, regions, advance)
    rows = _write_parquet(file, genome, batches) if kind == "parquet" else _write_text(file, batches, kind)
    return _Counts(rows, 0)


def _batches(genome: ProbabilisticGenome, regions: Iterable[Region], advance: Advance) -> Iterator[_Rows]:
    """Read the positions that vary, some hundred thousand rows at once however far apart they lie."""
    waiting: list[_Rows] = []
    for region in regions:
        for start, end in _pieces(region):
            found = genome.variants(region.contig, start, end)
            if len(found.position):
                name_V = np.full(len(found.position), region.contig, dtype=object)
                waiting.append(_Rows(name_V, found.position, found.reference, _fixed(found)))
            advance(end - start)
            if sum(len(rows.position) for rows in waiting) >= _ROWS_AT_ONCE:
                yield _together(waiting)
                waiting = []
    if waiting:
        yield _together(waiting)


def _together(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _write_text(file: Path, batches: Iterable[_Rows], kind: str) -> int:
    """Write BED or TSV; every number and name is looked up in a table of all that there can be."""
    import pyarrow as pa
    import pyarrow.compute as pc

    frequency_text = pa.array([f"{value / FREQUENCY_ONE:.6f}" for value in range(FREQUENCY_ONE + 1)])
    names = pa.array([_name(reference, members) for reference in range(len(alphabet.IUPAC)) for members in range(16)])
    letters = pa.array(list(alphabet.IUPAC))
    count = 0
    with _writing(file) as write:
        if kind == "tsv":
            write(b"contig\tposition\treference\tA\tC\tG\tT\n")
        for rows in batches:
            count += len(rows.position)
            start, end = (pa.array(rows.position + shift).cast(pa.string()) for shift in (0, 1))
            if kind == "bed":
                name_V = rows.reference.astype(np.int64) * 16 + (rows.fixed > 0) @ _BITS
                score = pa.array(_score(rows)).cast(pa.string())
                # Browsers read columns 7 to 12 as whole numbers, so that what is ours can only stand behind them.
                place = [start, end, names.take(pa.array(name_V)), score, ".", start, end, "0", "1", "1", "0"]
            else:
                place = [end, letters.take(pa.array(rows.reference))]
            frequencies = [frequency_text.take(pa.array(rows.fixed[:, base])) for base in range(4)]
            lines = pc.binary_join_element_wise(pa.array(rows.contig, pa.string()), *place, *frequencies, "\t")
            # Joined once more with an empty string behind, so that each line has its end.
            lines = pc.binary_join_element_wise(lines, "", "\n")
            # Strings lie one behind another in memory, up to the last offset: that is the text itself.
            _, offsets, text = lines.buffers()
            write(memoryview(text)[: np.frombuffer(offsets, dtype=np.int32)[len(lines)]])
    return count


def _write_parquet(file: Path, genome: ProbabilisticGenome, batches: Iterable[_Rows]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("contig", pa.string()), ("position", pa.int64()), ("reference", pa.string())]
        + [(base, pa.float32()) for base in alphabet.BASES],
        metadata={
            "created_by": f"mutbert {__version__}",
            "genome": genome.path.name,
            "position": "0-based",
            "frequencies": "of A, C, G, T in the population; kept to 1/65535",
        },
    )
    letters = pa.array(list(alphabet.IUPAC))
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in batches:
            count += len(rows.position)
            frequency_V4 = (rows.fixed / FREQUENCY_ONE).astype(np.float32)
            columns = [
                pa.array(rows.contig, pa.string()),
                pa.array(rows.position),
                letters.take(pa.array(rows.reference)),
                *(pa.array(np.ascontiguousarray(frequency_V4[:, base])) for base in range(4)),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    return count


def _name(reference: int, members: int) -> str:
    """Name a change such as ``A>G,T``: the reference's letter, and every other base that occurs."""
    letter = alphabet.IUPAC[reference]
    others = [base for index, base in enumerate(alphabet.BASES) if members >> index & 1 and base != letter]
    return f"{letter}>{','.join(others)}"


def _score(rows: _Rows) -> Int64:
    """Give the share of all bases but the reference's, in thousandths, shape (V,)."""
    row_V = np.flatnonzero(rows.reference < 4)
    other_V = np.full(len(rows.reference), FREQUENCY_ONE, dtype=np.int64)
    other_V[row_V] -= rows.fixed[row_V, rows.reference[row_V]]
    score_V: Int64 = np.rint(other_V * (1000 / FREQUENCY_ONE)).astype(np.int64)
    return score_V


def _fixed(variants: Variants) -> Int64:
    """Frequencies as the store keeps them, in units of 1/65535, shape (V, 4)."""
    return np.rint(variants.frequency.astype(np.float64) * FREQUENCY_ONE).astype(np.int64)


def _need_pyarrow() -> None:
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "export") from None
