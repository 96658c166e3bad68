"""Names are text: in pages, cards, figures and on the terminal, whatever is in them."""

import re
import xml.etree.ElementTree as ET
from contextlib import redirect_stdout
from html.parser import HTMLParser
from io import StringIO

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mutbert import MutBertConfig, MutBertModel
from mutbert.cli.command import print_result
from mutbert.errors import InputError, one_line
from mutbert.reports import plots
from mutbert.reports.model_card import model_card
from mutbert.reports.page import Section, write_page

PARTS = (
    "<script>", "</svg>", '"', "'", "|", "`", "```", "\n", "\n---\n",
    "{{ 7 * 7 }}", "{% raw %}", "\x1b[31m", "\x9b2J", "&",
    "$\\frac$", "$", "\\", "[red]", "](x)", "*", "_", "~", "]]>", "-->", " ",
    "a", "é", "\u202e", ":", "#",
)  # fmt: skip
names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)
MODEL = MutBertModel(MutBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))


def tags(text):
    """Return the tags and attributes that a browser sees."""
    parser, found = HTMLParser(), set()
    parser.handle_starttag = lambda tag, attributes: found.update({tag, *(name for name, _ in attributes)})
    parser.feed(text)
    return found


@pytest.mark.filterwarnings("ignore:Glyph")
@given(name=names)
def test_a_page_and_its_figures_have_the_tags_of_any_other(name, tmp_path_factory):
    found = []
    for one in ("plain", name):
        with plots.style():
            figure, axes = plots.new_figure(2)
            axes.set_title(one)
            plots.list_rows(axes, [one, "b"])
            drawing = plots.svg(figure, one)
        ET.fromstring(drawing)
        page = tmp_path_factory.mktemp("page") / "page.html"
        section = Section(one, one, drawing, None, {one: one}, {one: one}, {one: one}, one)
        write_page(page, one, one, [section], notes=[one])
        found.append(tags(page.read_text(encoding="utf-8")))
    assert found[1] <= found[0]


@given(name=names)
def test_a_card_is_the_same_markdown_whatever_the_names(name):
    genome = {
        "contigs": [{"length": 9, "variants": [0, 1]}], "settings": {name: name}, "records": [],
        "sources": [{"kind": name, "file": name, "bytes": 1, "sha256": name}],
    }  # fmt: skip
    metrics = {
        "kind": "pretrain", "name": name, "unit": name, "steps": 1, "targets": {name: 1},
        "cross_entropy": {"model": {name: 1.0}, name: {name: 1.0}},
    }  # fmt: skip
    card = model_card(name, MODEL, licence=name, recipe=name, genomes={name: genome}, metrics=metrics)
    _, head, body = re.split(r"^---$\n?", card, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(head)["model-index"][0]["name"] == name
    # Without what is code, no tag, no link and no cell of a table comes from a name.
    fence = re.findall(r"^`{3,}", body, re.MULTILINE)
    prose = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert len(fence) >= 4
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(x\)", prose)
    rows = [
        len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in prose.splitlines() if line.startswith("|")
    ]
    assert set(rows) <= {3, 4, 5}


@given(name=names)
def test_a_terminal_shows_names_and_obeys_none(name):
    with redirect_stdout(StringIO()) as shown:
        print_result({"rows": [{"name": name, "count": 1}], name: name, "counts": {name: 3}, "notes": [f"a {name}"]})
    said = shown.getvalue() + one_line(InputError(name))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert all(part in said for part in ("[red]", "{{ 7 * 7 }}") if part in name)
