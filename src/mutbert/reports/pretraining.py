"""The page of a pre-training run: what the model reaches, how it got there, and how the run was made."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mutbert.reports import plots
from mutbert.reports.folder import known, read_run
from mutbert.reports.page import Section, counted, write_page
from mutbert.reports.plots import History
from mutbert.run_folder import REPORT

Metrics = Mapping[str, Any]


_MODEL: Final = "model"
_FLOOR: Final = "entropy floor"
_WHERE: Final = {"variant": "positions that vary in the population", "other": "positions that do not vary"}
_UNIT: Final = "cross-entropy, nats per target"
_DASHED: Final = " Dashed: trivial predictors on the same held-out targets."


@plots.style()
def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Return the page of a pre-training run, written from its folder alone."""
    metrics, history, recipe = read_run(folder)
    sections = [
        training_section(metrics, history),
        _held_out_curves(metrics, history),
        held_out_section(metrics),
        _by_frequency(metrics),
        _calibration(metrics["calibration"]),
        *plots.closing_sections(history, metrics["facts"], recipe),
    ]
    title = f"Pre-training: {metrics['name']}"
    write_page(folder / REPORT, title, _headline(metrics), sections, notes=metrics["notes"], force=force)
    return folder / REPORT


def training_section(metrics: Metrics, history: History) -> Section:
    """Return training loss and held-out cross-entropy over the steps, with trivial predictors dashed."""
    levels, panels = _trivial(metrics, "all"), {_UNIT: {"training loss": "loss", "held out": "eval_loss"}}
    text = "The loss on training windows, and the cross-entropy on held-out targets, all hidden."
    text += _DASHED * bool(levels)
    return plots.curves_section("Training curve", history, panels, text, levels={_UNIT: levels})


def held_out_section(metrics: Metrics) -> Section:
    """Return the table of cross-entropies by predictor and group of targets."""
    values, targets = metrics["cross_entropy"], metrics["targets"]
    if not values:
        return Section("Held-out table", "There are no held-out figures.")
    text = f"Cross-entropy in {metrics['unit']} after {counted(metrics['steps'], 'step')}, below each group the number "
    text += f"of its targets; lower is better{f', and nothing can be below the {_FLOOR}' * (_FLOOR in values)}."
    if "order-5 Markov chain" in values:
        text += " The Markov chain sees the five true bases before each target, even those hidden from the model."
    rows: dict[str, list[str | None]] = {"predictor": list(values)}
    for group, count in targets.items():
        rows[f"{group}\n{count:,}"] = [_number(known(one)[group]) if count else None for one in values.values()]
    return Section("Held-out table", text, table=pl.DataFrame(rows), marked=_MODEL)


def _trivial(metrics: Metrics, group: str) -> dict[str, float]:
    """Return the finite cross-entropies that a model has to beat, by predictor."""
    values = {name: known(found)[group] for name, found in metrics["cross_entropy"].items()}
    return {name: value for name, value in values.items() if name not in {_MODEL, _FLOOR} and math.isfinite(value)}


def _headline(metrics: Metrics) -> str:
    steps = counted(metrics["steps"], "step")
    if _MODEL not in metrics["cross_entropy"]:
        return f"The model was trained for {steps}. Its held-out cross-entropy is not known."
    variants = "There are no variant targets"
    if metrics["targets"]["variant"]:
        variants = f"At variant targets alone, it is {_comparison(metrics, 'variant')}"
    reached = f"After {steps}, the model's cross-entropy on held-out targets is {_comparison(metrics, 'all')}."
    return f"{reached} {variants}. Lower is better."


def _comparison(metrics: Metrics, group: str) -> str:
    """Return what the model reaches on a group of targets, compared with the best trivial predictor."""
    reached = known(metrics["cross_entropy"][_MODEL])[group]
    if not math.isfinite(reached):
        return _number(reached)
    text = f"{reached:.4f} nats per target"
    if not (others := _trivial(metrics, group)):
        return f"{text}, with nothing to compare it with"
    best = others[name := min(others, key=others.__getitem__)]
    # As printed: of two numbers that read the same, neither is better.
    difference = round(best, 4) - round(reached, 4)
    other = f"the best trivial predictor ({name}, {best:.4f})"
    if abs(difference) < 5e-5:
        return f"{text}, no better than {other}"
    share = f" or {abs(difference) / best:.1%}" if best > 0 else ""
    return f"{text}, {'better' if difference > 0 else 'worse'} than {other} by {abs(difference):.4f}{share}"


def _held_out_curves(metrics: Metrics, history: History) -> Section:
    # Without targets their cross-entropy is not a number, and nothing is missing from the figure.
    groups = [group for group in _WHERE if metrics["targets"].get(group) != 0]
    panels = {f"{group} targets": {_MODEL: f"eval_loss_{group}"} for group in groups}
    levels = {f"{group} targets": _trivial(metrics, group) for group in groups}
    where = " and at ".join(_WHERE[group] for group in groups)
    count = sum("eval_loss" in entry for entry in history)
    text = f"{counted(count, 'evaluation')}, at {where}, in nats per target."
    text += _DASHED * bool(_trivial(metrics, "all"))
    return plots.curves_section("Held-out curves", history, panels, text, levels=levels)


def _by_frequency(metrics: Metrics) -> Section:
    """Return the predictors on groups of targets that are bins of frequency, and a line across each for its floor."""
    found, targets = {name: known(values) for name, values in metrics["cross_entropy"].items()}, metrics["targets"]
    names = [name for name in sorted(found, key=_MODEL.__ne__) if name != _FLOOR]
    bins = [group for group in targets if group not in {"all", *_WHERE}]
    groups = [group for group in bins if any(math.isfinite(found[name][group]) for name in names)]
    if not groups:
        return Section("By frequency", "There are no held-out figures by frequency.")
    *drawn, floor_G = np.array([[found[name][group] for group in groups] for name in [*names, _FLOOR]])
    text = "Held-out variant targets by their frequency. Bins without targets are left out."
    text += " Values that are not finite have no bar." * (not np.isfinite(drawn).all())
    ticks = [f"{group.removeprefix('variant, ')}\n{counted(targets[group], 'target')}" for group in groups]
    row_G, height = np.arange(len(groups)), 0.78 / len(names)
    figure, axes = plots.new_figure(1.0 + 0.66 * len(groups))
    for index, (name, value_G) in enumerate(zip(names, drawn, strict=True)):
        axes.barh(
            row_G - 0.39 + (index + 0.5) * height, np.where(np.isfinite(value_G), value_G, 0), height * 0.9,
            color=plots.COLOURS[index % len(plots.COLOURS)], alpha=0.45 if index else 1, label=name,
        )  # fmt: skip
    handles: list[Any] = list(axes.containers)
    handles.append(axes.vlines(floor_G, row_G - 0.43, row_G + 0.43, color=plots.INK, linewidth=1.8, label=_FLOOR))
    plots.list_rows(axes, ticks)
    axes.set_xlabel(_UNIT)
    axes.set_xlim(left=0)
    return Section("By frequency", text, plots.svg(figure, "Cross-entropy by frequency", handles))


def _calibration(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> Section:
    drawn = {}
    for name, bins in sets.items():
        rows = ((one["predicted"], one["observed"], one["pairs"]) for one in map(known, bins))
        if shown := [row for row in rows if row[2] and math.isfinite(row[0] + row[1])]:
            drawn[name] = shown
    if not drawn:
        return Section("Calibration", "The model's calibration was not measured.")
    text = "Every held-out target is four pairs, one per base: the base's probability by the model, and its frequency."
    return plots.calibration_section(drawn, text)


def _number(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return f"{value:.4f}" if math.isfinite(value) else "infinite"
