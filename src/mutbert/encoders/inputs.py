"""Sequences as a model reads them: whole batches at once, of either strand, padded to their longest alone.

Shape suffixes: N sequences or windows, L length in bases or tokens, B batch, M positions with a distribution of their
own, P rows or positions asked for, E edits, X members of rows, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field

from mutbert import alphabet
from mutbert.arrays import Bool, Int64, UInt8, UInt16, list_ranges
from mutbert.errors import InputError, one_line
from mutbert.examples.table import Examples
from mutbert.genome.store import ProbabilisticGenome, fixed_to_float
from mutbert.regions import ContigNames
from mutbert.settings import Settings

Batch = dict[str, torch.Tensor]

PLACEMENTS: Final = ("centred", "shared")
MASKED: Final = len(alphabet.IUPAC)  # the base code that stands for [MASK]
_CLS, _SEP, _PAD = MASKED + 1, MASKED + 2, MASKED + 3
_IDS: Final = np.append(
    alphabet.TOKEN_ID_OF_CODE, [alphabet.MASK_ID, alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID]
)
_PROBABILITIES: Final = np.concatenate(
    [alphabet.TOKEN_PROBABILITIES, np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)[_IDS[MASKED:]]]
)
_COMPLEMENT: Final = np.append(alphabet.COMPLEMENT_OF_CODE, np.uint8(MASKED))
_ROWS_AT_ONCE: Final = 1024
_NO_PLACES, _NO_FREQUENCIES = np.zeros(0, np.int64), np.zeros((0, len(alphabet.BASES)), np.uint16)


@dataclass(frozen=True)
class PaddedWindows:
    """Windows of any lengths; what follows a window's end is ignored."""

    code_NL: UInt8  # base codes, or `MASKED`
    length_N: Int64
    row_M: Int64
    column_M: Int64
    frequency_M4: UInt16  # instead of the code, in units of 1/65535

    @classmethod
    def of(cls, codes: Sequence[UInt8]) -> PaddedWindows:
        """Return sequences of base codes as windows, without distributions."""
        length_N = np.array([len(code_L) for code_L in codes], dtype=np.int64)
        code_NL = np.zeros((len(codes), int(length_N.max(initial=0))), dtype=np.uint8)
        windows = cls(code_NL, length_N, _NO_PLACES, _NO_PLACES, _NO_FREQUENCIES)
        code_NL[windows.inside_NL] = np.concatenate([np.zeros(0, np.uint8), *codes])
        return windows

    def __len__(self) -> int:
        return len(self.length_N)

    @property
    def inside_NL(self) -> Bool:  # noqa: N802
        """Which columns are within their window."""
        return np.arange(self.code_NL.shape[1]) < self.length_N[:, None]

    @property
    def base_codes(self) -> UInt8:
        """Codes of all windows, one window after the other."""
        return self.code_NL[self.inside_NL]

    @property
    def offsets(self) -> Int64:
        """Where each window starts in `base_codes`, and the end of the last."""
        return np.append(0, np.cumsum(self.length_N))

    def take(self, rows_P: Int64) -> PaddedWindows:
        """Return some of the windows in the order asked for, any of them repeatedly."""
        length_P = self.length_N[rows_P]
        code_PL = self.code_NL[rows_P, : int(length_P.max(initial=0))]
        row_M, member_M = find_members(self.row_M, rows_P)
        return PaddedWindows(code_PL, length_P, row_M, self.column_M[member_M], self.frequency_M4[member_M])

    def with_codes(self, row_E: Int64, column_E: Int64, code_E: UInt8 | int) -> PaddedWindows:
        """Return the windows with other codes at some positions, which lose their distributions."""
        code_NL = self.code_NL.copy()
        code_NL[row_E, column_E] = code_E
        width = code_NL.shape[1]
        kept_M = ~np.isin(self.row_M * width + self.column_M, row_E * width + column_E)
        row_M, column_M = self.row_M[kept_M], self.column_M[kept_M]
        return PaddedWindows(code_NL, self.length_N, row_M, column_M, self.frequency_M4[kept_M])

    def reverse_complement(self, turned_N: Bool | None = None) -> PaddedWindows:
        """Return the windows, or the chosen ones of them, as the other strand reads."""
        turned_N = np.ones(len(self), dtype=np.bool_) if turned_N is None else turned_N
        turned_N1, column_L = turned_N[:, None], np.arange(self.code_NL.shape[1])
        source_NL = np.where(turned_N1, np.maximum(self.length_N[:, None] - 1 - column_L, 0), column_L)
        code_NL = np.take_along_axis(self.code_NL, source_NL, axis=1)
        code_NL = np.where(turned_N1, _COMPLEMENT[code_NL], code_NL)
        turned_M = turned_N[self.row_M]
        column_M = np.where(turned_M, self.length_N[self.row_M] - 1 - self.column_M, self.column_M)
        # A, C, G, T backwards are their complements.
        frequency_M4 = np.where(turned_M[:, None], self.frequency_M4[:, ::-1], self.frequency_M4)
        return PaddedWindows(code_NL, self.length_N, self.row_M, column_M, frequency_M4)

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Return `tokens` of some of the windows; of those chosen by `reverse`, (B,), the other strand's."""
        windows = self.take(rows)
        return (windows if reverse is None else windows.reverse_complement(reverse)).tokens()

    def tokens(self, *, special_tokens: bool = True) -> Batch:
        """Return ``input_ids``, or ``input_probs`` where ids do not suffice, and a mask where there is padding."""
        code_NL = np.where(self.inside_NL, self.code_NL, np.uint8(_PAD))
        if special_tokens:
            code_NL = np.pad(code_NL, ((0, 0), (1, 1)), constant_values=_PAD)
            code_NL[:, 0] = _CLS
            code_NL[np.arange(len(self)), self.length_N + 1] = _SEP
        if len(self.row_M) or ((code_NL >= len(alphabet.BASES)) & (code_NL < alphabet.UNKNOWN)).any():
            probs_NLV = _PROBABILITIES[code_NL]
            column_M, bases = self.column_M + int(special_tokens), alphabet.BASE_IDS
            probs_NLV[self.row_M, column_M] = 0
            probs_NLV[self.row_M, column_M, bases] = fixed_to_float(self.frequency_M4)
            batch = {"input_probs": torch.from_numpy(probs_NLV)}
        else:
            batch = {"input_ids": torch.from_numpy(_IDS[code_NL])}
        if (self.length_N != self.code_NL.shape[1]).any():
            batch["attention_mask"] = torch.from_numpy((code_NL != _PAD).astype(np.int64))
        return batch


def find_members(row_X: Int64, rows_P: Int64) -> tuple[Int64, Int64]:
    """Return all members of the rows asked for, row by row: which of these rows each is in, and its index."""
    order = np.argsort(row_X, kind="stable")
    sorted_X = row_X[order]
    row, place = list_ranges(np.searchsorted(sorted_X, rows_P), np.searchsorted(sorted_X, rows_P, "right"))
    return row, order[place]


def place_windows(
    position_P: Int64, contig_length_P: Int64, context: int, placement: str = "centred"
) -> tuple[Int64, Int64]:
    """Return 0-based starts and lengths of windows of `context` bases (or a contig's) in which positions are seen."""
    # Shared, windows lie on a grid; a position has at least a quarter of the context on either side.
    shared, length_P = placement == "shared", np.minimum(context, contig_length_P)
    stride = max(context // 2, 1) if shared else 1
    start_P = position_P // stride * stride - (context - stride * shared) // 2
    return np.clip(start_P, 0, contig_length_P - length_P), length_P


def read_windows(genome: ProbabilisticGenome, contig_N: Int64, start_N: Int64, length_N: Int64) -> PaddedWindows:
    """Return windows of any lengths, by the numbers of their contigs in the genome's order and 0-based starts."""
    order, code_NL = np.argsort(length_N, kind="stable"), np.zeros((len(length_N), length_N.max(initial=0)), np.uint8)
    at, frequencies = [np.zeros((2, 0), np.int64)], [_NO_FREQUENCIES]
    lengths, first = np.unique(length_N[order], return_index=True)
    for length, row_B in zip(lengths.tolist(), np.split(order, first[1:]), strict=False):
        found = genome.windows(contig_N[row_B], start_N[row_B], length)
        code_NL[row_B, :length] = found.base_BL
        # N is unknown, whatever a population has there.
        known_M = found.base_BL[found.row_N, found.column_N] != alphabet.UNKNOWN
        at.append(np.stack([row_B[found.row_N[known_M]], found.column_N[known_M]]))
        frequencies.append(found.frequency_N4[known_M])
    row_M, column_M = np.concatenate(at, axis=1)
    return PaddedWindows(code_NL, length_N, row_M, column_M, np.concatenate(frequencies))


class BaseInputs:
    """One token a base, as MutBERT reads; with a genome's frequencies, and `unplaced` counts of those without."""

    def __init__(
        self, examples: Examples | PaddedWindows, *, max_tokens: int | None = None,
        genome: ProbabilisticGenome | None = None, special_tokens: bool = True,
    ) -> None:  # fmt: skip
        self._code, self._offset, self._special = examples.base_codes, examples.offsets, special_tokens
        bases_N = np.diff(self._offset)
        self._kept_N = bases_N if max_tokens is None else np.minimum(bases_N, max_tokens - 2 * special_tokens)
        self.cut_N: Int64 = bases_N - self._kept_N
        self.length_N: Int64 = self._kept_N + 2 * special_tokens
        place_M, frequency_M4, self.unplaced = _NO_PLACES, _NO_FREQUENCIES, dict[str, int]()
        if isinstance(examples, PaddedWindows):
            place_M, frequency_M4 = self._offset[examples.row_M] + examples.column_M, examples.frequency_M4
        elif genome is not None:
            place_M, frequency_M4, self.unplaced = _population(examples, genome)
        order = np.argsort(place_M, kind="stable")
        self._place_M, self._frequency_M4 = place_M[order], frequency_M4[order]

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Return the model's arguments for some rows, of those chosen by `reverse`, (B,), the other strand."""
        kept_B, first_B = self._kept_N[rows], self._offset[rows]
        if reverse is not None:
            # The other strand is cut at this one's start.
            first_B = first_B + np.where(reverse, self.cut_N[rows], 0)
        row_M, member_M = list_ranges(*np.searchsorted(self._place_M, [first_B, first_B + kept_B]))
        column_M = self._place_M[member_M] - first_B[row_M]
        code_BL = _codes_from(self._code, first_B, kept_B)
        windows = PaddedWindows(code_BL, kept_B, row_M, column_M, self._frequency_M4[member_M])
        windows = windows if reverse is None else windows.reverse_complement(reverse)
        return windows.tokens(special_tokens=self._special)

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        """Return the token, (B,), that holds a base of each row's forward strand; -1 where none is known to."""
        return np.where(place_B < self._kept_N[rows], place_B + self._special, -1)


def _codes_from(codes: UInt8, first_B: Int64, length_B: Int64) -> UInt8:
    """Return codes (B, L) from where each row starts; past a row's end they mean nothing."""
    return codes.take(first_B[:, None] + np.arange(length_B.max(initial=0)), mode="clip")


def _population(examples: Examples, genome: ProbabilisticGenome) -> tuple[Int64, UInt16, dict[str, int]]:
    """Return where in `base_codes` a population varies, its frequencies, and counts of sequences it is not used for."""
    names, number = ContigNames(genome.lengths), {name: index for index, name in enumerate(genome.lengths)}
    located = [
        (row, number[contig], region.start, len(region), region.strand == "-")
        for row, region in enumerate(examples.regions)
        if region and (contig := names.find(region.contig)) and region.start < region.end <= genome.lengths[contig]
    ]
    table_N5, other = np.array(located, dtype=np.int64).reshape(-1, 5), 0
    table_N5 = table_N5[np.argsort(table_N5[:, 3], kind="stable")]
    places, frequencies = [_NO_PLACES], [_NO_FREQUENCIES]
    for first in range(0, len(table_N5), _ROWS_AT_ONCE):
        row_B, contig_B, start_B, length_B, turned_B = table_N5[first : first + _ROWS_AT_ONCE].T
        windows = read_windows(genome, contig_B, start_B, length_B).reverse_complement(turned_B > 0)
        first_B = examples.offsets[row_B]
        own_BL, code_BL = _codes_from(examples.base_codes, first_B, length_B), windows.code_NL
        unknown_BL = (own_BL == alphabet.UNKNOWN) | (code_BL == alphabet.UNKNOWN)
        alike_B = ((own_BL == code_BL) | unknown_BL | ~windows.inside_NL).all(axis=1)
        other += int((~alike_B).sum())
        kept_M = alike_B[windows.row_M]
        places.append((first_B[windows.row_M] + windows.column_M)[kept_M])
        frequencies.append(windows.frequency_M4[kept_M])
    reasons = ("no place in the genome", "other bases than the genome has there")
    unplaced = dict(zip(reasons, (len(examples.regions) - len(table_N5), other), strict=True))
    return np.concatenate(places), np.concatenate(frequencies), unplaced


class TokenInputs:
    """Tokens of a tokenizer of `transformers`; IUPAC codes but A, C, G and T are read as N, and `max_tokens` cuts."""

    def __init__(
        self, tokenizer: Any, examples: Examples | PaddedWindows, *, max_tokens: int | None = None,
        special_tokens: bool = True,
    ) -> None:  # fmt: skip
        self._tokenizer, self._max_tokens, self._special_tokens = tokenizer, max_tokens, special_tokens
        code, self._offset = examples.base_codes, examples.offsets
        self._code = np.where(code < len(alphabet.BASES), code, np.uint8(alphabet.UNKNOWN))
        # Token ids of all sequences, and how many each has; the other strand's follow once they are asked for.
        self._ids, self.length_N = self._tokens(self._code, self._offset)
        self._bounds = np.append(0, np.cumsum(self.length_N))

    def _tokens(self, code: UInt8, offset: Int64) -> tuple[Int64, Int64]:
        text = alphabet.decode(code)
        # Not verbose, as callers have a better message for a sequence longer than the model is trained for.
        ids = self._tokenizer(
            [text[start:end] for start, end in pairwise(offset)], truncation=self._max_tokens is not None,
            max_length=self._max_tokens, add_special_tokens=self._special_tokens, return_attention_mask=False,
            verbose=False,
        )["input_ids"]  # fmt: skip
        length_N = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.fromiter((token for row in ids for token in row), np.int64, int(length_N.sum())), length_N

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Return ``input_ids``."""
        count = len(self.length_N)
        if reverse is not None and reverse.any():
            if len(self._bounds) == count + 1:
                # The reverse complement of all bases has the last sequence first.
                turned = alphabet.reverse_complement(self._code), self._offset[-1] - self._offset[::-1]
                ids, length_N = self._tokens(*turned)
                self._ids = np.append(self._ids, ids)
                self._bounds = np.append(self._bounds, self._bounds[-1] + np.cumsum(length_N))
            rows = np.where(reverse, 2 * count - 1 - rows, rows)
        start_B, end_B = self._bounds[rows], self._bounds[rows + 1]
        row, place = list_ranges(start_B, end_B)
        width = int((end_B - start_B).max(initial=0))
        id_BL = np.full((len(rows), width), self._tokenizer.pad_token_id, dtype=np.int64)
        id_BL[row, place - start_B[row]] = self._ids[place]
        batch = {"input_ids": torch.from_numpy(id_BL)}
        if len(place) < id_BL.size:
            batch["attention_mask"] = torch.from_numpy((np.arange(width) < (end_B - start_B)[:, None]).astype(np.int64))
        return batch

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        """Return the first of what `locate` returns."""
        return self.locate(rows, place_B)[0]

    def locate(self, rows: Int64, place_B: Int64) -> tuple[Int64, Int64, Int64]:
        """Return tokens as `BaseInputs.tokens_at`, their ids, and how many bases of each precede the base."""
        bases = np.append(0, np.cumsum(self._width_of_id()[self._ids]))
        first_B, end_B = self._bounds[rows], self._bounds[rows + 1]
        whole_B = bases[end_B] - bases[first_B] == self._offset[rows + 1] - self._offset[rows]
        if self._max_tokens is not None:
            whole_B |= self.length_N[rows] == self._max_tokens
        # The first token at whose end more bases were read than precede the one looked for.
        wanted_B = bases[first_B] + place_B
        at_B = np.searchsorted(bases[1:], wanted_B, side="right")
        # Where a tokenizer makes one token of several unknown bases, or none, no position is certain.
        found_B = np.where(whole_B & (at_B < end_B), at_B - first_B, -1)
        at_B = np.minimum(at_B, len(self._ids) - 1)
        return found_B, self._ids[at_B], wanted_B - bases[at_B]

    def _width_of_id(self) -> Int64:
        """Return how many bases each token of the vocabulary stands for."""
        vocabulary, special = self._tokenizer.get_vocab(), set(self._tokenizer.all_special_ids)
        width = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        for token, number in vocabulary.items():
            width[number] = 0 if number in special else sum(map(token.count, alphabet.BASES + "N"))
        if self._tokenizer.unk_token_id is not None:
            # What N becomes where the vocabulary has none.
            width[self._tokenizer.unk_token_id] = 1
        return width


Inputs: TypeAlias = BaseInputs | TokenInputs


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
