"""A report is sections of paragraphs, pictures, tables and code; here they become text: one HTML
page, CSV, aligned columns.

`comparison` and `tables` have the numbers, `pictures` and `sections` what their names say; `page`
puts the sections together and writes the files.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

from hp_jax.report.inline_svg import Spot, inline_svg
from hp_jax.report.scale import SIGNIFICANT, Scale

Rows = list[dict[str, Any]]

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
    "chosen": ("change where chosen", ""),
    "low": ("95 % from", ""),
    "high": ("to", ""),
    "p_bootstrap": ("p, bootstrap", ".3f"),
    "p_mcnemar": ("p, McNemar", ".3f"),
    "p_corrected": ("p, corrected", ".3f"),
    "rank_low": ("rank from", "d"),
    "rank_high": ("to", "d"),
    "band_low": ("band from", "+.3f"),
    "band_high": ("to", "+.3f"),
    "p_mid": ("p, McNemar's mid-p", ".3f"),
    "p_paired_t": ("p, paired t", ".3f"),
    "p_unpaired_t": ("p, unpaired t", ".3f"),
    "p_no_harm": ("p, no harm", ".3f"),
    "p_no_harm_corrected": ("p, no harm, corrected", ".3f"),
    "p_free": ("p, free", ".3f"),
    "p_free_corrected": ("p, free, corrected", ".3f"),
    "ece": ("calibration error", ".4f"),
    "other": ("beside", "s"),
    "area": ("mean difference", "+.3f"),
    "p_area": ("p", ".3f"),
    "loss": ("mean loss (nats)", ".4f"),
    "loss_change": ("loss change (nats)", "+.4f"),
    "extra": ("extra loss (nats)", "+.4f"),
    "q25": ("25 %", "#.4g"),
    "q75": ("75 %", "#.4g"),
    "bleu": ("BLEU", "#.4g"),
    "chrf": ("chrF", "#.4g"),
    "token_accuracy": ("token accuracy", "#.4g"),
    "perplexity": ("perplexity", "#.4g"),
    "word_perplexity": ("perplexity by word", "#.4g"),
    "token_loss": ("mean loss of a token (nats)", ".4f"),
    "bits_per_byte": ("bits a byte", ".4f"),
    "exact": ("predicted exactly", "#.4g"),
    "target_perplexity": ("perplexity of the target", "#.4g"),
    "logit_difference": ("logit difference (nats)", ".3f"),
    "pearson": ("Pearson r", "+.3f"),
    "p_pearson": ("p, Pearson", ".3f"),
    "pearson_low": ("95 % from", "+.3f"),
    "pearson_high": ("to", "+.3f"),
    "spearman": ("Spearman ρ", "+.3f"),
    "spearman_low": ("95 % from", "+.3f"),
    "spearman_high": ("to", "+.3f"),
    "p_spearman": ("p, Spearman", ".3f"),
}
"""Heading, with its unit, and number format of each column; columns not named here are shown as
they are."""
CHANGES = ("change", "low", "high")
"""Columns of a change of the metric, which its scale writes."""
PLAIN = Scale("metric")
MOST_EMBEDDED = 1_000_000
"""Characters of a CSV that is embedded in the page."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the bytes of its PNG and SVG files, and the caption that says what is seen."""

    name: str
    png: bytes
    svg: bytes
    pixels: int
    """Width on the page."""
    caption: str
    spots: Sequence[Spot] = ()
    """Places that say what they show when one points at them."""


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
    scale: Scale = PLAIN
    """Of the column `metric` and its changes."""
    most: int | None = None
    """Lines that people are shown; the CSV has all."""

    @property
    def shown(self) -> Rows:
        """The lines that people are shown."""
        return self.rows[: self.most]

    @property
    def headings(self) -> list[str]:
        """The columns' headings with their units."""
        own = {"metric": self.scale.name, "change": f"change ({self.scale.unit})"}
        return [own.get(name) or heading(name) for name in self.rows[0]]

    def cell(self, column: str, value: Any) -> str:
        """One cell as people read it."""
        return show(column, value, self.scale)


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text that opens on a click."""

    caption: str
    text: str


Item = str | Picture | Listing | Code
"""What a section shows; strings are paragraphs.  All text is plain: it is escaped here and nowhere
else."""
Section = tuple[str, Sequence[Item]]


def renamed(items: Sequence[Item], suffix: str) -> list[Item]:
    """The same, the names of their files with a suffix."""
    return [
        dataclasses.replace(item, name=f"{item.name}{suffix}")
        if isinstance(item, Picture | Listing)
        else item
        for item in items
    ]


def heading(column: str) -> str:
    """A column's heading with its unit."""
    return COLUMNS[column][0] if column in COLUMNS else column


def show(column: str, value: Any, scale: Scale = PLAIN) -> str:
    """One cell as people read it; – where there is no number."""
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if column in (*CHANGES, "chosen"):
        return scale.signed(value)
    if column.startswith("p_") and value < 0.001:
        return "<0.001"
    form = COLUMNS[column][1] if column in COLUMNS else "#.4g" if isinstance(value, float) else ""
    return format(value, form.replace("+", "") if value == 0 else form)


def judged(row: Mapping[str, Any], scale: Scale) -> str:
    """The change of a row of numbers with its interval and its p-values, as far as it has them, in
    words."""
    known = {name: value for name, value in row.items() if value == value}  # NaN is not
    parts = []
    if "change" in known:
        parts.append(f"change {show('change', row['change'], scale)} {scale.unit}")
    if "change" in known and {"low", "high"} <= known.keys():
        low, high = (show(name, row[name], scale) for name in ("low", "high"))
        parts.append(f"95 % interval {low} to {high}")
    parts += [
        f"{heading(name)}: {show(name, value)}"
        for name, value in known.items()
        if name.startswith("p_")
    ]
    return "; ".join(parts)


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
        *([listing.cell(*cell) for cell in row.items()] for row in listing.shown),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([f"{listing.caption} {listing.note}".rstrip(), "", *lines]) + "\n"


def to_html(title: str, warnings: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page, pictures and CSV embedded: it needs no other file and no network.

    Without script it shows everything; the script adds sorting, copying, what places in pictures
    say, and pictures in large.
    """
    links = "".join(
        f'<a href="#s{number}">{_text(name)}</a>' for number, (name, _) in enumerate(sections)
    )
    notes = "".join(f'<p class="warning">{_text(warning)}</p>' for warning in warnings)
    body = "\n".join(
        f'<section id="s{number}"><h2>{_text(name)}</h2>\n'
        + "\n".join(_item(item, f"s{number}-{place}") for place, item in enumerate(items))
        + "</section>"
        for number, (name, items) in enumerate(sections)
    )
    style, script = (
        resources.files("hp_jax.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (  # this script and no other; nothing is fetched
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(title)}</title>\n<style>\n{style}</style></head>\n<body>\n"
        '<a class="skip" href="#results">Skip to the results</a>\n'
        f"<header><h1>{_text(title)}</h1>\n"
        "<p class=note>Rows go by name and heads count from 0, as in the library; the paper "
        "counts both from 1.</p>\n"
        f'<nav aria-label="Sections">{links}</nav></header>\n'
        f'<main id="results" tabindex="-1">\n{notes}\n{body}\n</main>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _item(item: Item, key: str) -> str:
    """`key` is the item's own on the page."""
    if isinstance(item, str):
        return f"<p>{_text(item)}</p>"
    if isinstance(item, Code):
        return _folded(item.caption, f'<pre tabindex="0">{_text(item.text)}</pre>')
    if isinstance(item, Picture):
        svg = inline_svg(item.svg, item.spots, key, item.pixels, item.caption)
        card = f'<div class="card" role="group" tabindex="0" aria-label="Picture">{svg}</div>'
        tools = f'<p class="tools" data-name="{_text(item.name)}"></p>'
        return _figure(card + tools, item.caption, ' class="picture"')
    if not item.shown:
        return f"<p class=note>{_download(item)}: {_text(item.caption)}</p>"
    tools = f'<p class="tools">{_download(item)}</p>'
    if item.folded:
        note = f"<p class=note>{_text(item.note)}</p>" if item.note else ""
        return _folded(item.caption, note + _table(item) + tools)
    return _figure(_table(item) + tools, f"{item.caption} {item.note}")


def _folded(caption: str, body: str) -> str:
    return f"<details><summary>{_text(caption)}</summary>{body}</details>"


def _figure(body: str, caption: str, kind: str = "") -> str:
    return f"<figure{kind}>{body}<figcaption>{_text(caption)}</figcaption></figure>"


def _download(listing: Listing) -> str:
    """A link to the CSV, which is in the link itself, or beside the page if it is large."""
    text, name = as_csv(listing.rows), _text(f"{listing.name}.csv")
    if len(text) > MOST_EMBEDDED:
        return f'<a href="{quote(listing.name)}.csv">{name}</a> (beside this page)'
    data = f"data:text/csv;charset=utf-8,{quote(text, safe=',:;+()[]/@=*')}"
    return f'<a download="{name}" href="{data}">{name}</a>'


def _table(listing: Listing) -> str:
    rows = listing.shown
    words = [name for name in rows[0] if isinstance(rows[0][name], str) and not name.isdigit()]
    left = {name: ' class="w"' if name in words else "" for name in rows[0]}
    head = "".join(
        f'<th scope="col" data-c="{_text(name)}"{left[name]}>{_text(words)}</th>'
        for name, words in zip(rows[0], listing.headings, strict=True)
    )
    lines = ["".join(_cell(listing, row, name, left[name]) for name in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    label = _text(listing.caption)
    return f'<div class="wide" role="group" tabindex="0" aria-label="{label}">{table}</div>'


def _cell(listing: Listing, row: Mapping[str, Any], name: str, style: str) -> str:
    """A cell of a table: `data-v` has the CSV's value where it is shown otherwise, and a change
    says its interval and its p when one points at it."""
    value, shown = row[name], _text(listing.cell(name, row[name]))
    raw = _text("" if value is None else str(value))
    style = ' class="w long"' if len(shown) > 30 else style
    style += f' data-v="{raw}"' if raw != shown else ""
    words = judged(row, listing.scale) if name == "change" else ""
    style += f' title="{_text(words)}"' if words else ""
    notable = shown.endswith(("*", "†")) or (name.startswith("p_") and value < SIGNIFICANT)
    return f"<td{style}>{f'<b>{shown}</b>' if notable else shown}</td>"
