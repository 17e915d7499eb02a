"""Every mask of a finished grid compared with the full model: the metric, its change, and whether
the change is significant."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from hp_jax.descriptors import format_descriptor
from hp_jax.heads import living_heads, rows_named
from hp_jax.metrics import (
    LabelMetric,
    MeanLoss,
    Metric,
    Values,
    calibration_error,
    metric_of,
    scores,
    statistics_of,
    totals,
    worth,
)
from hp_jax.report.row_types import described
from hp_jax.report.scale import ONE_SIDED, SCALES, SIGNIFICANT, Scale
from hp_jax.stats import (
    Bootstrap,
    Claim,
    Differences,
    bootstrap_of,
    differences,
    equivalent,
    equivalent_right,
    holm,
    mcnemar,
    non_inferior,
    non_inferior_right,
    paired_t,
    unpaired_t,
)
from hp_jax.storage.store import Store

RESAMPLED = 3_000_000
"""Resamples of all masks of a grid together."""
OTHERS = {"bleu": "bleu", "chrf": "chrf", "token_accuracy": "correct"}
"""Metrics that are shown beside the one that decides, where a grid has the array that they need."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Each mask of a finished grid against the full model; NaN stands for what is not stored or not
    known."""

    manifest: Mapping[str, Any]
    masks_MAH: np.ndarray
    scope_AH: np.ndarray
    """The heads in scope: those that the masks may lack. All masks keep the others."""
    examples: int
    full: int | None
    """Index of the mask with all heads on."""
    metric_M: np.ndarray
    others: Mapping[str, np.ndarray]
    """Other metrics `[M]` of the same predictions, by name, and the calibration error, `ece`."""
    loss_M: np.ndarray
    """Mean over examples, in nats."""
    change: Bootstrap
    """Change of the metric, in the scale's unit."""
    differences: Differences
    """The same in each resample too; of none without a full model."""
    right_MN: np.ndarray | None
    """Which examples each mask has right; None where they are not simply right or wrong."""
    mcnemar_M: np.ndarray | None
    """The exact test's p-values; None as before."""
    constant: float
    """The metric of the best answer that is the same for all examples."""

    # --- the heads in scope ---

    @property
    def heads(self) -> list[tuple[int, int]]:
        """(row, head) of the heads in scope; in a set that takes them one by one, masks 1, 2, ...
        are theirs."""
        return living_heads(self.scope_AH)

    @property
    def names(self) -> list[str]:
        """These heads as `row.head`."""
        return [format_descriptor({self.manifest["rows"][row]: [head]}) for row, head in self.heads]

    @property
    def rows(self) -> list[str]:
        """Names of the rows in scope."""
        return [self.manifest["rows"][row] for row in np.flatnonzero(self.scope_AH.any(1))]

    @property
    def scope(self) -> str:
        """The rows in scope in words; empty if these are all."""
        rows = self.manifest["rows"]
        return "" if len(self.rows) == len(rows) else described(rows, self.rows)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """One value for each head in scope, as `[len(rows), H]`; NaN where the model has no
        head."""
        spread_AH = np.full(self.scope_AH.shape, np.nan)
        spread_AH[self.scope_AH] = values
        return spread_AH[self.scope_AH.any(1)]

    # --- what is compared ---

    @functools.cached_property
    def metric(self) -> Metric:
        """The metric that decides."""
        return metric_of(self.manifest)

    @property
    def scale(self) -> Scale:
        """How it is written."""
        return SCALES[self.metric.name]

    @property
    def drop_M(self) -> np.ndarray:
        """How much worse the metric is than the full model's, in the scale's unit, whether it drops
        or, as a loss, rises; negative where it is better."""
        return -worth(self.metric, self.change.difference)

    @property
    def drop_word(self) -> str:
        """What a change to the worse is called."""
        return "drop" if self.metric.larger_is_better else "rise"

    @property
    def margin(self) -> float:
        """How much worse the metric may be and still count as no harm, in the scale's unit."""
        return self.manifest.get("experiment", {}).get("margin") or self.scale.margin

    @property
    def harmless_M(self) -> np.ndarray:
        """Whether each mask is shown to do no harm, at ONE_SIDED, not corrected for their
        number."""
        return self.no_harm.p <= ONE_SIDED

    @functools.cached_property
    def no_harm(self) -> Claim:
        """That each mask is less than the margin worse (non-inferiority), by `harm_test`; adjusted
        for the number of masks that lack a head."""
        return self._claim(non_inferior_right, non_inferior, self.margin)

    def harmless_at(self, margin: float) -> np.ndarray:
        """As `harmless_M`, with another margin than the experiment's, above 0."""
        return self._claim(non_inferior_right, non_inferior, margin).p <= ONE_SIDED

    @functools.cached_property
    def free(self) -> Claim:
        """That each mask is within the margin, neither worse nor better (equivalence)."""
        return self._claim(equivalent_right, equivalent, self.margin)

    def _claim(
        self,
        of_answers: Callable[[np.ndarray, np.ndarray, float], Claim],
        of_resamples: Callable[[Differences, float], Claim],
        margin: float,
    ) -> Claim:
        claim = Claim(*np.full((2, len(self.masks_MAH)), np.nan))
        if self.full is None:
            return claim
        others = np.arange(len(self.masks_MAH)) != self.full
        if self.right_MN is not None and self.test == "McNemar":
            share = margin / self.scale.factor
            found = of_answers(self.right_MN[others], self.right_MN[self.full], share)
        else:
            worse = Differences(*(part[others] for part in self.worse))
            found = of_resamples(worse, margin)
        claim.p[others], claim.adjusted[others] = found
        return claim

    @property
    def harm_test(self) -> tuple[str, str]:
        """The test of these claims, and whose correction for their number."""
        if self.test == "McNemar":
            return "Tango's score test", "Holm's"
        return "the bootstrap", "Westfall and Young's"

    @property
    def worse(self) -> Differences:
        """`differences` so that larger is worse, whatever the metric."""
        return Differences(*(-worth(self.metric, part) for part in self.differences))

    @property
    def resamples(self) -> int:
        """How many the intervals and p-values are from."""
        return self.differences.resampled_MR.shape[1]

    @functools.cached_property
    def tests(self) -> Mapping[str, np.ndarray]:
        """p-values `[M]` of other tests of right and wrong answers, by their column."""
        if self.right_MN is None or self.full is None:
            return {}
        base_N = self.right_MN[self.full]
        return {
            "p_mid": mcnemar(self.right_MN, base_N, mid=True),
            "p_paired_t": paired_t(self.right_MN, base_N),
            "p_unpaired_t": unpaired_t(self.right_MN, base_N),
        }

    @property
    def loss_change_M(self) -> np.ndarray:
        """Change of the mean loss against the full model, in nats."""
        return self.loss_M - (math.nan if self.full is None else self.loss_M[self.full])

    @property
    def test(self) -> str:
        """The test that decides: the exact one where the metric counts right answers, else the
        bootstrap."""
        exact = self.mcnemar_M is not None and self.metric.name == "accuracy"
        return "McNemar" if exact else "bootstrap"

    @property
    def p_M(self) -> np.ndarray:
        """The p-values of that test."""
        if self.mcnemar_M is not None and self.test == "McNemar":
            return self.mcnemar_M
        return self.change.p

    @functools.cached_property
    def adjusted_M(self) -> np.ndarray:
        """The p-values of that test, adjusted for the number of masks that lack a head."""
        if self.mcnemar_M is None or self.test != "McNemar" or self.full is None:
            return self.change.adjusted
        others = np.arange(len(self.masks_MAH)) != self.full
        adjusted_M = np.ones(len(self.masks_MAH))
        adjusted_M[others] = holm(self.mcnemar_M[others])
        return adjusted_M

    @property
    def correction(self) -> str:
        """By whose method they are adjusted."""
        return "Holm's" if self.test == "McNemar" else "Westfall and Young's"

    @property
    def stars(self) -> str:
        """What marks of significance say, for a caption."""
        tests = len(self.masks_MAH) - (self.full is not None)
        return (
            f"* p < {SIGNIFICANT} ({self.test}), uncorrected as in the paper; † also after "
            f"{self.correction} correction for {tests} tests"
        )

    def star(self, mask: int) -> str:
        """The mark of a mask, `*`, `†` or none."""
        return "†" * bool(self.adjusted_M[mask] < SIGNIFICANT) or "*" * bool(
            self.p_M[mask] < SIGNIFICANT
        )

    # --- how it was measured ---

    @property
    def example_word(self) -> str:
        """What an example is called."""
        other = "sentence" if "tokens" in self.manifest["arrays"] else "example"
        return self.manifest.get("example", other)

    @property
    def where(self) -> str:
        """The split that was measured on, and its size."""
        split = self.manifest["splits"].get("test", "?")
        return f"on {split} ({self.examples} {self.example_word}s)"

    @property
    def measured(self) -> str:
        """On what, with which heads in scope, and by which variant of the metric, as sentences."""
        only = f", only heads of {self.scope}" if self.scope else ""
        sentences = [f"Measured {self.where}{only}.", self.signature, patching(self.manifest)]
        return " ".join(filter(None, sentences))

    @property
    def signature(self) -> str:
        """sacreBLEU's signature of the metric, as a sentence; empty if there is none."""
        return signatures(self.manifest, [self.metric.name])


def compare(store: Store, scope_AH: np.ndarray | None = None) -> Comparison:
    """Every mask of a finished grid against its full model, with 10,000 paired resamples, fewer of
    more than RESAMPLED / 10,000 masks, and at least 1,000.

    scope_AH: the heads in scope; default: those of all rows that some mask touches.
    """
    manifest, metric = store.manifest, metric_of(store.manifest)
    values = {name: store.read(name) for name in manifest["arrays"]}
    masks_MAH, statistics_MNS = values["masks"] != 0, statistics_of(metric, values)
    nothing_M = np.full(len(masks_MAH), np.nan)
    complete = np.flatnonzero(masks_MAH.sum((1, 2)) == present(manifest).sum())
    full = int(complete[0]) if len(complete) else None
    change, found = Bootstrap(*[nothing_M] * 5), Differences(nothing_M, nothing_M[:, None])
    count = int(np.clip(RESAMPLED // max(len(masks_MAH), 1), 1_000, 10_000))
    if full is not None:
        found = differences(statistics_MNS, statistics_MNS[full], metric, count=count)
        found = Differences(*(SCALES[metric.name].factor * part for part in found))
        change = bootstrap_of(found)
    right_MN = values["prediction"] == values["label"] if "label" in values else None
    return Comparison(
        manifest=manifest,
        masks_MAH=masks_MAH,
        scope_AH=touched(masks_MAH, manifest) if scope_AH is None else scope_AH,
        examples=statistics_MNS.shape[1],
        full=full,
        metric_M=metric.score(totals(metric, statistics_MNS)),
        others=_others(manifest, values),
        loss_M=scores(MeanLoss(), values) if "loss" in values else nothing_M,
        change=change,
        differences=found,
        right_MN=right_MN,
        mcnemar_M=None if right_MN is None else _mcnemar(right_MN, full),
        constant=_best_constant(metric, values),
    )


def _others(manifest: Mapping[str, Any], values: Values) -> dict[str, np.ndarray]:
    names = [
        name for name, array in OTHERS.items() if array in values and name != manifest["metric"]
    ]
    others = {name: scores(metric_of({**manifest, "metric": name}), values) for name in names}
    if "confidence" in values:
        right_MN = values["prediction"] == values["label"]
        others["ece"] = calibration_error(values["confidence"], right_MN)
    return others


def _mcnemar(right_MN: np.ndarray, full: int | None) -> np.ndarray:
    return np.full(len(right_MN), np.nan) if full is None else mcnemar(right_MN, right_MN[full])


def _best_constant(metric: Metric, values: Values) -> float:
    if not isinstance(metric, LabelMetric):
        return math.nan
    label_N = values["label"]
    answers_CN = np.repeat(np.arange(metric.classes)[:, None], len(label_N), 1)
    return float(scores(metric, {"label": label_N, "prediction": answers_CN}).max())


def signatures(manifest: Mapping[str, Any], names: Iterable[str]) -> str:
    """What sacreBLEU asks to have reported with its scores, of those metrics that are its own; a
    sentence, or empty."""
    known = manifest.get("signatures", {})
    found = [f"{SCALES[name].name} {known[name]}" for name in names if name in known]
    return f"sacreBLEU: {'; '.join(found)}." if found else ""


def patching(manifest: Mapping[str, Any]) -> str:
    """What it means that a head is off where its context comes from a counterfactual; a sentence,
    or empty."""
    if manifest.get("removed") != "counterfactual":
        return ""
    return (
        "A head that is off is patched, not removed: it has the context that it has where the full "
        "model reads the counterfactual. So a change says what the head carries of the difference "
        "between the two texts, and nothing says that the model can do without it."
    )


# --- which heads ---------------------------------------------------------------------------------


def present(manifest: Mapping[str, Any]) -> np.ndarray:
    """Which heads of `[A, H]` the model has: rows may be narrower than the widest, and heads may
    have been removed."""
    return np.array(manifest["heads"]) != 0


def scope_of(manifest: Mapping[str, Any], names: Collection[str]) -> np.ndarray:
    """The heads `[A, H]` of the rows, or types of attention, with these names; all for none."""
    return present(manifest) & (rows_named(manifest["rows"], names)[:, None] if names else True)


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
