"""``mutbert score``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import typer

from mutbert.cli.options import (
    BatchSize,
    Context,
    Precision,
    RopeScaling,
    Sample,
    Strands,
    Surroundings,
    parse_rope_scaling,
)
from mutbert.cli.printing import print_json


def score(
    model: str = typer.Option(..., "--model", help="A model folder, ours or published, or a repository of the Hub."),
    genome: Path = typer.Option(..., "--genome", help="The genome store of the VCF's assembly."),
    vcf: Path = typer.Option(..., "--vcf", help="VCF or BCF; plain, gzip or bgzip."),
    output: Path = typer.Option(
        ..., "--output", "-o", help="A .vcf.gz, .vcf, .bcf, .tsv, .tsv.gz or .parquet file; .json with --calibrate."
    ),
    scores: str = typer.Option("llr", "--scores", help="llr, unmasked, distance, or several with commas."),
    bases: Context = None,
    windows: str = typer.Option("centred", "--windows", help="centred, or shared by neighbours, which is quicker."),
    strands: Strands = "both",
    surroundings: Surroundings = "reference",
    sample: Sample = None,
    person_vcf: Path | None = typer.Option(None, "--person-vcf", help="The person's genotypes; --vcf where left out."),
    flank: int = typer.Option(8, "--flank", min=0, help="Bases on either side of an MNV or indel that count."),
    longest: int = typer.Option(50, "--longest", min=1, help="MNVs and indels of more bases are not scored."),
    distance_bases: int | None = typer.Option(
        None, "--distance-bases", min=1, help="Bases whose embeddings distances of windows are of; all where left out."
    ),
    frequency_field: str | None = typer.Option(
        None, "--frequency-field", help="An INFO field with allele frequencies, such as AF; adds AFLLR."
    ),
    calibration: Path | None = typer.Option(
        None, "--calibration", help="A background by --calibrate; adds LLR_PCT, how extreme among it."
    ),
    calibrate: bool = typer.Option(False, "--calibrate", help="Make a background of the VCF, a .json file."),
    table: Path | None = typer.Option(None, "--table", help="A second output: a .tsv, .tsv.gz or .parquet file."),
    prefix: str = typer.Option("MUTBERT", "--prefix", help="What INFO fields begin with."),
    batch_size: BatchSize = 32,
    precision: Precision = "fp32",
    rope_scaling: RopeScaling = None,
    region: str | None = typer.Option(
        None, "--region", metavar="CHR:START-END", help="Only records in it; 'bcftools concat' joins the outputs."
    ),
    part_records: int = typer.Option(
        1000, "--part-records", min=1, help="Records that are finished, and kept, at once."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with a run that was stopped."),
    force: bool = typer.Option(False, "--force", help="Replace the output where it exists; start a stopped run anew."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Score each alternate allele of a VCF; write its records with the scores, or the reason where there is none."""
    scaling = parse_rope_scaling(rope_scaling)
    from mutbert.effects.score import score_variants

    report = score_variants(
        model, genome, vcf, output, scores=tuple(name.strip() for name in scores.split(",")), context=bases,
        windows=windows, strands=strands, surroundings=surroundings, sample=sample, person_vcf=person_vcf, flank=flank,
        longest=longest, distance_bases=distance_bases, frequency_field=frequency_field, calibration=calibration,
        calibrate=calibrate, table=table, prefix=prefix, batch_size=batch_size, precision=precision,
        rope_scaling=scaling, region=region, part_records=part_records, resume=resume, force=force, progress=True,
    )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return
    for warning in report.warnings:
        typer.echo(f"mutbert: {warning}", err=True)
    if as_json:
        paths = ("output", "table", "index")
        print_json(asdict(report) | {name: (path := getattr(report, name)) and str(path) for name in paths})
        return
    kinds = ", ".join(_counted(count, kind) for kind, count in report.scored.items()) or "none"
    found = f"{_counted(report.records, 'record')}, {_counted(report.alleles, 'alternate allele')}"
    lines = [f"{report.output}: {found}; scored: {kinds}"]
    for reason, count in sorted(report.missing.items(), key=lambda item: -item[1]):
        lines.append(f"  not scored: {count:,} {reason}")
    if report.without_frequency:
        lines.append(f"  without AFLLR: {report.without_frequency:,} whose record has no frequency")
    if count := report.without_background:
        lines.append(f"  without percentage: {count:,} scores of a kind that the background has too few of")
    for reason, count in (report.person_not_used or {}).items():
        lines.append(f"  of the person's records not used: {count:,} {reason}")
    lines.append(f"fields: {', '.join(report.fields)}")
    if report.table is not None:
        lines.append(f"table: {report.table}")
    if report.index is not None or report.why_no_index:
        lines.append(f"index: {report.index or f'none, as {report.why_no_index}'}")
    typer.echo("\n".join(lines))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
