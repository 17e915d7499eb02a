"""One chunk of masks a device, on one batch, with as little work as possible.

Masks that agree in their first rows share everything up to the row in which they differ, and that
row's attention: `plan` finds the distinct beginnings on the host, one compiled program for each
batch shape follows them.  The mesh's `mask` axis takes a chunk on each of its devices, its `data`
axis splits every batch, and nothing is communicated along them until the values are fetched; its
`tensor` axis splits the parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from hp_jax.grid.plan import Plan, plan
from hp_jax.heads import gates
from hp_jax.sharding import BOTH
from hp_jax.task import Array, Batch, Params, Staged, State


def _last_states(
    task: Staged, params: Params, batch: Batch, gates: Sequence[Array], plan: Plan
) -> State:
    """The states after the stages, `[G, B, ...]`, in the order of `plan.last_G`'s numbers."""
    masks = len(plan.last_G)
    start = task.start(params, batch)
    states = jax.tree.map(lambda x: jnp.broadcast_to(_bits(x), (masks, *x.shape)), start)
    for row in range(task.stages):

        def follow(p: jax.Array, after: State, row: int = row, states: State = states) -> State:
            state = jax.tree.map(lambda x, of: _numbers(x[p], of), states, start)
            context = task.context(params, row, batch, state)

            def one(c: jax.Array, after: State) -> State:
                new = task.apply_row(
                    params, row, batch, state, context, gates[row][plan.mask_AG[row, c]]
                )
                return jax.tree.map(
                    lambda all, one: jax.lax.dynamic_update_index_in_dim(all, _bits(one), c, 0),
                    after,
                    new,
                )

            return jax.lax.fori_loop(plan.first_AP[row, p], plan.first_AP[row, p + 1], one, after)

        states = jax.lax.fori_loop(0, plan.count_A[row], follow, states)
    return jax.tree.map(_numbers, states, start)


def _bits(x: jax.Array) -> jax.Array:
    """Numbers of two bytes as integers, in which they are kept: where XLA's CPU compiler has no
    bfloat16, it converts an array whole whenever one entry of it is set."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _numbers(x: jax.Array, like: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, like.dtype) if like.dtype == jnp.bfloat16 else x


@functools.partial(jax.jit, static_argnames=("task", "mesh", "alike"))
def evaluate_masks(
    task: Staged,
    params: Params,
    batch: Batch,
    masks_MAH: Array,
    plans: Plan,
    *,
    mesh: Mesh,
    alike: bool,
) -> dict[str, jax.Array]:
    """`task.evaluate` under each of the masks, `{name: [M, B, ...]}`, split over the mesh.

    `plans` has each part of the plans of all chunks, stacked, one chunk for each device along
    `mask`.  alike: the masks of every chunk agree in all stages.
    """

    def one_device(
        params: Params, batch: Batch, masks_GAH: Array, plans: Plan
    ) -> dict[str, jax.Array]:
        own = Plan(*(part[0] for part in plans))
        gates_GH = jax.vmap(lambda mask_AH: gates(mask_AH, task.present_AH))(masks_GAH)
        states = _last_states(task, params, batch, gates_GH, own)
        last_U = own.last_G[:1] if alike else own.last_G
        states = jax.tree.map(lambda x: x[last_U], states)
        values = task.evaluate(params, batch, states, gates_GH)
        _check_shapes(values, len(masks_GAH), len(batch["weight_B"]))
        return values

    specs = Spec(), Spec("data"), Spec("mask"), Spec("mask")
    sharded = jax.shard_map(
        one_device,
        mesh=mesh,
        in_specs=specs,
        out_specs=Spec(*BOTH),
        axis_names=set(BOTH),  # along `tensor` the compiler sees to it
        check_vma=False,
    )
    return sharded(params, batch, masks_MAH, plans)


def _check_shapes(values: dict[str, jax.Array], masks: int, examples: int) -> None:
    """ValueError for values that are not `[M, B, ...]`."""
    for name, value in values.items():
        if value.shape[:2] != (masks, examples):
            raise ValueError(
                f"what the task gives as {name!r} has shape {value.shape[1:]} under a mask, but "
                f"the first axis must be that of the {examples} examples of the batch"
            )


def planned(task: Staged, masks_MAH: np.ndarray, mesh: Mesh) -> tuple[Plan, bool]:
    """The plans of M masks, one chunk for each device along `mask`, and whether all masks of each
    chunk agree in all stages."""
    plans = [plan(chunk_MAH, task.stages) for chunk_MAH in np.split(masks_MAH, mesh.shape["mask"])]
    alike = not any(plan.last_G.any() for plan in plans)
    return Plan(*(np.stack(parts) for parts in zip(*plans, strict=True))), alike
