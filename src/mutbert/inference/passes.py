"""Forward passes of the masked model over windows of bases, of which only what is asked for is kept.

Windows travel as one byte a base, and become distributions over tokens where the model is. ``[CLS]`` and ``[SEP]``
stand around each, as in training.

Shape suffixes: N passes, L length in bases, B batch, T bases that are read, S stretches that are read, M positions with
a distribution of their own, D hidden size, V vocabulary (9), 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from mutbert import alphabet
from mutbert.genome.store import fixed_to_float
from mutbert.inference.predict import autocast, evaluating

if TYPE_CHECKING:
    import numpy.typing as npt

    from mutbert.arrays import Float32, Int64, UInt8, UInt16
    from mutbert.model import MutBertForMaskedLM
    from mutbert.progress import Advance


MASKED: Final = len(alphabet.IUPAC)
"""Stands among base codes for ``[MASK]``."""
_CLS: Final = MASKED + 1
_SEP: Final = MASKED + 2
_PAD: Final = MASKED + 3

_TOKENS: Final = np.zeros((_PAD + 1, alphabet.VOCABULARY_SIZE), dtype=np.float32)
_TOKENS[:MASKED] = alphabet.TOKEN_PROBABILITIES
for _code, _token in (
    (MASKED, alphabet.MASK_ID),
    (_CLS, alphabet.CLS_ID),
    (_SEP, alphabet.SEP_ID),
    (_PAD, alphabet.PAD_ID),
):
    _TOKENS[_code, _token] = 1
_COMPLEMENT: Final = np.arange(_PAD + 1, dtype=np.uint8)
_COMPLEMENT[:MASKED] = alphabet.COMPLEMENT_OF_CODE


@dataclass(frozen=True)
class Passes:
    """Windows to run the model over.

    Parameters
    ----------
    code_NL : ndarray of uint8, shape (N, L)
        Base codes; `MASKED` for ``[MASK]``. L is the longest window's length, and what is behind a shorter one's end is
        not looked at.
    length_N : ndarray of int64, shape (N,)
        Bases of each, at least 1.
    row_M, column_M : ndarray of int64, shape (M,)
        The positions that are a distribution instead: the window, and the 0-based place in it.
    frequency_M4 : ndarray of uint16, shape (M, 4)
        These distributions, in units of 1/65535.
    """

    code_NL: UInt8
    length_N: Int64
    row_M: Int64
    column_M: Int64
    frequency_M4: UInt16

    def __len__(self) -> int:
        """Count the passes."""
        return len(self.length_N)

    def take(self, rows_P: Int64) -> Passes:
        """Give some of the windows, in the order asked for; one may be asked for several times."""
        order = np.argsort(self.row_M, kind="stable")
        sorted_M = self.row_M[order]
        first_P, last_P = np.searchsorted(sorted_M, rows_P), np.searchsorted(sorted_M, rows_P, "right")
        count_P = last_P - first_P
        row_M = np.repeat(np.arange(len(rows_P)), count_P)
        member_M = order[np.arange(len(row_M)) - (np.cumsum(count_P) - count_P)[row_M] + first_P[row_M]]
        return Passes(
            self.code_NL[rows_P], self.length_N[rows_P], row_M, self.column_M[member_M], self.frequency_M4[member_M]
        )

    def with_codes(self, row_E: Int64, column_E: Int64, code_E: UInt8 | int) -> Passes:
        """Give the windows with other codes at some places; distributions there are gone.

        Parameters
        ----------
        row_E, column_E : ndarray of int64, shape (E,)
            The places: window, and 0-based place in it.
        code_E : int or ndarray of uint8, shape (E,)
            The codes.
        """
        code_NL = self.code_NL.copy()
        code_NL[row_E, column_E] = code_E
        width = code_NL.shape[1]
        kept_M = ~np.isin(self.row_M * width + self.column_M, row_E * width + column_E)
        return Passes(code_NL, self.length_N, self.row_M[kept_M], self.column_M[kept_M], self.frequency_M4[kept_M])

    def turned(self) -> Passes:
        """Give each window as it reads on the other strand."""
        source_NL = self.length_N[:, None] - 1 - np.arange(self.code_NL.shape[1])
        code_NL = _COMPLEMENT[np.take_along_axis(self.code_NL, np.maximum(source_NL, 0), axis=1)]
        # In the order A, C, G, T the complements are the bases backwards.
        return Passes(
            code_NL,
            self.length_N,
            self.row_M,
            self.length_N[self.row_M] - 1 - self.column_M,
            self.frequency_M4[:, ::-1],
        )


def join_passes(parts: list[Passes]) -> Passes:
    """Put windows behind one another."""
    widest = max((part.code_NL.shape[1] for part in parts), default=0)
    firsts = np.cumsum([0, *(len(part) for part in parts)])
    code_NL = np.full((int(firsts[-1]), widest), alphabet.UNKNOWN, dtype=np.uint8)
    for first, part in zip(firsts, parts, strict=False):
        code_NL[first : first + len(part), : part.code_NL.shape[1]] = part.code_NL
    rows = [part.row_M + first for first, part in zip(firsts, parts, strict=False)]
    return Passes(
        code_NL,
        np.concatenate([np.zeros(0, np.int64), *(part.length_N for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *rows]),
        np.concatenate([np.zeros(0, np.int64), *(part.column_M for part in parts)]),
        np.concatenate([np.zeros((0, 4), np.uint16), *(part.frequency_M4 for part in parts)]),
    )


class Reads(NamedTuple):
    """What is kept of the passes.

    Parameters
    ----------
    row_T, column_T : ndarray of int64, shape (T,)
        Bases whose logits are wanted: the window, and the 0-based place in it.
    row_S, begin_S, end_S : ndarray of int64, shape (S,)
        Stretches whose mean last hidden state is wanted: the window, and 0-based half-open places in it.
    """

    row_T: Int64
    column_T: Int64
    row_S: Int64
    begin_S: Int64
    end_S: Int64

    def turned(self, length_N: Int64) -> Reads:
        """Give the same places on the other strand of windows of these lengths."""
        return Reads(
            self.row_T,
            length_N[self.row_T] - 1 - self.column_T,
            self.row_S,
            length_N[self.row_S] - self.end_S,
            length_N[self.row_S] - self.begin_S,
        )


class Results(NamedTuple):
    """What the passes gave.

    Parameters
    ----------
    logit_T4 : ndarray of float32, shape (T, 4)
        Logits of A, C, G and T at each base.
    state_SD : ndarray of float32, shape (S, D)
        Mean last hidden state of each stretch.
    """

    logit_T4: Float32
    state_SD: Float32


NO_ROWS: Final = np.zeros(0, dtype=np.int64)


def read_bases(row_T: Int64, column_T: Int64) -> Reads:
    """Ask for logits alone."""
    return Reads(row_T, column_T, NO_ROWS, NO_ROWS, NO_ROWS)


def run_passes(
    model: MutBertForMaskedLM,
    passes: Passes,
    reads: Reads,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    strands: str = "forward",
    advance: Advance | None = None,
) -> Results:
    """Run the model over windows, in batches of similar length.

    The model runs where it is, in evaluation mode and without gradients, and is left as it was found. Its head runs at
    the bases that are read alone, in float32.

    Parameters
    ----------
    model : MutBertForMaskedLM
        The model.
    passes : Passes
        The windows.
    reads : Reads
        What is kept of them.
    batch_size : int
        Windows at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.predict.predict`.
    strands : {"forward", "both"}
        Where both, the mean over a window and its reverse complement: of the logits base by base, which up to a
        constant is that of log-probabilities, and of the states.
    advance : Advance, optional
        Told of the windows done since its last call.

    Returns
    -------
    Results
        In the order of `reads`.
    """
    order = np.argsort(passes.length_N, kind="stable")
    place_N = np.empty_like(order)
    place_N[order] = np.arange(len(order))
    bases, stretches = _Sorted(place_N[reads.row_T]), _Sorted(place_N[reads.row_S])
    dense = _Sorted(place_N[passes.row_M])
    logit_T4 = np.zeros((len(reads.row_T), len(alphabet.BASES)), dtype=np.float32)
    state_SD = np.zeros((len(reads.row_S), int(model.config.hidden_size)), dtype=np.float32)
    with evaluating(model), torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            own_M, own_T, own_S = (one.between(first, first + len(rows)) for one in (dense, bases, stretches))
            batch = Passes(
                passes.code_NL[rows, : int(passes.length_N[rows[-1]])],
                passes.length_N[rows],
                dense.place[own_M] - first,
                passes.column_M[own_M],
                passes.frequency_M4[own_M],
            )
            wanted = Reads(
                bases.place[own_T] - first,
                reads.column_T[own_T],
                stretches.place[own_S] - first,
                reads.begin_S[own_S],
                reads.end_S[own_S],
            )
            found = _run(model, batch, wanted, precision)
            if strands == "both":
                turned = _run(model, batch.turned(), wanted.turned(batch.length_N), precision)
                found = Results(_mean(found.logit_T4, turned.logit_T4[:, ::-1]), _mean(found.state_SD, turned.state_SD))
            logit_T4[own_T], state_SD[own_S] = found
            if advance is not None:
                advance(len(rows))
    return Results(logit_T4, state_SD)


def _mean(one: Float32, other: Float32) -> Float32:
    mean: Float32 = (one + other) / np.float32(2)
    return mean


def _run(model: MutBertForMaskedLM, batch: Passes, reads: Reads, precision: str) -> Results:
    """Run the windows of a batch, the last of which is the longest."""
    device = model.device
    probs_BLV, mask_BL = _tokens(batch, device)
    with autocast(device, precision):
        hidden_BLD = model.bert(input_probs=probs_BLV, attention_mask=mask_BL).last_hidden_state
    logit_T4 = np.zeros((len(reads.row_T), len(alphabet.BASES)), dtype=np.float32)
    state_SD = np.zeros((len(reads.row_S), hidden_BLD.shape[-1]), dtype=np.float32)
    if len(reads.row_T):
        row_T, column_T = (torch.from_numpy(place).to(device) for place in (reads.row_T, reads.column_T + 1))
        logits_TV = model.cls(hidden_BLD[row_T, column_T].to(model.dtype)).float()
        logit_T4 = logits_TV[:, alphabet.BASE_IDS].cpu().numpy()
    if len(reads.row_S):
        state_SD = _means(hidden_BLD, reads.row_S, reads.begin_S + 1, reads.end_S + 1).cpu().numpy()
    return Results(logit_T4, state_SD)


class _Sorted:
    """Finds what belongs to a batch: the members whose place in the order of the passes is in a range."""

    def __init__(self, place_X: Int64) -> None:
        self.place = place_X
        self._order = np.argsort(place_X, kind="stable")
        self._sorted = place_X[self._order]

    def between(self, first: int, end: int) -> Int64:
        begin, behind = np.searchsorted(self._sorted, [first, end])
        return self._order[begin:behind]


def _tokens(batch: Passes, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Put ``[CLS]``, ``[SEP]`` and padding around codes, and look distributions up; no mask where none is needed."""
    length_B = batch.length_N
    longest = batch.code_NL.shape[1]
    framed_BL = np.full((len(batch), longest + 2), _CLS, dtype=np.uint8)
    framed_BL[:, 1:-1] = batch.code_NL
    framed_BL[np.arange(longest + 2) > length_B[:, None] + 1] = _PAD
    framed_BL[np.arange(len(batch)), length_B + 1] = _SEP
    probs_BLV = torch.from_numpy(_TOKENS).to(device)[torch.from_numpy(framed_BL).to(device).long()]
    frequency_M4 = torch.from_numpy(fixed_to_float(batch.frequency_M4)).to(device)
    row_M, column_M = (torch.from_numpy(place).to(device) for place in (batch.row_M, batch.column_M + 1))
    probs_BLV[row_M, column_M] = torch.nn.functional.pad(frequency_M4, (alphabet.BASE_IDS.start, 0))
    if (length_B == longest).all():
        return probs_BLV, None
    return probs_BLV, torch.from_numpy((framed_BL != _PAD).astype(np.int64)).to(device)


def _means(hidden_BLD: torch.Tensor, row_S: Int64, begin_S: Int64, end_S: Int64) -> torch.Tensor:
    """Average the states of stretches, in float32, by one matrix product a window."""
    batch, length = hidden_BLD.shape[:2]
    # The stretches of one window stand below one another, as many rows as the window with the most has.
    by_row = np.argsort(row_S, kind="stable")
    count_B = np.bincount(row_S, minlength=batch)
    slot_S = np.empty_like(row_S)
    slot_S[by_row] = np.arange(len(row_S)) - (np.cumsum(count_B) - count_B)[row_S[by_row]]
    place_L = np.arange(length)
    inside_SL = (place_L >= begin_S[:, None]) & (place_L < end_S[:, None])
    weight_BKL = np.zeros((batch, int(count_B.max()), length), dtype=np.float32)
    weight_BKL[row_S, slot_S] = inside_SL / (end_S - begin_S)[:, None]
    mean_BKD = torch.from_numpy(weight_BKL).to(hidden_BLD.device) @ hidden_BLD.float()
    return mean_BKD[torch.from_numpy(row_S).to(hidden_BLD.device), torch.from_numpy(slot_S).to(hidden_BLD.device)]


def base_log_probabilities(logit_T4: Float32) -> npt.NDArray[np.float64]:
    """Give the log-probabilities of A, C, G and T, as if there were no other token; natural logarithm, shape (T, 4)."""
    logit = logit_T4.astype(np.float64)
    logit -= logit.max(axis=1, keepdims=True)
    normalised: npt.NDArray[np.float64] = logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
    return normalised


def entropy(logit_T4: Float32) -> npt.NDArray[np.float64]:
    """Give the entropy of the distributions over A, C, G and T, −Σ p log p, in nats, shape (T,)."""
    log_probability = base_log_probabilities(logit_T4)
    value: npt.NDArray[np.float64] = -(np.exp(log_probability) * log_probability).sum(axis=1)
    return value
