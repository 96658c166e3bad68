"""The program ``mutbert``: every verb, and what its exit status means.

0: done. 1: done, but parts of it failed, which are named (``mutbert bench run``). 2: the input or the command cannot be
used, said in one line. 130: interrupted.
"""

from __future__ import annotations

import errno
import sys

import typer

from mutbert import __version__
from mutbert.cli import (
    bench,
    convert,
    demo,
    embed,
    export_model,
    finetune,
    genome,
    mutagenesis,
    predict,
    pretrain,
    score,
    simulate,
    tracks,
)
from mutbert.errors import InputError, MissingExtraError

app = typer.Typer(
    name="mutbert",
    help="DNA language models that know how a population varies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mutbert {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """DNA language models that know how a population varies."""


app.add_typer(genome.app, name="genome")
app.add_typer(bench.app, name="bench")
app.command("simulate")(simulate.simulate)
app.command("score", no_args_is_help=True)(score.score)
app.command("pretrain", no_args_is_help=True)(pretrain.pretrain)
app.command("finetune", no_args_is_help=True)(finetune.finetune)
app.command("predict", no_args_is_help=True)(predict.predict)
app.command("embed", no_args_is_help=True)(embed.embed)
app.command("mutagenesis", no_args_is_help=True)(mutagenesis.mutagenesis)
app.command("tracks", no_args_is_help=True)(tracks.tracks)
app.command("convert", no_args_is_help=True)(convert.convert)
app.command("export", no_args_is_help=True)(export_model.export)
app.command("demo")(demo.demo)


def run() -> None:
    """Run the program, and say what a user can mend in one line."""
    try:
        app()
    except (InputError, MissingExtraError) as error:
        _stop(str(error))
    except OSError as error:
        if error.errno == errno.EPIPE:
            # Whoever reads our output has seen enough, as with `mutbert ... | head`.
            sys.stderr.close()
            sys.exit(0)
        if error.errno in {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST}:
            _stop(f"{error.filename or 'output'}: {error.strerror}; choose another name or place")
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
            raise
        _stop(f"{error.filename or 'output'}: {error.strerror}; make room or choose another place")


def _stop(message: str) -> None:
    print(f"mutbert: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
