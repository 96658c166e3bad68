"""Windows of bases, and the one loop that runs a model over batches of them.

Windows are one byte a base until they are distributions over tokens on the model's device. Shape suffixes: N windows,
L length in bases or tokens, B batch, M positions with a distribution of their own, T positions and S spans that are
read out, P rows asked for, E edits, D features, V vocabulary (9), 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.genome.store import fixed_to_float

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Float64, Int64, UInt8, UInt16
    from mutbert.encoders.inputs import BaseInputs, Inputs
    from mutbert.model import MutBertForMaskedLM
    from mutbert.progress import Advance

    Predict = Callable[[Int64, bool], Sequence[torch.Tensor]]
    Forward = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]

PRECISIONS: Final = ("fp32", "bf16")
STRANDS: Final = ("forward", "both")
MASKED: Final = len(alphabet.IUPAC)
"""Base code that stands for ``[MASK]``."""
_CLS, _SEP, _PAD = MASKED + 1, MASKED + 2, MASKED + 3
_IDS: Final = [alphabet.MASK_ID, alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID]
_TOKENS: Final = np.concatenate(
    [alphabet.TOKEN_PROBABILITIES, np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)[_IDS]]
)
_COMPLEMENT: Final = np.append(alphabet.COMPLEMENT_OF_CODE, np.uint8(MASKED))
NO_ROWS: Final = np.zeros(0, dtype=np.int64)


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
        windows = cls(code_NL, length_N, NO_ROWS, NO_ROWS, np.zeros((0, len(alphabet.BASES)), dtype=np.uint16))
        windows.code_NL[windows.inside_NL] = np.concatenate([np.zeros(0, np.uint8), *codes])
        return windows

    def __len__(self) -> int:
        return len(self.length_N)

    @property
    def inside_NL(self) -> Bool:  # noqa: N802
        """Which columns are within their window."""
        return np.arange(self.code_NL.shape[1]) < self.length_N[:, None]

    def take(self, rows_P: Int64) -> PaddedWindows:
        """Return some of the windows in the order asked for, any of them repeatedly."""
        length_P = self.length_N[rows_P]
        code_PL = self.code_NL[rows_P, : int(length_P.max(initial=0))]
        row_M, member_M = _members(self.row_M, rows_P)
        return PaddedWindows(code_PL, length_P, row_M, self.column_M[member_M], self.frequency_M4[member_M])

    def with_codes(self, row_E: Int64, column_E: Int64, code_E: UInt8 | int) -> PaddedWindows:
        """Return the windows with other codes at some positions, which lose their distributions."""
        code_NL = self.code_NL.copy()
        code_NL[row_E, column_E] = code_E
        width = code_NL.shape[1]
        kept_M = ~np.isin(self.row_M * width + self.column_M, row_E * width + column_E)
        row_M, column_M = self.row_M[kept_M], self.column_M[kept_M]
        return PaddedWindows(code_NL, self.length_N, row_M, column_M, self.frequency_M4[kept_M])

    def reverse_complement(self) -> PaddedWindows:
        """Return each window as the other strand reads."""
        source_NL = np.maximum(self.length_N[:, None] - 1 - np.arange(self.code_NL.shape[1]), 0)
        code_NL = _COMPLEMENT[np.take_along_axis(self.code_NL, source_NL, axis=1)]
        column_M = self.length_N[self.row_M] - 1 - self.column_M
        # A, C, G, T backwards are their complements.
        return PaddedWindows(code_NL, self.length_N, self.row_M, column_M, self.frequency_M4[:, ::-1])

    def tokens(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return distributions over tokens with ``[CLS]`` and ``[SEP]``, and the attention mask if there is padding."""
        longest = self.code_NL.shape[1]
        framed_BL = np.full((len(self), longest + 2), _CLS, dtype=np.uint8)
        framed_BL[:, 1:-1] = self.code_NL
        framed_BL[np.arange(longest + 2) > self.length_N[:, None] + 1] = _PAD
        framed_BL[np.arange(len(self)), self.length_N + 1] = _SEP
        probs_BLV = torch.from_numpy(_TOKENS).to(device)[torch.from_numpy(framed_BL).to(device).long()]
        frequency_M4 = torch.from_numpy(fixed_to_float(self.frequency_M4)).to(device)
        row_M, column_M = (torch.from_numpy(one).to(device) for one in (self.row_M, self.column_M + 1))
        probs_BLV[row_M, column_M] = torch.nn.functional.pad(frequency_M4, (alphabet.BASE_IDS.start, 0))
        if (self.length_N == longest).all():
            return probs_BLV, None
        return probs_BLV, torch.from_numpy((framed_BL != _PAD).astype(np.int64)).to(device)


def concatenate_windows(parts: Sequence[PaddedWindows]) -> PaddedWindows:
    """Return all windows of several parts, in order."""
    parts = [PaddedWindows.of([]), *parts]
    width = max(part.code_NL.shape[1] for part in parts)
    codes = [np.pad(part.code_NL, ((0, 0), (0, width - part.code_NL.shape[1]))) for part in parts]
    rows = [part.row_M + first for part, first in zip(parts, np.cumsum([0, *map(len, parts[:-1])]), strict=True)]
    lengths, columns, frequencies = zip(*((one.length_N, one.column_M, one.frequency_M4) for one in parts), strict=True)
    return PaddedWindows(*map(np.concatenate, (codes, lengths, rows, columns, frequencies)))


def _members(row_X: Int64, rows_P: Int64) -> tuple[Int64, Int64]:
    """Return all members of the rows asked for, row by row: which of these rows each is in, and its index."""
    order = np.argsort(row_X, kind="stable")
    sorted_X = row_X[order]
    row, place = list_ranges(np.searchsorted(sorted_X, rows_P), np.searchsorted(sorted_X, rows_P, "right"))
    return row, order[place]


def run_batches(
    model: Any, length_N: Int64, predict: Predict, *, strands: str = "forward", batch_size: int = 32,
    precision: str = "fp32", advance: Advance | None = None,
) -> tuple[Int64, list[npt.NDArray[Any]]]:  # fmt: skip
    """Return the order in which inputs were run, by length, and what `predict` returned for them, concatenated.

    ``predict(rows, reverse)`` returns tensors in the order of the forward strand, which are averaged over both. The
    model runs where it is, in evaluation mode and without gradients, and is left as it was.
    """
    order = np.argsort(length_N, kind="stable")
    batches: list[list[npt.NDArray[Any]]] = []
    device = next(model.parameters()).device
    with _evaluating(model), torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                fields = [field.float() for field in predict(rows, False)]
                if strands == "both":
                    others = predict(rows, True)
                    fields = [(one + other.float()) / 2 for one, other in zip(fields, others, strict=True)]
            batches.append([field.cpu().numpy() for field in fields])
            if advance is not None:
                advance(len(rows))
    return order, [np.concatenate(field) for field in zip(*batches, strict=True)]


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Yield with all modules in evaluation mode; afterwards each is back in its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Queries(NamedTuple):
    """What is read out: logits at columns of windows, and mean states of 0-based half-open spans of windows."""

    row_T: Int64
    column_T: Int64
    row_S: Int64 = NO_ROWS
    begin_S: Int64 = NO_ROWS
    end_S: Int64 = NO_ROWS


class Results(NamedTuple):
    """Logits of A, C, G and T at each position and mean last hidden states of each span, in the queries' order."""

    logit_T4: Float32
    state_SD: Float32


def run_windows(model: MutBertForMaskedLM, windows: PaddedWindows, queries: Queries, **settings: Any) -> Results:
    """Return logits and states of windows; `settings` as for `run_batches`.

    The head runs in float32, at the positions alone that are read. The mean over both strands is that of logits.
    """

    def predict(rows: Int64, reverse: bool) -> list[torch.Tensor]:
        (local_T, own_T), (local_S, own_S) = _members(queries.row_T, rows), _members(queries.row_S, rows)
        batch = windows.take(rows)
        column_T, begin_S, end_S = queries.column_T[own_T], queries.begin_S[own_S], queries.end_S[own_S]
        if reverse:
            batch = batch.reverse_complement()
            column_T = batch.length_N[local_T] - 1 - column_T
            begin_S, end_S = batch.length_N[local_S] - end_S, batch.length_N[local_S] - begin_S
        probs_BLV, mask_BL = batch.tokens(model.device)
        hidden_BLD = model.bert(input_probs=probs_BLV, attention_mask=mask_BL).last_hidden_state
        with torch.autocast(model.device.type, enabled=False):
            at = tuple(torch.from_numpy(one).to(model.device) for one in (local_T, column_T + 1))
            logit_T4 = model.cls(hidden_BLD[at].to(model.dtype)).float()[:, alphabet.BASE_IDS]
            state_SD = _span_means(hidden_BLD, local_S, begin_S + 1, end_S + 1)
        return [logit_T4.flip(1) if reverse else logit_T4, state_SD]

    logit_T4 = np.zeros((len(queries.row_T), len(alphabet.BASES)), dtype=np.float32)
    state_SD = np.zeros((len(queries.row_S), int(model.config.hidden_size)), dtype=np.float32)
    if len(windows):
        order, found = run_batches(model, windows.length_N, predict, **settings)
        logit_T4[_members(queries.row_T, order)[1]], state_SD[_members(queries.row_S, order)[1]] = found
    return Results(logit_T4, state_SD)


def _span_means(hidden_BLD: torch.Tensor, row_S: Int64, begin_S: Int64, end_S: Int64) -> torch.Tensor:
    """Return the mean states of spans, in float32, by one matrix product a window."""
    batch, length = hidden_BLD.shape[:2]
    # The spans of a window are the rows of its matrix, as many as the window with the most spans has.
    count_B = np.bincount(row_S, minlength=batch)
    slot_S = np.arange(len(row_S)) - (np.cumsum(count_B) - count_B)[row_S]
    column_L = np.arange(length)
    inside_SL = (column_L >= begin_S[:, None]) & (column_L < end_S[:, None])
    weight_BKL = np.zeros((batch, int(count_B.max()), length), dtype=np.float32)
    weight_BKL[row_S, slot_S] = inside_SL / (end_S - begin_S)[:, None]
    mean_BKD = torch.from_numpy(weight_BKL).to(hidden_BLD.device) @ hidden_BLD.float()
    return mean_BKD[torch.from_numpy(row_S).to(hidden_BLD.device), torch.from_numpy(slot_S).to(hidden_BLD.device)]


def base_log_probabilities(logit_T4: Float32) -> Float64:
    """Return ln P of A, C, G and T, as if there were no other token, shape (T, 4)."""
    logit = logit_T4.astype(np.float64)
    logit -= logit.max(axis=1, keepdims=True)
    return logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]


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
    """Return what ``forward(batch)``, a tensor (B, L, D), is at each base of some inputs, or all; one array each.

    Bases that the reverse complement was cut before have their output on the forward strand alone.
    """
    rows = np.arange(len(inputs.length_N)) if rows is None else rows
    bases_N = inputs.length_N[rows] - 2
    cut_N = np.array([inputs.cut(int(row)) for row in rows], dtype=np.int64)

    def predict(chosen: Int64, _: bool) -> list[torch.Tensor]:
        local_T, column_T = list_ranges(np.zeros_like(chosen), bases_N[chosen])
        output_TD = forward(batch_of(inputs, rows[chosen], model))[local_T, column_T + 1].float()
        if strands == "both":
            # Of a sequence that was cut, the other strand lacks the first bases instead of the last.
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


def batch_of(inputs: Inputs, rows: Int64, model: Any, *, reverse: bool = False) -> dict[str, torch.Tensor]:
    """Return prepared inputs of one strand, on the model's device."""
    batch = inputs.batch(rows, np.ones(len(rows), dtype=np.bool_) if reverse else None)
    device = next(model.parameters()).device
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
