"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS_BETWEEN_LINES: Final = 5.0
_COUNTED: Final = (
    "{desc}: {n_fmt} of {total_fmt}{unit} ({percentage:.0f} %) in {elapsed}, {remaining} left, "
    "{rate_noinv_fmt}{postfix}"
)
_UNCOUNTED: Final = "{desc}: {n_fmt}{unit} in {elapsed}, {rate_noinv_fmt}{postfix}"


class _Lines:
    """Standard error, where each state of a bar is a line of its own, once."""

    amount = ""

    def write(self, text: str) -> None:
        amount, _, _ = text.strip().partition(" in ")
        if amount and amount != self.amount:
            self.amount = amount
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Advance(Protocol):
    """Adds the amount of work done since the last call to a progress bar; `note` is shown after it."""

    def __call__(self, amount: float, /, note: str = "") -> None: ...  # noqa: D102


@contextmanager
def progress_bar(description: str, total: float | None, *, unit: str = "", show: bool = True) -> Iterator[Advance]:
    """Yield a function to call with the amount of work done since its last call; `unit` may be ``"bytes"``."""
    if not show:
        yield lambda _, /, note="": None  # noqa: ARG005
        return
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # a thread of its own would be forked into data loaders

    terminal = sys.stderr.isatty()
    form = None if terminal else _UNCOUNTED if total is None else _COUNTED
    with Bar(
        desc=description,
        total=total,
        unit="B" if unit == "bytes" else f" {unit}",
        unit_scale=unit == "bytes" or (total or 0) >= 1e6,
        mininterval=0.1 if terminal else _SECONDS_BETWEEN_LINES,
        miniters=0,
        dynamic_ncols=terminal,
        bar_format=form,
        delay=0 if terminal else 1e-9,
        file=sys.stderr if terminal else _Lines(),
    ) as bar:

        def advance(amount: float, /, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(amount)

        yield advance
