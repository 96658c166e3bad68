"""The page and the table of a comparison of variant effect scores with labels.

Shape suffixes: C variants that are compared, K classes.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert.files import atomic_file
from mutbert.reports.page import Section, counted, html_facts, html_table, write_page
from mutbert.reports.vep_figures import (
    Bar,
    Curve,
    Ladder,
    bar_figure,
    effect_figure,
    histogram_figure,
    ladder_figure,
    precision_recall_curves,
    roc_curves,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.reports.vep_results import Measure, Shown, VepPart, VepReport

METRIC_NAMES: Final = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
}
_ALPHA: Final = 0.05
_CURVES: Final = 4
_BASELINE_CURVES: Final = 2
_CLASSES_DRAWN: Final = 6


def write_vep_table(path: Path, report: VepReport) -> None:
    """Write every number of the report, a row for each part, target and predictor, as CSV."""
    metrics = report.metrics
    header = ["part", "target", "predictor", "model", "end", "variants", "compared", "positives", "missing"]
    header += [f"{metric}{suffix}" for metric in metrics for suffix in ("", "_low", "_high")]
    header += ["chance_auprc"] if "auprc" in metrics else []
    header += [f"{metrics[0]}_alone", "baseline", "difference", "difference_low", "difference_high", "p", "p_holm"]
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for part in report.parts:
            for row in part.rows:
                cells: list[object] = [part.name, part.target, row.predictor, row.model, row.end, part.variants]
                cells += [part.compared, "" if part.compared_positives is None else part.compared_positives]
                cells += [row.missing]
                cells += [_digits(value) for metric in metrics for value in row.measures[metric]]
                if part.compared_positives is not None:
                    cells.append(_digits(part.compared_positives / part.compared))
                cells.append(_digits(row.alone))
                if row.difference is None:
                    cells += [""] * 6
                else:
                    cells += [row.difference.baseline, *(_digits(value) for value in row.difference[1:6])]
                writer.writerow(cells)


def write_vep_page(path: Path, report: VepReport, shown: Shown) -> None:
    """Write the page: one HTML file that fetches nothing.

    Parameters
    ----------
    path : Path
        The HTML file.
    report : VepReport
        What it says.
    shown : Shown
        What curves and histograms are of.

    Raises
    ------
    InputError
        When `path` exists.
    """
    first = report.parts[0]
    whole = [part for part in report.parts if part.name == first.name]
    sections = [*_overview(report, whole), *_curves(report, first, shown), *_histograms(report, shown)]
    others = [part for part in report.parts if part.name != first.name]
    if others:
        sections.append(_by_part(report, others))
    sections += [_table(report, part) for part in whole if part.rows]
    sections += [_differences(report), _not_used(report)]
    sections += [_table(report, part) for part in others if part.rows]
    sections += [_methods(report, first), Section("What it was made of", "", html_facts(report.facts))]
    used = ", ".join(f"{counted(count, kind)}" for kind, count in report.used.items())
    lead = f"{counted(report.rows, 'row')}; used: {used}."
    write_page(path, f"Variant effects: {report.name}", lead, sections, notes=report.notes)


def _overview(report: VepReport, parts: Sequence[VepPart]) -> Iterator[Section]:
    metric = report.metrics[0]
    for part in parts:
        title = METRIC_NAMES[metric] + (f": {part.target} against all else" if report.problem == "multiclass" else "")
        if not part.rows:
            yield Section(title, f"There is none: {part.why}.", "")
            continue
        text = _headline(report, part)
        bars = [Bar(row.predictor, *row.measures[metric], not row.model) for row in part.rows]
        yield Section(title, text, bar_figure(title, METRIC_NAMES[metric], _chance(metric), bars))


def _headline(report: VepReport, part: VepPart) -> str:
    metric = report.metrics[0]
    text = f"{part.compared:,} of {counted(part.variants, 'variant')} have a value of every predictor"
    if part.compared_positives is not None:
        text += f"; {part.compared_positives:,} are {part.target}"
    text += "."
    models = [row for row in part.rows if row.difference is not None]
    if models:
        # What was compared, not what came out best of many.
        row = models[0]
        assert row.difference is not None, "chosen so"
        value, low, high = row.measures[metric]
        found = row.difference
        interval = f"{_number(found.low, sign=True)} to {_number(found.high, sign=True)}"
        best = next(other.measures[metric].value for other in part.rows if other.predictor == found.baseline)
        text += (
            f" {row.predictor} has {_number(value)} ({_number(low)} to {_number(high)}); the best trivial baseline, "
            f"{found.baseline}, has {_number(best)}. The difference is {_number(found.difference, sign=True)} "
            f"({interval}; {_p_text(found.adjusted)}, adjusted)."
        )
    return f"{text} Lines are 95 % intervals; dark bars are trivial baselines, which need no model."


def _curves(report: VepReport, part: VepPart, shown: Shown) -> Iterator[Section]:
    if report.problem != "binary" or not part.rows:
        return
    models = [row for row in part.rows if row.model]
    # The first of each model, then whatever else there is room for.
    firsts = [row for place, row in enumerate(models) if row.model not in {other.model for other in models[:place]}]
    drawn = firsts[:_CURVES] if len(firsts) > 1 else models[:_CURVES]
    baselines = sorted((row for row in part.rows if not row.model), key=lambda row: -_finite(row.measures["auroc"]))
    drawn += baselines[:_BASELINE_CURVES]
    label_C = shown.target_C.astype(np.int64)

    def curves(metric: str) -> list[Curve]:
        return [
            Curve(
                f"{row.predictor} {_number(row.measures[metric].value)}",
                (-1 if row.end == "low" else 1) * shown.score_C[row.predictor],
                not row.model,
            )
            for row in drawn
        ]

    text = (
        f"What every threshold gives, {part.name}: a model's scores, and the best {len(baselines[:_BASELINE_CURVES])} "
        "baselines as broken lines. Behind each name stands the area. "
    )
    share = part.compared_positives / part.compared if part.compared_positives is not None else math.nan
    yield Section("ROC", text, roc_curves(label_C, curves("auroc")))
    yield Section(
        "Precision and recall",
        f"The same. Chance is the share of positive variants, {_number(share)}.",
        precision_recall_curves(label_C, curves("auprc")),
    )


def _histograms(report: VepReport, shown: Shown) -> Iterator[Section]:
    drawings = []
    for name, (value_C, target_C) in shown.histograms.items():
        if report.problem == "regression":
            drawings.append(effect_figure(name, report.classes[0], value_C, target_C))
            continue
        count_K = np.bincount(target_C.astype(np.int64), minlength=len(report.classes))
        largest = sorted(np.argsort(-count_K, kind="stable")[:_CLASSES_DRAWN].tolist())
        by_class = {report.classes[k]: value_C[target_C == k] for k in largest if count_K[k]}
        drawings.append(histogram_figure(name, by_class))
    if not drawings:
        return
    if report.problem == "regression":
        yield Section("Ratio and effect", "Darker squares hold fewer variants.", "".join(drawings))
        return
    text = (
        "Shares of each class's variants, so that classes of different sizes can be compared. Below 0 the model finds "
        "the alternate allele less likely than the reference."
    )
    if len(report.classes) > _CLASSES_DRAWN:
        text += f" The {_CLASSES_DRAWN} most frequent classes."
    yield Section("Ratio by class", text, "".join(drawings))


def _by_part(report: VepReport, parts: Sequence[VepPart]) -> Section:
    metric = report.metrics[0]
    drawings = []
    for target in dict.fromkeys(part.target for part in parts):
        own = [part for part in parts if part.target == target and part.rows]
        if own:
            ladders = [_ladder(part, metric) for part in own]
            title = f"{METRIC_NAMES[metric]} by part" + (f": {target}" if report.problem == "multiclass" else "")
            drawings.append(ladder_figure(title, METRIC_NAMES[metric], _chance(metric), ladders))
    text = (
        "By kind of variant and by group: the first score of each model, and the trivial baseline that is the best in "
        "the part."
    )
    without = [f"{part.name} ({part.why})" for part in parts if not part.rows]
    if without:
        text += f" Not measured: {'; '.join(without)}."
    return Section("By part", text, "".join(drawings))


def _ladder(part: VepPart, metric: str) -> Ladder:
    firsts: dict[str, Measure] = {}
    for row in part.rows:
        if row.model:
            firsts.setdefault(row.model, row.measures[metric])
    name = next((row.difference.baseline for row in part.rows if row.difference is not None), "")
    best = next((row.measures[metric] for row in part.rows if row.predictor == name), None)
    label = f"{part.name} ({part.compared:,})"
    return Ladder(label, firsts, best, name)


def _table(report: VepReport, part: VepPart) -> Section:
    metrics = report.metrics
    title = f"Numbers: {part.name}" + (f", {part.target}" if report.problem == "multiclass" else "")
    text = f"{part.compared:,} of {counted(part.variants, 'variant')} are compared."
    if part.compared_positives is not None:
        share = part.compared_positives / part.compared
        text += (
            f" {part.compared_positives:,} are {part.target}; AUPRC of chance is their share, {_number(share)}, and "
            "AUROC of chance 0.5."
        )
    positive = f"higher {part.target}" if report.problem == "regression" else part.target
    text += (
        f" End says whether low or high values of a predictor speak for {positive}. Missing are variants without a "
        f"value; alone is the {METRIC_NAMES[metrics[0]]} on all that have one."
    )
    if part.empty:
        text += f" Without a value here, or a baseline with one alone: {', '.join(part.empty)}."
    header = ["predictor", "end that\nspeaks for it"]
    for metric in metrics:
        header += [METRIC_NAMES[metric].replace(" ", "\n"), "95 % interval"]
    header += ["missing", "alone"]
    rows = []
    for row in part.rows:
        cells: list[object] = [row.predictor, row.end]
        for metric in metrics:
            value, low, high = row.measures[metric]
            cells += [_number(value), f"{_number(low)} to {_number(high)}"]
        rows.append([*cells, f"{row.missing:,}", _number(row.alone)])
    return Section(title, text, html_table(header, rows))


def _differences(report: VepReport) -> Section:
    metric = METRIC_NAMES[report.metrics[0]]
    rows = []
    for part in report.parts:
        for row in part.rows:
            if row.difference is None:
                continue
            found = row.difference
            where = part.name + (f", {part.target}" if report.problem == "multiclass" else "")
            interval = f"{_number(found.low, sign=True)} to {_number(found.high, sign=True)}"
            rows.append(
                [
                    where,
                    row.predictor,
                    found.baseline,
                    _number(found.difference, sign=True),
                    interval,
                    _p(found.p_value),
                    _p(found.adjusted) + (" *" if found.adjusted < _ALPHA else ""),
                ]
            )
    title = "Against the best trivial baseline"
    if not rows:
        return Section(title, "Nothing could be compared.", "")
    text = (
        f"{metric} of a model's score less that of the baseline that is the best in the part, on the same variants. "
        f"P-values are adjusted for all comparisons of a part (Holm), and marked * below {_ALPHA}. The baseline was "
        "chosen by these very labels, which favours it."
    )
    if report.direction == "either":
        text += " Each is turned to the side on which it is better."
    header = ["part", "score", "baseline", "difference", "95 % interval", "p", "p\nadjusted"]
    return Section(title, text, html_table(header, rows))


def _not_used(report: VepReport) -> Section:
    title = "What was not used"
    if not report.not_used:
        return Section(title, f"All of {counted(report.rows, 'row')} are used.", "")
    text = f"{sum(report.not_used.values()):,} of {counted(report.rows, 'row')} are not used."
    if report.left_out:
        values = ", ".join(f"{value} ({count:,})" for value, count in report.left_out.items())
        text += f" Left out by the label's value: {values}."
    rows = [
        [reason, report.reasons.get(reason, ""), f"{count:,}"]
        for reason, count in sorted(report.not_used.items(), key=lambda item: -item[1])
    ]
    return Section(title, text, html_table(["reason", "which means", "rows"], rows))


_DIRECTIONS: Final = {
    "damaging": "Positive variants are taken for those with an effect: what a model or rule finds unusual speaks for "
    "them.",
    "tolerated": "Positive variants are taken for those without an effect: what a model or rule finds usual speaks for "
    "them.",
    "either": "Each score and baseline is turned to the side on which it is better, by these very labels; chance is "
    "then a little above the middle.",
}


def _methods(report: VepReport, first: VepPart) -> Section:
    facts = {"direction": _DIRECTIONS[report.direction], "intervals": report.interval_method}
    differences = [row.difference for part in report.parts for row in part.rows if row.difference is not None]
    if differences:
        facts["comparisons"] = differences[0].method
    rows = {row.predictor: row for part in report.parts for row in part.rows} | {
        row.predictor: row for row in first.rows
    }
    facts |= {row.predictor: row.description for row in rows.values()}
    return Section("How it was measured", "", html_facts(facts))


def _chance(metric: str) -> float:
    return 0.5 if metric == "auroc" else 0.0


def _finite(measure: Measure) -> float:
    return measure.value if math.isfinite(measure.value) else -math.inf


def _number(value: float, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:+z.3f}" if sign else f"{value:z.3f}"


def _digits(value: float) -> str:
    return "" if not math.isfinite(value) else repr(round(float(value), 9))


def _p(value: float) -> str:
    return "–" if not math.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_text(value: float) -> str:
    text = _p(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
