"""Build the site, of which docs/reference/ is generated: the API, every command, every key of recipes and suites.

mkdocstrings loads `Comments` from here as well.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import griffe
import typer

import mutbert

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "genome": "Genomes", "regions": "Genomes", "download": "Genomes", "model": "Models", "export": "Models",
    "training": "Training", "inference": "Predictions and embeddings", "effects": "Variant effects",
    "explorer": "Variant effects", "evaluation": "Benchmarks", "examples": "Tables and reports",
    "reports": "Tables and reports", "errors": "Errors",
}  # fmt: skip


class Comments(griffe.Extension):
    """Fields are documented by their comments; parameters that share an entry of a docstring have one each."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Set the documentation of fields to the comments since the statement before."""
        if cls.is_alias or not isinstance(cls.filepath, Path):
            return
        source = cls.lines_collection[cls.filepath]
        first = SimpleNamespace(endlineno=cls.docstring.endlineno if cls.docstring else cls.lineno)
        members = sorted((one for one in cls.members.values() if not one.is_alias), key=lambda one: one.lineno or 0)
        for before, one in pairwise([first, *members]):
            if one.is_attribute and one.docstring is None:
                text = "\n".join(source[before.endlineno : one.endlineno])
                if comments := re.findall(r"(?:^|\s)# (.*)", text, re.M):
                    one.docstring = griffe.Docstring(sentence(" ".join(map(str.strip, comments))), parent=one)

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Write an entry of several parameters as several."""
        if func.docstring is not None:
            entry = r"^(\w+(?:, \w+)+)( : [^\n]*)?\n((?: +[^\n]*\n?)+)"
            func.docstring.value = linked(re.sub(entry, split_entry, func.docstring.value, flags=re.M))


def split_entry(entry: re.Match[str]) -> str:
    """Return an entry of a docstring for each of its parameters, whose texts are separated by semicolons."""
    kind, text = (entry[2] or "")[3:].removesuffix(", optional"), " ".join(entry[3].split())
    names, texts, kinds = entry[1].split(", "), text.split("; "), kind.split(", ")
    texts = texts if len(texts) == len(names) else [text] * len(names)
    kinds = kinds if len(kinds) == len(names) else [kind] * len(names)
    lines = [f"{name} : {kind}\n    {sentence(text)}\n" for name, kind, text in zip(names, kinds, texts, strict=True)]
    return "".join(line.replace(" : \n", "\n") for line in lines)


def linked(text: str) -> str:
    """Return text in which pages of the documentation are links, from a page of the reference."""
    return re.sub(r"`*docs/(\w+)\.md`*", r"[\1](../\1.md)", text)


def sentence(text: str) -> str:
    """Return text with a capital, where it does not begin with a name, and a full stop."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def write_api(package: griffe.Module) -> None:
    """Write a page per subject with every public name."""
    pages = defaultdict(list)
    for name in mutbert.__all__[1:]:
        # Some parameters of classes are those of their bases.
        is_class = name[0].isupper()
        options = "    options: {docstring_options: {warn_unknown_params: false}}\n" * is_class
        pages[title_of(package, name)].append((is_class, f"::: mutbert.{name}\n{options}"))
    for title in dict.fromkeys(TITLES.values()):
        text = f"# {title}\n\nThe examples are those of the docstrings, after `import mutbert`.\n\n"
        write(page_of(title), text + "\n".join(one for _, one in sorted(pages[title])))


def title_of(package: griffe.Module, name: str) -> str:
    """Return the title of the page that has a public name."""
    return TITLES[package.members[name].target_path.split(".")[1]]


def page_of(title: str) -> str:
    """Return the name of a page of the API."""
    return f"api-{title.lower().replace(' ', '-')}"


def write_commands(package: griffe.Module) -> None:
    """Write the page of commands, as the program describes itself."""
    from mutbert.cli.main import app

    text = "# Commands\n\nAs `mutbert COMMAND --help` shows them, for which `-h` is short.\n"
    text += "\n| Command | In Python |\n|---|---|\n"
    commands = dict(leaves(typer.main.get_command(app)))
    for words, command in commands.items():
        name = command.epilog.partition("In Python: mutbert.")[2]
        link = f"[`{name}`]({page_of(title_of(package, name))}.md#mutbert.{name})" if name else ""
        text += f"| [`{words}`](#{words.replace(' ', '-')}) | {link} |\n"
    for words, command in commands.items():
        text += f"\n## {words}\n\n{linked(unescaped(command.help))}\n"
        text += f"\n```\n{unescaped(command.epilog.splitlines()[0]).partition(': ')[2]}\n```\n"
        text += "\n| Option | |\n|---|---|\n"
        for one in command.params:
            option = " ".join(one.opts) if one.param_type_name == "option" else str(one.metavar or one.name.upper())
            metavar = f" {one.metavar}" if one.param_type_name == "option" and one.metavar else ""
            value = "" if one.default in (None, False, [], ()) else f" Default: `{words_of(one.default)}`."
            needed = " Required." * one.required
            text += f"| `{option}{metavar}` | {linked(cell(unescaped(one.help)))}{needed or value} |\n"
    write("commands", text)


def leaves(group: Any, words: str = "mutbert") -> Iterator[tuple[str, Any]]:
    """Yield every command by its words."""
    context = group.make_context(words, ["-"], resilient_parsing=True)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        if hasattr(command, "list_commands"):
            yield from leaves(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def words_of(value: Any) -> str:
    """Return a default as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def unescaped(text: str | None) -> str:
    """Return text without the marks of rich."""
    return re.sub(r"\[/?bold\]", "", (text or "").replace("\\[", "\0")).replace("\0", "[").strip()


def cell(text: str) -> str:
    """Return text for a cell of a table, in which names in brackets are no links."""
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;").replace("*", "\\*")


def write_settings(package: griffe.Module) -> None:
    """Write the pages of recipes and suites: every key, and what is shipped."""
    from mutbert.evaluation.suites import Suite
    from mutbert.training.recipe import FinetuneRecipe, PretrainRecipe

    classes = {one.name: one for one in objects(package) if one.is_class}
    pages = {"recipes": {"mutbert pretrain": PretrainRecipe, "mutbert finetune": FinetuneRecipe},
             "suites": {"mutbert bench": Suite}}  # fmt: skip
    for page, models in pages.items():
        text = f"# {page.capitalize()}\n\nEvery key by its path, as in `key=value`; in YAML they are nested.\n"
        for command, model in models.items():
            text += f"\n## Keys of `{command}`\n\n| Key | |\n|---|---|\n"
            text += "".join(rows(schema := model.model_json_schema(), schema["$defs"], classes))
        for file in sorted(files("mutbert").joinpath(page).iterdir(), key=lambda one: one.name):
            text += f"\n## `{file.name}`\n\n```yaml\n{file.read_text(encoding='utf-8')}```\n"
        write(page, text)


def objects(module: griffe.Object) -> Iterator[griffe.Object]:
    """Yield what a module and those in it define."""
    for one in module.members.values():
        if not one.is_alias:
            yield one
            yield from objects(one) if one.is_module else ()


def rows(node: Any, defined: Any, classes: dict[str, griffe.Object], prefix: str = "") -> Iterator[str]:
    """Yield the rows of a JSON schema's keys, and of the schemas in it."""
    for name, one in node["properties"].items():
        for step, inner in (("", one), ("[]", one.get("items", {})), (".NAME", one.get("additionalProperties", {}))):
            choices = [inner, *inner.get("anyOf", [])] if isinstance(inner, dict) else []
            if found := next((choice["$ref"] for choice in choices if "$ref" in choice), None):
                yield from rows(defined[found.rpartition("/")[2]], defined, classes, f"{prefix}{name}{step}.")
                break
        else:
            about = classes[node["title"]].members[name].docstring
            value = json.dumps(one.get("default"), ensure_ascii=False).strip('"')
            default = "" if value in ("null", "") else f"; default `{value}`"
            needed = "; required" * (name in node.get("required", ()))
            text = f"{cell(about.value)}<br>" if about else ""
            yield f"| `{prefix}{name}` | {text}<small>{kind(one)}{needed or default}</small> |\n"


def kind(one: Any) -> str:
    """Return the type of a JSON schema, with its bounds."""
    if choices := one.get("anyOf", one.get("oneOf")):
        return " or ".join(kind(each) for each in choices if each.get("type") != "null")
    if values := one.get("enum", [one["const"]] if "const" in one else []):
        return ", ".join(f"`{value}`" for value in values)
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    bounds = ", ".join(f"{sign} {one[name]:,}" for name, sign in signs.items() if name in one)
    if one.get("type") == "array":
        return f"list of {kind(one['items'])}" if "items" in one else "list"
    words = {"string": "text", "boolean": "true or false", "object": "mapping"}
    return f"{words.get(one.get('type'), one.get('type', 'mapping' if '$ref' in one else 'any'))} {bounds}".strip()


def write_notebooks() -> None:
    """Write a page per notebook, with its pictures in it."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        link = f"*A [notebook](../notebooks/{path.name}), as it was run; open it in Jupyter to change it.*"
        text: list[str] = []
        for one in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(one["source"])
            text.append(source if one["cell_type"] == "markdown" else f"```python\n{source}\n```")
            for output in one.get("outputs", []):
                found = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
                plain = found.get("text/plain", "".join(output.get("text", "")))
                if picture := found.get("image/png", "").replace("\n", ""):
                    text.append(f"![Figure of the cell above](data:image/png;base64,{picture})")
                else:
                    text.append(f"```text\n{plain.rstrip()}\n```")
        text.insert(1, link)
        write(f"notebook-{path.stem}", "\n\n".join(text) + "\n")


def write(name: str, text: str) -> None:
    """Write a page."""
    (folder := ROOT / "docs" / "reference").mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def main() -> int:
    """Write the pages, build the site, and return 1 where there is a warning."""
    loaded = griffe.load("mutbert", search_paths=[ROOT / "src"], extensions=griffe.load_extensions(Comments))
    write_api(loaded)
    write_commands(loaded)
    write_settings(loaded)
    write_notebooks()
    write("changelog", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(built.stdout, end="")
    # The builder minds neither warnings of griffe nor a page that is not in the navigation, or is there alone.
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    if odd := sorted({*listed} ^ {*pages}):
        print(f"docs/ and the navigation in mkdocs.yml differ in {', '.join(odd)}")
    return int(built.returncode != 0 or "griffe: " in built.stdout or bool(odd))


if __name__ == "__main__":
    sys.exit(main())
