"""Grids that measure only what is undecided: the linear map predicts every label under every mask,
those at risk are measured, and a random audit of the others says how far all of it can be trusted.

An estimate's store has the examples as items, in the order in which they are measured: those of the
highest risk, then a random order of the others, fixed beforehand.  It grows until every mask is
known as well as was asked for; asked for more, it goes on from there.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from hp_jax.data.splits import rows_of
from hp_jax.estimates import CERTAIN, ordered, undecided
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.grids import GridRequest, grid_inputs
from hp_jax.experiment.mapping import mapped
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.metrics import LabelMetric
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Store
from hp_jax.storage.zarr import Items

log = logging.getLogger("hp_jax")

POINTS = 100
"""In one unit of accuracy, F1 or Matthews correlation."""


def estimate(setup: Setup, request: GridRequest) -> Store:
    """The change of the metric under each mask, to `config.ablation.precision`, or until it is
    decided whether it is as bad as `config.ablation.decide`; what is there is not done again.

    ValueError if the metric is none of labels.
    """
    settings, masks_MAH = setup.config.ablation, request.masks_MAH
    if not isinstance(setup.metric, LabelMetric):
        raise ValueError(
            "ablation.precision and ablation.decide are for accuracy, F1 and Matthews correlation, "
            f"but the metric is {setup.metric.name}: leave them out to measure every example"
        )
    if request.part != (1, 1):
        raise ValueError(
            f"ablation.part is {request.part}, but what an estimate measures next depends on all "
            "that it has: one job makes it"
        )
    examples = setup.examples(request.splits["test"])
    store = _opened(setup, request, examples)
    order_N = np.concatenate([store.read("certain"), store.read("audit")])
    chunk = settings.masks_at_once
    while True:
        start = int(agreed(store.done()).sum())
        open_M = undecided(
            {name: store.read(name) for name in store.manifest["arrays"]},
            setup.metric,
            precision=settings.precision / POINTS,
            decide=settings.decide / POINTS,
        )
        if start == len(examples) or not open_M.any():
            break
        chosen = order_N[start : start + store.chunk]
        grid = setup.grid(
            setup.batches_of(rows_of(examples, chosen)),
            masks_MAH[open_M],
            label=f"{request.folder}, {len(chosen)} examples from {start} of {len(examples)}",
            mask=settings.mask_devices,
        )
        chunk = chunk or grid.chunk()
        while chunk >= 2 * int(open_M.sum()):
            chunk = math.ceil(chunk / 2)  # or most of the masks that are evaluated were copies
        prediction_NM = np.zeros((len(chosen), len(masks_MAH)), np.int32)
        prediction_NM[:, open_M] = grid.evaluate(chunk)["prediction"].T
        measured_NM = np.repeat(open_M[None].astype(np.uint8), len(chosen), axis=0)
        write(store, start, {"prediction": prediction_NM, "measured": measured_NM})
    log.info("%s: at most %d of %d examples were measured", store.path, start, len(examples))
    return store


def _opened(setup: Setup, request: GridRequest, examples: Encoded) -> Store:
    """The store, new with what is predicted, and in which order examples are to be measured."""
    masks_MAH, count = request.masks_MAH, len(examples)
    linear, seed = mapped(setup, request.splits["test"]), setup.config.seed
    sample, size = ordered(linear, masks_MAH[1:], seed=seed)
    fixed, _ = setup.corpus.kept(examples, len(masks_MAH))
    shape, axes = (count, len(masks_MAH)), ("measured example", "mask")
    results = Results(
        folder=request.folder,
        kind="estimate",
        splits=request.splits,
        inputs={
            **grid_inputs(setup, examples, masks_MAH),
            "sample": fingerprint.of_json([CERTAIN, size, seed]),
        },
        fixed={
            "masks": (("mask", "row", "head"), masks_MAH),
            "predicted": (("mask", "example"), linear.values(masks_MAH)["prediction"]),
            "certain": (("certain example",), sample.certain.astype(np.int32)),
            "audit": (("audited example",), sample.audit.astype(np.int32)),
            **fixed,
        },
        items={
            "prediction": Items(axes, shape, "int32"),
            "measured": Items(axes, shape, "uint8"),
        },
        chunk=size,
        masks=request.masks,
    )
    return open_results(setup, results)
