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
    """Call a function of regions, with whole contigs among them.

    Parameters
    ----------
    contigs, regions
        Whole contigs, comma-separated or repeated; regions such as chr22:101-200, 1-based and inclusive, repeated.
    """
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
    """Call a function of a table's columns.

    Parameters
    ----------
    sequence, name, region
        Column of the sequences; column of names; column of regions such as chr3:10-110.
    """
    from mutbert.examples.files import Columns

    return function(**options, columns=Columns(sequence=sequence, label=(), name=name, region=region))


def with_figures(function: Function, *, figures: Sequence[str] = (), force: bool = False, **options: Any) -> Any:
    """Call a function that writes a table, and draw it.

    Parameters
    ----------
    figures
        Also draw the table, as .png or .svg; may be repeated.
    """
    if figures:
        from mutbert.reports.mutagenesis_figures import check_figures, draw_mutagenesis

        check_figures([Path(path) for path in figures], force=force)
    report = function(**options, force=force)
    if figures:
        draw_mutagenesis(report.output, figures, force=force)
    return vars(report) | {"figures": figures}


def with_layers(function: Function, *, layers: str = "-1", **options: Any) -> Any:
    """Call a function of a model's layers.

    Parameters
    ----------
    layers
        0 is the embedding layer, -1 the last: one or several (4,8,-1), or all.
    """
    numbers = layers.split(",")
    if layers != "all" and not all(number.strip().removeprefix("-").isdecimal() for number in numbers):
        raise InputError(f"--layers {layers}: must be numbers separated by commas, such as 4,8,-1, or all")
    return function(**options, layers=layers if layers == "all" else [int(number) for number in numbers])


def with_settings(function: Function, *, settings: Sequence[str], **options: Any) -> Any:
    """Call a function of a recipe.

    Parameters
    ----------
    settings
        A recipe, settings, or both: model=, train=, output= and more.
    """
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
