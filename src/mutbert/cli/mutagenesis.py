"""``mutbert mutagenesis``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def mutagenesis(
    model: str = typer.Option(..., "--model", help="A model folder, ours or published, or a repository of the Hub."),
    genome: Path | None = typer.Option(None, "--genome", help="The genome store that the region is of."),
    sequence: Path | None = typer.Option(None, "--sequence", help="A FASTA in its place, say of a designed sequence."),
    region: str | None = typer.Option(None, "--region", help="The region: chr22:101-200, both ends included."),
    output: Path = typer.Option(..., "--output", "-o", help="A .parquet file, with a row a position."),
    figures: list[Path] = typer.Option([], "--figure", help="Draw it, as .png or .svg; may be given again."),
    surroundings: str = typer.Option(
        "reference", "--surroundings", help="What stands around a position: reference, population or person."
    ),
    person_vcf: Path | None = typer.Option(None, "--person-vcf", help="The genotypes of the person."),
    sample: str | None = typer.Option(None, "--sample", help="The person's name in it."),
    context: int | None = typer.Option(None, "--context", min=1, help="Bases of a window; else as in training."),
    strands: str = typer.Option("both", "--strands", help="both for the mean over the two strands, or forward."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Windows a batch."),
    precision: str = typer.Option("fp32", "--precision", help="fp32, or bf16 for bfloat16 autocast."),
    rope_scaling: str | None = typer.Option(
        None,
        "--rope-scaling",
        metavar="TYPE:FACTOR",
        help="For a context longer than the model is trained for: linear or dynamic, and how many times longer.",
    ),
    force: bool = typer.Option(False, "--force", help="Replace outputs where they exist."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Ask a model for every substitution at every position of a region."""
    if figures:
        from mutbert.reports.mutagenesis_figures import check_figures, draw_mutagenesis

        check_figures(figures, force=force)
    from mutbert.cli.options import parse_rope_scaling
    from mutbert.inference.base_predictions import PredictionSettings
    from mutbert.inference.mutagenesis import mutate_region

    scaling = None if rope_scaling is None else parse_rope_scaling(rope_scaling)
    report = mutate_region(
        model,
        output,
        genome=genome,
        sequence=sequence,
        region=region,
        surroundings=surroundings,
        person_vcf=person_vcf,
        sample=sample,
        settings=PredictionSettings(context, strands, batch_size, precision, scaling),
        force=force,
        progress=True,
    )
    if figures:
        draw_mutagenesis(report.output, figures, force=force)
    if as_json:
        paths = {"output": str(report.output), "figures": [str(path) for path in figures]}
        print_json(asdict(report) | paths | {"region": str(report.region)})
        return
    typer.echo(f"{report.output}: {report.region}, {report.positions:,} positions")
    if report.unknown:
        typer.echo(f"{report.unknown:,} are N and have no values")
    if report.ambiguous:
        typer.echo(f"{report.ambiguous:,} are another IUPAC code and have probabilities, but no ratios")
    for reason, number in report.not_used.items():
        typer.echo(f"{number:,} records of the person change nothing: {reason}")
    for path in figures:
        typer.echo(f"{path}: the figure")
