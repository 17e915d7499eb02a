"""Every mask of a finished grid against the full model: the metric, what changes, and whether the
change is significant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from hp_jax.heads import living_heads
from hp_jax.metrics import Metric, Values, metric_of, totals
from hp_jax.report.row_types import chosen, described
from hp_jax.stats import Bootstrap, mcnemar, paired_bootstrap
from hp_jax.storage.store import Store

POINTS = {"accuracy": 100.0, "f1": 100.0, "matthews": 100.0, "token_accuracy": 100.0}
"""Points in one unit of the metric; 1 for metrics that are in points already, such as BLEU."""
METRICS = {
    "f1": "F1",
    "matthews": "Matthews correlation",
    "bleu": "BLEU",
    "chrf": "chrF",
    "token_accuracy": "token accuracy",
}
"""Names in sentences, where the metric's own will not do."""
OTHERS = {"bleu": "bleu", "chrf": "chrf", "token_accuracy": "correct"}
"""Metrics that are told beside the one that decides, where a grid has the array that they need."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A finished grid, each mask against the full model; NaN stands for what is not stored or
    cannot be told."""

    manifest: Mapping[str, Any]
    masks_MAH: np.ndarray
    scope_AH: np.ndarray
    """The heads that the masks are about."""
    examples: int
    full: int | None
    """Place of the mask with all heads on."""
    metric_M: np.ndarray
    others: Mapping[str, np.ndarray]
    """Other metrics `[M]` of the same predictions."""
    loss_M: np.ndarray
    """Mean over examples, in nats."""
    change: Bootstrap
    """Change of the metric, in points."""
    mcnemar_M: np.ndarray | None
    """None where examples are not simply right or wrong."""
    constant: float
    """The metric of the best answer that is the same for all examples."""

    @property
    def living(self) -> list[tuple[int, int]]:
        """(row, head) of the heads whose own masks are 1, 2, ... in a set that takes them one by
        one."""
        return living_heads(self.scope_AH)

    @property
    def names(self) -> list[str]:
        """These heads as `row.head`."""
        return [f"{self.manifest['rows'][row]}.{head}" for row, head in self.living]

    @property
    def rows(self) -> list[str]:
        """Names of the rows that the masks are about."""
        return [self.manifest["rows"][row] for row in np.flatnonzero(self.scope_AH.any(1))]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """One value for each head that the masks are about, as `[len(rows), H]`; NaN where the
        model has no head."""
        spread_AH = np.full(self.scope_AH.shape, np.nan)
        spread_AH[self.scope_AH] = values
        return spread_AH[self.scope_AH.any(1)]

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return METRICS.get(self.manifest["metric"], self.manifest["metric"])

    @property
    def unit(self) -> str:
        """What an example is called."""
        return "sentence" if "tokens" in self.manifest["arrays"] else "example"

    @property
    def where(self) -> str:
        """The split that was measured on, and its size."""
        return f"on {self.manifest['splits'].get('test', '?')} ({self.examples} {self.unit}s)"

    @property
    def measured(self) -> str:
        """On what, on which heads, and by which variant of the metric, as sentences."""
        only = f", only heads of {self.about}" if self.about else ""
        return " ".join(filter(None, [f"Measured {self.where}{only}.", self.signature]))

    @property
    def signature(self) -> str:
        """sacreBLEU's signature of the metric, as a sentence; empty if there is none."""
        return signatures(self.manifest, [self.manifest["metric"]])

    @property
    def about(self) -> str:
        """The rows that the masks are about in words; empty if these are all."""
        rows = self.manifest["rows"]
        return "" if len(self.rows) == len(rows) else described(rows, self.rows)

    @property
    def test(self) -> str:
        """The test that decides: the exact one where the metric counts right answers, else the
        bootstrap."""
        return (
            "McNemar"
            if self.mcnemar_M is not None and self.manifest["metric"] == "accuracy"
            else "bootstrap"
        )

    @property
    def p_M(self) -> np.ndarray:
        """The p-values of that test."""
        return (
            self.mcnemar_M
            if self.mcnemar_M is not None and self.test == "McNemar"
            else self.change.p
        )

    @property
    def loss_change_M(self) -> np.ndarray:
        """Change of the mean loss against the full model, in nats."""
        return self.loss_M - (math.nan if self.full is None else self.loss_M[self.full])


def compare(store: Store, scope_AH: np.ndarray | None = None) -> Comparison:
    """Every mask of a finished grid against its full model, with 1,000 paired resamples.

    scope_AH: the heads that the masks are about; default: those of all rows that some mask touches.
    """
    manifest, metric = store.manifest, metric_of(store.manifest)
    values = {name: store.read(name) for name in manifest["arrays"]}
    masks_MAH, statistics_MNS = values["masks"] != 0, metric.statistics(values)
    nothing_M = np.full(len(masks_MAH), np.nan)
    places = np.flatnonzero(masks_MAH.sum((1, 2)) == present(manifest).sum())
    full = int(places[0]) if len(places) else None
    change = Bootstrap(nothing_M, nothing_M, nothing_M, nothing_M)
    if full is not None:
        measured, unit = (
            paired_bootstrap(statistics_MNS, statistics_MNS[full], metric),
            points(manifest),
        )
        change = Bootstrap(
            unit * measured.difference, unit * measured.low, unit * measured.high, measured.p
        )
    labelled = "label" in values
    return Comparison(
        manifest=manifest,
        masks_MAH=masks_MAH,
        scope_AH=touched(masks_MAH, manifest) if scope_AH is None else scope_AH,
        examples=statistics_MNS.shape[1],
        full=full,
        metric_M=_score(metric, statistics_MNS),
        others=_others(manifest, values),
        loss_M=values["loss"].mean(1, dtype=np.float64) if "loss" in values else nothing_M,
        change=change,
        mcnemar_M=_mcnemar(values, full) if labelled else None,
        constant=_best_constant(metric, values["label"], len(manifest["labels"]))
        if labelled
        else math.nan,
    )


def _score(metric: Metric, statistics_MNS: np.ndarray) -> np.ndarray:
    return metric.score(totals(metric, statistics_MNS))


def _others(manifest: Mapping[str, Any], values: Values) -> dict[str, np.ndarray]:
    names = [
        name for name, array in OTHERS.items() if array in values and name != manifest["metric"]
    ]
    metrics = [metric_of({**manifest, "metric": name}) for name in names]
    return {metric.name: _score(metric, metric.statistics(values)) for metric in metrics}


def _mcnemar(values: Values, full: int | None) -> np.ndarray:
    right_MN = values["prediction"] == values["label"][None]
    return np.full(len(right_MN), np.nan) if full is None else mcnemar(right_MN, right_MN[full])


def _best_constant(metric: Metric, label_N: np.ndarray, classes: int) -> float:
    answers_CN = np.repeat(np.arange(classes)[:, None], len(label_N), 1)
    return float(
        _score(metric, metric.statistics({"label": label_N, "prediction": answers_CN})).max()
    )


def points(manifest: Mapping[str, Any]) -> float:
    """How many points one unit of the metric has."""
    return POINTS.get(manifest["metric"], 1.0)


def signatures(manifest: Mapping[str, Any], names: Iterable[str]) -> str:
    """What sacreBLEU asks to have told with its scores, of those metrics that are its own; a
    sentence, or empty."""
    known = manifest.get("signatures", {})
    told = [f"{METRICS.get(name, name)} {known[name]}" for name in names if name in known]
    return f"sacreBLEU: {'; '.join(told)}." if told else ""


# --- which heads ---------------------------------------------------------------------------------


def present(manifest: Mapping[str, Any]) -> np.ndarray:
    """Which heads of `[A, H]` the model has: rows may be narrower than the widest, and heads may
    have been removed."""
    return np.array(manifest["heads"]) != 0


def part_of(manifest: Mapping[str, Any], names: Collection[str]) -> np.ndarray:
    """The heads `[A, H]` of the rows, or types of attention, with these names; all for none."""
    return present(manifest) & (chosen(manifest["rows"], names)[:, None] if names else True)


def touched(masks_MAH: np.ndarray, manifest: Mapping[str, Any]) -> np.ndarray:
    """The heads `[A, H]` of the rows in which some mask lacks a head.

    A set that leaves each head alone in its row cannot touch rows of one head: as many of these as
    it has more full masks than the first are among them too.
    """
    present_AH = present(manifest)
    touched_A = (present_AH & ~masks_MAH.astype(bool)).any((0, 2))
    spare = int((masks_MAH.sum((1, 2)) == present_AH.sum()).sum()) - 1
    touched_A[np.flatnonzero(~touched_A & (present_AH.sum(1) == 1))[: max(spare, 0)]] = True
    return present_AH & touched_A[:, None]
