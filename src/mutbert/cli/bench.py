"""``mutbert bench list``, ``run``, ``report`` and ``vep``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mutbert.cli.options import BatchSize, Context, Precision, RopeScaling, Strands, parse_rope_scaling, parse_shard
from mutbert.cli.printing import print_json, print_table
from mutbert.errors import InputError

if TYPE_CHECKING:
    from mutbert.evaluation.suites import Suite

app = typer.Typer(help="The published benchmarks, and one's own.", no_args_is_help=True)

_SUITE = typer.Option(None, "--suite", help="A shipped suite (tfbs, nt, eqtl) or one's own YAML file; may be repeated.")
_TRUST = typer.Option(
    False, "--trust-remote-code", help="Run code that comes with a checkpoint; known models need none."
)


@app.command("list")
def list_suites(
    suites: list[str] | None = _SUITE,
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """List suites, their tasks, and the models that are known by name."""
    from mutbert.encoders.known import MODELS, is_offline
    from mutbert.evaluation.suites import load_suite, shipped_suites

    loaded = [load_suite(name) for name in suites or shipped_suites()]
    if as_json:
        found = [model._asdict() | {"offline": is_offline(model)} for model in MODELS]
        print_json({"suites": [suite.model_dump() for suite in loaded], "models": found})
        return
    for suite in loaded:
        _print_suite(suite)
    typer.echo("models: kmer and cnn, which are always run; and by name, or any other folder or repository:")
    print_table(
        ("model", "parameters", "licence", "token", "longest input", "offline", "repository"),
        [
            (
                model.name,
                f"{model.parameters:,}",
                model.licence,
                model.tokens,
                model.longest,
                "yes" if is_offline(model) else "no",
                model.place,
            )
            for model in MODELS
        ],
    )
    typer.echo("offline: whether the Hub's cache on this machine has all that running a model takes")


@app.command("run", no_args_is_help=True)
def run(
    output: Path = typer.Option(..., "--output", "-o", help="The results folder; one that is there is gone on with."),
    suites: list[str] | None = _SUITE,
    data: list[str] | None = typer.Option(
        None,
        "--data",
        metavar="[SUITE=]PLACE",
        help="Where a suite's files are: a folder, hf://datasets/OWNER/NAME[@REVISION], or one file of all tasks.",
    ),
    models: list[str] | None = typer.Option(
        None,
        "--model",
        metavar="[NAME=]PLACE",
        help="A known name, a folder or a repository; random:PLACE for fresh weights. May be repeated.",
    ),
    methods: list[str] | None = typer.Option(None, "--method", help="full (default), lora or probe; may be repeated."),
    protocols: list[str] | None = typer.Option(None, "--protocol", help="published or corrected; both where left out."),
    tasks: list[str] | None = typer.Option(None, "--task", help="Only this task, or SUITE/TASK; may be repeated."),
    seeds: int | None = typer.Option(None, "--seeds", min=1, help="So many seeds, in place of the protocol's number."),
    settings: list[str] | None = typer.Option(
        None,
        "--set",
        metavar="[PROTOCOL.]KEY=VALUE",
        help="Change a protocol, for example finetune.precision=bf16 or corrected.finetune.learning_rate=1e-4.",
    ),
    genome: Path | None = typer.Option(
        None, "--genome", help="A genome store: allele frequencies for MutBERT where coordinates are known; for eQTL."
    ),
    fasta: Path | None = typer.Option(None, "--fasta", help="The reference, for eQTL without a genome store."),
    drop_leaks: bool = typer.Option(
        False, "--drop-leaks", help="Drop training sequences that validation or test data hold, on either strand."
    ),
    baselines: bool = typer.Option(True, "--baselines/--no-baselines", help="Run kmer and cnn too."),
    shard: str = typer.Option("1/1", "--shard", metavar="I/N", help="Do part I of N, on so many machines."),
    trust_remote_code: bool = _TRUST,
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Run a grid of tasks, models and seeds; what is done already is not done again."""
    part = parse_shard(shard)
    if not suites:
        raise InputError("no suite was given; give --suite tfbs, nt, eqtl or a YAML file")
    from mutbert.evaluation.results import read_results
    from mutbert.evaluation.run import GridRequest, run_benchmark
    from mutbert.evaluation.suites import PROTOCOLS, load_suite
    from mutbert.evaluation.summary import progress_table

    names = [load_suite(name).name for name in suites]
    request = GridRequest(
        suites=tuple(suites),
        data=_places(data or [], names),
        models=tuple(models or ()),
        methods=tuple(methods or ("full",)),
        protocols=tuple(protocols or PROTOCOLS),
        tasks=tuple(tasks or ()),
        seeds=seeds,
        settings=tuple(settings or ()),
        baselines=baselines,
        drop_leaks=drop_leaks,
        genome=None if genome is None else str(genome),
        fasta=None if fasta is None else str(fasta),
        shard=part,
        trust_remote_code=trust_remote_code,
    )
    summary = run_benchmark(output, request, progress=True)
    if as_json:
        print_json(asdict(summary) | {"output": str(output)})
    else:
        print_table(*progress_table(read_results(output)))
        typer.echo(
            f"{output}: {summary.done:,} cells done, {summary.before:,} were done before, {summary.failed:,} failed"
            + (f", {summary.elsewhere:,} are of other shards" if summary.elsewhere else "")
        )
        typer.echo(f"report: mutbert bench report {output}")
    for reason, count in summary.failures.items():
        typer.echo(f"mutbert: {count:,} failed: {reason}", err=True)
    if summary.failed:
        raise typer.Exit(1)


@app.command("report", no_args_is_help=True)
def report(
    results: Path = typer.Argument(..., help="The results folder."),
    output: Path | None = typer.Option(None, "--output", "-o", help="Where to write; the results folder if left out."),
    resamples: int = typer.Option(2000, "--resamples", min=100, help="Resamples of intervals and p-values."),
    force: bool = typer.Option(False, "--force", help="Replace a report in the output."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Write a grid's report: a page, Markdown and CSV."""
    from mutbert.evaluation.summary import report_benchmark

    found, files = report_benchmark(results, output, resamples=resamples, force=force, progress=True)
    if as_json:
        averages = [asdict(average) for average in found.averages]
        print_json({"files": [str(path) for path in files], "averages": averages})
        return
    print_table(
        ("suite: model", "protocol", "metric", "average", "95 % interval", "tasks"),
        [
            (
                f"{row.suite}: {row.model}{f' ({row.method})' if row.method else ''}",
                row.protocol,
                row.metric,
                f"{row.value:.3f}",
                f"{row.low:.3f} to {row.high:.3f}",
                f"{row.tasks} of {row.of_tasks}",
            )
            for row in found.averages
        ],
    )
    typer.echo(f"report: {files[0]}")


@app.command("vep", no_args_is_help=True)
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
    from mutbert.evaluation.vep import evaluate_variant_effects
    from mutbert.evaluation.vep_table import VepColumns, columns_of
    from mutbert.reports.vep import REPORT

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
        print_json(result | {"output": str(output)})
        return
    metrics = result["metrics"]
    for part in result["parts"]:
        if part["name"] != result["parts"][0]["name"]:
            continue
        positives = part["compared_positives"]
        which = "" if positives is None else f", {positives:,} are {part['target']}"
        typer.echo(
            f"{part['target']}: {part['compared']:,} of {part['variants']:,} variants are compared{which}"
            + (f"; {part['why']}" if part["why"] else "")
        )
        rows = [
            [
                "–" if row[name] is None else row[name] if isinstance(row[name], str) else f"{row[name]:.3f}"
                for name in (
                    "predictor",
                    "end",
                    *(f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")),
                )
            ]
            for row in part["rows"]
        ]
        if rows:
            print_table(("predictor", "end", *(word for metric in metrics for word in (metric, "low", "high"))), rows)
    what = "higher numbers" if result["problem"] == "regression" else "the class"
    typer.echo(f"end: whether low or high values of a predictor suggest {what}; low and high: 95 % interval")
    for reason, count in result["not_used"].items():
        typer.echo(f"not used: {count:,} {reason}")
    for note in result["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"report: {output / REPORT}")


def _words(texts: list[str] | None) -> tuple[str, ...]:
    """Take words apart that have commas between them."""
    return tuple(word.strip() for text in texts or () for word in text.split(",") if word.strip())


def _places(data: list[str], names: list[str]) -> dict[str, str]:
    """Take ``SUITE=PLACE`` apart; of one suite the name may be left out."""
    places: dict[str, str] = {}
    for entry in data:
        name, equals, place = entry.partition("=")
        if not equals:
            if len(names) != 1:
                raise InputError(f"--data {entry}: say of which suite, --data {names[0]}={entry}")
            name, place = names[0], entry
        if name in places:
            raise InputError(f"--data {name}=... is given twice; give each suite one place")
        places[name] = place
    return places


def _print_suite(suite: Suite) -> None:
    typer.echo(f"{suite.name}: {suite.title}")
    if suite.source:
        typer.echo(f"  {suite.source}")
    if suite.eqtl is not None:
        print_table(
            ("  task", "distance to the TSS", "metric"),
            [
                (
                    f"  {task.name}",
                    f"{task.from_distance:,} to {task.to_distance:,}"
                    if task.to_distance
                    else f"{task.from_distance:,} on",
                    suite.metric,
                )
                for task in suite.eqtl.tasks
            ],
        )
    else:
        print_table(
            ("  task", "problem", "classes", "bases", "metric"),
            [
                (f"  {task.name}", task.problem, len(task.classes), task.length, suite.metric_of(task))
                for task in suite.tasks
            ],
        )
    typer.echo("")
