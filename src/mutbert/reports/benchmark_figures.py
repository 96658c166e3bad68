"""Figures of benchmark results, as SVG text that a page can hold.

A model has the same colour and shape in all figures of a page; trivial baselines are dark lines. All are narrow, with
the legend above, so that their text can be read on a telephone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from mutbert.reports.plots import COLOURS, INK, new_figure, style, svg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

_WIDTH: Final = 5.0
_GREY: Final = "#7a8694"
_BAND: Final = "#eef0f3"
_SHAPES: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final = ("-", (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
# Points that a character of the drawings' font takes, per point of its size.
_CHARACTER: Final = 0.58
_LABEL: Final = 8


class Look(NamedTuple):
    """How a model is drawn.

    Parameters
    ----------
    colour, shape : str
        Of its points, as Matplotlib names them.
    """

    colour: str
    shape: str


class Point(NamedTuple):
    """A score, with its 95 % interval; not a number where there is none.

    Parameters
    ----------
    value, low, high : float
        The score and the ends of its interval.
    published : float
        What the paper has for the same.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    published: float = math.nan


class Sized(NamedTuple):
    """The average of a model of a known size.

    Parameters
    ----------
    label : str
        What is written beside it; it may be empty.
    parameters : int
        Numbers in the model, above 0.
    point : Point
        The average; a hollow point is drawn at its ``published``.
    """

    label: str
    parameters: int
    point: Point


class Panel(NamedTuple):
    """A panel of `size_figure`.

    Parameters
    ----------
    title : str
        Written above it.
    metric : str
        What its vertical axis shows.
    models : sequence of Sized
        Filled points, and hollow ones for the paper's numbers.
    levels : mapping of str to float
        Averages of what has no size, by name.
    """

    title: str
    metric: str
    models: Sequence[Sized]
    levels: Mapping[str, float]


class Difference(NamedTuple):
    """A row of `forest_figure`.

    Parameters
    ----------
    label : str
        What was compared on.
    point : Point
        The difference and its interval.
    clear : bool
        Whether it is told from 0, so that its point is filled.
    """

    label: str
    point: Point
    clear: bool


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Give every model its look; 42 models in a row have different ones."""
    return {
        label: Look(COLOURS[index % len(COLOURS)], _SHAPES[index % len(_SHAPES)]) for index, label in enumerate(labels)
    }


def amount(number: float) -> str:
    """Write a number of parameters in thousands, millions or thousand millions: ``"86.1 M"``."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.1f}".removesuffix(".0") + name
    return f"{number:g}"


def task_figure(
    title: str,
    metric: str,
    tasks: Sequence[str],
    models: Mapping[str, Sequence[Point]],
    baselines: Mapping[str, Sequence[Point]],
    look: Mapping[str, Look],
) -> str:
    """Draw the scores of models on tasks: tasks from the top down, and in each the models under each other.

    Parameters
    ----------
    title : str
        What the figure is called.
    metric : str
        What the horizontal axis shows.
    tasks : sequence of str
        The tasks' names.
    models : mapping of str to sequence of Point
        Scores by the model's name, one a task; hollow points are the paper's. What is not finite is not drawn.
    baselines : mapping of str to sequence of Point
        The same for trivial baselines: a line across all of the task, and a grey field for its interval.
    look : mapping of str to Look
        The models' looks.

    Returns
    -------
    str
        SVG.
    """
    # Points lie in rows of their own, so that eight models on eighteen tasks do not hide each other.
    band = max(0.32, 0.13 + 0.095 * len(models))
    handles = [_handle(name, look[name]) for name in models]
    if any(math.isfinite(point.published) for points in models.values() for point in points):
        handles.append(_hollow())
    handles += [
        Line2D([], [], color=INK, linestyle=_DASHES[index % len(_DASHES)], linewidth=1.6, label=_short(name, 60))
        for index, name in enumerate(baselines)
    ]
    columns = _columns(handles)
    with style():
        figure, axes = new_figure(_WIDTH, 0.8 + 0.19 * math.ceil(len(handles) / columns) + band * max(len(tasks), 1))
        for place in range(0, len(tasks), 2):
            axes.axhspan(place - 0.5, place + 0.5, color=_GREY, alpha=0.09, linewidth=0)
        for index, points in enumerate(baselines.values()):
            _baseline(axes, points, _DASHES[index % len(_DASHES)])
        height = 0.84 / max(len(models), 1)
        for index, (name, points) in enumerate(models.items()):
            rows = [place - 0.42 + (index + 0.5) * height for place in range(len(points))]
            _points(axes, points, rows, look[name])
        axes.set_yticks(range(len(tasks)), [_short(task, 28) for task in tasks], fontsize=9)
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        # The upper scale is what is near for the first tasks of a long figure.
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labeltop=len(tasks) > 6, labelsize=9)
        axes.set_xlabel(metric)
        _legend(figure, handles, columns)
        return svg(figure, title)


def size_figure(title: str, panels: Sequence[Panel], look: Mapping[str, Look]) -> str:
    """Draw averages against the number of parameters.

    Parameters
    ----------
    title : str
        What the figure is called.
    panels : sequence of Panel
        Panels under each other, with one horizontal axis, which is logarithmic.
    look : mapping of str to Look
        Looks by label; points without one, the paper's alone, are grey.

    Returns
    -------
    str
        SVG.
    """
    with style():
        figure, rows = new_figure(_WIDTH, 0.5 + 3.5 * len(panels), len(panels), squeeze=False)
        sizes = [model.parameters for panel in panels for model in panel.models]
        for axes, panel in zip(rows[:, 0], panels, strict=True):
            for model in panel.models:
                _sized(axes, model, look.get(model.label, Look(_GREY, "o")))
            for index, value in enumerate(panel.levels.values()):
                axes.axhline(value, color=INK, linestyle="--", linewidth=1, alpha=0.8 if index == 0 else 0.5)
            axes.set_xscale("log")
            if sizes:
                axes.set_xlim(min(sizes) / 2.5, max(sizes) * 2.5)
            axes.margins(y=0.12)
            axes.set_ylabel(panel.metric)
            axes.set_title(panel.title, loc="left", fontsize=10)
        rows[-1, 0].set_xlabel("parameters")
        if sizes and max(sizes) < 30 * min(sizes):
            # Powers of ten alone would be too few.
            rows[-1, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        rows[-1, 0].xaxis.set_major_formatter(lambda value, _place: amount(value))
        rows[-1, 0].xaxis.set_minor_formatter("")
        handles = [Line2D([], [], color=_GREY, linestyle="", marker="o", markersize=5, label="here")]
        if any(math.isfinite(model.point.published) for panel in panels for model in panel.models):
            handles.append(_hollow())
        _legend(figure, handles, 2)
        # Where labels have room is known only once the axes have their place.
        figure.draw_without_rendering()
        for axes, panel in zip(rows[:, 0], panels, strict=True):
            _labels(axes, panel)
        return svg(figure, title)


def forest_figure(title: str, metric: str, groups: Mapping[str, Sequence[Difference]]) -> str:
    """Draw differences with their intervals, in groups under headings.

    Parameters
    ----------
    title : str
        What the figure is called.
    metric : str
        What the horizontal axis shows.
    groups : mapping of str to sequence of Difference
        Differences by heading, from the top down. Those that are told from 0 are filled, what is not finite is not
        drawn.

    Returns
    -------
    str
        SVG.
    """
    count = sum(len(rows) + 1 for rows in groups.values())
    with style():
        figure, axes = new_figure(_WIDTH, 0.75 + 0.185 * max(count, 2))
        axes.axvline(0, color=INK, linewidth=1)
        names: list[tuple[int, str]] = []
        top = 0
        for heading, rows in groups.items():
            # Opaque and above the line at 0, which would cross the heading.
            axes.axhspan(top - 0.5, top + 0.5, color=_BAND, linewidth=0, zorder=2.5)
            axes.text(0.01, top, _short(heading, 52), transform=axes.get_yaxis_transform(), fontsize=8, va="center")
            for place, row in enumerate(rows, start=top + 1):
                names.append((place, _short(row.label, 28)))
                _row(axes, row.point, place, Look(COLOURS[0], "o"), filled=row.clear)
            top += len(rows) + 1
        axes.set_yticks([place for place, _ in names], [name for _, name in names], fontsize=8.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labeltop=count > 20, labelsize=9)
        axes.set_xlabel(metric)
        return svg(figure, title)


def _points(axes: Any, points: Sequence[Point], rows: Sequence[float], look: Look) -> None:
    # All of a model's points at once: a figure of some hundred points stays small.
    spans = [(y, p.low, p.high) for p, y in zip(points, rows, strict=True) if math.isfinite(p.low + p.high)]
    if spans:
        y, low, high = zip(*spans, strict=True)
        axes.hlines(y, low, high, color=look.colour, linewidth=1.1, alpha=0.75)
    for values, face in (([p.published for p in points], "white"), ([p.value for p in points], look.colour)):
        drawn = [(x, y) for x, y in zip(values, rows, strict=True) if math.isfinite(x)]
        if drawn:
            axes.plot(
                *zip(*drawn, strict=True),
                color=look.colour,
                linestyle="",
                marker=look.shape,
                markersize=4.2,
                markerfacecolor=face,
                markeredgewidth=0.9,
            )


def _row(axes: Any, point: Point, place: float, look: Look, *, filled: bool) -> None:
    if math.isfinite(point.low + point.high):
        axes.hlines(place, point.low, point.high, color=look.colour, linewidth=1.2)
    if math.isfinite(point.value):
        face = look.colour if filled else "white"
        axes.plot(point.value, place, color=look.colour, marker=look.shape, markersize=4.5, markerfacecolor=face)


def _baseline(axes: Any, points: Sequence[Point], dashes: Any) -> None:
    for place, point in enumerate(points):
        if math.isfinite(point.low + point.high):
            axes.fill_betweenx([place - 0.46, place + 0.46], point.low, point.high, color=INK, alpha=0.09, linewidth=0)
    drawn = [(place, point.value) for place, point in enumerate(points) if math.isfinite(point.value)]
    if drawn:
        axes.vlines(
            [value for _, value in drawn],
            [place - 0.46 for place, _ in drawn],
            [place + 0.46 for place, _ in drawn],
            color=INK,
            linestyle=dashes,
            linewidth=1.6,
        )


def _sized(axes: Any, model: Sized, look: Look) -> None:
    x, point = model.parameters, model.point
    if math.isfinite(point.value + point.published):
        axes.vlines(x, *sorted((point.value, point.published)), color=look.colour, linewidth=0.8, linestyle=":")
    if math.isfinite(point.low + point.high):
        axes.vlines(x, point.low, point.high, color=look.colour, linewidth=1.3, alpha=0.8)
    for y, face in ((point.published, "white"), (point.value, look.colour)):
        if math.isfinite(y):
            axes.plot(x, y, color=look.colour, marker=look.shape, markersize=5.5, markerfacecolor=face)


class _Box(NamedTuple):
    """A rectangle in points of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def _labels(axes: Any, panel: Panel) -> None:
    """Write every label at the free place that is nearest to its point, or the least taken one."""
    scale = 72 / axes.figure.dpi
    frame = _Box(*(value * scale for value in axes.get_window_extent().extents))

    def points(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return across * scale, up * scale

    taken = []
    for model in panel.models:
        finite = [value for value in model.point if math.isfinite(value)]
        ends = [points(model.parameters, value) for value in finite]
        taken += [_Box(x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in ends]
        if ends:
            taken.append(_Box(ends[0][0] - 1, min(y for _, y in ends), ends[0][0] + 1, max(y for _, y in ends)))
    for value in panel.levels.values():
        _, y = points(axes.get_xlim()[0], value)
        taken.append(_Box(frame.left, y - 0.8, frame.right, y + 0.8))
    for name, value in panel.levels.items():
        text = _short(name, 30)
        _, y = points(axes.get_xlim()[0], value)
        width = _CHARACTER * _LABEL * len(text)
        at = min(
            (
                _Box(left, bottom, left + width, bottom + 9)
                for left in (frame.left + 3, frame.right - width - 3)
                for bottom in (y + 1.5, y - 10.5)
            ),
            key=lambda box: _cost(box, taken, frame),
        )
        taken.append(at)
        _write(axes, text, (at.left - frame.left, at.bottom - frame.bottom))
    for model in sorted(panel.models, key=lambda model: (model.parameters, _anchor(model.point))):
        y = _anchor(model.point)
        if not model.label or not math.isfinite(y):
            continue
        # Without the owner of a name of the Hub's, which takes room here; the tables have it.
        text = _short(model.label.rpartition("/")[2], 24)
        x, y = points(model.parameters, y)
        _, at = min(
            ((_cost(box, taken, frame) + 0.6 * reach, box) for reach, box in _places(x, y, text)),
            key=lambda found: found[0],
        )
        taken.append(at)
        # Widths are estimates, so that the end beside the point is the one that is set.
        right = at.right <= x
        far = not at.overlap(_Box(x - 12, y - 12, x + 12, y + 12))
        _write(
            axes,
            text,
            ((at.right if right else at.left) - frame.left, at.bottom - frame.bottom),
            (x - frame.left, y - frame.bottom) if far else None,
            # A line to the point begins where it does not cross the text.
            (1.0, 0.5) if right else (0.0, 0.5) if at.left >= x else (0.5, 0.0 if at.bottom > y else 1.0),
        )


def _anchor(point: Point) -> float:
    return point.value if math.isfinite(point.value) else point.published


def _places(x: float, y: float, text: str) -> Iterator[tuple[float, _Box]]:
    """Give the places where a point's label may stand, as boxes in points, each with how far it is."""
    width = _CHARACTER * _LABEL * len(text)
    for reach in (0, 8, 16, 26, 38, 52, 68, 86):
        # Centred, it would lie on its point, unless it is above or below.
        for left in (*((x - width / 2,) if reach else ()), x + 6, x - 6 - width):
            for bottom in (y - 4.5 + reach, y - 4.5 - reach):
                yield reach, _Box(left, bottom, left + width, bottom + 9)


def _cost(box: _Box, taken: Sequence[_Box], frame: _Box) -> float:
    return sum(box.overlap(other) for other in taken) + 20 * (box.area() - box.overlap(frame))


def _write(
    axes: Any,
    text: str,
    at: tuple[float, float],
    point: tuple[float, float] | None = None,
    start: tuple[float, float] = (0.0, 0.5),
) -> None:
    line = {"arrowstyle": "-", "linewidth": 0.5, "color": _GREY, "shrinkA": 1, "shrinkB": 3, "relpos": start}
    written = axes.annotate(
        text,
        xy=point or at,
        xycoords="axes points",
        xytext=at,
        textcoords="axes points",
        fontsize=_LABEL,
        va="bottom",
        ha="right" if start[0] == 1 else "left",
        arrowprops=line if point else None,
    )
    # The axes have their place already, and labels must not move it.
    written.set_in_layout(False)


def _handle(name: str, look: Look) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.shape, markersize=4.2, linewidth=1.1, label=_short(name, 60))


def _hollow() -> Line2D:
    return Line2D(
        [], [], color=_GREY, linestyle="", marker="o", markersize=5, markerfacecolor="white", label="the paper's"
    )


def _columns(handles: Sequence[Line2D]) -> int:
    """Give how many columns a legend's names have room for."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    return max(1, min(3, len(handles), int(_WIDTH * 72 // (_CHARACTER * 9 * longest + 34))))


def _legend(figure: Figure, handles: Sequence[Line2D], columns: int) -> None:
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            fontsize=9,
            columnspacing=1.2,
            handlelength=1.6,
        )


def _short(name: str, most: int) -> str:
    """Bring a name into one line of at most so many characters; its ends tell most, so the middle goes."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - 1 - most // 2) :]}"
