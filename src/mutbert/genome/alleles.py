"""Reasons as numbers with words, for `mutbert.effects` until it has its own."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class WordedReason(IntEnum):
    """A reason as a number that arrays hold, with the words for it."""

    text: str

    def __new__(cls, value: int, text: str) -> Self:
        """Make a member of a number and the words for it."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member
