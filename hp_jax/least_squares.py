"""Repair without training and without labels: each row's output projection is fitted anew, by least
squares, to what the full model has there; nothing is added at inference.

Rows are repaired one after another, from the first on.  The inputs X of a row are the contexts of
its living heads, and 1 for the bias, in the model that is pruned and, below the row, repaired.
What is missing, M, is the full model's residual stream after the row (what the row's output is
added to, and that output) minus the pruned model's.  The weights change by
`(X'X + lambda I)^-1 X'M`, over all real query positions: K-prune (Park et al. 2024) with a ridge
towards the weights as they were.  Or the weights are kept, but for a scale of each head: the same
least squares of what the heads write, `Y_h = X_h W_h`, in place of X (mask tuning, Kwon et al.
2022), a few numbers in place of many.

The same sums of the full model say what such a repair cannot restore, head by head: scores by the
optimal brain surgeon (Hassibi and Stork 1993), in blocks of a head as in ZipLM (Kurtic et al.
2023).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.architecture import AttentionModule
from hp_jax.batches import weighted
from hp_jax.heads import check_mask, gates
from hp_jax.removal import replace
from hp_jax.sharding import agreed, device_mesh, fetch, place_batch, place_params
from hp_jax.task import Array, Batch, ModelTask, Params, State, check_task

RIDGE = 0.1
"""lambda, as a multiple of the mean square of a row's inputs, or of what its heads write."""
Fit = Literal["weights", "scales", "scales_alone", "bias"]
"""What is fitted: the output projection and its bias; a scale of each head, and the bias; these
scales without it; the bias alone."""


class Repaired(NamedTuple):
    """A repaired model, and how far each row is from the full model's on the examples of the fit:
    the mean square of what is missing in the residual stream, divided by the stream's variance."""

    params: Params
    """In the shape of the full model's; 0 in the output projection for heads that are off."""
    before_A: np.ndarray
    """Before the row is repaired; the rows below it are."""
    after_A: np.ndarray
    """After it, never more."""


class RowSums(NamedTuple):
    """What least squares need of a row, summed over real query positions; P = H * K + 1 inputs, in
    the order of the heads that the model has, and 1 at the end."""

    inputs_PP: Array
    missing_PD: Array
    """Inputs times what is missing."""
    missing: Array
    """The square of what is missing."""
    stream_D: Array
    """The full model's residual stream after the row."""
    stream: Array
    """Its square."""

    @property
    def positions(self) -> float:
        """How many there are."""
        return float(self.inputs_PP[-1, -1])

    @property
    def variance(self) -> float:
        """Of the full model's residual stream, summed over positions and D."""
        return float(self.stream - (self.stream_D**2).sum() / self.positions)


def repair(
    task: ModelTask,
    params: Params,
    batches: Sequence[Batch],
    mask_AH: Array,
    *,
    fit: Fit = "weights",
    ridge: float = RIDGE,
    mesh: Mesh | None = None,
) -> Repaired:
    """The model without the heads that `mask_AH` has off, repaired on `batches`; labels are not
    looked at.

    fit: what of each row is fitted; of `bias`, a removed head is filled, in effect, by its mean.  A
    row that has no bias gets none.  ridge: lambda divided by the mean square of the row's inputs,
    or of what its heads write; the bias has none.  ValueError for a ridge that is not positive, a
    mask that does not fit, numbers that are not finite, or a model that normalises what a row gives
    before it is added (Gemma 2, 3).
    """
    _check(task, ridge)
    on_AH, batches = check_mask(mask_AH, task.present_AH), weighted(batches, task)
    mesh = mesh or device_mesh()
    placed = [place_batch(batch, mesh) for batch in batches]
    full, pruned = (place_params(params, mesh) for _ in range(2))
    states = [(_start(task, full, batch),) * 2 for batch in placed]
    before, after = [], []
    for row, module in enumerate(task.config.modules.values()):
        parts = []
        for batch, (state, other) in zip(placed, states, strict=True):
            parts.append(fetch(row_sums(task, row, full, pruned, batch, state, other, on_AH)))
        sums = add_up(parts, task.rows[row])
        living_h = on_AH[row][task.present_AH[row]]
        free_P = _free(module, living_h, fit)
        if fit in ("scales", "scales_alone"):
            weights_PD = np.asarray(output_weights(params, module), np.float64)
            change_PD = _scaled(sums, weights_PD, free_P, module.head_width, ridge)
        else:
            change_PD = _fitted(sums, free_P, ridge)
        change_PD = agreed(change_PD)
        before.append(float(sums.missing) / sums.variance)
        after.append(_left(sums, change_PD) / sums.variance)
        params = _changed(params, module, living_h, change_PD)
        pruned = place_params(params, mesh)
        states = [
            (
                _after(task, row, full, batch, state, task.present_AH),
                _after(task, row, pruned, batch, other, on_AH),
            )
            for batch, (state, other) in zip(placed, states, strict=True)
        ]
    return Repaired(params, np.array(before), np.array(after))


def obs_scores(
    task: ModelTask,
    params: Params,
    batches: Sequence[Batch],
    *,
    ridge: float = RIDGE,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The score of each head `[A, H]` by what the best repair of its row leaves missing; labels are
    not looked at.

    In each row heads go one at a time, each time the one without which least is missing after the
    row's other heads have been fitted anew.  A head's score is what is missing when it and those
    before it are gone (with the ridge's penalty), divided by the variance of the residual stream
    after the row: so scores rise in the order in which a row's heads go, and rows are compared by
    their part in the stream.  They see nothing of what later rows do with it.  ValueError as in
    `repair`.
    """
    _check(task, ridge)
    batches, mesh = weighted(batches, task), mesh or device_mesh()
    full, present_AH = place_params(params, mesh), task.present_AH
    placed = [place_batch(batch, mesh) for batch in batches]
    states = [_start(task, full, batch) for batch in placed]
    score_AH = np.zeros(present_AH.shape)
    for row, module in enumerate(task.config.modules.values()):
        parts = []
        for batch, state in zip(placed, states, strict=True):
            parts.append(fetch(row_sums(task, row, full, full, batch, state, state, present_AH)))
        sums, count = add_up(parts, task.rows[row]), int(present_AH[row].sum())
        free_P = _free(module, np.ones(count, bool), "weights")
        inputs_PP = np.asarray(sums.inputs_PP)
        left_PP = (inputs_PP + np.diag(penalty(inputs_PP, ridge)))[np.ix_(free_P, free_P)]
        weights_PD = np.asarray(output_weights(params, module), np.float64)[free_P]
        missing_h = brain_surgeon(left_PP, weights_PD, count, module.head_width)
        score_AH[row, present_AH[row]] = missing_h / sums.variance
        states = [
            _after(task, row, full, batch, state, present_AH)
            for batch, state in zip(placed, states, strict=True)
        ]
    return agreed(score_AH)


# --- on the devices ------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="task")
def _start(task: ModelTask, params: Params, batch: Batch) -> State:
    return task.start(params, batch)


@functools.partial(jax.jit, static_argnames=("task", "row"))
def _after(
    task: ModelTask, row: int, params: Params, batch: Batch, state: State, gate_AH: Array
) -> State:
    """The state after the row."""
    gate_H = gates(gate_AH, task.present_AH)[row]
    context = task.context(params, row, batch, state)
    return task.apply_row(params, row, batch, state, context, gate_H)


@functools.partial(jax.jit, static_argnames=("task", "row"))
def row_sums(
    task: ModelTask,
    row: int,
    full: Params,
    pruned: Params,
    batch: Batch,
    state: State,
    pruned_state: State,
    mask_AH: Array,
) -> RowSums:
    """The sums of one batch, float32, from the states of the full and of the pruned model before
    the row."""
    queries = task.queries(batch)
    assert queries is not None  # a model of a family knows its positions
    real_BT1 = jnp.asarray(queries[row], bool)[..., None]
    _, stream_BTD = _row(task, row, full, batch, state, task.present_AH)
    input_BTP, pruned_BTD = _row(task, row, pruned, batch, pruned_state, mask_AH)
    input_BTP, stream_BTD, missing_BTD = (
        jnp.where(real_BT1, x, 0) for x in (input_BTP, stream_BTD, stream_BTD - pruned_BTD)
    )
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return RowSums(
        product("BTP,BTQ->PQ", input_BTP, input_BTP),
        product("BTP,BTD->PD", input_BTP, missing_BTD),
        jnp.sum(missing_BTD**2),
        jnp.sum(stream_BTD, (0, 1)),
        jnp.sum(stream_BTD**2),
    )


def _row(
    task: ModelTask, row: int, params: Params, batch: Batch, state: State, gate_AH: Array
) -> tuple[jax.Array, jax.Array]:
    """A row's inputs `[B, T, P]` and the residual stream after it `[B, T, D]`, float32."""
    module = list(task.config.modules.values())[row]
    gate_H = gates(gate_AH, task.present_AH)[row]
    context_BTHK = task.context(params, row, batch, state).astype(jnp.float32)
    flat_BTP = jnp.einsum("BTHK,H->BTHK", context_BTHK, gate_H).reshape(*context_BTHK.shape[:2], -1)
    input_BTP = jnp.pad(flat_BTP, ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
    stream_BTD = task.residual(params, row, batch, state).astype(jnp.float32)
    return input_BTP, stream_BTD + jnp.matmul(
        input_BTP, output_weights(params, module), precision=jax.lax.Precision.HIGHEST
    )


def output_weights(params: Params, module: AttentionModule) -> jax.Array:
    """A row's output projection with its bias as the last line `[P, D]`, float32; 0 for what it
    does not have."""
    out = functools.reduce(lambda tree, name: tree.get(name, {}), (*module.path, "out"), params)
    kernel = jnp.reshape(out.get("kernel", jnp.zeros((0, 0, module.width))), (-1, module.width))
    bias_1D = jnp.reshape(out.get("bias", jnp.zeros(module.width)), (1, -1))
    return jnp.concatenate([kernel, bias_1D]).astype(jnp.float32)


# --- on the host ---------------------------------------------------------------------------------


def add_up(parts: Sequence[RowSums], row: str) -> RowSums:
    """The sums of all batches, float64; ValueError names the row in which they are not finite."""
    sums = RowSums(*(np.sum(np.array(each, np.float64), 0) for each in zip(*parts, strict=True)))
    if not all(np.isfinite(x).all() for x in sums):
        raise ValueError(
            f"the contexts or the output of row {row} are not finite: expected finite numbers"
        )
    if sums.variance <= 0:
        raise ValueError(
            f"the output of row {row} is the same at all {sums.positions:.0f} positions: expected "
            "examples that differ"
        )
    return sums


def _check(task: ModelTask, ridge: float) -> None:
    check_task(task)
    for row, module in task.config.modules.items():
        if not module.added:
            raise ValueError(
                f"what row {row} gives is normalised before it is added, so that no least squares "
                "of its output projection repair it: expected a model without such norms"
            )
    if not ridge > 0:
        raise ValueError(f"the ridge is {ridge}, but a positive number was expected")


def _free(module: AttentionModule, living_h: np.ndarray, fit: Fit) -> np.ndarray:
    """Which of the inputs `[P]` have weights that are fitted, or scaled."""
    bias = "out" in module.biases and fit != "scales_alone"
    return np.append(np.repeat(living_h & (fit != "bias"), module.head_width), bias)


def penalty(inputs_PP: Array, ridge: float) -> np.ndarray:
    """lambda of each input `[P]`: `ridge` times the mean square of all that are not always 0; none
    of the bias, which is the last."""
    square_P = np.diag(np.asarray(inputs_PP))[:-1]
    mean = square_P[square_P > 0].mean() if square_P.any() else 1.0
    return np.append(np.full(len(square_P), ridge * mean), 0.0)


def _fitted(sums: RowSums, free_P: np.ndarray, ridge: float) -> np.ndarray:
    """The change of the row's weights `[P, D]`."""
    change_PD = np.zeros_like(sums.missing_PD)
    left_PP = sums.inputs_PP + np.diag(penalty(sums.inputs_PP, ridge))
    change_PD[free_P] = np.linalg.solve(left_PP[np.ix_(free_P, free_P)], sums.missing_PD[free_P])
    return change_PD


def _scaled(
    sums: RowSums, weights_PD: np.ndarray, free_P: np.ndarray, width: int, ridge: float
) -> np.ndarray:
    """The change of the row's weights `[P, D]` that is one of each head's scale, and of the bias.

    What heads write, `Y_h = X_h W_h`, has the products `<Y_h, Y_k> = sum of (X'X) * (WW')` over the
    inputs of h and k, and `<Y_h, M> = sum of W * (X'M)` over those of h; where there is a bias,
    both are taken around the means.
    """
    own_PD, bias = weights_PD[:-1] * free_P[:-1, None], bool(free_P[-1])
    one_PH = np.repeat(np.eye(len(own_PD) // width), width, axis=0)
    written_HH = one_PH.T @ (sums.inputs_PP[:-1, :-1] * (own_PD @ own_PD.T)) @ one_PH
    wanted_H = one_PH.T @ (own_PD * sums.missing_PD[:-1]).sum(1)
    living_H = np.diag(written_HH) > 0
    left_HH = written_HH + np.diag(penalty(np.pad(written_HH, (0, 1)), ridge)[:-1])
    total_HD = one_PH.T @ (sums.inputs_PP[:-1, -1:] * own_PD)
    if bias:
        left_HH -= total_HD @ total_HD.T / sums.positions
        wanted_H -= total_HD @ sums.missing_PD[-1] / sums.positions
    scale_H = np.zeros(len(living_H))
    scale_H[living_H] = np.linalg.solve(left_HH[np.ix_(living_H, living_H)], wanted_H[living_H])
    bias_D = bias * (sums.missing_PD[-1] - scale_H @ total_HD) / sums.positions
    return np.concatenate([(one_PH @ scale_H)[:, None] * own_PD, bias_D[None]])


def brain_surgeon(
    inputs_PP: np.ndarray, weights_PD: np.ndarray, count: int, width: int
) -> np.ndarray:
    """What is missing when each of a row's `count` heads of this width goes, in the best order,
    those before it included `[H]`; `inputs_PP` is X'X + lambda I, the bias last where there is one.

    With K its inverse, head h costs `tr(W_h' K_hh^-1 W_h)`, after which
    `W -= K_h K_hh^-1 W_h` and `K -= K_h K_hh^-1 K_h'`.
    """
    inverse_PP, left = np.linalg.inv(inputs_PP), list(range(count))
    total, total_H = 0.0, np.zeros(count)
    while left:
        costs = []
        for head in left:
            own = slice(head * width, (head + 1) * width)
            fill_KD = np.linalg.solve(inverse_PP[own, own], weights_PD[own])
            costs.append(float((weights_PD[own] * fill_KD).sum()))
        head = left.pop(int(np.argmin(costs)))
        total_H[head] = total = total + min(costs)
        own = slice(head * width, (head + 1) * width)
        step_PK = np.linalg.solve(inverse_PP[own, own], inverse_PP[own]).T
        weights_PD = weights_PD - step_PK @ weights_PD[own]
        inverse_PP = inverse_PP - step_PK @ inverse_PP[own]
    return total_H


def _left(sums: RowSums, change_PD: np.ndarray) -> float:
    """The square of what is missing after a change of the weights."""
    explained = 2 * sums.missing_PD - sums.inputs_PP @ change_PD
    return float(sums.missing - (change_PD * explained).sum())


def _changed(
    params: Params, module: AttentionModule, living_h: np.ndarray, change_PD: np.ndarray
) -> Params:
    """Parameters with the change added to the row's output projection, and 0 for heads that are
    off."""
    kernel_path, bias_path = ((*module.path, "out", leaf) for leaf in ("kernel", "bias"))
    if len(living_h):
        change_HKD = change_PD[:-1].reshape(len(living_h), -1, module.width)
        params = replace(
            params,
            kernel_path,
            lambda kernel: ((kernel + change_HKD) * living_h[:, None, None]).astype(kernel.dtype),
        )
    if "out" in module.biases:
        params = replace(params, bias_path, lambda bias: (bias + change_PD[-1]).astype(bias.dtype))
    return params
