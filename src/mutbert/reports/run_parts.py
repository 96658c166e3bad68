"""What the pages of training runs share: reading a run's folder, curves over the steps, calibration, recipe."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError, one_line
from mutbert.reports.page import Section, counted
from mutbert.reports.plots import COLOURS, INK, WIDTH, legend_above, logarithmic, new_figure, style, svg
from mutbert.run_folder import HISTORY, METRICS, RECIPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    History = Sequence[Mapping[str, float]]

VERSION: Final = 2
_DENSE: Final = 60  # points that hide their line


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that begins with ``kind`` and ``version``."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = record.get("version", 1), record.get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); choose the folder of a finished run") from None
    if known[0] != VERSION or known[1] is None:
        raise InputError(f"{path}: was written by another version of mutbert; repeat the run that wrote it")
    return record


def read_run(folder: Path) -> tuple[dict[str, Any], History, str]:
    """Return metrics, history and recipe of a training run."""
    metrics = read_record(folder / METRICS)
    try:
        history = json.loads((folder / HISTORY).read_text(encoding="utf-8")) if (folder / HISTORY).exists() else []
        recipe = (folder / RECIPE).read_text(encoding="utf-8") if (folder / RECIPE).exists() else ""
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read ({one_line(error)}); choose the folder of a finished run") from None
    return metrics, history, recipe


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers from JSON, whose null is not a number."""
    return {name: math.nan if value is None else value for name, value in values.items()}


class Panel(NamedTuple):
    """A panel of `steps_figure`: its vertical axis, keys of the history by name, constants by name, and its height."""

    label: str
    curves: Mapping[str, str]
    levels: Mapping[str, float] = {}
    height: float = 2.2


def curve(history: History, key: str) -> list[tuple[float, float]]:
    """Return the steps and the finite values of one of a history's keys."""
    return [(entry["step"], entry[key]) for entry in history if key in entry and math.isfinite(entry[key])]


def left_out(history: History, *keys: str) -> str:
    """Return a sentence on the logged values that a figure cannot show, if there are any."""
    count = sum(not math.isfinite(entry[key]) for entry in history for key in keys if key in entry)
    return f" {counted(count, 'value')} {'are' if count != 1 else 'is'} not finite and could not be drawn." * (count > 0)


def steps_figure(title: str, history: History, panels: Sequence[Panel], *, best_step: int | None = None) -> str:
    """Return logged values over the steps as SVG, with constants dashed and the best step dotted.

    Next to constants, the vertical axis shows these and the last values: an untrained model's first ones lie far above.
    """
    heights = [panel.height for panel in panels]
    legend: dict[str, Any] = {}
    with style():
        figure, axes_P = new_figure(WIDTH, 1 + sum(heights), len(panels), squeeze=False, height_ratios=heights)
        for row, (axes, panel) in enumerate(zip(axes_P[:, 0], panels, strict=True)):
            drawn = [_curve(axes, history, name, key, COLOURS[row]) for name, key in panel.curves.items()]
            levels = {name: value for name, value in panel.levels.items() if math.isfinite(value)}
            for index, (name, value) in enumerate(levels.items()):
                axes.axhline(value, color=COLOURS[1 + index % 5], linestyle="--", linewidth=1.2, label=name)
            values = [value for points in drawn for _, value in points]
            if levels:
                low = min(*levels.values(), *values)
                high = max([*levels.values(), *(points[-1][1] for points in drawn if points)])
                axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3)
            if "learning_rate" in panel.curves.values():
                axes.set_ylim(bottom=0)
            if "grad_norm" in panel.curves.values() and any(values):
                norms = [value for value in values if value > 0]
                logarithmic(axes, norms)
                # Wide enough that there is a tick, even where all norms are about the same.
                axes.set_ylim(min(norms) / 2, max(norms) * 2)
            if best_step is None:
                axes.yaxis.set_major_formatter("{x:.4g}")
            else:
                axes.axvline(best_step, color=INK, linestyle=":", linewidth=1.3, label="best step")
            axes.set_ylabel(panel.label)
            legend |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        # The whole history, so that a curve is seen to end early.
        steps = [entry["step"] for entry in history] or [0]
        margin = 0.04 * (max(steps) - min(steps)) or 1
        axes.set_xlim(min(steps) - margin, max(steps) + margin)
        axes.set_xlabel("optimisation step")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.align_ylabels()
        legend_above(figure, list(legend.values()) if len(legend) > 2 or best_step else [])
        return svg(figure, title)


def _curve(axes: Any, history: History, name: str, key: str, colour: str) -> list[tuple[float, float]]:
    points = curve(history, key)
    if points:
        # A single point has no line that could be seen.
        marker = "o" if len(points) == 1 or (key.startswith("eval_") and len(points) < _DENSE) else None
        look = {"alpha": 0.45, "linewidth": 1} if key == "loss" else {"linewidth": 1.5}
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=name, **look)
    return points


def calibration_section(sets: Mapping[str, Sequence[tuple[float, float, int]]], text: str) -> Section:
    """Return bins of mean predicted probability, observed share and number of pairs, by the name of a set of pairs."""
    distances = []
    with style():
        figure, (axes, below) = new_figure(WIDTH, 5.8, 2, height_ratios=(3.2, 1))
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
        for colour, (name, bins) in zip(COLOURS, sets.items(), strict=False):
            predicted, observed, pairs = zip(*sorted(bins), strict=True)
            look = {"color": colour, "marker": "o", "markersize": 4}
            axes.plot(predicted, observed, linewidth=1.4, label=name, **look)
            below.plot(predicted, pairs, linewidth=1, linestyle=":", **look)
            off = sum(count * abs(x - y) for x, y, count in bins) / sum(pairs)
            distances.append(f"{off:.4f} for {name}")
        counts = [count for bins in sets.values() for *_, count in bins]
        logarithmic(below, counts, decades=1)
        below.set_ylim(min(counts) / 4, max(counts) * 4)
        below.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="observed frequency")
        below.set(ylabel="pairs per bin", xlabel="predicted probability")
        figure.align_ylabels()
        legend_above(figure, axes.get_legend_handles_labels()[0])
        drawing = svg(figure, "Calibration")
    text += (
        " Pairs are binned by probability; the lower panel shows how many there are. The mean distance to the diagonal, "
        f"weighted by pairs, is {', '.join(distances)}."
    )
    return Section("Calibration", text, drawing)


def closing_sections(history: History, facts: Mapping[str, str], recipe: str) -> list[Section]:
    """Return the optimiser as far as it was logged, facts about the run, and its recipe folded away."""
    zeros = sum(norm == 0 for _, norm in curve(history, "grad_norm"))
    missing = f" {counted(zeros, 'norm')} of 0 could not be drawn." * (zeros > 0)
    missing += left_out(history, "learning_rate", "grad_norm")
    if curve(history, "learning_rate") or curve(history, "grad_norm"):
        panels = [Panel(name, {name: key}) for name, key in _OPTIMISER.items()]
        text = "Learning rate, and the gradient's norm before clipping on a logarithmic axis." + missing
        optimiser = Section("Optimiser", text, steps_figure("Optimiser", history, panels))
    else:
        optimiser = Section("Optimiser", missing.strip() or "Neither learning rate nor gradient norm was logged.")
    return [
        optimiser,
        Section("Run details", "" if facts else "Not known.", facts=facts),
        Section("Recipe", "Every setting of the run." if recipe else "Not known.",
                details={"recipe.yaml": recipe} if recipe else {}),
    ]  # fmt: skip


_OPTIMISER: Final = {"learning rate": "learning_rate", "gradient norm": "grad_norm"}
