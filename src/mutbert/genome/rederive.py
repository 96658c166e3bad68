"""A genome's variants derived once more, in the plainest way, for `mutbert.genome.verify`.

Nothing here is shared with the builder: the rules are written a second time, from ``docs/genome.md``. A record of a
VCF becomes *places*: one row for each single nucleotide that one of its alternate alleles changes. What happens at
one position depends on the places at this position alone, so the rows of a contig are collected from all files, and
judged when the contig's bases are at hand. Shape suffixes: R rows (places), V positions that vary, L bases of a
contig, 4 bases in the order A, C, G, T, F files; K rows of one step (candidates), A rows that are accepted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]
    Float64 = npt.NDArray[np.float64]

FATES: Final = (
    "contig not in the FASTA",
    "contig not selected",
    "filtered",
    "no alternate allele",
    "symbolic or structural",
    "overlapping deletion (*)",
    "insertion or deletion",
    "alternate is the reference",
    "alternate base not A, C, G or T",
    "frequency missing",
    "reference base unknown",
    "outside the contig",
    "reference base differs from the FASTA",
    "duplicate record",
    "conflicts with an earlier record",
    "frequency not above the minimum",
    "used",
)
"""What becomes of an allele; a record counts by the one of its alleles that came furthest down this list."""

NO_CONTIG, NOT_SELECTED, FILTERED, NO_ALTERNATE, SYMBOLIC, OVERLAPPING, INDEL, SAME, ODD_ALTERNATE = range(9)
NO_FREQUENCY, UNKNOWN_REFERENCE, OUTSIDE, OTHER_REFERENCE, DUPLICATE, CONFLICT, TOO_RARE, USED = range(9, 17)

BITS: Final = {
    "A": 1, "C": 2, "G": 4, "T": 8, "U": 8,
    "R": 5, "Y": 10, "S": 6, "W": 9, "K": 12, "M": 3, "B": 14, "D": 13, "H": 11, "V": 7, "N": 15,
}  # fmt: skip
"""Every IUPAC letter as the set of bases it stands for, one bit a base (IUPAC-IUB 1984)."""

BITS_OF_BYTE: Final = np.zeros(256, dtype=np.uint8)
"""(256,) ASCII byte in either case to its set of bases; 0 for what is no IUPAC letter."""
for _letter, _bits in BITS.items():
    BITS_OF_BYTE[[ord(_letter), ord(_letter.lower())]] = _bits

PLACE: Final = np.dtype(
    [
        ("record", "<u4"),  # in the order of reading, within the contig
        ("position", "<u4"),  # 0-based
        ("frequency", "<f4"),  # of the allele; VCF readers keep frequencies so
        ("allele", "<u8"),  # 0 for a plain SNV, else stands for the whole allele that this is a part of
        ("file", "<u2"),
        ("reference", "u1"),  # base, 0 to 3
        ("alternate", "u1"),
        ("fate", "u1"),  # how far the record came with alleles that are no rows here
    ]
)

_ROWS_IN_MEMORY = 1 << 17
_ROWS_AT_ONCE = 1 << 18
# Two sums that differ by less are the same number, read or added in another way.
_NEAR = 1e-6
_ROUNDING = 1e-3


class Derived(NamedTuple):
    """A contig's variants, as they follow from the sources.

    Parameters
    ----------
    position_V : ndarray of int64, shape (V,)
        0-based, ascending.
    frequency_V4 : ndarray of float64, shape (V, 4)
        Rows sum to 1.
    fates_F17 : ndarray of int64, shape (files, 17)
        Records that have rows, by file and fate.
    decomposed_F : ndarray of int64, shape (files,)
        Records of which a part of an allele of several nucleotides is used.
    """

    position_V: Int64
    frequency_V4: Float64
    fates_F17: Int64
    decomposed_F: Int64


class Places:
    """Rows of all files, kept on the disk until their contig's turn; a context manager.

    Contigs come in any order and several files may have rows of the same one, so that a contig is complete when
    all files were read, and not before.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mutbert-verify-")  # noqa: SIM115 - closed by __exit__
        self._chunks: dict[int, list[tuple[int, int]]] = {}
        self._records: Counter[int] = Counter()
        self._contig = -1
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, contig: int, file: int, fate: int, rows: list[tuple[int, float, int, int, int]]) -> None:
        """Add one record: (position, frequency, allele, reference, alternate) for each of its places."""
        if contig != self._contig or len(self._rows) >= _ROWS_IN_MEMORY:
            self._flush()
            self._contig = contig
        record = self._records[contig]
        self._records[contig] = record + 1
        for position, frequency, allele, reference, alternate in rows:
            self._rows.append((record, position, frequency, allele, file, reference, alternate, fate))

    def of(self, contig: int) -> npt.NDArray[Any]:
        """Give the rows of a contig, of type `PLACE`, in the order in which they were added."""
        self._flush()
        chunks = self._chunks.get(contig, [])
        data = np.empty(sum(length for _, length in chunks), dtype=np.uint8)
        done = 0
        for start, length in chunks:
            self._file.seek(start)
            self._file.readinto(data[done : done + length].data)
            done += length
        return data.view(PLACE)

    def _flush(self) -> None:
        if self._rows:
            # A number too large for float32 becomes infinite, and is refused later as any above 1.
            with np.errstate(over="ignore"):
                data = np.array(self._rows, dtype=PLACE).tobytes()
            self._chunks.setdefault(self._contig, []).append((self._file.seek(0, 2), len(data)))
            self._file.write(data)
            self._rows.clear()


def derive_contig(
    rows: npt.NDArray[Any],
    letters_L: UInt8,
    min_frequency: float,
    files: Sequence[str],
    name: str,
    stored_V: Int64,
) -> Derived:
    """Judge the rows of a contig.

    Parameters
    ----------
    rows : ndarray of `PLACE`, shape (R,)
        The contig's rows, in the order of files, lines and alleles.
    letters_L : ndarray of uint8, shape (L,)
        The FASTA's letters as ASCII, either case.
    min_frequency : float
        Positions are kept whose alternates sum to more.
    files : sequence of str
        The VCF files' names.
    name : str
        The contig's, for messages.
    stored_V : ndarray of int64, shape (V,)
        The positions of the store that is verified, which decide where a sum is within 1e-6 (relative) of the
        minimum, as sums of rounded numbers may fall on either side.

    Returns
    -------
    Derived
        What the store should hold, and what became of the records.

    Raises
    ------
    InputError
        When frequencies are impossible, so that no genome can have been built from the files.
    """
    fate_R = np.zeros(len(rows), dtype=np.uint8)
    position_R = rows["position"].copy()
    order_R = np.argsort(position_R, kind="stable")
    judged = []
    start = 0
    while start < len(rows):
        # Rows of one position stay together; only these have to do with each other.
        first, last = position_R[order_R[[start, min(start + _ROWS_AT_ONCE, len(rows)) - 1]]]
        end = int(np.searchsorted(position_R, last, side="right", sorter=order_R))
        near_V = stored_V[np.searchsorted(stored_V, first) : np.searchsorted(stored_V, last, side="right")]
        piece = rows[order_R[start:end]]
        fate_R[order_R[start:end]], *variants = _judge(piece, letters_L, min_frequency, files, name, near_V)
        judged.append(variants)
        start = end
    fates_F17, decomposed_F = _count_records(rows, fate_R, len(files))
    return Derived(
        np.concatenate([np.empty(0, dtype=np.int64), *(position_V for position_V, _ in judged)]),
        np.concatenate([np.empty((0, 4)), *(frequency_V4 for _, frequency_V4 in judged)]),
        fates_F17,
        decomposed_F,
    )


def _judge(
    rows: npt.NDArray[Any],
    letters_L: UInt8,
    min_frequency: float,
    files: Sequence[str],
    name: str,
    stored_V: Int64,
) -> tuple[UInt8, Int64, Float64]:
    """Judge rows that ascend by position, the earlier first: their fates, positions that vary, and frequencies."""
    position_R = rows["position"]
    inside_R = position_R < len(letters_L)
    bits_R = np.zeros(len(rows), dtype=np.uint8)
    bits_R[inside_R] = BITS_OF_BYTE[letters_L[position_R[inside_R]]]
    fate_R = np.zeros(len(rows), dtype=np.uint8)
    fate_R[((bits_R >> rows["reference"]) & 1) == 0] = OTHER_REFERENCE
    fate_R[bits_R == BITS["N"]] = UNKNOWN_REFERENCE
    fate_R[~inside_R] = OUTSIDE

    # Where the FASTA has an IUPAC code, the earliest row says which of its bases is the reference.
    row_K = np.flatnonzero(fate_R == 0)
    first_K = _first_of_group(position_R[row_K])
    other_K = rows["reference"][row_K] != rows["reference"][row_K[first_K]]
    fate_R[row_K[other_K]] = CONFLICT

    # Of equal alleles the earliest counts.
    row_K = row_K[~other_K]
    row_K = row_K[np.lexsort((rows["allele"][row_K], rows["alternate"][row_K], position_R[row_K]))]
    kept = rows[row_K]
    first_K = _first_of_group(kept["position"], kept["alternate"], kept["allele"])
    again_K = first_K != np.arange(len(row_K))
    same_K = kept["frequency"] == kept["frequency"][first_K]
    fate_R[row_K[again_K & same_K]] = DUPLICATE
    fate_R[row_K[again_K & ~same_K]] = CONFLICT

    # Different alleles of one position add up.
    accepted = kept[~again_K]
    position_V, variant_A = np.unique(accepted["position"], return_inverse=True)
    frequency_V4 = np.zeros((len(position_V), 4))
    np.add.at(frequency_V4, (variant_A, accepted["alternate"]), accepted["frequency"].astype(np.float64))
    sum_V = frequency_V4.sum(axis=1)
    wrong_A = ~((accepted["frequency"] >= 0) & (accepted["frequency"] <= 1)) | (sum_V[variant_A] > 1 + _ROUNDING)
    if np.any(wrong_A):
        wrong = accepted[wrong_A][0]
        raise InputError(
            f"{files[wrong['file']]}: {name}:{wrong['position'] + 1}: the frequencies are impossible (below 0, above "
            "1, or not one number for each alternate allele), so that no genome was built from it; give another file"
        )
    near_V = (np.abs(sum_V - min_frequency) <= _NEAR * min_frequency) & (sum_V > 0)
    above_V = np.where(near_V, np.isin(position_V, stored_V), sum_V > min_frequency)
    reference_V = np.zeros(len(position_V), dtype=np.uint8)
    reference_V[variant_A] = accepted["reference"]
    frequency_V4[np.arange(len(position_V)), reference_V] = np.maximum(1 - sum_V, 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)
    fate_R[row_K[~again_K]] = np.where(above_V[variant_A] & (accepted["frequency"] > 0), USED, TOO_RARE)
    return fate_R, position_V[above_V].astype(np.int64), frequency_V4[above_V]


def _first_of_group(*sorted_keys: npt.NDArray[Any]) -> Int64:
    """For each sorted row, give the first row with the same keys."""
    begins = np.zeros(len(sorted_keys[0]), dtype=bool)
    begins[:1] = True
    for key in sorted_keys:
        begins[1:] |= key[1:] != key[:-1]
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))


def _count_records(rows: npt.NDArray[Any], fate_R: UInt8, files: int) -> tuple[Int64, Int64]:
    """Count each record once, by the row that came furthest."""
    if not len(rows):
        return np.zeros((files, len(FATES)), dtype=np.int64), np.zeros(files, dtype=np.int64)
    # The rows of a record follow each other.
    start = np.flatnonzero(np.diff(rows["record"], prepend=rows["record"][:1] + 1))
    fate = np.maximum(np.maximum.reduceat(fate_R, start), rows["fate"][start])
    several = np.logical_or.reduceat((fate_R == USED) & (rows["allele"] != 0), start)
    file = rows["file"][start].astype(np.int64)
    fates = np.bincount(file * len(FATES) + fate, minlength=files * len(FATES)).reshape(files, len(FATES))
    return fates, np.bincount(file[several], minlength=files)
