"""``mutbert bench vep``."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from mutbert.cli.options import BatchSize, Context, Precision, RopeScaling, Strands, parse_rope_scaling
from mutbert.cli.printing import print_json, print_table

_TRUST = typer.Option(
    False, "--trust-remote-code", help="Run code that comes with a checkpoint; known models need none."
)


def vep(
    variants: str = typer.Option(..., "--variants", help="CSV, TSV, Parquet, VCF or BCF with labels; or hf://..."),
    models: list[str] = typer.Option(
        ..., "--model", metavar="[NAME=]PLACE", help="A known name, a folder or a repository. May be repeated."
    ),
    genome: Path = typer.Option(..., "--genome", help="The genome store of the variants' assembly."),
    output: Path = typer.Option(..., "--output", "-o", help="The folder to make."),
    label: str | None = typer.Option(None, "--label", help="The column, or INFO field, of classes."),
    effect: str | None = typer.Option(None, "--effect", help="In place of --label: one of numbers."),
    positive: list[str] | None = typer.Option(
        None, "--positive", help="Values of the label that are positive, with commas or repeated; others are negative."
    ),
    negative: list[str] | None = typer.Option(
        None, "--negative", help="Values that are negative; with it, others are left out."
    ),
    exclude: list[str] | None = typer.Option(None, "--exclude", help="Values to leave out."),
    frequency: str | None = typer.Option(
        None, "--frequency", help="The column of allele frequencies; the genome store's where left out."
    ),
    splice_distance: str | None = typer.Option(
        None, "--splice-distance", help="The column of bases to the nearest splice site."
    ),
    group: str | None = typer.Option(None, "--group", help="A column by which results are also split."),
    columns: str | None = typer.Option(
        None,
        "--columns",
        metavar="chromosome=NAME,position=NAME,ref=NAME,alt=NAME",
        help="Columns of a table that have other names than the usual.",
    ),
    direction: str | None = typer.Option(
        None, "--direction", help="Which variants are positive: damaging (default), tolerated, or either."
    ),
    scores: str = typer.Option("llr", "--scores", help="llr, unmasked, distance, or several with commas."),
    context: Context = None,
    windows: str = typer.Option("centred", "--windows", help="centred, or shared by neighbours, which is quicker."),
    strands: Strands = "both",
    surroundings: str = typer.Option(
        "reference", "--surroundings", help="What stands around a variant: reference or population."
    ),
    batch_size: BatchSize = 32,
    precision: Precision = "fp32",
    rope_scaling: RopeScaling = None,
    resamples: int = typer.Option(1000, "--resamples", min=100, help="Resamples of intervals and p-values."),
    seed: int = typer.Option(0, "--seed", min=0, help="Of the resamples."),
    trust_remote_code: bool = _TRUST,
    force: bool = typer.Option(False, "--force", help="Replace the folder where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Compare scores of variants with labels, next to trivial baselines: a page, JSON, Parquet and CSV."""
    scaling = parse_rope_scaling(rope_scaling)
    from mutbert.effects.scores import ScoreSettings
    from mutbert.evaluation.vep import REPORT, RESULT, evaluate_variant_effects
    from mutbert.evaluation.vep_table import VepColumns, columns_of

    result = evaluate_variant_effects(
        models,
        genome,
        variants,
        output,
        columns=columns_of(
            columns,
            VepColumns(
                label=label,
                effect=effect,
                positive=_words(positive),
                negative=_words(negative),
                exclude=_words(exclude),
                frequency=frequency,
                splice_distance=splice_distance,
                group=group,
            ),
        ),
        settings=ScoreSettings(
            scores=_words([scores]),
            context=context,
            windows=windows,
            strands=strands,
            batch_size=batch_size,
            precision=precision,
            rope_scaling=scaling,
        ),
        surroundings=surroundings,
        direction=direction,
        resamples=resamples,
        seed=seed,
        trust_remote_code=trust_remote_code,
        force=force,
        progress=True,
    )
    if as_json:
        print_json(json.loads((output / RESULT).read_text(encoding="utf-8")) | {"output": str(output)})
        return
    report = result.report
    first = [part for part in report.parts if part.name == report.parts[0].name]
    for part in first:
        compared = f"{part.compared:,} of {part.variants:,} variants are compared"
        positives = "" if part.compared_positives is None else f", {part.compared_positives:,} are {part.target}"
        typer.echo(f"{part.target}: {compared}{positives}" + (f"; {part.why}" if part.why else ""))
        if part.rows:
            print_table(
                ("predictor", "end", *(word for metric in report.metrics for word in (metric, "95 % interval"))),
                [
                    (
                        row.predictor,
                        row.end,
                        *(
                            word
                            for metric in report.metrics
                            for value, low, high in [row.measures[metric]]
                            for word in (f"{value:.3f}", f"{low:.3f} to {high:.3f}")
                        ),
                    )
                    for row in part.rows
                ],
            )
    what = "higher numbers" if report.problem == "regression" else "the class"
    typer.echo(f"end: whether low or high values of a predictor speak for {what}")
    for reason, count in report.not_used.items():
        typer.echo(f"not used: {count:,} {reason}")
    for note in report.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"report: {output / REPORT}")


def _words(texts: list[str] | None) -> tuple[str, ...]:
    """Take words apart that have commas between them."""
    return tuple(word.strip() for text in texts or () for word in text.split(",") if word.strip())
