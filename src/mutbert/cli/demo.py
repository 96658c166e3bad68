"""``mutbert demo``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def demo(
    output: Path = typer.Option(Path("demo"), "--output", "-o", help="The folder for all of it."),
    seed: int = typer.Option(1, help="Seed of the simulated population."),
    steps: int | None = typer.Option(None, min=1, help="Optimisation steps, in place of the recipe's 300."),
    force: bool = typer.Option(False, "--force", help="Replace the folder where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Go the whole way on a simulated population, ending with an HTML report."""
    from mutbert.demo import run_demo

    result = run_demo(output, seed=seed, steps=steps, force=force, progress=True)
    if as_json:
        print_json({name: str(value) if isinstance(value, Path) else value for name, value in asdict(result).items()})
        return
    typer.echo(f"done in {result.seconds:.0f} s; open {result.report}")
