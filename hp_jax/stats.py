"""Is a difference real?  Paired tests of each mask against the full model, from stored per-example
values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from hp_jax.metrics import Metric, totals

BLOCK = 1024
"""Resamples that are held at a time."""
COLUMNS = 1024
"""Columns of statistics that they are multiplied with at a time."""


class Bootstrap(NamedTuple):
    """Differences mask - base in metric units, each `[M]`: as measured, the interval's two ends,
    the two-sided p-value, and the same adjusted for the number of masks (`max_t`)."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray


def resamples(examples: int, count: int, seed: int) -> np.ndarray:
    """How often each example is drawn in each of `count` resamples with replacement: `[R, N]`,
    float64, in which resampled sums of counts are exact too."""
    return np.concatenate([draws_RN for _, draws_RN in _blocks(examples, count, seed)])


def paired_bootstrap(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Paired bootstrap (Koehn 2004; Efron and Tibshirani 1993, ch. 16) of a metric over the same
    resamples for all masks.

    `statistics_MNS` are each example's statistics, as the metric makes them. The interval is the
    percentile interval; p is twice the smaller tail of the resampled differences at 0, counted
    with (k + 1) / (R + 1).
    """
    if statistics_MNS.shape[1:] != base_NS.shape:
        raise ValueError(
            f"the masks' statistics have shape {statistics_MNS.shape[1:]}, but the base has "
            f"{base_NS.shape} (N, S)"
        )
    difference_MR = np.empty((len(statistics_MNS), count))
    for start, draws_RN in _blocks(len(base_NS), count, seed):
        base_R = metric.score(draws_RN @ base_NS)
        for first, score_MR in _resampled(draws_RN, statistics_MNS, metric):
            rows, columns = len(score_MR), len(base_R)
            difference_MR[first : first + rows, start : start + columns] = score_MR - base_R
    difference_M = np.array(
        [metric.score(totals(metric, statistics_NS)) for statistics_NS in statistics_MNS], float
    ) - metric.score(totals(metric, base_NS))
    low_M, high_M = np.quantile(difference_MR, [(1 - level) / 2, (1 + level) / 2], axis=1)
    tail_M = np.minimum((difference_MR <= 0).sum(1), (difference_MR >= 0).sum(1))
    p_M = np.minimum(1.0, 2 * (tail_M + 1) / (count + 1))
    return Bootstrap(difference_M, low_M, high_M, p_M, max_t(difference_M, difference_MR))


def _blocks(examples: int, count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """`resamples`, some at a time, each after the number of those before."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        draws_RN = generator.multinomial(
            examples, np.full(examples, 1 / examples), size=min(BLOCK, count - start)
        )
        yield start, draws_RN.astype(np.float64)


def _resampled(
    draws_RN: np.ndarray, statistics_MNS: np.ndarray, metric: Metric
) -> Iterator[tuple[int, np.ndarray]]:
    """The metric `[m, R]` of some masks at a time in each resample, after the number of those
    before."""
    _, examples, size = statistics_MNS.shape
    group = max(1, COLUMNS // size)
    for first in range(0, len(statistics_MNS), group):
        some_MNS = statistics_MNS[first : first + group]
        columns = np.moveaxis(some_MNS, 0, 1).reshape(examples, -1).astype(np.float64)
        sums = (draws_RN @ columns).reshape(len(draws_RN), len(some_MNS), size)
        yield first, metric.score(sums).T


# --- many tests ----------------------------------------------------------------------------------


def max_t(difference_M: np.ndarray, difference_MR: np.ndarray) -> np.ndarray:
    """p-values `[M]` adjusted for the number of masks, by the step-down maxima of Westfall and
    Young (1993, algorithm 4.1) over resamples that all masks share.

    Differences as measured and in each resample; each is divided by its standard deviation over
    resamples.  A mask whose difference does not vary has 1.  Masks that are alike count as one:
    less is lost than with `holm`.
    """
    spread_M = difference_MR.std(1)
    varies = np.flatnonzero(spread_M > 1e-12 * np.abs(difference_MR).max(initial=0.0))
    t_M = np.abs(difference_M[varies]) / spread_M[varies]
    adjusted_M, largest_R = np.ones(len(difference_M)), np.zeros(difference_MR.shape[1])
    order, found = np.argsort(t_M, kind="stable"), []
    for place in order:  # the smallest first: each with the maximum over those not larger
        mask = varies[place]
        null_R = np.abs(difference_MR[mask] - difference_M[mask]) / spread_M[mask]
        np.maximum(largest_R, null_R, out=largest_R)
        found.append((1 + (largest_R >= t_M[place]).sum()) / (len(largest_R) + 1))
    adjusted_M[varies[order]] = np.maximum.accumulate(found[::-1])[::-1]
    return adjusted_M


def holm(p_M: np.ndarray) -> np.ndarray:
    """p-values `[M]` adjusted by Holm (1979): the chance of any false finding stays below the
    level, however the tests depend on each other."""
    count, order = len(p_M), np.argsort(p_M, kind="stable")
    adjusted_M = np.empty(count)
    adjusted_M[order] = np.maximum.accumulate(p_M[order] * np.arange(count, 0, -1))
    return np.minimum(adjusted_M, 1.0)


def bootstrap_interval(
    statistics_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval (Efron and Tibshirani 1993, ch. 13) of a metric over resamples of
    the examples."""
    score_R = metric.score(resamples(len(statistics_NS), count, seed) @ statistics_NS)
    low, high = np.quantile(score_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Correlation(NamedTuple):
    """A correlation, its 95 % interval, and its two-sided p; all NaN where it cannot be told."""

    r: float
    low: float
    high: float
    p: float


def pearson(x: np.ndarray, y: np.ndarray) -> Correlation:
    """Pearson's correlation with Fisher's interval (Fisher 1921: tanh(atanh r ± 1.96 / √(n - 3))).

    NaN for fewer than four pairs, or where one side does not vary or is not finite.
    """
    return _correlation(scipy.stats.pearsonr, x, y, lambda r: 1.0)


def spearman(x: np.ndarray, y: np.ndarray) -> Correlation:
    """Spearman's correlation with the interval of Bonett and Wright (2000: Fisher's, its variance
    times 1 + r² / 2).

    NaN as in `pearson`.
    """
    return _correlation(scipy.stats.spearmanr, x, y, lambda r: 1 + r**2 / 2)


def _correlation(
    measure: Callable[[np.ndarray, np.ndarray], Any],
    x: np.ndarray,
    y: np.ndarray,
    inflation: Callable[[float], float],
) -> Correlation:
    if len(x) < 4 or not all(
        np.isfinite(side).all() and np.ptp(side) > 1e-9 * np.abs(side).max() for side in (x, y)
    ):
        return Correlation(*[math.nan] * 4)
    found = measure(x, y)
    r = float(found.statistic)
    if abs(r) > 1 - 1e-12:
        return Correlation(r, r, r, float(found.pvalue))
    reach = scipy.stats.norm.ppf(0.975) * math.sqrt(inflation(r) / (len(x) - 3))
    low, high = np.tanh(math.atanh(r) + reach * np.array([-1, 1]))
    return Correlation(r, float(low), float(high), float(found.pvalue))


def split_half(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 100,
    seed: int = 0,
) -> float:
    """Reliability of the masks' differences from the base: their Pearson correlation between two
    random halves of the examples, stepped up to all of them (Spearman 1910, Brown 1910: 2 r /
    (1 + r)), the mean over `count` ways to halve.

    A correlation with what is measured on other examples can be about as high as the square root
    of the product of both reliabilities (Spearman 1904).  NaN where it cannot be told.
    """
    generator, examples = np.random.default_rng(seed), len(base_NS)
    found = []
    for _ in range(count):
        half_N = generator.permutation(examples) < examples // 2
        halves = [
            metric.score(statistics_MNS[:, chosen_N].sum(1, dtype=metric.sums))
            - metric.score(base_NS[chosen_N].sum(0, dtype=metric.sums))
            for chosen_N in (half_N, ~half_N)
        ]
        r = pearson(*halves).r
        found.append(2 * r / (1 + r) if r > -1 else math.nan)
    return float(np.mean(found))


def mcnemar(correct_MN: np.ndarray, base_N: np.ndarray) -> np.ndarray:
    """Exact two-sided McNemar test of each mask against the base: p-values `[M]`; 1 where no
    example changes sides."""
    lost_M = np.sum(~correct_MN & base_N, axis=-1)
    won_M = np.sum(correct_MN & ~base_N, axis=-1)
    return np.minimum(
        1.0, 2 * scipy.stats.binom.cdf(np.minimum(lost_M, won_M), lost_M + won_M, 0.5)
    )
