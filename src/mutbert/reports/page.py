"""One self-contained HTML page: no file, font or script beside it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from mutbert.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1c2430; background: #fff;
       max-width: 52rem; margin: 2.5rem auto; padding: 0 1.25rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d8dee6; padding-bottom: .3rem; }
p.lead { color: #51606f; margin-top: 0; }
.notes { background: #fff6e0; border-left: 4px solid #e69f00; padding: .6rem 1rem; margin: 1rem 0; }
.notes p { margin: .2rem 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure svg { width: 100%; max-width: 36rem; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #e6eaef; }
th { font-weight: 600; color: #51606f; white-space: pre-line; vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.marked td { font-weight: 600; background: #eef5fb; }
table.facts { width: 100%; }
table.facts th { vertical-align: top; width: 11rem; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; padding-right: 0; }
summary { cursor: pointer; color: #0072b2; }
pre { font-size: .85rem; line-height: 1.45; background: #f2f4f7; padding: .8rem 1rem;
      border-radius: 3px; overflow-x: auto; }
code { font-size: .92em; background: #f2f4f7; padding: .1em .3em; border-radius: 3px; }
/* A table of many columns may go on to the window's edge. */
@media (min-width: 56rem) { .table { margin-right: calc(26rem - 50vw + 1.25rem); } }
@media (max-width: 36rem) {
  body { margin: 1.25rem auto; padding: 0 1rem; }
  td:first-child { white-space: normal; }
  table.facts th { width: 6.5rem; }
}
"""


class Section(NamedTuple):
    """A part of a page.

    Parameters
    ----------
    title : str
        Its heading, as text.
    text : str
        What to see in it, as text; it may be empty.
    body : str
        HTML: a figure's SVG, a table of `html_table` or `html_facts`, or a text of `html_details`; empty where there
        is nothing to show.
    """

    title: str
    text: str
    body: str


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], marked: str = "") -> str:
    """Write a table as HTML; the row whose first cell is `marked` stands out, and headers keep their line breaks."""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f'<tr class="marked">{cells}</tr>' if str(row[0]) == marked else f"<tr>{cells}</tr>")
    return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"


def html_facts(facts: Mapping[str, object]) -> str:
    """Write facts as HTML, each in a row with its name; long ones are broken."""
    rows = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in facts.items()
    )
    return '<table class="facts">\n' + "\n".join(rows) + "\n</table>"


def html_details(summary: str, text: str) -> str:
    """Write a text as HTML that is folded away behind its summary, with its line breaks and spaces."""
    # A parser drops a line break that directly follows the tag, so that the text's own first one would be lost.
    return f"<details><summary>{escape(summary)}</summary><pre>\n{escape(text)}</pre></details>"


def write_page(
    path: Path, title: str, lead: str, sections: Sequence[Section], *, notes: Sequence[str] = (), force: bool = False
) -> None:
    """Write a page.

    Parameters
    ----------
    path : Path
        The HTML file.
    title, lead : str
        Its heading and the line below, as text.
    sections : sequence of Section
        Its parts, in order.
    notes : sequence of str
        What the reader must know first, as text: it stands out between the lead and the parts.
    force : bool
        Replace `path` where it exists.

    Raises
    ------
    InputError
        When `path` exists and `force` is false.
    """
    box = '<div class="notes">' + "".join(f"<p>{escape(note)}</p>" for note in notes) + "</div>\n" if notes else ""
    parts = [
        f"<section><h2>{escape(section.title)}</h2>\n"
        + (f"<p>{escape(section.text)}</p>\n" if section.text else "")
        + (f"<figure>{section.body}</figure>" if section.body else "")
        + "</section>"
        for section in sections
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n"
        f'<body><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{box}'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    with atomic_file(path, force=force) as file:
        file.write_text(page, encoding="utf-8")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless it is one: ``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
