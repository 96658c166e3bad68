from html.parser import HTMLParser

import pytest

from mutbert.errors import InputError
from mutbert.reports.page import Section, html_table, write_page


class Links(HTMLParser):
    """Collect everything that a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.text = ""

    def handle_starttag(self, _tag, attributes):
        self.found += [value for name, value in attributes if name in {"src", "href"} and not value.startswith("#")]

    def handle_data(self, data):
        self.text += data


def test_a_page_fetches_nothing_and_shows_text_as_text(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "A & B", "<lead>", [Section("One <b>", "x < y", "<svg></svg>")])
    links = Links()
    links.feed(path.read_text())
    assert links.found == []
    for text in ("A & B", "<lead>", "One <b>", "x < y"):
        assert text in links.text


def test_a_page_is_not_replaced_unless_forced(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "first", "", [])
    with pytest.raises(InputError, match="exists already"):
        write_page(path, "second", "", [])
    write_page(path, "second", "", [], force=True)
    assert "second" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_a_table_marks_one_row_and_escapes_its_cells():
    table = html_table(("name", "value"), [["a<b", 1], ["model", 2]], marked="model")
    assert "<td>a&lt;b</td><td>1</td>" in table
    assert table.count('class="marked"') == 1
