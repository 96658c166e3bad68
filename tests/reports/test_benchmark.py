"""The page of a benchmark: its sentences, tables and figures, from frames alone."""

import html
import math
import random
import re
from itertools import product

import polars as pl
import pytest

from mutbert.errors import InputError
from mutbert.reports.benchmark import COST_TITLE, FILES, BenchmarkReport, write_benchmark_report

NAN = math.nan
SUITES = {"tfbs": ("mcc", ["tf_0", "tf_1", "tf_2"]), "eqtl": ("auroc", [f"d{i}" for i in range(10)])}
MODELS = [
    ("mutbert", "full", 86_123_456, 0.05),
    ("mutbert", "lora", 86_123_456, 0.02),
    ("small", "full", 5_400_000, -0.03),
    ("kmer", "", None, 0.0),
    ("cnn", "", 1_250_000, -0.01),
]


def report_of(scores=(), averages=(), comparisons=(), paper=(), failures=(), costs=(), splits=(), facts=None, notes=()):
    frames = [pl.DataFrame(list(rows), infer_schema_length=None) for rows in (scores, averages, comparisons, paper)]
    costs = pl.DataFrame(list(costs), schema=COSTS, orient="row")
    return BenchmarkReport(
        "some", *frames, pl.DataFrame(list(failures)), costs, pl.DataFrame(list(splits)), facts or {}, notes
    )


COSTS = {
    "suite": pl.String, "protocol": pl.String, "model": pl.String, "method": pl.String, "cells": pl.Int64,
    "seconds": pl.Float64, "tokens_per_second": pl.Float64, "peak_memory": pl.Float64,
}  # fmt: skip


def average(model, value, method="full", *, tasks=5, suite="tfbs", protocol="published", **changes):
    row = {"suite": suite, "protocol": protocol, "model": model, "method": method, "metric": "mcc", "value": value}
    row |= {"low": value - 0.01, "high": value + 0.01, "tasks": tasks, "of_tasks": 5, "parameters": 10**6}
    return row | {"published": None} | changes


def score(model, task, value, method="full", *, protocol="published", **changes):
    row = {"suite": "tfbs", "protocol": protocol, "task": task, "model": model, "method": method, "metric": "mcc"}
    return row | {"value": value, "low": value - 0.01, "high": value + 0.01, "per_seed": [value]} | changes


def comparison(first, second, task="", difference=0.1, adjusted=0.01, **changes):
    row = {"suite": "tfbs", "protocol": "published", "task": task, "first": first, "second": second, "metric": "mcc"}
    row |= {"difference": difference, "low": difference - 0.02, "high": difference + 0.02, "p_value": adjusted / 2}
    return row | {"method": "paired bootstrap", "adjusted_p": adjusted} | changes


def whole():
    """A report of random numbers with all parts."""
    chance = random.Random(5)
    scores, averages, comparisons, splits = [], [], [], []
    for (suite, (metric, tasks)), protocol in product(SUITES.items(), ("published", "corrected")):
        key = {"suite": suite, "protocol": protocol, "metric": metric}
        for model, method, parameters, better in MODELS:
            values = [0.6 + better + chance.uniform(-0.2, 0.2) for _ in tasks]
            for task, value in zip(tasks, values, strict=True):
                scores.append(score(model, task, value, method, **key, per_seed=[value] * 3))
            sizes = {"tasks": len(tasks), "of_tasks": len(tasks), "parameters": parameters}
            published = {"published": 0.6677 if (model, protocol) == ("mutbert", "published") else None}
            averages.append(average(model, sum(values) / len(values), method, **key, **sizes, **published))
        differences = [(task, chance.uniform(-0.1, 0.1)) for task in ("", *tasks)]
        comparisons += [comparison("mutbert (full)", "kmer", *difference, **key) for difference in differences]
        splits += [
            {"suite": suite, "task": task, "split": "test", "examples": chance.randrange(10**5), "duplicates": 7,
             "in_train": 3, "dropped": 0, "sha256": f"{chance.getrandbits(256):064x}"} for task in tasks
        ]  # fmt: skip
    return {
        "scores": scores,
        "averages": averages,
        "comparisons": comparisons,
        "splits": splits,
        "paper": [{"suite": suite, "metric": metric, "model": "DNABERT-2", "value": 0.6172, "parameters": 117_000_000}
                  for suite, (metric, _) in SUITES.items()],
        "failures": [{"suite": "tfbs", "task": "tf_1", "model": "small", "method": "lora", "protocol": "corrected",
                      "seed": 4, "reason": "the loss was not finite"}],
        "costs": [("tfbs", "published", "mutbert", "full", 15, 7380.0, 123_456.7, 3.0 * 2**30)],
        "facts": {"device": "one GPU", "intervals": "percentile bootstrap"},
        "notes": ["A smoke run."],
    }  # fmt: skip


def write(folder, **parts):
    paths = write_benchmark_report(folder / "report", report_of(**parts), force=True)
    assert [path.name for path in paths] == list(FILES)
    return paths[0].read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path):
    (tmp_path / "report").mkdir()
    return lambda **parts: write(tmp_path, **parts)


def lead(text):
    return html.unescape(re.search('<p class="lead">(.*?)</p>', text)[1])


def titles(text):
    return re.findall("<h2>(.*?)</h2>", text)


def bold(text):
    return re.findall("<b>(.*?)</b>", text)


def test_the_page_has_all_parts_and_values(page, tmp_path):
    parts = whole()
    text = page(**parts)
    assert titles(text) == [
        "Averages: tfbs", "Averages: eqtl", "Tasks: tfbs", "Tasks: eqtl", "Paired differences", "Failures", "Data",
        "What it was made of", COST_TITLE,
    ]  # fmt: skip
    for row in (*parts["scores"], *parts["averages"]):
        assert f"{row['value']:.3f}" in text
        assert f"[{row['low']:.3f}, {row['high']:.3f}]" in text
    for row in parts["comparisons"]:
        assert {f"{row['difference']:+.3f}", f"{row['adjusted_p']:.2g}"} <= set(re.findall(r"[-+]?\d\.\d+", text))
    for row in parts["splits"]:
        assert row["sha256"][:12] in text
    for word in ("0.617", "0.668", "117 M", "86.1 M", "the loss was not finite", "one GPU", "2.05 hours", "123457",
                 "A smoke run.", "percentile bootstrap", "3 seeds: mutbert (full)", "3.0"):  # fmt: skip
        assert word in text
    labels = re.findall('<svg role="img" aria-label="([^"]*)"', text)
    assert len(labels) == len(set(labels)) == 4 + 4 + 4
    # Nothing is fetched, and the same frames give the same bytes.
    assert not re.findall(r"(?:src|srcset|data|action)\s*=", text)
    assert page(**parts) == text
    for name, rows in (("scores", parts["scores"]), ("averages", parts["averages"])):
        frame = pl.read_csv(tmp_path / "report" / f"{name}.csv", infer_schema_length=None)
        assert frame["value"].to_list() == [row["value"] for row in rows]
    assert "0.5 0.25" in write_scores(page, tmp_path)


def write_scores(page, tmp_path):
    page(scores=[score("a", "t", 0.375, per_seed=[0.5, 0.25])])
    return (tmp_path / "report" / "scores.csv").read_text()


def test_an_empty_report_says_so(page):
    text = page()
    assert lead(text) == "Nothing has an average."
    for sentence in ("Nothing was compared in pairs.", "None: all that was run gave a score.", "Not known."):
        assert sentence in text


def test_names_are_shown_as_they_are(page):
    model, task = "<b>a|b</b>", "t|<i>"
    text = page(
        scores=[score(model, task, 0.5), score("kmer", task, 0.4, "")],
        averages=[average(model, 0.5), average("kmer", 0.4, "", parameters=None)],
        comparisons=[comparison(model, "kmer", task)],
        facts={"<f>": "<k>"},
        notes=["<n>"],
    )
    for tag in ("<b>a", "<i>", "<f>", "<k>", "<n>"):
        assert tag not in text
    assert html.escape(f"{model} (full)") in text


@pytest.mark.parametrize(
    ("averages", "sentence"),
    [
        ([("small", 0.6), ("large", 0.5), ("kmer", 0.52), ("cnn", 0.51)],
         "small (full) is best with MCC 0.600, above the trivial baseline kmer with 0.520."),
        ([("small", 0.53), ("kmer", 0.52)], "above the trivial baseline kmer with 0.520; their intervals overlap."),
        ([("small", 0.5), ("large", 0.5), ("kmer", 0.52)],
         "kmer, which is best with MCC 0.520; the best of them, small (full) and large (full), has 0.500."),
        # Equal as printed is not better.
        ([("small", 0.52049), ("kmer", 0.52)], "the best, small (full), has the same MCC, 0.520."),
        ([("small", 0.5), ("large", 0.4)], "small (full) is best with MCC 0.500; there is no trivial baseline"),
        ([("kmer", 0.52)], "there is no language model to rank; the trivial baseline kmer has MCC 0.520."),
        ([("small", NAN)], "nothing is ranked"),
    ],
)  # fmt: skip
def test_the_lead_is_who_is_best(page, averages, sentence):
    rows = [average(name, value, "" if name in {"kmer", "cnn"} else "full") for name, value in averages]
    found = lead(page(averages=rows))
    assert found.startswith("tfbs (published): ")
    assert sentence in found


def test_the_lead_has_each_suite_and_protocol(page):
    found = lead(
        page(
            averages=[
                average("small", 0.6),
                average("small", 0.5, protocol="corrected"),
                average("kmer", 0.55, "", protocol="corrected"),
                average("small", 0.7, suite="nt"),
            ]
        )
    )
    assert re.findall(r"(\w+ \(\w+\)):", found) == ["tfbs (published)", "tfbs (corrected)", "nt (published)"]
    assert found.count("no language model beats") == 1


def test_a_partial_average_is_neither_ranked_nor_compared_with_the_papers(page):
    rows = [average("small", 0.6), average("partial", 0.9, tasks=3, published=0.68), average("kmer", 0.5, "")]
    text = page(averages=rows)
    assert "small (full) is best" in lead(text)
    assert bold(text) == ["0.600"]
    assert "0.900<br><small>[0.890, 0.910]</small><br><small>3 of 5 tasks</small>" in text
    assert "0.680<br><small>of all 5 tasks</small>" in text
    assert "not ranked, as not known to be over the same tasks as the others, are partial (full)" in text


def test_where_all_left_out_the_same_tasks_they_are_ranked_among_themselves(page):
    rows = [average("small", 0.6, tasks=1, published=0.7), average("kmer", 0.5, "", tasks=1)]
    paper = [{"suite": "tfbs", "metric": "mcc", "model": "DNABERT-2", "value": 0.65, "parameters": 10**8}]
    scores = [score("small", "t", 0.6), score("kmer", "t", 0.5, "")]
    text = page(averages=rows, scores=scores, paper=paper)
    assert "small (full) is best with MCC 0.600 over 1 of 5 tasks" in lead(text)
    assert "no average can be compared with the paper&#39;s" in text
    # In the table alone, and not in the figure.
    assert text.count("DNABERT-2") == 1
    other = [score("small", "t", 0.6), score("kmer", "u", 0.5, "")]
    assert "nothing is ranked" in lead(page(averages=rows, scores=other))


def test_the_best_of_each_task_and_protocol_is_bold(page):
    scores = [
        score("a", "t", 0.7001),
        score("b", "t", 0.6999),
        score("kmer", "t", 0.5, ""),
        score("a", "t", 0.2, protocol="corrected"),
        score("kmer", "t", 0.3, "", protocol="corrected"),
        score("a", "u", 0.1),
    ]
    # Equal as printed is equally good, and one alone is not the best of anything.
    assert sorted(bold(page(scores=scores))) == ["0.300", "0.700", "0.700"]


def test_how_many_tasks_a_baseline_is_not_beaten_on(page):
    scores = [score("a", "t", 0.7), score("kmer", "t", 0.7, ""), score("a", "u", 0.8), score("cnn", "u", 0.7, "")]
    averages = [average("a", 0.75), average("kmer", 0.7, "")]
    text = page(scores=scores, averages=averages)
    assert "Published: no language model beats the trivial baselines on 1 of 2 tasks (t)." in text


def test_many_tasks_are_rows_and_fewer_seeds_than_elsewhere_are_shown(page):
    tasks = [f"task_{number}" for number in range(18)]
    scores = [score("a", task, 0.5, per_seed=[0.4, 0.6] if task == "task_0" else [0.5]) for task in tasks]
    text = page(scores=scores)
    assert "<th>task</th><th>protocol</th><th>a (full)</th>" in text
    assert "1 of 2 seeds" in text
    assert "2 seeds: a (full)." in text


def test_missing_intervals_and_numbers(page):
    none = {"low": NAN, "high": NAN}
    text = page(
        scores=[score("a", "t", 0.5, **none), score("b", "t", NAN, **none), score("c", "t", -0.0001, high=0.0001)],
        averages=[average("a", 0.5, **none), average("b", NAN, **none)],
        comparisons=[comparison("a", "b", difference=NAN, adjusted=NAN)],
    )
    assert "not a number" in text
    # Almost nothing is not negative.
    assert "0.000<br><small>[-0.010, 0.000]</small>" in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_clear_differences_are_bold_and_methods_explained_once(page):
    comparisons = [
        comparison("a", "b", "t", 0.1, 0.049),
        comparison("a", "b", "u", -0.1, 0.05, method="permutation"),
    ]
    text = page(comparisons=comparisons)
    assert bold(text) == ["+0.100"]
    assert "1 of 2 differences has an adjusted p (Holm) below 0.05" in text
    assert text.count("paired bootstrap") == text.count("permutation") == 1
    assert {"a − b", "t *", "u"} <= set(re.findall(">([^<>]+)</text>", text))


def test_files_are_not_replaced_unless_forced(tmp_path):
    (tmp_path / "averages.csv").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_benchmark_report(tmp_path, report_of())
    assert [path.name for path in tmp_path.iterdir()] == ["averages.csv"]
    write_benchmark_report(tmp_path, report_of(), force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
