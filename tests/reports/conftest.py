import json
import re
from html.parser import HTMLParser

import pytest

from mutbert.reports.folder import report

EVIL = "<script>alert('x')</script> & $x_1$ \"q\" | `c`"


class Page(HTMLParser):
    """A page's texts by tag, its tables' cells, the texts of its drawings, and everything that has an address."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.texts, self.tables, self.drawings, self.links, self.ids = [], {}, [], {}, [], []
        self.open = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [v for k, v in attributes.items() if k in {"src", "href", "xlink:href", "data", "action"}]
        self.ids += [v for k, v in attributes.items() if k == "id"]
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "svg":
            self.drawing = self.drawings.setdefault(attributes["aria-label"], [])
        elif "svg" not in self.open:
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "svg" in self.open:
            if data.strip():
                self.drawing.append(data)
        elif "table" in self.open:
            if self.open[-1] in {"td", "th"}:
                self.tables[-1][-1][-1] += data
        elif self.open:
            self.texts.setdefault(self.open[-1], [""])[-1] += data

    @property
    def lead(self):
        return self.texts["p"][0]

    @property
    def titles(self):
        return self.texts["h2"]

    def table(self, first):
        return next(table for table in self.tables if table[0][0] == first)

    def check_alone(self):
        """Nothing is fetched, and no identifier is there twice."""
        assert not {"script", "link", "img", "iframe", "object", "embed"} & set(self.tags)
        images = "data:image/png;base64,"
        assert all(link.startswith(images) or (link[0] == "#" and link[1:] in self.ids) for link in self.links)
        assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", self.source))
        assert "@import" not in self.source
        assert len(self.ids) == len(set(self.ids))


@pytest.fixture
def read_page():
    return Page


@pytest.fixture
def evil():
    return EVIL


@pytest.fixture
def page_of(tmp_path):
    """The page of a run's folder with these metrics, history and recipe, as `mutbert report` makes it."""

    def write(metrics, history, recipe="model: mutbert\n"):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        (tmp_path / "history.json").write_text(json.dumps(history))
        (tmp_path / "recipe.yaml").write_text(recipe)
        return Page(report(tmp_path))

    return write
