"""Tables of variants, and the windows of a genome around them.

Every row of a table stays in it: one that cannot be used bears the reason. Shape suffixes: N rows of the table,
U different windows, B some of these, L bases of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.evaluation.suites import EqtlColumns
from mutbert.examples.columns import MissingColumnError, read_table
from mutbert.examples.places import SourceFile, find_file
from mutbert.examples.splits import region_split
from mutbert.examples.table import Examples
from mutbert.genome.fasta import read_fasta
from mutbert.genome.store import ProbabilisticGenome, Windows
from mutbert.regions import ContigNames, Region, names_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from mutbert.arrays import Bool, Float64, Int64, UInt8
    from mutbert.examples.columns import FileTable

    Int8 = npt.NDArray[np.int8]

USED: Final = -1
"""The reason of a row that is used."""
REASONS: Final = (
    "no distance is given",
    "the split is neither train nor test",
    "other than a change of one base",
    "the contig is not in the genome",
    "the window goes beyond the contig's end",
    "the reference base is not the genome's",
    "the variant's token was not found",
)
"""Why rows are not used, by number; of several reasons a row bears the first."""
_DISTANCE, _SPLIT, _ALLELES, _CONTIG, _WINDOW, _REFERENCE, TOKEN = range(len(REASONS))

_TRAIN, _TEST = "train", "test"
_LABELS: Final = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_POSITION: Final = r"^(?P<number>[0-9]{1,10})(?:\.0*)?$"
_NUMBER: Final = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NO_NUMBER: Final = ("", "nan", "na", "n/a", "null", "none")
# Where the table has no split.
_TEST_SHARE: Final = 0.2
_SPLIT_SEED: Final = 0
# Two different genomes agree in every third or fourth base.
_MOST_UNLIKE: Final = 0.5


@dataclass(frozen=True, eq=False)
class VariantTable:
    """Variants, and what is known of each.

    Parameters
    ----------
    place : str
        The file.
    contigs, tissues : tuple of str
        The different ones, sorted.
    contig_N, tissue_N : ndarray of int64, shape (N,)
        Indices into these.
    position_N : ndarray of int64, shape (N,)
        0-based in the contig.
    reference_N, alternate_N : ndarray of uint8, shape (N,)
        Base codes; what stands in a row of other alleles than single bases means nothing.
    label_N : ndarray of int64, shape (N,)
        1 where the variant is causal, else 0.
    distance_N : ndarray of float64, shape (N,)
        To the nearest transcription start site, in bases, on either side; not a number where none is given.
    test_N : ndarray of bool, shape (N,)
        Whether a row is tested on, and not learnt from.
    reason_N : ndarray of int8, shape (N,)
        Why a row is not used, a number of `REASONS`; `USED` otherwise.
    split_by : {"column", "contigs"}
        Whether the file says what is tested on; or about a fifth of the rows, on contigs of their own, was chosen.
    """

    place: str
    contigs: tuple[str, ...]
    contig_N: Int64
    position_N: Int64
    reference_N: UInt8
    alternate_N: UInt8
    tissues: tuple[str, ...]
    tissue_N: Int64
    label_N: Int64
    distance_N: Float64
    test_N: Bool
    reason_N: Int8
    split_by: str

    def __len__(self) -> int:
        """Count the rows, those that are not used too."""
        return len(self.position_N)

    @property
    def unused(self) -> dict[str, int]:
        """The rows that are not used, by reason."""
        return count_reasons(self.reason_N)


class ReadVariants(NamedTuple):
    """What a file holds, and which file it was."""

    table: VariantTable
    source: SourceFile


class Genome(Protocol):
    """Where windows are read from: a `FastaGenome` or a `mutbert.genome.store.ProbabilisticGenome`."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases."""

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read windows; see `ProbabilisticGenome.windows`."""


class FastaGenome:
    """A FASTA as base codes in memory, one byte a base.

    Parameters
    ----------
    path : Path
        The file; see `mutbert.genome.fasta.read_fasta` for what is accepted.
    contigs : iterable of str, optional
        Keep these alone, under either naming.

    Raises
    ------
    InputError
        When the file cannot be read, or is not FASTA.
    """

    def __init__(self, path: Path, contigs: Iterable[str] | None = None) -> None:
        wanted = None if contigs is None else ContigNames(contigs)
        self._bases = {
            name: code_L for name, code_L, _ in read_fasta(path) if wanted is None or wanted.find(name) is not None
        }
        self.path = path

    @property
    def lengths(self) -> dict[str, int]:
        """The contigs' lengths in bases."""
        return {name: len(base_L) for name, base_L in self._bases.items()}

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read windows, in which nothing varies; see `mutbert.genome.store.ProbabilisticGenome.windows`."""
        base_BL = np.empty((len(start_B), length), dtype=np.uint8)
        for number, base_L in enumerate(self._bases.values()):
            rows = np.flatnonzero(contig_B == number)
            base_BL[rows] = base_L[start_B[rows, None] + np.arange(length)]
        nowhere = np.zeros(0, np.int64)
        return Windows(base_BL, nowhere, nowhere, np.zeros((0, 4), np.uint16))


def open_genome(place: str | Path, table: VariantTable) -> FastaGenome | ProbabilisticGenome:
    """Open a genome store, or read a FASTA (plain, gzip or bgzip), of which the table's contigs alone are kept.

    Raises
    ------
    InputError
        When it is neither, or damaged.
    """
    path = Path(place)
    return ProbabilisticGenome.open(path) if path.is_dir() else FastaGenome(path, table.contigs)


def count_reasons(reason_N: Int8) -> dict[str, int]:
    """Count rows that are not used by reason, in the order of `REASONS`."""
    counts = np.bincount(reason_N[reason_N != USED], minlength=len(REASONS)).tolist()
    return {reason: count for reason, count in zip(REASONS, counts, strict=True) if count}


def read_variants(place: str | Path, columns: EqtlColumns | None = None) -> ReadVariants:
    """Read a table of variants: CSV, TSV (each also with gzip) or Parquet.

    Parameters
    ----------
    place : str or Path
        As for `mutbert.examples.files.find_file`.
    columns : EqtlColumns, optional
        Which columns mean what. Positions are 1-based in the file; labels are 0 or 1, or false or true; the split is
        ``train`` or ``test`` in any case. Without a column of this name about a fifth of the rows, on contigs of their
        own, become the test rows, always the same ones: see `VariantTable.split_by`.

    Returns
    -------
    ReadVariants
        In the order of the file.

    Raises
    ------
    InputError
        When the file cannot be found or read, lacks a column or holds no rows, when a row's position, label, distance,
        contig or tissue is missing or not what it should be, or when nothing is there to train or to test on. The
        message names file and line (of Parquet the row, from 1).
    MissingExtraError
        When pyarrow or huggingface_hub is needed and not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "bench") from None
    columns = columns or EqtlColumns()
    path, source = find_file(place)
    names = [name for key, name in columns if key != "split"]
    file = read_table(path, source.place, names)
    if not len(file.row_N):
        raise InputError(f"{file.place}: holds no rows; give a table with variants in it")
    contigs, contig_N = _sorted_texts(file, columns.contig, "the contig")
    tissues, tissue_N = _sorted_texts(file, columns.tissue, "the tissue")
    position_N = _positions(file, columns.position)
    reference_N, alternate_N = (_single_bases(file, name) for name in (columns.reference, columns.alternate))
    distance_N = _distances(file, columns.distance)
    label_N = _labels(file, columns.label)
    split_N = _splits(path, source.place, columns)
    if split_N is None:
        test_N = _split_by_contigs(file.place, columns, contigs, contig_N)
        other_N = np.zeros(len(test_N), dtype=np.bool_)
    else:
        test_N, other_N = split_N == _TEST, (split_N != _TEST) & (split_N != _TRAIN)
        for name, found in ((_TRAIN, (split_N == _TRAIN).any()), (_TEST, test_N.any())):
            if not found:
                raise InputError(f"{file.place}: no row has {name!r} in column {columns.split}; rows are train or test")
    both_N = (reference_N != alphabet.NOT_A_BASE) & (alternate_N != alphabet.NOT_A_BASE)
    reason_N = _first_reason(
        {_DISTANCE: np.isnan(distance_N), _SPLIT: other_N, _ALLELES: ~both_N | (reference_N == alternate_N)}
    )
    table = VariantTable(
        file.place,
        contigs,
        contig_N,
        position_N,
        reference_N,
        alternate_N,
        tissues,
        tissue_N,
        label_N,
        distance_N,
        test_N,
        reason_N,
        "contigs" if split_N is None else "column",
    )
    return ReadVariants(table, source)


@dataclass(frozen=True, eq=False)
class VariantWindows:
    """The different windows around a table's variants, the variant at index ``length // 2``.

    Parameters
    ----------
    genome : Genome
        Where the other bases are from.
    length : int
        Bases of a window.
    contig_U : ndarray of int64, shape (U,)
        Index of each window's contig in the genome's.
    start_U : ndarray of int64, shape (U,)
        0-based.
    allele_U : ndarray of uint8, shape (U,)
        Base code at the variant: the reference's or the alternate's.
    reference_N, alternate_N : ndarray of int64, shape (N,)
        The windows of each row of the table; -1 where it is not used.
    reason_N : ndarray of int8, shape (N,)
        The table's, and what the genome adds.
    """

    genome: Genome
    length: int
    contig_U: Int64
    start_U: Int64
    allele_U: UInt8
    reference_N: Int64
    alternate_N: Int64
    reason_N: Int8

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.start_U)

    @property
    def saved(self) -> int:
        """How many windows need no embedding of their own, since other rows have the same ones."""
        return 2 * int((self.reason_N == USED).sum()) - len(self)

    def examples(self, rows: Int64) -> Examples:
        """Read some windows as sequences with their regions."""
        base_BL = self.genome.windows(self.contig_U[rows], self.start_U[rows], self.length).base_BL
        base_BL[:, self.length // 2] = self.allele_U[rows]
        names = list(self.genome.lengths)
        places = zip(self.contig_U[rows].tolist(), self.start_U[rows].tolist(), strict=True)
        regions = tuple(Region(names[contig], start, start + self.length) for contig, start in places)
        offsets = np.arange(len(rows) + 1) * self.length
        return Examples(base_BL.reshape(-1), offsets, None, ("",) * len(rows), regions, "", ())


def variant_windows(table: VariantTable, genome: Genome, length: int) -> VariantWindows:
    """Place a table's variants in a genome, and list each window once: by contig, position and allele.

    Raises
    ------
    InputError
        When no row can be used, or most of the reference bases are not the genome's, which then is another assembly.
    ValueError
        When the length is not above 0.
    """
    if length < 1:
        raise ValueError(f"length is {length}; it must be above 0")
    names, sizes = ContigNames(genome.lengths), np.array([*genome.lengths.values(), 0], dtype=np.int64)
    number_of = {name: number for number, name in enumerate(genome.lengths)}
    found = [names.find(name) for name in table.contigs]
    contig_N = np.array([-1 if name is None else number_of[name] for name in found], dtype=np.int64)[table.contig_N]
    start_N = table.position_N - length // 2
    inside_N = (contig_N >= 0) & (start_N >= 0) & (start_N + length <= sizes[contig_N])
    compared = np.flatnonzero(inside_N & (table.reason_N == USED))
    unlike_N = np.zeros(len(table), dtype=np.bool_)
    base_B = genome.windows(contig_N[compared], table.position_N[compared], 1).base_BL[:, 0]
    unlike_N[compared] = base_B != table.reference_N[compared]
    if unlike_N.sum() > _MOST_UNLIKE * len(compared):
        raise InputError(
            f"{table.place}: the reference base is not the genome's in {unlike_N.sum()} of {len(compared)} variants; "
            "give the genome of the table's assembly"
        )
    reason_N = _first_reason({_CONTIG: contig_N < 0, _WINDOW: ~inside_N, _REFERENCE: unlike_N}, table.reason_N)
    used = np.flatnonzero(reason_N == USED)
    if not len(used):
        reasons = ", ".join(f"{reason} ({count})" for reason, count in count_reasons(reason_N).items())
        raise InputError(f"{table.place}: no row can be used: {reasons}; give the table's own genome, or another table")

    # One integer for contig, start and allele; a contig is shorter than 2**40 and bases are four.
    allele_2B = np.stack([table.reference_N[used], table.alternate_N[used]]).astype(np.int64)
    key_2B = ((contig_N[used] << 40) + start_N[used]) * len(alphabet.BASES) + allele_2B
    key_U, window_2B = np.unique(key_2B, return_inverse=True)
    window_2N = np.full((2, len(table)), -1, dtype=np.int64)
    window_2N[:, used] = window_2B.reshape(2, -1)
    place_U, allele_U = np.divmod(key_U, len(alphabet.BASES))
    return VariantWindows(
        genome,
        length,
        place_U >> 40,
        place_U & ((1 << 40) - 1),
        allele_U.astype(np.uint8),
        window_2N[0],
        window_2N[1],
        reason_N,
    )


def _first_reason(masks: Mapping[int, Bool], before: Int8 | None = None) -> Int8:
    """Give each row the first reason that holds for it, behind what it has already."""
    reason_N = np.full(len(next(iter(masks.values()))), USED, dtype=np.int8) if before is None else before.copy()
    for reason, mask_N in masks.items():
        reason_N[mask_N & (reason_N == USED)] = reason
    return reason_N


def _texts(file: FileTable, name: str) -> pa.Array:
    import pyarrow.compute as pc

    column = file.columns[name]
    if column.type != "large_string":
        raise InputError(f"{file.place}: column {name} holds lists; it should hold text or numbers")
    return pc.utf8_trim_whitespace(column.fill_null(""))


def _require(file: FileTable, name: str, well: pa.Array, what: str) -> None:
    """Refuse the first row that is not well."""
    wrong = np.flatnonzero(~np.asarray(well))
    if len(wrong):
        text = _texts(file, name)[int(wrong[0])].as_py()
        raise file.wrong(int(wrong[0]), f"{name} is {text!r}; {what}")


def _sorted_texts(file: FileTable, name: str, what: str) -> tuple[tuple[str, ...], Int64]:
    """Give the different texts of a column in order, and which of them each row has."""
    import pyarrow.compute as pc

    texts = _texts(file, name)
    _require(file, name, pc.not_equal(texts, ""), f"{what} is missing: fill it in, or remove the row")
    different = sorted(pc.unique(texts).to_pylist())
    return tuple(different), _index_in(texts, different)


def _index_in(texts: pa.Array, different: Sequence[str]) -> Int64:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(texts, value_set=pa.array(different, pa.large_string()))
    return np.asarray(found.fill_null(-1)).astype(np.int64)


def _positions(file: FileTable, name: str) -> Int64:
    import pyarrow.compute as pc

    parts = pc.extract_regex(_texts(file, name), _POSITION)
    value = pc.cast(pc.if_else(parts.is_valid(), parts.field("number"), "0"), "int64")
    _require(file, name, pc.greater(value, 0), "positions are whole numbers from 1 on: correct it")
    return np.asarray(value) - 1


def _single_bases(file: FileTable, name: str) -> UInt8:
    """Give base codes; `alphabet.NOT_A_BASE` where an allele is not one of A, C, G and T."""
    letters = [*alphabet.BASES, *alphabet.BASES.lower()]
    index_N = _index_in(_texts(file, name), letters)
    return np.where(index_N < 0, alphabet.NOT_A_BASE, index_N % len(alphabet.BASES)).astype(np.uint8)


def _distances(file: FileTable, name: str) -> Float64:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _texts(file, name)
    missing = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(_NO_NUMBER, pa.large_string()))
    written = pc.match_substring_regex(texts, _NUMBER)
    _require(file, name, pc.or_(missing, written), "distances are numbers of bases: correct it, or leave it empty")
    # The plus is no part of what the cast reads.
    number = pc.utf8_ltrim(pc.if_else(missing, "nan", texts), characters="+")
    distance_N: Float64 = np.abs(np.asarray(pc.cast(number, "float64")))
    return distance_N


def _labels(file: FileTable, name: str) -> Int64:
    import pyarrow.compute as pc

    index_N = _index_in(pc.utf8_lower(_texts(file, name)), list(_LABELS))
    _require(file, name, index_N >= 0, "labels are 0 or 1: correct it, or remove the row")
    return np.array(list(_LABELS.values()), dtype=np.int64)[index_N]


def _splits(path: Path, place: str, columns: EqtlColumns) -> npt.NDArray[Any] | None:
    """Read the split of each row, in lower case; ``None`` without such a column."""
    import pyarrow.compute as pc

    try:
        file = read_table(path, place, [columns.split])
    except MissingColumnError:
        return None
    return np.asarray(pc.utf8_lower(_texts(file, columns.split)).to_pylist(), dtype=str)


def _split_by_contigs(place: str, columns: EqtlColumns, contigs: Sequence[str], contig_N: Int64) -> Bool:
    regions = [Region(contigs[number], 0, 1) for number in contig_N.tolist()]
    rows = region_split(regions, _TEST_SHARE, _SPLIT_SEED)
    if rows is None:
        raise InputError(
            f"{place}: no column {columns.split!r}, and all variants are on contig {names_text(contigs)}; add a column "
            "that says train or test"
        )
    test_N = np.zeros(len(contig_N), dtype=np.bool_)
    test_N[rows.validation] = True
    return test_N
