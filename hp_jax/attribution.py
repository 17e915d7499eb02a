"""What a head costs, on average over which of the others are there: Shapley and Banzhaf values from
sampled masks, and integrated gradients along a row.

All are rises of the mean loss when a head goes, in nats; higher is kept longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jax.sharding import Mesh

from hp_jax.heads import as_boolean, check_gates, living_heads
from hp_jax.importance import MeanGradient, head_importance
from hp_jax.quadratic import Quadratic
from hp_jax.stats import normal_reach
from hp_jax.task import Array, Batch, Params, Task

SIGNED = MeanGradient(per="example", measure="signed")


class Values(NamedTuple):
    """Estimates from independent draws, with their standard errors: over the masks that are drawn,
    not over examples."""

    value_AH: np.ndarray
    error_AH: np.ndarray
    draws: int

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of Student's interval of each head by itself: what all masks would give on
        these examples; NaN from one draw."""
        reach_AH = scipy.stats.t.ppf((1 + level) / 2, self.draws - 1) * self.error_AH
        return self.value_AH - reach_AH, self.value_AH + reach_AH

    def reach(self, level: float = 0.95) -> float:
        """Half the width of the widest head's interval that holds at all numbers of draws together
        (`stats.normal_reach`), so that one may draw until it is small enough; infinite from a few
        draws.  Each head's is by itself."""
        factor = normal_reach(self.draws, alpha=1 - level)
        return factor if np.isinf(factor) else factor * float(self.error_AH.max())


def mean_of(draw_RAH: np.ndarray) -> Values:
    """From the estimates of R independent draws."""
    draws = len(draw_RAH)
    spread_AH = draw_RAH.std(0, ddof=1) if draws > 1 else np.full(draw_RAH.shape[1:], np.nan)
    return Values(draw_RAH.mean(0), spread_AH / np.sqrt(draws), draws)


# --- Shapley values ------------------------------------------------------------------------------


def shapley_masks(mask_AH: Array, draws: int, *, seed: int = 0) -> np.ndarray:
    """What `shapley` asks for: of each of R draws, a random order of the n living heads, the masks
    from all on to all off, and those of the reverse order `[R, 2n, A, H]`."""
    living, random = np.array(living_heads(mask_AH)), np.random.default_rng(seed)
    count = len(living)
    masks_RMAH = np.zeros((draws, 2 * count, *np.shape(mask_AH)), bool)
    for masks_MAH in masks_RMAH:
        order = random.permutation(count)
        for gone in range(count):
            masks_MAH[(gone, *living[order[gone:]].T)] = True
            if gone:
                masks_MAH[(count + gone, *living[order[: count - gone]].T)] = True
    return masks_RMAH


def shapley(loss_RM: np.ndarray, masks_RMAH: np.ndarray) -> np.ndarray:
    """Each draw's Shapley values `[R, A, H]`, for `mean_of`, from the loss under the masks of
    `shapley_masks`: what each head's going adds in a random order, with its reverse (Mitchell et
    al. 2022; exact in one draw if heads interact in pairs alone).

    In every draw the values sum to the loss without all heads, less that with all.
    """
    draws, twice = loss_RM.shape
    forward = np.arange(twice // 2 + 1)
    reverse = np.array([0, *range(twice // 2 + 1, twice), twice // 2])
    value_RAH = np.zeros((draws, *masks_RMAH.shape[2:]))
    for path in (forward, reverse):
        went_RMAH = masks_RMAH[:, path[:-1]] & ~masks_RMAH[:, path[1:]]
        rise_RM = np.diff(loss_RM[:, path].astype(np.float64))
        value_RAH += np.einsum("rm,rmah->rah", rise_RM, went_RMAH) / 2
    return value_RAH


# --- Banzhaf values ------------------------------------------------------------------------------


def banzhaf_masks(mask_AH: Array, draws: int, *, seed: int = 0) -> np.ndarray:
    """What `banzhaf` asks for: of each of R draws, a mask of which each living head is on with
    probability 1/2, and the one with the others on `[R, 2, A, H]`."""
    mask_AH, random = as_boolean(mask_AH), np.random.default_rng(seed)
    coin_RAH = random.integers(2, size=(draws, *mask_AH.shape)) != 0
    return np.stack([coin_RAH & mask_AH, ~coin_RAH & mask_AH], 1)


def banzhaf(
    loss_RM: np.ndarray, masks_RMAH: np.ndarray, control: Quadratic | None = None
) -> np.ndarray:
    """Each draw's Banzhaf values `[R, A, H]`, for `mean_of`, from the loss under the masks of
    `banzhaf_masks`: the mean loss without a head less that with it (Wang and Jia 2023).

    control: a prediction of the loss around the mask that the masks are drawn of, a control
    variate: what it explains is known exactly and adds no error.
    """
    loss_RM = loss_RM.astype(np.float64)
    if control is not None:
        predicted_M = control.predict(masks_RMAH.reshape(-1, *masks_RMAH.shape[2:]))
        loss_RM = loss_RM - predicted_M.reshape(loss_RM.shape)
    alive_AH = masks_RMAH[0].any(0)
    off_less_on_RMAH = np.where(masks_RMAH, -1.0, 1.0) * alive_AH
    value_RAH: np.ndarray = np.einsum("rm,rmah->rah", loss_RM, off_less_on_RMAH)
    return value_RAH if control is None else value_RAH + control.shares()


# --- integrated gradients ------------------------------------------------------------------------


def integrated_gradients(
    task: Task,
    params: Params,
    batches: Sequence[Batch],
    gate_AH: Array,
    *,
    steps: int = 8,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Minus the mean gradient in each head's gate, averaged over the path on which the gates of its
    row alone go from 0 to `gate_AH` (Sundararajan et al. 2017), by the midpoint rule with `steps`
    points: `[A, H]`.

    The sum over a row tends to the rise of the mean loss when the whole row is off, as steps grow.
    Costs `steps` times the rows as much as importance.  ValueError as in `head_importance`.
    """
    gate_AH = check_gates(gate_AH, task.present_AH)
    rise_AH = np.zeros(gate_AH.shape)
    for row in np.flatnonzero(gate_AH.any(1)):
        for point in (np.arange(steps) + 0.5) / steps:
            at_AH = gate_AH.copy()
            at_AH[row] *= point
            slope_AH = head_importance(task, params, batches, at_AH, estimator=SIGNED, mesh=mesh)
            rise_AH[row] -= gate_AH[row] * slope_AH[row] / steps
    return rise_AH
