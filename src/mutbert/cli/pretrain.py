"""``mutbert pretrain``."""

from __future__ import annotations

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
    from mutbert.training.pretrain import is_main_process, leave_other_processes, pretrain

    result = pretrain(recipe, overrides or [], resume=resume, force=force, progress=True)
    speaks = is_main_process()
    leave_other_processes()
    if not speaks:
        return
    if as_json:
        paths = {"model": str(result.model), "report": str(result.report) if result.report else None}
        print_json({**paths, **result.metrics, "history": result.history})
        return
    found, targets = result.metrics["cross_entropy"], result.metrics["targets"]
    typer.echo(f"held-out cross-entropy in nats per target, after {result.metrics['steps']:,} steps")
    print_table(
        ("targets", "number", *found),
        (
            [group, f"{count:,}", *(f"{values[group]:.4f}" for values in found.values())]
            for group, count in targets.items()
            if count
        ),
    )
    typer.echo(f"model: {result.model}")
    if result.report:
        typer.echo(f"report: {result.report}")
