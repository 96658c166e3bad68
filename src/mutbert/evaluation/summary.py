"""From a results folder to the frames of its report: values with intervals, averages, paired differences, cost."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any, Final

import polars as pl

from mutbert.errors import InputError, reading
from mutbert.evaluation.cells import BASELINES, Cell, cell_of, label_of
from mutbert.evaluation.run import REASON, SUITES, read_predictions, read_records
from mutbert.evaluation.suites import Suite, load_suite
from mutbert.progress import progress_bar
from mutbert.reports.benchmark import BenchmarkReport, write_benchmark_report
from mutbert.scoring.resampling import INTERVAL_METHOD, TaskScores, difference, holm, interval

Record = dict[str, Any]
Contestant = tuple[str, str]  # model and method
Grid = dict[Contestant, dict[str, tuple[TaskScores, list[Record]]]]  # by task: scores and records of its seeds


_COSTS: Final = ("seconds", "tokens_per_second", "peak_memory")


def report_benchmark(
    folder: str | Path, output: str | Path | None = None, *, resamples: int = 2000, force: bool = False,
    progress: bool = False,
) -> tuple[BenchmarkReport, tuple[Path, ...]]:  # fmt: skip
    """Write the report of a results folder, as far as the grid has come: a page and CSV tables.

    Parameters
    ----------
    folder, output
        The results; where to write, by default there, in place of an earlier report.
    resamples, force, progress
        Resamples of intervals and p-values; replace a report; show progress on standard error.

    Returns
    -------
    tuple of (BenchmarkReport, tuple of Path)
        Its frames, and the files, the page first.

    Raises
    ------
    InputError
        When there are no results, they cannot be read, or cells were made with different data, models or settings.

    Examples
    --------
    >>> counts = mutbert.run_benchmark("baselines", mutbert.GridRequest("mine.yaml", "mine=.", seeds=1))
    >>> found, files = mutbert.report_benchmark("baselines", resamples=20)
    >>> found.averages["model"].to_list(), files[0].name
    (['kmer', 'cnn'], 'report.html')
    """
    folder = Path(folder)
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: has no results; run 'mutbert bench run ... -o {folder}' first")
    with reading(folder, "remove what was not written by mutbert, and run the grid again"):
        report = _report_of(folder, records, resamples, progress)
    target = folder if output is None else Path(output)
    target.mkdir(parents=True, exist_ok=True)
    return report, write_benchmark_report(target, report, force=force or output is None)


def _report_of(folder: Path, records: Sequence[Record], resamples: int, progress: bool) -> BenchmarkReport:
    """Return the report of the records of a results folder."""
    suites = {path.stem: load_suite(path) for path in sorted((folder / SUITES).glob("[!.]*.yaml"))}
    for record in records:
        if record["suite"] not in suites:
            raise InputError(f"{folder / SUITES / record['suite']}.yaml: is missing, though there are results of it")
    done = [record for record in records if REASON not in record]
    rows: tuple[list[Record], ...] = ([], [], [])
    with progress_bar("resampling", len(done), unit="cells", show=progress) as advance:
        for (name, protocol), grid in sorted(_grids(folder, done).items()):
            values = _values(suites[name], grid, resamples)
            found = *values, _comparisons(suites[name], grid, values[1], resamples)
            for kind, own in zip(rows, found, strict=True):
                kind += [{"suite": name, "protocol": protocol, **row} for row in own]
            advance(sum(len(seeds) for tasks in grid.values() for _, seeds in tasks.values()))
    paper = [{"suite": one.name, "metric": one.metric, **row} for one in suites.values() for row in one.paper]
    splits = [{"suite": one["suite"], "task": one["task"], **split} for one in done for split in one["splits"]]
    scores, averages, comparisons = (pl.DataFrame(kind, infer_schema_length=None) for kind in rows)
    failures = pl.DataFrame([record for record in records if REASON in record])
    versions = dict.fromkeys(f"{name} {number}" for record in done for name, number in record["versions"].items())
    facts = {
        "cells": f"{len(done):,} done", "versions": ", ".join(versions), "intervals": INTERVAL_METHOD,
        "commit": ", ".join(sorted({record["commit"] or "not from a checkout" for record in done})),
    }  # fmt: skip
    return BenchmarkReport(
        folder.resolve().name, scores, averages, comparisons, pl.DataFrame(paper), failures, costs_of(records),
        pl.DataFrame(splits).unique(maintain_order=True), facts, _notes(done, suites),
    )  # fmt: skip


def _rank(contestant: Contestant) -> tuple[Any, ...]:
    """Return a place in the order in which the baselines come first, as all others are compared with them."""
    return BASELINES.index(contestant[0]) if contestant[0] in BASELINES else len(BASELINES), *contestant


def _grids(folder: Path, done: Sequence[Record]) -> dict[tuple[str, str], Grid]:
    """Return by suite and protocol, contestant and task the scores and records of all seeds.

    Raise InputError where cells that belong together were made, or tested, with different things.
    """
    grids: dict[tuple[str, str], Grid] = {}
    seen: dict[Any, tuple[Any, Cell]] = {}
    for (suite, task, model, method, protocol), seeds in groupby(done, lambda record: cell_of(record)[:-1]):
        records, by_seed = list(seeds), []
        for record in records:
            cell = cell_of(record)
            labels, scores = read_predictions(folder, cell)
            by_seed.append(scores)
            test = [split["sha256"] for split in record["splits"] if split["split"] == "test"]
            # Data and settings may differ by task, a model may not; all that are tested on a task have the same rows.
            facts: dict[Any, Any] = {
                (*cell._replace(seed=0, task="" if name == "model" else task), name): word
                for name, word in record["identity"].items()
            }
            facts[suite, task, protocol, "test rows"] = labels.shape, hash(labels.tobytes()), test
            for key, word in facts.items():
                before, other = seen.setdefault(key, (word, cell))
                if before != word:
                    remedy = "remove the files of one and run it again, or use another folder of results"
                    raise InputError(f"{folder}: {other} and {cell} were made with different {key[-1]}; {remedy}")
        tasks = grids.setdefault((suite, protocol), {}).setdefault((model, method), {})
        tasks[task] = TaskScores(records[0]["problem"], records[0]["metric"], labels, by_seed), records
    return grids


def _values(suite: Suite, grid: Grid, resamples: int) -> tuple[list[Record], list[Record]]:
    """Return the score of each contestant and task, and the average of each contestant."""
    scores, averages = [], []
    published = {row["name"]: row["value"] for row in suite.paper}
    for model, method in sorted(grid, key=_rank):
        own = grid[model, method]
        key, tasks = {"model": model, "method": method}, {task: own[task] for task in suite.by_name if task in own}
        for task, (one, records) in tasks.items():
            values = [math.nan if (value := record["metrics"][one.metric]) is None else value for record in records]
            row = {"task": task, **key, "metric": one.metric, **interval([one], resamples=resamples)}
            scores.append(row | {"per_seed": values})
        every = [one for one, _ in tasks.values()]
        # A mean of different metrics is a mean of nothing.
        if len({one.metric for one in every}) == 1:
            row = {**key, "metric": every[0].metric, **interval(every, resamples=resamples)}
            row |= {"tasks": len(tasks), "of_tasks": len(suite.by_name)}
            parameters = next(iter(tasks.values()))[1][0]["parameters"]
            averages.append(row | {"parameters": parameters, "published": published.get(model)})
    return scores, averages


def _comparisons(suite: Suite, grid: Grid, averages: Sequence[Record], resamples: int) -> list[Record]:
    """Return paired differences, over all tasks that two contestants have, and on each task."""
    own = sorted(grid, key=_rank)
    # The baseline comes second, so that a difference above 0 speaks for the model.
    pairs = [(second, first) for first, second in combinations(own, 2)]
    if len(pairs) > 15:
        # Too many to look at: with the best one and with the baselines alone.
        value = {(row["model"], row["method"]): (row["tasks"], row["value"]) for row in averages}
        best = max(own, key=lambda entry: value.get(entry, (0, 0.0)))
        pairs = [pair for pair in pairs if best in pair or pair[1][0] in BASELINES]
    whole, single = list[Any](), list[Any]()
    for first, second in pairs:
        shared = [task for task in suite.by_name if task in grid[first] and task in grid[second]]
        a, b = ([grid[one][task][0] for task in shared] for one in (first, second))
        of = "" if len(shared) == len(suite.by_name) else f"{len(shared)} of {len(suite.by_name)} tasks"
        families = [(single, task, [one], [other]) for task, one, other in zip(shared, a, b, strict=True)]
        if len(shared) > 1 and len({one.metric for one in a}) == 1:
            families.append((whole, of, a, b))
        for family, task, ones, others in families:
            key = {"task": task, "first": label_of(*first), "second": label_of(*second), "metric": ones[0].metric}
            family.append(key | difference(ones, others, resamples=resamples, permutations=resamples))
    for family in (whole, single):
        for row, adjusted in zip(family, holm([row["p_value"] for row in family]), strict=True):
            row["adjusted_p"] = adjusted
    return whole + single


def costs_of(records: Sequence[Record]) -> pl.DataFrame:
    """Return how far each contestant has come on each suite, its mean, and what that took."""
    rows = []
    for record in records:
        metric, cost = record.get("metric"), record.get("cost", {})
        rows.append([*cell_of(record), metric, record.get("metrics", {}).get(metric), *map(cost.get, _COSTS)])
    rows.sort(key=lambda row: (row[0], row[4], _rank((row[2], row[3]))))
    schema = dict.fromkeys(("value", *_COSTS), pl.Float64)
    frame = pl.DataFrame(rows, [*Cell._fields, "metric", *schema], orient="row", schema_overrides=schema)
    made = pl.col("seconds").is_not_null()
    groups = frame.group_by("suite", "protocol", "model", "method", maintain_order=True)
    counts = made.sum().alias("cells"), (~made).sum().alias("failed"), pl.col("metric").drop_nulls().first()
    costs = pl.sum("seconds"), pl.median("tokens_per_second"), pl.max("peak_memory")
    return groups.agg(*counts, pl.mean("value"), *costs)


def _notes(done: Sequence[Record], suites: Mapping[str, Suite]) -> list[str]:
    notes = {record["note"] for record in done} - {""} | {
        f"{record['suite']}/{record['task']}: {count:,} sequences read without frequencies: {reason}"
        for record in done for reason, count in record.get("unplaced", {}).items()
    }  # fmt: skip
    run = {(record["suite"], record["model"]) for record in done}
    return sorted(notes) + [
        f"{name}: {model} was not run, so nothing shows what a trivial model reaches; run it too"
        for name, suite in suites.items()
        for model in BASELINES
        if suite.eqtl is None and (name, model) not in run
    ]
