"""Scores of alternate alleles by models that read tokens: 6-mers, byte pairs, single letters.

The likelihood ratio of an SNV is that of the token which holds its position. With w(b) that token with base b in place
of the variant's, and the token masked,

    LLR = ln P(w(ALT)) - ln P(w(REF)),

which for one letter a token is MutBERT's, and for 6-mers is conditional on the five other bases (Dalla-Torre et al.
2023 score variants by the same masked token). Only windows of the reference are read; which bases share the token
follows from the window's start, since 6-mers are counted from there and from the end of every run of N.

Shape suffixes: A alleles, N windows, B batch, T tokens, K columns, D hidden size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mutbert import alphabet
from mutbert.effects.alleles import Alleles, unique_columns
from mutbert.effects.scores import FIELDS, Scorer, ScoreSettings
from mutbert.encoders.inputs import Sequences
from mutbert.encoders.token_encoders import PeerEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.run import PaddedWindows, Queries, batch_of, run_batches
from mutbert.inference.surroundings import Surroundings, place_windows, read_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mutbert.arrays import Float32, Int64
    from mutbert.encoders.inputs import Batch, TokenInputs
    from mutbert.encoders.token_encoders import AutoEncoder
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.progress import Advance

# Of a model that is not known by name.
_CONTEXT: Final = 512
_BASES_AT_ONCE: Final = 1 << 22


class TokenScorer(Scorer):
    """Scores alleles of a genome's reference with a model that reads tokens, as `mutbert.effects.scores.Scorer` does.

    LLR, ENT and ULLR are of SNVs, and of models whose tokens stay tokens when a base is exchanged; distances are of all
    alleles. There is no PLLR.
    """

    def __init__(self, encoder: AutoEncoder, genome: ProbabilisticGenome, settings: ScoreSettings) -> None:
        if settings.rope_scaling is not None or settings.windows != "centred":
            raise InputError(
                f"{encoder.name}: rope_scaling and shared windows are for MutBERT; leave them out for others"
            )
        peer = encoder if isinstance(encoder, PeerEncoder) else None
        ratios = {"llr", "unmasked"} & set(settings.scores) if peer is not None and peer.likelihood else set()
        asked = ratios | ({"distance"} & set(settings.scores))
        # An MNV or indel makes other tokens, which have no ratio.
        every = [field for name in FIELDS if name in asked for field in FIELDS[name] if field.name != "PLLR"]
        if not every:
            raise InputError(
                f"{encoder.name}: has no likelihood ratio, as another base makes other tokens; add distance to --scores"
            )
        context = settings.context or (_CONTEXT if peer is None else peer.context)
        model = peer.masked(0) if peer is not None and ratios else encoder.body(0)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._set(model, genome, Surroundings("reference", genome.reference(), {}), settings, context, every)
        self.encoder, self.at_once = encoder, (_BASES_AT_ONCE // context + 1,) * 2
        self._body = self.model.base_model if ratios else self.model

    def _logits(self, alleles: Alleles, advance: Advance, *, masked: bool) -> Float32:
        """Return the logits of the four tokens with each base, (A, 4), averaged over strands.

        They are log-probabilities up to a constant; NaN where the SNV is in no token, or one of the four is none.
        """
        peer, every = self.encoder, np.arange(len(alleles))
        assert isinstance(peer, PeerEncoder)
        # Words of bases, of which the special tokens are none.
        vocabulary = peer.tokenizer.get_vocab().items()
        words = {word: number for word, number in vocabulary if word and set(word) <= set(alphabet.BASES)}
        length_A = np.array(list(self.genome.lengths.values()), dtype=np.int64)[alleles.contig_A]
        placed = place_windows(alleles.start_A, length_A, self.context)
        column_A = alleles.start_A - placed.start_P
        windows = read_windows(self.surroundings.genome, alleles.contig_A, placed.start_P, placed.length_P)

        def find(inputs: TokenInputs, reverse: bool) -> Int64:
            offset_A = placed.length_P - 1 - column_A if reverse else column_A
            token_A, id_A, within_A = inputs.locate(every, offset_A)
            choice_A4 = _with_bases(words, id_A, within_A)
            # Complements are the order A, C, G, T reversed.
            return np.column_stack([token_A, choice_A4[:, ::-1] if reverse else choice_A4])

        def read(batch: Batch, found_BK: torch.Tensor) -> torch.Tensor:
            token_B = found_BK[:, 0]
            if masked:
                row_B = torch.arange(len(token_B), device=token_B.device)
                batch["input_ids"][row_B, token_B] = peer.tokenizer.mask_token_id
            return peer.masked_logits(self.model, batch, token_B).gather(1, found_BK[:, 1:])

        return self._read(windows.with_codes(every, column_A, alleles.reference_A), find, read, advance)

    def _states(self, windows: PaddedWindows, queries: Queries, advance: Advance) -> Float32:
        """Return the mean hidden states of the tokens that spans overlap; NaN where these are unknown."""
        # A row for each haplotype, with begin and end of both its spans.
        passes = windows.take(queries.row_S.reshape(2, 2, -1)[:, 0].reshape(-1))
        spans = np.stack([queries.begin_S, queries.end_S]).reshape(2, 2, 2, -1)
        span_N4, every = spans.transpose(1, 3, 2, 0).reshape(-1, 4), np.arange(len(passes))

        def find(inputs: TokenInputs, reverse: bool) -> Int64:
            own_N4 = passes.length_N[:, None] - span_N4[:, [1, 0, 3, 2]] if reverse else span_N4
            return np.stack([inputs.tokens_at(every, own_N4[:, side] - side % 2) for side in range(4)], axis=1)

        def read(batch: Batch, found_B4: torch.Tensor) -> torch.Tensor:
            states_BTD = self.encoder.hidden_states(self._body, batch).float()
            index_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
            means = []
            for first in (0, 2):
                weight_BT = (index_T >= found_B4[:, first, None]) & (index_T <= found_B4[:, first + 1, None])
                # No matrix product, which autocast would compute in less precision.
                total_BD = (weight_BT[..., None].float() * states_BTD).sum(dim=1)
                means.append(total_BD / weight_BT.sum(dim=1, keepdim=True))
            return torch.cat(means, dim=1)

        state_N2D = self._read(passes, find, read, advance)
        return state_N2D.reshape(2, len(passes) // 2, 2, -1).swapaxes(1, 2).reshape(2 * len(passes), -1)

    def _read(
        self, windows: PaddedWindows, find: Callable[[TokenInputs, bool], Int64],
        read: Callable[[Batch, torch.Tensor], torch.Tensor], advance: Advance,
    ) -> Float32:  # fmt: skip
        """Return what `read` computes of windows, (N, D), averaged over strands; NaN where there is nothing to read.

        ``find(inputs, reverse)`` returns what is read of a strand's tokens, (N, K), with a negative number for nothing.
        """
        most, strands = most_tokens(self._body), []
        for reverse in (False, True)[: 1 + (self.settings.strands == "both")]:
            own = windows.reverse_complement() if reverse else windows
            sequences = Sequences(own.code_NL[own.inside_NL], np.append(0, np.cumsum(own.length_N)))
            inputs = self.encoder.inputs(sequences)
            if most is not None and (longest := int(inputs.length_N.max(initial=0))) > most:
                raise InputError(
                    f"{self.encoder.name}: a window of {self.context:,} bases has {longest:,} tokens, where the model "
                    f"has positions for {most:,}; use a smaller --context"
                )
            strands.append((inputs, find(inputs, reverse)))
        rows = np.flatnonzero(np.all([(found_NK >= 0).all(axis=1) for _, found_NK in strands], axis=0))

        def predict(chosen: Int64, reverse: bool) -> list[torch.Tensor]:
            inputs, found_NK = strands[reverse]
            batch = batch_of(inputs, rows[chosen], self.model)
            return [read(batch, torch.from_numpy(found_NK[rows[chosen]]).to(batch["input_ids"].device))]

        length_N = strands[0][0].length_N[rows]
        order, found = run_batches(self.model, length_N, predict, **self._how(len(rows), advance))
        value_ND = np.full((len(windows), found[0].shape[1] if found else 4), np.nan, dtype=np.float32)
        if found:
            value_ND[rows[order]] = found[0]
        return value_ND


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
