"""The program ``mutbert``: every command, and what its exit status means.

0: done. 1: done, but parts of it failed, which are named (``mutbert bench run``). 2: the input or the command cannot be
used; one line explains why. 130, 143: stopped by Ctrl-C or by SIGTERM; one line has how to go on, where a command can.
"""

import errno
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

import mutbert
from mutbert.cli.command import Verb, make_app, print_result
from mutbert.cli.environment import temporary_folder
from mutbert.cli.inspect import print_inspected
from mutbert.errors import FinishedError, InputError, MissingExtraError, is_out_of_memory, one_line, printable

Function = Callable[..., Any]
_REMEDIES = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST), "choose another name or directory"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS), "make room or choose another directory"),
    **dict.fromkeys((errno.EIO, errno.EPERM, errno.ENOLCK, errno.ESTALE), "choose a directory on another disk"),
}
_SOURCES = {"fasta": "--fasta [PREFIX=]FILE", "vcf": "--vcf [PREFIX=]FILE"}
_REQUEST = {"request": "evaluation.run:GridRequest"}
_BENCH_NAMES = {
    "suites": "--suite", "data": "--data [SUITE=]PATH", "methods": "--method",
    "models": "--model [NAME=]PATH", "protocols": "--protocol", "tasks": "--task",
    "settings": "--set [PROTOCOL.]KEY=VALUE",
}  # fmt: skip
_PREDICTION = {"settings": "inference.bases:PredictionSettings"}


def _run_data(result: Any) -> dict[str, Any]:
    return {"model": result.model, "report": result.report, **result.metrics, "history": result.history}


def _print_run(result: Any) -> None:
    names = ("steps", "cross_entropy", "metrics", "splits", "interval", "notes")
    shown = {name: result.metrics.get(name) for name in names}
    print_result({**shown, "model": result.model, "report": result.report})


def _print_suites(found: dict[str, Any]) -> None:
    for suite in found["suites"]:
        typer.echo(printable(f"{suite['name']}: {suite['title']}\n  {suite['source']}").rstrip())
        tasks = [
            {"task": one["name"], "problem": one["problem"], "classes": len(one["classes"]), "bases": one["length"],
             "metric": one["metric"] or suite["metric"]} for one in suite["tasks"]
        ]  # fmt: skip
        if "vep" in suite:
            print_result({"metric": suite["metric"], "columns": suite["vep"]["columns"]})
        else:
            print_result({"tasks": tasks or suite["eqtl"]["tasks"]})
        typer.echo()
    typer.echo("models: kmer and cnn, which are always run; and by name, or any other folder or repository:")
    columns = ("name", "parameters", "licence", "tokens", "longest", "offline", "place")
    print_result({"models": [{name: model[name] for name in columns} for model in found["models"]]})
    typer.echo("offline: whether the Hub's cache on this machine has all that running a model takes")


def _print_grid(summary: dict[str, Any]) -> None:
    from mutbert.evaluation.run import read_records
    from mutbert.evaluation.summary import costs_of

    costs = costs_of(read_records(Path(summary["output"]))).to_dicts()
    print_result({"costs": costs, **summary, "failures": None, "report": f"mutbert bench report {summary['output']}"})


def _print_effects(result: dict[str, Any]) -> None:
    for part in (one for one in result["parts"] if one["name"] == result["parts"][0]["name"]):
        compared = f"{part['compared']:,} of {part['variants']:,} variants are compared"
        if part["compared_positives"] is not None:
            compared += f", {part['compared_positives']:,} are {part['target']}"
        typer.echo(printable(f"{part['target']}: {compared}; {part['why']}").removesuffix("; "))
        ends = [f"{metric}{end}" for metric in result["metrics"] for end in ("", "_low", "_high")]
        print_result({"rows": [{name: row[name] for name in ("predictor", "end", *ends)} for row in part["rows"]]})
    what = "higher numbers" if result["problem"] == "regression" else "the class"
    typer.echo(f"end: whether low or high values of a predictor suggest {what}; low and high: 95% CI")
    report = Path(result["output"]) / "report.html"
    print_result({"not_used": result["not_used"], "notes": result["notes"], "report": report})


_GENOME_VERBS = {
    "build": Verb("genome.build:build_genome", "--fasta ref.fa.gz --vcf population.vcf.gz -o human.genome",
                  {**_SOURCES, "filters": "--filter"}),
    "inspect": Verb("cli.inspect:inspect_genomes", "europe.genome africa.genome --plot spectra.svg",
                    {"genomes": "GENOME"}, show=print_inspected,
                    data=lambda genomes: {"genomes": genomes} if len(genomes) > 1 else genomes[0]),
    "verify": Verb("genome.verify:verify_genome", "human.genome --fasta ref.fa.gz --vcf population.vcf.gz",
                   {**_SOURCES, "genome": "GENOME"}),
    "export": Verb("genome.export:export_genome", "human.genome -o consensus.fa.gz --as consensus",
                   {"genome": "GENOME", "kind": "--as KIND", "regions": "--region"}, wrapper="with_regions", stdout=""),
    "merge": Verb("genome.build:merge_genomes", "chr21.genome chr22.genome -o human.genome", {"genomes": "GENOME"}),
}  # fmt: skip
_VERBS = {
    "simulate": Verb("genome.simulate:simulate_population", "-o population"),
    "score": Verb("effects.score:score_variants",
                  "--model model --genome human.genome --vcf variants.vcf.gz -o scored.vcf.gz",
                  {"region": "--region CHR:START-END", "variants": "--variant CHR:POSITION:REF:ALT"},
                  wrapper="with_variants", runs_model=True, stdout=".vcf"),
    "pretrain": Verb("training.pretrain:pretrain", "small genome=human.genome 'train=[chr1]' 'held_out=[chr2]'",
                     {"recipe": "RECIPE", "overrides": "KEY=VALUE"}, wrapper="in_processes", show=_print_run,
                     data=_run_data, runs_model=True),
    "finetune": Verb("training.finetune:finetune", "model=runs/small/model train=train.csv test=test.csv output=mine",
                     {"recipe": "", "settings": "SETTING"}, wrapper="with_settings", show=_print_run, data=_run_data,
                     runs_model=True),
    "predict": Verb("inference.predictions:predict_table", "sequences.fa --model runs/mine/model -o predictions.tsv",
                    {"sequences": "SEQUENCES", "sequence": "--sequence-column", "name": "--name-column",
                     "region": "--region-column", "label": "", "where": ""},
                    settings={"columns": "examples.table:Columns"}, runs_model=True, stdout=".tsv"),
    "likelihood": Verb("inference.predictions:score_sequences", "sequences.fa --model model > likelihoods.tsv",
                       {"sequences": "SEQUENCES"}, _PREDICTION, data=lambda table: table.to_dict(as_series=False),
                       show=lambda table: typer.echo(table.write_csv(separator="\t"), nl=False), runs_model=True),
    "embed": Verb("inference.embeddings:embed",
                  "--model model --genome human.genome --bed regions.bed -o regions.parquet",
                  wrapper="with_layers", runs_model=True),
    "mutagenesis": Verb("inference.bases:mutate_region",
                        "--model model --genome human.genome --region chr1:1001-1120 -o x.parquet",
                        {"figures": "--figure"}, _PREDICTION, "with_figures", runs_model=True),
    "tracks": Verb("inference.bases:write_tracks",
                   "--model model --genome human.genome --region chr1:1-20000 -o entropy.bw",
                   {"tracks": "--track", "regions": "--region"}, _PREDICTION, "with_regions", runs_model=True),
    "explore": Verb("explorer:explore",
                    "--genome human.genome --model model --vcf scored.vcf.gz --region chr22:17000001-17100000 "
                    "-o page.html",
                    {"regions": "--region"}, _PREDICTION, "with_regions", runs_model=True),
    "convert": Verb("model.checkpoints:convert_checkpoint", "JadenLong/MutBERT model",
                    {"source": "SOURCE", "output": "DESTINATION"}),
    "export": Verb("export:export_model", "runs/small -o to-share --name someone/my-model --license cc-by-4.0",
                   {"source": "MODEL", "license": "--license ID"}),
    "report": Verb("reports.folder:report", "runs/small", {"folder": "FOLDER", "force": ""},
                   data=lambda path: {"report": path}, show=lambda path: print_result({"report": path})),
    "download": Verb("download:download_data", "1000g --contigs chr22 -o data", {"name": "NAME"}),
    "demo": Verb("demo:run_demo", "-o demo", runs_model=True),
}  # fmt: skip
_BENCH_VERBS = {
    "list": Verb("cli.main:list_suites", "--suite tfbs", {"suites": "--suite"}, show=_print_suites),
    "run": Verb("evaluation.run:run_benchmark",
                "--suite tfbs --data GUE --model mine=runs/small/model --model dnabert2 -o results",
                {**_BENCH_NAMES, "baselines": "--baselines/--no-baselines", "first_seed": ""}, _REQUEST, "run_grid",
                show=_print_grid, runs_model=True),
    "cell": Verb("evaluation.run:run_benchmark",
                 "--suite tfbs --data GUE --task 0 --model dnabert2 --protocol corrected --seed 1 -o results",
                 {**_BENCH_NAMES, "first_seed": "--seed", "seeds": "", "baselines": ""}, _REQUEST, "run_cell",
                 show=lambda _: None, runs_model=True,
                 summary="Run one cell of a grid, for Snakemake and its like; a cell that is done is left as it is."),
    "report": Verb("evaluation.summary:report_benchmark", "results", {"folder": "RESULTS"},
                   data=lambda found: {"files": found[1], "averages": found[0].averages.to_dicts()},
                   show=lambda found: print_result({"averages": found[0].averages.to_dicts(), "report": found[1][0]})),
    "vep": Verb("evaluation.vep:evaluate_variant_effects",
                "--variants clinvar.vcf.gz --label CLNSIG --positive Pathogenic --model model --genome human.genome "
                "-o clinvar",
                {"models": "--model [NAME=]PATH", "names": "--columns chrom=NAME,pos=NAME,ref=NAME,alt=NAME",
                 **dict.fromkeys(("chrom", "pos", "ref", "alt", "flank", "longest", "distance_bases"), "")},
                {"columns": "evaluation.vep_table:VepColumns", "settings": "effects.scores:ScoreSettings"},
                "with_vep_columns", show=_print_effects, runs_model=True),
}  # fmt: skip

_WORKFLOW_VERBS = {
    "list": Verb("cli.workflow:list_workflow", ""),
    "copy": Verb("cli.workflow:copy_workflow", "my-study", {"directory": "DIRECTORY"}),
}

app = make_app("mutbert", _VERBS, "DNA language models that know how a population varies.")
genome = make_app("mutbert genome", _GENOME_VERBS, "Build, inspect, verify, export and merge probabilistic genomes.")
app.add_typer(genome)
app.add_typer(make_app("mutbert bench", _BENCH_VERBS, "The published benchmarks, and one's own."))
app.add_typer(make_app("mutbert workflow", _WORKFLOW_VERBS, "All of it as a workflow, for Snakemake and clusters."))


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mutbert {mutbert.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None: ...


# Options of commands that are no parameters of the public functions: each has them, and calls the function.


def with_regions(function: Function, *, contigs: Sequence[str] = (), regions: Sequence[str] = (), **rest: Any) -> Any:
    """Call a function of regions, with whole contigs among them."""
    return function(**rest, **({"regions": (*contigs, *regions)} if contigs or regions else {}))


def with_variants(
    function: Function, *, vcf: str | None = None, variants: Sequence[str] = (), all_snvs: bool = False,
    output: str | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Call `score_variants` for a VCF, or `score_all_snvs`; or for alleles, whose rows it returns without an output."""
    if sum([vcf is not None, bool(variants), all_snvs]) != 1:
        raise InputError("score: needs a --vcf, --all-snvs, or alleles, as in --variant chr22:17000515:T:C")
    if all_snvs or vcf is not None:
        if output is None:
            what = "an --output is needed, such as scored.vcf.gz, or - for standard output"
            raise InputError(f"{vcf or '--all-snvs'}: {what}")
        if vcf is not None:
            return function(vcf=vcf, output=output, **options)
        usual, own = (inspect.signature(one).parameters for one in (function, mutbert.score_all_snvs))
        given = {name: value for name, value in options.items() if value != usual[name].default}
        if others := sorted(given.keys() - own.keys()):
            raise InputError(f"--all-snvs: --{others[0].replace('_', '-')} is for the records of a VCF; leave it out")
        return mutbert.score_all_snvs(output=output, **given)
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for variant in variants:
        found = re.fullmatch(r"(\S+):([0-9][0-9,]*):([A-Za-z]+):([A-Za-z]+|\*)", variant)
        if found is None:
            raise InputError(f"--variant {variant}: must be CHR:POSITION:REF:ALT, such as chr22:17000515:T:C")
        contig, position, ref, alt = found.groups()
        lines.append("\t".join([contig, position.replace(",", ""), ".", ref, alt, ".", ".", "."]))
    with temporary_folder() as folder:
        # Its name is the option's, for messages.
        (path := folder / "--variant").write_text("\n".join([*lines, ""]), encoding="utf-8")
        report = function(vcf=path, output=output or folder / "scores.parquet", **options)
        if output is not None:
            return report
        import polars as pl

        return {"variants": pl.read_parquet(folder / "scores.parquet").drop("id").to_dicts()}


def with_figures(function: Function, *, figures: Sequence[str] = (), force: bool = False, **options: Any) -> Any:
    """Call a function that writes a table, and draw it."""
    if figures:
        from mutbert.reports.mutagenesis_figures import draw_mutagenesis
        from mutbert.reports.plots import check_figures

        check_figures(figures, force=force)
    report = function(**options, force=force)
    if figures:
        draw_mutagenesis(report["output"], figures, force=force)
    return report | {"figures": figures}


def with_layers(function: Function, *, layers: str = "-1", **options: Any) -> Any:
    """Call a function of a model's layers."""
    numbers = layers.split(",")
    if layers != "all" and not all(number.strip().removeprefix("-").isdecimal() for number in numbers):
        raise InputError(f"--layers {layers}: must be numbers separated by commas, such as 4,8,-1, or all")
    return function(**options, layers=layers if layers == "all" else [int(number) for number in numbers])


def with_settings(function: Function, *, settings: Sequence[str], **options: Any) -> Any:
    """Call a function of a recipe."""
    from mutbert.settings import read_settings
    from mutbert.training.recipe import FinetuneRecipe

    path = None if "=" in settings[0] else Path(settings[0])
    recipe = read_settings(FinetuneRecipe, path, settings if path is None else settings[1:])
    return in_processes(function, recipe=recipe, **options)


def in_processes(function: Function, **options: Any) -> Any:
    """Call a function that several processes run together, and leave the group."""
    result = function(**options)
    from accelerate import PartialState

    PartialState().destroy_process_group()
    return result


def list_suites(*, suites: Sequence[str] = ()) -> dict[str, Any]:
    """List suites, their tasks, and the models that are known by name."""
    from mutbert.encoders.known import MODELS, is_offline
    from mutbert.evaluation.suites import load_suite
    from mutbert.settings import shipped_names

    loaded = [load_suite(name).model_dump(mode="json") for name in suites or shipped_names("suites")]
    return {"suites": loaded, "models": [{**model._asdict(), "offline": is_offline(model)} for model in MODELS]}


def run_grid(function: Function, **options: Any) -> dict[str, Any]:
    """Call `run_benchmark`; print reasons of failures to standard error."""
    try:
        summary = function(**options)
    except BaseException as error:
        error.add_note("the same command goes on with the cells that are missing")
        raise
    for reason, count in summary["failures"].items():
        typer.echo(printable(f"mutbert: {count:,} failed: {reason}"), err=True)
    return {**summary, "output": options["output"]}


def run_cell(function: Function, **options: Any) -> dict[str, Any]:
    """Call `run_benchmark` for one cell, for Snakemake and its like."""
    request = options.pop("request")
    given = {name: len(getattr(request, f"{name}s")) for name in ("suite", "task", "model", "protocol", "method")}
    for name, count in {**given, "seed": request.first_seed is not None}.items():
        if count != 1:
            raise InputError(f"bench cell: needs exactly one --{name}")
    return run_grid(function, request=replace(request, seeds=1, baselines=False), **options)


def with_vep_columns(
    function: Function, *, variants: str | None = None, names: str | None = None, columns: Any = None, **options: Any
) -> Any:
    """Call `evaluate_variant_effects`, for a suite's table, or one whose columns have other names than the usual.

    Parameters
    ----------
    variants
        CSV, TSV, Parquet, VCF or BCF, or hf://..., positions 1-based; of a suite a folder, by default the Hub's.
    """
    from mutbert.evaluation.vep_table import columns_of

    found = function(variants=variants, columns=columns_of(names, columns), **options)
    return {**found, "output": options["output"]}


class _StoppedError(BaseException):
    """A signal that ends the program; with notes on how to go on."""


def _end(number: int, _: Any) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # processes that load data may end by the same signal
    raise _StoppedError(number)


def run() -> None:
    """Run the program, and print what a user can mend in one line."""
    # The number of a closed stream would be that of the next file that is opened, and get what is meant for the stream.
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    try:
        Path.cwd()
    except OSError as error:
        _stop(f"the working directory cannot be used ({error.strerror}); change to another")
    # What is ignored, as by nohup, remains so.
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    for number in (one for one, handler in handlers.items() if handler is not signal.SIG_IGN):
        signal.signal(number, _end)
    # What a thread cannot write, the main one reports.
    threading.excepthook = lambda failed: isinstance(failed.exc_value, OSError) or threading.__excepthook__(failed)
    # Processes that load data are ended as before.
    os.register_at_fork(after_in_child=lambda: list(map(signal.signal, handlers, handlers.values())))
    try:
        app()
    except _StoppedError as stopped:
        _stop("; ".join(["stopped", *getattr(stopped, "__notes__", [])]), 128 + stopped.args[0])
    except (InputError, MissingExtraError) as error:
        _stop(str(error), 0 if isinstance(error, FinishedError) else 2)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("mutbert"):
            raise
        _stop(str(MissingExtraError(error.name.partition(".")[0])))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _stop(f"out of memory ({one_line(error, 160)}); lower --batch-size, --context or --workers, as the command has")
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        _stop(f"{error.filename or 'output'}: {error.strerror}; {_REMEDIES[error.errno]}")


def _stop(message: str, status: int = 2) -> None:
    print(f"mutbert: {one_line(message, 1 << 20)}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
