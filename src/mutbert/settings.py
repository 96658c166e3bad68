"""Settings: pydantic models from YAML 1.2, with ``base:`` beneath and ``key=value`` on top, and back into YAML."""

from __future__ import annotations

import difflib
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mutbert.errors import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.resources.abc import Traversable

    from pydantic_core import ErrorDetails

Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str | int) else value)]
"""One word or several: ``train=chr1`` and ``train=[chr1, 2]``."""

_BASE: Final = "base"


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error. A word may look like a number, such as a contig's name."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    def replace(self, **values: Any) -> Self:
        """Return these settings with other values, validated."""
        return self.model_validate({**self.model_dump(), **values})

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """Return these settings with ``key=value`` on top, as for `read_settings`."""
        return _validated(type(self), _overridden(self.model_dump(), overrides), ", ".join(overrides))

    def as_yaml(self) -> str:
        """Return every setting as YAML, the defaults included."""
        text = io.StringIO()
        _yaml().dump(self.model_dump(mode="json"), text)
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


def check_keys(given: Iterable[str], known: Iterable[str], prefix: str) -> None:
    """Raise `InputError` for the first unknown key."""
    known = list(known)
    for key in given:
        if key not in known:
            raise InputError(f"unknown key {prefix}{key}; {_nearest(key, known, prefix)}")


def _nearest(key: str, known: Sequence[str], prefix: str) -> str:
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else f"known keys are {', '.join(known)}"


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    return yaml


def _read(source: str | Path, folder: Path, shipped: str) -> dict[str, Any]:
    names = shipped_names(shipped) if shipped else []
    file: Path | Traversable = folder / source
    if str(source) in names:
        file = files("mutbert").joinpath(shipped, f"{source}.yaml")
    try:
        tree = _yaml().load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"; {shipped} that come with the package: {', '.join(names)}" if names else ""
        raise InputError(f"{source}: cannot be read ({one_line(error)}){remedy}") from None
    except YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{source}: contains no settings; expected lines of 'key: value'")
    base = tree.pop(_BASE, None)
    return tree if base is None else _merged(_read(str(base), Path(str(file)).parent, shipped), tree)


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
        try:
            value = _yaml().load(text)
        except YAMLError as error:
            raise InputError(f"{override!r}: the value is not valid YAML: {one_line(error)}") from None
        tree = _set(tree, key.split("."), value, override)
    return tree


def _set(tree: dict[str, Any], names: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    first, *rest = names
    if not rest:
        return tree | {first: value}
    below = tree.get(first) or {}
    if not isinstance(below, dict):
        raise InputError(f"{override!r}: {first} has no nested keys")
    return tree | {first: _set(below, rest, value, override)}


def _validated(kind: type[Kind], tree: dict[str, Any], source: str) -> Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_described(kind, error.errors()[0])}") from None


def _described(kind: type[BaseModel], error: ErrorDetails) -> str:
    """Return the key and what is wrong with it; of an unknown key, the nearest of its neighbours."""
    *parents, last = error["loc"] or ("",)
    prefix = "".join(f"{parent}." for parent in parents)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"unknown key {prefix}{last}; {_nearest(str(last), _fields(kind, parents), prefix)}"
    if error["type"] == "missing":
        return f"{prefix}{last} is missing; add it, or set {prefix}{last}=..."
    place = f"{prefix}{last}: " if error["loc"] else ""
    given = "" if isinstance(error["input"], dict | BaseModel) else f" (given: {error['input']!r})"
    return f"{place}{message}{given}"


def _fields(kind: type[BaseModel], parents: Iterable[str | int]) -> list[str]:
    for parent in parents:
        if parent in kind.model_fields:
            kind = _model_in(kind.model_fields[str(parent)].annotation) or kind
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one))), None)
