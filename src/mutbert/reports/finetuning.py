"""The page of a fine-tuning run: what the model reaches on data that it did not see, and where it errs.

Shape suffixes: N labels, K classes or columns.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from mutbert.errors import InputError
from mutbert.reports import plots
from mutbert.reports.folder import known, read_run
from mutbert.reports.page import METRIC_NAMES, Section, counted, write_page
from mutbert.run_folder import PREDICTIONS, REPORT
from mutbert.scoring import metrics

Values = dict[str, Any]


_MATRIX: Final = 24  # classes of a confusion matrix
_PANELS: Final = 6  # columns of numbers that are drawn
_FINITE: Final = 1e300  # so that the difference of two logits that overflowed is a number


@plots.style()
def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Return the page of a fine-tuning run, written from its folder alone and small for any number of labels."""
    run, history, recipe = read_run(folder)
    labels, scores = metrics.read_predictions(folder / PREDICTIONS)
    # One of `mutbert.scoring.metrics.PROBLEMS`: labels of bases are binary or multiclass.
    problem = ("binary" if scores.ndim == 1 else "multiclass") if run["problem"] == "token" else run["problem"]
    if problem != "regression":
        scores = np.clip(scores.astype(np.float64), -_FINITE, _FINITE)
    count = 2 if problem == "binary" else scores[:1].size
    names = run["classes"] if len(run["classes"]) == count else [f"LABEL_{k}" for k in range(count)]
    try:
        metrics.evaluate(problem, labels, scores, [run["metric"]])
        constant = metrics.constant_guess(problem, labels, scores)
    except ValueError as error:
        raise InputError(f"{folder / PREDICTIONS}: {error}; repeat the run that wrote it") from None
    metric, interval = METRIC_NAMES[run["metric"]], known(run["interval"] or {})
    panels = {
        "loss": {"training loss": "loss", "validation loss": "eval_loss"},
        metric: {f"validation {metric}": f"eval_{run['metric']}"},
    }
    text = f"The loss on training and validation data, and the {metric} on the validation data."
    parts: Values = {
        "training": plots.curves_section("Training curve", history, panels, text, best_step=run["best_step"]),
        "verdict": _verdict(run["metric"], known(run["metrics"][run["shown"]]), constant),
        "interval": interval if math.isfinite(sum(interval.values())) else {},
        "columns": {part: run["metrics"][part] for part in ("validation", "test") if part in run["metrics"]},
        "metric_names": metrics.metric_names(problem), "metric_name": METRIC_NAMES.get, "number": _number,
    }  # fmt: skip
    if problem in {"binary", "multiclass"}:
        parts["count_K"] = np.bincount(labels)
        parts["confusion"] = _confusion(labels, metrics.predicted(problem, scores), names)
    if problem == "regression":
        parts |= _agreement(labels, scores, names)
    else:
        parts |= _curves(labels, scores, names) if problem == "binary" else _by_class(problem, labels, scores, names)
        parts["calibration"] = _calibration(problem, labels, scores, names, run["shown"])
    write_page(
        folder / REPORT, f"Fine-tuning: {run['name']}", "", plots.closing_sections(history, run["facts"], recipe),
        notes=run["notes"], force=force, template="finetuning.html.j2", run=run, problem=problem, labels=labels,
        names=names, constant=constant, **parts,
    )  # fmt: skip
    return folder / REPORT


def _verdict(metric: str, found: Values, guess: Values) -> str:
    """Return how a metric compares with a constant guess; empty where that is not known."""
    value, constant = found[metric], guess[metric]
    if not math.isfinite(value + constant):
        return ""
    # As printed: of two numbers that read the same, neither is better.
    if _number(value, metric) == _number(constant, metric):
        return "no better"
    return "better" if (value < constant) == (metric in metrics.LOWER_IS_BETTER) else "worse"


def _confusion(label_N: Any, guess_N: Any, names: Sequence[str]) -> Values:
    """Return a confusion matrix as text and SVG, coloured by the share of a row, with numbers for up to 16 classes.

    Classes but the most frequent are merged.
    """
    from sklearn.metrics import confusion_matrix

    if len(names) > _MATRIX:
        frequent = np.sort(np.argsort(-np.bincount(label_N, minlength=len(names)), kind="stable")[:_MATRIX])
        shown_K = np.full(len(names), _MATRIX)
        shown_K[frequent] = np.arange(_MATRIX)
        label_N, guess_N = shown_K[label_N], shown_K[guess_N]
        names = [*(names[k] for k in frequent), f"{len(names) - _MATRIX:,} others"]
    count_KK = confusion_matrix(label_N, guess_N, labels=range(len(names)))
    size, short = len(names), [plots.shortened(" ".join(name.split()), 20) for name in names]
    share_KK = count_KK / np.maximum(count_KK.sum(axis=1, keepdims=True), 1)
    longest = max(map(len, short))
    upright = size > 3 or longest > 12
    font = 9.0 if size <= 6 else 7.5 if size <= 16 else 6.5
    height = 0.45 + (0.085 * longest if upright else 0.25) + max(0.62 * size if size <= 6 else 0.2 * size, 1.2)
    figure, axes = plots.new_figure(height)
    axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
    for (row, column), share in np.ndenumerate(share_KK):
        text = f"{count_KK[row, column]:,}\n{share:.1%}" if size <= 6 else f"{100 * share:.0f}" if share else ""
        if size <= 16:
            colour = "white" if share > 0.55 else plots.INK
            axes.text(column, row, text, ha="center", va="center", fontsize=font, color=colour)
    axes.set_xticks(range(size), short, rotation=90 if upright else 0, fontsize=font)
    axes.set_yticks(range(size), short, fontsize=font)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    lines = [["", *names], *([name, *row] for name, row in zip(names, count_KK, strict=True))]
    counts = "\n".join("\t".join(map(str, line)) for line in lines)
    return {"size": size, "most": _MATRIX, "figure": plots.svg(figure, "Confusion matrix"), "counts": counts}


def _curves(label_N: Any, score_N: Any, names: Sequence[str]) -> Values:
    """Return the curves of two classes, where there are both, and what predictions at a score of 0 reach."""
    if len(np.unique(label_N)) == 1:
        return {"curves": []}
    at_0 = metrics.evaluate("binary", label_N, score_N) | {"false": float(np.mean(score_N[label_N == 0] > 0))}
    return {"curves": plots.binary_curves(label_N, [score_N], names[1:], names[1:]), "at_0": at_0}


def _by_class(problem: str, labels: Any, scores: Any, names: Sequence[str]) -> Values:
    """Return the table of each class, or column, against all else."""
    several, guess = problem == "multiclass", metrics.predicted(problem, scores)
    every_K = np.arange(len(names))
    label_NK, guess_NK = ((values[:, None] == every_K) if several else values == 1 for values in (labels, guess))
    known_NK = ~np.isnan(labels.reshape(len(labels), -1)) | np.zeros_like(label_NK)
    guess_NK &= known_NK
    label_K, guess_K, hit_K = label_NK.sum(axis=0), guess_NK.sum(axis=0), (label_NK & guess_NK).sum(axis=0)
    with np.errstate(invalid="ignore"):
        share_K3 = np.stack([hit_K / guess_K, hit_K / label_K, 2 * hit_K / (label_K + guess_K)], axis=1)
    header = ["class" if several else "column", "labels", "predicted", "precision", "recall", "F1", "AUROC", "AUPRC"]
    rows = []
    for k in np.sort(np.argsort(-label_K, kind="stable")[:200]).tolist():
        rows_N = known_NK[:, k]
        areas = metrics.evaluate("binary", label_NK[rows_N, k].astype(int), scores[rows_N, k], ["auroc", "auprc"])
        numbers = map(_number, (*share_K3[k], *areas.values()))
        rows.append([names[k], f"{label_K[k]:,}", f"{guess_K[k]:,}", *numbers])
    return {"by_class": pl.DataFrame(rows, header, orient="row")}


def _calibration(problem: str, labels: Any, scores: Any, names: Sequence[str], shown: str) -> Section:
    from scipy.special import expit, softmax

    name = "all columns"
    if problem == "multiclass":
        name, what = "predicted class", "the probability of the predicted class, and whether it is right"
        probability_N, true_N = softmax(scores, axis=1).max(axis=1), scores.argmax(axis=1) == labels
    else:
        known_N = ~np.isnan(labels.ravel())
        probability_N, true_N = expit(scores).ravel()[known_N], labels.ravel()[known_N]
        if problem == "binary":
            name = names[1]
        what = f"the predicted probability of {'a column' if labels.ndim == 2 else name}, and whether it is so"
    pairs = pl.DataFrame({"predicted": probability_N, "true": true_N.astype(np.float64)})
    tenth = (pl.col("predicted") * 10).floor().clip(0, 9).alias("tenth")
    bins = pairs.group_by(tenth).agg(pl.col("predicted", "true").mean(), pl.len()).sort("tenth").drop("tenth").rows()
    text = f"Each of {counted(len(pairs), 'label')} of the {shown} data is a pair: {what}."
    return plots.calibration_section({name: bins}, text)


def _agreement(labels: Any, scores: Any, names: Sequence[str]) -> Values:
    """Return the figures of the first columns of numbers, and the table of all where there are several."""
    label_KN, score_KN = (values.reshape(len(values), -1).T for values in (labels, scores))
    points = label_KN[:_PANELS].size <= 2000
    known_KN = ~np.isnan(label_KN)
    columns = zip(names, label_KN, score_KN, known_KN, strict=True)
    every, rows = [(name, label_N[own], score_N[own]) for name, label_N, score_N, own in columns], []
    figures = [_agreement_figure(*one, points=points) for one in every[:_PANELS]]
    for name, label_N, score_N in every if labels.ndim == 2 else ():
        found = metrics.evaluate("regression", label_N, score_N)
        numbers = {METRIC_NAMES[metric].replace(" ", "\n"): _number(value, metric) for metric, value in found.items()}
        guess = metrics.constant_guess("regression", label_N, score_N)["mse"]
        rows.append({"column": name, **numbers, "of a\nconstant guess": _number(guess, "mse")})
    return {"agreement": figures, "points": points, "by_column": pl.DataFrame(rows)}


def _agreement_figure(name: str, observed_N: Any, predicted_N: Any, *, points: bool) -> str:
    """Return predicted against observed numbers as SVG: points, or squares coloured by their number of labels."""
    low, high = (float(end([end(observed_N), end(predicted_N)])) for end in (np.min, np.max))
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    ends = low - margin, high + margin
    figure, axes = plots.new_figure(4.4)
    if points:
        axes.plot(observed_N, predicted_N, "o", markersize=3, markeredgewidth=0, alpha=0.5, color=plots.COLOURS[0])
    else:
        *_, squares = axes.hist2d(
            observed_N, predicted_N, bins=48, range=(ends, ends), cmin=1, norm="log", rasterized=True
        )
        figure.colorbar(squares, ax=axes, label="labels per square", format="{x:,.0f}").outline.set_visible(False)
    axes.plot(ends, ends, color=plots.INK, linestyle="--", linewidth=1, label="predicted = observed")
    short = plots.shortened(" ".join(name.split()), 20)
    axes.set(xlim=ends, ylim=ends, xlabel=f"{short}, observed", ylabel=f"{short}, predicted")
    return plots.svg(figure, f"Predicted against observed: {name}", axes.get_legend_handles_labels()[0])


def _number(value: float | None, metric: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else "infinite"
    # A squared error may be of any size; all else is at most 1.
    return f"{value:.4g}" if metric == "mse" and value and not 1e-3 <= value < 1e3 else f"{value:z.4f}"
