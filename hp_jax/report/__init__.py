"""A report is sections of paragraphs, pictures, tables and code; here they become one self-contained HTML page.

`tables` has the numbers, `figures` the pictures, `page` says what is on the page and writes it.
"""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Sequence

from hp_jax.report.tables import SIGNIFICANT, Rows, heading, show


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
    """A table; a folded one opens on a click."""

    name: str
    rows: Rows
    caption: str
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text that opens on a click."""

    caption: str
    text: str


Item = str | Picture | Listing | Code
"""What a section shows; strings are paragraphs.  All text is plain: it is escaped here and nowhere else."""
Section = tuple[str, Sequence[Item]]


def to_html(title: str, warnings: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page, pictures embedded: it needs no other file, no network and no script."""
    links = "".join(f'<a href="#s{place}">{_text(name)}</a>' for place, (name, _) in enumerate(sections))
    notes = "".join(f'<p class="warning">{_text(warning)}</p>' for warning in warnings)
    body = "\n".join(
        f'<section id="s{place}"><h2>{_text(name)}</h2>\n' + "\n".join(map(_item, items)) + "</section>"
        for place, (name, items) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title>\n<style>{_CSS}</style></head>\n<body><main>\n<h1>{_text(title)}</h1>\n"
        f"<p class=note>Rows go by name and heads count from 0, as in the library; the paper counts both from 1.</p>\n"
        f"<nav>{links}</nav>\n{notes}\n{body}\n</main></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _item(item: Item) -> str:
    if isinstance(item, str):
        return f"<p>{_text(item)}</p>"
    if isinstance(item, Code):
        return f"<details><summary>{_text(item.caption)}</summary><pre>{_text(item.text)}</pre></details>"
    if isinstance(item, Listing):
        table = _table(item.rows)
        if item.folded:
            return f"<details><summary>{_text(item.caption)}</summary>{table}</details>"
        return f"<figure>{table}<figcaption>{_text(item.caption)}</figcaption></figure>"
    source = f"data:image/png;base64,{base64.b64encode(item.png).decode()}"
    image = f'<img src="{source}" width="{item.pixels}" alt="{_text(item.caption)}">'
    return f'<figure><div class="card">{image}</div><figcaption>{_text(item.caption)}</figcaption></figure>'


def _table(rows: Rows) -> str:
    words = [name for name in rows[0] if isinstance(rows[0][name], str) and not name.isdigit()]
    left = {name: ' class="w"' if name in words else "" for name in rows[0]}
    head = "".join(f"<th{left[name]}>{_text(heading(name))}</th>" for name in rows[0])
    lines = []
    for row in rows:
        cells = []
        for name, value in row.items():
            shown = _text(show(name, value))
            notable = shown.endswith("*") or (name.startswith("p_") and value < SIGNIFICANT)
            cells.append(f"<td{left[name]}>{f'<b>{shown}</b>' if notable else shown}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


_CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --paper: #fcfcfb; --band: #f3f4f2; --link: #0b5f94;
  --warn: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e8; --soft: #9aa4ae; --line: #353b42; --paper: #16191d; --band: #1f2429; --link: #6cb6e8; --warn: #3c3216; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
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
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); vertical-align: bottom; }
.w { text-align: left; }
tbody tr:nth-child(even) { background: var(--band); }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 8px; }
summary { cursor: pointer; padding: .55rem .9rem; font-size: .92rem; overflow-wrap: anywhere; }
details > .wide, details > pre { padding: .25rem .6rem .75rem; margin: 0; max-height: 34rem; overflow: auto; }
pre { font: .8rem/1.45 ui-monospace, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { details > * { max-height: none !important; } section { break-inside: avoid-page; } }
"""
