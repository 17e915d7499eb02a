"""p-values of many tests at once, adjusted for their number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hp_jax.stats.bootstrap import Differences, share_of


def holm(p_M: np.ndarray) -> np.ndarray:
    """p-values `[M]` adjusted by Holm (1979): the chance of any false finding stays below the
    level, however the tests depend on each other."""
    count, order = len(p_M), np.argsort(p_M, kind="stable")
    adjusted_M = np.empty(count)
    adjusted_M[order] = np.maximum.accumulate(p_M[order] * np.arange(count, 0, -1))
    return np.minimum(adjusted_M, 1.0)


def benjamini_hochberg(p_M: np.ndarray) -> np.ndarray:
    """p-values `[M]` adjusted by Benjamini and Hochberg (1995): of what is found at a level, on
    average at most that share is false, if the tests do not depend on each other, or positively."""
    count, order = len(p_M), np.argsort(p_M, kind="stable")
    adjusted_M = np.empty(count)
    scaled = p_M[order] * count / np.arange(1, count + 1)
    adjusted_M[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted_M, 1.0)


def max_t(found: Differences) -> np.ndarray:
    """p-values `[M]` of differences from 0 adjusted for the number of masks, by the step-down
    maxima of Westfall and Young (1993, algorithm 4.1).

    Each difference is divided by its standard deviation over resamples.  A mask whose difference
    does not vary has 1.  Masks that are alike count as one: less is lost than with `holm`.
    """
    spread_M, varies = spread(found)
    t_M = np.abs(found.measured_M[varies]) / spread_M
    adjusted_M = np.ones(len(found.measured_M))
    adjusted_M[varies] = step_down(
        t_M, lambda place: np.abs(errors(found, varies[place])) / spread_M[place]
    )
    return adjusted_M


def spread(found: Differences) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviations over resamples of the masks whose differences vary, and which masks
    these are."""
    spread_M = found.resampled_MR.std(1)
    varies = np.flatnonzero(spread_M > 1e-12 * np.abs(found.resampled_MR).max(initial=0.0))
    return spread_M[varies], varies


def errors(found: Differences, mask: int) -> np.ndarray:
    """How far each resample is from what was measured `[R]`: how far what was measured may be from
    the truth."""
    error_R: np.ndarray = found.resampled_MR[mask] - found.measured_M[mask]
    return error_R


def step_down(t_M: np.ndarray, null: Callable[[int], np.ndarray]) -> np.ndarray:
    """p-values `[M]` of statistics of which large ones speak against the null hypothesis, adjusted
    for their number.

    null: each one's `[R]` under its null hypothesis, in resamples that all share.  Each is compared
    with the maximum over those that are not larger.
    """
    adjusted_M, largest_R = np.ones(len(t_M)), np.array(-np.inf)
    order, found = np.argsort(t_M, kind="stable"), []
    for place in order:  # the smallest first
        null_R = null(place)
        largest_R = np.maximum(largest_R, null_R)
        found.append(share_of((largest_R >= t_M[place]).sum(), len(null_R)))
    adjusted_M[order] = np.maximum.accumulate(found[::-1])[::-1] if found else 1.0
    return adjusted_M
