"""The other strand of the same DNA. Shape suffixes: B batch, L length in tokens, V vocabulary (9), X any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from mutbert import alphabet

if TYPE_CHECKING:
    from torch import Tensor

# Tokens that stay where they are. [MASK] and [UNK] stand for bases and turn with them.
_FRAME: Final = (alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID)


def reverse_complement(tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return ids (B, L), or distributions (B, L, V) or (B, L, 4), as they read on the other strand.

    ``[CLS]``, ``[SEP]`` and padding stay where they are. The mask is needed only where there are 4 columns.
    """
    if not tokens.is_floating_point() and tokens.dim() == 2:
        complement = torch.tensor(alphabet.COMPLEMENT_OF_ID.tolist(), dtype=tokens.dtype, device=tokens.device)
        turned = complement[turn(tokens, mirrored_positions(tokens, attention_mask)).long()]
        return turned if attention_mask is None else torch.where(attention_mask.bool(), turned, tokens)
    if not tokens.is_floating_point() or tokens.dim() != 3 or tokens.shape[-1] not in {alphabet.VOCABULARY_SIZE, 4}:
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; give integer ids (batch, length), or "
            f"distributions (batch, length, {alphabet.VOCABULARY_SIZE}) or (batch, length, 4)"
        )
    turned = turn(tokens, mirrored_positions(tokens, attention_mask))[..., complement_columns(tokens.shape[-1])]
    return turned if attention_mask is None else torch.where(attention_mask.bool()[..., None], turned, tokens)


def mirrored_positions(tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return where each position lies on the other strand (B, L): runs of bases are reversed, others stay."""
    if tokens.dim() == 2:
        frame_BL = torch.isin(tokens, torch.tensor(_FRAME, device=tokens.device))
    elif tokens.shape[-1] == alphabet.VOCABULARY_SIZE:
        frame_BL = tokens[..., list(_FRAME)].sum(dim=-1) > 0.5
    else:
        frame_BL = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if attention_mask is not None:
        frame_BL = frame_BL | ~attention_mask.bool()
    length = frame_BL.shape[1]
    position_BL = torch.arange(length, device=frame_BL.device).expand_as(frame_BL)
    before_BL = position_BL.masked_fill(~frame_BL, -1).cummax(dim=1).values
    after_BL = position_BL.masked_fill(~frame_BL, length).flip(1).cummin(dim=1).values.flip(1)
    return torch.where(frame_BL, position_BL, before_BL + after_BL - position_BL)


def turn(values_BLX: Tensor, position_BL: Tensor) -> Tensor:
    """Return the values (B, L, any...) at the given positions of each sequence."""
    return values_BLX.gather(1, position_BL[(..., *[None] * (values_BLX.dim() - 2))].expand_as(values_BLX))


def complement_columns(columns: int) -> list[int]:
    """Return the column of each token's complement, among those of the vocabulary or of the bases alone."""
    ids = alphabet.COMPLEMENT_OF_ID[-columns:]
    return [int(number) - (alphabet.VOCABULARY_SIZE - columns) for number in ids]
