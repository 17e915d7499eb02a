"""Many masks on one data set: what each example gives under each mask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

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
    """`task.evaluate` under each of the masks: `{name: [M, B, ...]}`."""
    return task.evaluate(params, batch, jax.vmap(lambda mask_AH: gates(mask_AH, task.heads))(masks_MAH))


Finish = Callable[[Batch, dict[str, np.ndarray]], dict[str, np.ndarray]]
"""On the host, from a batch and its values `{name: [M, B, ...]}` to what is kept of them, each of one shape in all batches."""


def evaluate_grid(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    *,
    chunk: int,
    mesh: Mesh | None = None,
    finish: Finish = lambda batch, values: values,
    store: Store | None = None,
    label: str = "masks",
) -> dict[str, np.ndarray]:
    """What `finish` makes of `task.evaluate`'s values, for every mask and example, by `index_B`: `{name: [M, N, ...]}`.

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
        values = _evaluate_chunk(task, params, batches, placed, masks_MAH[start : start + chunk], chunk, finish)
        if store is None:
            parts.append(values)
        else:
            store.write(start, values)
    if store is not None:
        return store.read_items()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _evaluate_chunk(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    placed: Sequence[Batch],
    masks_MAH: jax.Array,
    chunk: int,
    finish: Finish,
) -> dict[str, np.ndarray]:
    """`{name: [M, N, ...]}` for at most `chunk` masks; fewer are filled up with the last, so that one program serves all."""
    count = len(masks_MAH)
    masks_MAH = jnp.concatenate([masks_MAH, jnp.repeat(masks_MAH[-1:], chunk - count, axis=0)])
    results = jax.device_get([evaluate_masks(task, params, batch, masks_MAH) for batch in placed])
    examples = int(sum(batch["weight_B"].sum() for batch in batches))
    values: dict[str, np.ndarray] = {}
    for batch, result in zip(batches, results, strict=True):
        real = np.flatnonzero(batch["weight_B"])
        batch = {name: array[real] for name, array in batch.items()}
        for name, value in finish(batch, {name: value[:count, real] for name, value in result.items()}).items():
            values.setdefault(name, np.zeros((count, examples, *value.shape[2:]), value.dtype))[:, batch["index_B"]] = value
    return values
