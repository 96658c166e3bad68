"""Sequences as a model takes them: whole batches at once, of either strand, padded to their longest alone.

Shape suffixes: N sequences, B those of a batch, L positions, V variant positions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import torch

from mutbert import alphabet
from mutbert.genome.store import fixed_to_float
from mutbert.regions import match_contig

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Int64
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome

    Batch = dict[str, torch.Tensor]

# Behind the base codes, so that one table says what each place of a batch is.
_PAD, _CLS, _SEP = range(len(alphabet.IUPAC), len(alphabet.IUPAC) + 3)
_ID_OF_CODE: Final = torch.from_numpy(
    np.append(alphabet.TOKEN_ID_OF_CODE, [alphabet.PAD_ID, alphabet.CLS_ID, alphabet.SEP_ID])
)
_PROBABILITIES_OF_CODE: Final = torch.from_numpy(
    np.concatenate(
        [
            alphabet.TOKEN_PROBABILITIES,
            np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)[[alphabet.PAD_ID, alphabet.CLS_ID, alphabet.SEP_ID]],
        ]
    )
)
_N: Final = alphabet.UNKNOWN
_LETTERS: Final = frozenset("ACGTN")


class Sequences(NamedTuple):
    """Sequences without labels: their base codes one after the other, and where each begins and the last ends."""

    base_codes: npt.NDArray[np.uint8]
    offsets: Int64

    @classmethod
    def of(cls, codes: Sequence[npt.NDArray[np.uint8]]) -> Sequences:
        """Return sequences, each given as its base codes."""
        return cls(np.concatenate([np.zeros(0, np.uint8), *codes]), np.cumsum([0, *map(len, codes)], dtype=np.int64))


class Inputs(Protocol):
    """Sequences, prepared once for a model."""

    length_N: Int64
    """Tokens of each sequence, special ones included."""

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Give what the model takes for some of them.

        Parameters
        ----------
        rows : ndarray of int64, shape (B,)
            Which.
        reverse : ndarray of bool, shape (B,), optional
            Which of these to read on the other strand.

        Returns
        -------
        dict of str to Tensor
            Arguments of the model, each (B, L, ...), and ``attention_mask`` where there is padding.
        """

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        """Find the token that a base of each of some sequences is in, as read forward.

        Parameters
        ----------
        rows : ndarray of int64, shape (B,)
            Which.
        place_B : ndarray of int64, shape (B,)
            0-based place of the base in its sequence.

        Returns
        -------
        ndarray of int64, shape (B,)
            Its index among the sequence's tokens; -1 where the sequence was cut before it, or the tokens do not say
            which bases they stand for.
        """


class Population:
    """The allele frequencies of a population at the places where sequences come from.

    Parameters
    ----------
    examples : Examples
        The sequences, with regions.
    genome : ProbabilisticGenome
        The population's genome.

    Attributes
    ----------
    place_V : ndarray of int64
        Where positions vary, as indices into ``examples.base_codes``, ascending.
    frequency_V4 : ndarray of float32
        What is found there.
    used, elsewhere, unlike : int
        Sequences whose places the genome has; without a place in it; and with other bases than it has there, whose
        frequencies are not used.
    """

    def __init__(self, examples: Examples, genome: ProbabilisticGenome) -> None:
        self.used = self.elsewhere = self.unlike = 0
        names = list(genome.lengths)
        found = {
            contig: match_contig(contig, names) for contig in {place.contig for place in examples.regions if place}
        }
        rows_by_length: dict[int, list[tuple[int, int, int]]] = {}
        for row, region in enumerate(examples.regions):
            contig = found[region.contig] if region is not None else None
            if region is None or contig is None or not region.start < region.end <= genome.lengths[contig]:
                self.elsewhere += 1
                continue
            rows_by_length.setdefault(len(region), []).append((row, names.index(contig), region.start))
        places, frequencies = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
        for length, entries in rows_by_length.items():
            row_B, contig_B, start_B = np.array(entries, dtype=np.int64).T
            windows = genome.windows(contig_B, start_B, length)
            first_B = examples.offsets[row_B]
            own_BL = examples.base_codes[first_B[:, None] + np.arange(length)]
            like_B = ((own_BL == windows.base_BL) | (own_BL == _N) | (windows.base_BL == _N)).all(axis=1)
            self.used += int(like_B.sum())
            self.unlike += int((~like_B).sum())
            kept = like_B[windows.row_N]
            places.append((first_B[windows.row_N] + windows.column_N)[kept])
            frequencies.append(fixed_to_float(windows.frequency_N4[kept]))
        place_V = np.concatenate(places)
        order = np.argsort(place_V, kind="stable")
        self.place_V = place_V[order]
        self.frequency_V4 = np.concatenate(frequencies)[order]


class BaseInputs:
    """One token a base with ``[CLS]`` and ``[SEP]`` around, as MutBERT reads; ambiguous codes are distributions.

    Parameters
    ----------
    examples : Examples
        The sequences.
    max_tokens : int, optional
        Cut longer ones at their end, special tokens counted.
    population : Population, optional
        Read positions that vary as the population's distribution.
    special_tokens : bool
        Put ``[CLS]`` and ``[SEP]`` around, as in training.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        max_tokens: int | None = None,
        population: Population | None = None,
        special_tokens: bool = True,
    ) -> None:
        self._code = examples.base_codes
        self._offset = examples.offsets
        # Tokens before the first base, and as many behind the last.
        self._frame = int(special_tokens)
        self._kept_N = np.diff(examples.offsets)
        if max_tokens is not None:
            self._kept_N = np.minimum(self._kept_N, max_tokens - 2 * self._frame)
        self._population = population
        self.length_N = self._kept_N + 2 * self._frame

    @property
    def unplaced(self) -> dict[str, int]:
        """How many sequences are read without the population's frequencies that were asked for, by reason."""
        population = self._population
        if population is None:
            return {}
        return {
            "no place in the genome": population.elsewhere,
            "other bases than the genome has there": population.unlike,
        }

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Give ``input_ids``, or ``input_probs`` where an id cannot say enough; see `Inputs.batch`."""
        reverse_B = np.zeros(len(rows), dtype=np.bool_) if reverse is None else reverse
        kept_B = self._kept_N[rows]
        place_BL = np.arange(kept_B.max(initial=0))[None]
        inside_BL = place_BL < kept_B[:, None]
        source_BL = np.where(
            reverse_B[:, None], self._offset[rows + 1][:, None] - 1 - place_BL, self._offset[rows][:, None] + place_BL
        )
        code_BL = self._code[np.where(inside_BL, source_BL, 0)]
        code_BL = np.where(reverse_B[:, None], alphabet.COMPLEMENT_OF_CODE[code_BL], code_BL)
        framed_BL = np.where(inside_BL, code_BL, np.uint8(_PAD))
        if self._frame:
            framed_BL = np.pad(framed_BL, ((0, 0), (1, 1)), constant_values=_PAD)
            framed_BL[:, 0] = _CLS
            framed_BL[np.arange(len(rows)), kept_B + 1] = _SEP
        framed = torch.from_numpy(framed_BL).long()

        batch: Batch = {}
        variants = self._variants(rows, reverse_B)
        if len(variants[0]) or ((code_BL >= len(alphabet.BASES)) & (code_BL != _N) & inside_BL).any():
            batch["input_probs"] = _PROBABILITIES_OF_CODE[framed]
            row_V, column_V, frequency_V4 = variants
            token_V = column_V + self._frame
            batch["input_probs"][row_V, token_V] = 0
            batch["input_probs"][row_V, token_V, alphabet.BASE_IDS] = torch.from_numpy(frequency_V4)
        else:
            batch["input_ids"] = _ID_OF_CODE[framed]
        if (kept_B != kept_B.max(initial=0)).any():
            batch["attention_mask"] = (framed != _PAD).long()
        return batch

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        """Give the place, behind ``[CLS]`` where there is one; see `Inputs.tokens_at`."""
        return np.where(place_B < self._kept_N[rows], place_B + self._frame, -1)

    def cut(self, row: int) -> int:
        """Count the bases of a sequence that were cut off."""
        return int(self._offset[row + 1] - self._offset[row] - self._kept_N[row])

    def _variants(self, rows: Int64, reverse_B: Bool) -> tuple[Int64, Int64, Float32]:
        """Find the positions of a batch that vary: row, column and frequencies, as read on the strand asked for."""
        if self._population is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
        place_V = self._population.place_V
        first_B, last_B = (np.searchsorted(place_V, self._offset[rows + behind]) for behind in (0, 1))
        count_B = last_B - first_B
        row_V = np.repeat(np.arange(len(rows)), count_B)
        number_V = np.arange(count_B.sum()) + np.repeat(first_B - (np.cumsum(count_B) - count_B), count_B)
        turned_V = reverse_B[row_V]
        column_V = np.where(
            turned_V,
            self._offset[rows + 1][row_V] - 1 - place_V[number_V],
            place_V[number_V] - self._offset[rows][row_V],
        )
        frequency_V4 = self._population.frequency_V4[number_V]
        # A C G T backwards are their complements.
        frequency_V4 = np.where(turned_V[:, None], frequency_V4[:, ::-1], frequency_V4)
        kept = column_V < self._kept_N[rows][row_V]
        return row_V[kept], column_V[kept], np.ascontiguousarray(frequency_V4[kept])


class TokenInputs:
    """Whatever tokens a tokenizer of `transformers` makes: 6-mers, byte pairs, single bases.

    Such tokenizers know A, C, G, T and N; other IUPAC codes are read as N.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    examples : Examples or Sequences
        The sequences.
    max_tokens : int, optional
        Cut longer ones at their end, special tokens counted.
    special_tokens : bool
        Let the tokenizer put its special tokens around.
    """

    def __init__(
        self,
        tokenizer: Any,
        examples: Examples | Sequences,
        *,
        max_tokens: int | None = None,
        special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._special_tokens = special_tokens
        self._code = np.where(examples.base_codes < len(alphabet.BASES), examples.base_codes, _N).astype(np.uint8)
        self._offset = examples.offsets
        self._forward = self._tokens(self._code, self._offset)
        self._reverse: tuple[Int64, Int64] | None = None
        self.length_N = np.diff(self._forward[1])

    def _tokens(self, code: npt.NDArray[np.uint8], offset: Int64) -> tuple[Int64, Int64]:
        """Tokenise every sequence, once: all token ids one after the other, and where each sequence begins."""
        text = alphabet.decode(code)
        ids = self._tokenizer(
            [text[start:end] for start, end in pairwise(offset)],
            truncation=self._max_tokens is not None,
            max_length=self._max_tokens,
            add_special_tokens=self._special_tokens,
            return_attention_mask=False,
            # A sequence longer than the model is trained for is refused where that is known better.
            verbose=False,
        )["input_ids"]
        length_N = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.fromiter((token for row in ids for token in row), np.int64, int(length_N.sum()))
        return flat, np.append(0, np.cumsum(length_N))

    def batch(self, rows: Int64, reverse: Bool | None = None) -> Batch:
        """Give ``input_ids``; see `Inputs.batch`."""
        reverse_B = np.zeros(len(rows), dtype=np.bool_) if reverse is None else reverse
        if reverse_B.any() and self._reverse is None:
            # All of it backwards is every sequence backwards, the last one first.
            length_N = np.diff(self._offset)
            self._reverse = self._tokens(
                alphabet.reverse_complement(self._code), np.append(0, np.cumsum(length_N[::-1]))
            )
        strands = (self._forward, self._forward if self._reverse is None else self._reverse)
        count = len(rows)
        row_B = np.where(reverse_B, len(self.length_N) - 1 - rows, rows)
        start_B = np.where(reverse_B, strands[1][1][row_B], strands[0][1][row_B])
        length_B = np.where(reverse_B, strands[1][1][row_B + 1], strands[0][1][row_B + 1]) - start_B
        place_BL = np.arange(length_B.max(initial=0))[None]
        inside_BL = place_BL < length_B[:, None]
        id_BL = np.full((count, place_BL.shape[1]), self._tokenizer.pad_token_id, dtype=np.int64)
        for turned, (flat, _) in enumerate(strands):
            chosen_BL = inside_BL & (reverse_B == bool(turned))[:, None]
            id_BL[chosen_BL] = flat[(start_B[:, None] + place_BL)[chosen_BL]]
        batch = {"input_ids": torch.from_numpy(id_BL)}
        if not inside_BL.all():
            batch["attention_mask"] = torch.from_numpy(inside_BL.astype(np.int64))
        return batch

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        """Return the first of what `locate` gives; see `Inputs.tokens_at`."""
        return self.locate(rows, place_B)[0]

    def locate(self, rows: Int64, place_B: Int64) -> tuple[Int64, Int64, Int64]:
        """Find the token that a base of each of some sequences is in, by counting the bases of those before.

        Returns
        -------
        tuple of ndarray of int64, each of shape (B,)
            Its index, as `Inputs.tokens_at` has it; its id; and how many bases of it come before the one looked for.
        """
        flat, offset = self._forward
        behind = np.append(0, np.cumsum(self._width_of_id()[flat]))
        read_B = behind[offset[rows + 1]] - behind[offset[rows]]
        whole_B = read_B == self._offset[rows + 1] - self._offset[rows]
        if self._max_tokens is not None:
            whole_B |= self.length_N[rows] == self._max_tokens
        # The first token at whose end more bases were read than lie before the one looked for.
        wanted_B = behind[offset[rows]] + place_B
        at_B = np.searchsorted(behind[1:], wanted_B, side="right")
        # Of a tokenizer that makes one token of several unknown bases, or none, no place is certain.
        found_B = np.where(whole_B & (at_B < offset[rows + 1]), at_B - offset[rows], -1)
        at_B = np.minimum(at_B, len(flat) - 1)
        return found_B, flat[at_B], wanted_B - behind[at_B]

    def _width_of_id(self) -> Int64:
        """Say how many bases each token of the vocabulary stands for."""
        vocabulary = self._tokenizer.get_vocab()
        width = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        special = set(self._tokenizer.all_special_ids)
        for token, number in vocabulary.items():
            width[number] = 0 if number in special else sum(letter in _LETTERS for letter in token)
        if self._tokenizer.unk_token_id is not None:
            # What N becomes where the vocabulary has none.
            width[self._tokenizer.unk_token_id] = 1
        return width
