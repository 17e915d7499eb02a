"""Sections about heads that are removed together: whole rows, random subsets, more and more in one order, masks of a file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

import numpy as np

from hp_jax.report import tables
from hp_jax.report.comparison import Judged, judge, part_of, points
from hp_jax.report.html import SIGNIFICANT, Item, Rows
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.row_types import by_type
from hp_jax.report.sections import pruning
from hp_jax.report.sections.heads import count
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

MOST = 40
"""Masks of a file that are shown without a click."""
QUARTILES = ("lowest", "q25", "median", "q75", "highest")


def read(store: Store) -> Judged:
    """A finished grid about the heads that its settings name, though its masks may not touch every row of them."""
    return judge(store, part_of(store.manifest, store.manifest["experiment"]["ablation"]["attention"]))


def rows_off(judged: Judged) -> list[Item]:
    """What each row is worth as a whole."""
    rows, metric = _row_table(judged), judged.metric_name
    names, p_name = [row["row"] for row in rows], tables.p_name(judged)
    change, low, high = ([row[key] for row in rows] for key in ("change", "low", "high"))
    figure = plots.dots(names, change, low, high, [row[p_name] < SIGNIFICANT for row in rows], f"change of {metric} (points)")
    return [
        judged.measured,
        count(judged),
        picture(
            "rows_off",
            figure,
            f"Change of {metric} in points when a whole row is removed and the others stay; bars: 95 % paired-bootstrap "
            f"interval; filled: p < {SIGNIFICANT} ({judged.test}).",
        ),
        listing(judged, "rows_off", rows, "Every row removed alone; 95 % intervals and p from 1,000 paired resamples."),
        tables.masks_file(judged, "rows_off"),
    ]


def random(judged: Judged, curves: pruning.Curves, prefixes: Judged | None) -> list[Item]:
    """What the removal of heads does whichever they are, and the curves of orders on the same data beside it."""
    beside = _beside(judged, curves, prefixes)
    settings, metric = judged.manifest["experiment"]["ablation"]["random"], judged.metric_name
    rows = _share_table(judged, beside)
    means = [{"share": row["share"], "metric": row["mean"], "low": float("nan"), "high": float("nan")} for row in rows]
    lines = {"mean of random subsets": means, **{name: tables.curve_table(other) for name, other in beside.items()}}
    figure = plots.curves(
        {"": lines},
        float(judged.metric_M[0]),
        judged.constant,
        metric,
        points(judged.manifest),
        len(judged.living),
        cloud=tables.curve_table(judged)[1:],
    )
    drawn = f"Up to {settings['count']} subsets of each number of heads, drawn from seed {settings['seed']}, each once"
    orders = " Beside them what the same numbers of heads cost in an order, with its 95 % interval as a band." if beside else ""
    also = "; the last columns are the orders' with as many heads removed" if beside else ""
    return [
        f"{judged.measured} {drawn}. An order of heads is worth what it keeps beyond these.",
        picture(
            "random",
            figure,
            f"How {metric} changes as random subsets of the heads are removed; each point is a subset.{orders}",
        ),
        listing(
            judged,
            "random",
            rows,
            f"Mean, range and quartiles of {metric} over the subsets of each number of heads{also}. A significant drop has "
            f"p < {SIGNIFICANT} ({judged.test}).",
        ),
        tables.masks_file(judged, "random"),
    ]


def prefixes(judged: Judged) -> list[Item]:
    """What is left as the heads of one order go, one after another."""
    rows, name = _order_table(judged), _order(judged)
    scored = {job: split for job, split in judged.manifest["splits"].items() if job != "test"}
    total, full = len(judged.living), float(judged.metric_M[0])
    figure = plots.curves({"": {name: rows}}, full, judged.constant, judged.metric_name, points(judged.manifest), total)
    caption = f"How {judged.metric_name} changes as heads are removed one after another. Band: 95 % interval of the change."
    return [
        f"{tables.jobs({'splits': scored})} {judged.measured}" if scored else judged.measured,
        *pruning.how_far({name.removesuffix(" order"): {pruning.ALL: judged}}),
        picture("prefixes", figure, caption),
        listing(judged, "prefixes", rows, "The heads in their order, each line against the full model.", folded=True),
        tables.masks_file(judged, "prefixes"),
    ]


def own(judged: Judged) -> list[Item]:
    """What each mask of a user's file does."""
    rows = tables.mask_table(judged)
    caption = (
        f"The masks of {judged.manifest['experiment']['ablation']['masks']} in their order, mask 0 the full model; the "
        f"heads that each is without as row:head,head. Change of {judged.metric_name} in points with its 95 % interval."
    )
    return [judged.measured, count(judged), listing(judged, "file_masks", rows, caption, folded=len(rows) > MOST)]


def _row_table(judged: Judged) -> Rows:
    """What each row's own mask does (removed whole), rows by type."""
    sizes = judged.part_AH.sum(1)[judged.part_AH.any(1)]
    rows = [
        {"row": name, "removed": int(size)} | tables.judgement(judged, place)
        for place, (name, size) in enumerate(zip(judged.rows, sizes, strict=True), 1)
    ]
    return [rows[place] for place in itertools.chain(*by_type(judged.rows).values())]


def _order_table(judged: Judged) -> Rows:
    """The curve of masks that each lack one head more, with that head."""
    gone_MAH = judged.masks_MAH[:-1] & ~judged.masks_MAH[1:]
    goes = ["–"] + [f"{judged.manifest['rows'][row]}.{head}" for _, row, head in np.argwhere(gone_MAH)]
    return [{"head that goes": head} | row for head, row in zip(goes, tables.curve_table(judged), strict=True)]


def _share_table(judged: Judged, beside: Mapping[str, Judged]) -> Rows:
    """The metric over all masks that lack equally many heads, a line a number; and under the masks of `beside` that do."""
    of_number = itemgetter("removed")
    curves = {name: {row["removed"]: row["metric"] for row in tables.curve_table(other)} for name, other in beside.items()}
    table = []
    for number, alike in itertools.groupby(sorted(tables.curve_table(judged)[1:], key=of_number), key=of_number):
        some = list(alike)
        metric = [row["metric"] for row in some]
        drops = sum(row["change"] < 0 and row[tables.p_name(judged)] < SIGNIFICANT for row in some)
        quartiles = zip(QUARTILES, np.quantile(metric, np.linspace(0, 1, len(QUARTILES))), strict=True)
        table.append(
            {"removed": number, "share": some[0]["share"], "subsets": len(some), "mean": float(np.mean(metric))}
            | {name: float(value) for name, value in quartiles}
            | {"significant drops": drops}
            | {name: curve.get(number, math.nan) for name, curve in curves.items()}
        )
    return table


def _beside(judged: Judged, curves: pruning.Curves, prefixes: Judged | None) -> Mapping[str, Judged]:
    """The curves that can be compared with `judged`, by the order's name."""
    every = [(f"{order} order", curve) for order, parts in curves.items() for curve in parts.values()]
    every += [(_order(prefixes), prefixes)] if prefixes else []
    return {name: curve for name, curve in every if _same(judged, curve)}


def _order(prefixes: Judged) -> str:
    """The order of prefixes in words."""
    return f"{Path(prefixes.manifest['experiment']['ablation']['order']).name} order"


def _same(judged: Judged, other: Judged) -> bool:
    """Whether both were measured with the same model, on the same data, about the same heads."""
    found, expected = other.manifest["fingerprint"], judged.manifest["fingerprint"]
    same = all(found.get(of) == expected.get(of) for of in ("model", "data"))
    return same and other.full is not None and bool((judged.part_AH == other.part_AH).all())
