"""Embeddings of sequences and of genome regions: of any layers and both strands, pooled or of every base.

Shape suffixes: N records, B batch, X vectors (one a record, or one a token), K layers, L tokens, D hidden size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

import mutbert
from mutbert.arrays import list_ranges
from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.token_encoders import AutoEncoder, BaseStates, TokenStates
from mutbert.errors import InputError, require
from mutbert.files import atomic_file, check_output
from mutbert.inference import run
from mutbert.inference.resumable import parts_folder, run_parts
from mutbert.inference.sequences import open_source
from mutbert.model import MutBertModel, MutBertPreTrainedModel
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mutbert.arrays import Int64
    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.inference.sequences import Record, Source

POOLINGS: Final = ("mean", "max", "cls", "none")
_COLUMNS: Final = ("name", "contig", "start", "end")
_RECORDS_AT_ONCE: Final = 1024
_BYTES_AT_ONCE: Final = 256 << 20


@dataclass(frozen=True)
class EmbeddingReport:
    """What `embed` wrote."""

    output: Path
    records: int
    bases: int
    hidden_size: int
    pooling: str
    layers: tuple[int, ...]
    strands: str
    differing: int | None  # positions of a person in the regions, not the reference's
    not_used: Mapping[str, int]  # of the person's records, by reason


def embed(
    model: str | Path | MutBertPreTrainedModel, *,
    input: str | Path | None = None,  # noqa: A002 - the option's name
    fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, surroundings: str = "population", person_vcf: str | Path | None = None,
    sample: str | None = None, sequence_column: str | None = None, name_column: str | None = None,
    output: str | Path, layers: int | str | Sequence[int] = -1, pooling: str = "mean", strands: str = "forward",
    batch_size: int = 32, precision: str = "fp32", rope_scaling: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False, resume: bool = False, force: bool = False, progress: bool = False,
) -> EmbeddingReport:  # fmt: skip
    """Embed the sequences of a file, or regions of a probabilistic genome.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint of MutBERT or any other model, or a name of ``mutbert bench list``, run on a GPU if there is one
        (in Python also a loaded MutBERT).
    input, fasta, genome, bed, sequence_column, name_column : optional
        FASTA, FASTQ, CSV, TSV, Parquet or BED by its suffix, plain, gzip or bgzip; FASTA of any name; store whose
        regions are embedded; the regions; a table's column of sequences, by default ``sequence``; its column of names,
        by default ``name``.
    surroundings, person_vcf, sample : optional
        What a position of the store is: ``reference``, all that models of tokens read, ``population`` or ``person``;
        VCF with the person's genotypes; name of the person.
    output : str or Path
        A ``.parquet``, ``.safetensors`` or ``.h5ad`` file, as ``docs/embeddings.md`` describes them.
    layers : int, sequence of int, or "all"
        0 is the embedding layer's output, i that of layer i; from the end -1 is the last layer.
    pooling : {"mean", "max", "cls", "none"}
        ``mean`` or ``max`` over MutBERT's bases, or all tokens of other models; ``cls``, the state at ``[CLS]``; or
        ``none``, one embedding per base or token. IUPAC codes are the distributions they stand for, N is ``[UNK]``.
    strands, batch_size, precision, rope_scaling, trust_remote_code, resume, force, progress : optional
        As for the other commands; `rope_scaling` is MutBERT's ``{"type": "linear" | "dynamic", "factor": f}``.
    """
    output = Path(output)
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
    run.check_run(strands, precision, batch_size)
    check_output(output, force=force, inputs=run.on_disk(model, input, fasta, genome, bed, person_vcf))
    if output.suffix not in _FORMATS:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(_FORMATS)}")
    if output.suffix == ".h5ad" and pooling == "none":
        raise InputError(f"{output}: holds one embedding a sequence, and pooling none gives one a base; choose another "
                         "pooling, or write .parquet or .safetensors")  # fmt: skip
    require(_FORMATS[output.suffix][1])
    source = open_source(
        input, fasta=fasta, genome=genome, bed=bed, surroundings=surroundings, person_vcf=person_vcf, sample=sample,
        sequence_column=sequence_column, name_column=name_column, progress=progress,
    )  # fmt: skip
    states = _open_states(model, pooling, strands, rope_scaling, trust_remote_code=trust_remote_code)
    if isinstance(states, TokenStates) and genome is not None and surroundings != "reference":
        raise InputError(f"{model}: reads tokens, not allele frequencies; give --surroundings reference")
    config = states.body.config
    chosen, hidden_size = _resolve_layers(layers, config.num_hidden_layers), int(config.hidden_size)
    metadata = {
        "model": run.model_name(model), "pooling": pooling, "layers": json.dumps(chosen), "strands": strands,
        "surroundings": "sequence" if genome is None else surroundings, "version": mutbert.__version__,
    }  # fmt: skip
    how = {"strands": strands, "batch_size": batch_size, "precision": precision}
    with run.rope_scaled(config, rope_scaling):
        records, bases, longest = _survey(source, states, output, pooling, progress=progress)
        plan = {**metadata, **source.plan, "precision": precision, "rope_scaling": rope_scaling}
        plan["model"] = run.model_hash(states.body)
        with (
            parts_folder(output, plan, resume=resume, force=force) as folder,
            progress_bar("embedding", records, unit="sequences", show=progress) as advance,
        ):
            vectors = _BYTES_AT_ONCE // (4 * len(chosen) * hidden_size)
            at_once = min(_RECORDS_AT_ONCE, max(vectors // (longest if pooling == "none" else 1), 1))
            read = source.read()

            def compute(group: Sequence[Record], path: Path) -> None:
                frame = _embed_records(states, group, source.windows(group), chosen, pooling, **how, advance=advance)
                frame.write_parquet(path, compression="uncompressed")

            groups = enumerate(iter(lambda: list(islice(read, at_once)), []))
            parts = run_parts(folder, groups, compute, skipped=lambda group: advance(len(group)))
            with atomic_file(output, force=force) as partial:
                _FORMATS[output.suffix][0](partial, parts, metadata)
    return EmbeddingReport(
        output, records, bases, hidden_size, pooling, chosen, strands, source.differing, source.not_used
    )


def _resolve_layers(layers: int | str | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the numbers, from 0, of the layers that are asked for, of a model that has so many."""
    asked: Any = range(count + 1) if layers == "all" else (layers,) if isinstance(layers, int) else layers
    found = [] if isinstance(asked, str) else [one % (count + 1) for one in asked if -count - 1 <= one <= count]
    if not found or len(set(found)) < len(asked):
        raise InputError(f"layers is {layers!r}; the model has {count} layers: give numbers from 0 (the embedding "
                         f"layer) to {count}, or from -1 (the last) to {-count - 1}, each once; or all")  # fmt: skip
    return tuple(found)


def _survey(
    source: Source, states: BaseStates | TokenStates, output: Path, pooling: str, *, progress: bool
) -> tuple[int, int, int]:
    """Return the numbers of records and bases and the longest length, having found mistakes before the model runs."""
    names = set[str]()
    records = bases = longest = 0
    with progress_bar("checking", None, unit="sequences", show=progress) as advance:
        for region, code_L in source.read():
            _check_length(states, (region, code_L), source)
            if region.name in names:
                raise InputError(f"{output}: {region.name} comes twice, and names a tensor; rename one, or write "
                                 ".parquet")  # fmt: skip
            if output.suffix == ".safetensors" and pooling == "none":
                names.add(region.name)
            records, bases, longest = records + 1, bases + len(region), max(longest, len(region))
            advance(1)
    return records, bases, longest


def _embed_records(
    states: BaseStates | TokenStates, records: Sequence[Record], windows: PaddedWindows, layers: Sequence[int],
    pooling: str, **settings: Any,
) -> pl.DataFrame:  # fmt: skip
    """Return a row a record, with its vectors of each layer; `settings` as for `run_batches`."""
    inputs: Any = states.inputs(windows)

    def predict(rows: Int64, reverse: bool) -> list[torch.Tensor]:
        batch = run.batch_of(inputs, rows, states.body, reverse=reverse)
        return _pool(*states.states(batch, layers), pooling, reverse=reverse)

    order, (vector_XKD, count_B) = run.run_batches(states.body, inputs.length_N, predict, **settings)
    end_B, rows_N = np.cumsum(count_B, dtype=np.int64), np.argsort(order)
    record_X, row_X = list_ranges((end_B - count_B.astype(np.int64))[rows_N], end_B[rows_N])
    suffixes = [f"_{layer}" for layer in layers] if len(layers) > 1 else [""]
    vectors = {f"embedding{suffix}": vector_XKD[row_X, layer] for layer, suffix in enumerate(suffixes)}
    frame = pl.DataFrame({"record": record_X, **vectors})
    if pooling == "none":
        frame = frame.group_by("record", maintain_order=True).agg(pl.all())
    columns = {name: [getattr(region, name) for region, _ in records] for name in _COLUMNS}
    return pl.DataFrame(columns).hstack(frame.drop("record"))


def _pool(
    states: Sequence[torch.Tensor], counts_BL: torch.Tensor, pooling: str, *, reverse: bool
) -> list[torch.Tensor]:
    """Return the vectors of states, (X, K, D), and how many each sequence has, (B,)."""
    count_B, out_BL1 = counts_BL.sum(dim=1), ~counts_BL[..., None]
    if pooling == "none":
        # Of the other strand the last base comes first.
        order = [1] if reverse else []
        return [torch.stack([one.flip(order)[counts_BL.flip(order)] for one in states], dim=1), count_B]
    if pooling == "cls":
        found = [state_BLD[:, 0] for state_BLD in states]
    elif pooling == "max":
        found = [state_BLD.float().masked_fill(out_BL1, -torch.inf).amax(dim=1) for state_BLD in states]
    else:
        found = [state_BLD.float().masked_fill(out_BL1, 0).sum(dim=1) / count_B[:, None] for state_BLD in states]
    return [torch.stack(found, dim=1), torch.ones_like(count_B)]


def _check_length(states: BaseStates | TokenStates, record: Record, source: Source) -> None:
    """Raise where a record is longer than the model takes."""
    region, _ = record
    if isinstance(states, BaseStates):
        run.check_length(states.body.config, len(region), region.name)
    # No token is less than a base, but for special ones at either end.
    elif states.most is not None and len(region) > states.most - 2:
        found = int(states.inputs(source.windows([record])).length_N[0])
        if found > states.most:
            raise InputError(f"{region.name}: {len(region):,} bases are {found:,} tokens, and {states.encoder.name} "
                             f"has positions for {states.most:,}; give shorter sequences")  # fmt: skip


def _open_states(
    model: str | Path | MutBertPreTrainedModel, pooling: str, strands: str, rope_scaling: Mapping[str, Any] | None, *,
    trust_remote_code: bool,
) -> BaseStates | TokenStates:  # fmt: skip
    """Return MutBERT or another model."""
    if isinstance(model, MutBertPreTrainedModel):
        return BaseStates(model.base_model)
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    if encoder.family == CNN:
        raise InputError(f"{model}: has no weights before it is trained, so nothing can be embedded by it")
    if isinstance(encoder, AutoEncoder):
        return TokenStates(encoder, pooling, strands, rope_scaling)
    # Its pooler is not used, so it need not have one.
    return BaseStates(run.open_model(model, MutBertModel, pooler_type="mean"))


def _write_parquet(path: Path, parts: list[Path], metadata: dict[str, str]) -> None:
    from pyarrow import parquet

    schema = pl.read_parquet(parts[0], n_rows=0).to_arrow().schema.with_metadata(metadata)
    with parquet.ParquetWriter(path, schema) as file:
        # Part by part, so that memory does not grow with their number.
        for part in parts:
            file.write_table(pl.read_parquet(part).to_arrow())


def _write_safetensors(path: Path, parts: list[Path], metadata: dict[str, str]) -> None:
    frame, tensors = pl.read_parquet(parts), dict[str, Any]()
    for vectors in frame.drop(_COLUMNS):
        suffix = vectors.name.removeprefix("embedding")
        if metadata["pooling"] == "none":
            tensors |= {f"{name}{suffix}": one.to_numpy() for name, one in zip(frame["name"], vectors, strict=True)}
        else:
            tensors[f"embeddings{suffix}"] = vectors.to_numpy()
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, path, metadata | {f"{name}s": json.dumps(frame[name].to_list()) for name in _COLUMNS})


def _write_anndata(path: Path, parts: list[Path], metadata: dict[str, str]) -> None:
    import anndata

    frame = pl.read_parquet(parts)
    layers = {column.name.replace("embedding", "X_layer"): column.to_numpy().copy() for column in frame.drop(_COLUMNS)}
    data = anndata.AnnData(
        next(iter(layers.values())),
        obs={"obs_names": list(map(str, range(len(frame)))), **frame.select(_COLUMNS).to_dict(as_series=False)},
        obsm=layers if len(layers) > 1 else None,
        uns=metadata | {"layers": np.array(json.loads(metadata["layers"]))},
    )
    data.obs_names = frame["name"].to_list()
    data.obs_names_make_unique()
    data.write_h5ad(path)


# By suffix, what writes it, and the library that it needs.
_FORMATS: Final[dict[str, tuple[Callable[[Path, list[Path], dict[str, str]], None], str]]] = {
    ".parquet": (_write_parquet, "pyarrow"),
    ".safetensors": (_write_safetensors, "safetensors"),
    ".h5ad": (_write_anndata, "anndata"),
}
