"""The tokenizer: one token a base; and tokens as they read on the other strand.

Shape suffixes: B batch, L length in tokens, V vocabulary (9), C columns of probabilities (9 or 4).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import BatchEncoding, PreTrainedTokenizerFast

from mutbert import alphabet

# Distributions over tokens: of the base codes, and then of the tokens themselves.
_CODES: Final = len(alphabet.IUPAC)
_PROBS: Final = np.concatenate([alphabet.TOKEN_PROBABILITIES, np.eye(alphabet.VOCABULARY_SIZE, dtype=np.float32)])
# Tokens that keep their positions on the other strand; [MASK] and [UNK] stand for bases.
_FRAME: Final = [alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID]
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

    Examples
    --------
    >>> mutbert.MutBertTokenizer()("ACGTN")["input_ids"]
    [1, 5, 6, 7, 8, 0, 2]
    """

    # BPE without a merge is a look-up of single characters; of the library's models it is the quickest at that.
    model = BPE
    vocab_files_names: ClassVar[dict[str, str]] = {"tokenizer_file": "tokenizer.json"}
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(self, *, do_upper_case: bool = True, model_max_length: int = 512, **kwargs: Any) -> None:
        for fixed in ("vocab", "merges", "vocab_file", "merges_file", "tokenizer_file", "tokenizer_object"):
            kwargs.pop(fixed, None)
        # The input names are saved, so that a loader without this class returns token types as well.
        super().__init__(**{
            "model_input_names": self.model_input_names, **kwargs, **_SPECIAL,
            "tokenizer_object": _backend(do_upper_case=do_upper_case), "do_upper_case": do_upper_case,
            "model_max_length": model_max_length, "clean_up_tokenization_spaces": False,
        })  # fmt: skip
        self.do_upper_case = do_upper_case

    def encode_probabilities(self, sequences: str | Sequence[str], *, add_special_tokens: bool = True) -> BatchEncoding:
        """Return sequences as ``input_probs`` (B, L, 9) and ``attention_mask`` (B, L), tensors of float32 and int64.

        Sequences are of IUPAC codes in upper or lower case: R is half A and half G, N is ``[UNK]``, U is T.
        """
        opening, closing, padding = (_CODES + token for token in _FRAME)
        rows = []
        for number, sequence in enumerate([sequences] if isinstance(sequences, str) else sequences):
            try:
                codes = alphabet.encode(sequence).tolist()
            except ValueError as error:
                raise ValueError(f"sequence {number}: {error}") from None
            rows.append([opening, *codes, closing] if add_special_tokens else codes)
        length = max(map(len, rows), default=0)
        code_BL = np.array([row + [padding] * (length - len(row)) for row in rows], np.int64).reshape(-1, length)
        values = {"input_probs": _PROBS[code_BL], "attention_mask": (code_BL != padding).astype(np.int64)}
        return BatchEncoding(values, tensor_type="pt")


def reverse_complement(tokens: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return ids (B, L), or distributions (B, L, 9) or (B, L, 4), as they read on the other strand.

    ``[CLS]``, ``[SEP]`` and padding keep their positions. The mask is needed only where there are 4 columns.
    """
    size, is_ids = alphabet.VOCABULARY_SIZE, tokens.dim() == 2 and not tokens.is_floating_point()
    probs_BLC = torch.nn.functional.one_hot(tokens.long(), size) if is_ids else tokens
    columns = probs_BLC.shape[-1]
    if probs_BLC.dim() != 3 or columns not in {size, 4}:
        right = f"integer ids (batch, length), or distributions (batch, length, {size}) or (batch, length, 4)"
        raise ValueError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; give {right}")
    frame_BL = probs_BLC[..., _FRAME if columns == size else []].sum(dim=-1) > 0.5
    if attention_mask is not None:
        frame_BL = frame_BL | ~attention_mask.bool()
    # Runs of bases are reversed: each between the last frame token before it and the first one after it.
    length = frame_BL.shape[1]
    position_BL = torch.arange(length, device=frame_BL.device).expand_as(frame_BL)
    before_BL = position_BL.masked_fill(~frame_BL, -1).cummax(dim=1).values
    after_BL = position_BL.masked_fill(~frame_BL, length).flip(1).cummin(dim=1).values.flip(1)
    from_BL1 = (before_BL + after_BL - position_BL)[..., None]
    complement = torch.tensor(alphabet.COMPLEMENT_OF_ID[-columns:] - (size - columns), device=tokens.device)
    turned_BLC = probs_BLC.gather(1, from_BL1.expand_as(probs_BLC))[..., complement]
    turned_BLC = torch.where(frame_BL[..., None], probs_BLC, turned_BLC)
    return turned_BLC.argmax(dim=-1).to(tokens.dtype) if is_ids else turned_BLC


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
