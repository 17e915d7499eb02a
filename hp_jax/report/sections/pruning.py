"""The section about pruning: curves of every order, from all heads (Figures 3 and 6) and from those
of one type (Figure 4)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import get_args

from hp_jax.config import Reduction
from hp_jax.metrics import worth
from hp_jax.orders import Order
from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison, compare, patching, scope_of
from hp_jax.report.curves import Between, Curve, as_rows, between_all
from hp_jax.report.html import CHANGES, Item, Listing, Picture, Rows, renamed
from hp_jax.report.pictures import heatmaps, plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.row_types import NAMES
from hp_jax.report.scale import ONE_SIDED
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

ORDERS = get_args(Order)
"""The pruning orders, as the legend has them."""
REDUCTIONS = get_args(Reduction)
"""What importance is taken of before it is summed, as the legend has them."""
ALL = "all"
FEW = 3
"""So many orders are compared two by two in words; of more see `sections.orders`."""
MOST = 12
"""So many lines of areas are shown unfolded."""
BANDS = (
    "Bands: each holds the whole curve of changes against the full model with 95 % (simultaneous; "
    "paired bootstrap)."
)

Curves = Mapping[str, Mapping[str, Comparison]]
"""By order, and by scope, the heads that may go: `all`, or those of the type or row with this
name."""


def read_curves(finished: Mapping[str, Store]) -> Curves:
    """The curves that are there, orders and types as they are shown."""
    curves: dict[str, dict[str, Comparison]] = {order: {} for order in ORDERS}
    for name in finished:
        folder, _, rest = name.partition("/")
        order, _, scope = rest.removesuffix("/test").partition(".")
        if folder == "pruning" and rest.endswith("/test") and order in ORDERS and "/" not in scope:
            curves[order][scope or ALL] = compare_in(finished[name], scope or ALL)
    shown = [ALL, *NAMES]
    return {
        order: dict(
            sorted(
                scopes.items(),
                key=lambda item: shown.index(item[0]) if item[0] in shown else len(shown),
            )
        )
        for order, scopes in curves.items()
        if scopes
    }


def read_reductions(finished: Mapping[str, Store]) -> dict[str, dict[str, Comparison]]:
    """By order, and by the reduction of importance, the curves from all heads, of orders that there
    are with several reductions."""
    found: dict[str, dict[str, Comparison]] = {}
    for name, store in finished.items():
        match = re.fullmatch(r"pruning/([a-z_]+)(-[a-z]+)?/test", name)
        if match and match[1] in ORDERS and match[1] != "oracle":
            per = store.manifest.get("experiment", {}).get("importance", {}).get("per", "?")
            found.setdefault(match[1], {})[per] = compare_in(store, ALL)
    return {
        order: {per: curves[per] for per in REDUCTIONS if per in curves}
        for order, curves in found.items()
        if len(curves) > 1
    }


def compare_in(store: Store, scope: str) -> Comparison:
    """A finished curve with the heads of this name in scope."""
    return compare(store, scope_of(store.manifest, [] if scope == ALL else [scope]))


def how_far(curves: Curves) -> list[str]:
    """How many heads can go in each order without harm, and how the metric changes there, as
    sentences."""
    sentences = []
    for order, scopes in curves.items():
        complete = {
            scope: comparison for scope, comparison in scopes.items() if comparison.full is not None
        }
        if ALL in complete:
            sentences.append(_how_far(order, complete.pop(ALL)))
        if complete:
            counts = [
                f"{named(scope)} {tables.removable(comparison)[0]['removed']} "
                f"of {len(comparison.heads)}"
                for scope, comparison in complete.items()
            ]
            sentences.append(
                f"Heads of one type alone that are shown to do no harm in the {order} order by the "
                f"same margin: {', '.join(counts)}."
            )
    whole = in_scope(curves, ALL)
    if len(whole) > FEW:
        return sentences
    return sentences + [_better(one, whole[one.order].first) for one in between_all(whole)]


def _how_far(order: str, comparison: Comparison) -> str:
    last, then = tables.removable(comparison)
    total, scale, some = len(comparison.heads), comparison.scale, last["removed"] > 0
    row = last if some or then is None else then
    go = "be patched" if patching(comparison.manifest) else "go"
    change, low, high = (scale.signed(row[name]) for name in CHANGES)
    count = (
        f"{last['removed']} of {total} heads ({last['share']:.0f} %) can {go}"
        if some
        else f"it is not shown that any heads can {go}"
    )
    fails = (
        f"the next step, {then['removed']} heads, is not"
        if some and then
        else f"the first step, {row['removed']} heads, fails"
        if then
        else "no step fails"
    )
    return (
        f"In the {order} order {count}: {scale.name} is {'' if some else 'not '}shown to be "
        f"less than {comparison.margin:g} {scale.unit} worse. It changes by {change} {scale.unit}, "
        f"95 % interval {low} to {high} ({comparison.examples} {comparison.example_word}s; "
        f"non-inferiority by {comparison.harm_test[0]}, one-sided {100 * ONE_SIDED:g} %, step by "
        f"step: {fails})."
    )


# --- two orders ----------------------------------------------------------------------------------


def single(comparison: Comparison) -> Curve:
    """The curve of one model."""
    return Curve({int(comparison.manifest.get("seed", 0)): comparison})


def in_scope(curves: Curves, scope: str) -> dict[str, Curve]:
    """The curves of one scope, by order."""
    return {order: single(scopes[scope]) for order, scopes in curves.items() if scope in scopes}


def scopes_of(curves: Curves) -> list[str]:
    """The scopes that there are, in their order."""
    return list(dict.fromkeys(scope for scopes in curves.values() for scope in scopes))


def _better(found: Between, comparison: Comparison) -> str:
    order, other, area, _ = found
    scale = comparison.scale
    mean, low, high = (scale.signed(value) for value in area[:3])
    numbers = (
        f"{mean} {scale.unit} on average over the shares removed, 95 % interval {low} to {high} "
        f"(paired, on the same {comparison.examples} {comparison.example_word}s)"
    )
    if area.low <= 0 <= area.high:
        return f"That the {order} and the {other} order differ is not shown: {numbers}."
    worse = worth(comparison.metric, area.value) < 0
    return (
        f"The {order} order is {'worse' if worse else 'better'} than the {other} order: {numbers}."
    )


def _area_listing(curves: Curves) -> list[Listing]:
    rows: Rows = [
        {"heads": named(scope) if scope != ALL else ALL} | row
        for scope in scopes_of(curves)
        for row in as_rows(between_all(in_scope(curves, scope)))
    ]
    if not rows:
        return []
    first = next(comparison for scopes in curves.values() for comparison in scopes.values())
    caption = (
        f"The area between the curves of two orders: how much {first.scale.name} differs (order - "
        f"beside, in {first.scale.unit}) on average over the shares of heads removed, with its "
        f"paired 95 % interval from {first.resamples:,} resamples; not corrected for the number of "
        "lines."
    )
    return [listing(first, "pruning_areas", rows, caption, folded=len(rows) > MOST)]


# --- the section ---------------------------------------------------------------------------------


def named(scope: str) -> str:
    """The heads in a scope, in words."""
    return NAMES.get(scope, scope)


def section(curves: Curves) -> list[Item]:
    """All curves, as pictures and tables."""
    of_all = {order: scopes[ALL] for order, scopes in curves.items() if ALL in scopes}
    of_types = {order: scopes for order, scopes in curves.items() if set(scopes) != {ALL}}
    first = next(comparison for scopes in curves.values() for comparison in scopes.values())
    items: list[Item] = []
    for order, scopes in curves.items():
        comparison = next(iter(scopes.values()))
        examples = f"{comparison.examples} {comparison.example_word}s"
        items.append(f"{order}: {results.jobs(comparison.manifest)[:-1]} ({examples}).")
    items += [first.signature] if first.signature else []
    items += _of_all(of_all) if of_all else []
    items += [_of_types(of_types)] if of_types else []
    items += _area_listing(curves)
    for order, scopes in curves.items():
        items += [_listing(order, scope, comparison) for scope, comparison in scopes.items()]
    return items


def drawn(finished: Mapping[str, Store]) -> list[Item]:
    """Of how many draws Shapley values are, and how far these may be off."""
    said: dict[Item, None] = {}
    for name, store in finished.items():
        draws, within = (store.manifest.get(key) for key in ("draws", "within"))
        if draws and name.startswith("pruning/shapley"):
            known = (
                "how far they are from those of all orders cannot be said of so few"
                if within is None
                else f"each head's is within {within:.2g} nats of that of all orders on the same "
                "examples (95 %, each by itself; as far as draws are normal it holds however one "
                "chose to stop)"
            )
            said[f"Shapley values are of {draws} random orders and their reverses; {known}."] = None
    return list(said)


def reductions(curves: Mapping[str, Mapping[str, Comparison]]) -> list[Item]:
    """The curves of each order by token, example and batch, as a picture, and the areas between
    them."""
    first = next(one for by_per in curves.values() for one in by_per.values())
    panels = {
        f"{order} order": {
            f"per {per}": tables.drawn_curve(comparison) for per, comparison in by_per.items()
        }
        for order, by_per in curves.items()
    }
    items: list[Item] = [
        picture(
            "pruning_per",
            plots.curves(panels, full_metric(first), first.constant, first.scale),
            "The curves of importance by what its absolute value is taken of before it is summed: "
            f"the gradient of each token, each example or each batch. {BANDS}",
        )
    ]
    for order, by_per in curves.items():
        areas = _area_listing({per: {ALL: comparison} for per, comparison in by_per.items()})
        items += renamed(areas, f"-{order}")
    return items


def _listing(order: str, scope: str, comparison: Comparison) -> Listing:
    only = f", {named(scope)} only; shares are of its {comparison.scope_AH.sum()} heads"
    return listing(
        comparison,
        f"pruning_{order}" + f"_{scope}" * (scope != ALL),
        tables.curve_table(comparison),
        f"Pruning in the {order} order{only * (scope != ALL)}; each line against the full model, "
        "with the interval of this line alone and the band of all together.",
        folded=True,
    )


def _of_all(by_order: Mapping[str, Comparison]) -> list[Item]:
    first = next(iter(by_order.values()))
    rows = {order: tables.drawn_curve(comparison) for order, comparison in by_order.items()}
    gone = {order: tables.removal_shares(comparison) for order, comparison in by_order.items()}
    return [
        picture(
            "pruning",
            plots.curves(
                {"": rows}, full_metric(first), first.constant, first.scale, len(first.heads)
            ),
            f"How {first.scale.name} changes as heads are removed, without retraining (the "
            f"paper's Figures 3 and 6). {BANDS}",
        ),
        picture(
            "removal",
            heatmaps.removals(gone, first.manifest["rows"], first.scope_AH),
            "When each head goes, in each order: light heads first, dark heads last; the darkest "
            "stay to the end.",
        ),
    ]


def _of_types(curves: Curves) -> Picture:
    first = next(comparison for scopes in curves.values() for comparison in scopes.values())
    panels = {}
    for order, scopes in curves.items():
        rows = {
            named(scope): tables.drawn_curve(comparison) for scope, comparison in scopes.items()
        }
        whole = {"all heads": rows.pop(ALL)} if ALL in rows else {}
        panels[f"{order} order"] = rows | whole  # last, so that types have their usual colours
    return picture(
        "pruning_types",
        plots.curves(panels, full_metric(first), first.constant, first.scale),
        f"How {first.scale.name} changes as heads of one type of attention are removed and the "
        f"others all stay (the paper's Figure 4); shares are of the heads of that type. {BANDS}",
    )


def full_metric(comparison: Comparison) -> float:
    """The full model's metric; NaN if it is not among the masks."""
    return math.nan if comparison.full is None else float(comparison.metric_M[comparison.full])
