import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.reports.figures import scatter_figure, spectra_figure, spectra_image, spectrum_figure
from mutbert.reports.page import Section, Table, write_page

EDGES = [0, 0.125, 0.25, 0.5, 1]


def texts(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text and element.text.strip()}


def paths(svg, style):
    found = (element for element in ET.fromstring(svg).iter() if element.tag.endswith("path"))
    return [path.get("d") for path in found if style in path.get("style", "")]


def test_one_spectrum_has_bars_and_no_legend():
    svg = spectrum_figure([0, 0.5, 1], [10, 3])
    assert {"frequency of the alternate allele", "alleles"} <= texts(svg)
    assert (svg == spectrum_figure([0, 0.5, 1], [10, 3]), svg == spectrum_figure([0, 0.5, 1], [10, 4])) == (True, False)
    svg = spectra_figure(EDGES, {"Europe": [0, 5, 40, 900]})
    assert "Europe" not in texts(svg)
    # The empty lowest bin is left out.
    assert len(paths(svg, "fill: #0072b2")) == 3
    assert spectra_figure(EDGES, {"a": [0] * 4})


def test_several_spectra_have_a_line_and_a_name_each():
    svg = spectra_figure(EDGES, {"Europe": [0, 5, 40, 900], "Asia <1>": [0, 9, 30, 700]})
    assert {"Europe", "Asia <1>", "frequency of the alternate allele"} <= texts(svg)
    drawn = paths(svg, "fill: none")
    assert len(drawn) == len(set(drawn))
    assert {"a", "b"} <= texts(spectra_figure(EDGES, {"a": [0] * 4, "b": [0] * 4}))
    # Ten lines: colours come again with another line.
    svg = spectra_figure(EDGES, {str(i): [i + 1, 1, 2, 10**i] for i in range(10)})
    assert {str(i) for i in range(10)} <= texts(svg)


def test_an_image_is_png_and_the_same_again():
    counts = {"a": [3, 4, 5, 6], "b": [1, 2, 3, 4]}
    content = spectra_image(EDGES, counts)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20], "big") > 1000
    assert content == spectra_image(EDGES, counts)


def test_a_scatter_has_a_colour_bar():
    svg = scatter_figure(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.2, 0.6]), "share of G and C")
    assert "share of G and C" in texts(svg)


def test_a_page_shows_text_as_text(tmp_path, read_page):
    path = tmp_path / "page.html"
    table = Table(["name", "value"], [["a<b", 1], ["model", None]], marked="model")
    write_page(path, "A & B", "<lead>", [Section("One <b>", "x < y", "<svg aria-label='x'></svg>", [table])])
    page = read_page(path)
    assert page.texts("h1") + page.texts("p") + page.texts("h2") == ["A & B", "<lead>", "x < y", "One <b>"]
    assert page.tables == [[["name", "value"], ["a<b", "1"], ["model", "–"]]]
    assert page.source.count('class="marked"') == 1
    with pytest.raises(InputError, match="exists already"):
        write_page(path, "second", "", [])
    assert read_page(path).source == page.source
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
