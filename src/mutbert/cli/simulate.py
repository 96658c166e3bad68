"""``mutbert simulate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def simulate(
    output: Path = typer.Option(..., "--output", "-o", help="The folder to write: ref.fa and population.vcf.gz."),
    length: int = typer.Option(1_000_000, "--length", help="Bases."),
    samples: int = typer.Option(500, "--samples", help="Diploid people."),
    seed: int = typer.Option(1, "--seed", help="The same seed gives the same files."),
    contig: str = typer.Option("chr1", "--contig", help="Name of the contig."),
    mutation_rate: float = typer.Option(1.25e-8, "--mutation-rate", help="Mutations per base and generation."),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Simulate a population: a reference, and the phased genotypes of people who descend from common ancestors."""
    from mutbert.genome.simulate import simulate_population

    report = simulate_population(
        output,
        length=length,
        samples=samples,
        seed=seed,
        contig=contig,
        mutation_rate=mutation_rate,
        force=force,
        progress=True,
    )
    if as_json:
        print_json(asdict(report) | {name: str(getattr(report, name)) for name in ("path", "fasta", "vcf")})
        return
    typer.echo(f"{report.fasta}: {report.contig}, {report.length:,} bases")
    typer.echo(f"{report.vcf}: {report.records:,} records, {report.samples:,} people")
