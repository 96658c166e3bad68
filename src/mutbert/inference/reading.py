"""How a fine-tuned model reads sequences: as it was trained; and what becomes of those that are longer than it reads.

Shape suffixes: N sequences, P pieces of them, K outputs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from mutbert.arrays import list_ranges
from mutbert.encoders.inputs import BaseInputs
from mutbert.encoders.token_encoders import most_tokens
from mutbert.errors import InputError, one_line
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.states import BaseStates, TokenStates
from mutbert.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from mutbert.arrays import Int64
    from mutbert.encoders.inputs import Inputs
    from mutbert.examples.table import Examples
    from mutbert.inference.embeddings import Record, Source

LONG: Final = ("refuse", "truncate", "window", "skip")
"""What may become of sequences that are longer than a model reads."""
_COUNTED: Final = {"truncate": "truncated", "window": "read in windows", "skip": "skipped"}


class InputSettings(Settings):
    """What shapes a fine-tuned model's input, but for RoPE scaling: ``input_settings`` of its configuration."""

    max_tokens: int | None = Field(None, ge=3)
    strands: Literal["forward", "both"] = "forward"
    precision: Literal["fp32", "bf16"] = "fp32"
    genome: str | None = None  # path of the store with the allele frequencies, its identity,
    genome_identity: str | None = None
    region: str | None = None  # and the column that locates a sequence


def read_as_trained(
    model: str | Path, config: Any, *, genome: str | Path | None = None, **chosen: str | None
) -> tuple[InputSettings, ProbabilisticGenome | None, list[str]]:
    """Return how a model reads and the genome, as in training but for what is chosen, and a line for each difference.

    A genome of "none" is none; `chosen` are other values of `InputSettings`, or None for those of training.
    """
    known = getattr(config, "input_settings", None)
    try:
        trained = InputSettings.model_validate(known or {})
    except ValueError as error:
        raise InputError(f"{model}: input_settings of its config.json: {one_line(error)}; fine-tune it again") from None
    path = trained.genome if genome is None else None if str(genome) == "none" else str(genome)
    remedy = f"{model} was fine-tuned with its allele frequencies; use --genome with it where it is, or --genome none"
    try:
        store = None if path is None else ProbabilisticGenome.open(path)
    except InputError as error:
        raise error if genome is not None else InputError(f"{error}; {remedy}") from None
    identity = store and store.identity
    if genome is None and identity != trained.genome_identity:
        raise InputError(f"{path}: is another genome than that of the training; {remedy}")
    settings = trained.replace(**{name: value for name, value in chosen.items() if value is not None})
    pairs = {name: (getattr(settings, name), getattr(trained, name)) for name in chosen}
    if identity != trained.genome_identity:
        pairs["genome"] = path or "none", trained.genome or "none"
    notes = [f"{name} is {now}, and {was} in training" for name, (now, was) in pairs.items() if now != was]
    return settings, store, notes if known is not None else []


def check_long(long: str, known: Collection[str] = LONG) -> None:
    """Raise InputError where long sequences cannot be treated so."""
    if long not in known:
        raise InputError(f"long is {long!r}; it must be one of {', '.join(known)}")


class Pieces(NamedTuple):
    """Sequences as far as a model reads them, in their order, whole or in windows."""

    inputs: Inputs
    row_P: Int64  # the sequence of each piece
    bases_P: Int64
    counts: dict[str, int]  # of sequences that are longer, by what became of them

    @property
    def rows(self) -> Int64:
        """The sequences that are read."""
        return np.unique(self.row_P)

    def pool(self, outputs: Any) -> Any:
        """Return outputs (P, K) as means over each sequence's bases, or joined where each piece has an array."""
        first = np.flatnonzero(np.diff(self.row_P, prepend=-1))
        if len(first) == len(self.row_P):
            return outputs
        if isinstance(outputs, list):
            return [np.concatenate(outputs[start:end]) for start, end in pairwise([*first, len(outputs)])]
        weight_P1 = self.bases_P[:, None]
        return np.add.reduceat(outputs * weight_P1, first) / np.add.reduceat(weight_P1, first)


def fit_sequences(
    path: str | Path, examples: Examples, inputs_of: Callable[..., Inputs], most: int | None, long: str
) -> Pieces:
    """Return the inputs of sequences of a file, those with more than `most` tokens as `long` has it."""
    inputs, row_P = inputs_of(examples), np.arange(len(examples))
    long_N = inputs.length_N > (np.inf if most is None else most)
    if not long_N.any():
        return Pieces(inputs, row_P, examples.lengths, {})
    counts = {_COUNTED.get(long, ""): int(long_N.sum())}
    if long == "truncate":
        return Pieces(inputs_of(examples, max_tokens=most), row_P, examples.lengths, counts)
    if long == "window":
        pieces = _in_windows(examples, inputs_of, inputs.length_N, most or 0)._replace(counts=counts)
        if isinstance(inputs, BaseInputs) and isinstance(pieces.inputs, BaseInputs):
            pieces.inputs.unplaced = inputs.unplaced  # of sequences, not of windows
        return pieces
    row_P = np.flatnonzero(~long_N)
    if long == "skip" and len(row_P):
        kept = examples.select(row_P)
        return Pieces(inputs_of(kept), row_P, kept.lengths, counts)
    first = int(np.argmax(long_N))
    what = f"sequence {examples.names[first] or first}: {examples.lengths[first]:,} bases are "
    what += f"{inputs.length_N[first]:,} tokens, and the model reads {most:,}"
    others = "truncate or window" if long == "skip" else "truncate, window or skip"
    raise InputError(f"{path}: {what}; use shorter ones, or --long {others}")


def _in_windows(examples: Examples, inputs_of: Callable[..., Inputs], length_N: Int64, most: int) -> Pieces:
    """Return sequences in as few windows of equal lengths as have at most `most` tokens each."""
    count_N = np.maximum(-(-(length_N - 2) // max(most - 2, 1)), 1)
    while True:
        row_P, number_P = list_ranges(np.zeros_like(count_N), count_N)
        first_P = examples.offsets[:-1][row_P] + number_P * examples.lengths[row_P] // count_N[row_P]
        offsets = np.append(first_P, examples.offsets[-1])
        begin_P, bases_P = first_P - examples.offsets[row_P], np.diff(offsets)
        regions = tuple(
            region and replace(region, start=region.start + begin, end=region.start + begin + bases)
            for region, begin, bases in zip(
                (examples.regions[row] for row in row_P), begin_P.tolist(), bases_P.tolist(), strict=True
            )
        )
        names = tuple(examples.names[row] for row in row_P)
        inputs = inputs_of(replace(examples, offsets=offsets, names=names, regions=regions, labels=None))
        if not (more := np.unique(row_P[inputs.length_N > most])).size:
            return Pieces(inputs, row_P, bases_P, {})
        count_N[more] += 1


def fit_source(source: Source, states: BaseStates | TokenStates, long: str) -> tuple[Source, Counter[str]]:
    """Return a source without what is longer than a model reads, and counts of that, as of the last reading."""
    counts = Counter[str]()

    def read() -> Iterator[Record]:
        counts.clear()
        some = False
        for region, code_L in source.read():
            most, tokens = most_tokens(states.body), len(region) + 2
            if most is not None and tokens > most and isinstance(states, TokenStates):
                tokens = int(states.encoder.inputs(source.windows([(region, code_L)])).length_N[0])
            if most is not None and tokens > most:
                counts[_COUNTED[long]] += 1
                if long == "skip":
                    continue
                if isinstance(states, BaseStates):
                    # Of the minus strand the first bases are the last of the region.
                    start = region.end - most + 2 if region.strand == "-" else region.start
                    region = replace(region, start=start, end=start + most - 2)
                    code_L = None if code_L is None else code_L[: most - 2]
            some = True
            yield region, code_L
        if not some:
            raise InputError("every sequence is longer than the model reads; use --long truncate")

    if long == "refuse":
        return source, counts
    if isinstance(states, TokenStates) and long == "truncate":
        states.inputs = partial(states.encoder.inputs, max_tokens=most_tokens(states.body))
    return source._replace(read=read, plan={**source.plan, "long": long}), counts
