"""Figures of a mutagenesis table: base by base, a logo above a heat map; or an overview, where there are too many.

Shape suffixes: P positions, V vertices, 4 bases in the order A, C, G, T.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib import colormaps, lines, patches, ticker
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from pyarrow import parquet

from mutbert.arrays import Float64
from mutbert.errors import InputError
from mutbert.reports.plots import COLOURS, INK, check_figures, new_figure, style, write_figures
from mutbert.settings import listed

MOST_DRAWN: Final = 800
"""Positions that are drawn base by base; of more, there is an overview."""
_COLOURS: Final = {"A": COLOURS[2], "C": COLOURS[0], "G": COLOURS[4], "T": COLOURS[1]}
_UNKNOWN: Final = "#d4d7dc"


def draw_mutagenesis(table: str | Path, outputs: Sequence[str | Path], *, force: bool = False) -> None:
    """Draw a table of `mutbert.mutate_region`.

    Up to 800 positions are drawn base by base: a logo, of which a stack is as high as the information of the masked
    distribution, 2 bits less its entropy, and a base has its probability's part of it; below it, a heat map of the
    log-likelihood ratios, with a dot at the reference. Of more positions, the mean absolute ratio of the three
    substitutions and the mean entropy are drawn, over so many bases a point that there are at most 400.

    Parameters
    ----------
    table, outputs
        The Parquet file; the figures: ``.png``, 200 dots an inch, or ``.svg``, in which text is text.
    force : bool
        Replace figures that exist.

    Raises
    ------
    InputError
        A table of something else, and a figure that exists.

    Examples
    --------
    >>> report = mutbert.mutate_region("model", "drawn.parquet", genome="population.genome", region="chr1:101-120")
    >>> mutbert.draw_mutagenesis("drawn.parquet", ["drawn.svg"])
    """
    paths = check_figures(listed(outputs), force=force)
    with style():
        figure, title = mutagenesis_figure(Path(table))
        write_figures(figure, f"Mutagenesis of {title}", paths, force=force)


def mutagenesis_figure(table: Path) -> tuple[Figure, str]:
    """Return the figure of a table, and the region that it shows."""
    try:
        read = parquet.read_table(table)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{table}: cannot be read as Parquet ({error}); check the path") from None
    how = {name.decode(): value.decode() for name, value in (read.schema.metadata or {}).items()}
    if not {"mutbert_mutagenesis", "surroundings", "model", "context", "strands"} <= how.keys() or not len(read):
        raise InputError(f"{table}: is no table of 'mutbert mutagenesis'; make one with it")
    made = f"surroundings {how.get('sample', how['surroundings'])}, model {'/'.join(Path(how['model']).parts[-2:])}"
    made += f", context {int(how['context']):,}, {'both strands' if how['strands'] == 'both' else 'forward strand'}"
    rows: Any = pl.from_arrow(read)
    if how["mutbert_mutagenesis"] == "1":
        rows = rows.rename({"contig": "chrom", "start": "pos", "reference": "ref"}).with_columns(pl.col("pos") + 1)
    if "llr_A" not in rows.columns:
        raise InputError(f"{table}: is of a classifier, of which there is no figure; use a masked language model")
    contig, first = rows["chrom"][0], rows["pos"][0]
    title = f"{contig}:{first:,}" + (f"–{first + len(rows) - 1:,}" if len(rows) > 1 else "")
    figure, axes = (_overview if len(rows) > MOST_DRAWN else _base_by_base)(rows, made)
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=10)
    axes.set_xlabel(f"position on {contig}", fontsize=9, loc="left")
    return figure, title


def _columns(kind: str) -> list[pl.Expr]:
    """Return a number for each base, null where there is none."""
    return [pl.col(f"{kind}_{base}").cast(pl.Float64).fill_nan(None) for base in _COLOURS]


def _entropy() -> pl.Expr:
    """Return the entropy of the masked distribution, −Σ p ln p, in nats."""
    terms = (pl.when(one == 0).then(0.0).otherwise(-one * one.log()) for one in _columns("probability"))
    return pl.sum_horizontal(terms, ignore_nulls=False)


def _base_by_base(rows: pl.DataFrame, made: str) -> tuple[Figure, Axes]:
    """Return the figure, and its lowest axes."""
    llr_P4, probability_P4 = (rows.select(_columns(kind)).to_numpy() for kind in ("llr", "probability"))
    bits_P = rows.select((2 - _entropy() / math.log(2)).clip(0)).to_numpy()[:, 0]
    # Rows of one length look better than one that is left over.
    count = -(-len(rows) // 80)
    a_row = -(-len(rows) // count)
    columns = max(a_row, 11)
    width = max(1 + 0.108 * columns, min(6.6, 1 + 0.3 * columns))
    words = textwrap.wrap(made, int((width - 0.8) / 0.066))
    height = 1.6 + 0.14 * len(words) + 1.62 * count
    figure = Figure((width, height), layout="constrained")
    axes_R2 = figure.subplots(2 * count, squeeze=False, height_ratios=[0.62, 0.56] * count).reshape(count, 2)
    # Symmetric about 0, and not made pale by few outliers.
    size = np.abs(llr_P4[np.isfinite(llr_P4) & (llr_P4 != 0)])
    limit = float(f"{np.quantile(size, 0.99):.1g}") if len(size) else 1.0
    for number, (logo, heat_map) in enumerate(axes_R2):
        part = slice(number * a_row, (number + 1) * a_row)
        first = int(rows["pos"][part.start])
        _draw_logo(logo, first, np.nan_to_num(probability_P4[part] * bits_P[part, None]))
        mesh = _draw_map(heat_map, first, llr_P4[part], rows["ref"][part].to_numpy(), Normalize(-limit, limit))
        shown = len(llr_P4[part])
        locator = ticker.MaxNLocator(int(shown / columns * (width - 1) / 0.85) or 1, steps=[1, 2, 5, 10], integer=True)
        ticks = {int(tick) for tick in locator.tick_values(first, first + shown - 1) if 0 <= tick - first < shown}
        places = sorted(ticks or {first})
        heat_map.set_xticks(places, labels=[f"{place:,}" for place in places], fontsize=8)
        for axes in (logo, heat_map):
            axes.set_xlim(first - 0.5, first + columns - 0.5)
            axes.grid(visible=False)
    axes_R2[0, 0].set_title("\n".join(words), loc="left", fontsize=8)
    bar = figure.colorbar(
        mesh, ax=[*axes_R2.flat], location="top", anchor=(0, 1), shrink=2 / width, aspect=14, pad=0.1 / height,
        extend="both" if (size > limit).any() else "neither", ticks=[-limit, 0, limit],
    )  # fmt: skip
    bar.set_label("ln P(base) − ln P(reference), nats", loc="left", fontsize=8)
    bar.ax.tick_params(length=2, pad=1, labelsize=7)
    marks: list[Any] = [lines.Line2D([], [], linestyle="", marker=".", color=INK, markersize=4, label="reference")]
    if np.isnan(llr_P4).any():
        marks.append(patches.Patch(facecolor=_UNKNOWN, label="no value"))
    figure.legend(handles=marks, loc="outside lower left", ncols=2, frameon=False, fontsize=8, handlelength=0.9)
    return figure, heat_map


def _draw_logo(axes: Axes, first: int, height_P4: Float64) -> None:
    # The likeliest base is on top.
    order_P4 = np.argsort(height_P4, axis=1, kind="stable")
    stacked_P4 = np.take_along_axis(height_P4, order_P4, axis=1)
    bottom_P4 = np.empty_like(stacked_P4)
    np.put_along_axis(bottom_P4, order_P4, np.cumsum(stacked_P4, axis=1) - stacked_P4, axis=1)
    for base, (letter, colour) in enumerate(_COLOURS.items()):
        outline = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
        low, high = outline.get_extents().get_points()
        # In a square from 0 to 1; closing vertices are not part of the extents.
        vertices_V2 = np.clip((np.asarray(outline.vertices) - low) / (high - low), 0, 1)
        # What is thinner than a hair would only be a smear.
        shown = np.flatnonzero(height_P4[:, base] > 0.01)
        scale = np.stack([np.full(len(shown), 0.94), height_P4[shown, base]], axis=1)[:, None]
        corner = np.stack([first + shown - 0.47, bottom_P4[shown, base]], axis=1)[:, None]
        letters = Outline((vertices_V2 * scale + corner).reshape(-1, 2), np.tile(np.asarray(outline.codes), len(shown)))
        axes.add_patch(patches.PathPatch(letters, facecolor=colour, linewidth=0))
    # The same in every figure, so that they can be compared.
    axes.set_ylim(0, 2)
    axes.set_yticks([0, 1, 2], labels=["0", "1", "2"], fontsize=7)
    axes.set_ylabel("bits", fontsize=8)
    axes.spines["bottom"].set_bounds(first - 0.5, first + len(height_P4) - 0.5)
    axes.xaxis.set_visible(False)


def _draw_map(axes: Axes, first: int, llr_P4: Float64, reference_P: Any, norm: Normalize) -> Any:
    edges, colours = first + np.arange(len(llr_P4) + 1) - 0.5, colormaps["RdBu"].with_extremes(bad=_UNKNOWN)
    ratios = np.ma.masked_invalid(llr_P4.T)
    mesh = axes.pcolormesh(edges, np.arange(5) - 0.5, ratios, norm=norm, cmap=colours, edgecolors="white", lw=0.3)
    for base, letter in enumerate(_COLOURS):
        at = np.flatnonzero(reference_P == letter)
        axes.plot(first + at, np.full(len(at), base), ".", color=INK, markersize=2.6, markeredgewidth=0)
    # A at the top, as it is in the list.
    axes.set_ylim(3.5, -0.5)
    axes.set_yticks(range(4), labels=list(_COLOURS), fontsize=8, weight="bold")
    for label, colour in zip(axes.get_yticklabels(), _COLOURS.values(), strict=True):
        label.set_color(colour)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    return mesh


def _overview(rows: pl.DataFrame, made: str) -> tuple[Figure, Axes]:
    a_point = -(-len(rows) // 400)
    # The reference's ratio is 0.
    size = pl.sum_horizontal([one.abs() for one in _columns("llr")], ignore_nulls=False) / 3
    by_point = rows.with_row_index("point").group_by(pl.col("point") // a_point)
    means = {"at": pl.col("pos").mean(), "mean |LLR|, nats": size.mean(), "entropy, nats": _entropy().mean()}
    points = by_point.agg(**means).sort("point").fill_null(math.nan)
    at = points["at"].to_numpy()
    figure, panels = new_figure(4.2, 2, width=7.4)
    for axes, (name, mean), colour in zip(panels, points[:, 2:].to_dict().items(), COLOURS[:2], strict=True):
        axes.plot(at, mean.to_numpy(), color=colour, linewidth=1)
        axes.set_ylabel(name, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.15 * math.log(4))
    axes.set_yticks([0, 0.5, 1])
    axes.axhline(math.log(4), color=INK, linestyle=":", linewidth=1)
    axes.text(at[-1], 1.01 * math.log(4), "all bases alike", ha="right", va="bottom", fontsize=8)
    axes.set_xlim(at[0] - a_point / 2, at[-1] + a_point / 2)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    each = "a base a point" if a_point == 1 else f"means over {a_point:,} bases a point"
    many = f"{len(rows):,} bases, more than the {MOST_DRAWN} that are drawn base by base; {each}"
    panels[0].set_title("\n".join([*textwrap.wrap(made, 100), many]), loc="left", fontsize=8)
    return figure, axes
