"""One self-contained HTML page of sections with text, figures and tables: no other file, font or script."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from mutbert.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl


class Table(NamedTuple):
    """A table; the row whose first cell is `marked` stands out, headers keep their line breaks, None is a dash."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]
    caption: str = ""
    marked: str = ""

    @classmethod
    def of(cls, frame: pl.DataFrame, caption: str = "", marked: str = "") -> Table:
        """Return the table of a frame, whose columns are text or are shown as Python writes them."""
        return cls(frame.columns, frame.rows(), caption, marked)


class Section(NamedTuple):
    """A part of a page: text, then figures as SVG, tables, facts by name, and text folded away by its summary."""

    title: str
    text: str = ""
    figures: str | Sequence[str] = ()
    tables: Sequence[Table] = ()
    facts: Mapping[str, object] = {}
    details: Mapping[str, str] = {}


def write_page(
    path: Path, title: str, lead: str, sections: Iterable[Section], *, notes: Sequence[str] = (), force: bool = False
) -> None:
    """Write a page; `notes` stand out above its sections."""
    page = render("page.html.j2", title=title, lead=lead, sections=sections, notes=notes)
    with atomic_file(path, force=force) as file:
        file.write_text(page, encoding="utf-8")


def render(template: str, **values: object) -> str:
    """Return a template of this package filled in, values escaped where it is HTML."""
    environment = Environment(
        loader=PackageLoader("mutbert.reports"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(values)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
