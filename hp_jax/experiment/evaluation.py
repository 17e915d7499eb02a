"""A model on a split, with any heads off: metric and loss with their intervals, and calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from hp_jax import heads
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.setup import Setup
from hp_jax.metrics import Metric, Values, calibration_error, metric_of, scores, statistics_of
from hp_jax.stats import bootstrap_interval, paired_bootstrap
from hp_jax.task import Array


def measured(setup: Setup, examples: Encoded, masks_MAH: Array) -> Values:
    """What a grid keeps of every example under some masks, and the arrays that they all share."""
    grid = setup.grid(
        setup.batches_of(examples),
        masks_MAH,
        label="evaluation",
        postprocess=setup.corpus.postprocess(examples),
    )
    shared = setup.corpus.kept(examples, len(masks_MAH))[0]
    return grid.evaluate() | {name: array for name, (_, array) in shared.items()}


def evaluate(setup: Setup, split: str, mask_AH: Array) -> dict[str, Any]:
    """The model on a split under a head mask.

    Its metric and its mean loss (nats an example), each with its percentile interval of 95 % from
    1,000 resamples of the examples; of a classifier the expected calibration error; and, with heads
    off, the metric's change from the whole model with the paired interval.
    """
    examples = setup.examples(split)
    mask_AH = np.asarray(heads.check_mask(mask_AH, setup.present_AH))
    off = int(setup.present_AH.sum() - mask_AH.sum())
    masks_MAH = np.stack([setup.present_AH, mask_AH] if off else [mask_AH])
    values = measured(setup, examples, masks_MAH)
    loss = metric_of({"metric": "loss"})
    found: dict[str, Any] = {
        "split": split,
        "examples": len(np.unique(examples.origin_N)),
        "example": setup.corpus.about().get("example", "example"),
        "heads": int(setup.present_AH.sum()),
        "heads off": off,
    }
    for metric in dict.fromkeys((setup.metric, loss)):
        found[metric.name] = _with_interval(metric, values)
    if off:
        statistics_MNS = statistics_of(setup.metric, values)
        change = paired_bootstrap(statistics_MNS[1:], statistics_MNS[0], setup.metric)
        found["change"] = {
            name: float(getattr(change, part)[0])
            for name, part in (("value", "difference"), ("low", "low"), ("high", "high"))
        }
    if "confidence" in values:
        right_MN = values["prediction"] == values["label"]
        found["calibration error"] = float(calibration_error(values["confidence"], right_MN)[-1])
    return found


def _with_interval(metric: Metric, values: Values) -> dict[str, float]:
    """Of the last mask."""
    low, high = bootstrap_interval(statistics_of(metric, values)[-1], metric)
    return {"value": float(scores(metric, values)[-1]), "low": low, "high": high}
