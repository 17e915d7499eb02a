"""Timing calls in turn, and what the times say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

LEAST = 0.05
"""Seconds that a side is timed for in a round: so many calls as that takes."""
DRAWS = 2000
"""Resamples of the rounds for an interval."""


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, least: float
) -> dict[str, list[list[float]]]:
    """Seconds of every single call of each side in each round.

    Each side has been called before, and in a round is called as often as the first side takes
    `least` seconds.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    first, passed, count = calls[next(iter(calls))], 0.0, 0
    while not count or passed < least:
        passed, count = passed + _seconds(first), count + 1
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: -1 if i % 2 else 1]:
            times[name].append([_seconds(calls[name]) for _ in range(count)])
    return times


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def ratio_of(
    original: Sequence[Sequence[float]], other: Sequence[Sequence[float]], seed: int
) -> dict[str, Any]:
    """How many times as fast as the original in the same round: median, its 95 % bootstrap interval
    over rounds, the rounds."""
    rounds_n = np.array([sum(a) / sum(b) for a, b in zip(original, other, strict=True)])
    draws = np.random.default_rng(seed).integers(0, len(rounds_n), (DRAWS, len(rounds_n)))
    low, high = np.quantile(np.median(rounds_n[draws], 1), [0.025, 0.975])
    return {
        "median": float(np.median(rounds_n)),
        "low": float(low),
        "high": float(high),
        "rounds": rounds_n.tolist(),
    }


def rates_of(times: Sequence[Sequence[float]], examples: int, tokens: int) -> dict[str, Any]:
    """Examples a second, of a pair tokens too: median of the rounds, and the rounds; milliseconds
    of single calls."""
    rates = [examples * len(calls) / sum(calls) for calls in times]
    singles = [1000 * seconds for calls in times for seconds in calls]
    found: dict[str, Any] = {"per_second": float(np.median(rates)), "per_second_rounds": rates}
    if tokens:
        found["tokens_per_second"] = found["per_second"] * tokens
    percentiles = np.percentile(singles, [50, 90, 99]).tolist()
    return found | {
        "milliseconds": dict(zip(("p50", "p90", "p99"), percentiles, strict=True))
        | {"calls": len(singles)}
    }
