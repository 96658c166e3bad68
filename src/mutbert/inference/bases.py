"""What a model predicts at single bases of a genome, masked one at a time, several at once, or not at all.

Shape suffixes: P positions, W windows, N passes, L length in bases, E edits, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.inference.opening import check_run, open_model, resolve_context, rope_scaled
from mutbert.inference.run import MASKED, Queries, base_log_probabilities, entropy, run_windows
from mutbert.inference.surroundings import place_windows, read_windows
from mutbert.model import MutBertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mutbert.arrays import Float32, Int64, UInt8
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.inference.run import PaddedWindows
    from mutbert.progress import Advance


@dataclass(frozen=True)
class PredictionSettings:
    """How bases are predicted: bases of a window (as in training where left out), and how the model is run.

    `bases_at_once` bounds the windows that are held at once: many batches, and some tens of megabytes.
    """

    context: int | None = None
    strands: str = "both"
    batch_size: int = 32
    precision: str = "fp32"
    rope_scaling: Mapping[str, Any] | None = None
    bases_at_once: int = 1 << 20


class Predicted(NamedTuple):
    """Base codes of the reference at P positions, and logits of A, C, G and T, NaN where the reference is N."""

    base_P: UInt8
    logit_P4: Float32

    def log_ratios(self) -> Float32:
        """Return ln P(base) − ln P(reference base), shape (P, 4); NaN where the reference is no single base."""
        return self.logit_P4 - self._at_reference(self.logit_P4)[:, None]

    def probabilities(self) -> Float32:
        """Return the probabilities of A, C, G and T, as if there were no other token, shape (P, 4)."""
        return np.exp(base_log_probabilities(self.logit_P4)).astype(np.float32)

    def entropies(self) -> Float32:
        """Return the entropies of these in nats, shape (P,)."""
        return entropy(self.logit_P4).astype(np.float32)

    def reference_probabilities(self) -> Float32:
        """Return the probability of the reference base, shape (P,); NaN where it is no single base."""
        return self._at_reference(self.probabilities())

    def _at_reference(self, value_P4: Float32) -> Float32:
        value_P = np.full(len(value_P4), np.nan, dtype=np.float32)
        single = np.flatnonzero(self.base_P < len(alphabet.BASES))
        value_P[single] = value_P4[single, self.base_P[single]]
        return value_P


class BasePredictor:
    """Predicts bases of a genome as it is seen, independently of which other positions are asked for.

    `stride` is the number of bases from one window of the grid to the next, where positions share windows.
    """

    def __init__(
        self, model: str | Path | MutBertForMaskedLM, genome: ProbabilisticGenome, settings: PredictionSettings
    ) -> None:
        # Before a large model is read.
        check_run(settings.strands, settings.precision, settings.batch_size)
        self.model = open_model(model, MutBertForMaskedLM)
        self.context = resolve_context(self.model.config, settings.context, settings.rope_scaling)
        self.stride = max(self.context // 2, 1)
        self._genome = genome
        self._settings = settings
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)

    def windows_at_once(self, mask_every: int) -> int:
        """Return how many windows' positions one call should ask for, so that its memory is bounded."""
        return max(self._settings.bases_at_once // (self.context * max(mask_every, 1)), 1)

    def predict(
        self, contig_P: Int64, position_P: Int64, mask_every: int = 1, advance: Advance | None = None
    ) -> Predicted:
        """Predict the bases at 0-based positions of contigs, given by their numbers in the genome's order.

        With `mask_every` 1, each position is masked alone, in the middle of a window of its own. With K above 1,
        windows lie on a grid half a context apart, with K passes each, of which pass r masks all positions whose
        remainder by K is r; each position is read where it is masked. With 0, windows on the grid have one pass each,
        and nothing is masked. N is never masked: it stays unknown.
        """
        alone, phases = mask_every == 1, max(mask_every, 1)
        length_P = self._length[contig_P]
        start_P, _ = place_windows(position_P, length_P, self.context, "centred" if alone else "shared")
        # Centred windows of two positions near a contig's end may be one, but have different masks.
        keys = np.stack([contig_P, start_P, position_P] if alone else [contig_P, start_P])
        (contig_W, start_W, *_), window_P = np.unique(keys, axis=1, return_inverse=True)
        window_P = window_P.reshape(-1)
        windows = read_windows(self._genome, contig_W, start_W, np.minimum(self.context, self._length[contig_W]))
        column_P = position_P - start_P
        base_P = windows.code_NL[window_P, column_P]
        known = np.flatnonzero(base_P != alphabet.UNKNOWN)
        logit_P4 = np.full((len(position_P), len(alphabet.BASES)), np.nan, dtype=np.float32)
        if advance is not None:
            advance(len(position_P) - len(known))
        if len(known):
            # With one phase, the remainder is 0.
            pass_N, row_K = np.unique(window_P[known] * phases + position_P[known] % phases, return_inverse=True)
            passes = windows.take(pass_N // phases)
            if alone:
                passes = passes.with_codes(row_K, column_P[known], MASKED)
            elif mask_every > 1:
                phase_N = (pass_N - start_W[pass_N // phases]) % phases
                passes = passes.with_codes(*_every(passes, phase_N, phases), MASKED)
            logit_P4[known] = self._run(passes, Queries(row_K, column_P[known]), advance)
        return Predicted(base_P, logit_P4)

    def _run(self, passes: PaddedWindows, queries: Queries, advance: Advance | None) -> Float32:
        settings, done = self._settings, 0.0

        def in_bases(windows: float, /, note: str = "") -> None:
            nonlocal done
            share, before = len(queries.row_T) / len(passes), done
            done += windows
            if advance is not None:
                advance(round(done * share) - round(before * share), note)

        run = {name: getattr(settings, name) for name in ("strands", "batch_size", "precision")}
        with rope_scaled(self.model.config, settings.rope_scaling):
            return run_windows(self.model, passes, queries, **run, advance=in_bases).logit_T4


def _every(windows: PaddedWindows, phase_N: Int64, every: int) -> tuple[Int64, Int64]:
    """Return the known bases of windows whose columns have the remainder `phase_N` by `every`."""
    column_L = np.arange(windows.code_NL.shape[1])
    chosen_NL = (column_L - phase_N[:, None]) % every == 0
    row_E, column_E = np.nonzero(chosen_NL & (windows.code_NL != alphabet.UNKNOWN) & windows.inside_NL)
    return row_E, column_E
