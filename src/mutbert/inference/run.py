"""A trained model on its device, the genome that it sees, the loop that runs it over batches, and long runs in parts.

Shape suffixes: N windows, B batch, L length in tokens, T positions and S spans that are read out, K spans of a window,
D features, 4 bases in the order A, C, G, T.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mutbert import alphabet
from mutbert.arrays import Float32, Float64, Int64, list_ranges
from mutbert.encoders.adapter import takes_mask
from mutbert.encoders.inputs import BaseInputs, Batch, Inputs, PaddedWindows, find_members
from mutbert.encoders.known import resolve_model
from mutbert.errors import InputError, is_out_of_memory, reading
from mutbert.genome.population import read_person
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertForMaskedLM, MutBertPreTrainedModel
from mutbert.model.checkpoints import read_checkpoint
from mutbert.progress import Advance
from mutbert.regions import Region

Predict = Callable[[Int64, bool], Sequence[torch.Tensor]]
Forward = Callable[[Batch], torch.Tensor]
Model = TypeVar("Model", bound=MutBertPreTrainedModel)

NO_ROWS: Final = np.zeros(0, dtype=np.int64)
_TOKENS: Final = 1 << 16  # of a batch at most, padding included


def open_model(model: str | Path | MutBertPreTrainedModel, model_class: type[Model], **overrides: Any) -> Model:
    """Return a loaded model as it is, or read one to a GPU if there is one (of several processes, each to its own)."""
    if isinstance(model, MutBertPreTrainedModel):
        if not isinstance(model, model_class):
            raise InputError(f"the model is a {type(model).__name__}; give a {model_class.__name__}")
        return model
    opened = read_checkpoint(type(model)(resolve_model(str(model))), model_class, **overrides)
    if torch.cuda.is_available():
        opened.to(f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}")
    return opened


def model_name(model: str | Path | MutBertPreTrainedModel) -> str:
    """Return where a model was read from, or its class where that is unknown."""
    return str(getattr(model, "name_or_path", model)) or type(model).__name__


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
    tokens, trained, scaling = bases + 2, config.max_position_embeddings, config.rope_scaling or {"type": "dynamic"}
    if tokens > config.most_tokens:
        what = f"{bases} bases are {tokens} tokens with [CLS] and [SEP], and the model reads {config.most_tokens}"
        raise InputError(f"{name}: {what}; give fewer, or --rope-scaling {scaling['type']}:{-(-tokens // trained)}")


def resolve_context(config: Any, context: int | None, rope_scaling: Mapping[str, Any] | None) -> int:
    """Return the bases of a window: `context`, or as many as the model is trained for."""
    if context is not None and context < 1:
        raise InputError(f"context is {context}; it must be at least 1")
    bases = int(config.max_position_embeddings) - 2 if context is None else context
    with rope_scaled(config, rope_scaling):
        check_length(config, bases, "context")
    return bases


def check_run(strands: str, precision: str, batch_size: int, long: str = "refuse") -> None:
    """Raise InputError where a model cannot be run so."""
    for name, value, choices in (
        ("strands", strands, ("forward", "both")), ("precision", precision, ("fp32", "bf16")),
        ("long", long, ("refuse", "truncate", "window", "skip")),
    ):  # fmt: skip
        if value not in choices:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")


class Surroundings(NamedTuple):
    """A genome as it is seen."""

    kind: str  # reference, population or person
    genome: ProbabilisticGenome
    not_used: Mapping[str, int]  # a person's records that change nothing, by reason

    def count_differing(self, regions: Iterable[Region]) -> int | None:
        """Return at how many positions of regions a person differs from the reference."""
        if self.kind != "person":
            return None
        return sum(len(self.genome.variants(one.contig, one.start, one.end).position) for one in regions)


def open_surroundings(
    genome: ProbabilisticGenome, kind: str, vcf: str | Path | None = None, sample: str | None = None, *,
    contigs: Collection[str] | None = None, progress: bool = False,
) -> Surroundings:  # fmt: skip
    """Return a genome as it is to be seen; of a person, `sample` of `vcf`, on some contigs or all."""
    if kind not in {"reference", "population", "person"}:
        raise InputError(f"surroundings is {kind!r}; it must be one of reference, population, person")
    if kind != "person":
        if given := [f"{name} {value}" for name, value in (("sample", sample), ("person_vcf", vcf)) if value]:
            raise InputError(f"{given[0]} is given, but the surroundings are the {kind}; choose person for it")
        return Surroundings(kind, genome if kind == "population" else genome.reference(), {})
    if sample is None or vcf is None:
        raise InputError("the surroundings are a person; give --person-vcf FILE and the --sample NAME of one in it")
    variants, not_used = read_person(genome, Path(vcf), sample, contigs=contigs, progress=progress)
    return Surroundings(kind, genome.with_variants(variants), not_used)


def run_batches(
    model: Any, length_N: Int64, predict: Predict, *, strands: str = "forward", batch_size: int = 32,
    precision: str = "fp32", advance: Advance | None = None, name: Callable[[int], str] | None = None,
) -> tuple[Int64, list[npt.NDArray[Any]]]:  # fmt: skip
    """Return the order of inputs by length, and in it ``predict(rows, reverse)``, the mean over strands."""
    order = np.argsort(length_N, kind="stable")
    batches: list[list[npt.NDArray[Any]]] = []
    device = next(model.parameters()).device
    training = [module for module in model.modules() if module.training]

    def compute(rows: Int64) -> list[npt.NDArray[Any]]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            fields = [field.float() for field in predict(rows, False)]
            if strands == "both":
                fields = [(one + other.float()) / 2 for one, other in zip(fields, predict(rows, True), strict=True)]
            return [field.cpu().numpy() for field in fields]

    def finite(fields: Iterable[npt.NDArray[Any]]) -> bool:
        return all(np.isfinite(field).all() for field in fields)

    model.eval()
    try:
        for rows in _split(order, length_N, batch_size, alike=not takes_mask(model)):
            batches.append(compute(rows))
            if name is not None and not finite(batches[-1]):
                first = next((row for row in rows if not finite(compute(np.array([row])))), rows[0])
                what = "the model's output is not a finite number"
                raise InputError(f"{name(int(first))}: {what}; use --precision fp32, or another model")
            if advance is not None:
                advance(len(rows))
    except Exception as error:
        # Of a run, its folder has more to report.
        if training or isinstance(error, InputError):
            raise
        if not is_out_of_memory(error):
            with reading(model_name(model), "its configuration and its weights may not fit each other"):
                raise
        what = f"out of memory in a batch of {len(rows)} sequences of up to {length_N[rows].max():,} tokens"
        remedy = "lower --batch-size (or finetune.micro_batch_size), or use shorter sequences, or --context"
        raise InputError(f"{what}; {remedy}") from None
    finally:
        for module in training:
            module.training = True
    return order, [np.concatenate(field) for field in zip(*batches, strict=True)]


def _split(order: Int64, length_N: Int64, most: int, *, alike: bool) -> Iterator[Int64]:
    """Yield batches of at most so many inputs, in order of length: half padding at most, or none where all is alike."""
    first, tokens = 0, 0
    if len(order) and (least := int(length_N[order[0]])) == length_N[order[-1]]:
        size = max(min(most, _TOKENS // max(least, 1)), 1)
        yield from np.split(order, range(size, len(order), size))
        return
    for end, length in enumerate(length_N[order].tolist()):
        size, tokens = (end + 1 - first) * length, tokens + length
        if end > first and (end - first == most or size > min(_TOKENS, tokens if alike else 2 * tokens)):
            yield order[first:end]
            first, tokens = end, length
    if len(order):
        yield order[first:]


class Queries(NamedTuple):
    """What is read out: logits at columns of windows, and mean states of 0-based half-open spans of windows."""

    row_T: Int64
    column_T: Int64
    row_S: Int64 = NO_ROWS
    begin_S: Int64 = NO_ROWS
    end_S: Int64 = NO_ROWS
    layers: Sequence[int] = ()  # whose states are concatenated, from 0, the embedding layer; by default the last


class Results(NamedTuple):
    """Logits of A, C, G and T at each position and mean last hidden states of each span, in the queries' order."""

    logit_T4: Float32
    state_SD: Float32


def run_windows(model: MutBertForMaskedLM, windows: PaddedWindows, queries: Queries, **settings: Any) -> Results:
    """Return logits, of a head in float32, and states of windows; `settings` as for `run_batches`."""

    def predict(rows: Int64, reverse: bool) -> list[torch.Tensor]:
        (local_T, own_T), (local_S, own_S) = find_members(queries.row_T, rows), find_members(queries.row_S, rows)
        column_T, begin_S, end_S = queries.column_T[own_T], queries.begin_S[own_S], queries.end_S[own_S]
        if reverse:
            length_B = windows.length_N[rows]
            column_T = length_B[local_T] - 1 - column_T
            begin_S, end_S = length_B[local_S] - end_S, length_B[local_S] - begin_S
        batch, layers = batch_of(windows, rows, model, reverse=reverse), queries.layers
        outputs = model.bert(**batch, output_hidden_states=bool(layers))
        hidden_BLD = outputs.last_hidden_state
        states_BLD = torch.cat([outputs.hidden_states[one] for one in layers], dim=2) if layers else hidden_BLD
        with torch.autocast(model.device.type, enabled=False):
            at = tuple(torch.from_numpy(one).to(model.device) for one in (local_T, column_T + 1))
            logit_T4 = model.cls(hidden_BLD[at].to(model.dtype)).float()[:, alphabet.BASE_IDS]
            state_SD = _span_means(states_BLD, local_S, begin_S + 1, end_S + 1)
        return [logit_T4.flip(1) if reverse else logit_T4, state_SD]

    logit_T4 = np.zeros((len(queries.row_T), len(alphabet.BASES)), dtype=np.float32)
    width = int(model.config.hidden_size) * max(len(queries.layers), 1)
    state_SD = np.zeros((len(queries.row_S), width), dtype=np.float32)
    if len(windows):
        order, found = run_batches(model, windows.length_N, predict, **settings)
        logit_T4[find_members(queries.row_T, order)[1]], state_SD[find_members(queries.row_S, order)[1]] = found
    return Results(logit_T4, state_SD)


def _span_means(hidden_BLD: torch.Tensor, row_S: Int64, begin_S: Int64, end_S: Int64) -> torch.Tensor:
    """Return the mean states of spans, in float32, by one matrix product a window."""
    if not len(row_S):
        return hidden_BLD.new_zeros((0, hidden_BLD.shape[2]))
    batch, length = hidden_BLD.shape[:2]
    # The spans of a window are the rows of its matrix, as many as the window with the most spans has.
    count_B = np.bincount(row_S, minlength=batch)
    slot_S = np.arange(len(row_S)) - (np.cumsum(count_B) - count_B)[row_S]
    inside_SL = (np.arange(length) >= begin_S[:, None]) & (np.arange(length) < end_S[:, None])
    weight_BKL = np.zeros((batch, int(count_B.max()), length), dtype=np.float32)
    weight_BKL[row_S, slot_S] = inside_SL / (end_S - begin_S)[:, None]
    mean_BKD = torch.from_numpy(weight_BKL).to(hidden_BLD.device) @ hidden_BLD.float()
    return mean_BKD[torch.from_numpy(row_S).to(hidden_BLD.device), torch.from_numpy(slot_S).to(hidden_BLD.device)]


def base_log_probabilities(logit_T4: Float32) -> Float64:
    """Return ln P of A, C, G and T, as if there were no other token, shape (T, 4)."""
    return torch.tensor(logit_T4, dtype=torch.float64).log_softmax(dim=1).numpy()


def entropy(logit_T4: Float32) -> Float64:
    """Return the entropy of the distributions over A, C, G and T, −Σ p ln p, in nats, shape (T,)."""
    log_probability = base_log_probabilities(logit_T4)
    return -(np.exp(log_probability) * log_probability).sum(axis=1)  # type: ignore[no-any-return]


def sequence_outputs(
    model: Any, forward: Forward, inputs: Inputs, rows: Int64 | None = None, **settings: Any
) -> Float32:
    """Return what ``forward(batch)``, a tensor (B, D), is for some inputs, or all; `settings` as for `run_batches`."""
    rows = np.arange(len(inputs.length_N)) if rows is None else rows

    def predict(chosen: Int64, reverse: bool) -> list[torch.Tensor]:
        return [forward(batch_of(inputs, rows[chosen], model, reverse=reverse))]

    order, found = run_batches(model, inputs.length_N[rows], predict, **settings)
    return found[0][np.argsort(order)] if found else np.zeros((0, 0), dtype=np.float32)


def base_outputs(
    model: Any, forward: Forward, inputs: BaseInputs, rows: Int64 | None = None, *, strands: str = "forward",
    **settings: Any,
) -> list[Float32]:  # fmt: skip
    """Return what ``forward(batch)``, a tensor (B, L, D), is at each base of some inputs, or all; one array each."""
    rows = np.arange(len(inputs.length_N)) if rows is None else rows
    bases_N, cut_N = inputs.length_N[rows] - 2, inputs.cut_N[rows]

    def predict(chosen: Int64, _: bool) -> list[torch.Tensor]:
        local_T, column_T = list_ranges(np.zeros_like(chosen), bases_N[chosen])
        output_TD = forward(batch_of(inputs, rows[chosen], model))[local_T, column_T + 1].float()
        if strands == "both":
            # Of a sequence that was cut, the other strand lacks the first bases, which keep the output of this one.
            last_T, cut_T = bases_N[chosen][local_T], cut_N[chosen][local_T]
            other_BLD = forward(batch_of(inputs, rows[chosen], model, reverse=True))
            other_TD = other_BLD[local_T, np.minimum(last_T + cut_T - column_T, last_T)].float()
            read_T1 = torch.from_numpy(column_T >= cut_T).to(output_TD.device)[:, None]
            output_TD = torch.where(read_T1, (output_TD + other_TD) / 2, output_TD)
        return [output_TD]

    if not len(rows):
        return []
    order, (output_TD,) = run_batches(model, inputs.length_N[rows], predict, **settings)
    outputs = np.split(output_TD, np.cumsum(bases_N[order])[:-1])
    return [outputs[place] for place in np.argsort(order)]


def batch_of(inputs: Inputs | PaddedWindows, rows: Int64, model: Any, *, reverse: bool = False) -> Batch:
    """Return prepared inputs of one strand, on the model's device."""
    batch = inputs.batch(rows, np.ones(len(rows), dtype=np.bool_) if reverse else None)
    device = next(model.parameters()).device
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
