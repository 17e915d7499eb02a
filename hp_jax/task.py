"""What importance, ablation, pruning and training know of a model: its head rows and what it gives
for each example.

Letters, one meaning each, in names, einsums and docstrings: B batch, T query position, S key
position, D width, H heads, K head width, F feed-forward width, V vocabulary, C classes, L layers, A
mask rows, M masks in a grid, N examples, W beam, U states that masks share, G masks that share one
(M = U * G).  R is resamples in statistics, and masks times sentences in beam search.
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
Batch = Mapping[str, Array]
"""Arrays with leading axis B, always with `weight_B` (1 real, 0 padding) and `index_B` (place in
the split)."""


class Task(Protocol):
    """One model with its loss; frozen and hashable, so that it can be a static argument of
    `jax.jit`.

    `gates` is a sequence of A arrays, one a row, each broadcastable to `[B, T_row, H_row]`; the
    rows of a mask `[A, H]` will do.

    For grids the model is a chain: `start` gives the state before the first row; for each of the
    first `stages` rows `context` and `apply_row` give the state after it; `evaluate` takes the last
    state.  Masks that agree in their first rows share what comes before they differ.  A task may
    have no stages: then `evaluate` does everything.
    """

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the mask's rows in the order in which the model reads them, e.g. `enc.0`."""

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has, as a mask: `[A, H]`, bool; columns are numbered as before
        any head was removed."""

    def loss(self, params: Params, batch: Batch, gates: Sequence[Array]) -> jax.Array:
        """Loss of each example `[B]`, float32, differentiable in the gates; dropout off."""

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Sequence[Array],
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Loss of each example with label smoothing, and the number of predictions that it is the
        sum of, both `[B]`."""

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """For each row, which query positions are real `[B, T_row]`; for the shape and the counts
        of the gates' gradients."""

    @property
    def stages(self) -> int:
        """How many of the first rows are computed one by one."""

    def start(self, params: Params, batch: Batch) -> State:
        """The state before the first row."""

    def context(self, params: Params, row: int, batch: Batch, state: State) -> Any:
        """What the row's heads see: all of the row that does not depend on its gates."""

    def apply_row(
        self, params: Params, row: int, batch: Batch, state: State, context: Any, gate: Array
    ) -> State:
        """The state after the row, from the one before it, what its heads see there, and their
        gates `[H_row]`."""

    def evaluate(
        self, params: Params, batch: Batch, states: State, gates: Sequence[Array]
    ) -> dict[str, jax.Array]:
        """What is kept of each example under each of M masks `{name: [M, B, ...]}`: its loss and
        what the metric needs.

        Each row's gate is `[M, H_row]`.  `states` are U states after the stages `[U, B, ...]`, each
        of which serves M / U successive masks; the rows of the stages are in them already.  Dropout
        off.
        """
