"""What a grid that measured some of the examples says of all of them: each mask's change of the
metric, with an interval that holds whenever one stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hp_jax.metrics import LabelMetric, scores
from hp_jax.stats.sampling import Estimate, Sample, estimated_labels

ALPHA = 0.05
"""How often an interval may miss what all examples would give."""


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
        sample = _sample(arrays, int(count))
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


def _sample(arrays: Mapping[str, np.ndarray], count: int) -> Sample:
    """The first `count` examples; those of high risk that are not measured yet are of no stratum
    of their own, and nothing is known of them but bounds."""
    certain, audit = arrays["certain"], arrays["audit"]
    if count < len(certain):
        raise ValueError(
            f"expected the {len(certain)} examples of high risk to be measured first, but only "
            f"{count} were"
        )
    return Sample(certain, audit, count - len(certain))
