"""Embeddings of sequences and of genome regions: of any layers and both strands, pooled or of every base.

Shape suffixes: B batch, X vectors (one a sequence, or one a token), K layers, L length in tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

import mutbert
from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output
from mutbert.inference.embedding_files import WRITERS, Provenance, check_format, part_of
from mutbert.inference.hidden_states import BaseStates, TokenStates, open_states
from mutbert.inference.opening import check_run, model_hash, model_name, rope_scaled
from mutbert.inference.resumable import parts_folder, run_parts
from mutbert.inference.run import run_batches
from mutbert.inference.sequences import open_source
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.arrays import Float32, Int64
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.inference.run import PaddedWindows
    from mutbert.inference.sequences import Record, Source
    from mutbert.model import MutBertPreTrainedModel
    from mutbert.progress import Advance

    States = BaseStates | TokenStates

POOLINGS: Final = ("mean", "max", "cls", "none")
_RECORDS_AT_ONCE: Final = 1024
_BYTES_AT_ONCE: Final = 256 << 20


@dataclass(frozen=True)
class EmbeddingReport:
    """What `embed` wrote; `differing` and `not_used` count a person's positions in the regions, and unused records."""

    output: Path
    records: int
    bases: int
    hidden_size: int
    pooling: str
    layers: tuple[int, ...]
    strands: str
    differing: int | None
    not_used: Mapping[str, int]


def embed(
    model: str | Path | MutBertPreTrainedModel,
    *,
    input: str | Path | None = None,  # noqa: A002 - the option's name
    fasta: str | Path | None = None,
    genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None,
    surroundings: str = "population",
    person_vcf: str | Path | None = None,
    sample: str | None = None,
    sequence_column: str | None = None,
    name_column: str | None = None,
    output: str | Path,
    layers: int | str | Sequence[int] = -1,
    pooling: str = "mean",
    strands: str = "forward",
    batch_size: int = 32,
    precision: str = "fp32",
    rope_scaling: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> EmbeddingReport:
    """Embed the sequences of a file, or regions of a probabilistic genome.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint of MutBERT or any other model, or a name of ``mutbert bench list``, read to a GPU if there is one;
        or a loaded MutBERT, which runs where it is and is left as it was. Heads are not used.
    input, fasta : str or Path, optional
        The sequences: a FASTA, FASTQ, CSV, TSV or Parquet file, or the BED of regions of `genome`, as its suffix names
        it; or a FASTA of any name. IUPAC codes are the distributions they stand for, N is ``[UNK]``.
    genome, bed : str or Path, optional
        A store (or an open one), and the regions of it to embed.
    surroundings, person_vcf, sample : str, optional
        What a position of `genome` is: its ``"reference"`` base, which models that read tokens take alone; the
        ``"population"``'s frequencies; or the genotype of one ``"person"``, `sample` of `person_vcf`.
    sequence_column, name_column : str, optional
        Of a table; ``sequence`` and, if there is one, ``name`` where left out.
    output : str or Path
        A ``.parquet``, ``.safetensors`` or ``.h5ad`` file, as ``docs/embeddings.md`` describes them.
    layers : int, sequence of int, or "all"
        0 is the embedding layer's output, i that of layer i; from the end -1 is the last layer.
    pooling : {"mean", "max", "cls", "none"}
        Over MutBERT's bases, or over all tokens of other models; the state at ``[CLS]``; or one embedding a base or
        token.
    strands, batch_size, precision, rope_scaling
        ``"forward"`` or the mean of ``"both"``; sequences at once; ``"fp32"`` or ``"bf16"`` autocast; and MutBERT's
        ``{"type": "linear" | "dynamic", "factor": f}``, for sequences up to f times longer than it is trained for.
    trust_remote_code : bool
        Run code that comes with a checkpoint.
    resume, force, progress : bool
        Continue a run that was stopped; replace `output` where it exists; show progress on standard error.
    """
    output = Path(output)
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
    check_run(strands, precision, batch_size)
    check_output(output, force=force)
    check_format(output, pooling)
    source = open_source(
        input, fasta=fasta, genome=genome, bed=bed, surroundings=surroundings, person_vcf=person_vcf, sample=sample,
        sequence_column=sequence_column, name_column=name_column, progress=progress,
    )  # fmt: skip
    states = open_states(model, pooling, strands, trust_remote_code=trust_remote_code)
    if isinstance(states, TokenStates) and rope_scaling is not None:
        raise InputError(f"{model}: rope_scaling is for MutBERT; leave it out for other models")
    if isinstance(states, TokenStates) and genome is not None and surroundings != "reference":
        raise InputError(f"{model}: reads tokens, not allele frequencies; give --surroundings reference")
    config = states.body.config
    chosen = resolve_layers(layers, config.num_hidden_layers)
    seen = "sequence" if genome is None else surroundings
    hidden_size, made = int(config.hidden_size), Provenance(model_name(model), pooling, chosen, strands, seen)
    with rope_scaled(config, rope_scaling) if isinstance(states, BaseStates) else nullcontext():
        unique = output if output.suffix == ".safetensors" and pooling == "none" else None
        records, bases, longest = _survey(source, states, unique, progress=progress)
        plan = {**made._asdict(), **source.plan, "model": model_hash(states.body), "precision": precision}
        plan |= {"rope_scaling": rope_scaling, "mutbert": mutbert.__version__}
        with (
            parts_folder(output, plan, resume=resume, force=force) as folder,
            progress_bar("embedding", records, unit="sequences", show=progress) as advance,
        ):
            vectors = _BYTES_AT_ONCE // (4 * len(chosen) * hidden_size)
            at_once = min(_RECORDS_AT_ONCE, max(vectors // (longest if pooling == "none" else 1), 1))
            how = {"batch_size": batch_size, "precision": precision}
            parts = _run(folder, source, at_once, states, made, advance, **how)
            with atomic_file(output, force=force) as partial:
                WRITERS[output.suffix](partial, parts, made)
    return EmbeddingReport(
        output, records, bases, hidden_size, pooling, chosen, strands, source.differing, source.not_used
    )


def _run(
    folder: Path, source: Source, at_once: int, states: States, made: Provenance, advance: Advance, **settings: Any
) -> list[Path]:
    """Embed so many records a part, and return the files of all parts."""
    settings, read = settings | {"strands": made.strands, "advance": advance}, source.read()

    def compute(group: Sequence[Record], path: Path) -> None:
        vectors = embed_windows(states, source.windows(group), made.layers, made.pooling, **settings)
        part_of(group, vectors, made).write_parquet(path, compression="uncompressed")

    groups = enumerate(iter(lambda: list(islice(read, at_once)), []))
    return run_parts(folder, groups, compute, skipped=lambda group: advance(len(group)))


def _survey(source: Source, states: States, unique: Path | None, *, progress: bool) -> tuple[int, int, int]:
    """Return the numbers of records and bases and the longest length, having found mistakes before the model runs."""
    names: set[str] = set()
    records = bases = longest = 0
    with progress_bar("checking", None, unit="sequences", show=progress) as advance:
        for record in source.read():
            states.check(record, source)
            if unique is not None and record.name in names:
                raise InputError(
                    f"{unique}: {record.name} comes twice, and names a tensor; rename one, or write .parquet"
                )
            if unique is not None:
                names.add(record.name)
            records, bases, longest = records + 1, bases + record.length, max(longest, record.length)
            advance(1)
    return records, bases, longest


def embed_windows(
    states: States, windows: PaddedWindows, layers: Sequence[int], pooling: str, **settings: Any
) -> list[Float32]:
    """Return the vectors of each window, (1, K, D) or (tokens, K, D); `settings` as for `run_batches`."""
    inputs: Any = states.inputs(windows)

    def predict(rows: Int64, reverse: bool) -> list[torch.Tensor]:
        return _pool(*states.states(inputs, rows, layers, reverse=reverse), pooling)

    order, (vector_XKD, count_B) = run_batches(states.body, inputs.length_N, predict, **settings)
    found = np.split(vector_XKD, np.cumsum(count_B.astype(np.int64))[:-1])
    return [found[place] for place in np.argsort(order)]


def _pool(states: Sequence[torch.Tensor], counts_BL: torch.Tensor, pooling: str) -> list[torch.Tensor]:
    """Return the vectors of states, (X, K, D), and how many each sequence has, (B,)."""
    count_B = counts_BL.sum(dim=1)
    if pooling == "none":
        return [torch.stack([state_BLD[counts_BL] for state_BLD in states], dim=1), count_B]
    left_out_BL1 = ~counts_BL[..., None]

    def pool(state_BLD: torch.Tensor) -> torch.Tensor:
        if pooling == "cls":
            return state_BLD[:, 0]
        if pooling == "mean":
            return state_BLD.float().masked_fill(left_out_BL1, 0).sum(dim=1) / count_B[:, None]
        return state_BLD.float().masked_fill(left_out_BL1, -torch.inf).amax(dim=1)

    return [torch.stack([pool(state_BLD) for state_BLD in states], dim=1), torch.ones_like(count_B)]


def resolve_layers(layers: int | str | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the numbers, from 0, of the layers that are asked for, of a model that has so many."""
    if isinstance(layers, str):
        if layers != "all":
            raise InputError(f"layers is {layers!r}; give numbers, or all")
        return tuple(range(count + 1))
    numbers = [int(number) for number in (layers if isinstance(layers, Iterable) else (layers,))]
    for number in numbers:
        if not -count - 1 <= number <= count:
            raise InputError(f"layer {number}: the model has {count} layers; give 0 (the embedding layer) to {count}, "
                             f"or from the end -1 (the last) to {-count - 1}")  # fmt: skip
    found = tuple(number % (count + 1) for number in numbers)
    if not found or len(set(found)) < len(found):
        raise InputError(f"layers is {layers}; give at least one, and each once")
    return found
