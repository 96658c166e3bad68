"""A trained model on its device, how it is run, and the genome that it sees."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import torch

from mutbert.encoders.known import resolve_model
from mutbert.errors import InputError
from mutbert.genome.population import read_person
from mutbert.inference.run import PRECISIONS, STRANDS
from mutbert.model import MutBertPreTrainedModel
from mutbert.model.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.regions import Region

Model = TypeVar("Model", bound=MutBertPreTrainedModel)
SURROUNDINGS: Final = ("reference", "population", "person")
_SPECIAL_TOKENS: Final = 2


def open_model(model: str | Path | MutBertPreTrainedModel, model_class: type[Model], **overrides: Any) -> Model:
    """Return a loaded model as it is, or read one to a GPU if there is one (of several processes, each to its own)."""
    if isinstance(model, MutBertPreTrainedModel):
        if not isinstance(model, model_class):
            raise InputError(f"the model is a {type(model).__name__}; give a {model_class.__name__}")
        return model
    opened = read_checkpoint(resolve_model(model) if isinstance(model, str) else model, model_class, **overrides)
    if torch.cuda.is_available():
        opened.to(f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}")
    return opened


def model_name(model: str | Path | MutBertPreTrainedModel) -> str:
    """Return where a model was read from, or its class where that is unknown."""
    return str(getattr(model, "name_or_path", model)) or type(model).__name__


def on_disk(*given: Any) -> list[str | Path]:
    """Return those inputs that are on the disk, and not in memory."""
    return [one for one in given if isinstance(one, (str, Path))]


def model_hash(model: Any) -> str:
    """Return the SHA-256 of a loaded model's configuration and weights, whatever files they were read from."""
    origin = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
    config = {name: value for name, value in model.config.to_dict().items() if name not in origin}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def rope_scaled(config: Any, rope_scaling: Mapping[str, Any] | None) -> Iterator[None]:
    """Yield with another RoPE scaling in a configuration, if one is given."""
    if rope_scaling is None:
        yield
        return
    before = config.rope_scaling
    try:
        try:
            config.rope_scaling = dict(rope_scaling)
            config.check()
        except ValueError as error:
            raise InputError(str(error)) from None
        yield
    finally:
        config.rope_scaling = before


def check_length(config: Any, bases: int, name: str) -> None:
    """Raise where a model does not take so many bases, with the RoPE scaling that it has now."""
    trained, scaling = config.max_position_embeddings, config.rope_scaling or {"type": "dynamic", "factor": 1.0}
    tokens, most = bases + _SPECIAL_TOKENS, int(trained * scaling["factor"])
    if tokens > most:
        scaled = f" and rope_scaling takes it to {most}" if config.rope_scaling else ""
        raise InputError(
            f"{name}: {bases} bases are {tokens} tokens with [CLS] and [SEP], and the model is trained for {trained}"
            f"{scaled}; give fewer, or --rope-scaling {scaling['type']}:{-(-tokens // trained)}"
        )


def resolve_context(config: Any, context: int | None, rope_scaling: Mapping[str, Any] | None) -> int:
    """Return the bases of a window: `context`, or as many as the model is trained for."""
    if context is not None and context < 1:
        raise InputError(f"context is {context}; it must be at least 1")
    bases = int(config.max_position_embeddings) - _SPECIAL_TOKENS if context is None else context
    with rope_scaled(config, rope_scaling):
        check_length(config, bases, "context")
    return bases


def check_run(strands: str, precision: str, batch_size: int) -> None:
    """Raise InputError where a model cannot be run so."""
    for name, value, choices in (("strands", strands, STRANDS), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")


class Surroundings(NamedTuple):
    """A genome as it is seen."""

    kind: str  # one of `SURROUNDINGS`
    genome: ProbabilisticGenome
    not_used: Mapping[str, int]  # a person's records that change nothing, by reason

    def count_differing(self, regions: Iterable[Region]) -> int | None:
        """Return at how many positions of regions a person differs from the reference."""
        if self.kind != "person":
            return None
        return sum(len(self.genome.variants(one.contig, one.start, one.end).position) for one in regions)


def open_surroundings(
    genome: ProbabilisticGenome, kind: str, *, vcf: str | Path | None = None, sample: str | None = None,
    contigs: Collection[str] | None = None, progress: bool = False,
) -> Surroundings:  # fmt: skip
    """Return a genome as it is to be seen; of a person, `sample` of `vcf`, on some contigs or all."""
    if kind not in SURROUNDINGS:
        raise InputError(f"surroundings is {kind!r}; it must be one of {', '.join(SURROUNDINGS)}")
    if kind != "person":
        if given := [f"{name} {value}" for name, value in (("sample", sample), ("person_vcf", vcf)) if value]:
            raise InputError(f"{given[0]} is given, but the surroundings are the {kind}; choose person for it")
        return Surroundings(kind, genome if kind == "population" else genome.reference(), {})
    if sample is None:
        raise InputError("the surroundings are a person, but no sample is named; give --sample NAME, as in its VCF")
    if vcf is None:
        raise InputError(f"the surroundings are {sample}, but no genotypes are given; give --person-vcf FILE")
    variants, not_used = read_person(genome, Path(vcf), sample, contigs=contigs, progress=progress)
    return Surroundings(kind, genome.with_variants(variants), not_used)
