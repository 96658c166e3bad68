"""Figures of mutagenesis: the text and the geometry that are drawn."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from pyarrow import parquet

from mutbert import draw_mutagenesis
from mutbert.errors import InputError
from mutbert.reports.mutagenesis_figures import MOST_DRAWN, check_figures, mutagenesis_figure
from mutbert.reports.plots import style

COLOURS = {"A": "#009e73", "C": "#0072b2", "G": "#e69f00", "T": "#d55e00"}
MADE = {"surroundings": "person", "sample": "NA12878", "model": "runs/small/model", "context": "1510"}


def write_table(path, probability_P4, reference, start=1000):
    """Write a table as the command does; ratios are those of the probabilities, NaN where a position has none."""
    probability_P4 = np.asarray(probability_P4, float)
    code_P = np.array(["ACGTN".index(base) for base in reference])
    log_P4 = np.log(probability_P4)
    llr_P4 = log_P4 - log_P4[np.arange(len(code_P)), np.minimum(code_P, 3)][:, None]
    columns = {"contig": ["chr1"] * len(code_P), "start": start + np.arange(len(code_P)), "reference": list(reference)}
    for kind, values in (("llr", llr_P4), ("probability", probability_P4)):
        columns |= {f"{kind}_{base}": values[:, code].astype(np.float32) for code, base in enumerate("ACGT")}
    table = pa.table(columns).replace_schema_metadata({"mutbert_mutagenesis": "1", **MADE, "strands": "both"})
    parquet.write_table(table, path)
    return llr_P4


def some(count, seed=0):
    generator = np.random.default_rng(seed)
    probability_P4 = generator.dirichlet([0.5] * 4, count) * 0.996 + 0.001
    return probability_P4, "".join(generator.choice(list("ACGT"), count))


def figure_of(tmp_path, *table, **named):
    write_table(tmp_path / "a.parquet", *table, **named)
    with style():
        return mutagenesis_figure(tmp_path / "a.parquet")[0]


def logos(figure):
    return [axes for axes in figure.axes if axes.get_ylabel() == "bits"]


@pytest.mark.parametrize("count", [1, 60, MOST_DRAWN + 1])
def test_text_of_an_svg(tmp_path, count):
    write_table(tmp_path / "a.parquet", *some(count), start=12_345_677)
    for name in ("a.svg", "b.svg", "a.png"):
        draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / name])
    svg = (tmp_path / "a.svg").read_text()
    assert svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    words = [element.text for element in ET.fromstring(svg).iter() if element.text]
    place = {1: "chr1:12,345,678", 60: "chr1:12,345,678–12,345,737", 801: "chr1:12,345,678–12,346,478"}[count]
    assert {place, "position on chr1"} <= set(words)
    assert "surroundings NA12878, model small/model, context 1,510, both strands" in " ".join(words)
    if count == 60:
        assert {f"12,345,{tick}" for tick in (680, 690, 700, 710, 720, 730)} <= set(words)
        assert {"bits", "reference", "ln P(base) − ln P(reference), nats"} <= set(words)
        assert [words.count(base) for base in "ACGT"] == [1, 1, 1, 1]
        assert "no value" not in words


def test_letters_are_as_high_as_their_part_of_the_information(tmp_path):
    probability_P4 = np.array([[0.97, 0.01, 0.01, 0.01], [0.1, 0.2, 0.3, 0.4], [0.002, 0.496, 0.001, 0.501]])
    (logo,) = logos(figure_of(tmp_path, probability_P4, "ACG", start=10))
    height_P4 = probability_P4 * (2 + (probability_P4 * np.log2(probability_P4)).sum(axis=1))[:, None]
    assert logo.get_ylim() == (0, 2)
    found = {}
    for patch in logo.patches:
        (base,) = [base for base, colour in COLOURS.items() if np.allclose(patch.get_facecolor()[:3], to_rgb(colour))]
        path = patch.get_path()
        for first, end in pairwise([*np.flatnonzero(path.codes == path.MOVETO), len(path.codes)]):
            outline = path.vertices[first:end]
            # A letter of several lines, such as the hole of an A, is one letter.
            low, high = found.get((round(outline[:, 0].mean()), base), (np.inf, -np.inf))
            ends = min(low, outline[:, 1].min()), max(high, outline[:, 1].max())
            found[round(outline[:, 0].mean()), base] = ends
    for row in range(3):
        bottom = 0
        for code in np.argsort(height_P4[row], kind="stable"):
            top = bottom + height_P4[row, code]
            if top - bottom > 0.01:
                np.testing.assert_allclose(found.pop((11 + row, "ACGT"[code])), [bottom, top], atol=1e-6)
            bottom = top
    assert not found


def test_the_map_has_every_ratio_and_a_dot_at_each_reference(tmp_path):
    probability_P4, reference = some(150)
    probability_P4[20:30] = np.nan
    reference = reference[:20] + "N" * 10 + reference[30:]
    figure = figure_of(tmp_path, probability_P4, reference)
    maps = [axes for axes in figure.axes if [label.get_text() for label in axes.get_yticklabels()] == list("ACGT")]
    shown, dots = [], set()
    for axes in maps:
        (mesh,) = axes.collections
        shown.append(np.ma.filled(mesh.get_array().astype(float), np.nan).T)
        assert mesh.norm.vmin == -mesh.norm.vmax
        for line in axes.lines:
            dots |= set(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))
    llr_P4 = write_table(tmp_path / "a.parquet", probability_P4, reference)
    np.testing.assert_allclose(np.concatenate(shown), llr_P4, atol=1e-5)
    assert dots == {(1001 + place, "ACGT".index(base)) for place, base in enumerate(reference) if base != "N"}
    assert "no value" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("count", "start"), [(1, 0), (7, 99), (80, 248_956_300), (81, 5), (170, 999_999_000), (MOST_DRAWN + 1, 3)]
)
def test_nothing_overlaps_or_is_cut_off(tmp_path, count, start):
    figure = figure_of(tmp_path, *some(count), start=start)
    FigureCanvasAgg(figure).draw()
    axes_of = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_visible()]
    ticks = [(tick, *sorted(axis.get_view_interval())) for axis in axes_of for tick in axis.get_major_ticks()]
    # Ticks outside the ends of an axis are not drawn.
    inside = [tick for tick, low, high in ticks if low <= tick.get_loc() <= high]
    texts = [label for tick in inside for label in (tick.label1, tick.label2)]
    texts += [text for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    texts += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    texts += [child for axes in figure.axes for child in axes.get_children() if hasattr(child, "get_text")]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text() and text.get_visible()}
    assert len(boxes) > 5
    for text, box in boxes.items():
        # The layout is right to about a pixel.
        assert min(box.x0, box.y0) >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
        assert [other for other in boxes if box.overlaps(boxes[other])] == [text]


def test_of_more_positions_there_are_means(tmp_path):
    count = 3 * 400 + 1
    probability_P4, reference = some(count)
    probability_P4[800:900], reference = np.nan, reference[:800] + "N" * 100 + reference[900:]
    figure = figure_of(tmp_path, probability_P4, reference)
    llr_P4 = write_table(tmp_path / "a.parquet", probability_P4, reference)
    values = np.abs(llr_P4).sum(axis=1) / 3, -(probability_P4 * np.log(probability_P4)).sum(axis=1)
    for axes, value_P in zip(figure.axes, values, strict=True):
        at, mean = axes.lines[0].get_data()
        bins = np.arange(count) // 4
        wanted = [np.mean(part[~np.isnan(part)]) if (part := value_P[bins == one])[0] == part[0] else math.nan
                  for one in range(bins[-1] + 1)]  # fmt: skip
        np.testing.assert_allclose(mean, wanted, rtol=1e-5)
        np.testing.assert_array_equal(at, [1001 + np.flatnonzero(bins == one).mean() for one in range(bins[-1] + 1)])
        assert np.isnan(mean).sum() == 25


def test_few_positions_make_a_small_figure_and_none_has_a_value(tmp_path):
    few, many = (figure_of(tmp_path, *some(count)).get_figwidth() for count in (1, 30))
    assert few < many / 1.5
    figure = figure_of(tmp_path, np.full((12, 4), np.nan), "N" * 12)
    assert "no value" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match=r"one of \.png, \.svg"):
        check_figures([tmp_path / "a.pdf"], force=False)
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        check_figures([tmp_path / "a.svg", tmp_path / "a.png"], force=False)
    (tmp_path / "a.parquet").write_text("nothing")
    for name in ("a", "missing"):
        with pytest.raises(InputError, match=rf"{name}\.parquet: cannot be read as Parquet"):
            draw_mutagenesis(tmp_path / f"{name}.parquet", [tmp_path / "b.png"])
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is no table of 'mutbert mutagenesis'"):
        draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "b.png"])
    assert not (tmp_path / "b.png").exists()
