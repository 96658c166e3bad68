"""Figures of a training run, as SVG text that a page can hold.

Predictors have the same colour in all of them: the model the first, trivial ones the others in the order given. All are
narrow, with the legend above, so that their text can be read on a telephone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from mutbert.reports.plots import COLOURS, INK, legend_above, logarithmic, new_figure, style, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH: Final = 5.0
_MODEL: Final = COLOURS[0]
_TRIVIAL: Final = COLOURS[1:]
_DENSE: Final = 60
_EVALUATED: Final = {"variant": "variant targets", "other": "other targets"}


def training_figure(history: Sequence[Mapping[str, float]], references: Mapping[str, float]) -> str:
    """Draw training loss and held-out cross-entropy over the steps, beside trivial predictors.

    Parameters
    ----------
    history : sequence of mapping
        Entries with ``step`` and ``loss`` or ``eval_cross_entropy``, in nats a target. What is not finite is not drawn.
    references : mapping
        Held-out cross-entropies of other predictors by name, drawn as level lines.

    Returns
    -------
    str
        SVG.
    """
    with style():
        figure, axes = new_figure(_WIDTH, 3.7)
        training = curve(history, "loss")
        held_out = curve(history, "eval_cross_entropy")
        _line(axes, training, "training loss", alpha=0.45, linewidth=1)
        _line(axes, held_out, "held out", marker="o")
        _levels(axes, references)
        if held_out or _finite(references):
            _limit(axes, [training, held_out], references)
        axes.set_ylabel("cross-entropy, nats a target")
        _steps(axes, history)
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, "Training curve")


def held_out_figure(history: Sequence[Mapping[str, float]], references: Mapping[str, Mapping[str, float]]) -> str:
    """Draw held-out cross-entropy over the steps, at variant targets and at the others, each in its own panel.

    Parameters
    ----------
    history : sequence of mapping
        Entries with ``step`` and ``eval_cross_entropy_variant`` or ``eval_cross_entropy_other``, in nats a target. What
        is not finite is not drawn.
    references : mapping of str to mapping
        Other predictors' cross-entropies by name and group, ``variant`` and ``other``, drawn as level lines.

    Returns
    -------
    str
        SVG; targets that were never evaluated have no panel.
    """
    curves = {group: curve(history, f"eval_cross_entropy_{group}") for group in _EVALUATED}
    shown = [group for group in _EVALUATED if curves[group]] or ["variant"]
    with style():
        figure, panels = new_figure(_WIDTH, 0.9 + 2.1 * len(shown), len(shown), squeeze=False)
        for axes, group in zip(panels[:, 0], shown, strict=True):
            levels = {name: values.get(group, math.nan) for name, values in references.items()}
            _line(axes, curves[group], "model", marker="o")
            _levels(axes, levels)
            _limit(axes, [curves[group]], levels)
            axes.set_title(_EVALUATED[group], loc="left", fontsize=10)
        figure.supylabel("cross-entropy, nats a target", fontsize=10)
        _steps(panels[-1, 0], history)
        legend_above(figure, panels[0, 0].get_legend_handles_labels()[0])
        return svg(figure, "Held-out curves")


def frequency_figure(
    groups: Sequence[str], cross_entropy: Mapping[str, Sequence[float]], floor: Sequence[float]
) -> str:
    """Draw predictors beside each other in every group of targets, as bars.

    Parameters
    ----------
    groups : sequence of str
        The groups' names, from the top down.
    cross_entropy : mapping of str to sequence of float
        The predictors' cross-entropies in nats a target, one a group; the first predictor is the model. What is not
        finite has no bar.
    floor : sequence of float
        What nothing can go below, one a group, drawn as a line across the group's bars.

    Returns
    -------
    str
        SVG.
    """
    # Bars lie, so that any number of groups has room for names that can be read, on a telephone too.
    with style():
        figure, axes = new_figure(_WIDTH, 1.0 + 0.66 * max(len(groups), 1))
        handles: list[Any] = []
        height = 0.78 / max(len(cross_entropy), 1)
        for index, (name, values) in enumerate(cross_entropy.items()):
            drawn = [(place, value) for place, value in enumerate(values) if math.isfinite(value)]
            bars = axes.barh(
                [place - 0.39 + (index + 0.5) * height for place, _ in drawn],
                [value for _, value in drawn],
                height=height * 0.9,
                color=COLOURS[index % len(COLOURS)],
                alpha=1 if index == 0 else 0.45,
                label=name,
            )
            handles.append(bars)
        places = [(place, value) for place, value in enumerate(floor) if math.isfinite(value)]
        if places:
            lines = axes.vlines(
                [value for _, value in places],
                [place - 0.43 for place, _ in places],
                [place + 0.43 for place, _ in places],
                color=INK,
                linewidth=1.8,
                label="entropy floor",
            )
            handles.append(lines)
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("cross-entropy, nats a target")
        legend_above(figure, handles)
        return svg(figure, "Cross-entropy by frequency")


def calibration_figure(curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """Draw predicted against observed frequency, with how many pairs there are in each bin below.

    Parameters
    ----------
    curves : mapping of str to sequence of tuple
        Of each set of targets, its bins: mean predicted probability, mean observed frequency, number of pairs. Bins
        without pairs, or whose means are not finite, are not drawn.

    Returns
    -------
    str
        SVG.
    """
    with style():
        figure, (axes, below) = new_figure(_WIDTH, 5.8, 2, height_ratios=(3.2, 1))
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
        counts: list[float] = []
        for index, (name, bins) in enumerate(curves.items()):
            drawn = [(x, y, count) for x, y, count in bins if count > 0 and math.isfinite(x) and math.isfinite(y)]
            if not drawn:
                continue
            predicted, observed, number = zip(*sorted(drawn), strict=True)
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(predicted, observed, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
            below.plot(predicted, number, color=colour, marker="o", markersize=4, linewidth=1, linestyle=":")
            counts += number
        logarithmic(below, counts, decades=1)
        if counts:
            # Wide enough that there is a tick within, even where all bins have about the same count.
            below.set_ylim(min(counts) / 4, max(counts) * 4)
        below.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("observed frequency")
        below.set_ylabel("pairs a bin")
        below.set_xlabel("predicted probability")
        figure.align_ylabels()
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, "Calibration")


def optimiser_figure(history: Sequence[Mapping[str, float]]) -> str:
    """Draw the learning rate and the gradient's norm over the steps.

    Parameters
    ----------
    history : sequence of mapping
        Entries with ``step`` and ``learning_rate`` or ``grad_norm``. What is not finite is not drawn, nor a norm of 0,
        as its axis is logarithmic.

    Returns
    -------
    str
        SVG.
    """
    with style():
        figure, (above, below) = new_figure(_WIDTH, 4.2, 2)
        _line(above, curve(history, "learning_rate"), "learning rate", linewidth=1.4)
        above.set_ylim(bottom=0)
        above.yaxis.set_major_formatter("{x:g}")
        above.set_ylabel("learning rate")
        norms = [(step, norm) for step, norm in curve(history, "grad_norm") if norm > 0]
        _line(below, norms, "gradient norm", linewidth=1)
        logarithmic(below, [norm for _, norm in norms])
        if norms:
            # Wide enough that there is a tick within, even where all norms are about the same.
            below.set_ylim(min(norm for _, norm in norms) / 2, max(norm for _, norm in norms) * 2)
        below.yaxis.set_major_formatter("{x:g}")
        below.set_ylabel("gradient norm")
        _steps(below, history)
        figure.align_ylabels()
        return svg(figure, "Optimiser")


def curve(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """Give the steps and the finite values of one of a history's keys."""
    return [(entry["step"], entry[key]) for entry in history if key in entry and math.isfinite(entry[key])]


def _line(axes: Any, points: Sequence[tuple[float, float]], label: str, **how: Any) -> None:
    if points:
        # A line through a single point could not be seen, and many points hide their line.
        how["marker"] = "o" if len(points) == 1 else how.get("marker") if len(points) < _DENSE else None
        axes.plot(*zip(*points, strict=True), color=_MODEL, markersize=3, label=label, **how)


def _levels(axes: Any, references: Mapping[str, float]) -> None:
    for index, (name, value) in enumerate(references.items()):
        if math.isfinite(value):
            axes.axhline(value, color=_TRIVIAL[index % len(_TRIVIAL)], linestyle="--", linewidth=1.2, label=name)


def _finite(references: Mapping[str, float]) -> list[float]:
    return [value for value in references.values() if math.isfinite(value)]


def _limit(axes: Any, curves: Sequence[Sequence[tuple[float, float]]], references: Mapping[str, float]) -> None:
    """Show what matters: the first steps of an untrained model lie far above it, the last ones are always shown."""
    levels = _finite(references)
    values = [value for points in curves for _, value in points]
    if levels or values:
        low = min(levels + values)
        high = max(levels + [points[-1][1] for points in curves if points])
        if not levels:
            high = max(high, *(value for _, value in curves[-1]))
        axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3)


def _steps(axes: Any, history: Sequence[Mapping[str, float]]) -> None:
    """Let the axis span the whole history, so that a curve that ends early, or not a number, is seen to."""
    steps = [entry["step"] for entry in history]
    if steps:
        margin = 0.04 * (max(steps) - min(steps)) or 1
        axes.set_xlim(min(steps) - margin, max(steps) + margin)
    axes.set_xlabel("optimisation step")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
