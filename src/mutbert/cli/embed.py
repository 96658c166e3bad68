"""``mutbert embed``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import options
from mutbert.cli.printing import counted, print_json, print_person
from mutbert.errors import InputError


def embed(
    model: str = typer.Option(
        ..., "--model", help="A folder or repository of any model, or a name of 'mutbert bench list'."
    ),
    input_file: Path | None = typer.Option(
        None, "--input", help="FASTA, FASTQ, CSV, TSV, Parquet or BED, told by its suffix; plain, gzip or bgzip."
    ),
    fasta: Path | None = typer.Option(None, "--fasta", help="Embed each record of this FASTA."),
    genome: Path | None = typer.Option(None, "--genome", help="Embed regions of this probabilistic genome."),
    bed: Path | None = typer.Option(None, "--bed", help="The regions of the genome."),
    surroundings: options.Surroundings = "population",
    person_vcf: options.PersonVcf = None,
    sample: options.Sample = None,
    sequence_column: str | None = typer.Option(
        None, "--sequence-column", help="Of a table, the column of the sequences; sequence where left out."
    ),
    name_column: str | None = typer.Option(
        None, "--name-column", help="Of a table, the column of the names; name where left out, if there is one."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="A .parquet, .safetensors or .h5ad file."),
    layers: str = typer.Option(
        "-1", "--layers", help="0 is the embedding layer, -1 the last: one or several (4,8,-1), or all."
    ),
    pooling: str = typer.Option(
        "mean", "--pooling", help="mean or max over the bases, cls for the first token; none for one a base or token."
    ),
    strands: options.Strands = "forward",
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "fp32",
    rope_scaling: options.RopeScaling = None,
    trust_remote_code: options.TrustRemoteCode = False,
    resume: options.Resume = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Embed the sequences of a file, or regions of a probabilistic genome."""
    scaling = options.parse_rope_scaling(rope_scaling)
    wanted = _parse_layers(layers)
    from mutbert.inference.embeddings import embed

    report = embed(
        model, input=input_file, fasta=fasta, genome=genome, bed=bed, surroundings=surroundings, person_vcf=person_vcf,
        sample=sample, sequence_column=sequence_column, name_column=name_column, output=output, layers=wanted,
        pooling=pooling, strands=strands, batch_size=batch_size, precision=precision, rope_scaling=scaling,
        trust_remote_code=trust_remote_code, resume=resume, force=force, progress=True,
    )  # fmt: skip
    if as_json:
        print_json(asdict(report) | {"output": str(report.output)})
        return
    each = "a token" if report.pooling == "none" else "a sequence"
    several = f" in each of layers {', '.join(map(str, report.layers))}" if len(report.layers) > 1 else ""
    made_of = f"{counted(report.records, 'sequence')}, {counted(report.bases, 'base')}"
    typer.echo(f"{report.output}: {made_of}, {report.hidden_size} numbers {each}{several}")
    print_person(report.differing, "the regions", report.not_used)


def _parse_layers(text: str) -> str | list[int]:
    if text == "all":
        return text
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise InputError(
            f"--layers {text}: give numbers with commas between them, for example 4,8,-1, or all"
        ) from None
