"""The scores of some records, written as part of a VCF or of a table.

Shape suffixes: N records, A alternate alleles, F fields.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pysam

from mutbert.effects.alleles import Kind
from mutbert.effects.records import annotate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float64
    from mutbert.effects.alleles import Alleles
    from mutbert.effects.records import Records


KIND_TEXT: Final = {Kind.NONE: "none", Kind.SNV: "snv", Kind.MNV: "mnv", Kind.INDEL: "indel"}
"""Kinds of alleles, as tables have them."""
SCORED: Final = "."
"""Stands for no reason where an allele is scored."""
_PLACE_COLUMNS: Final = ("chrom", "pos", "id", "ref", "alt", "kind")
_WHY: Final = "why"
NUMBERS: Final = "npz"
"""Kind of the parts of which the file of a background is made."""


class Scored(NamedTuple):
    """Records with the scores of their alternate alleles.

    Parameters
    ----------
    records : Records
        The records.
    alleles : Alleles
        Their alternates.
    columns : mapping of str to ndarray of float64, shape (A,)
        Each field by name; NaN where an allele has none.
    why : list of str, length A
        Why an allele has no score; `SCORED` where it has.
    """

    records: Records
    alleles: Alleles
    columns: Mapping[str, Float64]
    why: Sequence[str]


def info_texts(scored: Scored, prefix: str) -> list[bytes]:
    """Write the new INFO fields of each record; empty where it has none of them.

    Parameters
    ----------
    scored : Scored
        N records.
    prefix : str
        What stands before the names of fields.

    Returns
    -------
    list of bytes, length N
        ``MUTBERT_LLR=-1.5,.;MUTBERT_WHY=.,symbolic``: a value an alternate, ``.`` where it has none. A field of which
        no alternate has a value is left out.
    """
    record_A = scored.alleles.record_A
    count = len(scored.records.lines)
    first_N = np.searchsorted(record_A, np.arange(count + 1)).tolist()
    found: list[list[str]] = [[] for _ in range(count)]
    columns = {name: _texts(value_A, ".") for name, value_A in scored.columns.items()} | {"WHY": list(scored.why)}
    for name, text_A in columns.items():
        has_A = np.array([text != "." for text in text_A], dtype=np.bool_)
        for record in np.unique(record_A[has_A]).tolist():
            found[record].append(f"{prefix}_{name}={','.join(text_A[first_N[record] : first_N[record + 1]])}")
    return [";".join(words).encode() for words in found]


def _texts(value_A: Float64, missing: str) -> list[str]:
    # Plus zero, so that none is written as -0.
    return [missing if math.isnan(value) else f"{value:.6g}" for value in (value_A + 0.0).tolist()]


def _write_vcf(scored: Scored, prefix: str, path: Path) -> None:
    write_bgzf(path, annotate(scored.records.lines, info_texts(scored, prefix)))


def _write_tsv(scored: Scored, _prefix: str, path: Path) -> None:
    columns = [list(map(str, column)) for column in _places(scored)]
    columns += [_texts(value_A, "") for value_A in scored.columns.values()]
    columns.append(["" if why == SCORED else why for why in scored.why])
    text = "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))
    write_bgzf(path, text.encode("utf-8", "surrogateescape"))


def _write_parquet(scored: Scored, _prefix: str, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns: list[Any] = [pa.array(column, kind) for column, kind in zip(_places(scored), _place_types(), strict=True)]
    columns += [pa.array(value_A.astype(np.float32), from_pandas=True) for value_A in scored.columns.values()]
    columns.append(pa.array([None if why == SCORED else why for why in scored.why], pa.string()))
    table = pa.Table.from_arrays(columns, schema=table_schema(tuple(scored.columns)))
    parquet.write_table(table, path)


def _write_numbers(scored: Scored, _prefix: str, path: Path) -> None:
    with path.open("wb") as file:
        arrays: dict[str, Any] = {"kind": scored.alleles.kind_A, **scored.columns}
        np.savez(file, **arrays)


WRITERS: Final[dict[str, Callable[[Scored, str, Path], None]]] = {
    "vcf.gz": _write_vcf,
    "tsv.gz": _write_tsv,
    "parquet": _write_parquet,
    NUMBERS: _write_numbers,
}
"""What writes a part, by the kind of its file."""


def table_header(columns: Sequence[str]) -> bytes:
    """Write the first line of a table of these fields."""
    return ("\t".join([*_PLACE_COLUMNS, *columns, _WHY]) + "\n").encode()


def table_schema(columns: Sequence[str]) -> Any:
    """Give the Arrow schema of a table of these fields."""
    import pyarrow as pa

    return pa.schema(
        [
            *zip(_PLACE_COLUMNS, _place_types(), strict=True),
            *((name, pa.float32()) for name in columns),
            (_WHY, pa.string()),
        ]
    )


def _place_types() -> list[Any]:
    import pyarrow as pa

    return [pa.string(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.string()]


def _places(scored: Scored) -> list[list[Any]]:
    """Give the columns that say which allele each row is."""
    records = scored.records
    rows = scored.alleles.record_A.tolist()
    alternates = [alternate for several in records.alternates for alternate in several.split(",")]
    names = [line.split(b"\t", 3)[2].decode("utf-8", "replace") for line in records.lines]
    return [
        [records.contigs[row] for row in rows],
        [records.positions[row] for row in rows],
        [names[row] for row in rows],
        [records.references[row] for row in rows],
        alternates,
        [KIND_TEXT[Kind(kind)] for kind in scored.alleles.kind_A.tolist()],
    ]


def write_bgzf(path: Path, content: bytes) -> None:
    """Write a file that is BGZF whatever its name."""
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(content)


def read_numbers(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read a part of kind ``npz``: ``kind``, as `Kind`, and each field."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
