"""``mutbert genome``: one program for each thing to do with a probabilistic genome."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import export_genome, inspect, verify
from mutbert.cli.inspect import print_names, print_records
from mutbert.cli.printing import print_json

app = typer.Typer(help="Build, inspect, verify, export and merge probabilistic genomes.", no_args_is_help=True)


@app.command(no_args_is_help=True)
def build(
    fasta: list[str] = typer.Option(
        ..., "--fasta", metavar="[PREFIX=]FILE", help="The reference: plain, gzip or bgzip; may be repeated."
    ),
    vcf: list[str] = typer.Option(
        [], "--vcf", metavar="[PREFIX=]FILE", help="The population's variants, VCF or BCF; may be repeated."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="The store to write, by custom NAME.genome."),
    min_frequency: float | None = typer.Option(
        None,
        "--min-frequency",
        help="Keep positions that vary more often than this; 0 keeps all.",
        show_default="0.02; 0 with --sample",
    ),
    frequency_field: str = typer.Option(
        "AF",
        "--frequency-field",
        help="INFO field with the frequencies, a quotient such as AC/AN, or GT for genotypes.",
    ),
    samples: Path | None = typer.Option(
        None, "--samples", help="Count the genotypes of these: one name a line, or a panel with populations."
    ),
    population: str | None = typer.Option(None, "--population", help="Of a panel, only this population's samples."),
    sample: str | None = typer.Option(None, "--sample", help="One person's diploid genome."),
    filters: str = typer.Option("PASS,.", "--filter", help="FILTER names that pass; 'any' takes all."),
    contigs: list[str] = typer.Option(
        [], "--contigs", help="Contigs to keep, by commas or repeated; all where left out."
    ),
    workers: int = typer.Option(1, "--workers", help="Parts of the VCF files that are read at once."),
    resume: bool = typer.Option(False, "--resume", help="Continue a build that was stopped."),
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
        samples=samples,
        population=population,
        sample=sample,
        filters=[name for name in filters.split(",") if name],
        contigs=wanted if contigs else None,
        workers=workers,
        resume=resume,
        force=force,
        progress=True,
    )
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        print_json(asdict(report) | {"path": str(report.path)})
        return
    bases = sum(report.lengths.values())
    typer.echo(f"{report.path}: {len(report.lengths):,} contigs, {bases:,} bases, {report.variants:,} variants")
    print_records([asdict(counts) for counts in report.records])
    print_names(report.only_in_fasta, report.only_in_vcf)


app.command("inspect", no_args_is_help=True)(inspect.inspect)
app.command("verify", no_args_is_help=True)(verify.verify)
app.command("export", no_args_is_help=True)(export_genome.export)


@app.command(no_args_is_help=True)
def merge(
    genomes: list[Path] = typer.Argument(..., metavar="GENOME...", help="Stores of different contigs."),
    output: Path = typer.Option(..., "--output", "-o", help="The store to write, by custom NAME.genome."),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Concatenate stores of different contigs, such as the parts of a build on a cluster."""
    from mutbert.genome.merge import merge_genomes

    report = merge_genomes(genomes, output, force=force, progress=True)
    if as_json:
        print_json(asdict(report) | {"path": str(report.path)})
        return
    bases = sum(report.lengths.values())
    typer.echo(
        f"{report.path}: {report.parts:,} parts, {len(report.lengths):,} contigs, {bases:,} bases, "
        f"{report.variants:,} variants"
    )
    print_records(report.records)
