"""Figures of a fine-tuned model, as SVG text that a page can hold, and the curves that they show.

All are narrow, with the legend above, so that their text can be read on a telephone. What grows with the data is
thinned or counted in squares, so that a figure stays small. Shape suffixes: N examples, G distinct scores, K classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm

from mutbert.reports.plots import COLOURS, INK, legend_above, new_figure, style, svg
from mutbert.reports.training_figures import curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_WIDTH: Final = 5.0
_DENSE: Final = 60
_CURVE_POINTS: Final = 400
_SQUARES: Final = 48
_LONG_NAME: Final = 20


class Sweep(NamedTuple):
    """What a threshold on scores gives, from the highest distinct score down.

    Parameters
    ----------
    threshold_G : ndarray of float64, shape (G,)
        A label is said to be 1 where the score is at least this.
    true_G, false_G : ndarray of int64, shape (G,)
        Labels 1 and labels 0 that are said to be 1.
    """

    threshold_G: Floats
    true_G: npt.NDArray[np.int64]
    false_G: npt.NDArray[np.int64]

    def roc(self) -> tuple[Floats, Floats]:
        """Give false and true positive rates, each (G + 1,), from (0, 0) on; not a number without a label of each."""
        return _share(np.append(0, self.false_G)), _share(np.append(0, self.true_G))

    def precision_recall(self) -> tuple[Floats, Floats]:
        """Give precision and recall, each (G,), recall from low to high; not a number without labels 1."""
        return self.true_G / (self.true_G + self.false_G), _share(self.true_G)


def sweep(label_N: npt.NDArray[Any], score_N: npt.NDArray[Any]) -> Sweep:
    """Count what every threshold gives.

    Parameters
    ----------
    label_N : ndarray of int, shape (N,)
        0 or 1; at least one.
    score_N : ndarray of float, shape (N,)
        Higher where 1 is likelier; equal scores fall together.

    Returns
    -------
    Sweep
        The counts by distinct score.
    """
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    last_G = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]), len(sorted_N) - 1)
    true_G = np.cumsum(label_N[order_N] != 0)[last_G]
    return Sweep(sorted_N[last_G].astype(np.float64), true_G, last_G + 1 - true_G)


def finetuning_figure(history: Sequence[Mapping[str, float]], metric: str, metric_name: str, best_step: int) -> str:
    """Draw the loss on training and validation data over the steps, and below it the metric on the validation data.

    Parameters
    ----------
    history : sequence of mapping
        Entries with ``step`` and ``loss``, or ``eval_loss`` and ``eval_`` with `metric` after it. What is not finite is
        not drawn.
    metric, metric_name : str
        The metric, and what its axis says.
    best_step : int
        Marked by a line in both panels.

    Returns
    -------
    str
        SVG; a panel without anything in it is left out.
    """
    training, validation = curve(history, "loss"), curve(history, "eval_loss")
    reached = curve(history, f"eval_{metric}")
    heights = [2.6] * bool(training or validation) + [1.9] * bool(reached)
    with style():
        figure, panels = new_figure(_WIDTH, 0.9 + sum(heights), len(heights), squeeze=False, height_ratios=heights)
        rows = list(panels[:, 0])
        if training or validation:
            _line(rows[0], training, color=COLOURS[0], label="training loss", alpha=0.5, linewidth=1)
            _line(rows[0], validation, color=COLOURS[0], label="validation loss", marker="o", linewidth=1.5)
            rows[0].set_ylabel("loss")
        if reached:
            _line(rows[-1], reached, color=COLOURS[1], label=f"validation {metric_name}", marker="o", linewidth=1.5)
            rows[-1].set_ylabel(metric_name)
        for axes in rows:
            axes.axvline(best_step, color=INK, linestyle=":", linewidth=1.3, label="best step")
        steps = [entry["step"] for entry in history]
        margin = 0.04 * (max(steps) - min(steps)) or 1
        rows[-1].set_xlim(min(steps) - margin, max(steps) + margin)
        rows[-1].set_xlabel("optimisation step")
        rows[-1].xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
        rows[-1].xaxis.set_major_formatter("{x:,.0f}")
        figure.align_ylabels()
        named = {text: handle for axes in rows for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        legend_above(figure, list(named.values()))
        return svg(figure, "Training curve")


def confusion_figure(names: Sequence[str], count_KK: npt.NDArray[np.int64]) -> str:
    """Draw a confusion matrix, coloured by the share of a row.

    Parameters
    ----------
    names : sequence of str
        The classes.
    count_KK : ndarray of int64, shape (K, K)
        Labels by the class that they are (rows) and the class that they are said to be (columns).

    Returns
    -------
    str
        SVG. Up to six classes bear counts and shares, up to sixteen shares alone.
    """
    classes = len(names)
    row_K1 = count_KK.sum(axis=1, keepdims=True)
    share_KK = np.divide(count_KK, row_K1, out=np.zeros(count_KK.shape), where=row_K1 > 0)
    short = [_short(name) for name in names]
    upright = classes > 3 or max(map(len, short)) > 12
    size = 9.0 if classes <= 6 else 7.5 if classes <= 16 else 6.5
    with style():
        below = 0.45 + (0.085 * max(map(len, short)) if upright else 0.25)
        figure, axes = new_figure(_WIDTH, below + max(0.62 * classes if classes <= 6 else 0.2 * classes, 1.2))
        axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
        if classes <= 16:
            for row, column in np.ndindex(share_KK.shape):
                share = share_KK[row, column]
                text = f"{100 * share:.1f} %" if classes <= 6 else f"{100 * share:.0f}"
                if classes <= 6:
                    text = f"{count_KK[row, column]:,}\n{text}"
                if count_KK[row, column] or classes <= 6:
                    colour = "white" if share > 0.55 else INK
                    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
        axes.set_xticks(range(classes), short, rotation=90 if upright else 0, fontsize=size)
        axes.set_yticks(range(classes), short, fontsize=size)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        return svg(figure, "Confusion matrix")


def roc_figure(found: Sweep, area: float) -> str:
    """Draw the receiver operating characteristic of scores, with the point at which predictions are made.

    Parameters
    ----------
    found : Sweep
        With labels of both kinds.
    area : float
        What the legend says.

    Returns
    -------
    str
        SVG.
    """
    false_G, true_G = found.roc()
    with style():
        figure, axes = new_figure(_WIDTH, 4.0)
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="chance")
        axes.plot(*_thinned(false_G, true_G), color=COLOURS[0], linewidth=1.6, label=f"model, AUROC {area:.4f}")
        at = _decided(found)
        _point(axes, false_G[at], true_G[at])
        _unit(axes, "false positive rate", "true positive rate")
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, "ROC curve")


def precision_recall_figure(found: Sweep, area: float) -> str:
    """Draw precision against recall, in steps, as average precision counts it.

    Parameters
    ----------
    found : Sweep
        With labels of both kinds.
    area : float
        What the legend says.

    Returns
    -------
    str
        SVG.
    """
    precision_G, recall_G = found.precision_recall()
    with style():
        figure, axes = new_figure(_WIDTH, 4.0)
        axes.axhline(precision_G[-1], color=INK, linestyle="--", linewidth=1, label="chance")
        points = _thinned(np.append(0, recall_G), np.append(precision_G[0], precision_G))
        axes.plot(*points, color=COLOURS[0], linewidth=1.6, drawstyle="steps-pre", label=f"model, AUPRC {area:.4f}")
        at = _decided(found)
        if at:
            _point(axes, recall_G[at - 1], precision_G[at - 1])
        _unit(axes, "recall", "precision")
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, "Precision-recall curve")


def agreement_figure(name: str, observed_N: npt.NDArray[Any], predicted_N: npt.NDArray[Any], *, points: bool) -> str:
    """Draw predicted against observed numbers.

    Parameters
    ----------
    name : str
        What they are of.
    observed_N, predicted_N : ndarray of float, shape (N,)
        The numbers.
    points : bool
        One point each; else squares, coloured by how many fall into them.

    Returns
    -------
    str
        SVG.
    """
    low = float(min(observed_N.min(), predicted_N.min()))
    high = float(max(observed_N.max(), predicted_N.max()))
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    with style():
        figure, axes = new_figure(_WIDTH, 4.4)
        if points:
            axes.plot(
                observed_N, predicted_N, linestyle="", marker="o", markersize=3, markeredgewidth=0, alpha=0.5,
                color=COLOURS[0],
            )  # fmt: skip
        else:
            edges = np.linspace(low, high, _SQUARES + 1)
            count_XY, _, _ = np.histogram2d(observed_N, predicted_N, bins=(edges, edges))
            drawn = axes.imshow(
                np.where(count_XY > 0, count_XY, np.nan).T,
                origin="lower",
                extent=(low, high, low, high),
                norm=LogNorm(1, max(count_XY.max(), 2)),
                cmap="viridis",
                aspect="auto",
                interpolation="none",
            )
            bar = figure.colorbar(drawn, ax=axes, label="labels a square", format="{x:,.0f}")
            bar.outline.set_visible(False)
        axes.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=1, label="predicted = observed")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(f"{_short(name)}, observed")
        axes.set_ylabel(f"{_short(name)}, predicted")
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, f"Predicted against observed: {name}")


def _line(axes: Any, points: Sequence[tuple[float, float]], **how: Any) -> None:
    if points:
        # A line through a single point could not be seen, and many points hide their line.
        how["marker"] = "o" if len(points) == 1 else how.get("marker") if len(points) < _DENSE else None
        axes.plot(*zip(*points, strict=True), markersize=3, **how)


def _decided(found: Sweep) -> int:
    """Count the thresholds that lie above 0, where a label begins to be said to be 1."""
    return int(np.count_nonzero(found.threshold_G > 0))


def _point(axes: Any, x: float, y: float) -> None:
    axes.plot(x, y, linestyle="", marker="o", markersize=6, color=COLOURS[1], label="predictions")


def _unit(axes: Any, across: str, up: str) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _thinned(x_G: Floats, y_G: Floats) -> tuple[Floats, Floats]:
    """Keep points at about equal distances along a curve, both ends among them."""
    way_G = np.append(0, np.cumsum(np.abs(np.diff(x_G)) + np.abs(np.diff(y_G))))
    kept = np.unique(np.searchsorted(way_G, np.linspace(0, way_G[-1], _CURVE_POINTS)))
    kept = np.append(kept, len(way_G) - 1) if kept[-1] < len(way_G) - 1 else kept
    return x_G[kept], y_G[kept]


def _share(count_G: npt.NDArray[np.int64]) -> Floats:
    """Divide cumulative counts by the last of them."""
    return count_G / count_G[-1] if count_G[-1] else np.full(len(count_G), math.nan)


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONG_NAME else f"{name[: _LONG_NAME - 1]}…"
