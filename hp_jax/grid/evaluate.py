"""Many masks on one data set: what each example gives under each mask, with as little work as
possible.

Masks are taken in chunks.  Within a chunk, masks that agree in their first rows share everything up
to the row in which they differ, and that row's attention: `plan` finds the distinct beginnings on
the host, one compiled program for each batch shape follows them.  The mesh's `mask` axis takes a
chunk on each of its devices, its `data` axis splits every batch, and nothing is communicated until
the values are fetched.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from hp_jax.grid.plan import Plan, plan
from hp_jax.heads import check_mask, gates
from hp_jax.progress import track
from hp_jax.sharding import agreed, device_mesh, fetch, place, place_batch, wait_for_all
from hp_jax.storage.store import Store
from hp_jax.task import Array, Batch, Params, State, Task

Postprocess = Callable[[Batch, dict[str, np.ndarray]], dict[str, np.ndarray]]
"""On the host, from a batch and its values `{name: [M, B, ...]}` to what is kept of them, each of
one shape in all batches."""


def _last_states(
    task: Task, params: Params, batch: Batch, gates: Sequence[Array], plan: Plan
) -> State:
    """The states after the stages, `[G, B, ...]`, in the order of `plan.last_G`'s numbers."""
    masks = len(plan.last_G)
    states = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (masks, *x.shape)), task.start(params, batch)
    )
    for row in range(task.stages):

        def follow(p: jax.Array, after: State, row: int = row, states: State = states) -> State:
            state = jax.tree.map(lambda x: x[p], states)
            context = task.context(params, row, batch, state)

            def one(c: jax.Array, after: State) -> State:
                new = task.apply_row(
                    params, row, batch, state, context, gates[row][plan.mask_AG[row, c]]
                )
                return jax.tree.map(lambda all, one: all.at[c].set(one), after, new)

            return jax.lax.fori_loop(plan.first_AP[row, p], plan.first_AP[row, p + 1], one, after)

        states = jax.lax.fori_loop(0, plan.count_A[row], follow, states)
    return states


@functools.partial(jax.jit, static_argnames=("task", "mesh", "alike"))
def evaluate_masks(
    task: Task,
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
        return task.evaluate(params, batch, jax.tree.map(lambda x: x[last_U], states), gates_GH)

    specs = Spec(), Spec("data"), Spec("mask"), Spec("mask")
    sharded = jax.shard_map(
        one_device, mesh=mesh, in_specs=specs, out_specs=Spec("mask", "data"), check_vma=False
    )
    return sharded(params, batch, masks_MAH, plans)


def planned(task: Task, masks_MAH: np.ndarray, mesh: Mesh) -> tuple[Plan, bool]:
    """The plans of M masks, one chunk for each device along `mask`, and whether all masks of each
    chunk agree in all stages."""
    plans = [plan(chunk_MAH, task.stages) for chunk_MAH in np.split(masks_MAH, mesh.shape["mask"])]
    alike = not any(plan.last_G.any() for plan in plans)
    return Plan(*(np.stack(parts) for parts in zip(*plans, strict=True))), alike


# --- whole grids ---------------------------------------------------------------------------------


def evaluate_grid(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    *,
    chunk: int,
    mesh: Mesh | None = None,
    postprocess: Postprocess = lambda batch, values: values,
    label: str = "masks",
) -> dict[str, np.ndarray]:
    """What `postprocess` makes of `task.evaluate`'s values, for every mask and example, by
    `index_B`: `{name: [M, N, ...]}`.

    `chunk` masks are evaluated together on a device; masks next to each other should have much in
    common.  By default the mesh has as many devices along `mask` as there are chunks for.
    """
    starts = range(0, len(masks_MAH), chunk)
    grid = _place_grid(
        task, params, batches, masks_MAH, chunk, mesh or grid_mesh(len(starts)), postprocess
    )
    values = [values for _, values in grid.finished(starts, label, everywhere=True)]
    return {name: np.concatenate([chunk[name] for chunk in values]) for name in values[0]}


def fill_grid(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    store: Store,
    *,
    mesh: Mesh | None = None,
    postprocess: Postprocess = lambda batch, values: values,
    part: tuple[int, int] = (1, 1),
    label: str = "masks",
) -> None:
    """Writes what `evaluate_grid` gives to a store, each chunk as soon as it is finished; what is
    there is not done again.

    part: (i, n) takes each n-th chunk, from the i-th on; the others are left to other jobs, which
    may run at the same time. Of several processes each writes chunks of its own, so all must see
    the store.
    """
    starts = range(0, len(masks_MAH), store.chunk)[part[0] - 1 :: part[1]]
    done_M = agreed(store.done())
    todo = [start for start in starts if not done_M[start : start + store.chunk].all()]
    if todo:
        grid = _place_grid(
            task, params, batches, masks_MAH, store.chunk, mesh or grid_mesh(len(todo)), postprocess
        )
        for start, values in grid.finished(
            todo, label, before=[start for start in starts if start not in todo]
        ):
            store.write(start, values)
    wait_for_all(store.path)


def grid_mesh(chunks: int) -> Mesh:
    """All devices; along `mask` as many as there are chunks for, since a device with masks of its
    own needs no large batch."""
    count = len(jax.devices())
    return device_mesh(
        mask=max(
            size for size in range(1, count + 1) if count % size == 0 and size <= max(chunks, 1)
        )
    )


@dataclasses.dataclass(frozen=True)
class _Grid:
    """A grid with everything in its place."""

    task: Task
    params: Params
    batches: Sequence[Batch]
    placed: Sequence[Batch]
    masks_MAH: np.ndarray
    chunk: int
    mesh: Mesh
    postprocess: Postprocess

    @property
    def examples(self) -> int:
        return int(sum(batch["weight_B"].sum() for batch in self.batches))

    def masks(self, starts: Iterable[int]) -> int:
        """How many masks the chunks from `starts` on have."""
        return sum(len(self.masks_MAH[start : start + self.chunk]) for start in starts)

    def finished(
        self,
        starts: Sequence[int],
        label: str,
        *,
        before: Sequence[int] = (),
        everywhere: bool = False,
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Evaluates the chunks that begin with the masks `starts`, one for each device along `mask`
        at a time.

        Yields (start, `{name: [masks, N, ...]}`) of each chunk; unless `everywhere`, only those
        that this process is to write.
        """
        wide, last = self.mesh.shape["mask"], len(self.batches) - 1
        groups = [starts[i : i + wide] for i in range(0, len(starts), wide)]
        steps = [(group, number) for group in groups for number in range(last + 1)]
        total, done, each = (
            self.masks([*before, *starts]),
            self.masks(before),
            (self.examples, "examples"),
        )
        for group, number in track(
            steps, label, total=total, done=done, unit="masks", size=self._masks_of_step, each=each
        ):
            if number == 0:
                results = self._dispatch(group)
                mine = group if everywhere else group[jax.process_index() :: jax.process_count()]
                values: dict[int, dict[str, np.ndarray]] = {start: {} for start in mine}
            fetched = fetch(results[number])
            for start in mine:
                own = slice(
                    group.index(start) * self.chunk,
                    group.index(start) * self.chunk + self.masks([start]),
                )
                self._keep(
                    values[start],
                    self.batches[number],
                    {name: value[own] for name, value in fetched.items()},
                )
            if number == last:
                yield from values.items()

    def _masks_of_step(self, step: tuple[Sequence[int], int]) -> float:
        """A batch's share of the masks of a group of chunks."""
        group, number = step
        return self.masks(group) * float(self.batches[number]["weight_B"].sum()) / self.examples

    def _dispatch(self, group: Sequence[int]) -> list[dict[str, jax.Array]]:
        """Values of each batch, which the devices are still computing; a group that is too small
        ends with copies."""
        wide, chunk = self.mesh.shape["mask"], self.chunk
        rows = [
            np.arange(start, start + chunk)
            for start in [*group, *[group[-1]] * (wide - len(group))]
        ]
        masks_MAH = self.masks_MAH[np.minimum(np.concatenate(rows), len(self.masks_MAH) - 1)]
        plans, alike = planned(self.task, masks_MAH, self.mesh)
        masks, plans = place((masks_MAH, plans), self.mesh, "mask")
        return [
            evaluate_masks(self.task, self.params, batch, masks, plans, mesh=self.mesh, alike=alike)
            for batch in self.placed
        ]

    def _keep(
        self, values: dict[str, np.ndarray], batch: Batch, new: dict[str, np.ndarray]
    ) -> None:
        """Puts what `postprocess` makes of one batch at its examples' places."""
        real = np.flatnonzero(batch["weight_B"])
        batch = {name: array[real] for name, array in batch.items()}
        for name, value in self.postprocess(
            batch, {name: value[:, real] for name, value in new.items()}
        ).items():
            whole = values.setdefault(
                name, np.zeros((len(value), self.examples, *value.shape[2:]), value.dtype)
            )
            whole[:, batch["index_B"]] = value


def _place_grid(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    chunk: int,
    mesh: Mesh,
    postprocess: Postprocess,
) -> _Grid:
    on_MAH = np.asarray(masks_MAH) != 0
    check_mask(np.any(on_MAH, axis=0), task.present_AH)
    placed = [place_batch(batch, mesh, "data") for batch in batches]
    return _Grid(task, place(params, mesh), batches, placed, on_MAH, chunk, mesh, postprocess)
