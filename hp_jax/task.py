"""What importance, grids and training ask of a model; and a plain function as such a model.

Letters, one meaning each, in names, einsums and docstrings: B batch, T query position, S key
position, D width, H heads, K head width, F feed-forward width, V vocabulary, C classes, L layers,
A mask rows, M masks in a grid, N examples, W beam, U states that masks share, G masks that share
one (M = U * G).  R is resamples in statistics, and masks times sentences in beam search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.heads import as_boolean

Array = jax.Array | np.ndarray
Params = Any
State = Any
"""Arrays with leading axis B."""
Gates = Sequence[Array]
"""An array a row, each broadcastable to `[B, T_row, H_row]`; the rows of a mask `[A, H]` will do.
A model multiplies each head's context by its gate, before the output projection."""
Batch = Mapping[str, Array]
"""Arrays with leading axis B, among them `weight_B` (1 real, 0 padding) and `index_B` (place in
the data set)."""


class Task(Protocol):
    """One model with its loss: enough for importance and calibration.

    Frozen and hashable, so that it can be a static argument of `jax.jit`.
    """

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the mask's rows in the order in which the model reads them, e.g. `enc.0`."""

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has, as a mask: `[A, H]`, bool; columns are numbered as before
        any head was removed."""

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Loss of each example `[B]`, float32, differentiable in the gates; dropout off."""

    def queries(self, batch: Batch) -> tuple[jax.Array, ...] | None:
        """For each row, which query positions are real `[B, T_row]`; for the shape and the counts
        of the gates' gradients.  None: the gates have no axis of positions."""


class Evaluated(Task, Protocol):
    """A task of which a grid keeps more than the loss, one mask at a time."""

    def values(self, params: Params, batch: Batch, gates: Gates) -> dict[str, jax.Array]:
        """What is kept of each example `{name: [B, ...]}`: its loss and what the metric needs."""


class Staged(Task, Protocol):
    """A model as a chain of stages, so that a grid shares what masks have in common.

    `start` gives the state before the first row; for each of the first `stages` rows `context` and
    `apply_row` give the state after it; `evaluate` takes the last state.  Masks that agree in their
    first rows share what comes before they differ.
    """

    @property
    def stages(self) -> int:
        """How many of the first rows are computed one by one."""

    def start(self, params: Params, batch: Batch) -> State:
        """The state before the first row."""

    def context(self, params: Params, row: int, batch: Batch, state: State) -> Any:
        """The contexts of the row's heads: all of the row that does not depend on its gates."""

    def apply_row(
        self, params: Params, row: int, batch: Batch, state: State, context: Any, gate: Array
    ) -> State:
        """The state after the row, from the one before it, its heads' contexts, and their gates
        `[H_row]`."""

    def evaluate(
        self, params: Params, batch: Batch, states: State, gates: Gates
    ) -> dict[str, jax.Array]:
        """What is kept of each example under each of M masks `{name: [M, B, ...]}`: its loss and
        what the metric needs.

        Each row's gate is `[M, H_row]`.  `states` are U states after the stages `[U, B, ...]`, each
        of which serves M / U successive masks; the rows of the stages are in them already.  Dropout
        off.
        """


class Trainable(Task, Protocol):
    """A task that can be trained."""

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Loss of each example with label smoothing, and the number of predictions that it is the
        sum of, both `[B]`."""


# --- a plain function as a task ------------------------------------------------------------------

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
        """Loss of each example `[B]`; ValueError for another shape."""
        loss_B = self.loss_fn(params, batch, _with_axes(gates))
        if loss_B.shape != (len(batch["weight_B"]),):
            raise ValueError(
                f"the loss has shape {loss_B.shape}, but one number for each of the "
                f"{len(batch['weight_B'])} examples of the batch was expected"
            )
        return loss_B

    def queries(self, batch: Batch) -> tuple[jax.Array, ...] | None:
        """Real query positions, as far as they are known; ValueError for another number of rows."""
        if self.queries_fn is None:
            return None
        queries = tuple(self.queries_fn(batch))
        if len(queries) != len(self.rows):
            raise ValueError(
                f"there are query positions of {len(queries)} rows, but the mask has "
                f"{len(self.rows)} rows"
            )
        return queries

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
    for a mask or names that do not fit.
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
    return FunctionTask(loss, tuple(map(tuple, present_AH.tolist())), names, queries, values)


@dataclasses.dataclass(frozen=True)
class Unstaged:
    """A task without stages as a chain of none: each mask is a pass of its own."""

    task: Evaluated
    stages = 0

    @property
    def rows(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.rows

    @property
    def present_AH(self) -> np.ndarray:
        """The task's."""
        return self.task.present_AH

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The task's."""
        return self.task.loss(params, batch, gates)

    def queries(self, batch: Batch) -> tuple[jax.Array, ...] | None:
        """The task's."""
        return self.task.queries(batch)

    def start(self, params: Params, batch: Batch) -> State:
        """Nothing."""
        return ()

    def context(self, params: Params, row: int, batch: Batch, state: State) -> Any:
        """There is no stage that would ask."""
        raise AssertionError("a task without stages has no contexts")

    def apply_row(
        self, params: Params, row: int, batch: Batch, state: State, context: Any, gate: Array
    ) -> State:
        """There is no stage that would ask."""
        raise AssertionError("a task without stages has no rows to apply")

    def evaluate(
        self, params: Params, batch: Batch, states: State, gates: Gates
    ) -> dict[str, jax.Array]:
        """The task's values under one mask after another."""
        gates = tuple(jnp.asarray(gate) for gate in gates)
        return jax.lax.map(lambda one: self.task.values(params, batch, one), gates)


def staged(task: Evaluated | Staged) -> Staged:
    """The task as a chain of stages, of none if it has no stages of its own."""
    return task if hasattr(task, "stages") else Unstaged(task)  # type: ignore[return-value]


# --- batches -------------------------------------------------------------------------------------


def make_batches(arrays: Mapping[str, Array], size: int) -> list[dict[str, np.ndarray]]:
    """A data set as batches of `size` examples, in order; the last is filled up with padding.

    arrays: `{name: [N, ...]}`.  Each batch has `[size, ...]` of them, and `weight_B` and `index_B`.
    ValueError for arrays of different lengths or a size that is not positive.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or size < 1:
        raise ValueError(
            f"expected arrays of one length and a positive size, but the lengths are {lengths} and "
            f"the size is {size}"
        )
    (count,) = set(lengths.values())
    made = []
    for start in range(0, count, size):
        index_B = np.minimum(np.arange(start, start + size), count - 1).astype(np.int32)
        weight_B = (np.arange(start, start + size) < count).astype(np.float32)
        batch = {name: np.asarray(array)[index_B] for name, array in arrays.items()}
        made.append(batch | {"weight_B": weight_B, "index_B": index_B})
    return made


def weighted(batches: Iterable[Batch]) -> list[Batch]:
    """The batches with `weight_B` (ones) where they lack it; ValueError if there is none."""
    made: list[Batch] = [
        {"weight_B": np.ones(len(next(iter(batch.values()))), np.float32), **batch}
        for batch in batches
    ]
    if not made:
        raise ValueError("expected at least one batch, but there is none")
    return made


def numbered(batches: Iterable[Batch]) -> list[Batch]:
    """The batches of a whole data set, with `weight_B` (ones) and `index_B` (as they come) where
    they lack them.

    ValueError if there is none, or if the real examples' `index_B` are not 0 to N - 1, once each.
    """
    begun, whole = 0, list[Batch]()
    for given in weighted(batches):
        batch = dict(given)
        if "index_B" not in batch:
            real_B = np.asarray(batch["weight_B"]) > 0
            places_B = begun + np.cumsum(real_B) - 1
            batch["index_B"] = np.where(real_B, places_B, 0).astype(np.int32)
        begun += int(np.sum(np.asarray(batch["weight_B"]) > 0))
        whole.append(batch)
    index_N = np.concatenate(
        [np.asarray(batch["index_B"])[np.asarray(batch["weight_B"]) > 0] for batch in whole]
    )
    if not np.array_equal(np.sort(index_N), np.arange(len(index_N))):
        raise ValueError(
            f"index_B must number the {len(index_N)} examples of all batches from 0, once each, "
            f"but it runs from {index_N.min()} to {index_N.max()} with {len(np.unique(index_N))} "
            "different numbers"
        )
    return whole
