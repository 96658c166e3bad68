"""Figures of mutagenesis: the text and the geometry that are drawn."""

import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mutbert import draw_mutagenesis
from mutbert.errors import InputError
from mutbert.reports.mutagenesis_figures import MOST_DRAWN, mutagenesis_figure
from mutbert.reports.plots import style

MADE = {"surroundings": "person", "sample": "NA12878", "model": "runs/small/model", "context": "1510"}


def write_table(path, probability_P4, reference, start=1000, version="2"):
    """Write a table as the command does, or did; ratios are those of probabilities, NaN where there is none."""
    probability_P4 = np.asarray(probability_P4, float)
    code_P = np.array(["ACGTN".index(base) for base in reference])
    log_P4 = np.log(probability_P4)
    llr_P4 = log_P4 - log_P4[np.arange(len(code_P)), np.minimum(code_P, 3)][:, None]
    titles, first = (("chrom", "pos", "ref"), 1) if version == "2" else (("contig", "start", "reference"), 0)
    places = start + first + np.arange(len(code_P))
    columns = dict(zip(titles, (["chr1"] * len(code_P), places, list(reference)), strict=True))
    for kind, values in (("llr", llr_P4), ("probability", probability_P4)):
        columns |= {f"{kind}_{base}": values[:, code].astype(np.float32) for code, base in enumerate("ACGT")}
    table = pa.table(columns).replace_schema_metadata({"mutbert_mutagenesis": version, **MADE, "strands": "both"})
    parquet.write_table(table, path)
    return llr_P4


def some(count, seed=0):
    generator = np.random.default_rng(seed)
    probability_P4 = generator.dirichlet([0.5] * 4, count) * 0.996 + 0.001
    return probability_P4, "".join(generator.choice(list("ACGT"), count))


def figure_of(tmp_path, *table):
    llr_P4 = write_table(tmp_path / "a.parquet", *table)
    with style():
        return mutagenesis_figure(tmp_path / "a.parquet")[0], llr_P4


@pytest.mark.parametrize("count", [1, 60, MOST_DRAWN + 1])
def test_text_of_an_svg(tmp_path, count):
    write_table(tmp_path / "a.parquet", *some(count), start=12_345_677)
    draw_mutagenesis(tmp_path / "a.parquet", [tmp_path / "a.svg", tmp_path / "a.png"])
    svg = (tmp_path / "a.svg").read_text()
    write_table(tmp_path / "old.parquet", *some(count), start=12_345_677, version="1")
    draw_mutagenesis(tmp_path / "old.parquet", [tmp_path / "old.svg"])
    assert svg == (tmp_path / "old.svg").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    words = [element.text for element in ET.fromstring(svg).iter() if element.text]
    place = {1: "chr1:12,345,678", 60: "chr1:12,345,678–12,345,737", 801: "chr1:12,345,678–12,346,478"}[count]
    assert {place, "position on chr1"} <= set(words)


def test_the_map_has_every_ratio_and_a_dot_at_each_reference(tmp_path):
    """And a stack of the logo is as high as the information, 2 bits less the entropy."""
    probability_P4, reference = some(150)
    probability_P4[20:30] = np.nan
    reference = reference[:20] + "N" * 10 + reference[30:]
    figure, llr_P4 = figure_of(tmp_path, probability_P4, reference)
    maps = [axes for axes in figure.axes if [label.get_text() for label in axes.get_yticklabels()] == list("ACGT")]
    shown, dots, tops = [], set(), np.zeros(150)
    for axes in maps:
        (mesh,) = axes.collections
        shown.append(np.ma.filled(mesh.get_array().astype(float), np.nan).T)
        for line in axes.lines:
            dots |= set(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))
    np.testing.assert_allclose(np.concatenate(shown), llr_P4, atol=1e-5)
    assert dots == {(1001 + place, "ACGT".index(base)) for place, base in enumerate(reference) if base != "N"}
    assert "no value" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for patch in (patch for axes in figure.axes if axes.get_ylabel() == "bits" for patch in axes.patches):
        place, height = patch.get_path().vertices.T
        np.maximum.at(tops, place.round().astype(int) - 1001, height)
    bits_P = 2 + (probability_P4 * np.log2(probability_P4)).sum(axis=1)
    np.testing.assert_allclose(tops, np.nan_to_num(bits_P), atol=0.03)


def test_of_more_positions_there_are_means(tmp_path):
    count = 3 * 400 + 1
    probability_P4, reference = some(count)
    probability_P4[800:900], reference = np.nan, reference[:800] + "N" * 100 + reference[900:]
    figure, llr_P4 = figure_of(tmp_path, probability_P4, reference)
    values = np.abs(llr_P4).sum(axis=1) / 3, -(probability_P4 * np.log(probability_P4)).sum(axis=1)
    for axes, value_P in zip(figure.axes, values, strict=True):
        at, mean = axes.lines[0].get_data()
        for found, whole_P in ((mean, value_P), (at, 1001 + np.arange(count))):
            wanted = [part.mean() for part in np.split(whole_P, range(4, count, 4))]
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_cannot_be_drawn(tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path / "text.parquet").write_text("nothing")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for table, output, message in (
        ("other", "a.pdf", r"one of \.png, \.svg"),
        ("other", "mine.png", "exists already"),
        ("text", "a.png", r"text\.parquet: cannot be read as Parquet"),
        ("other", "a.png", "is no table of 'mutbert mutagenesis'"),
    ):
        with pytest.raises(InputError, match=message):
            draw_mutagenesis(tmp_path / f"{table}.parquet", [tmp_path / "a.svg", tmp_path / output])
    assert not [*tmp_path.glob("a.*")]
