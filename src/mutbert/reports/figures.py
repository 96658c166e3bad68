"""Figures of genomes and embeddings as SVG or PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mutbert.reports.plots import COLOURS, DASHES, WIDTH, logarithmic, new_figure, png, style, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure


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
