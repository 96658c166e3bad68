"""What the pages of training runs share: reading a run's folder, curves over the steps, calibration, recipe."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

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
    record = _read(path)
    if not isinstance(record, dict) or record.get("version") != VERSION or "kind" not in record:
        raise InputError(f"{path}: was written by another version of mutbert; repeat the run that wrote it")
    return record


def read_run(folder: Path) -> tuple[dict[str, Any], History, str]:
    """Return metrics, history and recipe of a training run."""
    history = _read(folder / HISTORY) if (folder / HISTORY).exists() else []
    recipe = (folder / RECIPE).read_text(encoding="utf-8") if (folder / RECIPE).exists() else ""
    return read_record(folder / METRICS), history, recipe


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); choose the folder of a finished run") from None


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers from JSON, whose null is not a number."""
    return {name: math.nan if value is None else value for name, value in values.items()}


def _points(history: History, key: str) -> list[tuple[float, float]]:
    """Return the steps and the values of one of a history's keys, as far as they can be drawn."""
    shown = ((entry["step"], entry[key]) for entry in history if key in entry and math.isfinite(entry[key]))
    return [(step, value) for step, value in shown if value or key != "grad_norm"]


def curves_section(
    title: str, history: History, panels: Mapping[str, Mapping[str, str]], text: str, *,
    levels: Mapping[str, Mapping[str, float]] | None = None, best_step: int | None = None,
) -> Section:  # fmt: skip
    """Return the figure of panels that are not empty: by vertical axis the history's keys by name, and constants."""
    keys = [key for curves in panels.values() for key in curves.values()]
    count = sum((key in entry) for key in keys for entry in history) - sum(len(_points(history, key)) for key in keys)
    are = "is" if count == 1 else "are"
    missing = f" {counted(count, 'value')} {are} not drawn: not finite, or a norm of 0." if count else ""
    panels = {
        label: curves for label, curves in panels.items() if any(_points(history, key) for key in curves.values())
    }
    if not panels:
        return Section(title, missing.strip() or "Nothing was logged.")
    return Section(title, text + missing, _steps_figure(title, history, panels, levels or {}, best_step))


def _steps_figure(
    title: str, history: History, panels: Mapping[str, Mapping[str, str]], levels: Mapping[str, Mapping[str, float]],
    best_step: int | None,
) -> str:  # fmt: skip
    """Return logged values over the steps as SVG, with constants dashed and the best step dotted.

    Next to constants, the vertical axis shows these and the last values: an untrained model's first ones lie far above.
    """
    legend: dict[str, Any] = {}
    with style():
        figure, axes_P = new_figure(WIDTH, 1.6 + 2.1 * len(panels), len(panels), squeeze=False)
        for row, (axes, (label, curves)) in enumerate(zip(axes_P[:, 0], panels.items(), strict=True)):
            drawn = [points for key in curves.values() if (points := _points(history, key))]
            for name, key in curves.items():
                _draw(axes, _points(history, key), name, key, COLOURS[0 if levels.get(label) else row])
            finite = {name: value for name, value in levels.get(label, {}).items() if math.isfinite(value)}
            for index, (name, value) in enumerate(finite.items()):
                axes.axhline(value, color=COLOURS[1 + index % 5], linestyle="--", linewidth=1.2, label=name)
            if finite:
                low = min([*finite.values(), *(value for points in drawn for _, value in points)])
                high = max([*finite.values(), *(points[-1][1] for points in drawn)])
                axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3)
            if best_step is not None:
                axes.axvline(best_step, color=INK, linestyle=":", linewidth=1.3, label="best step")
            axes.set_ylabel(label)
            legend |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        # The whole history, so that a curve is seen to end early.
        steps = [entry["step"] for entry in history] or [0]
        margin = 0.04 * (max(steps) - min(steps)) or 1
        axes.set(xlim=(min(steps) - margin, max(steps) + margin), xlabel="optimisation step")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.align_ylabels()
        if list(legend) != list(panels):
            legend_above(figure, list(legend.values()))
        return svg(figure, title)


def _draw(axes: Any, points: Sequence[tuple[float, float]], name: str, key: str, colour: str) -> None:
    if not points:
        return
    # A single point has no line that could be seen.
    marker = "o" if len(points) == 1 or (key.startswith("eval_") and len(points) < _DENSE) else None
    look = {"alpha": 0.45, "linewidth": 1} if key == "loss" else {"linewidth": 1.5}
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=name, **look)
    values = [value for _, value in points]
    if key == "learning_rate":
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
    elif key == "grad_norm":
        logarithmic(axes, values)
        # Wide enough that there is a tick, even where all norms are about the same.
        axes.set_ylim(min(values) / 2, max(values) * 2)
        axes.yaxis.set_major_formatter("{x:g}")


def calibration_section(sets: Mapping[str, Sequence[tuple[float, float, float]]], text: str) -> Section:
    """Return bins of mean predicted probability, observed share and number of pairs, by the name of a set of pairs."""
    distances, counts = [], [count for bins in sets.values() for *_, count in bins]
    with style():
        figure, (axes, below) = new_figure(WIDTH, 5.8, 2, height_ratios=(3.2, 1))
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
        for colour, (name, bins) in zip(COLOURS, sets.items(), strict=False):
            predicted, observed, pairs = zip(*sorted(bins), strict=True)
            look: Any = {"color": colour, "marker": "o", "markersize": 4}
            axes.plot(predicted, observed, linewidth=1.4, label=name, **look)
            below.plot(predicted, pairs, linewidth=1, linestyle=":", **look)
            off = sum(count * abs(x - y) for x, y, count in bins) / sum(pairs)
            distances.append(f"{off:.4f} for {name}")
        logarithmic(below, counts, decades=1)
        below.set_ylim(min(counts) / 4, max(counts) * 4)
        below.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="observed frequency")
        below.set(ylabel="pairs per bin", xlabel="predicted probability")
        figure.align_ylabels()
        legend_above(figure, axes.get_legend_handles_labels()[0])
        drawing = svg(figure, "Calibration")
    text += " Pairs are binned by probability; the lower panel shows how many there are. The mean distance to the "
    text += f"diagonal, weighted by pairs, is {', '.join(distances)}."
    return Section("Calibration", text, drawing)


def closing_sections(history: History, facts: Mapping[str, str], recipe: str) -> list[Section]:
    """Return the optimiser as far as it was logged, facts about the run, and its recipe folded away."""
    panels = {"learning rate": {"learning rate": "learning_rate"}, "gradient norm": {"gradient norm": "grad_norm"}}
    text = "Learning rate, and the gradient's norm before clipping on a logarithmic axis."
    details = {"recipe.yaml": recipe} if recipe else {}
    return [
        curves_section("Optimiser", history, panels, text),
        Section("Run details", "" if facts else "Not known.", facts=facts),
        Section("Recipe", "Every setting of the run." if recipe else "Not known.", details=details),
    ]
