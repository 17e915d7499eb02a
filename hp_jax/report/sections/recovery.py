"""The section about recovery: pruned models as they are, with scales on the heads that are left,
with output projections or scales fitted anew, and trained again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison
from hp_jax.report.html import Item, Listing, Rows
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.sections import pruning
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

RECOVERIES = {
    "calibrate": "calibrated",
    "repair": "repaired",
    "rescale": "rescaled",
    "retrain": "retrained",
}
"""What a recovered model is called, by the recovery's folder, sorted as they are shown."""
NONE = "no recovery"

Recovered = Mapping[tuple[str, str], Mapping[str, Comparison]]
"""By order and scope as in `pruning.Curves`: the curve without recovery, and those with, by the
names in RECOVERIES."""


def called(order: str, name: str | None) -> str:
    """An order with a recovery, by one of the names in RECOVERIES or none."""
    return f"{name} {order}" if name else order


def read(finished: Mapping[str, Store], curves: pruning.Curves) -> Recovered:
    """The curves that there are with a recovery, each beside the one without."""
    found = {}
    for order, scopes in curves.items():
        for scope, comparison in scopes.items():
            where = f"pruning/{order}" if scope == pruning.ALL else f"pruning/{order}.{scope}"
            found[order, scope] = {NONE: comparison} | {
                name: pruning.compare_in(finished[f"{where}/{folder}/test"], scope)
                for folder, name in RECOVERIES.items()
                if f"{where}/{folder}/test" in finished
            }
    return {key: lines for key, lines in found.items() if len(lines) > 1}


def how_far(recovered: Recovered) -> list[str]:
    """How many heads of the recovered model can go without harm, as sentences."""
    return [
        sentence
        for (order, scope), lines in recovered.items()
        for name, comparison in lines.items()
        if name != NONE
        for sentence in pruning.how_far({f"{name} {order}": {scope: comparison}})
    ]


def section(recovered: Recovered) -> list[Item]:
    """All curves of each order and scope together, as one picture and a table each."""
    panels = {
        _titled(*key): {name: tables.drawn_curve(comparison) for name, comparison in lines.items()}
        for key, lines in recovered.items()
    }
    first = next(iter(recovered.values()))[NONE]
    figure = plots.curves(panels, pruning.full_metric(first), first.constant, first.scale)
    caption = (
        f"{first.scale.name} of the pruned model as it is, with a fitted scale on every head that "
        f"is left (calibrated), with every output projection fitted to the full model's by least "
        f"squares (repaired), with scales and biases fitted in the same way (rescaled), and "
        f"trained again after each step (retrained): those that there are. {pruning.BANDS}"
    )
    items: list[Item] = [
        f"{_titled(*key)}, {name}: {results.jobs(comparison.manifest)}"
        for key, lines in recovered.items()
        for name, comparison in lines.items()
    ]
    items.append(picture("recovery", figure, caption))
    for (order, scope), lines in recovered.items():
        items += _listings(order, scope, lines)
    return items


def _listings(order: str, scope: str, lines: Mapping[str, Comparison]) -> list[Listing]:
    """The curves of one order and scope beside each other, and each with a recovery."""
    first, title = lines[NONE], _titled(order, scope)
    file = f"recovery_{order}" + f"_{scope}" * (scope != pruning.ALL)
    caption = (
        f"{first.scale.name} and its change against the full model in {first.scale.unit}, {title}."
    )
    return [
        Listing(file, _table(lines), caption, note=first.signature),
        *(
            listing(
                lines[name],
                f"{file}_{folder}",
                tables.curve_table(lines[name]),
                f"{title}, {name}; each line against the full model.",
                folded=True,
            )
            for folder, name in RECOVERIES.items()
            if name in lines
        ),
    ]


def _titled(order: str, scope: str) -> str:
    only = "" if scope == pruning.ALL else f", {pruning.named(scope)} only"
    return f"{order} order{only}"


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
