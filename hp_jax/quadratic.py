"""A model's loss as a quadratic function of its gates: how much a set of heads costs, interactions
of two heads included.

`Q(S) = -sum_S m_h + 1/2 sum_S sum_S H_hk` without the heads of S, where m is the mean gradient and
H a matrix over all pairs of heads: Taylor's first two terms, with the Fisher or the Gauss-Newton
matrix in place of the second derivatives.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hp_jax.linear import LinearMap
from hp_jax.task import Array


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """The mean loss around the gates `gate_AH`, in nats."""

    gradient_AH: np.ndarray
    """The mean gradient of the loss in the gates, float64."""
    curvature_AHAH: np.ndarray
    """The matrix H, float64, symmetric."""
    gate_AH: np.ndarray

    def predict(self, masks_MAH: Array) -> np.ndarray:
        """The change of the mean loss from the gates `gate_AH` to each mask, or other gates `[M]`,
        nats."""
        step_MAH = np.asarray(masks_MAH, np.float64) - self.gate_AH
        bent_MAH = np.tensordot(step_MAH, self.curvature_AHAH, 2)
        change_M: np.ndarray = np.sum(step_MAH * (self.gradient_AH + bent_MAH / 2), (1, 2))
        return change_M

    def shares(self) -> np.ndarray:
        """The change when all heads go, split among them: their Shapley values, and as heads
        interact in pairs alone, their Banzhaf values too `[A, H]`, nats."""
        gone_AH = -np.asarray(self.gate_AH, np.float64)
        bent_AH = np.tensordot(gone_AH, self.curvature_AHAH, 2)
        share_AH: np.ndarray = gone_AH * (self.gradient_AH + bent_AH / 2)
        return share_AH

    def without(self, left_AH: Array) -> np.ndarray:
        """The change of the mean loss predicted without each head, when those that `left_AH` has
        off are off too: `[A, H]`, nats; for a head that is off already, that of `left_AH`."""
        left_AH = np.asarray(left_AH, np.float64)
        step_AH = left_AH - self.gate_AH
        slope_AH = self.gradient_AH + np.tensordot(step_AH, self.curvature_AHAH, 2)
        own_AH = np.einsum("ahah->ah", self.curvature_AHAH)
        own_change_AH: np.ndarray = left_AH * (left_AH * own_AH / 2 - slope_AH)
        return self.predict(left_AH[None])[0] + own_change_AH


def fisher(found: LinearMap) -> Quadratic:
    """With the empirical Fisher matrix: the mean over examples of the outer product of their
    gradients (for head masks Kwon et al. 2022, who leave the mean gradient out and go row by
    row)."""
    gradient_NAH = found.gradients().astype(np.float64)
    return Quadratic(gradient_NAH.mean(0), _mean_product(gradient_NAH), found.gate_AH)


def gauss_newton(found: LinearMap) -> Quadratic:
    """With the Gauss-Newton matrix, which is the true Fisher matrix (Martens 2020, section 9);
    right labels count only in the gradient.

    Of a classifier it is exact, `mean_n J_n' (diag p_n - p_n p_n') J_n`: the second derivative of
    the linear map's loss.  Of a task of tokens it is the mean outer product of the gradients of
    labels that the model has drawn (`linear_map(..., draws=K)`): in expectation the same, summed
    over the tokens of an example, each after the right ones.  ValueError for a map of losses for
    which no labels were drawn.
    """
    if found.label_N is not None:
        matrix_AHAH = _of_all_labels(found)
    elif found.drawn_NKAH is not None:
        matrix_AHAH = _mean_product(found.drawn_NKAH.reshape(-1, *found.gate_AH.shape))
    else:
        raise ValueError(
            "the Gauss-Newton matrix is that of a classifier's log-odds, or of labels that the "
            "model draws (linear_map(..., draws=K)), but this is a map of losses for which none "
            "were drawn: the Fisher matrix is there for every task"
        )
    gradient_NAH = found.gradients().astype(np.float64)
    return Quadratic(gradient_NAH.mean(0), matrix_AHAH, found.gate_AH)


def _mean_product(gradient_NAH: np.ndarray) -> np.ndarray:
    """The mean outer product."""
    gradient_NAH = gradient_NAH.astype(np.float64)
    total_AHAH: np.ndarray = np.tensordot(gradient_NAH, gradient_NAH, (0, 0))
    return total_AHAH / len(gradient_NAH)


def _of_all_labels(found: LinearMap) -> np.ndarray:
    """A classifier's Gauss-Newton matrix."""
    share_NO = found.probabilities()[:, 1:].astype(np.float64)
    slope_NOAH = found.slope_NOAH.astype(np.float64)
    weighted_NOAH = share_NO[:, :, None, None] * slope_NOAH
    mean_NAH = weighted_NOAH.sum(1)
    square_AHAH: np.ndarray = np.tensordot(weighted_NOAH, slope_NOAH, ((0, 1), (0, 1)))
    return (square_AHAH - np.tensordot(mean_NAH, mean_NAH, (0, 0))) / len(share_NO)
