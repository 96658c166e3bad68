"""The program ``mutbert``: every command, and what its exit status means.

0: done. 1: done, but parts of it failed, which are named (``mutbert bench run``). 2: the input or the command cannot be
used; one line explains why. 130: interrupted.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mutbert import __version__
from mutbert.cli import bench
from mutbert.cli.command import Verb, make_app
from mutbert.cli.inspect import print_inspected
from mutbert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[..., Any]

_REMEDIES = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST), "choose another name or directory"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS), "make room or choose another directory"),
}
_HERE = "mutbert.cli.main"
_SOURCES = {"fasta": "--fasta [PREFIX=]FILE", "vcf": "--vcf [PREFIX=]FILE"}
_PREDICTION = {"settings": "mutbert.inference.bases:PredictionSettings"}


def _run_data(result: Any) -> dict[str, Any]:
    return {"model": result.model, "report": result.report, **result.metrics, "history": result.history}


def _run_text(result: Any) -> dict[str, Any]:
    names = ("steps", "cross_entropy", "metrics", "splits", "interval", "notes")
    return {name: result.metrics.get(name) for name in names} | {"model": result.model, "report": result.report}


_GENOME_VERBS = {
    "build": Verb("mutbert.genome.build:build_genome",
                  "mutbert genome build --fasta ref.fa.gz --vcf population.vcf.gz -o human.genome",
                  {**_SOURCES, "filters": "--filter"}),
    "inspect": Verb("mutbert.cli.inspect:inspect_genomes",
                    "mutbert genome inspect europe.genome africa.genome --plot spectra.svg",
                    {"genomes": "GENOME"}, show=print_inspected,
                    data=lambda genomes: {"genomes": genomes} if len(genomes) > 1 else genomes[0]),
    "verify": Verb("mutbert.genome.verify:verify_genome",
                   "mutbert genome verify human.genome --fasta ref.fa.gz --vcf population.vcf.gz",
                   {**_SOURCES, "genome": "GENOME"}),
    "export": Verb("mutbert.genome.export:export_genome",
                   "mutbert genome export human.genome -o consensus.fa.gz --as consensus",
                   {"genome": "GENOME", "kind": "--as KIND", "regions": "--region"}, wrapper=f"{_HERE}:with_regions"),
    "merge": Verb("mutbert.genome.build:merge_genomes",
                  "mutbert genome merge chr21.genome chr22.genome -o human.genome", {"genomes": "GENOME"}),
}  # fmt: skip
_VERBS = {
    "simulate": Verb("mutbert.genome.simulate:simulate_population", "mutbert simulate -o population"),
    "score": Verb("mutbert.effects.score:score_variants",
                  "mutbert score --model model --genome human.genome --vcf variants.vcf.gz -o scored.vcf.gz",
                  {"region": "--region CHR:START-END"}),
    "pretrain": Verb("mutbert.training.pretrain:pretrain",
                     "mutbert pretrain small genome=human.genome 'train=[chr1]' 'held_out=[chr2]'",
                     {"recipe": "RECIPE", "overrides": "KEY=VALUE"}, wrapper=f"{_HERE}:in_processes",
                     text=_run_text, data=_run_data),
    "finetune": Verb("mutbert.training.finetune:finetune",
                     "mutbert finetune model=runs/small/model train=train.csv test=test.csv output=runs/mine",
                     {"recipe": "", "settings": "SETTING"}, wrapper=f"{_HERE}:with_settings",
                     text=_run_text, data=_run_data),
    "predict": Verb("mutbert.inference.predictions:predict_table",
                    "mutbert predict sequences.fa --model runs/mine/model -o predictions.tsv",
                    {"sequences": "SEQUENCES"}, wrapper=f"{_HERE}:with_columns"),
    "embed": Verb("mutbert.inference.embeddings:embed",
                  "mutbert embed --model model --genome human.genome --bed regions.bed -o regions.parquet",
                  wrapper=f"{_HERE}:with_layers"),
    "mutagenesis": Verb("mutbert.inference.bases:mutate_region",
                        "mutbert mutagenesis --model model --genome human.genome --region chr1:1001-1120 -o x.parquet",
                        {"figures": "--figure"}, settings=_PREDICTION, wrapper=f"{_HERE}:with_figures"),
    "tracks": Verb("mutbert.inference.bases:write_tracks",
                   "mutbert tracks --model model --genome human.genome --region chr1:1-20000 -o entropy.bw",
                   {"tracks": "--track", "contigs": "--contig", "regions": "--region"}, settings=_PREDICTION,
                   wrapper=f"{_HERE}:with_regions"),
    "convert": Verb("mutbert.model.checkpoints:convert_checkpoint", "mutbert convert JadenLong/MutBERT model",
                    {"source": "SOURCE", "output": "DESTINATION"}),
    "export": Verb("mutbert.export:export_model",
                   "mutbert export runs/small -o to-share --name someone/my-model --license cc-by-4.0",
                   {"source": "MODEL", "licence": "--license ID"}),
    "report": Verb("mutbert.reports.folder:report", "mutbert report runs/small", {"folder": "FOLDER", "force": ""},
                   data=(page := lambda path: {"report": path}), text=page),
    "demo": Verb("mutbert.demo:run_demo", "mutbert demo -o demo"),
}  # fmt: skip

app = make_app(_VERBS, "DNA language models that know how a population varies.", name="mutbert")
genome = make_app(_GENOME_VERBS, "Build, inspect, verify, export and merge probabilistic genomes.")
app.add_typer(genome, name="genome")
app.add_typer(bench.app, name="bench")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mutbert {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """DNA language models that know how a population varies."""


# Options of commands that are no parameters of the public functions: each has them, and calls the function.


def with_regions(
    function: Function, *, contigs: Sequence[str] = (), regions: Sequence[str] = (), **options: Any
) -> Any:
    """Call a function of regions, with whole contigs among them."""
    located = {"regions": (*contigs, *regions)} if contigs or regions else {}
    return function(**options, **located)


def with_columns(
    function: Function, *, sequence: str = "sequence", name: str | None = None, region: str | None = None, **rest: Any
) -> Any:
    """Call a function of a table's columns."""
    from mutbert.examples.files import Columns

    return function(**rest, columns=Columns(sequence=sequence, label=(), name=name, region=region))


def with_figures(function: Function, *, figures: Sequence[str] = (), force: bool = False, **options: Any) -> Any:
    """Call a function that writes a table, and draw it."""
    if figures:
        from mutbert.reports.mutagenesis_figures import check_figures, draw_mutagenesis

        check_figures([Path(path) for path in figures], force=force)
    report = function(**options, force=force)
    if figures:
        draw_mutagenesis(report.output, figures, force=force)
    return vars(report) | {"figures": figures}


def with_layers(function: Function, *, layers: str = "-1", **options: Any) -> Any:
    """Call a function of a model's layers."""
    numbers = layers.split(",")
    if layers != "all" and not all(number.strip().removeprefix("-").isdecimal() for number in numbers):
        raise InputError(f"--layers {layers}: must be numbers separated by commas, such as 4,8,-1, or all")
    return function(**options, layers=layers if layers == "all" else [int(number) for number in numbers])


def with_settings(function: Function, *, settings: Sequence[str], **options: Any) -> Any:
    """Call a function of a recipe."""
    from mutbert.training.finetune import read_finetune_recipe

    path = None if "=" in settings[0] else Path(settings[0])
    recipe = read_finetune_recipe(path, settings if path is None else settings[1:])
    return in_processes(function, recipe=recipe, **options)


def in_processes(function: Function, **options: Any) -> Any:
    """Call a function that several processes run together, and leave the group."""
    from mutbert.training.pretrain import leave_other_processes

    result = function(**options)
    leave_other_processes()
    return result


def run() -> None:
    """Run the program, and print what a user can mend in one line."""
    try:
        app()
    except (InputError, MissingExtraError) as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("mutbert"):
            raise
        _stop(str(MissingExtraError(error.name.partition(".")[0])))
    except OSError as error:
        if error.errno == errno.EPIPE:
            # Whoever reads our output has seen enough, as with `mutbert ... | head`.
            sys.stderr.close()
            sys.exit(0)
        if error.errno not in _REMEDIES:
            raise
        _stop(f"{error.filename or 'output'}: {error.strerror}; {_REMEDIES[error.errno]}")


def _stop(message: str) -> None:
    print(f"mutbert: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
