"""What a model predicts at single bases of a genome, masked one at a time, several at once, or not at all.

Shape suffixes: P positions, W windows, N passes, L length in bases, E places of passes, 4 bases in the order A,
C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.fasta import read_fasta
from mutbert.genome.store import Windows
from mutbert.inference.opening import check_run, open_model, resolve_context, rope_scaled
from mutbert.inference.passes import MASKED, base_log_probabilities, entropy, read_bases, run_passes
from mutbert.inference.surroundings import place_windows, read_windows
from mutbert.model import MutBertForMaskedLM
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float32, Int64, UInt8
    from mutbert.inference.passes import Passes
    from mutbert.inference.surroundings import Surroundings
    from mutbert.progress import Advance


# Bases of all windows that are held at once: enough for many batches, and some tens of megabytes.
_BASES_AT_ONCE: Final = 1 << 22


@dataclass(frozen=True)
class PredictionSettings:
    """How bases are predicted.

    Parameters
    ----------
    context : int, optional
        Bases of a window; where left out, what the model is trained for.
    strands : {"both", "forward"}
        As for `mutbert.inference.passes.run_passes`.
    batch_size : int
        Windows at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.predict.predict`.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}``, for a context longer than the model is trained for.
    """

    context: int | None = None
    strands: str = "both"
    batch_size: int = 32
    precision: str = "fp32"
    rope_scaling: Mapping[str, Any] | None = None


class Predicted(NamedTuple):
    """What a model predicts at positions.

    Parameters
    ----------
    base_P : ndarray of uint8, shape (P,)
        Base codes of the reference.
    logit_P4 : ndarray of float32, shape (P, 4)
        Logits of A, C, G and T; NaN where the reference is N, at which the model is not asked.
    """

    base_P: UInt8
    logit_P4: Float32

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which positions have logits, shape (P,)."""
        known_P: npt.NDArray[np.bool_] = self.base_P != alphabet.UNKNOWN
        return known_P

    def log_ratios(self) -> Float32:
        """Give ln P(base) − ln P(reference base), shape (P, 4); NaN where the reference is no single base."""
        single_P = self.base_P < len(alphabet.BASES)
        ratio_P4 = np.full(self.logit_P4.shape, np.nan, dtype=np.float32)
        logit_S4 = self.logit_P4[single_P]
        ratio_P4[single_P] = logit_S4 - np.take_along_axis(logit_S4, self.base_P[single_P, None].astype(np.int64), 1)
        return ratio_P4

    def probabilities(self) -> Float32:
        """Give the probabilities of A, C, G and T, as if there were no other token, shape (P, 4)."""
        probability_P4 = np.full(self.logit_P4.shape, np.nan, dtype=np.float32)
        probability_P4[self.known] = np.exp(base_log_probabilities(self.logit_P4[self.known]))
        return probability_P4

    def entropies(self) -> Float32:
        """Give the entropies of these in nats, shape (P,)."""
        entropy_P = np.full(len(self.base_P), np.nan, dtype=np.float32)
        entropy_P[self.known] = entropy(self.logit_P4[self.known])
        return entropy_P


class BasePredictor:
    """Predicts bases from what stands around them.

    A prediction depends on its position, the surroundings and the settings; never on which others are asked for.

    Parameters
    ----------
    model : MutBertForMaskedLM
        Runs where it is, and is left as it was found.
    surroundings : Surroundings
        What the windows are read from.
    settings : PredictionSettings
        How.

    Attributes
    ----------
    context : int
        Bases of a window.

    Raises
    ------
    InputError
        When a setting is out of range or does not fit the model.
    """

    def __init__(self, model: MutBertForMaskedLM, surroundings: Surroundings, settings: PredictionSettings) -> None:
        check_run(settings.strands, settings.precision, settings.batch_size)
        self.context: int = resolve_context(model.config, settings.context, settings.rope_scaling)
        self._model = model
        self._surroundings = surroundings
        self._settings = settings
        self._length = np.array(list(surroundings.lengths.values()), dtype=np.int64)

    @property
    def stride(self) -> int:
        """Bases from one window of the grid to the next, where positions share windows."""
        return max(self.context // 2, 1)

    def windows_at_once(self, mask_every: int) -> int:
        """Give how many windows' positions one call should ask for, so that its memory is bounded."""
        return max(_BASES_AT_ONCE // (self.context * max(mask_every, 1)), 1)

    def predict(
        self, contig_P: Int64, position_P: Int64, mask_every: int = 1, advance: Advance | None = None
    ) -> Predicted:
        """Predict bases.

        Parameters
        ----------
        contig_P, position_P : ndarray of int64, shape (P,)
            The positions: the contig, by its number in the genome's order, and 0-based.
        mask_every : int
            1: each position in the middle of a window of its own, in which it alone is masked. K above 1: windows lie
            on a grid half a context apart, with K passes each, of which pass r masks all positions of which the
            remainder by K is r; each is read where it is masked. 0: windows on the grid, with one pass each and
            nothing masked. N is never masked: it stays unknown.
        advance : Advance, optional
            Told of the positions done since its last call.

        Returns
        -------
        Predicted
            In this order.
        """
        placed = place_windows(
            position_P, self._length[contig_P], self.context, "centred" if mask_every == 1 else "shared"
        )
        # Centred windows of two positions near a contig's end may be one, but have different masks.
        keys = [contig_P, placed.start_P] if mask_every != 1 else [contig_P, placed.start_P, position_P]
        different, window_P = np.unique(np.stack(keys), axis=1, return_inverse=True)
        window_P = window_P.reshape(-1)
        contig_W, start_W = different[:2]
        plain = read_windows(
            self._surroundings, contig_W, start_W, np.minimum(self.context, self._length[contig_W]).astype(np.int64)
        )
        column_P = position_P - start_W[window_P]
        base_P = plain.code_NL[window_P, column_P]
        known = np.flatnonzero(base_P != alphabet.UNKNOWN)
        if advance is not None:
            advance(len(position_P) - len(known))
        logit_P4 = np.full((len(position_P), len(alphabet.BASES)), np.nan, dtype=np.float32)
        if len(known):
            phases = max(mask_every, 1)
            # With one phase, the remainder is 0.
            pass_K = window_P[known] * phases + position_P[known] % phases
            pass_N, row_K = np.unique(pass_K, return_inverse=True)
            passes = plain.take(pass_N // phases)
            if mask_every == 1:
                column_W = np.empty(len(start_W), dtype=np.int64)
                column_W[window_P] = column_P
                passes = passes.with_codes(np.arange(len(pass_N)), column_W[pass_N], MASKED)
            elif mask_every > 1:
                row_E, column_E = _places(passes, (pass_N - start_W[pass_N // phases]) % phases, phases)
                passes = passes.with_codes(row_E, column_E, MASKED)
            logit_P4[known] = self._run(passes, row_K, column_P[known], advance)
        return Predicted(base_P, logit_P4)

    def _run(self, passes: Passes, row_T: Int64, column_T: Int64, advance: Advance | None) -> Float32:
        told, done = 0, 0

        def advance_bases(amount: float, /, note: str = "") -> None:
            # In whole bases, so that in the end it is all of them.
            nonlocal told, done
            done += int(amount)
            bases = len(row_T) * done // len(passes) - told
            told += bases
            if advance is not None:
                advance(bases, note)

        with rope_scaled(self._model.config, self._settings.rope_scaling):
            return run_passes(
                self._model,
                passes,
                read_bases(row_T, column_T),
                batch_size=self._settings.batch_size,
                precision=self._settings.precision,
                strands=self._settings.strands,
                advance=advance_bases,
            ).logit_T4


def _places(passes: Passes, phase_N: Int64, every: int) -> tuple[Int64, Int64]:
    """Find the known bases of windows whose columns, divided by `every`, leave `phase_N`."""
    column_L = np.arange(passes.code_NL.shape[1])
    masked_NL = (column_L - phase_N[:, None]) % every == 0
    masked_NL &= (passes.code_NL != alphabet.UNKNOWN) & (column_L < passes.length_N[:, None])
    row_E, column_E = np.nonzero(masked_NL)
    return row_E, column_E


def open_predictor(
    model: str | Path | MutBertForMaskedLM, surroundings: Surroundings, settings: PredictionSettings | None
) -> BasePredictor:
    """Open a model for predicting bases: a checkpoint is read to a GPU where there is one.

    Raises
    ------
    InputError
        When there is no such checkpoint, or settings do not fit.
    """
    settings = settings or PredictionSettings()
    # Before a large model is read.
    check_run(settings.strands, settings.precision, settings.batch_size)
    return BasePredictor(open_model(model, MutBertForMaskedLM), surroundings, settings)


class DesignedSequence:
    """One record of a FASTA file, as surroundings.

    Parameters
    ----------
    path : Path
        The file.
    region : str, optional
        The stretch that is looked at, which names the record; may be left out where there is one record alone.

    Attributes
    ----------
    region : Region
        The stretch; the whole record where it is left out, or names no more than the record.

    Raises
    ------
    InputError
        When the file cannot be read, or does not have the stretch.
    """

    def __init__(self, path: Path, region: str | None = None) -> None:
        lengths = {name: len(code_L) for name, code_L, _ in read_fasta(path)}
        if region is None and len(lengths) > 1:
            raise InputError(f"{path}: holds {len(lengths):,} sequences; name one with --region, as in --region "
                             f"{next(iter(lengths))}")  # fmt: skip
        self.region = Region.parse(region or next(iter(lengths)), lengths)
        self._code_L = next(code_L for name, code_L, _ in read_fasta(path) if name == self.region.contig)

    def is_known(self, region: Region) -> bool:
        """Tell whether a stretch has any base but N."""
        return bool((self._code_L[region.start : region.end] != alphabet.UNKNOWN).any())

    @property
    def lengths(self) -> Mapping[str, int]:
        """The sequence's length in bases, by its name."""
        return {self.region.contig: len(self._code_L)}

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:  # noqa: ARG002
        """Read windows of one length, without frequencies."""
        none = np.zeros(0, dtype=np.int64)
        place_BL = start_B[:, None] + np.arange(length)
        return Windows(self._code_L[place_BL], none, none, np.zeros((0, 4), dtype=np.uint16))
