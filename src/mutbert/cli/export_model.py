"""``mutbert export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def export(
    source: str = typer.Argument(
        ..., metavar="MODEL", help="A run's folder, a model folder, published or ours, or a repository of the Hub."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="The folder to write."),
    name: str | None = typer.Option(
        None, "--name", help="What the card calls the model, such as the repository that it goes to."
    ),
    licence: str | None = typer.Option(None, "--license", metavar="ID", help="Its licence, as in cc-by-4.0."),
    force: bool = typer.Option(False, "--force", help="Replace a model folder there."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Write a folder to share: transformers loads it without this package, and a card says what it is."""
    from mutbert.export import export_model

    report = export_model(source, output, name=name, licence=licence, force=force)
    if as_json:
        print_json(asdict(report) | {"output": str(report.output)})
        return
    typer.echo(f"{report.output}: {report.model_class}, {report.parameters:,} parameters, with its code and a card")
    if report.missing:
        typer.echo(f"  the card cannot say: {', '.join(report.missing)}")
