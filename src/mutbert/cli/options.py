"""Values of options that are more than a word or a number."""

from __future__ import annotations

import re
from typing import Any

from mutbert.errors import InputError


def parse_rope_scaling(text: str) -> dict[str, Any]:
    """Take ``dynamic:2`` apart."""
    kind, _, factor = text.partition(":")
    try:
        return {"type": kind, "factor": float(factor)}
    except ValueError:
        raise InputError(f"--rope-scaling {text}: give TYPE:FACTOR, for example dynamic:2") from None


def parse_shard(text: str) -> tuple[int, int]:
    """Take ``1/4`` apart."""
    part = re.fullmatch(r"(\d+)/(\d+)", text)
    if part is None:
        raise InputError(f"--shard {text}: give I/N, for example 1/4")
    return int(part[1]), int(part[2])
