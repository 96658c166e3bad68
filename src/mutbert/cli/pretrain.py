"""``mutbert pretrain``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mutbert.cli.printing import print_json, print_table


def pretrain(
    recipe: str = typer.Argument(..., help="A recipe in YAML, or the name of a shipped one (small, demo)."),
    overrides: list[str] | None = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Change a setting, for example training.max_steps=100."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint of the run's folder."),
    force: bool = typer.Option(False, "--force", help="Replace the run's folder where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Pre-train a masked language model on a probabilistic genome."""
    from mutbert.training.pretrain import pretrain

    result = pretrain(recipe, overrides or [], resume=resume, force=force, progress=True)
    if as_json:
        print_json(asdict(result) | {"model": str(result.model), "held_out": {
            name: value._asdict() for name, value in result.held_out.items()}})  # fmt: skip
        return
    typer.echo(f"held-out cross-entropy in nats a target, after {result.steps:,} steps")
    print_table(
        ("predictor", *(f"{name.replace('_', ' ')} ({count:,})" for name, count in result.targets.items())),
        ([name, *(f"{value:.4f}" for value in values)] for name, values in result.held_out.items()),
    )
    typer.echo(f"model: {result.model}")
