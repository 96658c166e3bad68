"""Figures of mutagenesis: what is in them, read from the SVG and from the geometry that is drawn."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import PathPatch
from pyarrow import parquet

from mutbert.errors import InputError
from mutbert.reports import mutagenesis_figures
from mutbert.reports.mutagenesis_figures import (
    MOST_DRAWN,
    check_figures,
    draw_mutagenesis,
    information,
)

COLOURS = {"A": "#009e73", "C": "#0072b2", "G": "#e69f00", "T": "#d55e00"}


MADE = {
    "surroundings": "person",
    "sample": "NA12878",
    "model": "runs/small/model",
    "context": "1510",
    "strands": "both",
}


def write_table(path, probability_P4, reference, start=1000, contig="chr1", row_group_size=None, made=()):
    """Write a table as the command does: ratios are of the probabilities, NaN where a position has none."""
    probability_P4 = np.asarray(probability_P4, float)
    code_P = np.array(["ACGTN".index(base) for base in reference])
    with np.errstate(divide="ignore"):
        log_P4 = np.log(probability_P4)
    llr_P4 = log_P4 - log_P4[np.arange(len(code_P)), np.minimum(code_P, 3)][:, None]
    columns = {
        "contig": [contig] * len(code_P),
        "start": np.arange(start, start + len(code_P)),
        "reference": list(reference),
        **{f"llr_{base}": llr_P4[:, number].astype(np.float32) for number, base in enumerate("ACGT")},
        **{f"probability_{base}": probability_P4[:, number].astype(np.float32) for number, base in enumerate("ACGT")},
    }
    table = pa.table(columns).replace_schema_metadata({"mutbert_mutagenesis": "1", **dict(made)})
    parquet.write_table(table, path, row_group_size=row_group_size)
    return llr_P4


def some(count, seed=0):
    generator = np.random.default_rng(seed)
    probability_P4 = generator.dirichlet([0.5] * 4, count) * 0.996 + 0.001
    return probability_P4, "".join(generator.choice(list("ACGT"), count))


def draw(tmp_path, *given, **named):
    write_table(tmp_path / "a.parquet", *given, **named)
    draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "a.svg"], force=True)
    return (tmp_path / "a.svg").read_text()


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.text and element.text.strip()]


@pytest.fixture
def drawn(monkeypatch):
    """Keep the figures that are made, so that what is in them can be measured."""
    figures = []
    for name in ("png_bytes", "svg_text"):
        plain = getattr(mutagenesis_figures, name)
        monkeypatch.setattr(
            mutagenesis_figures, name, lambda figure, *rest, plain=plain: figures.append(figure) or plain(figure, *rest)
        )
    return figures


def test_information_is_two_bits_less_the_entropy():
    probability_P4 = [[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1], [np.nan] * 4]
    last = -0.7 * math.log2(0.7) - 0.3 * math.log2(0.1)
    np.testing.assert_allclose(information(np.array(probability_P4)), [2, 0, 1, 2 - last, np.nan], atol=1e-12)


def test_coordinates_count_from_one_and_text_is_text(tmp_path):
    svg = draw(tmp_path, *some(60), start=12_345_677)
    words = texts(svg)
    assert words.count("chr1:12,345,678–12,345,737") == 1
    assert "position on chr1" in words
    assert {f"12,345,{tick}" for tick in (680, 690, 700, 710, 720, 730)} <= set(words)
    assert {"bits", "reference", "ln P(base) − ln P(reference), nats"} <= set(words)
    # The names of the four rows.
    assert [words.count(base) for base in "ACGT"] == [1, 1, 1, 1]
    assert "no value" not in words


@pytest.mark.parametrize("count", [1, 60, MOST_DRAWN + 1])
def test_a_figure_says_what_the_model_saw(tmp_path, count):
    words = " ".join(texts(draw(tmp_path, *some(count), made=MADE)))
    assert "surroundings NA12878, model small/model, context 1,510, both strands" in words
    words = " ".join(texts(draw(tmp_path, *some(count), made={"surroundings": "population", "strands": "forward"})))
    assert "surroundings population, forward strand" in words


def test_scales_of_logos_are_the_same_however_sure_a_model_is(tmp_path, drawn):
    draw(tmp_path, np.full((5, 4), 0.25), "ACGTA")
    draw(tmp_path, np.eye(4) * 0.96 + 0.01, "ACGT")
    for figure in drawn:
        (logo,) = [axes for axes in figure.axes if axes.get_ylabel() == "bits"]
        assert logo.get_ylim() == (0, 2)


def test_few_positions_make_a_small_figure(tmp_path, drawn):
    for count in (1, 30):
        draw(tmp_path, *some(count))
    few, many = (figure.get_figwidth() for figure in drawn)
    assert few < many / 1.5


def test_the_same_table_gives_the_same_picture(tmp_path):
    assert draw(tmp_path, *some(90)) == draw(tmp_path, *some(90))
    assert draw(tmp_path, *some(90)) != draw(tmp_path, *some(90, seed=1))


def test_letters_are_as_high_as_their_part_of_the_information(tmp_path, drawn):
    probability_P4 = np.array([[0.97, 0.01, 0.01, 0.01], [0.1, 0.2, 0.3, 0.4], [0.002, 0.496, 0.001, 0.501]])
    draw(tmp_path, probability_P4, "ACG", start=10)
    height_P4 = probability_P4 * information(probability_P4)[:, None]
    (logo,) = [axes for axes in drawn[0].axes if axes.get_ylabel() == "bits"]
    found = {}
    for patch in logo.patches:
        assert isinstance(patch, PathPatch)
        (base,) = [base for base, colour in COLOURS.items() if np.allclose(patch.get_facecolor()[:3], rgb(colour))]
        for outline in split(patch.get_path()):
            place = round(outline[:, 0].mean())
            # A letter of several lines, such as the hole of an A, is one letter.
            low, high = found.get((place, base), (np.inf, -np.inf))
            found[place, base] = min(low, outline[:, 1].min()), max(high, outline[:, 1].max())
    top = logo.get_ylim()[1]
    for row in range(3):
        bottom = 0
        for number in np.argsort(height_P4[row], kind="stable"):
            height = height_P4[row, number]
            if height > top / 200:
                np.testing.assert_allclose(found.pop((11 + row, "ACGT"[number])), [bottom, bottom + height], atol=1e-6)
            bottom += height
    assert not found


def rgb(colour):
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def split(path):
    """Give the lines of a path, each from where the pen is put down."""
    starts = [*np.flatnonzero(path.codes == path.MOVETO), len(path.codes)]
    for first, end in pairwise(starts):
        yield path.vertices[first:end]


def test_the_map_has_every_ratio_and_a_dot_at_each_reference(tmp_path, drawn):
    probability_P4, reference = some(150)
    probability_P4[20:30] = np.nan
    reference = reference[:20] + "N" * 10 + reference[30:]
    llr_P4 = write_table(tmp_path / "a.parquet", probability_P4, reference)
    draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "a.png"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    figure = drawn[0]
    maps = [axes for axes in figure.axes if [label.get_text() for label in axes.get_yticklabels()] == list("ACGT")]
    assert len(maps) == 2
    shown, dots = [], set()
    for axes in maps:
        (mesh,) = [child for child in axes.collections if child.get_array() is not None]
        shown.append(np.ma.filled(mesh.get_array().astype(float), np.nan).T)
        assert mesh.norm.vmin == -mesh.norm.vmax
        for line in axes.lines:
            dots |= set(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))
    np.testing.assert_allclose(np.concatenate(shown), llr_P4, atol=1e-5)
    assert dots == {(1001 + place, "ACGT".index(base)) for place, base in enumerate(reference) if base != "N"}
    assert "no value" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("count", "start"), [(1, 0), (7, 99), (80, 248_956_300), (81, 5), (MOST_DRAWN, 999_999_000), (MOST_DRAWN + 1, 3)]
)
@pytest.mark.parametrize("made", [{}, MADE])
def test_nothing_overlaps_or_is_cut_off(tmp_path, drawn, count, start, made):
    draw(tmp_path, *some(count), start=start, made=made)
    figure = drawn[0]
    # As pixels, since legends stay where they were drawn last.
    FigureCanvasAgg(figure).draw()
    # Ticks that are not between the ends of an axis are not drawn.
    texts = [
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]
    texts += [text for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    texts += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    texts += [axes.title for axes in figure.axes] + [axes._left_title for axes in figure.axes]
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    assert len(boxes) > 5
    for number, box in enumerate(boxes):
        # The layout is right to about a pixel.
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
        for other in boxes[:number]:
            assert not box.overlaps(other)


def test_of_more_positions_there_are_means(tmp_path, drawn):
    count = 3 * 400 + 1
    probability_P4, reference = some(count)
    probability_P4[800:900] = np.nan
    reference = reference[:800] + "N" * 100 + reference[900:]
    # Row groups end within a point's bases.
    llr_P4 = write_table(tmp_path / "a.parquet", probability_P4, reference, row_group_size=101)
    draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "a.svg"])
    words = texts((tmp_path / "a.svg").read_text())
    assert "1,201 bases, more than the 800 that are drawn base by base; means over 4 bases a point" in words
    entropy_P = -(probability_P4 * np.log(probability_P4)).sum(axis=1)
    size_P = np.abs(llr_P4).sum(axis=1) / 3
    for axes, value_P in zip(drawn[0].axes, (size_P, entropy_P), strict=True):
        at, mean = axes.lines[0].get_data()
        for number, (place, value) in enumerate(zip(at, mean, strict=True)):
            bases = np.arange(4 * number, min(4 * number + 4, count))
            assert place == 1001 + bases.mean()
            part = value_P[bases]
            wanted = part[~np.isnan(part)].mean() if not np.isnan(part).all() else np.nan
            np.testing.assert_allclose(value, wanted, rtol=1e-5)
        assert np.isnan(mean).sum() == 25


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(InputError, match=r"one of \.png, \.svg"):
        check_figures([tmp_path / "a.pdf"], force=False)
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        check_figures([tmp_path / "a.svg", tmp_path / "a.png"], force=False)
    (tmp_path / "a.parquet").write_text("nothing")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "b.png"])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        draw_mutagenesis(tmp_path / "missing.parquet", [tmp_path / "b.png"])
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is no table of 'mutbert mutagenesis'"):
        draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "b.png"])
    assert not (tmp_path / "b.png").exists()
    assert (tmp_path / "a.png").read_text() == "mine"


def test_positions_without_any_value_are_drawn(tmp_path):
    words = texts(draw(tmp_path, np.full((12, 4), np.nan), "N" * 12))
    assert "no value" in words
