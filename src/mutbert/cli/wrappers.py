"""Options of commands that are no parameters of the public functions: each wrapper has them, and calls the function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[..., Any]


def with_regions(
    function: Function, *, contigs: Sequence[str] = (), regions: Sequence[str] = (), **options: Any
) -> Any:
    """Call a function of regions, with whole contigs among them."""
    located = {"regions": (*contigs, *regions)} if contigs or regions else {}
    return function(**options, **located)


def with_columns(
    function: Function,
    *,
    sequence: str = "sequence",
    name: str | None = None,
    region: str | None = None,
    **options: Any,
) -> Any:
    """Call a function of a table's columns."""
    from mutbert.examples.files import Columns

    return function(**options, columns=Columns(sequence=sequence, label=(), name=name, region=region))


def with_figures(function: Function, *, figures: Sequence[str] = (), force: bool = False, **options: Any) -> Any:
    """Call a function that writes a table, and draw it."""
    if figures:
        from mutbert.reports.mutagenesis_figures import check_figures, draw_mutagenesis

        check_figures([Path(path) for path in figures], force=force)
    report = function(**options, force=force)
    if figures:
        draw_mutagenesis(report.output, figures, force=force)
    return vars(report) | {"figures": figures}


def with_layers(function: Function, *, layers: str = "-1", **options: Any) -> Any:
    """Call a function of a model's layers."""
    numbers = layers.split(",")
    if layers != "all" and not all(number.strip().removeprefix("-").isdecimal() for number in numbers):
        raise InputError(f"--layers {layers}: must be numbers separated by commas, such as 4,8,-1, or all")
    return function(**options, layers=layers if layers == "all" else [int(number) for number in numbers])


def with_settings(function: Function, *, settings: Sequence[str], **options: Any) -> Any:
    """Call a function of a recipe."""
    recipe = None if "=" in settings[0] else Path(settings[0])
    overrides = settings if recipe is None else settings[1:]
    for text in overrides:
        if "=" not in text:
            raise InputError(f"{text!r} is not of the form key=value, for example finetune.epochs=5")
    from mutbert.training.finetune import read_finetune_recipe

    return in_processes(function, recipe=read_finetune_recipe(recipe, overrides), **options)


def in_processes(function: Function, **options: Any) -> Any:
    """Call a function that several processes run together, and leave the group."""
    from mutbert.training.pretrain import leave_other_processes

    result = function(**options)
    leave_other_processes()
    return result
