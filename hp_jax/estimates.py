"""What a grid that measured some of the examples says of all of them: each mask's change of the
metric, with an interval that holds whenever one stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hp_jax.linear import LinearMap
from hp_jax.metrics import LabelMetric, scores
from hp_jax.stats.sampling import Estimate, Sample, decided, estimated_labels, riskiest

ALPHA = 0.05
"""How often an interval may miss what all examples would give."""
CERTAIN = 0.05
"""Of the examples, those of the highest risk, which are measured whatever happens."""
LEAST = 128
"""Examples in a round: fewer fill no batches."""


class Changes(NamedTuple):
    """The metric's change from the full model, in the metric's own unit, under each mask `[M]`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    examples: np.ndarray
    """How many were measured; the value of a mask of which all were is exact."""


def changes(
    arrays: Mapping[str, np.ndarray], metric: LabelMetric, *, alpha: float = ALPHA
) -> Changes:
    """What an estimate's store knows; `alpha / M` makes the intervals of M masks hold together.

    arrays: `label` `[N]`; the classes that are `predicted` `[M, N]`, of which the first mask's, the
    full model's, are exact; places of the examples that are `certain` to be measured and of the
    others, the `audit`, and in that order what was found, `prediction`, and what was `measured`
    `[N, M]`.
    """
    label_N, predicted_MN = arrays["label"], arrays["predicted"]
    measured_M = (arrays["measured"] != 0).sum(0)
    full = float(scores(metric, {"label": label_N, "prediction": predicted_MN[:1]})[0])
    found = Estimate(*np.full((3, len(predicted_MN)), full))
    for count in np.unique(measured_M[1:]):
        some = np.flatnonzero(measured_M == count)
        some = some[some > 0]
        certain = len(arrays["certain"])  # the first round has them all
        sample = Sample(arrays["certain"], arrays["audit"], int(count) - certain)
        own = estimated_labels(
            metric,
            label_N,
            predicted_MN[some],
            arrays["prediction"][:count, some].T,
            sample,
            alpha=alpha,
        )
        for whole, part in zip(found, own, strict=True):
            whole[some] = part
    value, low, high = (part - full for part in found)
    return Changes(value, low, high, np.append(len(label_N), measured_M[1:]))


def undecided(
    arrays: Mapping[str, np.ndarray], metric: LabelMetric, *, precision: float, decide: float
) -> np.ndarray:
    """The masks that are to be measured further, `[M]`: those measured on all examples so far of
    which the change is not known to +- `precision`, or not decided to be `decide` worse or not, of
    all masks together; in the metric's own unit, 0 for neither.  The full model is known."""
    measured_NM = arrays["measured"] != 0
    masks, done = measured_NM.shape[1], int(measured_NM.any(1).sum())
    others_M = np.arange(masks) > 0
    if not done or not others_M.any():
        return others_M
    open_M = np.zeros(masks, bool)
    if precision:
        known = changes(arrays, metric)
        open_M |= (known.high - known.low) / 2 > precision
    if decide:
        together = changes(arrays, metric, alpha=ALPHA / (masks - 1))
        open_M |= decided(-together.high, -together.low, decide) == "undecided"
    return open_M & others_M & (measured_NM.sum(0) == done)


def ordered(linear: LinearMap, masks_MAH: np.ndarray, *, seed: int) -> tuple[Sample, int]:
    """In which order examples are measured, and how many between two looks: all of the highest risk
    in the first round, so that every later one is of the audit."""
    examples = len(linear.output_NO)
    certain = math.ceil(CERTAIN * examples)
    sample = riskiest(linear.risk(masks_MAH), certain, 0, seed=seed)
    return sample, min(examples, max(LEAST, certain))
