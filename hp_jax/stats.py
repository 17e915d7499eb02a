"""Is a difference real?  Paired tests of each mask against the full model, from stored per-example
values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from hp_jax.metrics import Metric, totals


class Bootstrap(NamedTuple):
    """Differences mask - base in metric units, each `[M]`: as measured, the interval's two ends,
    and the two-sided p-value."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def resamples(examples: int, count: int, seed: int) -> np.ndarray:
    """How often each example is drawn in each of `count` resamples with replacement: `[R, N]`,
    float64, in which resampled sums of counts are exact too."""
    generator = np.random.default_rng(seed)
    draws_RN = generator.multinomial(examples, np.full(examples, 1 / examples), size=count)
    return draws_RN.astype(np.float64)


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
    draws_RN = resamples(len(base_NS), count, seed)
    base_R = metric.score(draws_RN @ base_NS)
    base = metric.score(totals(metric, base_NS))
    rows = []
    for statistics_NS in statistics_MNS:
        difference_R = metric.score(draws_RN @ statistics_NS) - base_R
        low, high = np.quantile(difference_R, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(difference_R <= 0), np.sum(difference_R >= 0))
        p = min(1.0, 2 * (tail + 1) / (count + 1))
        difference = metric.score(totals(metric, statistics_NS)) - base
        rows.append((difference, low, high, p))
    return Bootstrap(*np.array(rows).reshape(-1, 4).T)


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
