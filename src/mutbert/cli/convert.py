"""``mutbert convert``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def convert(
    source: str = typer.Argument(..., help="A model folder, published or ours, or a repository of the Hub."),
    destination: Path = typer.Argument(..., help="The model folder to write."),
    force: bool = typer.Option(False, "--force", help="Replace a model folder there."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Turn a published checkpoint into one of ours, key by key; any missing or left-over key is refused."""
    from mutbert.model.checkpoints import convert_checkpoint

    done = convert_checkpoint(source, destination, force=force)
    if as_json:
        print_json(asdict(done) | {"output": str(done.output)})
        return
    typer.echo(f"{done.output}: {done.model_class}, {done.parameters:,} parameters in {done.weights} weights")
    for name in done.repeated:
        typer.echo(f"  left out, as it repeats another: {name}")
