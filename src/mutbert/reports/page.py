"""One self-contained HTML page: no file, font or script beside it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from mutbert.publishing import publish_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1c2430; background: #fff;
       max-width: 52rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .25rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d8dee6; padding-bottom: .3rem; }
p.lead { color: #51606f; margin-top: 0; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #e6eaef; }
th { font-weight: 600; color: #51606f; }
th:first-child, td:first-child { text-align: left; }
tr.marked td { font-weight: 600; background: #eef5fb; }
code { font-size: .92em; background: #f2f4f7; padding: .1em .3em; border-radius: 3px; }
"""


class Section(NamedTuple):
    """A part of a page.

    Parameters
    ----------
    title : str
        Its heading, as text.
    text : str
        What to see in it, as text.
    body : str
        HTML: a figure's SVG or a table of `html_table`.
    """

    title: str
    text: str
    body: str


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], marked: str = "") -> str:
    """Write a table as HTML; the row whose first cell is `marked` stands out."""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f'<tr class="marked">{cells}</tr>' if str(row[0]) == marked else f"<tr>{cells}</tr>")
    return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section], *, force: bool = False) -> None:
    """Write a page.

    Parameters
    ----------
    path : Path
        The HTML file.
    title, lead : str
        Its heading and the line below, as text.
    sections : sequence of Section
        Its parts, in order.
    force : bool
        Replace `path` where it exists.

    Raises
    ------
    InputError
        When `path` exists and `force` is false.
    """
    parts = [
        f"<section><h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>\n<figure>{section.body}</figure></section>"
        for section in sections
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n"
        f'<body><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    with publish_file(path, force=force) as file:
        file.write_text(page, encoding="utf-8")
