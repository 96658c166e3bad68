"""The page of a comparison of variant effect scores with labels, from its folder alone.

Shape suffixes: C variants that are compared, K classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from mutbert.arrays import Float64
from mutbert.errors import InputError, one_line
from mutbert.reports import plots
from mutbert.reports.folder import known, read_record
from mutbert.reports.page import METRIC_NAMES, write_page

Record = Mapping[str, Any]


RESULT: Final = "vep.json"
SCORES: Final = "scores.parquet"
REPORT: Final = "report.html"
_CHANCE: Final = {"auroc": 0.5, "auroc_by_chrom": 0.5, "spearman": 0.0}
_CLASSES_DRAWN: Final = 6


@plots.style()
def write_page_of(folder: Path, *, force: bool = True) -> Path:
    """Write the page of a folder of ``mutbert bench vep``; return its path."""
    result = read_record(folder / RESULT)
    several = result["problem"] == "multiclass"
    try:
        variants = pl.read_parquet(folder / SCORES).filter(pl.col("reason") == "")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{folder / SCORES}: cannot be read ({one_line(error)}); repeat the run") from None
    for part in result["parts"]:
        # The first score of each model was asked for, and did not come out best of many.
        part["firsts"] = list({row["model"]: row for row in part["rows"][::-1] if row["model"]}.values())[::-1]
        # The baseline that models are compared with, if there is one.
        part["best"] = [row for row in part["rows"] if row["predictor"] in {one["baseline"] for one in part["rows"]}]
        part["where"] = f"{part['name']}, {part['target']}" if several else part["name"]
    first, metric = result["parts"][0], result["metrics"][0]
    whole = [part for part in result["parts"] if part["name"] == first["name"]]
    others = [part for part in result["parts"] if part["name"] != first["name"]]
    paper = {f"{row['name']} {row['score']}": row for row in result.get("suite", {}).get("paper", ())}
    for part in whole:
        part["title"] = METRIC_NAMES[metric] + f": {part['target']} against all others" * several
        # That of an area under a precision-recall curve is the share of positives.
        chance = _CHANCE.get(metric, (part["compared_positives"] or 0) / max(part["compared"], 1))
        xlabel = f"{METRIC_NAMES[metric]} (chance: {chance:.2g})"
        part["figure"] = _forest(metric, part["title"], {"": part["rows"]}, xlabel, chance) if part["rows"] else ""
        part["paper"] = [row for name, row in paper.items() if name not in {row["predictor"] for row in part["rows"]}]
        for row in part["rows"] if paper else ():
            row["published"] = paper.get(row["predictor"], {}).get("value")
    write_page(
        folder / REPORT, f"Variant effects: {result['name']}", notes=result["notes"], force=force,
        template="vep.html.j2", result=result, whole=whole, others=others, metric_names=METRIC_NAMES,
        curves=_curves(result, first, variants), spread=_spread(result, variants), most_classes=_CLASSES_DRAWN,
        by_part=_by_part(result, others), provenance=json.dumps(result["provenance"], indent=1),
    )  # fmt: skip
    return folder / REPORT


def _forest(metric: str, title: str, panels: Mapping[str, Sequence[Record]], xlabel: str, chance: float | None) -> str:
    """Return a metric of rows with its intervals as SVG; models have another colour than baselines."""
    values = {
        name: [(row["predictor"], *(known(row)[metric + end] for end in ("", "_low", "_high"))) for row in rows]
        for name, rows in panels.items()
    }
    models = {row["predictor"] for rows in panels.values() for row in rows if row["model"]}
    return plots.forest(title, values, xlabel, reference=chance, highlighted=models)


def _curves(result: Record, part: Record, variants: pl.DataFrame) -> list[str]:
    """Return the curves of models and of the best baselines, of two classes."""
    if result["problem"] != "binary" or not part["rows"]:
        return []
    baselines = [row for row in part["rows"] if not row["model"]]
    baselines.sort(key=lambda row: row["auroc"] or 0, reverse=True)
    models = part["firsts"] if len(part["firsts"]) > 1 else [row for row in part["rows"] if row["model"]]
    drawn = [*models[:4], *baselines[:2]]
    compared = variants.drop_nulls([row["predictor"] for row in part["rows"]])
    turned = [compared[row["predictor"]].to_numpy() * (-1 if row["end"] == "low" else 1) for row in drawn]
    names = [
        [f"{'–' if row[metric] is None else format(row[metric], 'z.3f')} {row['predictor']}" for row in drawn]
        for metric in ("auroc", "auprc")
    ]
    return plots.binary_curves(compared["target"].to_numpy().astype(np.int64), turned, *names)


def _spread(result: Record, variants: pl.DataFrame) -> list[str]:
    """Return how the ratios of models are distributed."""
    scores = {name: name.removeprefix(f"{one['model']} ") for name, one in result["predictors"].items() if one["model"]}
    masked = {"LLR", "PLLR"} if {"LLR", "PLLR"} & {*scores.values()} else {"ULLR"}
    classes, figures = result["classes"], []
    for name in [name for name, score in scores.items() if score in masked and variants[name].count()]:
        value_C, target_C = variants.select(name, "target").drop_nulls(name).to_numpy().T
        if result["problem"] == "regression":
            figures.append(_effect_figure(name, classes[0], value_C, target_C))
        else:
            count_K = np.bincount(target_C.astype(np.int64), minlength=len(classes))
            largest = sorted(np.argsort(-count_K, kind="stable")[:_CLASSES_DRAWN].tolist())
            by_class = {classes[index]: value_C[target_C == index] for index in largest if count_K[index]}
            figures.append(_histogram(name, by_class))
    return figures


def _by_part(result: Record, parts: Sequence[Record]) -> list[str]:
    """Return a figure for each target: in each part the first score of each model, and the best baseline."""
    metric, figures = result["metrics"][0], []
    for target in dict.fromkeys(part["target"] for part in parts if part["rows"]):
        own = [part for part in parts if part["target"] == target and part["rows"]]
        panels = {f"{part['name']} ({part['compared']:,})": [*part["firsts"], *part["best"]] for part in own}
        title = f"{METRIC_NAMES[metric]} by part" + f": {target}" * (result["problem"] == "multiclass")
        figures.append(_forest(metric, title, panels, title, _CHANCE.get(metric)))
    return figures


def _histogram(name: str, values: Mapping[str, Float64]) -> str:
    """Return the distribution of values in each class as percentages; each class has a value."""
    low, high = _range(np.concatenate(list(values.values())))
    # As many as the smallest class has values enough for.
    bins = int(np.clip(1.5 * math.sqrt(min(map(len, values.values()))), 8, 50))
    figure, axes = plots.new_figure(3.1)
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
    return plots.svg(figure, f"{name} by class", axes.get_legend_handles_labels()[0])


def _effect_figure(name: str, effect: str, value_C: Float64, effect_C: Float64) -> str:
    """Return an effect against a score, as cells coloured by how many variants they hold."""
    ranges = [_range(value_C), _range(effect_C)]
    clipped = [np.clip(values, *ends) for values, ends in zip((value_C, effect_C), ranges, strict=True)]
    figure, axes = plots.new_figure(4.0)
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
    """Return what a figure shows: outliers, which are drawn at its ends, would leave no room for the others."""
    low, high = np.quantile(value_C, [0.002, 0.998]).tolist()
    return (low, high) if low < high else (low - 0.5, high + 0.5)
