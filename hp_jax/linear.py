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
from hp_jax.heads import as_mask_row, check_gates, gates
from hp_jax.sharding import device_mesh, fetch, place, place_batch
from hp_jax.task import Array, Batch, Classifier, Gates, Params, Task, check_task, loss_of_each


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
        classifier `prediction` and `confidence`."""
        output_MNO = self.outputs(masks_MAH)
        if self.label_N is None:
            return {"loss": output_MNO[..., 0]}
        logit_MNC = np.concatenate([np.zeros_like(output_MNO[..., :1]), output_MNO], -1)
        log_MNC = logit_MNC - np.logaddexp.reduce(logit_MNC, axis=-1, keepdims=True)
        label_1N1 = self.label_N[None, :, None]
        return {
            "loss": -np.take_along_axis(log_MNC, label_1N1, -1)[..., 0],
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


def linear_map(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    mesh: Mesh | None = None,
) -> LinearMap:
    """The linear map of all examples, in the order of `index_B`, at the gates `gate_AH`, such as a
    mask; each batch is split over the mesh's devices.

    A task with `log_odds` (`hp_jax.task.Classifier`) is mapped by these, any other by its loss.
    ValueError for gates and batches that do not fit, and for derivatives that are not finite.
    """
    check_task(task)
    gate_AH, batches = check_gates(gate_AH, task.present_AH), numbered(batches, task)
    mesh = mesh or device_mesh()
    params = place(params, mesh)
    count = int(sum(np.sum(batch["weight_B"]) for batch in batches))
    whole: dict[str, np.ndarray] = {}
    for batch in batches:
        found = fetch(map_batch(task, params, place_batch(batch, mesh), gate_AH))
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
    return LinearMap(whole["output"], whole["slope"], gate_AH, whole.get("label"))


def stored_map(arrays: Mapping[str, np.ndarray], present_AH: Array) -> LinearMap:
    """The map at all heads that an experiment has kept, from its store's arrays: `output`, `slope`
    and, of a classifier, `label`."""
    own = arrays["output"], arrays["slope"], np.asarray(present_AH, np.float32)
    return LinearMap(*own, arrays.get("label"))


def is_classifier(task: Task) -> TypeGuard[Classifier]:
    """Whether the task has log-odds, and its batches labels."""
    return hasattr(task, "log_odds")


@functools.partial(jax.jit, static_argnames="task")
def map_batch(task: Task, params: Params, batch: Batch, gate_AH: Array) -> dict[str, jax.Array]:
    """`output` `[B, O]` and `slope` `[B, O, A, H]` of one batch, float32."""
    examples = len(batch["weight_B"])
    at = tuple(
        jnp.broadcast_to(gate_H, (examples, 1, len(gate_H)))
        for gate_H in gates(gate_AH, task.present_AH)
    )

    def outputs(at: Gates) -> jax.Array:
        if is_classifier(task):
            return task.log_odds(params, batch, at)
        return loss_of_each(task, params, batch, at)[:, None]

    output_BO, backward = jax.vjp(outputs, at)

    def slopes(direction_O: jax.Array) -> jax.Array:
        (slope,) = backward(jnp.broadcast_to(direction_O, output_BO.shape))
        rows = zip(slope, task.present_AH, strict=True)
        return jnp.stack([as_mask_row(row_B1H[:, 0], present_H) for row_B1H, present_H in rows], 1)

    directions = jnp.eye(output_BO.shape[1], dtype=output_BO.dtype)
    slope_OBAH = jax.lax.map(slopes, directions)
    return {"output": output_BO, "slope": slope_OBAH.swapaxes(0, 1)}
