"""Grids that measure only what is undecided: the linear map predicts every label under every mask,
those at risk are measured, and a random audit of the others says how far all of it can be trusted.

An estimate's store has the examples as items, in the order in which they are measured: those of the
highest risk, then a random order of the others, fixed beforehand.  It grows until every mask is
known as precisely as was asked for; asked again for more it goes on from there.
"""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np

from hp_jax import heads
from hp_jax.config import Ablation, MaskSet
from hp_jax.data.splits import folder_name, rows_of
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.grids import set_folder
from hp_jax.experiment.mapping import mapped
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.grid import Grid
from hp_jax.metrics import LabelMetric
from hp_jax.sharding import agreed
from hp_jax.stats.sampling import known_changes, riskiest
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Store
from hp_jax.storage.zarr import Items

log = logging.getLogger("hp_jax")

CERTAIN = 0.05
"""Of the examples, those of the highest risk, which are measured whatever happens."""
ROUND = 0.04
"""Of the examples, measured between two looks at what is known."""
LEAST = 128
"""Examples in a round: fewer fill no batches."""


def estimate(setup: Setup, name: MaskSet, masks_MAH: np.ndarray, split: str) -> Store:
    """The change of the metric under each mask, each to `config.ablation.precision`, or until it is
    decided whether it is as bad as `config.ablation.decide`; what is there is not done again.

    ValueError if the metric is none of labels.
    """
    settings = setup.config.ablation
    if not isinstance(setup.metric, LabelMetric):
        raise ValueError(
            f"ablation.precision and ablation.decide are for accuracy, F1 and Matthews correlation, "
            f"but the metric is {setup.metric.name}: leave them out to measure every example"
        )
    examples = setup.examples(split)
    store = _opened(setup, name, masks_MAH, split, examples)
    order_N = np.concatenate([store.read("certain"), store.read("audit")])
    masks_at_once = settings.masks_at_once
    while True:
        done_N = agreed(store.done())
        start = int(done_N.sum())
        open_M = _open(setup, store, settings)
        if start == len(examples) or not open_M.any():
            break
        chosen = order_N[start : start + store.chunk]
        grid = Grid(
            setup.task,
            setup.params,
            setup.batches_of(rows_of(examples, chosen)),
            masks_MAH[open_M],
            label=f"{store.manifest['splits']['test']}: {start} of {len(examples)} examples",
        )
        masks_at_once = masks_at_once or grid.chunk()
        values = grid.evaluate(_fitting(masks_at_once, int(open_M.sum())))
        prediction_NM = np.zeros((len(chosen), len(masks_MAH)), np.int32)
        prediction_NM[:, open_M] = values["prediction"].T
        measured_NM = np.broadcast_to(open_M, prediction_NM.shape)
        write(store, start, {"prediction": prediction_NM, "measured": measured_NM})
    log.info("%s: %d of %d examples measured", store.path, start, len(examples))
    return store
