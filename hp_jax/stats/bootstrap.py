"""Resamples of the examples, and what a metric is in each of them, of many masks at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hp_jax.metrics import Metric, totals

BLOCK = 1024
"""Resamples that are held at a time."""
COLUMNS = 1024
"""Columns of statistics that they are multiplied with at a time."""


class Differences(NamedTuple):
    """Differences mask - base of a metric: `measured_M`, and in each of R resamples, which all
    masks share, `resampled_MR`."""

    measured_M: np.ndarray
    resampled_MR: np.ndarray


def differences(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 1000,
    seed: int = 0,
    size: int | None = None,
) -> Differences:
    """Differences mask - base in metric units over `count` resamples of the examples, with
    replacement and of both together (Koehn 2004; Efron and Tibshirani 1993, ch. 16).

    `statistics_MNS` are each example's statistics, as the metric makes them; `size` is how many
    examples a resample has, all N by default.  The same examples, count, seed and size give the
    same resamples, so that differences of several calls are paired too.  ValueError if the shapes
    of the masks and the base differ.
    """
    check_shapes(statistics_MNS, base_NS)
    difference_MR = np.empty((len(statistics_MNS), count))
    for start, draws_RN in _blocks(len(base_NS), count, seed, size):
        base_R = metric.score(draws_RN @ base_NS)
        for first, sums_RMS in sums(draws_RN, statistics_MNS):
            rows, columns = sums_RMS.shape[1], len(base_R)
            difference_MR[first : first + rows, start : start + columns] = (
                metric.score(sums_RMS).T - base_R
            )
    return Differences(measured(statistics_MNS, base_NS, metric), difference_MR)


def measured(statistics_MNS: np.ndarray, base_NS: np.ndarray, metric: Metric) -> np.ndarray:
    """Differences mask - base of the metric of all examples, `[M]`."""
    score_M = [metric.score(totals(metric, statistics_NS)) for statistics_NS in statistics_MNS]
    return np.array(score_M, float) - metric.score(totals(metric, base_NS))


def check_shapes(statistics_MNS: np.ndarray, base_NS: np.ndarray) -> None:
    """ValueError if the masks and the base are not of the same examples and statistics."""
    if statistics_MNS.shape[1:] != base_NS.shape:
        raise ValueError(
            f"the masks' statistics have shape {statistics_MNS.shape[1:]}, but the base has "
            f"{base_NS.shape} (N, S)"
        )


def resamples(examples: int, count: int, seed: int, size: int | None = None) -> np.ndarray:
    """How often each example is drawn in each of `count` resamples with replacement: `[R, N]`,
    float64, in which resampled sums of counts are exact too."""
    return np.concatenate([draws_RN for _, draws_RN in _blocks(examples, count, seed, size)])


def _blocks(
    examples: int, count: int, seed: int, size: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    """`resamples`, some at a time, each after the number of those before."""
    generator = np.random.default_rng(seed)
    drawn = examples if size is None else size
    for start in range(0, count, BLOCK):
        draws_RN = generator.multinomial(
            drawn, np.full(examples, 1 / examples), size=min(BLOCK, count - start)
        )
        yield start, draws_RN.astype(np.float64)


def sums(draws_RN: np.ndarray, statistics_MNS: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The statistics `[R, m, S]` of some masks at a time, summed over examples as often as each is
    drawn, after the number of the masks before."""
    _, examples, size = statistics_MNS.shape
    group = max(1, COLUMNS // size)
    for first in range(0, len(statistics_MNS), group):
        some_MNS = statistics_MNS[first : first + group]
        columns = np.moveaxis(some_MNS, 0, 1).reshape(examples, -1).astype(np.float64)
        yield first, (draws_RN @ columns).reshape(len(draws_RN), len(some_MNS), size)


def percentile(resampled: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the percentile interval (Efron and Tibshirani 1993, ch. 13) over the last
    axis."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return low, high


def two_sided(resampled: np.ndarray) -> np.ndarray:
    """Twice the smaller tail of resampled differences `[..., R]` at 0, counted with (k + 1) / (R +
    1)."""
    tail = np.minimum((resampled <= 0).sum(-1), (resampled >= 0).sum(-1))
    return np.minimum(1.0, 2 * share_of(tail, resampled.shape[-1]))


def share_of(hits: np.ndarray, count: int) -> np.ndarray:
    """The p-value of so many hits in `count` resamples: what was measured counts as one of them
    (Davison and Hinkley 1997, section 4.2)."""
    return (hits + 1) / (count + 1)


def bootstrap_interval(
    statistics_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a metric over resamples of the examples."""
    score_R = metric.score(resamples(len(statistics_NS), count, seed) @ statistics_NS)
    low, high = percentile(score_R, level)
    return float(low), float(high)
