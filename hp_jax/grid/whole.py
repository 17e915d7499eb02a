"""Whole grids: every mask on every example, chunk by chunk, in memory or into a store."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from hp_jax.batches import numbered
from hp_jax.descriptors import format_descriptor
from hp_jax.grid.chunks import chunk_size
from hp_jax.grid.evaluate import evaluate_masks, planned
from hp_jax.grid.staged import staged
from hp_jax.heads import as_boolean, check_mask, removed
from hp_jax.progress import track
from hp_jax.sharding import (
    agreed,
    device_mesh,
    fetch,
    place,
    place_batch,
    place_params,
    wait_for_all,
)
from hp_jax.storage.store import Store
from hp_jax.task import Array, Batch, Evaluated, Params, Staged, check_task

log = logging.getLogger("hp_jax")

Postprocess = Callable[[Batch, dict[str, np.ndarray]], dict[str, np.ndarray]]
"""On the host, from a batch and its values `{name: [M, B, ...]}` to what is kept of them, each of
one shape in all batches."""


def as_they_are(batch: Batch, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keeps all values."""
    return values


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is to be evaluated: every mask on every example of a data set."""

    task: Evaluated | Staged
    params: Params
    batches: Sequence[Batch]
    masks_MAH: Array
    """Masks next to each other should have much in common."""
    postprocess: Postprocess = as_they_are
    mesh: Mesh | None = None
    """Default: all devices, as many of them along `mask` as there are chunks for."""
    tensor: int = 1
    """Devices among which the parameters are split, if no mesh says so."""
    label: str = "masks"
    """What the progress is called."""

    def __post_init__(self) -> None:
        """ValueError for a task that is none, and for masks that do not fit it."""
        check_task(self.task)
        on_MAH = as_boolean(self.masks_MAH)
        if on_MAH.ndim != 3 or not len(on_MAH):
            raise ValueError(
                f"expected at least one mask (masks, rows, heads), but the shape is {on_MAH.shape}"
            )
        check_mask(np.any(on_MAH, axis=0), self.task.present_AH)

    def evaluate(self, chunk: int | None = None) -> dict[str, np.ndarray]:
        """What `postprocess` makes of the task's values, by `index_B`: `{name: [M, N, ...]}`.

        `chunk` masks are evaluated together on a device; default: as many as fit its memory.
        """
        chunk = chunk or self.chunk()
        starts = range(0, len(self.masks_MAH), chunk)
        grid = _placed(self, chunk, len(starts))
        values = [values for _, values in grid.finished(starts, everywhere=True)]
        whole = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
        if len(np.unique(grid.masks_MAH, axis=0)) > 1 and all(
            (value == value[:1]).all() for value in whole.values()
        ):
            log.warning(
                "the values are exactly the same under all %d masks: does the model multiply each "
                "head's context by its gate?",
                len(grid.masks_MAH),
            )
        return whole

    def fill(self, store: Store, *, part: tuple[int, int] = (1, 1)) -> None:
        """Writes what `evaluate` gives to a store, each chunk as soon as it is finished; what is
        there is not done again.

        part: (i, n) takes each n-th chunk, from the i-th on; the others are left to other jobs,
        which may run at the same time.  Of several processes each writes chunks of its own, so all
        must see the store.
        """
        starts = range(0, len(self.masks_MAH), store.chunk)[part[0] - 1 :: part[1]]
        done_M = agreed(store.done())
        todo = [start for start in starts if not done_M[start : start + store.chunk].all()]
        if todo:
            grid = _placed(self, store.chunk, len(todo))
            before = [start for start in starts if start not in todo]
            for start, values in grid.finished(todo, before=before):
                store.write(start, values)
        wait_for_all(store.path)

    def chunk(self) -> int:
        """How many masks a device should evaluate together."""
        batches = numbered(self.batches, self.task)
        tensor = self.mesh.shape["tensor"] if self.mesh else self.tensor
        return chunk_size(
            staged(self.task), self.params, batches, len(self.masks_MAH), tensor=tensor
        )


def evaluate_grid(
    task: Evaluated | Staged,
    params: Params,
    batches: Sequence[Batch],
    masks_MAH: Array,
    *,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> dict[str, np.ndarray]:
    """What the task gives of every example under every mask: `{name: [M, N, ...]}`, in memory.

    Examples are in the order of `index_B`.  `chunk` masks are evaluated together on a device;
    default: as many as fit its memory.  (`Grid` has more: postprocessing, a store to fill.)

    ValueError for masks that do not fit the model and for batches that do not number their
    examples.
    """
    return Grid(task, params, batches, masks_MAH, mesh=mesh).evaluate(chunk)


def grid_mesh(chunks: int, tensor: int = 1) -> Mesh:
    """All devices, `tensor` of them along that axis; along `mask` as many as there are chunks for,
    since a device with masks of its own needs no large batch."""
    count = max(1, len(jax.devices()) // tensor)
    sizes = (size for size in range(1, count + 1) if count % size == 0)
    mask = max(size for size in sizes if size <= max(chunks, 1))
    return device_mesh(mask=mask, tensor=tensor)


# --- a grid in its place -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A grid whose arrays are on the devices."""

    grid: Grid
    task: Staged
    params: Params
    batches: Sequence[Batch]
    """On the host."""
    placed: Sequence[Batch]
    masks_MAH: np.ndarray
    chunk: int
    mesh: Mesh

    @functools.cached_property
    def examples(self) -> int:
        """Without padding."""
        return int(sum(np.sum(batch["weight_B"]) for batch in self.batches))

    def masks(self, starts: Iterable[int]) -> int:
        """How many masks the chunks from `starts` on have."""
        return sum(len(self.masks_MAH[start : start + self.chunk]) for start in starts)

    def finished(
        self, starts: Sequence[int], *, before: Sequence[int] = (), everywhere: bool = False
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Evaluates the chunks that begin with the masks `starts`, one for each device along `mask`
        at a time.

        Yields (start, `{name: [masks, N, ...]}`) of each chunk; unless `everywhere`, only those
        that this process is to write.
        """
        wide, last = self.mesh.shape["mask"], len(self.batches) - 1
        groups = [starts[i : i + wide] for i in range(0, len(starts), wide)]
        steps = [(group, number) for group in groups for number in range(last + 1)]
        progress = track(
            steps,
            self.grid.label,
            total=self.masks([*before, *starts]),
            done=self.masks(before),
            unit="masks",
            size=self._masks_of_step,
            each=(self.examples, "examples"),
        )
        for group, number in progress:
            if number == 0:
                results = self._dispatch(group)
                mine = group if everywhere else group[jax.process_index() :: jax.process_count()]
                values: dict[int, dict[str, np.ndarray]] = {start: {} for start in mine}
            fetched = fetch(results[number])
            self._check_finite(group, number, fetched)
            for start in mine:
                first = group.index(start) * self.chunk
                own = slice(first, first + self.masks([start]))
                new = {name: value[own] for name, value in fetched.items()}
                self._keep(values[start], self.batches[number], new)
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
        full = [*group, *[group[-1]] * (wide - len(group))]
        rows = np.concatenate([np.arange(start, start + chunk) for start in full])
        masks_MAH = self.masks_MAH[np.minimum(rows, len(self.masks_MAH) - 1)]
        plans, alike = planned(self.task, masks_MAH, self.mesh)
        masks, plans = place((masks_MAH, plans), self.mesh, "mask")
        evaluate = functools.partial(evaluate_masks, self.task, self.params)
        return [evaluate(batch, masks, plans, mesh=self.mesh, alike=alike) for batch in self.placed]

    def _check_finite(
        self, group: Sequence[int], number: int, values: dict[str, np.ndarray]
    ) -> None:
        """ValueError with the first value of a batch that is not a finite number: nothing is kept
        of its chunk."""
        batch = self.batches[number]
        real = np.flatnonzero(batch["weight_B"])
        for name, value in values.items():
            if not np.issubdtype(value.dtype, np.inexact) or np.isfinite(value[:, real]).all():
                continue
            place, example, *_ = np.argwhere(~np.isfinite(value[:, real]))[0].tolist()
            mask = min(group[place // self.chunk] + place % self.chunk, len(self.masks_MAH) - 1)
            gone = removed(self.masks_MAH[mask], self.task.present_AH, self.task.rows)
            raise ValueError(
                f"the {name} of example {batch['index_B'][real[example]]} (batch {number}) is "
                f"{value[place, real[example]]} under mask {mask} (without "
                f"{format_descriptor(gone)}): expected a finite number"
            )

    def _keep(
        self, values: dict[str, np.ndarray], batch: Batch, new: dict[str, np.ndarray]
    ) -> None:
        """Puts what `postprocess` makes of one batch at its examples' places."""
        real = np.flatnonzero(batch["weight_B"])
        batch = {name: array[real] for name, array in batch.items()}
        new = {name: value[:, real] for name, value in new.items()}
        for name, value in self.grid.postprocess(batch, new).items():
            shape = (len(value), self.examples, *value.shape[2:])
            values.setdefault(name, np.zeros(shape, value.dtype))[:, batch["index_B"]] = value


def _placed(grid: Grid, chunk: int, chunks: int) -> _Placed:
    mesh, batches = grid.mesh or grid_mesh(chunks, grid.tensor), numbered(grid.batches, grid.task)
    return _Placed(
        grid=grid,
        task=staged(grid.task),
        params=place_params(grid.params, mesh),
        batches=batches,
        placed=[place_batch(batch, mesh, "data") for batch in batches],
        masks_MAH=as_boolean(grid.masks_MAH),
        chunk=chunk,
        mesh=mesh,
    )
