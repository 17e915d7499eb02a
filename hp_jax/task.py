"""What importance, grids and training ask of a model.

Letters, in names, einsums and docstrings: B batch, T query position, S key
position, D width, H heads, K head width, F feed-forward width, V vocabulary, C classes, L layers,
A mask rows, M masks in a grid, N examples, O outputs of the linear map, W beam, U states that masks
share, G masks that share one (M = U * G), P parts of a store.  In statistics S is sufficient
statistics, R resamples and J models; in beam search R is masks times sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

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


class Classifier(Task, Protocol):
    """A task of which the linear map predicts labels too; its batches have `label_B`."""

    def log_odds(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The logits of the classes from 1 on, less that of class 0: `[B, C - 1]`, float32,
        differentiable in the gates; dropout off."""


class OfTokens(Task, Protocol):
    """A task whose loss is over tokens, and which can draw others in place of the right ones."""

    def drawn_losses(
        self, params: Params, batch: Batch, gates: Gates, keys_BK: jax.Array
    ) -> jax.Array:
        """The loss of each example, and with each of K keys what it would be if the model had drawn
        every token that it is of by itself, after the right ones: `[B, 1 + K]`, float32,
        differentiable in the gates, through which nothing is drawn; dropout off."""


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


class ModelTask(Staged, Trainable, Protocol):
    """A task of one of the families, which can be made smaller, repaired, priced and timed too.

    Its `context` and `apply_row` take every row, in order, not those of the stages alone.
    """

    @property
    def config(self) -> Any:
        """The model's config (`hp_jax.architecture.ModelConfig`)."""

    @property
    def tables(self) -> Mapping[str, tuple[int, int | None]]:
        """The arrays `[B, ..., T]` of a batch that index an embedding: how many rows it has, and
        the most positions (None: any number).  A task without this is not checked."""

    def residual(self, params: Params, row: int, batch: Batch, state: State) -> jax.Array:
        """What the row's output is added to, given the state before the row: `[B, T_row, D]`."""

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One forward pass, for what it costs."""

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` of `length` tokens (of a pair: and `target` on the other side).

        Token ids are int32 with two axes, token types too but with `types` in their name; numbers
        of tokens have `length` in their name.
        """


# --- at the border -------------------------------------------------------------------------------


def check_task(task: Task) -> None:
    """ValueError for a task that is not hashable, or whose rows are not those of its mask."""
    try:
        hash(task)
    except TypeError as error:
        raise ValueError(
            "a task must be hashable, such as a frozen dataclass of hashable parts, but hash(task) "
            f"says: {error}"
        ) from error
    shape = np.shape(task.present_AH)
    if len(shape) != 2 or shape[0] != len(task.rows):
        raise ValueError(
            f"the task has {len(task.rows)} rows ({', '.join(task.rows)}), but its mask present_AH "
            f"has shape {shape} (rows, heads)"
        )


def loss_of_each(task: Task, params: Params, batch: Batch, gates: Gates) -> jax.Array:
    """The task's loss of each example `[B]`; ValueError for another shape, or a batch without
    weights."""
    if "weight_B" not in batch:
        raise ValueError(
            f"expected a batch with weight_B (1 real, 0 padding), as make_batches makes it, but it "
            f"has {', '.join(batch)}"
        )
    loss_B, examples = task.loss(params, batch, gates), len(batch["weight_B"])
    if np.shape(loss_B) != (examples,):
        raise ValueError(
            f"the loss has shape {np.shape(loss_B)}, but one number for each of the {examples} "
            "examples of the batch was expected"
        )
    return loss_B
