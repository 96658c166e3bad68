"""The report of a benchmark: which model is best at what, by how much, and what may be wrong with the comparison.

A page, the same as Markdown, and the figures as CSV. Every metric is taken to be better where it is higher.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output
from mutbert.reports.benchmark_figures import (
    Difference,
    Look,
    Panel,
    Point,
    Sized,
    amount,
    forest_figure,
    looks,
    size_figure,
    task_figure,
)
from mutbert.reports.benchmark_results import (
    Average,
    BenchmarkReport,
    Comparison,
    Cost,
    Failure,
    PaperRow,
    Score,
)
from mutbert.reports.benchmark_tables import Block, Part, Table, TableCell, csv_text, html_section, markdown_page
from mutbert.reports.page import counted, write_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BASELINES: Final = frozenset({"kmer", "cnn"})
"""Models that are trivial: what a language model has to beat."""
COST_TITLE: Final = "What it cost"
"""Heading of the part that depends on the machine and not on the results alone; it is the last one."""
FILES: Final = ("report.html", "report.md", "scores.csv", "averages.csv", "comparisons.csv")
"""What a report is made of."""
_METRICS: Final = {"mcc": "MCC", "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}
_SIGNIFICANT: Final = 0.05
_WIDE: Final = 8
_T = TypeVar("_T")
_Rows = list[list[str | TableCell]]
_Result = TypeVar("_Result", Score, Average)


def write_benchmark_report(folder: Path, report: BenchmarkReport, *, force: bool = False) -> tuple[Path, ...]:
    """Write the report of a benchmark: a page that fetches nothing, the same as Markdown, and three CSV files.

    The same results give the same bytes; costs, which never come out the same twice, are in the last part of page and
    Markdown alone.

    Parameters
    ----------
    folder : Path
        Where `FILES` are written; it is made where it does not exist.
    report : BenchmarkReport
        What it says. What is missing or empty in it, the report says is.
    force : bool
        Replace the files where they exist.

    Returns
    -------
    tuple of Path
        The files, as in `FILES`.

    Raises
    ------
    InputError
        When one of the files exists and `force` is false, or the folder cannot be made.
    ValueError
        When two scores or two averages are of the same.
    """
    _refuse_twice([(s.suite, s.task, s.model, s.method, s.protocol, s.metric) for s in report.scores])
    _refuse_twice([(a.suite, a.model, a.method, a.protocol, a.metric) for a in report.averages])
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file and not a folder; choose another output")
    if not folder.exists():
        check_output(folder, force=force)
        folder.mkdir()
    page, markdown, *tables = paths = tuple(folder / name for name in FILES)
    for path in paths:
        check_output(path, force=force)
    parts = _parts(report)
    title, lead = f"Benchmark: {report.name}", _headline(report)
    write_page(page, title, lead, [html_section(part) for part in parts], notes=report.notes, force=force)
    texts = [
        markdown_page(title, lead, report.notes, parts),
        csv_text(Score, report.scores),
        csv_text(Average, report.averages),
        csv_text(Comparison, report.comparisons),
    ]
    for path, text in zip((markdown, *tables), texts, strict=True):
        with atomic_file(path, force=force) as file:
            file.write_text(text, encoding="utf-8", newline="")
    return paths


class _Ranking(NamedTuple):
    """The averages of a suite and protocol that are over the same tasks, and those that cannot stand beside them."""

    metric: str
    ranked: Sequence[Average]
    others: Sequence[Average]

    @property
    def partial(self) -> bool:
        return any(average.tasks < average.of_tasks for average in self.ranked)


def _parts(report: BenchmarkReport) -> list[Part]:
    entries: list[Score | Average] = [*report.averages, *report.scores]
    look = looks(_ordered(_label(entry) for entry in entries if not _trivial(entry)))
    return [
        _averages(report),
        _tasks(report, look),
        _sizes(report, look),
        _comparisons(report),
        _failures(report),
        _data(report),
        Part("What it was made of", "", facts=report.facts)
        if report.facts
        else Part("What it was made of", "Not known."),
        _costs(report),
    ]


def _headline(report: BenchmarkReport) -> str:
    pairs = _ordered((average.suite, average.protocol) for average in report.averages)
    return " ".join(_verdict(report, suite, protocol) for suite, protocol in pairs) or "Nothing has an average."


def _verdict(report: BenchmarkReport, suite: str, protocol: str) -> str:
    """Say who is best, and whether a trivial baseline is beaten; numbers are compared as they are printed."""
    where = f"{suite} ({protocol})" if protocol else suite
    ranking = _rank(report, suite, protocol)
    if not ranking.ranked:
        return f"{where}: nothing is ranked, as no two averages are known to be over the same tasks."
    metric = _metric(ranking.metric)
    first = ranking.ranked[0]
    over = f" over {first.tasks} of {first.of_tasks} tasks" if ranking.partial else ""
    models, model = _best(average for average in ranking.ranked if not _trivial(average))
    baselines, baseline = _best(average for average in ranking.ranked if _trivial(average))
    known = f"the trivial baseline {_listed(baselines)}"
    if model is None or baseline is None:
        if baseline is not None:
            return f"{where}: there is no language model to rank; {known} has {metric} {_number(baseline.value)}{over}."
        assert model is not None
        best = f"{_listed(models)} {'is best with' if len(ranking.ranked) > 1 else 'is the only one, with'} {metric}"
        return f"{where}: {best} {_number(model.value)}{over}; there is no trivial baseline to compare it with."
    reached, trivial = _number(model.value), _number(baseline.value)
    if float(reached) > float(trivial):
        overlap = "; their intervals overlap" if model.low <= baseline.high else ""
        return (
            f"{where}: {_listed(models)} is best with {metric} {reached}{over}, above {known} with {trivial}{overlap}."
        )
    if reached == trivial:
        same = f"the best, {_listed(models)}, has the same {metric}, {reached}{over}"
        return f"{where}: no language model beats {known}; {same}."
    return (
        f"{where}: no language model beats {known}, which is best with {metric} {trivial}{over}; the best of them, "
        f"{_listed(models)}, has {reached}."
    )


def _rank(report: BenchmarkReport, suite: str, protocol: str) -> _Ranking:
    entries = [entry for entry in report.averages if (entry.suite, entry.protocol) == (suite, protocol)]
    if not entries:
        return _Ranking("", (), ())
    metric = entries[0].metric
    entries = [entry for entry in entries if entry.metric == metric]
    finite = [entry for entry in entries if math.isfinite(entry.value)]
    ranked = [entry for entry in finite if entry.tasks >= entry.of_tasks]
    if not ranked:
        # In a run that left tasks out for all alike, they can be compared with each other, if not with the paper.
        done = {
            (entry.tasks, frozenset(score.task for score in report.scores if _key(score) == _key(entry)))
            for entry in finite
        }
        ranked = finite if len(done) == 1 and all(len(tasks) == count for count, tasks in done) else []
    return _Ranking(metric, ranked, [entry for entry in entries if entry not in ranked])


def _averages(report: BenchmarkReport) -> Part:
    title = "Averages"
    suites = _ordered([*(entry.suite for entry in report.averages), *(row.suite for row in report.paper)])
    if not suites:
        return Part(title, "There are none.")
    text = (
        f"The mean over each suite's tasks, below it its 95 % interval ({report.interval_method}); bold is the best of "
        "a column among what is over the same tasks. The paper's numbers stand in a column of their own: they are over "
        "all tasks of a suite."
    )
    return Part(title, text, [_suite_averages(report, suite) for suite in suites])


def _suite_averages(report: BenchmarkReport, suite: str) -> Block:
    entries = [entry for entry in report.averages if entry.suite == suite]
    paper = [row for row in report.paper if row.suite == suite]
    columns = _ordered((entry.metric, entry.protocol) for entry in entries)
    published = [
        metric
        for metric in _ordered([*(entry.metric for entry in entries), *(row.metric for row in paper)])
        if any(row.metric == metric for row in paper)
        or any(entry.metric == metric and entry.published is not None for entry in entries)
    ]
    best = {
        id(entry)
        for metric, protocol in columns
        for entry in _leaders(
            [e for e in entries if (e.metric, e.protocol) == (metric, protocol) and e.tasks >= e.of_tasks]
            or [e for e in _rank(report, suite, protocol).ranked if e.metric == metric]
        )
    }
    rows: _Rows = []
    for label in _ordered(_label(entry) for entry in entries):
        of_label = [entry for entry in entries if _label(entry) == label]
        cells = {(e.metric, e.protocol): _average_cell(e, bold=id(e) in best) for e in of_label}
        sizes = _ordered(entry.parameters for entry in of_label if entry.parameters is not None)
        rows.append(
            [
                label,
                ", ".join(map(amount, sizes)) or "–",
                *(cells.get(column, "–") for column in columns),
                *(_paper_cell([entry for entry in of_label if entry.metric == metric]) for metric in published),
            ]
        )
    rows += [
        [
            f"{row.model} (the paper)",
            "–" if row.parameters is None else amount(row.parameters),
            *("–" for _ in columns),
            *(_number(row.value) if row.metric == metric else "–" for metric in published),
        ]
        for row in paper
    ]
    header = [
        "model",
        "parameters",
        *(f"{_metric(metric)}\n{protocol}" for metric, protocol in columns),
        *(f"{_metric(metric)}\nthe paper" for metric in published),
    ]
    protocols = _ordered(entry.protocol for entry in entries)
    text = " ".join(filter(None, (_remarks(report, suite, protocol) for protocol in protocols)))
    return Block(suite, text or "" if entries else "Nothing of it was run here.", table=Table(header, rows))


def _average_cell(entry: Average, *, bold: bool) -> TableCell:
    part = f"{entry.tasks} of {entry.of_tasks} tasks" if entry.tasks < entry.of_tasks else ""
    return TableCell(_number(entry.value), _details(_interval(entry), part), bold)


def _paper_cell(entries: Sequence[Average]) -> TableCell:
    numbers = _ordered(_number(entry.published) for entry in entries if entry.published is not None)
    partial = [entry.of_tasks for entry in entries if entry.tasks < entry.of_tasks]
    # Whoever reads a partial average and the paper's number in one row is told that they are not of the same tasks.
    return TableCell(", ".join(numbers) or "–", _details(f"of all {partial[0]} tasks" if numbers and partial else ""))


def _remarks(report: BenchmarkReport, suite: str, protocol: str) -> str:
    """Say what is not ranked, and on how many tasks a trivial baseline is not beaten."""
    ranking = _rank(report, suite, protocol)
    told = []
    if ranking.partial:
        first = ranking.ranked[0]
        told.append(
            f"only {first.tasks} of {first.of_tasks} tasks were done, the same by all, so that no average can be "
            "compared with the paper's"
        )
    if ranking.others:
        names = _listed([_label(entry) for entry in ranking.others])
        told.append(f"not ranked, as not known to be over the same tasks as the others, are {names}")
    scores = [s for s in report.scores if (s.suite, s.protocol, s.metric) == (suite, protocol, ranking.metric)]
    compared, unbeaten = 0, []
    for task in _ordered(score.task for score in scores):
        of_task = [score for score in scores if score.task == task]
        _, model = _best(score for score in of_task if not _trivial(score))
        _, baseline = _best(score for score in of_task if _trivial(score))
        if model is not None and baseline is not None:
            compared += 1
            if float(_number(model.value)) <= float(_number(baseline.value)):
                unbeaten.append(task)
    if unbeaten:
        told.append(
            f"no language model beats the trivial baselines on {len(unbeaten)} of {counted(compared, 'task')} "
            f"({_listed(unbeaten)})"
        )
    elif compared:
        told.append(f"a language model beats the trivial baselines on {'each' if compared > 1 else 'the one'} task")
    text = "; ".join(told)
    start = f"{protocol}: " if protocol else ""
    return f"{start}{text}."[:1].upper() + f"{start}{text}."[1:] if text else ""


def _tasks(report: BenchmarkReport, look: Mapping[str, Look]) -> Part:
    title = "Tasks"
    if not report.scores:
        return Part(title, "Nothing was scored.")
    text = (
        "The mean over seeds, below it its 95 % interval and, where there is one, the paper's number. Bold is the best "
        "of a task and protocol. In the figures, lines and the grey fields beside them are trivial baselines."
    )
    blocks: list[Block] = []
    for suite in _ordered(score.suite for score in report.scores):
        scores = [score for score in report.scores if score.suite == suite]
        drawings = []
        for protocol in _ordered(score.protocol for score in scores):
            metric = _rank(report, suite, protocol).metric
            of_protocol = [score for score in scores if score.protocol == protocol]
            metric = metric if any(s.metric == metric for s in of_protocol) else of_protocol[0].metric
            drawings.append(_task_drawing(suite, protocol, [s for s in of_protocol if s.metric == metric], look))
        metrics = _ordered(score.metric for score in scores)
        for place, metric in enumerate(metrics):
            of_metric = [score for score in scores if score.metric == metric]
            table = _task_table(of_metric)
            heading = f"{suite}, {_metric(metric)}" if len(metrics) > 1 else suite
            blocks.append(Block(heading, _seeds(of_metric), () if place else drawings, table))
    return Part(title, text, blocks)


def _task_drawing(suite: str, protocol: str, scores: Sequence[Score], look: Mapping[str, Look]) -> str:
    tasks = _ordered(score.task for score in scores)
    points: dict[bool, dict[str, list[Point]]] = {True: {}, False: {}}
    for score in scores:
        of_model = points[_trivial(score)].setdefault(_label(score), [Point()] * len(tasks))
        of_model[tasks.index(score.task)] = _point(score)
    title = f"{suite}, {protocol}: scores by task"
    metric = f"{_metric(scores[0].metric)}, {protocol}" if protocol else _metric(scores[0].metric)
    return task_figure(title, metric, tasks, points[False], points[True], look)


def _task_table(scores: Sequence[Score]) -> Table:
    """Give a table with models in its rows, or tasks where they are too many for columns."""
    cells = {(_label(score), score.task, score.protocol): score for score in scores}
    labels = _ordered(_label(score) for score in scores)
    present = {(score.task, score.protocol) for score in scores}
    protocols = _ordered(score.protocol for score in scores)
    tasks = _ordered(score.task for score in scores)
    columns = [(task, protocol) for task in tasks for protocol in protocols if (task, protocol) in present]
    best = {
        id(score)
        for column in columns
        for score in _leaders([score for score in scores if (score.task, score.protocol) == column])
    }
    most = {label: max(len(score.per_seed) for score in scores if _label(score) == label) for label in labels}

    def cell(label: str, column: tuple[str, str]) -> str | TableCell:
        score = cells.get((label, *column))
        if score is None:
            return "–"
        seeds = len(score.per_seed)
        fewer = f"{seeds} of {most[label]} seeds" if seeds < most[label] else ""
        paper = "" if score.published is None else f"paper {_number(score.published)}"
        return TableCell(_number(score.value), _details(_interval(score), paper, fewer), id(score) in best)

    if len(columns) > _WIDE and len(columns) > len(labels):
        rows = [[task, protocol, *(cell(label, (task, protocol)) for label in labels)] for task, protocol in columns]
        return Table(["task", "protocol", *labels], rows, names=2)
    header = [f"{task}\n{protocol}" for task, protocol in columns]
    return Table(["model", *header], [[label, *(cell(label, column) for column in columns)] for label in labels])


def _seeds(scores: Sequence[Score]) -> str:
    seeds: dict[int, list[str]] = {}
    for label in _ordered(_label(score) for score in scores):
        most = max(len(score.per_seed) for score in scores if _label(score) == label)
        seeds.setdefault(most, []).append(label)
    if len(seeds) == 1:
        return f"{counted(next(iter(seeds)), 'seed')} each."
    told = "; ".join(
        f"{counted(count, 'seed')}: {', '.join(labels)}" for count, labels in sorted(seeds.items(), reverse=True)
    )
    return f"{told}."


def _sizes(report: BenchmarkReport, look: Mapping[str, Look]) -> Part:
    title = "Score by size"
    blocks = []
    for suite in _ordered([*(entry.suite for entry in report.averages), *(row.suite for row in report.paper)]):
        protocols = _ordered(entry.protocol for entry in report.averages if entry.suite == suite)
        paper = [row for row in report.paper if row.suite == suite]
        panels, left_out = [], []
        for protocol in protocols:
            panel, without = _panel(_rank(report, suite, protocol), protocol, paper)
            if panel.models or panel.levels:
                panels.append(panel)
            if without:
                where = f" ({protocol})" if protocol else ""
                left_out.append(f"Not drawn, as over other tasks or of no known size{where}: {_listed(without)}.")
        text = " ".join(left_out)
        if any(panel.models for panel in panels):
            blocks.append(Block(suite, text, [size_figure(f"{suite}: averages by number of parameters", panels, look)]))
        else:
            blocks.append(Block(suite, f"No average here is of a model of known size. {text}".strip()))
    if not blocks:
        return Part(title, "There are no averages.")
    text = (
        "Averages over each suite's tasks against the number of parameters: filled with their intervals what was run "
        "here, hollow the paper's, by its own protocol. Dashed: trivial baselines."
    )
    return Part(title, text, blocks)


def _panel(ranking: _Ranking, protocol: str, paper: Sequence[PaperRow]) -> tuple[Panel, list[str]]:
    """Give what is drawn of a suite and protocol, and the names of what is not."""
    models, levels = [], {}
    left_out = [_label(entry) for entry in ranking.others]
    for entry in ranking.ranked:
        label = _label(entry)
        if entry.parameters:
            point = _point(entry)
            # The paper's number is of all tasks, and so is no companion for an average over some.
            models.append(
                Sized(label, entry.parameters, point._replace(published=math.nan) if ranking.partial else point)
            )
        elif _trivial(entry):
            levels[label] = entry.value
        else:
            left_out.append(label)
    rows = [] if ranking.partial else [row for row in paper if row.metric == ranking.metric]
    left_out += ["the paper's"] if ranking.partial and paper else []
    left_out += [f"{row.model} (the paper)" for row in rows if not row.parameters or not math.isfinite(row.value)]
    models += [
        Sized(row.model, row.parameters, Point(published=row.value))
        for row in rows
        if row.parameters and math.isfinite(row.value)
    ]
    return Panel(protocol, _metric(ranking.metric), models, levels), left_out


def _comparisons(report: BenchmarkReport) -> Part:
    title = "Paired differences"
    if not report.comparisons:
        return Part(title, "Nothing was compared in pairs.")
    methods = _ordered(entry.method for entry in report.comparisons)
    clear = sum(entry.adjusted_p < _SIGNIFICANT for entry in report.comparisons)
    text = (
        "The first minus the second on the same examples, with its 95 % interval: above 0, the first is better. "
        f"{clear} of {counted(len(report.comparisons), 'difference')} "
        f"{'has' if clear == 1 else 'have'} an adjusted p below {_SIGNIFICANT:g}; these are filled in the figures and "
        "bold in the tables."
    )
    # A method takes some lines, and most rows share theirs.
    several = len(methods) > 1
    text += "".join(f" Method{f' {n}' if several else ''}: {method}." for n, method in enumerate(methods, start=1))
    blocks = []
    for suite, protocol, metric in _ordered((c.suite, c.protocol, c.metric) for c in report.comparisons):
        entries = [c for c in report.comparisons if (c.suite, c.protocol, c.metric) == (suite, protocol, metric)]
        heading = ", ".join(filter(None, (suite, protocol, _metric(metric))))
        groups: dict[str, list[Difference]] = {}
        for entry in entries:
            point = Point(entry.difference, entry.low, entry.high)
            row = Difference(entry.task or "whole suite", point, entry.adjusted_p < _SIGNIFICANT)
            groups.setdefault(f"{entry.first} − {entry.second}", []).append(row)
        drawing = forest_figure(f"{heading}: paired differences", f"difference of {_metric(metric)}", groups)
        rows: _Rows = [
            [
                entry.task or "whole suite",
                entry.first,
                entry.second,
                TableCell(_signed(entry.difference), _details(_interval(entry)), entry.adjusted_p < _SIGNIFICANT),
                _probability(entry.p_value),
                _probability(entry.adjusted_p),
                *([str(1 + methods.index(entry.method))] if several else []),
            ]
            for entry in entries
        ]
        header = ["task", "first", "second", "difference", "p", "adjusted p", *(["method"] if several else [])]
        blocks.append(Block(heading, "", [drawing], Table(header, rows, names=3)))
    return Part(title, text, blocks)


def _failures(report: BenchmarkReport) -> Part:
    title = "Failures"
    if not report.failures:
        return Part(title, "None: all that was run gave a score.")
    rows: _Rows = [
        [entry.suite, entry.task, _label(entry), entry.protocol, str(entry.seed), entry.reason]
        for entry in report.failures
    ]
    header = ["suite", "task", "model", "protocol", "seed", "reason"]
    text = f"{counted(len(rows), 'run')} gave no score; averages are over what was left."
    return Part(title, text, [Block(table=Table(header, rows, names=4, text=5))])


def _data(report: BenchmarkReport) -> Part:
    title = "Data"
    if not report.splits:
        return Part(title, "Not known.")
    leaked = sum(split.in_train for split in report.splits)
    copies = sum(split.duplicates for split in report.splits)
    dropped = sum(split.dropped for split in report.splits)
    examples = sum(split.examples for split in report.splits)
    text = (
        f"{counted(examples, 'example')} in {counted(len(report.splits), 'split')}. "
        f"{counted(copies, 'example')} {'is' if copies == 1 else 'are'} in the same split twice; {leaked:,} of other "
        f"splits {'is' if leaked == 1 else 'are'} in the training split too; {dropped:,} "
        f"{'was' if dropped == 1 else 'were'} dropped. Of each SHA-256 stand the first 12 digits."
    )
    rows: _Rows = [
        [
            split.suite,
            split.task,
            split.split,
            f"{split.examples:,}",
            f"{split.duplicates:,}",
            TableCell(f"{split.in_train:,}", bold=split.in_train > 0),
            f"{split.dropped:,}",
            split.sha256[:12],
        ]
        for split in report.splits
    ]
    header = ["suite", "task", "split", "examples", "duplicates", "in train", "dropped", "SHA-256"]
    return Part(title, text, [Block(table=Table(header, rows, names=3))])


def _costs(report: BenchmarkReport) -> Part:
    if not report.costs:
        return Part(COST_TITLE, "Not known.")
    cells, seconds = sum(cost.cells for cost in report.costs), math.fsum(cost.seconds for cost in report.costs)
    text = f"{counted(cells, 'run')}, one a task and seed, in {_duration(seconds)}."
    rows: _Rows = [
        [
            cost.suite,
            _label(cost),
            cost.protocol,
            f"{cost.cells:,}",
            _duration(cost.seconds),
            "–" if cost.tokens_per_second is None else f"{cost.tokens_per_second:,.0f}",
            "–" if cost.peak_memory is None else f"{cost.peak_memory / 2**30:,.2f} GiB",
        ]
        for cost in report.costs
    ]
    header = ["suite", "model", "protocol", "runs", "time", "tokens a second", "peak memory"]
    return Part(COST_TITLE, text, [Block(table=Table(header, rows, names=3))])


def _refuse_twice(keys: Sequence[tuple[str, ...]]) -> None:
    seen: set[tuple[str, ...]] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"there are two results of {', '.join(filter(None, key))}")
        seen.add(key)


def _ordered(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))


def _label(entry: Score | Average | Failure | Cost) -> str:
    return f"{entry.model} ({entry.method})" if entry.method else entry.model


def _key(entry: Score | Average) -> tuple[str, ...]:
    return entry.suite, entry.model, entry.method, entry.protocol, entry.metric


def _trivial(entry: Score | Average) -> bool:
    return entry.model in BASELINES


def _point(entry: Score | Average) -> Point:
    published = math.nan if entry.published is None else entry.published
    return Point(entry.value, entry.low, entry.high, published)


def _leaders(entries: Sequence[_Result]) -> list[_Result]:
    """Give those that are best as printed; none where there is nothing to be better than."""
    finite = [entry for entry in entries if math.isfinite(entry.value)]
    if len(finite) < 2:
        return []
    best = max(float(_number(entry.value)) for entry in finite)
    return [entry for entry in finite if float(_number(entry.value)) == best]


def _best(entries: Iterable[_Result]) -> tuple[list[str], _Result | None]:
    """Give the names of those that are best as printed, and one of them."""
    finite = [entry for entry in entries if math.isfinite(entry.value)]
    best = _leaders(finite) or finite
    return [_label(entry) for entry in best], max(best, key=lambda entry: entry.value, default=None)


def _details(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _interval(entry: Score | Average | Comparison) -> str:
    if math.isnan(entry.low) or math.isnan(entry.high):
        return ""
    return f"[{_number(entry.low)}, {_number(entry.high)}]"


def _number(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return f"{value:z.3f}" if math.isfinite(value) else "infinite"


def _signed(value: float) -> str:
    return f"{value:+z.3f}" if math.isfinite(value) else _number(value)


def _probability(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "–"


def _metric(name: str) -> str:
    return _METRICS.get(name, name)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _number(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
