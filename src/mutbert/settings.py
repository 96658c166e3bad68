"""Settings: pydantic models from YAML 1.2, with ``base:`` beneath and ``key=value`` on top, and back into YAML."""

import dataclasses
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode

from mutbert.errors import InputError, one_line

_LARGEST, _DEEPEST = 1 << 20, 20  # bytes of a file, and levels

Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str | int) else value)]
"""One word or several: ``train=chr1`` and ``train=[chr1, 2]``."""


def listed(given: Any) -> tuple[Any, ...]:
    """Return one value, such as a word or a path, or several, as a tuple."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def list_fields(settings: Any) -> None:
    """Make a tuple of the one value, or of several, of each field of a frozen dataclass that is a tuple by default."""
    for field in dataclasses.fields(settings):
        if isinstance(field.default, tuple):
            object.__setattr__(settings, field.name, listed(getattr(settings, field.name)))


def known_keys(cls: Any, values: Any) -> Any:
    """Return the values of settings, where each has a field; pydantic names no field that may have been meant."""
    check_keys(values if isinstance(values, dict) else getattr(values, "kwargs", None) or (), cls.__pydantic_fields__)
    return values


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error. A word may look like a number, such as a contig's name."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)
    _known = model_validator(mode="before")(known_keys)

    def replace(self, **values: Any) -> Self:
        """Return these settings with other values, validated."""
        return self.model_validate({**self.model_dump(), **values})

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """Return these settings with ``key=value`` on top, as for `read_settings`."""
        return _validated(type(self), _overridden(self.model_dump(), overrides), ", ".join(overrides))

    def as_yaml(self) -> str:
        """Return every setting as YAML, the defaults included; no file may allow code of a model to run."""
        text, values = io.StringIO(), self.model_dump(mode="json")
        _yaml().dump(values | dict.fromkeys(values.keys() & {"trust_remote_code"}, False), text)
        return text.getvalue()


Kind = TypeVar("Kind", bound=Settings)


def read_settings(
    kind: type[Kind], source: str | Path | None, overrides: Sequence[str] = (), *, shipped: str = ""
) -> Kind:
    """Return validated settings of a YAML file, with ``key=value`` on top, or of these alone.

    `source` is a path or the name of a file in the package's directory `shipped`. A file's ``base`` is another such
    name, or a path from the file on; its settings hold where the file has none of its own. Keys are nested by dots, and
    values are YAML: ``training.max_steps=100``. Raises `InputError` with the file and the key.
    """
    tree = {} if source is None else _read(source, Path(), shipped)
    return _validated(kind, _overridden(tree, overrides), "settings" if source is None else str(source))


def shipped_names(directory: str) -> list[str]:
    """Return the names of the settings that come with the package in a directory."""
    return sorted(Path(entry.name).stem for entry in files("mutbert").joinpath(directory).iterdir())


def check_keys(given: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
    """Raise `InputError` for the first unknown key."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys are {', '.join(known)}"
            raise InputError(f"unknown key {prefix}{key}; {hint}")


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    return yaml


def _read(source: str | Path, folder: Path, shipped: str, level: int = 0) -> dict[str, Any]:
    if level > _DEEPEST:
        raise InputError(f"{source}: is a base of itself; remove its key base")
    names = shipped_names(shipped) if shipped else []
    file: Path | Traversable = folder / source
    if str(source) in names:
        file = files("mutbert").joinpath(shipped, f"{source}.yaml")
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"; {shipped} that come with the package: {', '.join(names)}" if names else ""
        raise InputError(f"{source}: cannot be read ({one_line(error)}){remedy}") from None
    tree = _parsed(text, f"{source}: not valid YAML")
    if not isinstance(tree, dict):
        raise InputError(f"{source}: contains no settings; expected lines of 'key: value'")
    if tree.get("trust_remote_code"):
        why = "a file may come from somebody else"
        raise InputError(f"{source}: trust_remote_code is for the command line alone, as {why}; remove it here")
    base = tree.pop("base", None)
    return tree if base is None else _merged(_read(str(base), Path(str(file)).parent, shipped, level + 1), tree)


def _parsed(text: str, problem: str) -> Any:
    """Return the value of a YAML text, which is bounded: a few lines of aliases can fill the memory."""

    @cache
    def count(node: Any, level: int = 0) -> int:
        """Return how many values a node stands for, with each alias the whole of what it repeats."""
        if level > _DEEPEST:
            raise ValueError(f"it has more than {_DEEPEST} levels")
        parts = node.value if isinstance(node, CollectionNode) else ()
        return 1 + sum(count(one, level + 1) for part in parts for one in listed(part))

    try:
        if len(text) >= _LARGEST or count(_yaml().compose(text)) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} characters or, aliases repeated, values")
        return _yaml().load(text)
    # Of a number with too many digits, or a date without a month, the library raises errors of Python's own.
    except (ValueError, RecursionError, YAMLError) as error:
        raise InputError(f"{problem}: {one_line(error)}") from None


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    return below | {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override!r} is not of the form key=value, for example training.max_steps=100")
        tree = _set(tree, key, _parsed(text, f"{override!r}: the value is not valid YAML"))
    return tree


def _set(tree: Any, key: str, value: Any) -> dict[str, Any]:
    """Return settings with another value at a key, which may be nested by dots."""
    first, _, rest = key.partition(".")
    kept = tree if isinstance(tree, dict) else {}
    return kept | {first: _set(kept.get(first), rest, value) if rest else value}


def _validated(kind: type[Kind], tree: dict[str, Any], source: str) -> Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
    # Brackets mark the branch of a union, which is no key.
    key = ".".join(part for part in map(str, first["loc"]) if "[" not in part)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = f"{key} is missing; add it, or set {key}=..."
    elif message.startswith("unknown key "):
        # The settings without this key do not know where they are themselves.
        message = re.sub("unknown key |did you mean ", rf"\g<0>{key}{'.' * bool(key)}", message)
    else:
        text = one_line(repr(first["input"]), 200)
        given = "" if isinstance(first["input"], dict | BaseModel) else f" (given: {text})"
        message = f"{key}: {message}{given}".removeprefix(": ")
    raise InputError(f"{source}: {message}")
