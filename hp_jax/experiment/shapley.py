"""Shapley values of the loss on `config.pruning.select`, kept draw by draw; they are drawn until
they are known well enough."""

from __future__ import annotations

import logging

import numpy as np

from hp_jax.attribution import Values, mean_of, shapley, shapley_masks
from hp_jax.experiment.grids import losses_of
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.progress import track
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Store
from hp_jax.storage.zarr import Items

log = logging.getLogger("hp_jax")


def shapley_values(setup: Setup) -> Values:
    """Of `config.pruning.permutations` draws, a random order and its reverse each, or of fewer, if
    they are within `config.pruning.precision` before; in nats."""
    settings, found = setup.config.pruning, mean_of(_drawn(setup).sum(1))
    if settings.precision:
        log.log(
            logging.INFO if found.reach() <= settings.precision else logging.WARNING,
            "pruning/shapley/values: after %d of at most %d draws each value is within %.2g nats; "
            "pruning.precision is %g",
            found.draws,
            settings.permutations,
            found.reach(),
            settings.precision,
        )
    return found


def half_of_values(setup: Setup, half: int) -> np.ndarray | None:
    """The values `[A, H]` of every other example (half 0 or 1), from every other draw, so that the
    halves share neither examples nor masks; nothing is measured.  None if one of them is empty."""
    draw_RSAH, count = _drawn(setup), len(setup.examples(setup.config.pruning.select))
    if min(count, len(draw_RSAH)) < 2:
        return None
    share = (count + 1 - half) // 2 / count
    half_AH: np.ndarray = draw_RSAH[half::2, half].mean(0) / share
    return half_AH


def _drawn(setup: Setup) -> np.ndarray:
    """Of each draw the parts `[R, 2, A, H]` of the values that are due to every other example and
    to the others, kept in out/pruning/shapley/values."""
    settings, present_AH = setup.config.pruning, setup.present_AH
    examples, most = setup.examples(settings.select), settings.permutations
    masks_RMAH = shapley_masks(present_AH, most, seed=setup.config.seed)
    shape = (most, 2, *present_AH.shape)
    results = Results(
        folder="pruning/shapley/values",
        kind="shapley",
        splits={"select": settings.select},
        inputs={
            "data": examples.fingerprint(),
            "masks": fingerprint.of_arrays(masks_RMAH),
            "settings": fingerprint.of_json([settings.precision]),
        },
        fixed={},
        items={"value": Items(("draw", "half", "row", "head"), shape, "float64")},
        chunk=1,
    )
    store, losses = open_results(setup, results), losses_of(setup, examples)
    todo = np.flatnonzero(~agreed(store.done())).tolist()
    for draw in track(todo, results.folder, total=most, done=most - len(todo), unit="draws"):
        if settings.precision and _reach(store) <= settings.precision:
            break
        loss_MN = losses(setup.params, masks_RMAH[draw]).astype(np.float64)
        part_SM = np.stack([loss_MN[:, half::2].sum(1) for half in (0, 1)]) / len(examples)
        masks_SMAH = np.broadcast_to(masks_RMAH[draw], (2, *masks_RMAH.shape[1:]))
        write(store, draw, {"value": shapley(part_SM, masks_SMAH)[None]})
    return _read(store)


def _read(store: Store) -> np.ndarray:
    """What is there."""
    return store.read("value")[agreed(store.done())]


def _reach(store: Store) -> float:
    """How far the values of the draws that are there may be off."""
    draw_RSAH = _read(store)
    return mean_of(draw_RSAH.sum(1)).reach() if len(draw_RSAH) else float("inf")
