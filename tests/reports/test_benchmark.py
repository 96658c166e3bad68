import csv
import dataclasses
import html
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.reports.benchmark import COST_TITLE, FILES, write_benchmark_report
from mutbert.reports.benchmark_figures import Panel, Point, Sized, amount, looks, size_figure, task_figure
from mutbert.reports.benchmark_results import (
    Average,
    BenchmarkReport,
    Comparison,
    Cost,
    Failure,
    PaperRow,
    Score,
    SplitFact,
)

NAN = math.nan
TITLES = [
    "Averages",
    "Tasks",
    "Score by size",
    "Paired differences",
    "Failures",
    "Data",
    "What it was made of",
    COST_TITLE,
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SUITES = {"tfbs": ("mcc", ["tf_0", "tf_1", "tf_2"]), "eqtl": ("auroc", [f"d{i}" for i in range(10)])}
MODELS = [
    ("mutbert", "full", 86_123_456, 0.05),
    ("mutbert", "lora", 86_123_456, 0.02),
    ("small", "full", 5_400_000, -0.03),
    ("kmer", "", None, 0.0),
    ("cnn", "", 1_250_000, -0.01),
]


def label(model, method):
    return f"{model} ({method})" if method else model


def made(suites=SUITES, models=MODELS, protocols=("published", "corrected"), **changes):
    """A whole report of random numbers."""
    chance = random.Random(5)
    scores, averages, comparisons, splits, costs = [], [], [], [], []
    for suite, (metric, tasks) in suites.items():
        for protocol in protocols:
            for model, method, parameters, better in models:
                values = [0.6 + better + chance.uniform(-0.2, 0.2) for _ in tasks]
                for task, value in zip(tasks, values, strict=True):
                    seeds = tuple(value + chance.uniform(-0.01, 0.01) for _ in range(1 if model == "kmer" else 3))
                    published = value + 0.0123 if (protocol, model) == ("published", "mutbert") else None
                    scores.append(
                        Score(
                            suite, task, model, method, protocol, metric, value, value - 0.0211, value + 0.0199, seeds
                        )
                    )
                    scores[-1] = dataclasses.replace(scores[-1], published=published)
                mean = math.fsum(values) / len(values)
                paper = mean + 0.0077 if (model, protocol) == ("mutbert", "published") else None
                averages.append(
                    Average(
                        suite, model, method, protocol, metric, mean, mean - 0.0133, mean + 0.0111, len(tasks),
                        len(tasks), parameters, paper,
                    )
                )  # fmt: skip
            first, second = label(*models[0][:2]), label(*models[-1][:2])
            for task in ("", *tasks):
                difference = chance.uniform(-0.05, 0.05)
                comparisons.append(
                    Comparison(
                        suite, task, protocol, first, second, metric, difference, difference - 0.0177,
                        difference + 0.0177, chance.uniform(0, 0.1), chance.uniform(0, 0.2), "paired bootstrap, Holm",
                    )
                )  # fmt: skip
        splits += [
            SplitFact(suite, task, "test", chance.randrange(10**5), 7, 3, 0, f"{chance.getrandbits(256):064x}")
            for task in tasks
        ]
        costs.append(Cost(suite, "mutbert", "full", protocols[0], 15, 7_380.0, 123_456.7, 3 * 2**30))
    entries = {
        "name": "downstream",
        "scores": scores,
        "averages": averages,
        "paper": [PaperRow(suite, "DNABERT-2", metric, 0.6172, 117_000_000) for suite, (metric, _) in suites.items()],
        "comparisons": comparisons,
        "failures": [Failure("tfbs", "tf_1", "small", "lora", "corrected", 4, "the loss was not finite")],
        "costs": costs,
        "splits": splits,
        "facts": {"device": "one GPU", "software": "mutbert 1.2.3"},
        "notes": ("A smoke run.",),
        "interval_method": "percentile bootstrap",
    }
    return BenchmarkReport(**(entries | changes))


EMPTY = BenchmarkReport("none", [], [], [], [], [], [], [], {}, interval_method="bootstrap")


def average(model, value, method="full", *, tasks=5, suite="tfbs", protocol="published", **changes):
    entry = Average(suite, model, method, protocol, "mcc", value, value - 0.01, value + 0.01, tasks, 5, 10**6)
    return dataclasses.replace(entry, **changes)


def score(model, task, value, method="full", *, protocol="published", **changes):
    entry = Score("tfbs", task, model, method, protocol, "mcc", value, value - 0.01, value + 0.01, (value,))
    return dataclasses.replace(entry, **changes)


class Page(HTMLParser):
    """A page's parts: headings, paragraphs, tables of cells, and the texts of each drawing."""

    VOID = ("meta", "br", "path", "use", "rect", "circle", "line", "stop")

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.unclosed = source, [], []
        self.heads, self.paragraphs, self.tables, self.bold, self.drawings = [], [], [], [], {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in self.VOID:
            if tag == "br":
                self.handle_data("\n")
            return
        self.open.append(tag)
        if tag in {"h1", "h2", "h3"}:
            self.heads.append((tag, ""))
        elif tag == "p":
            self.paragraphs.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "b":
            self.bold.append("")
        elif tag == "svg":
            self.drawing = self.drawings.setdefault(dict(attributes)["aria-label"], [])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        if "svg" in self.open:
            if data.strip() and "text" in self.open:
                self.drawing.append(data.strip())
        elif self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.heads[-1] = (self.heads[-1][0], self.heads[-1][1] + data)
        elif "table" in self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1] += data
            if "b" in self.open:
                self.bold[-1] += data
        elif "p" in self.open:
            self.paragraphs[-1] += data

    @property
    def lead(self):
        return self.paragraphs[0]

    def table(self, *names):
        """The tables whose header begins with these names."""
        return [table for table in self.tables if tuple(table[0][: len(names)]) == names]


def write(folder, report):
    paths = write_benchmark_report(folder / "report", report, force=True)
    assert [path.name for path in paths] == list(FILES)
    return Page(paths[0].read_text(encoding="utf-8")), paths[1].read_text(encoding="utf-8")


def lead(tmp_path, *averages, **changes):
    page, markdown = write(tmp_path, dataclasses.replace(EMPTY, averages=averages, **changes))
    assert page.lead in html.unescape(markdown)
    return page.lead


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A report with all parts, and its page and Markdown."""
    report = made()
    return report, *write(tmp_path_factory.mktemp("whole"), report)


def markdown_rows(markdown):
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in markdown.splitlines()
        if line[:1] == "|"
    ]


def test_page_and_markdown_have_all_parts_and_values(whole):
    report, page, markdown = whole
    assert page.unclosed == []
    assert page.open == []
    assert [text for tag, text in page.heads if tag == "h2"] == TITLES
    assert [line[3:] for line in markdown.splitlines() if line.startswith("## ")] == TITLES
    assert "A smoke run." in page.paragraphs
    assert "> Note: A smoke run." in markdown
    cells = "\n".join(cell for table in page.tables for row in table for cell in row)
    rows = "\n".join(cell for row in markdown_rows(markdown) for cell in row)
    for entry in (*report.scores, *report.averages):
        for text in (f"{entry.value:.3f}", f"[{entry.low:.3f}, {entry.high:.3f}]"):
            assert text in cells
            assert text in rows
        if entry.published is not None:
            assert f"{entry.published:.3f}" in cells
            assert f"{entry.published:.3f}" in rows
    expected = [f"{c.difference:+.3f}" for c in report.comparisons] + [
        f"{c.adjusted_p:.2g}" for c in report.comparisons
    ]
    expected += [f"{c.p_value:.2g}" for c in report.comparisons] + [split.sha256[:12] for split in report.splits]
    expected += [f"{split.examples:,}" for split in report.splits]
    expected += ["0.617", "117 M", "86.1 M", "the loss was not finite", "one GPU", "2 h 03 min", "123,457", "3.00 GiB"]
    for text in expected:
        assert text in cells
        assert text in rows
    assert "paired bootstrap, Holm" in markdown
    assert "percentile bootstrap" in markdown


def test_every_table_of_the_page_is_in_the_markdown(whole):
    _, page, markdown = whole
    rows = {tuple(re.sub(r"[*\\]", "", cell) for cell in row) for row in markdown_rows(markdown)}
    for table in page.tables:
        for row in table:
            first, *details = zip(*[(*cell.split("\n"), "", "")[:3] for cell in row], strict=True)
            plain = [
                " ".join([value, ", ".join(filter(None, lines))]).strip()
                for value, *lines in zip(first, *details, strict=True)
            ]
            # Headers have their line breaks as spaces, and so has nothing else a comma less.
            assert tuple(plain) in rows or tuple(cell.replace("\n", " ") for cell in row) in rows


def test_names_are_shown_as_they_are(tmp_path):
    model, task = "<b>a|b</b>\n*c* & `d` _e_ $f$ [g](h)", "t|<i>"
    report = dataclasses.replace(
        EMPTY,
        name="<i>&|",
        scores=[score(model, task, 0.5), score("kmer", task, 0.4, "")],
        averages=[average(model, 0.5, suite="<u>"), average("kmer", 0.4, "", suite="<u>", parameters=None)],
        paper=[PaperRow("<u>", "</svg>", "mcc", 0.3, 10)],
        comparisons=[Comparison("<u>", task, "<p>", model, "kmer", "mcc", 0.1, 0, 0.2, 0.01, 0.02, "<m>|")],
        failures=[Failure("<u>", task, model, "", "<p>", 1, "a | b\n<script>")],
        facts={"<f>": "<g>|"},
        notes=["<n>"],
    )
    page, markdown = write(tmp_path, report)
    assert page.unclosed == []
    assert page.bold == ["0.500", "0.500", "+0.100"]
    assert f"{model} (full)" in {row[0] for table in page.tables for row in table}
    assert task in page.table("model")[1][0][1]
    for tag in ("<b>a", "<i>", "<u>", "<p>|", "<m>", "<f>", "<g>|", "<n>", "<script"):
        assert tag not in page.source
        assert tag not in markdown
    widths = {len(row) for row in markdown_rows(markdown)}
    assert "" not in {cell for row in markdown_rows(markdown) for cell in row}
    assert widths <= {2, 4, 5, 6, 7, 8}
    assert r"&lt;b>a\|b&lt;/b> \*c\* &amp; \`d\` \_e\_ \$f\$ [g\](h) (full)" in markdown


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Z", "Cc")), min_size=1), max_size=4
    )
)
def test_no_name_breaks_a_markdown_table(tmp_path, names):
    facts = {name: name for name in names}
    _, markdown = write(tmp_path, dataclasses.replace(EMPTY, facts=facts))
    lines = markdown.split("\n")
    table = [line for line in lines if line.startswith("|")]
    # A cell ends at a bar that has no backslash before it, or an even number of them.
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table] == [3] * len(table)
    assert len(table) == (2 + len(facts) if facts else 0)


@pytest.mark.parametrize("report", [made({"tfbs": SUITES["tfbs"]}), EMPTY], ids=["whole", "empty"])
def test_csv_reads_back_as_what_went_in(tmp_path, report):
    odd = [score('a "b", c\nd|', "t", NAN, low=NAN, high=-math.inf, per_seed=()), score("e", "t", 1e-17 + 1 / 3)]
    odd[1] = dataclasses.replace(odd[1], per_seed=(0.1, NAN, 2 / 3), published=0.1 + 0.2)
    report = dataclasses.replace(report, scores=[*report.scores, *odd])
    paths = write_benchmark_report(tmp_path / "report", report)
    kinds = {"scores": Score, "averages": Average, "comparisons": Comparison}
    for path in paths[2:]:
        kind, entries = kinds[path.stem], getattr(report, path.stem)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        readers = {
            "str": str,
            "float": float,
            "int": int,
            "tuple[float, ...]": lambda text: tuple(map(float, text.split())),
            "float | None": lambda text: float(text) if text else None,
            "int | None": lambda text: int(text) if text else None,
        }
        read = [
            kind(**{field.name: readers[field.type](row[field.name]) for field in dataclasses.fields(kind)})
            for row in rows
        ]
        # As text, in which one that is not a number is equal to another.
        assert list(map(repr, read)) == list(map(repr, entries))


def test_nothing_is_fetched(whole):
    _, page, _ = whole
    assert re.findall(r"""(?:src|srcset|data|action)\s*=""", page.source) == []
    assert [link for link in re.findall(r"""href\s*=\s*["']([^"']*)""", page.source) if link[:1] != "#"] == []
    assert [link for link in re.findall(r"url\(([^)]*)\)", page.source) if link[:1] != "#"] == []
    assert "@import" not in page.source
    assert "<script" not in page.source
    assert set(re.findall(r"""\S*https?://[^"'\s>]*""", page.source)) <= {
        'xmlns="http://www.w3.org/2000/svg',
        'xmlns:xlink="http://www.w3.org/1999/xlink',
    }


def test_the_same_results_give_the_same_bytes_and_costs_are_apart(tmp_path):
    report = made({"tfbs": SUITES["tfbs"]})
    first = write_benchmark_report(tmp_path / "first", report)
    second = write_benchmark_report(tmp_path / "second", report)
    slower = [dataclasses.replace(cost, seconds=cost.seconds * 2) for cost in report.costs]
    third = write_benchmark_report(tmp_path / "third", dataclasses.replace(report, costs=slower))
    for one, same, other in zip(first, second, third, strict=True):
        assert one.read_bytes() == same.read_bytes()
        before = [path.read_text(encoding="utf-8").split(COST_TITLE)[0] for path in (one, other)]
        assert before[0] == before[1]
    assert first[0].read_bytes() != third[0].read_bytes()
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first[2:], third[2:], strict=True))


def test_files_are_not_replaced_unless_forced(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "averages.csv").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_benchmark_report(folder, EMPTY)
    assert [path.name for path in folder.iterdir()] == ["averages.csv"]
    write_benchmark_report(folder, EMPTY, force=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    with pytest.raises(InputError, match="is a file and not a folder"):
        write_benchmark_report(folder / "averages.csv", EMPTY, force=True)
    with pytest.raises(InputError, match="create it first"):
        write_benchmark_report(tmp_path / "none" / "report", EMPTY)


def test_two_results_of_the_same_are_refused(tmp_path):
    twice = dataclasses.replace(EMPTY, averages=[average("a", 0.1), average("a", 0.2)])
    with pytest.raises(ValueError, match="two results of tfbs, a, full, published, mcc"):
        write_benchmark_report(tmp_path / "report", twice)
    with pytest.raises(ValueError, match="two results"):
        write_benchmark_report(
            tmp_path / "report", dataclasses.replace(EMPTY, scores=[score("a", "t", 0.1), score("a", "t", 0.1)])
        )
    assert not (tmp_path / "report").exists()


def test_the_lead_says_who_is_best(tmp_path):
    kmer, cnn = average("kmer", 0.52, ""), average("cnn", 0.51, "")
    said = lead(tmp_path, average("small", 0.6), average("large", 0.5), kmer, cnn)
    assert said == "tfbs (published): small (full) is best with MCC 0.600, above the trivial baseline kmer with 0.520."
    said = lead(tmp_path, average("small", 0.53), kmer)
    assert said.endswith("above the trivial baseline kmer with 0.520; their intervals overlap.")
    said = lead(tmp_path, average("small", 0.5), average("large", 0.5), kmer, cnn)
    assert said == (
        "tfbs (published): no language model beats the trivial baseline kmer, which is best with MCC 0.520; the best "
        "of them, small (full) and large (full), has 0.500."
    )
    # Equal as printed is not better.
    said = lead(tmp_path, average("small", 0.52049), kmer)
    assert "no language model beats the trivial baseline kmer; the best, small (full), has the same MCC, 0.520" in said
    assert "there is no trivial baseline" in lead(tmp_path, average("small", 0.5), average("large", 0.4))
    assert "small (full) is the only one, with MCC 0.500" in lead(tmp_path, average("small", 0.5))
    assert "there is no language model" in lead(tmp_path, kmer)
    assert lead(tmp_path) == "Nothing has an average."
    assert "nothing is ranked" in lead(tmp_path, average("small", NAN))


def test_the_lead_speaks_of_each_suite_and_protocol(tmp_path):
    said = lead(
        tmp_path,
        average("small", 0.6),
        average("small", 0.5, protocol="corrected"),
        average("kmer", 0.55, "", protocol="corrected"),
        average("small", 0.7, suite="nt"),
    )
    assert re.findall(r"(\w+ \(\w+\)):", said) == ["tfbs (published)", "tfbs (corrected)", "nt (published)"]
    assert said.count("no language model beats") == 1


def test_a_partial_average_is_neither_ranked_nor_set_beside_the_papers(tmp_path):
    report = dataclasses.replace(
        EMPTY,
        averages=[
            average("small", 0.6),
            average("partial", 0.9, tasks=3, published=0.68),
            average("kmer", 0.5, "", parameters=None),
        ],
    )
    page, markdown = write(tmp_path, report)
    assert "small (full) is best" in page.lead
    assert page.bold == ["0.600"]
    row = next(row for row in page.tables[0] if row[0] == "partial (full)")
    assert row[2] == "0.900\n[0.890, 0.910]\n3 of 5 tasks"
    assert row[3] == "0.680\nof all 5 tasks"
    assert "0.900 [0.890, 0.910], 3 of 5 tasks | 0.680 of all 5 tasks |" in markdown
    assert any("not ranked" in text and "partial (full)" in text for text in page.paragraphs)
    assert "partial (full)" not in page.drawings["tfbs: averages by number of parameters"]


def test_where_all_left_out_the_same_tasks_they_are_ranked_among_themselves(tmp_path):
    averages = [average("small", 0.6, tasks=1, published=0.7), average("kmer", 0.5, "", tasks=1, parameters=None)]
    scores = [score("small", "t", 0.6), score("kmer", "t", 0.5, "")]
    paper = [PaperRow("tfbs", "DNABERT-2", "mcc", 0.65, 10**8)]
    report = dataclasses.replace(EMPTY, averages=averages, scores=scores, paper=paper)
    page, _ = write(tmp_path, report)
    assert "small (full) is best with MCC 0.600 over 1 of 5 tasks" in page.lead
    assert any("no average can be compared with the paper's" in text for text in page.paragraphs)
    assert "DNABERT-2" not in page.drawings["tfbs: averages by number of parameters"]
    assert any("Not drawn" in text and "the paper's" in text for text in page.paragraphs)
    other = dataclasses.replace(report, scores=[score("small", "t", 0.6), score("kmer", "u", 0.5, "")])
    assert "nothing is ranked" in write(tmp_path, other)[0].lead


def test_the_best_of_each_task_and_protocol_is_bold(tmp_path):
    scores = [
        score("a", "t", 0.7001),
        score("b", "t", 0.6999),
        score("kmer", "t", 0.5, ""),
        score("a", "t", 0.2, protocol="corrected"),
        score("kmer", "t", 0.3, "", protocol="corrected"),
        score("a", "u", 0.1),
    ]
    page, markdown = write(tmp_path, dataclasses.replace(EMPTY, scores=scores))
    # Equal as printed is equally good, and one alone is not the best of anything.
    assert page.bold == ["0.700", "0.700", "0.300"]
    assert page.table("model")[0][0] == ["model", "t\npublished", "t\ncorrected", "u\npublished"]
    assert "| kmer | 0.500 [0.490, 0.510] | **0.300** [0.290, 0.310] | – |" in markdown


def test_how_many_tasks_a_baseline_is_not_beaten_on(tmp_path):
    scores = [score("a", "t", 0.7), score("kmer", "t", 0.7, ""), score("a", "u", 0.8), score("cnn", "u", 0.7, "")]
    averages = [average("a", 0.75), average("kmer", 0.7, "")]
    page, _ = write(tmp_path, dataclasses.replace(EMPTY, scores=scores, averages=averages))
    assert "Published: no language model beats the trivial baselines on 1 of 2 tasks (t)." in page.paragraphs


def test_many_tasks_stand_in_rows(tmp_path):
    tasks = [f"task_{place}" for place in range(18)]
    models = [(f"model {place}", "full", 10**7 * (place + 1), 0.01 * place) for place in range(8)] + MODELS[3:]
    page, _ = write(tmp_path, made({"nt": ("mcc", tasks)}, models))
    (table,) = page.table("task", "protocol")
    assert table[0][2:] == [label(*model[:2]) for model in models]
    assert [row[:2] for row in table[1:3]] == [["task_0", "published"], ["task_0", "corrected"]]
    assert len(table) == 1 + 18 * 2
    drawing = page.drawings["nt, published: scores by task"]
    assert [text for text in drawing if text.startswith("task_")] == tasks
    assert {label(*model[:2]) for model in models} <= set(drawing)


def test_fewer_seeds_than_elsewhere_are_told(tmp_path):
    scores = [score("a", "t", 0.5, per_seed=(0.4, 0.6)), score("a", "u", 0.5), score("kmer", "t", 0.4, "")]
    page, _ = write(tmp_path, dataclasses.replace(EMPTY, scores=scores))
    assert page.tables[0][1][2] == "0.500\n[0.490, 0.510]\n1 of 2 seeds"
    assert "2 seeds: a (full); 1 seed: kmer." in page.paragraphs


def test_missing_intervals_and_numbers(tmp_path):
    scores = [score("a", "t", 0.5, low=NAN, high=NAN), score("b", "t", NAN, low=NAN, high=NAN)]
    averages = [average("a", 0.5, low=NAN, high=NAN), average("b", NAN, low=NAN, high=NAN)]
    comparisons = [Comparison("tfbs", "", "published", "a", "b", "mcc", NAN, NAN, NAN, NAN, NAN, "none")]
    report = dataclasses.replace(EMPTY, scores=scores, averages=averages, comparisons=comparisons)
    page, _ = write(tmp_path, report)
    assert page.table("model", "parameters")[0][1:] == [
        ["a (full)", "1 M", "0.500"],
        ["b (full)", "1 M", "not a number"],
    ]
    assert page.table("task", "first")[0][1] == ["whole suite", "a", "b", "not a number", "–", "–"]
    assert "nan" not in "".join(cell for table in page.tables for row in table for cell in row)


def test_almost_nothing_is_not_negative(tmp_path):
    page, _ = write(tmp_path, dataclasses.replace(EMPTY, scores=[score("a", "t", -0.0001, low=-0.01, high=0.0001)]))
    assert page.tables[0][1][1] == "0.000\n[-0.010, 0.000]"


def test_empty_parts_say_so(tmp_path):
    page, markdown = write(tmp_path, EMPTY)
    assert [text for tag, text in page.heads if tag == "h2"] == TITLES
    assert len(page.paragraphs) == 1 + len(TITLES)
    assert all(page.paragraphs)
    assert page.tables == []
    assert page.drawings == {}
    assert "Nothing was compared in pairs." in markdown
    assert "None: all that was run gave a score." in markdown


def test_the_papers_rows_alone(tmp_path):
    report = dataclasses.replace(EMPTY, paper=[PaperRow("nt", "DNABERT-2", "mcc", 0.637, None)])
    page, _ = write(tmp_path, report)
    assert page.tables == [[["model", "parameters", "MCC\nthe paper"], ["DNABERT-2 (the paper)", "–", "0.637"]]]
    assert "Nothing of it was run here." in page.paragraphs


def test_protocols_with_other_metrics(tmp_path):
    averages = [
        average("a", 0.5, metric="auroc_hard"),
        average("a", 0.6, metric="auroc", protocol="corrected"),
        average("kmer", 0.7, "", metric="auroc", protocol="corrected"),
    ]
    scores = [score("a", "t", 0.5, metric="auroc_hard"), score("a", "t", 0.6, metric="auroc", protocol="corrected")]
    page, _ = write(tmp_path, dataclasses.replace(EMPTY, averages=averages, scores=scores))
    assert page.tables[0][0][2:] == ["auroc_hard\npublished", "AUROC\ncorrected"]
    assert [text for tag, text in page.heads if tag == "h3"][1:3] == ["tfbs, auroc_hard", "tfbs, AUROC"]
    assert "with auroc_hard 0.500" in page.lead
    assert "best with AUROC 0.700" in page.lead
    assert "auroc_hard, published" in page.drawings["tfbs, published: scores by task"]


def test_clear_differences_are_bold_and_methods_are_told(tmp_path):
    comparisons = [
        Comparison("s", "t", "p", "a", "b", "mcc", 0.1, 0.05, 0.15, 0.001, 0.049, "bootstrap"),
        Comparison("s", "u", "p", "a", "b", "mcc", -0.1, -0.2, 0.0, 0.01, 0.05, "permutation"),
    ]
    page, markdown = write(tmp_path, dataclasses.replace(EMPTY, comparisons=comparisons))
    assert page.bold == ["+0.100"]
    # In full but once, as most rows share theirs.
    assert "Method 1: bootstrap. Method 2: permutation." in markdown
    assert [row[-1] for row in page.tables[0]] == ["method", "1", "2"]
    assert "1 of 2 differences has an adjusted p below 0.05" in markdown
    assert {"a − b", "t", "u"} <= set(page.drawings["s, p, MCC: paired differences"])


def test_a_sum_of_leaks(tmp_path):
    splits = [SplitFact("s", "t", "test", 10, 1, 2, 0, "0" * 64), SplitFact("s", "t", "train", 90, 0, 0, 1, "1" * 64)]
    page, _ = write(tmp_path, dataclasses.replace(EMPTY, splits=splits))
    text = next(text for text in page.paragraphs if "SHA-256" in text)
    assert text.startswith(
        "100 examples in 2 splits. 1 example is in the same split twice; 2 of other splits are in the"
    )
    assert page.bold == ["2"]


def marks(svg, colour):
    """How many points of a colour are drawn."""
    return len(re.findall(rf"<use [^>]*fill: {colour}", svg))


def test_every_finite_score_has_a_point():
    tasks = [f"t{place}" for place in range(18)]
    names = [f"model {place}" for place in range(8)]
    look = looks(names)
    assert len(set(look.values())) == 8
    assert len(set(looks([str(place) for place in range(42)]).values())) == 42
    scores = {name: [Point(0.5 + 0.01 * i, 0.4, 0.6) for i in range(18)] for name in names}
    scores["model 0"][3] = Point()
    svg = task_figure("a", "MCC", tasks, {"model 0": scores["model 0"]}, {"kmer": [Point(0.5)] * 18}, look)
    # One more is the legend's.
    assert marks(svg, look["model 0"].colour.lower()) == 17 + 1
    whole = task_figure("a", "MCC", tasks, scores, {}, look)
    assert sum(marks(whole, colour) for colour in {entry.colour.lower() for entry in look.values()}) == 8 * 18 - 1 + 8


def test_labels_of_a_crowd_do_not_lie_on_each_other():
    chance = random.Random(1)
    models = [
        Sized(f"model-{place:02d} (full)", int(10 ** chance.uniform(6.5, 9)), Point(chance.uniform(0.5, 0.7)))
        for place in range(20)
    ]
    svg = size_figure("a", [Panel("published", "MCC", models, {"kmer": 0.6, "cnn": 0.601})], {})
    found = re.findall(r'text-anchor: (start|end)" x="([^"]*)" y="([^"]*)"[^>]*>([^<]*)<', svg)
    boxes = []
    for end, x, y, text in found:
        if text.startswith(("model-", "kmer", "cnn")):
            # Characters are 0.5 of a font's size wide on the average, in the fonts that pages have.
            width = 8 * 0.5 * len(text)
            boxes.append((float(x) - (width if end == "end" else 0), float(y), width))
    assert len(boxes) == 22
    touching = [
        (a, b) for place, a in enumerate(boxes) for b in boxes[:place]
        if abs(a[1] - b[1]) < 6 and a[0] < b[0] + b[2] and b[0] < a[0] + a[2]
    ]  # fmt: skip
    assert touching == []


@pytest.mark.parametrize(
    ("number", "text"), [(950, "950"), (30_400, "30.4 k"), (86_123_456, "86.1 M"), (5e8, "500 M"), (2.5e9, "2.5 G")]
)
def test_amounts(number, text):
    assert amount(number) == text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
def test_a_browser_draws_every_figure(tmp_path, whole):
    _, page, _ = whole
    file = tmp_path / "report.html"
    file.write_text(page.source, encoding="utf-8")
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
    assert [html.unescape(title) for title, _ in drawings] == list(page.drawings)
    assert len(drawings) == 4 + 2 + 4
    for _, drawing in drawings:
        assert len(re.findall(r'<path [^>]*d="[^"]+"', drawing)) > 10
        assert "<use " in drawing
