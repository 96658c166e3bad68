"""Figures of a mutagenesis table: base by base, a logo above a heat map; or, where there are too many, an overview.

Bases have colours of Okabe and Ito's palette: A green, C blue, G orange, T vermilion. Sizes are in inches. Shape
suffixes: P positions, R a row's positions, V vertices, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_file, check_output
from mutbert.reports.plots import COLOURS, INK, new_figure, png, style, svg

try:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, PathPatch
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath
except ImportError as error:
    raise MissingExtraError("matplotlib") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    Floats = npt.NDArray[np.float64]

SUFFIXES: Final = (".png", ".svg")
MOST_DRAWN: Final = 800
"""Positions that are drawn base by base; of more, there is an overview."""

_BASES: Final = "ACGT"
_BASE_COLOURS: Final = (COLOURS[2], COLOURS[0], COLOURS[4], COLOURS[1])
_MOST_A_ROW: Final = 80
_POINTS: Final = 400
_BITS: Final = 2.0
_UNKNOWN: Final = "#d4d7dc"

# The layout of the figure base by base.
_LEFT, _RIGHT, _BOTTOM = 0.62, 0.42, 0.42
# From the top: the place, how it was made, and the key, of which each line has this height.
_TITLE, _LINE, _KEY = 0.4, 0.17, 0.46
_LOGO, _BETWEEN, _MAP, _GAP = 0.62, 0.06, 0.56, 0.42
_LEAST_WIDTH, _BASE_WIDTH, _WIDEST_BASE = 6.6, 0.108, 0.3
# Of few bases, with the key's parts below one another.
_NARROW: Final = 3.2
_CHARACTER: Final = 0.068
_LABEL: Final = 0.8


class _Data(NamedTuple):
    """The table: the contig, the 0-based first position, what is drawn of each position, and how it was made."""

    contig: str
    start: int
    made: str
    llr_P4: Floats
    probability_P4: Floats
    reference_P: npt.NDArray[np.str_]


def check_figures(outputs: Sequence[Path], *, force: bool) -> None:
    """Refuse figures that could not be written, before they are computed.

    Parameters
    ----------
    outputs : sequence of Path
        The figures.
    force : bool
        Whether they may be replaced.

    Raises
    ------
    InputError
        When a suffix names no format, or a figure exists and `force` is false.
    """
    for output in outputs:
        if output.suffix.lower() not in SUFFIXES:
            raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(SUFFIXES)}")
        check_output(output, force=force)


def draw_mutagenesis(table: str | Path, outputs: Sequence[str | Path], *, force: bool = False) -> None:
    """Draw a table of `mutbert.mutate_region`.

    Up to `MOST_DRAWN` positions are drawn base by base: a logo, of which a stack is as high as the information of the
    masked distribution, 2 bits less its entropy, and a base has its probability's part of it; below it, a heat map of
    the log-likelihood ratios, with a dot at the reference. Of more positions, the mean absolute ratio of the three
    substitutions and the mean entropy are drawn, over so many bases a point that there are at most 400.

    Parameters
    ----------
    table : str or Path
        The Parquet file.
    outputs : sequence of str or Path
        The figures: ``.png``, 200 dots an inch, or ``.svg``, in which text is text.
    force : bool
        Replace them where they exist.

    Raises
    ------
    InputError
        When the table cannot be read or is another, or a figure cannot be written.
    MissingExtraError
        When pyarrow is not installed.
    """
    paths = [Path(output) for output in outputs]
    check_figures(paths, force=force)
    file = _opened(Path(table))
    positions = int(file.metadata.num_rows)
    with style():
        if positions <= MOST_DRAWN:
            data = _read(file.read())
            figure = _base_by_base(data)
            title = f"Mutagenesis of {_place(data.contig, data.start, positions)}"
        else:
            figure, place = _overview(file, positions)
            title = f"Mutagenesis of {place}"
        for output in paths:
            content = png(figure) if output.suffix.lower() == ".png" else svg(figure, title).encode()
            with atomic_file(output, force=force) as partial:
                partial.write_bytes(content)


def _opened(table: Path) -> Any:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow") from None
    try:
        file = parquet.ParquetFile(table)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{table}: cannot be read as Parquet ({error}); check the path") from None
    if b"mutbert_mutagenesis" not in (file.schema_arrow.metadata or {}) or not file.metadata.num_rows:
        raise InputError(f"{table}: is no table of 'mutbert mutagenesis'; make one with it")
    return file


def _read(rows: Any) -> _Data:
    llr_P4, probability_P4 = (
        np.stack([rows[f"{kind}_{base}"].to_numpy() for base in _BASES], axis=1).astype(np.float64)
        for kind in ("llr", "probability")
    )
    reference_P = np.array(rows["reference"].to_pylist())
    made = _made({name.decode(): value.decode() for name, value in rows.schema.metadata.items()})
    return _Data(str(rows["contig"][0]), int(rows["start"][0].as_py()), made, llr_P4, probability_P4, reference_P)


def _made(metadata: Mapping[str, str]) -> str:
    """Say what the model saw, as far as the table says it: surroundings, model, context and strands."""
    words = []
    if "surroundings" in metadata:
        words.append(f"surroundings {metadata.get('sample') or metadata['surroundings']}")
    if "model" in metadata:
        words.append(f"model {'/'.join(Path(metadata['model']).parts[-2:])}")
    if "context" in metadata:
        words.append(f"context {int(metadata['context']):,}")
    if "strands" in metadata:
        words.append("both strands" if metadata["strands"] == "both" else "forward strand")
    return ", ".join(words)


def _place(contig: str, start: int, positions: int) -> str:
    end = "" if positions == 1 else f"–{start + positions:,}"
    return f"{contig}:{start + 1:,}{end}"


def information(probability_P4: Floats) -> Floats:
    """Give the information of distributions over four bases, 2 + Σ p log2 p, in bits, shape (P,); NaN where one is."""
    with np.errstate(divide="ignore"):
        logarithm_P4 = np.where(probability_P4 > 0, np.log2(np.where(probability_P4 > 0, probability_P4, 1)), 0)
    bits_P: Floats = _BITS + (np.where(np.isnan(probability_P4), np.nan, probability_P4) * logarithm_P4).sum(axis=1)
    return np.maximum(bits_P, 0)


def _base_by_base(data: _Data) -> Figure:
    positions = len(data.reference_P)
    rows = -(-positions // _MOST_A_ROW)
    # Rows of one length look better than one that is left over.
    a_row = -(-positions // rows)
    base_width = min(max((_LEAST_WIDTH - _LEFT - _RIGHT) / a_row, _BASE_WIDTH), _WIDEST_BASE)
    width = max(_LEFT + a_row * base_width + _RIGHT, _NARROW)
    title = _place(data.contig, data.start, positions)
    # Titles are bold, and larger.
    width = max(width, _LEFT + 1.7 * _CHARACTER * len(title) + 0.1)
    is_narrow = width < _LEAST_WIDTH - 1e-9
    made = textwrap.wrap(data.made, int((width - _LEFT - 0.1) / _CHARACTER))
    key_top = _TITLE + _LINE * len(made)
    top = key_top + _KEY + (2.5 * _LINE if is_narrow else 0)
    row_height = _LOGO + _BETWEEN + _MAP
    height = top + rows * row_height + (rows - 1) * _GAP + _BOTTOM
    figure = Figure(figsize=(width, height))
    bits_P = information(data.probability_P4)
    norm = _norm(data.llr_P4)
    colours = colormaps["RdBu"].with_extremes(bad=_UNKNOWN)
    for row in range(rows):
        part = slice(row * a_row, min((row + 1) * a_row, positions))
        shown = part.stop - part.start
        bottom = height - top - row * (row_height + _GAP) - row_height
        box = (_LEFT / width, shown * base_width / width)
        below = figure.add_axes((box[0], bottom / height, box[1], _MAP / height))
        above = figure.add_axes((box[0], (bottom + _MAP + _BETWEEN) / height, box[1], _LOGO / height), sharex=below)
        first = data.start + part.start + 1
        _draw_logo(above, first, data.probability_P4[part], bits_P[part])
        _draw_map(below, first, data.llr_P4[part], data.reference_P[part], colours, norm)
        _coordinates(below, first, shown, base_width)
    figure.axes[-2].set_xlabel(f"position on {data.contig}", fontsize=9, loc="left")
    figure.text(_LEFT / width, 1 - 0.14 / height, title, va="top", weight="bold")
    for number, line in enumerate(made):
        middle = 1 - (_TITLE + (number + 0.4) * _LINE) / height
        figure.text(_LEFT / width, middle, line, va="center_baseline", fontsize=8)
    _key(figure, (width, height), key_top, data, colours, norm, is_narrow=is_narrow)
    return figure


def _norm(llr_P4: Floats) -> Normalize:
    """Choose the range of colours: symmetric about 0, and such that few outliers do not make the rest pale."""
    size = np.abs(llr_P4[np.isfinite(llr_P4) & (llr_P4 != 0)])
    limit = float(np.quantile(size, 0.99)) if len(size) else 1.0
    step = 10.0 ** math.floor(math.log10(limit)) / 2
    limit = math.ceil(limit / step) * step
    return Normalize(-limit, limit)


def _draw_logo(axes: Axes, first: int, probability_R4: Floats, bits_R: Floats) -> None:
    height_R4 = np.where(np.isnan(probability_R4), 0, probability_R4) * np.nan_to_num(bits_R)[:, None]
    # The likeliest base stands on top.
    order_R4 = np.argsort(height_R4, axis=1, kind="stable")
    stacked_R4 = np.take_along_axis(height_R4, order_R4, axis=1)
    bottom_R4 = np.empty_like(stacked_R4)
    np.put_along_axis(bottom_R4, order_R4, np.cumsum(stacked_R4, axis=1) - stacked_R4, axis=1)
    left_R = first + np.arange(len(bits_R)) - 0.5
    for base, letter in enumerate(_BASES):
        outline = _letter(letter)
        # What is thinner than a hair would only be a smear.
        shown = np.flatnonzero(height_R4[:, base] > _BITS / 200)
        scale = np.stack([np.full(len(shown), 0.94), height_R4[shown, base]], axis=1)
        corner = np.stack([left_R[shown] + 0.03, bottom_R4[shown, base]], axis=1)
        vertices_V2 = (np.asarray(outline.vertices) * scale[:, None] + corner[:, None]).reshape(-1, 2)
        codes_V = np.tile(np.asarray(outline.codes), len(shown))
        if len(shown):
            letters = Outline(vertices_V2, codes_V)
            axes.add_patch(PathPatch(letters, facecolor=_BASE_COLOURS[base], linewidth=0))
    # The same in every figure, so that they can be compared.
    axes.set_ylim(0, _BITS)
    axes.set_yticks([0, 1, 2], labels=["0", "1", "2"], fontsize=7)
    axes.set_ylabel("bits", fontsize=8)
    axes.grid(visible=False)
    axes.spines["bottom"].set_linewidth(0.6)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.tick_params(axis="y", length=2.5, pad=2)


def _letter(letter: str) -> Outline:
    """Give a letter's outline, which fills the square from 0 to 1."""
    outline = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    box = outline.get_extents()
    # Closing vertices are not part of the extents, and have no place of their own.
    least_2, most_2 = np.asarray(box.min), np.asarray(box.max)
    vertices_V2 = (np.asarray(outline.vertices) - least_2) / (most_2 - least_2)
    return Outline(np.clip(vertices_V2, 0, 1), outline.codes)


def _draw_map(
    axes: Axes, first: int, llr_R4: Floats, reference_R: npt.NDArray[np.str_], colours: Any, norm: Normalize
) -> None:
    edges = first + np.arange(len(llr_R4) + 1) - 0.5
    # A at the top, as it is in the list.
    drawn = np.ma.masked_invalid(llr_R4.T)
    axes.pcolormesh(
        edges, np.arange(5) - 0.5, drawn, cmap=colours, norm=norm, edgecolors="white", linewidth=0.3, rasterized=False
    )
    for base, letter in enumerate(_BASES):
        at = np.flatnonzero(reference_R == letter)
        axes.plot(first + at, np.full(len(at), base), ".", color=INK, markersize=2.6, markeredgewidth=0)
    axes.set_ylim(3.5, -0.5)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks(range(4), labels=list(_BASES), fontsize=8, weight="bold")
    for label, colour in zip(axes.get_yticklabels(), _BASE_COLOURS, strict=True):
        label.set_color(colour)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, pad=3)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set(visible=True, linewidth=0.5, color="#8a919c")


def _coordinates(axes: Axes, first: int, count: int, base_width: float) -> None:
    """Mark round positions, so far apart that their numbers do not touch."""
    least = _LABEL / base_width
    step = next(size for size in (1, 2, 5, 10, 20, 50) if size >= least or size == 50)
    ticks = np.arange(-(-first // step) * step, first + count, step)
    if not len(ticks):
        ticks = np.array([first])
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks], fontsize=8)
    axes.tick_params(axis="x", length=2.5, pad=2)


def _key(
    figure: Figure,
    size: tuple[float, float],
    top: float,
    data: _Data,
    colours: Any,
    norm: Normalize,
    *,
    is_narrow: bool,
) -> None:
    """Put the colour bar and what the marks are between the title and the rows: beside it, or below."""
    width, height = size
    bar_width, middle = 1.3, 1 - (top + 0.1) / height
    beyond = bool(np.any(np.abs(data.llr_P4[np.isfinite(data.llr_P4)]) > norm.vmax))
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        cax=figure.add_axes((_LEFT / width, middle - 0.05 / height, bar_width / width, 0.1 / height)),
        orientation="horizontal",
        extend="both" if beyond else "neither",
        ticks=[norm.vmin, 0, norm.vmax],
    )
    bar.ax.set_xticklabels([f"{value:g}".replace("-", "−") for value in (norm.vmin, 0, norm.vmax)], fontsize=7)
    bar.ax.tick_params(length=2, pad=1)
    bar.ax.grid(visible=False)
    bar.outline.set_linewidth(0.4)
    beside = _LEFT if is_narrow else _LEFT + bar_width + 0.14
    words = middle - 0.33 / height if is_narrow else middle
    figure.text(beside / width, words, "ln P(base) − ln P(reference), nats", va="center_baseline", fontsize=8)
    marks: list[Any] = [Line2D([], [], linestyle="", marker=".", color=INK, markersize=4, label="reference")]
    if np.isnan(data.llr_P4).any():
        marks.append(Patch(facecolor=_UNKNOWN, label="no value"))
    figure.legend(
        handles=marks,
        loc="center left",
        bbox_to_anchor=((beside / width, words - _LINE / height) if is_narrow else ((beside + 2.15) / width, middle)),
        ncols=2,
        frameon=False,
        fontsize=8,
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=1.2,
        borderpad=0,
        borderaxespad=0,
    )


def _parts(file: Any) -> Iterator[_Data]:
    for group in range(file.num_row_groups):
        yield _read(file.read_row_group(group))


def _overview(file: Any, positions: int) -> tuple[Figure, str]:
    a_point = -(-positions // _POINTS)
    count = -(-positions // a_point)
    total_2C, number_2C = np.zeros((2, count)), np.zeros((2, count))
    contig, start, made, done = "", 0, "", 0
    for data in _parts(file):
        if not done:
            contig, start, made = data.contig, data.start, data.made
        bin_P = (done + np.arange(len(data.reference_P))) // a_point
        # The reference is 0, and one of four where there is one.
        size_P = np.abs(data.llr_P4).sum(axis=1) / 3
        entropy_P = (_BITS - information(data.probability_P4)) * math.log(2)
        for number, value_P in enumerate((size_P, entropy_P)):
            there = ~np.isnan(value_P)
            total_2C[number] += np.bincount(bin_P[there], value_P[there], minlength=count)
            number_2C[number] += np.bincount(bin_P[there], minlength=count)
        done += len(bin_P)
    with np.errstate(invalid="ignore"):
        mean_2C = total_2C / number_2C
    place = _place(contig, start, positions)
    # A point stands in the middle of its bases.
    end_C = np.minimum((np.arange(count) + 1) * a_point, positions)
    at_C = start + 1 + (np.arange(count) * a_point + end_C - 1) / 2
    figure, panels = new_figure(7.4, 4.2, 2)
    for axes, mean_C, colour, name in zip(
        panels, mean_2C, COLOURS[:2], ("mean |LLR|, nats", "entropy, nats"), strict=True
    ):
        axes.plot(at_C, mean_C, color=colour, linewidth=1)
        axes.set_ylabel(name, fontsize=9)
        axes.grid(visible=False, axis="x")
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1.15 * math.log(4))
    panels[1].set_yticks([0, 0.5, 1])
    panels[1].axhline(math.log(4), color=INK, linestyle=":", linewidth=1)
    panels[1].annotate(
        "all bases alike", (1, math.log(4)), xycoords=("axes fraction", "data"), xytext=(0, 2),
        textcoords="offset points", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    panels[1].set_xlim(start + 0.5, start + positions + 0.5)
    panels[1].xaxis.get_major_locator().set_params(integer=True, nbins=6)
    panels[1].xaxis.set_major_formatter("{x:,.0f}")
    panels[1].set_xlabel(f"position on {contig}")
    each = "a base a point" if a_point == 1 else f"means over {a_point:,} bases a point"
    panels[0].set_title(place, loc="left", fontsize=10, weight="bold", pad=32 if made else 20)
    panels[0].annotate(
        f"{made}\n" * bool(made)
        + f"{positions:,} bases, more than the {MOST_DRAWN} that are drawn base by base; {each}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        fontsize=8,
    )
    figure.align_ylabels()
    return figure, place
