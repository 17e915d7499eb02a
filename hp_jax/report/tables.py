"""From result stores to tables: plain rows of numbers, every mask judged against the full model.

Rows are dicts whose keys are those of `COLUMNS`; changes of the metric are in points, losses in nats, shares in percent.  Heads
count from 0, rows go by name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from hp_jax import metrics
from hp_jax.heads import living_heads
from hp_jax.importance import Sums, normalize_rows
from hp_jax.stats import Bootstrap, mcnemar, paired_bootstrap
from hp_jax.store import Store, find_stores

Rows = list[dict[str, Any]]

SIGNIFICANT = 0.01
"""The paper's level."""
POINTS = {"accuracy": 100.0, "f1": 100.0, "matthews": 100.0}
"""Points in one unit of the metric; 1 for metrics that are in points already, such as BLEU."""
METRICS = {"f1": "F1", "matthews": "Matthews correlation", "bleu": "BLEU"}
"""Names in sentences, where the metric's own will not do."""

COLUMNS: dict[str, tuple[str, str]] = {
    "row": ("row", "s"),
    "head": ("head", "d"),
    "score": ("mean score (nats)", ".3e"),
    "normalised": ("row-normalised", ".3f"),
    "removed": ("heads removed", "d"),
    "share": ("share (%)", ".1f"),
    "metric": ("metric", "#.4g"),
    "change": ("change (points)", "+.2f"),
    "low": ("95 % from", "+.2f"),
    "high": ("to", "+.2f"),
    "p_bootstrap": ("p, bootstrap", ".3f"),
    "p_mcnemar": ("p, McNemar", ".3f"),
    "loss": ("mean loss (nats)", ".4f"),
    "loss_change": ("loss change (nats)", "+.4f"),
    "pearson": ("Pearson r", "+.3f"),
    "p_pearson": ("p, Pearson", ".3f"),
    "spearman": ("Spearman ρ", "+.3f"),
    "p_spearman": ("p, Spearman", ".3f"),
}
"""Heading, with its unit, and number format of each column; columns not named here are shown as they are."""


def stores_below(folder: Path) -> dict[str, Store]:
    """All stores below `folder`, by their path in it."""
    return {Path(store.path).relative_to(folder).as_posix(): store for store in find_stores(folder)}


def progress(store: Store) -> tuple[int, int]:
    """How many items are done, and how many there are."""
    return int(store.done().sum()), int(store.manifest["items"])


def statistics(store: Store) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Each example's sufficient statistics `[M, N, S]` of the store's metric, and the metric of their sums `[..., S]`.

    The only function that knows which arrays a metric needs.
    """
    manifest = store.manifest
    cells_MNS = metrics.confusion(store.read("label"), store.read("prediction"), len(manifest["labels"]))
    return cells_MNS, functools.partial(metrics.from_confusion, metric=manifest["metric"], positive=manifest["positive"])


@dataclasses.dataclass(frozen=True)
class Judged:
    """A finished grid, each mask against the full model; NaN stands for what is not stored or cannot be told."""

    manifest: Mapping[str, Any]
    masks_MAH: np.ndarray
    examples: int
    full: int | None
    """Place of the mask with all heads on."""
    metric_M: np.ndarray
    loss_M: np.ndarray
    change: Bootstrap
    """Change of the metric, in points."""
    mcnemar_M: np.ndarray
    constant: float
    """The metric of the best answer that is the same for all examples."""

    @property
    def living(self) -> list[tuple[int, int]]:
        """(row, head) of the heads whose own masks are 1, 2, ... in a set that takes them one by one."""
        return living_heads(present(self.manifest))

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return METRICS.get(self.manifest["metric"], self.manifest["metric"])

    @property
    def test(self) -> str:
        """The test that decides: the exact one where the metric counts right answers, else the bootstrap."""
        return "McNemar" if self.manifest["metric"] == "accuracy" else "bootstrap"

    @property
    def p_M(self) -> np.ndarray:
        """The p-values of that test."""
        return self.mcnemar_M if self.test == "McNemar" else self.change.p


def judge(store: Store) -> Judged:
    """Every mask of a finished grid against its full model, with 1,000 paired resamples."""
    manifest, masks_MAH = store.manifest, store.read("masks")
    statistics_MNS, score = statistics(store)
    nothing_M = np.full(len(masks_MAH), np.nan)
    places = np.flatnonzero(masks_MAH.sum((1, 2)) == sum(manifest["heads"]))
    full = int(places[0]) if len(places) else None
    change, mcnemar_M = Bootstrap(*[nothing_M] * 4), nothing_M
    if full is not None:
        measured = paired_bootstrap(statistics_MNS, statistics_MNS[full], score)
        change = Bootstrap(*(points(manifest) * values_M for values_M in measured[:3]), measured.p)
    if full is not None and "label" in manifest["arrays"]:
        right_MN = store.read("prediction") == store.read("label")[None]
        mcnemar_M = mcnemar(right_MN, right_MN[full])
    return Judged(
        manifest=manifest,
        masks_MAH=masks_MAH,
        examples=statistics_MNS.shape[1],
        full=full,
        metric_M=score(statistics_MNS.sum(1, dtype=np.int64)),
        loss_M=store.read("loss").mean(1, dtype=np.float64) if "loss" in manifest["filled"] else nothing_M,
        change=change,
        mcnemar_M=mcnemar_M,
        constant=_best_constant(store, score) if "label" in manifest["arrays"] else math.nan,
    )


def points(manifest: Mapping[str, Any]) -> float:
    """How many points one unit of the metric has."""
    return POINTS.get(manifest["metric"], 1.0)


def _best_constant(store: Store, score: Callable[[np.ndarray], np.ndarray]) -> float:
    label_N, classes = store.read("label"), len(store.manifest["labels"])
    answers = [metrics.confusion(label_N, np.full_like(label_N, answer), classes) for answer in range(classes)]
    return max(float(score(answer_NS.sum(0, dtype=np.int64))) for answer_NS in answers)


def present(manifest: Mapping[str, Any]) -> np.ndarray:
    """Which heads of `[A, H]` the model has: rows may be narrower than the widest."""
    widths_A = np.array(manifest["heads"])
    return np.arange(widths_A.max())[None] < widths_A[:, None]


def spread(values: np.ndarray, manifest: Mapping[str, Any]) -> np.ndarray:
    """One value a head as `[A, H]`, NaN where the model has no head."""
    spread_AH = np.full(present(manifest).shape, np.nan)
    spread_AH[present(manifest)] = values
    return spread_AH


def importance_scores(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Mean score of each head `[A, H]` in nats, and the same as the pruning orders take it (row norm 1, unless order is 0)."""
    order, mask_AH = store.manifest["experiment"]["importance"]["order"], store.read("mask")
    score_AH = Sums(store.read("total").sum(0), store.read("count").sum(0)).score_AH
    return score_AH, normalize_rows(score_AH, mask_AH, order=order) if order else score_AH


def importance_table(store: Store) -> Rows:
    """Every head's importance, the most important first."""
    score_AH, normalised_AH = importance_scores(store)
    heads = living_heads(store.read("mask"))
    rows = [_name(store.manifest, *at) | {"score": score_AH[at], "normalised": normalised_AH[at]} for at in heads]
    return sorted(rows, key=lambda row: -row["normalised"])


def head_table(judged: Judged) -> Rows:
    """What each head's own mask does (removed alone, or alone in its row), the largest drop of the metric first."""
    rows = [_name(judged.manifest, *at) | _judgement(judged, place) for place, at in enumerate(judged.living, 1)]
    return sorted(rows, key=lambda row: (row["metric"], -np.nan_to_num(row["loss"])))


def best_per_row(judged: Judged) -> Rows:
    """The best single head of each row (Tables 2 and 3); of equal metrics the lower loss."""
    best = {row["row"]: row for row in head_table(judged)}
    return [best[name] for name in judged.manifest["rows"] if name in best]


def grid_table(judged: Judged) -> Rows:
    """The change of the metric in points of each head, laid out as Table 1; * marks p < 0.01, – a head that is not there."""
    change_AH = spread(judged.change.difference[1:], judged.manifest)
    star_AH = spread(judged.p_M[1:], judged.manifest) < SIGNIFICANT
    rows = []
    for name, change_H, star_H in zip(judged.manifest["rows"], change_AH, star_AH, strict=True):
        words = [show("change", change) + "*" * bool(star) for change, star in zip(change_H, star_H, strict=True)]
        rows.append({"row": name} | {str(head): word for head, word in enumerate(words)})
    return rows


def curve_table(judged: Judged) -> Rows:
    """The pruning curve: one row a mask, with the number of heads that are really gone."""
    total = sum(judged.manifest["heads"])
    removed_M = total - judged.masks_MAH.sum((1, 2))
    return [
        {"removed": int(removed), "share": 100 * int(removed) / total} | _judgement(judged, place)
        for place, removed in enumerate(removed_M)
    ]


def removal_shares(judged: Judged) -> np.ndarray:
    """The share of heads removed (%) at the first mask without each head `[A, H]`; infinite for heads that always stay."""
    off_MAH = judged.masks_MAH == 0
    share_M = np.array([row["share"] for row in curve_table(judged)])
    return np.where(off_MAH.any(0), share_M[off_MAH.argmax(0)], np.inf)


def correlation_table(importance: Store, judged: Judged) -> Rows:
    """How well importance foretells what removing the head does; positive: important heads are missed more."""
    present_AH = present(judged.manifest)
    score_AH, normalised_AH = importance_scores(importance)
    effects = {f"drop of {judged.metric_name}": -judged.change.difference[1:], "increase of loss": _loss_change(judged)[1:]}
    rows = []
    for name, scores in {"mean score": score_AH[present_AH], "row-normalised": normalised_AH[present_AH]}.items():
        for effect, values in effects.items():
            (r, p_r), (rho, p_rho) = correlations(scores, values)
            numbers = {"pearson": r, "p_pearson": p_r, "spearman": rho, "p_spearman": p_rho}
            rows.append({"importance": name, "effect": effect} | numbers | {"n": len(values)})
    return rows


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Pearson's and Spearman's correlation, each with its two-sided p; NaN where one side does not vary or is not there."""
    if len(x) < 3 or not all(np.isfinite(side).all() and np.ptp(side) > 1e-9 * np.abs(side).max() for side in (x, y)):
        return (math.nan, math.nan), (math.nan, math.nan)
    pearson, spearman = scipy.stats.pearsonr(x, y), scipy.stats.spearmanr(x, y)
    return (float(pearson.statistic), float(pearson.pvalue)), (float(spearman.statistic), float(spearman.pvalue))


def interactions(pairs: Store, one_off: Store) -> np.ndarray:
    """Increase of the mean loss (nats) without two heads, beyond the sum of what each alone adds: `[n, n]`, NaN on the diagonal."""
    single, double = (store.read("loss").mean(1, dtype=np.float64) for store in (one_off, pairs))
    alone = single[1:] - single[0]
    first, second = np.triu_indices(len(alone), k=1)
    together = np.full((len(alone), len(alone)), np.nan)
    together[first, second] = together[second, first] = double[1:] - double[0] - alone[first] - alone[second]
    return together


def _name(manifest: Mapping[str, Any], row: int, head: int) -> dict[str, Any]:
    return {"row": manifest["rows"][row], "head": head}


def _loss_change(judged: Judged) -> np.ndarray:
    return judged.loss_M - (math.nan if judged.full is None else judged.loss_M[judged.full])


def _judgement(judged: Judged, place: int) -> dict[str, Any]:
    numbers = {
        "metric": judged.metric_M,
        "change": judged.change.difference,
        "low": judged.change.low,
        "high": judged.change.high,
        "p_bootstrap": judged.change.p,
        "p_mcnemar": judged.mcnemar_M,
        "loss": judged.loss_M,
        "loss_change": _loss_change(judged),
    }
    return {name: float(values[place]) for name, values in numbers.items()}


def heading(column: str) -> str:
    """A column's heading with its unit."""
    return COLUMNS[column][0] if column in COLUMNS else column


def show(column: str, value: Any) -> str:
    """One cell as people read it; – where there is no number."""
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if column.startswith("p_") and value < 0.001:
        return "<0.001"
    form = COLUMNS[column][1] if column in COLUMNS else "#.4g" if isinstance(value, float) else ""
    return format(value + 0.0 if isinstance(value, float) else value, form)


def as_csv(rows: Rows) -> str:
    """The rows in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_text(rows: Rows) -> str:
    """The rows in aligned columns."""
    cells: Sequence[list[str]] = [[heading(name) for name in rows[0]], *([show(*cell) for cell in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines) + "\n"
