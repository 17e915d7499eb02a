"""The device mesh, and placement on it: of one process's devices, or of those of many hosts.

A mesh has three axes: `mask`, along which a grid's masks are split, `data`, along which its
batches are, and `tensor`, along which parameters are.  Importance and training split batches along
the first two.  Without devices along `tensor` parameters are whole on every device.  Every process
has all data on its host and puts on its devices what belongs there.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hp_jax.task import Batch

BOTH = ("mask", "data")
PATIENCE = 120
"""Seconds within which all processes must have found each other; JAX's own are 300."""
SILENCE = 30
"""Seconds after which a process of which nothing is heard counts as dead, so that the others end;
JAX's own are 100."""


def join_hosts() -> None:
    """Makes this process one of many, whose devices are used together; each of them runs the same
    command.

    Nothing need be said on Cloud TPU, Slurm, Kubernetes and under Open MPI; elsewhere
    JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID
    say it.  RuntimeError if there is no such cluster, ValueError or
    OSError if these variables cannot be right.
    """
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # which would make the process ignore SIGTERM
    count, own = _number("JAX_NUM_PROCESSES", 1), _number("JAX_PROCESS_ID", 0)
    if count is not None and own is not None and own >= count:
        raise ValueError(
            f"JAX_PROCESS_ID is {own}, but of JAX_NUM_PROCESSES={count} processes the last is "
            f"{count - 1}"
        )
    local = os.environ.get("JAX_LOCAL_DEVICE_IDS", "")
    if local and not all(part.strip().isdecimal() for part in local.split(",")):
        raise ValueError(
            f"JAX_LOCAL_DEVICE_IDS is {local!r}, but numbers of devices such as 0,1 were expected"
        )
    _check_meeting_place(first=own == 0)
    try:
        jax.distributed.initialize(
            num_processes=count,
            process_id=own,
            local_device_ids=_gpus_of_the_node(),
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=SILENCE,
        )
    except (ValueError, LookupError) as error:
        raise RuntimeError(
            "found no Cloud TPU, Slurm, Kubernetes or Open MPI: expected JAX_COORDINATOR_ADDRESS "
            "(host:port of the first "
            f"process), JAX_NUM_PROCESSES and JAX_PROCESS_ID ({error})"
        ) from error


def _number(name: str, least: int) -> int | None:
    """The integer in an environment variable; None if it is not set.  ValueError below `least`."""
    text = os.environ.get(name, "")
    if text and not (text.isdecimal() and int(text) >= least):
        raise ValueError(f"{name} is {text!r}, but an integer from {least} was expected")
    return int(text) if text else None


def _check_meeting_place(*, first: bool) -> None:
    """ValueError or OSError if JAX_COORDINATOR_ADDRESS cannot be where the processes meet; the
    first must be able to listen there."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}, but host:port of the first process was "
            "expected, the port from 1 to 65535"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        raise OSError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}, but there is no host {host!r}: {error}"
        ) from error
    if not first or "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise OSError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}, but the first process cannot listen at port "
            f"{port}: {error.strerror}"
        ) from error


def _gpus_of_the_node() -> list[int] | None:
    """All of them in a Slurm step with one task on each node, of which JAX would take the first;
    None: let JAX decide."""
    tasks, gpus = (
        os.environ.get(name, "") for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_GPUS_ON_NODE")
    )
    alone = (
        re.fullmatch(r"1(\(x\d+\))?", tasks)
        and gpus.isdecimal()
        and "JAX_LOCAL_DEVICE_IDS" not in os.environ
    )
    return list(range(int(gpus))) if alone else None


def leave_hosts(status: int) -> NoReturn:
    """Ends this process, one of many that has failed, without waiting for the others, who then end
    too.

    The first, through which all are connected, gives the others time to say what has gone wrong
    with them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(5)
    os._exit(status)


def device_mesh(
    devices: Sequence[jax.Device] | None = None, *, mask: int = 1, tensor: int = 1
) -> Mesh:
    """A mesh of all (or the given) devices, `mask` and `tensor` of them along these axes.
    ValueError if they do not divide."""
    devices = jax.devices() if devices is None else list(devices)
    for name, size, left in (("tensor", tensor, 1), ("mask", mask, tensor)):
        if size < 1 or len(devices) % (size * left):
            among = f" for each of {left} parts of the parameters" * (left > 1)
            raise ValueError(
                f"{len(devices)} devices cannot be split into {size} along the {name} axis{among}"
            )
    return jax.make_mesh(
        (mask, len(devices) // (mask * tensor), tensor),
        (*BOTH, "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=devices,
    )


SPLIT = {
    "query": 1,
    "key": 1,
    "value": 1,
    "out": 0,
    "inner": 1,
    "gate": 1,
    "outer": 0,
    "word": 0,
    "output": 1,
}
"""The axis along which matrices are split, by the last of these names in their path: heads, hidden
units and the vocabulary, so that one sum over devices ends each attention and feed-forward layer
(Shoeybi et al. 2019)."""


def params_specs(params: Any, mesh: Mesh) -> Any:
    """How each parameter is split over the mesh: along `tensor` where its size there divides, whole
    otherwise.  Arrays, or their shapes."""

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        return _spec([getattr(part, "key", "") for part in path], np.shape(leaf), mesh)

    return jax.tree_util.tree_map_with_path(spec, params)


def _spec(path: Sequence[str], shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    parts, axes = mesh.shape["tensor"], [SPLIT[name] for name in path if name in SPLIT]
    if parts == 1 or not axes or len(shape) < 2 or shape[axes[-1]] % parts:
        return PartitionSpec()
    return PartitionSpec(*[None] * axes[-1], "tensor")


def place_params(params: Any, mesh: Mesh) -> Any:
    """Parameters on the mesh's devices, split along its axis `tensor`."""
    return jax.tree.map(
        lambda leaf, spec: place(leaf, mesh, *spec), params, params_specs(params, mesh)
    )


def place_param(array: np.ndarray, mesh: Mesh, path: Sequence[str]) -> jax.Array:
    """The same of one parameter, by the names of its path."""
    placed: jax.Array = place(array, mesh, *_spec(path, array.shape, mesh))
    return placed


def place(tree: Any, mesh: Mesh, *axes: str | tuple[str, ...] | None) -> Any:
    """Every array of `tree`, the same on all hosts, split over the mesh along its first axes; whole
    everywhere for none."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def globally(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(globally, tree)


def place_batch(
    batch: Batch, mesh: Mesh, axis: str | tuple[str, ...] = BOTH
) -> dict[str, jax.Array]:
    """A host batch split over `axis`; rows of weight 0 are added if B does not divide."""
    parts = np.prod(
        [mesh.shape[name] for name in ((axis,) if isinstance(axis, str) else axis)], dtype=int
    )
    missing = -len(batch["weight_B"]) % parts

    def filled(name: str, array: np.ndarray) -> np.ndarray:
        extra = np.repeat(array[-1:], missing, axis=0)
        return np.concatenate([array, np.zeros_like(extra) if name == "weight_B" else extra])

    return place(
        {name: filled(name, np.asarray(array)) for name, array in batch.items()}, mesh, axis
    )


def fetch(tree: Any) -> Any:
    """Every array of `tree` whole on this host, and on every other: all processes call it at
    once."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def on_host(array: Any) -> np.ndarray:
    """An array whole on this host, however it is split; all processes call it at once."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def agreed(array: np.ndarray) -> np.ndarray:
    """The first process's `array` on all hosts."""
    return (
        array
        if jax.process_count() == 1
        else np.asarray(multihost_utils.broadcast_one_to_all(array))
    )


def wait_for_all(name: str) -> None:
    """Returns when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
