"""``mutbert predict``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import options  # noqa: TC001 - typer reads it
from mutbert.cli.printing import print_json


def predict(
    sequences: str = typer.Argument(..., help="CSV, TSV, Parquet or FASTA, plain or gzip; or a file of the Hub."),
    model: str = typer.Option(..., "--model", help="The folder of a fine-tuned model, or a repository of the Hub."),
    output: Path = typer.Option(..., "--output", "-o", help="A .tsv, .csv or .parquet file."),
    sequence: str = typer.Option("sequence", "--sequence", help="The column of the sequences."),
    name: str | None = typer.Option(None, "--name", help="A column of names."),
    region: str | None = typer.Option(None, "--region", help="A column that says where a sequence lies (chr3:10-110)."),
    genome: Path | None = typer.Option(None, "--genome", help="A genome store: allele frequencies where it lies."),
    strands: options.Strands = "forward",
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "fp32",
    trust_remote_code: options.TrustRemoteCode = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a fine-tuned model's predictions for the sequences of a table or a FASTA."""
    from mutbert.examples.files import Columns
    from mutbert.inference.predictions import predict_table

    columns = Columns(sequence=sequence, label=(), name=name, region=region)
    report = predict_table(
        model, sequences, output, columns=columns, genome=genome, batch_size=batch_size,
        precision=precision, strands=strands, trust_remote_code=trust_remote_code, force=force, progress=True,
    )  # fmt: skip
    if as_json:
        print_json(asdict(report) | {"output": str(report.output)})
        return
    typer.echo(f"{report.output}: {report.sequences:,} sequences, {report.problem}: {', '.join(report.classes)}")
