import re
from html import unescape

import pytest


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
