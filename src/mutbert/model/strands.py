"""The other strand of the same DNA: reverse complement of token ids and of distributions over tokens.

Shape suffixes: B batch, L length in tokens, V vocabulary (9), C columns of probabilities (V, or the 4 bases).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from mutbert import alphabet

if TYPE_CHECKING:
    from torch import Tensor

# What stands around sequences and stays where it is. [MASK] and [UNK] stand for bases and turn with them.
_FRAME: Final = (alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID)


def reverse_complement(tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Give each sequence as it reads on the other strand.

    ``[CLS]``, ``[SEP]`` and padding stay where they are, and each part of a pair turns in its own place, so that the
    result is as if the reverse complement had been tokenised. Twice gives the input back.

    Parameters
    ----------
    tokens : Tensor
        Token ids, integer of shape (B, L); or distributions, float of shape (B, L, V) or (B, L, 4).
    attention_mask : Tensor, shape (B, L), optional
        0 at padding. Only needed where padding cannot be told by its tokens, as with 4 columns.

    Returns
    -------
    Tensor
        Of the same shape and type.

    Raises
    ------
    ValueError
        When the shape is neither of these.
    """
    if not tokens.is_floating_point() and tokens.dim() == 2:
        complement = torch.tensor(alphabet.COMPLEMENT_OF_ID.tolist(), dtype=tokens.dtype, device=tokens.device)
        position_BL = mirrored_positions(tokens, attention_mask)
        turned_BL = complement[tokens.long().gather(1, position_BL)]
        return turned_BL if attention_mask is None else torch.where(attention_mask.bool(), turned_BL, tokens)
    _check_columns(tokens)
    turned_BLC = turn(tokens, mirrored_positions(tokens, attention_mask))[..., complement_columns(tokens.shape[-1])]
    return turned_BLC if attention_mask is None else torch.where(attention_mask.bool()[..., None], turned_BLC, tokens)


def mirrored_positions(tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Say where each position of a batch lies on the other strand.

    Parameters
    ----------
    tokens, attention_mask : Tensor
        As for `reverse_complement`.

    Returns
    -------
    Tensor of int64, shape (B, L)
        Within each run of bases the order is reversed; other positions are themselves.
    """
    if tokens.dim() == 2:
        frame_BL = (tokens[..., None] == torch.tensor(_FRAME, device=tokens.device)).any(dim=-1)
    elif tokens.shape[-1] == alphabet.VOCABULARY_SIZE:
        frame_BL = tokens[..., list(_FRAME)].sum(dim=-1) > 0.5
    else:
        frame_BL = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if attention_mask is not None:
        frame_BL = frame_BL | ~attention_mask.bool()
    length = frame_BL.shape[1]
    place_BL = torch.arange(length, device=frame_BL.device).expand_as(frame_BL)
    before_BL = place_BL.masked_fill(~frame_BL, -1).cummax(dim=1).values
    behind_BL = place_BL.masked_fill(~frame_BL, length).flip(1).cummin(dim=1).values.flip(1)
    return torch.where(frame_BL, place_BL, before_BL + behind_BL - place_BL)


def turn(values_BLX: Tensor, position_BL: Tensor) -> Tensor:
    """Take what stands at the given position of each sequence; values (B, L, any...), positions (B, L)."""
    return values_BLX.gather(1, position_BL[(..., *[None] * (values_BLX.dim() - 2))].expand_as(values_BLX))


def complement_columns(columns: int) -> list[int]:
    """Give the column of each token's complement, among those of the vocabulary or of the bases alone."""
    ids = alphabet.COMPLEMENT_OF_ID[-columns:]
    return [int(number) - (alphabet.VOCABULARY_SIZE - columns) for number in ids]


def _check_columns(probs_BLC: Tensor) -> None:
    wide, bases = alphabet.VOCABULARY_SIZE, len(alphabet.BASES)
    if not probs_BLC.is_floating_point() or probs_BLC.dim() != 3 or probs_BLC.shape[-1] not in {wide, bases}:
        raise ValueError(
            f"tokens are {probs_BLC.dtype} of shape {tuple(probs_BLC.shape)}; give integer ids (batch, length), or "
            f"distributions (batch, length, {wide}) or (batch, length, {bases})"
        )
