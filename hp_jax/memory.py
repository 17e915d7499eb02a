"""How many masks of a grid fit a device's memory, by the compiler's own account."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hp_jax.grid import evaluate_masks, planned
from hp_jax.sharding import device_mesh
from hp_jax.task import Batch, Params, Task

MOST = 96
"""Masks in a chunk: more share hardly more, and a chunk is what an interruption can cost."""
SHARE = 0.8
"""Of the memory; the rest is for what the compiler does not count."""


def chunk_size(task: Task, params: Params, batches: Sequence[Batch], masks: int) -> int:
    """How many of so many masks a device evaluates together: as many as fit, but no fewer chunks than there are devices."""
    devices = jax.devices()
    largest = max(batches, key=lambda batch: sum(np.size(array) for array in batch.values()))
    wanted = min(MOST, math.ceil(masks / len(devices)))
    if wanted > 1:
        mesh = device_mesh([jax.local_devices()[0]])
        wanted = max(1, min(wanted, masks_that_fit(task, params, largest, mesh, SHARE * device_bytes())))
    return math.ceil(masks / math.ceil(masks / wanted))


def masks_that_fit(task: Task, params: Params, batch: Batch, mesh: Mesh, limit: float) -> int:
    """The masks that a device of `mesh` can evaluate together within `limit` bytes, from what the compiler says of 2 and 4.

    0 if not even one fits.
    """
    few, more = (program_bytes(task, params, batch, mesh, masks) for masks in (2, 4))
    return max(0, math.floor(2 + (limit - few) / max((more - few) / 2, 1)))


def program_bytes(task: Task, params: Params, batch: Batch, mesh: Mesh, masks: int) -> int:
    """What `evaluate_masks` needs on each device for a chunk of so many masks there, arguments and results included."""
    memory = compiled_grid(task, params, batch, mesh, masks).memory_analysis()
    return int(memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes)


def compiled_grid(task: Task, params: Params, batch: Batch, mesh: Mesh, masks: int, *, alike: bool = False) -> Any:
    """The program that evaluates `masks` masks on each device along `mask`; only the shapes of `params` and `batch` count."""

    def placed(tree: Any, *axes: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding), tree)

    masks_MAH = np.ones((masks * mesh.shape["mask"], len(task.rows), max(task.heads)), bool)
    plans, _ = planned(task, masks_MAH, mesh)
    arguments = placed(params), placed(dict(batch), "data"), placed(masks_MAH, "mask"), placed(plans, "mask")
    return evaluate_masks.lower(task, *arguments, mesh=mesh, alike=alike).compile()


def device_bytes() -> int:
    """Memory of one device; of a CPU, this machine's, shared by its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
