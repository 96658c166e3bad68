"""What all figures share, how they look and become SVG or PNG, and those of several reports, runs, genomes, embeddings.

The same data give the same text: no dates, no random identifiers.
"""

import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from mutbert.errors import InputError, printable
from mutbert.files import atomic_file, check_output
from mutbert.reports.page import Section, counted

History = Sequence[Mapping[str, float]]
Points = Sequence[tuple[float, float]]


COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""
DASHES: Final = ("-", "--", ":", "-.")
INK: Final = "#1c2430"
_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    # Text stays text: searchable, small, and drawn in the reader's own font.
    "grid.alpha": 0.25, "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Hold the look of figures while they are made and written, whatever a matplotlibrc asks for, such as LaTeX."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(height: float, rows: int = 1, *, width: float = 5.0, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of some inches and its axes: one, or an array of `rows` that share the horizontal axis.

    By default it is narrow, so that text can be read on a phone.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True, **options)


def list_rows(axes: Any, names: Sequence[str]) -> None:
    """Make the vertical axis one of names, from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def logarithmic(axes: Any, values: Sequence[float], decades: int = 3) -> None:
    """Make the vertical axis logarithmic; over few `decades`, with ticks between the powers of ten."""
    if values:
        axes.set_yscale("log")
        few = max(values) < 10**decades * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_formatter("")


def svg(figure: Figure, title: str, legend: Sequence[Any] = ()) -> str:
    """Return a figure as SVG for HTML, with a legend above its axes, where it takes no width from them.

    Titles on one page differ, as identifiers depend on them.
    """
    if legend:
        # Two rows, filled column by column, as far as three columns have room.
        columns = 3 if len(legend) < 4 else min(3, (len(legend) + 1) // 2)
        # A character takes about 5.2 points, and a handle 34.
        longest = max(len(str(handle.get_label())) for handle in legend)
        columns = max(1, min(columns, int(72 * figure.get_figwidth() // (5.2 * longest + 34))))
        look: Any = {"frameon": False, "fontsize": 9, "columnspacing": 1.2, "handlelength": 1.6}
        figure.legend(handles=legend, loc="outside upper left", ncols=columns, **look)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"mutbert {title}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    drawing = drawing[drawing.index("<svg") :]
    # Every group has an identifier, the same in every figure; only those that are referred to are of use.
    used = set(re.findall(r"#([\w-]+)", drawing))
    drawing = re.sub(r'(<[^<>]*?) id="([^"]*)"', lambda found: found[0] if found[2] in used else found[1], drawing)
    return printable(drawing.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))


def check_figures(outputs: Iterable[str | Path], *, force: bool, inputs: Iterable[Any] = ()) -> list[Path]:
    """Return the paths of figures; raise InputError, before they are computed, where one could not be written."""
    paths = [Path(output) for output in outputs]
    for path in paths:
        if path.suffix.lower() not in {".png", ".svg"}:
            raise InputError(f"{path}: the suffix chooses the format; it must be one of .png, .svg")
        check_output(path, force=force, inputs=inputs)
    return paths


def write_figures(figure: Figure, title: str, outputs: Iterable[Path], *, force: bool) -> None:
    """Write a figure as PNG, 200 dots per inch on white, or as SVG."""
    for output in outputs:
        with atomic_file(output, force=force) as partial:
            if output.suffix.lower() == ".svg":
                partial.write_text(svg(figure, title), encoding="utf-8")
            else:
                figure.savefig(partial, format="png", dpi=200, facecolor="white", metadata={"Software": None})


def shortened(name: str, most: int = 28) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def forest(
    title: str, panels: Mapping[str, Sequence[tuple[str, float, float, float]]], xlabel: str, *,
    reference: float | None, highlighted: Collection[str],
) -> str:  # fmt: skip
    """Return values with their intervals as SVG: a panel for each key, a row for each (name, value, low, high).

    `reference` is a vertical line, such as chance or no difference; rows of `highlighted` names have the first colour.
    """
    heights = [max(len(rows), 1) for rows in panels.values()]
    height = 0.7 + sum(0.26 * rows + 0.45 for rows in heights)
    figure, axes_P = new_figure(height, len(panels), squeeze=False, height_ratios=heights)
    for axes, (name, rows) in zip(axes_P[:, 0], panels.items(), strict=True):
        for place, (label, value, low, high) in enumerate(rows):
            colour = COLOURS[0] if not highlighted or label in highlighted else COLOURS[1]
            if math.isfinite(value):
                ends = [[max(value - low, 0)], [max(high - value, 0)]] if math.isfinite(low + high) else None
                axes.errorbar(value, place, xerr=ends, fmt="o", color=colour, markersize=4, linewidth=1.4)
        list_rows(axes, [shortened(label) for label, *_ in rows])
        if reference is not None:
            axes.axvline(reference, color=INK, linestyle="--", linewidth=1)
        if name:
            axes.set_title(name, loc="left", fontsize=10)
    axes_P[-1, 0].set_xlabel(xlabel)
    return svg(figure, title)


def binary_curves(label_N: Any, scores: Sequence[Any], *names: Sequence[str]) -> list[str]:
    """Return ROC and precision-recall curves of scores as SVG, with `names` for each; labels are 0 and 1."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    figures = []
    for is_roc, kind, of_kind in zip((True, False), ("ROC", "Precision-recall"), names, strict=True):
        figure, axes = new_figure(4.4)
        for index, (name, score_N) in enumerate(zip(of_kind, scores, strict=True)):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}
            if is_roc:
                x_G, y_G, _ = roc_curve(label_N, score_N)
            else:
                y_G, x_G, _ = precision_recall_curve(label_N, score_N, drop_intermediate=True)
                look["drawstyle"] = "steps-pre"
            # So few points that a page stays small; the ends are kept.
            kept = np.unique(np.linspace(0, len(x_G) - 1, min(len(x_G), 400)).astype(int))
            axes.plot(x_G[kept], y_G[kept], linewidth=1.6, label=shortened(name), **look)
        axes.plot([0, 1], [0, 1] if is_roc else [np.mean(label_N)] * 2, color=INK, linestyle="--", linewidth=1)
        ends = ("false positive rate", "true positive rate") if is_roc else ("recall", "precision")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=ends[0], ylabel=ends[1])
        several = len(scores) > 1
        figures.append(svg(figure, f"{kind} curve{'s' * several}", axes.get_legend_handles_labels()[0] * several))
    return figures


def spectra_figure(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Return spectra by genome over bins that double in width: bars for one genome, a line each for several."""
    figure, axes = new_figure(3.8, width=6.4 if len(counts) == 1 else 7.4)
    count_GB = np.array(list(counts.values()))
    # Rarer than anything in any of the genomes is nothing to show.
    filled = np.flatnonzero(count_GB.sum(axis=0))
    first = int(filled[0]) if len(filled) else len(edges) - 2
    count_GB = count_GB[:, first:]
    # The lowest bin begins at 0, which a logarithmic axis does not have; it is drawn as wide as its neighbours.
    shown = np.array([edges[1] / 2 if edge == 0 else edge for edge in edges[first:]])
    if len(counts) == 1:
        # On a logarithmic axis, bars of this relative width leave equal gaps.
        left, right = shown[:-1] * 2**0.04, shown[1:] * 2**-0.04
        axes.bar(left, count_GB[0], width=right - left, align="edge", color=COLOURS[0])
    else:
        # The line of a genome is broken at a bin without alleles.
        for index, (name, count_B) in enumerate(zip(counts, np.where(count_GB > 0, count_GB, np.nan), strict=True)):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}
            axes.stairs(count_B, shown, linewidth=1.8, baseline=None, label=name, **look)
        logarithmic(axes, count_GB[count_GB > 0].tolist())
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    axes.set(xscale="log", xlim=(shown[0], shown[-1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="frequency of the alternate allele", ylabel="alternate alleles per doubling of frequency")
    axes.grid(visible=False, axis="x")
    return figure


def _points(history: History, key: str) -> Points:
    """Return the steps and the values of one of a history's keys, as far as they can be drawn."""
    shown = ((entry["step"], entry[key]) for entry in history if key in entry and math.isfinite(entry[key]))
    return [(step, value) for step, value in shown if value or key != "grad_norm"]


def curves_section(
    title: str, history: History, panels: Mapping[str, Mapping[str, str]], text: str, *,
    levels: Mapping[str, Mapping[str, float]] | None = None, best_step: int | None = None,
) -> Section:  # fmt: skip
    """Return the figure of panels that are not empty: by vertical axis the history's keys by name, and constants."""
    points = {key: _points(history, key) for curves in panels.values() for key in curves.values()}
    count = sum(key in entry for key in points for entry in history) - sum(map(len, points.values()))
    are = "is" if count == 1 else "are"
    missing = f" {counted(count, 'value')} {are} not drawn: not finite, or a norm of 0." if count else ""
    drawn = {}
    for label, curves in panels.items():
        if shown := {name: (key, points[key]) for name, key in curves.items() if points[key]}:
            drawn[label] = shown
    if not drawn:
        return Section(title, missing.strip() or "Nothing was logged.")
    # The whole history, so that a curve is seen to end early.
    steps = [entry["step"] for entry in history]
    return Section(title, text + missing, _steps_figure(title, steps, drawn, levels or {}, best_step))


def _steps_figure(
    title: str, steps: Sequence[float], panels: Mapping[str, Mapping[str, tuple[str, Points]]],
    levels: Mapping[str, Mapping[str, float]], best_step: int | None,
) -> str:  # fmt: skip
    """Return logged values over the steps as SVG, with constants dashed and the best step dotted.

    Next to constants, the vertical axis shows these and the last values: an untrained model's first ones lie far above.
    """
    legend: dict[str, Any] = {}
    figure, axes_P = new_figure(1.6 + 2.1 * len(panels), len(panels), squeeze=False)
    for row, (axes, (label, curves)) in enumerate(zip(axes_P[:, 0], panels.items(), strict=True)):
        constants = levels.get(label, {})
        for name, (key, points) in curves.items():
            _draw(axes, points, name, key, COLOURS[0 if constants else row])
        for index, (name, value) in enumerate(constants.items()):
            axes.axhline(value, color=COLOURS[1 + index % 5], linestyle="--", linewidth=1.2, label=name)
        if constants:
            low = min([*constants.values(), *(value for _, points in curves.values() for _, value in points)])
            high = max([*constants.values(), *(points[-1][1] for _, points in curves.values())])
            axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3)
        if best_step is not None:
            axes.axvline(best_step, color=INK, linestyle=":", linewidth=1.3, label="best step")
        axes.set_ylabel(label)
        legend |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    margin = 0.04 * (max(steps) - min(steps)) or 1
    axes.set(xlim=(min(steps) - margin, max(steps) + margin), xlabel="optimisation step")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels()
    return svg(figure, title, list(legend.values()) if list(legend) != list(panels) else ())


def _draw(axes: Any, points: Points, name: str, key: str, colour: str) -> None:
    # A single point has no line that could be seen, and many would hide theirs.
    marker = "o" if len(points) == 1 or (key.startswith("eval_") and len(points) < 60) else None
    look = {"alpha": 0.45, "linewidth": 1} if key == "loss" else {"linewidth": 1.5}
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=name, **look)
    values = [value for _, value in points]
    if key == "learning_rate":
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
    elif key == "grad_norm":
        logarithmic(axes, values)
        # Wide enough that there is a tick, even where all norms are about the same.
        axes.set_ylim(min(values) / 2, max(values) * 2)
        axes.yaxis.set_major_formatter("{x:g}")


def calibration_section(sets: Mapping[str, Sequence[tuple[float, float, float]]], text: str) -> Section:
    """Return bins of mean predicted probability, observed share and number of pairs, by the name of a set of pairs."""
    distances, counts = [], [count for bins in sets.values() for *_, count in bins]
    figure, (axes, below) = new_figure(5.8, 2, height_ratios=(3.2, 1))
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
    for colour, (name, bins) in zip(COLOURS, sets.items(), strict=False):
        predicted, observed, pairs = zip(*sorted(bins), strict=True)
        look: Any = {"color": colour, "marker": "o", "markersize": 4}
        axes.plot(predicted, observed, linewidth=1.4, label=name, **look)
        below.plot(predicted, pairs, linewidth=1, linestyle=":", **look)
        off = sum(count * abs(x - y) for x, y, count in bins) / sum(pairs)
        distances.append(f"{off:.4f} for {name}")
    logarithmic(below, counts, decades=1)
    below.set_ylim(min(counts) / 4, max(counts) * 4)
    below.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="observed frequency")
    below.set(ylabel="pairs per bin", xlabel="predicted probability")
    figure.align_ylabels()
    drawing = svg(figure, "Calibration", axes.get_legend_handles_labels()[0])
    text += " Pairs are binned by probability; the lower panel shows how many there are. The mean distance to the "
    text += f"diagonal, weighted by pairs, is {', '.join(distances)}."
    return Section("Calibration", text, drawing)


def closing_sections(history: History, facts: Mapping[str, str], recipe: str) -> list[Section]:
    """Return the optimiser as far as it was logged, facts about the run, and its recipe folded away."""
    panels = {"learning rate": {"learning rate": "learning_rate"}, "gradient norm": {"gradient norm": "grad_norm"}}
    text = "Learning rate, and the gradient's norm before clipping on a logarithmic axis."
    details = {"recipe.yaml": recipe} if recipe else {}
    return [
        curves_section("Optimiser", history, panels, text),
        Section("Run details", "" if facts else "Not known.", facts=facts),
        Section("Recipe", "Every setting of the run." if recipe else "Not known.", details=details),
    ]
