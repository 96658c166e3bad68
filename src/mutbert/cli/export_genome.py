"""``mutbert genome export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def export(
    genome: Path = typer.Argument(..., metavar="GENOME", help="A store made by 'mutbert genome build'."),
    output: Path = typer.Option(..., "--output", "-o", help="The file to write; bgzip where text ends in .gz."),
    kind: str | None = typer.Option(
        None,
        "--as",
        metavar="KIND",
        help="FASTA: reference, consensus or iupac. Variants: bed, tsv or parquet, also told by the suffix of OUTPUT.",
    ),
    contigs: list[str] = typer.Option(
        [], "--contigs", help="Contigs to write, by commas or repeated; all where left out, and --region too."
    ),
    region: list[str] = typer.Option(
        [], "--region", help="A region to write, as chr22:101-200 (1-based, both ends included); may be repeated."
    ),
    min_frequency: float = typer.Option(
        0.0, "--min-frequency", help="For iupac: the least frequency of a base that its code stands for; 0 takes all."
    ),
    soft_mask: bool = typer.Option(
        False, "--soft-mask", help="For FASTA: lower case where the genome's own FASTA had it; upper case otherwise."
    ),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Write a genome as FASTA, or its variants as a table: nothing is locked in."""
    from mutbert.genome.export import export_genome

    wanted = [*(name for names in contigs for name in names.split(",") if name), *region]
    report = export_genome(
        genome,
        output,
        kind,
        regions=wanted if contigs or region else None,
        min_frequency=min_frequency,
        soft_mask=soft_mask,
        force=force,
        progress=True,
    )
    if as_json:
        print_json(asdict(report) | {"path": str(report.path)})
        return
    changed = f", {report.changed:,} letters that are not the reference's" if report.changed else ""
    typer.echo(
        f"{report.path}: {report.kind}, {report.regions:,} contigs or regions, {report.bases:,} bases, "
        f"{report.variants:,} variants{changed}"
    )
