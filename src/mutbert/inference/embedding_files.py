"""Files of embeddings: parts of a run as Parquet, and outputs as Parquet, safetensors or AnnData.

Shape suffixes: X vectors (one a record, or one a token), K layers, D hidden size.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
from safetensors.numpy import save_file

import mutbert
from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mutbert.arrays import Float32
    from mutbert.inference.sequences import Record

_COLUMNS: Final = ("name", "contig", "start", "end")


class Provenance(NamedTuple):
    """How embeddings were made, which every file holds; `surroundings` is ``sequence`` without a genome."""

    model: str
    pooling: str
    layers: tuple[int, ...]
    strands: str
    surroundings: str

    def named(self, stem: str) -> list[str]:
        """Return each layer's name for something: the stem alone for one layer, ``STEM_LAYER`` for several."""
        return [stem] if len(self.layers) == 1 else [f"{stem}_{layer}" for layer in self.layers]

    def metadata(self) -> dict[str, str]:
        """Return it as text."""
        return self._asdict() | {"layers": json.dumps(self.layers), "version": mutbert.__version__}


def part_of(records: Sequence[Record], vectors: Sequence[Float32], made: Provenance) -> pl.DataFrame:
    """Return a row a record, with its vectors of each layer, given as (n, K, D) each."""
    columns: dict[str, Any] = dict(zip(_COLUMNS, zip(*(record[:4] for record in records), strict=True), strict=True))
    vector_XKD = np.concatenate(vectors)
    layers = {name: vector_XKD[:, place] for place, name in enumerate(made.named("embedding"))}
    frame = pl.DataFrame({name: np.ascontiguousarray(vector_XD) for name, vector_XD in layers.items()})
    if made.pooling == "none":
        record = pl.Series("record", np.repeat(np.arange(len(vectors)), [len(rows) for rows in vectors]))
        frame = frame.group_by(record, maintain_order=True).agg(pl.all()).drop("record")
    return pl.DataFrame(columns).hstack(frame)


def check_format(output: Path, pooling: str) -> None:
    """Raise where an output cannot be written, before the model runs."""
    if output.suffix not in WRITERS:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(WRITERS)}")
    if output.suffix == ".h5ad" and pooling == "none":
        raise InputError(f"{output}: holds one embedding a sequence, and pooling none gives one a base; choose another "
                         "pooling, or write .parquet or .safetensors")  # fmt: skip
    library, extra = {".parquet": ("pyarrow", "embed"), ".h5ad": ("anndata", "h5ad")}.get(output.suffix, ("json", ""))
    try:
        import_module(library)
    except ImportError:
        raise MissingExtraError(library, extra) from None


def _write_parquet(path: Path, parts: list[Path], made: Provenance) -> None:
    """Write part by part, so that memory does not grow with their number."""
    from pyarrow import parquet

    with ExitStack() as stack:
        file: Any = None
        for table in (pl.read_parquet(part).to_arrow().replace_schema_metadata(made.metadata()) for part in parts):
            file = file or stack.enter_context(parquet.ParquetWriter(path, table.schema))
            file.write_table(table)


def _write_safetensors(path: Path, parts: list[Path], made: Provenance) -> None:
    """Write all embeddings at once, as the format asks for."""
    frame = pl.read_parquet(parts)
    tensors: dict[str, Float32] = {}
    for layer, column in enumerate(made.named("embedding")):
        if made.pooling == "none":
            bounds = frame[column].list.len().cum_sum().to_numpy()[:-1]
            for name, vector_LD in zip(
                frame["name"], np.split(frame[column].explode().to_numpy(), bounds), strict=True
            ):
                tensors[made.named(name)[layer]] = np.ascontiguousarray(vector_LD)
        else:
            tensors[made.named("embeddings")[layer]] = np.ascontiguousarray(frame[column].to_numpy())
    save_file(tensors, path, made.metadata() | {f"{name}s": json.dumps(frame[name].to_list()) for name in _COLUMNS})


def _write_anndata(path: Path, parts: list[Path], made: Provenance) -> None:
    import anndata

    frame = pl.read_parquet(parts)
    layers = [frame[name].to_numpy().copy() for name in made.named("embedding")]
    data = anndata.AnnData(
        layers[0],
        obs={"obs_names": list(map(str, range(len(frame)))), **frame.select(_COLUMNS).to_dict(as_series=False)},
        obsm=dict(zip(made.named("X_layer"), layers, strict=True)) if len(layers) > 1 else None,
        uns=made.metadata() | {"layers": np.array(made.layers)},
    )
    data.obs_names = frame["name"].to_list()
    data.obs_names_make_unique()
    data.write_h5ad(path)


WRITERS: Final[dict[str, Callable[[Path, list[Path], Provenance], None]]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
    ".h5ad": _write_anndata,
}
"""By suffix: ``write(path, parts, made)`` writes the embeddings of all parts, in their order."""
