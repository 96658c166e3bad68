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
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from mutbert.cli.printing import print_json, print_result
from mutbert.errors import InputError

# Help of parameters that many functions share, where a docstring has none for the parameter alone.
_SHARED = {
    "batch_size": "Sequences or windows per batch.",
    "context": "Bases per window; by default as in training.",
    "force": "Replace the output where it exists.",
    "json": "Print the result as one JSON object.",
    "precision": "fp32, or bf16 for bfloat16 autocast.",
    "resume": "Continue a run that was stopped.",
    "rope_scaling": "For inputs longer than in training: linear or dynamic, and how many times longer.",
    "strands": "forward, or both for the mean over the two strands.",
    "trust_remote_code": "Run code that comes with a checkpoint; known models need none.",
}
_COMMA_SEPARATED = {"contigs", "exclude", "filters", "negative", "positive", "scores"}
_METAVARS = {"rope_scaling": "TYPE:FACTOR"}


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


class _Parameter(NamedTuple):
    """A parameter of a function, or a field of a class, as its source has it."""

    name: str
    annotation: str
    default: Any  # empty where required, None where the function knows it
    help: str
    home: str = ""  # the function's parameter that has it as a field

    @property
    def is_list(self) -> bool:
        return self.annotation.startswith(("Sequence[", "tuple[", "Sources", "inputs.Sources"))


class _LazyGroup(TyperGroup):
    """A group whose commands get their options when they are used."""

    verbs: Mapping[str, Verb] = {}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the words name, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _make_command(name, self.verbs[name]) if name and name in self.verbs else command, rest


def make_app(verbs: Mapping[str, Verb], description: str, **settings: Any) -> typer.Typer:
    """Return a program, or a group of one, with these commands."""
    group = type("Group", (_LazyGroup,), {"verbs": verbs})
    app = typer.Typer(cls=group, help=description, no_args_is_help=True, rich_markup_mode="rich", **settings)
    for name, verb in verbs.items():
        app.command(name, help=re.split('"""|\n', _source(verb.function).partition('"""')[2])[0])(lambda: None)
    return app


def load(target: str) -> Any:
    """Return what ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def parse_rope_scaling(text: str | None) -> dict[str, Any] | None:
    """Return ``dynamic:2`` as the settings of `MutBertConfig`."""
    if text is None:
        return None
    kind, _, factor = text.partition(":")
    try:
        return {"type": kind, "factor": float(factor)}
    except ValueError:
        raise InputError(f"--rope-scaling {text}: must be TYPE:FACTOR, for example dynamic:2") from None


def _make_command(name: str, verb: Verb) -> Any:
    options = _options(verb)

    def run(**values: Any) -> None:
        _run(verb, options, values)

    flag = _Parameter("json", "bool", default=False, help=_SHARED["json"])
    signature = inspect.Signature([_typed(option, verb.names) for option in (*options, flag)])
    run.__signature__ = signature  # type: ignore[attr-defined]
    text = re.split(r"\n\n\w+\n---", _docstring(verb.function))[0]
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    app.command(
        name,
        help=_plain(text),
        epilog=f"Example: [bold]{_plain(verb.example)}[/bold]",
        no_args_is_help=any(option.default is inspect.Parameter.empty for option in options),
    )(run)
    return typer.main.get_command(app)


def _run(verb: Verb, options: list[_Parameter], values: dict[str, Any]) -> None:
    """Call the function with what the user chose, and print the result."""
    fields: dict[str, dict[str, Any]] = {parameter: {} for parameter in verb.settings}
    arguments: dict[str, Any] = {}
    for option in options:
        value = values[option.name]
        if option.name == "rope_scaling":
            value = parse_rope_scaling(value)
        elif option.is_list and option.name in _COMMA_SEPARATED and value:
            value = tuple(word.strip() for text in value for word in text.split(",") if word.strip())
        elif option.is_list:
            value = tuple(value) if value else None
        if value is not None:
            fields.get(option.home, arguments)[option.name] = value
    for parameter, chosen in fields.items():
        arguments[parameter] = load(verb.settings[parameter])(**chosen)
    if any(parameter.name == "progress" for parameter in _parameters(verb.function)):
        arguments["progress"] = True
    function = load(verb.function)
    result = load(verb.wrapper)(function, **arguments) if verb.wrapper else function(**arguments)
    # Of several processes the first prints.
    if os.environ.get("RANK", "0") == "0":
        if values["json"]:
            print_json(verb.data(result))
        else:
            verb.show(verb.text(result))
    if getattr(result, "agrees", True) is False:
        raise typer.Exit(1)


def _options(verb: Verb) -> list[_Parameter]:
    """Return the parameters that are options, in order; a wrapper's take the place of the function's."""
    found: dict[str, _Parameter] = {}
    for parameter in _parameters(verb.function):
        if parameter.name in verb.settings:
            fields = _parameters(verb.settings[parameter.name])
            found |= {field.name: field._replace(home=parameter.name) for field in fields}
        else:
            found[parameter.name] = parameter
    if verb.wrapper:
        found |= {parameter.name: parameter for parameter in _parameters(verb.wrapper)[1:]}
    hidden = {"progress", "bases_at_once", *(name for name, declared in verb.names.items() if not declared)}
    return [parameter for name, parameter in found.items() if name not in hidden]


def _typed(option: _Parameter, names: Mapping[str, str]) -> inspect.Parameter:
    """Return a parameter as typer reads it."""
    declared, _, metavar = names.get(option.name, f"--{option.name.replace('_', '-')}").partition(" ")
    metavar = metavar or _METAVARS.get(option.name, "")
    kind: Any = {"int": int, "float": float, "bool": bool}.get(option.annotation.split(" | ")[0], str)
    if option.is_list:
        kind = list[str]
    if option.default is None:
        kind = kind | None
    if declared.startswith("-"):
        flags = (declared, "-o") if declared == "--output" else (declared,)
        info: Any = typer.Option(*flags, metavar=metavar or None, help=_plain(option.help))
    else:
        info = typer.Argument(metavar=f"{declared} {metavar}".strip(), help=_plain(option.help))
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    kind = Annotated[kind, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _source(target: str) -> str:
    """Return the source of a function or class."""
    module, _, name = target.partition(":")
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    found = re.search(rf"^(?:def|class) {name}\b.*?(?=^[^\s)#]|\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, target
    return found[0]


def _docstring(target: str) -> str:
    node = ast.parse(_source(target)).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return ast.get_docstring(node) or ""


@cache
def _parameters(target: str) -> tuple[_Parameter, ...]:
    """Return a function's parameters, with their help; or the fields of a class, with the comments on their lines."""
    source = _source(target)
    node: Any = ast.parse(source).body[0]
    if isinstance(node, ast.ClassDef):
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        pairs = [(field.target.id, field, field.value) for field in fields if isinstance(field.target, ast.Name)]
        lines = source.splitlines()
        texts = {name: lines[field.end_lineno - 1].partition("  # ")[2] for name, field, _ in pairs if field.end_lineno}
    else:
        named = node.args.args
        defaults = [*[None] * (len(named) - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
        arguments = [*named, *node.args.kwonlyargs]
        pairs = [(argument.arg, argument, default) for argument, default in zip(arguments, defaults, strict=True)]
        texts = {}
    texts = _parameter_help(_docstring(target)) | {name: _SHARED.get(name, text) for name, text in texts.items()}
    return tuple(
        _Parameter(
            name,
            ast.unparse(one.annotation or ast.Constant("")),
            _default(value),
            texts.get(name) or _SHARED.get(name, ""),
        )
        for name, one, value in pairs
    )


def _default(value: ast.expr | None) -> Any:
    """Return a default that is written out; None for one that is computed, which the function knows."""
    if value is None:
        return inspect.Parameter.empty
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def _parameter_help(docstring: str) -> dict[str, str]:
    """Return the texts of the section Parameters; an entry of several names has its texts between semicolons."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", docstring + "\n", re.M | re.S)
    found: dict[str, str] = {}
    for head, text in re.findall(r"^(\S.*)\n((?:[ ]+.*\n|\n)+)", section[1] if section else "", re.M):
        names, text = head.partition(" : ")[0].split(", "), " ".join(text.split()).removesuffix(".")
        parts = text.split("; ") if len(names) > 1 else [text]
        if text.startswith("As for the other commands"):
            continue
        if len(parts) == len(names):
            found |= {name: f"{part[:1].upper()}{part[1:]}." for name, part in zip(names, parts, strict=True)}
        else:
            found |= dict.fromkeys(names, f"{text}.")
    return found


def _plain(text: str) -> str:
    """Return text without the marks of reStructuredText, and with brackets that rich leaves alone."""
    text = re.sub(r"(?<!\n)\n(?![\n-])", " ", text)
    return re.sub(r"`+\"?([^`]*?)\"?`+", r"\1", text).replace("[", r"\[")
