"""``mutbert pretrain``."""

from __future__ import annotations

import json

import typer

from mutbert.cli.printing import print_json, print_table
from mutbert.run_folder import HELD_OUT


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
    from mutbert.training.pretrain import is_main_process, leave_other_processes, pretrain

    result = pretrain(recipe, overrides or [], resume=resume, force=force, progress=True)
    speaks = is_main_process()
    leave_other_processes()
    if not speaks:
        return
    if as_json:
        written = json.loads((result.model.parent / HELD_OUT).read_text(encoding="utf-8"))
        paths = {"model": str(result.model), "report": str(result.report) if result.report else None}
        print_json({**paths, **written, "history": list(result.history), "notes": list(result.notes)})
        return
    typer.echo(f"held-out cross-entropy in nats a target, after {result.steps:,} steps")
    print_table(
        ("targets", "number", *result.held_out),
        (
            [group, f"{count:,}", *(f"{values[group]:.4f}" for values in result.held_out.values())]
            for group, count in result.targets.items()
            if count
        ),
    )
    typer.echo(f"model: {result.model}")
    if result.report:
        typer.echo(f"report: {result.report}")
