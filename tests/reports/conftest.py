import json
import re
from html import unescape

import pytest

from mutbert.reports.folder import report


def found(pattern, text):
    return [unescape(one) for one in re.findall(pattern, text, re.DOTALL)]


class Page:
    """A page's texts, the cells of its tables, and the texts of its drawings by their titles."""

    def __init__(self, path):
        self.source = path.read_text(encoding="utf-8")
        self.body = re.sub("<svg.*?</svg>", "", self.source, flags=re.DOTALL)
        self.tables = [
            [found(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr")[1:]]
            for table in re.findall("<table.*?</table>", self.body, re.DOTALL)
        ]
        drawings = re.findall(r'<svg role="img" aria-label="(.*?)"(.*?)</svg>', self.source, re.DOTALL)
        self.drawings = {unescape(title): found("<text[^>]*>([^<]*)</text>", drawing) for title, drawing in drawings}
        self.words = " ".join(unescape(self.body).split())
        self.titles, self.lead = self.texts("h2"), " ".join(self.texts("p")[0].split())

    def texts(self, tag):
        return found(f"<{tag}(?: [^>]*)?>(.*?)</{tag}>", self.body)

    def table(self, first):
        return next(table for table in self.tables if table[0][0] == first)

    def check_alone(self):
        """Nothing is fetched, and no identifier is there twice."""
        assert not re.search("<(script|link|img|iframe|object|embed)|@import", self.source)
        ids = re.findall(r' id="(.*?)"', self.source)
        assert len(ids) == len(set(ids))
        links = re.findall(r' (?:src|href|xlink:href|data|action)="(.*?)"', self.source)
        links += re.findall(r"url\(([^)]*)\)", self.source)
        assert all(link[1:] in ids or link.startswith("data:image/png;base64,") for link in links)


@pytest.fixture
def read_page():
    return Page


@pytest.fixture
def evil():
    return "<script>alert('x')</script> & $x_1$ \"q\" | `c`"


@pytest.fixture
def page_of(tmp_path):
    """The page of a run's folder with these metrics, history and recipe, as `mutbert report` makes it."""

    def write(metrics, history, recipe):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        (tmp_path / "history.json").write_text(json.dumps(history))
        (tmp_path / "recipe.yaml").write_text(recipe)
        return Page(report(tmp_path))

    return write
