"""Pictures of distributions, correlations and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hp_jax.report.html import Rows, judged, show
from hp_jax.report.pictures.heatmaps import centred_limit
from hp_jax.report.pictures.style import (
    BEHIND,
    INK,
    PALE,
    RED,
    RED_WORDS,
    STYLES,
    Drawing,
    styled,
)
from hp_jax.report.row_types import NAMES, by_type
from hp_jax.report.scale import Scale


@styled
def histogram(metric_n: np.ndarray, full: float, label: str, step: float) -> Drawing:
    """How many heads leave the metric where, each removed alone (Figure 1); a few far from the
    others are given in words.

    step: the least that the metric can change by; 0 if it is continuous.
    """
    limit = 2 * centred_limit(metric_n - full)
    shown_n = metric_n[abs(metric_n - full) <= limit]
    width = float(np.ptp([*shown_n, full])) / 24 or 1.0
    width = max(np.ceil(width / step - 1e-9), 1) * step if step else width
    low, high = (
        round((edge - full) / width)
        for edge in (min(shown_n.min(), full), max(shown_n.max(), full))
    )
    figure = Drawing(3.1)
    axes = figure.add_subplot()
    bins = [full + (edge - 0.5) * width for edge in range(low, high + 2)]
    count_n, edges, _ = axes.hist(
        shown_n, bins=bins, color="#7fb3d5", edgecolor="white", linewidth=1
    )
    for number, left, right in zip(np.asarray(count_n), edges, edges[1:], strict=False):
        if number:
            some = "1 head" if number == 1 else f"{number:.0f} heads"
            text = f"{some}: {label} {left:.4g} to {right:.4g}"
            figure.say(axes, text, left, 0, right - left, number)
    for side, beyond_n in (
        ("left", metric_n[metric_n < full - limit]),
        ("right", metric_n[metric_n > full + limit]),
    ):
        _write_beyond(axes, side, np.sort(beyond_n))
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
        color=RED_WORDS,
        bbox=BEHIND,
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"{label} without one head", ylabel="number of heads")
    return figure


def _write_beyond(axes: Axes, side: str, metric_n: np.ndarray) -> None:
    """Values beyond the `left` or `right` end of the axis, as words with an arrow."""
    if len(metric_n):
        values = ", ".join(f"{value:.4g}" for value in metric_n[:4]) + ", …" * (len(metric_n) > 4)
        words = f"{len(metric_n)} head{'s' * (len(metric_n) > 1)} beyond: {values}"
        text, at = (f"◀ {words}", 0.008) if side == "left" else (f"{words} ▶", 0.992)
        axes.text(
            at, 0.5, text, ha=side, va="center", fontsize=8.5, transform=axes.transAxes, bbox=BEHIND
        )


@styled
def scatter(
    x: np.ndarray,
    effects: Mapping[str, np.ndarray],
    titles: Sequence[str],
    names: Sequence[str],
    label: str,
    said: Sequence[str] | None = None,
) -> Drawing:
    """Importance against each of the effects, one point a head (`names`: row.head); the heads that
    stand out are named.

    said: what each point says when one points at it; its numbers if it is not given.
    """
    figure = Drawing(3.9)
    panels, types = figure.subplots(1, len(effects), squeeze=False)[0], by_type(names)
    for axes, (effect, y), title in zip(panels, effects.items(), titles, strict=True):
        axes.axhline(0, color=PALE, linewidth=0.8)
        for number, (name, heads) in enumerate(types.items()):
            style = {key: STYLES[key][number % len(STYLES[key])] for key in ("color", "marker")}
            axes.scatter(
                x[heads],
                y[heads],
                s=22,
                alpha=0.65,
                linewidth=0,
                label=NAMES.get(name, name),
                **style,
            )
        axes.set(xlabel=label, ylabel=effect, title=title)
        axes.margins(0.09)
        for head, name in enumerate(names):
            text = said[head] if said else f"{label} {x[head]:.4g}; {effect} {y[head]:.4g}"
            figure.say(axes, f"{name}: {text}", x[head], y[head])
        _name_outliers(axes, x, y, names)
    if len(types) > 1:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(types)
        )
    return figure


def _name_outliers(
    axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], most: int = 6
) -> None:
    """Names the points farthest from the middle that are not next to a named one."""
    spread_n2 = np.stack([x / (np.ptp(x) or 1), y / (np.ptp(y) or 1)], 1)
    distance_n = np.linalg.norm((spread_n2 - np.median(spread_n2, 0)), axis=1)
    named: list[int] = []
    for point in np.argsort(-distance_n):
        near = [abs(spread_n2[point] - spread_n2[other]) for other in named]
        if len(named) < most and all(dx > 0.2 or dy > 0.055 for dx, dy in near):
            named.append(point)
    middle = (spread_n2[:, 0].min() + spread_n2[:, 0].max()) / 2
    for point in named:
        away_n2 = spread_n2 - spread_n2[point]
        sides = {
            "left": (5, 0.09, "center"),
            "right": (-5, -0.09, "center"),
            "center": (0, 0.0, "bottom"),
        }
        crowds = {
            side: np.sum(
                (abs(away_n2[:, 0] - to) < 0.09) & (abs(away_n2[:, 1] - 0.04 * (not to)) < 0.025)
            )
            + 99 * (abs(spread_n2[point, 0] + 2 * to - middle) > 0.59)
            for side, (_, to, _) in sides.items()
        }
        side = min(crowds, key=lambda side: crowds[side])
        shift, _, vertical = sides[side]
        offset = (shift, 4 * (vertical == "bottom"))
        where: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": side,
            "va": vertical,
            "fontsize": 8,
            "bbox": BEHIND,
        }
        axes.annotate(names[point], (x[point], y[point]), xytext=offset, **where)


@styled
def curves(
    panels: Mapping[str, Mapping[str, Rows]],
    full: float,
    constant: float,
    scale: Scale,
    total: int | None = None,
    cloud: Sequence[Mapping[str, Any]] = (),
) -> Drawing:
    """The metric against the share of heads removed, one panel a name, one curve an order or type
    (Figures 3, 4 and 6).

    Bands: the change's interval.  total: the number of heads that the share is of, if it is one for
    all curves.  cloud: what is shown as points behind the curves.
    """
    figure = Drawing(4.6)
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels.items(), strict=True
    ):
        if np.isfinite(full):
            axes.axhline(
                full, color=INK, linewidth=1, linestyle=":", label=f"full model, {full:.4g}"
            )
        if np.isfinite(constant):
            axes.axhline(
                constant,
                color=PALE,
                linewidth=1,
                linestyle="--",
                label=f"best constant answer, {constant:.4g}",
            )
        axes.scatter(
            [row["share"] for row in cloud],
            [row["metric"] for row in cloud],
            s=14,
            color=PALE,
            alpha=0.5,
            linewidth=0,
        )
        for row in cloud:
            figure.say(axes, _point("", row, scale), row["share"], row["metric"])
        for number, (name, rows) in enumerate(lines.items()):
            for row in rows:
                figure.say(axes, _point(name, row, scale), row["share"], row["metric"])
            style = {key: values[number % len(values)] for key, values in STYLES.items()}
            _curve(axes, name, rows, full, scale.factor, style)
        axes.set(xlabel="share of heads removed (%)", title=title, xlim=(-1, 101))
        axes.set_xticks(np.arange(0, 101, 10 if len(panels) == 1 else 20))
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.axes[0].set_ylabel(scale.name)
    if len(panels) == 1:
        axes.legend(loc="best")
    else:
        handles = {
            text: handle
            for axes in figure.axes
            for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    if total is not None:
        _count_heads(axes, total)
    return figure


@styled
def dots(
    names: Sequence[str],
    change: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    filled: Sequence[bool],
    label: str,
    said: Sequence[str] | None = None,
) -> Drawing:
    """A line a name: a dot at its change, filled or not, and a bar from `low` to `high`.

    said: what each dot says when one points at it; change and interval if it is not given.
    """
    figure = Drawing(max(1.0 + 0.26 * len(names), 1.8))
    axes = figure.add_subplot()
    axes.axvline(0, color=PALE, linewidth=1)
    for line, (middle, left, right, full) in enumerate(zip(change, low, high, filled, strict=True)):
        blue = STYLES["color"][0]
        axes.plot([left, right], [line, line], color=blue, linewidth=1.6)
        axes.plot(
            middle, line, "o", color=blue, markerfacecolor=blue if full else "white", markersize=6
        )
        numbers = f"{label} {middle:+.3g}, 95 % interval {left:+.3g} to {right:+.3g}"
        figure.say(axes, f"{names[line]}: {said[line] if said else numbers}", middle, line)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    return figure


def _point(name: str, row: Mapping[str, Any], scale: Scale) -> str:
    """What a point of a curve says."""
    removed = f"{row['removed']} heads removed" if "removed" in row else ""
    where = ", ".join(filter(None, [name, removed, f"{row['share']:.1f} %"]))
    numbers = f"{scale.name} {show('metric', row['metric'])}"
    return f"{where}: {'; '.join(filter(None, [numbers, judged(row, scale)]))}"


def _curve(
    axes: Axes, name: str, rows: Rows, full: float, factor: float, style: Mapping[str, Any]
) -> None:
    share, metric, low, high = (
        np.array([row[key] for row in rows]) for key in ("share", "metric", "low", "high")
    )
    axes.fill_between(
        share,
        full + low / factor,
        full + high / factor,
        color=style["color"],
        alpha=0.13,
        linewidth=0,
    )
    axes.plot(
        share, metric, label=name, linewidth=1.8, markersize=5 if len(rows) <= 40 else 2.5, **style
    )


def _count_heads(axes: Axes, total: int) -> None:
    top = axes.secondary_xaxis(
        "top",
        functions=(
            lambda share: np.asarray(share) * total / 100,
            lambda heads: np.asarray(heads) * 100 / total,
        ),
    )
    top.set_xlabel("heads removed")
    top.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
