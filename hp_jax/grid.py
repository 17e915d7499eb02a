"""Many masks on one data set: what each example gives under each mask."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.heads import check_mask, gates
from hp_jax.progress import track
from hp_jax.sharding import data_mesh, place_batch, replicate
from hp_jax.store import Store
from hp_jax.task import Array, Batch, Params, Task


@functools.partial(jax.jit, static_argnames="task")
def evaluate_masks(task: Task, params: Params, batch: Batch, masks_MAH: Array) -> dict[str, jax.Array]:
    """`task.evaluate` under each of the masks: `{name: [M, B]}`; what precedes the first gate is computed once."""
    return jax.vmap(lambda mask_AH: task.evaluate(params, batch, gates(mask_AH, task.heads)))(masks_MAH)


def evaluate_grid(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    *,
    chunk: int,
    mesh: Mesh | None = None,
    store: Store | None = None,
    label: str = "masks",
) -> dict[str, np.ndarray]:
    """Everything that `task.evaluate` keeps, for every mask and example, in the order of `index_B`: `{name: [M, N]}`.

    `chunk` masks are evaluated at once; batches are spread over the mesh's `data` axis. With a store, each finished chunk
    is written to it, and masks that it already holds are read instead of computed.
    """
    masks_MAH = jnp.stack([check_mask(mask_AH, task.heads) for mask_AH in masks_MAH])
    mesh = mesh or data_mesh()
    params, placed = replicate(params, mesh), [place_batch(batch, mesh) for batch in batches]
    done_M = np.zeros(len(masks_MAH), bool) if store is None else store.done()
    starts = range(0, len(masks_MAH), chunk)
    todo = [start for start in starts if not done_M[start : start + chunk].all()]
    parts = []
    for start in track(todo, label, total=len(starts), done=len(starts) - len(todo), unit=f"x {chunk} masks"):
        values = _evaluate_chunk(task, params, batches, placed, masks_MAH[start : start + chunk], chunk)
        if store is None:
            parts.append(values)
        else:
            store.write(start, values)
    if store is not None:
        return store.read_items()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _evaluate_chunk(
    task: Task, params: Params, batches: Sequence[Batch], placed: Sequence[Batch], masks_MAH: jax.Array, chunk: int
) -> dict[str, np.ndarray]:
    """`{name: [M, N]}` for at most `chunk` masks; fewer are filled up with the last one, so that one program serves all."""
    count = len(masks_MAH)
    masks_MAH = jnp.concatenate([masks_MAH, jnp.repeat(masks_MAH[-1:], chunk - count, axis=0)])
    results = jax.device_get([evaluate_masks(task, params, batch, masks_MAH) for batch in placed])
    examples = int(sum(batch["weight_B"].sum() for batch in batches))
    values = {name: np.zeros((count, examples), value.dtype) for name, value in results[0].items()}
    for batch, result in zip(batches, results, strict=True):
        real = np.flatnonzero(batch["weight_B"])
        for name, value_MB in result.items():
            values[name][:, batch["index_B"][real]] = value_MB[:count, real]
    return values
