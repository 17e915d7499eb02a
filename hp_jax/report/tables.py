"""From result stores to tables: plain rows of numbers.

Rows are dicts whose keys are those of `html.COLUMNS`; changes of the metric are in its scale's
unit, losses in nats, shares in percent. Heads count from 0, rows of the head mask go by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hp_jax.descriptors import format_descriptor
from hp_jax.heads import living_heads, removed
from hp_jax.importance import stored_scores
from hp_jax.metrics import worth
from hp_jax.report.comparison import Comparison, present, signatures
from hp_jax.report.html import Listing, Rows, heading, judged
from hp_jax.report.results import importance_scores
from hp_jax.report.row_types import NAMES, by_type, sorted_by_type
from hp_jax.report.scale import SIGNIFICANT
from hp_jax.stats import Differences, bands, pearson, rank_interval, score_reliability, spearman
from hp_jax.storage.store import Store


def listing(
    comparison: Comparison,
    name: str,
    rows: Rows,
    caption: str,
    *,
    folded: bool = False,
    most: int | None = None,
) -> Listing:
    """A table of numbers of a grid, with what has to be said beside them."""
    per = f"Losses are nats per {comparison.example_word}."
    by_sacrebleu = signatures(comparison.manifest, [comparison.metric.name, *rows[0]])
    has_losses = "loss" in rows[0] or comparison.metric.name == "loss"
    note = " ".join(filter(None, [by_sacrebleu, per if has_losses else ""]))
    return Listing(name, rows, caption, folded=folded, note=note, scale=comparison.scale, most=most)


def masks_file(comparison: Comparison, name: str) -> Listing:
    """The CSV of every mask of a grid, for machines."""
    caption = "every mask of this grid, a line each in the grid's order."
    return listing(comparison, f"{name}_masks", mask_table(comparison), caption, most=0)


# --- each mask -----------------------------------------------------------------------------------


def mask_row(comparison: Comparison, mask: int) -> dict[str, float]:
    """What the report shows of one mask, by column."""
    numbers = {
        "metric": comparison.metric_M,
        "change": comparison.change.difference,
        "low": comparison.change.low,
        "high": comparison.change.high,
        "p_bootstrap": comparison.change.p,
        "p_mcnemar": comparison.mcnemar_M,
        "p_corrected": comparison.adjusted_M,
        **comparison.others,
    }
    if comparison.metric.name != "loss":
        numbers |= {"loss": comparison.loss_M, "loss_change": comparison.loss_change_M}
    return {name: float(values[mask]) for name, values in numbers.items() if values is not None}


def judgements(comparison: Comparison) -> list[str]:
    """Of each head's own mask its change with interval and p, in words."""
    count = len(comparison.heads)
    return [judged(mask_row(comparison, mask), comparison.scale) for mask in range(1, count + 1)]


def p_name(comparison: Comparison) -> str:
    """The column of the p-values that decide."""
    return "p_mcnemar" if comparison.test == "McNemar" else "p_bootstrap"


def mask_table(comparison: Comparison) -> Rows:
    """Every mask as the grid has them: how many heads it is without, and which
    (`hp_jax.descriptors`); with other tests beside those that decide, and the claims of no harm."""
    no_harm, free = comparison.no_harm, comparison.free
    tests = {
        **comparison.tests,
        "p_no_harm": no_harm.p,
        "p_no_harm_corrected": no_harm.adjusted,
        "p_free": free.p,
        "p_free_corrected": free.adjusted,
    }
    rows, present_AH = comparison.manifest["rows"], present(comparison.manifest)
    table = []
    for mask, mask_AH in enumerate(comparison.masks_MAH):
        gone = removed(mask_AH, present_AH, rows)
        count = sum(map(len, gone.values()))
        table.append(
            {"mask": mask, "removed": count, "without": format_descriptor(gone)}
            | mask_row(comparison, mask)
            | {name: float(p_M[mask]) for name, p_M in tests.items()}
        )
    return table


# --- single heads --------------------------------------------------------------------------------


def importance_table(store: Store) -> Rows:
    """Every head's importance, the most important first."""
    named, normalised_AH = _named_scores(store), importance_scores(store)[1]
    heads = sorted(living_heads(store.read("mask")), key=lambda head: -normalised_AH[head])
    return [
        _name(store.manifest, *head)
        | {name: float(score_AH[head]) for name, score_AH in named.items()}
        for head in heads
    ]


def reliability(importance: Store) -> float:
    """Split-half reliability of importance as the pruning orders take it, between random halves of
    its parts; NaN where it cannot be told."""
    norm, mask_AH = importance.manifest["experiment"]["importance"]["norm"], importance.read("mask")

    def score(sums: Mapping[str, np.ndarray]) -> np.ndarray:
        one_part = {name: values[None] for name, values in sums.items()}
        return stored_scores(one_part, mask_AH, norm=norm)[1][mask_AH != 0]

    return score_reliability(importance.read_items(), score)


def head_table(comparison: Comparison) -> Rows:
    """What each head's own mask does (removed alone, or alone in its row), the greatest drop of the
    metric first; of equal metrics the higher loss.  Its rank among all heads is given with 95 %."""
    good_M = worth(comparison.metric, comparison.metric_M)
    loss_M = np.nan_to_num(comparison.loss_M)
    low_M, high_M = rank_interval(Differences(*(part[1:] for part in comparison.worse)))

    def ranks(mask: int) -> dict[str, int]:
        return {"rank_low": int(low_M[mask - 1]), "rank_high": int(high_M[mask - 1])}

    return [
        _name(comparison.manifest, *comparison.heads[mask - 1])
        | mask_row(comparison, mask)
        | ranks(mask)
        for mask in sorted(
            range(1, len(comparison.heads) + 1),
            key=lambda mask: (good_M[mask], -loss_M[mask]),
        )
    ]


def best_per_row(comparison: Comparison, chosen: Comparison | None = None) -> Rows:
    """The best single head of each row, by type; of equal metrics the lower loss.

    chosen: the grid of the same masks that says which head is best (Tables 5 and 6); default: the
    same grid (Tables 2 and 3).
    """
    best = {row["row"]: row["head"] for row in head_table(chosen or comparison)}
    found = {row["row"]: row for row in head_table(comparison) if row["head"] == best[row["row"]]}
    return [found[comparison.rows[index]] for index in sorted_by_type(comparison.rows)]


def star(row: Mapping[str, Any], comparison: Comparison) -> str:
    """The mark of a row of numbers, as in `Comparison.star`."""
    if row["p_corrected"] < SIGNIFICANT:
        return "†"
    return "*" * bool(row[p_name(comparison)] < SIGNIFICANT)


def layer_table(comparison: Comparison, chosen: Comparison | None = None) -> Rows:
    """The change of the metric with the best head of each row, see `best_per_row`, laid out as the
    paper's Tables 2 and 5: a line a layer, a column a type.

    Marks as in `Comparison.star`; – a row that is not there.
    """
    best = {row["row"]: row for row in best_per_row(comparison, chosen)}
    words = {
        name: (
            f"head {row['head']}: {comparison.scale.signed(row['change'])}{star(row, comparison)}"
        )
        for name, row in best.items()
    }
    layers, types = dict.fromkeys(name.partition(".")[2] for name in best), by_type(list(best))
    return [
        {"layer": layer}
        | {NAMES.get(name, name): words.get(f"{name}.{layer}", "–") for name in types}
        for layer in layers
    ]


def grid_table(comparison: Comparison) -> Rows:
    """The change of the metric of each head, laid out as Table 1; marks as in `Comparison.star`, –
    a head that is not there."""
    mask_AH = comparison.spread(np.arange(1.0, len(comparison.masks_MAH)))

    def cell(mask: float) -> str:
        if math.isnan(mask):
            return "–"
        change = comparison.change.difference[int(mask)]
        return comparison.scale.signed(change) + comparison.star(int(mask))

    return [
        {"row": comparison.rows[row]}
        | {str(head): cell(mask) for head, mask in enumerate(mask_AH[row])}
        for row in sorted_by_type(comparison.rows)
    ]


def greatest_drops(comparison: Comparison) -> Rows:
    """The heads without which the metric is significantly worse, corrected for their number, the
    greatest drop first."""
    drop, p = comparison.drop_M[1:], comparison.adjusted_M[1:]
    found = [
        index
        for index in np.argsort(-drop, kind="stable")
        if drop[index] > 0 and p[index] < SIGNIFICANT
    ]
    change = comparison.change.difference[1:]
    return [{"head": comparison.names[index], "change": float(change[index])} for index in found]


# --- pruning -------------------------------------------------------------------------------------


def curve_table(comparison: Comparison) -> Rows:
    """The pruning curve: one row a mask, with the number of heads that are really gone and their
    share of those in scope; the interval of each point, and the band of 95 % of all together."""
    total = int(comparison.scope_AH.sum())
    removed_M = (comparison.scope_AH & ~comparison.masks_MAH).sum((1, 2))
    low_M, high_M = bands(comparison.differences)
    return [
        {"removed": int(count), "share": 100 * int(count) / total}
        | mask_row(comparison, mask)
        | {"band_low": float(low_M[mask]), "band_high": float(high_M[mask])}
        for mask, count in enumerate(removed_M)
    ]


def drawn_curve(comparison: Comparison) -> Rows:
    """The pruning curve as it is drawn, between the ends of its band."""
    return [
        row | {"low": row["band_low"], "high": row["band_high"]} for row in curve_table(comparison)
    ]


def removable(comparison: Comparison) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The curve's last row up to which all are shown to do no harm, and the first that is not, if
    there is one.

    So no point is tested after one that failed, and the chance of a false claim about any point
    is that of one test (a fixed sequence: Maurer, Hothorn and Lehmacher 1995).
    """
    rows = curve_table(comparison)
    last = last_harmless(comparison.harmless_M, np.array([row["removed"] for row in rows]))
    return rows[last], rows[last + 1] if last + 1 < len(rows) else None


def last_harmless(harmless_M: np.ndarray, removed_M: np.ndarray) -> int:
    """The last point of a curve up to which all are shown to do no harm; the full model, without
    heads removed, does none."""
    fails = np.flatnonzero(~harmless_M & (removed_M > 0))
    return int(fails[0]) - 1 if len(fails) else len(harmless_M) - 1


def removal_shares(comparison: Comparison) -> np.ndarray:
    """The share of heads removed (%) at the first mask without each head `[A, H]`; infinite for
    heads that always stay."""
    off_MAH = ~comparison.masks_MAH
    share_M = np.array([row["share"] for row in curve_table(comparison)])
    return np.where(off_MAH.any(0), share_M[off_MAH.argmax(0)], np.inf)


# --- importance against what is measured ---------------------------------------------------------


def effects(comparison: Comparison) -> dict[str, tuple[str, np.ndarray]]:
    """What the removal of each head does, positive where it harms: by its name the unit and the
    values `[n]`."""
    drop, unit = comparison.drop_M[1:], comparison.scale.unit
    found = {f"{comparison.drop_word} of {comparison.scale.name}": (unit, drop)}
    if comparison.metric.name != "loss":
        per = f"nats per {comparison.example_word}"
        found["increase of loss"] = per, comparison.loss_change_M[1:]
    return found


def correlation_table(importance: Store, comparison: Comparison) -> Rows:
    """How well importance foretells what removing the head does; positive: important heads are
    missed more."""
    rows = []
    for name, score_AH in _named_scores(importance).items():
        for effect, (_, values) in effects(comparison).items():
            numbers = correlations(score_AH[comparison.scope_AH], values)
            rows.append({"importance": heading(name), "effect": effect} | numbers)
    return rows


def correlations(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation over heads, each with its 95 % interval and its
    two-sided p, and the number of heads, by column."""
    columns: dict[str, float] = {}
    for name, found in (("pearson", pearson(x, y)), ("spearman", spearman(x, y))):
        columns |= {name: found.r, f"{name}_low": found.low, f"{name}_high": found.high}
        columns[f"p_{name}"] = found.p
    return columns | {"n": len(x)}


def _named_scores(importance: Store) -> dict[str, np.ndarray]:
    """The scores by their column; the normalised ones only if the rows are normalised."""
    score_AH, normalised_AH = importance_scores(importance)
    normalised = importance.manifest["experiment"]["importance"]["norm"] != 0
    return {"score": score_AH} | ({"normalised": normalised_AH} if normalised else {})


def _name(manifest: Mapping[str, Any], row: int, head: int) -> dict[str, Any]:
    return {"row": manifest["rows"][row], "head": head}
