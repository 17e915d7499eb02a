"""Batches of a data set that the core can take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from hp_jax.task import Array, Batch


def make_batches(arrays: Mapping[str, Array], size: int) -> list[dict[str, np.ndarray]]:
    """A data set as batches of `size` examples, in order; the last is filled up with padding.

    arrays: `{name: [N, ...]}`.  Each batch has `[size, ...]` of them, and `weight_B` and `index_B`.
    ValueError for arrays of different lengths or a size that is not positive.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or size < 1:
        raise ValueError(
            f"expected arrays of one length and a positive size, but the lengths are {lengths} and "
            f"the size is {size}"
        )
    (count,) = set(lengths.values())
    made = []
    for start in range(0, count, size):
        index_B = np.minimum(np.arange(start, start + size), count - 1).astype(np.int32)
        weight_B = (np.arange(start, start + size) < count).astype(np.float32)
        batch = {name: np.asarray(array)[index_B] for name, array in arrays.items()}
        made.append(batch | {"weight_B": weight_B, "index_B": index_B})
    return made


def weighted(batches: Iterable[Batch]) -> list[Batch]:
    """The batches with `weight_B` (ones) where they lack it; ValueError if there is none."""
    made: list[Batch] = [
        {"weight_B": np.ones(len(next(iter(batch.values()))), np.float32), **batch}
        for batch in batches
    ]
    if not made:
        raise ValueError("expected at least one batch, but there is none")
    return made


def numbered(batches: Iterable[Batch]) -> list[Batch]:
    """The batches of a whole data set, with `weight_B` (ones) and `index_B` (as they come) where
    they lack them.

    ValueError if there is none, or if the real examples' `index_B` are not 0 to N - 1, once each.
    """
    begun, whole = 0, list[Batch]()
    for given in weighted(batches):
        batch = dict(given)
        if "index_B" not in batch:
            real_B = np.asarray(batch["weight_B"]) > 0
            places_B = begun + np.cumsum(real_B) - 1
            batch["index_B"] = np.where(real_B, places_B, 0).astype(np.int32)
        begun += int(np.sum(np.asarray(batch["weight_B"]) > 0))
        whole.append(batch)
    index_N = np.concatenate(
        [np.asarray(batch["index_B"])[np.asarray(batch["weight_B"]) > 0] for batch in whole]
    )
    if not np.array_equal(np.sort(index_N), np.arange(len(index_N))):
        raise ValueError(
            f"index_B must number the {len(index_N)} examples of all batches from 0, once each, "
            f"but it runs from {index_N.min()} to {index_N.max()} with {len(np.unique(index_N))} "
            "different numbers"
        )
    return whole
