"""Device mesh and placement: parameters are replicated, batches are split over the mesh's `data` axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hp_jax.task import Batch


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all (or the given) devices with the one axis `data`."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of `tree` whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def place_batch(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """A host batch split over `data`; rows of weight 0 are added if B does not divide."""
    missing = -len(batch["weight_B"]) % mesh.shape["data"]
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def place(name: str, array: Any) -> jax.Array:
        array = np.asarray(array)
        if missing:
            extra = np.repeat(array[-1:], missing, axis=0)
            array = np.concatenate([array, np.zeros_like(extra) if name == "weight_B" else extra])
        return jax.device_put(array, sharding)

    return {name: place(name, array) for name, array in batch.items()}
