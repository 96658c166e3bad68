"""``mutbert tracks``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.printing import print_json


def tracks(
    model: str = typer.Option(..., "--model", help="A model folder, ours or published, or a repository of the Hub."),
    genome: Path = typer.Option(..., "--genome", help="A genome store."),
    output: Path = typer.Option(
        ..., "--output", "-o", help="A .bw, .bigwig, .bedgraph or .bedgraph.gz file; of several tracks NAME.TRACK.bw."
    ),
    track: list[str] = typer.Option(
        ["entropy"],
        "--track",
        help="entropy, reference_probability or best_alternate_llr; may be given again.",
    ),
    regions: list[str] = typer.Option(
        [], "--region", help="A region, chr22:101-200, or a contig; may be given again. Else the whole genome."
    ),
    contigs: list[str] = typer.Option([], "--contig", help="A whole contig; may be given again."),
    bed: Path | None = typer.Option(None, "--bed", help="A BED file of regions in their place."),
    mask_every: int = typer.Option(
        8, "--mask-every", min=0, help="Mask one base in so many at once; 1: each on its own, slow; 0: none."
    ),
    surroundings: str = typer.Option(
        "reference", "--surroundings", help="What the windows are: reference, population or person."
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
    """Write what a model predicts at every base, for genome browsers."""
    from mutbert.cli.options import parse_rope_scaling
    from mutbert.inference.base_predictions import PredictionSettings
    from mutbert.inference.tracks import write_tracks

    scaling = None if rope_scaling is None else parse_rope_scaling(rope_scaling)
    report = write_tracks(
        model,
        genome,
        output,
        tracks=track,
        regions=[*contigs, *regions],
        bed=bed,
        mask_every=mask_every,
        surroundings=surroundings,
        person_vcf=person_vcf,
        sample=sample,
        settings=PredictionSettings(context, strands, batch_size, precision, scaling),
        force=force,
        progress=True,
    )
    if as_json:
        print_json(asdict(report) | {"outputs": {name: str(path) for name, path in report.outputs.items()}})
        return
    for name, path in report.outputs.items():
        typer.echo(f"{path}: {name} of {report.bases:,} bases")
    if report.unknown:
        typer.echo(f"{report.unknown:,} are N and have no value")
    if report.ambiguous:
        typer.echo(f"{report.ambiguous:,} are another IUPAC code and have no value but an entropy")
    for reason, number in report.not_used.items():
        typer.echo(f"{number:,} records of the person change nothing: {reason}")
