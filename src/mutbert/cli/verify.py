"""``mutbert genome verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json, print_table


def verify(
    path: Path = typer.Argument(..., metavar="GENOME", help="A store made by 'mutbert genome build'."),
    fasta: list[str] = typer.Option(
        ..., "--fasta", metavar="[PREFIX=]FILE", help="The reference, as when the genome was built; may be repeated."
    ),
    vcf: list[str] = typer.Option(
        [], "--vcf", metavar="[PREFIX=]FILE", help="The variants, in the order of the build; may be repeated."
    ),
    samples: Path = typer.Option(None, "--samples", help="The samples that were counted: one a line, or a table."),
    population: str = typer.Option(None, "--population", help="Only those of this population in the table."),
    sample: str = typer.Option(None, "--sample", help="The one sample that was counted."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Derive a genome again from its sources, by another path than the builder's, and compare.

    The exit status is 0 when both agree, 1 when they differ, and 2 for input that cannot be used.
    """
    from mutbert.genome.verify import verify_genome

    report = verify_genome(path, fasta, vcf, samples=samples, population=population, sample=sample, progress=True)
    if as_json:
        print_json({**asdict(report), "path": str(report.path), "agrees": report.agrees})
    else:
        print_table(
            ("compared", "number"),
            (
                ("contigs", f"{report.contigs:,}"),
                ("bases", f"{report.bases:,}"),
                ("variants", f"{report.variants:,}"),
                ("records", f"{report.records:,}"),
                ("largest difference of a frequency", f"{report.largest_difference:.2g}"),
            ),
        )
        typer.echo()
        statuses = ((file, "same" if same else "different") for file, same in report.sources.items())
        print_table(("source", "checksum"), statuses)
        typer.echo()
        if report.agrees:
            typer.echo(f"{report.path}: agrees with its sources")
        else:
            typer.echo(f"{report.path}: differs from its sources in {report.differing:,} places")
            for text in report.differences:
                typer.echo(f"  {text}")
            if report.differing > len(report.differences):
                typer.echo(f"  and {report.differing - len(report.differences):,} more")
    if not report.agrees:
        raise typer.Exit(1)
