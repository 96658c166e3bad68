"""Figures of genomes and embeddings, as SVG text that a page can hold; those of a training run are beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mutbert.reports.plots import COLOURS, logarithmic, new_figure, png, style, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":", "-.")


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
    with style():
        figure, axes = new_figure(5.0, 3.2)
        widths = np.diff(edges)
        axes.bar(edges[:-1], counts, width=widths * 0.94, align="edge", color=COLOURS[0])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("frequency of the alternate allele")
        axes.set_ylabel("alleles")
        axes.grid(visible=False, axis="x")
        return svg(figure, "Frequency spectrum")


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
    with style():
        return svg(_spectra(edges, counts), "Frequency spectra")


def spectra_image(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> bytes:
    """Draw what `spectra_figure` draws, as PNG on white, 200 dots an inch."""
    with style():
        return png(_spectra(edges, counts))


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
    with style():
        figure, axes = new_figure(5.0, 3.8)
        drawn = axes.scatter(points_N2[:, 0], points_N2[:, 1], c=values_N, s=14, cmap="viridis", linewidths=0)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second principal component")
        bar = figure.colorbar(drawn, ax=axes)
        bar.set_label(value_name)
        bar.outline.set_visible(False)
        return svg(figure, f"Embeddings by {value_name}")


def _spectra(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Figure:
    figure, axes = new_figure(6.4 if len(counts) == 1 else 7.4, 3.8)
    counts_GB = np.array(list(counts.values()))
    # Rarer than anything in any of the genomes is nothing to show.
    filled = np.flatnonzero(counts_GB.sum(axis=0))
    first = int(filled[0]) if len(filled) else len(edges) - 2
    # The lowest bin begins at 0, which a logarithmic axis has no place for; it is drawn as wide as its neighbours.
    shown = [edges[1] / 2 if edge == 0 else edge for edge in edges[first:]]
    if len(counts_GB) == 1:
        # On a logarithmic axis, bars of this relative width leave equal gaps.
        left, right = np.array(shown[:-1]) * 2**0.04, np.array(shown[1:]) * 2**-0.04
        axes.bar(left, counts_GB[0, first:], width=right - left, align="edge", color=COLOURS[0])
    else:
        # A bin without alleles has no place on a logarithmic axis: its line is broken.
        drawn_GB = np.where(counts_GB > 0, counts_GB, np.nan)
        for index, name in enumerate(counts):
            axes.stairs(
                drawn_GB[index, first:],
                shown,
                color=COLOURS[index % len(COLOURS)],
                linestyle=_LINES[index // len(COLOURS) % len(_LINES)],
                linewidth=1.8,
                baseline=None,
                label=name,
            )
        logarithmic(axes, counts_GB[counts_GB > 0].tolist())
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    axes.set_xscale("log")
    axes.set_xlim(shown[0], shown[-1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("frequency of the alternate allele")
    axes.set_ylabel("alternate alleles a doubling of frequency")
    axes.grid(visible=False, axis="x")
    return figure
