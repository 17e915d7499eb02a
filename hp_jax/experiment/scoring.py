"""Head importance on a split, kept part by part."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from hp_jax.config import Experiment
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.results import _write, results
from hp_jax.experiment.setup import Setup, load
from hp_jax.importance import Sums, example_gradients, normalize_rows, sum_importance
from hp_jax.progress import track
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Items
from hp_jax.task import Batch

PART = 32
"""Batches of importance that are saved together."""


def importance(config: Experiment) -> np.ndarray:
    """Head importance `[A, H]` on `config.importance.split`, row-normalised as configured; kept in
    out/importance."""
    return _importance(load(config))


def _importance(setup: Setup) -> np.ndarray:
    settings = setup.config.importance
    examples = setup.examples(settings.split)
    scored = setup.batches(examples)
    starts = range(0, len(scored), PART)
    shape = (len(starts), *setup.present_AH.shape)
    store = results(
        setup,
        "importance",
        "importance",
        splits={"score": settings.split},
        inputs=_importance_inputs(setup, examples),
        fixed={"mask": (("row", "head"), np.asarray(setup.present_AH))},
        items={
            "total": Items(("part", "row", "head"), shape, "float64"),
            "count": Items(("part", "row"), shape[:2], "float64"),
        },
        chunk=1,
    )
    todo = np.flatnonzero(~agreed(store.done())).tolist()
    for part in track(
        todo,
        "importance",
        total=len(starts),
        done=len(starts) - len(todo),
        unit=f"x {PART} batches",
    ):
        some = scored[starts[part] : starts[part] + PART]
        sums = sum_importance(
            setup.task,
            setup.params,
            some,
            setup.present_AH,
            per=settings.per,
            measure=settings.measure,
        )
        _write(
            store,
            part,
            {"total": np.asarray(sums.total_AH)[None], "count": np.asarray(sums.count_A)[None]},
        )
    if settings.keep_gradients:
        _keep_gradients(setup, examples, scored)
    values = store.read_items()
    return _normalized(
        setup, Sums(values["total"].sum(0), values["count"].sum(0)).score_AH, setup.present_AH
    )


def _importance_inputs(setup: Setup, examples: Encoded) -> dict[str, str]:
    """Hashes of what the sums depend on; the batching decides which examples a stored part
    holds."""
    settings, data = setup.config.importance, setup.corpus.data
    return {
        "data": examples.fingerprint(),
        "settings": fingerprint.of_json([settings.per, settings.measure]),
        "batching": fingerprint.of_json([data.batch, data.batch_tokens, data.buckets]),
    }


def _normalized(setup: Setup, score_AH: np.ndarray, mask_AH: jax.Array) -> np.ndarray:
    return normalize_rows(score_AH, mask_AH, norm=setup.config.importance.norm)


def _keep_gradients(setup: Setup, examples: Encoded, scored: Sequence[Batch]) -> None:
    shape = (len(examples), *setup.present_AH.shape)
    store = results(
        setup,
        "importance_gradients",
        "gradients",
        splits={"score": setup.config.importance.split},
        inputs={"data": examples.fingerprint()},
        fixed={"origin": (("example",), examples.origin_N)},
        items={"gradient": Items(("example", "row", "head"), shape, "float32")},
        chunk=4096,
    )
    if not agreed(store.done()).all():
        _write(
            store,
            0,
            {"gradient": example_gradients(setup.task, setup.params, scored, setup.present_AH)},
        )
