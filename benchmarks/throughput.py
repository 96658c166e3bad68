"""How fast a model could be trained, and what its training takes: matrix operations and the machine's rate of them."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from mutbert.model import MutBertConfig

BACKWARD_AND_FORWARD: Final = 3
"""A training step takes so many times the operations of a forward pass: a backward pass takes twice as many."""


def matrix_operations(config: MutBertConfig, windows: int, length: int, targets: int) -> float:
    """Count the additions and multiplications of a forward pass's matrix products.

    Parameters
    ----------
    config : MutBertConfig
        The model.
    windows, length : int
        Sequences, and tokens of each.
    targets : int
        Positions that the head runs at, over all sequences.

    Returns
    -------
    float
        Dense layers and attention; nothing else is counted, nor is what the head does elsewhere.
    """
    tokens, size = windows * length, config.hidden_size
    layer = tokens * (4 * size * size + 2 * size * config.intermediate_size) + 2 * tokens * length * size
    ends = tokens * config.vocab_size * size + targets * (size * size + size * config.vocab_size)
    return float(2 * (config.num_hidden_layers * layer + ends))


@cache
def matrix_rate(device: torch.device, dtype: torch.dtype, rounds: int = 3) -> float:
    """Measure the operations a second of a plain matrix product, the best of some; the ceiling of any model.

    Measured once a process, with as many threads as there are then.
    """
    size = 8192 if device.type == "cuda" else 1536
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds):
        start = _now(device)
        left @ right
        best = min(best, _now(device) - start)
    return 2.0 * size**3 / best


def _now(device: torch.device) -> float:
    """Tell the time at which the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
