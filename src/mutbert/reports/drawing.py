"""What all figures share: how they look, and how they become SVG text or PNG.

The same data give the same text: no dates, no random identifiers.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from mutbert.errors import MissingExtraError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which people with colour-blindness can tell apart."""
INK: Final = "#1c2430"
"""For what stands apart from all that has a colour: a diagonal, a floor."""
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    # Text stays text: it is searchable and small, and drawn in the reader's own font.
    "svg.fonttype": "none",
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
}


def style() -> AbstractContextManager[None]:
    """Give the context in which figures are made and written."""
    return mpl.rc_context(_STYLE)


def new_figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Make a figure of some inches, with its axes: one, or an array of `rows` under each other.

    Parameters
    ----------
    width, height : float
        Inches.
    rows : int
        Panels under each other, which share the horizontal axis.
    **options
        Given on to `matplotlib.figure.Figure.subplots`.

    Returns
    -------
    tuple of Figure and Axes
        The figure and its axes.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True, **options)


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend above all of a figure's axes, where it takes no width from them."""
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper left",
            # Two rows, filled column by column, as far as three columns have room.
            ncols=3 if len(handles) < 4 else min(3, (len(handles) + 1) // 2),
            frameon=False,
            fontsize=9,
            columnspacing=1.2,
            handlelength=1.6,
        )


def logarithmic(axes: Any, values: Sequence[float], decades: int = 3) -> None:
    """Make the vertical axis logarithmic, with enough ticks that values can be read.

    Parameters
    ----------
    axes : Axes
        Matplotlib's.
    values : sequence of float
        What is drawn along it, above 0; where there is nothing, the axis stays as it is.
    decades : int
        Over fewer powers of ten than these, their ticks alone would be too few, and there are some between them.
    """
    if not values:
        return
    axes.set_yscale("log")
    few = max(values) < 10**decades * min(values)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_minor_formatter("")


def svg_text(figure: Figure, title: str) -> str:
    """Write a figure as SVG that can stand inside HTML.

    Parameters
    ----------
    figure : Figure
        The figure.
    title : str
        What it is called for who cannot see it; figures of one page have different ones.

    Returns
    -------
    str
        SVG, without prologue and metadata.
    """
    buffer = io.StringIO()
    # Identifiers depend on the title, so that those of two figures in one page differ.
    with mpl.rc_context({"svg.hashsalt": f"mutbert {title}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    drawing = drawing[drawing.index("<svg") :]
    # Every group has an identifier, the same in every figure; only those that are referred to are of use.
    used = set(re.findall(r"#([\w-]+)", drawing))
    drawing = re.sub(r'(<[^<>]*?) id="([^"]*)"', lambda found: found[0] if found[2] in used else found[1], drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def png_bytes(figure: Figure) -> bytes:
    """Write a figure as PNG on white, 200 dots an inch."""
    buffer = io.BytesIO()
    # Without the library's version in it, the same data give the same bytes for longer.
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
