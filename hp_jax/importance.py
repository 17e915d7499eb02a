"""Head importance: the gradient of the loss with respect to the gates, exactly, in one forward and
backward pass a batch.

`I_h = E_x |dL(x) / d gate_h| = E_x |Att_h(x) . dL(x) / dAtt_h(x)|` (section 4.1 of the paper).  A
gate is given an entry for every example and query position, so that the gradient of one summed loss
holds every token's own; the parameters get none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.config import Measure, Reduction
from hp_jax.heads import as_mask_row, check_mask, gates
from hp_jax.sharding import device_mesh, fetch, place, place_batch
from hp_jax.task import Array, Batch, Params, Task


class Sums(NamedTuple):
    """Scores summed over a data set, and the number of terms of each row; `total_AH / count_A` is
    the mean."""

    total_AH: Array
    count_A: Array

    @property
    def score_AH(self) -> np.ndarray:
        """The mean score of each head; 0 where nothing was counted."""
        return np.asarray(self.total_AH) / np.maximum(self.count_A, 1)[:, None]


@functools.partial(jax.jit, static_argnames="task")
def gate_gradients(
    task: Task, params: Params, batch: Batch, mask_AH: Array
) -> tuple[jax.Array, ...]:
    """The summed loss's gradient in every gate: for each row `[B, T_row, H_row]`, 0 at padding;
    loss units (nats).

    Taken at the gates of `mask_AH`.  The gradient of a gate that is off is not 0: it says what
    turning it on would do.
    """
    queries = task.queries(batch)
    at = tuple(
        jnp.broadcast_to(gate_H, (*real_BT.shape, *gate_H.shape))
        for gate_H, real_BT in zip(gates(mask_AH, task.present_AH), queries, strict=True)
    )
    return jax.grad(lambda gates: jnp.sum(task.loss(params, batch, gates) * batch["weight_B"]))(at)


def _measure(x: jax.Array, measure: Measure) -> jax.Array:
    return {"abs": jnp.abs, "signed": lambda x: x, "squared": jnp.square}[measure](x)


@functools.partial(jax.jit, static_argnames=("task", "per", "measure"))
def importance_sums(
    task: Task, params: Params, batch: Batch, mask_AH: Array, *, per: Reduction, measure: Measure
) -> Sums:
    """One batch's `Sums`; `per` says what the absolute value or square is taken of, and what is
    counted.

    token: each (example, query position), the authors' code; example: each example's sum over
    positions, the formula read literally; batch: the whole batch's sum, as run_bertology does,
    which depends on the batch size (counts examples).
    """
    examples = jnp.sum(batch["weight_B"])
    totals, counts = [], []
    gradients, queries = gate_gradients(task, params, batch, mask_AH), task.queries(batch)
    for gradient_BTH, real_BT, present_H in zip(gradients, queries, task.present_AH, strict=True):
        if per == "token":
            total_H = _measure(gradient_BTH, measure).sum((0, 1))
        elif per == "example":
            total_H = _measure(gradient_BTH.sum(1), measure).sum(0)
        else:
            total_H = _measure(gradient_BTH.sum((0, 1)), measure)
        totals.append(as_mask_row(total_H, present_H))
        counts.append(jnp.sum(real_BT) if per == "token" else examples)
    return Sums(jnp.stack(totals), jnp.stack(counts))


@functools.partial(jax.jit, static_argnames="task")
def _example_gradients(task: Task, params: Params, batch: Batch, mask_AH: Array) -> jax.Array:
    """Each example's gate gradients, summed over positions: `[B, A, H]`."""
    gradients = gate_gradients(task, params, batch, mask_AH)
    rows = [
        as_mask_row(gradient_BTH.sum(1), present_H)
        for gradient_BTH, present_H in zip(gradients, task.present_AH, strict=True)
    ]
    return jnp.stack(rows, axis=1)


def sum_importance(
    task: Task,
    params: Params,
    batches: Iterable[Batch],
    mask_AH: Array,
    *,
    per: Reduction = "token",
    measure: Measure = "abs",
    mesh: Mesh | None = None,
) -> Sums:
    """`Sums` over all batches, added up in float64 on the host; the batches are spread over the
    mesh's devices."""
    mask_AH = check_mask(mask_AH, task.present_AH)
    mesh = mesh or device_mesh()
    params = place(params, mesh)
    batches = list(batches)
    if not batches:
        raise ValueError("importance needs at least one batch, but there is none")
    parts = [
        importance_sums(task, params, place_batch(batch, mesh), mask_AH, per=per, measure=measure)
        for batch in batches
    ]
    parts = fetch(parts)
    return Sums(
        *(
            np.sum([np.asarray(part, np.float64) for part in column], axis=0)
            for column in zip(*parts, strict=True)
        )
    )


def head_importance(
    task: Task,
    params: Params,
    batches: Iterable[Batch],
    mask_AH: Array,
    *,
    per: Reduction = "token",
    measure: Measure = "abs",
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The mean importance `[A, H]` of each head at `mask_AH`; see `importance_sums` for `per`.

    Dead heads have a score too (see `gate_gradients`); `keep_top` and `normalize_rows` leave them
    out.
    """
    return sum_importance(
        task, params, batches, mask_AH, per=per, measure=measure, mesh=mesh
    ).score_AH


def example_gradients(
    task: Task,
    params: Params,
    batches: Iterable[Batch],
    mask_AH: Array,
    *,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The gate gradients of every example, summed over its positions, in the order of `index_B`:
    `[N, A, H]`, float32."""
    mask_AH = check_mask(mask_AH, task.present_AH)
    mesh = mesh or device_mesh()
    params = place(params, mesh)
    batches = list(batches)
    count = int(sum(batch["weight_B"].sum() for batch in batches))
    gradient_NAH = np.zeros((count, *mask_AH.shape), np.float32)
    for batch in batches:
        gradient_BAH = fetch(_example_gradients(task, params, place_batch(batch, mesh), mask_AH))
        real = np.flatnonzero(batch["weight_B"])
        gradient_NAH[batch["index_B"][real]] = gradient_BAH[real]
    return gradient_NAH


def normalize_rows(score_AH: Array, mask_AH: Array, *, norm: float = 2.0) -> np.ndarray:
    """Scores divided by the norm of their row's living heads, as the authors do with l2; 0 for dead
    heads and all-zero rows.

    norm: its order, such as 1, 2 or infinity; 0 leaves the scores as they are.
    """
    score_AH = np.where(np.asarray(mask_AH) != 0, np.asarray(score_AH, np.float64), 0.0)
    if norm == 0:
        return score_AH
    norm_A = np.linalg.norm(score_AH, ord=norm, axis=1)
    return score_AH / np.where(norm_A > 0, norm_A, 1.0)[:, None]


def stored_scores(
    total_PAH: np.ndarray, count_PA: np.ndarray, mask_AH: Array, *, norm: float
) -> tuple[np.ndarray, np.ndarray]:
    """From the `Sums` of P parts of a data set: each head's mean score `[A, H]` in nats, and the
    same as the pruning orders take it, by `normalize_rows`."""
    score_AH = Sums(total_PAH.sum(0), count_PA.sum(0)).score_AH
    return score_AH, normalize_rows(score_AH, mask_AH, norm=norm)
