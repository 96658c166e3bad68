"""Results go to standard output: text for people, or one JSON object."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WIDTH_OF_A_FILE = 200


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result as one JSON object."""
    typer.echo(json.dumps(result, indent=1))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is to the left and the others to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        # Names come from the user's files: square brackets in them are no markup.
        table.add_row(*(Text(str(value)) for value in row))
    # A pipe or file has no width of its own; nothing is to be folded there.
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)
