import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest

from mutbert.errors import InputError
from mutbert.reports.pretraining import PretrainingReport, write_pretraining_page

NAN = math.nan
BINS = ("variant, up to 0.02", "variant, 0.02 to 0.05", "variant, 0.2 to 0.5")
GROUPS = ("all", "variant", "other", *BINS)
TITLES = [
    "Training curve",
    "Held-out curves",
    "Held-out table",
    "By frequency",
    "Calibration",
    "Optimiser",
    "What the run was made of",
    "Recipe",
]


def of_groups(*values):
    return dict(zip(GROUPS, values, strict=True))


def logged(step):
    evaluated = {
        "step": step,
        "eval_cross_entropy": 1.3 + 1 / step,
        "eval_cross_entropy_variant": 1.31 + 1 / step,
        "eval_cross_entropy_other": 1.29 + 1 / step,
    }
    return [{"step": step, "loss": 1.3 + 2 / step, "grad_norm": 0.5 + 1 / step, "learning_rate": 1e-4}, evaluated]


REPORT = PretrainingReport(
    name="small",
    steps=1200,
    history=[entry for step in (10, 100, 400, 1200) for entry in logged(step)],
    held_out={
        "uniform": of_groups(1.3863, 1.3863, 1.3863, 1.3863, NAN, 1.3863),
        "base composition": of_groups(1.3621, 1.3411, 1.3622, 1.3623, NAN, 1.3624),
        "order-5 Markov chain": of_groups(1.3302, 1.3425, 1.3303, 1.3304, NAN, 1.3305),
        "model": of_groups(1.2567, 1.3511, 1.2555, 1.3512, NAN, 1.3513),
        "entropy floor": of_groups(0.0081, 0.3112, 0.0, 0.0712, NAN, 0.6211),
    },
    targets=of_groups(250123, 6512, 243611, 6065, 0, 1),
    calibration={
        "all targets": [(0.25, 0.27, 900), (0.5, 0.4, 100), (NAN, NAN, 0)],
        "variant targets": [(0.25, 0.2, 40)],
    },
    facts={"parameters": "86,123,456", "genome": "population.genome", "seed": "1"},
    recipe="\n# by hand\ntraining:\n  max_steps: 1200\n",
    notes=("Resumed from checkpoint-120, an older one, as the last was torn.",),
)


class Page(HTMLParser):
    """A page's parts: its text by tag, the tables' cells, the texts of each drawing, and all that has an address."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.tables, self.drawings, self.links, self.ids = [], {}, [], {}, [], []
        self.rows_marked, self.notes, self.path = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [v for k, v in attributes.items() if k in {"src", "href", "xlink:href", "data", "action"}]
        self.ids += [v for k, v in attributes.items() if k == "id"]
        if tag in {"meta", "path", "use", "rect"}:
            return
        self.path.append((tag, attributes.get("class")))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            if attributes.get("class") == "marked":
                self.rows_marked.append(len(self.tables[-1]) - 1)
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "svg":
            self.drawing = self.drawings.setdefault(attributes["aria-label"], [])
        elif ("div", "notes") not in self.path:
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.path and self.path[-1][0] == tag:
            self.path.pop()

    def handle_endtag(self, tag):
        if self.path and self.path[-1][0] == tag:
            self.path.pop()

    def handle_data(self, data):
        tags = [tag for tag, _ in self.path]
        if "svg" in tags:
            if data.strip():
                self.drawing.append(data)
        elif ("div", "notes") in self.path:
            self.notes.append(data)
        elif "table" in tags:
            if tags[-1] in {"td", "th"}:
                self.tables[-1][-1][-1] += data
        elif tags:
            self.texts.setdefault(tags[-1], [""])[-1] += data

    @property
    def lead(self):
        return self.texts["p"][0]


def svg(page, title):
    return re.search(rf'<svg role="img" aria-label="{title}".*?</svg>', page.source, re.DOTALL)[0]


def write(tmp_path, report=REPORT, **changes):
    path = tmp_path / "report.html"
    write_pretraining_page(path, dataclasses.replace(report, **changes), force=True)
    return Page(path)


def test_the_parts_come_in_order(tmp_path):
    page = write(tmp_path)
    assert page.texts["h1"] == ["Pre-training: small"]
    assert page.texts["h2"] == TITLES
    assert page.notes == list(REPORT.notes)
    assert page.source.index('<div class="notes">') < page.source.index("<h2>")
    assert list(page.drawings) == [
        "Training curve",
        "Held-out curves",
        "Cross-entropy by frequency",
        "Calibration",
        "Optimiser",
    ]


def test_the_headline_says_what_was_reached_and_where_it_is_worse(tmp_path):
    lead = write(tmp_path).lead
    # 1.3302 - 1.2567 = 0.0735, and the base composition, not the Markov chain, is best at variant targets.
    assert "After 1,200 steps" in lead
    assert (
        "1.2567 nats a target, better than the best trivial predictor (order-5 Markov chain, 1.3302) by 0.0735" in lead
    )
    assert "1.3511 nats a target, worse than the best trivial predictor (base composition, 1.3411) by 0.0100" in lead
    assert "5.5 %" in lead
    assert "0.7 %" in lead


def test_equal_as_printed_is_no_better(tmp_path):
    held_out = REPORT.held_out | {"model": of_groups(1.33019, 1.5, 1.2, 1.3, NAN, 1.3)}
    assert "1.3302 nats a target, no better than" in write(tmp_path, held_out=held_out).lead


@pytest.mark.parametrize(("value", "text"), [(NAN, "not a number"), (math.inf, "infinite")])
def test_a_failed_run_is_said_to_have_failed(tmp_path, value, text):
    page = write(tmp_path, held_out=REPORT.held_out | {"model": dict.fromkeys(GROUPS, value)})
    assert f"on held-out targets is {text}." in page.lead
    (row,) = [row for row in page.tables[0] if row[0] == "model"]
    assert row[1:] == [text, text, text, text, "none", text]
    assert "What is not finite has no bar." in page.source


def test_a_predictor_that_is_infinite_is_not_the_best_one(tmp_path):
    lead = write(tmp_path, held_out={"base composition": {"all": math.inf}, "model": {"all": 1.3}}).lead
    assert "1.3000 nats a target, with nothing to compare it with" in lead


def test_the_table_has_every_number_in_its_cell(tmp_path):
    page = write(tmp_path)
    table = page.tables[0]
    assert table[0] == [
        "predictor",
        "all\n250,123",
        "variant\n6,512",
        "other\n243,611",
        "variant, up to 0.02\n6,065",
        "variant, 0.02 to 0.05\n0",
        "variant, 0.2 to 0.5\n1",
    ]
    assert [row[0] for row in table[1:]] == list(REPORT.held_out)
    for row in table[1:]:
        for group, cell in zip(GROUPS, row[1:], strict=True):
            value = REPORT.held_out[row[0]][group]
            assert cell == ("none" if math.isnan(value) else f"{value:.4f}")
    assert page.rows_marked == [4]


def test_groups_and_predictors_need_not_be_complete(tmp_path):
    table = write(tmp_path, held_out={"model": {"all": 1.2, "late": 1.1}, "uniform": {"all": 1.3}}).tables[0]
    assert table[0][-1] == "late"
    assert table[1] == ["model", "1.2000", "–", "–", "–", "none", "–", "1.1000"]
    assert table[2] == ["uniform", "1.3000", "–", "–", "–", "none", "–", "–"]


def test_the_figure_by_frequency_leaves_empty_bins_out(tmp_path):
    texts = write(tmp_path).drawings["Cross-entropy by frequency"]
    assert {"up to 0.02", "6,065 targets", "0.2 to 0.5", "1 target", *REPORT.held_out} <= set(texts)
    assert not any("0.05" in text for text in texts)


def test_bars_are_as_long_as_their_numbers(tmp_path):
    def lengths(*values):
        model = dict(zip(GROUPS, (1, 1, 1, *values), strict=True))
        drawing = svg(write(tmp_path, held_out=REPORT.held_out | {"model": model}), "Cross-entropy by frequency")
        # In the model's colour without transparency; the last is the legend's.
        bars = re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*"[^>]*style="fill: #0072b2"', drawing)
        return [float(right) - float(left) for left, right in bars][:-1]

    first, second = lengths(0.5, NAN, 1.0)
    assert second == pytest.approx(2 * first, rel=1e-4)
    assert lengths(0.5, NAN, NAN) == [pytest.approx(first, rel=1e-4)]


def test_curves_name_what_they_are_compared_with(tmp_path):
    drawings = write(tmp_path).drawings
    trivial = {"uniform", "base composition", "order-5 Markov chain"}
    assert {"training loss", "held out", *trivial} <= set(drawings["Training curve"])
    assert {"variant targets", "other targets", "model", *trivial} <= set(drawings["Held-out curves"])
    for name in ("Training curve", "Held-out curves"):
        assert "entropy floor" not in drawings[name]
    assert {"learning rate", "gradient norm", "optimisation step"} <= set(drawings["Optimiser"])
    assert {"perfectly calibrated", "all targets", "variant targets", "pairs a bin"} <= set(drawings["Calibration"])


def test_the_distance_of_the_calibration_counts_bins_by_their_pairs(tmp_path):
    # (900 * 0.02 + 100 * 0.1) / 1000, and 0.05.
    assert "is 0.0280 for all targets, 0.0500 for variant targets." in write(tmp_path).source


def test_facts_and_recipe_are_there_whole(tmp_path):
    page = write(tmp_path)
    assert page.tables[1] == [[name, value] for name, value in REPORT.facts.items()]
    # The parser keeps the line break after <pre> that a browser drops.
    assert page.texts["pre"] == ["\n" + REPORT.recipe]
    assert page.tags.index("details") < page.tags.index("pre")


EVIL = "<script>alert('x')</script> & $x_1$ \"q\""


def test_all_text_is_text(tmp_path):
    page = write(
        tmp_path,
        name=EVIL,
        held_out={EVIL: {"all": 1.3, EVIL: 1.3}, "model": {"all": 1.2, EVIL: 1.2}},
        targets={"all": 3, EVIL: 2},
        calibration={EVIL: [(0.2, 0.3, 5)]},
        facts={EVIL: EVIL},
        recipe=EVIL,
        notes=[EVIL],
    )
    assert "script" not in page.tags
    assert page.texts["h1"] == [f"Pre-training: {EVIL}"]
    assert page.texts["title"] == [f"Pre-training: {EVIL}"]
    assert EVIL in page.lead
    assert page.notes == [EVIL]
    assert page.tables[0][0][-1] == f"{EVIL}\n2"
    assert page.tables[0][1][0] == EVIL
    assert page.tables[1] == [[EVIL, EVIL]]
    assert page.texts["pre"] == ["\n" + EVIL]
    for name in ("Training curve", "Cross-entropy by frequency", "Calibration"):
        assert EVIL in page.drawings[name]


def test_a_page_fetches_nothing_and_identifies_nothing_twice(tmp_path):
    page = write(tmp_path)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    # Drawings refer to their own markers.
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", page.source))
    assert "@import" not in page.source
    assert len(page.ids) == len(set(page.ids))


def test_the_same_data_give_the_same_page(tmp_path):
    first = write(tmp_path).source
    assert write(tmp_path).source == first
    assert write(tmp_path, history=REPORT.history[:-1]).source != first


def test_a_page_is_not_replaced_unless_forced(tmp_path):
    path = tmp_path / "report.html"
    write_pretraining_page(path, REPORT)
    with pytest.raises(InputError, match="exists already"):
        write_pretraining_page(path, REPORT)


def test_without_anything_every_part_says_so(tmp_path):
    page = write(tmp_path, PretrainingReport("empty", 0, [], {}, {}, {}, {}, ""))
    assert page.texts["h2"] == TITLES
    assert page.drawings == {}
    assert page.tables == []
    assert page.notes == []
    assert page.lead == "The model was trained for 0 steps. Its held-out cross-entropy is not known."
    assert page.texts["p"][1:] == [
        "No loss was logged.",
        "No evaluation was logged.",
        "There are no held-out figures.",
        "There are no held-out figures by frequency.",
        "The model's calibration was not measured.",
        "Neither learning rate nor gradient norm was logged.",
        "Not known.",
        "Not known.",
    ]


def test_a_run_without_evaluation_has_its_training_curve(tmp_path):
    page = write(tmp_path, history=REPORT.history[::2], held_out={}, targets={}, calibration={})
    assert list(page.drawings) == ["Training curve", "Optimiser"]
    assert page.drawings["Training curve"].count("training loss") == 1
    assert "held-out targets" not in page.texts["p"][1]


def test_a_run_of_one_step_with_one_evaluation(tmp_path):
    page = write(tmp_path, steps=1, history=logged(1), calibration={"all targets": [(0.25, 0.25, 1)]})
    assert "After 1 step," in page.lead
    assert len(page.drawings) == 5
    # The step is named once on the axis.
    assert page.drawings["Training curve"].count("1") == 1
    assert "1 evaluation, at" in page.source
    assert "variant targets" not in page.drawings["Calibration"]


def test_a_point_that_stands_alone_is_seen(tmp_path):
    def markers(history):
        drawing = svg(write(tmp_path, history=history), "Training curve")
        return len(re.findall(r"<use [^>]*fill: #0072b2", drawing))

    # The point itself and the legend's; two make a line.
    assert markers([{"step": 1, "loss": 1.4}]) == 2
    assert markers([{"step": 1, "loss": 1.4}, {"step": 2, "loss": 1.4}]) == 0


def test_what_cannot_be_drawn_is_counted(tmp_path):
    history = [
        {"step": 1, "loss": NAN, "grad_norm": math.inf, "learning_rate": 0.0},
        {"step": 2, "loss": 1.4, "grad_norm": 0.0, "learning_rate": 1e-4},
        {"step": 3, "loss": math.inf, "grad_norm": 2.0, "learning_rate": 1e-4},
        {"step": 3, "eval_cross_entropy": 1.3, "eval_cross_entropy_variant": NAN, "eval_cross_entropy_other": 1.3},
    ]
    page = write(tmp_path, history=history)
    texts = dict(zip(TITLES[:2], page.texts["p"][1:3], strict=True))
    assert texts["Training curve"].endswith(" 2 values that are not finite could not be drawn.")
    assert texts["Held-out curves"].endswith(" 1 value that is not finite could not be drawn.")
    assert "variant targets" not in page.drawings["Held-out curves"]
    assert "1 norm of 0 could not be drawn on it. 1 value that is not finite could not be drawn." in page.source


def test_a_genome_without_variants_lacks_nothing(tmp_path):
    history = [{"step": 3, "eval_cross_entropy_variant": NAN, "eval_cross_entropy_other": 1.3}]
    held_out = {name: values | dict.fromkeys(("variant", *BINS), NAN) for name, values in REPORT.held_out.items()}
    page = write(tmp_path, history=history, held_out=held_out, targets=of_groups(10, 0, 10, 0, 0, 0))
    assert "There are no variant targets. Lower is better." in page.lead
    assert "Held-out curves</h2>\n<p>1 evaluation, at positions that do not vary. Dashed" in page.source
    assert "not finite" not in page.source
    assert "Cross-entropy by frequency" not in page.drawings


def test_a_run_that_ends_badly_is_drawn_to_its_end(tmp_path):
    # Far above every predictor: the last evaluation must be seen all the same.
    history = [{"step": 1, "eval_cross_entropy": 1.3}, {"step": 2, "eval_cross_entropy": 4.0}]
    ticks = [float(text) for text in write(tmp_path, history=history).drawings["Training curve"] if "." in text]
    assert max(ticks) >= 3.5
