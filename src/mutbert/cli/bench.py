"""``mutbert bench``: the published benchmarks, one's own, and labelled variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mutbert.cli.command import Verb, make_app, print_result
from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[..., Any]

_HERE = "mutbert.cli.bench"
_REQUEST = {"request": "mutbert.evaluation.run:GridRequest"}
_NAMES = {
    "folder": "--output", "suites": "--suite", "data": "--data [SUITE=]PATH", "methods": "--method",
    "models": "--model [NAME=]PATH", "protocols": "--protocol", "tasks": "--task",
    "settings": "--set [PROTOCOL.]KEY=VALUE",
}  # fmt: skip


def list_suites(*, suites: Sequence[str] = ()) -> dict[str, Any]:
    """List suites, their tasks, and the models that are known by name."""
    from mutbert.encoders.known import MODELS, is_offline
    from mutbert.evaluation.suites import load_suite
    from mutbert.settings import shipped_names

    loaded = [load_suite(name).model_dump(mode="json") for name in suites or shipped_names("suites")]
    return {"suites": loaded, "models": [{**model._asdict(), "offline": is_offline(model)} for model in MODELS]}


def run_grid(function: Function, **options: Any) -> dict[str, Any]:
    """Call `run_benchmark`; print reasons of failures to standard error."""
    summary = function(**options)._asdict()
    for reason, count in summary["failures"].items():
        typer.echo(f"mutbert: {count:,} failed: {reason}", err=True)
    return {**summary, "output": options["folder"]}


def run_cell(function: Function, **options: Any) -> dict[str, Any]:
    """Call `run_benchmark` for one cell, for Snakemake and its like."""
    request = options.pop("request")
    for name in ("suites", "tasks", "models", "protocols", "methods"):
        if len(getattr(request, name)) != 1:
            raise InputError(f"bench cell: needs exactly one --{name.removesuffix('s')}")
    if request.first_seed is None:
        raise InputError("bench cell: needs a --seed")
    return run_grid(function, request=replace(request, seeds=1, baselines=False), **options)


def with_columns(
    function: Function, *, names: str | None = None, columns: Any = None, **options: Any
) -> dict[str, Any]:
    """Call `evaluate_variant_effects`, for a table whose columns have other names than the usual."""
    from mutbert.evaluation.vep_table import columns_of

    return {**function(columns=columns_of(names, columns), **options), "output": options["output"]}


def _print_suites(found: dict[str, Any]) -> None:
    for suite in found["suites"]:
        typer.echo(f"{suite['name']}: {suite['title']}\n  {suite['source']}".rstrip())
        tasks = [
            {"task": one["name"], "problem": one["problem"], "classes": len(one["classes"]), "bases": one["length"],
             "metric": one["metric"] or suite["metric"]} for one in suite["tasks"]
        ]  # fmt: skip
        print_result({"tasks": tasks or suite["eqtl"]["tasks"]})
        typer.echo()
    typer.echo("models: kmer and cnn, which are always run; and by name, or any other folder or repository:")
    columns = ("name", "parameters", "licence", "tokens", "longest", "offline", "place")
    print_result({"models": [{name: model[name] for name in columns} for model in found["models"]]})
    typer.echo("offline: whether the Hub's cache on this machine has all that running a model takes")


def _print_grid(summary: dict[str, Any]) -> None:
    from mutbert.evaluation.results import read_records
    from mutbert.evaluation.summary import costs_of

    costs = costs_of(read_records(Path(summary["output"]))).to_dicts()
    print_result({"costs": costs, **summary, "failures": None, "report": f"mutbert bench report {summary['output']}"})


def _print_effects(result: dict[str, Any]) -> None:
    for part in result["parts"]:
        if part["name"] != result["parts"][0]["name"]:
            continue
        compared = f"{part['compared']:,} of {part['variants']:,} variants are compared"
        if part["compared_positives"] is not None:
            compared += f", {part['compared_positives']:,} are {part['target']}"
        typer.echo(f"{part['target']}: {compared}; {part['why']}".removesuffix("; "))
        ends = [f"{metric}{end}" for metric in result["metrics"] for end in ("", "_low", "_high")]
        print_result({"rows": [{name: row[name] for name in ("predictor", "end", *ends)} for row in part["rows"]]})
    what = "higher numbers" if result["problem"] == "regression" else "the class"
    typer.echo(f"end: whether low or high values of a predictor suggest {what}; low and high: 95% CI")
    report = Path(result["output"]) / "report.html"
    print_result({"not_used": result["not_used"], "notes": result["notes"], "report": report})


_VERBS = {
    "list": Verb(f"{_HERE}:list_suites", "mutbert bench list --suite tfbs", {"suites": "--suite"}, show=_print_suites),
    "run": Verb("mutbert.evaluation.run:run_benchmark",
                "mutbert bench run --suite tfbs --data GUE --model mine=runs/small/model --model dnabert2 -o results",
                {**_NAMES, "baselines": "--baselines/--no-baselines", "first_seed": ""}, settings=_REQUEST,
                wrapper=f"{_HERE}:run_grid", show=_print_grid),
    "cell": Verb("mutbert.evaluation.run:run_benchmark",
                 "mutbert bench cell --suite tfbs --data GUE --task 0 --model dnabert2 --protocol corrected --seed 1 "
                 "-o results",
                 {**_NAMES, "first_seed": "--seed", "seeds": "", "baselines": ""}, settings=_REQUEST,
                 wrapper=f"{_HERE}:run_cell", show=lambda _: None,
                 summary="Run one cell of a grid, for Snakemake and its like; a cell that is done is left as it is."),
    "report": Verb("mutbert.evaluation.summary:report_benchmark", "mutbert bench report results", {"folder": "RESULTS"},
                   text=lambda found: {"averages": found[0].averages.to_dicts(), "report": found[1][0]},
                   data=lambda found: {"files": found[1], "averages": found[0].averages.to_dicts()}),
    "vep": Verb("mutbert.evaluation.vep:evaluate_variant_effects",
                "mutbert bench vep --variants clinvar.vcf.gz --label CLNSIG --positive Pathogenic --model model "
                "--genome human.genome -o clinvar",
                {"models": "--model [NAME=]PATH", "names": "--columns chromosome=NAME,position=NAME,ref=NAME,alt=NAME",
                 **dict.fromkeys(("chromosome", "position", "ref", "alt", "flank", "longest", "distance_bases"), "")},
                settings={"columns": "mutbert.evaluation.vep_table:VepColumns",
                          "settings": "mutbert.effects.scores:ScoreSettings"},
                wrapper=f"{_HERE}:with_columns", show=_print_effects),
}  # fmt: skip

app = make_app(_VERBS, "The published benchmarks, and one's own.")
