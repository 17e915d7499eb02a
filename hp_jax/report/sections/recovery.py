"""The section about recovery: pruned models as they are, with scales on the heads that are left,
and trained again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hp_jax.report import tables
from hp_jax.report.comparison import Comparison, compare, part_of, points
from hp_jax.report.html import Item, Listing, Rows
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.sections import pruning
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

KINDS = {"calibrate": "calibrated", "retrain": "retrained"}
"""Recoveries by their folder, in the order in which they are shown."""
NONE = "no recovery"

Recovered = Mapping[tuple[str, str], Mapping[str, Comparison]]
"""By order and part as in `pruning.Curves`: the curve without recovery, and those with, by the
names of KINDS."""


def read(finished: Mapping[str, Store], curves: pruning.Curves) -> Recovered:
    """The curves that there are with a recovery, each beside the one without."""
    found = {}
    for order, parts in curves.items():
        for part, comparison in parts.items():
            where = f"pruning/{order}" if part == pruning.ALL else f"pruning/{order}.{part}"
            stores = {
                name: finished[f"{where}/{kind}/test"]
                for kind, name in KINDS.items()
                if f"{where}/{kind}/test" in finished
            }
            about = [] if part == pruning.ALL else [part]
            found[order, part] = {NONE: comparison} | {
                name: compare(store, part_of(store.manifest, about))
                for name, store in stores.items()
            }
    return {name: lines for name, lines in found.items() if len(lines) > 1}


def how_far(recovered: Recovered) -> list[str]:
    """How many heads can go before the recovered model is significantly worse, as sentences."""
    recoveries = [
        (f"{kind} {order}", {part: line})
        for (order, part), lines in recovered.items()
        for kind, line in lines.items()
    ]
    return [
        text
        for name, parts in recoveries
        if not name.startswith(NONE)
        for text in pruning.how_far({name: parts})
    ]


def section(recovered: Recovered) -> list[Item]:
    """All curves of each order and part together, as one picture and a table each."""
    items: list[Item] = []
    panels = {}
    for at, lines in recovered.items():
        panels[_titled(*at)] = {
            name: tables.curve_table(comparison) for name, comparison in lines.items()
        }
        items += [
            f"{_titled(*at)}, {name}: {tables.jobs(comparison.manifest)}"
            for name, comparison in lines.items()
        ]
    first = next(iter(recovered.values()))[NONE]
    full = math.nan if first.full is None else float(first.metric_M[first.full])
    metric = first.metric_name
    items.append(
        picture(
            "recovery",
            plots.curves(panels, full, first.constant, metric, points(first.manifest)),
            f"{metric} of the pruned model as it is, with a fitted scale on every head that is "
            "left (folded into the output "
            "projection), and trained again after each step. Bands: 95 % paired-bootstrap "
            "interval of the change against the "
            "full model.",
        )
    )
    for at, lines in recovered.items():
        name = "_".join(["recovery", at[0], *[at[1]] * (at[1] != pruning.ALL)])
        caption = f"{metric} and its change against the full model in points, {_titled(*at)}."
        items.append(Listing(name, _table(lines), caption, note=first.signature))
        for kind, folder in {name: folder for folder, name in KINDS.items()}.items():
            if kind in lines:
                told = f"{_titled(*at)}, {kind}; each line against the full model."
                items.append(
                    listing(
                        lines[kind],
                        f"{name}_{folder}",
                        tables.curve_table(lines[kind]),
                        told,
                        folded=True,
                    )
                )
    return items


def _titled(order: str, part: str) -> str:
    return f"{order} order" if part == pruning.ALL else f"{order} order, {pruning.named(part)} only"


def _table(lines: Mapping[str, Comparison]) -> Rows:
    """A line for each number of heads removed, with the metric and its change of every curve that
    has it."""
    by_count = {
        name: {row["removed"]: row for row in tables.curve_table(comparison)}
        for name, comparison in lines.items()
    }
    shares = {removed: row["share"] for rows in by_count.values() for removed, row in rows.items()}
    return [
        {"removed": removed, "share": shares[removed]}
        | {name: rows.get(removed, {}).get("metric", math.nan) for name, rows in by_count.items()}
        | {
            f"{name}, change": rows.get(removed, {}).get("change", math.nan)
            for name, rows in by_count.items()
        }
        for removed in sorted(shares)
    ]
