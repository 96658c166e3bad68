"""The page of variant effects, read back."""

import csv
import dataclasses
import html
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.reports.vep import write_vep_page, write_vep_table
from mutbert.reports.vep_figures import (
    Bar,
    Curve,
    Ladder,
    bar_figure,
    effect_figure,
    histogram_figure,
    ladder_figure,
    precision_recall_curves,
    roc_curves,
)
from mutbert.reports.vep_results import Measure, Shown, VepDifference, VepPart, VepReport, VepRow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAN = math.nan
TITLES = {
    "binary": ["AUROC", "ROC", "Precision and recall", "Ratio by class"],
    "regression": ["Spearman correlation", "Ratio and effect"],
    "multiclass": ["AUROC: a against all else", "AUROC: b <i> against all else", "Ratio by class"],
}
LAST = ["Against the best trivial baseline", "What was not used"]


def made(problem="binary", parts=("all variants", "SNV"), **changes):
    """A report of made-up numbers, and what is drawn of it."""
    rng = np.random.default_rng(0)
    metrics = ("spearman", "pearson") if problem == "regression" else ("auroc", "auprc")
    targets = {"binary": ["bad <b>"], "multiclass": ["a", "b <i>"], "regression": ["activity"]}[problem]
    found = []
    for name in parts:
        for target in targets:
            rows = []
            for predictor, model in (("one LLR", "one"), ("one |LLR|", "one"), ("two LLR", "two"), ("GC content", "")):
                measures = {
                    metric: Measure(value := rng.uniform(0.5, 0.9), value - 0.0123, value + 0.0123)
                    for metric in metrics
                }
                difference = VepDifference(
                    "GC content", 0.0411, -0.0101, 0.0822, 0.0123, 0.0369, "paired permutation test"
                )
                rows.append(
                    VepRow(
                        predictor, model, f"what {predictor} is", "low" if "LLR" in predictor else "high", measures, 7,
                        0.654, difference if model else None,
                    )
                )  # fmt: skip
            positives = (None, None) if problem == "regression" else (80, 60)
            found.append(VepPart(name, target, 200, 150, *positives, tuple(rows), (), ""))
    classes = {"binary": ("good", "bad <b>"), "multiclass": ("a", "b <i>"), "regression": ("activity",)}[problem]
    entries = {
        "name": "own & <table>.csv",
        "problem": problem,
        "classes": classes,
        "rows": 1234,
        "used": {"SNV": 190, "indel": 10},
        "not_used": {"no_label": 1000, "reference_mismatch": 34},
        "reasons": {"no_label": "the row has no label", "reference_mismatch": "REF is not what the genome has there"},
        "left_out": {"VUS": 12},
        "parts": tuple(found),
        "facts": {"model one": "SHA-256 0123456789ab"},
        "notes": ("A note.",),
        "interval_method": "percentile bootstrap",
        "direction": "damaging" if problem == "binary" else "either",
    }
    target = rng.normal(size=150) if problem == "regression" else (np.arange(150) % 5 < 2).astype(float)
    scores = {row.predictor: rng.normal(size=150).round(1) for row in found[0].rows}
    return VepReport(**(entries | changes)), Shown(target, scores, {"one LLR": (rng.normal(size=150), target)})


class Page(HTMLParser):
    """What a page holds; every tag is closed by its own."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.titles, self.tables, self.drawings, self.open = [], [], [], []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta"}:
            self.open.append(tag)
        if tag == "h2":
            self.titles.append("")
        if tag == "tr":
            self.tables.append([])
        if tag in {"td", "th"}:
            self.tables[-1].append("")
        if tag == "svg":
            self.drawings.append(dict(attrs)["aria-label"])

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "h2" in self.open:
            self.titles[-1] += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1] += data
        if "style" not in self.open:
            self.text += data


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_a_page_holds_everything_and_fetches_nothing(tmp_path, problem):
    report, shown = made(problem)
    write_vep_page(tmp_path / "report.html", report, shown)
    page = Page(tmp_path / "report.html")
    assert page.titles[: len(TITLES[problem])] == TITLES[problem]
    assert [title for title in page.titles if title in LAST] == LAST
    assert "own & <table>.csv" in page.text
    # Namespaces of SVG are names and not addresses that are looked up.
    fetched = re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\((?!#)[^)]*\)|@import|<script|<link', page.source)
    assert fetched == []
    assert len(page.source) < 400_000
    assert len(page.drawings) == len(set(page.drawings))
    for svg in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        ET.fromstring(svg)
    for part in report.parts:
        for row in part.rows:
            value, low, high = row.measures[report.metrics[0]]
            wanted = {row.predictor, f"{value:.3f}", f"{low:.3f} to {high:.3f}"}
            assert any(wanted <= set(cells) for cells in page.tables)
    assert ["reference_mismatch", "REF is not what the genome has there", "34"] in page.tables
    assert "1,034 of 1,234 rows are not used. Left out by the label's value: VUS (12)." in page.text
    assert "0.037 *" in {cells[-1] for cells in page.tables}
    assert "what GC content is" in page.text


def test_the_first_words_say_what_matters(tmp_path):
    report, shown = made()
    write_vep_page(tmp_path / "report.html", report, shown)
    text = Page(tmp_path / "report.html").text
    first, last = report.parts[0].rows[0], report.parts[0].rows[-1]
    value, low, high = first.measures["auroc"]
    assert f"one LLR has {value:.3f} ({low:.3f} to {high:.3f})" in text
    assert f"GC content, has {last.measures['auroc'].value:.3f}. The difference is +0.041" in text
    assert "150 of 200 variants have a value of every predictor; 60 are bad <b>." in text
    assert "A note." in text
    assert "AUPRC of chance is their share, 0.400" in text


def test_a_part_without_numbers_says_why(tmp_path):
    report, shown = made()
    why = "the labels of the 3 variants that are compared are all bad <b>"
    empty = dataclasses.replace(report.parts[1], rows=(), why=why)
    write_vep_page(tmp_path / "one.html", dataclasses.replace(report, parts=(report.parts[0], empty)), shown)
    assert f"Not measured: SNV ({why})." in Page(tmp_path / "one.html").text
    first = dataclasses.replace(report.parts[0], rows=(), why=why)
    nothing = Shown(np.zeros(0), {}, {})
    write_vep_page(tmp_path / "two.html", dataclasses.replace(report, parts=(first,), not_used={}), nothing)
    page = Page(tmp_path / "two.html")
    assert f"There is none: {why}." in page.text
    assert "Nothing could be compared." in page.text
    assert "All of 1,234 rows are used." in page.text
    assert page.drawings == []


def test_what_is_not_defined_is_drawn_and_written_as_such(tmp_path):
    report, shown = made()
    rows = [
        dataclasses.replace(row, measures={"auroc": Measure(NAN, NAN, NAN), "auprc": Measure(NAN, NAN, NAN)})
        for row in report.parts[0].rows
    ]
    part = dataclasses.replace(report.parts[0], rows=tuple(rows))
    report = dataclasses.replace(report, parts=(part, dataclasses.replace(part, name="SNV")))
    write_vep_page(tmp_path / "report.html", report, shown)
    page = Page(tmp_path / "report.html")
    assert "nan" not in page.text
    assert page.text.count("not defined") == 4
    write_vep_table(tmp_path / "table.csv", report)
    assert "nan" not in (tmp_path / "table.csv").read_text()


def test_the_same_report_gives_the_same_bytes_and_replaces_nothing(tmp_path):
    for name in ("one", "two"):
        report, shown = made()
        write_vep_page(tmp_path / f"{name}.html", report, shown)
        write_vep_table(tmp_path / f"{name}.csv", report)
    for suffix in ("html", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_vep_page(tmp_path / "one.html", report, shown)


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_the_table_is_read_back(tmp_path, problem):
    report, _ = made(problem)
    write_vep_table(tmp_path / "table.csv", report)
    with (tmp_path / "table.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    flat = [(part, row) for part in report.parts for row in part.rows]
    assert len(found) == len(flat) == 8
    for cells, (part, row) in zip(found, flat, strict=True):
        assert None not in cells
        assert (cells["part"], cells["target"], cells["predictor"]) == (part.name, part.target, row.predictor)
        for metric, measure in row.measures.items():
            assert [float(cells[metric + end]) for end in ("", "_low", "_high")] == pytest.approx(
                list(measure), abs=1e-9
            )
        assert cells["p_holm"] == ("0.0369" if row.model else "")
        assert cells.get("chance_auprc") == (None if problem == "regression" else "0.4")
        assert float(cells[f"{report.metrics[0]}_alone"]) == 0.654


def marks(svg, pattern):
    return len(re.findall(pattern, svg))


def test_bars_begin_at_chance_and_have_the_length_of_their_value():
    svg = bar_figure(
        "a",
        "AUROC",
        0.5,
        [Bar("up", 0.75, NAN, NAN, False), Bar("down", 0.375, NAN, NAN, True), Bar("none", NAN, NAN, NAN, True)],
    )
    paths = re.findall(
        r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \nL [^z]*z\n" clip-path[^>]*style="fill: (#\w+)', svg
    )
    assert len(paths) == 2
    widths = [abs(float(end) - float(begin)) for begin, end, _ in paths]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-3)
    assert "not defined" in svg
    assert "0.750" in svg


def test_curves_of_many_variants_stay_small():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200_000)
    curves = [Curve(f"score {number} & more", rng.normal(size=200_000) + label, number > 1) for number in range(4)]
    for draw in (roc_curves, precision_recall_curves):
        svg = draw(label, curves)
        assert len(svg) < 120_000
        assert "score 3 &amp; more" in svg


def test_a_roc_passes_through_the_points_of_its_definition():
    label, score = np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0])
    svg = roc_curves(label, [Curve("x", score, False)])
    path = re.search(r'<path d="([^"]*)" clip-path[^>]*style="fill: none; stroke: #0072b2', svg)[1]
    points = np.array([list(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)])
    unit = (points - points[0]) / (points[-1] - points[0])
    np.testing.assert_allclose(unit, [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)], atol=1e-4)


def test_histograms_and_squares_of_odd_values():
    one = histogram_figure("LLR", {"a": np.zeros(5), "b": np.zeros(1)})
    assert "a (5)" in one
    far = histogram_figure("LLR", {"a": np.append(np.linspace(-1, 1, 5000), 1e9)})
    assert "e9" not in far
    assert "1e" not in re.sub(r"id=\"[^\"]*\"|#\w+", "", far)
    few = effect_figure("LLR", "effect", np.arange(5.0), np.arange(5.0))
    assert "mathdefault" not in few
    effect_figure("LLR", "effect", np.zeros(5), np.zeros(5))


def test_every_part_has_its_points():
    measure = Measure(0.6, 0.5, 0.7)
    rows = [Ladder(f"part {place}", {"one": measure, "two": measure}, measure, "GC content") for place in range(5)]
    rows.append(Ladder("without", {"one": Measure(NAN, NAN, NAN)}, None, ""))
    svg = ladder_figure("By part", "AUROC", 0.5, rows)
    # One more of each is the legend's.
    assert marks(svg, r"<use [^>]*fill: #0072b2") == 6
    assert marks(svg, r"<use [^>]*fill: #d55e00") == 6


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_a_browser_draws_every_figure(tmp_path, problem):
    file = tmp_path / "report.html"
    write_vep_page(file, *made(problem))
    # A proxy where nothing listens: what the page would fetch would be missing.
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        "--proxy-server=127.0.0.1:9",
    )
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, check=True, timeout=120, text=True).stdout
    drawings = re.findall(r'<svg role="img" aria-label="([^"]*)"(.*?)</svg>', dom, re.DOTALL)
    assert [html.unescape(title) for title, _ in drawings] == Page(file).drawings
    assert len(drawings) == {"binary": 5, "regression": 3}[problem]
    for _, drawing in drawings:
        assert len(re.findall(r'<path [^>]*d="[^"]+"', drawing)) > 10
