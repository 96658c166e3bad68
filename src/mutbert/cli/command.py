"""Commands made of functions: parameters become options, the docstring becomes the help, and the result is printed.

A function is read as source and imported only when its command runs, so that help and completion are quick and need
none of the libraries that running takes.
"""

import ast
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

import mutbert
from mutbert.cli.environment import running_on, streamed
from mutbert.errors import InputError, printable

# Help of parameters that many functions share, where a docstring has none of their own.
_SHARED = {
    "all_snvs": "Score every SNV of the genome, of --region or of --bed; the output may then also be .bw or .bedgraph, "
    "with the lowest LLR at each position, or a directory, with a Parquet file per contig.",
    "batch_size": "Sequences or windows per batch.",
    "context": "Bases per window; by default as in training.",
    "contigs": "Whole contigs, comma-separated or repeated.",
    "device": "cpu, cuda, or one GPU of several, such as cuda:1; by default a GPU if there is one.",
    "figures": "Also draw the table, as .png or .svg; may be repeated.",
    "force": "Replace the output where it exists.",
    "json": "Print the result as one JSON object.",
    "layers": "0 is the embedding layer, -1 the last: one or several (4,8,-1), or all.",
    "names": "Columns of a table that have other names than the usual.",
    "precision": "fp32, or bf16 for bfloat16 autocast.",
    "regions": "A region such as chr22:101-200, 1-based and inclusive; may be repeated.",
    "resume": "Continue a run that was stopped.",
    "rope_scaling": "For inputs longer than in training: linear or dynamic, and how many times longer.",
    "sequence": "Column of the sequences.",
    "settings": "A recipe, settings, or both: model=, train=, output= and more.",
    "strands": "forward, or both for their mean: by default both for likelihoods, forward for sequences as given.",
    "suites": "A shipped suite (tfbs, nt, eqtl) or a YAML file; may be repeated.",
    "threads": "Threads of the CPU; by default as many as it has cores.",
    "trust_remote_code": "Run code that comes with a checkpoint; known models need none.",
    "variants": "An allele to score, without a VCF; may be repeated.",
}
_COMMA_SEPARATED = {"contigs", "exclude", "filters", "negative", "positive", "scores"}
_LISTS = ("Sequence[", "tuple[", "Sources", "inputs.Sources", "Mapping[str, str]", "Model |")
_HIDDEN = {"bases_at_once", "columns", "function", "progress"}


def record_of(result: Any) -> Any:
    """Return the values of a result by their names as JSON has them, with paths and regions as text."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and type(value).__str__ is object.__str__ else str(value)  # type: ignore[arg-type]

    if hasattr(result, "_asdict"):
        result = result._asdict()
    elif not isinstance(result, Mapping):
        result = {**vars(result), **({"agrees": result.agrees} if hasattr(result, "agrees") else {})}
    return json.loads(json.dumps(dict(result), default=plain))


def print_result(result: Any) -> None:
    """Print a result, a line each: counts with their sum, numbers in two dimensions and records as tables."""
    for name, value in record_of(result).items():
        label, is_dict = name.replace("_", " "), isinstance(value, dict)
        values = list(value.values()) if is_dict else value if isinstance(value, list) else []
        first = values[0] if values else None
        if name == "records" and values:
            _print_records(values)
        elif is_dict and isinstance(first, dict):
            print_table((label, *value), ((key, *(_text(one.get(key)) for one in values)) for key in first))
        elif is_dict and values:
            total = f" {sum(values):,}" if all(isinstance(one, int) for one in values) else ""
            known = {str(key).replace("_", " "): _text(one) for key, one in value.items() if one is not None}
            _print_entries(f"{label}:{total}", [f"{key}: {text}" for key, text in known.items()])
        elif isinstance(first, dict):
            # Positions are as in files.
            rows = ([str(one) if key == "pos" else _text(one) for key, one in row.items()] for row in values)
            print_table(first, rows)
        elif isinstance(first, str) and " " in first:
            _print_entries(f"{label}:", values)
        elif value not in (None, "", [], {}):
            typer.echo(printable(f"{label}: {_text(value)}"))


def _print_entries(title: str, entries: Sequence[str]) -> None:
    more = [f"and {len(entries) - 30:,} more"] * (len(entries) > 30)
    typer.echo(printable("\n  ".join([title, *entries[:30], *more])))


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_records(records: Iterable[Mapping[str, Any]]) -> None:
    """Print what became of the records of each VCF file."""
    for counts in records:
        typer.echo(printable(f"{counts['file']}, frequencies from {counts['frequency_from']}"))
        rows = {name: counts[name] for name in ("read", "used")} | counts["not_used"]
        shares = ((name, f"{number:,}", f"{number / max(counts['read'], 1):.2%}") for name, number in rows.items())
        print_table(("records", "number", "share"), shares)
        # Stores that were built before records were decomposed have no such count.
        if counts.get("decomposed"):
            typer.echo(f"of the used, {counts['decomposed']:,} of several nucleotides, decomposed")
        typer.echo()


def print_table(header: Iterable[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is to the left and the others to the right."""
    # By hand, as a library for it takes longer to import than many a command takes.
    lines = [[printable(str(cell)) for cell in row] for row in (tuple(header), *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        typer.echo("  ".join(cells).rstrip())


class Verb(NamedTuple):
    """A command: the function of this package that it calls, and what differs from the function's signature."""

    function: str  # as module:name
    example: str  # its words after the command's
    names: Mapping[str, str] = {}  # "--option METAVAR" or, for an argument, "METAVAR"; "" hides a parameter
    settings: Mapping[str, str] = {}  # classes of parameters whose fields are options
    wrapper: str = ""  # a function of the function, in `mutbert.cli.main`, whose own parameters are options too
    data: Callable[[Any], Any] = lambda result: result  # what --json prints of the result
    show: Callable[[Any], None] = print_result
    runs_model: bool = False
    stdout: str | None = None  # the suffix of an output that may be standard output
    summary: str = ""


def make_app(words: str, verbs: Mapping[str, Verb], description: str) -> typer.Typer:
    """Return a program, or a group of one, whose commands read their options when they are used."""

    class Group(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, _make_command(f"{words} {name}", verbs[str(name)]) if name in verbs else command, rest

    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        name=words.rsplit(maxsplit=1)[-1], cls=Group, help=description, no_args_is_help=True, context_settings=settings
    )
    for name, verb in verbs.items():
        app.command(name, help=verb.summary or _docstring(verb.function).partition("\n")[0])(lambda: None)
    return app


def _make_command(words: str, verb: Verb) -> Any:
    """Return a command whose options are parameters, in order; a wrapper's take the place of the function's."""
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in _parameters(verb.function, verb.names).items():
        found |= _parameters(verb.settings[name], verb.names) if name in verb.settings else {name: parameter}
    if verb.wrapper:
        found |= _parameters(f"cli.main:{verb.wrapper}", verb.names, **_parameter_help(_docstring(verb.function)))
    options = [option for name, option in found.items() if name not in _HIDDEN and verb.names.get(name) != ""]

    def run(**values: Any) -> None:
        try:
            _run(verb, values)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads our output has seen enough, as with `mutbert ... | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    shared = _parameters("cli.environment:running_on", {}).values() if verb.runs_model else ()
    as_json = _typed("json", "bool", False, _SHARED["json"], {})
    run.__signature__ = inspect.Signature([*options, *shared, as_json])  # type: ignore[attr-defined]
    text = verb.summary or re.split(r"\n\n\w+\n---", _docstring(verb.function))[0]
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    needed = any(option.default is inspect.Parameter.empty for option in options)
    epilog = f"Example: [bold]{words} {_plain(verb.example)}[/bold]"
    if (function := verb.function.partition(":")[2]) in mutbert.__all__:
        epilog += f"\n\nIn Python: mutbert.{function}"
    app.command(words.rsplit(maxsplit=1)[-1], help=_plain(text), epilog=epilog, no_args_is_help=needed)(run)
    return typer.main.get_command(app)


def _run(verb: Verb, values: dict[str, Any]) -> None:
    """Call the function with the user's values, and print the result."""
    as_json, arguments = values.pop("json"), {name: one for name, one in values.items() if one not in (None, [])}
    for name, value in arguments.items():
        if isinstance(value, list):
            words = chain.from_iterable(word.split(",") if name in _COMMA_SEPARATED else [word] for word in value)
            arguments[name] = tuple(word.strip() for word in words if word)
    if scaling := arguments.get("rope_scaling"):
        parts = re.fullmatch(r"(\w+):([0-9]+\.?[0-9]*)", scaling)
        if parts is None:
            raise InputError(f"--rope-scaling {scaling}: must be TYPE:FACTOR, for example dynamic:2")
        arguments["rope_scaling"] = {"type": parts[1], "factor": float(parts[2])}
    with ExitStack() as stack:
        if verb.runs_model:
            stack.enter_context(running_on(arguments.pop("device", None), arguments.pop("threads", None)))
        given, arguments = arguments, stack.enter_context(streamed(arguments, verb.stdout))
        for parameter, target in verb.settings.items():
            fields = {name: arguments.pop(name) for name in _parameters(target, {}) if name in arguments}
            arguments[parameter] = _load(target)(**fields)
        if "progress" in _parameters(verb.function, {}):
            arguments["progress"] = True
        function = _load(verb.function)
        result = _load(f"cli.main:{verb.wrapper}")(function, **arguments) if verb.wrapper else function(**arguments)
        if given.get("output") != arguments.get("output"):
            result = {name: value for name, value in record_of(result).items() if value != str(arguments["output"])}
        data = verb.data(result)
        # Of several processes the first prints.
        if os.environ.get("RANK", "0") == "0":
            typer.echo(_load("files:json_text")(record_of(data))) if as_json else verb.show(result)
    found = record_of(data)
    if found.get("failed") or not found.get("agrees", True):
        raise typer.Exit(1)


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(f"mutbert.{module}"), name)


def _typed(name: str, annotation: str, default: Any, text: str, names: Mapping[str, str]) -> inspect.Parameter:
    """Return a parameter as typer reads it."""
    usual = f"--{name.replace('_', '-')}{' TYPE:FACTOR' * (name == 'rope_scaling')}"
    declared, _, metavar = names.get(name, usual).partition(" ")
    kind: Any = {"int": int, "float": float, "bool": bool}.get(annotation.split(" | ", maxsplit=1)[0], str)
    if annotation.startswith(_LISTS):
        kind = list[str]
    if default is None:
        kind = kind | None
    if declared.startswith("-"):
        flags = (declared, "-o") if declared == "--output" else (declared,)
        info: Any = typer.Option(*flags, metavar=metavar or None, help=_plain(text))
    else:
        info = typer.Argument(metavar=declared, help=_plain(text))
    default = list(default) if isinstance(default, tuple) else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


@cache
def _source(target: str) -> str:
    """Return the source of a function or class."""
    module, _, name = target.partition(":")
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    found = re.search(rf"^(?:def|class) {name}\b.*?(?=^[^\s)#]|\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, target
    return found[0]


def _docstring(target: str) -> str:
    return inspect.cleandoc("".join(_source(target).split('"""')[1:2]))


def _parameters(target: str, names: Mapping[str, str], **inherited: str) -> dict[str, inspect.Parameter]:
    """Return a function's parameters, with the help of its docstring; or a class's fields, with that of comments."""
    node: Any = ast.parse(_source(target)).body[0]
    if isinstance(node, ast.ClassDef):
        lines, triples, texts = _source(target).splitlines(), list[Any](), dict[str, str]()
        # Comments of a field are those since the statement before, on lines of their own or not.
        for before, field in pairwise(node.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                comments = re.findall(r"(?:^|\s)# (.*)", "\n".join(lines[before.end_lineno : field.end_lineno]), re.M)
                texts[field.target.id] = _sentence(" ".join(map(str.strip, comments)))
                triples.append((field.target.id, field.annotation, field.value))
    else:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        required = [None] * (len(node.args.args) - len(node.args.defaults))
        defaults = [*required, *node.args.defaults, *node.args.kw_defaults]
        triples = [(one.arg, one.annotation, default) for one, default in zip(arguments, defaults, strict=True)]
        texts = _parameter_help(_docstring(target))
    texts = {**inherited, **_SHARED, **{name: text for name, text in texts.items() if text}}
    return {
        name: _typed(name, ast.unparse(kind), _default(value), texts.get(name, ""), names)
        for name, kind, value in triples
    }


def _default(value: ast.expr | None) -> Any:
    """Return a default that is written out, `Parameter.empty` without one, None where only the function knows it."""
    try:
        return inspect.Parameter.empty if value is None else ast.literal_eval(value)
    except ValueError:
        return None


def _parameter_help(docstring: str) -> dict[str, str]:
    """Return the texts of the section Parameters; an entry of several names has a text for each, after semicolons."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", docstring + "\n", re.M | re.S)
    found: dict[str, str] = {}
    for head, text in re.findall(r"^(\S.*)\n((?: .*\n|\n)+)", section[1] if section else "", re.M):
        names, text = head.partition(" : ")[0].split(", "), " ".join(text.split())
        parts = text.split("; ") if len(names) > 1 else [text]
        if text.startswith("As for the other commands"):
            continue
        found |= zip(names, map(_sentence, parts if len(parts) == len(names) else [text] * len(names)), strict=True)
    return found


def _sentence(text: str) -> str:
    text = re.sub(r"^(and|or) |\.$", "", text)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _plain(text: str) -> str:
    """Return text without the marks of reStructuredText, a line per paragraph, with brackets that rich leaves alone."""
    text = re.sub(r"(?<!\n)\n(?![\n-])", " ", text)
    return re.sub(r"`+\"?([^`]*?)\"?`+", r"\1", text).replace("[", r"\[")
