"""The report of a benchmark as a page and CSV: which model is best at what, and by how much.

Every metric is taken to be better where it is higher.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl
from markupsafe import Markup, escape
from matplotlib.ticker import LogLocator

from mutbert.files import atomic_file, check_output
from mutbert.reports import plots
from mutbert.reports.page import counted, write_page
from mutbert.tables import notebook_html

Row = dict[str, Any]


BASELINES: Final = ("kmer", "cnn")  # trivial models, which a language model has to beat
FILES: Final = ("report.html", "scores.csv", "averages.csv", "comparisons.csv")
_SIGNIFICANT: Final = 0.05
_MOST_ROWS: Final = 60  # of a figure of differences; beyond, those over whole suites alone


class BenchmarkReport(NamedTuple):
    """What a report shows: frames, whose order is that of tables and figures."""

    name: str
    scores: pl.DataFrame  # suite, protocol, task, model, method, metric, value, low, high, per_seed
    averages: pl.DataFrame  # the same without task and per_seed, and tasks, of_tasks, parameters, published
    comparisons: pl.DataFrame  # suite, protocol, task, first, second, metric, difference, low, high, p_value, ...
    paper: pl.DataFrame  # suite, metric, model, value, parameters
    failures: pl.DataFrame  # suite, task, model, method, protocol, seed, reason
    costs: pl.DataFrame  # suite, protocol, model, method, cells, seconds, tokens_per_second, peak_memory
    splits: pl.DataFrame  # suite, task, split, examples, duplicates, in_train, dropped, sha256
    facts: Mapping[str, str]
    notes: Sequence[str]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: scores {len(self.scores):,}, failures {len(self.failures):,}>"

    def _repr_html_(self) -> str:
        return notebook_html(repr(self), self.averages)


@plots.style()
def write_benchmark_report(folder: Path, report: BenchmarkReport, *, force: bool = False) -> tuple[Path, ...]:
    """Write `FILES`; the same results give the same bytes, but for the cost at the page's end."""
    page, *tables = paths = tuple(folder / name for name in FILES)
    for path in paths:
        check_output(path, force=force)
    standings = [_standing(report, *key) for key in _grouped(_rows(report.averages), "suite", "protocol")]
    write_page(
        page, f"Benchmark: {report.name}", notes=report.notes, force=force, template="benchmark.html.j2",
        standings=standings, averages=_averages(report, standings), tasks=_tasks(report),
        failures=_labelled(report.failures), splits=report.splits, costs=_costs(report.costs), facts=report.facts,
        number=_number, listed=_listed, significant=_SIGNIFICANT, **_differences(_rows(report.comparisons)),
    )  # fmt: skip
    per_seed = pl.col("^per_seed$").list.eval(pl.element().cast(pl.String)).list.join(" ")
    for path, frame in zip(tables, (report.scores, report.averages, report.comparisons), strict=True):
        with atomic_file(path, force=force) as file:
            frame.with_columns(per_seed).write_csv(file)
    return paths


def _standing(report: BenchmarkReport, suite: str, protocol: str) -> Row:
    """Return who is ranked, who is best, and whether trivial baselines are beaten; numbers compare as printed."""
    averages, scores = (_rows(frame, suite=suite, protocol=protocol) for frame in (report.averages, report.scores))
    finite = [row for row in averages if math.isfinite(row["value"])]
    ranked = [row for row in finite if not row["of"]]
    if not ranked:
        # In a run that left tasks out for all alike, they can be compared with each other, if not with the paper.
        own = _grouped(scores, "label")
        done = {frozenset(row["task"] for row in own[row["label"]]) for row in finite}
        ranked = finite if len(done) == 1 else []
    (models, model), (baselines, baseline) = (_best(ranked, trivial=trivial) for trivial in (False, True))
    tasks = {
        task: [_best(rows, trivial=trivial)[1] for trivial in (False, True)]
        for task, rows in _grouped(scores, "task").items()
    }
    ahead = {task: one["printed"] - two["printed"] for task, (one, two) in tasks.items() if one and two}
    return {
        "suite": suite, "protocol": protocol, "ranked": ranked, "of": ranked[0]["of"] if ranked else "",
        "metric": ranked[0]["metric"] if ranked else "", "models": models, "model": model, "baselines": baselines,
        "baseline": baseline, "ahead": model["printed"] - baseline["printed"] if model and baseline else None,
        "unranked": [row["label"] for row in averages if row not in ranked], "compared": len(ahead),
        "unbeaten": [task for task, value in ahead.items() if value <= 0],
    }  # fmt: skip


def _averages(report: BenchmarkReport, standings: Sequence[Row]) -> dict[str, Row]:
    """Return the figures and the table of each suite's averages, with the paper's, and where the suite stands."""
    found = {}
    for suite in dict.fromkeys(row["suite"] for row in [*_rows(report.averages), *_rows(report.paper)]):
        paper, own = _rows(report.paper, suite=suite), [one for one in standings if one["suite"] == suite]
        best = [row for one in own for row in _leaders(one["ranked"])]
        cells: dict[tuple[str, ...], Row] = {}
        for row in _rows(report.averages, suite=suite):
            line = cells.setdefault((row["label"], _amount(row["parameters"])), {})
            line[f"{row['metric']}\n{row['protocol']}"] = _cell(row, row["of"], bold=row in best)
            if row["published"] is not None:
                # Whoever reads a partial average next to it learns that they are not of the same tasks.
                of = f"of all {row['of_tasks']} tasks" if row["of"] else ""
                line[f"{row['metric']}\nthe paper"] = _cell({"value": row["published"]}, of)
        for row in paper:
            shown = {f"{row['metric']}\nthe paper": _number(row["value"])}
            cells[f"{row['model']} (paper)", _amount(row["parameters"])] = shown
        figures = [_size_figure(suite, one["protocol"], one["ranked"], paper) for one in own]
        found[suite] = {"standings": own, "figures": figures, "table": _wide(("model", "parameters"), cells)}
    return found


def _size_figure(suite: str, protocol: str, ranked: list[Row], paper: Sequence[Row]) -> str:
    """Return averages by number of parameters as SVG, with the paper's where they are of the same tasks."""
    paper = [] if ranked and ranked[0]["of"] else paper
    sizes = [row["parameters"] for row in [*ranked, *paper] if row["parameters"] and not row["trivial"]]
    figure, axes = plots.new_figure(3.5 + 0.09 * (len(ranked) + len(paper)))
    looks = product("os^DvPX", plots.COLOURS)
    for row in ranked:
        if row["trivial"]:
            dash = plots.DASHES[1 + BASELINES.index(row["model"])]
            axes.axhline(row["value"], color=plots.INK, linestyle=dash, linewidth=1, label=row["label"])
        elif row["parameters"]:
            _point(axes, row, next(looks), x=row["parameters"])
    for row in paper:
        _point(axes, row | {"method": ""}, next(looks), x=row["parameters"], face="white")
    axes.set_xscale("log")
    if sizes:
        axes.set_xlim(min(sizes) / 2.5, max(sizes) * 2.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if sizes and max(sizes) > 30 * min(sizes) else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _place: _amount(value))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"{ranked[0]['metric']}, {protocol}" if ranked else protocol)
    title = f"{suite}, {protocol}: averages by number of parameters"
    return plots.svg(figure, title, axes.get_legend_handles_labels()[0])


def _tasks(report: BenchmarkReport) -> dict[str, Row]:
    """Return the figures and the table of each suite's scores by task."""
    found = {}
    for suite, scores in _grouped(_rows(report.scores), "suite").items():
        contestants = _grouped(scores, "label").items()
        most = {label: max(len(row["per_seed"]) for row in rows) for label, rows in contestants}
        cells: dict[tuple[str, ...], Row] = {}
        for key, rows in _grouped(scores, "task", "protocol").items():
            best = _leaders(rows)
            for row in rows:
                label, seeds = row["label"], len(row["per_seed"])
                fewer = f"{seeds} of {most[label]} seeds" if seeds < most[label] else ""
                other = row["metric"] if row["metric"] != scores[0]["metric"] else ""
                column = f"{label}\n{counted(most[label], 'seed')}"
                cells.setdefault(key, {})[column] = _cell(row, other, fewer, bold=row in best)
        figures = [_task_figure(suite, key[0], rows) for key, rows in _grouped(scores, "protocol", "metric").items()]
        found[suite] = {"figures": figures, "table": _wide(("task", "protocol"), cells)}
    return found


def _task_figure(suite: str, protocol: str, scores: Sequence[Row]) -> str:
    """Return scores as SVG: tasks from the top down, and in each the models under each other."""
    tasks = list(_grouped(scores, "task"))
    models = _grouped([row for row in scores if not row["trivial"]], "label")
    figure, axes = plots.new_figure(1.2 + max(0.32, 0.13 + 0.095 * len(models)) * len(tasks))
    for row in (row for row in scores if row["trivial"]):
        ends = tasks.index(row["task"]) - 0.46, tasks.index(row["task"]) + 0.46
        dash = plots.DASHES[BASELINES.index(row["model"])]
        axes.fill_betweenx(ends, row["low"], row["high"], color=plots.INK, alpha=0.09, linewidth=0)
        axes.plot([row["value"]] * 2, ends, dash, color=plots.INK, linewidth=1.6, label=row["label"])
    for index, (look, rows) in enumerate(zip(product("os^DvPX", plots.COLOURS), models.values(), strict=False)):
        for row in rows:
            _point(axes, row, look, y=tasks.index(row["task"]) - 0.42 + 0.84 * (index + 0.5) / len(models))
    plots.list_rows(axes, [plots.shortened(task) for task in tasks])
    axes.set_xlabel(f"{scores[0]['metric']}, {protocol}")
    handles = {handle.get_label(): handle for handle in axes.get_legend_handles_labels()[0]}
    return plots.svg(figure, f"{suite}, {protocol}: {scores[0]['metric']} by task", list(handles.values()))


def _point(axes: Any, row: Row, look: tuple[str, str], *, face: str | None = None, **other: float) -> None:
    """Draw a value and its interval along one axis, at a place on the `other`."""
    value, along = row["value"], "y" if "x" in other else "x"
    ends = (value - row["low"], row["high"] - value) if "low" in row else (math.nan, math.nan)
    error = [[max(end, 0)] for end in ends] if math.isfinite(sum(ends)) else None
    axes.errorbar(
        **other, **{along: value, f"{along}err": error}, fmt=look[0], color=look[1], markerfacecolor=face,
        markersize=4.2, linewidth=1.1, label=plots.shortened(row["label"]),
    )  # fmt: skip


def _differences(rows: Sequence[Row]) -> Row:
    """Return the figures and the tables of paired differences, by caption, and how many of them are clear."""
    methods, figures, tables = list(_grouped(rows, "method")), [], {}
    for (suite, protocol, _), entries in _grouped(rows, "suite", "protocol", "metric").items():
        panels: dict[str, list[tuple[str, float, float, float]]] = {}
        cells, stars = [], {"*"}
        for row in entries:
            clear = row["adjusted_p"] < _SIGNIFICANT
            task = f"{row['task'] or 'whole suite'}{' *' * clear}"
            stars |= {task} if clear else set()
            shown = _cell(row | {"value": row["difference"]}, bold=clear, form="{:+z.3f}")
            p_values = (f"{row[name]:.2g}" if math.isfinite(row[name]) else "–" for name in ("p_value", "adjusted_p"))
            cells.append([task, row["first"], row["second"], shown, *p_values, methods.index(row["method"]) + 1])
            if len(entries) <= _MOST_ROWS or row["task"] == entries[0]["task"]:
                panel = panels.setdefault(f"{row['first']} − {row['second']}", [])
                panel.append((task, row["difference"], row["low"], row["high"]))
        caption, xlabel = f"{suite}, {protocol}, {row['metric']}", f"difference of {row['metric']}"
        figures.append(plots.forest(f"{caption}: paired differences", panels, xlabel, reference=0, highlighted=stars))
        tables[caption] = cells
    clear = sum(row["adjusted_p"] < _SIGNIFICANT for row in rows)
    return {"differences": len(rows), "clear": clear, "methods": methods, "forests": figures, "pairs": tables}


def _costs(costs: pl.DataFrame) -> pl.DataFrame:
    return _labelled(costs.filter(pl.col("cells") > 0)).select(
        "suite", "model", "protocol", pl.col("cells").alias("runs"), pl.col("seconds").round(1),
        pl.col("tokens_per_second").round().cast(pl.Int64).alias("tokens a second"),
        (pl.col("peak_memory") / 2**30).round(2).alias("peak memory, GiB"),
    )  # fmt: skip


def _labelled(frame: pl.DataFrame) -> pl.DataFrame:
    name = pl.when(pl.col("method") == "").then("model").otherwise(pl.format("{} ({})", "model", "method"))
    return frame.with_columns(name.alias("model")) if len(frame) else frame


def _rows(frame: pl.DataFrame, **where: str) -> list[Row]:
    """Return rows with what is printed of them; `of` is how many tasks a partial average is over."""
    rows = frame.filter(**where).to_dicts() if len(frame) else []
    for row in rows:
        model = row.get("model", "")
        row["label"] = f"{model} ({row['method']})" if row.get("method") else model
        row["trivial"] = model in BASELINES
        row["metric"] = row["metric"].upper() if row["metric"] in {"mcc", "auroc", "auprc", "f1"} else row["metric"]
        row["of"] = f"{row['tasks']} of {row['of_tasks']} tasks" if row.get("tasks", 0) < row.get("of_tasks", 0) else ""
        # Numbers compare as printed.
        row["printed"] = float(f"{row.get('value', math.nan):.3f}")
    return rows


def _grouped(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names) if len(names) > 1 else row[names[0]], []).append(row)
    return groups


def _wide(names: Sequence[str], rows: Mapping[tuple[str, ...], Row]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of a table; where a row has no value in a column, there is None."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [*names, *columns], [[*key, *(row.get(column) for column in columns)] for key, row in rows.items()]


def _cell(row: Row, *details: str, bold: bool = False, form: str = "{:z.3f}") -> Markup:
    """Return a value as a table shows it, with its interval and details below."""
    known = math.isfinite(row.get("low", math.nan) + row.get("high", math.nan))
    lines = [f"[{_number(row['low'])}, {_number(row['high'])}]" if known else "", *details]
    text = escape(_number(row["value"], form))
    text = Markup("<b>{}</b>").format(text) if bold else text
    return text + Markup("").join(Markup("<br><small>{}</small>").format(line) for line in lines if line)


def _leaders(rows: Iterable[Row]) -> list[Row]:
    """Return those that are best; none where there is nothing to be better than."""
    finite = [row for row in rows if math.isfinite(row["value"])]
    best = max((row["printed"] for row in finite), default=math.nan)
    return [row for row in finite if row["printed"] == best] if len(finite) > 1 else []


def _best(rows: Iterable[Row], *, trivial: bool) -> tuple[str, Any]:
    """Return the names of those that are best, and one of them; None where there is none."""
    finite = [row for row in rows if math.isfinite(row["value"]) and row["trivial"] is trivial]
    names = _listed([row["label"] for row in _leaders(finite) or finite])
    return names, max(finite, key=lambda row: row["value"], default=None)


def _number(value: float, form: str = "{:z.3f}") -> str:
    return form.format(value) if math.isfinite(value) else "not a number"


def _amount(number: float | None) -> str:
    """Return a number of parameters in thousands, millions or thousand millions: ``86.1 M``."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number and number >= unit:
            return f"{number / unit:.1f}".removesuffix(".0") + name
    return f"{number:g}" if number else "–"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
