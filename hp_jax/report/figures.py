"""Pictures of results, drawn from plain arrays; colours that colour-blind people can tell apart, no pyplot, no display."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

WIDTH = 9.0
"""Inches; the page shows 100 px an inch."""
DPI = 160
INK, PALE, BLUE, RED = "#222222", "#8a8a8a", "#0072b2", "#d55e00"
STYLES: dict[str, Sequence[Any]] = {  # Okabe and Ito's colours; marker and dash differ as well
    "color": (BLUE, RED, "#009e73", "#cc79a7", "#56b4e9"),
    "marker": ("o", "s", "^", "D", "v"),
    "linestyle": ("-", "--", "-.", ":", (0, (6, 1))),
}
_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
_styled = matplotlib.rc_context(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#666666",
        "axes.labelcolor": INK,
        "text.color": INK,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "svg.hashsalt": "hp_jax",
    }
)


@_styled
def to_png(figure: Figure) -> bytes:
    """The picture's PNG file."""
    return _saved(figure, "png", dpi=DPI)


@_styled
def to_svg(figure: Figure) -> bytes:
    """The picture's SVG file, the same bytes each time."""
    return _saved(figure, "svg", metadata={"Date": None})


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, facecolor="white", **options)
    return file.getvalue()


# --- heads as cells ------------------------------------------------------------------------------------------------------


def centred_limit(values: np.ndarray) -> float:
    """Half the width of a colour scale around 0; a few values far beyond the others do not stretch it."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or sizes.max() == 0:
        return 1.0
    usual = float(np.quantile(sizes, 0.97))
    return usual if sizes.max() > 2 * usual > 0 else float(sizes.max())


@_styled
def heatmap(
    values_AH: np.ndarray,
    rows: Sequence[str],
    label: str,
    *,
    centred: bool,
    marked_AH: np.ndarray | None = None,
    low: str = "RdBu",
) -> Figure:
    """One cell a head, NaN hatched; `centred`: symmetric colours around 0.  Marked cells are framed."""
    height, width = values_AH.shape
    figure = Figure(figsize=(WIDTH, 1.15 + 0.31 * height), layout="constrained")
    axes = figure.add_subplot()
    image = _cells(axes, values_AH, rows, centred=centred, colours=low if centred else "YlGnBu")
    figure.colorbar(image, ax=axes, label=label, pad=0.015, extend=_beyond(values_AH, image.norm))
    if width <= 16:
        for row, head in np.argwhere(np.isfinite(values_AH)):
            _write_value(axes, image, row, head, values_AH[row, head], centred)
    for row, head in np.argwhere(marked_AH) if marked_AH is not None else ():
        axes.add_patch(Rectangle((head - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.6))
    return figure


@_styled
def removals(share_OAH: Mapping[str, np.ndarray], rows: Sequence[str], present_AH: np.ndarray) -> Figure:
    """For each order, the share of heads removed (%) when a head goes; infinite for heads that stay throughout."""
    height = present_AH.shape[0]
    figure = Figure(figsize=(WIDTH, 1.5 + 0.22 * height), layout="constrained")
    panels = figure.subplots(1, len(share_OAH), squeeze=False, sharey=True)[0]
    for axes, (name, share_AH) in zip(panels, share_OAH.items(), strict=True):
        finite_AH = np.where(present_AH, np.minimum(share_AH, 101.0), np.nan)
        image = _cells(axes, finite_AH, rows, centred=False, colours="YlGnBu", panels=len(panels), norm=Normalize(0, 100))
        axes.set_title(name)
    figure.colorbar(image, ax=panels, label="heads removed when this one goes (%)", pad=0.015, extend="max")
    return figure


@_styled
def interactions(together: np.ndarray, heads: Sequence[tuple[int, int]], rows: Sequence[str], label: str) -> Figure:
    """One cell a pair of heads, symmetric colours around 0; lines between rows."""
    figure = Figure(figsize=(WIDTH, 0.8 * WIDTH), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("#d9d9d9")
    limit = centred_limit(together)
    norm = Normalize(-limit, limit)
    image = axes.imshow(together, cmap="RdBu_r", norm=norm, interpolation="nearest")
    ticks = ScalarFormatter()
    ticks.set_powerlimits((-2, 3))
    figure.colorbar(image, ax=axes, label=label, pad=0.015, shrink=0.9, extend=_beyond(together, norm), format=ticks)
    row_n = np.array([row for row, _ in heads])
    for edge in np.flatnonzero(np.diff(row_n)) + 0.5:
        axes.axhline(edge, color="#8f8f8f", linewidth=0.7)
        axes.axvline(edge, color="#8f8f8f", linewidth=0.7)
    middles = [np.flatnonzero(row_n == row).mean() for row in np.unique(row_n)]
    names = [rows[row] for row in np.unique(row_n)]
    axes.set_xticks(middles, names, rotation=90 if len(names) > 8 else 0)
    axes.set_yticks(middles, names)
    axes.tick_params(length=0)
    axes.set(xlabel="first head, by row", ylabel="second head, by row")
    axes.spines[:].set_visible(False)
    return figure


def _cells(
    axes: Axes,
    values_AH: np.ndarray,
    rows: Sequence[str],
    *,
    centred: bool,
    colours: str,
    panels: int = 1,
    norm: Normalize | None = None,
) -> AxesImage:
    height, width = values_AH.shape
    limit = centred_limit(values_AH)
    norm = norm or (Normalize(-limit, limit) if centred else Normalize(0, np.nanmax(values_AH) or 1.0))
    image = axes.imshow(values_AH, cmap=_colours(colours), norm=norm, aspect="auto", interpolation="nearest")
    for row, head in np.argwhere(np.isnan(values_AH)):
        box = Rectangle((head - 0.5, row - 0.5), 1, 1, facecolor="#ececec", edgecolor="#b5b5b5", hatch="////", linewidth=0)
        axes.add_patch(box)
    every = 1 if width * panels <= 36 else 2 if width * panels <= 64 else 4
    axes.set_xticks(np.arange(0, width, every))
    axes.set_yticks(np.arange(height), rows)
    axes.set_xticks(np.arange(width - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(height - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("head, counted from 0")
    axes.spines[:].set_visible(False)
    return image


def _colours(name: str) -> Colormap:
    colours = matplotlib.colormaps[name]
    return colours.with_extremes(over="#06123f") if name == "YlGnBu" else colours


def _beyond(values: np.ndarray, norm: Callable[[np.ndarray], Any]) -> str:
    """Which ends of the colour scale values lie beyond, in matplotlib's words."""
    scaled = np.asarray(norm(values[np.isfinite(values)]))
    low, high = bool((scaled < 0).any()), bool((scaled > 1).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def _write_value(axes: Axes, image: AxesImage, row: int, head: int, value: float, signed: bool) -> None:
    red, green, blue, _ = image.to_rgba(np.array(value))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    digits = 2 if abs(value) < 9.995 else 1
    text = f"{value:{'+' if signed else ''}.{digits}f}" if value else "0"
    axes.text(head, row, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)


# --- curves and points ---------------------------------------------------------------------------------------------------


@_styled
def histogram(metric_n: np.ndarray, full: float, label: str, examples: int) -> Figure:
    """How many heads leave the metric where, each removed alone (Figure 1)."""
    width = max(np.ceil(np.ptp([*metric_n, full]) * examples / 24), 1) / examples  # accuracy goes in steps of 1 / examples
    low, high = (round((edge - full) / width) for edge in (min(metric_n.min(), full), max(metric_n.max(), full)))
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(metric_n, bins=full + (np.arange(low, high + 2) - 0.5) * width, color="#7fb3d5", edgecolor="white", linewidth=1)
    axes.axvline(full, color=RED, linewidth=1.6, linestyle="--")
    axes.margins(y=0.18)
    axes.annotate(
        f"full model {full:.4g}",
        (full, 0.985),
        xytext=(-5, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=RED,
        bbox=_BEHIND,
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"{label} without one head", ylabel="number of heads")
    return figure


@_styled
def scatter(
    x: np.ndarray, effects: Mapping[str, np.ndarray], titles: Sequence[str], names: Sequence[str], label: str
) -> Figure:
    """Importance against each of the effects, one point a head; the heads that stand out are named."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    for axes, (effect, y), title in zip(
        figure.subplots(1, len(effects), squeeze=False)[0], effects.items(), titles, strict=True
    ):
        axes.axhline(0, color=PALE, linewidth=0.8)
        axes.scatter(x, y, s=22, color=BLUE, alpha=0.65, linewidth=0)
        axes.set(xlabel=label, ylabel=effect, title=title)
        axes.margins(0.09)
        _name_outliers(axes, x, y, names)
    return figure


def _name_outliers(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], most: int = 6) -> None:
    """Names the points farthest from the middle that are not next to a named one."""
    spread_n2 = np.stack([x / (np.ptp(x) or 1), y / (np.ptp(y) or 1)], 1)
    distance_n = np.linalg.norm((spread_n2 - np.median(spread_n2, 0)), axis=1)
    named: list[int] = []
    for point in np.argsort(-distance_n):
        near = [abs(spread_n2[point] - spread_n2[other]) for other in named]
        if len(named) < most and all(dx > 0.2 or dy > 0.055 for dx, dy in near):
            named.append(point)
    for point in named:
        away_n2 = spread_n2 - spread_n2[point]
        sides = {"left": (5, 0.09, "center"), "right": (-5, -0.09, "center"), "center": (0, 0.0, "bottom")}
        crowds = {
            side: np.sum((abs(away_n2[:, 0] - to) < 0.09) & (abs(away_n2[:, 1] - 0.04 * (not to)) < 0.025))
            + 99 * (spread_n2[point, 0] + 2 * to > spread_n2[:, 0].max() + 0.09)
            for side, (_, to, _) in sides.items()
        }
        side = min(crowds, key=lambda side: crowds[side])
        shift, _, vertical = sides[side]
        offset = (shift, 4 * (vertical == "bottom"))
        where: dict[str, Any] = {"textcoords": "offset points", "ha": side, "va": vertical, "fontsize": 8, "bbox": _BEHIND}
        axes.annotate(names[point], (x[point], y[point]), xytext=offset, **where)


@_styled
def curves(
    orders: Mapping[str, Sequence[Mapping[str, Any]]], full: float, constant: float, label: str, total: int, points: float
) -> Figure:
    """The metric against the share of heads removed, one curve an order (Figures 3 and 6); bands: the change's interval."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.add_subplot()
    if np.isfinite(full):
        axes.axhline(full, color=INK, linewidth=1, linestyle=":", label=f"full model, {full:.4g}")
    if np.isfinite(constant):
        axes.axhline(constant, color=PALE, linewidth=1, linestyle="--", label=f"best constant answer, {constant:.4g}")
    for place, (name, rows) in enumerate(orders.items()):
        style = {key: values[place % len(values)] for key, values in STYLES.items()}
        share, metric, low, high = (np.array([row[key] for row in rows]) for key in ("share", "metric", "low", "high"))
        axes.fill_between(share, full + low / points, full + high / points, color=style["color"], alpha=0.13, linewidth=0)
        axes.plot(share, metric, label=name, linewidth=1.8, markersize=5, **style)
    axes.set(xlabel="share of heads removed (%)", ylabel=label, xlim=(-1, 101))
    axes.set_xticks(np.arange(0, 101, 10))
    top = axes.secondary_xaxis(
        "top", functions=(lambda share: np.asarray(share) * total / 100, lambda heads: np.asarray(heads) * 100 / total)
    )
    top.set_xlabel("heads removed")
    top.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="best")
    return figure
