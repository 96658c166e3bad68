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
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mutbert import alphabet
from mutbert.effects.allele_windows import around, haplotype_passes, unique_columns
from mutbert.effects.scores import FIELDS, AlleleScorer, ScoreSettings, distances
from mutbert.encoders.inputs import place_windows, read_windows
from mutbert.encoders.token_encoders import PeerEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.run import entropy, sequence_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mutbert.arrays import Bool, Float32, Float64, Int64
    from mutbert.effects.alleles import Alleles
    from mutbert.effects.scores import Columns
    from mutbert.encoders.inputs import Batch, PaddedWindows, TokenInputs
    from mutbert.encoders.token_encoders import AutoEncoder
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.progress import Advance

# Of a model that is not known by name.
_CONTEXT: Final = 512


class TokenScorer(AlleleScorer):
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
        ratios = {"llr", "unmasked"} & set(settings.scores) if peer is not None and peer.likelihood else set()
        asked = ratios | ({"distance"} & set(settings.scores))
        # An MNV or indel makes other tokens, which have no ratio.
        every = (field for name in FIELDS if name in asked for field in FIELDS[name])
        self.fields = tuple(field for field in every if field.name != "PLLR")
        if not self.fields:
            raise InputError(
                f"{encoder.name}: has no likelihood ratio, as another base makes other tokens; add distance to --scores"
            )
        super().__init__(genome, settings, settings.context or (_CONTEXT if peer is None else peer.context))
        self.encoder = encoder
        self._reference = genome.reference()
        self.model = peer.masked(0) if peer is not None and ratios else encoder.body(0)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._body = self.model.base_model if ratios else self.model
        vocabulary = encoder.tokenizer.get_vocab().items() if ratios else ()
        # Words of bases, of which the special tokens are none.
        self._words = {word: number for word, number in vocabulary if word and set(word) <= set(alphabet.BASES)}

    def _snvs(self, alleles: Alleles, advance: Advance) -> Columns:
        placed = place_windows(alleles.start_A, self._length[alleles.contig_A], self.context)
        windows = read_windows(self._reference, alleles.contig_A, placed.start_P, placed.length_P)
        every, column_A = np.arange(len(alleles)), alleles.start_A - placed.start_P
        sides = [windows.with_codes(every, column_A, code_A) for code_A in (alleles.reference_A, alleles.alternate_A)]
        columns: dict[str, Float32 | Float64] = {}
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
        advance(len(alleles))
        return columns

    def _others(self, alleles: Alleles, advance: Advance) -> Columns:
        advance(len(alleles))
        if "distance" not in self.settings.scores:
            return {}
        flank, wide = self.settings.flank, self.settings.distance_bases
        both = haplotype_passes(self._reference, alleles, self._length, self.context, flank, wide)
        # Of each allele: the variant and its surroundings with REF, then both with ALT.
        row, begin, end = (part.reshape(4, -1) for part in (both.row_S, both.begin_S, both.end_S))
        return self._distances(
            [
                (both.windows.take(row[one]), np.stack([begin[one], end[one], begin[one + 1], end[one + 1]], axis=1))
                for one in (0, 2)
            ]
        )

    def _distances(self, sides: list[tuple[PaddedWindows, Int64]]) -> dict[str, Float64]:
        return distances(
            np.concatenate([state_AD for side in sides for state_AD in self._states(*side).swapaxes(0, 1)])
        )

    def _strands(self, windows: PaddedWindows) -> Iterator[tuple[bool, TokenInputs]]:
        """Yield the tokens of windows, and of their reverse complements where both strands are read."""
        most = most_tokens(self._body)
        for turned in (False, True)[: 1 + (self.settings.strands == "both")]:
            read = windows.reverse_complement() if turned else windows
            inputs = self.encoder.inputs(read)
            longest = int(inputs.length_N.max(initial=0))
            if most is not None and longest > most:
                raise InputError(
                    f"{self.encoder.name}: a window of {self.context:,} bases has {longest:,} tokens, where the model "
                    f"has positions for {most:,}; use a smaller --context"
                )
            yield turned, inputs

    def _run(self, run: Callable[[Batch], torch.Tensor], inputs: TokenInputs, rows: Int64, **columns: Int64) -> Float32:
        """Return what `run` computes of some windows; its batches carry the columns of their rows."""

        def batch(rows: Int64, reverse: Bool | None = None) -> Batch:
            return inputs.batch(rows, reverse) | {name: torch.from_numpy(one[rows]) for name, one in columns.items()}

        how = {"batch_size": self.settings.batch_size, "precision": self.settings.precision}
        carrying = SimpleNamespace(length_N=inputs.length_N, batch=batch, tokens_at=inputs.tokens_at)
        return sequence_outputs(self.model, run, carrying, rows, **how)

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
