"""Files of embeddings: Parquet, written as they come; safetensors; and AnnData.

Shape suffixes: K layers, L length in bases, D hidden size, N records.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

import numpy as np

import mutbert
from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mutbert.arrays import Float32
    from mutbert.inference.embedding_sources import Record


SUFFIXES: Final = (".parquet", ".safetensors", ".h5ad")
_BYTES_A_ROW_GROUP: Final = 64 << 20


class Making(NamedTuple):
    """How embeddings are made, which every file says.

    Parameters
    ----------
    model : str
        The model's folder or name.
    hidden_size : int
        Numbers in one embedding.
    pooling : str
        ``"none"`` where there is an embedding a base.
    layers : tuple of int
        The layers, 0 being the embedding layer.
    strands : str
        ``"forward"`` or ``"both"``.
    surroundings : str
        ``"reference"``, ``"population"`` or ``"person"`` of a genome's regions; ``"sequence"`` of sequences.
    """

    model: str
    hidden_size: int
    pooling: str
    layers: tuple[int, ...]
    strands: str
    surroundings: str

    def named(self, stem: str) -> list[str]:
        """Give each layer's name for something: the stem alone for one layer, ``STEM_LAYER`` for several."""
        return [stem] if len(self.layers) == 1 else [f"{stem}_{layer}" for layer in self.layers]

    def metadata(self) -> dict[str, str]:
        """Write it down as text."""
        return {
            "model": self.model,
            "pooling": self.pooling,
            "layers": json.dumps(self.layers),
            "strands": self.strands,
            "surroundings": self.surroundings,
            "version": mutbert.__version__,
        }


class Writer(Protocol):
    """Takes the embeddings one by one, in the order of the records; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def add(self, record: Record, embedding: Float32) -> None:
        """Take the next record and its embedding: shape (K, D), or (K, its bases, D)."""


def check_writable(output: Path, pooling: str) -> None:
    """Refuse what could not be written, before the model is run for it.

    Parameters
    ----------
    output : Path
        The file that is to be written.
    pooling : str
        ``"none"`` where there is an embedding a base.

    Raises
    ------
    InputError
        When the suffix names no format, or one that has no place for an embedding a base.
    MissingExtraError
        When a library is needed and not installed.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(SUFFIXES)}")
    if output.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "embed") from None
    elif output.suffix == ".h5ad":
        if pooling == "none":
            raise InputError(
                f"{output}: holds one embedding a sequence, and pooling none gives one a base; choose mean, max or "
                "cls, or write .parquet or .safetensors"
            )
        try:
            import anndata  # noqa: F401
        except ImportError:
            raise MissingExtraError("anndata", "h5ad") from None


def refuse_clashes(records: Iterator[Record], output: Path, pooling: str) -> Iterator[Record]:
    """Pass records on, and refuse one whose name came before where the file has no place for both.

    Raises
    ------
    InputError
        When it does.
    """
    if output.suffix != ".safetensors" or pooling != "none":
        yield from records
        return
    seen: set[str] = set()
    for record in records:
        if record.name in seen:
            raise InputError(
                f"{output}: {record.name} comes twice, and safetensors keep each record under its name; rename one, or "
                "write .parquet"
            )
        seen.add(record.name)
        yield record


def open_writer(path: Path, making: Making) -> Writer:
    """Open a file for embeddings.

    Parameters
    ----------
    path : Path
        The file; its suffix chooses the format. See `mutbert.inference.embeddings.embed` for them.
    making : Making
        How the embeddings are made.

    Returns
    -------
    Writer
        To be used as a context manager; the file is whole when the block has ended.
    """
    if path.suffix == ".parquet":
        return _ParquetWriter(path, making)
    return _SafetensorsWriter(path, making) if path.suffix == ".safetensors" else _AnnDataWriter(path, making)


class _ParquetWriter:
    """Write rows as they come, a row group each so many megabytes."""

    def __init__(self, path: Path, making: Making) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        one = pa.list_(pa.float32(), making.hidden_size)
        self._hidden_size = making.hidden_size
        self._pooled = making.pooling != "none"
        self._schema = pa.schema(
            [
                ("name", pa.string()),
                ("contig", pa.string()),
                ("start", pa.int64()),
                ("end", pa.int64()),
                *((name, one if self._pooled else pa.list_(one)) for name in making.named("embedding")),
            ],
            metadata=making.metadata(),
        )
        self._file = parquet.ParquetWriter(path, self._schema)
        self._records: list[Record] = []
        self._embeddings: list[Float32] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()

    def add(self, record: Record, embedding: Float32) -> None:
        self._records.append(record)
        self._embeddings.append(embedding)
        self._bytes += embedding.nbytes
        if self._bytes >= _BYTES_A_ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._records:
            return
        columns = [pa.array(column) for column in zip(*self._records, strict=True)]
        for place in range(len(self._embeddings[0])):
            layer = [embedding[place] for embedding in self._embeddings]
            flat = pa.array(np.concatenate([values.reshape(-1) for values in layer]))
            values: Any = pa.FixedSizeListArray.from_arrays(flat, self._hidden_size)
            if not self._pooled:
                ends = np.cumsum([0, *map(len, layer)])
                values = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
            columns.append(values)
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._records, self._embeddings, self._bytes = [], [], 0


class _SafetensorsWriter:
    """Keep the embeddings and write them at the end, as the format asks for."""

    def __init__(self, path: Path, making: Making) -> None:
        self._path = path
        self._making = making
        self._records: list[Record] = []
        self._embeddings: list[Float32] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from safetensors.numpy import save_file

        if kind is not None:
            return
        tensors: dict[str, Float32] = {}
        if self._making.pooling == "none":
            for record, embedding in zip(self._records, self._embeddings, strict=True):
                tensors |= dict(zip(self._making.named(record.name), embedding, strict=True))
        else:
            for place, name in enumerate(self._making.named("embeddings")):
                tensors[name] = np.stack([embedding[place] for embedding in self._embeddings])
        columns = zip(("names", "contigs", "starts", "ends"), zip(*self._records, strict=True), strict=True)
        metadata = self._making.metadata() | {title: json.dumps(column) for title, column in columns}
        save_file(tensors, self._path, metadata=metadata)

    def add(self, record: Record, embedding: Float32) -> None:
        self._records.append(record)
        self._embeddings.append(embedding)


class _AnnDataWriter:
    """Keep the embeddings on the disk beside the output, since AnnData is written from whole matrices."""

    def __init__(self, path: Path, making: Making) -> None:
        self._path = path
        self._making = making
        self._records: list[Record] = []
        # Each layer's rows; the files have no name and go with the process.
        self._files = ExitStack()
        self._rows = [
            self._files.enter_context(tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115 - closed with the others
            for _ in making.layers
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._files:
            if kind is None:
                self._write()

    def add(self, record: Record, embedding: Float32) -> None:
        self._records.append(record)
        for rows, values in zip(self._rows, embedding, strict=True):
            rows.write(values.tobytes())

    def _write(self) -> None:
        import anndata

        matrices = [self._matrix(rows) for rows in self._rows]
        names, contigs, starts, ends = (list(column) for column in zip(*self._records, strict=True))
        several = zip(self._making.named("X_layer"), matrices, strict=True) if len(matrices) > 1 else ()
        anndata.AnnData(
            matrices[0],
            obs={"obs_names": _told_apart(names), "name": names, "contig": contigs, "start": starts, "end": ends},
            obsm=dict(several),
            uns=self._making.metadata() | {"layers": np.array(self._making.layers)},
        ).write_h5ad(self._path)

    def _matrix(self, rows: Any) -> Float32:
        rows.flush()
        shape = (len(self._records), self._making.hidden_size)
        # As a plain array, since AnnData writes no other.
        return np.asarray(np.memmap(rows, dtype=np.float32, mode="r", shape=shape))


def _told_apart(names: list[str]) -> list[str]:
    """Put ``-1``, ``-2``… behind a name that came before, as AnnData's ``obs_names_make_unique`` does."""
    taken, times = set(names), dict.fromkeys(names, 0)
    seen: set[str] = set()
    found = []
    for name in names:
        unique = name
        while unique in seen or (unique != name and unique in taken):
            times[name] += 1
            unique = f"{name}-{times[name]}"
        seen.add(unique)
        found.append(unique)
    return found
