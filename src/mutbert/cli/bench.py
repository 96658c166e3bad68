"""``mutbert bench list``, ``run``, ``cell``, ``report`` and ``vep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mutbert.cli.options import AsJson, Force, TrustRemoteCode  # noqa: TC001
from mutbert.cli.printing import print_json, print_table
from mutbert.cli.vep import vep
from mutbert.errors import InputError

if TYPE_CHECKING:
    from mutbert.evaluation.run import GridSummary
    from mutbert.evaluation.suites import Suite

app = typer.Typer(help="The published benchmarks, and one's own.", no_args_is_help=True)
app.command("vep", no_args_is_help=True)(vep)

_Output = Annotated[Path, typer.Option("--output", "-o", help="The results folder; an existing one is continued.")]
_Suites = Annotated[
    list[str] | None, typer.Option("--suite", help="A shipped suite (tfbs, nt, eqtl) or a YAML file; may be repeated.")
]
_Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="[SUITE=]PATH", help="A suite's files: a folder, or hf://datasets/OWNER/NAME[@REVISION]."
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[PROTOCOL.]KEY=VALUE",
        help="Change a protocol, for example finetune.precision=bf16 or corrected.finetune.learning_rate=1e-4.",
    ),
]
_Genome = Annotated[
    Path | None,
    typer.Option("--genome", help="A genome store: allele frequencies for MutBERT where coordinates are known."),
]
_Fasta = Annotated[Path | None, typer.Option("--fasta", help="The reference, for eQTL without a genome store.")]
_DropLeaks = Annotated[
    bool,
    typer.Option("--drop-leaks", help="Drop training sequences that validation or test data have, on either strand."),
]


@app.command("list")
def list_suites(suites: _Suites = None, as_json: AsJson = False) -> None:
    """List suites, their tasks, and the models that are known by name."""
    from mutbert.encoders.known import MODELS, is_offline
    from mutbert.evaluation.suites import load_suite, shipped_suites

    loaded = [load_suite(name) for name in suites or shipped_suites()]
    if as_json:
        models = [model._asdict() | {"offline": is_offline(model)} for model in MODELS]
        print_json({"suites": [suite.model_dump(mode="json") for suite in loaded], "models": models})
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
    output: _Output,
    suites: _Suites = None,
    data: _Data = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]PATH",
            help="A known name, a folder or a repository; random:PATH for fresh weights. May be repeated.",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="full (default), lora or probe; may be repeated.")
    ] = None,
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", help="published or corrected; both where left out.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task, or SUITE/TASK; may be repeated.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="How many seeds, in place of the protocol's number.")
    ] = None,
    settings: _Settings = None,
    genome: _Genome = None,
    fasta: _Fasta = None,
    drop_leaks: _DropLeaks = False,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Run kmer and cnn too.")] = True,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Run the cells of a grid of tasks, models and seeds that are missing; several processes may share a folder."""
    summary = _run(
        output, suites, data, models=models, methods=methods, protocols=protocols, tasks=tasks, seeds=seeds,
        settings=settings, genome=genome, fasta=fasta, drop_leaks=drop_leaks, baselines=baselines,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if as_json:
        print_json(summary._asdict() | {"output": str(output)})
    else:
        _print_progress(output)
        typer.echo(
            f"{output}: {summary.done:,} cells done, {summary.before:,} were done before, {summary.failed:,} failed"
            + (f", {summary.elsewhere:,} are left to other processes" if summary.elsewhere else "")
        )
        typer.echo(f"report: mutbert bench report {output}")
    _exit(summary)


@app.command("cell", no_args_is_help=True)
def cell(
    output: _Output,
    suite: Annotated[str, typer.Option("--suite", help="A shipped suite (tfbs, nt, eqtl) or a YAML file.")],
    task: Annotated[str, typer.Option("--task", help="A task of the suite.")],
    model: Annotated[str, typer.Option("--model", metavar="[NAME=]PATH", help="As for run; or kmer or cnn.")],
    protocol: Annotated[str, typer.Option("--protocol", help="published or corrected.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed.")],
    method: Annotated[str, typer.Option("--method", help="full, lora or probe.")] = "full",
    data: _Data = None,
    settings: _Settings = None,
    genome: _Genome = None,
    fasta: _Fasta = None,
    drop_leaks: _DropLeaks = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run one cell of a grid, for Snakemake and its like; a cell that is done is left as it is."""
    summary = _run(
        output, [suite], data, models=[model], methods=[method], protocols=[protocol], tasks=[task], seeds=1,
        first_seed=seed, settings=settings, genome=genome, fasta=fasta, drop_leaks=drop_leaks, baselines=False,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    _exit(summary)


@app.command("report", no_args_is_help=True)
def report(
    results: Annotated[Path, typer.Argument(help="The results folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; the results folder if left out.")
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Of intervals and p-values.")] = 2000,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a grid's report: a page and CSV tables."""
    from mutbert.evaluation.summary import report_benchmark

    found, files = report_benchmark(results, output, resamples=resamples, force=force, progress=True)
    averages = found.averages.to_dicts()
    if as_json:
        print_json({"files": [str(path) for path in files], "averages": averages})
        return
    print_table(
        ("suite: model", "protocol", "metric", "average", "95 % interval", "tasks"),
        [
            (
                _label(row),
                row["protocol"],
                row["metric"],
                f"{row['value']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{row['tasks']} of {row['of_tasks']}",
            )
            for row in averages
        ],
    )
    typer.echo(f"report: {files[0]}")


def _run(output: Path, suites: list[str] | None, data: list[str] | None, **options: Any) -> GridSummary:
    if not suites:
        raise InputError("no suite was given; add --suite tfbs, nt, eqtl or a YAML file")
    from mutbert.evaluation.run import GridRequest, run_benchmark
    from mutbert.evaluation.suites import load_suite

    places: dict[str, str] = {}
    for entry in data or ():
        # Of one suite the name may be left out.
        name, equals, path = entry.partition("=")
        if not equals:
            name, path = load_suite(suites[0]).name, entry
            if len(suites) > 1:
                raise InputError(f"--data {entry}: name the suite, --data {name}={entry}")
        if name in places:
            raise InputError(f"--data {name}=... is given twice; each suite has one")
        places[name] = path
    # Lists become tuples, and what was left out has the request's default.
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }
    return run_benchmark(output, GridRequest(tuple(suites), places, **chosen), progress=True)


def _exit(summary: GridSummary) -> None:
    for reason, count in summary.failures.items():
        typer.echo(f"mutbert: {count:,} failed: {reason}", err=True)
    if summary.failed:
        raise typer.Exit(1)


def _print_progress(folder: Path) -> None:
    from mutbert.evaluation.results import read_records
    from mutbert.evaluation.summary import costs_of

    print_table(
        ("suite: model", "protocol", "done", "failed", "mean", "seconds", "tokens/s", "memory"),
        [
            (
                _label(row),
                row["protocol"],
                row["cells"],
                row["failed"],
                "" if row["value"] is None else f"{row['metric']} {row['value']:.3f}",
                f"{row['seconds']:,.0f}",
                "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:,.0f}",
                "" if row["peak_memory"] is None else f"{row['peak_memory'] / 1e9:.1f} GB",
            )
            for row in costs_of(read_records(folder)).to_dicts()
        ],
    )


def _label(row: dict[str, Any]) -> str:
    return f"{row['suite']}: {row['model']}" + (f" ({row['method']})" if row["method"] else "")


def _print_suite(suite: Suite) -> None:
    typer.echo(f"{suite.name}: {suite.title}")
    if suite.source:
        typer.echo(f"  {suite.source}")
    header: tuple[str, ...] = ("  task", "problem", "classes", "bases", "metric")
    rows: list[tuple[object, ...]] = [
        (f"  {task.name}", task.problem, len(task.classes), task.length, suite.metric_of(task)) for task in suite.tasks
    ]
    if suite.eqtl is not None:
        header = ("  task", "distance to the TSS", "metric")
        for task in suite.eqtl.tasks:
            end = f"to {task.to_distance:,}" if task.to_distance else "on"
            rows.append((f"  {task.name}", f"{task.from_distance:,} {end}", suite.metric))
    print_table(header, rows)
    typer.echo("")
