"""Results on standard output: text for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_ENTRIES = 30


def record_of(result: Any) -> dict[str, Any]:
    """Return the values of a result by their names."""
    if isinstance(result, Mapping):
        return dict(result)
    if hasattr(result, "_asdict"):
        return dict(result._asdict())
    return dict(vars(result))


def print_json(result: Any) -> None:
    """Print a result as one JSON object; paths and regions are text."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and type(value).__str__ is object.__str__ else str(value)  # type: ignore[arg-type]

    typer.echo(json.dumps(record_of(result), indent=1, default=plain))


def print_result(result: Any) -> None:
    """Print a result, a line each: counts with their sum, numbers in two dimensions and records as tables."""
    for name, value in record_of(result).items():
        label, first = name.replace("_", " "), next(iter(_values(value)), None)
        if name == "records" and first is not None:
            print_records([one if isinstance(one, Mapping) else vars(one) for one in value])
        elif isinstance(value, Mapping) and isinstance(first, Mapping):
            print_table((label, *value), ((key, *(_text(one.get(key)) for one in value.values())) for key in first))
        elif isinstance(value, Mapping) and value:
            total = f" {sum(value.values()):,}" if isinstance(first, int) else ""
            known = {str(key).replace("_", " "): _text(one) for key, one in value.items() if one is not None}
            _print_entries(f"{label}:{total}", [f"{key}: {text}" for key, text in known.items()])
        elif isinstance(first, Mapping) or is_dataclass(first):
            records = [one if isinstance(one, Mapping) else vars(one) for one in value]
            print_table(records[0], (list(map(_text, one.values())) for one in records))
        elif isinstance(first, str) and " " in first:
            _print_entries(f"{label}:", value)
        elif value not in (None, "", (), [], {}):
            typer.echo(f"{label}: {_text(value)}")


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()


def _print_entries(title: str, entries: Sequence[str]) -> None:
    more = [f"and {len(entries) - _MOST_ENTRIES:,} more"] * (len(entries) > _MOST_ENTRIES)
    typer.echo("\n  ".join([title, *entries[:_MOST_ENTRIES], *more]))


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def print_records(records: Iterable[Mapping[str, Any]]) -> None:
    """Print what became of the records of each VCF file."""
    for counts in records:
        typer.echo(f"{counts['file']}, frequencies from {counts['frequency_from']}")
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
    lines = [list(header), *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        typer.echo("  ".join(cells).rstrip())
