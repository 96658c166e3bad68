"""Commands made of functions: parameters become options, and the docstring becomes the help.

A function is read as source and imported only when its command runs, so that help and completion are quick and need
none of the libraries that running takes.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from mutbert.cli.printing import print_json, print_result, record_of
from mutbert.errors import InputError

# Help of parameters that many functions share, where a docstring has none of their own.
_SHARED = {
    "batch_size": "Sequences or windows per batch.",
    "context": "Bases per window; by default as in training.",
    "contigs": "Whole contigs, comma-separated or repeated.",
    "figures": "Also draw the table, as .png or .svg; may be repeated.",
    "force": "Replace the output where it exists.",
    "json": "Print the result as one JSON object.",
    "layers": "0 is the embedding layer, -1 the last: one or several (4,8,-1), or all.",
    "name": "Column of names.",
    "names": "Columns of a table that have other names than the usual.",
    "precision": "fp32, or bf16 for bfloat16 autocast.",
    "region": "Column of regions such as chr3:10-110.",
    "regions": "A region such as chr22:101-200, 1-based and inclusive; may be repeated.",
    "resume": "Continue a run that was stopped.",
    "rope_scaling": "For inputs longer than in training: linear or dynamic, and how many times longer.",
    "sequence": "Column of the sequences.",
    "settings": "A recipe, settings, or both: model=, train=, output= and more.",
    "strands": "forward, or both for the mean over the two strands.",
    "suites": "A shipped suite (tfbs, nt, eqtl) or a YAML file; may be repeated.",
    "trust_remote_code": "Run code that comes with a checkpoint; known models need none.",
}
_COMMA_SEPARATED = {"contigs", "exclude", "filters", "negative", "positive", "scores"}
_LISTS = ("Sequence[", "tuple[", "Sources", "inputs.Sources", "Mapping[str, str]", "Model |")
_HIDDEN = {"bases_at_once", "columns", "function", "progress"}
_REQUIRED = inspect.Parameter.empty


class Verb(NamedTuple):
    """A command: the function that it calls, as ``module:name``, and what differs from the function's signature."""

    function: str
    example: str
    names: Mapping[str, str] = {}  # "--option METAVAR" or, for an argument, "METAVAR"; "" hides a parameter
    settings: Mapping[str, str] = {}  # classes of parameters whose fields are options
    wrapper: str = ""  # a function of the function, whose own parameters are options too
    text: Callable[[Any], Any] = lambda result: result  # what is shown of the result,
    data: Callable[[Any], Any] = lambda result: result  # and what --json prints
    show: Callable[[Any], None] = print_result
    summary: str = ""


class _Option(NamedTuple):
    """A parameter of a function, or a field of a class, as its source has it."""

    name: str
    annotation: str
    default: Any  # `_REQUIRED` without one, None where only the function knows it
    help: str
    home: str = ""  # the function's parameter that has it as a field


def make_app(verbs: Mapping[str, Verb], description: str, **settings: Any) -> typer.Typer:
    """Return a program, or a group of one, whose commands read their options when they are used."""

    class Group(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, _make_command(name, verbs[name]) if name and name in verbs else command, rest

    app = typer.Typer(cls=Group, help=description, no_args_is_help=True, rich_markup_mode="rich", **settings)
    for name, verb in verbs.items():
        app.command(name, help=verb.summary or _docstring(verb.function).partition("\n")[0])(lambda: None)
    return app


def _make_command(name: str, verb: Verb) -> Any:
    options = _options(verb)

    def run(**values: Any) -> None:
        _run(verb, options, values)

    flag = _Option("json", "bool", default=False, help=_SHARED["json"])
    signature = inspect.Signature([_typed(option, verb.names) for option in (*options, flag)])
    run.__signature__ = signature  # type: ignore[attr-defined]
    text = verb.summary or re.split(r"\n\n\w+\n---", _docstring(verb.function))[0]
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    example = f"Example: [bold]{_plain(verb.example)}[/bold]"
    needed = any(option.default is _REQUIRED for option in options)
    app.command(name, help=_plain(text), epilog=example, no_args_is_help=needed)(run)
    return typer.main.get_command(app)


def _run(verb: Verb, options: list[_Option], values: dict[str, Any]) -> None:
    """Call the function with the user's values, and print the result."""
    fields: dict[str, dict[str, Any]] = {parameter: {} for parameter in verb.settings}
    arguments: dict[str, Any] = {}
    for option in options:
        if (value := values[option.name]) in (None, []):
            continue
        if option.name == "rope_scaling":
            value = _parse_rope_scaling(value)
        elif isinstance(value, list):
            split = option.name in _COMMA_SEPARATED
            value = tuple(word.strip() for text in value for word in (text.split(",") if split else [text]) if word)
        fields.get(option.home, arguments)[option.name] = value
    arguments |= {parameter: _load(verb.settings[parameter])(**chosen) for parameter, chosen in fields.items()}
    if any(option.name == "progress" for option in _parameters(verb.function)):
        arguments["progress"] = True
    function = _load(verb.function)
    result = _load(verb.wrapper)(function, **arguments) if verb.wrapper else function(**arguments)
    data = verb.data(result)
    # Of several processes the first prints.
    if os.environ.get("RANK", "0") == "0":
        print_json(data) if values["json"] else verb.show(verb.text(result))
    found = record_of(data)
    if found.get("failed") or not found.get("agrees", True):
        raise typer.Exit(1)


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _parse_rope_scaling(text: str) -> dict[str, Any]:
    """Return ``dynamic:2`` as the settings of `MutBertConfig`."""
    kind, _, factor = text.partition(":")
    try:
        return {"type": kind, "factor": float(factor)}
    except ValueError:
        raise InputError(f"--rope-scaling {text}: must be TYPE:FACTOR, for example dynamic:2") from None


def _options(verb: Verb) -> list[_Option]:
    """Return the parameters that are options, in order; a wrapper's take the place of the function's."""
    found: dict[str, _Option] = {}
    for option in _parameters(verb.function):
        fields = _parameters(verb.settings[option.name]) if option.name in verb.settings else ()
        found |= {field.name: field._replace(home=option.name) for field in fields} or {option.name: option}
    hidden = _HIDDEN | {name for name, declared in verb.names.items() if not declared}
    found |= {option.name: option for option in (_parameters(verb.wrapper) if verb.wrapper else ())}
    return [option for name, option in found.items() if name not in hidden]


def _typed(option: _Option, names: Mapping[str, str]) -> inspect.Parameter:
    """Return a parameter as typer reads it."""
    declared, _, metavar = names.get(option.name, f"--{option.name.replace('_', '-')}").partition(" ")
    if option.name == "rope_scaling":
        metavar = "TYPE:FACTOR"
    kind: Any = {"int": int, "float": float, "bool": bool}.get(option.annotation.split(" | ")[0], str)
    if option.annotation.startswith(_LISTS):
        kind = list[str]
    if option.default is None:
        kind = kind | None
    if declared.startswith("-"):
        flags = (declared, "-o") if declared == "--output" else (declared,)
        info: Any = typer.Option(*flags, metavar=metavar or None, help=_plain(option.help))
    else:
        info = typer.Argument(metavar=declared, help=_plain(option.help))
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    kind = Annotated[kind, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


@cache
def _source(target: str) -> str:
    """Return the source of a function or class."""
    module, _, name = target.partition(":")
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    found = re.search(rf"^(?:def|class) {name}\b.*?(?=^[^\s)#]|\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, target
    return found[0]


def _docstring(target: str) -> str:
    return inspect.cleandoc("".join(_source(target).split('"""')[1:2]))


@cache
def _parameters(target: str) -> tuple[_Option, ...]:
    """Return a function's parameters, with the help of its docstring; or a class's fields, with that of comments."""
    node: Any = ast.parse(_source(target)).body[0]
    if isinstance(node, ast.ClassDef):
        fields: list[Any] = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        triples = [(field.target.id, field.annotation, field.value) for field in fields]
        texts = field_help(_source(target))
    else:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        required = [None] * (len(node.args.args) - len(node.args.defaults))
        defaults = [*required, *node.args.defaults, *node.args.kw_defaults]
        triples = [(one.arg, one.annotation, default) for one, default in zip(arguments, defaults, strict=True)]
        texts = _parameter_help(_docstring(target))
    return tuple(
        _Option(name, ast.unparse(kind), _default(value), texts.get(name) or _SHARED.get(name, ""))
        for name, kind, value in triples
    )


def field_help(source: str) -> dict[str, str]:
    """Return the comments of a class's fields: those since the statement before, on lines of their own or not."""
    body, lines = ast.parse(source).body[0].body, source.splitlines()  # type: ignore[attr-defined]
    found = {}
    for before, field in pairwise(body):
        comments = re.findall(r"(?:^|\s)# (.*)", "\n".join(lines[before.end_lineno : field.end_lineno]), re.M)
        found[getattr(getattr(field, "target", None), "id", "")] = _sentence(" ".join(map(str.strip, comments)))
    return found


def _default(value: ast.expr | None) -> Any:
    """Return a default that is written out."""
    try:
        return _REQUIRED if value is None else ast.literal_eval(value)
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
