"""The tokenizer: one token a base, and distributions where ids cannot say enough.

Shape suffixes: B batch, L length in tokens, V vocabulary (9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import BatchEncoding, PreTrainedTokenizerFast

from mutbert import alphabet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

TRAINED_LENGTH: Final = 512
"""Tokens that the published models are trained for, special ones included."""


class MutBertTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc, unused-ignore]
    """From DNA to token ids: ``[CLS] a [SEP]``, or ``[CLS] a [SEP] b [SEP]`` with token types 0 and 1 for a pair.

    Every character is a token of its own; white space is left out. A, C, G, T have ids 5 to 8, and what is no base,
    N and the other IUPAC codes included, is ``[UNK]``: an id can name one base alone. `encode_probabilities`
    keeps ambiguous codes as the distributions that they are.

    Parameters
    ----------
    do_upper_case : bool
        Read lower-case bases as bases, since a soft-masked FASTA writes its repeats so. ``False`` gives what the
        published tokenizer gives, to which they are ``[UNK]``.
    model_max_length : int
        Tokens to which ``truncation=True`` cuts, special ones included.
    **kwargs
        What every `transformers` tokenizer takes. The vocabulary is fixed, so one that is given is not used.
    """

    # BPE without a merge is a look-up of single characters; of the library's models it is the quickest at that.
    model = BPE
    vocab_files_names: ClassVar[dict[str, str]] = {"tokenizer_file": "tokenizer.json"}
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(self, *, do_upper_case: bool = True, model_max_length: int = TRAINED_LENGTH, **kwargs: Any) -> None:
        for fixed in ("vocab", "merges", "vocab_file", "merges_file", "tokenizer_file", "tokenizer_object"):
            kwargs.pop(fixed, None)
        names = {name: alphabet.TOKENS[number] for name, number in _SPECIAL.items()}
        super().__init__(
            **{
                # Said here too, it is saved, so that a loader without this class gives token types as well.
                "model_input_names": self.model_input_names,
                **kwargs,
                **names,
                "tokenizer_object": _backend(do_upper_case=do_upper_case),
                "do_upper_case": do_upper_case,
                "model_max_length": model_max_length,
                "clean_up_tokenization_spaces": False,
            }
        )
        self.do_upper_case = do_upper_case

    def encode_probabilities(self, sequences: str | Sequence[str], *, add_special_tokens: bool = True) -> BatchEncoding:
        """Turn sequences into the distributions over tokens that the models take as ``input_probs``.

        Parameters
        ----------
        sequences : str or sequence of str
            IUPAC codes in upper or lower case; U is read as T. R is half A and half G; N is ``[UNK]``.
        add_special_tokens : bool
            Put ``[CLS]`` before and ``[SEP]`` behind each, as in training.

        Returns
        -------
        BatchEncoding
            ``input_probs``, float32 of shape (B, L, 9), whose rows sum to 1, and ``attention_mask``, int64 of
            shape (B, L). L is the longest sequence's; shorter ones end in ``[PAD]`` with 0 in the mask.

        Raises
        ------
        ValueError
            When a character is no IUPAC code; names the sequence and the place.
        """
        rows = []
        for number, sequence in enumerate([sequences] if isinstance(sequences, str) else sequences):
            try:
                codes = alphabet.encode(sequence)
            except ValueError as error:
                raise ValueError(f"sequence {number}: {error}") from None
            probs_LV = alphabet.TOKEN_PROBABILITIES[codes]
            rows.append(with_special_tokens(probs_LV) if add_special_tokens else probs_LV)
        probs_BLV, mask_BL = pad(rows)
        return BatchEncoding({"input_probs": probs_BLV, "attention_mask": mask_BL}, tensor_type="pt")


def with_special_tokens(probs_LV: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Put one-hot rows for ``[CLS]`` before and ``[SEP]`` behind distributions, giving shape (L + 2, V)."""
    framed = np.zeros((len(probs_LV) + 2, alphabet.VOCABULARY_SIZE), dtype=np.float32)
    framed[0, alphabet.CLS_ID] = 1
    framed[1:-1] = probs_LV
    framed[-1, alphabet.SEP_ID] = 1
    return framed


def pad(
    rows: Sequence[npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Bring distributions of several lengths into one batch.

    Parameters
    ----------
    rows : sequence of ndarray of float32, each of shape (its length, V)
        The distributions.

    Returns
    -------
    probs_BLV : ndarray of float32, shape (B, L, V)
        L is the greatest length; what is behind a shorter one is one-hot ``[PAD]``.
    mask_BL : ndarray of int64, shape (B, L)
        1 at tokens and 0 at padding.
    """
    longest = max((len(row) for row in rows), default=0)
    probs_BLV = np.zeros((len(rows), longest, alphabet.VOCABULARY_SIZE), dtype=np.float32)
    mask_BL = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        probs_BLV[number, : len(row)] = row
        probs_BLV[number, len(row) :, alphabet.PAD_ID] = 1
        mask_BL[number, : len(row)] = 1
    return probs_BLV, mask_BL


_SPECIAL: Final = {
    "unk_token": alphabet.UNK_ID,
    "cls_token": alphabet.CLS_ID,
    "sep_token": alphabet.SEP_ID,
    "pad_token": alphabet.PAD_ID,
    "mask_token": alphabet.MASK_ID,
}


def _backend(*, do_upper_case: bool) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(alphabet.TOKENS)}
    unknown, opening, closing = (alphabet.TOKENS[i] for i in (alphabet.UNK_ID, alphabet.CLS_ID, alphabet.SEP_ID))
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token=unknown, fuse_unk=False))
    if do_upper_case:
        # The library has no normaliser to upper case, and only these four letters matter.
        backend.normalizer = normalizers.Sequence([normalizers.Replace(base.lower(), base) for base in alphabet.BASES])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{opening}:0 $A:0 {closing}:0",
        pair=f"{opening}:0 $A:0 {closing}:0 $B:1 {closing}:1",
        special_tokens=[(opening, alphabet.CLS_ID), (closing, alphabet.SEP_ID)],
    )
    return backend


__all__ = ["MutBertTokenizer"]
