"""Head importance on a split, kept part by part."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.importance import (
    MeanGradient,
    example_gradients,
    importance_sums,
    stored_scores,
    sum_importance,
)
from hp_jax.progress import track
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.zarr import Items
from hp_jax.task import Batch

BATCHES = 32
"""Those whose sums are saved together, as one part."""
AXES = {1: ("part", "row"), 2: ("part", "row", "head")}
"""Names of the axes of an estimator's sums, by how many they have."""


def importance(setup: Setup, folder: str = "importance") -> np.ndarray:
    """Head importance `[A, H]` on `config.importance.split`, row-normalised as configured; kept in
    out/`folder`."""
    settings, estimator = setup.config.importance, estimator_of(setup)
    examples = setup.examples(settings.split)
    scored = setup.batches_of(examples)
    starts = range(0, len(scored), BATCHES)
    shapes = jax.eval_shape(
        lambda params, batch: importance_sums(
            setup.task, params, batch, setup.present_AH, estimator=estimator
        ),
        setup.params,
        scored[0],
    )
    items = {
        name: Items(AXES[len(sums.shape)], (len(starts), *sums.shape), "float64")
        for name, sums in shapes.items()
    }
    results = Results(
        folder=folder,
        kind="importance",
        splits={"score": settings.split},
        inputs=importance_inputs(setup, examples),
        fixed={"mask": (("row", "head"), setup.present_AH)},
        items=items,
        chunk=1,
    )
    store = open_results(setup, results)
    todo = np.flatnonzero(~agreed(store.done())).tolist()
    counts = [len(scored[start : start + BATCHES]) for start in starts]
    progress = track(
        todo,
        folder,
        total=len(scored),
        done=len(scored) - sum(counts[part] for part in todo),
        unit="batches",
        size=lambda part: counts[part],
    )
    for part in progress:
        some = scored[starts[part] : starts[part] + BATCHES]
        sums = sum_importance(
            setup.task, setup.params, some, setup.present_AH, estimator=estimator, mesh=setup.mesh
        )
        write(store, part, {name: value[None] for name, value in sums.items()})
    if settings.keep_gradients:
        _keep_gradients(setup, examples, scored)
    parts, mask_AH = store.read_items(), setup.present_AH
    return stored_scores(parts, mask_AH, norm=settings.norm, estimator=estimator)[1]


def estimator_of(setup: Setup) -> MeanGradient:
    """The estimator that the experiment's settings name."""
    settings = setup.config.importance
    return MeanGradient(settings.per, settings.measure)


def importance_inputs(setup: Setup, examples: Encoded) -> dict[str, str]:
    """Hashes of what the sums depend on; the batching decides which examples a stored part
    holds."""
    settings, data = setup.config.importance, setup.corpus.data
    return {
        "data": examples.fingerprint(),
        "settings": fingerprint.of_json([settings.per, settings.measure]),
        "batching": fingerprint.of_json([data.batch, data.batch_tokens, data.buckets]),
    }


def _keep_gradients(setup: Setup, examples: Encoded, scored: Sequence[Batch]) -> None:
    shape = (len(examples), *setup.present_AH.shape)
    results = Results(
        folder="importance_gradients",
        kind="gradients",
        splits={"score": setup.config.importance.split},
        inputs={"data": examples.fingerprint()},
        fixed={"origin": (("example",), examples.origin_N)},
        items={"gradient": Items(("example", "row", "head"), shape, "float32")},
        chunk=4096,
    )
    store = open_results(setup, results)
    if not agreed(store.done()).all():
        gradient_NAH = example_gradients(
            setup.task, setup.params, scored, setup.present_AH, mesh=setup.mesh
        )
        write(store, 0, {"gradient": gradient_NAH})
