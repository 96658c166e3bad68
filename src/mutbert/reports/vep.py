"""The page of a comparison of variant effect scores with labels, from its folder alone.

Shape suffixes: C variants that are compared, K classes.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from mutbert.errors import InputError, one_line
from mutbert.reports import plots
from mutbert.reports.page import Section, Table, counted, write_page
from mutbert.reports.run_parts import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Float64

    Record = Mapping[str, Any]

RESULT: Final = "vep.json"
SCORES: Final = "scores.parquet"
REPORT: Final = "report.html"
METRIC_NAMES: Final = {
    "auroc": "AUROC", "auprc": "AUPRC", "spearman": "Spearman correlation", "pearson": "Pearson correlation",
}  # fmt: skip
_CHANCE: Final = {"auroc": 0.5, "spearman": 0.0}
_DIRECTIONS: Final = {
    "damaging": "Positive variants are expected to have an effect: what a model or rule finds unusual suggests them.",
    "tolerated": "Positive variants are expected to have no effect: what a model or rule finds usual suggests them.",
    "either": "Each score and baseline is turned to the side on which it is better, by these very labels; chance is "
    "then a little above the middle.",
}
_ALPHA: Final = 0.05
_CURVES: Final = 4
_BASELINE_CURVES: Final = 2
_CLASSES_DRAWN: Final = 6
# The share of values beyond either end of a figure, which would leave no room for the others.
_TAIL: Final = 0.002


def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Write the page of a folder of ``mutbert bench vep``; return its path."""
    result = read_record(folder / RESULT)
    try:
        variants = pl.read_parquet(folder / SCORES).filter(pl.col("reason") == "")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{folder / SCORES}: cannot be read ({one_line(error)}); repeat the run") from None
    parts, first = result["parts"], result["parts"][0]
    whole = [part for part in parts if part["name"] == first["name"]]
    others = [part for part in parts if part["name"] != first["name"]]
    sections = [
        *(_overview(result, part) for part in whole),
        *_curves(result, first, variants),
        *_spread(result, variants),
        *_by_part(result, others),
        _differences(result),
        _not_used(result),
        *(Section(f"Numbers: {_where(result, part)}", *_numbers(result, part)) for part in others if part["rows"]),
        Section("How it was measured", facts=_methods(result)),
        _provenance(result["provenance"]),
    ]
    used = ", ".join(counted(count, kind) for kind, count in result["used"].items())
    lead = f"{counted(result['rows'], 'row')}; used: {used}."
    path = folder / REPORT
    write_page(path, f"Variant effects: {result['name']}", lead, sections, notes=result["notes"], force=force)
    return path


def _where(result: Record, part: Record) -> str:
    return f"{part['name']}, {part['target']}" if result["problem"] == "multiclass" else str(part["name"])


def _firsts(part: Record) -> list[Record]:
    """Return the first score of each model, which was asked for and did not come out best of many."""
    return list({row["model"]: row for row in reversed(part["rows"]) if row["model"]}.values())[::-1]


def _best(part: Record) -> list[Record]:
    """Return the baseline that models are compared with, if there is one."""
    names = {row["baseline"] for row in part["rows"]}
    return [row for row in part["rows"] if row["predictor"] in names]


def _overview(result: Record, part: Record) -> Section:
    metric = result["metrics"][0]
    title = METRIC_NAMES[metric] + f": {part['target']} against all others" * (result["problem"] == "multiclass")
    if not part["rows"]:
        return Section(title, f"Not measured: {part['why']}.")
    text = ""
    for row, best in zip(_firsts(part)[:1], _best(part), strict=False):
        text = (
            f"{row['predictor']} has {_number(row[metric])} ({_interval(row, metric)}); the best trivial baseline, "
            f"{best['predictor']}, has {_number(best[metric])}. The difference is {_number(row['difference'], '+')} "
            f"({_interval(row, 'difference', '+')}; adjusted p {_p(row['p_holm'])}). "
        )
    text += "Models are blue, trivial baselines, which need no model, orange; lines are 95 % intervals. "
    numbers, _, tables = _numbers(result, part)
    models = [row["predictor"] for row in part["rows"] if row["model"]]
    rows, chance = [(row["predictor"], *_ends(row, metric)) for row in part["rows"]], _CHANCE[metric]
    xlabel = f"{METRIC_NAMES[metric]} (chance: {chance:g})"
    figure = plots.forest(title, {"": rows}, xlabel, reference=chance, highlighted=models)
    return Section(title, text + numbers, figure, tables)


def _numbers(result: Record, part: Record) -> tuple[str, tuple[str, ...], list[Table]]:
    """Return text, no figures and the table of a part's numbers."""
    metrics, positives = result["metrics"], part["compared_positives"]
    text = f"{part['compared']:,} of {counted(part['variants'], 'variant')} have a value of every predictor"
    if positives is not None:
        share = _number(positives / part["compared"])
        text += f"; {positives:,} are {part['target']}, so that chance is an AUROC of 0.5 and an AUPRC of {share}"
    text += "."
    if part["empty"]:
        text += f" Not compared, as it has no value here, or a baseline one alone: {', '.join(part['empty'])}."
    header = ["predictor", f"end that\nsuggests {'more' if positives is None else 'it'}"]
    for metric in metrics:
        header += [METRIC_NAMES[metric].replace(" ", "\n"), "95 % interval"]
    rows = [
        [row["predictor"], row["end"], *(cell for one in metrics for cell in (_number(row[one]), _interval(row, one))),
         f"{row['missing']:,}", _number(row["alone"])]
        for row in part["rows"]
    ]  # fmt: skip
    return text, (), [Table([*header, "missing", "alone"], rows)]


def _curves(result: Record, part: Record, variants: pl.DataFrame) -> Iterator[Section]:
    if result["problem"] != "binary" or not part["rows"]:
        return
    firsts, baselines = _firsts(part), [row for row in part["rows"] if not row["model"]]
    baselines.sort(key=lambda row: row["auroc"] or 0, reverse=True)
    models = firsts if len(firsts) > 1 else [row for row in part["rows"] if row["model"]]
    drawn = [*models[:_CURVES], *baselines[:_BASELINE_CURVES]]
    compared, figures = variants.drop_nulls([row["predictor"] for row in part["rows"]]), []
    label_C = compared["target"].to_numpy().astype(np.int64)
    turned = [compared[row["predictor"]].to_numpy() * (-1 if row["end"] == "low" else 1) for row in drawn]
    for metric, title in (("auroc", "ROC curves"), ("auprc", "Precision-recall curves")):
        names = [f"{_number(row[metric])} {row['predictor']}" for row in drawn]
        scores = dict(zip(names, turned, strict=True))
        figures.append(plots.binary_curves(title, "roc" if metric == "auroc" else "precision_recall", label_C, scores))
    text = (
        f"All thresholds, {part['name']}: a model's scores and the best trivial baselines, with the area before each "
        "name. Broken lines are chance."
    )
    yield Section("ROC and precision-recall curves", text, figures)


def _spread(result: Record, variants: pl.DataFrame) -> Iterator[Section]:
    """Yield how the ratios of models are distributed."""
    scores = {name: name.removeprefix(f"{one['model']} ") for name, one in result["predictors"].items() if one["model"]}
    masked = {"LLR", "PLLR"} if {"LLR", "PLLR"} & {*scores.values()} else {"ULLR"}
    classes, figures = result["classes"], []
    for name in [name for name, score in scores.items() if score in masked]:
        own = variants.drop_nulls(name)
        value_C, target_C = own[name].to_numpy(), own["target"].to_numpy()
        if result["problem"] == "regression":
            figures += [_effect_figure(name, classes[0], value_C, target_C)] * (len(own) > 0)
            continue
        count_K = np.bincount(target_C.astype(np.int64), minlength=len(classes))
        largest = sorted(np.argsort(-count_K, kind="stable")[:_CLASSES_DRAWN].tolist())
        by_class = {classes[index]: value_C[target_C == index] for index in largest if count_K[index]}
        figures += [_histogram(name, by_class)] * (len(own) > 0)
    if figures and result["problem"] == "regression":
        yield Section("Ratio and effect", "Brighter cells hold more variants.", figures)
    elif figures:
        text = (
            "Percentages of each class's variants, so that classes of different sizes can be compared. Below 0 the "
            "model finds the alternate allele less likely than the reference."
        )
        few = f" The {_CLASSES_DRAWN} most frequent classes." if len(classes) > _CLASSES_DRAWN else ""
        yield Section("Ratio by class", text + few, figures)


def _by_part(result: Record, parts: Sequence[Record]) -> Iterator[Section]:
    metric, figures = result["metrics"][0], []
    for target in dict.fromkeys(part["target"] for part in parts if part["rows"]):
        own = [part for part in parts if part["target"] == target and part["rows"]]
        panels = {
            f"{part['name']} ({part['compared']:,})": [
                (row["predictor"], *_ends(row, metric)) for row in (*_firsts(part), *_best(part))
            ]
            for part in own
        }
        models = {row["predictor"] for part in own for row in _firsts(part)}
        title = f"{METRIC_NAMES[metric]} by part" + f": {target}" * (result["problem"] == "multiclass")
        figures.append(plots.forest(title, panels, title, reference=_CHANCE[metric], highlighted=models))
    if parts:
        text = (
            "By kind of variant and by group, with the number of variants: the first score of each model, and the "
            "trivial baseline that is the best in the part."
        )
        without = [f"{_where(result, part)} ({part['why']})" for part in parts if not part["rows"]]
        yield Section("By part", text + (f" Not measured: {'; '.join(without)}." if without else ""), figures)


def _differences(result: Record) -> Section:
    metric = METRIC_NAMES[result["metrics"][0]]
    rows = [
        [_where(result, part), row["predictor"], row["baseline"], _number(row["difference"], "+"),
         _interval(row, "difference", "+"), _p(row["p"]),
         _p(row["p_holm"]) + " *" * (row["p_holm"] is not None and row["p_holm"] < _ALPHA)]
        for part in result["parts"] for row in part["rows"] if row["baseline"] is not None
    ]  # fmt: skip
    title = "Against the best trivial baseline"
    if not rows:
        return Section(title, "Nothing could be compared.")
    text = (
        f"{metric} of a model's score minus that of the baseline that is the best in the part, on the same variants. "
        f"P-values are adjusted for all comparisons of a part (Holm), and marked * below {_ALPHA}. The baseline was "
        "chosen by these very labels, which favours it."
    )
    if result["direction"] == "either":
        text += " Each is turned to the side on which it is better."
    header = ["part", "score", "baseline", "difference", "95 % interval", "p", "p\nadjusted"]
    return Section(title, text, tables=[Table(header, rows)])


def _not_used(result: Record) -> Section:
    title, total = "What was not used", counted(result["rows"], "row")
    if not result["not_used"]:
        return Section(title, f"All of {total} are used.")
    text = f"{sum(result['not_used'].values()):,} of {total} are not used."
    if result["left_out"]:
        values = ", ".join(f"{value} ({count:,})" for value, count in result["left_out"].items())
        text += f" Left out by the label's value: {values}."
    counts = sorted(result["not_used"].items(), key=lambda item: -item[1])
    return Section(
        title, text, facts={one: f"{counted(count, 'row')}: {result['reasons'][one]}" for one, count in counts}
    )


def _methods(result: Record) -> dict[str, str]:
    compared = dict.fromkeys(row["predictor"] for part in result["parts"] for row in part["rows"])
    return {
        "direction": _DIRECTIONS[result["direction"]],
        "intervals": result["intervals"],
        "comparisons": next((part["comparison"] for part in result["parts"] if part["comparison"]), "none"),
        "end": "whether low or high values of a predictor suggest the class, or higher numbers",
        "missing": "variants of the part without a value, which are not compared",
        "alone": f"{METRIC_NAMES[result['metrics'][0]]} on all variants with a value of this predictor",
        **{name: result["predictors"][name]["description"] for name in compared},
    }


def _provenance(origin: Record) -> Section:
    facts = {"variants": origin["variants"]["place"], "genome": ", ".join(origin["genomes"])}
    for name, model in origin["models"].items():
        settings = model["settings"] | {"scores": " and ".join(model["settings"]["scores"])}
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
        facts[f"model {name}"] = f"SHA-256 {model['sha256'][:12]}, {words}"
    facts |= {name: str(origin[name]) for name in ("surroundings", "resamples", "seed")}
    return Section("Provenance", facts=facts, details={"All of it": json.dumps(origin, indent=1)})


def _histogram(name: str, values: Mapping[str, Float64]) -> str:
    """Return the distribution of values in each class as percentages; each class has a value."""
    low, high = _range(np.concatenate(list(values.values())))
    # As many as the smallest class has values enough for.
    bins = int(np.clip(1.5 * math.sqrt(min(map(len, values.values()))), 8, 50))
    with plots.style():
        figure, axes = plots.new_figure(plots.WIDTH, 3.1)
        for index, (label, value_C) in enumerate(values.items()):
            count, edges = np.histogram(np.clip(value_C, low, high), bins=bins, range=(low, high))
            share, colour = 100 * count / len(value_C), plots.COLOURS[index % len(plots.COLOURS)]
            label = f"{plots.shortened(label)} ({len(value_C):,})"
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=label)
            if len(values) <= 3:
                axes.stairs(share, edges, color=colour, alpha=0.2, fill=True, linewidth=0)
            axes.axvline(float(np.median(value_C)), color=colour, linewidth=1, linestyle="--")
        if low < 0 < high:
            axes.axvline(0, color=plots.INK, linewidth=0.8, alpha=0.6)
        axes.set_xlabel(f"{plots.shortened(name, 40)} (broken lines: medians)")
        axes.set_ylabel("variants of the class, %")
        plots.legend_above(figure, axes.get_legend_handles_labels()[0])
        return plots.svg(figure, f"{name} by class")


def _effect_figure(name: str, effect: str, value_C: Float64, effect_C: Float64) -> str:
    """Return an effect against a score, as cells coloured by how many variants they hold."""
    ranges = [_range(value_C), _range(effect_C)]
    clipped = [np.clip(values, *ends) for values, ends in zip((value_C, effect_C), ranges, strict=True)]
    with plots.style():
        figure, axes = plots.new_figure(plots.WIDTH, 4.0)
        *_, drawn = axes.hist2d(*clipped, bins=40, range=ranges, cmin=1, cmap="viridis", rasterized=True)
        drawn.set_norm(LogNorm(1, max(float(np.nanmax(drawn.get_array())), 2)))
        bar = figure.colorbar(drawn, ax=axes, label="variants per cell", format="{x:,.0f}")
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_minor_formatter("")
        axes.set_xlabel(plots.shortened(name, 44))
        axes.set_ylabel(plots.shortened(effect, 36))
        return plots.svg(figure, f"{effect} against {name}")


def _range(value_C: Float64) -> tuple[float, float]:
    """Return what a figure shows; what lies beyond is drawn at the ends."""
    low, high = np.quantile(value_C, [_TAIL, 1 - _TAIL]).tolist()
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _ends(row: Record, metric: str) -> tuple[float, float, float]:
    value, low, high = (math.nan if (one := row[metric + end]) is None else one for end in ("", "_low", "_high"))
    return value, low, high


def _interval(row: Record, name: str, sign: str = "") -> str:
    return f"{_number(row[f'{name}_low'], sign)} to {_number(row[f'{name}_high'], sign)}"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}z.3f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
