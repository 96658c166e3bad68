"""Scores of alternate alleles by models that read tokens: 6-mers, byte pairs, single letters.

The likelihood ratio of an SNV is that of the token which holds its position. With w(b) that token as it is with base b
in the place of the variant's, and the token masked,

    LLR = ln P(w(ALT)) - ln P(w(REF)),

for one letter a token what it is for MutBERT, and for 6-mers a ratio given that the five bases beside stay (Dalla-Torre
et al. 2023 score variants by the same masked token). Windows of the reference alone are read; which bases share the
token follows from where the window begins, since 6-mers are counted from there and from behind every N.

Shape suffixes: A alleles, N windows, L length in bases, B batch, T tokens, D hidden size, V vocabulary, W words, K
their letters, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert import alphabet
from mutbert.effects.alleles import Alleles, Kind, Reason, find_alleles
from mutbert.effects.pseudo_likelihood import haplotype_passes
from mutbert.effects.scores import DISTANCES, Field, ScoreSettings, check_settings, distances
from mutbert.effects.windows import around
from mutbert.encoders.inputs import Sequences
from mutbert.encoders.token_encoders import PeerEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.inference.run import PaddedWindows, entropy, sequence_outputs
from mutbert.inference.surroundings import place_windows, read_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Int64
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
_ULLR: Final = Field(
    "ULLR", "Unmasked log-likelihood ratio of an SNV, ln P(token with ALT) - ln P(token with REF), window as it is", -1
)
# Of a model that nothing is known of.
_CONTEXT: Final = 512
_BASES_AT_ONCE: Final = 1 << 22


class TokenScorer:
    """Scores alleles of a genome with a model that reads tokens, as `mutbert.effects.scores.Scorer` does with MutBERT.

    Parameters
    ----------
    encoder : AutoEncoder
        The model; run on a GPU where there is one.
    genome : ProbabilisticGenome
        Its reference is read.
    settings : ScoreSettings
        How. LLR, ENT and ULLR are of SNVs, and of models whose tokens stay tokens when a base is exchanged; distances
        are of all. There is no PLLR.

    Attributes
    ----------
    settings : ScoreSettings
        With `context` and `longest` as they are used.
    fields : tuple of Field
        The columns of what `score` gives.

    Raises
    ------
    InputError
        When the model has none of the scores, or the context is longer than it takes.
    """

    def __init__(self, encoder: AutoEncoder, genome: ProbabilisticGenome, settings: ScoreSettings) -> None:
        check_settings(settings)
        if settings.rope_scaling is not None or settings.windows != "centred":
            raise InputError(
                f"{encoder.name}: rope_scaling and shared windows are for MutBERT; leave them out for others"
            )
        peer = encoder if isinstance(encoder, PeerEncoder) else None
        likelihood = peer is not None and peer.likelihood
        groups = {"llr": _LLR if likelihood else (), "unmasked": (_ULLR,) if likelihood else (), "distance": DISTANCES}
        self.fields = tuple(field for name, fields in groups.items() if name in settings.scores for field in fields)
        if not self.fields:
            raise InputError(
                f"{encoder.name}: has no likelihood ratio, as another base makes other tokens; add distance to --scores"
            )
        context = settings.context or (_CONTEXT if peer is None else peer.context)
        room = context - 2 * settings.flank
        if room < 1:
            raise InputError(f"flank is {settings.flank}, which leaves no room in a context of {context} bases")
        self.encoder = encoder
        self.genome = genome
        self.settings = replace(settings, context=context, longest=min(settings.longest, room))
        self._context = context
        self._reference = genome.reference()
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)
        masked = any(field in (*_LLR, _ULLR) for field in self.fields)
        self.model = peer.masked(0) if peer is not None and masked else encoder.body(0)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._body = self.model.base_model if masked else self.model
        self._exchange = _Exchange(encoder.tokenizer) if masked else None

    def find(self, contigs: Any, positions: Any, references: Any, alternates: Any) -> Alleles:
        """Tell what each alternate allele of some records changes; see `mutbert.effects.alleles.find_alleles`."""
        return find_alleles(self.genome, contigs, positions, references, alternates, longest=self.settings.longest)

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Return the scores of alleles, (A, F) in the order of `fields`; NaN where an allele has no such score."""
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        scored_A = alleles.reason_A == Reason.SCORED
        at_once = max(_BASES_AT_ONCE // self._context, 1)
        for is_snv in (True, False):
            rows = np.flatnonzero(scored_A & ((alleles.kind_A == Kind.SNV) == is_snv))
            for first in range(0, len(rows), at_once):
                part = rows[first : first + at_once]
                columns = (self._snvs if is_snv else self._others)(alleles.take(part))
                for number, field in enumerate(self.fields):
                    if field.name in columns:
                        score_AF[part, number] = columns[field.name]
                if advance is not None:
                    advance(len(part))
        if advance is not None:
            advance(int((~scored_A).sum()))
        return score_AF

    def _snvs(self, alleles: Alleles) -> dict[str, npt.NDArray[Any]]:
        placed = place_windows(alleles.start_A, self._length[alleles.contig_A], self._context)
        windows = read_windows(self._reference, alleles.contig_A, placed.start_P, placed.length_P)
        every, column_A = np.arange(len(alleles)), alleles.start_A - placed.start_P
        reference, alternate = (
            windows.with_codes(every, column_A, code_A) for code_A in (alleles.reference_A, alleles.alternate_A)
        )
        columns: dict[str, npt.NDArray[Any]] = {}
        for name, group, masked in (("LLR", "llr", True), ("ULLR", "unmasked", False)):
            if self._exchange is not None and group in self.settings.scores:
                logit_A4 = self._logits(reference, column_A, masked=masked)
                columns[name] = logit_A4[every, alleles.alternate_A] - logit_A4[every, alleles.reference_A]
                if masked:
                    columns["ENT"] = entropy(logit_A4)
        if "distance" in self.settings.scores:
            near = (column_A, column_A + 1)
            wide = around(*near, windows.length_N, self.settings.distance_bases)
            states = [self._states(side, np.stack([*near, *wide], axis=1)) for side in (reference, alternate)]
            columns |= _compared(*states)
        return columns

    def _others(self, alleles: Alleles) -> dict[str, npt.NDArray[Any]]:
        if "distance" not in self.settings.scores:
            return {}
        both = haplotype_passes(
            self._reference, alleles, self._length, self._context, self.settings.flank, self.settings.distance_bases
        )
        # Of each allele, what is near it and what is around it with REF, then both with ALT.
        row_4A, begin_4A, end_4A = (part.reshape(4, -1) for part in (both.row_S, both.begin_S, both.end_S))
        states = [
            self._states(
                both.windows.take(row_4A[side]),
                np.stack([begin_4A[side], end_4A[side], begin_4A[side + 1], end_4A[side + 1]], axis=1),
            )
            for side in (0, 2)
        ]
        return _compared(*states)

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

    def _run(self, run: Callable[[Batch], torch.Tensor], inputs: _WithColumns, rows: Int64) -> Float32:
        return sequence_outputs(
            self.model,
            run,  # type: ignore[arg-type]
            inputs,
            rows,
            batch_size=self.settings.batch_size,
            precision=self.settings.precision,
        )

    def _logits(self, windows: PaddedWindows, column_N: Int64, *, masked: bool) -> Float32:
        """Return the logits of the four tokens with each base at a place, (N, 4), averaged over strands.

        Up to a constant, they are log-probabilities. NaN where the place is in no token, or one of the four is none.
        """
        peer, exchange = self.encoder, self._exchange
        assert isinstance(peer, PeerEncoder)
        assert exchange is not None

        def run(batch: Batch) -> torch.Tensor:
            token_B, choice_B4 = batch.pop("token"), batch.pop("choice")
            if masked:
                row_B = torch.arange(len(token_B), device=token_B.device)
                batch["input_ids"][row_B, token_B] = peer.tokenizer.mask_token_id
            return peer.masked_logits(self.model, batch, token_B).gather(1, choice_B4)

        found: list[Float32] = []
        for turned, inputs in self._strands(windows):
            place_N = windows.length_N - 1 - column_N if turned else column_N
            every = np.arange(len(windows))
            token_N, id_N, offset_N = inputs.locate(every, place_N)
            choice_N4 = exchange.with_bases(id_N, offset_N)
            rows = np.flatnonzero((token_N >= 0) & (choice_N4 >= 0).all(axis=1))
            logit_N4 = np.full((len(windows), len(alphabet.BASES)), np.nan, dtype=np.float32)
            if len(rows):
                logit_N4[rows] = self._run(run, _WithColumns(inputs, token=token_N, choice=choice_N4), rows)
            # On the other strand a base is its complement, which the order A, C, G, T has from the end.
            found.append(logit_N4[:, ::-1] if turned else logit_N4)
        mean_N4: Float32 = np.mean(found, axis=0)
        return mean_N4

    def _states(self, windows: PaddedWindows, span_N4: Int64) -> Float32:
        """Return the mean hidden states of the tokens that two stretches touch, (N, 2, D), averaged over strands.

        A row of `span_N4` has begin and end of both, 0-based and half-open. NaN where a stretch's tokens are unknown.
        """

        def run(batch: Batch) -> torch.Tensor:
            token_B4 = batch.pop("token")
            states_BTD = self.encoder.hidden_states(self._body, batch).float()
            place_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
            means = []
            for first_B1, last_B1 in ((token_B4[:, :1], token_B4[:, 1:2]), (token_B4[:, 2:3], token_B4[:, 3:])):
                weight_BT = ((place_T >= first_B1) & (place_T <= last_B1)).float()
                # No product of matrices, which autocast would compute in less precision.
                means.append((weight_BT[..., None] * states_BTD).sum(dim=1) / weight_BT.sum(dim=1, keepdim=True))
            return torch.cat(means, dim=1)

        total: Float32 | None = None
        every = np.arange(len(windows))
        for turned, inputs in self._strands(windows):
            spans = span_N4
            if turned:
                spans = windows.length_N[:, None] - span_N4[:, [1, 0, 3, 2]]
            token_N4 = np.stack([inputs.tokens_at(every, spans[:, side] - side % 2) for side in range(4)], axis=1)
            rows = np.flatnonzero((token_N4 >= 0).all(axis=1))
            if not len(rows):
                return np.full((len(windows), 2, 1), np.nan, dtype=np.float32)
            found = self._run(run, _WithColumns(inputs, token=token_N4), rows)
            state_ND = np.full((len(windows), found.shape[1]), np.nan, dtype=np.float32)
            state_ND[rows] = found
            total = state_ND if total is None else (total + state_ND) / np.float32(2)
        assert total is not None
        return total.reshape(len(windows), 2, -1)


class _WithColumns:
    """Prepared sequences, whose batches carry further numbers of each row."""

    def __init__(self, inputs: TokenInputs, **columns: Int64) -> None:
        self._inputs = inputs
        self._columns = columns
        self.length_N = inputs.length_N

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        own = {name: torch.from_numpy(column[rows]) for name, column in self._columns.items()}
        return {**self._inputs.batch(rows, reverse), **own}

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        return self._inputs.tokens_at(rows, place_B)


class _Exchange:
    """Finds the token that another becomes when one of its bases is exchanged."""

    def __init__(self, tokenizer: Any) -> None:
        special = set(tokenizer.all_special_tokens)
        words = {word: number for word, number in tokenizer.get_vocab().items() if word not in special}
        words = {word: number for word, number in words.items() if word and set(word) <= set(alphabet.BASES)}
        longest = max(map(len, words), default=0)
        # A word is a number with a digit a base from the left, 1 to 4, and 0 behind its end.
        self._place_K: Int64 = 5 ** np.arange(longest, dtype=np.int64)
        digit_WK = np.zeros((len(words), longest), dtype=np.int64)
        for row, word in enumerate(words):
            digit_WK[row, : len(word)] = alphabet.encode(word) + 1
        ids_W = np.array(list(words.values()), dtype=np.int64)
        key_W = digit_WK @ self._place_K
        order = np.argsort(key_W)
        self._key_W, self._id_W = key_W[order], ids_W[order]
        self._key_V = np.full(max(tokenizer.get_vocab().values()) + 1, -1, dtype=np.int64)
        self._key_V[ids_W] = key_W

    def with_bases(self, id_N: Int64, offset_N: Int64) -> Int64:
        """Return the ids of tokens with A, C, G and T at an offset in each, (N, 4); -1 where one is no token."""
        key_N, unit_N = self._key_V[id_N], self._place_K[np.minimum(offset_N, len(self._place_K) - 1)]
        digit_N = key_N // unit_N % 5
        key_N4 = key_N[:, None] + (np.arange(1, 5) - digit_N[:, None]) * unit_N[:, None]
        at_N4 = np.minimum(np.searchsorted(self._key_W, key_N4), len(self._key_W) - 1)
        known_N4 = (self._key_W[at_N4] == key_N4) & (key_N >= 0)[:, None] & (digit_N > 0)[:, None]
        return np.where(known_N4, self._id_W[at_N4], -1)


def _compared(reference_N2D: Float32, alternate_N2D: Float32) -> dict[str, npt.NDArray[Any]]:
    return distances(np.concatenate([*reference_N2D.swapaxes(0, 1), *alternate_N2D.swapaxes(0, 1)]))
