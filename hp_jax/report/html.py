"""A report is sections of paragraphs, pictures, tables and code; here they become text: one HTML
page, CSV, aligned columns.

`judging` and `tables` have the numbers, `heatmaps` and `plots` the pictures, `heads`, `subsets` and
`pruning` the sections; `page` puts them together and writes the files.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import math
from collections.abc import Sequence
from typing import Any

Rows = list[dict[str, Any]]

SIGNIFICANT = 0.01
"""The paper's level."""
COLUMNS: dict[str, tuple[str, str]] = {
    "row": ("row", "s"),
    "head": ("head", "d"),
    "score": ("mean score (nats)", ".3e"),
    "normalised": ("row-normalised", ".3f"),
    "mask": ("mask", "d"),
    "removed": ("heads removed", "d"),
    "without": ("without", "s"),
    "share": ("share (%)", ".1f"),
    "metric": ("metric", "#.4g"),
    "change": ("change (points)", "+.2f"),
    "low": ("95 % from", "+.2f"),
    "high": ("to", "+.2f"),
    "p_bootstrap": ("p, bootstrap", ".3f"),
    "p_mcnemar": ("p, McNemar", ".3f"),
    "loss": ("mean loss (nats)", ".4f"),
    "loss_change": ("loss change (nats)", "+.4f"),
    "extra": ("extra loss (nats)", "+.4f"),
    "q25": ("25 %", "#.4g"),
    "q75": ("75 %", "#.4g"),
    "bleu": ("BLEU", "#.4g"),
    "chrf": ("chrF", "#.4g"),
    "token_accuracy": ("token accuracy", "#.4g"),
    "pearson": ("Pearson r", "+.3f"),
    "p_pearson": ("p, Pearson", ".3f"),
    "spearman": ("Spearman ρ", "+.3f"),
    "p_spearman": ("p, Spearman", ".3f"),
}
"""Heading, with its unit, and number format of each column; columns not named here are shown as
they are."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the bytes of its PNG and SVG files, and the caption that says what is seen."""

    name: str
    png: bytes
    svg: bytes
    pixels: int
    """Width on the page."""
    caption: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """A table; a folded one opens on a click, and of one that is not for people only the CSV is
    written."""

    name: str
    rows: Rows
    caption: str
    folded: bool = False
    note: str = ""
    """What belongs to the numbers wherever they are shown."""
    metric: str = "metric"
    """Heading of the column `metric`."""
    most: int | None = None
    """Lines that people are shown; the CSV has all."""

    @property
    def shown(self) -> Rows:
        """The lines that people are shown."""
        return self.rows[: self.most]

    @property
    def headings(self) -> list[str]:
        """The columns' headings with their units."""
        return [self.metric if name == "metric" else heading(name) for name in self.rows[0]]


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text that opens on a click."""

    caption: str
    text: str


Item = str | Picture | Listing | Code
"""What a section shows; strings are paragraphs.  All text is plain: it is escaped here and nowhere
else."""
Section = tuple[str, Sequence[Item]]


def heading(column: str) -> str:
    """A column's heading with its unit."""
    return COLUMNS[column][0] if column in COLUMNS else column


def show(column: str, value: Any) -> str:
    """One cell as people read it; – where there is no number."""
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if column.startswith("p_") and value < 0.001:
        return "<0.001"
    form = COLUMNS[column][1] if column in COLUMNS else "#.4g" if isinstance(value, float) else ""
    return format(value, form.replace("+", "") if value == 0 else form)


def as_csv(rows: Rows) -> str:
    """The rows in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_text(listing: Listing) -> str:
    """The caption, the note, and the rows in aligned columns."""
    cells: Sequence[list[str]] = [
        listing.headings,
        *([show(*cell) for cell in row.items()] for row in listing.shown),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([f"{listing.caption} {listing.note}".rstrip(), "", *lines]) + "\n"


def to_html(title: str, warnings: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page, pictures embedded: it needs no other file, no network and no script."""
    links = "".join(
        f'<a href="#s{place}">{_text(name)}</a>' for place, (name, _) in enumerate(sections)
    )
    notes = "".join(f'<p class="warning">{_text(warning)}</p>' for warning in warnings)
    body = "\n".join(
        f'<section id="s{place}"><h2>{_text(name)}</h2>\n'
        + "\n".join(map(_item, items))
        + "</section>"
        for place, (name, items) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title>\n<style>{_CSS}</style></head>\n<body><main>\n<h1>{_text(title)}</h1>\n"
        "<p class=note>Rows go by name and heads count from 0, as in the library; the paper "
        "counts both from 1.</p>\n"
        f"<nav>{links}</nav>\n{notes}\n{body}\n</main></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _item(item: Item) -> str:
    if isinstance(item, str):
        return f"<p>{_text(item)}</p>"
    if isinstance(item, Code):
        return f"<details><summary>{_text(item.caption)}</summary><pre>{_text(item.text)}</pre></details>"
    if isinstance(item, Listing) and not item.shown:
        return f"<p class=note>{_text(f'{item.name}.csv: {item.caption}')}</p>"
    if isinstance(item, Listing):
        table, note = _table(item), f"<p class=note>{_text(item.note)}</p>" if item.note else ""
        if item.folded:
            return f"<details><summary>{_text(item.caption)}</summary>{note}{table}</details>"
        return f"<figure>{table}<figcaption>{_text(f'{item.caption} {item.note}')}</figcaption></figure>"
    source = f"data:image/png;base64,{base64.b64encode(item.png).decode()}"
    image = f'<img src="{source}" width="{item.pixels}" alt="{_text(item.caption)}">'
    return f'<figure><div class="card">{image}</div><figcaption>{_text(item.caption)}</figcaption></figure>'


def _table(listing: Listing) -> str:
    rows = listing.shown
    words = [name for name in rows[0] if isinstance(rows[0][name], str) and not name.isdigit()]
    left = {name: ' class="w"' if name in words else "" for name in rows[0]}
    head = "".join(
        f"<th{left[name]}>{_text(words)}</th>"
        for name, words in zip(rows[0], listing.headings, strict=True)
    )
    lines = []
    for row in rows:
        cells = []
        for name, value in row.items():
            shown = _text(show(name, value))
            kind = ' class="w long"' if len(shown) > 30 else left[name]
            notable = shown.endswith("*") or (name.startswith("p_") and value < SIGNIFICANT)
            cells.append(f"<td{kind}>{f'<b>{shown}</b>' if notable else shown}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


_CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --paper: #fcfcfb; --band: #f3f4f2;
  --link: #0b5f94; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e8; --soft: #9aa4ae; --line: #353b42; --paper: #16191d; --band: #1f2429;
    --link: #6cb6e8; --warn: #3c3216; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3.25rem 0 .75rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
#s0 h2 { margin-top: 1.5rem; }
p { max-width: 44rem; margin: .6rem 0; overflow-wrap: anywhere; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0; font-size: .95rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.warning { background: var(--warn); border-radius: 6px; padding: .5rem .8rem; }
figure { margin: 1.5rem 0 2rem; }
figcaption { max-width: 44rem; margin-top: .5rem; line-height: 1.45; overflow-wrap: anywhere; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; overflow-x: auto; }
.card img { display: block; max-width: 100%; min-width: 34rem; height: auto; margin: 0 auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; line-height: 1.35; }
th, td { text-align: right; padding: .28rem .65rem; white-space: nowrap; }
th { white-space: normal; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); vertical-align: bottom; }
.w { text-align: left; }
.long { white-space: normal; }
tbody tr:nth-child(even) { background: var(--band); }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 8px; }
summary { cursor: pointer; padding: .55rem .9rem; font-size: .92rem; overflow-wrap: anywhere; }
details > .wide, details > pre { padding: .25rem .6rem .75rem; margin: 0; max-height: 34rem; overflow: auto; }
pre { font: .8rem/1.45 ui-monospace, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { details > * { max-height: none !important; } section { break-inside: avoid-page; } }
"""
