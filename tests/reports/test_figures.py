import xml.etree.ElementTree as ET

import numpy as np

from mutbert.reports.figures import scatter_figure, spectrum_figure, training_figure

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
