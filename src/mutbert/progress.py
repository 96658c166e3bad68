"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

Advance: TypeAlias = Callable[..., None]
"""Adds an amount of work to a progress bar, in whole units or not; `note` is shown after it, at once for no work."""
_RATE: Final = "{rate_noinv_fmt}{postfix}"
_COUNTED: Final = "{desc}: {n_fmt} of {total_fmt}{unit} ({percentage:.0f} %) in {elapsed}, {remaining} left, " + _RATE
_UNCOUNTED: Final = "{desc}: {n_fmt}{unit} in {elapsed}, " + _RATE


class _Lines:
    """Standard error, where each state of a bar is a line of its own, once."""

    amount = ""

    def write(self, text: str) -> None:
        line = " ".join(text.split())  # without the padding of rates
        if (amount := line.partition(" in ")[0]) not in {"", self.amount}:
            self.amount = amount
            sys.stderr.write(line + "\n")


@contextmanager
def progress_bar(
    description: str, total: float | None, *, unit: str = "", work: str = "", show: bool = True
) -> Iterator[Advance]:
    """Yield a function to call with the amount done since its last call; all the `work`, in words, is shown before."""
    from tqdm import tqdm

    if work and show:
        sys.stderr.write(f"{description}: {work}\n")

    # Without the class's monitor, a thread that would be forked into data loaders.
    bar_class = type("Bar", (tqdm,), {"monitor_interval": 0})
    terminal = sys.stderr.isatty()
    line = _UNCOUNTED if total is None else _COUNTED
    with bar_class(
        desc=description, total=total, disable=not show, unit="B" if unit == "bytes" else f" {unit}",
        unit_scale=unit == "bytes" or (total or 0) >= 1e6, bar_format=None if terminal else line,
        mininterval=0.1 if terminal else 5.0, miniters=0, delay=0 if terminal else 1e-9, dynamic_ncols=terminal,
        file=sys.stderr if terminal else _Lines(), leave=None if terminal else True,  # of bars in bars, the outer one
    ) as bar:  # fmt: skip
        done = 0.0

        def advance(amount: float, note: str = "") -> None:
            nonlocal done
            done += amount
            bar.set_postfix_str(note, refresh=terminal and not amount)
            bar.update(round(done) - bar.n)

        yield advance


def scaled(advance: Advance, factor: float) -> Advance:
    """Return a callback that advances by `factor` for each unit."""
    return lambda amount, /, note="": advance(amount * factor, note)
