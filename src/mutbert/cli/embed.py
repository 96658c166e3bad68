"""``mutbert embed``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from mutbert.cli.printing import print_json
from mutbert.errors import InputError


def embed(
    model: str = typer.Option(..., "--model", help="A model folder, ours or published, or a repository of the Hub."),
    fasta: Path | None = typer.Option(None, "--fasta", help="Embed each record of this FASTA."),
    genome: Path | None = typer.Option(None, "--genome", help="Embed regions of this probabilistic genome."),
    bed: Path | None = typer.Option(None, "--bed", help="The regions of the genome."),
    output: Path = typer.Option(..., "--output", "-o", help="A .parquet or .safetensors file."),
    pooling: str = typer.Option("mean", "--pooling", help="mean or max over the bases; none for one a base."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Sequences a batch."),
    precision: str = typer.Option("fp32", "--precision", help="fp32, or bf16 for bfloat16 autocast."),
    rope_scaling: str | None = typer.Option(
        None,
        "--rope-scaling",
        metavar="TYPE:FACTOR",
        help="For sequences longer than the model is trained for: linear or dynamic, and how many times longer.",
    ),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Embed the records of a FASTA, or regions of a probabilistic genome."""
    scaling = None if rope_scaling is None else _parse_rope_scaling(rope_scaling)
    from mutbert.inference.embeddings import embed

    report = embed(
        model,
        fasta=fasta,
        genome=genome,
        bed=bed,
        output=output,
        pooling=pooling,
        batch_size=batch_size,
        precision=precision,
        rope_scaling=scaling,
        force=force,
        progress=True,
    )
    if as_json:
        print_json(asdict(report) | {"output": str(report.output)})
        return
    each = "a base" if report.pooling == "none" else "a sequence"
    typer.echo(
        f"{report.output}: {report.records:,} sequences, {report.bases:,} bases, {report.hidden_size} numbers {each}"
    )


def _parse_rope_scaling(text: str) -> dict[str, Any]:
    kind, _, factor = text.partition(":")
    try:
        return {"type": kind, "factor": float(factor)}
    except ValueError:
        raise InputError(f"--rope-scaling {text}: give TYPE:FACTOR, for example dynamic:2") from None
