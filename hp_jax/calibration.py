"""Recovery without training: a scale for each head that is left, folded into the output projection,
where it costs nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hp_jax.architecture import ModelConfig, present_mask
from hp_jax.batches import weighted
from hp_jax.heads import check_gates, check_mask, gates
from hp_jax.removal import replace
from hp_jax.sharding import device_mesh, fetch, place, place_batch, place_params
from hp_jax.task import Array, Batch, Params, Task, check_task, loss_of_each

PASSES = 4
"""Over the examples; few, so that scales stay where many examples agree."""
RATE = 0.03
"""Adam's first rate, which falls linearly to 0: about how far a scale moves in a step."""


class Calibration(NamedTuple):
    """Fitted scales, and the mean loss (nats an example) of the examples that they were fitted
    on."""

    scale_AH: np.ndarray
    """float32; 0 for heads that are off."""
    before: float
    """With scales of 1."""
    after: float
    """With these, never more."""


def calibrate(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    mask_AH: Array,
    *,
    passes: int = PASSES,
    mesh: Mesh | None = None,
) -> Calibration:
    """Scales of the heads that are on with a lower loss, found by Adam in the gates; the parameters
    are fixed, dropout is off.

    They are 1 if no heads are off, none are on, or nothing lower is found.
    """
    check_task(task)
    on_AH, batches = check_mask(mask_AH, task.present_AH), weighted(batches, task)
    mesh = mesh or device_mesh()
    params, placed = place_params(params, mesh), [place_batch(batch, mesh) for batch in batches]

    def mean_loss(scale_AH: Array) -> float:
        sums = np.array(
            [fetch(_loss_sum(task, params, batch, scale_AH)) for batch in placed], np.float64
        )
        return float(sums.sum() / sum(float(batch["weight_B"].sum()) for batch in batches))

    one_AH = place(jnp.asarray(on_AH, jnp.float32), mesh)
    before = mean_loss(one_AH)
    if not np.isfinite(before):
        raise ValueError(f"the mean loss before calibration is {before}: expected a finite number")
    if not on_AH.any() or bool((on_AH == task.present_AH).all()):
        return Calibration(np.asarray(one_AH), before, before)
    steps = passes * len(placed)
    scale_AH, state = one_AH, place(_adam(steps).init(one_AH), mesh)
    # One at a time: devices of a CPU that run ahead of each other can wait for ever.
    for batch in placed * passes:
        scale_AH, state = jax.block_until_ready(
            _step(task, params, batch, scale_AH, one_AH, state, steps=steps)
        )
    after = mean_loss(scale_AH)
    if after < before:
        return Calibration(fetch(scale_AH), before, after)
    return Calibration(fetch(one_AH), before, before)


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.linear_schedule(RATE, 0.0, steps))


@functools.partial(jax.jit, static_argnames="task")
def _loss_sum(task: Task, params: Params, batch: Batch, scale_AH: Array) -> jax.Array:
    at = gates(scale_AH, task.present_AH)
    return jnp.sum(loss_of_each(task, params, batch, at) * batch["weight_B"])


@functools.partial(jax.jit, static_argnames=("task", "steps"))
def _step(
    task: Task,
    params: Params,
    batch: Batch,
    scale_AH: Array,
    on_AH: Array,
    state: Any,
    *,
    steps: int,
) -> tuple[jax.Array, Any]:
    """One update on the batch's mean loss."""
    gradient_AH = jax.grad(functools.partial(_loss_sum, task, params, batch))(scale_AH)
    mean_AH = gradient_AH / jnp.sum(batch["weight_B"])
    update_AH, state = _adam(steps).update(mean_AH * on_AH, state)
    return scale_AH + update_AH, state


def fold_scales(config: ModelConfig, params: Params, scale_AH: Array) -> Params:
    """Parameters with each head's part of the output projection multiplied by its scale: with gates
    of 1 the same function.

    `scale_AH` has the mask's shape, and 0 for heads that the model does not have; otherwise
    ValueError.
    """
    scale_AH = check_gates(scale_AH, present_mask(config))
    rows = zip(scale_AH, config.modules.values(), config.kept_heads.values(), strict=True)
    for scale_H, module, kept in rows:
        if kept:
            path, scale_h = (*module.path, "out", "kernel"), scale_H[list(kept), None, None]
            params = replace(params, path, lambda kernel_HKD, scale: kernel_HKD * scale, scale_h)
    return params
