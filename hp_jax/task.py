"""What importance, ablation and pruning know of a model: its head rows, a loss and a metric per example.

Letters, one meaning each, in names, einsums and docstrings: B batch, T query position, S key position, D width, H heads,
K head width, F feed-forward width, V vocabulary, C classes, A mask rows, M masks in a grid, N examples, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

Array = jax.Array | np.ndarray
Params = Any
Batch = Mapping[str, Array]
"""Arrays with leading axis B, always with `weight_B` (1 real, 0 padding) and `index_B` (place in the split)."""


class Task(Protocol):
    """One model with its loss and metric; frozen and hashable, so that it can be a static argument of `jax.jit`.

    `gates` is a sequence of A arrays, one a row, each broadcastable to `[B, T_row, H_row]`; the rows of a mask `[A, H]`
    will do.
    """

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the mask's rows in the order in which the model reads them, e.g. `enc.0`."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of heads of each row."""

    def loss(self, params: Params, batch: Batch, gates: Sequence[Array]) -> jax.Array:
        """Loss of each example `[B]`, float32, differentiable in the gates; dropout off."""

    def evaluate(self, params: Params, batch: Batch, gates: Sequence[Array]) -> dict[str, jax.Array]:
        """What is kept of each example `{name: [B]}`: its loss and what the metric needs; dropout off."""

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """For each row, which query positions are real `[B, T_row]`; for the shape and the counts of the gates' gradients."""

    def statistics(self, values: Mapping[str, np.ndarray], label_N: np.ndarray) -> np.ndarray:
        """The metric's sufficient statistics of each example `[..., N, S]`, from stored values `{name: [..., N]}`."""

    def score(self, sums: np.ndarray) -> np.ndarray:
        """The metric `[...]` from statistics summed over examples `[..., S]`; larger is better."""
