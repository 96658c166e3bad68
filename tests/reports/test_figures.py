import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from mutbert.errors import InputError
from mutbert.reports.figures import scatter_figure, spectra_figure, spectra_image, spectrum_figure
from mutbert.reports.page import Section, write_page

EDGES = [0, 0.125, 0.25, 0.5, 1]


def texts(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text and element.text.strip()}


def test_spectra_have_their_names_and_the_same_text_again():
    assert {"frequency of the alternate allele", "alleles"} <= texts(spectrum_figure([0, 0.5, 1], [10, 3]))
    assert "Europe" not in texts(spectra_figure(EDGES, {"Europe": [0, 5, 40, 900]}))
    # Ten lines: colours come again with another line.
    several = {f"<{i}>": [0, 1, 2, 10**i] for i in range(10)}
    assert set(several) <= texts(spectra_figure(EDGES, several))
    assert {"a", "b"} <= texts(spectra_figure(EDGES, {"a": [0] * 4, "b": [0] * 4}))
    assert spectra_image(EDGES, several) == spectra_image(EDGES, several)
    assert spectra_image(EDGES, several).startswith(b"\x89PNG\r\n\x1a\n")
    points = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert "share of G and C" in texts(scatter_figure(points, np.array([0.2, 0.6]), "share of G and C"))


def test_a_page_shows_text_as_text(tmp_path, read_page):
    path = tmp_path / "page.html"
    table = pl.DataFrame({"name": ["a<b", "model"], "value": [1, None]})
    section = Section("One <b>", "x < y", "<svg aria-label='x'></svg>", table, marked="model")
    write_page(path, "A & B", "<lead>", [section])
    page = read_page(path)
    assert page.texts("h1") + page.texts("p") + page.texts("h2") == ["A & B", "<lead>", "x < y", "One <b>"]
    assert page.tables == [[["name", "value"], ["a<b", "1"], ["model", "–"]]]
    assert page.source.count('class="marked"') == 1
    with pytest.raises(InputError, match="exists already"):
        write_page(path, "second", "", [])
    assert read_page(path).source == page.source
