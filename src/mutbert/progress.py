"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where there is no terminal, one plain line each so many seconds is enough for a log file.
_SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Tell a progress bar how far the work has come."""

    def __call__(self, amount: float, /, note: str = "") -> None:
        """Add the amount of work done since the last call; `note` is shown behind it."""


@contextmanager
def progress_bar(description: str, total: float | None, *, unit: str = "", show: bool = True) -> Iterator[Advance]:
    """Show how far a piece of work has come.

    Parameters
    ----------
    description : str
        What is being done, in a few words.
    total : float or None
        Amount of work; ``None`` where it is not known.
    unit : str
        ``"bytes"`` is printed as B, kB, MB...; any other word is printed behind the count.
    show : bool
        ``False`` prints nothing, which is what library calls do unless asked.

    Yields
    ------
    Advance
        ``advance(amount)``, to be called with the amount of work done since the last call.
    """
    if not show:
        yield _nothing
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        with _lines(description, total, unit) as advance:
            yield advance


def with_rate(advance: Advance, unit: str) -> Advance:
    """Say beside the progress how much there was a second so far, where nothing else is said.

    Parameters
    ----------
    advance : Advance
        What shows the progress.
    unit : str
        What is counted, for example ``"bases"``.

    Returns
    -------
    Advance
        To be told of the work in place of `advance`; the time runs from now.
    """
    start = time.monotonic()
    done = 0.0

    def advance_with_rate(amount: float, /, note: str = "") -> None:
        nonlocal done
        done += amount
        rate = done / max(time.monotonic() - start, 1e-9)
        # Of what is slow, the first decimal counts.
        advance(amount, note or f"{rate:,.{0 if rate >= 100 else 1}f} {unit}/s")

    return advance_with_rate


def _nothing(_amount: float, /, note: str = "") -> None:
    pass


@contextmanager
def _bar(description: str, total: float | None, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), amount]
    if unit not in {"", "bytes"}:
        columns.append(TextColumn(unit))
    columns += [TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(amount: float, /, note: str = "") -> None:
            bar.advance(task, amount)
            if note:
                bar.update(task, note=note)

        yield advance


@contextmanager
def _lines(description: str, total: float | None, unit: str) -> Iterator[Advance]:
    start = time.monotonic()
    done = 0.0
    last_line = start
    last_note = ""

    def line(now: float) -> None:
        seconds = now - start
        words = [f"{description}: {amount_text(done, unit)}"]
        if total:
            share = 100 * min(done / total, 1)
            words = [
                f"{description}: {amount_text(done, unit, bare=True)} of {amount_text(total, unit)} ({share:.0f} %)"
            ]
        words.append(f"after {duration_text(seconds)}")
        if total and 0 < done < total:
            words.append(f"about {duration_text(seconds * (total - done) / done)} left")
        if last_note:
            words.append(last_note)
        print(", ".join(words), file=sys.stderr, flush=True)  # noqa: T201

    def advance(amount: float, /, note: str = "") -> None:
        nonlocal done, last_line, last_note
        done += amount
        last_note = note or last_note
        now = time.monotonic()
        if now - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = now
            line(now)

    yield advance
    line(time.monotonic())


def amount_text(amount: float, unit: str, *, bare: bool = False) -> str:
    """Write an amount for people, for example ``1.5 MB`` or ``1,200 windows``; `bare` leaves out such a word."""
    if unit != "bytes":
        return f"{amount:,.0f}" if bare else f"{amount:,.0f} {unit}".strip()
    for prefix in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {prefix}" if prefix == "B" else f"{amount:.1f} {prefix}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration_text(seconds: float) -> str:
    """Write a time for people, for example ``90 s``, ``5 min`` or ``26 h 40 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"
