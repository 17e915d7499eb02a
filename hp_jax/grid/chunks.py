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

from hp_jax.grid.evaluate import evaluate_masks, planned
from hp_jax.sharding import device_mesh, params_specs
from hp_jax.task import Batch, Params, Staged

MOST = 96
"""Masks in a chunk: more share hardly more, and a chunk is what an interruption can cost."""
PASSES = 2**18
"""Masks times examples in a chunk, for the same reason."""
SHARE = 0.8
"""Of the memory; the rest is for what the compiler does not count."""
ENOUGH = 0.9
"""Of what may be used: no larger chunk is looked for."""


def chunk_size(
    task: Staged, params: Params, batches: Sequence[Batch], masks: int, *, tensor: int = 1
) -> int:
    """How many of so many masks a device evaluates together, or `tensor` devices that share the
    parameters: as many as fit, in equal chunks, with a chunk for each.

    On large data they are fewer, so that a chunk stays something that one can lose.
    RuntimeError if not even one fits.
    """
    devices = max(1, len(jax.devices()) // tensor)
    largest = max(batches, key=lambda batch: sum(np.size(array) for array in batch.values()))
    examples = sum(batch["weight_B"].sum() for batch in batches)
    most = max(1, min(MOST, math.ceil(masks / devices), int(PASSES / max(examples, 1))))
    local = jax.local_devices() if tensor <= jax.local_device_count() else jax.devices()
    mesh = device_mesh(local[:tensor], tensor=tensor)
    fit = masks_that_fit(task, params, largest, mesh, SHARE * device_bytes(), most=most)
    return equal_chunk(masks, devices, fit)


def equal_chunk(masks: int, devices: int, fit: int) -> int:
    """The smallest chunk with which so many devices are done with all masks in as few rounds as
    with chunks of `fit`."""
    return math.ceil(masks / (devices * math.ceil(masks / (devices * fit))))


def masks_that_fit(
    task: Staged, params: Params, batch: Batch, mesh: Mesh, limit: float, *, most: int = MOST
) -> int:
    """The masks, at most so many, that a device of `mesh` can evaluate together within `limit`
    bytes.

    Each number that is considered is compiled: memory is no straight line in the number of masks,
    since a TPU keeps a few of them out of the memory that counts.  RuntimeError if not even one
    fits.
    """
    over, over_bytes = most, program_bytes(task, params, batch, mesh, most)
    if over_bytes <= limit:
        return most
    fit, fit_bytes = 1, over_bytes if most == 1 else program_bytes(task, params, batch, mesh, 1)
    if fit_bytes > limit:
        raise RuntimeError(_too_large(batch, mesh, fit_bytes, limit))
    while over - fit > 1 and fit_bytes < ENOUGH * limit:
        share = (limit - fit_bytes) / (over_bytes - fit_bytes) if math.isfinite(over_bytes) else 0.5
        guess = fit + min(max(1, int(share * (over - fit))), over - fit - 1)
        guess_bytes = program_bytes(task, params, batch, mesh, guess)
        if guess_bytes <= limit:
            fit, fit_bytes = guess, guess_bytes
        else:
            over, over_bytes = guess, guess_bytes
    return fit


def _too_large(batch: Batch, mesh: Mesh, needed: float, limit: float) -> str:
    examples = math.ceil(len(batch["weight_B"]) / mesh.shape["data"])
    need = f"{needed / 2**20:.1f} MiB" if math.isfinite(needed) else "more memory than there is"
    return (
        f"a device needs {need} for one mask on {examples} examples, but may use "
        f"{limit / 2**20:.1f} MiB: "
        "choose a smaller data.batch (or data.batch_tokens)"
    )


def program_bytes(task: Staged, params: Params, batch: Batch, mesh: Mesh, masks: int) -> float:
    """What `evaluate_masks` needs on each device for a chunk of so many masks there; infinity if
    the compiler says too much."""
    try:
        return needed_bytes(compiled_grid(task, params, batch, mesh, masks))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return math.inf
        raise


def needed_bytes(compiled: Any) -> int:
    """What a program needs on each device: its arguments, results, temporaries and code."""
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)


def compiled_grid(
    task: Staged, params: Params, batch: Batch, mesh: Mesh, masks: int, *, alike: bool = False
) -> Any:
    """The program that evaluates `masks` masks on each device along `mask`; only the shapes of
    `params` and `batch` count."""

    def placed(tree: Any, *axes: Any) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding),
            tree,
        )

    masks_MAH = np.ones((masks * mesh.shape["mask"], *task.present_AH.shape), bool)
    plans, _ = planned(task, masks_MAH, mesh)
    specs = params_specs(params, mesh)
    arguments = (
        jax.tree.map(lambda leaf, spec: placed(leaf, *spec), params, specs),
        placed(dict(batch), "data"),
        placed(masks_MAH, "mask"),
        placed(plans, "mask"),
    )
    return evaluate_masks.lower(task, *arguments, mesh=mesh, alike=alike).compile()


def device_bytes() -> int:
    """Memory of one device; of a CPU, this machine's, shared by its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
