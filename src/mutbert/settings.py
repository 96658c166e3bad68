"""Settings: YAML into checked dataclasses, ``key=value`` on top, and back into YAML.

Every key is checked; an unknown one is refused with the nearest that there is.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import yaml

from mutbert.errors import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = TypeVar("Kind")


class Readable(Protocol):
    """A file of a folder or of an installed package."""

    def read_text(self, encoding: str) -> str:
        """Read all of it."""


def read_settings(kind: type[Kind], source: Readable, overrides: Sequence[str] = (), *, remedy: str) -> Kind:
    """Read a dataclass of settings from YAML.

    Parameters
    ----------
    kind : type
        The dataclass; nested ones are nested keys.
    source : Path or file of an installed package
        Where the YAML is.
    overrides : sequence of str
        ``key=value`` with dots for nesting, for example ``training.max_steps=100``; values are YAML.
    remedy : str
        What to give in place of a file that cannot be read.

    Returns
    -------
    kind
        Types checked, and what its ``__post_init__`` checks.

    Raises
    ------
    InputError
        When the file cannot be read, or holds an unknown key or a value that cannot be; names the file.
    """
    try:
        tree = yaml.load(source.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - derives from SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read ({one_line(error)}); {remedy}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{source}: holds no settings; expected lines of 'key: value'")
    for entry in overrides:
        _override(tree, entry)
    try:
        settings: Kind = _build(kind, tree, "")
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    return settings


def with_overrides(settings: Kind, overrides: Sequence[str]) -> Kind:
    """Change some of a dataclass's settings.

    Parameters
    ----------
    settings : dataclass
        As they are.
    overrides : sequence of str
        ``key=value``, as for `read_settings`.

    Returns
    -------
    dataclass
        Of the same kind, checked.

    Raises
    ------
    InputError
        When a key is unknown, or a value cannot be.
    """
    tree = _plain(dataclasses.asdict(settings))  # type: ignore[call-overload]
    for entry in overrides:
        _override(tree, entry)
    try:
        changed: Kind = _build(type(settings), tree, "")
    except ValueError as error:
        raise InputError(f"{', '.join(overrides)}: {error}") from None
    return changed


def with_values(settings: Kind, values: Mapping[str, Any], place: str = "") -> Kind:
    """Change some of a dataclass's settings to values that were read already.

    Parameters
    ----------
    settings : dataclass
        As they are.
    values : mapping
        By name; nested settings are given whole.
    place : str
        What messages put before a name.

    Returns
    -------
    dataclass
        Of the same kind, checked.

    Raises
    ------
    InputError
        When a key is unknown, or a value is of another type.
    ValueError
        When a value cannot be.
    """
    tree = _plain(dataclasses.asdict(settings))  # type: ignore[call-overload]
    changed: Kind = _build(type(settings), {**tree, **values}, place)
    return changed


def settings_text(settings: Any) -> str:
    """Write a dataclass of settings as YAML, every setting, the defaults included."""
    tree = _plain(dataclasses.asdict(settings))
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def check_keys(given: Iterable[str], known: Iterable[str], place: str) -> None:
    """Refuse a key that is not known, and name the nearest that is.

    Raises
    ------
    InputError
        For the first unknown key.
    """
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            remedy = f"did you mean {place}{near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"unknown key {place}{key}; {remedy}")


def _build(kind: Any, tree: Mapping[str, Any], place: str) -> Any:
    """Make a dataclass of a mapping, with its types checked."""
    types_of = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    check_keys(tree, fields, place)
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise InputError(f"{place}{name} is missing; add it to the recipe or give {place}{name}=...")
    return kind(**{name: _value(types_of[name], value, place + name) for name, value in tree.items()})


def _value(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError(f"{place} is {value!r}; expected nested keys")
        return _build(kind, value, place + ".")
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        # An optional value, of one kind.
        (kind,) = (entry for entry in typing.get_args(kind) if entry is not types.NoneType)
        return None if value is None else _value(kind, value, place)
    if origin is tuple:
        entries = [value] if isinstance(value, (str, int, float)) else value
        if not isinstance(entries, list):
            raise InputError(f"{place} is {value!r}; expected a list")
        (entry_kind, *_) = typing.get_args(kind)
        if dataclasses.is_dataclass(entry_kind):
            return tuple(_value(entry_kind, entry, f"{place}[{number}]") for number, entry in enumerate(entries))
        for number, entry in enumerate(entries):
            if not isinstance(entry, (str, int, float)):
                raise InputError(f"{place}[{number}] is {entry!r}; expected a word")
        # A contig called 22 is a number to YAML.
        return tuple(str(entry) for entry in entries)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{place} is {value!r}; expected nested keys")
        (_, entry_kind) = typing.get_args(kind)
        if entry_kind is Any:
            return dict(value)
        return {key: _value(entry_kind, entry, f"{place}.{key}") for key, entry in value.items()}
    if origin is Literal:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{place} is {value!r}; expected {kind.__name__}")
    return value


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is not of the form key=value, for example training.max_steps=100")
    *parents, name = key.split(".")
    branch = tree
    for parent in parents:
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"{override!r}: {parent} holds no nested keys")
    try:
        branch[name] = yaml.load(text, Loader=_Loader)  # noqa: S506 - derives from SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is not YAML: {one_line(error)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 4e-4 is a number, no is a word and not false; and a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


class _Dumper(yaml.SafeDumper):
    """What the loader would take for a number is written in quotes where it is a word."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
    )
