"""What masks have in common: their distinct beginnings, found on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The distinct beginnings of G masks: those of one row more than the row before, in the order
    of what they begin with.

    A state after row r belongs to a beginning of r + 1 rows.  P = G + 1; only the first entries of
    an axis may be in use.
    """

    count_A: np.ndarray
    """Beginnings that there are before each stage."""
    first_AP: np.ndarray
    """Those with one row more which go on from beginning p are `first[p]` to `first[p + 1] - 1`."""
    mask_AG: np.ndarray
    """A mask that has each of them."""
    last_G: np.ndarray
    """Each mask's own, after the last stage."""


def plan(masks_MAH: np.ndarray, stages: int) -> Plan:
    """What `stages` rows of M masks have in common; A is the stages, G is M."""
    masks, place_M = len(masks_MAH), np.zeros(len(masks_MAH), int)
    count_A, first_AP, mask_AG = (
        np.zeros(stages, int),
        np.zeros((stages, masks + 1), int),
        np.zeros((stages, masks), int),
    )
    for row in range(stages):
        count_A[row] = place_M.max() + 1
        beginning_MH = np.concatenate([place_M[:, None], masks_MAH[:, row]], axis=1)
        _, first, after_M = np.unique(beginning_MH, axis=0, return_index=True, return_inverse=True)
        mask_AG[row, : len(first)] = first
        first_AP[row] = np.searchsorted(place_M[first], np.arange(masks + 1))
        place_M = after_M.reshape(-1)
    return Plan(*(part.astype(np.int32) for part in (count_A, first_AP, mask_AG, place_M)))
