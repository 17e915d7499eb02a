"""A task without stages, as a grid sees it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.task import Array, Batch, Evaluated, Gates, Params, Staged, State


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
