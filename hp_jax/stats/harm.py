"""Is a mask shown to do no harm?  Claims about a margin, and the least effect that data show.

A missing p-value of a difference is no evidence that there is none; these tests are the evidence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from hp_jax.stats.bootstrap import Differences, share_of
from hp_jax.stats.many import errors, holm, spread, step_down
from hp_jax.stats.paired import changed_sides


class Claim(NamedTuple):
    """One-sided p-values `[M]`, and the same adjusted for the number of masks."""

    p: np.ndarray
    adjusted: np.ndarray


def non_inferior(worse: Differences, margin: float) -> Claim:
    """Is each mask less than `margin` worse than the base?  `worse` is positive where it is worse.

    p is the share of resamples that are worse by the margin or more, counted with (k + 1) / (R +
    1): at 2.5 % it says what the percentile interval of 95 % says, and as that it needs no
    symmetry.  Such a share cannot be below 1 / (R + 1), too much for a correction by their number;
    adjusted are the step-down maxima (`step_down`) of what is left to the margin, divided by its
    standard deviation, over the resamples that all masks share.
    """
    p_M = _beyond(worse.resampled_MR >= margin)
    return Claim(p_M, _adjusted(worse, margin - worse.measured_M, p_M, sided=True))


def equivalent(change: Differences, margin: float) -> Claim:
    """Is each mask within `margin` of the base, neither worse nor better?  Two one-sided tests
    (Schuirmann 1987), the larger p of both; adjusted as in `non_inferior`."""
    resampled_MR = change.resampled_MR
    p_M = np.maximum(_beyond(resampled_MR >= margin), _beyond(resampled_MR <= -margin))
    return Claim(p_M, _adjusted(change, margin - np.abs(change.measured_M), p_M, sided=False))


def _beyond(hit_MR: np.ndarray) -> np.ndarray:
    return share_of(hit_MR.sum(1), hit_MR.shape[1])


def _adjusted(found: Differences, left_M: np.ndarray, p_M: np.ndarray, sided: bool) -> np.ndarray:
    """By the maxima of how much too well a mask may look: of -error, or of its absolute value where
    both sides are tested.  Not below p; a mask that does not vary keeps p."""
    spread_M, varies = spread(found)

    def null(place: int) -> np.ndarray:
        error_R = errors(found, varies[place]) / spread_M[place]
        return -error_R if sided else np.abs(error_R)

    adjusted_M = p_M.copy()
    adjusted_M[varies] = np.maximum(p_M[varies], step_down(left_M[varies] / spread_M, null))
    return adjusted_M


def non_inferior_right(correct_MN: np.ndarray, base_N: np.ndarray, margin: float) -> Claim:
    """`non_inferior` for answers that are right or wrong: the score test of Tango (1998), adjusted
    by Holm.  `margin` is a share of the examples; ValueError if it is not between 0 and 1.

    It holds where few examples change sides, as a bootstrap does not: where none of N does, no
    resample differs, but a share of 3 / N might.
    """
    p_M = _tango(*changed_sides(correct_MN, base_N), len(base_N), margin)
    return Claim(p_M, holm(p_M))


def equivalent_right(correct_MN: np.ndarray, base_N: np.ndarray, margin: float) -> Claim:
    """`equivalent` for answers that are right or wrong: Tango's test on both sides, the larger p,
    adjusted by Holm."""
    (lost_M, won_M), count = changed_sides(correct_MN, base_N), len(base_N)
    p_M = np.maximum(_tango(lost_M, won_M, count, margin), _tango(won_M, lost_M, count, margin))
    return Claim(p_M, holm(p_M))


def _tango(lost_M: np.ndarray, won_M: np.ndarray, count: int, margin: float) -> np.ndarray:
    """p of the null hypothesis that the share lost exceeds the share won by `margin` (Tango 1998):
    how far what was found is below that, in standard deviations under it."""
    if not 0 < margin < 1:
        raise ValueError(f"expected a margin between 0 and 1, a share, but found {margin}")
    slope_M = lost_M + won_M - margin * (2 * count - lost_M + won_M)
    root_M = np.sqrt(slope_M**2 + 8 * count * won_M * margin * (1 - margin))
    won_share_M = (slope_M + root_M) / (4 * count)  # most likely where the null hypothesis holds
    variance_M = count * (2 * won_share_M + margin * (1 - margin))
    z_M = (lost_M - won_M - count * margin) / np.sqrt(variance_M)
    return np.asarray(scipy.stats.norm.cdf(z_M))


def least_effect(
    error: np.ndarray | float, *, level: float = 0.05, power: float = 0.8
) -> np.ndarray:
    """The effect that a two-sided test at `level` finds with this `power`, if its standard error is
    `error`: (z of 1 - level / 2 plus z of power) times that (Bloom 1995).

    For one of M tests give level / M.
    """
    z = scipy.stats.norm.ppf([1 - level / 2, power]).sum()
    return np.asarray(z * np.asarray(error))
