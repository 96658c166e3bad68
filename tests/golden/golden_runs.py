"""Readers of run folders: pre-training, fine-tuning, benchmarks, comparisons of scores with labels."""

import json
import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from golden_answers import Answer
from golden_readers import cli, columns_of, digest, part_of, rows_by_value
from scipy.special import expit, softmax

from mutbert.scoring.metrics import evaluate, read_predictions, write_predictions

Cell = namedtuple("Cell", "suite task model method protocol seed")  # The method of k-mers is empty.


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def numbers_by_step(history: Sequence[Mapping[str, float]]) -> Answer:
    """Return what was logged as an array for each name, with the steps in front."""
    names = sorted({name for entry in history for name in entry} - {"step"})
    return {name: np.array([[one["step"], one[name]] for one in history if name in one], np.float64) for name in names}


def counts_by_split(splits: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    return {one["split"]: [one[name] for name in ("examples", "duplicates", "in_train", "dropped")] for one in splits}


def pretrained(path: Path, _: Mapping[str, Any]) -> Answer:
    """Read losses, gradients' norms, held-out evaluations and the held-out table."""
    history = numbers_by_step(json_of(path / "history.json"))
    return {
        "history": {name.replace("eval_loss", "eval_cross_entropy"): column for name, column in history.items()},
        "windows": digest((path / "held_out_windows.tsv").read_bytes().replace(b"\tchrom\t", b"\tcontig\t", 1)),
        **part_of(json_of(path / "metrics.json"), "targets cross_entropy calibration"),
    }


def finetuned(path: Path, _: Mapping[str, Any]) -> Answer:
    """Read what a run reached, and how: metrics, best step, counts of its data, recipe, history, predictions."""
    found = json_of(path / "metrics.json")
    recipe = yaml.safe_load((path / "recipe.yaml").read_text(encoding="utf-8"))
    predictions: Answer = {}
    for name, column in predictions_in(path).items():
        if name.startswith(("p_", "predicted_", "observed_")):
            predictions[name] = np.array(column, dtype=np.float32)
        else:
            predictions[name] = digest(" ".join(column).encode()) if len({*column}) > 8 else rows_by_value(column)
    paths = ("model", "train", "validation", "test", "output", "genome")
    return {
        **part_of(found, "problem metric best_step steps metrics interval"),
        "splits": counts_by_split(found["splits"]),
        "unplaced": dict(note.split(": ") for note in found["notes"] if re.search(r": [0-9,]+ sequences$", note)),
        "recipe": {name: value for name, value in recipe.items() if name not in paths},
        # A probe has none.
        "history": numbers_by_step(json_of(path / "history.json")) if (path / "history.json").exists() else {},
        "predictions": predictions,
    }


def predictions_in(run: Path) -> dict[str, list[str]]:
    """Return what a fine-tuned model predicts of its test data, as text: names, labels, predictions, probabilities."""
    problem, classes = (json_of(run / "metrics.json")[name] for name in ("problem", "classes"))
    labels, scores = read_predictions(run / "predictions.parquet")
    names = pl.read_parquet(run / "predictions.parquet")["name"]
    columns: dict[str, Any] = {"name": names.unique(maintain_order=True)}
    if problem == "regression":
        columns |= {"observed_label": labels, "predicted_label": scores}
    elif problem == "multilabel":
        for column, values in (("observed", labels > 0), ("predicted", scores > 0)):
            columns[column] = [" ".join(np.array(classes)[row]) for row in values]
        columns |= {f"p_{name}": share for name, share in zip(classes, expit(scores).T, strict=True)}
    else:
        scores = np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores
        for column, values in (("observed", labels), ("predicted", scores.argmax(axis=1))):
            words = pl.DataFrame({"name": names, "word": np.array(classes)[values]})
            columns[column] = words.group_by("name", maintain_order=True).agg(pl.col("word").str.join(" "))["word"]
        if problem != "token":
            columns |= {f"p_{name}": share for name, share in zip(classes, softmax(scores, axis=1).T, strict=True)}
    return {name: [str(value) for value in column] for name, column in columns.items()}


def benchmarked(path: Path, said: Mapping[str, Any]) -> Answer:
    """Read the cells of a grid, the suite that it was run with, and its report."""
    assert not said["failed"], said
    (suite,) = (yaml.safe_load(one.read_text(encoding="utf-8")) for one in (path / "suites").iterdir())
    for protocol in ((suite["eqtl"] or {}).get("protocols") or {}).values():
        # They were kept as words.
        protocol["c"] = [f"{c:g}" for c in protocol["c"]]
    cells = {
        name: {**cell, "labels": digest(cell["labels"].astype("<i8").tobytes()), "scores": np.float32(cell["scores"])}
        for name, cell in read_cells(path).items()
    }
    # All tasks in one file, told apart by a column, is no more.
    found = {"suite": {"task_column": None, **suite}, "cells": cells, "report": reported(path)}
    return {**part_of(said, "done done_again"), **found}


def read_cells(folder: Path) -> dict[str, Answer]:
    """Every finished cell: its metrics, what was chosen, counts of its data, labels and scores of the test."""
    found = {}
    for path in folder.glob("*/*/*/[!.]*.json"):
        values = json_of(path)
        assert "reason" not in values, (path, values["reason"])
        labels, scores = read_predictions(path.with_suffix(".parquet"))
        kept = {"splits": counts_by_split(values["splits"]), "labels": labels, "scores": scores}
        cell = "/".join(str(values[name]) for name in Cell._fields)
        found[cell] = {**part_of(values, "problem metric metrics validation chosen"), **kept}
    return dict(sorted(found.items()))


def write_cell(folder: Path, cell: Cell, problem: str, metric: str, labels: Any, scores: Any) -> dict[str, float]:
    """Write a cell of which nothing else is known; return its metrics."""
    model = f"{cell.model}-{cell.method}" if cell.method else cell.model
    path = folder / cell.suite / cell.task / model / f"{cell.protocol}-{cell.seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(path.with_suffix(".parquet"), labels, scores)
    metrics = evaluate(problem, labels, scores)
    known = {**cell._asdict(), "problem": problem, "metric": metric, "metrics": metrics}
    rest = {"kind": "cell", "version": 2, "identity": {}, "note": "", "splits": [], "parameters": None, "versions": {}}
    cost = {"seconds": 1.0, "peak_memory": 1, "tokens_per_second": None}
    path.write_text(json.dumps({**rest, **known, "cost": cost, "commit": ""}))
    return metrics


def reported(results: Path) -> Answer:
    """Report of a grid; read its tables: value and interval of each task, with its seeds'; averages; comparisons."""
    report = Path(f"{results.name}_report")
    cli("bench", "report", results, "-o", report, "--resamples", 200)
    found: Answer = {}
    for name, key, numbers in (
        ("scores", "suite protocol model method metric task", "value low high"),
        ("averages", "suite protocol model method metric", "value low high tasks of_tasks published"),
        ("comparisons", "suite protocol first second metric task", "difference low high p_value adjusted_p"),
    ):
        rows = pl.read_csv(report / f"{name}.csv", infer_schema=False).fill_null("").to_dicts()
        for row in rows:
            # Of an average, it says how many of the suite's tasks both have.
            if name == "comparisons" and (not row["task"] or row["task"].endswith(" tasks")):
                row["task"] = "all"
        rows.sort(key=lambda row: [row[column] for column in key.split()])
        values = np.array([[float(row[column] or "nan") for column in numbers.split()] for row in rows])
        found[name] = {"rows": ["/".join(row[column] for column in key.split()) for row in rows], "numbers": values}
        if name == "scores":
            found[name]["seeds"] = [[float(word) for word in row["per_seed"].split()] for row in rows]
    return found


def compared(folder: Path, _: Mapping[str, Any]) -> Answer:
    """Read what a comparison of scores with labels found, by part: counts, each predictor's metrics, differences."""
    found = json_of(folder / "vep.json")
    parts: Answer = {}
    for part in found["parts"]:
        rows = sorted(part["rows"], key=lambda row: row["predictor"])
        metrics = found["metrics"] if rows else []
        against = {row["predictor"]: row for row in rows if row["baseline"]}
        measures = [[[row[f"{name}{end}"] for end in ("", "_low", "_high")] for name in metrics] for row in rows]
        numbers = ("difference", "difference_low", "difference_high", "p", "p_holm")
        parts[f"{part['name']}: {part['target']}"] = {
            **part_of(part, "variants compared positives compared_positives empty"),
            "predictors": [[row["predictor"], row["end"], row["missing"]] for row in rows],
            "metrics": metrics,
            "measures": np.array(measures, dtype=np.float64),
            "alone": np.array([row["alone"] for row in rows], dtype=np.float64),
            "baselines": {name: one["baseline"] for name, one in against.items()},
            "differences": np.array([[one[name] for name in numbers] for one in against.values()], dtype=np.float64),
        }
    scores = columns_of(folder / "scores.parquet", chrom="chromosome", pos="position")
    kept = part_of(found, "problem classes rows used not_used left_out direction")
    return {**kept, "notes": len(found["notes"]), "parts": parts, "scores": scores}


def listed(_: Path, said: Mapping[str, Any]) -> Answer:
    for protocol in (one for suite in said["suites"] if suite["eqtl"] for one in suite["eqtl"]["protocols"].values()):
        protocol["c"] = [f"{float(c):g}" for c in protocol["c"]]
    return {suite.pop("name"): suite for suite in said["suites"]}
