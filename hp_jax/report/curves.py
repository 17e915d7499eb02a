"""Pruning curves beside each other: the mean of the metric over the shares of heads removed, and
how much two curves differ in it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from hp_jax.metrics import worth
from hp_jax.report.comparison import Comparison
from hp_jax.report.html import Rows
from hp_jax.report.scale import ONE_SIDED
from hp_jax.report.tables import last_harmless
from hp_jax.stats import (
    Area,
    Differences,
    area_between,
    holm,
    mean_along,
    non_inferior,
    over_seeds,
)


@dataclasses.dataclass(frozen=True)
class Curve:
    """The metric of one model as heads go, or the mean of several models', which differ in their
    seed alone and are measured on the same examples at the same points."""

    by_seed: Mapping[int, Comparison]

    @property
    def first(self) -> Comparison:
        """That of one of them, which has what is alike."""
        return next(iter(self.by_seed.values()))

    @property
    def removed_M(self) -> np.ndarray:
        """Heads that are gone at each point."""
        removed_M: np.ndarray = (self.first.scope_AH & ~self.first.masks_MAH).sum((1, 2))
        return removed_M

    @property
    def share_M(self) -> np.ndarray:
        """Their share (%) of those in scope."""
        return 100 * self.removed_M / self.first.scope_AH.sum()

    @functools.cached_property
    def metric_M(self) -> np.ndarray:
        """The metric at each point."""
        return np.mean([comparison.metric_M for comparison in self.by_seed.values()], axis=0)

    @functools.cached_property
    def differences(self) -> Differences:
        """Its change against the full models, in the scale's unit; of several models from resamples
        of models and of examples."""
        found = [self.by_seed[seed].differences for seed in sorted(self.by_seed)]
        return found[0] if len(found) == 1 else over_seeds(found)

    @property
    def mean(self) -> float:
        """The metric, in the mean over the shares removed."""
        return mean_along(self.metric_M, self.share_M)

    def most_removed(self, tolerance: float) -> int | None:
        """The most heads that are shown to go without the metric being worse by this share of the
        full model's, tested step by step (`tables.removable`); None if that share is nothing."""
        margin = tolerance * abs(float(self.metric_M[0])) * self.first.scale.factor
        if not margin > 0:
            return None
        if len(self.by_seed) == 1:
            harmless_M = self.first.harmless_at(margin)
        else:
            worse = Differences(*(-worth(self.first.metric, part) for part in self.differences))
            harmless_M = non_inferior(worse, margin).p <= ONE_SIDED
        return int(self.removed_M[last_harmless(harmless_M, self.removed_M)])

    def comparable(self, other: Curve) -> bool:
        """Whether two curves have the same models, examples, heads in scope and points, from the
        full model on to fewer and fewer heads."""
        removed_M = self.removed_M
        return (
            self.first.full is not None
            and self._of == other._of
            and bool((np.diff(removed_M) >= 0).all())
            and 0 == removed_M[0] < removed_M[-1]
        )

    @property
    def _of(self) -> list[object]:
        """What two curves that are compared have in common."""
        models = [
            (seed, comparison.full, *map(comparison.manifest["fingerprint"].get, ("model", "data")))
            for seed, comparison in sorted(self.by_seed.items())
        ]
        return [models, self.first.scope_AH.tolist(), self.removed_M.tolist()]


class Between(NamedTuple):
    """How much one curve differs from another."""

    order: str
    other: str
    area: Area
    corrected: float = math.nan
    """p, corrected for the number of curves that are compared with the same other."""


def between_all(curves: Mapping[str, Curve]) -> list[Between]:
    """Every two of the curves, by name, that can be compared."""
    return _between(curves, itertools.combinations(curves, 2))


def beside(curves: Mapping[str, Curve], other: str, names: Iterable[str]) -> list[Between]:
    """Each of the curves with these names beside one other, where they can be compared; p is
    corrected for their number by Holm's method."""
    found = _between(curves, [(name, other) for name in names if name != other])
    adjusted = holm(np.array([one.area.p for one in found]))
    return [one._replace(corrected=float(p)) for one, p in zip(found, adjusted, strict=True)]


def _between(curves: Mapping[str, Curve], pairs: Iterable[tuple[str, str]]) -> list[Between]:
    return [
        Between(*pair, area_between(one.differences, other.differences, one.share_M))
        for pair in pairs
        for one, other in [(curves[pair[0]], curves[pair[1]])]
        if one.comparable(other)
    ]


def as_rows(found: Iterable[Between]) -> Rows:
    """Lines of a table; the corrected p where it is known."""
    return [
        {"order": one.order, "other": one.other, "area": one.area.value}
        | {"low": one.area.low, "high": one.area.high, "p_area": one.area.p}
        | ({} if math.isnan(one.corrected) else {"p_corrected": one.corrected})
        for one in found
    ]
