"""The picture of pruning at several epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.ticker import NullFormatter, ScalarFormatter

from hp_jax.report.html import Rows, judged
from hp_jax.report.pictures.style import Drawing, styled
from hp_jax.report.scale import Scale


@styled
def epochs(curves: Mapping[int, Rows], scale: Scale) -> Drawing:
    """The curves of all epochs, and what is left of each epoch's own metric at each share of heads
    removed (Figure 5).

    curves: rows of `tables.curve_table`, the full model's first, by epoch.
    """
    figure = Drawing(5.4)
    left, right = figure.subplots(1, 2)
    colours = matplotlib.colormaps["viridis"]
    for number, (epoch, rows) in enumerate(curves.items()):
        left.plot(
            [row["share"] for row in rows],
            [row["metric"] for row in rows],
            color=colours(0.92 * number / max(len(curves) - 1, 1)),
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            label=f"epoch {epoch} ({rows[0]['metric']:.3g})",
        )
        for row in rows:
            words = f"epoch {epoch}, {row['removed']} heads removed ({row['share']:.0f} %): "
            words += f"{scale.name} {row['metric']:#.4g}; {judged(row, scale)}"
            figure.say(left, words, row["share"], row["metric"])
    left.set(xlabel="share of heads removed (%)", ylabel=scale.name)
    shares = [row["share"] for row in next(iter(curves.values()))][1:]
    for number, share in enumerate(shares, 1):
        rest = [_rest(rows, number) for rows in curves.values()]
        right.plot(
            list(curves),
            rest,
            color=colours(0.92 * (number - 1) / max(len(shares) - 1, 1)),
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            label=f"{share:.0f} %",
        )
        for epoch, part in zip(curves, rest, strict=True):
            if np.isfinite(part):
                words = f"epoch {epoch}, {share:.0f} % of the heads removed: {part:.0f} % is left"
                figure.say(right, words, epoch, part)
    right.set(xlabel="epoch", ylabel=f"{scale.name}, % of the same epoch's full model")
    right.set_xscale("log")
    right.set_xticks(list(curves))
    right.xaxis.set_major_formatter(ScalarFormatter())
    right.xaxis.set_minor_formatter(NullFormatter())
    for axes, title in ((left, "with all heads in brackets"), (right, "heads removed")):
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(
            title=title,
            fontsize=8,
            title_fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=3,
            columnspacing=1.2,
        )
    return figure


def _rest(rows: Rows, number: int) -> float:
    """The metric of a row in percent of the full model's; NaN where that is not above 0."""
    full = rows[0]["metric"]
    return 100 * rows[number]["metric"] / full if full > 0 else np.nan
