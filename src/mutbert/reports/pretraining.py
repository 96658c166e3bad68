"""The page of a pre-training run: what the model reaches, how it got there, and how the run was made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mutbert.reports.page import Section, Table, counted, write_page
from mutbert.reports.plots import COLOURS, INK, WIDTH, legend_above, new_figure, style, svg
from mutbert.reports.run_parts import (
    Panel,
    calibration_section,
    closing_sections,
    curves_section,
    known,
    read_run,
    steps_figure,
)
from mutbert.run_folder import REPORT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    History = Sequence[Mapping[str, float]]
    Values = Mapping[str, Mapping[str, float]]

_MODEL: Final = "model"
_FLOOR: Final = "entropy floor"
_MARKOV: Final = "order-5 Markov chain"
_WHERE: Final = {"variant": "positions that vary in the population", "other": "positions that do not vary"}
_UNIT: Final = "cross-entropy, nats per target"
_DASHED: Final = " Dashed: trivial predictors on the same held-out targets."


def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Return the page of a pre-training run, written from its folder alone."""
    metrics, history, recipe = read_run(folder)
    values = {name: known(of_group) for name, of_group in metrics["cross_entropy"].items()}
    targets, levels = metrics["targets"], trivial_predictors(values, "all")
    text = "The loss on training windows, and the cross-entropy on held-out targets, all hidden."
    sections = [
        curves_section("Training curve", history, [_loss_panel(levels)], text + _DASHED * bool(levels)),
        _held_out_curves(history, values, targets),
        *_held_out(metrics["steps"], values, targets),
        _calibration(metrics["calibration"]),
        *closing_sections(history, metrics["facts"], recipe),
    ]
    lead = _headline(metrics["steps"], values, targets)
    write_page(folder / REPORT, f"Pre-training: {metrics['name']}", lead, sections, notes=metrics["notes"], force=force)
    return folder / REPORT


def trivial_predictors(values: Values, group: str) -> dict[str, float]:
    """Return the cross-entropies that a model has to beat, by predictor."""
    return {name: found.get(group, math.nan) for name, found in values.items() if name not in {_MODEL, _FLOOR}}


def loss_figure(history: History, levels: Mapping[str, float]) -> str:
    """Return training loss and held-out cross-entropy over the steps as SVG, with other predictors dashed."""
    return steps_figure("Training curve", history, [_loss_panel(levels)])


def _loss_panel(levels: Mapping[str, float]) -> Panel:
    return Panel(_UNIT, {"training loss": "loss", "held out": "eval_loss"}, levels, 2.7)


def _headline(steps: int, values: Values, targets: Mapping[str, int]) -> str:
    if _MODEL not in values:
        return f"The model was trained for {counted(steps, 'step')}. Its held-out cross-entropy is not known."
    variants = (
        "There are no variant targets"
        if targets.get("variant") == 0
        else f"At variant targets alone, it is {_comparison(values, 'variant')}"
    )
    reached = f"After {counted(steps, 'step')}, the model's cross-entropy on held-out targets is"
    return f"{reached} {_comparison(values, 'all')}. {variants}. Lower is better."


def _comparison(values: Values, group: str) -> str:
    """Return what the model reaches on a group of targets, compared with the best trivial predictor."""
    reached = values[_MODEL].get(group, math.nan)
    if not math.isfinite(reached):
        return _number(reached)
    text = f"{reached:.4f} nats per target"
    finite = {name: value for name, value in trivial_predictors(values, group).items() if math.isfinite(value)}
    if not finite:
        return f"{text}, with nothing to compare it with"
    best = min(finite, key=finite.__getitem__)
    # As printed: of two numbers that read the same, neither is better.
    difference = round(finite[best], 4) - round(reached, 4)
    other = f"the best trivial predictor ({best}, {finite[best]:.4f})"
    if abs(difference) < 5e-5:
        return f"{text}, no better than {other}"
    share = f" or {abs(difference) / finite[best]:.1%}" if finite[best] > 0 else ""
    return f"{text}, {'better' if difference > 0 else 'worse'} than {other} by {abs(difference):.4f}{share}"


def _held_out_curves(history: History, values: Values, targets: Mapping[str, int]) -> Section:
    # Without targets their cross-entropy is not a number, and nothing is missing from the figure.
    groups = [group for group in _WHERE if targets.get(group) != 0]
    panels = [
        Panel(f"{group} targets", {_MODEL: f"eval_loss_{group}"}, trivial_predictors(values, group)) for group in groups
    ]
    count = sum("eval_loss" in entry for entry in history)
    text = (
        f"{counted(count, 'evaluation')}, at {' and at '.join(_WHERE[group] for group in groups)}, in nats per target."
    )
    return curves_section("Held-out curves", history, panels, text + _DASHED * bool(trivial_predictors(values, "all")))


def _held_out(steps: int, values: Values, targets: Mapping[str, int]) -> list[Section]:
    """Return the table of predictors by group of targets, and the figure of those groups that are bins of frequency."""
    titles = "Held-out table", "By frequency"
    if not values:
        return [Section(title, "There are no held-out figures.") for title in titles]
    groups = list(dict.fromkeys([*targets, *(group for found in values.values() for group in found)]))
    text = (
        f"Cross-entropy in nats per target after {counted(steps, 'step')}, below each group the number of its targets; "
    )
    text += "lower is better" + (f", and nothing can be below the {_FLOOR}." if _FLOOR in values else ".")
    if _MARKOV in values:
        text += " The Markov chain sees the five true bases before each target, even those hidden from the model."
    header = [f"{group}\n{targets[group]:,}" if group in targets else group for group in groups]
    rows = [[name, *(_cell(found, targets, group) for group in groups)] for name, found in values.items()]
    table = Section(titles[0], text, tables=[Table(["predictor", *header], rows, marked=_MODEL)])

    drawn = {name: values[name] for name in sorted(values, key=_MODEL.__ne__) if name != _FLOOR}
    shown = [
        group
        for group in groups
        if group not in {"all", *_WHERE} and any(math.isfinite(found.get(group, math.nan)) for found in drawn.values())
    ]
    if not shown:
        return [table, Section(titles[1], "There are no held-out figures by frequency.")]
    value_PG = np.array([[found.get(group, math.nan) for group in shown] for found in drawn.values()])
    floor_G = np.array([values.get(_FLOOR, {}).get(group, math.nan) for group in shown])
    names = [group.removeprefix("variant, ") for group in shown]
    names = [
        f"{name}\n{counted(targets[group], 'target')}" if group in targets else name
        for name, group in zip(names, shown, strict=True)
    ]
    text = "Held-out variant targets by their frequency. Bins without targets are left out."
    text += "" if np.isfinite(value_PG).all() else " Values that are not finite have no bar."
    return [table, Section(titles[1], text, _frequency_figure(names, list(drawn), value_PG, floor_G))]


def _frequency_figure(groups: Sequence[str], predictors: Sequence[str], value_PG: Any, floor_G: Any) -> str:
    """Return horizontal bars by group and predictor as SVG, with a line across the group for its floor."""
    row_G = np.arange(len(groups))
    height = 0.78 / len(predictors)
    with style():
        figure, axes = new_figure(WIDTH, 1.0 + 0.66 * len(groups))
        for index, (name, value_G) in enumerate(zip(predictors, value_PG, strict=True)):
            axes.barh(
                row_G - 0.39 + (index + 0.5) * height, np.where(np.isfinite(value_G), value_G, 0), height * 0.9,
                color=COLOURS[index % len(COLOURS)], alpha=0.45 if index else 1, label=name,
            )  # fmt: skip
        there = np.isfinite(floor_G)
        if there.any():
            ends = row_G[there] - 0.43, row_G[there] + 0.43
            axes.vlines(floor_G[there], *ends, color=INK, linewidth=1.8, label=_FLOOR)
        axes.set_yticks(row_G, groups)
        axes.set(ylim=(len(groups) - 0.5, -0.5), xlabel=_UNIT)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        legend_above(figure, axes.get_legend_handles_labels()[0][::-1])
        return svg(figure, "Cross-entropy by frequency")


def _calibration(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> Section:
    drawn = {
        name: [
            (one["predicted"], one["observed"], one["pairs"])
            for one in map(known, bins)
            if one["pairs"] and math.isfinite(one["predicted"] + one["observed"])
        ]
        for name, bins in sets.items()
    }
    drawn = {name: bins for name, bins in drawn.items() if bins}
    if not drawn:
        return Section("Calibration", "The model's calibration was not measured.")
    text = "Every held-out target is four pairs, one per base: the base's probability by the model, and its frequency."
    return calibration_section(drawn, text)


def _cell(found: Mapping[str, float], targets: Mapping[str, int], group: str) -> str | None:
    if targets.get(group) == 0:
        return "none"
    return _number(found[group]) if group in found else None


def _number(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return f"{value:.4f}" if math.isfinite(value) else "infinite"
