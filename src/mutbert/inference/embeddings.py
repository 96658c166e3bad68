"""Embeddings of sequences and of genome regions: pooled, or of every base.

Shape suffixes: B batch, L length in tokens, D hidden size, V vocabulary (9).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.fasta import read_fasta, read_pieces
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.embedding_files import Record, check_writable, open_writer
from mutbert.inference.predict import PRECISIONS, predict
from mutbert.model import MutBertModel, MutBertPreTrainedModel
from mutbert.model.checkpoints import read_checkpoint
from mutbert.model.tokenization_mutbert import with_special_tokens
from mutbert.progress import progress_bar
from mutbert.publishing import publish_file, refuse_existing
from mutbert.regions import read_bed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

_SPECIAL_TOKENS: Final = 2


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
        ``"mean"``, ``"max"`` or ``"none"``.
    """

    output: Path
    records: int
    bases: int
    hidden_size: int
    pooling: str


def embed(
    model: str | Path | MutBertPreTrainedModel,
    *,
    fasta: str | Path | None = None,
    genome: str | Path | ProbabilisticGenome | None = None,
    bed: str | Path | None = None,
    output: str | Path,
    pooling: str = "mean",
    batch_size: int = 32,
    precision: str = "fp32",
    rope_scaling: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: bool = False,
) -> EmbeddingReport:
    """Embed the records of a FASTA file, or regions of a probabilistic genome.

    An embedding is made of the last hidden states. ``[CLS]`` and ``[SEP]`` stand around every sequence, as in
    training, but like padding they have no part in it: only the states at bases are pooled.

    Parameters
    ----------
    model : str, Path or model
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is and is left as
        it was found. Heads are not used.
    fasta : str or Path, optional
        Embed each record. IUPAC codes are the distributions they stand for, N is ``[UNK]``, either case is the
        same.
    genome : str, Path or ProbabilisticGenome, optional
        Embed regions of this store, every position being the population's allele frequencies.
    bed : str or Path, optional
        The regions of `genome`.
    output : str or Path
        The file to write; its suffix chooses the format.

        ``.parquet``: a row a record in the order of the input, with ``name``, ``contig``, ``start``, ``end``
        (0-based, half-open) and ``embedding``: a list of D float32, or with ``pooling="none"`` a list of such
        lists, one for each base. Needs pyarrow.

        ``.safetensors``: the tensor ``embeddings`` (n, D), or with ``pooling="none"`` a tensor (its bases, D) under
        each record's name; float32. The metadata hold ``names``, ``contigs``, ``starts`` and ``ends`` as JSON
        lists. Held in memory until it is written.
    pooling : str
        ``"mean"`` or ``"max"`` over the bases, or ``"none"``: one embedding a base.
    batch_size : int
        Sequences a batch; those of similar length go together.
    precision : str
        ``"fp32"``, or ``"bf16"`` for bfloat16 autocast, which is quicker where the hardware has it.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}`` in place of the model's own, for sequences longer than it is
        trained for, up to f times.
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
        When an input cannot be used; when a sequence is longer than model and scaling allow.
    MissingExtraError
        When pyarrow is needed and not installed.
    ValueError
        When an argument is out of range.
    """
    output = Path(output)
    if pooling not in _POOLINGS:
        raise InputError(f"pooling is {pooling!r}; it must be one of {', '.join(_POOLINGS)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    refuse_existing(output, force=force)
    source = _source(fasta, genome, bed)
    check_writable(output, source.records, pooling)
    with _encoder(model, rope_scaling) as encoder:
        _refuse_long(source, encoder.config)
        with (
            publish_file(output, force=force) as partial,
            open_writer(partial, source.records, encoder.config.hidden_size, pooling) as writer,
            progress_bar("embedding", len(source.records), unit="sequences", show=progress) as advance,
        ):
            embeddings = predict(
                encoder,
                source.probabilities(),
                _POOLINGS[pooling],
                batch_size=batch_size,
                precision=precision,
                advance=advance,
            )
            for embedding in embeddings:
                writer.add(embedding)
        return EmbeddingReport(
            output,
            len(source.records),
            sum(record.end - record.start for record in source.records),
            encoder.config.hidden_size,
            pooling,
        )


def _bases(mask_BL: torch.Tensor) -> torch.Tensor:
    """Find the bases: the tokens before which there is one, ``[CLS]``, and behind which there is one, ``[SEP]``."""
    base_BL = torch.zeros_like(mask_BL, dtype=torch.bool)
    base_BL[:, 1:-1] = mask_BL[:, 2:].bool()
    return base_BL


def _mean(outputs: Any, mask_BL: torch.Tensor) -> torch.Tensor:
    base_BL = _bases(mask_BL)
    total_BD = outputs.last_hidden_state.float().masked_fill(~base_BL[..., None], 0).sum(dim=1)
    mean_BD: torch.Tensor = total_BD / base_BL.sum(dim=1, keepdim=True)
    return mean_BD


def _max(outputs: Any, mask_BL: torch.Tensor) -> torch.Tensor:
    max_BD: torch.Tensor = (
        outputs.last_hidden_state.float().masked_fill(~_bases(mask_BL)[..., None], -torch.inf).amax(dim=1)
    )
    return max_BD


def _every(outputs: Any, mask_BL: torch.Tensor) -> list[torch.Tensor]:
    lengths = mask_BL.sum(dim=1).tolist()
    return [state_LD[1 : length - 1] for state_LD, length in zip(outputs.last_hidden_state, lengths, strict=True)]


_POOLINGS: Final[dict[str, Callable[[Any, torch.Tensor], torch.Tensor | list[torch.Tensor]]]] = {
    "mean": _mean,
    "max": _max,
    "none": _every,
}


class _Source(Protocol):
    """What is embedded: the list of it, and its distributions over tokens in the same order."""

    records: list[Record]

    def probabilities(self) -> Iterator[Float32]: ...


class _FastaSource:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[Record] = []
        # A pass over the file costs little next to the model, and finds every mistake before it starts.
        for name, pieces in groupby(read_pieces(path), key=lambda piece: piece.contig):
            self.records.append(Record(name, name, 0, sum(len(piece.base_L) for piece in pieces)))

    def probabilities(self) -> Iterator[Float32]:
        for contig in read_fasta(self._path):
            yield with_special_tokens(alphabet.TOKEN_PROBABILITIES[contig.base_L])


class _GenomeSource:
    def __init__(self, genome: ProbabilisticGenome, bed: Path) -> None:
        self._genome = genome
        self.records = [
            Record(region.name or str(region), region.contig, region.start, region.end)
            for region in read_bed(bed, genome.lengths)
        ]

    def probabilities(self) -> Iterator[Float32]:
        for _, contig, start, end in self.records:
            probs_LV = np.zeros((end - start, alphabet.VOCABULARY_SIZE), dtype=np.float32)
            probs_LV[:, alphabet.BASE_IDS] = self._genome.frequencies(contig, start, end)
            probs_LV[self._genome.bases(contig, start, end) == alphabet.UNKNOWN] = alphabet.TOKEN_PROBABILITIES[
                alphabet.UNKNOWN
            ]
            yield with_special_tokens(probs_LV)


def _source(
    fasta: str | Path | None, genome: str | Path | ProbabilisticGenome | None, bed: str | Path | None
) -> _Source:
    if fasta is not None and genome is None and bed is None:
        return _FastaSource(Path(fasta))
    if fasta is None and genome is not None and bed is not None:
        if not isinstance(genome, ProbabilisticGenome):
            genome = ProbabilisticGenome.open(genome)
        return _GenomeSource(genome, Path(bed))
    raise InputError("nothing or too much to embed; give either a FASTA, or a genome and a BED of its regions")


def _refuse_long(source: _Source, config: Any) -> None:
    trained = config.max_position_embeddings
    scaling = config.rope_scaling or {"type": "dynamic", "factor": 1.0}
    most = int(trained * scaling["factor"])
    longest = max(source.records, key=lambda record: record.end - record.start)
    length = longest.end - longest.start + _SPECIAL_TOKENS
    if length > most:
        scaled = f" and rope_scaling takes it to {most}" if config.rope_scaling else ""
        raise InputError(
            f"{longest.name}: {length - _SPECIAL_TOKENS} bases are {length} tokens with [CLS] and [SEP], and the model "
            f"is trained for {trained}{scaled}; give shorter sequences, or --rope-scaling "
            f"{scaling['type']}:{-(-length // trained)}"
        )


@contextmanager
def _encoder(
    model: str | Path | MutBertPreTrainedModel, rope_scaling: Mapping[str, Any] | None
) -> Iterator[MutBertModel]:
    """Give the model without its heads, with the RoPE scaling for as long as it is used."""
    if isinstance(model, MutBertPreTrainedModel):
        encoder: MutBertModel = model.base_model
    else:
        # Its pooler is not used, so it need not have one.
        encoder = read_checkpoint(model, MutBertModel, pooler_type="mean")
        encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    before = encoder.config.rope_scaling
    try:
        if rope_scaling is not None:
            _set_rope_scaling(encoder.config, rope_scaling)
        yield encoder
    finally:
        encoder.config.rope_scaling = before


def _set_rope_scaling(config: Any, rope_scaling: Mapping[str, Any]) -> None:
    try:
        config.rope_scaling = dict(rope_scaling)
        config.check()
    except ValueError as error:
        raise InputError(str(error)) from None
