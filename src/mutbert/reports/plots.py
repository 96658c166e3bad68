"""What all figures share, how they look and become SVG or PNG, and those of several reports, genomes and embeddings.

The same data give the same text: no dates, no random identifiers.
"""

from __future__ import annotations

import io
import math
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from mutbert.errors import MissingExtraError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError as error:
    raise MissingExtraError("matplotlib", "all") from error

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy.typing as npt

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""
DASHES: Final = ("-", "--", ":", "-.")
INK: Final = "#1c2430"
WIDTH: Final = 5.0
"""Inches; narrow, so that text can be read on a phone."""
_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    # Text stays text: searchable, small, and drawn in the reader's own font.
    "grid.alpha": 0.25, "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip
_MOST_POINTS: Final = 400


def style() -> AbstractContextManager[None]:
    """Return the context in which figures are made and written."""
    return mpl.rc_context(_STYLE)


def new_figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of some inches and its axes: one, or an array of `rows` that share the horizontal axis."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True, **options)


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend above all of a figure's axes, where it takes no width from them."""
    if handles:
        # Two rows, filled column by column, as far as three columns have room.
        columns = 3 if len(handles) < 4 else min(3, (len(handles) + 1) // 2)
        # A character takes about 5.2 points, and a handle 34.
        longest = max(len(str(handle.get_label())) for handle in handles)
        columns = max(1, min(columns, int(72 * figure.get_figwidth() // (5.2 * longest + 34))))
        figure.legend(
            handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, columnspacing=1.2,
            handlelength=1.6,
        )  # fmt: skip


def logarithmic(axes: Any, values: Sequence[float], decades: int = 3) -> None:
    """Make the vertical axis logarithmic; over few `decades`, with ticks between the powers of ten."""
    if values:
        axes.set_yscale("log")
        few = max(values) < 10**decades * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_formatter("")


def svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG for HTML; titles on one page differ, as identifiers depend on them."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"mutbert {title}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    drawing = drawing[drawing.index("<svg") :]
    # Every group has an identifier, the same in every figure; only those that are referred to are of use.
    used = set(re.findall(r"#([\w-]+)", drawing))
    drawing = re.sub(r'(<[^<>]*?) id="([^"]*)"', lambda found: found[0] if found[2] in used else found[1], drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG on white, 200 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def shortened(name: str, most: int = 28) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def forest(
    title: str, panels: Mapping[str, Sequence[tuple[str, float, float, float]]], xlabel: str, *,
    reference: float | None = None, highlighted: Collection[str] = (),
) -> str:  # fmt: skip
    """Return values with their intervals as SVG: a panel for each key, a row for each (name, value, low, high).

    `reference` is a vertical line, such as chance or no difference; rows of `highlighted` names have the first colour.
    """
    with style():
        heights = [max(len(rows), 1) for rows in panels.values()]
        height = 0.7 + sum(0.26 * rows + 0.45 for rows in heights)
        figure, axes_P = new_figure(WIDTH, height, len(panels), squeeze=False, height_ratios=heights)
        for axes, (name, rows) in zip(axes_P[:, 0], panels.items(), strict=True):
            for place, (label, value, low, high) in enumerate(rows):
                colour = COLOURS[0] if not highlighted or label in highlighted else COLOURS[1]
                if math.isfinite(value):
                    ends = [[max(value - low, 0)], [max(high - value, 0)]] if math.isfinite(low + high) else None
                    axes.errorbar(value, place, xerr=ends, fmt="o", color=colour, markersize=4, linewidth=1.4)
            axes.set_yticks(range(len(rows)), [shortened(label) for label, *_ in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            if reference is not None:
                axes.axvline(reference, color=INK, linestyle="--", linewidth=1)
            if name:
                axes.set_title(name, loc="left", fontsize=10)
        axes_P[-1, 0].set_xlabel(xlabel)
        return svg(figure, title)


def binary_curves(
    title: str, kind: Literal["roc", "precision_recall"], label_N: npt.NDArray[Any],
    scores: Mapping[str, npt.NDArray[Any]],
) -> str:  # fmt: skip
    """Return ROC or precision-recall curves of scores by name as SVG; labels are 0 and 1."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    with style():
        figure, axes = new_figure(WIDTH, 4.4)
        for index, (name, score_N) in enumerate(scores.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}
            if kind == "roc":
                x_G, y_G, _ = roc_curve(label_N, score_N)
            else:
                y_G, x_G, _ = precision_recall_curve(label_N, score_N, drop_intermediate=True)
                look["drawstyle"] = "steps-pre"
            # So few points that a page stays small; the ends are kept.
            kept = np.unique(np.linspace(0, len(x_G) - 1, min(len(x_G), _MOST_POINTS)).astype(int))
            axes.plot(x_G[kept], y_G[kept], linewidth=1.6, label=shortened(name), **look)
        chance = [0, 1] if kind == "roc" else [float(np.mean(label_N))] * 2
        axes.plot([0, 1], chance, color=INK, linestyle="--", linewidth=1)
        names = ("false positive rate", "true positive rate") if kind == "roc" else ("recall", "precision")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=names[0], ylabel=names[1])
        if len(scores) > 1:
            legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, title)


def spectrum_figure(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Return the number of alternate alleles by bin of frequency."""
    with style():
        figure, axes = new_figure(WIDTH, 3.2)
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.94, align="edge", color=COLOURS[0])
        axes.set(xlim=(edges[0], edges[-1]), xlabel="frequency of the alternate allele", ylabel="alleles")
        axes.grid(visible=False, axis="x")
        return svg(figure, "Frequency spectrum")


def spectra_figure(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> str:
    """Return spectra by genome over bins that double in width: bars for one genome, a line each for several."""
    with style():
        return svg(_spectra(edges, counts), "Frequency spectra")


def spectra_image(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> bytes:
    """Return the picture of `spectra_figure` as PNG."""
    with style():
        return png(_spectra(edges, counts))


def scatter_figure(points_N2: Any, values_N: Any, value_name: str) -> str:
    """Return points in two dimensions, coloured by a value."""
    with style():
        figure, axes = new_figure(WIDTH, 3.8)
        drawn = axes.scatter(*points_N2.T, c=values_N, s=14, cmap="viridis", linewidths=0)
        axes.set(xlabel="first principal component", ylabel="second principal component")
        figure.colorbar(drawn, ax=axes, label=value_name).outline.set_visible(False)
        return svg(figure, f"Embeddings by {value_name}")


def _spectra(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Figure:
    figure, axes = new_figure(6.4 if len(counts) == 1 else 7.4, 3.8)
    count_GB = np.array(list(counts.values()))
    # Rarer than anything in any of the genomes is nothing to show.
    filled = np.flatnonzero(count_GB.sum(axis=0))
    first = int(filled[0]) if len(filled) else len(edges) - 2
    count_GB = count_GB[:, first:]
    # The lowest bin begins at 0, which a logarithmic axis does not have; it is drawn as wide as its neighbours.
    shown = np.array([edges[1] / 2 if edge == 0 else edge for edge in edges[first:]])
    if len(counts) == 1:
        # On a logarithmic axis, bars of this relative width leave equal gaps.
        left, right = shown[:-1] * 2**0.04, shown[1:] * 2**-0.04
        axes.bar(left, count_GB[0], width=right - left, align="edge", color=COLOURS[0])
    else:
        # The line of a genome is broken at a bin without alleles.
        for index, (name, count_B) in enumerate(zip(counts, np.where(count_GB > 0, count_GB, np.nan), strict=True)):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}
            axes.stairs(count_B, shown, linewidth=1.8, baseline=None, label=name, **look)
        logarithmic(axes, count_GB[count_GB > 0].tolist())
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    axes.set(xscale="log", xlim=(shown[0], shown[-1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="frequency of the alternate allele", ylabel="alternate alleles per doubling of frequency")
    axes.grid(visible=False, axis="x")
    return figure
