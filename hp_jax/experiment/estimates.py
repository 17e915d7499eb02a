"""Grids that measure only what is undecided: the linear map predicts every label under every mask,
those at risk are measured, and a random audit of the others says how far all of it can be trusted.

An estimate's store has the examples as items, in the order in which they are measured: those of the
highest risk, then a random order of the others, fixed beforehand.  It grows until every mask is
known as well as was asked for; asked for more, it goes on from there.
"""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np

from hp_jax.config import Ablation
from hp_jax.data.splits import rows_of
from hp_jax.estimates import ALPHA, Changes, changes
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.grids import GridRequest
from hp_jax.experiment.mapping import mapped
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.grid import Grid
from hp_jax.metrics import LabelMetric
from hp_jax.sharding import agreed, device_mesh
from hp_jax.stats.sampling import decided, riskiest
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
    examples = setup.examples(request.splits["test"])
    store = _opened(setup, request, examples)
    order_N = np.concatenate([store.read("certain"), store.read("audit")])
    chunk = settings.masks_at_once
    while True:
        start = int(agreed(store.done()).sum())
        open_M = _undecided(store, setup.metric, settings, start)
        if start == len(examples) or not open_M.any():
            break
        chosen = order_N[start : start + store.chunk]
        grid = Grid(
            setup.task,
            setup.params,
            setup.batches_of(rows_of(examples, chosen)),
            masks_MAH[open_M],
            mesh=device_mesh(mask=settings.mask_devices) if settings.mask_devices else None,
            label=f"{request.folder}, {len(chosen)} examples from {start} of {len(examples)}",
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
    size = min(count, max(LEAST, math.ceil(ROUND * count)))
    sample = riskiest(linear.risk(masks_MAH[1:]), math.ceil(CERTAIN * count), 0, seed=seed)
    fixed, _ = setup.corpus.kept(examples, len(masks_MAH))
    evaluation = [dataclasses.asdict(setup.task), setup.corpus.about()]
    shape, axes = (count, len(masks_MAH)), ("measured example", "mask")
    results = Results(
        folder=request.folder,
        kind="estimate",
        splits=request.splits,
        inputs={
            "data": examples.fingerprint(),
            "masks": fingerprint.of_arrays(masks_MAH),
            "evaluation": fingerprint.of_json(evaluation),
            "sample": fingerprint.of_json([CERTAIN, ROUND, LEAST, seed]),
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


def _undecided(store: Store, metric: LabelMetric, settings: Ablation, start: int) -> np.ndarray:
    """The masks that are to be measured further, `[M]`; the full model is known."""
    arrays = {name: store.read(name) for name in store.manifest["arrays"]}
    masks = len(arrays["masks"])
    if start < len(arrays["certain"]):
        return np.arange(masks) > 0
    known = changes(arrays, metric)
    open_M = np.zeros(masks, bool)
    if settings.precision:
        open_M |= _half_width(known) > settings.precision / 100
    if settings.decide:
        # Of all masks together: each word is one of many.
        together = changes(arrays, metric, alpha=ALPHA / (masks - 1))
        words_M = decided(-together.high, -together.low, settings.decide / 100)
        open_M |= words_M == "undecided"
    return open_M & (arrays["measured"].sum(0) == start) & (np.arange(masks) > 0)


def _half_width(known: Changes) -> np.ndarray:
    return (known.high - known.low) / 2
