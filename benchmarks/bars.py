"""Bar charts of measurements, the published way in grey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PUBLISHED: Final = "published way"
_GREY: Final = "#BBBBBB"
_BLUE: Final = "#0072B2"


class Bar(NamedTuple):
    """A contender with its value."""

    name: str
    value: float
    text: str


def draw_bars(stem: Path, title: str, axis: str, bars: Sequence[Bar]) -> None:
    """Draw bars to ``STEM.svg`` and ``STEM.png``; the machine is the title."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "mutbert"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(8, 1 + 0.4 * len(bars)), layout="constrained")
        figure.suptitle(title, fontsize=7)
        axes = figure.subplots()
        drawn = axes.barh(
            [bar.name for bar in bars],
            [bar.value for bar in bars],
            color=[_GREY if PUBLISHED in bar.name else _BLUE for bar in bars],
            height=0.7,
        )
        axes.bar_label(drawn, [bar.text for bar in bars], padding=3)
        axes.set_xlabel(axis)
        # Room for the text behind the longest bar.
        axes.set_xlim(0, 1.3 * max(bar.value for bar in bars))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.invert_yaxis()
        for suffix in ("svg", "png"):
            with atomic_file(stem.with_suffix(f".{suffix}"), force=True) as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
