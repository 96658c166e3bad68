"""Files of embeddings: Parquet, written as they come, and safetensors.

Shape suffixes: D hidden size.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

import numpy as np

from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

SUFFIXES: Final = (".parquet", ".safetensors")
_BYTES_A_ROW_GROUP: Final = 64 << 20


class Record(NamedTuple):
    """A sequence to embed, and where it is from.

    Parameters
    ----------
    name : str
        The FASTA record's name; or the BED region's, and where it has none its place, ``chr22:101-200``.
    contig : str
        The contig; for a FASTA record its own name.
    start, end : int
        0-based and half-open.
    """

    name: str
    contig: str
    start: int
    end: int


class Writer(Protocol):
    """Takes the embeddings one by one, in the order of the records; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def add(self, embedding: Float32) -> None:
        """Take the next record's embedding: shape (D,), or (its bases, D)."""


def check_writable(output: Path, records: Sequence[Record], pooling: str) -> None:
    """Refuse what could not be written, before the model is run for it.

    Parameters
    ----------
    output : Path
        The file that is to be written.
    records : sequence of Record
        What is to be embedded.
    pooling : str
        ``"none"`` where there is an embedding a base.

    Raises
    ------
    InputError
        When the suffix names no format; when records that need names of their own share one.
    MissingExtraError
        When pyarrow is needed and not installed.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(SUFFIXES)}")
    if output.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "embed") from None
    elif pooling == "none":
        seen: set[str] = set()
        for record in records:
            if record.name in seen:
                raise InputError(
                    f"{output}: {record.name} comes twice, and safetensors keep each record under its name; rename "
                    "one, or write .parquet"
                )
            seen.add(record.name)


def open_writer(path: Path, records: Sequence[Record], hidden_size: int, pooling: str) -> Writer:
    """Open a file for embeddings.

    Parameters
    ----------
    path : Path
        The file; its suffix chooses the format. See `mutbert.inference.embeddings.embed` for both.
    records : sequence of Record
        What is embedded, in the order in which the embeddings will come.
    hidden_size : int
        Numbers in one embedding.
    pooling : str
        ``"none"`` where there is an embedding a base.

    Returns
    -------
    Writer
        To be used as a context manager; the file is whole when the block has ended.
    """
    if path.suffix == ".parquet":
        return _ParquetWriter(path, records, hidden_size, pooling)
    return _SafetensorsWriter(path, records, pooling)


class _ParquetWriter:
    """Write rows as they come, a row group each so many megabytes."""

    def __init__(self, path: Path, records: Sequence[Record], hidden_size: int, pooling: str) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        one = pa.list_(pa.float32(), hidden_size)
        self._records = records
        self._hidden_size = hidden_size
        self._pooled = pooling != "none"
        self._schema = pa.schema(
            [
                ("name", pa.string()),
                ("contig", pa.string()),
                ("start", pa.int64()),
                ("end", pa.int64()),
                ("embedding", one if self._pooled else pa.list_(one)),
            ],
            metadata={"pooling": pooling},
        )
        self._file = parquet.ParquetWriter(path, self._schema)
        self._written = 0
        self._waiting: list[Float32] = []
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()

    def add(self, embedding: Float32) -> None:
        self._waiting.append(embedding)
        self._waiting_bytes += embedding.nbytes
        if self._waiting_bytes >= _BYTES_A_ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        records = self._records[self._written : self._written + len(self._waiting)]
        flat = pa.array(np.concatenate([embedding.reshape(-1) for embedding in self._waiting]))
        embeddings: Any = pa.FixedSizeListArray.from_arrays(flat, self._hidden_size)
        if not self._pooled:
            ends = np.cumsum([0, *(len(embedding) for embedding in self._waiting)])
            embeddings = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), embeddings)
        columns = [pa.array(column) for column in zip(*records, strict=True)]
        self._file.write_table(pa.Table.from_arrays([*columns, embeddings], schema=self._schema))
        self._written += len(self._waiting)
        self._waiting = []
        self._waiting_bytes = 0


class _SafetensorsWriter:
    """Keep the embeddings and write them at the end, as the format asks for."""

    def __init__(self, path: Path, records: Sequence[Record], pooling: str) -> None:
        self._path = path
        self._records = records
        self._pooling = pooling
        self._embeddings: list[Float32] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from safetensors.numpy import save_file

        if kind is not None:
            return
        if self._pooling == "none":
            tensors = {
                record.name: np.ascontiguousarray(embedding)
                for record, embedding in zip(self._records, self._embeddings, strict=True)
            }
        else:
            tensors = {"embeddings": np.stack(self._embeddings)}
        columns = zip(("names", "contigs", "starts", "ends"), zip(*self._records, strict=True), strict=True)
        metadata = {"pooling": self._pooling, **{title: json.dumps(column) for title, column in columns}}
        save_file(tensors, self._path, metadata=metadata)

    def add(self, embedding: Float32) -> None:
        self._embeddings.append(embedding)
