"""What the pages of training runs share: the optimiser, what a run was made of, its recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mutbert.reports.page import Section, counted, html_details, html_facts
from mutbert.reports.training_figures import curve, optimiser_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def optimiser_section(history: Sequence[Mapping[str, float]]) -> Section:
    """Show the learning rate and the gradient's norm, as far as they were logged."""
    title = "Optimiser"
    keys = ("learning_rate", "grad_norm")
    if not any(curve(history, key) for key in keys):
        return Section(
            title, left_out(history, *keys).strip() or "Neither learning rate nor gradient norm was logged.", ""
        )
    text = "Learning rate, and the gradient's norm before clipping on a logarithmic axis."
    zeros = sum(norm == 0 for _, norm in curve(history, "grad_norm"))
    if zeros:
        text += f" {counted(zeros, 'norm')} of 0 could not be drawn on it."
    return Section(title, text + left_out(history, *keys), optimiser_figure(history))


def facts_section(facts: Mapping[str, str]) -> Section:
    """Say what a run was made of."""
    title = "What the run was made of"
    return Section(title, "", html_facts(facts)) if facts else Section(title, "Not known.", "")


def recipe_section(recipe: str) -> Section:
    """Show every setting of a run, folded away."""
    if not recipe:
        return Section("Recipe", "Not known.", "")
    return Section("Recipe", "Every setting of the run.", html_details("recipe.yaml", recipe))


def left_out(history: Sequence[Mapping[str, float]], *keys: str) -> str:
    """Say how many logged values a figure cannot show; nothing where it shows them all."""
    count = sum(not math.isfinite(entry[key]) for entry in history for key in keys if key in entry)
    if not count:
        return ""
    return f" {counted(count, 'value')} that {'are' if count != 1 else 'is'} not finite could not be drawn."
