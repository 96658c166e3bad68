"""Results go to standard output: text for people, or one JSON object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result as one JSON object."""
    typer.echo(json.dumps(result, indent=1))


def counted(number: int, word: str) -> str:
    """Write how many there are of something: ``1 position``, ``1,200 positions``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def print_person(differing: int | None, where: str, not_used: Mapping[str, int]) -> None:
    """Print what became of a person's genotypes, where there was one."""
    if differing is not None:
        typer.echo(f"{counted(differing, 'position')} of the person in {where} {_verb(differing, 'differ')}")
    for reason, number in not_used.items():
        typer.echo(f"{counted(number, 'record')} of the person {_verb(number, 'change')} nothing: {reason}")


def _verb(number: int, word: str) -> str:
    return f"{word}s" if number == 1 else word


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is to the left and the others to the right."""
    # By hand, as a library for it takes longer to import than many a command takes.
    lines = [list(header), *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        typer.echo("  ".join(cells).rstrip())
