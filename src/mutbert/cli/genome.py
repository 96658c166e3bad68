"""``mutbert genome``: one program for each thing to do with a probabilistic genome."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import inspect
from mutbert.cli.inspect import print_names, print_records
from mutbert.cli.printing import print_json

app = typer.Typer(help="Build and inspect probabilistic genomes.", no_args_is_help=True)

app.command("inspect", no_args_is_help=True)(inspect.inspect)


@app.command(no_args_is_help=True)
def build(
    fasta: list[Path] = typer.Option(..., "--fasta", help="The reference: plain, gzip or bgzip; may be repeated."),
    vcf: list[Path] = typer.Option([], "--vcf", help="Variants with frequencies, VCF or BCF; may be repeated."),
    output: Path = typer.Option(..., "--output", "-o", help="The store to write, by custom NAME.genome."),
    min_frequency: float = typer.Option(
        0.02, "--min-frequency", help="Keep positions that vary more often than this; 0 keeps all."
    ),
    frequency_field: str = typer.Option("AF", "--frequency-field", help="The INFO field with the frequencies."),
    contigs: list[str] = typer.Option(
        [], "--contigs", help="Contigs to keep, by commas or repeated; all where left out."
    ),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Build a probabilistic genome from a reference and a population's variants."""
    from mutbert.genome.build import build_genome

    wanted = [name for names in contigs for name in names.split(",") if name]
    report = build_genome(
        fasta,
        output,
        vcf,
        min_frequency=min_frequency,
        frequency_field=frequency_field,
        contigs=wanted if contigs else None,
        force=force,
        progress=True,
    )
    if as_json:
        print_json(asdict(report) | {"path": str(report.path)})
        return
    bases = sum(report.lengths.values())
    typer.echo(f"{report.path}: {len(report.lengths):,} contigs, {bases:,} bases, {report.variants:,} variants")
    print_records([asdict(counts) for counts in report.records])
    print_names(report.only_in_fasta, report.only_in_vcf)
