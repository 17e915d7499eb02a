"""A plain function as a task: importance, grids, pruning and statistics of anybody's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.heads import as_boolean
from hp_jax.task import Array, Batch, Gates, Params, check_task

LossFn = Callable[[Params, Batch, Gates], jax.Array]
QueriesFn = Callable[[Batch], tuple[jax.Array, ...]]
ValuesFn = Callable[[Params, Batch, Gates], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class FunctionTask:
    """Somebody's model, known by functions; `as_task` makes one."""

    loss_fn: LossFn
    present: tuple[tuple[bool, ...], ...]
    rows: tuple[str, ...]
    queries_fn: QueriesFn | None
    values_fn: ValuesFn | None

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`."""
        return np.array(self.present)

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Loss of each example `[B]`."""
        return self.loss_fn(params, batch, _with_axes(gates))

    def queries(self, batch: Batch) -> tuple[jax.Array, ...] | None:
        """Real query positions, as far as they are known."""
        return None if self.queries_fn is None else tuple(self.queries_fn(batch))

    def values(self, params: Params, batch: Batch, gates: Gates) -> dict[str, jax.Array]:
        """What a grid keeps of each example: the loss, if nothing else was said."""
        if self.values_fn is None:
            return {"loss": self.loss(params, batch, gates)}
        return self.values_fn(params, batch, _with_axes(gates))


def _with_axes(gates: Gates) -> tuple[jax.Array, ...]:
    """Each gate with three axes, those of examples and positions too."""
    arrays = map(jnp.asarray, gates)
    return tuple(gate if gate.ndim == 3 else gate[None, None] for gate in arrays)


def as_task(
    loss: LossFn,
    mask_AH: Array,
    *,
    rows: Sequence[str] = (),
    queries: QueriesFn | None = None,
    values: ValuesFn | None = None,
) -> FunctionTask:
    """A plain function as a task: for importance, grids, pruning and statistics of any model.

    loss: `loss(params, batch, gates) -> [B]`, jittable; it multiplies the contexts
        `[B, T, H_row, K]` of each row's heads by `gate[..., None]` before the output projection.
        Gates have three axes, `[B, T, H_row]`, of which the first two may be of size 1.
    mask_AH: the heads that the model has `[A, H]`.
    rows: names of the mask's rows; default `row.0`, `row.1`, ...
    queries: `queries(batch)` gives for each row which positions are real `[B, T_row]` (1 or 0);
        without it importance is per example or per batch, not per token.
    values: `values(params, batch, gates) -> {name: [B, ...]}`, what a grid keeps; default the loss.

    The same functions and mask make an equal task, for which nothing is compiled again.  ValueError
    for a mask or names that do not fit, and for functions that are not hashable.
    """
    present_AH = as_boolean(mask_AH)
    if present_AH.ndim != 2 or not present_AH.any():
        raise ValueError(
            f"expected a mask (rows, heads) with at least one head, but it has shape "
            f"{present_AH.shape} and {int(present_AH.sum())} heads"
        )
    names = tuple(rows) or tuple(f"row.{row}" for row in range(len(present_AH)))
    if len(names) != len(present_AH) or len(set(names)) < len(names):
        raise ValueError(
            f"expected {len(present_AH)} different names, one for each row of the mask, but got "
            f"{names}"
        )
    task = FunctionTask(loss, tuple(map(tuple, present_AH.tolist())), names, queries, values)
    check_task(task)
    return task
