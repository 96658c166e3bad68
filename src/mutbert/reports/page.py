"""One self-contained HTML page of sections with text, figures and tables: no other file, font or script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mutbert.files import atomic_file

if TYPE_CHECKING:
    import polars as pl


METRIC_NAMES: Final = {
    "mcc": "MCC", "accuracy": "accuracy", "f1": "F1", "precision": "precision", "recall": "recall", "auroc": "AUROC",
    "auprc": "AUPRC", "pearson": "Pearson correlation", "spearman": "Spearman correlation", "r2": "R²",
    "mse": "mean squared error", "auroc_by_chrom": "AUROC by chromosome", "auprc_by_chrom": "AUPRC by chromosome",
}  # fmt: skip


class Section(NamedTuple):
    """A part of a page: text, figures as SVG, a table, facts by name, links, and text folded away by its summary."""

    title: str
    text: str = ""
    figures: str | Sequence[str] = ()
    table: pl.DataFrame | None = None
    facts: Mapping[str, object] = {}
    links: Mapping[str, str] = {}  # other files by their texts
    details: Mapping[str, str] = {}
    marked: str = ""  # the first cell of the table's row that stands out


def write_page(
    path: Path, title: str, lead: str = "", sections: Iterable[Section] = (), *, notes: Sequence[str] = (),
    force: bool = False, template: str = "page.html.j2", **values: object,
) -> None:  # fmt: skip
    """Write a page whose `notes` stand out above its sections, or one with a `template` of its own for `values`."""
    page = render(template, title=title, lead=lead, sections=sections, notes=notes, counted=counted, **values)
    with atomic_file(path, force=force) as file:
        file.write_text(page, encoding="utf-8")


def render(template: str, **values: object) -> str:
    """Return a template of this package filled in, values escaped where it is HTML."""
    environment = Environment(
        loader=PackageLoader("mutbert.reports"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined,
    )  # fmt: skip
    return environment.get_template(template).render(values)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
