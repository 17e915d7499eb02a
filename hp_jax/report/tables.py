"""From result stores to tables: plain rows of numbers, every mask judged against the full model.

Rows are dicts whose keys are those of `report.COLUMNS`; changes of the metric are in points, losses in nats, shares in percent.
Heads count from 0, rows go by name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from hp_jax import metrics
from hp_jax.files import read_json
from hp_jax.heads import living_heads
from hp_jax.importance import Sums, normalize_rows
from hp_jax.report.html import SIGNIFICANT, Rows, heading, show
from hp_jax.stats import Bootstrap, mcnemar, paired_bootstrap
from hp_jax.store import Store, find_stores

POINTS = {"accuracy": 100.0, "f1": 100.0, "matthews": 100.0}
"""Points in one unit of the metric; 1 for metrics that are in points already, such as BLEU."""
METRICS = {"f1": "F1", "matthews": "Matthews correlation", "bleu": "BLEU"}
"""Names in sentences, where the metric's own will not do."""
JOBS = {"score": "importance computed on", "select": "order chosen on", "test": "measured on"}
"""What the splits of a store's manifest were for."""


def stores_below(folder: Path) -> dict[str, Store]:
    """All stores below `folder`, by their path in it."""
    return {Path(store.path).relative_to(folder).as_posix(): store for store in find_stores(folder)}


def progress(store: Store) -> tuple[int, int]:
    """How many items are done, and how many there are."""
    return int(store.done().sum()), int(store.manifest["items"])


def history(folder: Path) -> Rows:
    """The training history of the folder's fine-tuned model, one row an epoch; none if it was not fine-tuned here."""
    config = folder / "model" / "config.json"
    return read_json(config).get("training", {}).get("history", []) if config.is_file() else []


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
    change, mcnemar_M = Bootstrap(nothing_M, nothing_M, nothing_M, nothing_M), nothing_M
    if full is not None:
        measured = paired_bootstrap(statistics_MNS, statistics_MNS[full], score)
        unit = points(manifest)
        change = Bootstrap(unit * measured.difference, unit * measured.low, unit * measured.high, measured.p)
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
    named, normalised_AH = _named_scores(store), importance_scores(store)[1]
    heads = living_heads(store.read("mask"))
    heads.sort(key=lambda at: -normalised_AH[at])
    return [_name(store.manifest, *at) | {name: float(scores_AH[at]) for name, scores_AH in named.items()} for at in heads]


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


def removable(judged: Judged) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The curve's last row before the metric drops significantly, and the row where it does, if there is one."""
    rows, drop_M = curve_table(judged), (judged.p_M < SIGNIFICANT) & (judged.change.difference < 0)
    first = int(drop_M.argmax()) if drop_M.any() else len(rows)
    return rows[first - 1], rows[first] if first < len(rows) else None


def removal_shares(judged: Judged) -> np.ndarray:
    """The share of heads removed (%) at the first mask without each head `[A, H]`; infinite for heads that always stay."""
    off_MAH = judged.masks_MAH == 0
    share_M = np.array([row["share"] for row in curve_table(judged)])
    return np.where(off_MAH.any(0), share_M[off_MAH.argmax(0)], np.inf)


def correlation_table(importance: Store, judged: Judged) -> Rows:
    """How well importance foretells what removing the head does; positive: important heads are missed more."""
    present_AH = present(judged.manifest)
    effects = {f"drop of {judged.metric_name}": -judged.change.difference[1:], "increase of loss": _loss_change(judged)[1:]}
    rows = []
    for name, scores_AH in _named_scores(importance).items():
        for effect, values in effects.items():
            (r, p_r), (rho, p_rho) = correlations(scores_AH[present_AH], values)
            numbers = {"pearson": r, "p_pearson": p_r, "spearman": rho, "p_spearman": p_rho}
            rows.append({"importance": heading(name), "effect": effect} | numbers | {"n": len(values)})
    return rows


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Pearson's and Spearman's correlation, each with its two-sided p; NaN where one side does not vary or is not there."""
    if len(x) < 3 or not all(np.isfinite(side).all() and np.ptp(side) > 1e-9 * np.abs(side).max() for side in (x, y)):
        return (math.nan, math.nan), (math.nan, math.nan)
    pearson, spearman = scipy.stats.pearsonr(x, y), scipy.stats.spearmanr(x, y)
    return (float(pearson.statistic), float(pearson.pvalue)), (float(spearman.statistic), float(spearman.pvalue))


def comparable(first: Store, second: Store) -> bool:
    """Whether both hold losses of the same model on the same data."""
    same = all(first.manifest["fingerprint"].get(of) == second.manifest["fingerprint"].get(of) for of in ("model", "data"))
    return same and all("loss" in store.manifest["filled"] for store in (first, second))


def interactions(pairs: Store, one_off: Store) -> np.ndarray:
    """Increase of the mean loss (nats) without two heads beyond the sum of what each alone adds: `[n, n]`, NaN diagonal."""
    single, double = (store.read("loss").mean(1, dtype=np.float64) for store in (one_off, pairs))
    alone = single[1:] - single[0]
    first, second = np.triu_indices(len(alone), k=1)
    together = np.full((len(alone), len(alone)), np.nan)
    together[first, second] = together[second, first] = double[1:] - double[0] - alone[first] - alone[second]
    return together


def _named_scores(importance: Store) -> dict[str, np.ndarray]:
    """The scores by their column; the normalised ones only if the rows are normalised."""
    score_AH, normalised_AH = importance_scores(importance)
    normalised = importance.manifest["experiment"]["importance"]["order"] != 0
    return {"score": score_AH} | ({"normalised": normalised_AH} if normalised else {})


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
