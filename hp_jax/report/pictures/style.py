"""How pictures look: colours that colour-blind people can tell apart, no pyplot, no display; and
their files; and what their marks say when one points at them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hp_jax.report.html import Picture
from hp_jax.report.inline_svg import Spot

WIDTH = 9.0
"""Inches; the page shows 100 px an inch."""
DPI = 160
INK, PALE, RED = "#222222", "#8a8a8a", "#d55e00"
RED_WORDS = "#b34e00"
"""RED for small letters on white."""
ON_LIGHT, ON_DARK = "#1b1b1b", "#fefefe"
"""Letters and frames on coloured cells; the page turns INK and white around, and leaves these."""
STYLES: dict[str, Sequence[Any]] = {  # Okabe and Ito's colours; marker and dash differ as well
    "color": ("#0072b2", RED, "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
    "marker": ("o", "s", "^", "D", "v", "P", "X"),
    "linestyle": ("-", "--", "-.", ":", (0, (6, 1))),
}
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
POINT = 11.0
"""Width of the place around a point at which one may point; as all sizes in SVG, 1/72 inch."""
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


class Drawing(Figure):
    """A figure of which some places say in words what is there."""

    def __init__(self, height: float):
        """`height` in inches; the width is WIDTH."""
        super().__init__(figsize=(WIDTH, height), layout="constrained")
        self._said: list[tuple[Axes, tuple[float, float, float, float], str]] = []

    def say(
        self, axes: Axes, text: str, x: float, y: float, width: float = 0.0, height: float = 0.0
    ) -> None:
        """`text` is said at a point, or in the box of which (x, y) is a corner, in data's units."""
        self._said.append((axes, (x, y, x + width, y + height), text))

    def spots(self) -> list[Spot]:
        """The places, where they are since the figure was last drawn; in the units of its SVG."""
        found = []
        width, height = 72 * self.get_size_inches()
        for axes, (x0, y0, x1, y1), text in self._said:
            corners = axes.transData.transform([(x0, y0), (x1, y1)])
            (left, low), (right, top) = self.transFigure.inverted().transform(corners)
            xs, ys = sorted((left * width, right * width)), sorted((low * height, top * height))
            around = 0.0 if x1 > x0 else POINT
            found.append(
                Spot(
                    xs[0] - around / 2,
                    height - ys[1] - around / 2,
                    xs[1] - xs[0] + around,
                    ys[1] - ys[0] + around,
                    text,
                )
            )
        return found


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
        name,
        to_png(figure),
        to_svg(figure),
        round(100 * figure.get_figwidth()),
        caption,
        figure.spots() if isinstance(figure, Drawing) else (),
    )
