"""The parts of a benchmark's report as HTML, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from mutbert.reports.page import Section, html_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONG: Final = 16


class TableCell(NamedTuple):
    """A table's cell: what it says, and in lines below what belongs to that."""

    text: str
    details: tuple[str, ...] = ()
    bold: bool = False


class Table(NamedTuple):
    """A table; its first columns, `names` of them, are text and so are those from `text` on."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | TableCell]]
    names: int = 1
    text: int = 1000


class Block(NamedTuple):
    """A piece of a part, of which any may be missing; a drawing is for the page alone."""

    heading: str = ""
    text: str = ""
    drawings: Sequence[str] = ()
    table: Table | None = None


class Part(NamedTuple):
    """A part of the report."""

    title: str
    text: str
    blocks: Sequence[Block] = ()
    facts: Mapping[str, str] | None = None


def html_section(part: Part) -> Section:
    """Write a part of a report as HTML."""
    pieces = []
    for block in part.blocks:
        pieces += [f"<h3>{escape(block.heading)}</h3>"] if block.heading else []
        pieces += [f"<p>{escape(block.text)}</p>"] if block.text else []
        pieces += block.drawings
        pieces += [_html_table(block.table)] if block.table else []
    pieces += [html_facts(part.facts)] if part.facts else []
    return Section(part.title, part.text, "\n".join(pieces))


def _html_table(table: Table) -> str:
    # Unlike those of `html_table`, cells may be bold and of several lines, and texts stand on the left.
    def cell(tag: str, column: int, value: str | TableCell) -> str:
        value = TableCell(value) if isinstance(value, str) else value
        text = f"<b>{escape(value.text)}</b>" if value.bold else escape(value.text)
        text += "".join(f"<br><small>{escape(line)}</small>" for line in value.details)
        how = "text-align:left;white-space:normal" if 0 < column < table.names else ""
        if column >= table.text:
            how = "text-align:left;white-space:normal;min-width:16rem"
        elif tag == "th" and len(value.text) > _LONG:
            # Or one model's long name would make its column of numbers wide.
            how = "overflow-wrap:anywhere;min-width:7rem"
        elif tag == "th" and column == 0:
            # Or it would have a word a line on a telephone.
            how = f"min-width:{min(7, longest / 2):g}rem"
        style = f' style="{how}"' if how else ""
        return f"<{tag}{style}>{text}</{tag}>"

    longest = max((len(str(row[0])) for row in table.rows), default=0)
    lines = [("th", table.header), *(("td", row) for row in table.rows)]
    rows = ("<tr>" + "".join(cell(tag, *entry) for entry in enumerate(line)) + "</tr>" for tag, line in lines)
    return '<div class="table"><table>\n' + "\n".join(rows) + "\n</table></div>"


def markdown_page(title: str, lead: str, notes: Sequence[str], parts: Sequence[Part]) -> str:
    """Write a whole report as Markdown, without its drawings."""
    pieces = [f"# {_escaped(title)}", _escaped(lead), *(f"> Note: {_escaped(note)}" for note in notes)]
    for part in parts:
        pieces += [f"## {part.title}", *([_escaped(part.text)] if part.text else [])]
        for block in part.blocks:
            pieces += [f"### {_escaped(block.heading)}"] if block.heading else []
            pieces += [_escaped(block.text)] if block.text else []
            pieces += [_markdown_table(block.table)] if block.table else []
        if part.facts:
            pieces.append(
                _markdown_table(Table(["name", "value"], [list(fact) for fact in part.facts.items()], text=1))
            )
    return "\n\n".join(pieces) + "\n"


def _markdown_table(table: Table) -> str:
    def cell(value: str | TableCell) -> str:
        value = TableCell(value) if isinstance(value, str) else value
        text = f"**{_escaped(value.text)}**" if value.bold else _escaped(value.text)
        return " ".join([text, ", ".join(map(_escaped, value.details))]).strip()

    columns = range(len(table.header))
    aligned = [":---" if column < table.names or column >= table.text else "---:" for column in columns]
    lines = [list(map(_escaped, table.header)), aligned, *([cell(value) for value in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Bring a text into one line of Markdown that shows it as it is, within a table too."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    # An underscore within a word and brackets without a link mean nothing, and names and intervals are full of them.
    return re.sub(r"([\\`*|~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w))", r"\\\1", text)


def csv_text(kind: type, entries: Iterable[object]) -> str:
    """Give a dataclass's entries as CSV; floats are written so that they are read back as they are."""
    names = [entry.name for entry in fields(kind)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for entry in entries:
        values = (getattr(entry, name) for name in names)
        writer.writerow(" ".join(map(repr, value)) if isinstance(value, tuple) else value for value in values)
    return buffer.getvalue()
