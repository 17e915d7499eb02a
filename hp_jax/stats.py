"""Is a difference real?  Paired tests of each mask against the full model, from stored per-example
values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats


class Bootstrap(NamedTuple):
    """Differences mask - base in metric units, each `[M]`: as measured, the interval's two ends,
    and the two-sided p-value."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def resamples(examples: int, count: int, seed: int) -> np.ndarray:
    """How often each example is drawn in each of `count` resamples with replacement: `[R, N]`,
    float32."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(examples, np.full(examples, 1 / examples), size=count).astype(
        np.float32
    )


def paired_bootstrap(
    statistics_MNS: np.ndarray,
    base_NS: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    count: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Paired bootstrap (Koehn 2004; Efron and Tibshirani 1993, ch. 16) of `score(sums)` over the
    same resamples for all masks.

    `statistics_MNS` are each example's sufficient statistics, `score` maps sums `[..., S]` to the
    metric `[...]`. The interval is the percentile interval; p is twice the smaller tail of the
    resampled differences at 0, counted with (k + 1) / (R + 1).
    """
    if statistics_MNS.shape[1:] != base_NS.shape:
        raise ValueError(
            f"the masks' statistics have shape {statistics_MNS.shape[1:]}, but the base has "
            f"{base_NS.shape} (N, S)"
        )
    draws_RN = resamples(len(base_NS), count, seed)
    base_R = score(draws_RN @ base_NS.astype(np.float32))
    base = score(base_NS.sum(0, dtype=np.int64))
    rows = []
    for statistics_NS in statistics_MNS:
        difference_R = score(draws_RN @ statistics_NS.astype(np.float32)) - base_R
        low, high = np.quantile(difference_R, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(difference_R <= 0), np.sum(difference_R >= 0))
        p = min(1.0, 2 * (tail + 1) / (count + 1))
        rows.append((score(statistics_NS.sum(0, dtype=np.int64)) - base, low, high, p))
    return Bootstrap(*np.array(rows).reshape(-1, 4).T)


def mcnemar(correct_MN: np.ndarray, base_N: np.ndarray) -> np.ndarray:
    """Exact two-sided McNemar test of each mask against the base: p-values `[M]`; 1 where no
    example changes sides."""
    lost_M = np.sum(~correct_MN & base_N, axis=-1)
    won_M = np.sum(correct_MN & ~base_N, axis=-1)
    return np.minimum(
        1.0, 2 * scipy.stats.binom.cdf(np.minimum(lost_M, won_M), lost_M + won_M, 0.5)
    )
