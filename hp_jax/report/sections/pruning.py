"""The section about pruning: curves of every order, from all heads (Figures 3 and 6) and from those
of one type (Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from hp_jax.config import Order
from hp_jax.report import tables
from hp_jax.report.comparison import Comparison, compare, part_of, points
from hp_jax.report.html import SIGNIFICANT, Item
from hp_jax.report.pictures import heatmaps, plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.row_types import NAMES
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

ORDERS = get_args(Order)
"""The pruning orders, in the order of the legend."""
ALL = "all"

Curves = Mapping[str, Mapping[str, Comparison]]
"""By order, and by which heads were pruned: `all` heads, or those of the type or row with this
name."""


def read_curves(finished: Mapping[str, Store]) -> Curves:
    """The curves that are there, orders and types in the order in which they are shown."""
    curves: dict[str, dict[str, Comparison]] = {order: {} for order in ORDERS}
    for name in finished:
        folder, _, rest = name.partition("/")
        order, _, part = rest.removesuffix("/test").partition(".")
        if folder == "pruning" and rest.endswith("/test") and order in ORDERS and "/" not in part:
            store = finished[name]
            curves[order][part or ALL] = compare(
                store, part_of(store.manifest, [part] if part else [])
            )
    shown = [ALL, *NAMES]
    return {
        order: dict(
            sorted(
                parts.items(),
                key=lambda item: shown.index(item[0]) if item[0] in shown else len(shown),
            )
        )
        for order, parts in curves.items()
        if parts
    }


def how_far(curves: Curves) -> list[str]:
    """How many heads each order can remove before the metric drops significantly, as sentences."""
    sentences = []
    for order, parts in curves.items():
        comparable_parts = {
            part: comparison for part, comparison in parts.items() if comparison.full is not None
        }
        sentences += [
            _how_far(order, comparison)
            for part, comparison in comparable_parts.items()
            if part == ALL
        ]
        ends = {
            part: tables.removable(comparison)[0]
            for part, comparison in comparable_parts.items()
            if part != ALL
        }
        if ends:
            counts = [
                f"{named(part)} {end['removed']} of {len(comparable_parts[part].living)}"
                for part, end in ends.items()
            ]
            sentences.append(
                f"Heads of one type alone that can go likewise in the {order} order: "
                f"{', '.join(counts)}."
            )
    return sentences


def _how_far(order: str, comparison: Comparison) -> str:
    last, drop = tables.removable(comparison)
    then = f"the next step, {drop['removed']} heads, is one" if drop else "no step is one"
    test = f"p < {SIGNIFICANT}, {comparison.test}, {comparison.examples} {comparison.unit}s"
    there = f"{last['change']:+.2f} points, 95 % interval {last['low']:+.2f} to {last['high']:+.2f}"
    return (
        f"In the {order} order {last['removed']} of {len(comparison.living)} heads "
        f"({last['share']:.0f} %) can go without a "
        f"significant drop of {comparison.metric_name} ({test}; {then})."
        + f" There it changes by {there}."
        * (last["removed"] > 0)
    )


def named(part: str) -> str:
    """The heads that a curve is about, in words."""
    return NAMES.get(part, part)


def section(curves: Curves) -> list[Item]:
    """All curves, as pictures and tables."""
    by_order = {order: parts[ALL] for order, parts in curves.items() if ALL in parts}
    by_part = {order: parts for order, parts in curves.items() if set(parts) != {ALL}}
    first = next(comparison for parts in curves.values() for comparison in parts.values())
    items: list[Item] = []
    for order, parts in curves.items():
        comparison = next(iter(parts.values()))
        items.append(
            f"{order}: {tables.jobs(comparison.manifest)[:-1]} ({comparison.examples} "
            f"{comparison.unit}s)."
        )
    items += [first.signature] if first.signature else []
    items += _of_all(by_order) if by_order else []
    items += _of_types(by_part) if by_part else []
    for order, parts in curves.items():
        for part, comparison in parts.items():
            only = (
                ""
                if part == ALL
                else f", {named(part)} only; shares are of its {comparison.scope_AH.sum()} heads"
            )
            caption = f"Pruning in the {order} order{only}; each line against the full model."
            name = f"pruning_{order}" + f"_{part}" * (part != ALL)
            items.append(
                listing(comparison, name, tables.curve_table(comparison), caption, folded=True)
            )
    return items


def _of_all(by_order: Mapping[str, Comparison]) -> list[Item]:
    first = next(iter(by_order.values()))
    rows = {order: tables.curve_table(comparison) for order, comparison in by_order.items()}
    gone = {order: tables.removal_shares(comparison) for order, comparison in by_order.items()}
    return [
        picture(
            "pruning",
            plots.curves(
                {"": rows},
                _full(first),
                first.constant,
                first.metric_name,
                points(first.manifest),
                len(first.living),
            ),
            f"How {first.metric_name} changes as heads are removed, without retraining (the "
            "paper's Figures 3 and 6). Bands: "
            "95 % paired-bootstrap interval of the change against the full model.",
        ),
        picture(
            "removal",
            heatmaps.removals(gone, first.manifest["rows"], first.scope_AH),
            "When each head goes, in each order: light heads first, dark heads last; the darkest "
            "stay to the end.",
        ),
    ]


def _of_types(by_part: Curves) -> list[Item]:
    first = next(comparison for parts in by_part.values() for comparison in parts.values())
    panels = {}
    for order, parts in by_part.items():
        rows = {named(part): tables.curve_table(comparison) for part, comparison in parts.items()}
        panels[f"{order} order"] = rows | (
            {"all heads": rows.pop(ALL)} if ALL in rows else {}
        )  # types in their usual colours
    return [
        picture(
            "pruning_types",
            plots.curves(
                panels, _full(first), first.constant, first.metric_name, points(first.manifest)
            ),
            f"How {first.metric_name} changes as heads of one type of attention are removed and "
            "the others all stay (the "
            "paper's Figure 4); shares are of the heads of that type. Bands: 95 % intervals of "
            "the change.",
        )
    ]


def _full(comparison: Comparison) -> float:
    return float("nan") if comparison.full is None else float(comparison.metric_M[comparison.full])
