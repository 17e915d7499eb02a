"""Sections about heads that are removed together: whole rows, random subsets, more and more in one
order, masks of a file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

import numpy as np

from hp_jax.descriptors import format_descriptor
from hp_jax.metrics import worth
from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison
from hp_jax.report.html import Item, Rows, judged
from hp_jax.report.pictures import heatmaps, plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.row_types import sorted_by_type
from hp_jax.report.scale import SIGNIFICANT
from hp_jax.report.sections import pruning
from hp_jax.report.sections.heads import count
from hp_jax.report.tables import listing

MOST = 40
"""Masks of a file that are shown without a click."""
QUARTILES = ("lowest", "q25", "median", "q75", "highest")


def rows_off(comparison: Comparison) -> list[Item]:
    """What each row is worth as a whole."""
    rows, metric, unit = _row_table(comparison), comparison.scale.name, comparison.scale.unit
    names, p_name = [row["row"] for row in rows], tables.p_name(comparison)
    change, low, high = ([row[key] for row in rows] for key in ("change", "low", "high"))
    figure = plots.dots(
        names,
        change,
        low,
        high,
        [row[p_name] < SIGNIFICANT for row in rows],
        f"change of {metric} ({unit})",
        [judged(row, comparison.scale) for row in rows],
    )
    return [
        comparison.measured,
        count(comparison),
        picture(
            "rows_off",
            figure,
            f"Change of {metric} in {unit} when a whole row is removed and the others stay; bars: "
            f"95 % paired-bootstrap interval; filled: p < {SIGNIFICANT} ({comparison.test}, "
            "uncorrected).",
        ),
        listing(
            comparison,
            "rows_off",
            rows,
            f"Every row removed alone; 95 % intervals and p from {comparison.resamples:,} paired "
            "resamples.",
        ),
        tables.masks_file(comparison, "rows_off"),
    ]


def groups_off(comparison: Comparison) -> list[Item]:
    """What each group of query heads that share keys and values is worth."""
    masks_MAH = comparison.masks_MAH
    return _groups(comparison, masks_MAH[:1] & ~masks_MAH, "groups_off", "removed alone")


def group_on(comparison: Comparison) -> list[Item]:
    """What each group of query heads that share keys and values can do for its row."""
    masks_MAH = comparison.masks_MAH
    own_MAH = masks_MAH & (masks_MAH[:1] & ~masks_MAH).any(2, keepdims=True)
    return _groups(comparison, own_MAH, "group_on", "alone in its row")


def _groups(comparison: Comparison, own_MAH: np.ndarray, name: str, how: str) -> list[Item]:
    """own: the heads of each mask's group, `[M, A, H]`; none of the full model's."""
    manifest, scale = comparison.manifest, comparison.scale
    change_AH = np.full(own_MAH.shape[1:], np.nan)
    marked_AH = np.zeros(own_MAH.shape[1:], bool)
    rows: Rows = []
    said: dict[str, str] = {}
    for mask, own_AH in enumerate(own_MAH[1:], 1):
        row, heads = int(np.flatnonzero(own_AH.any(1))[0]), np.flatnonzero(own_AH.any(0)).tolist()
        change_AH[own_AH] = comparison.change.difference[mask]
        marked_AH[own_AH] = comparison.p_M[mask] < SIGNIFICANT
        found = {"group": format_descriptor({manifest["rows"][row]: heads})}
        rows.append(found | tables.mask_row(comparison, mask))
        words = f"{found['group']}: {judged(rows[-1], scale)}"
        said |= {format_descriptor({manifest["rows"][row]: [head]}): words for head in heads}
    caption = f"change of {scale.name} in {scale.unit} with each group of query heads {how}"
    figure = heatmaps.heatmap(
        change_AH,
        manifest["rows"],
        f"change of {scale.name} ({scale.unit})",
        centred=True,
        marked_AH=marked_AH,
        colours="RdBu" if comparison.metric.larger_is_better else "RdBu_r",
        said=said,
    )
    return [
        comparison.measured,
        count(comparison),
        picture(name, figure, f"{caption.capitalize()}; framed: p < {SIGNIFICANT}, uncorrected."),
        listing(
            comparison,
            name,
            rows,
            f"Every group {how}; 95 % intervals and p from {comparison.resamples:,} paired "
            "resamples.",
            folded=len(rows) > MOST,
        ),
        tables.masks_file(comparison, name),
    ]


def random(
    comparison: Comparison, curves: pruning.Curves, prefixes: Comparison | None
) -> list[Item]:
    """What the removal of heads does whichever they are, and the curves of orders on the same data
    beside it."""
    beside, metric = _beside(comparison, curves, prefixes), comparison.scale.name
    settings = comparison.manifest["experiment"]["ablation"]["random"]
    rows = _share_table(comparison, beside)
    means = [
        {"share": row["share"], "metric": row["mean"], "low": float("nan"), "high": float("nan")}
        for row in rows
    ]
    lines = {
        "mean of random subsets": means,
        **{name: tables.drawn_curve(other) for name, other in beside.items()},
    }
    figure = plots.curves(
        {"": lines},
        float(comparison.metric_M[0]),
        comparison.constant,
        comparison.scale,
        len(comparison.heads),
        cloud=tables.curve_table(comparison)[1:],
    )
    drawn = (
        f"Up to {settings['count']} subsets of each number of heads, drawn from seed "
        f"{settings['seed']}, each once"
    )
    orders = (
        " Beside them what the same numbers of heads cost in an order, with its 95 % interval as "
        "a band."
        if beside
        else ""
    )
    also = "; the last columns are the orders' with as many heads removed" if beside else ""
    return [
        f"{comparison.measured} {drawn}. An order of heads is worth what it keeps beyond these.",
        picture(
            "random",
            figure,
            f"How {metric} changes as random subsets of the heads are removed; each point is a "
            f"subset.{orders}",
        ),
        listing(
            comparison,
            "random",
            rows,
            f"Mean, range and quartiles of {metric} over the subsets of each number of "
            f"heads{also}. A significant {comparison.drop_word} has p < {SIGNIFICANT} "
            f"({comparison.test}).",
        ),
        tables.masks_file(comparison, "random"),
    ]


def prefixes(comparison: Comparison) -> list[Item]:
    """What is left as the heads of one order go, one after another."""
    rows, name = _order_table(comparison), _order_name(comparison)
    scored = {job: split for job, split in comparison.manifest["splits"].items() if job != "test"}
    full, total = float(comparison.metric_M[0]), len(comparison.heads)
    drawn = {"": {name: tables.drawn_curve(comparison)}}
    figure = plots.curves(drawn, full, comparison.constant, comparison.scale, total)
    caption = (
        f"How {comparison.scale.name} changes as heads are removed one after another. "
        f"{pruning.BANDS}"
    )
    return [
        f"{results.jobs({'splits': scored})} {comparison.measured}"
        if scored
        else comparison.measured,
        *pruning.how_far({name.removesuffix(" order"): {pruning.ALL: comparison}}),
        picture("prefixes", figure, caption),
        listing(
            comparison,
            "prefixes",
            rows,
            "The heads as they go in this order, each line against the full model.",
            folded=True,
        ),
        tables.masks_file(comparison, "prefixes"),
    ]


def own(comparison: Comparison) -> list[Item]:
    """What each mask of a user's file does."""
    rows = tables.mask_table(comparison)
    caption = (
        f"The masks of {comparison.manifest['experiment']['ablation']['masks']} as they stand "
        "there, mask 0 the full model; the heads that each is without, named as --heads takes "
        f"them. Change of {comparison.scale.name} in {comparison.scale.unit} with its 95 % "
        "interval."
    )
    return [
        comparison.measured,
        count(comparison),
        listing(comparison, "file_masks", rows, caption, folded=len(rows) > MOST),
    ]


def _row_table(comparison: Comparison) -> Rows:
    """What each row's own mask does (removed whole), rows by type."""
    sizes = comparison.scope_AH.sum(1)[comparison.scope_AH.any(1)]
    rows = [
        {"row": name, "removed": int(size)} | tables.mask_row(comparison, mask)
        for mask, (name, size) in enumerate(zip(comparison.rows, sizes, strict=True), 1)
    ]
    return [rows[row] for row in sorted_by_type(comparison.rows)]


def _order_table(comparison: Comparison) -> Rows:
    """The curve of masks that each lack one head more, with that head."""
    gone_MAH = comparison.masks_MAH[:-1] & ~comparison.masks_MAH[1:]
    goes = ["–"] + [
        format_descriptor({comparison.manifest["rows"][row]: [int(head)]})
        for _, row, head in np.argwhere(gone_MAH)
    ]
    return [
        {"head that goes": head} | row
        for head, row in zip(goes, tables.curve_table(comparison), strict=True)
    ]


def _share_table(comparison: Comparison, beside: Mapping[str, Comparison]) -> Rows:
    """The metric over all masks that lack equally many heads, a line a number; and under the masks
    of `beside` that do."""
    of_number = itemgetter("removed")
    curves = {
        name: {row["removed"]: row["metric"] for row in tables.curve_table(other)}
        for name, other in beside.items()
    }
    table = []
    for number, alike in itertools.groupby(
        sorted(tables.curve_table(comparison)[1:], key=of_number), key=of_number
    ):
        some = list(alike)
        metric = [row["metric"] for row in some]
        drops = sum(
            worth(comparison.metric, row["change"]) < 0
            and row[tables.p_name(comparison)] < SIGNIFICANT
            for row in some
        )
        quartiles = zip(
            QUARTILES, np.quantile(metric, np.linspace(0, 1, len(QUARTILES))), strict=True
        )
        table.append(
            {
                "removed": number,
                "share": some[0]["share"],
                "subsets": len(some),
                "mean": float(np.mean(metric)),
            }
            | {name: float(value) for name, value in quartiles}
            | {f"significant {comparison.drop_word}s": drops}
            | {name: curve.get(number, math.nan) for name, curve in curves.items()}
        )
    return table


def _beside(
    comparison: Comparison, curves: pruning.Curves, prefixes: Comparison | None
) -> Mapping[str, Comparison]:
    """The curves that can be compared with `comparison`, by the order's name."""
    every = [
        (f"{order} order", curve) for order, scopes in curves.items() for curve in scopes.values()
    ]
    every += [(_order_name(prefixes), prefixes)] if prefixes else []
    return {name: curve for name, curve in every if _same(comparison, curve)}


def _order_name(prefixes: Comparison) -> str:
    """The order of prefixes in words."""
    return f"{Path(prefixes.manifest['experiment']['ablation']['order']).name} order"


def _same(comparison: Comparison, other: Comparison) -> bool:
    """Whether both were measured with the same model, on the same data, with the same heads in
    scope."""
    found, expected = other.manifest["fingerprint"], comparison.manifest["fingerprint"]
    same = all(found.get(of) == expected.get(of) for of in ("model", "data"))
    return same and other.full is not None and bool((comparison.scope_AH == other.scope_AH).all())
