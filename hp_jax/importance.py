"""Head importance: the gradient of the loss with respect to the gates, exactly, in one forward and
backward pass a batch.

`I_h = E_x |dL(x) / d gate_h| = E_x |Att_h(x) . dL(x) / dAtt_h(x)|` (section 4.1 of the paper).  A
gate is given an entry for every example and query position, so that the gradient of one summed loss
holds every token's own; the parameters get none.

An `Estimator` says what becomes of these gradients: which sums are kept of a batch, and which score
of a head they make.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.batches import numbered, weighted
from hp_jax.config import Measure, Reduction
from hp_jax.descriptors import format_descriptor
from hp_jax.heads import as_boolean, as_mask_row, check_gates, gates
from hp_jax.sharding import device_mesh, fetch, place_batch, place_params
from hp_jax.task import Array, Batch, Params, Task, check_task, loss_of_each

Sums = dict[str, np.ndarray]
"""What an estimator keeps of a data set, float64: arrays that are added up over batches."""


class Gradients(NamedTuple):
    """One batch's gate gradients in loss units (nats), 0 at padding, heads at their places in the
    mask."""

    token: tuple[jax.Array, ...]
    """Each query position's own: for each row `[B, T_row, H]`."""
    queries: tuple[jax.Array, ...] | None
    """Which positions are real `[B, T_row]`; None: the gates have no positions, and T is 1."""
    weight_B: Array

    @property
    def example_BAH(self) -> jax.Array:
        """Each example's, summed over positions."""
        return jnp.stack([gradient_BTH.sum(1) for gradient_BTH in self.token], axis=1)


class Estimator(Protocol):
    """From gate gradients to scores; frozen and hashable (a static argument of `jax.jit`)."""

    def sums(self, gradients: Gradients) -> dict[str, jax.Array]:
        """What is kept of a batch; jittable, and additive over batches."""

    def scores(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each head `[A, H]` from the sums of a data set; higher is kept longer."""


@dataclasses.dataclass(frozen=True)
class MeanGradient:
    """The mean of what `measure` makes of the gradient of each token, example or batch.

    Importance of Michel et al. is `abs`: per `token` in the authors' code, per `example` in the
    formula read literally, per `batch` in run_bertology, which depends on the batch size (the mean
    is over examples).  `signed` is minus the first-order change of the loss when a head goes.
    """

    per: Reduction = "token"
    measure: Measure = "abs"

    def sums(self, gradients: Gradients) -> dict[str, jax.Array]:
        """`total` `[A, H]`, and the number of its terms `count` `[A]`."""
        if self.per == "token" and gradients.queries is None:
            raise ValueError(
                "this task does not say its query positions, so importance can be per example or "
                "per batch, but not per token: give as_task queries, or choose "
                'MeanGradient(per="example")'
            )
        examples = jnp.sum(gradients.weight_B)
        if self.per == "token":
            totals = [self._of(gradient_BTH).sum((0, 1)) for gradient_BTH in gradients.token]
            counts = [jnp.sum(real_BT) for real_BT in gradients.queries or ()]
        else:
            gradient_BAH, whole = gradients.example_BAH, self.per == "batch"
            total_AH = self._of(gradient_BAH.sum(0)) if whole else self._of(gradient_BAH).sum(0)
            totals, counts = list(total_AH), [examples] * len(total_AH)
        return {"total": jnp.stack(totals), "count": jnp.stack(counts)}

    def scores(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The means; 0 where nothing was counted."""
        return sums["total"] / np.maximum(sums["count"], 1)[:, None]

    def _of(self, x: jax.Array) -> jax.Array:
        return {"abs": jnp.abs, "signed": lambda x: x, "squared": jnp.square}[self.measure](x)


@dataclasses.dataclass(frozen=True)
class SignedCurvature:
    """`-mean G + c mean G^2` of each example's gradient G: the loss that a head's removal adds, to
    second order with G^2 for the second derivative, in nats.

    c is 1/2 in Taylor's formula with the empirical Fisher matrix's diagonal; where G is a sum over
    many tokens that is too much, and a c fitted on some heads that were measured does better.  0:
    the first order alone.
    """

    c: float = 0.5

    def sums(self, gradients: Gradients) -> dict[str, jax.Array]:
        """`first` and `second` `[A, H]`, the sums of G and of G^2, and `examples`."""
        gradient_BAH = gradients.example_BAH
        return {
            "first": gradient_BAH.sum(0),
            "second": jnp.square(gradient_BAH).sum(0),
            "examples": jnp.sum(gradients.weight_B),
        }

    def scores(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The predicted rises of the mean loss."""
        rise_AH: np.ndarray = self.c * sums["second"] - sums["first"]
        return rise_AH / np.maximum(sums["examples"], 1)


PAPER = MeanGradient()
"""The authors' importance."""


@functools.partial(jax.jit, static_argnames="task")
def gate_gradients(
    task: Task, params: Params, batch: Batch, gate_AH: Array
) -> tuple[jax.Array, ...]:
    """The summed loss's gradient in every gate: for each row `[B, T_row, H_row]`, 0 at padding;
    loss units (nats).

    Taken at the gates `gate_AH`, such as a mask.  The gradient of a gate that is off is not 0: it
    says what turning it on would do.
    """
    at = tuple(
        jnp.broadcast_to(gate_H, (*real_BT.shape, *gate_H.shape))
        for gate_H, real_BT in zip(
            gates(gate_AH, task.present_AH), _positions(task, batch), strict=True
        )
    )

    def loss(at: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.sum(loss_of_each(task, params, batch, at) * batch["weight_B"])

    return jax.grad(loss)(at)


def _positions(task: Task, batch: Batch) -> Sequence[Array]:
    """Real query positions `[B, T_row]` of each row; T is 1 where they are not known."""
    queries = task.queries(batch)
    if queries is None:
        return [jnp.ones((len(next(iter(batch.values()))), 1))] * len(task.rows)
    if len(queries) != len(task.rows):
        raise ValueError(
            f"there are query positions of {len(queries)} rows, but the mask has "
            f"{len(task.rows)} rows"
        )
    return queries


def _gradients(task: Task, params: Params, batch: Batch, gate_AH: Array) -> Gradients:
    token = tuple(
        as_mask_row(gradient_BTH, present_H)
        for gradient_BTH, present_H in zip(
            gate_gradients(task, params, batch, gate_AH), task.present_AH, strict=True
        )
    )
    return Gradients(token, task.queries(batch), batch["weight_B"])


@functools.partial(jax.jit, static_argnames=("task", "estimator"))
def importance_sums(
    task: Task, params: Params, batch: Batch, gate_AH: Array, *, estimator: Estimator
) -> dict[str, jax.Array]:
    """What `estimator` keeps of one batch."""
    return estimator.sums(_gradients(task, params, batch, gate_AH))


@functools.partial(jax.jit, static_argnames="task")
def _example_gradients(task: Task, params: Params, batch: Batch, gate_AH: Array) -> jax.Array:
    return _gradients(task, params, batch, gate_AH).example_BAH


def sum_importance(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    estimator: Estimator = PAPER,
    mesh: Mesh | None = None,
) -> Sums:
    """What `estimator` keeps of all batches, added up in float64 on the host; the batches are
    spread over the mesh's devices.

    Batches need no `index_B`, so they may be a part of a data set.
    """
    check_task(task)
    gate_AH, batches = check_gates(gate_AH, task.present_AH), weighted(batches, task)
    mesh = mesh or device_mesh()
    params = place_params(params, mesh)
    placed = [place_batch(batch, mesh) for batch in batches]
    fetched = fetch(
        [importance_sums(task, params, batch, gate_AH, estimator=estimator) for batch in placed]
    )
    for number, part in enumerate(fetched):
        if not all(np.isfinite(sums).all() for sums in part.values()):
            gradient_BAH = fetch(_example_gradients(task, params, placed[number], gate_AH))
            _check_finite(task, gradient_BAH, number, batches[number])
            raise ValueError(f"the sums of the gradients of batch {number} are not finite")
    return {
        name: np.sum([np.asarray(part[name], np.float64) for part in fetched], axis=0)
        for name in fetched[0]
    }


def head_importance(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    estimator: Estimator = PAPER,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The importance `[A, H]` of each head at the gates `gate_AH`, such as a mask.

    Dead heads have a score too (see `gate_gradients`); `keep_top` and `normalize_rows` leave them
    out.  ValueError if something is not finite (and says where), or if the loss does not depend on
    the gates.
    """
    sums = sum_importance(task, params, batches, gate_AH, estimator=estimator, mesh=mesh)
    score_AH = estimator.scores(sums)
    if not score_AH.any():
        raise ValueError(
            "the score of every head is exactly 0, so the loss does not depend on the gates: the "
            "model must multiply each head's context by gate[..., None] before the output "
            "projection"
        )
    return score_AH


def example_gradients(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The gate gradients of every example, summed over its positions, in the order of `index_B`:
    `[N, A, H]`, float32."""
    check_task(task)
    gate_AH, batches = check_gates(gate_AH, task.present_AH), numbered(batches, task)
    mesh = mesh or device_mesh()
    params = place_params(params, mesh)
    count = int(sum(np.sum(batch["weight_B"]) for batch in batches))
    gradient_NAH = np.zeros((count, *gate_AH.shape), np.float32)
    for number, batch in enumerate(batches):
        gradient_BAH = fetch(_example_gradients(task, params, place_batch(batch, mesh), gate_AH))
        _check_finite(task, gradient_BAH, number, batch)
        real = np.flatnonzero(batch["weight_B"])
        gradient_NAH[np.asarray(batch["index_B"])[real]] = gradient_BAH[real]
    return gradient_NAH


def _check_finite(task: Task, gradient_BAH: np.ndarray, number: int, batch: Batch) -> None:
    """ValueError with the first example and head whose gradient is not finite."""
    real = np.flatnonzero(batch["weight_B"])
    bad = np.argwhere(~np.isfinite(gradient_BAH[real]))
    if len(bad):
        place, row, head = bad[0].tolist()
        example = f", the example {batch['index_B'][real[place]]}" if "index_B" in batch else ""
        raise ValueError(
            f"the gradient of the loss in the gate of {format_descriptor({task.rows[row]: [head]})}"
            f" is {gradient_BAH[real[place], row, head]} for row {real[place]} of batch "
            f"{number}{example}: expected finite numbers"
        )


def normalize_rows(score_AH: Array, mask_AH: Array, *, norm: float = 2.0) -> np.ndarray:
    """Scores divided by the norm of their row's living heads, as the authors do with l2; 0 for dead
    heads and all-zero rows.

    norm: its order, such as 1, 2 or infinity; 0 leaves the scores as they are.
    """
    score_AH = np.where(as_boolean(mask_AH), np.asarray(score_AH, np.float64), 0.0)
    if norm == 0:
        return score_AH
    norm_A = np.linalg.norm(score_AH, ord=norm, axis=1)
    return score_AH / np.where(norm_A > 0, norm_A, 1.0)[:, None]


def stored_scores(
    parts: Mapping[str, np.ndarray],
    mask_AH: Array,
    *,
    norm: float,
    estimator: Estimator = PAPER,
) -> tuple[np.ndarray, np.ndarray]:
    """From an estimator's sums of P parts of a data set `{name: [P, ...]}`: each head's score
    `[A, H]`, and the same as the pruning orders take it, by `normalize_rows`.  The default serves
    every `MeanGradient`."""
    score_AH = estimator.scores({name: sums.sum(0) for name, sums in parts.items()})
    return score_AH, normalize_rows(score_AH, mask_AH, norm=norm)
