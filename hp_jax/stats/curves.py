"""Whole curves: bands that hold at all points together, and the area between two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hp_jax.stats.bootstrap import Differences, percentile, two_sided
from hp_jax.stats.many import errors, spread


def bands(curve: Differences, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The band `[M]` from and to that holds a whole curve with this probability (sup-t; Montiel
    Olea and Plagborg-Møller 2019): at each point its standard deviation times one factor, the
    quantile over resamples of the greatest error, in standard deviations, of any point."""
    spread_M, varies = spread(curve)
    reach_M, largest_R = np.zeros(len(curve.measured_M)), np.zeros(curve.resampled_MR.shape[1])
    for spread_1, mask in zip(spread_M, varies, strict=True):
        np.maximum(largest_R, np.abs(errors(curve, mask)) / spread_1, out=largest_R)
    reach_M[varies] = np.quantile(largest_R, level) * spread_M
    return curve.measured_M - reach_M, curve.measured_M + reach_M


class Area(NamedTuple):
    """The mean difference of two curves, its interval, and its two-sided p."""

    value: float
    low: float
    high: float
    p: float


def area_between(
    curve: Differences, other: Differences, at_M: np.ndarray, level: float = 0.95
) -> Area:
    """The mean of curve - other over the range of `at_M`, such as shares of heads removed, in
    metric units: the area between them by the trapezoidal rule, divided by the range's width.

    Both are differences from one base on the same examples and resamples (`differences` with the
    same seed and count), at the same points in rising order.  The interval is the percentile
    interval, p `two_sided`.  ValueError if points or resamples differ, or if there is one point.
    """
    if curve.resampled_MR.shape != other.resampled_MR.shape or len(at_M) != len(curve.measured_M):
        raise ValueError(
            "the area between two curves needs the same points and resamples of both, but there "
            f"are {len(at_M)} points, and curves of shape {curve.resampled_MR.shape} and "
            f"{other.resampled_MR.shape} (points, resamples)"
        )
    weight_M = _weights(at_M)
    area_R = weight_M @ (curve.resampled_MR - other.resampled_MR)
    low, high = percentile(area_R, level)
    value = weight_M @ (curve.measured_M - other.measured_M)
    return Area(float(value), float(low), float(high), float(two_sided(area_R)))


def mean_along(value_M: np.ndarray, at_M: np.ndarray) -> float:
    """The mean of a curve over the range of `at_M`, as `area_between` takes that of a difference;
    ValueError if the points do not rise."""
    return float(_weights(at_M) @ value_M)


def _weights(at_M: np.ndarray) -> np.ndarray:
    """What each point counts in a mean over their range, by the trapezoidal rule."""
    if not (np.diff(at_M) >= 0).all() or not np.ptp(at_M) > 0:
        raise ValueError(f"expected points in rising order, but found {np.asarray(at_M).tolist()}")
    step = np.diff(at_M)
    weight_M: np.ndarray = (np.append(step, 0) + np.insert(step, 0, 0)) / (2 * np.ptp(at_M))
    return weight_M
