"""The tokenizer: one token a base. Shape suffixes: B batch, L length in tokens, V vocabulary (9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import BatchEncoding, PreTrainedTokenizerFast

from mutbert import alphabet

if TYPE_CHECKING:
    from collections.abc import Sequence

_ONE_HOT: Final = np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)
_SPECIAL: Final = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}


class MutBertTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc, unused-ignore]
    """From DNA to token ids: ``[CLS] a [SEP]``, or ``[CLS] a [SEP] b [SEP]`` with token types 0 and 1 for a pair.

    A, C, G, T have ids 5 to 8, white space is left out, and any other character is ``[UNK]``. `encode_probabilities`
    keeps ambiguous codes as distributions.

    Parameters
    ----------
    do_upper_case : bool
        Read the lower-case bases of a soft-masked FASTA as bases; to the published tokenizer they are ``[UNK]``.
    model_max_length, **kwargs
        As for any `transformers` tokenizer; the vocabulary is fixed.
    """

    # BPE without a merge is a look-up of single characters; of the library's models it is the quickest at that.
    model = BPE
    vocab_files_names: ClassVar[dict[str, str]] = {"tokenizer_file": "tokenizer.json"}
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(self, *, do_upper_case: bool = True, model_max_length: int = 512, **kwargs: Any) -> None:
        for fixed in ("vocab", "merges", "vocab_file", "merges_file", "tokenizer_file", "tokenizer_object"):
            kwargs.pop(fixed, None)
        settings = {
            # Saved, so that a loader without this class returns token types as well.
            "model_input_names": self.model_input_names,
            **kwargs, **_SPECIAL, "tokenizer_object": _backend(do_upper_case=do_upper_case),
            "do_upper_case": do_upper_case, "model_max_length": model_max_length, "clean_up_tokenization_spaces": False,
        }  # fmt: skip
        super().__init__(**settings)
        self.do_upper_case = do_upper_case

    def encode_probabilities(self, sequences: str | Sequence[str], *, add_special_tokens: bool = True) -> BatchEncoding:
        """Return sequences as ``input_probs`` (B, L, 9) and ``attention_mask`` (B, L), tensors of float32 and int64.

        Sequences are of IUPAC codes in upper or lower case: R is half A and half G, N is ``[UNK]``, U is T.
        """
        rows = []
        for number, sequence in enumerate([sequences] if isinstance(sequences, str) else sequences):
            try:
                codes = alphabet.encode(sequence)
            except ValueError as error:
                raise ValueError(f"sequence {number}: {error}") from None
            probs_LV = alphabet.TOKEN_PROBABILITIES[codes]
            frame = (_ONE_HOT[[alphabet.CLS_ID]], _ONE_HOT[[alphabet.SEP_ID]]) if add_special_tokens else ()
            rows.append(np.concatenate([*frame[:1], probs_LV, *frame[1:]]))
        length_B = np.array([len(row) for row in rows], dtype=np.int64)
        mask_BL = np.arange(length_B.max(initial=0)) < length_B[:, None]
        probs_BLV = np.tile(_ONE_HOT[alphabet.PAD_ID], (*mask_BL.shape, 1))
        probs_BLV[mask_BL] = np.concatenate([_ONE_HOT[:0], *rows])
        return BatchEncoding({"input_probs": probs_BLV, "attention_mask": mask_BL.astype(np.int64)}, tensor_type="pt")


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
