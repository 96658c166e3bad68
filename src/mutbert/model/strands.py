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
    columns = tokens.shape[-1] if tokens.dim() == 3 else alphabet.VOCABULARY_SIZE
    if tokens.dim() != 2 + tokens.is_floating_point() or columns not in {alphabet.VOCABULARY_SIZE, 4}:
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; give integer ids (batch, length), or "
            f"distributions (batch, length, {alphabet.VOCABULARY_SIZE}) or (batch, length, 4)"
        )
    if tokens.dim() == 2:
        frame_BL = torch.isin(tokens, torch.tensor(_FRAME, device=tokens.device))
    elif columns == alphabet.VOCABULARY_SIZE:
        frame_BL = tokens[..., list(_FRAME)].sum(dim=-1) > 0.5
    else:
        frame_BL = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if attention_mask is not None:
        frame_BL = frame_BL | ~attention_mask.bool()
    # Runs of bases are reversed, and others stay.
    length = frame_BL.shape[1]
    position_BL = torch.arange(length, device=frame_BL.device).expand_as(frame_BL)
    before_BL = position_BL.masked_fill(~frame_BL, -1).cummax(dim=1).values
    after_BL = position_BL.masked_fill(~frame_BL, length).flip(1).cummin(dim=1).values.flip(1)
    position_BL = torch.where(frame_BL, position_BL, before_BL + after_BL - position_BL)
    complement = torch.tensor(alphabet.COMPLEMENT_OF_ID[-columns:].tolist(), device=tokens.device)
    complement = complement - (alphabet.VOCABULARY_SIZE - columns)
    if tokens.dim() == 2:
        turned, real_BL = complement.to(tokens.dtype)[tokens.gather(1, position_BL).long()], attention_mask
    else:
        turned = tokens.gather(1, position_BL[..., None].expand_as(tokens))[..., complement]
        real_BL = None if attention_mask is None else attention_mask[..., None]
    return turned if real_BL is None else torch.where(real_BL.bool(), turned, tokens)
