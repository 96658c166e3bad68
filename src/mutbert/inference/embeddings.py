"""Embeddings of sequences and of genome regions: of any layers and both strands, pooled or of every base.

Shape suffixes: B batch, P pieces of sequences, X vectors (one a piece, or one a token), K layers, L bases or tokens,
D hidden size.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file
from torch import nn

import mutbert
from mutbert.arrays import Float32, Int64
from mutbert.encoders.adapter import MutBertEncoder, open_encoder
from mutbert.encoders.inputs import Inputs
from mutbert.encoders.token_encoders import most_tokens
from mutbert.errors import InputError, require
from mutbert.examples.table import Columns, Examples, read_examples, table_of
from mutbert.files import atomic_file, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import run
from mutbert.inference.parts import parts_folder, run_parts, was_stopped
from mutbert.inference.reading import Pieces, fit_sequences, open_source
from mutbert.model import MutBertPreTrainedModel
from mutbert.progress import Advance, progress_bar
from mutbert.regions import Region

_FORMATS: Final = (".parquet", ".safetensors", ".h5ad", ".npy", ".csv")
_COLUMNS: Final = ("name", "chrom", "start", "end", "strand")


def embed(
    model: str | Path | MutBertPreTrainedModel, *,
    input: str | Path | None = None,  # noqa: A002 - the option's name
    fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, surroundings: str = "population", person_vcf: str | Path | None = None,
    sample: str | None = None, sequence_column: str | None = None, name_column: str | None = None,
    output: str | Path, layers: int | str | Sequence[int] = -1, pooling: str = "mean", strands: str = "forward",
    batch_size: int = 32, precision: str = "fp32", rope_scaling: Mapping[str, Any] | None = None, long: str = "refuse",
    trust_remote_code: bool = False, resume: bool = False, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Embed the sequences of a file, or regions of a probabilistic genome.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint of MutBERT or another model, or a name of ``mutbert bench list`` (in Python also a loaded MutBERT).
    input, fasta, genome, bed, sequence_column, name_column : optional
        FASTA, FASTQ, CSV, TSV, Parquet or BED by its suffix, plain, gzip or bgzip; FASTA of any name; store whose
        regions are embedded; the regions, of the minus strand as reverse complements; a table's column of sequences, by
        default ``sequence``; that of names, by default ``name``.
    surroundings, person_vcf, sample : optional
        As for `mutate_region`, by default ``population``; models of tokens read the ``reference`` alone.
    output : str or Path
        A ``.parquet``, ``.safetensors``, ``.h5ad``, ``.npy`` or ``.csv`` file, as in ``docs/embeddings.md``.
    layers : int, sequence of int, or "all"
        0 is the embedding layer's output, i that of layer i; from the end -1 is the last layer.
    pooling : {"mean", "max", "cls", "none"}
        ``mean`` or ``max`` over MutBERT's bases, or all tokens of other models; ``cls``, the state at ``[CLS]``; or
        ``none``, one embedding per base or token. IUPAC codes are the distributions they stand for, N is ``[UNK]``.
    long : {"refuse", "truncate", "window", "skip"}
        What becomes of sequences that are longer than the model reads; ``window`` pools over equal windows of each.
    strands, batch_size, precision, rope_scaling, trust_remote_code, resume, force, progress : optional
        As for the other commands; `rope_scaling` is MutBERT's ``{"type": "linear" | "dynamic", "factor": f}``.

    Returns
    -------
    dict
        The output, its settings, ``records``, of them ``only_N``, nothing but N, ``bases``, and counts of ``long``
        sequences; of a person positions ``differing`` from the reference, and counts of records ``not_used``.

    Raises
    ------
    InputError
        A sequence that cannot be read or is too long, with its location; a setting that the model does not have.

    Examples
    --------
    >>> report = mutbert.embed("model", genome="population.genome", bed="regions.bed", output="regions.parquet")
    >>> report["records"], report["hidden_size"]
    (6, 16)
    """
    output = Path(output)
    run.check_run(strands, precision, batch_size, long)
    resumes = force or (resume and was_stopped(output))
    check_output(output, force=resumes, inputs=(model, input, fasta, genome, bed, person_vcf))
    if output.suffix not in _FORMATS:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(_FORMATS)}")
    if output.suffix in {".h5ad", ".npy", ".csv"} and pooling == "none":
        raise InputError(f"{output}: pooling none gives one a base; choose another pooling, .parquet or .safetensors")
    if long == "window" and pooling == "cls":
        raise InputError("pooling is cls, and each window has a [CLS] of its own; use --long truncate, or pooling mean")
    require({".parquet": "pyarrow", ".h5ad": "anndata"}.get(output.suffix, "polars"))
    examples, depends, around = open_source(
        input, fasta=fasta, genome=genome, bed=bed, surroundings=surroundings, person_vcf=person_vcf, sample=sample,
        sequence_column=sequence_column, name_column=name_column, progress=progress,
    )  # fmt: skip
    how = {"strands": strands, "batch_size": batch_size, "precision": precision}
    seen = around.genome if around and surroundings != "reference" else None
    embedder = _Embedder(model, layers, pooling, rope_scaling, trust_remote_code, how, seen)
    metadata = {
        "model": run.model_name(model), "pooling": pooling, "layers": json.dumps(embedder.layers), "strands": strands,
        "surroundings": around.kind if around else "sequence", "version": mutbert.__version__,
    }  # fmt: skip
    with run.rope_scaled(embedder.body.config, rope_scaling):
        pieces = embedder.fit(examples, long, str(input or fasta or bed))
        names = pl.Series(pieces.whole.names)
        if output.suffix == ".safetensors" and pooling == "none" and len(twice := names.filter(names.is_duplicated())):
            raise InputError(f"{output}: {twice[0]} names two tensors; rename one, or write .parquet")
        plan = {**metadata, **depends, "precision": precision, "rope_scaling": rope_scaling, "long": long}
        plan |= {"model": run.model_hash(embedder.body), "format": 2}
        with (
            parts_folder(output, plan, resume=resume, force=force) as folder,
            progress_bar("embedding", len(pieces.row_P), unit="sequences", work=pieces.work, show=progress) as advance,
        ):
            parts = run_parts(
                folder, enumerate(embedder.parts(pieces)),
                lambda part, path: embedder.frame(part, advance).write_parquet(path, compression="uncompressed"),
                skipped=lambda part: advance(len(part.row_P)),
            )  # fmt: skip
            with atomic_file(output, force=force) as file:
                _write(file, output.suffix, parts, metadata)
    return {
        "output": output, "records": len(pieces.whole), "only_N": pieces.only_unknown,
        "bases": len(pieces.whole.base_codes), "pooling": pooling, "layers": embedder.layers,
        "hidden_size": embedder.hidden_size, "strands": strands,
        "differing": around and around.count_differing(filter(None, examples.regions)),
        "not_used": around.not_used if around else {}, "long": pieces.counts,
    }  # fmt: skip


def embed_sequences(
    model: str | Path | MutBertPreTrainedModel, sequences: Any, *, layers: int | str | Sequence[int] = -1,
    pooling: str = "mean", strands: str = "forward", batch_size: int = 32, precision: str = "fp32",
    rope_scaling: Mapping[str, Any] | None = None, trust_remote_code: bool = False,
) -> Float32 | list[Float32]:  # fmt: skip
    """Return embeddings of sequences as arrays; `embed` writes those of large files, and of regions of a genome.

    Parameters
    ----------
    model, layers, pooling, strands, batch_size, precision, rope_scaling, trust_remote_code
        As for `embed`.
    sequences
        One as text, several, a dict of them by name, a frame with a column ``sequence``, or a path of a table or FASTA.

    Returns
    -------
    float32 array, or list of such
        (sequences, hidden size); of several layers (sequences, layers, hidden size). Without pooling, an array for each
        sequence, (bases or tokens, hidden size).

    Raises
    ------
    InputError
        As for `embed`.

    Examples
    --------
    >>> mutbert.embed_sequences("model", ["ACGTTGCA", "GATTACA"]).shape
    (2, 16)
    """
    run.check_run(strands, precision, batch_size)
    examples, source = read_examples(table_of(sequences), Columns(label=()))
    how = {"strands": strands, "batch_size": batch_size, "precision": precision}
    embedder = _Embedder(model, layers, pooling, rope_scaling, trust_remote_code, how)
    with run.rope_scaled(embedder.body.config, rope_scaling):
        frame = pl.concat(map(embedder.frame, embedder.parts(embedder.fit(examples, "refuse", source.place))))
    vectors = frame.drop(_COLUMNS)
    return [_layered(row) for row in zip(*vectors, strict=True)] if pooling == "none" else _layered(vectors)


def _layered(layers: Iterable[pl.Series]) -> Float32:
    """Return (N, D), or of several layers (N, K, D)."""
    arrays = [column.to_numpy() for column in layers]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)


class _Embedder:
    """A model whose hidden states are pooled: MutBERT's at bases, others' but at padding, as their papers have it."""

    def __init__(
        self, model: Any, layers: Any, pooling: str, rope_scaling: Any, trust: bool, how: Mapping[str, Any],
        genome: ProbabilisticGenome | None = None,
    ) -> None:  # fmt: skip
        if pooling not in {"mean", "max", "cls", "none"}:
            raise InputError(f"pooling is {pooling!r}; it must be mean, max, cls or none")
        loaded = isinstance(model, MutBertPreTrainedModel)
        own = MutBertEncoder("", "", {}, {}, fresh=False)
        encoder: Any = own if loaded else open_encoder(model, trust_remote_code=trust)
        self.of_bases, self.pooling, self._encoder = encoder.family == "mutbert", pooling, encoder
        self._how, self._genome = how, genome
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.body: Any = model.base_model if loaded else encoder.body(0, rope_scaling=rope_scaling).to(device)
        is_other, count = not self.of_bases, int(self.body.config.num_hidden_layers)
        special = ("cls", "sep", "eos", "pad") if is_other else ()
        ids = [getattr(encoder.tokenizer, f"{name}_token_id") for name in special]
        # Without pooling, only tokens that stand for bases count.
        self._left_out = torch.tensor([one for one in ids if pooling == "none" and one is not None], dtype=torch.int64)
        if is_other and pooling == "none" and how["strands"] == "both":
            raise InputError(f"{model}: has other tokens on the other strand; give --strands forward, or pool them")
        if is_other and pooling == "cls" and (not encoder.special_tokens or ids[0] is None):
            raise InputError(f"{model}: has no class token before a sequence; give --pooling mean")
        if is_other and genome is not None:
            raise InputError(f"{model}: reads tokens, not allele frequencies; give --surroundings reference")
        asked = range(count + 1) if layers == "all" else [layers] if isinstance(layers, int) else layers
        found = [] if isinstance(asked, str) else [one % (count + 1) for one in asked if -count - 1 <= one <= count]
        if not found or len(set(found)) < len(asked):
            raise InputError(f"layers is {layers!r}; the model has {count} layers: give numbers from 0 (the embedding "
                             f"layer) to {count}, or -1 (the last) to {-count - 1}, each once; or all")  # fmt: skip
        self.layers, self.hidden_size = tuple(found), int(self.body.config.hidden_size)

    def fit(self, examples: Examples, long: str, place: str) -> Pieces:
        """Return what the model reads of sequences."""
        longest = int(np.argmax(examples.lengths))
        if self.of_bases and long == "refuse":
            run.check_length(self.body.config, int(examples.lengths[longest]), examples.names[longest] or str(longest))
        return fit_sequences(examples, self._encoder, most_tokens(self.body), long, place=place, cut=self.of_bases)

    def parts(self, pieces: Pieces) -> Iterator[Pieces]:
        """Yield parts of 256 MiB of float32 at most."""
        most = int(pieces.whole.lengths.max() if self.pooling == "none" else np.bincount(pieces.row_P).max())
        return pieces.parts(max(min(1024, (256 << 20) // (4 * len(self.layers) * self.hidden_size) // most), 1))

    def frame(self, part: Pieces, advance: Advance | None = None) -> pl.DataFrame:
        """Return a row a sequence, with its vectors of each layer."""
        inputs = self._encoder.inputs(part.pieces, max_tokens=most_tokens(self.body), genome=self._genome)
        length_N = part.pieces.lengths if self.of_bases else inputs.length_N  # bases without special tokens
        how = {**self._how, "advance": advance, "name": part.pieces.names.__getitem__}
        order, (vector_XKD, count_B) = run.run_batches(self.body, length_N, partial(self._vectors, inputs), **how)
        piece_X = np.repeat(order, count_B.astype(np.int64))
        vector_XKD = vector_XKD[sorted_X := np.argsort(piece_X, kind="stable")]
        if self.pooling != "none":
            vector_XKD = part.pool(vector_XKD, maximum=self.pooling == "max").astype(np.float32)
        suffixes = [f"_{layer}" for layer in self.layers] if len(self.layers) > 1 else [""]
        frame = pl.DataFrame({f"embedding{suffix}": vector_XKD[:, layer] for layer, suffix in enumerate(suffixes)})
        if self.pooling == "none":
            record = pl.Series("record", part.row_P[piece_X[sorted_X]])
            frame = frame.group_by(record, maintain_order=True).agg(pl.all()).drop("record")
        rows = zip(part.whole.names, part.whole.lengths.tolist(), part.whole.regions, strict=True)
        regions = pl.DataFrame([replace(one or Region(name, 0, bases), name=name) for name, bases, one in rows])
        return regions.rename({"contig": "chrom"}).select(_COLUMNS).hstack(frame)

    def _vectors(self, inputs: Inputs, rows: Int64, reverse: bool) -> list[torch.Tensor]:
        """Return pooled states, (X, K, D), and how many vectors each sequence has, (B,)."""
        batch = run.batch_of(inputs, rows, self.body, reverse=reverse)
        tokens = next(iter(batch.values()))
        mask_BL = batch.get("attention_mask", tokens.new_ones(tokens.shape[:2])).bool()
        if self.of_bases:
            encoder, whole = self.body.encoder, self.body.encoder.layer
            try:
                encoder.layer = whole[: max(self.layers)]  # later ones need not run
                outputs = self.body(**batch, output_hidden_states=len(self.layers) > 1)
            finally:
                encoder.layer = whole
            every = outputs.hidden_states or {self.layers[0]: outputs.last_hidden_state}
            states = [every[layer] for layer in self.layers]
            counts_BL = nn.functional.pad(mask_BL[:, 2:], (1, 1))  # not [CLS], and of what follows not the last
        else:
            states = self._encoder.layer_states(self.body, batch, self.layers)
            counts_BL = mask_BL & ~torch.isin(tokens, self._left_out.to(tokens.device))
        count_B, out_BL1 = counts_BL.sum(dim=1), ~counts_BL[..., None]
        if self.pooling == "none":
            order = [1] if reverse else []  # of the other strand the last base comes first
            return [torch.stack([one.flip(order)[counts_BL.flip(order)] for one in states], dim=1), count_B]
        pool: Callable[[torch.Tensor], torch.Tensor] = {
            "cls": lambda state_BLD: state_BLD[:, 0],
            "max": lambda state_BLD: state_BLD.float().masked_fill(out_BL1, -torch.inf).amax(dim=1),
            "mean": lambda state_BLD: state_BLD.float().masked_fill(out_BL1, 0).sum(dim=1) / count_B[:, None],
        }[self.pooling]
        return [torch.stack([pool(state_BLD) for state_BLD in states], dim=1), torch.ones_like(count_B)]


def _write(path: Path, suffix: str, parts: list[Path], metadata: dict[str, str]) -> None:
    """Write parts as one file in the format of a suffix; memory for Parquet does not grow with their number."""
    if suffix == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetWriter(path, parquet.read_schema(parts[0]).with_metadata(metadata)) as file:
            for part in parts:
                file.write_table(parquet.read_table(part))
        return
    frame = pl.read_parquet(parts)
    vectors = frame.drop(_COLUMNS)
    if suffix == ".csv":
        numbers = {f"{one.name}.{at}": value_N for one in vectors for at, value_N in enumerate(one.to_numpy().T)}
        frame.select(_COLUMNS).hstack(pl.DataFrame(numbers)).write_csv(path)
    elif suffix == ".npy":
        with path.open("wb") as array:
            np.save(array, _layered(vectors))
    elif suffix == ".safetensors":
        alone = metadata["pooling"] == "none"
        tensors = {
            name + column.name.removeprefix("embedding"): np.ascontiguousarray(one.to_numpy())
            for column in vectors
            for name, one in (zip(frame["name"], column, strict=True) if alone else [("embeddings", column)])
        }
        lists = {("region_strands" if name == "strand" else f"{name}s"): frame[name].to_list() for name in _COLUMNS}
        save_file(tensors, path, metadata | {name: json.dumps(values) for name, values in lists.items()})
        with path.open("r+b") as file:  # whose metadata are in another order each time
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
            file.seek(8)
            file.write(json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode())
    else:
        import anndata

        layers = {column.name.replace("embedding", "X_layer"): column.to_numpy().copy() for column in vectors}
        rows = frame.select(*_COLUMNS, obs_names=pl.int_range(pl.len()).cast(pl.String)).to_dict(as_series=False)
        about = metadata | {"layers": np.array(json.loads(metadata["layers"]))}
        first, several = next(iter(layers.values())), layers if len(layers) > 1 else None
        data = anndata.AnnData(first, rows, obsm=several, uns=about)
        data.obs_names = frame["name"].to_list()
        data.obs_names_make_unique()
        data.write_h5ad(path)
