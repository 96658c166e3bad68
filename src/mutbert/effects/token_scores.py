"""Scores of alternate alleles by models that read tokens: 6-mers, byte pairs, single letters.

The likelihood ratio of an SNV is that of the token which holds its position. With w(b) that token with base b in place
of the variant's, and the token masked,

    LLR = ln P(w(ALT)) - ln P(w(REF)),

which for one letter a token is MutBERT's, and for 6-mers is conditional on the five other bases (Dalla-Torre et al.
2023 score variants by the same masked token). Only windows of the reference are read; which bases share the token
follows from the window's start, since 6-mers are counted from there and from the end of every run of N.

Shape suffixes: A alleles, N windows, B batch, T tokens, D hidden size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert import alphabet
from mutbert.effects.alleles import Alleles, Kind, Reason, find_alleles
from mutbert.effects.haplotypes import haplotype_passes
from mutbert.effects.scores import DISTANCES, Field, ScoreSettings, distances, put_columns
from mutbert.effects.snv_windows import around, unique_columns
from mutbert.encoders.inputs import Sequences
from mutbert.encoders.token_encoders import PeerEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.run import PaddedWindows, entropy, sequence_outputs
from mutbert.inference.surroundings import place_windows, read_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mutbert.arrays import Bool, Float32, Int64
    from mutbert.effects.scores import Columns
    from mutbert.encoders.inputs import Batch, TokenInputs
    from mutbert.encoders.token_encoders import AutoEncoder
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.progress import Advance

_LLR: Final = (
    Field(
        "LLR",
        "Masked log-likelihood ratio of an SNV, ln P(token with ALT) - ln P(token with REF) with the token masked that "
        "holds the position; negative where the model expects REF",
        -1,
    ),
    Field("ENT", "Entropy in nats over the four tokens with A, C, G or T at an SNV's position, masked", 0),
)
_ULLR: Final = (
    Field(
        "ULLR",
        "Unmasked log-likelihood ratio of an SNV, ln P(token with ALT) - ln P(token with REF), window as it is",
        -1,
    ),
)
# Of a model that is not known by name.
_CONTEXT: Final = 512
_BASES_AT_ONCE: Final = 1 << 22


class TokenScorer:
    """Scores alleles of a genome's reference with a model that reads tokens, as `mutbert.effects.scores.Scorer` does.

    LLR, ENT and ULLR are of SNVs, and of models whose tokens stay tokens when a base is exchanged; distances are of all
    alleles. There is no PLLR.
    """

    def __init__(self, encoder: AutoEncoder, genome: ProbabilisticGenome, settings: ScoreSettings) -> None:
        settings.check()
        if settings.rope_scaling is not None or settings.windows != "centred":
            raise InputError(
                f"{encoder.name}: rope_scaling and shared windows are for MutBERT; leave them out for others"
            )
        peer = encoder if isinstance(encoder, PeerEncoder) else None
        ratios = peer is not None and peer.likelihood
        groups = {"llr": _LLR if ratios else (), "unmasked": _ULLR if ratios else (), "distance": DISTANCES}
        self.fields = tuple(field for name, fields in groups.items() if name in settings.scores for field in fields)
        if not self.fields:
            raise InputError(
                f"{encoder.name}: has no likelihood ratio, as another base makes other tokens; add distance to --scores"
            )
        self._context = settings.context or (_CONTEXT if peer is None else peer.context)
        self.encoder = encoder
        self.genome = genome
        self.settings = settings.within(self._context)
        self._reference = genome.reference()
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)
        masked = any(field in _LLR + _ULLR for field in self.fields)
        self.model = peer.masked(0) if peer is not None and masked else encoder.body(0)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._body = self.model.base_model if masked else self.model
        vocabulary = encoder.tokenizer.get_vocab().items() if masked else ()
        # Words of bases, of which the special tokens are none.
        self._words = {word: number for word, number in vocabulary if word and set(word) <= set(alphabet.BASES)}

    def find(self, contigs: Any, positions: Any, references: Any, alternates: Any) -> Alleles:
        """Return what each alternate allele changes, as `mutbert.effects.alleles.find_alleles` does."""
        return find_alleles(self.genome, contigs, positions, references, alternates, longest=self.settings.longest)

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Return scores, shape (A, F), in the order of `fields`; NaN where an allele has no such score."""
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        scored_A, snv_A = alleles.reason_A == Reason.SCORED, alleles.kind_A == Kind.SNV
        at_once = max(_BASES_AT_ONCE // self._context, 1)
        for rows, score in (
            (np.flatnonzero(scored_A & snv_A), self._snvs),
            (np.flatnonzero(scored_A & ~snv_A), self._others),
        ):
            for first in range(0, len(rows), at_once):
                part = rows[first : first + at_once]
                put_columns(score_AF, part, self.fields, score(alleles.take(part)))
                if advance is not None:
                    advance(len(part))
        if advance is not None:
            advance(int((~scored_A).sum()))
        return score_AF

    def _snvs(self, alleles: Alleles) -> Columns:
        placed = place_windows(alleles.start_A, self._length[alleles.contig_A], self._context)
        windows = read_windows(self._reference, alleles.contig_A, placed.start_P, placed.length_P)
        every, column_A = np.arange(len(alleles)), alleles.start_A - placed.start_P
        sides = [windows.with_codes(every, column_A, code_A) for code_A in (alleles.reference_A, alleles.alternate_A)]
        columns: Columns = {}
        for name, group in (("LLR", "llr"), ("ULLR", "unmasked")):
            if self._words and group in self.settings.scores:
                logit_A4 = self._logits(sides[0], column_A, masked=group == "llr")
                columns[name] = logit_A4[every, alleles.alternate_A] - logit_A4[every, alleles.reference_A]
                if group == "llr":
                    columns["ENT"] = entropy(logit_A4)
        if "distance" in self.settings.scores:
            near = column_A, column_A + 1
            spans = np.stack([*near, *around(*near, windows.length_N, self.settings.distance_bases)], axis=1)
            columns |= self._distances([(side, spans) for side in sides])
        return columns

    def _others(self, alleles: Alleles) -> Columns:
        if "distance" not in self.settings.scores:
            return {}
        both = haplotype_passes(
            self._reference, alleles, self._length, self._context, self.settings.flank, self.settings.distance_bases
        )
        # Of each allele: the variant and its surroundings with REF, then both with ALT.
        row_4A, begin_4A, end_4A = (part.reshape(4, -1) for part in (both.row_S, both.begin_S, both.end_S))
        return self._distances(
            [
                (
                    both.windows.take(row_4A[side]),
                    np.stack([begin_4A[side], end_4A[side], begin_4A[side + 1], end_4A[side + 1]], axis=1),
                )
                for side in (0, 2)
            ]
        )

    def _distances(self, sides: list[tuple[PaddedWindows, Int64]]) -> Columns:
        return distances(
            np.concatenate([state_AD for side in sides for state_AD in self._states(*side).swapaxes(0, 1)])
        )

    def _strands(self, windows: PaddedWindows) -> Iterator[tuple[bool, TokenInputs]]:
        """Yield the tokens of windows, and of their reverse complements where both strands are read."""
        most = most_tokens(self._body)
        for turned in (False, True)[: 1 + (self.settings.strands == "both")]:
            read = windows.reverse_complement() if turned else windows
            inside_NL = np.arange(read.code_NL.shape[1]) < read.length_N[:, None]
            inputs = self.encoder.inputs(Sequences(read.code_NL[inside_NL], np.append(0, np.cumsum(read.length_N))))
            longest = int(inputs.length_N.max(initial=0))
            if most is not None and longest > most:
                raise InputError(
                    f"{self.encoder.name}: a window of {self._context:,} bases has {longest:,} tokens, where the model "
                    f"has positions for {most:,}; give a smaller --context"
                )
            yield turned, inputs

    def _run(self, run: Callable[[Batch], torch.Tensor], inputs: TokenInputs, rows: Int64, **columns: Int64) -> Float32:
        """Return what `run` computes of some windows; its batches carry the columns of their rows."""

        def batch(rows: Int64, reverse: Bool | None = None) -> Batch:
            return {
                **inputs.batch(rows, reverse),
                **{name: torch.from_numpy(one[rows]) for name, one in columns.items()},
            }

        return sequence_outputs(
            self.model,
            run,  # type: ignore[arg-type]
            SimpleNamespace(length_N=inputs.length_N, batch=batch, tokens_at=inputs.tokens_at),
            rows,
            batch_size=self.settings.batch_size,
            precision=self.settings.precision,
        )

    def _logits(self, windows: PaddedWindows, column_N: Int64, *, masked: bool) -> Float32:
        """Return the logits of the four tokens with each base at an offset, (N, 4), averaged over strands.

        They are log-probabilities up to a constant; NaN where the offset is in no token, or one of the four is none.
        """
        peer = self.encoder
        assert isinstance(peer, PeerEncoder)

        def run(batch: Batch) -> torch.Tensor:
            token_B, choice_B4 = batch.pop("token"), batch.pop("choice")
            if masked:
                row_B = torch.arange(len(token_B), device=token_B.device)
                batch["input_ids"][row_B, token_B] = peer.tokenizer.mask_token_id
            return peer.masked_logits(self.model, batch, token_B).gather(1, choice_B4)

        found: list[Float32] = []
        for turned, inputs in self._strands(windows):
            offset_N = windows.length_N - 1 - column_N if turned else column_N
            token_N, id_N, within_N = inputs.locate(np.arange(len(windows)), offset_N)
            choice_N4 = _with_bases(self._words, id_N, within_N)
            rows = np.flatnonzero((token_N >= 0) & (choice_N4 >= 0).all(axis=1))
            logit_N4 = np.full((len(windows), len(alphabet.BASES)), np.nan, dtype=np.float32)
            if len(rows):
                logit_N4[rows] = self._run(run, inputs, rows, token=token_N, choice=choice_N4)
            # Complements are the order A, C, G, T reversed.
            found.append(logit_N4[:, ::-1] if turned else logit_N4)
        mean_N4: Float32 = np.mean(found, axis=0)
        return mean_N4

    def _states(self, windows: PaddedWindows, span_N4: Int64) -> Float32:
        """Return the mean hidden states of the tokens that two stretches overlap, (N, 2, D), averaged over strands.

        A row of `span_N4` has begin and end of both, 0-based and half-open. NaN where a stretch's tokens are unknown.
        """

        def run(batch: Batch) -> torch.Tensor:
            token_B4 = batch.pop("token")
            states_BTD = self.encoder.hidden_states(self._body, batch).float()
            index_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
            means = []
            for first in (0, 2):
                weight_BT = (index_T >= token_B4[:, first, None]) & (index_T <= token_B4[:, first + 1, None])
                # No matrix product, which autocast would compute in less precision.
                total_BD = (weight_BT[..., None].float() * states_BTD).sum(dim=1)
                means.append(total_BD / weight_BT.sum(dim=1, keepdim=True))
            return torch.cat(means, dim=1)

        found: list[Float32] = []
        every = np.arange(len(windows))
        for turned, inputs in self._strands(windows):
            spans = windows.length_N[:, None] - span_N4[:, [1, 0, 3, 2]] if turned else span_N4
            token_N4 = np.stack([inputs.tokens_at(every, spans[:, side] - side % 2) for side in range(4)], axis=1)
            rows = np.flatnonzero((token_N4 >= 0).all(axis=1))
            if not len(rows):
                return np.full((len(windows), 2, 1), np.nan, dtype=np.float32)
            states = self._run(run, inputs, rows, token=token_N4)
            state_ND = np.full((len(windows), states.shape[1]), np.nan, dtype=np.float32)
            state_ND[rows] = states
            found.append(state_ND)
        return np.mean(found, axis=0, dtype=np.float32).reshape(len(windows), 2, -1)


def _with_bases(words: Mapping[str, int], id_N: Int64, offset_N: Int64) -> Int64:
    """Return the ids of tokens with A, C, G and T at an offset in each, (N, 4); -1 where one is no token."""
    texts = {number: word for word, number in words.items()}
    pairs, pair_N = unique_columns(np.stack([id_N, offset_N]))
    ids = np.full((pairs.shape[1], len(alphabet.BASES)), -1, dtype=np.int64)
    for row, (number, offset) in enumerate(pairs.T.tolist()):
        word = texts.get(number, "")
        if 0 <= offset < len(word):
            ids[row] = [words.get(word[:offset] + base + word[offset + 1 :], -1) for base in alphabet.BASES]
    return ids[pair_N]
