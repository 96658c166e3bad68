"""The page of a benchmark: its sentences, tables and figures, from frames alone."""

import math
import random
import re
from itertools import product

import polars as pl
import pytest

from mutbert.reports.benchmark import BenchmarkReport, write_benchmark_report

NAN = math.nan
COSTS = ("suite", "protocol", "model", "method", "cells", "seconds", "tokens_per_second", "peak_memory")


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


def report_of(costs=(), facts=None, notes=(), **rows):
    kinds = ("scores", "averages", "comparisons", "paper", "failures")
    frames = [pl.DataFrame(list(rows.get(kind, ())), infer_schema_length=None) for kind in kinds]
    schema = dict(zip(COSTS, [pl.String] * 4 + [pl.Int64] + [pl.Float64] * 3, strict=True))
    costs = pl.DataFrame(list(costs), schema=schema, orient="row")
    return BenchmarkReport("some", *frames, costs, pl.DataFrame(list(rows.get("splits", ()))), facts or {}, notes)


@pytest.fixture
def page(tmp_path, read_page):
    return lambda **parts: read_page(write_benchmark_report(tmp_path, report_of(**parts), force=True)[0])


def bold(page):
    return re.findall("<b>(.*?)</b>", page.source)


def test_the_page_has_all_parts_and_values(page, tmp_path):
    chance, models = random.Random(5), [("mutbert", "full", 86_123_456), ("kmer", "", None), ("cnn", "", 1_250_000)]
    scores, averages, comparisons, splits = [], [], [], []
    suites = {"tfbs": ("mcc", ["tf_0", "tf_1"]), "eqtl": ("auroc", ["d0", "d1", "d2"])}
    for (suite, (metric, tasks)), protocol in product(suites.items(), ("published", "corrected")):
        key = {"suite": suite, "protocol": protocol, "metric": metric}
        seeds = {**key, "per_seed": [0.5] * 3}
        for model, method, parameters in models:
            scores += [score(model, task, chance.uniform(0.4, 0.8), method, **seeds) for task in tasks]
            averages.append(average(model, chance.uniform(0.4, 0.8), method, **key, parameters=parameters))
        comparisons += [
            comparison("mutbert (full)", "kmer", task, chance.uniform(-0.1, 0.1), **key) for task in ("", *tasks)
        ]
        splits += [{"suite": suite, "task": task, "split": "test", "examples": 10, "duplicates": 7, "in_train": 3,
                    "dropped": 0, "sha256": f"{chance.getrandbits(256):064x}"} for task in tasks]  # fmt: skip
    found = page(
        scores=scores, averages=averages, comparisons=comparisons, splits=splits,
        paper=[{"suite": "tfbs", "metric": "mcc", "model": "DNABERT-2", "value": 0.6172, "parameters": 117_000_000}],
        failures=[{"suite": "tfbs", "task": "tf_1", "model": "small", "method": "lora", "protocol": "corrected",
                   "seed": 4, "reason": "the loss was not finite"}],
        costs=[("tfbs", "published", "mutbert", "full", 15, 7380.0, 123_456.7, 3.0 * 2**30)],
        facts={"device": "one GPU"}, notes=["A smoke run."],
    )  # fmt: skip
    words = [f"{row['value']:.3f}" for row in (*scores, *averages)]
    words += [f"{row['difference']:+.3f}" for row in comparisons] + [row["sha256"][:12] for row in splits]
    words += ["0.617", "117 M", "86.1 M", "the loss was not finite", "2.05 hours", "small (lora)", "3 seeds"]
    assert [word for word in words if word not in found.words] == []
    assert len(found.drawings) == 4 + 4 + 4
    found.check_alone()
    assert pl.read_csv(tmp_path / "scores.csv")["value"].to_list() == [row["value"] for row in scores]


def test_an_empty_report_says_so_and_names_are_escaped(page, evil):
    found = page()
    assert found.lead == "Nothing has an average."
    for sentence in ("Nothing was compared in pairs.", "None: all that was run gave a score.", "Not known."):
        assert sentence in found.words
    rows = {"scores": [score(evil, evil, 0.5), score("kmer", evil, 0.4, "")], "averages": [average(evil, 0.5)]}
    found = page(**rows, comparisons=[comparison(evil, "kmer", evil)], facts={evil: evil}, notes=[evil])
    assert "<script>" not in found.source
    assert evil in found.words


@pytest.mark.parametrize(
    ("averages", "sentence"),
    [
        ({"small": 0.6, "large": 0.5, "kmer": 0.52, "cnn": 0.51},
         "small (full) is best of the language models with MCC 0.600, above the trivial baseline kmer with 0.520."),
        ({"small": 0.5, "large": 0.5, "kmer": 0.52},
         "small (full) and large (full) is best of the language models with MCC 0.500, below the trivial baseline"),
        # Equal as printed is not better.
        ({"small": 0.52049, "kmer": 0.52}, "with MCC 0.520, no better than the trivial baseline kmer with 0.520."),
        ({"small": NAN}, "nothing is ranked"),
    ],
)  # fmt: skip
def test_the_lead_is_who_is_best_in_each_suite_and_protocol(page, averages, sentence):
    rows = [average(name, value, "" if name in {"kmer", "cnn"} else "full") for name, value in averages.items()]
    found = page(averages=[*rows, average("small", 0.5, protocol="corrected"), average("small", 0.7, suite="nt")]).lead
    assert found.startswith("tfbs (published): ")
    assert sentence in found.partition(" tfbs (corrected): ")[0]
    assert "nt (published): small (full) is best" in found


def test_a_partial_average_is_neither_ranked_nor_compared_with_the_papers(page):
    rows = [average("small", 0.6), average("partial", 0.9, tasks=3, published=0.68), average("kmer", 0.5, "")]
    found = page(averages=rows)
    assert "small (full) is best" in found.lead
    assert bold(found) == ["0.600"]
    assert "0.900<br><small>[0.890, 0.910]</small><br><small>3 of 5 tasks</small>" in found.words
    # Where all left out the same tasks, they are ranked among themselves.
    rows = [average("small", 0.6, tasks=1, published=0.7), average("kmer", 0.5, "", tasks=1)]
    paper = [{"suite": "tfbs", "metric": "mcc", "model": "DNABERT-2", "value": 0.65, "parameters": 10**8}]
    scores = [score("small", "t", 0.6), score("kmer", "t", 0.5, "")]
    found = page(averages=rows, scores=scores, paper=paper)
    assert "small (full) is best of the language models with MCC 0.600 over 1 of 5 tasks" in found.lead
    # In the table alone, and not in the figure.
    assert found.source.count("DNABERT-2") == 1
    other = [score("small", "t", 0.6), score("kmer", "u", 0.5, "")]
    assert "nothing is ranked" in page(averages=rows, scores=other).lead


def test_what_is_best_missing_or_of_fewer_seeds_shows_in_the_tables(page):
    none = {"low": NAN, "high": NAN}
    found = page(
        scores=[
            score("a", "t", 0.7001, per_seed=[0.6, 0.8]), score("b", "t", 0.6999), score("kmer", "t", 0.7, ""),
            score("a", "u", -0.0001, high=0.0001), score("b", "u", NAN, **none), score("cnn", "u", -0.2, "", **none),
        ],
        averages=[average("a", 0.75), average("b", NAN, **none), average("kmer", 0.75, "")],
        comparisons=[comparison("a", "b", difference=NAN, adjusted=NAN), comparison("a", "b", "t", 0.1, 0.049),
                     comparison("a", "b", "u", -0.1, 0.05, method="permutation")],
    )  # fmt: skip
    # Equal as printed is equally good, and almost nothing is not negative.
    assert sorted(bold(found)) == ["+0.100", "0.000", *["0.700"] * 3, *["0.750"] * 2]
    assert "0.000</b><br><small>[-0.010, 0.000]</small><br><small>1 of 2 seeds</small>" in found.words
    assert "nan" not in found.words
    assert "no language model beats the trivial baselines on 1 of 2 tasks (t)." in found.words
    assert "1 of 3 differences has an adjusted p (Holm) below 0.05" in found.words
