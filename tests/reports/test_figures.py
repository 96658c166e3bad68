import xml.etree.ElementTree as ET

import numpy as np

from mutbert.reports.figures import (
    scatter_figure,
    spectra_figure,
    spectra_image,
    spectrum_figure,
)
from mutbert.reports.training_figures import training_figure

HISTORY = [
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": 1.4},
    {"step": 2, "eval_cross_entropy": 1.35},
    {"step": 4, "eval_cross_entropy": 1.30},
]


def texts(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text and element.text.strip()}


def test_a_spectrum_has_a_bar_a_bin():
    svg = spectrum_figure([0, 0.5, 1], [10, 3])
    assert {"frequency of the alternate allele", "alleles"} <= texts(svg)
    assert svg == spectrum_figure([0, 0.5, 1], [10, 3])
    assert svg != spectrum_figure([0, 0.5, 1], [10, 4])


EDGES = [0, 0.125, 0.25, 0.5, 1]


def paths(svg):
    return [element for element in ET.fromstring(svg).iter() if element.tag.endswith("path")]


def test_several_spectra_have_a_line_and_a_name_each():
    counts = {"Europe": [0, 5, 40, 900], "Asia <1>": [0, 9, 30, 700]}
    svg = spectra_figure(EDGES, counts)
    assert {"Europe", "Asia <1>", "frequency of the alternate allele"} <= texts(svg)
    assert svg == spectra_figure(EDGES, counts)
    drawn = [path.get("d") for path in paths(svg) if "fill: none" in path.get("style", "")]
    for colour in ("0072b2", "d55e00"):
        assert f"stroke: #{colour}" in svg
    assert len(drawn) == len(set(drawn))


def test_one_spectrum_has_bars_and_no_legend():
    svg = spectra_figure(EDGES, {"Europe": [0, 5, 40, 900]})
    assert "Europe" not in texts(svg)
    bars = [path for path in paths(svg) if "fill: #0072b2" in path.get("style", "")]
    # The empty lowest bin is left out.
    assert len(bars) == 3


def test_spectra_without_alleles_are_drawn_all_the_same():
    assert {"a", "b"} <= texts(spectra_figure(EDGES, {"a": [0] * 4, "b": [0] * 4}))
    assert spectra_figure(EDGES, {"a": [0] * 4})
    # Ten lines: colours come again with another line.
    svg = spectra_figure(EDGES, {str(i): [i + 1, 1, 2, 10**i] for i in range(10)})
    assert {str(i) for i in range(10)} <= texts(svg)


def test_an_image_is_png_and_the_same_again():
    counts = {"a": [3, 4, 5, 6], "b": [1, 2, 3, 4]}
    content = spectra_image(EDGES, counts)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20], "big") > 1000
    assert content == spectra_image(EDGES, counts)
    assert content != spectra_image(EDGES, {"a": [3, 4, 5, 7], "b": [1, 2, 3, 4]})


def test_a_training_curve_names_what_it_is_compared_with():
    svg = training_figure(HISTORY, {"uniform": 1.386, "order-5 Markov chain": 1.33})
    assert {"training loss", "held out", "uniform", "order-5 Markov chain"} <= texts(svg)
    assert svg == training_figure(HISTORY, {"uniform": 1.386, "order-5 Markov chain": 1.33})


def test_a_run_without_evaluations_is_drawn_all_the_same():
    assert "training loss" in texts(training_figure(HISTORY[:2], {}))
    assert "optimisation step" in texts(training_figure([], {}))


def test_a_scatter_has_a_colour_bar():
    svg = scatter_figure(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.2, 0.6]), "share of G and C")
    assert "share of G and C" in texts(svg)
