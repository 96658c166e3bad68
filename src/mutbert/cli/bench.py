"""``mutbert bench list``, ``run`` and ``report``."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mutbert.cli.printing import print_json, print_table
from mutbert.errors import InputError

if TYPE_CHECKING:
    from mutbert.evaluation.suites import Suite

app = typer.Typer(help="The published benchmarks, and one's own.", no_args_is_help=True)

_SUITE = typer.Option(None, "--suite", help="A shipped suite (tfbs, nt, eqtl) or one's own YAML file; may be repeated.")


@app.command("list")
def list_suites(
    suites: list[str] | None = _SUITE,
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """List suites, their tasks, and the models that are known by name."""
    from mutbert.encoders.known import MODELS
    from mutbert.evaluation.suites import load_suite, shipped_suites

    loaded = [load_suite(name) for name in suites or shipped_suites()]
    if as_json:
        print_json({"suites": [asdict(suite) for suite in loaded], "models": [asdict(model) for model in MODELS]})
        return
    for suite in loaded:
        _print_suite(suite)
    typer.echo("models: kmer and cnn, which are always run; and by name, or any other folder or repository:")
    print_table(
        ("model", "family", "parameters", "repository", "runs its own code"),
        [
            (model.name, model.family, f"{model.parameters:,}", model.place, "yes" if model.remote_code else "no")
            for model in MODELS
        ],
    )


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
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with checkpoints (DNABERT-2, NT v2, Caduceus)."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Run a grid of tasks, models and seeds; what is done already is not done again."""
    part = re.fullmatch(r"(\d+)/(\d+)", shard)
    if part is None:
        raise InputError(f"--shard {shard}: give I/N, for example 1/4")
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
        shard=(int(part[1]), int(part[2])),
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
