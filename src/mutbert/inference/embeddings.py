"""Embeddings of sequences and of genome regions: of any layers and both strands, pooled or of every base.

Shape suffixes: B batch, X vectors (one a record, or one a token), K layers, L bases or tokens, D hidden size.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import pysam
from safetensors.numpy import save_file

import mutbert
from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.encoders.inputs import PaddedWindows, read_windows
from mutbert.errors import InputError, one_line, require
from mutbert.examples.table import Columns, read_examples, table_of
from mutbert.files import atomic_file, check_input, check_output, sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import run
from mutbert.inference.reading import check_long, fit_source
from mutbert.inference.resumable import parts_folder, run_parts
from mutbert.inference.states import BaseStates, TokenStates, open_states, pool, resolve_layers
from mutbert.progress import progress_bar
from mutbert.regions import Region, read_bed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

    from mutbert.arrays import Float32, Int64, UInt8
    from mutbert.model import MutBertPreTrainedModel

    Record = tuple[Region, UInt8 | None]

_KINDS: Final = {
    ".fa": "FASTA", ".fasta": "FASTA", ".fna": "FASTA", ".fas": "FASTA", ".fq": "FASTQ", ".fastq": "FASTQ",
    ".csv": "table", ".tsv": "table", ".txt": "table", ".parquet": "table", ".bed": "BED",
}  # fmt: skip

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
        A checkpoint of MutBERT or any other model, or a name of ``mutbert bench list``, run on a GPU if there is one
        (in Python also a loaded MutBERT).
    input, fasta, genome, bed, sequence_column, name_column : optional
        FASTA, FASTQ, CSV, TSV, Parquet or BED by its suffix, plain, gzip or bgzip; FASTA of any name; store whose
        regions are embedded; the regions, of the minus strand as reverse complements; a table's column of sequences, by
        default ``sequence``; its column of names, by default ``name``.
    surroundings, person_vcf, sample : optional
        What a position of the store is: ``reference``, all that models of tokens read, ``population`` or ``person``;
        VCF with the person's genotypes; name of the person.
    output : str or Path
        A ``.parquet``, ``.safetensors``, ``.h5ad``, ``.npy`` or ``.csv`` file, as in ``docs/embeddings.md``.
    layers : int, sequence of int, or "all"
        0 is the embedding layer's output, i that of layer i; from the end -1 is the last layer.
    pooling : {"mean", "max", "cls", "none"}
        ``mean`` or ``max`` over MutBERT's bases, or all tokens of other models; ``cls``, the state at ``[CLS]``; or
        ``none``, one embedding per base or token. IUPAC codes are the distributions they stand for, N is ``[UNK]``.
    long : {"refuse", "truncate", "skip"}
        What becomes of sequences that are longer than the model reads.
    strands, batch_size, precision, rope_scaling, trust_remote_code, resume, force, progress : optional
        As for the other commands; `rope_scaling` is MutBERT's ``{"type": "linear" | "dynamic", "factor": f}``.

    Returns
    -------
    dict
        The output, its settings, ``records``, of them ``only_N``, nothing but N, and ``bases``; positions of a person
        ``differing`` from the reference, and counts of the person's records ``not_used``, by reason, and of ``long``
        sequences.
    """
    output = Path(output)
    run.check_run(strands, precision, batch_size)
    check_long(long, ("refuse", "truncate", "skip"))
    check_output(output, force=force, inputs=(model, input, fasta, genome, bed, person_vcf))
    if output.suffix not in _FORMATS:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(_FORMATS)}")
    if output.suffix in {".h5ad", ".npy", ".csv"} and pooling == "none":
        raise InputError(f"{output}: holds one embedding a sequence, and pooling none gives one a base; choose another "
                         "pooling, or write .parquet or .safetensors")  # fmt: skip
    require(_FORMATS[output.suffix][1])
    source = open_source(
        input, fasta=fasta, genome=genome, bed=bed, surroundings=surroundings, person_vcf=person_vcf, sample=sample,
        sequence_column=sequence_column, name_column=name_column, progress=progress,
    )  # fmt: skip
    states = open_states(model, pooling, strands, rope_scaling, trust_remote_code=trust_remote_code)
    if isinstance(states, TokenStates) and genome is not None and surroundings != "reference":
        raise InputError(f"{model}: reads tokens, not allele frequencies; give --surroundings reference")
    source, counts = fit_source(source, states, long)
    config = states.body.config
    chosen, hidden_size = resolve_layers(layers, config.num_hidden_layers), int(config.hidden_size)
    metadata = {
        "model": run.model_name(model), "pooling": pooling, "layers": json.dumps(chosen), "strands": strands,
        "surroundings": "sequence" if genome is None else surroundings, "version": mutbert.__version__,
    }  # fmt: skip
    how = {"strands": strands, "batch_size": batch_size, "precision": precision}
    with run.rope_scaled(config, rope_scaling):
        records, unknown, bases, longest = _survey(source, states, output, pooling, progress=progress)
        plan = {**metadata, **source.plan, "precision": precision, "rope_scaling": rope_scaling}
        plan |= {"model": run.model_hash(states.body), "format": 2}
        with (
            parts_folder(output, plan, resume=resume, force=force) as folder,
            progress_bar("embedding", records, unit="sequences", show=progress) as advance,
        ):
            # A part has 256 MiB of float32 and 1,024 records at most.
            vectors = (256 << 20) // (4 * len(chosen) * hidden_size)
            at_once = min(1024, max(vectors // (longest if pooling == "none" else 1), 1))
            read = source.read()

            def compute(group: Sequence[Record], path: Path) -> None:
                frame = _embed_records(states, group, source.windows(group), chosen, pooling, **how, advance=advance)
                frame.write_parquet(path, compression="uncompressed")

            groups = enumerate(iter(lambda: list(islice(read, at_once)), []))
            parts = run_parts(folder, groups, compute, skipped=lambda group: advance(len(group)))
            with atomic_file(output, force=force) as partial:
                _FORMATS[output.suffix][0](partial, parts, metadata)
    return {
        "output": output, "records": records, "only_N": unknown, "bases": bases, "pooling": pooling, "layers": chosen,
        "hidden_size": hidden_size, "strands": strands, "differing": source.differing, "not_used": source.not_used,
        "long": counts,
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
        One sequence as text, several, a dict of them by name, a frame of polars or pandas with a column ``sequence``,
        or the path of a table or FASTA.

    Returns
    -------
    float32 array, or list of such
        (sequences, hidden size); of several layers (sequences, layers, hidden size). Without pooling, an array for each
        sequence, (bases or tokens, hidden size).
    """
    run.check_run(strands, precision, batch_size)
    read = _read_table(table_of(sequences), "sequence", None)
    source = Source(read, lambda records: PaddedWindows.of([code_L for _, code_L in records if code_L is not None]), {})
    states = open_states(model, pooling, strands, rope_scaling, trust_remote_code=trust_remote_code)
    chosen, records = resolve_layers(layers, states.body.config.num_hidden_layers), source.read()
    how = {"strands": strands, "batch_size": batch_size, "precision": precision}
    with run.rope_scaled(states.body.config, rope_scaling):
        _survey(source, states, Path(), pooling, progress=False)
        groups = iter(lambda: list(islice(records, 1024)), [])
        frame = pl.concat(_embed_records(states, one, source.windows(one), chosen, pooling, **how) for one in groups)
    columns = frame.select(pl.col("^embedding.*$"))
    if pooling == "none":
        return [_layered(row) for row in zip(*columns, strict=True)]
    return _layered(columns)


def _layered(layers: Iterable[pl.Series]) -> Float32:
    """Return (N, D), or of several layers (N, K, D)."""
    arrays = [column.to_numpy() for column in layers]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)


class Source(NamedTuple):
    """What can be read repeatedly, named regions of a genome or of themselves with their codes, and its windows."""

    read: Callable[[], Iterator[Record]]
    windows: Callable[[Sequence[Record]], PaddedWindows]
    plan: Mapping[str, Any]  # what both depend on
    differing: int | None = None  # positions of a person, and records that change nothing
    not_used: Mapping[str, int] = {}
    unknown: int = 0  # regions of nothing but N


def open_source(
    input: str | Path | None = None,  # noqa: A002 - the option's name
    *, fasta: str | Path | None = None, genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None, sequence_column: str | None = None, name_column: str | None = None,
    surroundings: str = "population", person_vcf: str | Path | None = None, sample: str | None = None,
    progress: bool = False,
) -> Source:  # fmt: skip
    """Return what is to be embedded; arguments as for `embed`."""
    given = [(path, kind) for path, kind in ((input, None), (fasta, "FASTA"), (bed, "BED")) if path is not None]
    if len(given) != 1:
        raise InputError("nothing or too much to embed; give one input file, a FASTA, or a genome and a BED of it")
    path = Path(given[0][0])
    kind = given[0][1] or _KINDS.get(PurePath(path.name.lower().removesuffix(".gz")).suffix)
    if kind is None:
        raise InputError(f"{path}: its suffix names no format; it should be one of {', '.join(_KINDS)}, text also .gz")
    if kind != "table" and (sequence_column or name_column):
        raise InputError(f"{path}: has no columns to choose; leave out --sequence-column and --name-column")
    if kind == "BED":
        if genome is None:
            raise InputError(f"{path}: the regions of a BED are embedded from a genome; give it with --genome")
        opened = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
        regions = [
            replace(one, name=one.name or (f"{one}(-)" if one.strand == "-" else str(one)))
            for one in read_bed(path, opened.lengths)
        ]
        contigs, number = {one.contig for one in regions}, {name: index for index, name in enumerate(opened.lengths)}
        around = run.open_surroundings(opened, surroundings, person_vcf, sample, contigs=contigs, progress=progress)

        def windows(records: Sequence[Record]) -> PaddedWindows:
            places = [(number[one.contig], one.start, len(one), one.strand == "-") for one, _ in records]
            *where, turned_N = np.array(places, dtype=np.int64).reshape(-1, 4).T
            return read_windows(around.genome, *where).reverse_complement(turned_N > 0)

        plan: dict[str, Any] = {"bed": sha256_of(path), "genome": opened.identity, "sample": sample}
        plan["person_vcf"] = person_vcf and sha256_of(Path(person_vcf))
        differing = around.count_differing(regions)
        unknown = sum(not len(opened.known_runs(one.contig, one.start, one.end)) for one in regions)
        return Source(lambda: ((one, None) for one in regions), windows, plan, differing, around.not_used, unknown)
    if genome is not None or surroundings != "population" or person_vcf or sample:
        raise InputError(f"{path}: has sequences of its own, which are embedded as they are; leave genome, "
                         "surroundings, sample and person_vcf out, or give a BED in its place")  # fmt: skip
    check_input(path, kind)
    columns = sequence_column or "sequence", name_column
    return Source(
        _read_table(path, *columns) if kind == "table" else lambda: _read_records(path, kind),
        lambda records: PaddedWindows.of([code_L for _, code_L in records if code_L is not None]),
        {"input": sha256_of(path), "columns": columns},
    )


def _read_records(path: Path, kind: str) -> Iterator[Record]:
    """Yield the sequences of a FASTA or FASTQ, one in memory at a time: IUPAC codes in either case, U as T."""
    number, verbosity = 0, pysam.set_verbosity(0)
    try:
        with pysam.FastxFile(str(path)) as file:
            for record in file:
                if not record.name:
                    raise ValueError("the header has no name; write it right after the first character")
                if not record.sequence:
                    raise ValueError("the sequence is empty; remove the record, or add the bases")
                code_L = alphabet.encode(record.sequence)
                yield Region(record.name, 0, len(code_L), record.name), code_L
                number += 1
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, record {number + 1}: {one_line(error, 300)}") from None
    finally:
        pysam.set_verbosity(verbosity)
    if not number:
        raise InputError(f"{path}: holds no {kind} records; give a file with sequences in it")


def _read_table(path: Path | pl.DataFrame, sequence: str, name: str | None) -> Callable[[], Iterator[Record]]:
    """Return what yields a table's sequences; a row without a name has its number, from 0."""
    examples, _ = read_examples(path, Columns(sequence=sequence, label=(), name=name))
    names = [one or str(row) for row, one in enumerate(examples.names)]

    def read() -> Iterator[Record]:
        for one, code_L in zip(names, np.split(examples.base_codes, examples.offsets[1:-1]), strict=True):
            yield Region(one, 0, len(code_L), one), code_L

    return read


def _survey(
    source: Source, states: BaseStates | TokenStates, output: Path, pooling: str, *, progress: bool
) -> tuple[int, int, int, int]:
    """Return how many records there are, how many of nothing but N, bases, and the longest; mistakes raise."""
    names = set[str]()
    records, unknown, bases, longest = 0, source.unknown, 0, 0
    with progress_bar("checking", None, unit="sequences", show=progress) as advance:
        for region, code_L in source.read():
            if isinstance(states, BaseStates):
                run.check_length(states.body.config, len(region), region.name)
            # No token is less than a base, but for special ones at either end.
            elif states.most is not None and len(region) > states.most - 2:
                found = int(states.inputs(source.windows([(region, code_L)])).length_N[0])
                if found > states.most:
                    what = f"{len(region):,} bases are {found:,} tokens, and {states.encoder.name} has positions for"
                    raise InputError(f"{region.name}: {what} {states.most:,}; give shorter sequences")
            if region.name in names:
                raise InputError(f"{output}: {region.name} names two tensors; rename one, or write .parquet")
            if output.suffix == ".safetensors" and pooling == "none":
                names.add(region.name)
            unknown += code_L is not None and bool((code_L == alphabet.UNKNOWN).all())
            records, bases, longest = records + 1, bases + len(region), max(longest, len(region))
            advance(1)
    return records, unknown, bases, longest


def _embed_records(
    states: BaseStates | TokenStates, records: Sequence[Record], windows: PaddedWindows, layers: Sequence[int],
    pooling: str, **settings: Any,
) -> pl.DataFrame:  # fmt: skip
    """Return a row a record, with its vectors of each layer; `settings` as for `run_batches`."""
    inputs: Any = states.inputs(windows)

    def predict(rows: Int64, reverse: bool) -> list[torch.Tensor]:
        batch = run.batch_of(inputs, rows, states.body, reverse=reverse)
        return pool(*states.states(batch, layers), pooling, reverse=reverse)

    settings["name"] = lambda row: records[row][0].name
    order, (vector_XKD, count_B) = run.run_batches(states.body, inputs.length_N, predict, **settings)
    end_B, rows_N = np.cumsum(count_B, dtype=np.int64), np.argsort(order)
    record_X, row_X = list_ranges((end_B - count_B.astype(np.int64))[rows_N], end_B[rows_N])
    suffixes = [f"_{layer}" for layer in layers] if len(layers) > 1 else [""]
    vectors = {f"embedding{suffix}": vector_XKD[row_X, layer] for layer, suffix in enumerate(suffixes)}
    frame = pl.DataFrame({"record": record_X, **vectors})
    if pooling == "none":
        frame = frame.group_by("record", maintain_order=True).agg(pl.all())
    located = [(one.name, one.contig, one.start, one.end, one.strand) for one, _ in records]
    return pl.DataFrame(located, schema=_COLUMNS, orient="row").hstack(frame.drop("record"))


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
    lists = {("region_strands" if name == "strand" else f"{name}s"): frame[name].to_list() for name in _COLUMNS}
    save_file(tensors, path, metadata | {name: json.dumps(values) for name, values in lists.items()})


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


def _write_array(path: Path, parts: list[Path], _: dict[str, str]) -> None:
    with path.open("wb") as file:
        np.save(file, _layered(pl.read_parquet(parts).drop(_COLUMNS)))


def _write_csv(path: Path, parts: list[Path], _: dict[str, str]) -> None:
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            frame = pl.read_parquet(part)
            for name in frame.drop(_COLUMNS).columns:
                numbers = pl.DataFrame(frame.drop_in_place(name).to_numpy())
                numbers.columns = [f"{name}.{at}" for at in range(numbers.width)]
                frame = frame.hstack(numbers)
            frame.write_csv(file, include_header=not number)


# By suffix, what writes it, and the library that it needs.
_FORMATS: Final[dict[str, tuple[Callable[[Path, list[Path], dict[str, str]], None], str]]] = {
    ".parquet": (_write_parquet, "pyarrow"),
    ".safetensors": (_write_safetensors, "safetensors"),
    ".h5ad": (_write_anndata, "anndata"),
    ".npy": (_write_array, "numpy"),
    ".csv": (_write_csv, "polars"),
}
