"""matplotlib's SVG as a part of an HTML page, with places that say what they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Spot(NamedTuple):
    """A rectangle in a picture, in the units of its SVG from the upper left, and what is there in
    words."""

    x: float
    y: float
    width: float
    height: float
    text: str


def inline_svg(svg: bytes, spots: Sequence[Spot], key: str, pixels: int, label: str) -> str:
    """The `svg` element of a file with `spots` on top, `pixels` wide, read out as `label`.

    Its ids begin with `key`, so that those of several on a page differ; those that nothing refers
    to are left out, and so is what does not show.
    """
    text = svg.decode()
    text = text[text.index("<svg") :].rstrip().removesuffix("</svg>")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(
        r'\sid="([^"]*)"', lambda id: f' id="{key}-{id[1]}"' if id[1] in used else "", text
    )
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
    start, end, rest = text.partition(">")
    start = re.sub(r'\s(width|height)="[^"]*"', "", start)
    start += f' width="{pixels}" role="img" aria-label="{escape(label)}"'
    places = "".join(
        f'<rect x="{spot.x:.1f}" y="{spot.y:.1f}" width="{spot.width:.1f}" '
        f'height="{spot.height:.1f}"><title>{escape(spot.text)}</title></rect>'
        for spot in spots
    )
    return f'{start}{end}{rest}<g class="spots">{places}</g></svg>'
