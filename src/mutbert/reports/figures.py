"""Figures, as SVG text that a page can hold.

The same data give the same text: no dates, no random identifiers.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mutbert.errors import MissingExtraError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "mutbert",
    # Text stays text: it is searchable and small, and drawn in the reader's own font.
    "svg.fonttype": "none",
}


def spectrum_figure(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Draw how many alternate alleles have a frequency in each bin.

    Parameters
    ----------
    edges : sequence of float
        The bins' edges, one more than there are bins.
    counts : sequence of int
        Alleles in each bin.

    Returns
    -------
    str
        SVG.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(6.4, 3.4)
        widths = np.diff(edges)
        axes.bar(edges[:-1], counts, width=widths * 0.94, align="edge", color=_COLOURS[0])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("frequency of the alternate allele")
        axes.set_ylabel("alleles")
        axes.grid(visible=False, axis="x")
        return _svg(figure, "Frequency spectrum")


def spectra_figure(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> str:
    """Draw the spectra of several genomes over bins that double in width, or of one.

    The axis of frequencies is logarithmic, or rare variants would hide all others: a population of constant size
    without selection is about level. For several genomes the axis of alleles is logarithmic too, so that equal ratios
    between them look equal, rare or common.

    Parameters
    ----------
    edges : sequence of float
        The bins' edges, one more than there are bins; all but the first above 0.
    counts : mapping of str to sequence of int
        Alternate alleles in each bin, by the genome's name.

    Returns
    -------
    str
        SVG: bars for one genome, a line and an entry in the legend each for several.
    """
    with mpl.rc_context(_STYLE):
        return _svg(_spectra(edges, counts), "Frequency spectra")


def spectra_image(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> bytes:
    """Draw what `spectra_figure` draws, as PNG on white, 200 dots an inch."""
    with mpl.rc_context(_STYLE):
        return _png(_spectra(edges, counts))


def training_figure(history: Sequence[Mapping[str, float]], references: Mapping[str, float]) -> str:
    """Draw training loss and held-out cross-entropy over the steps, beside trivial predictors.

    Parameters
    ----------
    history : sequence of mapping
        Entries with ``step`` and ``loss`` or ``eval_cross_entropy``, in nats a target.
    references : mapping
        Held-out cross-entropies of other predictors by name, drawn as level lines.

    Returns
    -------
    str
        SVG.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(6.4, 3.8)
        held_out = [(entry["step"], entry["eval_cross_entropy"]) for entry in history if "eval_cross_entropy" in entry]
        training = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
        if training:
            axes.plot(*zip(*training, strict=True), color=_COLOURS[0], alpha=0.45, linewidth=1, label="training loss")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), color=_COLOURS[0], marker="o", markersize=3, label="held out")
        for colour, (name, value) in zip(_COLOURS[1:], references.items(), strict=False):
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.2, label=name)
        # The first steps of an untrained model lie far above all that matters here.
        levels = [value for _, value in held_out] + list(references.values())
        if levels:
            low = min(levels + [value for _, value in training])
            high = max(references.values(), default=max(levels))
            axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3)
        axes.set_xlabel("optimisation step")
        axes.set_ylabel("cross-entropy, nats a target")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        return _svg(figure, "Training curve")


def scatter_figure(
    points_N2: npt.NDArray[np.floating[Any]], values_N: npt.NDArray[np.floating[Any]], value_name: str
) -> str:
    """Draw points in two dimensions, coloured by a value.

    Parameters
    ----------
    points_N2 : ndarray of float, shape (N, 2)
        Coordinates.
    values_N : ndarray of float, shape (N,)
        What the colour shows.
    value_name : str
        Its name, for the colour bar.

    Returns
    -------
    str
        SVG.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 4.0)
        drawn = axes.scatter(points_N2[:, 0], points_N2[:, 1], c=values_N, s=14, cmap="viridis", linewidths=0)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second principal component")
        bar = figure.colorbar(drawn, ax=axes)
        bar.set_label(value_name)
        bar.outline.set_visible(False)
        return _svg(figure, f"Embeddings by {value_name}")


def _spectra(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Figure:
    figure, axes = _figure(6.4 if len(counts) == 1 else 7.4, 3.8)
    counts_GB = np.array(list(counts.values()))
    # Rarer than anything in any of the genomes is nothing to show.
    filled = np.flatnonzero(counts_GB.sum(axis=0))
    first = int(filled[0]) if len(filled) else len(edges) - 2
    # The lowest bin begins at 0, which a logarithmic axis has no place for; it is drawn as wide as its neighbours.
    shown = [edges[1] / 2 if edge == 0 else edge for edge in edges[first:]]
    if len(counts_GB) == 1:
        # On a logarithmic axis, bars of this relative width leave equal gaps.
        left, right = np.array(shown[:-1]) * 2**0.04, np.array(shown[1:]) * 2**-0.04
        axes.bar(left, counts_GB[0, first:], width=right - left, align="edge", color=_COLOURS[0])
    else:
        # A bin without alleles has no place on a logarithmic axis: its line is broken.
        drawn_GB = np.where(counts_GB > 0, counts_GB, np.nan)
        for index, name in enumerate(counts):
            axes.stairs(
                drawn_GB[index, first:],
                shown,
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_LINES[index // len(_COLOURS) % len(_LINES)],
                linewidth=1.8,
                baseline=None,
                label=name,
            )
        positive = counts_GB[counts_GB > 0]
        if len(positive):
            axes.set_yscale("log")
            # Over few powers of ten, their ticks alone would be too few to read a value from.
            few = positive.max() < 1000 * positive.min()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axes.yaxis.set_minor_formatter("")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    axes.set_xscale("log")
    axes.set_xlim(shown[0], shown[-1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("frequency of the alternate allele")
    axes.set_ylabel("alternate alleles a doubling of frequency")
    axes.grid(visible=False, axis="x")
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the library's version in it, the same data give the same bytes for longer.
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    # Without its XML prologue and its metadata it can stand inside HTML.
    drawing = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    return drawing[drawing.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
