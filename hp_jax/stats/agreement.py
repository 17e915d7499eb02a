"""Do two measurements agree, and how far could they at all?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from hp_jax.metrics import Metric
from hp_jax.stats.bootstrap import Differences


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
    random halves of the examples, the mean over `count` ways to halve, stepped up to all of them
    (Spearman 1910, Brown 1910: 2 r / (1 + r)).  Not above 0: halves do not agree at all.

    A correlation with what is measured on other examples can be about as high as the square root
    of the product of both reliabilities (Spearman 1904).  NaN where it cannot be told.
    """

    def effects(chosen_N: np.ndarray) -> np.ndarray:
        sums_MS = statistics_MNS[:, chosen_N].sum(1, dtype=metric.sums)
        base_S = base_NS[chosen_N].sum(0, dtype=metric.sums)
        return metric.score(sums_MS) - metric.score(base_S)

    return _stepped_up(effects, len(base_NS), count, seed)


def score_reliability(
    parts: Mapping[str, np.ndarray],
    score: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    *,
    count: int = 100,
    seed: int = 0,
) -> float:
    """Reliability of a score of heads, such as importance, as `split_half` has it, between random
    halves of the P parts of its data.

    parts: what was summed of each part, `{name: [P, ...]}`; score: from such sums over some parts
    to the scores `[...]` of those heads that count.  NaN for one part.
    """

    def scores(chosen_P: np.ndarray) -> np.ndarray:
        return score({name: sums[chosen_P].sum(0) for name, sums in parts.items()}).ravel()

    many = len(next(iter(parts.values())))
    return _stepped_up(scores, many, count, seed) if many > 1 else math.nan


def _stepped_up(
    measure: Callable[[np.ndarray], np.ndarray], items: int, count: int, seed: int
) -> float:
    """Pearson's correlation of what `measure` makes of two random halves of so many items, the mean
    over `count` ways to halve, stepped up to all of them."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(count):
        half = generator.permutation(items) < items // 2
        found.append(pearson(measure(half), measure(~half)).r)
    r = float(np.mean(found))
    return 2 * r / (1 + r) if r > -1 else math.nan


def rank_interval(found: Differences, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """From which rank to which each mask's value is, `[M]` both, over the resamples that all share
    (Goldstein and Spiegelhalter 1996); rank 1 is the largest value.

    Of masks that are alike in a resample, the least rank and the greatest are each one's.
    """
    upper_MR = scipy.stats.rankdata(-found.resampled_MR, method="min", axis=0)
    lower_MR = scipy.stats.rankdata(-found.resampled_MR, method="max", axis=0)
    low_M = np.quantile(upper_MR, (1 - level) / 2, axis=1, method="lower")
    high_M = np.quantile(lower_MR, (1 + level) / 2, axis=1, method="higher")
    return low_M.astype(int), high_M.astype(int)
