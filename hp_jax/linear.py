"""The linear map: what a model gives of each example, to first order in its gates.

One forward pass and one backward pass an output (a classifier of C classes has C - 1, every other
task its loss) give the derivatives in all gates at once, and so a prediction for any mask: near the
gates where they were taken a good one, far from them a worse one (Taylor's first term).  What a
prediction is worth is seen where a grid has measured the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.batches import numbered
from hp_jax.heads import as_mask_row, check_gates, gates, sum_groups
from hp_jax.sharding import device_mesh, fetch, place_batch, place_params
from hp_jax.task import (
    Array,
    Batch,
    Classifier,
    Gates,
    OfTokens,
    Params,
    Task,
    check_task,
    loss_of_each,
)


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """Outputs of N examples and their derivatives in every gate, taken at the gates `gate_AH`."""

    output_NO: np.ndarray
    """Of a classifier the log-odds of the classes from 1 on against class 0, else the loss in nats;
    float32."""
    slope_NOAH: np.ndarray
    """Their derivatives, float32; also in gates that are off, where they say what turning a head on
    would do."""
    gate_AH: np.ndarray
    label_N: np.ndarray | None = None
    """The classes that are right; None: outputs are losses."""
    drawn_NKAH: np.ndarray | None = None
    """The derivatives of each example's loss where the model has drawn every label itself, K times,
    float32; None: nothing was drawn."""

    def outputs(self, masks_MAH: Array) -> np.ndarray:
        """The outputs predicted under each mask, or other gates, `[M, N, O]`."""
        step_MG = (np.asarray(masks_MAH, np.float32) - self.gate_AH).reshape(len(masks_MAH), -1)
        slope_NOG = self.slope_NOAH.reshape(*self.output_NO.shape, -1)
        predicted: np.ndarray = self.output_NO + np.einsum(
            "mg,nog->mno", step_MG, slope_NOG, optimize=True
        )
        return predicted

    def values(self, masks_MAH: Array) -> dict[str, np.ndarray]:
        """What a grid would keep of each example under each mask `[M, N]`: `loss`, and of a
        classifier `prediction`, `confidence` and `logit_difference`, of the right class's logit
        from the best other's."""
        output_MNO = self.outputs(masks_MAH)
        if self.label_N is None:
            return {"loss": output_MNO[..., 0]}
        log_MNC = _log_softmax(output_MNO)
        label_1N1, right_1NC = self.label_N[None, :, None], self._right_NC[None] == 1
        other_MN = np.where(right_1NC, -np.inf, log_MNC).max(-1)
        right_MN = np.take_along_axis(log_MNC, label_1N1, -1)[..., 0]
        return {
            "logit_difference": right_MN - other_MN,
            "loss": -right_MN,
            "prediction": log_MNC.argmax(-1).astype(np.int32),
            "confidence": np.exp(log_MNC.max(-1)),
        }

    def risk(self, masks_MAH: Array) -> np.ndarray:
        """How far some mask moves each example of a classifier towards another label, `[N]`: the
        largest predicted change of the margin between the label that the gates' model gives and
        another, over that margin; above 1 a label is predicted to change."""
        output_NC = np.pad(self.output_NO, ((0, 0), (1, 0)))
        label_N1 = output_NC.argmax(1)[:, None]
        margin_NC = np.take_along_axis(output_NC, label_N1, 1) - output_NC
        largest_N = np.zeros(len(output_NC))
        for mask_AH in np.asarray(masks_MAH):
            moved_NC = np.pad(self.outputs(mask_AH[None])[0], ((0, 0), (1, 0)))
            moved_NC = np.take_along_axis(moved_NC, label_N1, 1) - moved_NC
            change_NC = np.abs(moved_NC - margin_NC)
            share_NC = np.divide(
                change_NC, margin_NC, out=np.zeros_like(change_NC), where=margin_NC > 0
            )
            largest_N = np.maximum(largest_N, share_NC.max(1))
        return largest_N

    def by_group(self, sizes: Sequence[int]) -> LinearMap:
        """The map of groups of query heads in place of heads, `[A, G]` of each `[A, H]`: of a
        factor of all gates of a group that are on, 1 here and 0 without them.

        sizes: as in `heads.groups_off`; 1 for each row: heads as they are.
        """

        def summed(slope_AH: np.ndarray) -> np.ndarray:
            return sum_groups(self.gate_AH * slope_AH, sizes)

        return dataclasses.replace(
            self,
            slope_NOAH=summed(self.slope_NOAH),
            gate_AH=(sum_groups(self.gate_AH != 0, sizes)).astype(np.float32),
            drawn_NKAH=None if self.drawn_NKAH is None else summed(self.drawn_NKAH),
        )

    def probabilities(self) -> np.ndarray:
        """A classifier's probability of each class `[N, C]` at the gates `gate_AH`."""
        share_NC: np.ndarray = np.exp(_log_softmax(self.output_NO))
        return share_NC

    def gradients(self) -> np.ndarray:
        """The derivative of each example's loss in every gate at the gates `gate_AH`, `[N, A, H]`,
        by the chain rule."""
        if self.label_N is None:
            return self.slope_NOAH[:, 0]
        error_NO = self.probabilities()[:, 1:] - self._right_NC[:, 1:]
        gradient_NAH: np.ndarray = np.einsum("no,noah->nah", error_NO, self.slope_NOAH)
        return gradient_NAH

    def without(self, left_AH: Array, target_NC: np.ndarray | None = None) -> np.ndarray:
        """The mean loss predicted without each head, when those that `left_AH` has off are off too:
        `[A, H]`, nats; for a head that is off already, that of `left_AH`.

        target_NC: a classifier's probabilities of the classes in place of the right labels.  With
        the full model's the loss is the divergence (KL) from it, up to a constant, and needs no
        labels.  ValueError if there is a target for a map of losses.
        """
        left_AH = np.asarray(left_AH, np.float32)
        change_NOAH = left_AH * self.slope_NOAH
        without_NOAH = self.outputs(left_AH[None])[0][..., None, None] - change_NOAH
        if self.label_N is None and target_NC is None:
            loss_AH: np.ndarray = without_NOAH[:, 0].mean(0, dtype=np.float64)
            return loss_AH
        if self.label_N is None:
            raise ValueError(
                "probabilities of classes were given, but this is a map of losses: only a "
                "classifier, a task with log_odds, has a divergence from the full model"
            )
        target_NO = (self._right_NC if target_NC is None else target_NC)[:, 1:, None, None]
        norm_NAH = np.logaddexp.reduce(without_NOAH, axis=1, initial=0.0)
        loss_NAH = norm_NAH - (target_NO * without_NOAH).sum(1)
        return loss_NAH.mean(0, dtype=np.float64)

    @property
    def _right_NC(self) -> np.ndarray:
        """1 at the right class."""
        return np.eye(self.output_NO.shape[1] + 1, dtype=np.float32)[self.label_N]


def _log_softmax(output: np.ndarray) -> np.ndarray:
    """Log-probabilities `[..., C]` from log-odds against class 0 `[..., C - 1]`."""
    logit = np.concatenate([np.zeros_like(output[..., :1]), output], -1)
    log: np.ndarray = logit - np.logaddexp.reduce(logit, axis=-1, keepdims=True)
    return log


def linear_map(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    draws: int = 0,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> LinearMap:
    """The linear map of all examples, in the order of `index_B`, at the gates `gate_AH`, such as a
    mask; each batch is split over the mesh's devices.

    A task with `log_odds` (`hp_jax.task.Classifier`) is mapped by these, any other by its loss.
    draws: how often the model draws labels besides, of a task of tokens (`hp_jax.task.OfTokens`);
    each takes one backward pass more.  The seed, the example's place and the token's decide which.
    ValueError for gates and batches that do not fit, for draws of another task, and for derivatives
    that are not finite.
    """
    check_task(task)
    if draws and not is_of_tokens(task):
        raise ValueError(
            f"draws is {draws}, but {type(task).__name__} has no drawn_losses: expected a task "
            "whose loss is over tokens (of a classifier every label is known, and none is drawn)"
        )
    gate_AH, batches = check_gates(gate_AH, task.present_AH), numbered(batches, task)
    mesh = mesh or device_mesh()
    params = place_params(params, mesh)
    count = int(sum(np.sum(batch["weight_B"]) for batch in batches))
    whole: dict[str, np.ndarray] = {}
    for batch in batches:
        placed = place_batch(batch, mesh)
        found = fetch(map_batch(task, params, placed, gate_AH, seed, draws=draws))
        found |= {"label": np.asarray(batch["label_B"])} if is_classifier(task) else {}
        real = np.flatnonzero(batch["weight_B"])
        index = np.asarray(batch["index_B"])[real]
        for name, part in found.items():
            if name not in whole:
                whole[name] = np.zeros((count, *part.shape[1:]), part.dtype)
            whole[name][index] = part[real]
    for name, array in whole.items():
        wrong = np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(1))
        if len(wrong):
            raise ValueError(
                f"the {name} of example {wrong[0]} is not finite: the model's loss or its "
                "derivative in a gate overflows"
            )
    own = whole["output"], whole["slope"], gate_AH, whole.get("label")
    return LinearMap(*own, whole.get("drawn"))


def stored_map(arrays: Mapping[str, np.ndarray], present_AH: Array) -> LinearMap:
    """The map at all heads that an experiment has kept, from its store's arrays: `output`, `slope`
    and, of a classifier, `label`."""
    own = arrays["output"], arrays["slope"], np.asarray(present_AH, np.float32)
    return LinearMap(*own, arrays.get("label"))


def is_classifier(task: Task) -> TypeGuard[Classifier]:
    """Whether the task has log-odds, and its batches labels."""
    return hasattr(task, "log_odds")


def is_of_tokens(task: Task) -> TypeGuard[OfTokens]:
    """Whether the task can draw the tokens that its loss is over."""
    return hasattr(task, "drawn_losses")


@functools.partial(jax.jit, static_argnames=("task", "draws"))
def map_batch(
    task: Task, params: Params, batch: Batch, gate_AH: Array, seed: int = 0, *, draws: int = 0
) -> dict[str, jax.Array]:
    """`output` `[B, O]` and `slope` `[B, O, A, H]` of one batch, and where labels are drawn `drawn`
    `[B, K, A, H]`, float32."""
    examples = len(batch["weight_B"])
    at = tuple(
        jnp.broadcast_to(gate_H, (examples, 1, len(gate_H)))
        for gate_H in gates(gate_AH, task.present_AH)
    )

    def outputs(at: Gates) -> jax.Array:
        if is_classifier(task):
            return task.log_odds(params, batch, at)
        if draws and is_of_tokens(task):
            return task.drawn_losses(params, batch, at, keys_of(batch, seed, draws))
        return loss_of_each(task, params, batch, at)[:, None]

    output_BO, backward = jax.vjp(outputs, at)

    def slopes(direction_O: jax.Array) -> jax.Array:
        (slope,) = backward(jnp.broadcast_to(direction_O, output_BO.shape))
        rows = zip(slope, task.present_AH, strict=True)
        return jnp.stack([as_mask_row(row_B1H[:, 0], present_H) for row_B1H, present_H in rows], 1)

    directions = jnp.eye(output_BO.shape[1], dtype=output_BO.dtype)
    slope_BOAH = jax.lax.map(slopes, directions).swapaxes(0, 1)
    count = output_BO.shape[1] - draws
    found = {"output": output_BO[:, :count], "slope": slope_BOAH[:, :count]}
    return found | ({"drawn": slope_BOAH[:, count:]} if draws else {})


def keys_of(batch: Batch, seed: Array | int, draws: int) -> jax.Array:
    """A key for each example's place in the data set and each draw, `[B, K]`."""
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    key_B = fold_in(jax.random.key(seed), jnp.asarray(batch["index_B"]))
    return jax.vmap(fold_in, (0, None))(key_B, jnp.arange(draws))
