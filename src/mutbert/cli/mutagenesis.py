"""``mutbert mutagenesis``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import options
from mutbert.cli.printing import counted, print_json, print_person


def mutagenesis(
    model: options.Model,
    genome: Path | None = typer.Option(None, "--genome", help="The genome store that the region is of."),
    sequence: Path | None = typer.Option(None, "--sequence", help="A FASTA instead, such as of a designed sequence."),
    region: str | None = typer.Option(None, "--region", help="The region: chr22:101-200, both ends included."),
    output: Path = typer.Option(..., "--output", "-o", help="A .parquet file, with a row a position."),
    figures: list[Path] = typer.Option([], "--figure", help="Draw it, as .png or .svg; may be given again."),
    surroundings: options.Surroundings = "reference",
    person_vcf: options.PersonVcf = None,
    sample: options.Sample = None,
    context: options.Context = None,
    strands: options.Strands = "both",
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "fp32",
    rope_scaling: options.RopeScaling = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Score every substitution at every position of a region."""
    if figures:
        from mutbert.reports.mutagenesis_figures import check_figures, draw_mutagenesis

        check_figures(figures, force=force)
    from mutbert.inference.bases import PredictionSettings, mutate_region

    scaling = options.parse_rope_scaling(rope_scaling)
    report = mutate_region(
        model, output, genome=genome, sequence=sequence, region=region, surroundings=surroundings,
        person_vcf=person_vcf, sample=sample, force=force, progress=True,
        settings=PredictionSettings(context, strands, batch_size, precision, scaling),
    )  # fmt: skip
    if figures:
        draw_mutagenesis(report.output, figures, force=force)
    if as_json:
        paths = {"output": str(report.output), "figures": [str(path) for path in figures]}
        print_json(asdict(report) | paths | {"region": str(report.region)})
        return
    typer.echo(f"{report.output}: {report.region}, {counted(report.positions, 'position')}")
    if report.unknown:
        typer.echo(f"without values, as they are N: {report.unknown:,}")
    if report.ambiguous:
        typer.echo(f"with probabilities but no ratios, as they are another IUPAC code: {report.ambiguous:,}")
    print_person(report.differing, "the windows", report.not_used)
    for path in figures:
        typer.echo(f"{path}: the figure")
