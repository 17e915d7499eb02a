"""Is a difference real?  Paired tests of each mask against the full model, from stored per-example
values."""

from __future__ import annotations

from typing import NamedTuple

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


def mcnemar(correct_MN: np.ndarray, base_N: np.ndarray) -> np.ndarray:
    """Exact two-sided McNemar test of each mask against the base: p-values `[M]`; 1 where no
    example changes sides."""
    lost_M = np.sum(~correct_MN & base_N, axis=-1)
    won_M = np.sum(correct_MN & ~base_N, axis=-1)
    return np.minimum(
        1.0, 2 * scipy.stats.binom.cdf(np.minimum(lost_M, won_M), lost_M + won_M, 0.5)
    )
