"""Iterative pruning: which heads are left after each step, under one order or another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from hp_jax.heads import Array, as_boolean, keep_top, living_heads, lowest_first

ScoreFn = Callable[[np.ndarray], Array]
"""Scores `[A, H]` of the heads of a mask `[A, H]`: higher is kept longer."""


def prune(
    score_fn: ScoreFn, mask_AH: Array, counts: Sequence[int], *, floor: int = 0
) -> np.ndarray:
    """The masks `[M, A, H]` with `counts[m]` of `mask_AH`'s living heads removed, least important
    first (section 4.2 of the paper).

    `score_fn` is asked before each step that removes something, at the mask reached so far: a
    function that looks at its argument re-estimates (the authors' --exact_pruning), one that does
    not is the paper's one-shot order. Dead heads never come back. The best `floor` heads of each
    row stay. ValueError for counts that fall or exceed the living heads, and for scores that are
    not finite.
    """
    living = len(living_heads(mask_AH))
    if any(later < earlier for earlier, later in itertools.pairwise([0, *counts])):
        raise ValueError(f"the numbers of heads removed must not fall, but got {list(counts)}")
    if counts and counts[-1] > living:
        raise ValueError(f"cannot remove {counts[-1]} heads: {living} are alive")
    on_AH = as_boolean(mask_AH)
    masks = []
    removed = 0
    for count in counts:
        if count > removed:
            score_AH = _finite(score_fn(on_AH), on_AH)
            on_AH = keep_top(on_AH, score_AH, living - count, floor=floor)
            removed = count
        masks.append(on_AH)
    return np.stack(masks) if masks else np.zeros((0, *np.shape(mask_AH)), bool)


def greedy_scores(
    without: Callable[[np.ndarray], Array], mask_AH: Array, *, floor: int = 0
) -> np.ndarray:
    """Scores `[A, H]` with which `prune` removes the living heads of `mask_AH` greedily: the place
    of each in the order in which they go, from 0; heads that cannot go (`may_go`) come last.

    `without(left_AH)` is the loss, or what else is to be small, without each head of the mask
    `left_AH` `[A, H]`; the next to go is the one with the least, of equal ones the lower (row,
    head).
    """
    left_AH, score_AH = as_boolean(mask_AH), np.zeros(np.shape(mask_AH))
    living = len(living_heads(left_AH))
    for place in range(living):
        may_AH = may_go(left_AH, floor)
        if not may_AH.any():
            score_AH[left_AH] = living
            break
        cost_AH = np.where(may_AH, without(left_AH), np.inf)
        head = np.unravel_index(np.argmin(cost_AH), cost_AH.shape)
        score_AH[head] = place
        left_AH = left_AH.copy()
        left_AH[head] = False
    return score_AH


def verified(
    predict: Callable[[np.ndarray], Array],
    measure: Callable[[np.ndarray], Array],
    proposals: int,
    *,
    floor: int = 0,
) -> Callable[[np.ndarray], np.ndarray]:
    """Propose and verify, for `greedy_scores`: of the heads of a mask that may go, those with the
    least `predict(left_AH)` `[A, H]`, `proposals` of them, are measured, the others count as
    infinitely bad.

    `measure(masks_MAH)` is the loss, or what else is to be small, under each of M masks `[M]`.
    """

    def without(left_AH: np.ndarray) -> np.ndarray:
        candidates = lowest_first(may_go(left_AH, floor), np.asarray(predict(left_AH)))[:proposals]
        place, cost_AH = tuple(np.array(candidates).T), np.full(left_AH.shape, np.inf)
        masks_MAH = np.repeat(left_AH[None], len(candidates), 0)
        masks_MAH[(np.arange(len(candidates)), *place)] = False
        cost_AH[place] = measure(masks_MAH)
        return cost_AH

    return without


def may_go(left_AH: np.ndarray, floor: int) -> np.ndarray:
    """The living heads of rows that have more than `floor` of them, as a mask."""
    return left_AH & (left_AH.sum(1, keepdims=True) > floor)


def _finite(score_AH: Array, mask_AH: np.ndarray) -> np.ndarray:
    score_AH = np.asarray(score_AH)
    if score_AH.shape != mask_AH.shape:
        raise ValueError(
            f"the scores have shape {score_AH.shape}, but the mask has shape {mask_AH.shape}"
        )
    bad = np.argwhere(mask_AH & ~np.isfinite(score_AH))
    if len(bad):
        row, head = bad[0].tolist()
        raise ValueError(
            f"the score of head {head} in row {row} is {score_AH[row, head]}, but a finite number "
            "was expected"
        )
    return score_AH


def oracle_scores(metric_M: np.ndarray, base: float, mask_AH: Array) -> np.ndarray:
    """The oracle order's scores `[A, H]`: what the metric loses without each head alone, as
    `one_off(mask_AH)` takes them."""
    living = living_heads(mask_AH)
    if len(metric_M) != len(living):
        raise ValueError(f"{len(living)} heads are alive, but {len(metric_M)} ablations were given")
    score_AH = np.zeros(np.shape(mask_AH))
    score_AH[tuple(np.array(living).T)] = base - np.asarray(metric_M, np.float64)
    return score_AH
