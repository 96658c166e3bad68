"""Readers of each kind of result: they follow a folder's layout, while cases and stored answers stay."""

import json
import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

import mutbert.scoring.metrics as stored

Answer = dict[str, Any]
_COUNTS = ("examples", "duplicates", "in_train", "dropped")
_INTERVAL = ("value", "low", "high")


Cell = namedtuple("Cell", "suite task model method protocol seed")  # The method of k-mers is empty.


def read_cells(folder: Path) -> dict[Cell, Answer]:
    """Every finished cell: its metrics, what was chosen, counts of its data, labels and scores of the test."""
    found = {}
    for path in folder.glob("*/*/*/[!.]*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        cell = Cell(*(values[name] for name in Cell._fields))
        assert "reason" not in values, (cell, values["reason"])
        labels, scores = stored.read_predictions(path.with_suffix(".parquet"))
        splits = {one["split"]: [one[name] for name in _COUNTS] for one in values["splits"]}
        kept = {name: values[name] for name in ("problem", "metric", "metrics", "validation", "chosen")}
        found[cell] = {**kept, "splits": splits, "labels": labels, "scores": scores}
    return dict(sorted(found.items()))


def write_cells(folder: Path, suites: Mapping[str, str], cells: Mapping[Cell, Answer]) -> None:
    """Write suites as YAML and cells of which ``problem``, ``metric``, ``labels`` and ``scores`` are known."""
    cost = {"seconds": 1.0, "peak_memory": 1, "tokens_per_second": None}
    rest = {"kind": "cell", "version": 2, "identity": {}, "note": "", "splits": [], "parameters": None, "cost": cost}
    (folder / "suites").mkdir(parents=True)
    for name, text in suites.items():
        (folder / "suites" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for cell, values in cells.items():
        model = f"{cell.model}-{cell.method}" if cell.method else cell.model
        path = folder / cell.suite / cell.task / model / f"{cell.protocol}-{cell.seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored.write_predictions(path.with_suffix(".parquet"), values["labels"], values["scores"])
        metrics = metrics_of(values["problem"], values["labels"], values["scores"])
        known = {"problem": values["problem"], "metric": values["metric"], "metrics": metrics}
        path.write_text(json.dumps({**rest, **cell._asdict(), **known, "versions": {}, "commit": ""}))


def read_report(folder: Path) -> Answer:
    """A report's tables: value and interval of each task, with its seeds' values; averages; comparisons."""
    contestant = ("suite", "protocol", "model", "method", "metric")
    pair = ("suite", "protocol", "first", "second", "metric", "task")
    found: Answer = {}
    for name, key, numbers in (
        ("scores", (*contestant, "task"), _INTERVAL),
        ("averages", contestant, (*_INTERVAL, "tasks", "of_tasks", "published")),
        ("comparisons", pair, ("difference", "low", "high", "p_value", "adjusted_p")),
    ):
        rows = pl.read_csv(folder / f"{name}.csv", infer_schema=False).fill_null("").to_dicts()
        for row in rows:
            # Of an average, it says how many of the suite's tasks both have.
            if name == "comparisons" and (not row["task"] or row["task"].endswith(" tasks")):
                row["task"] = "all"
        rows.sort(key=lambda row: [row[column] for column in key])
        values = np.array([[float(row[column] or "nan") for column in numbers] for row in rows])
        found[name] = {"rows": ["/".join(row[column] for column in key) for row in rows], "numbers": values}
        if name == "scores":
            found[name]["seeds"] = [[float(word) for word in row["per_seed"].split()] for row in rows]
    return found


def read_suite(results: Path, name: str) -> Answer:
    """The suite that a grid was run with, the user's settings applied."""
    found = yaml.safe_load((results / "suites" / f"{name}.yaml").read_text(encoding="utf-8"))
    for protocol in ((found["eqtl"] or {}).get("protocols") or {}).values():
        # They were kept as words.
        protocol["c"] = [f"{c:g}" for c in protocol["c"]]
    # All tasks in one file, told apart by a column, is no more.
    return {"task_column": None, **found}


def read_history(run: Path) -> list[dict[str, float]]:
    """What was logged, a dict with ``step`` each, of a pre-training or a fine-tuning run; a probe has none."""
    if not (run / "history.json").exists():
        return []
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    if json.loads((run / "metrics.json").read_text(encoding="utf-8"))["kind"] == "finetune":
        return history
    return [{name.replace("eval_loss", "eval_cross_entropy"): one[name] for name in one} for one in history]


def read_finetuned(run: Path) -> Answer:
    """What a fine-tuning run reached, and how: metrics, best step, interval, counts of its data, recipe."""
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    found["splits"] = {one["split"]: [one[name] for name in _COUNTS] for one in found["splits"]}
    found["unplaced"] = dict(note.split(": ") for note in found["notes"] if re.search(r": [0-9,]+ sequences$", note))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    paths = ("model", "train", "validation", "test", "output", "genome")
    kept = ("problem", "metric", "best_step", "steps", "metrics", "interval", "splits", "unplaced")
    settings = {name: value for name, value in recipe.items() if name not in paths}
    return {**{name: found[name] for name in kept}, "recipe": settings}


def read_predictions(run: Path) -> dict[str, list[str]]:
    """What a fine-tuned model predicts of its test data, as text: names, labels, predictions, probabilities."""
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    problem, classes = found["problem"], found["classes"]
    labels, scores = stored.read_predictions(run / "predictions.parquet")
    names = pl.read_parquet(run / "predictions.parquet")["name"].to_list()
    columns: dict[str, list[Any]] = {"name": list(dict.fromkeys(names))}
    if problem == "regression":
        columns |= {"observed_label": labels, "predicted_label": scores}
    elif problem == "multilabel":
        for column, values in (("observed", labels > 0), ("predicted", scores > 0)):
            columns[column] = [" ".join(np.array(classes)[row]) for row in values]
        columns |= {f"p_{name}": list(1 / (1 + np.exp(-score))) for name, score in zip(classes, scores.T, strict=True)}
    else:
        scores = np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores
        for column, values in (("observed", labels), ("predicted", scores.argmax(axis=1))):
            by_name: dict[str, list[str]] = {}
            for name, value in zip(names, values, strict=True):
                by_name.setdefault(name, []).append(classes[value])
            columns[column] = [" ".join(words) for words in by_name.values()]
        if problem != "token":
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            columns |= {f"p_{name}": list(share) for name, share in zip(classes, shares.T, strict=True)}
    return {name: [str(value) for value in column] for name, column in columns.items()}


def checkpoint_of(run: Path, step: int) -> Path:
    """Where a run's checkpoint of a step is once it is complete."""
    return run / "checkpoints" / f"checkpoint-{step}"


def read_vep(folder: Path) -> Answer:
    """What a comparison of scores with labels found, by part: counts, each predictor's metrics, differences."""
    found = json.loads((folder / "vep.json").read_text(encoding="utf-8"))
    parts: Answer = {}
    for part in found["parts"]:
        rows = sorted(part["rows"], key=lambda row: row["predictor"])
        metrics = found["metrics"] if rows else []
        compared = {row["predictor"]: row for row in rows if row["baseline"]}
        measures = [[[row[f"{name}{end}"] for end in ("", "_low", "_high")] for name in metrics] for row in rows]
        numbers = ("difference", "difference_low", "difference_high", "p", "p_holm")
        parts[f"{part['name']}: {part['target']}"] = {
            **{name: part[name] for name in ("variants", "compared", "positives", "compared_positives", "empty")},
            "predictors": [[row["predictor"], row["end"], row["missing"]] for row in rows],
            "metrics": metrics,
            "measures": np.array(measures, dtype=np.float64),
            "alone": np.array([row["alone"] for row in rows], dtype=np.float64),
            "baselines": {name: one["baseline"] for name, one in compared.items()},
            "differences": np.array([[one[name] for name in numbers] for one in compared.values()], dtype=np.float64),
        }
    kept = ("problem", "classes", "rows", "used", "not_used", "left_out", "direction")
    return {**{name: found[name] for name in kept}, "notes": len(found["notes"]), "parts": parts}


# What the command line does not say: settings of shipped recipes, draws by seed, metrics


def resolved_recipes(settings: Sequence[str] = ()) -> Answer:
    """Every setting of each shipped pre-training recipe, the defaults included."""
    from mutbert.settings import read_settings
    from mutbert.training.recipe import PretrainRecipe

    names = sorted(Path(entry.name).stem for entry in files("mutbert").joinpath("recipes").iterdir())
    return {name: read_settings(PretrainRecipe, name, settings, shipped="recipes").model_dump() for name in names}


def task_parts(train: Path, validation: Path | None, test: Path, **settings: Any) -> Answer:
    """Names of the sequences of each part of a task, and the counts."""
    from mutbert.examples.splits import part_task
    from mutbert.examples.table import Columns, read_examples

    places = {"train": train, "validation": validation, "test": test}
    read = {name: read_examples(str(path), Columns(name="name")) for name, path in places.items() if path}
    given, sources = ({name: found[which] for name, found in read.items()} for which in (0, 1))
    parts, counts = part_task(given, sources, **{"drop_leaks": False, **settings})
    names = {name: " ".join(part.names) for name, part in parts.items()}
    return {"names": names, "counts": {one["split"]: [one[name] for name in _COUNTS] for one in counts}}


def contig_split(contigs: Sequence[str], share: float, seed: int) -> list[str]:
    """The contigs that are held out of rows, one a row."""
    from mutbert.examples.splits import region_split
    from mutbert.regions import Region

    found = region_split([Region(name, 0, 1) for name in contigs], share, seed)
    return sorted({contigs[row] for row in np.flatnonzero(found)})


def sample_order(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> np.ndarray:
    """The sequence that each sample of a fine-tuning run is."""
    from mutbert.training import classifier

    return classifier.sample_order(np.array(lengths, dtype=np.int64), steps, batch_size, seed)


def metrics_of(problem: str, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    from mutbert.scoring.metrics import evaluate

    return evaluate(problem, labels, scores)
