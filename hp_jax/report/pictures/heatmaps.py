"""Pictures of heads as cells, a row of the head mask a line, in blocks of one type of attention
each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import ScalarFormatter

from hp_jax.descriptors import format_descriptor
from hp_jax.report.pictures.style import INK, ON_DARK, ON_LIGHT, WIDTH, Drawing, styled
from hp_jax.report.row_types import NAMES, by_type, type_of

MOST_SAID = 4000
"""Cells of a large matrix that say their numbers; each is some 100 bytes of the page."""


def centred_limit(values: np.ndarray) -> float:
    """Half the width of a colour scale around 0; a few values far beyond the others do not stretch
    it."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or sizes.max() == 0:
        return 1.0
    usual = float(np.quantile(sizes, 0.97))
    return usual if sizes.max() > 2 * usual > 0 else float(sizes.max())


@styled
def heatmap(
    values_AH: np.ndarray,
    rows: Sequence[str],
    label: str,
    *,
    centred: bool,
    marked_AH: np.ndarray | None = None,
    colours: str = "RdBu",
    decimals: int = 2,
    said: Mapping[str, str] | None = None,
) -> Drawing:
    """One cell a head with its value, NaN hatched; `centred`: symmetric `colours` (matplotlib's)
    around 0.  Marked cells are framed.

    said: by a head's name (`enc.0.3`) what its cell says when one points at it; the value if it
    is not given.
    """
    figure = _figure(rows, 0.31)
    limit = centred_limit(values_AH) if centred else np.nanmax(values_AH) or 1.0
    norm = Normalize(-limit if centred else 0, limit)
    for (axes,), indices in _blocks(figure, rows, [""]):
        image = _cells(
            axes,
            values_AH[indices],
            [rows[index] for index in indices],
            norm,
            colours if centred else "YlGnBu",
        )
        for line, head in np.argwhere(np.isfinite(values_AH[indices])):
            name = format_descriptor({rows[indices[line]]: [head]})
            value = _number(values_AH[indices[line], head], centred, decimals if centred else 3)
            text = said[name] if said else f"{label} {value}"
            figure.say(axes, f"{name}: {text}", head - 0.5, line - 0.5, 1, 1)
        for line, head in (
            np.argwhere(np.isfinite(values_AH[indices])) if values_AH.shape[1] <= 16 else ()
        ):
            value = values_AH[indices[line], head]
            _write_value(axes, image, line, head, value, centred, decimals)
        for line, head in np.argwhere(marked_AH[indices]) if marked_AH is not None else ():
            axes.add_patch(
                Rectangle(
                    (head - 0.46, line - 0.46),
                    0.92,
                    0.92,
                    fill=False,
                    edgecolor=_over(image, values_AH[indices[line], head]),
                    linewidth=1.6,
                )
            )
    axes.set_xlabel("head, counted from 0")
    figure.colorbar(image, ax=figure.axes, label=label, pad=0.015, extend=_beyond(values_AH, norm))
    return figure


@styled
def removals(
    share_OAH: Mapping[str, np.ndarray], rows: Sequence[str], present_AH: np.ndarray
) -> Drawing:
    """For each order, the share of heads removed (%) when a head goes; infinite for heads that stay
    throughout."""
    figure = _figure(rows, 0.22)
    for panels, indices in _blocks(figure, rows, list(share_OAH)):
        for axes, share_AH in zip(panels, share_OAH.values(), strict=True):
            finite_AH = np.where(present_AH, np.minimum(share_AH, 101.0), np.nan)[indices]
            image = _cells(
                axes,
                finite_AH,
                [rows[index] for index in indices],
                Normalize(0, 100),
                "YlGnBu",
                len(panels),
            )
            for line, head in np.argwhere(np.isfinite(finite_AH)):
                share = finite_AH[line, head]
                goes = "stays" if share > 100 else f"goes with {share:.1f} % of the heads removed"
                name = format_descriptor({rows[indices[line]]: [head]})
                figure.say(axes, f"{name}: {goes}", head - 0.5, line - 0.5, 1, 1)
    for axes in panels:
        axes.set_xlabel("head, counted from 0")
    figure.colorbar(
        image, ax=figure.axes, label="share removed when it goes (%)", pad=0.015, extend="max"
    )
    return figure


@styled
def interactions(
    together: np.ndarray, heads: Sequence[tuple[int, int]], rows: Sequence[str], label: str
) -> Drawing:
    """One cell a pair of heads, symmetric colours around 0; lines between rows.

    Of a large matrix the strongest pairs say their numbers when one points at them.
    """
    figure = Drawing(0.8 * WIDTH)
    axes = figure.add_subplot()
    axes.set_facecolor("#d9d9d9")
    limit = centred_limit(together)
    norm = Normalize(-limit, limit)
    image = axes.imshow(together, cmap="RdBu_r", norm=norm, interpolation="nearest")
    ticks = ScalarFormatter()
    ticks.set_powerlimits((-2, 3))
    figure.colorbar(
        image,
        ax=axes,
        label=label,
        pad=0.015,
        shrink=0.9,
        extend=_beyond(together, norm),
        format=ticks,
    )
    row_n = np.array([row for row, _ in heads])
    for edge in np.flatnonzero(np.diff(row_n)):
        between_types = type_of(rows[row_n[edge]]) != type_of(rows[row_n[edge + 1]])
        for line in (axes.axhline, axes.axvline):
            line(
                edge + 0.5,
                color=INK if between_types else "#8f8f8f",
                linewidth=1.2 if between_types else 0.7,
            )
    middles = {rows[row]: float(np.flatnonzero(row_n == row).mean()) for row in row_n}
    names = list(middles)
    axes.set_xticks(list(middles.values()), names, rotation=90 if len(names) > 8 else 0)
    axes.set_yticks(list(middles.values()), names)
    axes.tick_params(length=0)
    axes.set(xlabel="first head, by row", ylabel="second head, by row")
    axes.spines[:].set_visible(False)
    shown = np.argwhere(np.isfinite(together))
    strongest = np.argsort(-abs(together[tuple(shown.T)]), kind="stable")[:MOST_SAID]
    for second, first in shown[np.sort(strongest)]:
        pair = " and ".join(
            format_descriptor({rows[row]: [head]}) for row, head in (heads[second], heads[first])
        )
        text = f"{pair}: {together[second, first]:+.4f} nats"
        figure.say(axes, text, first - 0.5, second - 0.5, 1, 1)
    return figure


def _figure(rows: Sequence[str], line: float) -> Drawing:
    """As high as lines of `line` inches, the blocks' titles and the colour scale's label need."""
    blocks = len(by_type(rows))
    height = 1.2 + line * len(rows) + 0.3 * blocks * (blocks > 1)
    return Drawing(max(height, 2.9))


def _blocks(
    figure: Drawing, rows: Sequence[str], panels: Sequence[str]
) -> list[tuple[Sequence[Axes], list[int]]]:
    """For each type of attention its panels, side by side, and the indices of its rows; titles say
    what is one of several."""
    blocks = by_type(rows)
    heights = {"height_ratios": [len(indices) for indices in blocks.values()]}
    grid = figure.subplots(
        len(blocks), len(panels), squeeze=False, sharex=True, sharey="row", gridspec_kw=heights
    )
    for line, (name, axes_of_type) in enumerate(zip(blocks, grid, strict=True)):
        for panel, axes in zip(panels, axes_of_type, strict=True):
            titles = (panel if line == 0 else "", NAMES.get(name, name) if len(blocks) > 1 else "")
            axes.set_title("\n".join(filter(None, titles)))
    return list(zip(grid, blocks.values(), strict=True))


def _cells(
    axes: Axes,
    values_AH: np.ndarray,
    rows: Sequence[str],
    norm: Normalize,
    colours: str,
    panels: int = 1,
) -> AxesImage:
    height, width = values_AH.shape
    image = axes.imshow(
        values_AH, cmap=_colours(colours), norm=norm, aspect="auto", interpolation="nearest"
    )
    for row, head in np.argwhere(np.isnan(values_AH)):
        box = Rectangle(
            (head - 0.5, row - 0.5),
            1,
            1,
            facecolor="#ececec",
            edgecolor="#b5b5b5",
            hatch="////",
            linewidth=0,
        )
        axes.add_patch(box)
    every = 1 if width * panels <= 36 else 2 if width * panels <= 64 else 4
    axes.set_xticks(np.arange(0, width, every))
    axes.set_yticks(np.arange(height), rows)
    axes.set_xticks(np.arange(width - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(height - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return image


def _colours(name: str) -> Colormap:
    colours = matplotlib.colormaps[name]
    return colours.with_extremes(over="#06123f") if name == "YlGnBu" else colours


def _beyond(values: np.ndarray, norm: Normalize) -> str:
    """Which ends of the colour scale values lie beyond, in matplotlib's words."""
    scaled = np.asarray(norm(values[np.isfinite(values)]))
    low, high = bool((scaled < 0).any()), bool((scaled > 1).any())
    return {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[low, high]


def _write_value(
    axes: Axes, image: AxesImage, row: int, head: int, value: float, signed: bool, decimals: int
) -> None:
    digits = decimals if abs(value) < 9.995 else decimals - 1
    text = _number(value, signed, digits) if value else "0"
    colour = _over(image, value)
    axes.text(head, row, text, ha="center", va="center", fontsize=8, color=colour)


def _over(image: AxesImage, value: float) -> str:
    """The colour of what stands on a value's colour."""
    red, green, blue, _ = image.to_rgba(np.array(value))
    return ON_DARK if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else ON_LIGHT


def _number(value: float, signed: bool, decimals: int) -> str:
    return f"{value or 0.0:{'+' if signed and value else ''}.{decimals}f}"
