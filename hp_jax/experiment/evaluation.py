"""A model on a split, with any heads off: metric and loss with their intervals, and calibration."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from hp_jax import heads
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.setup import Setup
from hp_jax.grid import Grid
from hp_jax.metrics import Metric, Values, metric_of, scores
from hp_jax.stats import bootstrap_interval, paired_bootstrap
from hp_jax.task import Array

BINS = 10
"""Of confidence, equally wide, in the calibration error."""


def measured(setup: Setup, examples: Encoded, masks_MAH: Array) -> Values:
    """What a grid keeps of every example under some masks, and the arrays that they all share."""
    grid = Grid(
        setup.task,
        setup.params,
        setup.batches_of(examples),
        masks_MAH,
        setup.corpus.postprocess(examples),
        label="evaluation",
    )
    shared = setup.corpus.kept(examples, len(masks_MAH))[0]
    return grid.evaluate() | {name: array for name, (_, array) in shared.items()}


def evaluate(setup: Setup, split: str, mask_AH: Array) -> dict[str, Any]:
    """The model on a split under a head mask.

    Its metric and its mean loss (nats an example), each with its percentile interval of 95 % from
    1,000 resamples of the examples; of a classifier the expected calibration error (Guo et al.
    2017, eq. 3, with BINS bins); and, with heads off, the metric's change from the whole model with
    the paired interval.
    """
    examples = setup.examples(split)
    mask_AH = np.asarray(heads.check_mask(mask_AH, setup.present_AH))
    off = int(setup.present_AH.sum() - mask_AH.sum())
    masks_MAH = np.stack([setup.present_AH, mask_AH] if off else [mask_AH])
    values = measured(setup, examples, masks_MAH)
    loss = metric_of({"metric": "loss"})
    found: dict[str, Any] = {
        "split": split,
        "examples": len(examples),
        "heads": int(setup.present_AH.sum()),
        "heads off": off,
    }
    for metric in dict.fromkeys((setup.metric, loss)):
        found[metric.name] = _with_interval(metric, values)
    if off:
        statistics_MNS = setup.metric.statistics(values)
        change = paired_bootstrap(statistics_MNS[1:], statistics_MNS[0], setup.metric)
        found["change"] = {
            name: float(getattr(change, part)[0])
            for name, part in (("value", "difference"), ("low", "low"), ("high", "high"))
        }
    if "label" in values:
        found["calibration error"] = calibration_error(setup, examples, mask_AH)
    return found


def _with_interval(metric: Metric, values: Values) -> dict[str, float]:
    """Of the last mask."""
    low, high = bootstrap_interval(metric.statistics(values)[-1], metric)
    return {"value": float(scores(metric, values)[-1]), "low": low, "high": high}


def calibration_error(setup: Setup, examples: Encoded, mask_AH: Array) -> float:
    """The expected calibration error of a classifier, 0 to 1: how far accuracy is from confidence
    in each bin of confidence, weighted by the bin's examples."""
    run = jax.jit(setup.task.logits)
    gates = heads.gates(mask_AH, setup.present_AH)
    confidence, right = [], []
    for batch in setup.batches_of(examples):
        logits_BC = np.asarray(run(setup.params, batch, gates), np.float64)
        odds_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
        real_B = np.asarray(batch["weight_B"]) > 0
        confidence.append((odds_BC.max(1) / odds_BC.sum(1))[real_B])
        right.append((logits_BC.argmax(1) == np.asarray(batch["label_B"]))[real_B])
    return expected_calibration_error(np.concatenate(confidence), np.concatenate(right))


def expected_calibration_error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """From the confidence in each prediction and whether it is right; the bins are (0, 0.1], ..."""
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bin_N, confidence_N - right_N, BINS)
    return float(np.abs(gaps).sum() / len(right_N))
