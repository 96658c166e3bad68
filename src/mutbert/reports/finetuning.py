"""The page that fine-tuning leaves: what the model reaches on data that it did not see, and where it errs.

Shape suffixes: N labels, K classes or columns, B bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.reports.finetuning_figures import (
    agreement_figure,
    confusion_figure,
    finetuning_figure,
    precision_recall_figure,
    roc_figure,
    sweep,
)
from mutbert.reports.page import Section, counted, html_details, html_table, write_page
from mutbert.reports.run_parts import facts_section, left_out, optimiser_section, recipe_section
from mutbert.reports.training_figures import calibration_figure, curve
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate, metric_names, predicted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Labels = npt.NDArray[Any]
    Floats = npt.NDArray[np.float64]

_NAMES: Final = {
    "mcc": "MCC",
    "f1": "F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "mean squared error",
}
_BINS: Final = 10
_MATRIX: Final = 24
_ROWS: Final = 200
_PANELS: Final = 6
_POINTS: Final = 2000


@dataclass(frozen=True)
class FinetuningReport:
    """What the page of a fine-tuning run says.

    Parameters
    ----------
    name : str
        The run's name.
    problem : str
        One of `mutbert.scoring.metrics.PROBLEMS`; labels of bases are ``binary`` or ``multiclass``.
    metric : str
        What the best step was chosen by, one of the problem's.
    classes : sequence of str
        The names of the classes, or of the columns.
    metrics : mapping of str to mapping
        All metrics of the problem by part, ``validation`` and ``test``; not a number where a metric is not defined.
    interval : tuple of three floats, or None
        The metric on the test data, and the ends of its 95 % interval.
    shown : str
        The part that labels and scores are of: ``test`` or ``validation``.
    labels, scores : ndarray
        As `mutbert.scoring.metrics.evaluate` takes them: (N,) and (N,) for ``binary``, (N,) and (N, K) for
        ``multiclass``, (N, K) twice for ``multilabel``, (N,) or (N, K) twice for ``regression``.
    history : sequence of mapping
        What was logged, entries with ``step`` and ``loss``, ``grad_norm`` and ``learning_rate``, or ``eval_loss`` and
        ``eval_`` with a metric after it.
    best_step, steps : int
        The step that was kept, and steps taken; 0 for a probe.
    splits : sequence of mapping
        The parts of the data: ``split``, ``examples``, ``duplicates``, ``in_train``, ``dropped`` and ``sha256``, as in
        `mutbert.examples.task_data.SplitCount`.
    facts : mapping of str to str
        What the run was made of, by name.
    recipe : str
        Every setting of the run, as YAML.
    notes : sequence of str
        What the reader must know before all else.
    """

    name: str
    problem: str
    metric: str
    classes: Sequence[str]
    metrics: Mapping[str, Mapping[str, float]]
    interval: tuple[float, float, float] | None
    shown: str
    labels: Labels
    scores: Labels
    history: Sequence[Mapping[str, float]]
    best_step: int
    steps: int
    splits: Sequence[Mapping[str, object]]
    facts: Mapping[str, str]
    recipe: str
    notes: Sequence[str] = ()


def write_finetuning_page(path: Path, report: FinetuningReport, *, force: bool = False) -> None:
    """Write the page of a fine-tuning run: one HTML file that fetches nothing, and is small for any number of labels.

    Parameters
    ----------
    path : Path
        The HTML file.
    report : FinetuningReport
        What it says. What is missing or empty in it, the page says is.
    force : bool
        Replace `path` where it exists.

    Raises
    ------
    InputError
        When `path` exists and `force` is false.
    ValueError
        When labels and scores are not such as the problem's metrics take, or the metric is none of them.
    """
    # Before anything is drawn of them.
    evaluate(report.problem, report.labels, report.scores, [report.metric])
    constant = constant_guess(report.problem, report.labels, report.scores)
    sections = [
        _metrics(report, constant),
        _training(report),
        *_errors(report),
        _data(report),
        optimiser_section(report.history) if report.steps else Section("Optimiser", "A probe has none.", ""),
        facts_section(report.facts),
        recipe_section(report.recipe),
    ]
    notes = [*report.notes, *_warnings(report)]
    write_page(path, f"Fine-tuning: {report.name}", _headline(report, constant), sections, notes=notes, force=force)


def constant_guess(problem: str, labels: Labels, scores: Labels) -> dict[str, float]:
    """Say what the best constant guess would reach, the same for all labels, chosen on these labels themselves.

    Parameters
    ----------
    problem, labels, scores
        As for `mutbert.scoring.metrics.evaluate`; of the scores, their shape and type count alone.

    Returns
    -------
    dict of str to float
        By metric. Each metric has its own best guess: the mean label for regression, the most frequent class for
        several ones, and for two classes, and in each column of several labels, whichever of 0 and 1 is better.
        Not a number where a metric is not defined.
    """
    if problem == "regression":
        mean = labels.mean(axis=0, dtype=np.float64)
        return evaluate(problem, labels, np.broadcast_to(mean, scores.shape))
    if problem == "multiclass":
        # Precision, recall and F1 of a class grow with its share, so that no other class is a better guess.
        often = int(np.bincount(labels).argmax())
        chosen_K = (np.arange(scores.shape[1]) == often).astype(np.float64)
        return evaluate(problem, labels, np.broadcast_to(chosen_K, scores.shape))
    columns = [_best_of_two(label_N) for label_N in labels.reshape(len(labels), -1).T]
    return {name: _mean([column[name] for column in columns]) for name in metric_names(problem)}


class Confusion(NamedTuple):
    """How often labels of a class are said to be of another.

    Parameters
    ----------
    names : list of str
        The classes, and last, where there are too many, all others together.
    count_KK : ndarray of int64, shape (K, K)
        Labels by the class that they are (rows) and that they are said to be (columns).
    """

    names: list[str]
    count_KK: npt.NDArray[np.int64]


def confusion(label_N: Labels, said_N: Labels, names: Sequence[str], most: int = _MATRIX) -> Confusion:
    """Count labels by what they are and what they are said to be.

    Parameters
    ----------
    label_N, said_N : ndarray of int, shape (N,)
        The classes' numbers.
    names : sequence of str
        The classes' names.
    most : int
        Where there are more classes, all but the `most` most frequent ones are one.

    Returns
    -------
    Confusion
        The matrix, classes in their own order.
    """
    place_K = np.arange(len(names))
    shown = list(names)
    if len(names) > most:
        frequent = np.sort(np.argsort(-np.bincount(label_N, minlength=len(names)), kind="stable")[:most])
        place_K = np.full(len(names), most)
        place_K[frequent] = np.arange(most)
        shown = [names[number] for number in frequent] + [f"{len(names) - most:,} others"]
    size = len(shown)
    count_KK = np.bincount(place_K[label_N] * size + place_K[said_N], minlength=size * size).reshape(size, size)
    return Confusion(shown, count_KK)


def calibration_bins(probability_N: Floats, true_N: Labels) -> list[tuple[float, float, int]]:
    """Compare predicted probabilities with what came true, in ten bins of equal width.

    Parameters
    ----------
    probability_N : ndarray of float64, shape (N,)
        From 0 to 1.
    true_N : ndarray of bool or int, shape (N,)
        Whether it came true.

    Returns
    -------
    list of tuple
        Of each bin that is not empty: mean probability, share that came true, how many.
    """
    bin_N = np.minimum((probability_N * _BINS).astype(np.int64), _BINS - 1)
    count_B = np.bincount(bin_N, minlength=_BINS)
    probability_B = np.bincount(bin_N, weights=probability_N, minlength=_BINS)
    true_B = np.bincount(bin_N, weights=true_N, minlength=_BINS)
    return [
        (float(probability / count), float(true / count), int(count))
        for probability, true, count in zip(probability_B, true_B, count_B, strict=True)
        if count
    ]


def _headline(report: FinetuningReport, constant: Mapping[str, float]) -> str:
    value, interval = report.metrics.get(report.shown, {}).get(report.metric, math.nan), ""
    low = high = math.nan
    if report.shown == "test" and report.interval is not None:
        value, low, high = report.interval
        if math.isfinite(low + high):
            interval = f" (95 % interval {_number(low, report.metric)} to {_number(high, report.metric)})"
    text = f"On the {report.shown} data, the {_name(report.metric)} is {_number(value, report.metric)}{interval}"
    text += _against(report.metric, value, constant[report.metric])
    if low <= constant[report.metric] <= high:
        text += " The interval holds that too, so the two cannot be told apart."
    if report.problem in {"binary", "multiclass"}:
        text += _most_frequent(report)
    if report.shown != "test":
        text += (
            f" There are no test data: the validation data chose the {'step' if report.steps else 'probe'}, so that "
            "these numbers are too good."
        )
    if not report.steps:
        return f"{text} This is a probe: a linear classifier on the model, which itself was not trained."
    return f"{text} The best step is {report.best_step:,} of {report.steps:,}."


def _against(metric: str, value: float, constant: float) -> str:
    """Compare with the constant guess as both are printed: equal numbers are not told apart."""
    if metric in {"pearson", "spearman"}:
        return "; a constant guess has no correlation."
    if not (math.isfinite(value) and math.isfinite(constant)):
        return "."
    known = f"a constant guess, which reaches {_number(constant, metric)}."
    if _number(value, metric) == _number(constant, metric):
        return f", no better than {known}"
    return f", {'better' if (value < constant) == (metric in LOWER_IS_BETTER) else 'worse'} than {known}"


def _most_frequent(report: FinetuningReport) -> str:
    count_K = np.bincount(report.labels)
    often = int(count_K.argmax())
    accuracy = report.metrics.get(report.shown, {}).get("accuracy", math.nan)
    known = f" Accuracy is {_number(accuracy)}, and the" if report.metric != "accuracy" else " The"
    return (
        f"{known} most frequent class, {_classes(report)[often]}, has a share of "
        f"{count_K[often] / len(report.labels):.4f} of {counted(len(report.labels), 'label')}."
    )


def _warnings(report: FinetuningReport) -> Iterator[str]:
    """Say what makes the metrics doubtful."""
    # What training and other data share was either dropped from the training data altogether, or not at all.
    if not any(int(str(split["dropped"])) for split in report.splits):
        for split in report.splits:
            shared, examples = int(str(split["in_train"])), int(str(split["examples"]))
            if shared:
                yield (
                    f"{shared:,} of {examples:,} {split['split']} sequences ({100 * shared / examples:.3g} %) are in "
                    f"the training data too, so that the metrics on the {split['split']} data may be too good. "
                    "drop_leaks: true drops them from the training data."
                )
    if report.problem in {"binary", "multiclass"} and len(np.unique(report.labels)) == 1:
        name = _classes(report)[int(report.labels[0])]
        yield f"All {report.shown} labels are of one class, {name}, so that most metrics say nothing or have no value."


def _metrics(report: FinetuningReport, constant: Mapping[str, float]) -> Section:
    names = metric_names(report.problem)
    parts = [part for part in ("validation", "test") if part in report.metrics]
    text = (
        f"The {_name(report.metric)} on the validation data chose the "
        f"{'step' if report.steps else 'probe'}, so that these data flatter the model. "
        f"Beside stands what the best constant guess for each metric reaches on the {report.shown} data."
    )
    if report.problem == "multiclass":
        text += " Of several classes, precision, recall, F1, AUROC and AUPRC are means over the classes."
    elif np.ndim(report.labels) == 2:
        text += " All are means over the columns."
    sequences = next((int(str(s["examples"])) for s in report.splits if s["split"] == report.shown), len(report.labels))
    if len(report.labels) > sequences:
        text += (
            f" Labels are of bases: {len(report.labels):,} in {counted(sequences, 'sequence')}. Bases of one sequence "
            "are not independent, so that an interval is too narrow."
        )
    rows = [
        [
            _name(name),
            *(_number(report.metrics[part].get(name, math.nan), name) for part in parts),
            _defined(constant[name], name),
        ]
        for name in names
    ]
    return Section(
        "Metrics", text, html_table(["metric", *parts, "constant\nguess"], rows, marked=_name(report.metric))
    )


def _training(report: FinetuningReport) -> Section:
    title = "Training curve"
    keys = ("loss", "eval_loss", f"eval_{report.metric}")
    if not report.steps:
        return Section(title, "A probe is fitted at once, so that there are no steps to show.", "")
    if not any(curve(report.history, key) for key in keys):
        return Section(title, left_out(report.history, *keys).strip() or "Nothing was logged.", "")
    text = f"The loss on training and validation data, and the {_name(report.metric)} on the validation data."
    drawing = finetuning_figure(report.history, report.metric, _name(report.metric), report.best_step)
    return Section(title, text + left_out(report.history, *keys), drawing)


def _errors(report: FinetuningReport) -> Iterator[Section]:
    """Give the parts that depend on the problem."""
    if report.problem == "regression":
        yield _agreement(report)
        if report.labels.ndim == 2:
            yield _numbers_by_column(report)
        return
    if report.problem != "multilabel":
        yield _confusion(report)
    if report.problem == "binary":
        yield _curves(report)
    else:
        yield _by_class(report)
    yield _calibration(report)


def _confusion(report: FinetuningReport) -> Section:
    found = confusion(report.labels, predicted(report.problem, report.scores), _classes(report))
    text = f"Labels of the {report.shown} data by their true class (row) and the predicted one (column). "
    body = confusion_figure(found.names, found.count_KK)
    if len(found.names) <= 6:
        text += "Below each count stands its share of the row."
    else:
        text += "Shares of the row in per cent." if len(found.names) <= 16 else "Darker is a greater share of the row."
        lines = ["\t".join(["", *found.names])]
        lines += ["\t".join([name, *map(str, row)]) for name, row in zip(found.names, found.count_KK, strict=True)]
        body += html_details("counts, separated by tabs", "\n".join(lines))
    if len(found.names) < len(_classes(report)):
        text += f" The {_MATRIX} most frequent classes stand alone."
    return Section("Confusion matrix", text, body)


def _curves(report: FinetuningReport) -> Section:
    title = "ROC and precision-recall"
    areas = evaluate("binary", report.labels, report.scores, ["auroc", "auprc"])
    positive = _classes(report)[1]
    if math.isnan(areas["auroc"]):
        return Section(title, f"Not defined: the {report.shown} labels are of one class alone.", "")
    text = (
        f"What every threshold on the score of {positive} gives, {report.shown} data; the point is where predictions "
        "are made, at equal odds. Precision of a chance guess is the share of that class."
    )
    found = sweep(report.labels, report.scores)
    return Section(title, text, roc_figure(found, areas["auroc"]) + precision_recall_figure(found, areas["auprc"]))


def _by_class(report: FinetuningReport) -> Section:
    names = _classes(report)
    said = predicted(report.problem, report.scores)
    if report.problem == "multiclass":
        actual_K, said_K = (np.bincount(values, minlength=len(names)) for values in (report.labels, said))
        hit_K = np.bincount(said[said == report.labels], minlength=len(names))
    else:
        actual_K, said_K = report.labels.sum(axis=0, dtype=np.int64), said.sum(axis=0)
        hit_K = ((report.labels == 1) & (said == 1)).sum(axis=0)
    kind = "class" if report.problem == "multiclass" else "column"
    text = (
        f"Each {kind} against all else, {report.shown} data: labels that are so, and that are predicted. – stands "
        "where there is nothing to divide by; such precision, recall and F1 count as 0 in the means above."
    )
    shown = np.arange(len(names))
    if len(names) > _ROWS:
        shown = np.sort(np.argsort(-actual_K, kind="stable")[:_ROWS])
        text = f"The {_ROWS} most frequent of {len(names):,}. {text}"
    rows = []
    for k in shown.tolist():
        so_N = report.labels == k if report.problem == "multiclass" else report.labels[:, k] == 1
        areas = evaluate("binary", so_N, report.scores[:, k], ["auroc", "auprc"])
        actual, guessed, hit = int(actual_K[k]), int(said_K[k]), int(hit_K[k])
        shares = [_ratio(hit, guessed), _ratio(hit, actual), _ratio(2 * hit, actual + guessed), *areas.values()]
        rows.append([names[k], f"{actual:,}", f"{guessed:,}", *(_defined(share) for share in shares)])
    header = [kind, "labels", "predicted", "precision", "recall", "F1", "AUROC", "AUPRC"]
    return Section(f"By {kind}", text, html_table(header, rows))


def _calibration(report: FinetuningReport) -> Section:
    # Where two logits overflowed, their difference would be no number.
    score = np.clip(report.scores.astype(np.float64), -1e300, 1e300)
    if report.problem == "multiclass":
        # Only differences of scores count; the highest is the predicted class's.
        share_N = 1 / np.exp(score - score.max(axis=1, keepdims=True)).sum(axis=1)
        name, bins = "predicted class", calibration_bins(share_N, score.argmax(axis=1) == report.labels)
        what = "the probability that the model gives to the class it predicts, and whether that is right"
    elif report.problem == "binary":
        name = _classes(report)[1]
        bins = calibration_bins(_sigmoid(score), report.labels)
        what = f"the probability that the model gives to {name}, and whether it is so"
    else:
        name, bins = "all columns", calibration_bins(_sigmoid(score).ravel(), report.labels.ravel())
        what = "the probability that the model gives to a column, and whether it is so"
    total = sum(count for _, _, count in bins)
    distance = sum(count * abs(said - so) for said, so, count in bins) / total
    text = (
        f"Each of {counted(total, 'label')} of the {report.shown} data is one pair: {what}. Pairs are put into "
        f"{_BINS} bins by the former; below stands how many there are. The bins' mean distance to the diagonal, each "
        f"counted as often as it has pairs, is {distance:.4f}."
    )
    return Section("Calibration", text, calibration_figure({name: bins}))


def _agreement(report: FinetuningReport) -> Section:
    observed, said = (values.reshape(len(values), -1).T for values in (report.labels, report.scores))
    names = _classes(report)
    shown = min(len(names), _PANELS)
    points = observed.shape[1] * shown <= _POINTS
    text = f"The {report.shown} data. " + ("A point is a label." if points else "Darker squares hold fewer labels.")
    if shown < len(names):
        text += f" The first {shown} of {len(names):,} columns; the table has all."
    drawings = [agreement_figure(names[k], observed[k], said[k], points=points) for k in range(shown)]
    return Section("Predicted against observed", text, "".join(drawings))


def _numbers_by_column(report: FinetuningReport) -> Section:
    rows = []
    for name, label_N, score_N in zip(_classes(report), report.labels.T, report.scores.T, strict=True):
        found = evaluate("regression", label_N, score_N)
        constant = constant_guess("regression", label_N, score_N)["mse"]
        rows.append([name, *(_defined(value, metric) for metric, value in found.items()), _number(constant, "mse")])
    header = [
        "column",
        *(_name(name).replace(" ", "\n") for name in metric_names("regression")),
        "of a\nconstant guess",
    ]
    text = f"The {report.shown} data; last the mean squared error of always guessing the column's mean."
    return Section("By column", text, html_table(header, rows))


def _data(report: FinetuningReport) -> Section:
    if not report.splits:
        return Section("Data", "Not known.", "")
    text = (
        "Duplicates came before in the same part. In training are sequences that the training data hold too, on either "
        "strand, before any were dropped from them. Of each file's SHA-256 stand the first 12 digits."
    )
    rows = [
        [
            split["split"],
            *(f"{split[name]:,}" for name in ("examples", "duplicates", "in_train", "dropped")),
            str(split["sha256"])[:12],
        ]
        for split in report.splits
    ]
    header = ["part", "sequences", "duplicates", "in\ntraining", "dropped", "SHA-256"]
    return Section("Data", text, html_table(header, rows))


def _classes(report: FinetuningReport) -> list[str]:
    """Name the classes or columns; numbers do where names are not as many as there are scores."""
    count = 2 if report.problem == "binary" else 1 if report.scores.ndim == 1 else report.scores.shape[1]
    return list(report.classes) if len(report.classes) == count else [f"LABEL_{number}" for number in range(count)]


def _best_of_two(label_N: Labels) -> dict[str, float]:
    either = [evaluate("binary", label_N, np.full(len(label_N), score)) for score in (1.0, -1.0)]
    # A metric is not a number for both or for neither.
    return {name: max(found[name] for found in either) for name in either[0]}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _sigmoid(score: Floats) -> Floats:
    # Of the negative absolute value, so that nothing overflows.
    small = np.exp(-np.abs(score))
    probability: Floats = np.where(score >= 0, 1, small) / (1 + small)
    return probability


def _ratio(over: int, under: int) -> float:
    return over / under if under else math.nan


def _name(metric: str) -> str:
    return _NAMES.get(metric, metric)


def _defined(value: float, metric: str = "") -> str:
    return "–" if math.isnan(value) else _number(value, metric)


def _number(value: float, metric: str = "") -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    # A squared error may be of any size; all else is at most 1.
    if metric == "mse" and value and not 1e-3 <= value < 1e3:
        return f"{value:.4g}"
    return f"{value:z.4f}"
