"""From result stores to tables: plain rows of numbers.

Rows are dicts whose keys are those of `report.COLUMNS`; changes of the metric are in points, losses
in nats, shares in percent. Heads count from 0, rows go by name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from hp_jax.heads import living_heads, removed
from hp_jax.importance import stored_scores
from hp_jax.metrics import TextMetric
from hp_jax.report.comparison import Comparison, present, signatures, touched
from hp_jax.report.html import SIGNIFICANT, Listing, Rows, heading, show
from hp_jax.report.row_types import NAMES, by_type
from hp_jax.storage.files import read_json
from hp_jax.storage.store import Store, find_stores

JOBS = {
    "score": "importance computed on",
    "select": "order chosen on",
    "calibrate": "scales fitted on",
    "retrain": "trained again on",
    "test": "measured on",
}
"""What the splits of a store's manifest were for."""


def stores_below(folder: Path) -> dict[str, Store]:
    """All stores below `folder`, by their path in it."""
    return {Path(store.path).relative_to(folder).as_posix(): store for store in find_stores(folder)}


def progress(store: Store) -> tuple[int, int]:
    """How many items are done, and how many there are."""
    return int(store.done().sum()), int(store.manifest["items"])


def model_about(folder: Path) -> dict[str, Any]:
    """How the folder's model was made, with sacreBLEU's signature if it was comparison by that;
    nothing if there is no model."""
    config = folder / "model" / "config.json"
    about = read_json(config) if config.is_file() else {}
    made = about.get("experiment", {})
    if made.get("metric") in ("bleu", "chrf"):
        unversioned = TextMetric(made["metric"], made["tokenize"]).signature().rpartition(":")[0]
        about["signatures"] = {made["metric"]: f"{unversioned}:{about['versions']['sacrebleu']}"}
    return about


def jobs(manifest: Mapping[str, Any]) -> str:
    """Which split had which job, as a sentence."""
    text = "; ".join(f"{JOBS.get(job, job)} {split}" for job, split in manifest["splits"].items())
    return text[:1].upper() + text[1:] + "."


def results_table(stores: Mapping[str, Store], done: Mapping[str, tuple[int, int]]) -> Rows:
    """What there is, how much of it is done, and where it was made."""
    return [
        {
            "results": name,
            "splits": jobs(store.manifest),
            "done": "{} of {}".format(*done[name]),
            "created (UTC)": store.manifest.get("created", "?")[:16].replace("T", " "),
            "devices": ", ".join(store.manifest.get("devices", [])),
        }
        for name, store in stores.items()
    ]


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
    losses = f"Losses are nats per {comparison.unit}." if "loss" in rows[0] else ""
    note = " ".join(
        filter(
            None,
            [signatures(comparison.manifest, [comparison.manifest["metric"], *rows[0]]), losses],
        )
    )
    return Listing(
        name, rows, caption, folded=folded, note=note, metric=comparison.metric_name, most=most
    )


def masks_file(comparison: Comparison, name: str) -> Listing:
    """The CSV of every mask of a grid, for machines."""
    return listing(
        comparison,
        f"{name}_masks",
        mask_table(comparison),
        "every mask of this grid, a line each in the grid's order.",
        most=0,
    )


def importance_scores(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Mean score of each head `[A, H]` in nats, and the same as the pruning orders take it."""
    total_PAH, count_PA, mask_AH = (store.read(name) for name in ("total", "count", "mask"))
    norm = store.manifest["experiment"]["importance"]["norm"]
    return stored_scores(total_PAH, count_PA, mask_AH, norm=norm)


def importance_table(store: Store) -> Rows:
    """Every head's importance, the most important first."""
    named, normalised_AH = _named_scores(store), importance_scores(store)[1]
    heads = living_heads(store.read("mask"))
    heads.sort(key=lambda at: -normalised_AH[at])
    return [
        _name(store.manifest, *at)
        | {name: float(scores_AH[at]) for name, scores_AH in named.items()}
        for at in heads
    ]


def head_table(comparison: Comparison) -> Rows:
    """What each head's own mask does (removed alone, or alone in its row), the largest drop of the
    metric first."""
    rows = [
        _name(comparison.manifest, *at) | comparison_row(comparison, place)
        for place, at in enumerate(comparison.living, 1)
    ]
    return sorted(rows, key=lambda row: (row["metric"], -np.nan_to_num(row["loss"])))


def best_per_row(comparison: Comparison) -> Rows:
    """The best single head of each row (Tables 2 and 3), by type; of equal metrics the lower
    loss."""
    best = {row["row"]: row for row in head_table(comparison)}
    return [
        best[comparison.rows[place]]
        for places in by_type(comparison.rows).values()
        for place in places
    ]


def layer_table(comparison: Comparison) -> Rows:
    """The change of the metric in points with the best head of each row, laid out as Table 2: a
    line a layer, a column a type.

    * marks p < 0.01; – a row that is not there.
    """
    best = {row["row"]: row for row in best_per_row(comparison)}
    words = {
        name: (
            f"head {row['head']}: "
            f"{show('change', row['change'])}{'*' * (row[p_name(comparison)] < SIGNIFICANT)}"
        )
        for name, row in best.items()
    }
    layers, kinds = dict.fromkeys(name.partition(".")[2] for name in best), by_type(list(best))
    return [
        {"layer": layer}
        | {NAMES.get(kind, kind): words.get(f"{kind}.{layer}", "–") for kind in kinds}
        for layer in layers
    ]


def grid_table(comparison: Comparison) -> Rows:
    """The change of the metric in points of each head, laid out as Table 1; * marks p < 0.01, – a
    head that is not there."""
    change_AH = comparison.spread(comparison.change.difference[1:])
    star_AH = comparison.spread(comparison.p_M[1:]) < SIGNIFICANT
    rows = []
    for place in itertools.chain(*by_type(comparison.rows).values()):
        cells = zip(change_AH[place], star_AH[place], strict=True)
        words = {
            str(head): show("change", change) + "*" * bool(star)
            for head, (change, star) in enumerate(cells)
        }
        rows.append({"row": comparison.rows[place]} | words)
    return rows


def greatest_drops(comparison: Comparison) -> Rows:
    """The heads without which the metric drops significantly, the largest drop first."""
    change, p = comparison.change.difference[1:], comparison.p_M[1:]
    found = [
        place
        for place in np.argsort(change, kind="stable")
        if change[place] < 0 and p[place] < SIGNIFICANT
    ]
    return [{"head": comparison.names[place], "change": float(change[place])} for place in found]


def curve_table(comparison: Comparison) -> Rows:
    """The pruning curve: one row a mask, with the number of heads that are really gone and their
    share of those it is about."""
    total = int(comparison.scope_AH.sum())
    removed_M = (comparison.scope_AH & ~comparison.masks_MAH).sum((1, 2))
    return [
        {"removed": int(removed), "share": 100 * int(removed) / total}
        | comparison_row(comparison, place)
        for place, removed in enumerate(removed_M)
    ]


def mask_table(comparison: Comparison) -> Rows:
    """Every mask in order: how many heads it is without, and which, as `row:head,head row:head`;
    `-` for none."""
    rows, present_AH = comparison.manifest["rows"], present(comparison.manifest)
    table = []
    for place, mask_AH in enumerate(comparison.masks_MAH):
        gone = removed(mask_AH, present_AH, rows)
        words = [f"{row}:{','.join(map(str, heads))}" for row, heads in gone.items()]
        count = sum(map(len, gone.values()))
        table.append(
            {"mask": place, "removed": count, "without": " ".join(words) or "-"}
            | comparison_row(comparison, place)
        )
    return table


def p_name(comparison: Comparison) -> str:
    """The column of the p-values that decide."""
    return "p_mcnemar" if comparison.test == "McNemar" else "p_bootstrap"


def removable(comparison: Comparison) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The curve's last row before the metric drops significantly, and the row where it does, if
    there is one."""
    rows, drop_M = (
        curve_table(comparison),
        (comparison.p_M < SIGNIFICANT) & (comparison.change.difference < 0),
    )
    first = int(drop_M.argmax()) if drop_M.any() else len(rows)
    return rows[first - 1], rows[first] if first < len(rows) else None


def removal_shares(comparison: Comparison) -> np.ndarray:
    """The share of heads removed (%) at the first mask without each head `[A, H]`; infinite for
    heads that always stay."""
    off_MAH = ~comparison.masks_MAH
    share_M = np.array([row["share"] for row in curve_table(comparison)])
    return np.where(off_MAH.any(0), share_M[off_MAH.argmax(0)], np.inf)


def correlation_table(importance: Store, comparison: Comparison) -> Rows:
    """How well importance foretells what removing the head does; positive: important heads are
    missed more."""
    effects = {
        f"drop of {comparison.metric_name}": -comparison.change.difference[1:],
        "increase of loss": comparison.loss_change_M[1:],
    }
    rows = []
    for name, scores_AH in _named_scores(importance).items():
        for effect, values in effects.items():
            (r, p_r), (rho, p_rho) = correlations(scores_AH[comparison.scope_AH], values)
            numbers = {"pearson": r, "p_pearson": p_r, "spearman": rho, "p_spearman": p_rho}
            rows.append(
                {"importance": heading(name), "effect": effect} | numbers | {"n": len(values)}
            )
    return rows


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Pearson's and Spearman's correlation, each with its two-sided p; NaN where one side does not
    vary or is not there."""
    if len(x) < 3 or not all(
        np.isfinite(side).all() and np.ptp(side) > 1e-9 * np.abs(side).max() for side in (x, y)
    ):
        return (math.nan, math.nan), (math.nan, math.nan)
    pearson, spearman = scipy.stats.pearsonr(x, y), scipy.stats.spearmanr(x, y)
    return (float(pearson.statistic), float(pearson.pvalue)), (
        float(spearman.statistic),
        float(spearman.pvalue),
    )


def comparable(pairs: Store, one_off: Store) -> bool:
    """Whether both hold losses of the same model on the same data, with each head of the pairs
    alone."""
    stores = (pairs, one_off)
    same = all(
        pairs.manifest["fingerprint"].get(of) == one_off.manifest["fingerprint"].get(of)
        for of in ("model", "data")
    )
    pairs_AH, alone_AH = (touched(store.read("masks"), store.manifest) for store in stores)
    lossy = all("loss" in store.manifest["filled"] for store in stores)
    return same and lossy and bool(pairs_AH.any()) and not (pairs_AH & ~alone_AH).any()


def interactions(pairs: Store, one_off: Store) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Increase of the mean loss (nats) without two heads beyond the sum of what each alone adds:
    `[n, n]`, NaN diagonal.

    And the n heads (row, head): types of attention in the order in which they are shown.
    """
    single, double = (store.read("loss").mean(1, dtype=np.float64) for store in (one_off, pairs))
    pairs_AH, alone_AH = (
        touched(store.read("masks"), store.manifest) for store in (pairs, one_off)
    )
    alone = (single[1:] - single[0])[pairs_AH[alone_AH]]
    first, second = np.triu_indices(len(alone), k=1)
    together = np.full((len(alone), len(alone)), np.nan)
    together[first, second] = together[second, first] = (
        double[1:] - double[0] - alone[first] - alone[second]
    )
    heads = living_heads(pairs_AH)
    shown = list(
        itertools.chain(*by_type([pairs.manifest["rows"][row] for row, _ in heads]).values())
    )
    return together[np.ix_(shown, shown)], [heads[place] for place in shown]


def pair_table(
    comparison: Comparison, together: np.ndarray, heads: Sequence[tuple[int, int]]
) -> Rows:
    """Every pair with its interaction (`together`, of `heads`) and what its removal does, the
    strongest interaction first."""
    at = [heads.index(head) for head in comparison.living]
    table = []
    for place, (first, second) in enumerate(itertools.combinations(range(len(at)), 2), 1):
        told = comparison_row(comparison, place)
        table.append(
            {"mask": place, "first": comparison.names[first], "second": comparison.names[second]}
            | {name: told[name] for name in ("change", p_name(comparison), "loss_change")}
            | {"extra": float(together[at[first], at[second]])}
        )
    return sorted(table, key=lambda row: -abs(row["extra"]))


def _named_scores(importance: Store) -> dict[str, np.ndarray]:
    """The scores by their column; the normalised ones only if the rows are normalised."""
    score_AH, normalised_AH = importance_scores(importance)
    normalised = importance.manifest["experiment"]["importance"]["norm"] != 0
    return {"score": score_AH} | ({"normalised": normalised_AH} if normalised else {})


def _name(manifest: Mapping[str, Any], row: int, head: int) -> dict[str, Any]:
    return {"row": manifest["rows"][row], "head": head}


def comparison_row(comparison: Comparison, place: int) -> dict[str, float]:
    """What the report tells of one mask, by column."""
    numbers = {
        "metric": comparison.metric_M,
        "change": comparison.change.difference,
        "low": comparison.change.low,
        "high": comparison.change.high,
        "p_bootstrap": comparison.change.p,
        "p_mcnemar": comparison.mcnemar_M,
        **comparison.others,
        "loss": comparison.loss_M,
        "loss_change": comparison.loss_change_M,
    }
    return {name: float(values[place]) for name, values in numbers.items() if values is not None}
