"""Figures of scores against labels, as SVG text that a page can hold.

All are narrow, with the legend above, so that their text can be read on a telephone. Curves are thinned and points
counted in squares, so that a figure stays small. Shape suffixes: C variants, G thresholds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from mutbert.reports.finetuning_figures import sweep
from mutbert.reports.plots import COLOURS, INK, new_figure, style, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Float64
    from mutbert.reports.vep_results import Measure


_WIDTH: Final = 5.0
_GREY: Final = "#7a8694"
_POINTS: Final = 400
_BINS: Final = (8, 50)
_SQUARES: Final = 48
# The share of values beyond either end of a histogram, which would leave no room for the others.
_TAIL: Final = 0.002
_DASHES: Final = ((0, (4, 1.5)), (0, (1, 1)))
_SHAPES: Final = ("o", "s", "^", "D", "v", "P")


class Bar(NamedTuple):
    """A bar of `bar_figure`.

    Parameters
    ----------
    label : str
        What it is of.
    value, low, high : float
        Its length, and the ends of the interval; what is not finite is not drawn.
    baseline : bool
        Whether it is dark.
    """

    label: str
    value: float
    low: float
    high: float
    baseline: bool


class Curve(NamedTuple):
    """A curve of scores.

    Parameters
    ----------
    label : str
        What it is of.
    score_C : ndarray of float64, shape (C,)
        Higher where 1 is likelier.
    baseline : bool
        Whether it is broken.
    """

    label: str
    score_C: Float64
    baseline: bool


class Ladder(NamedTuple):
    """A row of `ladder_figure`.

    Parameters
    ----------
    label : str
        Which variants.
    models : mapping of str to Measure
        A point for each model.
    baseline : Measure or None
        The best trivial baseline.
    baseline_name : str
        Its name.
    """

    label: str
    models: Mapping[str, Measure]
    baseline: Measure | None
    baseline_name: str


def bar_figure(title: str, metric: str, chance: float, bars: Sequence[Bar]) -> str:
    """Draw bars from chance on, with their intervals, and write each one's value beside it.

    Parameters
    ----------
    title : str
        What the figure is called.
    metric : str
        What the horizontal axis shows.
    chance : float
        Where bars begin.
    bars : sequence of Bar
        From the top down.

    Returns
    -------
    str
        SVG.
    """
    with style():
        figure, axes = new_figure(_WIDTH, 0.7 + 0.27 * max(len(bars), 2))
        for place, bar in enumerate(bars):
            if not math.isfinite(bar.value):
                axes.text(chance, place, " not defined", va="center", fontsize=8, color=_GREY)
                continue
            colour = INK if bar.baseline else COLOURS[0]
            axes.barh(place, bar.value - chance, left=chance, height=0.62, color=colour, alpha=0.75, linewidth=0)
            far = bar.value
            if math.isfinite(bar.low + bar.high):
                axes.hlines(place, bar.low, bar.high, color=COLOURS[1], linewidth=1.6)
                far = max(far, bar.high) if bar.value >= chance else min(far, bar.low)
            right = bar.value >= chance
            axes.annotate(
                f"{bar.value:.3f}",
                xy=(far, place),
                xytext=(4 if right else -4, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=8,
            )
        axes.axvline(chance, color=INK, linewidth=1)
        ends = [value for bar in bars for value in (bar.value, bar.low, bar.high) if math.isfinite(value)]
        low, high = min([chance, *ends]), max([chance, *ends])
        # Room for the numbers beside the bars.
        room = 0.16 * (high - low) or 0.1
        alone = low == high
        axes.set_xlim(low - room * (alone or low < chance), high + room * (alone or high > chance))
        axes.set_yticks(range(len(bars)), [_short(bar.label, 34) for bar in bars], fontsize=8.5)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{metric} (chance: {chance:g})")
        return svg(figure, title)


def roc_curves(label_C: npt.NDArray[np.int64], curves: Sequence[Curve]) -> str:
    """Draw receiver operating characteristics of several scores of the same variants; labels are 0 and 1."""
    with style():
        figure, axes = new_figure(_WIDTH, 4.1 + 0.1 * len(curves))
        axes.plot([0, 1], [0, 1], color=INK, linestyle="-", linewidth=0.8, alpha=0.6, label="chance")
        for curve, look in zip(curves, _looks(curves), strict=True):
            axes.plot(*_thinned(*sweep(label_C, curve.score_C).roc()), label=_short(curve.label, 44), **look)
        _unit(axes, "share of negative variants above a threshold", "share of positive variants above it")
        _legend(figure, axes)
        return svg(figure, "ROC curves")


def precision_recall_curves(label_C: npt.NDArray[np.int64], curves: Sequence[Curve]) -> str:
    """Draw precision against recall, in steps, of several scores of the same variants; labels are 0 and 1."""
    with style():
        figure, axes = new_figure(_WIDTH, 4.1 + 0.1 * len(curves))
        axes.axhline(label_C.mean(), color=INK, linewidth=0.8, alpha=0.6, label="chance")
        for curve, look in zip(curves, _looks(curves), strict=True):
            precision_G, recall_G = sweep(label_C, curve.score_C).precision_recall()
            points = _thinned(np.append(0, recall_G), np.append(precision_G[0], precision_G))
            axes.plot(*points, drawstyle="steps-pre", label=_short(curve.label, 44), **look)
        _unit(axes, "recall", "precision")
        _legend(figure, axes)
        return svg(figure, "Precision-recall curves")


def histogram_figure(name: str, values: Mapping[str, Float64]) -> str:
    """Draw how values are spread in each class, as shares of the class.

    Parameters
    ----------
    name : str
        What the values are.
    values : mapping of str to ndarray of float64
        By class; each has at least one. The outermost five in a thousand are put into the last bins.

    Returns
    -------
    str
        SVG.
    """
    every_C = np.concatenate(list(values.values()))
    low, high = np.quantile(every_C, [_TAIL, 1 - _TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    # As many as the smallest class has values enough for.
    bins = int(np.clip(1.5 * math.sqrt(min(map(len, values.values()))), *_BINS))
    edges = np.linspace(low, high, bins + 1)
    with style():
        figure, axes = new_figure(_WIDTH, 3.1)
        for place, (label, value_C) in enumerate(values.items()):
            count, _ = np.histogram(np.clip(value_C, low, high), bins=edges)
            share = 100 * count / len(value_C)
            colour = COLOURS[place % len(COLOURS)]
            shown = f"{_short(label, 36)} ({len(value_C):,})"
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=shown)
            if len(values) <= 3:
                axes.stairs(share, edges, color=colour, alpha=0.2, fill=True, linewidth=0)
            axes.axvline(float(np.median(value_C)), color=colour, linewidth=1, linestyle=_DASHES[0])
        if low < 0 < high:
            axes.axvline(0, color=INK, linewidth=0.8, alpha=0.6)
        axes.set_xlabel(f"{_short(name, 40)} (broken lines: medians)")
        axes.set_ylabel("variants of the class, %")
        _legend(figure, axes)
        return svg(figure, f"{name} by class")


def effect_figure(name: str, effect: str, value_C: Float64, effect_C: Float64) -> str:
    """Draw an effect against a score, as squares coloured by how many variants they hold.

    Parameters
    ----------
    name, effect : str
        What the score and the effect are called.
    value_C, effect_C : ndarray of float64, shape (C,)
        Both.

    Returns
    -------
    str
        SVG.
    """
    edges = [_edges(values_C) for values_C in (value_C, effect_C)]
    count_XY, _, _ = np.histogram2d(
        np.clip(value_C, edges[0][0], edges[0][-1]), np.clip(effect_C, edges[1][0], edges[1][-1]), bins=edges
    )
    with style():
        figure, axes = new_figure(_WIDTH, 4.0)
        drawn = axes.imshow(
            np.where(count_XY > 0, count_XY, np.nan).T,
            origin="lower",
            extent=(edges[0][0], edges[0][-1], edges[1][0], edges[1][-1]),
            norm=LogNorm(1, max(count_XY.max(), 2)),
            cmap="viridis",
            aspect="auto",
            interpolation="none",
        )
        bar = figure.colorbar(drawn, ax=axes, label="variants a square", format="{x:,.0f}")
        bar.outline.set_visible(False)
        if count_XY.max() < 30:
            # Powers of ten alone would be too few.
            bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_minor_formatter("")
        axes.set_xlabel(_short(name, 44))
        axes.set_ylabel(_short(effect, 36))
        return svg(figure, f"{effect} against {name}")


def ladder_figure(title: str, metric: str, chance: float, rows: Sequence[Ladder]) -> str:
    """Draw a metric in parts of the variants, from the top down: models' points, and the best baseline as a dark line.

    Parameters
    ----------
    title : str
        What the figure is called.
    metric : str
        What the horizontal axis shows.
    chance : float
        Marked by a line.
    rows : sequence of Ladder
        The parts.

    Returns
    -------
    str
        SVG.
    """
    models = list(dict.fromkeys(name for row in rows for name in row.models))
    height = 0.7 / max(len(models), 1)
    with style():
        figure, axes = new_figure(_WIDTH, 0.9 + max(0.36, 0.2 + 0.1 * len(models)) * max(len(rows), 2))
        axes.axvline(chance, color=INK, linewidth=0.8, alpha=0.6)
        for place, row in enumerate(rows):
            if row.baseline is not None and math.isfinite(row.baseline.value):
                low, high = row.baseline.low, row.baseline.high
                if math.isfinite(low + high):
                    axes.fill_betweenx([place - 0.38, place + 0.38], low, high, color=INK, alpha=0.1, linewidth=0)
                axes.vlines(row.baseline.value, place - 0.38, place + 0.38, color=INK, linewidth=1.8)
            for number, name in enumerate(models):
                measure = row.models.get(name)
                if measure is None or not math.isfinite(measure.value):
                    continue
                at = place - 0.35 + (number + 0.5) * height
                colour = COLOURS[number % len(COLOURS)]
                if math.isfinite(measure.low + measure.high):
                    axes.hlines(at, measure.low, measure.high, color=colour, linewidth=1.3)
                axes.plot(measure.value, at, color=colour, marker=_SHAPES[number % len(_SHAPES)], markersize=4.5)
        labels = [f"{_short(row.label, 30)}\n{_short(row.baseline_name, 24)}" for row in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize=7.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(metric)
        handles = [
            Line2D([], [], color=COLOURS[number % len(COLOURS)], marker=_SHAPES[number % len(_SHAPES)], markersize=4.5,
                   linewidth=1.3, label=_short(name, 40))
            for number, name in enumerate(models)
        ]  # fmt: skip
        handles.append(Line2D([], [], color=INK, linewidth=1.8, label="best baseline (its name below the part's)"))
        figure.legend(handles=handles, loc="outside upper left", ncols=1, frameon=False, fontsize=8.5)
        return svg(figure, title)


def _looks(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Give each curve its look: models in colours, baselines in broken grey lines."""
    looks = []
    models = baselines = 0
    for curve in curves:
        if curve.baseline:
            looks.append({"color": _GREY, "linestyle": _DASHES[baselines % len(_DASHES)], "linewidth": 1.4})
            baselines += 1
        else:
            looks.append({"color": COLOURS[models % len(COLOURS)], "linestyle": "-", "linewidth": 1.6})
            models += 1
    return looks


def _legend(figure: Any, axes: Any) -> None:
    handles, _ = axes.get_legend_handles_labels()
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = 2 if longest <= 26 else 1
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def _unit(axes: Any, across: str, up: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _edges(value_C: Float64) -> Float64:
    low, high = np.quantile(value_C, [_TAIL, 1 - _TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges: Float64 = np.linspace(low, high, _SQUARES + 1)
    return edges


def _thinned(x_G: Float64, y_G: Float64) -> tuple[Float64, Float64]:
    """Keep points at about equal distances along a curve, both ends among them."""
    way_G = np.append(0, np.cumsum(np.abs(np.diff(x_G)) + np.abs(np.diff(y_G))))
    kept = np.unique(np.searchsorted(way_G, np.linspace(0, way_G[-1], _POINTS)))
    kept = np.unique(np.append(kept, len(way_G) - 1))
    return x_G[kept], y_G[kept]


def _short(name: str, most: int) -> str:
    """Bring a name into one line of at most so many characters; its ends tell most, so the middle goes."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - 1 - most // 2) :]}"
