"""Is a difference real?  Tests of each mask against the full model, from stored per-example
values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats

from hp_jax.metrics import Metric, totals
from hp_jax.stats import bootstrap
from hp_jax.stats.bootstrap import Differences, differences, percentile, share_of, two_sided
from hp_jax.stats.many import max_t

SAME = 1 - 1e-9
"""Differences that are farther from each other than this factor are not the same."""


class Bootstrap(NamedTuple):
    """Differences mask - base in metric units, each `[M]`: as measured, the interval's two ends,
    the two-sided p-value, and the same adjusted for the number of masks (`max_t`)."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray


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
    resamples for all masks: `bootstrap_of` of `differences`."""
    return bootstrap_of(differences(statistics_MNS, base_NS, metric, count=count, seed=seed), level)


def bootstrap_of(found: Differences, level: float = 0.95) -> Bootstrap:
    """The percentile interval of each difference, its p (`two_sided`), and the same adjusted for
    the number of masks."""
    low_M, high_M = percentile(found.resampled_MR, level)
    return Bootstrap(found.measured_M, low_M, high_M, two_sided(found.resampled_MR), max_t(found))


# --- as other tools test -------------------------------------------------------------------------


def half_sample_bootstrap(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """compare-mt's paired bootstrap, which the paper used: p-values `[M]`, one-sided.

    A resample has half of the examples, drawn with replacement; p is the share of resamples in
    which the mask or the base, whichever wins more of them, does not win, counted with (k + 1) /
    (R + 1).  Half as many examples make the test blunter than one of all by about a factor of √2;
    the side that is tested is chosen from the data.
    """
    half = len(base_NS) // 2
    found = differences(statistics_MNS, base_NS, metric, count=count, seed=seed, size=half)
    wins_M = np.maximum((found.resampled_MR > 0).sum(1), (found.resampled_MR < 0).sum(1))
    return share_of(count - wins_M, count)


def centred_bootstrap(found: Differences) -> np.ndarray:
    """sacreBLEU's paired bootstrap (`paired_bs`): p-values `[M]`.

    The share of resamples whose absolute difference is as far above the mean of these as what was
    measured is from 0.  Absolute values are taken first and centred then, so a large difference has
    the p of a one-sided test.  sacreBLEU does not count ties, so that a model against itself has
    its smallest p; here they count, and it has 1.
    """
    size_MR = np.abs(found.resampled_MR)
    size_MR -= size_MR.mean(1, keepdims=True)
    bound_M = SAME * np.abs(found.measured_M)
    return share_of((size_MR >= bound_M[:, None]).sum(1), size_MR.shape[1])


def approximate_randomisation(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    metric: Metric,
    *,
    count: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """Two-sided approximate randomisation (Riezler and Maxwell 2005; sacreBLEU's `paired_ar`):
    p-values `[M]`.

    Each example's outputs of the mask and the base change places with probability 1/2, the same in
    each shuffle for all masks; p is the share of shuffles with at least the absolute difference
    that was measured, counted with (k + 1) / (R + 1).  sacreBLEU leaves ties out, which makes p of
    a metric with few values, such as accuracy, too small.
    """
    bootstrap.check_shapes(statistics_MNS, base_NS)
    bound_M = SAME * np.abs(bootstrap.measured(statistics_MNS, base_NS, metric))
    total_MS = totals(metric, statistics_MNS).astype(np.float64)
    base_S, hits_M = totals(metric, base_NS).astype(np.float64), np.zeros(len(bound_M), int)
    for swapped_RN in _shuffles(len(base_NS), count, seed):
        from_base_R1S = (swapped_RN @ base_NS)[:, None]
        for first, sums_RMS in bootstrap.sums(swapped_RN, statistics_MNS):
            some = slice(first, first + sums_RMS.shape[1])
            gained_RMS = sums_RMS - from_base_R1S
            change_RM = metric.score(total_MS[some] - gained_RMS)
            change_RM -= metric.score(base_S + gained_RMS)
            hits_M[some] += (np.abs(change_RM) >= bound_M[some]).sum(0)
    return share_of(hits_M, count)


def _shuffles(examples: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Which examples change places, some shuffles at a time `[R, N]`, float64."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, bootstrap.BLOCK):
        size = min(bootstrap.BLOCK, count - start), examples
        yield generator.integers(2, size=size, dtype=bool).astype(np.float64)


# --- right or wrong ------------------------------------------------------------------------------


def mcnemar(correct_MN: np.ndarray, base_N: np.ndarray, *, mid: bool = False) -> np.ndarray:
    """Exact two-sided McNemar test of each mask against the base: p-values `[M]`; 1 where no
    example changes sides.

    mid: its mid-p, of which half the probability of what was found is taken off each side; sharper,
    and not above its level in all that Fagerland et al. (2013) tried, though that is not proved.
    """
    lost_M, won_M = changed_sides(correct_MN, base_N)
    less_M, all_M = np.minimum(lost_M, won_M), lost_M + won_M
    p_M = np.minimum(1.0, 2 * scipy.stats.binom.cdf(less_M, all_M, 0.5))
    if mid:
        share_M = np.where(lost_M == won_M, 0.5, 1.0) * (all_M > 0)
        p_M -= share_M * scipy.stats.binom.pmf(less_M, all_M, 0.5)
    return p_M


def changed_sides(correct_MN: np.ndarray, base_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many examples the base alone has right, and how many each mask alone: `[M]` both."""
    return np.sum(~correct_MN & base_N, axis=-1), np.sum(correct_MN & ~base_N, axis=-1)


def paired_t(value_MN: np.ndarray, base_N: np.ndarray) -> np.ndarray:
    """Student's two-sided paired t-test of each example's values, such as right or wrong: p-values
    `[M]`; 1 where none changes."""
    change_MN = value_MN.astype(np.float64) - base_N
    count, mean_M = len(base_N), change_MN.mean(1)
    return _student(mean_M, np.sqrt(_variance(change_MN) / count), count - 1)


def unpaired_t(value_MN: np.ndarray, base_N: np.ndarray) -> np.ndarray:
    """Student's two-sided t-test of two samples, as if mask and base had been measured on different
    examples: p-values `[M]`.  Probably the paper's test of accuracy; blunter than `paired_t`."""
    value_MN, base_N = value_MN.astype(np.float64), base_N.astype(np.float64)
    count, mean_M = len(base_N), value_MN.mean(1) - base_N.mean()
    error_M = np.sqrt((_variance(value_MN) + _variance(base_N)) / count)
    return _student(mean_M, error_M, 2 * count - 2)


def _variance(values: np.ndarray) -> np.ndarray:
    variance: np.ndarray = values.var(-1) * (values.shape[-1] / max(values.shape[-1] - 1, 1))
    return variance


def _student(mean_M: np.ndarray, error_M: np.ndarray, freedom: int) -> np.ndarray:
    t_M = np.divide(np.abs(mean_M), error_M, out=np.full(len(mean_M), np.inf), where=error_M > 0)
    return np.where(mean_M == 0, 1.0, 2 * scipy.stats.t.sf(t_M, freedom))
