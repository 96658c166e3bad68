"""Embeddings of sequences and of genome regions: of any layers and both strands, pooled or of every base.

Shape suffixes: B batch, K layers, L length in tokens, D hidden size, V vocabulary (9).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.token_encoders import AutoEncoder
from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output
from mutbert.inference.embedding_files import Making, check_writable, open_writer, refuse_clashes
from mutbert.inference.embedding_sources import grouped, open_source, survey
from mutbert.inference.opening import check_run, longest_input, model_name, open_model, rope_scaled, too_long
from mutbert.inference.predict import predict
from mutbert.inference.token_embeddings import TokenEmbedder
from mutbert.model import MutBertModel, MutBertPreTrainedModel
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mutbert.arrays import Float32
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.inference.embedding_sources import Input, Record
    from mutbert.progress import Advance

    # From the states of K layers, each (B, L, D), and the mask to (B, K, D), or to B of shape (K, its bases, D).
    Pool = Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor | list[torch.Tensor]]


@dataclass(frozen=True)
class EmbeddingReport:
    """What `embed` wrote.

    Parameters
    ----------
    output : Path
        The file.
    records : int
        Sequences embedded.
    bases : int
        Their bases.
    hidden_size : int
        Numbers in one embedding.
    pooling : str
        ``"mean"``, ``"max"``, ``"cls"`` or ``"none"``.
    layers : tuple of int
        The layers, counted from 0, the embedding layer.
    strands : str
        ``"forward"`` or ``"both"``.
    differing : int or None
        Of a person's genome: positions of the regions at which she differs from the reference.
    not_used : mapping of str to int
        Of a person's genome: records of the file that change nothing, by reason.
    """

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
    force: bool = False,
    progress: bool = False,
) -> EmbeddingReport:
    """Embed the sequences of a file, or regions of a probabilistic genome.

    An embedding is made of hidden states. With MutBERT, ``[CLS]`` and ``[SEP]`` stand around every sequence, as in
    training, but like padding they have no part in it: only the states at bases are pooled. With any other model its
    own special tokens, if any, are pooled too, as its paper has it.

    The input is read twice: once to find what cannot be used before the model runs, and once for the model. Sequences
    are not kept; of a BED the regions are.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint of MutBERT or any other model, or a name of ``mutbert bench list``, read to a GPU where there is
        one; or a loaded MutBERT, which runs where it is and is left as it was found. Heads are not used.
    input : str or Path, optional
        Embed the sequences of this file. Its suffix tells the format: FASTA (``.fa``, ``.fasta``, ``.fna``, ``.fas``),
        FASTQ (``.fq``, ``.fastq``; qualities are not used), a table (``.csv``; ``.tsv`` and ``.txt`` with tabs;
        ``.parquet``), or ``.bed``, the regions of `genome`. All but Parquet may be gzip or bgzip. IUPAC codes are the
        distributions they stand for, N is ``[UNK]``, either case is the same.
    fasta : str or Path, optional
        Embed each record of this FASTA, whatever its name.
    genome : str, Path or ProbabilisticGenome, optional
        Embed regions of this store.
    bed : str or Path, optional
        The regions of `genome`.
    surroundings : {"reference", "population", "person"}
        What a position of `genome` is: its reference base, the population's allele frequencies, or one person's
        genotype. Models that read tokens take the reference alone.
    person_vcf, sample : str or Path, and str, optional
        Of a person: the file with the genotypes, and the name in it.
    sequence_column, name_column : str, optional
        Of a table. Where left out, sequences are in the column ``sequence`` and names in ``name``, where there is one;
        a row without a name has its number, from 0.
    output : str or Path
        The file to write; its suffix chooses the format.

        ``.parquet``: a row a record in the order of the input, with ``name``, ``contig``, ``start``, ``end``
        (0-based, half-open) and ``embedding``: a list of D float32, or with ``pooling="none"`` a list of such
        lists, one for each base. Of several layers there is ``embedding_LAYER`` each. Memory does not grow with the
        number of records. Needs pyarrow.

        ``.safetensors``: the tensor ``embeddings`` (n, D), or with ``pooling="none"`` a tensor (its bases, D) under
        each record's name; float32. Of several layers there is ``embeddings_LAYER`` or ``NAME_LAYER`` each. The
        metadata hold ``names``, ``contigs``, ``starts`` and ``ends`` as JSON lists. Held in memory until it is
        written.

        ``.h5ad``: an AnnData whose ``X`` (n, D) is the first layer; of several layers there is
        ``obsm["X_layer_LAYER"]`` each, the first one too. ``obs`` has ``name``, ``contig``, ``start`` and ``end``;
        ``obs_names`` are the names, with ``-1``, ``-2``... behind those that come again. Needs anndata.

        All say how they were made: ``model``, ``pooling``, ``layers``, ``strands``, ``surroundings`` (``"sequence"``
        where there is no genome) and the ``version`` of this package, as metadata of the file or in ``uns``.
    layers : int, sequence of int, or "all"
        0 is the embedding layer's output, i that of layer i; from the end -1 is the last layer.
    pooling : str
        ``"mean"`` or ``"max"`` over the bases, ``"cls"`` for the state at ``[CLS]``, or ``"none"``: one embedding a
        base, or of models with longer tokens one a token.
    strands : str
        ``"forward"``, or ``"both"`` for the mean of the embeddings of the sequence and of its reverse complement; of
        every base, those of the same base.
    batch_size : int
        Sequences a batch; those of similar length go together.
    precision : str
        ``"fp32"``, or ``"bf16"`` for bfloat16 autocast, which is quicker where the hardware has it.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}`` in place of the model's own, for sequences longer than it is
        trained for, up to f times. It holds for this call alone, and is for MutBERT.
    trust_remote_code : bool
        Run code that comes with a checkpoint; no model that is known by name needs any.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    EmbeddingReport
        What was written.

    Raises
    ------
    InputError
        When an argument is out of range; when an input cannot be used; when the model lacks a layer; when a sequence
        is longer than model and scaling allow.
    MissingExtraError
        When pyarrow or anndata is needed and not installed.
    """
    output = Path(output)
    if pooling not in _POOLINGS:
        raise InputError(f"pooling is {pooling!r}; it must be one of {', '.join(_POOLINGS)}")
    check_run(strands, precision, batch_size)
    check_output(output, force=force)
    check_writable(output, pooling)
    source = open_source(
        input,
        fasta=fasta,
        genome=genome,
        bed=bed,
        surroundings=surroundings,
        person_vcf=person_vcf,
        sample=sample,
        sequence_column=sequence_column,
        name_column=name_column,
        progress=progress,
    )
    tokens = _token_embedder(model, pooling, strands, trust_remote_code=trust_remote_code)
    if tokens is None:
        encoder = _encoder(model)
    else:
        encoder = tokens.body
        if rope_scaling is not None:
            raise InputError(f"{model}: rope_scaling is for MutBERT; leave it out for other models")
        if genome is not None and surroundings != "reference":
            raise InputError(f"{model}: reads tokens, not allele frequencies; give --surroundings reference")
    chosen = resolve_layers(layers, encoder.config.num_hidden_layers)
    with rope_scaled(encoder.config, rope_scaling) if tokens is None else nullcontext():
        records = source.records() if tokens is None else tokens.checked(source.codes())
        found = survey(refuse_clashes(records, output, pooling), progress=progress)
        if tokens is None and found.longest.length > longest_input(encoder.config):
            raise InputError(f"{found.longest.name}: {too_long(encoder.config, found.longest.length)}")
        seen = "sequence" if genome is None else surroundings
        making = Making(model_name(model), encoder.config.hidden_size, pooling, chosen, strands, seen)
        with (
            atomic_file(output, force=force) as partial,
            open_writer(partial, making) as writer,
            progress_bar("embedding", found.records, unit="sequences", show=progress) as advance,
        ):
            how: dict[str, Any] = {
                "layers": chosen, "batch_size": batch_size, "precision": precision, "advance": advance
            }  # fmt: skip
            if tokens is None:
                embeddings = embed_inputs(encoder, source.inputs(), pooling=pooling, strands=strands, **how)
            else:
                embeddings = tokens.embed(source.codes(), **how)
            for record, embedding in embeddings:
                writer.add(record, embedding)
    return EmbeddingReport(
        output=output,
        records=found.records,
        bases=found.bases,
        hidden_size=encoder.config.hidden_size,
        pooling=pooling,
        layers=chosen,
        strands=strands,
        differing=source.differing,
        not_used=source.not_used,
    )


def _token_embedder(
    model: str | Path | MutBertPreTrainedModel, pooling: str, strands: str, *, trust_remote_code: bool
) -> TokenEmbedder | None:
    """Return what embeds by a model that is not MutBERT; None where it is."""
    if isinstance(model, MutBertPreTrainedModel):
        return None
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    if encoder.family == CNN:
        raise InputError(f"{model}: has no weights before it is trained, so nothing can be embedded by it")
    return TokenEmbedder(encoder, pooling, strands) if isinstance(encoder, AutoEncoder) else None


def embed_inputs(
    encoder: MutBertModel,
    inputs: Iterable[Input],
    *,
    layers: Sequence[int],
    pooling: str = "mean",
    strands: str = "forward",
    batch_size: int = 32,
    precision: str = "fp32",
    advance: Advance | None = None,
) -> Iterator[tuple[Record, Float32]]:
    """Embed sequences as they come.

    Parameters
    ----------
    encoder : MutBertModel
        It runs where it is, and is left as it was found between results too. Layers behind the last one that is wanted
        are not run.
    inputs : iterable of Input
        Read ahead by at most 32 batches, or by one where that many embeddings would be larger than 256 MB.
    layers : sequence of int
        From 0, the embedding layer's output.
    pooling, strands, batch_size, precision, advance
        As for `embed`.

    Yields
    ------
    Record
        In the order of the inputs.
    ndarray of float32, shape (K, D), or (K, its bases, D)
        Its embedding of each layer.
    """
    pool = _POOLINGS[pooling]
    bytes_a_vector: int = 4 * len(layers) * encoder.config.hidden_size

    def read(outputs: Any, mask_BL: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        if len(layers) == 1:
            return pool([outputs.last_hidden_state], mask_BL)
        return pool([outputs.hidden_states[layer] for layer in layers], mask_BL)

    def size(one: Input) -> int:
        vectors = one.record.length if pooling == "none" else 1
        return vectors * bytes_a_vector + one.probs_LV.nbytes

    for group in grouped(inputs, size, batch_size):
        with _running(encoder, max(layers), every=len(layers) > 1):
            # All of them before the first is given away, as the model is not to be found changed meanwhile.
            embeddings = list(
                predict(
                    encoder,
                    (one.probs_LV for one in group),
                    read,
                    batch_size=batch_size,
                    precision=precision,
                    strands=strands,
                    advance=advance,
                )
            )
        for one, embedding in zip(group, embeddings, strict=True):
            yield one.record, embedding


def resolve_layers(layers: int | str | Sequence[int], count: int) -> tuple[int, ...]:
    """Say which layers are meant.

    Parameters
    ----------
    layers : int, sequence of int, or "all"
        From 0, the embedding layer's output, or from the end, of which -1 is the last layer.
    count : int
        Layers of the model, without the embedding layer.

    Returns
    -------
    tuple of int
        From 0, in the order given.

    Raises
    ------
    InputError
        When the model has no such layer, none is given, or one twice.
    """
    if isinstance(layers, str):
        if layers != "all":
            raise InputError(f"layers is {layers!r}; give numbers, or all")
        return tuple(range(count + 1))
    numbers = [int(number) for number in (layers if isinstance(layers, Iterable) else (layers,))]
    if not numbers:
        raise InputError("layers is empty; give at least one, such as -1 for the last")
    found: dict[int, int] = {}
    for number in numbers:
        if not -count - 1 <= number <= count:
            raise InputError(
                f"layer {number}: the model has {count} layers; give 0 (the embedding layer) to {count}, or from the "
                f"end -1 (the last) to {-count - 1}"
            )
        layer = number % (count + 1)
        if layer in found:
            same = "" if number == found[layer] else f", as {found[layer]} and as {number}"
            raise InputError(f"layer {layer} is given twice{same}; give each layer once")
        found[layer] = number
    return tuple(found)


def _bases(mask_BL: torch.Tensor) -> torch.Tensor:
    """Find the bases: the tokens before which there is one, ``[CLS]``, and behind which there is one, ``[SEP]``."""
    base_BL = torch.zeros_like(mask_BL, dtype=torch.bool)
    base_BL[:, 1:-1] = mask_BL[:, 2:].bool()
    return base_BL


def _mean(states: Sequence[torch.Tensor], mask_BL: torch.Tensor) -> torch.Tensor:
    base_BL = _bases(mask_BL)
    total_KBD = [state_BLD.float().masked_fill(~base_BL[..., None], 0).sum(dim=1) for state_BLD in states]
    return torch.stack(total_KBD, dim=1) / base_BL.sum(dim=1)[:, None, None]


def _max(states: Sequence[torch.Tensor], mask_BL: torch.Tensor) -> torch.Tensor:
    other_BL1 = ~_bases(mask_BL)[..., None]
    return torch.stack([state_BLD.float().masked_fill(other_BL1, -torch.inf).amax(dim=1) for state_BLD in states], 1)


def _cls(states: Sequence[torch.Tensor], _mask_BL: torch.Tensor) -> torch.Tensor:
    return torch.stack([state_BLD[:, 0] for state_BLD in states], dim=1)


def _every(states: Sequence[torch.Tensor], mask_BL: torch.Tensor) -> list[torch.Tensor]:
    lengths = mask_BL.sum(dim=1).tolist()
    return [torch.stack([state_BLD[row, 1 : length - 1] for state_BLD in states]) for row, length in enumerate(lengths)]


_POOLINGS: Final[dict[str, Pool]] = {"mean": _mean, "max": _max, "cls": _cls, "none": _every}


def _encoder(model: str | Path | MutBertPreTrainedModel) -> MutBertModel:
    if isinstance(model, MutBertPreTrainedModel):
        encoder: MutBertModel = model.base_model
        return encoder
    # Its pooler is not used, so it need not have one.
    return open_model(model, MutBertModel, pooler_type="mean")


@contextmanager
def _running(encoder: MutBertModel, depth: int, *, every: bool) -> Iterator[None]:
    """Have a model stop behind a layer, and give all layers' states if asked for."""
    layers, hidden = encoder.encoder.layer, encoder.config.output_hidden_states
    try:
        if depth < len(layers):
            encoder.encoder.layer = nn.ModuleList(list(layers)[:depth])
        encoder.config.output_hidden_states = every
        yield
    finally:
        encoder.encoder.layer, encoder.config.output_hidden_states = layers, hidden
