"""From a results folder to what a report says: values with intervals, averages, paired differences, cost."""

from __future__ import annotations

import dataclasses
import statistics
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mutbert.errors import InputError
from mutbert.evaluation.results import DONE, FAILED, Predictions, read_predictions, read_results
from mutbert.evaluation.run import SUITES
from mutbert.evaluation.sequence_grid import BASELINES
from mutbert.evaluation.suites import Suite, load_suite
from mutbert.progress import progress_bar
from mutbert.reports.benchmark import write_benchmark_report
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
from mutbert.scoring.metrics import evaluate
from mutbert.scoring.resampling import (
    INTERVAL_METHOD,
    average_interval,
    bootstrap_interval,
    compare,
    compare_average,
    holm,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.evaluation.results import Cell, CellResult
    from mutbert.progress import Advance

RESAMPLES: Final = 2000
# Of more models than these, a task's are compared with the best one and with the baselines alone.
_MOST_PAIRS: Final = 15


class _Contestant(NamedTuple):
    """A model, how it was trained, and by which protocol: what is compared within a suite."""

    protocol: str
    model: str
    method: str

    @property
    def label(self) -> str:
        return f"{self.model} ({self.method})" if self.method else self.model


class _Group(NamedTuple):
    """A contestant's seeds on a task."""

    results: list[CellResult]
    predictions: list[Predictions]

    @property
    def problem(self) -> str:
        return str(self.results[0].values["problem"])

    @property
    def metric(self) -> str:
        return str(self.results[0].values["metric"])

    @property
    def part(self) -> tuple[str, str, Any, list[Any]]:
        """What intervals are computed of."""
        return self.problem, self.metric, self.predictions[0].labels, [entry.scores for entry in self.predictions]


def report_benchmark(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    resamples: int = RESAMPLES,
    force: bool = False,
    progress: bool = False,
) -> tuple[BenchmarkReport, tuple[Path, ...]]:
    """Write the report of a results folder, as far as the grid has come.

    Parameters
    ----------
    folder : str or Path
        The results folder.
    output : str or Path, optional
        Where to write; the results folder itself where left out, whose report is then replaced.
    resamples : int
        Of intervals and p-values.
    force : bool
        Replace a report that is there.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    tuple of (BenchmarkReport, tuple of Path)
        What it says, and the files: the page first.

    Raises
    ------
    InputError
        When there are no results, or they cannot be read.
    """
    folder = Path(folder)
    report = summarise(folder, resamples=resamples, progress=progress)
    target = folder if output is None else Path(output)
    if target != folder:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{target}: cannot be made ({error.strerror}); choose another output") from None
    return report, write_benchmark_report(target, report, force=force or output is None)


def summarise(folder: Path, *, resamples: int = RESAMPLES, progress: bool = False) -> BenchmarkReport:
    """Compute what a report says; parameters as for `report_benchmark`."""
    results = read_results(folder)
    if not results:
        raise InputError(f"{folder}: holds no results; run 'mutbert bench run ... -o {folder}' first")
    # What a killed process left half-written begins with a dot.
    suites = {path.stem: load_suite(path) for path in sorted((folder / SUITES).glob("[!.]*.yaml"))}
    for cell in results:
        if cell.suite not in suites:
            raise InputError(f"{folder / SUITES / cell.suite}.yaml: is missing, though there are results of it")
    done = [result for result in results.values() if result.status == DONE]
    parts: dict[str, list[Any]] = {name: [] for name in ("scores", "averages", "paper", "comparisons")}
    groups = {name: _groups(folder, [entry for entry in done if entry.cell.suite == name]) for name in suites}
    work = sum(len(tasks) + 1 for of_suite in groups.values() for tasks in of_suite.values())
    with progress_bar("resampling", work, unit="tasks", show=progress) as advance:
        for name, suite in suites.items():
            found = _suite_parts(suite, groups[name], resamples, advance)
            for key, rows in found.items():
                parts[key] += rows
    return BenchmarkReport(
        name=folder.resolve().name,
        scores=tuple(parts["scores"]),
        averages=tuple(parts["averages"]),
        paper=tuple(parts["paper"]),
        comparisons=tuple(parts["comparisons"]),
        failures=tuple(
            Failure(*result.cell, reason=result.values["reason"])
            for result in sorted(results.values(), key=lambda entry: entry.cell)
            if result.status == FAILED
        ),
        costs=tuple(_costs(done)),
        splits=tuple(_splits(done)),
        facts=_facts(done),
        notes=tuple(_notes(done, suites)),
        interval_method=INTERVAL_METHOD,
    )


def _groups(folder: Path, done: Iterable[CellResult]) -> dict[_Contestant, dict[str, _Group]]:
    """Bring the seeds of each contestant on each task together, in the order of the seeds."""
    groups: dict[_Contestant, dict[str, _Group]] = {}
    for result in sorted(done, key=lambda entry: entry.cell.seed):
        cell = result.cell
        contestant = _Contestant(cell.protocol, cell.model, cell.method)
        group = groups.setdefault(contestant, {}).setdefault(cell.task, _Group([], []))
        group.results.append(result)
        group.predictions.append(read_predictions(folder, cell))
        # All seeds are held against the labels of the first.
        _refuse_other_rows(group, group, -1)
    return groups


def _suite_parts(
    suite: Suite, groups: Mapping[_Contestant, Mapping[str, _Group]], resamples: int, advance: Advance
) -> dict[str, list[Any]]:
    tasks: Sequence[Any] = (suite.eqtl or suite).tasks
    order = [task.name for task in tasks]
    in_paper = {row.name: row for row in suite.paper}
    scores: list[Score] = []
    averages: list[Average] = []
    for contestant, by_task in sorted(groups.items(), key=lambda entry: _rank(entry[0])):
        protocol, model, method = contestant
        present = [name for name in order if name in by_task]
        for name in present:
            group = by_task[name]
            interval = bootstrap_interval(*group.part, resamples=resamples)
            per_seed = tuple(_values(group))
            scores.append(Score(suite.name, name, model, method, protocol, group.metric, *interval, per_seed))
            advance(1)
        if len({by_task[name].metric for name in present}) > 1:
            # A mean of different metrics is a mean of nothing.
            continue
        interval = average_interval([by_task[name].part for name in present], resamples=resamples)
        paper = in_paper.get(model)
        averages.append(
            Average(
                suite.name,
                model,
                method,
                protocol,
                by_task[present[0]].metric,
                *interval,
                tasks=len(present),
                of_tasks=len(order),
                parameters=by_task[present[0]].results[0].values.get("parameters"),
                published=None if paper is None else paper.value,
            )
        )
        advance(1)
    paper_rows = [PaperRow(suite.name, row.model, suite.metric, row.value, row.parameters) for row in suite.paper]
    comparisons = _comparisons(suite.name, order, groups, averages, resamples)
    return {"scores": scores, "averages": averages, "paper": paper_rows, "comparisons": comparisons}


def _rank(contestant: _Contestant) -> tuple[Any, ...]:
    """Put the baselines first, as all others are to be held against them."""
    protocol, model, method = contestant
    return protocol, BASELINES.index(model) if model in BASELINES else len(BASELINES), model, method


def _values(group: _Group) -> list[float]:
    problem, metric, labels, scores = group.part
    return [evaluate(problem, labels, score, [metric])[metric] for score in scores]


def _comparisons(
    suite: str,
    order: Sequence[str],
    groups: Mapping[_Contestant, Mapping[str, _Group]],
    averages: Sequence[Average],
    resamples: int,
) -> list[Comparison]:
    """Compare contestants of a protocol pair by pair: over all tasks that both have, and on each task."""
    found: list[Comparison] = []
    for protocol in sorted({contestant.protocol for contestant in groups}):
        own = sorted((entry for entry in groups if entry.protocol == protocol), key=_rank)
        pairs = list(combinations(own, 2))
        if len(pairs) > _MOST_PAIRS:
            best = _best(own, averages)
            pairs = [(a, b) for a, b in pairs if best in {a, b} or a.model in BASELINES]
        # The baseline comes second, so that a difference above 0 speaks for the model.
        pairs = [(b, a) for a, b in pairs]
        whole: list[Comparison] = []
        single: list[Comparison] = []
        for first, second in pairs:
            shared = [name for name in order if name in groups[first] and name in groups[second]]
            both = [_both(groups[first][name], groups[second][name]) for name in shared]
            if not both:
                continue
            metric = both[0][1]
            labels = first.label, second.label
            if len(both) > 1 and len({entry[1] for entry in both}) == 1:
                result = compare_average(both, resamples=resamples, permutations=resamples)
                name = "" if len(shared) == len(order) else f"{len(shared)} of {len(order)} tasks"
                whole.append(_row(suite, name, protocol, labels, metric, result))
            for name, entry in zip(shared, both, strict=True):
                result = compare(*entry, resamples=resamples, permutations=resamples)
                single.append(_row(suite, name, protocol, labels, entry[1], result))
        found += _adjusted(whole) + _adjusted(single)
    return found


def _best(contestants: Sequence[_Contestant], averages: Sequence[Average]) -> _Contestant:
    value = {_Contestant(entry.protocol, entry.model, entry.method): (entry.tasks, entry.value) for entry in averages}
    return max(contestants, key=lambda entry: value.get(entry, (0, 0.0)))


def _both(first: _Group, second: _Group) -> tuple[str, str, Any, list[Any], list[Any]]:
    _refuse_other_rows(first, second)
    problem, metric, labels, scores = first.part
    return problem, metric, labels, scores, second.part[3]


def _refuse_other_rows(first: _Group, second: _Group, number: int = 0) -> None:
    """Refuse results that are of other test rows than the first of a group."""
    results = first.results[0], second.results[number]
    labels, others = first.predictions[0].labels, second.predictions[number].labels
    files = [
        [split["sha256"] for split in result.values.get("splits", ()) if split["split"] == "test"] for result in results
    ]
    if labels.shape != others.shape or (labels != others).any() or files[0] != files[1]:
        raise InputError(
            f"{results[0].cell} and {results[1].cell} were tested on different rows, so that they cannot be compared; "
            "run one of them again on the same data, in another folder of results"
        )


def _row(suite: str, task: str, protocol: str, labels: tuple[str, str], metric: str, result: Any) -> Comparison:
    difference, low, high, p_value, method = result
    return Comparison(suite, task, protocol, *labels, metric, difference, low, high, p_value, p_value, method)


def _adjusted(rows: list[Comparison]) -> list[Comparison]:
    adjusted = holm([row.p_value for row in rows])
    return [dataclasses.replace(row, adjusted_p=value) for row, value in zip(rows, adjusted, strict=True)]


def _costs(done: Iterable[CellResult]) -> list[Cost]:
    groups: dict[tuple[str, _Contestant], list[Mapping[str, Any]]] = {}
    for result in done:
        cell = result.cell
        key = cell.suite, _Contestant(cell.protocol, cell.model, cell.method)
        groups.setdefault(key, []).append(result.values["cost"])
    found = []
    for (suite, contestant), costs in sorted(groups.items(), key=lambda entry: (entry[0][0], _rank(entry[0][1]))):
        speeds = [cost["tokens_per_second"] for cost in costs if cost["tokens_per_second"]]
        found.append(
            Cost(
                suite,
                contestant.model,
                contestant.method,
                contestant.protocol,
                len(costs),
                sum(cost["seconds"] for cost in costs),
                statistics.median(speeds) if speeds else None,
                max(cost["peak_memory"] for cost in costs),
            )
        )
    return found


def _splits(done: Iterable[CellResult]) -> list[SplitFact]:
    """List what each task's parts hold, once; of parts that differ by seed or protocol all of them."""
    found: dict[SplitFact, None] = {}
    for result in sorted(done, key=lambda entry: entry.cell):
        for split in result.values.get("splits", ()):
            found[SplitFact(result.cell.suite, result.cell.task, **split)] = None
    return list(found)


def _facts(done: Sequence[CellResult]) -> dict[str, str]:
    versions: dict[str, set[str]] = {}
    commits: set[str] = set()
    for result in done:
        made = result.values["versions"]
        commits.add(made["commit"] or "not from a checkout")
        for name, number in made["versions"].items():
            versions.setdefault(name, set()).add(str(number))
    return {
        "cells": f"{len(done):,} done",
        "versions": ", ".join(f"{name} {' and '.join(sorted(numbers))}" for name, numbers in versions.items()),
        "commit": ", ".join(sorted(commits)),
    }


def _notes(done: Sequence[CellResult], suites: Mapping[str, Suite]) -> list[str]:
    notes = sorted({str(result.values["smoke"]) for result in done if result.values.get("smoke")})
    notes += sorted(
        {
            f"{result.cell.suite}/{result.cell.task}: {count:,} sequences read without frequencies: {reason}"
            for result in done
            for reason, count in result.values.get("unplaced", {}).items()
        }
    )
    for name, suite in suites.items():
        cells = {result.cell for result in done if result.cell.suite == name}
        for model in BASELINES:
            if suite.eqtl is None and not any(cell.model == model for cell in cells):
                notes.append(f"{name}: {model} was not run, so nothing says what a trivial model reaches; run it too")
    return notes


def progress_table(results: Mapping[Cell, CellResult]) -> tuple[list[str], list[list[str]]]:
    """Give, as header and rows, how far each contestant has come on each suite.

    Returns
    -------
    tuple of (list of str, list of list of str)
        Cells that are done and that failed, the metric's mean over those done, seconds, tokens a second and memory.
    """
    groups: dict[tuple[str, _Contestant], list[CellResult]] = {}
    for result in results.values():
        cell = result.cell
        groups.setdefault((cell.suite, _Contestant(cell.protocol, cell.model, cell.method)), []).append(result)
    rows = []
    for (suite, contestant), entries in sorted(groups.items(), key=lambda entry: (entry[0][0], _rank(entry[0][1]))):
        done = [entry for entry in entries if entry.status == DONE]
        values = [entry.values["metrics"][entry.values["metric"]] for entry in done]
        known = [value for value in values if value is not None]
        costs = [entry.values["cost"] for entry in done]
        speeds = [cost["tokens_per_second"] for cost in costs if cost["tokens_per_second"]]
        rows.append(
            [
                f"{suite}: {contestant.label}",
                contestant.protocol,
                str(len(done)),
                str(len(entries) - len(done)),
                f"{done[0].values['metric']} {statistics.fmean(known):.3f}" if known else "",
                f"{sum(cost['seconds'] for cost in costs):,.0f}",
                f"{statistics.median(speeds):,.0f}" if speeds else "",
                f"{max(cost['peak_memory'] for cost in costs) / 1e9:.1f} GB" if costs else "",
            ]
        )
    header = ["suite: model", "protocol", "done", "failed", "mean", "seconds", "tokens/s", "memory"]
    return header, rows
