"""The page that a pre-training run leaves: what it reached, how it went there, and what it was made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mutbert.reports.page import Section, counted, html_table, write_page
from mutbert.reports.run_parts import facts_section, left_out, optimiser_section, recipe_section
from mutbert.reports.training_figures import (
    calibration_figure,
    curve,
    frequency_figure,
    held_out_figure,
    training_figure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MODEL: Final = "model"
_FLOOR: Final = "entropy floor"
_MARKOV: Final = "order-5 Markov chain"
_ALL: Final = "all"
_VARIANT: Final = "variant"
_OTHER: Final = "other"
_BIN: Final = "variant, "


@dataclass(frozen=True)
class PretrainingReport:
    """What the page of a pre-training run says.

    Parameters
    ----------
    name : str
        The run's name.
    steps : int
        Optimisation steps taken.
    history : sequence of mapping
        What was logged, entries with ``step`` and ``loss``, ``grad_norm``, ``learning_rate`` or
        ``eval_cross_entropy``, ``eval_cross_entropy_variant``, ``eval_cross_entropy_other``, in nats a target.
    held_out : mapping of str to mapping
        Cross-entropy in nats a target, by predictor and group of targets. ``model`` and ``entropy floor`` are what
        their names say, all others trivial predictors. The groups are ``all``, ``variant``, ``other``, and all others
        bins of variant targets by frequency, such as ``variant, 0.02 to 0.05``. Not a number where a group is empty.
    targets : mapping of str to int
        Number of targets in each group; it sets the order of the groups.
    calibration : mapping of str to sequence of tuple
        Bins by the name of a set of targets, ``all targets`` and ``variant targets``: mean predicted probability, mean
        observed frequency, and number of pairs of a target and a base; where that is 0, the means are not looked at.
    facts : mapping of str to str
        What the run was made of, by name.
    recipe : str
        Every setting of the run, as YAML.
    notes : sequence of str
        What the reader must know before all else.
    """

    name: str
    steps: int
    history: Sequence[Mapping[str, float]]
    held_out: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, int]
    calibration: Mapping[str, Sequence[tuple[float, float, int]]]
    facts: Mapping[str, str]
    recipe: str
    notes: Sequence[str] = ()


def write_pretraining_page(path: Path, report: PretrainingReport, *, force: bool = False) -> None:
    """Write the page of a pre-training run: one HTML file that fetches nothing.

    Parameters
    ----------
    path : Path
        The HTML file.
    report : PretrainingReport
        What it says. What is missing or empty in it, the page says is.
    force : bool
        Replace `path` where it exists.

    Raises
    ------
    InputError
        When `path` exists and `force` is false.
    """
    sections = [
        _training(report),
        _held_out_curves(report),
        _held_out_table(report),
        _frequencies(report),
        _calibration(report),
        optimiser_section(report.history),
        facts_section(report.facts),
        recipe_section(report.recipe),
    ]
    write_page(path, f"Pre-training: {report.name}", _headline(report), sections, notes=report.notes, force=force)


def _headline(report: PretrainingReport) -> str:
    steps = counted(report.steps, "step")
    if _MODEL not in report.held_out:
        return f"The model was trained for {steps}. Its held-out cross-entropy is not known."
    variants = (
        "There are no variant targets"
        if report.targets.get(_VARIANT) == 0
        else f"At variant targets alone it is {_comparison(report, _VARIANT)}"
    )
    return (
        f"After {steps}, the model's cross-entropy on held-out targets is {_comparison(report, _ALL)}. {variants}. "
        "Lower is better."
    )


def _comparison(report: PretrainingReport, group: str) -> str:
    """Say what the model reaches on a group of targets, and how that compares with the best trivial predictor."""
    reached = report.held_out[_MODEL].get(group, math.nan)
    if not math.isfinite(reached):
        return _number(reached)
    text = f"{reached:.4f} nats a target"
    values = _of_group(_trivial(report), group)
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    if not finite:
        return f"{text}, with nothing to compare it with"
    best = min(finite, key=finite.__getitem__)
    # As printed: whoever reads two equal numbers is not told that one is the better.
    difference = round(finite[best], 4) - round(reached, 4)
    known = f"the best trivial predictor ({best}, {finite[best]:.4f})"
    if abs(difference) < 5e-5:
        return f"{text}, no better than {known}"
    share = f" or {abs(difference) / finite[best] * 100:.1f} %" if finite[best] > 0 else ""
    return f"{text}, {'better' if difference > 0 else 'worse'} than {known} by {abs(difference):.4f}{share}"


def _training(report: PretrainingReport) -> Section:
    title = "Training curve"
    keys = ("loss", "eval_cross_entropy")
    if not any(curve(report.history, key) for key in keys):
        return Section(title, left_out(report.history, *keys).strip() or "No loss was logged.", "")
    references = _of_group(_trivial(report), _ALL)
    text = "The loss on training windows."
    if curve(report.history, "eval_cross_entropy"):
        text = "The loss on training windows, and the cross-entropy on held-out targets, all of them hidden."
    if references:
        text += " Dashed: what trivial predictors reach on the held-out targets."
    return Section(title, text + left_out(report.history, *keys), training_figure(report.history, references))


def _held_out_curves(report: PretrainingReport) -> Section:
    title = "Held-out curves"
    # Where there are no targets, their cross-entropy is no number, and nothing that could have been drawn is left out.
    groups = {_VARIANT: "at positions that vary in the population", _OTHER: "at positions that do not vary"}
    groups = {group: text for group, text in groups.items() if report.targets.get(group) != 0}
    keys = [f"eval_cross_entropy_{group}" for group in groups]
    evaluations = max((len(curve(report.history, key)) for key in keys), default=0)
    if not evaluations:
        return Section(title, left_out(report.history, *keys).strip() or "No evaluation was logged.", "")
    text = f"{counted(evaluations, 'evaluation')}, {' and '.join(groups.values())}."
    if _trivial(report):
        text += " Dashed: what trivial predictors reach on the same targets."
    return Section(title, text + left_out(report.history, *keys), held_out_figure(report.history, _trivial(report)))


def _held_out_table(report: PretrainingReport) -> Section:
    title = "Held-out table"
    if not report.held_out:
        return Section(title, "There are no held-out figures.", "")
    groups = _groups(report)
    text = (
        f"Cross-entropy in nats a target after {counted(report.steps, 'step')}, below each group's name the number of "
        "its targets; lower is better"
    )
    text += f", and nothing can go below the {_FLOOR}." if _FLOOR in report.held_out else "."
    if _MARKOV in report.held_out:
        text += " The Markov chain sees the five true bases before each target, even those hidden from the model."
    header = [f"{group}\n{report.targets[group]:,}" if group in report.targets else group for group in groups]
    rows = (
        [
            name,
            *(
                "none" if report.targets.get(group) == 0 else _number(values[group]) if group in values else "–"
                for group in groups
            ),
        ]
        for name, values in report.held_out.items()
    )
    return Section(title, text, html_table(("predictor", *header), rows, marked=_MODEL))


def _frequencies(report: PretrainingReport) -> Section:
    title = "By frequency"
    predictors = {name: report.held_out[name] for name in (_MODEL,) if name in report.held_out} | _trivial(report)
    floor = report.held_out.get(_FLOOR, {})
    shown = [
        group
        for group in _groups(report)
        if group not in {_ALL, _VARIANT, _OTHER}
        and any(math.isfinite(values.get(group, math.nan)) for values in predictors.values())
    ]
    if not shown:
        return Section(title, "There are no held-out figures by frequency.", "")
    names = [
        group.removeprefix(_BIN) + (f"\n{counted(report.targets[group], 'target')}" if group in report.targets else "")
        for group in shown
    ]
    drawn = {name: [values.get(group, math.nan) for group in shown] for name, values in predictors.items()}
    text = "Held-out variant targets, apart by their frequency. Bins without targets are left out."
    if not all(math.isfinite(value) for values in drawn.values() for value in values):
        text += " What is not finite has no bar."
    return Section(title, text, frequency_figure(names, drawn, [floor.get(group, math.nan) for group in shown]))


def _calibration(report: PretrainingReport) -> Section:
    title = "Calibration"
    curves = {
        name: [entry for entry in bins if entry[2] > 0 and math.isfinite(entry[0] + entry[1])]
        for name, bins in report.calibration.items()
    }
    curves = {name: bins for name, bins in curves.items() if bins}
    if not curves:
        return Section(title, "The model's calibration was not measured.", "")
    distances = ", ".join(f"{_distance(bins):.4f} for {name}" for name, bins in curves.items())
    text = (
        "Every held-out target gives four pairs, one a base: the probability that the model gives to the base, and "
        "its frequency in the population. Pairs are put into bins by the former; below stands how many there are. The "
        f"bins' mean distance to the diagonal, each counted as often as it has pairs, is {distances}."
    )
    return Section(title, text, calibration_figure(curves))


def _trivial(report: PretrainingReport) -> dict[str, Mapping[str, float]]:
    return {name: values for name, values in report.held_out.items() if name not in {_MODEL, _FLOOR}}


def _of_group(predictors: Mapping[str, Mapping[str, float]], group: str) -> dict[str, float]:
    return {name: values.get(group, math.nan) for name, values in predictors.items()}


def _groups(report: PretrainingReport) -> list[str]:
    return list(dict.fromkeys([*report.targets, *(group for values in report.held_out.values() for group in values)]))


def _distance(bins: Sequence[tuple[float, float, int]]) -> float:
    """Give the mean of ``|predicted - observed|`` over bins, each counted as often as it has pairs."""
    pairs = sum(count for _, _, count in bins)
    return sum(count * abs(predicted - observed) for predicted, observed, count in bins) / pairs


def _number(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return f"{value:.4f}" if math.isfinite(value) else "infinite"
