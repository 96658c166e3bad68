"""``mutbert finetune``."""

from __future__ import annotations

from pathlib import Path

import typer

from mutbert.cli.printing import print_json, print_table
from mutbert.errors import InputError


def finetune(
    settings: list[str] = typer.Argument(
        ..., metavar="[RECIPE.yaml] KEY=VALUE...", help="A recipe, settings, or both: model=, train=, output= and more."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint of the run's folder."),
    force: bool = typer.Option(False, "--force", help="Replace the run's folder where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Fine-tune a model on your own table: classes, several labels, numbers, or a class for each base.

    For example: mutbert finetune model=demo/run/model train=train.csv test=test.csv output=runs/mine
    finetune.learning_rate=1e-4
    """
    recipe_path = None if "=" in settings[0] else Path(settings[0])
    overrides = settings if recipe_path is None else settings[1:]
    for text in overrides:
        if "=" not in text:
            raise InputError(f"{text!r} is not of the form key=value, for example finetune.epochs=5")
    from mutbert.training.finetune import finetune, read_finetune_recipe
    from mutbert.training.pretrain import is_main_process, leave_other_processes

    result = finetune(read_finetune_recipe(recipe_path, overrides), resume=resume, force=force, progress=True)
    speaks = is_main_process()
    leave_other_processes()
    if not speaks:
        return
    if as_json:
        paths = {"model": str(result.model), "report": str(result.report) if result.report else None}
        print_json({**paths, **result.metrics, "history": result.history})
        return
    found = result.metrics["metrics"]
    names = list(next(iter(found.values())))
    print_table(
        ("part", "sequences", *names),
        [
            [one["split"], f"{one['examples']:,}", *(_written(found.get(one["split"], {}), name) for name in names)]
            for one in result.metrics["splits"]
        ],
    )
    for one in result.metrics["splits"]:
        if one["in_train"]:
            typer.echo(
                f"{one['in_train']:,} {one['split']} sequences are in the training data too; drop_leaks=true drops "
                "them from these"
            )
    for note in result.metrics["notes"]:
        typer.echo(note)
    if interval := result.metrics["interval"]:
        name, ends = result.metrics["metric"], f"{interval['low']:.3f} to {interval['high']:.3f}"
        typer.echo(f"{name} on the test data: {interval['value']:.3f} (95% CI {ends})")
    typer.echo(f"model: {result.model}")
    if result.report:
        typer.echo(f"report: {result.report}")


def _written(values: dict[str, float], name: str) -> str:
    value = values.get(name)
    return "" if value is None else f"{value:.3f}"
