"""The page of a fine-tuning run: what the model reaches on data that it did not see, and where it errs.

Shape suffixes: N labels, K classes or columns.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mutbert.errors import InputError
from mutbert.reports.page import Section, Table, counted, write_page
from mutbert.reports.plots import COLOURS, INK, WIDTH, binary_curves, legend_above, new_figure, shortened, style, svg
from mutbert.reports.run_parts import Panel, calibration_section, closing_sections, curves_section, known, read_run
from mutbert.run_folder import PREDICTIONS, REPORT
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate, metric_names, predicted, read_predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NAMES: Final = {
    "mcc": "MCC", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC", "pearson": "Pearson correlation",
    "spearman": "Spearman correlation", "mse": "mean squared error",
}  # fmt: skip
_MATRIX: Final = 24  # classes of a confusion matrix
_ROWS: Final = 200  # classes of a table
_PANELS: Final = 6  # columns of numbers that are drawn
_POINTS: Final = 2000  # labels that are drawn one by one
_FINITE: Final = 1e300  # so that the difference of two logits that overflowed is a number


class _Run(NamedTuple):
    metrics: dict[str, Any]
    problem: str  # of `mutbert.scoring.metrics.PROBLEMS`: labels of bases are binary or multiclass
    labels: Any
    scores: Any
    names: list[str]  # of classes or columns
    constant: dict[str, float]


def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Return the page of a fine-tuning run, written from its folder alone and small for any number of labels."""
    metrics, history, recipe = read_run(folder)
    labels, scores = read_predictions(folder / PREDICTIONS)
    problem = metrics["problem"]
    if problem == "token":
        problem = "binary" if scores.ndim == 1 else "multiclass"
    if problem != "regression":
        scores = np.clip(scores.astype(np.float64), -_FINITE, _FINITE)
    count = 2 if problem == "binary" else scores[:1].size
    names = metrics["classes"] if len(metrics["classes"]) == count else [f"LABEL_{k}" for k in range(count)]
    try:
        evaluate(problem, labels, scores, [metrics["metric"]])
        run = _Run(metrics, problem, labels, scores, names, constant_guess(problem, labels, scores))
    except ValueError as error:
        raise InputError(f"{folder / PREDICTIONS}: {error}; repeat the run that wrote it") from None
    metric = _name(metrics["metric"])
    panels = [
        Panel("loss", {"training loss": "loss", "validation loss": "eval_loss"}),
        Panel(metric, {f"validation {metric}": f"eval_{metrics['metric']}"}),
    ]
    text = f"The loss on training and validation data, and the {metric} on the validation data."
    training = curves_section("Training curve", history, panels, text, best_step=metrics["best_step"])
    if not metrics["steps"]:
        training = Section("Training curve", "A probe is fitted at once, so that there are no steps to show.")
    closing = closing_sections(history, metrics["facts"], recipe)
    sections = [_metrics(run), training, *_errors(run), _data(metrics["splits"]), *closing]
    notes = [*metrics["notes"], *_warnings(run)]
    write_page(folder / REPORT, f"Fine-tuning: {metrics['name']}", _headline(run), sections, notes=notes, force=force)
    return folder / REPORT


def constant_guess(problem: str, labels: Any, scores: Any) -> dict[str, float]:
    """Return what the best constant guess reaches, by metric; of scores, only the shape counts.

    Each metric has its own best guess, chosen on these labels: the mean for regression, the most frequent class, and
    for two classes and in each column of several labels the better of 0 and 1.
    """
    if problem == "regression":
        return evaluate(problem, labels, np.broadcast_to(labels.mean(axis=0, dtype=np.float64), scores.shape))
    if problem == "multiclass":
        # Precision, recall and F1 of a class grow with its share, so that no other class is a better guess.
        chosen_K = np.eye(scores.shape[1])[np.bincount(labels).argmax()]
        return evaluate(problem, labels, np.broadcast_to(chosen_K, scores.shape))
    columns = [
        [evaluate("binary", label_N, np.full(len(label_N), score)) for score in (1.0, -1.0)]
        for label_N in labels.reshape(len(labels), -1).T
    ]
    # A metric is not a number for both or for neither.
    best = {name: [max(found[name] for found in either) for either in columns] for name in metric_names(problem)}
    best = {name: [value for value in values if not math.isnan(value)] for name, values in best.items()}
    return {name: fmean(values) if values else math.nan for name, values in best.items()}


def _headline(run: _Run) -> str:
    metrics, metric = run.metrics, run.metrics["metric"]
    shown, constant = metrics["shown"], run.constant[metric]
    value, interval = known(metrics["metrics"][shown])[metric], known(metrics["interval"] or {})
    text = f"On the {shown} data, the {_name(metric)} is {_number(value, metric)}"
    if interval and math.isfinite(sum(interval.values())):
        text += f" (95% interval {_number(interval['low'], metric)} to {_number(interval['high'], metric)})"
    if metric in {"pearson", "spearman"}:
        text += "; a constant guess has no correlation."
    elif math.isfinite(value + constant):
        better = "better" if (value < constant) == (metric in LOWER_IS_BETTER) else "worse"
        # As printed: of two numbers that read the same, neither is better.
        how = "no better" if _number(value, metric) == _number(constant, metric) else better
        text += f", {how} than the best constant guess, which reaches {_number(constant, metric)}."
    else:
        text += "."
    if interval and interval["low"] <= constant <= interval["high"]:
        text += " The interval contains that too: the difference is not significant."
    if run.problem in {"binary", "multiclass"}:
        count_K = np.bincount(run.labels)
        accuracy = f"Accuracy is {_number(known(metrics['metrics'][shown]).get('accuracy', math.nan))}; the"
        text += (
            f" {'The' if metric == 'accuracy' else accuracy} most frequent class, {run.names[count_K.argmax()]}, is "
            f"{count_K.max() / len(run.labels):.1%} of {counted(len(run.labels), 'label')}."
        )
    if shown != "test":
        text += (
            f" There are no test data: the validation data also chose the {_chosen(metrics)}, so that these numbers "
        )
        text += "are optimistic."
    if not metrics["steps"]:
        return f"{text} This is a probe: a linear classifier on the frozen model."
    return f"{text} The best step is {metrics['best_step']:,} of {metrics['steps']:,}."


def _warnings(run: _Run) -> Iterator[str]:
    """Yield what makes the metrics doubtful."""
    splits, shown = run.metrics["splits"], run.metrics["shown"]
    for split in splits:
        if split["in_train"] and not any(one["dropped"] for one in splits):
            yield (
                f"{split['in_train']:,} of {split['examples']:,} {split['split']} sequences "
                f"({100 * split['in_train'] / split['examples']:.3g}%) are in the training data too, so that metrics "
                "on them may be optimistic; drop_leaks: true drops them from the training data."
            )
    if run.problem in {"binary", "multiclass"} and len(np.unique(run.labels)) == 1:
        yield f"All {shown} labels are of one class, {run.names[run.labels[0]]}: most metrics are not meaningful."


def _metrics(run: _Run) -> Section:
    metrics, shown = run.metrics, run.metrics["shown"]
    text = f"The validation data also chose the {_chosen(metrics)}, so that numbers on these data are optimistic. The "
    text += f"constant guess is the best one for each metric on the {shown} data. – marks a metric that is not defined."
    if run.problem == "multiclass":
        text += " Precision, recall, F1, AUROC and AUPRC are means over the classes."
    elif run.labels.ndim == 2:
        text += " All are means over the columns."
    sequences = next((one["examples"] for one in metrics["splits"] if one["split"] == shown), len(run.labels))
    if len(run.labels) > sequences:
        text += f" Labels are of bases: {len(run.labels):,} in {counted(sequences, 'sequence')}. Bases of one sequence "
        text += "are not independent, so that the interval is too narrow."
    parts = {part: known(metrics["metrics"][part]) for part in ("validation", "test") if part in metrics["metrics"]}
    columns = [*(found.get for found in parts.values()), run.constant.get]
    names = metric_names(run.problem)
    rows = [[_name(name), *(_number(column(name, math.nan), name) for column in columns)] for name in names]
    table = Table(["metric", *parts, "constant\nguess"], rows, marked=_name(metrics["metric"]))
    return Section("Metrics", text, tables=[table])


def _errors(run: _Run) -> Iterator[Section]:
    """Yield the sections that depend on the problem."""
    if run.problem == "regression":
        yield from _agreement(run)
        return
    if run.problem != "multilabel":
        yield _confusion(run)
    yield _curves(run) if run.problem == "binary" else _by_class(run)
    yield _calibration(run)


def _confusion(run: _Run) -> Section:
    from sklearn.metrics import confusion_matrix

    label_N, guess_N, names = run.labels, predicted(run.problem, run.scores), run.names
    text = f"The {run.metrics['shown']} data by true class (row) and predicted class (column). "
    if len(names) > _MATRIX:
        frequent = np.sort(np.argsort(-np.bincount(label_N, minlength=len(names)), kind="stable")[:_MATRIX])
        shown_K = np.full(len(names), _MATRIX)
        shown_K[frequent] = np.arange(_MATRIX)
        label_N, guess_N = shown_K[label_N], shown_K[guess_N]
        text += f"All but the {_MATRIX} most frequent classes are merged. "
        names = [*(names[k] for k in frequent), f"{len(names) - _MATRIX:,} others"]
    count_KK = confusion_matrix(label_N, guess_N, labels=range(len(names)))
    drawing = _confusion_figure(names, count_KK)
    if len(names) <= 6:
        return Section("Confusion matrix", text + "Percentages are of the row.", drawing)
    text += "Numbers are percentages of the row." if len(names) <= 16 else "Darker is a greater share of the row."
    lines = [["", *names], *([name, *row] for name, row in zip(names, count_KK, strict=True))]
    counts = "\n".join("\t".join(map(str, line)) for line in lines)
    return Section("Confusion matrix", text, drawing, details={"counts, separated by tabs": counts})


def _confusion_figure(names: Sequence[str], count_KK: Any) -> str:
    """Return a confusion matrix as SVG, coloured by the share of a row, with numbers for up to 16 classes."""
    size, short = len(names), [shortened(" ".join(name.split()), 20) for name in names]
    share_KK = count_KK / np.maximum(count_KK.sum(axis=1, keepdims=True), 1)
    longest = max(map(len, short))
    upright = size > 3 or longest > 12
    font = 9.0 if size <= 6 else 7.5 if size <= 16 else 6.5
    height = 0.45 + (0.085 * longest if upright else 0.25) + max(0.62 * size if size <= 6 else 0.2 * size, 1.2)
    with style():
        figure, axes = new_figure(WIDTH, height)
        axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
        for (row, column), share in np.ndenumerate(share_KK):
            text = f"{count_KK[row, column]:,}\n{share:.1%}" if size <= 6 else f"{100 * share:.0f}" if share else ""
            if size <= 16:
                colour = "white" if share > 0.55 else INK
                axes.text(column, row, text, ha="center", va="center", fontsize=font, color=colour)
        axes.set_xticks(range(size), short, rotation=90 if upright else 0, fontsize=font)
        axes.set_yticks(range(size), short, fontsize=font)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set(xlabel="predicted class", ylabel="true class")
        return svg(figure, "Confusion matrix")


def _curves(run: _Run) -> Section:
    title, shown, positive = "ROC and precision-recall", run.metrics["shown"], run.names[1]
    if len(np.unique(run.labels)) == 1:
        return Section(title, f"Not defined: the {shown} labels are of one class alone.")
    found = evaluate("binary", run.labels, run.scores)
    wrong = float(np.mean(run.scores[run.labels == 0] > 0))
    text = (
        f"All thresholds on the score of {positive}, {shown} data; AUROC is {found['auroc']:.4f}, AUPRC "
        f"{found['auprc']:.4f}. Dashed: chance. Predictions are made at a score of 0 (even odds): true positive rate "
        f"(recall) {found['recall']:.4f}, false positive rate {wrong:.4f}, precision {found['precision']:.4f}."
    )
    kinds: Any = {"ROC curve": "roc", "Precision-recall curve": "precision_recall"}
    drawings = [binary_curves(name, kind, run.labels, {positive: run.scores}) for name, kind in kinds.items()]
    return Section(title, text, drawings)


def _by_class(run: _Run) -> Section:
    several, names = run.problem == "multiclass", run.names
    kind, guess = "class" if several else "column", predicted(run.problem, run.scores)
    every_K = np.arange(len(names))
    label_NK, guess_NK = ((values[:, None] == every_K) if several else values == 1 for values in (run.labels, guess))
    label_K, guess_K, hit_K = label_NK.sum(axis=0), guess_NK.sum(axis=0), (label_NK & guess_NK).sum(axis=0)
    with np.errstate(invalid="ignore"):
        share_K3 = np.stack([hit_K / guess_K, hit_K / label_K, 2 * hit_K / (label_K + guess_K)], axis=1)
    text = f"Each {kind} against all else, {run.metrics['shown']} data. – marks a division by zero; such precision, "
    text += "recall and F1 count as 0 in the means above."
    if len(names) > _ROWS:
        every_K = np.sort(np.argsort(-label_K, kind="stable")[:_ROWS])
        text = f"The {_ROWS} most frequent of {len(names):,}. {text}"
    rows = []
    for k in every_K.tolist():
        areas = evaluate("binary", label_NK[:, k].astype(int), run.scores[:, k], ["auroc", "auprc"])
        numbers = map(_number, (*share_K3[k], *areas.values()))
        rows.append([names[k], f"{label_K[k]:,}", f"{guess_K[k]:,}", *numbers])
    header = [kind, "labels", "predicted", "precision", "recall", "F1", "AUROC", "AUPRC"]
    return Section(f"By {kind}", text, tables=[Table(header, rows)])


def _calibration(run: _Run) -> Section:
    from scipy.special import expit, softmax

    name = "all columns"
    if run.problem == "multiclass":
        name, what = "predicted class", "the probability of the predicted class, and whether it is right"
        probability_N, true_N = softmax(run.scores, axis=1).max(axis=1), run.scores.argmax(axis=1) == run.labels
    else:
        probability_N, true_N = expit(run.scores).ravel(), run.labels.ravel()
        if run.problem == "binary":
            name = run.names[1]
        what = f"the predicted probability of {'a column' if run.labels.ndim == 2 else name}, and whether it is so"
    pairs = pl.DataFrame({"predicted": probability_N, "true": true_N.astype(np.float64)})
    tenth = (pl.col("predicted") * 10).floor().clip(0, 9)
    bins = pairs.group_by(tenth.alias("tenth")).agg(pl.col("predicted", "true").mean(), pl.len().alias("pairs"))
    rows = bins.sort("tenth").select("predicted", "true", "pairs").rows()
    text = f"Each of {counted(len(pairs), 'label')} of the {run.metrics['shown']} data is a pair: {what}."
    return calibration_section({name: rows}, text)


def _agreement(run: _Run) -> Iterator[Section]:
    label_KN, score_KN = (values.reshape(len(values), -1).T for values in (run.labels, run.scores))
    names, shown = run.names, run.metrics["shown"]
    drawn = min(len(names), _PANELS)
    points = label_KN[:drawn].size <= _POINTS
    text = f"The {shown} data; " + ("a point is a label." if points else "colour is the number of labels.")
    if drawn < len(names):
        text += f" The first {drawn} of {len(names):,} columns; the table has all."
    drawings = [_agreement_figure(names[k], label_KN[k], score_KN[k], points=points) for k in range(drawn)]
    yield Section("Predicted against observed", text, drawings)
    if run.labels.ndim == 1:
        return
    rows = []
    for name, label_N, score_N in zip(names, label_KN, score_KN, strict=True):
        found = evaluate("regression", label_N, score_N) | {"": constant_guess("regression", label_N, score_N)["mse"]}
        rows.append([name, *(_number(value, metric or "mse") for metric, value in found.items())])
    metrics = [_name(name).replace(" ", "\n") for name in metric_names("regression")]
    text = f"The {shown} data; the last column is the mean squared error of always guessing the column's mean."
    yield Section("By column", text, tables=[Table(["column", *metrics, "of a\nconstant guess"], rows)])


def _agreement_figure(name: str, observed_N: Any, predicted_N: Any, *, points: bool) -> str:
    """Return predicted against observed numbers as SVG: points, or squares coloured by their number of labels."""
    low, high = (float(end([end(observed_N), end(predicted_N)])) for end in (np.min, np.max))
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    ends = low - margin, high + margin
    with style():
        figure, axes = new_figure(WIDTH, 4.4)
        if points:
            axes.plot(observed_N, predicted_N, "o", markersize=3, markeredgewidth=0, alpha=0.5, color=COLOURS[0])
        else:
            *_, squares = axes.hist2d(
                observed_N, predicted_N, bins=48, range=(ends, ends), cmin=1, norm="log", rasterized=True
            )
            figure.colorbar(squares, ax=axes, label="labels per square", format="{x:,.0f}").outline.set_visible(False)
        axes.plot(ends, ends, color=INK, linestyle="--", linewidth=1, label="predicted = observed")
        short = shortened(" ".join(name.split()), 20)
        axes.set(xlim=ends, ylim=ends, xlabel=f"{short}, observed", ylabel=f"{short}, predicted")
        legend_above(figure, axes.get_legend_handles_labels()[0])
        return svg(figure, f"Predicted against observed: {name}")


def _data(splits: Sequence[dict[str, Any]]) -> Section:
    if not splits:
        return Section("Data", "Not known.")
    text = "Duplicates repeat a sequence of the same part. In training: sequences that the training data contain too, "
    text += "on either strand, before any were dropped from these. SHA-256: the first 12 digits of the file's."
    names = "examples", "duplicates", "in_train", "dropped"
    rows = [[one["split"], *(f"{one[name]:,}" for name in names), one["sha256"][:12]] for one in splits]
    header = ["part", "sequences", "duplicates", "in\ntraining", "dropped", "SHA-256"]
    return Section("Data", text, tables=[Table(header, rows)])


def _chosen(metrics: dict[str, Any]) -> str:
    return "step" if metrics["steps"] else "probe"


def _name(metric: str) -> str:
    return _NAMES.get(metric, metric)


def _number(value: float, metric: str = "") -> str:
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "infinite"
    # A squared error may be of any size; all else is at most 1.
    return f"{value:.4g}" if metric == "mse" and value and not 1e-3 <= value < 1e3 else f"{value:z.4f}"
