"""How pictures look: colours that colour-blind people can tell apart, no pyplot, no display; and
their files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hp_jax.report.html import Picture

WIDTH = 9.0
"""Inches; the page shows 100 px an inch."""
DPI = 160
INK, PALE, RED = "#222222", "#8a8a8a", "#d55e00"
STYLES: dict[str, Sequence[Any]] = {  # Okabe and Ito's colours; marker and dash differ as well
    "color": ("#0072b2", RED, "#009e73", "#cc79a7", "#56b4e9"),
    "marker": ("o", "s", "^", "D", "v"),
    "linestyle": ("-", "--", "-.", ":", (0, (6, 1))),
}
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
styled = matplotlib.rc_context(
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


@styled
def to_png(figure: Figure) -> bytes:
    """The picture's PNG file."""
    return _saved(figure, "png", dpi=DPI)


@styled
def to_svg(figure: Figure) -> bytes:
    """The picture's SVG file, the same bytes each time."""
    return _saved(figure, "svg", metadata={"Date": None})


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, facecolor="white", **options)
    return file.getvalue()


def picture(name: str, figure: Figure, caption: str) -> Picture:
    """The figure with its caption, for the page."""
    return Picture(
        name, to_png(figure), to_svg(figure), round(100 * figure.get_figwidth()), caption
    )
