"""``mutbert tracks``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli import options
from mutbert.cli.printing import counted, print_json, print_person


def tracks(
    model: options.Model,
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
    surroundings: options.Surroundings = "reference",
    person_vcf: options.PersonVcf = None,
    sample: options.Sample = None,
    context: options.Context = None,
    strands: options.Strands = "both",
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "fp32",
    rope_scaling: options.RopeScaling = None,
    resume: options.Resume = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Write what a model predicts at every base, for genome browsers."""
    from mutbert.inference.bases import PredictionSettings, write_tracks

    scaling = options.parse_rope_scaling(rope_scaling)
    report = write_tracks(
        model, genome, output, tracks=track, regions=[*contigs, *regions], bed=bed, mask_every=mask_every,
        surroundings=surroundings, person_vcf=person_vcf, sample=sample,
        settings=PredictionSettings(context, strands, batch_size, precision, scaling),
        resume=resume, force=force, progress=True,
    )  # fmt: skip
    if as_json:
        print_json(asdict(report) | {"outputs": {name: str(path) for name, path in report.outputs.items()}})
        return
    for name, path in report.outputs.items():
        typer.echo(f"{path}: {name} of {counted(report.bases, 'base')}")
    if report.unknown:
        typer.echo(f"without a value, as they are N: {report.unknown:,}")
    if report.ambiguous:
        typer.echo(f"with an entropy alone, as they are another IUPAC code: {report.ambiguous:,}")
    print_person(report.differing, "them", report.not_used)
